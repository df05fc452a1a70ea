"""An endpoint on trial gets one call at a time until it has answered one well, whoever picks."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest

from grpclb_core.native import (
    LeastRequestPicker,
    P2cEwmaPicker,
    Picker,
    PrequalPicker,
    RandomPicker,
    RoundRobinPicker,
    Slot,
    Ticket,
    View,
)
from grpclb_core.types import Outcome
from support.fleet import (
    CHI_SQUARE_999,
    MILLISECOND,
    SECOND,
    START,
    answer,
    chi_square,
    dropped_picks,
    hold,
    measured_fleet,
    new_slots,
    only,
)

PICKERS = [P2cEwmaPicker, PrequalPicker, LeastRequestPicker, RoundRobinPicker, RandomPicker]
WEIGHTS = [None, [1.0, 2.0, 3.0, 4.0]]
FAILURES = [Outcome.FAILURE, Outcome.TIMED_OUT, Outcome.UNAVAILABLE, Outcome.RATE_LIMITED]
NO_SUCCESS = [outcome for outcome in Outcome if outcome is not Outcome.SUCCESS]

WAYS: list[Callable[[Picker], Ticket]] = [
    lambda picker: picker.pick(),
    lambda picker: picker.pick_stream(),
    lambda picker: picker.pick_at(START),
    lambda picker: picker.pick_at(START, True),
]


def on_trial(count: int = 1) -> list[Slot]:
    slots = new_slots(count)
    for slot in slots:
        slot.start_trial_at(START)
    return slots


class TestWord:
    def test_a_slot_begins_without(self) -> None:
        assert not Slot().is_on_trial

    @pytest.mark.parametrize("before", [None, Outcome.SUCCESS, Outcome.FAILURE])
    def test_it_is_started_and_ended(self, before: Outcome | None) -> None:
        slot = Slot()
        if before is not None:
            answer(slot, MILLISECOND, START, before)
        for _ in range(2):
            slot.start_trial_at(START)
            assert slot.is_on_trial
        slot.end_trial()
        assert not slot.is_on_trial

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("held", [False, True])
    def test_a_success_ends_it(self, probe: ModuleType, held: bool, stream: bool) -> None:
        (slot,) = on_trial()
        probe.open_on(slot, START, stream, held)
        assert slot.is_on_trial
        probe.close_on(slot, Outcome.SUCCESS, START, START + 1, stream, held)
        assert not slot.is_on_trial
        assert slot.failure_streak == 0
        assert probe.is_alive(slot, START + 1)

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("held", [False, True])
    @pytest.mark.parametrize("outcome", NO_SUCCESS)
    def test_nothing_else_does(self, probe: ModuleType, outcome: Outcome, held: bool, stream: bool) -> None:
        (slot,) = on_trial()
        for _ in range(3):
            probe.open_on(slot, START, stream, held)
            probe.close_on(slot, outcome, START, START + 1, stream, held)
            assert slot.is_on_trial

    def test_its_connection_is_looked_at_before_each_call(self, probe: ModuleType) -> None:
        slot = Slot()
        answer(slot, MILLISECOND)
        slot.start_trial_at(START)
        assert not probe.is_alive(slot, START)
        slot.end_trial()
        assert not probe.is_alive(slot, START)

    def test_ending_none_changes_nothing(self, probe: ModuleType) -> None:
        slot = Slot()
        answer(slot, MILLISECOND)
        slot.end_trial()
        assert probe.is_alive(slot, START)
        answer(slot, MILLISECOND, START, Outcome.FAILURE)
        slot.end_trial()
        assert slot.failure_streak == 1

    @pytest.mark.parametrize("outcome", FAILURES)
    def test_failures_of_before_are_not_forgiven(self, outcome: Outcome) -> None:
        slot = Slot()
        answer(slot, MILLISECOND, START, outcome)
        answer(slot, MILLISECOND, START, outcome)
        slot.start_trial_at(START)
        assert slot.failure_streak == 2
        answer(slot, MILLISECOND, START, outcome)
        assert slot.failure_streak == 3
        slot.end_trial()
        assert slot.failure_streak == 3
        answer(slot, MILLISECOND)
        assert slot.failure_streak == 0

    @pytest.mark.parametrize("outcome", FAILURES)
    def test_failures_before_the_last_success_are(self, outcome: Outcome) -> None:
        slot = Slot()
        answer(slot, MILLISECOND, START, outcome)
        answer(slot, MILLISECOND)
        slot.start_trial_at(START)
        assert slot.failure_streak == 0
        answer(slot, MILLISECOND, START, outcome)
        assert slot.failure_streak == 1

    @pytest.mark.parametrize("before", [Outcome.SUCCESS, Outcome.FAILURE])
    def test_the_last_answer_is_remembered(self, before: Outcome) -> None:
        slot = Slot()
        answer(slot, MILLISECOND, START, before)
        slot.start_trial_at(START)
        assert slot.last_answer_ns == START
        only(slot).pick_at(START).finish_at(Outcome.TIMED_OUT, START + SECOND)
        assert slot.last_answer_ns == START
        only(slot).pick_at(START).finish_at(Outcome.FAILURE, START + 2 * SECOND)
        assert slot.last_answer_ns == START + 2 * SECOND
        slot.end_trial()
        assert slot.last_answer_ns == START + 2 * SECOND

    def test_a_forgotten_latency_does_not_end_it(self) -> None:
        (slot,) = on_trial()
        slot.forget_latency_at(START)
        assert slot.is_on_trial


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("picker", PICKERS)
class TestPicking:
    @pytest.mark.parametrize("way", WAYS)
    def test_a_burst_sends_it_one_call(
        self, picker: type[Picker], weights: list[float] | None, way: Callable[[Picker], Ticket]
    ) -> None:
        slots = measured_fleet(4)
        slots[0].start_trial_at(START)
        balanced = picker(View(slots, weights), seed=1)
        burst = [way(balanced) for _ in range(200)]
        assert slots[0].in_flight == 1
        assert sum(slot.in_flight for slot in slots) == len(burst)

    @pytest.mark.parametrize("outcome", Outcome)
    def test_it_gets_the_next_when_that_is_over(
        self, picker: type[Picker], weights: list[float] | None, outcome: Outcome
    ) -> None:
        slots = measured_fleet(4)
        slots[0].start_trial_at(START)
        balanced = picker(View(slots, weights), seed=2)
        held: list[Ticket] = []
        for turn in range(1, 4):
            while slots[0].in_flight == 0:
                held.append(balanced.pick_at(START))
                assert len(held) < 2_000
            assert slots[0].picks == 1 + turn  # the first was answered before
            (call,) = [ticket for ticket in held if ticket.slot is slots[0]]
            held = [ticket for ticket in held if ticket.slot is not slots[0]]
            call.finish_at(outcome, START)
            for ticket in held:
                ticket.finish_at(Outcome.DROPPED, START)
            held.clear()
            slots[0].forget_latency_at(START)
            if outcome is Outcome.SUCCESS:
                assert not slots[0].is_on_trial
                return
            assert slots[0].is_on_trial

    def test_after_a_success_it_is_one_of_the_others(self, picker: type[Picker], weights: list[float] | None) -> None:
        slots = measured_fleet(4)
        slots[0].start_trial_at(START)
        answer(slots[0], 10 * MILLISECOND)
        balanced = picker(View(slots, weights), seed=3)
        burst = [balanced.pick_at(START) for _ in range(200)]
        assert slots[0].in_flight > 5
        assert len(burst) == 200

    def test_idle_it_is_as_good_as_any(self, picker: type[Picker], weights: list[float] | None) -> None:
        slots = measured_fleet(4)
        slots[0].start_trial_at(START)
        picks = dropped_picks(picker(View(slots, weights), seed=4), 20_000)
        shares = None if picker is RoundRobinPicker else weights
        assert chi_square(picks, shares) < CHI_SQUARE_999[3]

    def test_calls_of_before_do_not_count(self, picker: type[Picker], weights: list[float] | None) -> None:
        """They may never end, where the server hung, and it would never be tried."""
        slots = measured_fleet(4)
        open_before = [only(slots[0]).pick_at(START) for _ in range(2)]
        slots[0].start_trial_at(START)
        balanced = picker(View(slots, weights), seed=5)
        burst = [balanced.pick_at(START) for _ in range(200)]
        assert slots[0].in_flight == len(open_before) + 1
        assert len(burst) == 200

    def test_those_that_end_meanwhile_make_no_room(self, picker: type[Picker], weights: list[float] | None) -> None:
        slots = measured_fleet(4)
        open_before = [only(slots[0]).pick_at(START) for _ in range(5)]
        slots[0].start_trial_at(START + 1)
        balanced = picker(View(slots, weights), seed=5)
        now_ns, burst = START + SECOND, []
        for ticket in open_before:
            burst += [balanced.pick_at(now_ns) for _ in range(200)]
            ticket.finish_at(Outcome.TIMED_OUT, now_ns)
        assert sum(ticket.slot is slots[0] for ticket in burst) == 1

    def test_streams_of_before_do(self, picker: type[Picker], weights: list[float] | None) -> None:
        slots = measured_fleet(4)
        open_before = [only(slots[0]).pick_at(START, True) for _ in range(2)]
        slots[0].start_trial_at(START)
        assert dropped_picks(picker(View(slots, weights), seed=5), 1_000)[0] == 0
        open_before.pop().finish_at(Outcome.CANCELLED, START)
        assert dropped_picks(picker(View(slots, weights), seed=5), 1_000)[0] == 0
        assert len(open_before) == 1

    def test_the_only_one_that_is_free_is_found(self, picker: type[Picker], weights: list[float] | None) -> None:
        # All four are on trial and three are busy. The one left is slow, too.
        for free in range(4):
            slots = measured_fleet(4)
            answer(slots[free], SECOND)
            for slot in slots:
                slot.start_trial_at(START)
            held = [hold(slot, 1) for slot in slots if slot is not slots[free]]
            assert dropped_picks(picker(View(slots, weights), seed=free), 200)[free] == 200
            assert len(held) == 3

    def test_where_all_have_theirs_calls_go_on(self, picker: type[Picker], weights: list[float] | None) -> None:
        slots = on_trial(4)
        balanced = picker(View(slots, weights), seed=6)
        first = [balanced.pick_at(START) for _ in range(4)]
        assert [slot.in_flight for slot in slots] == [1, 1, 1, 1]
        more = [balanced.pick_at(START) for _ in range(200)]
        assert sum(slot.in_flight for slot in slots) == len(first) + len(more)

    def test_a_single_one_gets_everything(self, picker: type[Picker], weights: list[float] | None) -> None:
        slots = on_trial()
        balanced = picker(View(slots, weights[:1] if weights else None), seed=7)
        calls = [balanced.pick_at(START) for _ in range(100)]
        assert slots[0].in_flight == len(calls)


@pytest.mark.parametrize("picker", PICKERS)
def test_the_others_share_what_it_does_not_get(picker: type[Picker]) -> None:
    slots = measured_fleet(4)
    slots[1].start_trial_at(START)
    held = hold(slots[1], 1)
    picks = dropped_picks(picker(View(slots), seed=8), 20_000)
    assert picks.pop(1) == 0
    # One pick of 256 falls on it four times in a row and goes to its neighbour: too few to tell.
    assert chi_square(picks) < CHI_SQUARE_999[2]
    assert len(held) == 1


def test_round_robin_skips_it_and_goes_on_in_order() -> None:
    slots = new_slots(4)
    slots[1].start_trial_at(START)
    held = hold(slots[1], 1)
    picker = RoundRobinPicker(View(slots), seed=0)
    order = [slots.index(picker.pick_at(START).slot) for _ in range(9)]
    assert sorted(order[:3]) == [0, 2, 3]
    assert order == order[:3] * 3
    assert len(held) == 1


def test_a_third_of_a_large_set_on_trial_costs_the_rest_nothing() -> None:
    slots = measured_fleet(300)
    for slot in slots[::3]:
        slot.start_trial_at(START)
    picker = RandomPicker(View(slots), seed=9)
    calls = [picker.pick_at(START) for _ in range(20_000)]
    assert all(slot.in_flight == 1 for slot in slots[::3])
    assert max(slot.in_flight for slot in slots) < 3 * len(calls) / 200
