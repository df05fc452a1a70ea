"""Where the endpoints of a balancer come from: from the target that the user gave to a resolver."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from ..config import Config
from ..errors import ConfigError
from ..resolve import Resolver, parse_target, resolver_for
from ..resolve.static import EndpointLike, StaticResolver

TargetLike: TypeAlias = str | Iterable[EndpointLike] | Resolver
"""A gRPC target string, a list of endpoints, or an object that finds them."""


def source_of(target: TargetLike, config: Config) -> tuple[str, Resolver]:
    """Return the name of a target, and its resolver.

    Raises:
        ConfigError: it is neither a target, nor a list of endpoints, nor a resolver.
    """
    if isinstance(target, str):
        return target, resolver_for(parse_target(target), config)
    if isinstance(target, Resolver):
        return f"{type(target).__name__}:{target.authority or ''}", target
    if not isinstance(target, Iterable):
        kind = type(target).__name__
        raise ConfigError(f"target: expected a string, a list of endpoints or a resolver, got {kind}: {target!r}")
    resolver = StaticResolver(target)
    return "static:" + ",".join(str(endpoint.address) for endpoint in resolver.endpoints), resolver
