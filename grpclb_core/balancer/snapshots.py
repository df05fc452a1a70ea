"""What a balancer tells of its endpoints: the members of a set as plain values."""

from __future__ import annotations

from ..endpoints import EndpointSet, Member
from ..native import now_ns
from ..observe import EndpointSnapshot


def snapshots_of(endpoints: EndpointSet, decay_s: float) -> tuple[EndpointSnapshot, ...]:
    """Return how the members stand at this moment, those on their way out included.

    `decay_s` is the mean lifetime of a latency sample.
    """
    now = now_ns()
    return tuple(_snapshot(member, now, decay_s) for member in (*endpoints.members(), *endpoints.draining()))


def _snapshot(member: Member, now: int, decay_s: float) -> EndpointSnapshot:
    slot, connection = member.slot, member.connection
    return EndpointSnapshot(
        address=str(member.endpoint.address),
        weight=member.endpoint.weight,
        state=member.state.value,
        priority=member.endpoint.priority,
        zone=member.endpoint.locality.zone,
        health=member.endpoint.health.value,
        verdict=member.verdict.value,
        is_ejected=member.is_ejected,
        is_on_trial=slot.is_on_trial,
        outlier_reason=member.outlier_reason,
        in_flight=slot.in_flight,
        streams=slot.streams,
        picks=slot.picks,
        successes=slot.successes,
        failures=slot.failures,
        unjudged=slot.unjudged,
        latency_s=None if slot.is_newcomer else slot.latency_ns_at(now, decay_s) * 1e-9,
        in_flight_age_s=slot.age_ns_at(now) * 1e-9,
        reported_weight=slot.reported_weight or None,
        ignored_reports=slot.ignored_reports,
        connection_error=connection.last_error,
    )
