"""The rules that keep p2c_ewma right where a fleet misbehaves, each by itself, on a manual clock.

Statistical claims are made with 99.9 % confidence and fixed seeds; see fleet.py.
"""

from __future__ import annotations

import random

import pytest

from grpclb_core.native import P2cEwmaPicker, Slot, View
from grpclb_core.policies import P2cEwma
from grpclb_core.types import Outcome
from support.clients import Clients
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
            alike_factor=0,
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
    def test_the_penalty_does_not_feed_on_itself(self) -> None:
        rng = random.Random(5)
        clients = Clients([10 * MILLISECOND] * 4, 1_000)
        for _ in range(600):
            clients.outcomes[:] = [rng.choice([Outcome.UNAVAILABLE] + [Outcome.SUCCESS] * 9)] * 4
            clients.run(0.1)
        assert all(slot.latency_ns_at(clients.now_ns, 10.0) <= 5 * SECOND for slot in clients.slots)

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

    @pytest.mark.parametrize("latency_s", [0.01, 3, 20])
    def test_the_penalty_grows_with_what_is_typical(self, latency_s: float) -> None:
        clients = Clients([int(latency_s * SECOND)] * 4, 2 / latency_s)
        clients.run(40 * latency_s)
        clients.latencies_ns[0], clients.outcomes[0] = 1, Outcome.UNAVAILABLE
        clients.run(10 * latency_s)
        picked = clients.run(200 * latency_s)
        assert picked.count(0) <= 0.15 * len(picked)


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

    def test_a_call_that_stays_open_while_others_are_answered_is_a_long_one(self) -> None:
        slots = measured_fleet(2)
        now_ns = START + 60 * SECOND
        held = hold(slots[0], 1)
        for slot in slots:
            answer(slot, 10 * MILLISECOND, now_ns)
        picks = dropped_picks(P2cEwma(probe_s=0).build(View(slots), 1, now_ns), 100, now_ns)
        assert picks == [0, 100]  # one has a call more in flight
        held += hold(slots[1], 2, now_ns)
        assert dropped_picks(P2cEwma(probe_s=0).build(View(slots), 1, now_ns), 100, now_ns) == [100, 0]

    def test_one_that_hangs_for_long_is_tried_more_and_more_rarely(self) -> None:
        clients = Clients([10 * MILLISECOND] * 4, 100)
        clients.run(5)
        clients.latencies_ns[0] = 36_000 * SECOND
        assert clients.run(600).count(0) <= 7  # the mean age of those is to be 18 s, 70 s, 158 s ...
        assert clients.run(1_200).count(0) <= 4

    def test_a_newcomer_that_hangs_after_its_first_answer_gets_no_stream_of_calls(self) -> None:
        clients = Clients([10 * MILLISECOND] * 4, 100)
        clients.run(5)
        clients.reconnect(0)
        clients.run_until(0)
        clients.latencies_ns[0] = 36_000 * SECOND
        assert clients.run(600).count(0) <= 7

    def test_what_is_cancelled_hides_nothing_of_those_that_hang(self) -> None:
        slots = measured_fleet(2)
        held = hold(slots[0], 2, START + MILLISECOND)
        hold(slots[0], 1, START + MILLISECOND)[0].finish_at(Outcome.CANCELLED, START + 5 * MILLISECOND)
        busy = hold(slots[1], 4, START + 39 * MILLISECOND)
        picker = P2cEwma(probe_s=0, widen_factor=0).build(View(slots), 1, START)
        assert dropped_picks(picker, 100, START + 4 * MILLISECOND) == [100, 0]
        assert dropped_picks(picker, 100, START + 40 * MILLISECOND) == [0, 100]
        del held, busy

    def test_one_that_looks_hung_is_tried_after_a_while(self) -> None:
        """With one long call under way, and no other since; a server that hangs is tried more and more rarely."""
        clients = Clients([10 * MILLISECOND] * 4, 200)
        clients.run(5)
        clients.latencies_ns[0] = 3600 * SECOND
        clients.run_until(0)
        clients.latencies_ns[0] = 10 * MILLISECOND
        assert clients.run(17).count(0) <= 2
        clients.run(5)
        assert clients.run(10).count(0) > 100  # with a call more in flight it gets somewhat less than a quarter


class TestCap:
    def test_one_answer_counts_for_twenty_times_what_is_typical(self) -> None:
        slots = measured_fleet(4)
        picker = P2cEwma(age_factor=0).build(View(slots), 1, START)
        ticket = picker.pick_at(START)
        ticket.finish_at(Outcome.SUCCESS, START + SECOND)
        assert ticket.slot.latency_ns_at(START + SECOND, 10.0) == 200 * MILLISECOND

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

    @pytest.mark.parametrize("weights", [[99, 1], [33, 33, 33, 1]])
    def test_what_weighs_little_is_no_way_out(self, weights: list[float]) -> None:
        slots = measured_fleet(len(weights), 30 * MILLISECOND)
        answer(slots[-1], 10 * MILLISECOND)
        picks = dropped_picks(P2cEwma(probe_s=0).build(View(slots, weights), 1, START), 10_000)
        assert picks[-1] < 0.15 * sum(picks)


def run_mixed(clients: Clients, seconds: float, heavy_share: float = 0.01) -> list[int]:
    """Make calls of which some are heavy and take 100 ms wherever they go; return the endpoint of each."""
    rng = random.Random(7)
    usual = list(clients.latencies_ns)
    picked = []
    for _ in range(int(seconds * SECOND / clients.gap_ns)):
        is_heavy = rng.random() < heavy_share
        clients.latencies_ns[:] = [100 * MILLISECOND] * len(usual) if is_heavy else usual
        picked += clients.run(clients.gap_ns / SECOND)
    clients.latencies_ns[:] = usual
    return picked


