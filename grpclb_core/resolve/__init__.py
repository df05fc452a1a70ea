"""Where do endpoints come from?

Entry point: `resolver_for(parse_target(text), config)`. Read `target.py` first (what a target says), then
`static.py`, the smallest resolver there is. A resolver pushes the full set, or an error, into a `Sink`; it knows
nothing of connections, and never takes a set back because a lookup failed.

Each kind of resolver is one module with a frozen config in `config.py`, pure functions that read what the source
says, and `make_resolver`; it keeps the contract of tests/resolve/test_contract.py. Third parties add kinds through
the entry point group of `schemes.py`.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from ..config import Config
from ..errors import ResolutionError
from ..types import Resolution
from .schemes import factory_of
from .target import Target, parse_target, problems_of

__all__ = ["Resolver", "Sink", "Target", "parse_target", "resolver_for"]


class Sink(Protocol):
    """What a resolver reports to."""

    def update(self, resolution: Resolution) -> None:
        """Take the full set of endpoints as it is now."""

    def fail(self, error: ResolutionError) -> None:
        """Take note that a lookup failed; the last set stays."""


@runtime_checkable
class Resolver(Protocol):
    """A source of endpoints; anything of this shape can be given in place of a target."""

    authority: str | None
    """What calls carry as `:authority`, its host being the TLS name; None means each endpoint's own address."""

    async def run(self, sink: Sink) -> None:
        """Report to `sink` until cancelled, or return once nothing more will ever change."""

    def refresh(self) -> None:
        """Ask to look again as soon as the source's own pace allows, because a connection broke."""


def resolver_for(target: Target, config: Config) -> Resolver:
    """Make the resolver that a target calls for.

    Raises:
        TargetError: a part of the target cannot be used, one problem for each; or what its resolver needs is missing.
    """
    with problems_of(target.text):
        resolver: Resolver = factory_of(target.scheme)(target, config)
    return resolver
