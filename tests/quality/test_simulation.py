"""The rules of the simulated world, each by a run small enough to be followed by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import msgspec
import pytest

from grpclb_core.native import Picker, Slot, View
from grpclb_core.policies import LeastRequest, P2cEwma, RoundRobin, WeightedRoundRobin
from grpclb_core.quality import Scenario, Trace, Variant, load_scenario, parse_variant, scenario_names, simulate
from grpclb_core.quality.simulation import Simulation
from grpclb_core.quality.trace import NOBODY, OPEN
from grpclb_core.types import LoadReport, Outcome

MakeScenario = Callable[..., Scenario]

MS = 1_000_000
CONSTANT = {"type": "constant", "mean_s": 0.01}
ONE = [{"slots": 1, "service": CONSTANT}]
ROOMY = [{"slots": 1000, "service": CONSTANT}]


def fault(kind: str, **given: object) -> list[dict[str, object]]:
    return [{"type": kind, "servers": [0], "from_s": 0, **given}]


def columns(trace: Trace) -> tuple[bytes, ...]:
    return tuple(
        one.tobytes()
        for one in (trace.picked_ns, trace.client, trace.server, trace.in_flight, trace.latency_ns, trace.outcome)
    )


def shortened(scenario: Scenario, calls: int) -> Scenario:
    """Return a scenario that ends after about so many calls, whatever was to happen later."""
    rate = scenario.rates[0] if scenario.load else calls  # for a second
    seconds = min(scenario.seconds, calls / rate)
    load = tuple(step for step in scenario.load if step.from_s < seconds)
    return msgspec.structs.replace(scenario, seconds=seconds, load=load, warm_up_s=0, measured_until_s=None)


class TestEveryCallEnds:
    @pytest.mark.parametrize("policy", ["p2c_ewma", "weighted_round_robin", "round_robin:outliers.max_ejected_share=1"])
    def test_in_a_world_where_all_goes_wrong(self, scenario: MakeScenario, policy: str) -> None:
        world = scenario(
            seconds=20, clients=3, subset=3, deadline_s=0.05,
            load=[{"calls_per_s": 300}, {"from_s": 10, "calls_per_s": 900}],
            streams={"share": 0.05, "lasts": {"type": "exponential", "mean_s": 1}},
            faults=[
                {"type": "hang", "servers": [0], "from_s": 3, "until_s": 6},
                {"type": "hang", "servers": [1], "from_s": 15},  # to the end, and beyond
                {"type": "fail", "servers": [2], "from_s": 4, "until_s": 12, "share": 0.5},
                {"type": "pauses", "servers": [3], "from_s": 0, "every_s": 1, "for_s": 0.2},
                {"type": "antagonist", "servers": ":", "from_s": 0, "factor": 3, "mean_on_s": 1, "mean_off_s": 1},
            ],
            changes=[
                {"type": "churn", "from_s": 1, "every_s": 0.3, "down_s": 0.2},
                {"type": "deploy", "from_s": 5, "every_s": 1, "down_s": 0.5},
                {"type": "change", "at_s": 17, "remove": ":"},
                {"type": "change", "at_s": 18, "add": ":", "renewed": False},
            ],
            clock=[{"at_s": 7, "by_s": -5}, {"at_s": 9, "still_s": 1}],
        )  # fmt: skip
        run = Simulation(world, parse_variant(policy), 1)
        trace = run.run()
        assert len(trace) > 5000
        assert OPEN not in trace.outcome
        assert NOBODY in trace.server
        assert min(trace.latency_ns) >= 0
        assert {(server.in_flight, server.busy) for server in run.servers} == {(0, 0)}
        assert {slot.in_flight for client in run.clients for slot in client.server_of} == {0}

    @pytest.mark.parametrize("name", scenario_names())
    def test_in_every_scenario(self, name: str) -> None:
        run = Simulation(shortened(load_scenario(name), 300), parse_variant("p2c_ewma"), 1)
        trace = run.run()
        assert 50 < len(trace) < 30_000
        assert OPEN not in trace.outcome
        assert not any(server.in_flight or server.busy for server in run.servers)


class TestChance:
    def test_the_same_seed_gives_the_same_trace(self) -> None:
        short = shortened(load_scenario("partial-views"), 2000)
        assert columns(simulate(short, P2cEwma(), 3)) == columns(simulate(short, P2cEwma(), 3))

    def test_another_seed_gives_another(self) -> None:
        short = shortened(load_scenario("partial-views"), 2000)
        assert columns(simulate(short, P2cEwma(), 3)) != columns(simulate(short, P2cEwma(), 4))

    def test_two_policies_meet_the_same_arrivals(self, scenario: MakeScenario) -> None:
        world = scenario(clients=5)
        first, second = simulate(world, RoundRobin(), 1), simulate(world, LeastRequest(), 1)
        assert first.picked_ns == second.picked_ns
        assert first.client == second.client

    def test_calls_at_equal_distances(self, scenario: MakeScenario) -> None:
        trace = simulate(scenario(evenly=True), RoundRobin(), 1)
        assert {after - before for before, after in pairwise(trace.picked_ns)} == {10 * MS}

    def test_the_load_follows_its_steps(self, scenario: MakeScenario) -> None:
        trace = simulate(
            scenario(evenly=True, load=[{"calls_per_s": 100}, {"from_s": 5, "of_capacity": 0.1}]), RoundRobin(), 1
        )
        assert len(trace.rows(0, 5_000 * MS)) == pytest.approx(500, abs=1)
        assert len(trace.rows(5_000 * MS, 10_000 * MS)) == pytest.approx(1600, abs=1)  # of 3200 each second

    def test_so_many_calls_are_always_open(self, scenario: MakeScenario) -> None:
        trace = simulate(scenario(load=None, concurrency=5, servers=ROOMY, seconds=1), RoundRobin(), 1)
        assert len(trace) == 5 * 100
        assert max(trace.in_flight) == 5


class TestServers:
    def test_those_beyond_the_slots_wait_their_turn(self, scenario: MakeScenario) -> None:
        trace = simulate(scenario(load=None, concurrency=3, servers=ONE, seconds=0.1), RoundRobin(), 1)
        assert list(trace.latency_ns)[:5] == [10 * MS, 20 * MS, 30 * MS, 30 * MS, 30 * MS]

    def test_speed(self, scenario: MakeScenario) -> None:
        trace = simulate(scenario(servers=[{"slots": 1000, "service": CONSTANT, "speed": 4}]), RoundRobin(), 1)
        assert set(trace.latency_ns) == {2_500_000}

    def test_slow(self, scenario: MakeScenario) -> None:
        slow = fault("slow", from_s=2, until_s=4, factor=3, added_s=0.005)
        trace = simulate(scenario(servers=ROOMY, faults=slow), RoundRobin(), 1)
        assert {trace.latency_ns[row] for row in trace.rows(2_000 * MS, 4_000 * MS)} == {35 * MS}
        assert {trace.latency_ns[row] for row in trace.rows(4_000 * MS, 10_000 * MS)} == {10 * MS}

    def test_two_faults_at_once_come_to_both(self, scenario: MakeScenario) -> None:
        slow = fault("slow", factor=2) + fault("slow", from_s=5, factor=3)
        trace = simulate(scenario(servers=ROOMY, faults=slow), RoundRobin(), 1)
        assert Counter(trace.latency_ns).keys() == {20 * MS, 60 * MS}

    def test_warming_up(self, scenario: MakeScenario) -> None:
        warming = fault("warming", until_s=4, factor=4)
        trace = simulate(scenario(servers=ROOMY, faults=warming, evenly=True), RoundRobin(), 1)
        assert trace.latency_ns[trace.row_at(500 * MS)] == 40 * MS
        assert trace.latency_ns[trace.row_at(2_000 * MS)] == pytest.approx(20 * MS, rel=0.01)
        assert trace.latency_ns[trace.row_at(4_000 * MS)] == 10 * MS

    def test_the_first_calls_are_cold(self, scenario: MakeScenario) -> None:
        cold = [{"slots": 1000, "service": CONSTANT, "cold_calls": 7, "cold_factor": 5}]
        trace = simulate(scenario(servers=cold), RoundRobin(), 1)
        assert list(trace.latency_ns[:8]) == [50 * MS] * 7 + [10 * MS]

    def test_what_stands_still_goes_on_where_it_was(self, scenario: MakeScenario) -> None:
        hang = fault("hang", from_s=1.0045, until_s=2)
        trace = simulate(scenario(servers=ROOMY, faults=hang, evenly=True), RoundRobin(), 1)
        row = trace.row_at(1_000 * MS)  # it was 4.5 ms old then
        assert trace.latency_ns[row - 1] == 10 * MS
        assert trace.latency_ns[row] == pytest.approx(10 * MS + 995.5 * MS, abs=2)
        assert trace.latency_ns[row + 1] == pytest.approx((2_000 - 1_010 + 10) * MS, abs=2)  # it had not begun

    def test_a_server_that_pauses_may_pause_again(self, scenario: MakeScenario) -> None:
        hang = fault("hang", from_s=1.0045, until_s=1.1) + fault("hang", from_s=1.102, until_s=1.2)
        trace = simulate(scenario(servers=ROOMY, faults=hang, evenly=True), RoundRobin(), 1)
        assert trace.latency_ns[trace.row_at(1_000 * MS)] == pytest.approx((10 + 95.5 + 98) * MS, abs=2)

    @pytest.mark.parametrize(
        ("status", "outcome"),
        [
            ("UNAVAILABLE", Outcome.UNAVAILABLE),
            ("INTERNAL", Outcome.FAILURE),
            ("RESOURCE_EXHAUSTED", Outcome.RATE_LIMITED),
        ],
    )
    def test_failing(self, scenario: MakeScenario, status: str, outcome: Outcome) -> None:
        failing = fault("fail", after_s=0.002, status=status)
        trace = simulate(scenario(servers=ONE, faults=failing, load=[{"calls_per_s": 1000}]), RoundRobin(), 1)
        assert set(trace.outcome) == {outcome}
        assert set(trace.latency_ns) == {2 * MS}

    def test_failing_in_part(self, scenario: MakeScenario) -> None:
        trace = simulate(
            scenario(servers=ROOMY, faults=fault("fail", share=0.3), load=[{"calls_per_s": 1000}]), RoundRobin(), 1
        )
        share = trace.outcome.count(Outcome.UNAVAILABLE) / len(trace)
        assert share == pytest.approx(0.3, abs=3.3 * (0.3 * 0.7 / 10_000) ** 0.5)  # 99.9 % confidence

    def test_an_antagonist_comes_and_goes(self, scenario: MakeScenario) -> None:
        antagonist = fault("antagonist", factor=4, mean_on_s=0.5, mean_off_s=1.5)
        trace = simulate(scenario(servers=ROOMY, faults=antagonist, seconds=400, evenly=True), RoundRobin(), 1)
        assert set(trace.latency_ns) == {10 * MS, 40 * MS}
        # 200 cycles; the share of one has a deviation of about 0.27 to its mean of 0.25, so of all of them 0.019.
        assert trace.latency_ns.count(40 * MS) / len(trace) == pytest.approx(0.25, abs=3.3 * 0.019)


class TestDeadlines:
    def test_the_server_lets_go(self, scenario: MakeScenario) -> None:
        world = scenario(servers=ONE, load=None, concurrency=3, deadline_s=0.015, seconds=0.06)
        trace = simulate(world, RoundRobin(), 1)
        # The second has 5 ms of its turn left, the third none; both give up, and two more come at once.
        assert list(trace.latency_ns[:3]) == [10 * MS, 15 * MS, 15 * MS]
        assert list(trace.outcome[:3]) == [Outcome.SUCCESS, Outcome.TIMED_OUT, Outcome.TIMED_OUT]
        assert trace.latency_ns[3] == 15 * MS  # it came at 10 ms and began at 15 ms
        assert trace.outcome[3] in (Outcome.SUCCESS, Outcome.TIMED_OUT)

    def test_the_server_does_not_know(self, scenario: MakeScenario) -> None:
        waste = scenario(
            servers=[{"slots": 1, "service": {"type": "exponential", "mean_s": 0.01}}],
            load=[{"of_capacity": 1.5}], deadline_s=0.05, deadline_reaches_server=False, seconds=30,
        )  # fmt: skip
        aware = msgspec.structs.replace(waste, deadline_reaches_server=True)
        wasted, kept = (simulate(one, RoundRobin(), 1).outcome.count(Outcome.SUCCESS) for one in (waste, aware))
        assert kept > 2000  # of the 3000 that it can do
        assert wasted < 200  # it works on what nobody waits for

    def test_a_stream_has_none(self, scenario: MakeScenario) -> None:
        streams = {"share": 0.1, "lasts": {"type": "constant", "mean_s": 2}}
        trace = simulate(scenario(servers=ONE, streams=streams, deadline_s=1), RoundRobin(), 1)
        assert trace.streams
        assert {trace.latency_ns[row] for row in trace.streams} == {2_000 * MS}
        assert max(trace.latency_ns[row] for row in range(len(trace)) if row not in trace.streams) < 1_000 * MS


class TestTheSet:
    def test_servers_leave_and_come_back(self, scenario: MakeScenario) -> None:
        changes = [{"type": "change", "at_s": 2, "remove": [0]}, {"type": "change", "at_s": 5, "add": [0]}]
        trace = simulate(scenario(changes=changes, clients=2), RoundRobin(), 1)
        assert 0 not in trace.server[trace.row_at(2_000 * MS) : trace.row_at(5_000 * MS)]
        assert 0 in trace.server[trace.row_at(5_000 * MS) :]
        assert trace.members[0] == [(0, 2_000 * MS), (5_000 * MS, 10_000 * MS)]
        assert trace.connections == 2

    def test_one_that_is_renewed_has_no_past(self, scenario: MakeScenario) -> None:
        again = [{"type": "change", "at_s": 5, "remove": [0], "add": [0]}]
        changed = Simulation(scenario(changes=again), RoundRobin(), 1)
        before = changed.servers[0]
        changed.run()
        assert changed.servers[0] is not before
        slots = {server: slot for slot, server in changed.clients[0].server_of.items()}
        assert slots[0].picks < slots[1].picks * 0.7

    def test_one_that_is_not_renewed_has(self, scenario: MakeScenario) -> None:
        again = [{"type": "change", "at_s": 5, "remove": [0], "add": [0], "renewed": False}]
        changed = Simulation(scenario(changes=again), RoundRobin(), 1)
        before = changed.servers[0]
        changed.run()
        assert changed.servers[0] is before
        slots = {server: slot for slot, server in changed.clients[0].server_of.items()}
        assert slots[0].picks == pytest.approx(slots[1].picks, abs=3)

    def test_calls_fail_while_nobody_is_there(self, scenario: MakeScenario) -> None:
        gone = [{"type": "change", "at_s": 2, "remove": ":"}, {"type": "change", "at_s": 3, "add": ":"}]
        for load in ({}, {"load": None, "concurrency": 2}):
            trace = simulate(scenario(changes=gone, **load), RoundRobin(), 1)
            rows = trace.rows(2_000 * MS, 3_000 * MS)
            assert set(trace.server[rows.start : rows.stop]) == {NOBODY}
            assert set(trace.outcome[rows.start : rows.stop]) == {Outcome.UNAVAILABLE}
            assert set(trace.outcome[rows.stop :]) == {Outcome.SUCCESS}

    def test_a_deploy_replaces_each_once(self, scenario: MakeScenario) -> None:
        deploy = [{"type": "deploy", "from_s": 1, "every_s": 2, "down_s": 1, "batch": 2}]
        trace = simulate(scenario(changes=deploy, clients=3), RoundRobin(), 1)
        begin, first, second, end = 0, [1_000 * MS, 2_000 * MS], [3_000 * MS, 4_000 * MS], 10_000 * MS
        assert trace.members == [[(begin, down), (up, end)] for down, up in (first, first, second, second)]
        assert trace.connections == 3 * 4

    def test_a_client_may_know_a_part(self, scenario: MakeScenario) -> None:
        run = Simulation(scenario(servers=[{"count": 30, "service": CONSTANT}], clients=20, subset=5), RoundRobin(), 1)
        assert len(run.run()) > 0
        known = [frozenset(client.server_of.values()) for client in run.clients]
        assert {len(one) for one in known} == {5}
        assert len(set(known)) > 15


class Listening(msgspec.Struct, frozen=True):
    """A policy that takes everything in and goes by turns."""

    oob_period_s: float | None = None
    rebuild_s: float | None = None
    built: list[int] = []
    reports: list[tuple[int, LoadReport]] = []
    name = "listening"
    decay_s = 10.0

    def build(self, view: View, seed: int, now_ns: int) -> Picker:
        self.built.append(now_ns)
        return RoundRobin().build(view, seed, now_ns)

    def observe(self, report: LoadReport, slot: Slot, now_ns: int) -> None:
        self.reports.append((now_ns, report))


class TestUpkeep:
    def test_reports_come_with_calls(self, scenario: MakeScenario) -> None:
        policy = Listening(built=[], reports=[])
        trace = simulate(scenario(servers=[{"count": 2, "slots": 2, "service": CONSTANT}]), Variant(policy), 1)
        assert len(policy.reports) == len(trace)
        _, last = policy.reports[-1]
        assert last.cpu_utilization == pytest.approx(0.25, abs=0.08)  # 100 calls/s of 10 ms on four slots
        assert last.rps_fractional == pytest.approx(50, rel=0.3)
        assert last.eps == 0
        assert last.named_metrics["grpclb.latency_s"] == pytest.approx(0.01, rel=0.5)

    def test_reports_come_beside_calls(self, scenario: MakeScenario) -> None:
        policy = Listening(oob_period_s=0.5, built=[], reports=[])
        trace = simulate(scenario(clients=3), Variant(policy), 1)
        assert len(policy.reports) - len(trace) == pytest.approx(3 * 4 * 10 / 0.5, rel=0.1)

    def test_pickers_are_built_anew(self, scenario: MakeScenario) -> None:
        policy = Listening(rebuild_s=0.1, built=[], reports=[])
        simulate(scenario(clients=3), Variant(policy), 1)
        assert len(policy.built) == pytest.approx(3 * 10 / 0.1, rel=0.1)

    def test_weights_follow_what_servers_say(self, scenario: MakeScenario) -> None:
        """A server of four times the speed is a quarter as busy, and gets four times the calls."""
        uneven = scenario(
            servers=[{"slots": 8, "service": CONSTANT, "speed": 4}, {"slots": 8, "service": CONSTANT}],
            load=[{"of_capacity": 0.3}], seconds=40,
        )  # fmt: skip
        trace = simulate(uneven, WeightedRoundRobin(), 1)
        late = trace.server[trace.row_at(25_000 * MS) :]
        assert late.count(0) / len(late) == pytest.approx(0.8, abs=0.02)

    def test_outliers_are_left_out_and_come_back(self, scenario: MakeScenario) -> None:
        failing = scenario(seconds=60, faults=fault("fail", from_s=5, until_s=20))
        variant = parse_variant("round_robin:outliers.max_ejected_share=0.5")
        trace = simulate(failing, variant, 1)
        during = trace.server[trace.row_at(7_000 * MS) : trace.row_at(20_000 * MS)]
        assert during.count(0) < 0.01 * len(during)
        after = trace.server[trace.row_at(50_000 * MS) :]
        assert after.count(0) == pytest.approx(len(after) / 4, rel=0.1)

    def test_a_newcomer_starts_slowly(self, scenario: MakeScenario) -> None:
        joins = scenario(seconds=60, servers=[{"count": 4, "service": CONSTANT}, {"joins_s": 25, "service": CONSTANT}])
        trace = simulate(joins, parse_variant("p2c_ewma:slow_start.window_s=20"), 1)
        soon, late = (
            trace.server[trace.row_at(since * 1_000 * MS) : trace.row_at((since + 5) * 1_000 * MS)]
            for since in (25, 50)
        )
        assert soon.count(4) < 0.6 * late.count(4)


class TestClock:
    def test_it_may_do_anything(self, scenario: MakeScenario) -> None:
        policy = Listening(rebuild_s=0.1, built=[], reports=[])
        clock = [{"at_s": 2, "by_s": -1}, {"at_s": 4, "still_s": 1}, {"at_s": 6, "by_s": 10}]
        simulate(scenario(clock=clock), Variant(policy), 1)
        shown = [(time_ns - policy.built[0]) / 1e9 for time_ns in policy.built]
        assert min(after - before for before, after in pairwise(shown)) == pytest.approx(-0.9, abs=0.01)
        assert sum(after == before for before, after in pairwise(shown)) == pytest.approx(10, abs=1)
        assert shown[-1] == pytest.approx(10 - 1 - 1 + 10, abs=0.2)
