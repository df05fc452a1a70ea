"""Weighted round robin by load reports (gRFC A58), on a manual clock."""

from __future__ import annotations

import json
import math
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grpclb_core.errors import ConfigError
from grpclb_core.native import Picker, RoundRobinPicker, Slot, StridePicker, View
from grpclb_core.policies import RoundRobin, WeightedRoundRobin, parse_policy, rebuild_s, takes_reports, wants_report
from grpclb_core.policies.weighted_round_robin import metric_of, utilization_of, weight_of
from grpclb_core.service_config import parse_service_config
from grpclb_core.types import LoadReport
from support.fleet import SECOND, START, dropped_picks, new_slots

UTILIZATIONS = [0.1, 0.2, 0.4, 0.8]
SHARES = [8 / 15, 4 / 15, 2 / 15, 1 / 15]  # 53.3, 26.7, 13.3 and 6.7 %
HALF_A_POINT = 0.005

WRR = WeightedRoundRobin()
AT_ONCE = WeightedRoundRobin(blackout_period_s=0)


def busy(utilization: float = 0.5, **fields: Any) -> LoadReport:
    """A report of a server that takes 100 calls a second."""
    return LoadReport(**{"cpu_utilization": utilization, "rps_fractional": 100.0} | fields)


def reported(policy: WeightedRoundRobin = WRR, now_ns: int = START) -> list[Slot]:
    """Four endpoints that have just reported."""
    slots = new_slots(4)
    for slot, utilization in zip(slots, UTILIZATIONS, strict=True):
        policy.observe(busy(utilization), slot, now_ns)
    return slots


def shares_of(picker: Picker, picks: int = 2_000) -> list[float]:
    return [count / picks for count in dropped_picks(picker, picks)]


def usable(policy: WeightedRoundRobin, slots: list[Slot], now_s: float) -> int:
    """Return how many weights are usable, so many seconds after `START`."""
    weights = policy.usable_weights(View(slots), START + int(now_s * SECOND))
    return len(weights) - weights.count(0.0)


class TestShares:
    def test_calls_go_where_utilization_is_low(self) -> None:
        slots = reported()
        picker = WRR.build(View(slots), 1, START + 10 * SECOND)
        assert shares_of(picker) == pytest.approx(SHARES, abs=HALF_A_POINT)

    def test_and_at_once_without_a_blackout(self) -> None:
        picker = AT_ONCE.build(View(reported(AT_ONCE)), 1, START)
        assert shares_of(picker) == pytest.approx(SHARES, abs=HALF_A_POINT)

    def test_times_the_weights_of_the_view(self) -> None:
        slots = reported(AT_ONCE)
        picker = AT_ONCE.build(View(slots, [1.0, 2.0, 4.0, 8.0]), 1, START)
        assert shares_of(picker) == pytest.approx([0.25] * 4, abs=HALF_A_POINT)

    def test_one_held_back_by_the_view_stays_so(self) -> None:
        """A zone or a priority that is to get nothing now, and that is idle for that reason."""
        slots = reported(AT_ONCE)
        picker = AT_ONCE.build(View(slots, [1e-9, 1.0, 1.0, 1.0]), 1, START)
        assert shares_of(picker) == pytest.approx([0, 4 / 7, 2 / 7, 1 / 7], abs=HALF_A_POINT)

    def test_the_unknown_get_the_mean_of_the_known(self) -> None:
        slots = [*reported(AT_ONCE)[:2], *new_slots(2)]
        assert shares_of(AT_ONCE.build(View(slots), 1, START)) == pytest.approx([1 / 3, 1 / 6, 0.25, 0.25], abs=0.005)

    @pytest.mark.parametrize("known", [0, 1])
    def test_fewer_than_two_known_are_plain_turns(self, known: int) -> None:
        slots = [*reported(AT_ONCE)[:known], *new_slots(3)]
        assert type(AT_ONCE.build(View(slots), 1, START)) is RoundRobinPicker
        weights = [2.0, *[1.0] * (len(slots) - 1)]
        picker = AT_ONCE.build(View(slots, weights), 1, START)
        assert shares_of(picker) == pytest.approx([weight / sum(weights) for weight in weights], abs=0.005)

    def test_one_endpoint(self) -> None:
        assert shares_of(AT_ONCE.build(View(reported(AT_ONCE)[:1]), 1, START), 10) == [1.0]

    def test_nobody_is_cut_off_by_what_it_reports(self) -> None:
        """The bounds of C-core: a hundredth of the mean weight, and ten times it."""
        slots = new_slots(4)
        for slot, utilization in zip(slots, [0.5, 0.5, 0.5, 1e9], strict=True):
            AT_ONCE.observe(busy(utilization), slot, START)
        assert shares_of(AT_ONCE.build(View(slots), 1, START), 20_000)[3] > 0.002


