"""Endpoints on a manual clock: nothing here sleeps, and nothing reads the time."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence

from grpclb_core.native import Picker, RoundRobinPicker, Slot, Ticket, View
from grpclb_core.types import Outcome

MICROSECOND = 1_000
MILLISECOND = 1_000_000
SECOND = 1_000_000_000
START = 1_000 * SECOND  # any moment after 0 will do

# How the statistical tests speak: 99.9 % of fair pickers pass, whatever their seed. As seeds are fixed here, a test
# passes always or never, and a change of the draws has one chance in a thousand to fail it innocently.

# 99.9 % of chi-square values lie below this, by degrees of freedom (quantiles of the distribution, any table has them).
CHI_SQUARE_999 = {1: 10.828, 2: 13.816, 3: 16.266, 4: 18.467, 5: 20.515, 7: 24.322, 19: 43.820, 41: 74.745, 63: 103.442}

# 99.9 % of normal values lie within so many standard deviations.
NORMAL_999 = 3.291


def chi_square(counts: Sequence[int], weights: Sequence[float] | None = None) -> float:
    """Return how far counts stray from being as the weights, or all equal; their number less one is the freedom."""
    if weights is None:
        weights = [1.0] * len(counts)
    unit = sum(counts) / math.fsum(weights)
    return sum((count - unit * weight) ** 2 / (unit * weight) for count, weight in zip(counts, weights, strict=True))


def is_share(hits: int, draws: int, expected: float) -> bool:
    """Tell whether `hits` of `draws` fits a chance of `expected`, with 99.9 % confidence."""
    spread = (draws * expected * (1 - expected)) ** 0.5
    return abs(hits - draws * expected) <= NORMAL_999 * spread


def new_slots(count: int) -> list[Slot]:
    return [Slot() for _ in range(count)]


def only(slot: Slot, decay_s: float = 10.0) -> Picker:
    """A picker that has no choice: the way to open a ticket on one endpoint."""
    return RoundRobinPicker(View([slot]), decay_s=decay_s, seed=0)


def answer(slot: Slot, latency_ns: int, now_ns: int = START, outcome: Outcome = Outcome.SUCCESS) -> None:
    """Have an endpoint end one call at the time `now_ns`, `latency_ns` after it was sent."""
    only(slot).pick_at(now_ns - latency_ns).finish_at(outcome, now_ns)


def hold(slot: Slot, count: int, now_ns: int = START) -> list[Ticket]:
    """Open so many calls on an endpoint, for as long as the tickets are kept."""
    picker = only(slot)
    return [picker.pick_at(now_ns) for _ in range(count)]


def measured_fleet(count: int, latency_ns: int = 10 * MILLISECOND) -> list[Slot]:
    """Endpoints that have all just answered in the same time."""
    slots = new_slots(count)
    for slot in slots:
        answer(slot, latency_ns)
    return slots


def dropped_picks(picker: Picker, draws: int, now_ns: int = START) -> list[int]:
    """Pick and let go at once, so that nothing changes between two picks; return how often each endpoint came up."""
    position = {slot: index for index, slot in enumerate(picker.view.slots)}
    picks = [0] * len(position)
    for _ in range(draws):
        ticket = picker.pick_at(now_ns)
        picks[position[ticket.slot]] += 1
        ticket.finish_at(Outcome.DROPPED, now_ns)
    return picks


def closed_loop(
    picker: Picker,
    service_ns: Callable[[int], int | None],
    calls: int,
    concurrency: int,
    start_ns: int = START,
) -> list[int]:
    """Run callers who send their next call when the last is answered; return how often each endpoint was picked.

    `service_ns` says how long the endpoint at an index takes for a call; None is an endpoint that never answers, and
    its caller turns to the next call at once.
    """
    position = {slot: index for index, slot in enumerate(picker.view.slots)}
    picks = [0] * len(position)
    running: list[tuple[int, int, Ticket]] = []
    unanswered = []
    now_ns = start_ns
    for turn in range(calls):
        if len(running) == concurrency:
            now_ns, _, done = heapq.heappop(running)
            done.finish_at(Outcome.SUCCESS, now_ns)
        else:
            now_ns += 100 * MICROSECOND
        ticket = picker.pick_at(now_ns)
        index = position[ticket.slot]
        picks[index] += 1
        length_ns = service_ns(index)
        if length_ns is None:
            unanswered.append(ticket)
        else:
            heapq.heappush(running, (now_ns + length_ns, turn, ticket))
    for end_ns, _, ticket in running:
        ticket.finish_at(Outcome.SUCCESS, end_ns)
    return picks
