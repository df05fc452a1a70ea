"""gRPC's outlier detection, case by case as grpc-java and grpc-go test theirs, on a manual clock."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import TypeAlias

import pytest

from grpclb_core.config import FailurePercentageEjection, OutlierDetection, SuccessRateEjection
from grpclb_core.health.outlier import Change, Event, Reason, Seen, a50
from grpclb_core.health.outlier.room import Room
from grpclb_core.types import Address

NAMES = "abcde"
ADDRESSES = {name: Address("10.0.0.1", port) for port, name in enumerate("abcdef", 1)}
OK, BAD = (12, 0), (0, 12)

Configured: TypeAlias = Callable[..., OutlierDetection]


class Clock:
    """A set under A50 that is swept every interval."""

    def __init__(self, config: OutlierDetection, names: str = NAMES, seed: int = 0) -> None:
        self.config = config
        self.names = names
        self.now_s = 1000.0
        self.record = a50.IDLE
        self.events: list[Event] = []
        self.rng = random.Random(seed)
        self.sweep({})  # starts the timer

    def sweep(self, calls: Mapping[str, tuple[int, int]], rest: tuple[int, int] = (0, 0)) -> str:
        """Sweep now, and return who is ejected."""
        fleet = {ADDRESSES[name]: Seen(*calls.get(name, rest)) for name in self.names}
        room = Room(fleet, self.record.ejected, 0.0)
        self.record, self.events = a50.sweep(self.record, self.config, fleet, self.now_s, self.rng, room)
        return self.ejected

    def interval(self, calls: Mapping[str, tuple[int, int]], rest: tuple[int, int] = OK) -> str:
        self.now_s += self.config.interval_s
        return self.sweep(calls, rest)

    @property
    def ejected(self) -> str:
        return "".join(name for name in NAMES if ADDRESSES[name] in self.record.ejected)

    def multiplier(self, name: str) -> int:
        return self.record.ejections[ADDRESSES[name]].multiplier


def by_success_rate(percent: int = 50, **options: int) -> OutlierDetection:
    algorithm = SuccessRateEjection(**({"minimum_hosts": 3, "request_volume": 10} | options))
    return OutlierDetection(max_ejection_percent=percent, success_rate_ejection=algorithm)


def by_failure_percentage(percent: int = 50, **options: int) -> OutlierDetection:
    algorithm = FailurePercentageEjection(**({"minimum_hosts": 3, "request_volume": 10} | options))
    return OutlierDetection(max_ejection_percent=percent, failure_percentage_ejection=algorithm)


class TestBothAlgorithms:
    """What holds for one as for the other."""

    @pytest.fixture(params=[by_success_rate, by_failure_percentage], ids=["success rate", "failure percentage"])
    def configured(self, request: pytest.FixtureRequest) -> Configured:
        configured: Configured = request.param
        return configured

    def test_who_is_like_the_others_stays(self, configured: Configured) -> None:
        assert Clock(configured()).interval({}) == ""

    def test_an_outlier_is_ejected(self, configured: Configured) -> None:
        clock = Clock(configured())
        assert clock.interval({"a": BAD}) == "a"
        (event,) = clock.events
        assert (event.address, event.change) == (ADDRESSES["a"], Change.EJECTED)
        assert "12 calls" in event.detail

    def test_one_with_too_few_calls_is_not(self, configured: Configured) -> None:
        assert Clock(configured(request_volume=13)).interval({"a": (0, 12)}, rest=(20, 0)) == ""
        assert Clock(configured(request_volume=12)).interval({"a": (0, 12)}, rest=(20, 0)) == "a"

    def test_too_few_endpoints_with_calls_enough(self, configured: Configured) -> None:
        config = configured(minimum_hosts=5, request_volume=12)
        assert Clock(config).interval({"a": BAD, "b": (11, 0)}) == ""
        assert Clock(config).interval({"a": BAD, "b": (12, 0)}) == "a"

    def test_no_minimum_and_no_calls(self, configured: Configured) -> None:
        clock = Clock(configured(minimum_hosts=0, request_volume=0), "abcdef")
        assert clock.interval({}, rest=(0, 0)) == ""
        assert clock.interval({"a": BAD, "b": (0, 0)}) == "a"

    def test_one_without_calls_does_not_count_towards_the_minimum(self, configured: Configured) -> None:
        config = configured(minimum_hosts=5, request_volume=0)
        assert Clock(config).interval({"a": BAD, "b": (0, 0)}) == ""
        assert Clock(config).interval({"a": BAD, "b": (1, 0)}) == "a"

    def test_enforcement_is_a_matter_of_chance(self, configured: Configured) -> None:
        assert Clock(configured(enforcement_percentage=0)).interval({"a": BAD}) == ""
        times = sum(
            Clock(configured(enforcement_percentage=30), seed=seed).interval({"a": BAD}) == "a" for seed in range(1000)
        )
        assert 252 <= times <= 348  # 99.9 % of 1000 draws with a chance of 0.3

    def test_an_enforcement_of_one_percent_is_not_none(self, configured: Configured) -> None:
        config = configured(enforcement_percentage=1)
        assert any(Clock(config, seed=seed).interval({"a": BAD}) == "a" for seed in range(1000))

    def test_it_is_let_in_when_its_time_is_over(self, configured: Configured) -> None:
        clock = Clock(configured())
        clock.interval({"a": BAD})
        assert clock.interval({}) == "a"
        assert clock.interval({}) == "a"
        assert clock.interval({}) == "a"  # exactly 30 s: A50 has "after"
        assert clock.interval({}) == ""
        assert [event.change for event in clock.events] == [Change.READMITTED]

    def test_calls_while_it_is_ejected_do_not_eject_it_again(self, configured: Configured) -> None:
        clock = Clock(configured())
        clock.interval({"a": BAD})
        since_s = clock.record.ejections[ADDRESSES["a"]].since_s
        assert clock.interval({"a": BAD}) == "a"
        assert clock.record.ejections[ADDRESSES["a"]].since_s == since_s
        assert clock.multiplier("a") == 1

    def test_enforcement_may_change_while_one_is_ejected(self, configured: Configured) -> None:
        clock = Clock(configured())
        clock.interval({"a": BAD})
        clock.config = configured(enforcement_percentage=0)
        assert clock.interval({"b": BAD}) == "a"


class TestSuccessRate:
    def test_figures(self) -> None:
        mean, deviation = a50.mean_and_deviation([600, 470, 170, 430, 300])
        assert mean == 394
        assert deviation == pytest.approx(147.32277488562318)

    def test_two_of_five_take_a_low_factor(self) -> None:
        assert Clock(by_success_rate()).interval({"a": BAD, "b": BAD}) == ""  # 0.6 - 1.9 x 0.49 is below 0
        assert Clock(by_success_rate(stdev_factor=1)).interval({"a": BAD, "b": BAD}) == "ab"

    def test_the_bound_itself_is_good_enough(self) -> None:
        # Rates 0.5, 1, 1, 1: mean 0.875, deviation 0.2165; a factor of 1.732... is the bound.
        calls = {"a": (50, 50), "b": (100, 0), "c": (100, 0), "d": (100, 0)}
        assert Clock(by_success_rate(stdev_factor=1733), "abcd").interval(calls) == ""
        assert Clock(by_success_rate(stdev_factor=1732), "abcd").interval(calls) == "a"

    @pytest.mark.parametrize("factor", [0, 1, 50, 1900])
    def test_equal_rates_have_no_outlier_however_they_round(self, factor: int) -> None:
        for failures in range(1, 30):
            config = by_success_rate(percent=100, stdev_factor=factor)
            assert Clock(config).interval({}, rest=(29 - failures, failures)) == ""

    def test_half_of_the_others_may_be_let_go_if_the_share_is_reached_on_the_way(self) -> None:
        # 0 % and 20 % are below 30 %, so the second goes as well; grpc-java's successRateThreeOutliers.
        config = by_success_rate(percent=30, stdev_factor=1)
        assert Clock(config).interval({"a": BAD, "b": BAD, "c": BAD}) == "ab"

    @pytest.mark.parametrize(
        ("percent", "ejected"), [(0, ""), (1, "a"), (20, "a"), (21, "ab"), (40, "ab"), (100, "abc")]
    )
    def test_the_share_is_looked_at_before_each(self, percent: int, ejected: str) -> None:
        config = by_success_rate(percent=percent, stdev_factor=1)
        assert Clock(config).interval({"a": BAD, "b": BAD, "c": BAD}) == ejected


class TestFailurePercentage:
    @pytest.mark.parametrize(("failures", "ejected"), [(85, ""), (86, "a")])
    def test_the_threshold_itself_is_allowed(self, failures: int, ejected: str) -> None:
        assert Clock(by_failure_percentage()).interval({"a": (100 - failures, failures)}) == ejected

    def test_a_threshold_of_a_hundred_is_never(self) -> None:
        assert Clock(by_failure_percentage(threshold=100)).interval({"a": BAD}) == ""

    def test_a_threshold_of_zero_is_any_failure(self) -> None:
        assert Clock(by_failure_percentage(threshold=0)).interval({"a": (999, 1)}) == "a"

    def test_others_do_not_matter(self) -> None:
        assert Clock(by_failure_percentage(percent=100)).interval(dict.fromkeys("abcd", BAD)) == "abcd"


class TestBothAtOnce:
    def test_success_rate_comes_first_and_nobody_is_ejected_twice(self) -> None:
        # grpc-java's successRateAndFailurePercentageThreeOutliers: c has one call, which is too few for the first.
        config = OutlierDetection(
            max_ejection_percent=100,
            success_rate_ejection=SuccessRateEjection(minimum_hosts=3, request_volume=10, stdev_factor=1),
            failure_percentage_ejection=FailurePercentageEjection(threshold=0, minimum_hosts=3, request_volume=1),
        )
        clock = Clock(config)
        assert clock.interval({"a": BAD, "b": BAD, "c": (0, 1)}) == "abc"
        assert [event.reason for event in clock.events] == [
            Reason.A50_SUCCESS_RATE,
            Reason.A50_SUCCESS_RATE,
            Reason.A50_FAILURE_PERCENTAGE,
        ]
        assert [clock.multiplier(name) for name in "abc"] == [1, 1, 1]

    @pytest.mark.parametrize(("rate", "percentage"), [(100, 0), (0, 100)])
    def test_each_may_be_unenforced(self, rate: int, percentage: int) -> None:
        config = OutlierDetection(
            max_ejection_percent=50,
            success_rate_ejection=SuccessRateEjection(minimum_hosts=3, request_volume=10, enforcement_percentage=rate),
            failure_percentage_ejection=FailurePercentageEjection(
                minimum_hosts=3, request_volume=10, enforcement_percentage=percentage
            ),
        )
        assert Clock(config).interval({"a": BAD}) == "a"


class TestTime:
    def test_each_ejection_is_longer_up_to_a_ceiling(self) -> None:
        clock = Clock(by_failure_percentage())
        lengths = []
        for _ in range(12):
            clock.interval({"a": BAD})
            began_s = clock.now_s
            while clock.ejected:
                clock.interval({})
            lengths.append(clock.now_s - began_s)
        # base x multiplier, and the sweep after that; ejected again at the sweep after it was let in.
        assert lengths == [*range(40, 310, 30), 310, 310, 310]

    def test_the_multiplier_falls_by_one_each_interval_it_is_in(self) -> None:
        clock = Clock(by_failure_percentage())
        for _ in range(2):
            clock.interval({"a": BAD})
            while clock.ejected:
                clock.interval({})
        assert clock.multiplier("a") == 2
        clock.interval({})
        assert clock.multiplier("a") == 1
        clock.interval({})
        clock.interval({})
        assert clock.multiplier("a") == 0

    def test_a_base_above_the_ceiling_is_the_ceiling(self) -> None:
        config = OutlierDetection(
            max_ejection_percent=50,
            base_ejection_time_s=25.0,
            max_ejection_time_s=5.0,
            failure_percentage_ejection=FailurePercentageEjection(minimum_hosts=3, request_volume=10),
        )
        clock = Clock(config)
        clock.interval({"a": BAD})
        assert [clock.interval({}) for _ in range(3)] == ["a", "a", ""]

    def test_nothing_is_decided_within_an_interval(self) -> None:
        clock = Clock(by_failure_percentage())
        for _ in range(9):
            clock.now_s += 1
            assert clock.sweep({"a": (0, 2)}, rest=(2, 0)) == ""
        clock.now_s += 1
        assert clock.sweep({"a": (0, 2)}, rest=(2, 0)) == "a"  # all ten together are 20 calls

    def test_calls_of_another_interval_do_not_count(self) -> None:
        clock = Clock(by_failure_percentage(request_volume=13))
        assert clock.interval({"a": BAD}) == ""
        assert clock.interval({"a": BAD}) == ""

    def test_an_interval_keeps_its_beginning_when_the_config_changes(self) -> None:
        clock = Clock(by_failure_percentage())
        clock.now_s += 6
        clock.sweep({"a": BAD}, rest=OK)
        clock.config = OutlierDetection(
            interval_s=8.0,
            max_ejection_percent=50,
            failure_percentage_ejection=FailurePercentageEjection(minimum_hosts=3, request_volume=10),
        )
        clock.now_s += 1
        assert clock.sweep({}) == ""
        clock.now_s += 1
        assert clock.sweep({}) == "a"  # 8 s after the beginning, and the calls before the change count

    def test_an_interval_that_is_shorter_now_may_be_over_at_once(self) -> None:
        clock = Clock(by_failure_percentage())
        clock.now_s += 6
        clock.sweep({"a": BAD}, rest=OK)
        clock.config = OutlierDetection(
            interval_s=5.0,
            max_ejection_percent=50,
            failure_percentage_ejection=FailurePercentageEjection(minimum_hosts=3, request_volume=10),
        )
        assert clock.sweep({}) == "a"

    def test_a_clock_that_steps_back_delays_and_does_no_more(self) -> None:
        clock = Clock(by_failure_percentage())
        clock.interval({"a": BAD})
        clock.now_s -= 100
        assert clock.sweep({}) == "a"
        clock.now_s += 140.5
        assert clock.sweep({}) == ""


class TestChange:
    def test_without_an_algorithm_all_are_let_in_and_forgotten(self) -> None:
        clock = Clock(by_failure_percentage())
        clock.interval({"a": BAD})
        clock.config = OutlierDetection()
        assert clock.sweep({}) == ""
        assert [(event.address, event.change) for event in clock.events] == [(ADDRESSES["a"], Change.READMITTED)]
        assert clock.record == a50.IDLE
        assert clock.sweep({}) == ""
        assert clock.events == []

    def test_turned_on_again_it_counts_from_then(self) -> None:
        clock = Clock(OutlierDetection())
        assert clock.interval({"a": BAD}) == ""
        clock.config = by_failure_percentage()
        clock.sweep({"a": BAD}, rest=OK)  # these calls came before
        assert clock.interval({"a": (0, 9)}) == ""

    def test_who_leaves_the_list_is_forgotten(self) -> None:
        clock = Clock(by_failure_percentage())
        clock.interval({"a": BAD})
        clock.names = "bcde"
        assert clock.sweep({}) == ""
        clock.names = NAMES
        assert clock.sweep({}) == ""
        assert clock.multiplier("a") == 0

    def test_who_comes_is_counted_from_then(self) -> None:
        clock = Clock(by_failure_percentage(), "bcde")
        clock.names = NAMES
        assert clock.interval({"a": BAD}) == "a"


class TestRoom:
    """The one thing that is added to A50."""

    def test_one_stays_whatever_the_config_says(self) -> None:
        config = by_failure_percentage(percent=100)
        assert Clock(config).interval(dict.fromkeys(NAMES, BAD)) == "abcd"

    def test_a_single_endpoint_is_never_ejected(self) -> None:
        config = by_failure_percentage(percent=100, minimum_hosts=0)
        assert Clock(config, "a").interval({"a": BAD}) == ""

    @pytest.mark.parametrize("passed_s", [1.0, 10.0])
    def test_if_all_others_leave_the_last_one_is_let_in(self, passed_s: float) -> None:
        clock = Clock(by_failure_percentage())
        clock.interval({"a": BAD})
        clock.names = "a"
        clock.now_s += passed_s
        clock.sweep({})
        assert clock.ejected == ""
        assert [event.change for event in clock.events] == [Change.READMITTED]