class TestPeriods:
    """Blackout and expiration, as their table in A58 has it."""

    def test_a_weight_is_used_once_it_was_reported_for_the_blackout(self) -> None:
        slots = reported()
        assert [usable(WRR, slots, at_s) for at_s in (0, 5, 9.999, 10, 100)] == [0, 0, 0, 4, 4]

    def test_it_is_used_until_it_expires_and_the_blackout_applies_anew(self) -> None:
        slots = reported()
        assert [usable(WRR, slots, at_s) for at_s in (10, 179.999, 180)] == [4, 4, 0]
        for slot in slots:
            assert slot.weighed_since_ns == 0
            WRR.observe(busy(), slot, START + 181 * SECOND)
        assert [usable(WRR, slots, at_s) for at_s in (181, 190.9, 191)] == [0, 0, 4]

    def test_reports_that_keep_coming_keep_it(self) -> None:
        slots = reported()
        for at_s in range(0, 1_000, 100):
            for slot in slots:
                WRR.observe(busy(), slot, START + at_s * SECOND)
            assert usable(WRR, slots, at_s + 50) == 4

    def test_a_new_connection_applies_the_blackout_anew(self) -> None:
        slots = reported()
        slots[0].forget_weight()
        WRR.observe(busy(), slots[0], START + 50 * SECOND)
        assert [usable(WRR, slots, at_s) for at_s in (50, 59.9, 60)] == [3, 3, 4]

    def test_without_an_expiration_they_stay(self) -> None:
        policy = WeightedRoundRobin(weight_expiration_period_s=math.inf)
        assert usable(policy, reported(policy), 1e9) == 4

    def test_the_picker_is_made_anew_each_update_period(self) -> None:
        assert rebuild_s(WRR) == 1.0
        assert rebuild_s(WeightedRoundRobin(weight_update_period_s=5)) == 5
        assert rebuild_s(WeightedRoundRobin(weight_update_period_s=0)) == 0.1  # A58: lower values mean this


