"""The parts of a scenario: servers, what can be wrong with them, who comes and goes, and how much is asked."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

from ..errors import ConfigError
from .service import Service

Seconds = Annotated[float, msgspec.Meta(ge=0, le=86_400)]
PositiveSeconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
Share = Annotated[float, msgspec.Meta(gt=0, le=1)]
Factor = Annotated[float, msgspec.Meta(ge=1, le=1_000_000)]
Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Index = Annotated[int, msgspec.Meta(ge=0)]
# A pattern belongs here, were it not that msgspec 0.22 frees such a union of a union twice, when the process ends.
Which: TypeAlias = tuple[Index, ...] | str
"""Servers by their numbers, or as a slice of all of them in Python's spelling: `0:10`, `::100`."""


class Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Servers that are alike."""

    service: Service
    count: Count = 1
    slots: Count = 8
    """Calls that one server works on at a time; those beyond wait their turn."""
    speed: Annotated[float, msgspec.Meta(ge=0.001, le=1000)] = 1.0
    """How fast the servers are; work takes its time divided by this."""
    joins_s: Seconds = 0.0
    """When the clients learn of them."""
    cold_calls: Annotated[int, msgspec.Meta(ge=0)] = 0
    """How many calls a server needs to get warm, each time it joins."""
    cold_factor: Factor = 1.0
    """How many times longer each of those takes."""


# What can be wrong with servers


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Something that is wrong with some servers for a while; without `until_s`, to the end."""

    servers: Which
    from_s: Seconds
    until_s: PositiveSeconds | None = None


class Slow(Fault, frozen=True, tag="slow"):
    """Calls that start take `factor` times as long and `added_s` more."""

    factor: Annotated[float, msgspec.Meta(ge=0.001, le=1_000_000)] = 1.0
    added_s: Seconds = 0.0


class Warming(Fault, frozen=True, tag="warming"):
    """Calls take up to `factor` times as long, less as time goes by: finagle's `LatencyProfile.warmup`."""

    factor: Factor = 5.0


class Hang(Fault, frozen=True, tag="hang"):
    """Nothing is answered; what came in meanwhile is worked off afterwards."""


class Fail(Fault, frozen=True, tag="fail"):
    """A share of the calls fails after a short while, and takes no room on the server."""

    share: Share = 1.0
    after_s: Annotated[float, msgspec.Meta(ge=0.0001, le=3600)] = 0.001
    status: Literal["UNAVAILABLE", "INTERNAL", "RESOURCE_EXHAUSTED"] = "UNAVAILABLE"


class Antagonist(Fault, frozen=True, tag="antagonist"):
    """Somebody else on the same machine: the server is slower for random times, each server for times of its own."""

    factor: Factor
    mean_on_s: PositiveSeconds
    mean_off_s: PositiveSeconds


class Pauses(Fault, frozen=True, tag="pauses"):
    """The whole server stands still for `for_s` at a time, as in garbage collection, `every_s` on average."""

    every_s: PositiveSeconds
    for_s: PositiveSeconds


# Who is in the set


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="change"):
    """Servers leave the set of the clients, or come back; those who left finish what they have."""

    at_s: Seconds
    remove: Which = ()
    add: Which = ()
    renewed: bool = True
    """Whether those who come back are others under the same number: at another address, cold, and without a past."""


class Deploy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="deploy"):
    """Every server in turn is replaced: `batch` at a time leave, and come back renewed `down_s` later."""

    from_s: Seconds
    every_s: PositiveSeconds
    down_s: PositiveSeconds
    batch: Count = 1


class Churn(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="churn"):
    """Every `every_s` a random server leaves, and comes back with its past `down_s` later."""

    from_s: Seconds
    every_s: PositiveSeconds
    down_s: PositiveSeconds


class ClockStep(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the clock of the clients does wrong at a time: it jumps by `by_s`, or stands still for `still_s`.

    A clock that stood still goes on where it stood, so it is behind from then on.
    """

    at_s: Seconds
    by_s: Annotated[float, msgspec.Meta(ge=-86_400, le=86_400)] = 0.0
    still_s: Seconds = 0.0


# How much is asked


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How much all clients together ask from a moment on: calls a second, or a share of what the servers can do.

    Raises:
        ConfigError: both are given, or neither.
    """

    from_s: Seconds = 0.0
    calls_per_s: Annotated[float, msgspec.Meta(gt=0, le=1e7)] | None = None
    of_capacity: Annotated[float, msgspec.Meta(gt=0, le=100)] | None = None

    def __post_init__(self) -> None:
        if (self.calls_per_s is None) == (self.of_capacity is None):
            raise ConfigError("give either calls_per_s or of_capacity")


class Streams(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which share of the calls are streams, and how long they last. They take no room among the slots of a server."""

    share: Share
    lasts: Service


# What is to come of it


class Goal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a policy is to reach: the mean of a figure over the seeds is no more than this."""

    policy: str = "p2c_ewma"
    figure: str
    """A name of `Figures`, or `p99_over_healthy`."""
    most: float
    times: str | None = None
    """Another policy: `most` is in units of what that one comes to."""


AnyFault: TypeAlias = Slow | Warming | Hang | Fail | Antagonist | Pauses
AnyChange: TypeAlias = Change | Deploy | Churn
