"""How p2c_ewma comes to know an endpoint: newcomers, and those that were slow or failed and may be well again."""

from __future__ import annotations

import itertools
import random

import pytest

from grpclb_core.native import Picker, Slot, Ticket, View
from grpclb_core.policies import P2cEwma
from grpclb_core.types import Outcome
from support.clients import Clients
from support.fleet import MILLISECOND, SECOND, START, answer, hold, is_share, measured_fleet, new_slots

SEEDS = [1, 2, 3]


class TestProbes:
    @pytest.mark.parametrize("seed", SEEDS)
    def test_after_one_slow_answer_it_gets_less_than_a_tenth_of_its_share(self, seed: int) -> None:
        clients = Clients([10 * MILLISECOND] * 4, 100, seed)
        clients.run(5)
        clients.latencies_ns[0] = 200 * MILLISECOND
        clients.run_until(0)
        clients.latencies_ns[0] = 10 * MILLISECOND
        assert clients.run(1).count(0) <= 10

    @pytest.mark.parametrize(("rate", "seconds"), [(100, 2), (1, 10)])
    def test_it_has_its_share_again_soon_after(self, rate: float, seconds: float) -> None:
        clients = Clients([10 * MILLISECOND] * 4, rate)
        clients.run(40)
        clients.latencies_ns[0] = 900 * MILLISECOND
        clients.run_until(0)
        clients.run(1)  # the slow answer comes in
        clients.latencies_ns[0] = 10 * MILLISECOND
        clients.run(seconds)
        assert is_share(clients.run(1_000 / rate).count(0), 1_000, 0.25)

    @pytest.mark.parametrize("rate", [10, 100, 2_000])
    def test_one_pick_in_three_hundred_goes_to_the_slow(self, rate: float) -> None:
        clients = Clients([200 * MILLISECOND] + [10 * MILLISECOND] * 9, rate)
        clients.run(10)
        picked = clients.run(60)
        # Where calls are rare, one of them every 2.2 s.
        assert 0 < picked.count(0) <= max(len(picked) / 300, 60 / 2.2) + 1

    def test_a_lucky_answer_is_not_enough(self) -> None:
        clients = Clients([200 * MILLISECOND] + [10 * MILLISECOND] * 9, 100)
        clients.run(10)
        estimate_ns = clients.slots[0].latency_ns_at(clients.now_ns, 1e9)
        clients.latencies_ns[0] = MILLISECOND
        clients.run_until(0)
        clients.latencies_ns[0] = 200 * MILLISECOND
        clients.run(0.02)  # the good answer comes in; a second probe may be under way by then
        assert clients.slots[0].latency_ns_at(clients.now_ns, 1e9) == pytest.approx(estimate_ns)
        assert clients.run(1).count(0) <= 2

    def test_the_wait_counts_from_when_the_probe_was_sent(self) -> None:
        """Its answer tells of that moment: who takes long to say that it is slow is not left alone for longer."""
        clients = Clients([SECOND] + [10 * MILLISECOND] * 9, 200)
        clients.run(30)
        times = [index for index, place in enumerate(clients.run(60)) if place == 0]
        gaps_s = [(later - sooner) / 200 for sooner, later in itertools.pairwise(times)]
        assert min(gaps_s) > 2.1
        assert max(gaps_s) < 3

    def test_without_probes_it_waits_until_its_estimate_has_faded(self) -> None:
        rules = {"probe_s": 0, "floor": False, "peak_cap": 10}
        clients = Clients([10 * MILLISECOND] * 4, 100, **rules)
        clients.run(5)
        clients.latencies_ns[0] = 200 * MILLISECOND
        clients.run_until(0)
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

    def test_one_that_fails_does_not_stand_in_the_way_of_one_that_is_well_again(self) -> None:
        clients = Clients([10 * MILLISECOND] * 4, 100)
        clients.run(5)
        clients.outcomes[0], clients.latencies_ns[0] = Outcome.TIMED_OUT, 900 * MILLISECOND
        clients.run(40)  # it waits for 4096 picks by now
        clients.latencies_ns[1] = 900 * MILLISECOND
        clients.run(10)
        clients.latencies_ns[1] = 10 * MILLISECOND
        clients.run(8)
        assert is_share(clients.run(10).count(1), 1_000, 1 / 3)

    def test_one_that_is_busy_is_not_probed(self) -> None:
        slots = measured_fleet(10)
        answer(slots[0], 200 * MILLISECOND)
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

    def test_after_a_step_back_nobody_is_left_alone(self) -> None:
        clients = Clients([10 * MILLISECOND, 15 * MILLISECOND], 200)
        clients.run(20)
        clients.end_all()
        clients.now_ns -= 3600 * SECOND
        clients.run(30)
        assert clients.run(20).count(1) > 200


