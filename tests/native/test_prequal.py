"""Prequal on a manual clock: whom the reports of servers send the next call to."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from grpclb_core.native import PrequalPicker, Slot, View
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
    is_share,
    new_slots,
)

FAILURES = [Outcome.FAILURE, Outcome.TIMED_OUT, Outcome.UNAVAILABLE, Outcome.RATE_LIMITED]


def report(
    slot: Slot, in_flight: int, latency_ms: float, now_ns: int = START, picker: PrequalPicker | None = None
) -> None:
    """Have a server tell its load; a picker hears of it if there is one already."""
    slot.report_load_at(in_flight, latency_ms * MILLISECOND, now_ns)
    if picker is not None:
        picker.reported(slot)


def prequal(
    slots: list[Slot], *, now_ns: int = START, weights: list[float] | None = None, **options: Any
) -> PrequalPicker:
    """Make a picker by the paper's rule alone: hot is what is above the quantile, however little that is."""
    return PrequalPicker(View(slots, weights), seed=1, now_ns=now_ns, **{"least_hot": 0.0} | options)


def chosen(picker: PrequalPicker, now_ns: int = START) -> int:
    """Pick, and let go at once; return the place of the endpoint."""
    ticket = picker.pick_at(now_ns)
    ticket.finish_at(Outcome.DROPPED, now_ns)
    return picker.view.slots.index(ticket.slot)


def told(*loads: tuple[int, float]) -> list[Slot]:
    """Endpoints that have told (calls in flight, latency in ms) just now."""
    slots = new_slots(len(loads))
    for slot, (in_flight, latency_ms) in zip(slots, loads, strict=True):
        report(slot, in_flight, latency_ms)
    return slots


def settled(slots: list[Slot]) -> None:
    """Have each endpoint answer a call, so that none is new."""
    for slot in slots:
        answer(slot, MILLISECOND)


class TestRule:
    def test_the_cold_one_with_the_least_latency_is_taken(self) -> None:
        assert chosen(prequal(told((3, 40), (5, 10), (5, 20)), q_rif=0.9)) == 1

    def test_a_hot_one_is_not_be_it_ever_so_fast(self) -> None:
        assert chosen(prequal(told((3, 40), (9, 10), (5, 20)), q_rif=0.6)) == 2

    def test_where_all_are_hot_the_fewest_calls_count(self) -> None:
        assert chosen(prequal(told((4, 40), (9, 10), (5, 20)), q_rif=0)) == 0

    def test_by_latency_alone(self) -> None:
        assert chosen(prequal(told((4, 40), (900, 10), (5, 20)), q_rif=1)) == 1

    def test_fewer_calls_decide_between_equal_latencies(self) -> None:
        assert chosen(prequal(told((4, 10), (2, 10), (3, 10)), q_rif=1)) == 1

    def test_less_latency_decides_between_equal_calls(self) -> None:
        slots = told((4, 30), (4, 10), (4, 20))
        assert chosen(prequal(slots, q_rif=0)) == 1
        assert chosen(prequal(slots, q_rif=0.5)) == 1

    def test_few_calls_are_never_hot(self) -> None:
        loads = [(0, 100.0), (0, 100.0), (0, 100.0), (2, 10.0)]
        assert chosen(prequal(told(*loads), q_rif=0.5)) != 3
        assert chosen(prequal(told(*loads), q_rif=0.5, least_hot=2.0)) == 3

    def test_a_server_that_never_answered_is_tried_by_one_call(self) -> None:
        slots = told((1, 20), (0, 0), (1, 30))
        picker = prequal(slots, q_rif=1)
        assert chosen(picker) == 1
        held = hold(slots[1], 1)
        assert chosen(picker) == 0
        assert held

    def test_hot_is_told_by_the_last_64_reports(self) -> None:
        slots = told((10, 10), (10, 20), (10, 30))
        picker = prequal(slots, q_rif=0.5)
        report(slots[0], 20, 10, picker=picker)
        assert chosen(picker) == 1  # 20 is above the median of 10, 10, 10, 20
        for _ in range(64):
            report(slots[2], 30, 30, picker=picker)
        assert chosen(picker) == 0

    def test_what_is_hot_is_the_quantile(self) -> None:
        # Told by 100 endpoints in turn, 1 to 100; the last 64 are 37 to 100, and 0.84 of those are 90 and less.
        slots = new_slots(100)
        picker = prequal(slots, pool_size=64, q_rif=0.84, remove_rate=0.0)
        for place, slot in enumerate(slots):
            report(slot, place + 1, 1_000 - place, picker=picker)
        assert chosen(picker) == 89


