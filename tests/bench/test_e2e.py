"""The comparison of real runs, but for the run: plans, figures, verdicts, Envoy's configuration, what is shown."""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from grpclb_core.cli.measure.machine import describe_machine

sys.path.append(str(Path(__file__).parents[2] / "bench"))

from e2e.envoy import CLUSTER, bootstrap
from e2e.figures import WORK, Reading, judge, lines_of, percentile, read, read_work
from e2e.load import SETTLING_S, Call, Outcome, Work, plan
from e2e.scenarios import AHEAD, MEAN_S, SCENARIOS
from e2e.server import Meter

from e2e import balancers, compare, picture, tables

HEALTHY, FAILING, NEWCOMER, MIXED = (SCENARIOS[name] for name in ("healthy", "failing", "newcomer", "mixed"))


def reading(balancer: str, p99_ms: float, scenario: str = "one-slow", number: int = 0) -> Reading:
    outcome = Outcome([p99_ms / 1e3], Counter(), [0.001])
    return read(SCENARIOS[scenario], balancer, number, outcome, [1, 1, 1, 1, 0])


def options(*arguments: str) -> argparse.Namespace:
    return compare.parse(["--rounds", "2", *arguments])


class TestScenarios:
    def test_the_seven_of_the_comparison(self) -> None:
        assert list(SCENARIOS) == ["healthy", "one-slow", "two-slow", "failing", "pauses", "newcomer", "mixed"]

    def test_who_is_at_fault(self) -> None:
        faulty = {name: sorted(scenario.faulty) for name, scenario in SCENARIOS.items()}
        assert faulty == {
            "healthy": [],
            "one-slow": [0],
            "two-slow": [0, 1],
            "failing": [0],
            "pauses": [0],
            "newcomer": [4],
            "mixed": [],
        }

    def test_ahead_is_asked_for_where_somebody_is_at_fault(self) -> None:
        assert all((scenario.limit == AHEAD) == bool(scenario.faulty) for scenario in SCENARIOS.values())


class TestPlan:
    def test_the_same_seed_is_the_same_load(self) -> None:
        assert plan(HEALTHY, 100, 5, 1) == plan(HEALTHY, 100, 5, 1)
        assert plan(HEALTHY, 100, 5, 1) != plan(HEALTHY, 100, 5, 2)

    def test_arrivals_are_poisson_and_the_work_exponential(self) -> None:
        calls = plan(HEALTHY, 100, 398, 1)
        gaps = [after.due_s - before.due_s for before, after in itertools.pairwise(calls)]
        works = [call.work.seconds for call in calls]
        for values, mean in ((gaps, 0.01), (works, MEAN_S)):
            # Of 40 000 exponential values, the mean has a standard error of 0.5 % and the deviation one of 0.7 %.
            average = sum(values) / len(values)
            deviation = math.sqrt(sum((value - average) ** 2 for value in values) / len(values))
            assert average == pytest.approx(mean, rel=0.03)
            assert deviation == pytest.approx(mean, rel=0.03)

    def test_the_beginning_does_not_count(self) -> None:
        calls = plan(HEALTHY, 100, 3, 1)
        assert all(call.work.counted == (call.due_s >= SETTLING_S) for call in calls)
        assert SETTLING_S < calls[-1].due_s < SETTLING_S + 3

    def test_heavy_calls_are_rare_and_heavy(self) -> None:
        # The light and the heavy together: a mean of 0.99 + 0.01 x 20 times the work.
        works = [call.work.seconds for call in plan(MIXED, 100, 398, 1)]
        assert sum(works) / len(works) == pytest.approx(MEAN_S * 1.19, rel=0.05)
        assert 0.002 < sum(work > MEAN_S * 12 for work in works) / len(works) < 0.01


