"""Which resolver a scheme stands for: our own, and those that other distributions bring."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from ..errors import ConfigError

Factory = Callable[..., Any]
"""Makes a resolver of a `Target` and a `Config`; called `make_resolver` in the modules of this room."""

ENTRY_POINTS = "grpclb_core.resolvers"
"""Group in which another distribution names its factories, each under its scheme."""

# By module, imported on first use: dnspython, for one, takes long to import, and only a name has need of it.
MODULES = {
    "dns": "dns",
    "ipv4": "static",
    "ipv6": "static",
    "unix": "static",
    "unix-abstract": "static",
}


def known_schemes() -> list[str]:
    """Return every scheme that a target may have, ours first."""
    return [*MODULES, *sorted(point.name for point in entry_points(group=ENTRY_POINTS) if point.name not in MODULES)]


def factory_of(scheme: str) -> Factory:
    """Return what makes the resolvers of a scheme, one of `known_schemes()`.

    Raises:
        ConfigError: another distribution offers one that cannot be loaded.
    """
    if scheme in MODULES:
        factory: Factory = import_module(f"{__package__}.{MODULES[scheme]}").make_resolver
        return factory
    (point, *_) = entry_points(group=ENTRY_POINTS, name=scheme)
    try:
        loaded: Factory = point.load()
    except Exception as error:
        raise ConfigError(
            f"the resolver of {scheme}: cannot be loaded from {point.value} ({type(error).__name__}: {error}); "
            "repair or remove the distribution that offers it"
        ) from error
    return loaded
