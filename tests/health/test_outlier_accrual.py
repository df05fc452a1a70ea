"""The rules for sets of any size, one sweep at a time on a manual clock."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from grpclb_core.config import FailurePercentageEjection, OutlierConfig, OutlierDetection
from grpclb_core.health import Standing
from grpclb_core.health.outlier import EMPTY, Change, Event, Reason, Seen, State, sweep
from grpclb_core.health.outlier.accrual import pause_s
from grpclb_core.types import Address

SWEEP_S = 0.1
ONE_SECOND = 10  # sweeps


class Set:
    """Endpoints a, b, c... whose calls the test makes up; slots that behave as those of the compiled core do."""

    def __init__(self, count: int, config: OutlierConfig | None = None, panic_threshold: float = 0.5) -> None:
        self.config = config or OutlierConfig()
        self.addresses = {chr(ord("a") + index): Address("10.0.0.1", index + 1) for index in range(count)}
        self.panic_threshold = panic_threshold
        self.now_s = 1000.0
        self.state = State()
        self.events: list[Event] = []
        self.trials: set[str] = set()
        self.streaks = dict.fromkeys(self.addresses, 0)
        self.standings: dict[str, Standing | None] = dict.fromkeys(self.addresses, Standing.USABLE)
        self.connection_failures = dict.fromkeys(self.addresses, 0)
        self.in_flight = dict.fromkeys(self.addresses, 0)
        self.picks = dict.fromkeys(self.addresses, 0)
        self.rng = random.Random(1)
        self.sweep()

    def sweep(self, **calls: tuple[int, int]) -> list[Event]:
        """Let a sweep's time pass, with so many (successes, failures); failures come last."""
        self.now_s += SWEEP_S
        fleet = {}
        for name, address in self.addresses.items():
            successes, failures = calls.get(name, (0, 0))
            self.streaks[name] = failures if successes else self.streaks[name] + failures
            if successes:
                self.trials.discard(name)
                self.connection_failures[name] = 0
            fleet[address] = Seen(
                successes,
                failures,
                self.streaks[name],
                self.connection_failures[name],
                name in self.trials,
                bool(self.in_flight[name]),
                self.standings[name],
                self.picks[name],
            )
        self.state, events = sweep(self.state, self.config, fleet, self.now_s, self.rng, self.panic_threshold)
        for event in events:
            name = self.name_of(event.address)
            (self.trials.add if event.change is Change.ON_TRIAL else self.trials.discard)(name)
        self.events += events
        return events

    def wait(self, seconds: float) -> None:
        for _ in range(round(seconds / SWEEP_S)):
            self.sweep()

    def name_of(self, address: Address) -> str:
        return next(name for name, one in self.addresses.items() if one == address)

    @property
    def ejected(self) -> str:
        return "".join(sorted(self.name_of(address) for address in self.state.ejected()))

    @property
    def on_trial(self) -> str:
        return "".join(sorted(self.name_of(address) for address in self.state.on_trial()))

    def told(self) -> list[tuple[str, Change]]:
        told = [(self.name_of(event.address), event.change) for event in self.events]
        self.events.clear()
        return told


EXACT = OutlierConfig(jitter=0.0)


class TestConsecutiveFailures:
    def test_seven_in_a_row_are_enough_and_six_are_not(self) -> None:
        one = Set(4)
        one.sweep(a=(0, 6), b=(9, 0))
        assert one.ejected == ""
        (event,) = one.sweep(a=(0, 1))
        assert one.ejected == "a"
        assert (event.reason, event.change) == (Reason.CONSECUTIVE_FAILURES, Change.EJECTED)
        assert "7 calls failed in a row" in event.detail

    def test_a_success_begins_the_count_anew(self) -> None:
        one = Set(4)
        for _ in range(10):
            one.sweep(a=(0, 6))
            one.sweep(a=(90, 0))
        assert one.told() == []

    def test_calls_as_rare_as_can_be(self) -> None:
        one = Set(4)
        for call in range(7):
            assert one.ejected == "", call
            one.sweep(a=(0, 1))
            one.wait(60)
        assert one.told()[0] == ("a", Change.EJECTED)

    def test_an_endpoint_that_did_well_before_goes_as_fast(self) -> None:
        one = Set(4)
        for _ in range(ONE_SECOND * 10):
            one.sweep(a=(100, 0), b=(100, 0), c=(100, 0), d=(100, 0))
        one.sweep(a=(3, 7), b=(10, 0), c=(10, 0), d=(10, 0))
        assert one.ejected == "a"

    def test_a_failure_of_long_ago_does_not_count_again(self) -> None:
        one = Set(2)
        one.standings["b"] = None
        one.sweep()
        one.sweep(a=(0, 8))  # there is no one else
        one.standings["b"] = Standing.USABLE
        one.wait(5)
        assert one.ejected == ""
        one.sweep(a=(0, 1))
        assert one.ejected == "a"

    def test_it_can_be_turned_off(self) -> None:
        one = Set(4, OutlierConfig(consecutive_failures=0, success_ratio=0.0))
        one.sweep(a=(0, 1000), b=(100, 0))
        assert one.told() == []


