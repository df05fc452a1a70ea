"""How is an endpoint chosen?

Entry point: `parse_policy`. Each policy is one module and one shape: a frozen struct that is its configuration, with
`name` as gRPC's service config spells it where it has the policy, and `build`, which makes a compiled picker for one
view. A policy keeps no state of its own: what endpoints are like is in their slots. Read `p2c_ewma.py` first.
"""

from __future__ import annotations

from typing import ClassVar, Protocol, runtime_checkable

from ..config import parse_struct
from ..errors import ConfigError
from ..native import Picker, View
from .least_request import LeastRequest
from .p2c_ewma import P2cEwma
from .random import Random
from .round_robin import RoundRobin

__all__ = ["POLICIES", "LeastRequest", "P2cEwma", "Policy", "Random", "RoundRobin", "parse_policy"]


@runtime_checkable
class Policy(Protocol):
    """A way to choose; anything of this shape can be given as `policy=`."""

    name: ClassVar[str]

    @property
    def decay_s(self) -> float:
        """Mean lifetime of a latency sample in seconds."""

    def build(self, view: View, seed: int) -> Picker:
        """Make the picker of one view."""


POLICIES: dict[str, type[P2cEwma] | type[LeastRequest] | type[RoundRobin] | type[Random]] = {
    kind.name: kind for kind in (P2cEwma, LeastRequest, RoundRobin, Random)
}


def parse_policy(raw: Policy | str | None) -> Policy:
    """Turn what a user gave into a policy: an object of the shape, a name, or None for the default.

    Raises:
        ConfigError: the name is unknown, the object is no policy, or one of its options is out of range.
    """
    if raw is None:
        return P2cEwma()
    if isinstance(raw, str):
        if raw not in POLICIES:
            raise ConfigError(f"policy: {raw!r} is unknown; known are {', '.join(sorted(POLICIES))}")
        return POLICIES[raw]()
    if isinstance(raw, (P2cEwma, LeastRequest, RoundRobin, Random)):
        # Struct constructors do not check constraints, so a policy made by hand is read like any other input.
        return parse_struct(type(raw), raw, f"policy {raw.name}")
    if isinstance(raw, type) or not isinstance(raw, Policy):
        raise ConfigError(f"policy: {raw!r} is no policy; give a name or an object such as RoundRobin()")
    return raw