class TestOwnCalls:
    def test_ours_count_at_once(self) -> None:
        slots = told((1, 10), (2, 20))
        picker = prequal(slots, q_rif=0, probe_rate=0.0)
        tickets = [picker.pick_at(START) for _ in range(5)]
        assert [slots.index(ticket.slot) for ticket in tickets] == [0, 0, 1, 0, 1]  # the faster of two equals

    def test_and_are_gone_at_once(self) -> None:
        slots = told((1, 10), (2, 20))
        picker = prequal(slots, q_rif=0, probe_rate=0.0)
        for _ in range(15):
            assert chosen(picker) == 0

    def test_those_that_the_server_told_of_are_not_counted_twice(self) -> None:
        slots = new_slots(2)
        held = hold(slots[0], 3)
        report(slots[0], 3, 10)  # all of them ours
        report(slots[1], 2, 10)
        picker = prequal(slots, q_rif=0)
        assert chosen(picker) == 1
        for ticket in held[1:]:
            ticket.finish_at(Outcome.SUCCESS, START)
        assert chosen(picker) == 0

    def test_those_that_have_not_arrived_there_yet_are_ours_alone(self) -> None:
        slots = told((0, 10), (1, 10))
        held = hold(slots[0], 2)
        picker = prequal(slots, q_rif=0)
        assert chosen(picker) == 1
        assert held


class TestPool:
    def test_reports_grow_old(self) -> None:
        slots = told((1, 10), (1, 20))
        picker = prequal(slots)
        assert picker.pooled_at(START + SECOND - 2 * MILLISECOND) == 2  # a millisecond is left to how threads meet
        assert picker.pooled_at(START + SECOND) == 0

    def test_the_last_report_of_an_endpoint_is_the_one(self) -> None:
        slots = told((1, 10), (1, 20))
        picker = prequal(slots, q_rif=1)
        report(slots[0], 1, 30, picker=picker)
        assert picker.pooled_at(START) == 2
        assert chosen(picker) == 1

    def test_the_oldest_makes_room(self) -> None:
        slots = new_slots(5)
        for place, slot in enumerate(slots):
            report(slot, 1, 10.0 + place, START + place * MILLISECOND)
        picker = prequal(slots, pool_size=3, q_rif=1, remove_rate=0.0, now_ns=START + 10 * MILLISECOND)
        assert picker.pooled_at(START + 10 * MILLISECOND) == 3
        assert chosen(picker, START + 10 * MILLISECOND) == 2
        report(slots[0], 1, 99, START + 11 * MILLISECOND, picker)
        assert chosen(picker, START + 11 * MILLISECOND) == 3

    def test_the_oldest_and_the_worst_are_taken_out_in_turn(self) -> None:
        slots = new_slots(10)
        picker = prequal(slots, pool_size=8, q_rif=1, probe_rate=1.0, remove_rate=1.0)
        for place, slot in enumerate(slots[:6]):
            # Each comes in and one goes, once there are more than two: 0 is the oldest, 2 the slowest by then.
            report(slot, 1, [10, 20, 40, 30, 5, 6][place], START + place * MILLISECOND, picker)
        assert picker.pooled_at(START + 6 * MILLISECOND) == 2

    def test_a_set_that_the_pool_holds_whole_is_kept(self) -> None:
        slots = new_slots(4)
        picker = prequal(slots, probe_rate=1.0, remove_rate=1.0)
        for _ in range(5):
            for slot in slots:
                report(slot, 1, 10, picker=picker)
        assert picker.pooled_at(START) == 4

    def test_a_new_picker_knows_what_the_slots_know(self) -> None:
        slots = told((3, 40), (3, 10), (3, 20))
        report(slots[1], 3, 10, START - 2 * SECOND)
        picker = prequal(slots, q_rif=1)
        assert picker.pooled_at(START) == 2
        assert chosen(picker) == 2

    def test_a_report_of_an_endpoint_that_left_is_nothing(self) -> None:
        picker = prequal(told((1, 10), (1, 10)))
        report(Slot(), 1, 1, picker=picker)
        assert picker.pooled_at(START) == 2

    def test_nothing_is_pooled_where_nothing_was_told(self) -> None:
        slots = new_slots(2)
        picker = prequal(slots)
        picker.reported(slots[0])  # a report without calls in flight, from a server that is not ours
        assert picker.pooled_at(START) == 0