class TestSuccessRatio:
    def test_below_four_fifths_of_twenty_calls(self) -> None:
        one = Set(4)
        one.sweep(a=(16, 4), b=(20, 0))
        assert one.ejected == ""
        (event,) = one.sweep(a=(0, 1))
        assert (one.ejected, event.reason) == ("a", Reason.SUCCESS_RATIO)
        assert "5 of 21 calls failed" in event.detail

    def test_it_takes_calls_enough(self) -> None:
        one = Set(4)
        one.sweep(a=(13, 6))
        assert one.ejected == ""
        one.sweep(a=(13, 1))
        assert one.ejected == "a"

    @pytest.mark.parametrize("seconds", [0.0, 9.0])
    def test_a_burst_and_a_trickle_of_calls_are_alike(self, seconds: float) -> None:
        one = Set(4)
        for _ in range(10):
            assert one.ejected == ""
            one.sweep(a=(1, 1))
            one.wait(seconds / 10)
        assert one.ejected == "a"

    def test_calls_of_long_ago_do_not_count(self) -> None:
        one = Set(4)
        one.sweep(a=(14, 5))
        one.wait(10.1)
        one.sweep(a=(14, 5))
        assert one.ejected == ""

    def test_what_is_asked_is_relative_to_the_others(self) -> None:
        one = Set(4)
        one.sweep(a=(70, 30), b=(75, 25), c=(75, 25), d=(75, 25))
        assert one.ejected == ""
        one.sweep(a=(0, 30), b=(75, 25), c=(75, 25), d=(75, 25))
        assert one.ejected == "a"

    def test_figures_at_rest_leave_nothing_behind(self) -> None:
        one = Set(4)
        one.sweep(a=(70, 10), b=(75, 0))
        one.wait(11)
        assert all(track.window == () for track in one.state.accrual.tracks.values())