class TestFigures:
    @pytest.mark.parametrize(("part", "rank"), [(0.5, 50), (0.99, 99), (0.999, 100), (0.0, 1), (1.0, 100)])
    def test_percentiles_are_by_nearest_rank(self, part: float, rank: int) -> None:
        assert percentile([float(number) for number in range(1, 101)], part) == rank

    def test_nothing_has_no_percentile(self) -> None:
        assert percentile([], 0.99) == 0.0

    def test_a_call_that_failed_has_lasted_its_deadline(self) -> None:
        outcome = Outcome([0.01] * 97, Counter({"UNAVAILABLE": 3}), [0.002] * 100)
        found = read(FAILING, "x", 0, outcome, [3, 32, 33, 32, 0])
        assert (found.calls, found.failed, found.faulty) == (100, 0.03, 0.03)
        assert (found.p50_ms, found.p99_ms, found.answered_p99_ms, found.late_ms) == (10.0, 2000.0, 10.0, 2.0)
        assert found.codes == {"UNAVAILABLE": 3}

    def test_unevenness_is_of_those_who_are_there(self) -> None:
        outcome = Outcome([0.01] * 100, Counter(), [0.0] * 100)
        assert read(HEALTHY, "x", 0, outcome, [40, 20, 20, 20, 0]).unevenness == pytest.approx(1.6)
        assert read(NEWCOMER, "x", 0, outcome, [40, 20, 20, 20, 0]).unevenness == pytest.approx(2.0)
        assert read(NEWCOMER, "x", 0, outcome, [20, 20, 20, 20, 20]).faulty == pytest.approx(0.2)

    def test_a_turn_without_calls_is_no_fault(self) -> None:
        found = read(FAILING, "x", 0, Outcome.empty(), [0, 0, 0, 0, 0])
        assert (found.calls, found.p99_ms, found.failed, found.faulty, found.unevenness) == (0, 0, 0, 0, 0)

    def test_the_work_alone_leaves_out_what_does_not_count(self) -> None:
        calls = [Call(0.0, Work(9.0, False)), Call(1.0, Work(0.01, True)), Call(2.0, Work(0.03, True))]
        found = read_work(HEALTHY, 0, calls)
        assert (found.balancer, found.calls, found.p50_ms, found.p99_ms) == (WORK, 2, 10.0, 30.0)

    def test_lines_hold_medians_of_the_rounds(self) -> None:
        (line,) = lines_of([reading("x", value) for value in (50.0, 10.0, 20.0)])
        assert (line.p99_ms.median, line.p99_ms.least, line.p99_ms.most, line.p99_ms.rounds) == (20.0, 10.0, 50.0, 3)


class TestVerdict:
    def test_ratios_are_of_one_round_and_the_nearest_rival_counts(self) -> None:
        readings = [
            *(reading("ours", value) for value in (50.0, 100.0, 60.0)),
            *(reading("near", value) for value in (100.0, 125.0, 40.0)),
            *(reading("far", 500.0) for _ in range(3)),
        ]
        verdict = judge(readings, SCENARIOS["one-slow"], "ours", ["near", "far", "missing"])
        assert verdict is not None
        assert (verdict.rival, verdict.ratio.median, verdict.holds) == ("near", 0.8, True)

    @pytest.mark.parametrize(
        ("scenario", "p99_ms", "holds"),
        [("healthy", 102.9, True), ("healthy", 103.1, False), ("one-slow", 99.0, True), ("one-slow", 100.0, False)],
    )
    def test_limits(self, scenario: str, p99_ms: float, holds: bool) -> None:
        readings = [reading("ours", p99_ms, scenario), reading("theirs", 100.0, scenario)]
        verdict = judge(readings, SCENARIOS[scenario], "ours", ["theirs"])
        assert verdict is not None
        assert verdict.holds == holds

    def test_none_without_a_rival(self) -> None:
        assert judge([reading("ours", 1.0)], SCENARIOS["one-slow"], "ours", ["theirs"]) is None


class TestEnvoy:
    def test_known_hosts_are_listed(self) -> None:
        (cluster,) = bootstrap(["10.0.0.1", "10.0.0.2"], 50051)["static_resources"]["clusters"]
        (group,) = cluster["load_assignment"]["endpoints"]
        assert (cluster["name"], cluster["type"], cluster["lb_policy"]) == (CLUSTER, "STATIC", "LEAST_REQUEST")
        assert [entry["endpoint"]["address"]["socket_address"] for entry in group["lb_endpoints"]] == [
            {"address": "10.0.0.1", "port_value": 50051},
            {"address": "10.0.0.2", "port_value": 50051},
        ]

    def test_a_name_is_looked_up_where_it_is_known(self) -> None:
        (cluster,) = bootstrap(["greeter"], 50051, 5353)["static_resources"]["clusters"]
        resolver = cluster["typed_dns_resolver_config"]["typed_config"]
        assert cluster["type"] == "STRICT_DNS"
        assert resolver["resolvers"] == [{"socket_address": {"address": "127.0.0.1", "port_value": 5353}}]

    def test_outliers_are_found_if_asked_for(self) -> None:
        clusters = [
            bootstrap(["a"], 1, finds_outliers=asked)["static_resources"]["clusters"][0] for asked in (False, True)
        ]
        assert ["outlier_detection" in cluster for cluster in clusters] == [False, True]

    def test_it_is_json(self) -> None:
        assert json.loads(json.dumps(bootstrap(["a"], 1, 2))) == bootstrap(["a"], 1, 2)