class TestReuse:
    @pytest.mark.parametrize(
        ("count", "options", "budget"),
        [
            (100, {"remove_rate": 1.0}, 2 / (0.84 * 3 - 1)),  # the paper's 1.32
            (64, {"remove_rate": 1.0}, 2 / (0.75 * 3 - 1)),
            (26, {"remove_rate": 1.0}, 4.0),  # the pool counts as half of the set
            (4, {"remove_rate": 1.0}, 4.0),
            (2, {"remove_rate": 1.0}, 4.0),
            (100, {}, 1.0),  # never less
            (4, {"probe_rate": 1.0, "remove_rate": 1.0}, 16.0),  # more go than come: no more than that
            (4, {"probe_rate": 0.0}, 16.0),
        ],
    )
    def test_budget(self, count: int, options: dict[str, float], budget: float) -> None:
        assert prequal(new_slots(count), **options).reuse_budget == pytest.approx(budget)

    def test_a_report_is_used_up(self) -> None:
        slots = new_slots(100)
        settled(slots)
        for place in range(3):
            report(slots[place], 2, 10.0 + place)
        for slot in slots[3:]:
            report(slot, 2, 10, START - 2 * SECOND)  # old, and not long unheard of
        picker = prequal(slots, q_rif=1)
        assert picker.reuse_budget == 1.0
        assert [chosen(picker), chosen(picker)] == [0, 1]
        assert picker.pooled_at(START) == 1

    def test_a_budget_between_two_numbers_is_one_of_them(self) -> None:
        # 1.32 uses: one, or two in 32 of 100 cases.
        uses, pickers = 0, 2_000
        slots = new_slots(100)
        settled(slots)
        for slot in slots:
            report(slot, 2, 10, START - 2 * SECOND)
        for seed in range(pickers):
            picker = PrequalPicker(View(slots), remove_rate=1.0, q_rif=1, seed=seed, now_ns=START)
            report(slots[0], 2, 1, picker=picker)
            report(slots[1], 2, 2, picker=picker)
            first = [chosen(picker), chosen(picker)]
            uses += 1 + (first == [0, 0])
            report(slots[0], 2, 10, START - 2 * SECOND)
            report(slots[1], 2, 10, START - 2 * SECOND)
        assert is_share(uses - pickers, pickers, 2 / (0.84 * 3 - 1) - 1)

    def test_our_own_calls_use_nothing_up_where_the_pool_holds_the_set(self) -> None:
        picker = prequal(told((0, 10), (0, 20)), q_rif=1)
        assert [chosen(picker) for _ in range(100)] == [0] * 100


