"""How is an endpoint chosen?

Entry point: `parse_policy`. Each policy is one module and one shape: a frozen struct that is its configuration, with
`name` as gRPC's service config spells it where it has the policy, and `build`, which makes a compiled picker for one
view. A policy keeps no state of its own: what endpoints are like is in their slots. Read `p2c_ewma.py` first.
"""

from __future__ import annotations

from typing import ClassVar, Protocol, TypeAlias, TypeGuard, get_args, runtime_checkable

from ..config import parse_struct
from ..errors import ConfigError
from ..native import Picker, Slot, View
from ..types import LoadReport
from .least_request import LeastRequest
from .p2c_ewma import P2cEwma
from .pick_first import PickFirst
from .prequal import Prequal
from .random import Random
from .ring_hash import RingHash
from .round_robin import RoundRobin
from .weighted_round_robin import WeightedRoundRobin

__all__ = [
    "POLICIES",
    "BuiltIn",
    "ConnectsToOne",
    "LeastRequest",
    "P2cEwma",
    "PickFirst",
    "Policy",
    "Prequal",
    "Random",
    "RingHash",
    "RoundRobin",
    "TakesReports",
    "WantsProbes",
    "WeightedRoundRobin",
    "connects_to_one",
    "goes_by_name",
    "parse_policy",
    "rebuild_s",
    "takes_reports",
    "wants_probes",
    "wants_report",
]


@runtime_checkable
class Policy(Protocol):
    """A way to choose; anything of this shape can be given as `policy=`."""

    name: ClassVar[str]

    @property
    def decay_s(self) -> float:
        """Mean lifetime of a latency sample in seconds."""

    def build(self, view: View, seed: int, now_ns: int) -> Picker:
        """Make the picker of one view at the time `now_ns`, on the clock of its slots."""


class TakesReports(Protocol):
    """What a policy has besides if it goes by what servers say of their load."""

    @property
    def oob_period_s(self) -> float | None:
        """How often endpoints are asked for a report beside the calls, in seconds; None if they are not."""

    def observe(self, report: LoadReport, slot: Slot, now_ns: int) -> None:
        """Take in a report that came at `now_ns`."""


def takes_reports(policy: Policy) -> TypeGuard[TakesReports]:
    """Tell whether a policy goes by load reports."""
    return hasattr(policy, "observe")


def wants_report(policy: Policy, slot: Slot, now_ns: int) -> bool:
    """Tell whether a policy would go by a report that comes with a call: its `wants` may turn away what is too much.

    Reports out of band are not asked about: they are few, and were wished for.
    """
    wants = getattr(policy, "wants", None)
    return takes_reports(policy) and (wants is None or wants(slot, now_ns))


class WantsProbes(Protocol):
    """What a policy has besides if endpoints that are not heard of are to be asked for a report."""

    @property
    def probe_rate(self) -> float:
        """How many are asked for each call."""

    @property
    def probe_after_s(self) -> float:
        """Who was not heard of for so long may be asked."""

    @property
    def idle_probes_per_s(self) -> float:
        """How many are asked each second without any call."""

    @property
    def sync_probes(self) -> int:
        """How many are asked by a call that finds no two fresh reports; below 2 for none."""


def wants_probes(policy: Policy) -> TypeGuard[WantsProbes]:
    """Tell whether a policy wants endpoints asked."""
    return hasattr(policy, "probe_rate")


class ConnectsToOne(Protocol):
    """What a policy has besides if all its calls go to one endpoint, and it wants no connection to another."""

    @property
    def shuffle_address_list(self) -> bool:
        """Whether this client draws an order of its own."""

    @property
    def attempt_delay_s(self) -> float:
        """How long an endpoint may take to be connected to before the next one is tried, in seconds."""


def connects_to_one(policy: object) -> TypeGuard[ConnectsToOne]:
    """Tell whether a policy wants one connection only."""
    return hasattr(policy, "attempt_delay_s")


def goes_by_name(policy: Policy) -> bool:
    """Tell whether a policy needs the names of endpoints, those that can take no call included: `View.roster`."""
    return bool(getattr(policy, "goes_by_name", False))


def rebuild_s(policy: Policy) -> float | None:
    """Return how often the policy wants its picker built anew, in seconds; None if only when the endpoints change."""
    every_s: float | None = getattr(policy, "rebuild_s", None)
    return every_s


BuiltIn: TypeAlias = P2cEwma | LeastRequest | RoundRobin | WeightedRoundRobin | Random | RingHash | PickFirst | Prequal
"""The policies of this package."""

POLICIES: dict[str, type[BuiltIn]] = {kind.name: kind for kind in get_args(BuiltIn)}


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
    if isinstance(raw, BuiltIn):
        # Struct constructors do not check constraints, so a policy made by hand is read like any other input.
        return parse_struct(type(raw), raw, f"policy {raw.name}")
    if isinstance(raw, type) or not isinstance(raw, Policy):
        raise ConfigError(f"policy: {raw!r} is no policy; give a name or an object such as RoundRobin()")
    return raw