class TestMeter:
    def test_busy_slots_over_the_last_second(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now_s = 0.0
        monkeypatch.setattr("time.monotonic", lambda: now_s)
        meter = Meter(8)
        meter.take(4)
        now_s = 1.0
        assert meter.utilization() == pytest.approx(0.5)
        meter.take(-4)
        now_s = 1.5
        meter.spend(0.08)  # a hundredth of 8 slots for a second
        now_s = 2.0
        assert meter.utilization() == pytest.approx(0.01)
        now_s = 4.0
        assert meter.utilization() == pytest.approx(0.0)


class TestTurns:
    def test_everybody_has_a_turn_in_every_scenario_of_every_round_on_the_same_calls(self) -> None:
        chosen = options("--policies", "round_robin", "random", "--seconds", "1")
        everyone = [balancers.direct(), *map(balancers.ours, chosen.policies)]
        every_turn = list(compare.turns(chosen, [HEALTHY, FAILING], everyone))
        assert Counter((turn.number, turn.scenario.name, turn.balancer.name) for turn in every_turn) == Counter(
            (number, scenario, name)
            for number in range(2)
            for scenario in ("healthy", "failing")
            for name in ("round_robin", "random", balancers.DIRECT)
            if name != balancers.DIRECT or scenario == "healthy"
        )
        assert len({id(turn.calls) for turn in every_turn}) == 4
        again = list(compare.turns(chosen, [HEALTHY, FAILING], everyone))
        assert [turn[:3] for turn in again] == [turn[:3] for turn in every_turn]

    def test_a_round_that_was_not_finished_does_not_count(self) -> None:
        chosen = options("--policies", "round_robin", "--seconds", "1")
        every_turn = list(compare.turns(chosen, [FAILING, HEALTHY], [balancers.ours("round_robin")]))
        taken = [reading("round_robin", 50.0, turn.scenario.name, turn.number) for turn in every_turn[:3]]
        whole = compare.whole_rounds(taken, every_turn)
        assert [(each.scenario, each.balancer, each.round) for each in whole] == [
            ("healthy", WORK, 0),
            ("healthy", "round_robin", 0),
            ("failing", WORK, 0),
            ("failing", "round_robin", 0),
        ]

    @pytest.mark.parametrize("wrong", [["--seconds", "0"], ["--rate", "nan"], ["--rounds", "0"], ["--scenarios", "x"]])
    def test_what_cannot_be_run_is_refused(self, wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            compare.parse(wrong)
        assert wrong[0] in capsys.readouterr().err


class TestReport:
    @pytest.fixture
    def readings(self) -> list[Reading]:
        p99s_ms = {WORK: (40.0, 40.0), "grpcio round_robin": (50.0, 50.0), "p2c_ewma": (70.0, 45.0)}
        return [
            reading(balancer, p99_ms[number], scenario)
            for number, scenario in enumerate(("healthy", "one-slow"))
            for balancer, p99_ms in p99s_ms.items()
        ]

    @pytest.fixture
    def result(self, readings: list[Reading]) -> compare.Result:
        chosen = options("--policies", "p2c_ewma", "--scenarios", "healthy", "one-slow")
        return compare.sum_up(chosen, describe_machine("python bench/e2e"), readings)

    def test_tables_are_rectangular(self, result: compare.Result) -> None:
        for text in (tables.table(result.lines, SCENARIOS), tables.verdicts(result.verdicts)):
            assert len({(len(line), line.count("|")) for line in text.splitlines()}) == 1

    def test_what_is_missed_is_said(self, result: compare.Result) -> None:
        report = compare.report(result)
        assert "p2c_ewma misses healthy: 1.40 times the p99 of grpcio round_robin" in report
        assert "misses one-slow" not in report
        assert "**1.40**" in report
        assert "0.90" in report

    def test_a_late_client_is_said_to_be_late(self, result: compare.Result) -> None:
        assert "TOO BUSY" not in compare.report(result)
        late = [msgspec.structs.replace(each, late_ms=30.0) for each in result.readings]
        assert "TOO BUSY" in compare.report(msgspec.structs.replace(result, readings=late))

    def test_the_picture_names_everybody(self, result: compare.Result) -> None:
        scenarios = [SCENARIOS["healthy"], SCENARIOS["one-slow"]]
        drawn = picture.draw(result.lines, scenarios, "120 calls/s & more")
        words = {element.text for element in ElementTree.fromstring(drawn).iter() if element.text}
        assert {WORK, "grpcio round_robin", "p2c_ewma", "healthy", "1 of 4 ten times slower"} <= words
        assert len(drawn) < 20_000
