"""Who may take calls now, and how much: from members, health and localities to the input of a view."""

from __future__ import annotations

from typing import NamedTuple

from .config import Config
from .endpoints import Candidate, EndpointSet, State, balanced_weights
from .native import Slot
from .types import Health, Resolution, Verdict


class Selection(NamedTuple):
    """The slots of those who may take calls, and a weight for each."""

    slots: list[Slot]
    weights: list[float]
    in_panic: bool
    """Whether so many are unusable that health is not believed."""


def select(endpoints: EndpointSet, resolution: Resolution, config: Config, is_plain: bool) -> Selection:
    """Choose among the ready members by what is known of their health, and weigh them by priority and zone.

    `is_plain` is what the function of that name said of the resolution.
    """
    members = list(endpoints.members())
    ready, share = State.READY, endpoints.share  # looked up once: there may be ten thousand members
    if is_plain:
        able = [member for member in members if member.state is ready]
        return Selection([one.slot for one in able], [one.endpoint.weight * share for one in able], False)
    healthy = [is_usable(member.endpoint.health, member.verdict) for member in members]
    in_panic = is_panic(healthy, config.panic_threshold)
    trusted = healthy if not in_panic else [member.endpoint.health is not Health.DRAINING for member in members]
    candidates = [
        Candidate(member.endpoint, trust and member.state is ready)
        for member, trust in zip(members, trusted, strict=True)
    ]
    if not any(candidate.usable for candidate in candidates):
        # Better one that is said to be leaving or unwell than a call that fails, unless a better one is on its way.
        hope = any(trust and one.state is not State.FAILING for one, trust in zip(members, trusted, strict=True))
        if not hope:
            candidates = [Candidate(member.endpoint, member.state is ready) for member in members]
    home = "" if in_panic else config.locality.zone
    weights = balanced_weights(candidates, resolution.locality_weights, home, config.locality.min_endpoints)
    chosen = [(member.slot, weight) for member, weight in zip(members, weights, strict=True) if weight > 0]
    return Selection([slot for slot, _ in chosen], [weight for _, weight in chosen], in_panic)


def is_plain(resolution: Resolution, config: Config) -> bool:
    """Tell whether nothing can set one endpoint apart from another but its weight, which saves looking at each."""
    healths = [endpoint.health for endpoint in resolution.endpoints]
    return not (
        config.locality.zone
        or resolution.locality_weights
        or healths.count(Health.UNKNOWN) < len(healths)
        or any(endpoint.priority for endpoint in resolution.endpoints)
    )


def is_usable(health: Health, verdict: Verdict) -> bool:
    return health in (Health.UNKNOWN, Health.HEALTHY) and verdict is not Verdict.NOT_SERVING


def is_panic(healthy: list[bool], threshold: float) -> bool:
    return bool(healthy) and sum(healthy) / len(healthy) < threshold
