"""Threads share pickers and slots: counters stay exact, and every debt is settled once."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import pytest

from grpclb_core.native import (
    LeastRequestPicker,
    P2cEwmaPicker,
    Picker,
    PrequalPicker,
    RandomPicker,
    RoundRobinPicker,
    View,
)
from grpclb_core.types import Outcome
from support.fleet import START, new_slots, only

PICKERS = [P2cEwmaPicker, PrequalPicker, LeastRequestPicker, RoundRobinPicker, RandomPicker]
THREADS = 4


@pytest.fixture
def often() -> Iterator[None]:
    """Let threads take turns a thousand times more often than they do by themselves."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


def in_threads(work: Callable[[int], object]) -> list[object]:
    """Run `work` in several threads that start together; return what each returned."""
    together = threading.Barrier(THREADS)

    def start(number: int) -> object:
        together.wait(timeout=60)
        return work(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(start, range(THREADS)))


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("picker", PICKERS)
def test_calls_from_python_threads_are_counted_exactly(picker: type[Picker]) -> None:
    calls = 10_000
    slots = new_slots(3)
    shared = picker(View(slots), seed=1)

    def work(_: int) -> int:
        below_zero = 0
        for turn in range(calls):
            ticket = shared.pick_at(START + turn, turn % 3 == 0)
            below_zero += ticket.slot.in_flight < 1
            if turn % 4 < 3:
                ticket.finish_at(turn % 4, START + turn + 1)
            del ticket  # every fourth is dropped
        return below_zero

    assert in_threads(work) == [0] * THREADS
    assert [(slot.in_flight, slot.streams, slot.age_ns_at(START)) for slot in slots] == [(0, 0, 0.0)] * 3
    each = THREADS * calls // 4
    assert sum(slot.successes for slot in slots) == each
    assert sum(slot.failures for slot in slots) == each
    assert sum(slot.unjudged for slot in slots) == 2 * each
    assert sum(slot.picks for slot in slots) == THREADS * calls


@pytest.mark.usefixtures("often")
def test_a_ticket_that_all_threads_finish_is_finished_once() -> None:
    (slot,) = new_slots(1)
    tickets = [only(slot).pick_at(START) for _ in range(2_000)]
    finished = in_threads(lambda number: [ticket.finish_at(number, START) for ticket in tickets])
    assert [sum(column) for column in zip(*finished, strict=True)] == [1] * len(tickets)  # type: ignore[call-overload]
    assert slot.in_flight == 0
    assert slot.successes + slot.failures + slot.unjudged == len(tickets)


@pytest.mark.parametrize("open_at_once", [1, 64])
@pytest.mark.parametrize("picker", PICKERS)
def test_calls_without_the_gil_are_counted_exactly(probe: ModuleType, picker: type[Picker], open_at_once: int) -> None:
    calls = 100_000
    slots = new_slots(3)
    shared = picker(View(slots), seed=1)
    assert in_threads(lambda _: probe.work(shared, calls, open_at_once)) == [0] * THREADS
    assert [(slot.in_flight, slot.streams, slot.age_ns_at(START)) for slot in slots] == [(0, 0, 0.0)] * 3
    each = THREADS * calls // 4
    assert sum(slot.successes for slot in slots) == each
    assert sum(slot.failures for slot in slots) == each
    assert sum(slot.unjudged for slot in slots) == 2 * each
    if picker is RoundRobinPicker:
        assert max(slot.picks for slot in slots) - min(slot.picks for slot in slots) <= 1


@pytest.mark.usefixtures("often")
def test_calls_handed_from_lane_to_lane_are_counted_exactly(probe: ModuleType) -> None:
    # Two threads open with the GIL and end without it, two the other way round, all on one endpoint.
    (slot,) = new_slots(1)
    batches = 10_000
    in_threads(lambda number: probe.hand_over(slot, batches, number % 2 == 0))
    assert (slot.in_flight, slot.age_ns_at(START)) == (0, 0.0)
    assert slot.successes == slot.picks == THREADS * batches * 16
    lanes = probe.lanes(slot)
    assert lanes["successes"] == lanes["successes_free"] == slot.picks // 2


def test_python_and_other_threads_share_a_picker(probe: ModuleType) -> None:
    slots = new_slots(3)
    shared = P2cEwmaPicker(View(slots), seed=1)
    calls = 20_000

    def work(number: int) -> int:
        if number % 2:
            return probe.work(shared, calls, 16)
        for turn in range(calls):
            shared.pick_at(START + turn).finish_at(Outcome.SUCCESS, START + turn + 1)
        return 0

    assert in_threads(work) == [0] * THREADS
    assert [slot.in_flight for slot in slots] == [0, 0, 0]
    assert sum(slot.picks for slot in slots) == THREADS * calls


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("picker", PICKERS)
def test_one_on_trial_has_one_call_whoever_picks(picker: type[Picker]) -> None:
    slots = new_slots(4)
    slots[0].start_trial_at(START)
    shared = picker(View(slots), seed=1)

    def work(_: int) -> int:
        most = 0
        for turn in range(3_000):
            tickets = [shared.pick_at(START + turn) for _ in range(4)]
            most = max(most, slots[0].in_flight)
            for ticket in tickets:
                ticket.finish_at(Outcome.UNAVAILABLE, START + turn + 1)
        return most

    assert in_threads(work) == [1] * THREADS
    assert slots[0].is_on_trial
    assert slots[0].failures == slots[0].failure_streak == slots[0].picks > 0