class TestWithoutReports:
    def test_one_endpoint_is_the_one(self) -> None:
        assert chosen(prequal(new_slots(1))) == 0

    @pytest.mark.parametrize("count", [2, 3, 20])
    def test_it_is_even(self, count: int) -> None:
        slots = new_slots(count)
        settled(slots)
        freedom = CHI_SQUARE_999[count - 1]
        assert chi_square(dropped_picks(prequal(slots), 5_000)) < freedom

    def test_fewer_calls_of_our_own_win(self) -> None:
        slots = new_slots(2)
        settled(slots)
        held = hold(slots[0], 1)
        assert [chosen(prequal(slots)) for _ in range(20)] == [1] * 20
        assert held

    def test_by_weight(self) -> None:
        slots = new_slots(2)
        settled(slots)
        picks = dropped_picks(prequal(slots, weights=[1.0, 3.0]), 4_000)
        assert is_share(picks[1], 4_000, 0.75)

    def test_one_entry_is_no_choice(self) -> None:
        slots = new_slots(4)
        settled(slots)
        report(slots[0], 1, 1)
        for slot in slots[1:]:
            report(slot, 1, 1, START - 2 * SECOND)
        assert chi_square(dropped_picks(prequal(slots), 4_000)) < CHI_SQUARE_999[3]

    def test_those_that_never_report_have_their_share(self) -> None:
        slots = told(*[(1, 10.0)] * 2, *[(1, 10.0)] * 2)
        mute = new_slots(4)
        settled([*slots, *mute])
        picks = dropped_picks(prequal([*slots, *mute]), 8_000)
        assert sum(picks[4:]) / 8_000 == pytest.approx(0.5 * (1 + 3 / 7) / 2 + 0.5 * 0.5 * 4 / 7, abs=0.12)
        assert min(picks[4:]) > 400

    def test_one_that_was_not_heard_of_for_long_gets_one_call(self) -> None:
        slots = told((0, 10), (0, 20), (0, 30))
        answer(slots[2], MILLISECOND, START - 6 * SECOND)
        report(slots[2], 0, 30, START - 6 * SECOND)
        picker = PrequalPicker(View(slots), seed=1, now_ns=START - 6 * SECOND)
        for slot in slots[:2]:
            picker.reported(slot)
        tickets = [picker.pick_at(START) for _ in range(50)]
        assert [ticket.slot for ticket in tickets].count(slots[2]) == 1

    def test_a_newcomer_waits_for_a_report_of_its_own(self) -> None:
        slots = [*told((0, 10), (0, 20)), Slot()]
        picker = prequal(slots, q_rif=1)
        assert dropped_picks(picker, 100)[2] == 0
        report(slots[2], 0, 5, picker=picker)
        assert chosen(picker) == 2

    def test_but_not_for_ever(self) -> None:
        slots = [*told((0, 10), (0, 20)), Slot()]
        picker = prequal(slots, q_rif=1)
        later = START + 6 * SECOND
        for slot in slots[:2]:
            report(slot, 0, 10, later, picker)
        tickets = [picker.pick_at(later) for _ in range(50)]
        assert [ticket.slot for ticket in tickets].count(slots[2]) == 1