class TestPauses:
    def test_each_is_twice_as_long_up_to_the_ceiling(self) -> None:
        assert [pause_s(count, EXACT, 0.5) for count in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
        assert pause_s(10**6, EXACT, 0.5) == 60

    def test_jitter_adds_up_to_a_half_and_the_ceiling_holds(self) -> None:
        config = OutlierConfig()
        assert [pause_s(0, config, draw) for draw in (0.0, 0.5, 1.0)] == [1.0, 1.25, 1.5]
        assert pause_s(99, config, 1.0) == 60.0
        assert pause_s(99, config, 0.0) == 40.0

    def test_a_trial_follows_and_a_success_ends_it(self) -> None:
        one = Set(4, EXACT)
        one.sweep(a=(0, 7))
        one.wait(0.9)
        assert (one.ejected, one.on_trial) == ("a", "")
        one.sweep()
        one.sweep()
        assert (one.ejected, one.on_trial) == ("", "a")
        one.wait(30)
        assert one.on_trial == "a"  # nobody has called it
        one.sweep(a=(1, 0))
        assert (one.ejected, one.on_trial) == ("", "")
        changes = [Change.EJECTED, Change.ON_TRIAL, Change.READMITTED]
        assert one.told() == [("a", change) for change in changes]

    def test_failed_trials_lengthen_the_pause(self) -> None:
        one = Set(4, EXACT)
        one.sweep(a=(0, 7))
        began = [one.now_s]
        while len(began) < 8:
            if one.sweep(a=(0, 1) if one.on_trial else (0, 0)) and one.ejected:
                began.append(one.now_s)
        pauses = [later - earlier for earlier, later in pairwise(began)]
        assert pauses == pytest.approx([1, 2, 4, 8, 16, 32, 60], abs=3 * SWEEP_S)
        assert {event.reason for event in one.events[1:]} == {Reason.CONSECUTIVE_FAILURES, Reason.FAILED_TRIAL}

    def test_an_endpoint_that_answers_its_trials_and_little_else_is_not_back_at_once_each_time(self) -> None:
        one = Set(4, EXACT)
        for expected_s in (1, 2, 4):
            one.sweep(a=(0, 7))
            began_s = one.now_s
            while not one.on_trial:
                one.sweep()
            assert one.now_s - began_s == pytest.approx(expected_s, abs=2 * SWEEP_S)
            one.sweep(a=(1, 0))

    def test_that_is_forgiven_with_time(self) -> None:
        one = Set(4, EXACT)
        for _ in range(2):
            one.sweep(a=(0, 7))
            while not one.on_trial:
                one.sweep()
            one.sweep(a=(1, 0))
        one.wait(20.1)  # two windows for two ejections
        one.sweep(a=(0, 7))
        one.wait(1.1)
        assert one.on_trial == "a"

    def test_a_call_that_was_cancelled_decides_nothing(self) -> None:
        one = Set(4, EXACT)
        one.sweep(a=(0, 7))
        one.wait(1.1)
        one.in_flight["a"] = 1
        one.wait(5)
        one.in_flight["a"] = 0
        one.wait(20)
        assert one.on_trial == "a"

    def test_a_stream_that_goes_on_is_good_enough(self) -> None:
        one = Set(4, EXACT)
        one.sweep(a=(0, 7))
        one.wait(1.1)
        one.in_flight["a"] = 1
        one.wait(9)
        assert one.on_trial == "a"
        one.wait(2)
        assert (one.on_trial, one.ejected) == ("", "")

    def test_its_time_runs_from_its_beginning_and_not_from_that_of_the_trial(self) -> None:
        one = Set(4, EXACT)
        one.sweep(a=(0, 7))
        one.wait(1.1)
        one.wait(15)  # nobody called
        one.in_flight["a"] = one.picks["a"] = 1
        one.wait(9)
        assert one.on_trial == "a"
        one.picks["a"] += 1  # it was cancelled between two sweeps, and there is another one
        one.wait(9)
        assert one.on_trial == "a"
        one.sweep(a=(0, 1))
        assert one.ejected == "a"

    def test_streams_of_before_are_not_in_the_way_for_longer_than_that(self) -> None:
        one = Set(4, EXACT)
        one.in_flight["a"] = one.picks["a"] = 5
        one.sweep(a=(0, 7))
        one.wait(1.1)
        one.wait(9)
        assert one.on_trial == "a"
        one.wait(2)
        assert (one.on_trial, one.ejected) == ("", "")

    def test_calls_that_end_while_it_is_out_say_nothing_new(self) -> None:
        one = Set(4, EXACT)
        one.sweep(a=(0, 7))
        one.sweep(a=(0, 50))
        one.sweep(a=(5, 0))
        one.wait(0.5)
        assert one.ejected == "a"
        one.wait(0.5)
        assert one.on_trial == "a"
        assert len(one.events) == 2


class TestHowManyMayBeOut:
    @pytest.mark.parametrize(("count", "most"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (10, 5)])
    def test_half_of_the_set_and_one_of_two(self, count: int, most: int) -> None:
        one = Set(count)
        # One endpoint that is well, and has not been called, is needed for the failures to be anyone's own.
        failing = dict.fromkeys(list(one.addresses)[: max(1, count - 1)], (0, 7))
        one.sweep(**failing)
        assert len(one.ejected) == most
        for _ in range(100):
            one.sweep(**{name: (0, 1) for name in failing if name not in one.ejected})
            assert len(one.ejected) + len(one.on_trial) <= most

    def test_the_share_can_be_set(self) -> None:
        one = Set(10, OutlierConfig(max_ejected_share=0.3))
        one.sweep(**dict.fromkeys("abcde", (0, 7)))
        assert len(one.ejected) == 3

    def test_above_a_half_panic_is_the_limit(self) -> None:
        one = Set(10, OutlierConfig(max_ejected_share=1.0))
        one.sweep(**dict.fromkeys("abcdefghi", (0, 7)))
        assert len(one.ejected) == 5
        one = Set(10, OutlierConfig(max_ejected_share=1.0), panic_threshold=0.0)
        one.sweep(**dict.fromkeys("abcdefghi", (0, 7)))
        assert len(one.ejected) == 9

    def test_who_is_unwell_anyway_counts_towards_panic(self) -> None:
        one = Set(4)
        one.standings["d"] = Standing.UNUSABLE
        one.sweep(a=(0, 7), b=(0, 7))
        assert one.ejected == "a"

    def test_with_a_high_threshold_none_may_go(self) -> None:
        one = Set(4, panic_threshold=0.8)
        one.sweep(a=(0, 7))
        assert one.told() == []

    def test_one_that_cannot_be_reached_is_no_help(self) -> None:
        one = Set(2)
        one.standings["b"] = None
        one.sweep(a=(0, 7))
        assert one.told() == []

    def test_pending_ones_do_not_carry_the_load(self) -> None:
        one = Set(4)
        one.sweep(**dict.fromkeys("bcd", (20, 0)))
        one.standings |= dict.fromkeys("bcd", Standing.PENDING)
        one.sweep(a=(0, 20))
        assert one.ejected == ""
        one.standings["b"] = Standing.USABLE
        one.sweep(a=(0, 1))
        assert one.ejected == "a"

    def test_one_that_is_about_to_leave_is_help(self) -> None:
        one = Set(2)
        one.standings["b"] = Standing.LEAVING
        one.sweep(a=(0, 7))
        assert one.ejected == "a"

    def test_who_is_not_used_is_not_ejected(self) -> None:
        one = Set(4)
        one.standings["a"] = Standing.UNUSABLE
        one.sweep(a=(0, 7))
        assert one.ejected == ""

    def test_where_all_fail_alike_nobody_is_ejected(self) -> None:
        one = Set(4)
        for _ in range(100):
            one.sweep(**dict.fromkeys("abcd", (50, 0)))
        for _ in range(100):
            one.sweep(**dict.fromkeys("abcd", (0, 5)))
        assert one.told() == []

    def test_where_all_come_to_fail_those_on_trial_are_let_in(self) -> None:
        one = Set(4, EXACT)
        one.sweep(a=(0, 7))
        one.sweep(**dict.fromkeys("bcd", (0, 5)))
        one.wait(1.1)
        one.sweep(a=(0, 1))
        assert (one.ejected, one.on_trial) == ("", "")

    def test_a_failed_trial_ends_well_where_it_cannot_be_done_without(self) -> None:
        one = Set(4, EXACT)
        one.sweep(a=(0, 7))
        one.wait(1.1)
        one.standings |= {"c": Standing.UNUSABLE, "d": Standing.UNUSABLE}
        (event,) = one.sweep(a=(0, 1))
        assert (one.ejected, one.on_trial) == ("", "")
        assert "cannot be done without" in event.detail

    def test_when_the_set_shrinks_some_are_let_in(self) -> None:
        one = Set(4, EXACT)
        one.sweep(a=(0, 7))
        one.wait(0.3)
        one.sweep(b=(0, 7))
        assert one.ejected == "ab"
        del one.addresses["d"]
        one.sweep()
        assert one.ejected == "b"  # a had waited longer
        del one.addresses["c"], one.addresses["a"]
        one.sweep()
        assert one.ejected == ""

    def test_when_one_comes_back_that_was_out_the_share_still_holds(self) -> None:
        one = Set(4, EXACT)
        one.sweep(a=(0, 7), b=(0, 7))
        one.standings |= {"a": None, "b": None}
        one.sweep()
        one.sweep(c=(0, 7))
        assert one.ejected == "abc"  # one of the two that are connected
        one.standings["a"] = Standing.USABLE
        one.sweep()
        assert len(one.ejected) == 2

    def test_rules_that_are_turned_off_let_everyone_in(self) -> None:
        one = Set(4)
        one.sweep(a=(0, 7), b=(0, 7))
        one.config = OutlierConfig(max_ejected_share=0.0)
        one.sweep()
        assert one.ejected == ""
        assert one.told()[2:] == [("a", Change.READMITTED), ("b", Change.READMITTED)]
        assert one.state == EMPTY


class TestConnections:
    def test_five_in_a_row_that_failed_mean_a_trial(self) -> None:
        one = Set(4)
        one.standings["a"] = None
        one.connection_failures["a"] = 5
        one.wait(1)
        assert one.told() == []
        one.standings["a"] = Standing.USABLE
        (event,) = one.sweep()
        assert (one.on_trial, event.reason) == ("a", Reason.CONNECTION_FAILURES)
        one.sweep(a=(1, 0))
        assert one.on_trial == ""

    @pytest.mark.parametrize(("config", "failures"), [(OutlierConfig(), 4), (OutlierConfig(connection_failures=0), 99)])
    def test_fewer_do_not(self, config: OutlierConfig, failures: int) -> None:
        one = Set(4, config)
        one.standings["a"] = None
        one.connection_failures["a"] = failures
        one.sweep()
        one.standings["a"] = Standing.USABLE
        assert one.sweep() == []

    def test_one_that_fails_again_is_left_alone(self) -> None:
        one = Set(4)
        one.standings["a"] = None
        one.connection_failures["a"] = 5
        one.sweep()
        one.standings["a"] = Standing.USABLE
        one.sweep()
        one.sweep(a=(0, 1))
        assert one.ejected == "a"

    def test_calls_that_broke_with_the_connection_mean_a_trial_too(self) -> None:
        one = Set(4)
        one.standings["a"] = None
        one.sweep(a=(0, 50))
        assert one.told() == []
        one.standings["a"] = Standing.USABLE
        (event,) = one.sweep()
        assert (event.change, event.reason) == (Change.ON_TRIAL, Reason.CONSECUTIVE_FAILURES)

    def test_no_trial_begins_before_it_is_connected(self) -> None:
        one = Set(4, EXACT)
        one.sweep(a=(0, 7))
        one.standings["a"] = None
        one.wait(30)
        assert (one.ejected, one.on_trial) == ("a", "")
        one.standings["a"] = Standing.USABLE
        one.sweep()
        assert (one.ejected, one.on_trial) == ("", "a")

    def test_when_all_come_back_at_once_half_are_on_trial(self) -> None:
        one = Set(4)
        one.standings |= dict.fromkeys("abcd")
        one.connection_failures |= dict.fromkeys("abcd", 9)
        one.sweep()
        one.standings |= dict.fromkeys("abcd", Standing.USABLE)
        one.sweep()
        assert one.on_trial == "ab"

    def test_a_single_endpoint_is_never_on_trial(self) -> None:
        one = Set(1)
        one.standings["a"] = None
        one.connection_failures["a"] = 50
        one.sweep()
        one.standings["a"] = Standing.USABLE
        assert one.sweep() == []


class TestBesideA50:
    """Both kinds of rules over one set."""

    A50 = OutlierDetection(
        interval_s=1.0,
        max_ejection_percent=100,
        failure_percentage_ejection=FailurePercentageEjection(minimum_hosts=1, request_volume=5),
    )

    def of_six(self, **options: float) -> Set:
        one = Set(6, OutlierConfig(a50=self.A50, jitter=0.0, **options))  # type: ignore[arg-type]
        one.wait(0.5)
        return one

    def test_none_is_out_by_both(self) -> None:
        one = self.of_six()
        one.sweep(a=(0, 7))
        one.wait(0.6)
        assert one.ejected == "a"
        assert one.told() == [("a", Change.EJECTED)]

    def test_who_is_out_by_one_leaves_less_room_for_the_other(self) -> None:
        one = self.of_six()
        one.sweep(a=(0, 6), b=(0, 6))
        one.wait(1.0)
        assert {event.reason for event in one.events} == {Reason.A50_FAILURE_PERCENTAGE}
        one.sweep(c=(0, 7))
        one.sweep(d=(0, 7))
        assert one.ejected == "abc"
        assert {event.reason for event in one.events[2:]} == {Reason.CONSECUTIVE_FAILURES}

    def test_and_the_other_way_round(self) -> None:
        one = self.of_six(first_pause_s=5.0)
        one.sweep(a=(0, 7), b=(0, 7))
        one.sweep(c=(0, 6), d=(0, 6))
        one.wait(1.0)
        assert one.ejected == "abc"
        assert one.events[-1].reason is Reason.A50_FAILURE_PERCENTAGE

    def test_who_is_out_by_a50_is_not_judged_or_put_on_trial(self) -> None:
        one = self.of_six()
        one.sweep(a=(0, 6))
        one.wait(1.0)
        one.sweep(a=(0, 50))
        one.wait(20)
        assert one.told() == [("a", Change.EJECTED)]
