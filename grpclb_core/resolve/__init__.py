"""Where do endpoints come from?

Entry point: `resolver_for(parse_target(text), config)`. Read `target.py` first (what a target says), then
`static.py`, the smallest resolver there is. A resolver pushes the full set, or an error, into a `Sink`; it knows
nothing of connections, and never takes a set back because a lookup failed.
"""

from __future__ import annotations

from typing import Protocol

from ..config import Config
from ..errors import ResolutionError
from ..types import Resolution
from .static import NoResolver, StaticResolver
from .target import Target, parse_target

__all__ = ["Resolver", "Sink", "Target", "parse_target", "resolver_for"]


class Sink(Protocol):
    """What a resolver reports to."""

    def update(self, resolution: Resolution) -> None:
        """Take the full set of endpoints as it is now."""

    def fail(self, error: ResolutionError) -> None:
        """Take note that a lookup failed; the last set stays."""


class Resolver(Protocol):
    """A source of endpoints."""

    async def run(self, sink: Sink) -> None:
        """Report to `sink` until cancelled, or return once nothing more will ever change."""

    def refresh(self) -> None:
        """Ask to look again as soon as the source's own pace allows, because a connection broke."""


def resolver_for(target: Target, config: Config) -> Resolver:
    """Make the resolver that a target calls for."""
    if target.addresses:
        return StaticResolver(target.addresses)
    if "/" in target.host:
        return NoResolver(f"{target.host!r} is no host name; write host:port, or unix:/path/of.sock for a socket")
    from .dns import DnsResolver  # dnspython takes long to import, and only a name has need of it

    return DnsResolver(target, config.dns)