class TestFailures:
    @pytest.mark.parametrize("outcome", FAILURES)
    def test_its_reports_are_not_believed_for_a_while(self, outcome: Outcome) -> None:
        slots = told((5, 50), (5, 60), (0, 1))
        picker = prequal(slots, q_rif=1)
        picker.pick_at(START).finish_at(outcome, START)
        assert slots[2].failures == 1
        for second in range(5):
            now_ns = START + second * SECOND
            for slot, load in zip(slots, [(5, 50), (5, 60), (0, 1)], strict=True):
                report(slot, *load, now_ns, picker)
            assert dropped_picks(picker, 50, now_ns)[2] == 0
        now_ns = START + 6 * SECOND
        for slot, load in zip(slots, [(5, 50), (5, 60), (0, 1)], strict=True):
            report(slot, *load, now_ns, picker)
        assert chosen(picker, now_ns) == 2

    def test_longer_each_time_up_to_four_times(self) -> None:
        slots = told((5, 50), (5, 60), (0, 1))
        picker = prequal(slots, q_rif=1)
        now_ns, waits = START, []
        for _ in range(6):
            since_ns = now_ns
            while True:
                for slot, load in zip(slots, [(5, 50), (5, 60), (0, 1)], strict=True):
                    report(slot, *load, now_ns, picker)
                ticket = picker.pick_at(now_ns)
                if ticket.slot is slots[2]:
                    ticket.finish_at(Outcome.UNAVAILABLE, now_ns)
                    break
                ticket.finish_at(Outcome.SUCCESS, now_ns)
                now_ns += SECOND
            waits.append((now_ns - since_ns) / SECOND)
        assert waits == [0, 5, 10, 15, 20, 20]

    def test_shorter_where_other_calls_were_answered(self) -> None:
        slots = told((5, 50), (5, 60), (0, 1))
        picker = prequal(slots, q_rif=1)
        for _ in range(49):
            answer(slots[2], MILLISECOND)
        answer(slots[2], MILLISECOND, outcome=Outcome.FAILURE)
        assert chosen(picker) == 0  # one of 50 calls failed: a fiftieth of 5 s
        later = START + 110 * MILLISECOND
        report(slots[2], 0, 1, later, picker)
        assert chosen(picker, later) == 2

    def test_one_call_at_a_time_until_one_is_answered(self) -> None:
        slots = told((5, 50), (5, 60), (0, 1))
        picker = prequal(slots, q_rif=1, aversion_s=0.0)
        picker.pick_at(START).finish_at(Outcome.UNAVAILABLE, START)
        report(slots[2], 0, 1, picker=picker)
        held = picker.pick_at(START)
        assert held.slot is slots[2]
        assert chosen(picker) == 0
        held.finish_at(Outcome.SUCCESS, START)
        assert chosen(picker) == 2

    def test_where_nobody_reports_it_is_left_aside_too(self) -> None:
        slots = new_slots(4)
        settled(slots)
        picker = prequal(slots)
        answer(slots[0], MILLISECOND, outcome=Outcome.UNAVAILABLE)
        assert dropped_picks(picker, 200)[0] == 0

    @pytest.mark.parametrize("count", [2, 4, 20])
    def test_where_all_fail_all_are_tried(self, count: int) -> None:
        slots = new_slots(count)
        settled(slots)
        picker = prequal(slots)
        for slot in slots:
            answer(slot, MILLISECOND, outcome=Outcome.UNAVAILABLE)
        assert min(dropped_picks(picker, 2_000)) > 0

    def test_a_new_picker_knows_whose_last_calls_failed(self) -> None:
        slots = told((5, 50), (5, 60), (0, 1))
        answer(slots[2], MILLISECOND, outcome=Outcome.UNAVAILABLE)
        assert dropped_picks(prequal(slots, q_rif=1), 100)[2] == 0
        later = START + 100 * MILLISECOND
        assert chosen(prequal(slots, q_rif=1, now_ns=later, aversion_s=0.01), later) == 2

    def test_one_of_four_that_fails_at_once_gets_few_calls(self) -> None:
        slots = new_slots(4)
        picker = PrequalPicker(View(slots), seed=1, now_ns=START)
        failed, running, now_ns = 0, [], START
        for turn in range(4_000):  # 100 calls a second, 10 ms each
            now_ns = START + turn * 10 * MILLISECOND
            while running:
                ticket = running.pop()
                ticket.finish_at(Outcome.SUCCESS, now_ns)
                report(ticket.slot, 2, 10, now_ns, picker)
            ticket = picker.pick_at(now_ns)
            if ticket.slot is slots[0]:
                ticket.finish_at(Outcome.UNAVAILABLE, now_ns)
                report(slots[0], 0, 0.1, now_ns, picker)
                failed += 1
            else:
                running.append(ticket)
        assert failed <= 40  # 1 %; round robin: 1 000


class TestTrials:
    def test_it_is_tried_whatever_it_did_before(self) -> None:
        slots = told((0, 50), (0, 60), (0, 1))
        answer(slots[2], MILLISECOND, outcome=Outcome.UNAVAILABLE)
        picker = prequal(slots, q_rif=1)
        assert dropped_picks(picker, 100)[2] == 0
        slots[2].start_trial_at(START)
        assert dropped_picks(picker, 100)[2] > 0

    def test_one_on_trial_has_one_call(self) -> None:
        slots = told((5, 50), (5, 60), (0, 1))
        slots[2].start_trial_at(START)
        picker = prequal(slots, q_rif=1)
        tickets = [picker.pick_at(START) for _ in range(20)]
        assert [ticket.slot for ticket in tickets].count(slots[2]) == 1


class TestWeights:
    def test_calls_count_for_each_mean_weight(self) -> None:
        slots = told((4, 10), (6, 10))
        assert chosen(prequal(slots, q_rif=0)) == 0
        assert chosen(prequal(slots, q_rif=0, weights=[1.0, 3.0])) == 1

    def test_who_weighs_little_is_soon_hot(self) -> None:
        slots = told((2, 10), (2, 20), (2, 30))
        assert chosen(prequal(slots, q_rif=0.5)) == 0
        assert chosen(prequal(slots, q_rif=0.5, weights=[0.1, 1.0, 1.0])) == 1