class TestWishes:
    def test_one_report_in_a_tenth_of_the_update_period_will_do(self) -> None:
        slots = reported()
        assert [WRR.wants(slots[0], START + at_ms * 1_000_000) for at_ms in (0, 50, 99, 100, 5_000)] == [
            *[False] * 3,
            *[True] * 2,
        ]
        assert not WeightedRoundRobin(weight_update_period_s=10).wants(slots[0], START + SECOND // 2)

    def test_whoever_has_no_weight_is_heard_at_once(self) -> None:
        slots = [*reported(), Slot()]
        assert WRR.wants(slots[4], START)

    @pytest.mark.parametrize("report", [LoadReport(), busy(0.0), busy(eps=-1.0)])
    def test_reports_that_make_no_weight_need_not_be_read_more_often(self, report: LoadReport) -> None:
        slot = Slot()
        WRR.observe(report, slot, START)
        assert (slot.weighed_since_ns, slot.reported_weight) == (0, 0.0)
        assert [WRR.wants(slot, START + at_ms * 1_000_000) for at_ms in (0, 99, 100)] == [False, False, True]
        WRR.observe(busy(), slot, START + SECOND)
        assert slot.weighed_since_ns == START + SECOND  # it has a weight since that one, and no sooner

    def test_one_that_makes_none_leaves_the_age_of_a_weight(self) -> None:
        slot = reported()[0]
        WRR.observe(LoadReport(), slot, START + SECOND)
        assert slot.weighed_ns == START

    def test_and_so_is_everybody_where_the_clock_stepped_back(self) -> None:
        assert WRR.wants(reported()[0], START - 1)

    def test_a_policy_need_not_care(self) -> None:
        class Eager:
            name: ClassVar[str] = "eager"
            decay_s = 1.0
            oob_period_s: float | None = None

            def build(self, view: View, seed: int, now_ns: int) -> Picker:
                return RoundRobin().build(view, seed, now_ns)

            def observe(self, report: LoadReport, slot: Slot, now_ns: int) -> None: ...

        assert wants_report(Eager(), Slot(), START)
        assert wants_report(WRR, Slot(), START)
        assert not wants_report(WRR, reported()[0], START)
        assert not wants_report(RoundRobin(), Slot(), START)


class TestClocks:
    def test_one_that_stands_still_ends_no_blackout(self) -> None:
        slots = new_slots(2)
        for _ in range(5):
            for slot in slots:
                WRR.observe(busy(), slot, START)
            assert type(WRR.build(View(slots), 1, START)) is RoundRobinPicker
        assert usable(AT_ONCE, slots, 0) == 2

    def test_one_that_begins_at_0_or_below(self) -> None:
        for now_ns in (0, -5 * SECOND):
            slots = reported(WRR, now_ns)
            later = WRR.usable_weights(View(slots), now_ns + 16 * SECOND)
            assert all(later)
            WRR.observe(busy(), slots[0], now_ns)
            assert type(WRR.build(View(slots), 1, now_ns)) is RoundRobinPicker

    def test_reports_of_the_future_count_until_they_would_expire(self) -> None:
        """The clock stepped back by less than the expiration period: nobody sees the difference."""
        slots = reported(AT_ONCE)
        assert usable(AT_ONCE, slots, -100) == 0  # they have been known for less than no time
        for slot in slots[:2]:
            AT_ONCE.observe(busy(), slot, START - 100 * SECOND)
        assert usable(AT_ONCE, slots, -100) == 2

    def test_those_of_a_far_future_are_forgotten(self) -> None:
        slots = reported()
        assert usable(WRR, slots, -181) == 0
        assert [slot.weighed_since_ns for slot in slots] == [0] * 4

    def test_the_blackout_does_not_wait_for_the_clock_to_catch_up(self) -> None:
        slots = reported()
        for at_s in (-100, -90):  # reports go on where the clock is now
            for slot in slots:
                WRR.observe(busy(), slot, START + at_s * SECOND)
        assert [usable(WRR, slots, at_s) for at_s in (-90.1, -90)] == [0, 4]


class TestWeights:
    @pytest.mark.parametrize(
        ("report", "penalty", "weight"),
        [
            (busy(0.5), 1.0, 200.0),
            (busy(0.5, application_utilization=0.25), 1.0, 400.0),
            (busy(0.0, application_utilization=0.25), 1.0, 400.0),
            (busy(2.5), 1.0, 40.0),  # past its capacity, which is legal
            (busy(0.5, eps=50.0), 1.0, 100.0),
            (busy(0.5, eps=50.0), 0.0, 200.0),
            (busy(0.5, eps=50.0), 3.0, 50.0),
            (busy(0.5, eps=200.0), 1.0, 40.0),  # more failures than calls
            (busy(0.5, eps=0.0), math.inf, 200.0),
            # Without calls or utilization a report says nothing.
            (busy(0.0), 1.0, 0.0),
            (busy(0.5, rps_fractional=0.0), 1.0, 0.0),
            (busy(0.0, eps=50.0), 1.0, 0.0),
            (LoadReport(), 1.0, 0.0),
        ],
    )
    def test_formula(self, report: LoadReport, penalty: float, weight: float) -> None:
        assert weight_of(report, penalty) == pytest.approx(weight)

    @pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, -0.5])
    @pytest.mark.parametrize("field", ["cpu_utilization", "application_utilization", "rps_fractional", "eps"])
    def test_a_report_that_makes_no_sense_is_ignored_and_counted(self, field: str, number: float) -> None:
        slots = reported(AT_ONCE)
        AT_ONCE.observe(busy(**{field: number}), slots[0], START + SECOND)
        assert slots[0].ignored_reports == 1
        assert slots[0].reported_weight == 1_000
        assert shares_of(AT_ONCE.build(View(slots), 1, START)) == pytest.approx(SHARES, abs=HALF_A_POINT)

    @pytest.mark.parametrize(
        "report",
        [
            busy(5e-324, rps_fractional=1e308),  # the weight would be infinite
            busy(1e308, rps_fractional=5e-324),  # it would be nothing
            busy(0.5, rps_fractional=1e-300, eps=1e308),
        ],
    )
    def test_a_quotient_past_all_numbers_is_no_weight(self, report: LoadReport) -> None:
        assert weight_of(report, 1.0) is None

    def test_an_empty_report_leaves_the_weight_as_it_was(self) -> None:
        slots = reported(AT_ONCE)
        AT_ONCE.observe(LoadReport(), slots[0], START + 100 * SECOND)
        assert slots[0].reported_weight == 1_000
        assert slots[0].ignored_reports == 0
        assert usable(AT_ONCE, slots, 180) == 0  # nor does it keep the weight from expiring

    @settings(derandomize=True, database=None)
    @given(
        numbers=st.tuples(*[st.floats(allow_nan=True, allow_infinity=True)] * 4),
        penalty=st.floats(0, allow_infinity=True),
        now_ns=st.integers(-(2**62), 2**62),
    )
    def test_whatever_is_reported_there_is_a_picker(
        self, numbers: tuple[float, float, float, float], penalty: float, now_ns: int
    ) -> None:
        policy = WeightedRoundRobin(blackout_period_s=0, error_utilization_penalty=penalty)
        slots = reported(policy)
        fields = ("cpu_utilization", "application_utilization", "rps_fractional", "eps")
        policy.observe(LoadReport(**dict(zip(fields, numbers, strict=True))), slots[0], now_ns)
        assert sum(dropped_picks(policy.build(View(slots), 1, now_ns), 20)) == 20


