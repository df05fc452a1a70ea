"""Who may take calls now, and how much: from members, health and localities to the input of a view."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from ..config import Config
from ..endpoints import Candidate, EndpointSet, Member, State, balanced_weights, ramps
from ..health import Standing, choose, standing
from ..native import Slot, View
from ..types import Health, Resolution, Verdict

LEAST_WEIGHT = 1e-9
"""Of the largest. What gets less than one call in a billion may as well get that."""


class Selection(NamedTuple):
    """The slots of those who may take calls, and a weight for each."""

    slots: list[Slot]
    weights: list[float]
    in_panic: bool
    """Whether so many are unusable that health is not believed."""


def select(endpoints: EndpointSet, resolution: Resolution, config: Config, is_plain: bool, now_s: float) -> Selection:
    """Choose among the ready members by what is known of their health, and weigh them by priority and zone.

    `is_plain` tells that nothing sets one endpoint apart from another but its weight, which saves looking at each;
    `now_s` is the time on the event loop's clock.
    """
    members = list(endpoints.members())
    ready, share = State.READY, endpoints.share  # looked up once: there may be ten thousand members
    if is_plain:
        able = [member for member in members if member.state is ready]
        weights = [one.endpoint.weight for one in able]
        return Selection([one.slot for one in able], weights if share == 1 else [w * share for w in weights], False)
    standings = [_standing(member) for member in members]
    chosen, in_panic = choose(standings, config.panic_threshold)
    candidates = [Candidate(member.endpoint, usable) for member, usable in zip(members, chosen, strict=True)]
    home = "" if in_panic else config.locality.zone
    least = config.locality.min_endpoints * config.connection.per_endpoint
    weights = balanced_weights(candidates, resolution.locality_weights, home, least)
    if config.slow_start.window_s and not in_panic:
        ages = [(now_s - member.came_s, member.jitter) for member in members]
        weights = [weight * part for weight, part in zip(weights, ramps(ages, config.slow_start), strict=True)]
    weighed = [(member.slot, weight * share) for member, weight in zip(members, weights, strict=True) if weight > 0]
    return Selection([slot for slot, _ in weighed], [weight for _, weight in weighed], in_panic)


def is_plain(resolution: Resolution, config: Config) -> bool:
    """Tell whether nothing can set one endpoint apart from another but its weight, which saves looking at each."""
    healths = [endpoint.health for endpoint in resolution.endpoints]
    priorities = [endpoint.priority for endpoint in resolution.endpoints]
    return not (
        config.locality.zone
        or config.slow_start.window_s
        or config.health.service is not None
        or resolution.locality_weights
        or healths.count(Health.UNKNOWN) < len(healths)
        or any(priorities)
    )


def view_of(selection: Selection, roster: Iterable[tuple[str, float, int]] | None = None) -> View:
    """Make the view of a selection that is not empty; `roster` for policies that go by names."""
    try:
        return View(selection.slots, selection.weights, roster)
    except ValueError:  # rare enough not to be looked for each time among ten thousand
        return View(selection.slots, tame(selection.weights), roster)


def tame(weights: list[float]) -> list[float]:
    """Return weights that a view takes, whatever came of multiplying them: none is 0 or infinite."""
    largest = max((weight for weight in weights if weight < math.inf), default=1.0) or 1.0
    return [max(LEAST_WEIGHT, min(1.0, weight / largest)) for weight in weights]


def standing_of(member: Member, is_ejected: bool = False) -> Standing | None:
    """Return where a member stands by what all say of it, its calls perhaps too; None if it is not connected."""
    if member.state is State.READY and member.is_trusted:
        return standing(member.endpoint.health, member.verdict, is_ejected)
    return None


def _standing(member: Member) -> Standing | None:
    """Return where a member stands for new calls; None if it can take none."""
    there = standing_of(member, member.is_ejected)
    if there is not None:
        return there
    # One on its way is worth waiting for, if it will be usable; else a poor one that connects sooner would be taken.
    is_coming = member.state in (State.CONNECTING, State.IDLE) and not member.is_ejected
    awaited = standing(member.endpoint.health, Verdict.PENDING) if is_coming else None
    return awaited if awaited is Standing.PENDING else None