class TestClock:
    def test_a_clock_that_stands_still(self) -> None:
        slots = told((0, 10), (0, 20))
        picker = prequal(slots, q_rif=1)
        for _ in range(200):
            report(slots[0], 0, 10, picker=picker)
            assert chosen(picker) == 0

    @pytest.mark.parametrize("by_s", [-600, 600])
    def test_a_clock_that_jumps(self, by_s: int) -> None:
        slots = told((0, 10), (0, 20), (0, 30))
        answer(slots[1], MILLISECOND, outcome=Outcome.FAILURE)
        picker = prequal(slots, q_rif=1)
        chosen(picker)
        now_ns = START + by_s * SECOND
        assert picker.pooled_at(now_ns) == 0
        assert sorted(set(map(chosen, [picker] * 100, [now_ns] * 100))) == [0, 1, 2]  # doubt is over as well
        for slot, latency_ms in zip(slots, [10, 5, 30], strict=True):
            answer(slot, MILLISECOND, now_ns)
            report(slot, 0, latency_ms, now_ns, picker)
        assert [chosen(picker, now_ns) for _ in range(20)] == [1] * 20

    @pytest.mark.parametrize("now_ns", [0, -5, 1, 2**62])
    def test_any_time_will_do(self, now_ns: int) -> None:
        slots = new_slots(3)
        picker = prequal(slots, now_ns=now_ns)
        for slot in slots:
            report(slot, 2**31 - 1, 86_400_000, now_ns, picker)
            assert 0 <= chosen(picker, now_ns) < 3

    def test_reports_of_the_future_are_not_used(self) -> None:
        slots = told((0, 10), (0, 20))
        picker = prequal(slots, now_ns=START - SECOND)
        assert picker.pooled_at(START - SECOND) == 0


class TestInput:
    @pytest.mark.parametrize(
        "options",
        [
            {"pool_size": 1}, {"pool_size": 65}, {"q_rif": -0.1}, {"q_rif": 1.1}, {"q_rif": math.nan},
            {"max_age_s": 0.0}, {"max_age_s": math.nan}, {"delta": -1.0}, {"probe_rate": math.inf},
            {"remove_rate": math.nan}, {"explore_s": -1.0}, {"aversion_s": math.inf}, {"least_hot": -1.0},
            {"decay_s": 0.0},
        ],
    )  # fmt: skip
    def test_what_is_out_of_range_is_refused(self, options: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=next(iter(options))):
            PrequalPicker(View(new_slots(2)), **options)

    def test_the_longest_times_are_those_for_ever(self) -> None:
        slots = told((0, 10), (0, 20))
        picker = prequal(slots, max_age_s=1e300, explore_s=1e300, aversion_s=1e300)
        assert picker.pooled_at(START + 1_000_000 * SECOND) == 2

    def test_it_is_made_once(self) -> None:
        picker = prequal(new_slots(2))
        with pytest.raises(ValueError, match="make another one"):
            picker.__init__(View(new_slots(3)))  # type: ignore[misc]

    def test_a_slot_is_asked_for(self) -> None:
        with pytest.raises(TypeError):
            prequal(new_slots(2)).reported(None)  # type: ignore[arg-type]


class TestThreads:
    def test_threads_share_the_pool(self, probe: ModuleType, often: None) -> None:
        slots = told((1, 10), (1, 20), (1, 30))
        picker = PrequalPicker(View(slots), seed=1, now_ns=START)
        below_zero: list[int] = []
        works: list[Callable[[], object]] = [lambda: below_zero.append(probe.work(picker, 50_000, 16))] * 3
        threads = [threading.Thread(target=work) for work in works]
        for thread in threads:
            thread.start()
        turns = 0
        while any(thread.is_alive() for thread in threads) or turns < 1_000:
            for place, slot in enumerate(slots):
                report(slot, place, 10.0 * place, turns + 1, picker)
            picker.pick_at(turns + 1).finish_at(Outcome.SUCCESS, turns + 1)
            assert 0 <= picker.pooled_at(turns + 1) <= 3
            turns += 1
        assert below_zero == [0] * 3
        assert [slot.in_flight for slot in slots] == [0, 0, 0]
        assert sum(slot.picks for slot in slots) == 3 * 50_000 + turns


@pytest.fixture
def often() -> Iterator[None]:
    """Let threads take turns a thousand times more often than they do by themselves."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


def test_picks_are_counted() -> None:
    picker = prequal(new_slots(3))
    dropped_picks(picker, 7)
    assert picker.picks == 7