class TestUtilization:
    """A114: metrics by name go before those without."""

    REPORT = LoadReport(
        cpu_utilization=0.1,
        mem_utilization=0.2,
        application_utilization=0.3,
        utilization={"disk": 0.4, "bus.a": 0.6},
        named_metrics={"queue": 0.5, "none": 0.0, "below": -1.0, "unknown": math.nan},
    )

    @pytest.mark.parametrize(
        ("names", "expected"),
        [
            ((), 0.3),
            (("cpu_utilization",), 0.1),
            (("mem_utilization", "cpu_utilization"), 0.2),
            (("application_utilization",), 0.3),
            (("utilization.disk", "named_metrics.queue"), 0.5),
            (("utilization.bus.a",), 0.6),
            (("named_metrics.none", "named_metrics.below", "named_metrics.unknown"), 0.3),
            (("named_metrics.unknown", "utilization.disk"), 0.4),
            (("named_metrics.missing", "queue", "named_metrics", "named_metrics.", "", "eps", "request_cost.x"), 0.3),
        ],
    )
    def test_the_largest_of_the_named_ones_stands(self, names: tuple[str, ...], expected: float) -> None:
        assert utilization_of(self.REPORT, names) == expected

    def test_without_any_it_is_that_of_the_application_then_of_the_processor(self) -> None:
        assert utilization_of(busy(0.2, application_utilization=0.3)) == 0.3
        assert utilization_of(busy(0.2)) == 0.2

    def test_names_reach_the_weight(self) -> None:
        policy = WeightedRoundRobin(metric_names_for_computing_utilization=("named_metrics.queue",))
        slot = Slot()
        policy.observe(busy(0.5, named_metrics={"queue": 0.25}), slot, START)
        assert slot.reported_weight == 400

    @pytest.mark.parametrize("name", ["__class__", "named_metrics.__len__", "utilization"])
    def test_a_name_is_no_attribute(self, name: str) -> None:
        assert metric_of(self.REPORT, name) == 0.0