class TestAlike:
    """What is chance is no difference."""

    def picks(self, slots: list[Slot], now_ns: int, **rules: float) -> list[int]:
        rules = {"probe_s": 0, "age_factor": 0} | rules
        return dropped_picks(P2cEwma(**rules).build(View(slots), 1, now_ns), 10_000, now_ns)

    @pytest.mark.parametrize(("latency_ms", "share"), [(11.9, 0.5), (12.1, 0.0)])
    def test_where_latencies_are_steady_a_fifth_more_is_slower(self, latency_ms: float, share: float) -> None:
        slots = fleet_with(2, 1, int(latency_ms * MILLISECOND))
        assert is_share(self.picks(slots, START)[0], 10_000, share)

    def test_of_those_alike_the_one_with_fewer_calls_is_taken(self) -> None:
        slots = fleet_with(2, 1, 11 * MILLISECOND)
        held = hold(slots[1], 1)
        assert self.picks(slots, START) == [10_000, 0]
        held += hold(slots[0], 2)
        assert self.picks(slots, START) == [0, 10_000]

    def test_who_had_the_last_heavy_call_is_no_slower(self) -> None:
        even = [self.unevenness(seed) for seed in range(1, 6)]
        by_peak = [self.unevenness(seed, alike_factor=0) for seed in range(1, 6)]
        assert sum(even) < sum(by_peak) / 3

    def unevenness(self, seed: int, **rules: float) -> float:
        picked = run_mixed(Clients([10 * MILLISECOND] * 4, 50, seed, **rules), 60)
        return chi_square([picked.count(place) for place in range(4)])

    @pytest.mark.parametrize(("quiet_s", "is_alike"), [(20, True), (300, False)])
    def test_a_fleet_is_remembered_to_have_heavy_calls(self, quiet_s: int, is_alike: bool) -> None:
        clients = Clients([10 * MILLISECOND] * 4, 200, probe_s=0)
        run_mixed(clients, 60)
        clients.run(quiet_s)
        clients.latencies_ns[0] = 100 * MILLISECOND
        clients.run_until(0)
        clients.latencies_ns[0] = 10 * MILLISECOND
        clients.run(0.2)  # the heavy call is answered
        assert (clients.run(1).count(0) > 30) == is_alike

    def test_a_slow_one_is_known_by_its_mean_where_its_peak_is_no_higher(self) -> None:
        latencies_ns = [60 * MILLISECOND] + [10 * MILLISECOND] * 3
        picked = run_mixed(Clients(list(latencies_ns), 200, probe_s=0), 60)
        by_peak = run_mixed(Clients(list(latencies_ns), 200, probe_s=0, alike_factor=0), 60)
        assert picked[6_000:].count(0) < 0.01 * 6_000 < by_peak[6_000:].count(0)

    def test_penalties_are_no_spread(self) -> None:
        """When the penalties of a moment in which everybody failed have faded, so has what it did to the spread."""
        clients = Clients([10 * MILLISECOND] * 4, 50)
        clients.run(5)
        clients.outcomes[:] = [Outcome.UNAVAILABLE] * 4
        clients.run(1)
        clients.outcomes[:] = [Outcome.SUCCESS] * 4
        clients.run(100)
        clients.latencies_ns[0] = 16 * MILLISECOND
        clients.run(5)
        picked = clients.run(10)
        assert picked.count(0) < 0.05 * len(picked)

    def test_a_picker_that_is_replaced_hands_on_what_it_knew(self) -> None:
        clients = Clients([10 * MILLISECOND] * 4, 200, probe_s=0)
        run_mixed(clients, 60)
        clients.picker = P2cEwma(probe_s=0).build(View(clients.slots), 1, clients.now_ns)
        clients.latencies_ns[0] = 100 * MILLISECOND
        clients.run_until(0)
        clients.latencies_ns[0] = 10 * MILLISECOND
        clients.run(0.2)
        assert clients.run(1).count(0) > 30

    def test_calls_longer_than_the_decay_time_are_balanced_as_others_are(self) -> None:
        rng = random.Random(3)
        clients = Clients([20 * SECOND] * 4, 2)
        picked = []
        for _ in range(1_200):
            clients.latencies_ns[:] = [rng.randrange(15, 25) * SECOND] * 4
            picked += clients.run(0.5)
        shares = [picked[200:].count(place) / 1_000 for place in range(4)]
        assert max(shares) < 0.3


class TestStreams:
    @pytest.mark.parametrize("seed", SEEDS)
    def test_streams_alone_are_balanced_by_their_number_after_a_failure_too(self, seed: int) -> None:
        slots = new_slots(4)
        picker = P2cEwma().build(View(slots), seed, START)
        picker.pick_at(START, True).finish_at(Outcome.UNAVAILABLE, START + MILLISECOND)
        now_ns, running = START + MILLISECOND, []
        for _ in range(2_000):
            now_ns += 50 * MILLISECOND
            running.append((now_ns + SECOND, picker.pick_at(now_ns, True)))
            while running[0][0] <= now_ns:
                running.pop(0)[1].finish_at(Outcome.SUCCESS, now_ns)
        assert all(3 <= slot.in_flight <= 7 for slot in slots)

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
