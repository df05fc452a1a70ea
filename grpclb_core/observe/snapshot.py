"""The state of a balancer at one moment."""

from __future__ import annotations

import msgspec


class EndpointSnapshot(msgspec.Struct, frozen=True):
    """One endpoint; the counters run from the time it was first seen."""

    address: str
    weight: float
    state: str
    """Where it stands in its life: connecting, ready, idle, failing or draining."""
    priority: int
    zone: str
    health: str
    """What the source of endpoints says of it."""
    verdict: str
    """What active checking says of it."""
    is_ejected: bool
    """Whether it gets no calls, because those it had failed; in panic it does."""
    is_on_trial: bool
    """Whether it gets one call at a time, until it has answered one well."""
    outlier_reason: str | None
    """Why it is ejected or on trial; None while it is neither."""
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
    reported_weight: float | None
    """What its load reports make its share of the calls; None if they make none."""
    ignored_reports: int
    """Load reports that could not be believed."""
    connection_error: str | None
    """What the last failed attempt to connect said, as far as a call has asked."""


class BalancerSnapshot(msgspec.Struct, frozen=True):
    """One balancer with all its endpoints."""

    target: str
    policy: str
    state: str
    resolver_error: str | None
    """The last lookup's fault; None while the last lookup succeeded."""
    service_config_error: str | None
    """Why the last service config of the resolver is not in use; None if it is, or there is none."""
    known: int
    """How many endpoints the source lists; of a large set, only a part is connected to."""
    in_panic: bool
    """Whether so many endpoints are unwell that health is not believed."""
    panics: int
    """How often that began."""
    ejections: int
    """How often an endpoint was ejected, those included that failed their trial."""
    readmissions: int
    """How often one was let in again."""
    endpoints: tuple[EndpointSnapshot, ...]
    """Those connected to, and those that left and still have a connection."""

    @property
    def coverage(self) -> float:
        """The share of the listed endpoints that this client connects to; 1 if there are none."""
        connected = {endpoint.address for endpoint in self.endpoints if endpoint.state != "draining"}
        return min(1.0, len(connected) / self.known) if self.known else 1.0