class TestNewcomers:
    def test_one_whose_first_call_is_a_long_one_is_tried_again(self) -> None:
        clients = Clients([10 * MILLISECOND] * 4, 1_000)  # so that a call more in flight is no hindrance
        clients.run(5)
        clients.reconnect(0)
        clients.latencies_ns[0] = 3600 * SECOND
        clients.run_until(0)
        clients.latencies_ns[0] = 10 * MILLISECOND
        assert clients.run(17).count(0) == 0
        clients.run(5)
        assert not clients.slots[0].is_newcomer

    @pytest.mark.parametrize("seed", SEEDS)
    def test_one_gets_one_call_until_it_answers(self, seed: int) -> None:
        slots = [*measured_fleet(9), Slot()]
        picker = P2cEwma().build(View(slots), seed, START)
        held = [picker.pick_at(START + index) for index in range(1_000)]
        assert sum(ticket.slot is slots[9] for ticket in held) == 1

    def test_calls_on_the_connection_before_do_not_keep_it_from_being_tried(self) -> None:
        clients = Clients([10 * MILLISECOND] * 4, 2_000)
        clients.run(5)
        stuck = hold(clients.slots[0], 3, clients.now_ns)
        clients.slots[0].forget_latency_at(clients.now_ns)
        clients.run(5)
        assert clients.run(1).count(0) > 100  # five or so are in flight elsewhere, so three are no hindrance
        assert not clients.slots[0].is_newcomer
        del stuck

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
        clients.reconnect(9)
        clients.latencies_ns[9] = MILLISECOND
        clients.run_until(9)
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

    def test_one_that_fails_after_its_first_answer_is_no_better_than_one_that_failed_at_once(self) -> None:
        clients = Clients([10 * MILLISECOND] * 4, 200)
        clients.run(2)
        clients.reconnect(0)
        clients.run_until(0)
        clients.end_all()
        clients.outcomes[0], clients.latencies_ns[0] = Outcome.UNAVAILABLE, 1
        clients.run(1)
        assert clients.run(30).count(0) <= 0.01 * 30 * 200


class TestRations:
    """How many picks may go to those that are slow, or fail."""

    @pytest.mark.parametrize("weights", [None, [1.0, 2.0] * 200])
    def test_one_pick_of_three_hundred_where_many_are_slow(self, weights: list[float] | None) -> None:
        slots = new_slots(400)
        slow = set(slots[:80])
        picker = P2cEwma(decay_s=1e9, age_factor=0).build(View(slots, weights), 1, START)
        now_ns, sent, picks = START, 0, 0
        for turn in range(80_000):
            now_ns += 2 * MILLISECOND
            ticket = picker.pick_at(now_ns)
            if turn >= 30_000:  # everybody is known
                picks += 1
                sent += ticket.slot in slow
            ticket.finish_at(Outcome.SUCCESS, now_ns + (200 if ticket.slot in slow else 10) * MILLISECOND)
        assert 0.0025 * picks <= sent <= 0.0037 * picks

    @pytest.mark.parametrize(("rate", "fewest"), [(0.5, 9), (1, 18)])
    def test_one_pick_of_eighteen_where_calls_are_rare(self, rate: float, fewest: int) -> None:
        """Or fewer, where those would take more than 18 s."""
        clients = Clients([2 * SECOND] + [10 * MILLISECOND] * 3, rate, decay_s=1e9)
        clients.run(60 / rate)
        picked = clients.run(600 / rate)
        times = [index for index, place in enumerate(picked) if place == 0]
        assert len(times) > 20
        assert min(later - sooner for sooner, later in itertools.pairwise(times)) >= fewest

    @pytest.mark.parametrize(("outcome", "fewest"), [(Outcome.UNAVAILABLE, 4 * 256), (Outcome.TIMED_OUT, 4 * 4 * 256)])
    def test_the_more_calls_failed_in_a_row_the_longer_it_waits(self, outcome: Outcome, fewest: int) -> None:
        clients = Clients([10 * MILLISECOND] * 4, 400, decay_s=1e9)
        clients.run(1)
        clients.outcomes[0], clients.latencies_ns[0] = outcome, MILLISECOND
        clients.run(30)
        times = [index for index, place in enumerate(clients.run(40)) if place == 0]
        gaps = [later - sooner for sooner, later in itertools.pairwise(times)]
        assert gaps
        assert fewest <= min(gaps) <= max(gaps) <= 1.1 * fewest

    def test_calls_that_are_given_up_are_rationed_too(self) -> None:
        clients = Clients([10 * MILLISECOND] * 4, 100)
        clients.run(5)
        clients.outcomes[0], clients.latencies_ns[0] = Outcome.FAILURE, MILLISECOND
        clients.run_until(0)
        clients.outcomes[0], clients.latencies_ns[0] = Outcome.CANCELLED, 50 * MILLISECOND
        clients.run(5)
        assert clients.run(30).count(0) <= 0.01 * 30 * 100

    @pytest.mark.parametrize("seed", SEEDS)
    def test_one_that_fails_at_a_low_rate_gets_next_to_no_calls(self, seed: int) -> None:
        """Each answer there comes after long, so that an endpoint is always about to pass its probes."""
        clients = Clients([10 * MILLISECOND] * 4, 0.5, seed)
        clients.run(100)
        clients.outcomes[0], clients.latencies_ns[0] = Outcome.UNAVAILABLE, MILLISECOND
        clients.run(20)
        picked = clients.run(2_000)
        assert picked.count(0) <= 0.15 * len(picked)

    def test_everyone_has_a_turn_though_pickers_are_replaced_often(self) -> None:
        rng = random.Random(1)
        slots = measured_fleet(640)
        answer(slots[7], 200 * MILLISECOND)
        now_ns, found = START, 0
        for turn in range(500 * 100):
            if turn % 5 == 0:
                picker = P2cEwma(decay_s=1e9).build(View(slots), rng.getrandbits(64), now_ns)
            now_ns += 10 * MILLISECOND
            ticket = picker.pick_at(now_ns)
            found += ticket.slot is slots[7]
            ticket.finish_at(Outcome.SUCCESS, now_ns + (200 if ticket.slot is slots[7] else 10) * MILLISECOND)
        assert found >= 5

    def test_without_probes_a_clock_that_is_set_back_brings_none(self) -> None:
        clients = Clients([10 * MILLISECOND] * 4, 100, probe_s=0, decay_s=1e9)
        clients.run(5)
        clients.latencies_ns[0] = 200 * MILLISECOND
        clients.run_until(0)
        clients.run(1)
        clients.end_all()
        clients.now_ns -= 3600 * SECOND
        assert clients.run(30).count(0) == 0