class TestOptions:
    def test_by_name(self) -> None:
        assert parse_policy("weighted_round_robin") == WRR
        assert takes_reports(WRR)
        assert not takes_reports(RoundRobin())

    def test_defaults_are_those_of_a58(self) -> None:
        assert WRR.oob_period_s is None
        assert WeightedRoundRobin(enable_oob_load_report=True).oob_period_s == 10
        assert (WRR.blackout_period_s, WRR.weight_expiration_period_s, WRR.weight_update_period_s) == (10, 180, 1)
        assert WRR.error_utilization_penalty == 1

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("error_utilization_penalty", -0.1),
            ("error_utilization_penalty", math.nan),
            ("blackout_period_s", -1.0),
            ("weight_expiration_period_s", 0.0),
            ("weight_update_period_s", -1.0),
            ("oob_reporting_period_s", 0.0),
            ("metric_names_for_computing_utilization", (1,)),
            ("enable_oob_load_report", "yes"),
        ],
    )
    def test_one_out_of_range_is_told_with_its_path(self, field: str, value: Any) -> None:
        with pytest.raises(ConfigError) as caught:
            parse_policy(WeightedRoundRobin(**{field: value}))
        (problem,) = caught.value.problems
        assert problem.startswith(f"policy weighted_round_robin.{field}")

    def test_as_a_service_config_has_them(self) -> None:
        options = {
            "enableOobLoadReport": True,
            "oobReportingPeriod": "5s",
            "blackoutPeriod": "0.5s",
            "weightExpirationPeriod": "60s",
            "weightUpdatePeriod": "0.05s",
            "errorUtilizationPenalty": 0.5,
            "metricNamesForComputingUtilization": ["named_metrics.queue"],
        }
        text = json.dumps({"loadBalancingConfig": [{"weighted_round_robin": options}]})
        assert parse_service_config(text).policy == WeightedRoundRobin(
            enable_oob_load_report=True,
            oob_reporting_period_s=5,
            blackout_period_s=0.5,
            weight_expiration_period_s=60,
            weight_update_period_s=0.05,
            error_utilization_penalty=0.5,
            metric_names_for_computing_utilization=("named_metrics.queue",),
        )


class TestRoundRobin:
    """Its turns are by weight too, where weights differ; nobody is cut off there, and nobody kept waiting."""

    def test_equal_weights_keep_plain_turns(self) -> None:
        assert type(RoundRobin().build(View(new_slots(3)), 1, 0)) is RoundRobinPicker
        assert type(RoundRobin().build(View(new_slots(3), [0.2] * 3), 1, 0)) is RoundRobinPicker

    def test_unequal_weights_are_had(self) -> None:
        picker = RoundRobin().build(View(new_slots(3), [5.0, 3.0, 2.0]), 1, 0)
        assert type(picker) is StridePicker
        assert shares_of(picker) == pytest.approx([0.5, 0.3, 0.2], abs=0.001)

    def test_what_weighs_nothing_gets_nothing(self) -> None:
        assert shares_of(RoundRobin().build(View(new_slots(3), [1.0, 1.0, 1e-9]), 1, 0)) == [0.5, 0.5, 0.0]
