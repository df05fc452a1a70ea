"""The state of a balancer at one moment."""

from __future__ import annotations

import msgspec


class EndpointSnapshot(msgspec.Struct, frozen=True):
    """One endpoint; the counters run from the time it was first seen."""

    address: str
    weight: float
    state: str
    """Connectivity as gRPC names it, in lower case."""
    in_flight: int
    streams: int
    picks: int
    successes: int
    failures: int
    unjudged: int
    latency_s: float | None
    """Peak-EWMA latency faded to now; None while no timed call was answered."""
    in_flight_age_s: float
    """Mean age of the open timed calls."""
    connection_error: str | None
    """What the last failed attempt to connect said, as far as a call has asked."""


class BalancerSnapshot(msgspec.Struct, frozen=True):
    """One balancer with all its endpoints."""

    target: str
    policy: str
    state: str
    resolver_error: str | None
    """The last lookup's fault; None while the last lookup succeeded."""
    endpoints: tuple[EndpointSnapshot, ...]
