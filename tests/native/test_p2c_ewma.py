"""The rules that keep p2c_ewma right where a fleet misbehaves, each by itself, on a manual clock.

Statistical claims are made with 99.9 % confidence and fixed seeds; see fleet.py.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from grpclb_core.native import P2cEwmaPicker, Picker, Slot, Ticket, View
from grpclb_core.policies import P2cEwma
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
    measured_fleet,
    new_slots,
)

SEEDS = [1, 2, 3]
FAILURES = [Outcome.FAILURE, Outcome.UNAVAILABLE, Outcome.RATE_LIMITED, Outcome.TIMED_OUT]


def fleet_with(count: int, slow: int, latency_ns: int) -> list[Slot]:
    """Endpoints that take 10 ms each, but for the first so many of them."""
    slots = measured_fleet(count)
    for slot in slots[:slow]:
        answer(slot, latency_ns)
    return slots


class Clients:
    """Calls to endpoints that answer in a time of their own, one at a time, at an even rate."""

    def __init__(self, latencies_ns: list[int], rate: float, seed: int = 1, **rules: Any) -> None:
        self.slots = new_slots(len(latencies_ns))
        self.latencies_ns = latencies_ns
        self.outcomes = [Outcome.SUCCESS] * len(latencies_ns)
        self.picker = P2cEwma(**rules).build(View(self.slots), seed, START)
        self.gap_ns = int(SECOND / rate)
        self.now_ns = START
        self._open: list[tuple[int, int, Ticket]] = []

    def run(self, seconds: float) -> list[int]:
        """Make calls for so long; return the endpoint of each."""
        place = {slot: index for index, slot in enumerate(self.slots)}
        picked = []
        for _ in range(int(seconds * SECOND / self.gap_ns)):
            self.now_ns += self.gap_ns
            self._end_those_due()
            ticket = self.picker.pick_at(self.now_ns)
            picked.append(place[ticket.slot])
            self._open.append((self.now_ns + self.latencies_ns[picked[-1]], picked[-1], ticket))
        return picked

    def end_all(self) -> None:
        for _, index, ticket in self._open:
            ticket.finish_at(self.outcomes[index], self.now_ns)
        self._open.clear()

    def _end_those_due(self) -> None:
        due = sorted((one for one in self._open if one[0] <= self.now_ns), key=lambda one: one[0])
        self._open = [one for one in self._open if one[0] > self.now_ns]
        for end_ns, index, ticket in due:
            ticket.finish_at(self.outcomes[index], end_ns)


class TestBare:
    def test_with_every_rule_off_it_is_the_bare_choice(self) -> None:
        off = P2cEwma(
            failure_penalty_s=0,
            unavailable_penalty_s=0,
            rate_limited_penalty_s=0,
            max_pushback_s=0,
            age_factor=0,
            peak_cap=0,
            floor=False,
            probe_s=0,
            widen_factor=0,
        )
        slots = fleet_with(5, 2, 30 * MILLISECOND)
        held = [hold(slot, calls) for slot, calls in zip(slots, (0, 1, 4, 2, 3), strict=True)]
        bare = dropped_picks(P2cEwmaPicker(View(slots), seed=7), 1_000)
        assert dropped_picks(off.build(View(slots), 7, START), 1_000) == bare
        del held

    @pytest.mark.parametrize("seed", SEEDS)
    def test_the_rules_favour_nobody_in_a_healthy_fleet(self, seed: int) -> None:
        picks = dropped_picks(P2cEwma().build(View(measured_fleet(8)), seed, START), 20_000)
        assert chi_square(picks) < CHI_SQUARE_999[7]


class TestFailures:
    @pytest.mark.parametrize("outcome", FAILURES)
    def test_a_server_that_fails_at_once_is_dearer_than_a_slow_one(self, outcome: Outcome) -> None:
        slots = fleet_with(2, 1, 900 * MILLISECOND)
        picker = P2cEwma(probe_s=0, widen_factor=0).build(View(slots), 1, START)
        ticket = picker.pick_at(START)
        assert ticket.slot is slots[1]
        ticket.finish_at(outcome, START + MILLISECOND)
        assert dropped_picks(picker, 100, START + MILLISECOND) == [100, 0]

    @pytest.mark.parametrize(
        ("outcome", "penalty"),
        [
            (Outcome.FAILURE, "failure_penalty_s"),
            (Outcome.TIMED_OUT, "failure_penalty_s"),
            (Outcome.UNAVAILABLE, "unavailable_penalty_s"),
            (Outcome.RATE_LIMITED, "rate_limited_penalty_s"),
        ],
    )
    def test_each_class_has_its_penalty(self, outcome: Outcome, penalty: str) -> None:
        (slot,) = measured_fleet(1)
        ticket = P2cEwma(**{penalty: 7.0}).build(View([slot]), 1, START).pick_at(START)
        ticket.finish_at(outcome, START + MILLISECOND)
        assert slot.latency_ns_at(START + MILLISECOND, 10.0) == 7.0 * SECOND

    @pytest.mark.parametrize("outcome", [Outcome.CANCELLED, Outcome.DROPPED])
    def test_what_says_nothing_of_the_server_costs_nothing(self, outcome: Outcome) -> None:
        (slot,) = measured_fleet(1)
        P2cEwma().build(View([slot]), 1, START).pick_at(START).finish_at(outcome, START + MILLISECOND)
        assert slot.latency_ns_at(START + MILLISECOND, 10.0) == pytest.approx(10 * MILLISECOND, rel=1e-3)

    def test_a_failed_stream_is_a_failure_too(self) -> None:
        (slot,) = measured_fleet(1)
        P2cEwma().build(View([slot]), 1, START).pick_at(START, True).finish_at(Outcome.UNAVAILABLE, START + 1)
        assert slot.latency_ns_at(START + 1, 10.0) == 5.0 * SECOND

    @pytest.mark.parametrize("seed", SEEDS)
    def test_at_most_one_call_in_a_hundred_fails_after_the_first_second(self, seed: int) -> None:
        clients = Clients([10 * MILLISECOND] * 4, 200, seed)
        clients.run(5)
        clients.latencies_ns[0], clients.outcomes[0] = 1, Outcome.UNAVAILABLE
        clients.run(1)
        picked = clients.run(30)
        assert picked.count(0) <= 0.01 * len(picked)
        assert 0 in picked  # it is looked at now and then

    def test_it_is_back_soon_after_it_is_well(self) -> None:
        clients = Clients([10 * MILLISECOND] * 4, 200)
        clients.latencies_ns[0], clients.outcomes[0] = 1, Outcome.FAILURE
        clients.run(20)
        clients.latencies_ns[0], clients.outcomes[0] = 10 * MILLISECOND, Outcome.SUCCESS
        clients.run(6)  # 1 024 picks, and three probes
        assert is_share(clients.run(20).count(0), 4_000, 0.25)


class TestAge:
    @pytest.mark.parametrize("seed", SEEDS)
    def test_it_gets_no_more_than_three_calls_past_those_in_flight(self, seed: int) -> None:
        clients = Clients([10 * MILLISECOND] * 4, 200, seed)
        clients.run(5)
        clients.latencies_ns[0] = 3600 * SECOND
        assert clients.run(60).count(0) <= 3

    def test_a_call_past_one_and_a_half_estimates_stands_in_for_the_estimate(self) -> None:
        slots = measured_fleet(2)
        held = hold(slots[0], 1)
        rules = {"floor": False, "probe_s": 0, "widen_factor": 0}
        within, later = START + 14 * MILLISECOND, START + 40 * MILLISECOND
        busy = hold(slots[1], 3)  # 4 x 10 ms, where the other costs 2 x 10 ms until its age is looked at
        rested = P2cEwma(**rules).build(View(slots), 1, START)
        assert dropped_picks(rested, 100, within) == [100, 0]
        for ticket in busy:
            ticket.finish_at(Outcome.DROPPED, later)
        assert dropped_picks(rested, 100, later) == [0, 100]
        del held


class TestCap:
    def test_one_answer_raises_the_estimate_to_ten_times_what_is_typical(self) -> None:
        slots = measured_fleet(4)
        picker = P2cEwma(age_factor=0).build(View(slots), 1, START)
        ticket = picker.pick_at(START)
        ticket.finish_at(Outcome.SUCCESS, START + SECOND)
        assert ticket.slot.latency_ns_at(START + SECOND, 10.0) == 100 * MILLISECOND

    def test_the_cap_follows_a_fleet_that_became_slower(self) -> None:
        clients = Clients([SECOND // 100] * 4, 50)
        clients.run(5)
        clients.latencies_ns[:] = [SECOND] * 4
        clients.run(20)
        estimates = [slot.latency_ns_at(clients.now_ns, 10.0) for slot in clients.slots]
        assert min(estimates) > 0.5 * SECOND

    def test_nothing_is_capped_while_nothing_is_known(self) -> None:
        (slot,) = new_slots(1)
        P2cEwma().build(View([slot]), 1, START).pick_at(START).finish_at(Outcome.SUCCESS, START + SECOND)
        assert slot.latency_ns_at(START + SECOND, 10.0) == SECOND


class TestFloor:
    def test_a_slow_server_left_alone_does_not_come_to_look_fastest(self) -> None:
        """Without a floor, a minute makes 100 ms look like a quarter of one."""
        later = START + 60 * SECOND
        slots = fleet_with(2, 1, 100 * MILLISECOND)
        answer(slots[1], 10 * MILLISECOND, later)
        only_floor = {"probe_s": 0, "widen_factor": 0}
        with_floor = dropped_picks(P2cEwma(**only_floor).build(View(slots), 1, START), 10_000, later)
        without = dropped_picks(P2cEwma(floor=False, **only_floor).build(View(slots), 1, START), 10_000, later)
        assert without == [10_000, 0]
        assert is_share(with_floor[0], 10_000, 0.5)  # a tie, for the first draw to decide


class TestProbes:
    @pytest.mark.parametrize("seed", SEEDS)
    def test_after_one_slow_answer_it_gets_less_than_a_tenth_of_its_share(self, seed: int) -> None:
        clients = Clients([10 * MILLISECOND] * 4, 100, seed)
        clients.run(5)
        clients.latencies_ns[0] = 200 * MILLISECOND
        while 0 not in clients.run(0.01):
            pass
        clients.latencies_ns[0] = 10 * MILLISECOND
        assert clients.run(1).count(0) <= 10

    @pytest.mark.parametrize(("rate", "seconds"), [(100, 2), (1, 10)])
    def test_it_has_its_share_again_soon_after(self, rate: float, seconds: float) -> None:
        clients = Clients([10 * MILLISECOND] * 4, rate)
        clients.run(40)
        clients.latencies_ns[0] = 900 * MILLISECOND
        while 0 not in clients.run(1 / rate):
            pass
        clients.run(1)  # the slow answer comes in
        clients.latencies_ns[0] = 10 * MILLISECOND
        clients.run(seconds)
        assert is_share(clients.run(1_000 / rate).count(0), 1_000, 0.25)

    @pytest.mark.parametrize("rate", [10, 100, 2_000])
    def test_one_pick_in_two_hundred_goes_to_the_slow(self, rate: float) -> None:
        clients = Clients([200 * MILLISECOND] + [10 * MILLISECOND] * 9, rate)
        clients.run(10)
        picked = clients.run(60)
        # Where calls are rare, one of them every 4.8 s.
        assert 0 < picked.count(0) <= max(0.005 * len(picked), 60 / 4.8) + 1

    def test_a_lucky_answer_is_not_enough(self) -> None:
        clients = Clients([200 * MILLISECOND] + [10 * MILLISECOND] * 9, 100)
        clients.run(10)
        estimate_ns = clients.slots[0].latency_ns_at(clients.now_ns, 1e9)
        clients.latencies_ns[0] = MILLISECOND
        while 0 not in clients.run(0.01):
            pass
        clients.latencies_ns[0] = 200 * MILLISECOND
        assert clients.slots[0].latency_ns_at(clients.now_ns, 1e9) == pytest.approx(estimate_ns)
        assert clients.run(1).count(0) <= 2

    def test_the_wait_between_probes_grows_where_they_find_no_change(self) -> None:
        clients = Clients([200 * MILLISECOND] + [10 * MILLISECOND] * 9, 100)
        clients.run(60)
        times = [index for index, place in enumerate(clients.run(60)) if place == 0]
        gaps_s = [(later - sooner) / 100 for sooner, later in itertools.pairwise(times)]
        assert min(gaps_s) > 4.8  # three times probe_s
        assert max(gaps_s) < 6.5

    def test_without_probes_it_waits_until_its_estimate_has_faded(self) -> None:
        rules = {"probe_s": 0, "floor": False}
        clients = Clients([10 * MILLISECOND] * 4, 100, **rules)
        clients.run(5)
        clients.latencies_ns[0] = 200 * MILLISECOND
        while 0 not in clients.run(0.01):
            pass
        clients.run(0.5)
        clients.latencies_ns[0] = 10 * MILLISECOND
        assert clients.run(15).count(0) == 0  # of a capped 100 ms, a fifth is left

    @pytest.mark.parametrize("outcome", [Outcome.SUCCESS, Outcome.UNAVAILABLE])
    def test_pickers_that_are_replaced_often_probe_too(self, outcome: Outcome) -> None:
        clients = Clients([200 * MILLISECOND] + [10 * MILLISECOND] * 3, 100)
        clients.outcomes[0] = outcome
        clients.run(5)
        clients.latencies_ns[0], clients.outcomes[0] = 10 * MILLISECOND, Outcome.SUCCESS
        for _ in range(90 * 20):
            clients.picker = P2cEwma().build(View(clients.slots), 1, clients.now_ns)
            clients.run(0.05)
        assert is_share(clients.run(20).count(0), 2_000, 0.25)

    def test_one_that_is_busy_is_not_probed(self) -> None:
        slots = fleet_with(10, 1, 200 * MILLISECOND)
        held = hold(slots[0], 1)
        picker = P2cEwma().build(View(slots), 1, START)
        later = START
        for _ in range(100):
            later += 100 * MILLISECOND
            ticket = picker.pick_at(later)
            assert ticket.slot is not slots[0]
            ticket.finish_at(Outcome.SUCCESS, later + 10 * MILLISECOND)
        del held

    def test_a_clock_that_jumps_back_does_not_end_the_surveys(self) -> None:
        clients = Clients([200 * MILLISECOND] + [10 * MILLISECOND] * 9, 100)
        clients.run(20)
        clients.end_all()
        clients.now_ns -= 3600 * SECOND
        clients.latencies_ns[:] = [10 * MILLISECOND] * 10
        clients.run(10)
        assert is_share(clients.run(20).count(0), 2_000, 0.1)


class TestWidening:
    @pytest.mark.parametrize("seed", SEEDS)
    def test_half_of_a_small_fleet_may_be_slow(self, seed: int) -> None:
        slots = fleet_with(4, 2, 100 * MILLISECOND)
        picks = dropped_picks(P2cEwma(probe_s=0).build(View(slots), seed, START), 10_000)
        assert picks[:2] == [0, 0]
        narrow = dropped_picks(P2cEwma(probe_s=0, widen_factor=0).build(View(slots), seed, START), 10_000)
        assert is_share(sum(narrow[:2]), 10_000, 1 / 6)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_half_of_a_large_fleet_may_be_slow(self, seed: int) -> None:
        slots = fleet_with(100, 50, 100 * MILLISECOND)
        picks = dropped_picks(P2cEwma(probe_s=0).build(View(slots), seed, START), 20_000)
        # Two draws and up to eight more, each slow half of the time.
        assert is_share(sum(picks[:50]), 20_000, 50 / 100 * 49 / 99 * 0.5**8)

    def test_one_that_is_slow_is_better_than_nobody(self) -> None:
        slots = fleet_with(4, 4, 100 * MILLISECOND)
        assert chi_square(dropped_picks(P2cEwma().build(View(slots), 1, START), 10_000)) < CHI_SQUARE_999[3]

    def test_a_fast_server_with_a_few_calls_is_better_than_a_slow_one_with_none(self) -> None:
        slots = fleet_with(2, 1, 100 * MILLISECOND)
        held = hold(slots[1], 11)  # 120 ms, where the slow one costs 100 ms, but 100 is five times as bad as bad is
        picker = P2cEwma(age_factor=0, probe_s=0).build(View(slots), 1, START)
        assert dropped_picks(picker, 100) == [0, 100]
        held += hold(slots[1], 100)
        assert dropped_picks(picker, 100) == [100, 0]


class TestStreams:
    def test_a_stream_may_count_for_less_than_a_call(self) -> None:
        slots = measured_fleet(2)
        picker = P2cEwma(stream_weight=0.25, probe_s=0).build(View(slots), 1, START)
        streams = [P2cEwmaPicker(View([slots[0]]), seed=1).pick_at(START, True) for _ in range(3)]
        calls = hold(slots[1], 1)
        assert dropped_picks(picker, 100) == [100, 0]
        streams += [P2cEwmaPicker(View([slots[0]]), seed=1).pick_at(START, True) for _ in range(2)]
        assert dropped_picks(picker, 100) == [0, 100]
        del calls

    def test_its_length_says_nothing(self) -> None:
        (slot,) = measured_fleet(1)
        P2cEwma().build(View([slot]), 1, START).pick_at(START, True).finish_at(Outcome.SUCCESS, START + 60 * SECOND)
        assert slot.latency_ns_at(START, 10.0) == 10 * MILLISECOND


class TestNewcomers:
    @pytest.mark.parametrize("seed", SEEDS)
    def test_one_gets_one_call_until_it_answers(self, seed: int) -> None:
        slots = [*measured_fleet(9), Slot()]
        picker = P2cEwma().build(View(slots), seed, START)
        held = [picker.pick_at(START + index) for index in range(1_000)]
        assert sum(ticket.slot is slots[9] for ticket in held) == 1

    @pytest.mark.parametrize("seed", SEEDS)
    def test_where_all_are_new_a_burst_is_spread(self, seed: int) -> None:
        slots = new_slots(8)
        picker = P2cEwma().build(View(slots), seed, START)
        held = [picker.pick_at(START) for _ in range(8)]
        assert {ticket.slot for ticket in held} == set(slots)

    def test_one_that_failed_its_first_call_is_tried_again(self) -> None:
        clients = Clients([10 * MILLISECOND] * 4, 100)
        clients.outcomes[0] = Outcome.UNAVAILABLE
        clients.latencies_ns[0] = MILLISECOND
        assert clients.run(2).count(0) == 1
        clients.outcomes[0] = Outcome.SUCCESS
        assert 0 in clients.run(10)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_a_lucky_first_answer_brings_no_stampede(self, seed: int) -> None:
        clients = Clients([10 * MILLISECOND] * 10, 2_000, seed)
        clients.run(1)
        clients.end_all()
        clients.slots[9].forget_latency()
        clients.latencies_ns[9] = MILLISECOND
        while 9 not in clients.run(0.001):
            pass
        clients.latencies_ns[9] = 200 * MILLISECOND  # the next ones are those of a server that warms up
        peak, others = 0, []
        for _ in range(200):
            clients.run(0.005)
            peak = max(peak, clients.slots[9].in_flight)
            others.append(sum(slot.in_flight for slot in clients.slots[:9]) / 9)
        assert 1 <= peak <= 1.5 * sum(others) / len(others)

    def pick_of(self, picker: Picker, slot: Slot, now_ns: int) -> Ticket:
        for _ in range(1_000):
            ticket = picker.pick_at(now_ns)
            if ticket.slot is slot:
                return ticket
            ticket.finish_at(Outcome.DROPPED, now_ns)
        raise AssertionError("it is never picked")

    def test_it_is_known_after_three_answers_of_which_the_slowest_counts(self) -> None:
        slots = [*measured_fleet(3), Slot()]
        picker = P2cEwma().build(View(slots), 1, START)
        picker.pick_at(START)  # a survey
        now_ns, answers = START, []
        for latency_ns in (3 * MILLISECOND, 30 * MILLISECOND, 5 * MILLISECOND):
            now_ns += 50 * MILLISECOND
            ticket = self.pick_of(picker, slots[3], now_ns)
            answers.append(ticket.slot.is_newcomer)
            ticket.finish_at(Outcome.SUCCESS, now_ns + latency_ns)
        assert answers == [True, True, True]
        assert not slots[3].is_newcomer
        assert slots[3].latency_ns_at(now_ns, 1e9) == 30 * MILLISECOND
