"""What is measured as calls come and go, on a clock that is set by hand; and what an application may say."""

from __future__ import annotations

import logging
import math
import threading
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpclb_core.errors import ConfigError
from grpclb_core.reports import encode_report, fault_of
from grpclb_core.server import LoadRecorder, record_request_cost
from grpclb_core.server.load import recorder as module
from grpclb_core.server.load.latency import SAMPLES, LatencyByLoad, level_of
from grpclb_core.server.load.recorder import MOST_NAME_BYTES, MOST_NAMES, Call, within
from grpclb_core.server.load.trailers import MOST_TRAILER_BYTES, with_report
from grpclb_core.server.load.window import BUCKETS, SlidingRate
from grpclb_core.types import IN_FLIGHT_METRIC, LATENCY_METRIC, LoadReport, Outcome

if TYPE_CHECKING:
    from .conftest import Clock


@pytest.fixture
def recorder(clock: Clock) -> LoadRecorder:
    return LoadRecorder(clock=clock)


def serve(recorder: LoadRecorder, clock: Clock, took_s: float, outcome: Outcome = Outcome.SUCCESS) -> None:
    call = recorder.begin(is_timed=True)
    clock.now_s += took_s
    recorder.end(call, outcome)


class TestRates:
    def test_of_calls_and_of_failures(self, recorder: LoadRecorder, clock: Clock) -> None:
        for _ in range(10):
            for outcome in (Outcome.SUCCESS, Outcome.FAILURE, Outcome.CANCELLED, Outcome.SUCCESS):
                serve(recorder, clock, 0.25, outcome)
        report = recorder.report()
        assert report.rps_fractional == pytest.approx(4)
        assert report.eps == pytest.approx(1)

    def test_they_follow_the_load_within_the_window(self, recorder: LoadRecorder, clock: Clock) -> None:
        for _ in range(2000):
            serve(recorder, clock, 0.01)
        assert recorder.report().rps_fractional == pytest.approx(100)
        for _ in range(280):
            serve(recorder, clock, 0.04)
        assert recorder.report().rps_fractional == pytest.approx(25, rel=0.01)
        clock.now_s += 5
        assert recorder.report().rps_fractional == pytest.approx(12.5, rel=0.1)
        clock.now_s += 7
        assert recorder.report().rps_fractional == 0

    def test_the_first_calls_are_no_flood(self, recorder: LoadRecorder, clock: Clock) -> None:
        for _ in range(5):
            serve(recorder, clock, 0.0)
        assert recorder.report().rps_fractional == 5  # of no less than a second

    @given(st.lists(st.tuples(st.floats(0, 30), st.integers(0, 20)), max_size=30), st.floats(0, 30))
    def test_it_is_that_of_a_window_give_or_take_a_bucket(self, bursts: list[tuple[float, int]], then_s: float) -> None:
        rate, now_s, events = SlidingRate(10, 0.0), 0.0, []
        for pause_s, count in bursts:
            now_s += pause_s
            for _ in range(count):
                rate.add(now_s)
                events.append(now_s)
        now_s += then_s
        least = sum(at > now_s - 10 + 1e-6 for at in events)
        most = sum(at > now_s - 11 - 1e-6 for at in events)
        assert least / 11 - 1e-6 <= rate.at(now_s) <= most / min(max(now_s, 1), 10) + 1e-6

    def test_a_clock_that_goes_back_or_leaps_breaks_nothing(self) -> None:
        rate = SlidingRate(10, 100.0)
        for now_s in (105.0, 50.0, 105.0, -1e9):
            rate.add(now_s)
        assert rate.at(50.0) == pytest.approx(4 / 5)
        rate.add(1e15)
        assert rate.at(1e15) == pytest.approx(1 / 10)
        assert len(rate._counts) == BUCKETS + 1


class TestLatency:
    def report(self, recorder: LoadRecorder) -> tuple[float, float | None]:
        named = recorder.report().named_metrics
        return named[IN_FLIGHT_METRIC], named.get(LATENCY_METRIC)

    def test_it_is_the_median_of_calls_that_found_as_many_under_way(self, recorder: LoadRecorder, clock: Clock) -> None:
        for took_s in (0.1, 0.2, 0.9):
            serve(recorder, clock, took_s)
        other = recorder.begin(is_timed=True)
        for took_s in (0.5, 0.6):
            serve(recorder, clock, took_s)
        assert self.report(recorder) == (1, pytest.approx(0.55))
        more = [recorder.begin(is_timed=True) for _ in range(5)]
        assert self.report(recorder) == (6, pytest.approx(0.55))  # nothing nearer is known
        for call in (*more, other):
            recorder.end(call, Outcome.CANCELLED)
        assert self.report(recorder) == (0, pytest.approx(0.2))

    def test_nothing_is_told_before_the_first_call_nor_long_after_the_last(
        self, recorder: LoadRecorder, clock: Clock
    ) -> None:
        assert self.report(recorder) == (0, None)
        serve(recorder, clock, 0.1)
        clock.now_s += 9.9
        assert self.report(recorder) == (0, pytest.approx(0.1))
        clock.now_s += 0.2
        assert self.report(recorder) == (0, None)

    def test_what_is_too_old_at_this_load_gives_way_to_the_next(self, recorder: LoadRecorder, clock: Clock) -> None:
        serve(recorder, clock, 0.1)
        clock.now_s += 8
        recorder.begin(is_timed=True)
        serve(recorder, clock, 0.7)
        clock.now_s += 2
        for _ in range(2):
            assert recorder.report().named_metrics[LATENCY_METRIC] == pytest.approx(0.7)

    @pytest.mark.parametrize("outcome", [Outcome.FAILURE, Outcome.CANCELLED])
    def test_failing_fast_is_not_being_fast(self, recorder: LoadRecorder, clock: Clock, outcome: Outcome) -> None:
        serve(recorder, clock, 0.001, outcome)
        assert self.report(recorder) == (0, None)

    def test_nor_is_the_length_of_a_stream_a_latency(self, recorder: LoadRecorder, clock: Clock) -> None:
        call = recorder.begin(is_timed=False)
        recorder.end(call, Outcome.SUCCESS)
        assert self.report(recorder) == (0, None)

    def test_a_clock_that_went_back_gives_no_negative_one(self, recorder: LoadRecorder, clock: Clock) -> None:
        serve(recorder, clock, -5)
        assert self.report(recorder) == (0, 0.0)
        assert fault_of(recorder.report()) is None

    @given(st.lists(st.tuples(st.integers(0, 30), st.floats(0, 10)), max_size=60), st.integers(0, 30))
    def test_it_is_what_a_look_at_all_would_find(self, calls: list[tuple[int, float]], now: int) -> None:
        latency = LatencyByLoad(10)
        for found, took_s in calls:
            latency.add(found, took_s, 0.0)
        levels = {level_of(found) for found, _ in calls}
        wanted = None
        if levels:
            nearest = min(levels, key=lambda level: (abs(level - level_of(now)), level))
            wanted = median([took_s for found, took_s in calls if level_of(found) == nearest][-SAMPLES:])
        assert latency.at(now, 5.0) == wanted

    def test_levels_are_exact_at_first_then_an_eighth_apart_and_few(self) -> None:
        levels = [level_of(number) for number in range(70_000)]
        assert levels[:17] == list(range(17))
        assert all(0 <= after - before <= 1 for before, after in pairwise(levels))
        assert all(level_of(number) < level_of(number + number // 8 + 1) for number in range(16, 70_000))
        assert level_of(2**63) == level_of(2**20) < 160


class TestCalls:
    def test_one_ends_once(self, recorder: LoadRecorder) -> None:
        call = recorder.begin(is_timed=True)
        assert recorder.in_flight == 1
        for _ in range(3):
            recorder.end(call, Outcome.SUCCESS)
        assert recorder.in_flight == 0
        assert recorder.report().rps_fractional == 1

    def test_threads_lose_none(self) -> None:
        recorder = LoadRecorder()

        def work(number: int) -> None:
            for turn in range(500):
                call = recorder.begin(is_timed=True)
                recorder.set_utilization(f"thread-{number}", turn / 500)
                recorder.end(call, Outcome.FAILURE)
                recorder.report()

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        report = recorder.report()
        assert recorder.in_flight == 0
        assert report.eps == report.rps_fractional > 0
        assert report.utilization == {f"thread-{number}": 499 / 500 for number in range(8)}


class TestWhatIsSaid:
    def test_it_is_reported_until_it_is_said_anew(self, recorder: LoadRecorder) -> None:
        recorder.set_cpu_utilization(1.5)
        recorder.set_mem_utilization(0.25)
        recorder.set_application_utilization(2)
        recorder.set_utilization("disk", 0.5)
        recorder.set_utilization("lock", 0.75)
        recorder.set_named_metric("queue", -3)
        report = recorder.report({"rows": 12.0})
        assert report == LoadReport(
            cpu_utilization=1.5,
            mem_utilization=0.25,
            application_utilization=2.0,
            utilization={"disk": 0.5, "lock": 0.75},
            request_cost={"rows": 12.0},
            named_metrics={"queue": -3.0, IN_FLIGHT_METRIC: 0.0},
        )
        recorder.set_cpu_utilization(0)
        recorder.set_utilization("disk", None)
        recorder.set_utilization("disk", None)
        recorder.set_named_metric("queue", 4)
        report = recorder.report()
        assert report.cpu_utilization == 0
        assert report.utilization == {"lock": 0.75}
        assert report.named_metrics == {"queue": 4.0, IN_FLIGHT_METRIC: 0.0}
        assert report.request_cost == {}

    @pytest.mark.parametrize("number", [math.nan, math.inf, -0.5, 1e13])
    def test_what_no_client_would_believe_is_left_out(self, recorder: LoadRecorder, number: float) -> None:
        recorder.set_cpu_utilization(0.5)
        recorder.set_utilization("disk", 0.5)
        before = recorder.report()
        recorder.set_cpu_utilization(number)
        recorder.set_mem_utilization(number)
        recorder.set_application_utilization(number)
        recorder.set_utilization("disk", number)
        if number != -0.5:
            recorder.set_named_metric("queue", number)
        assert recorder.report() == before

    @pytest.mark.parametrize("name", ["grpclb.in_flight", "grpclb.mine", "n" * (MOST_NAME_BYTES + 1), "\ud800"])
    def test_names_that_cannot_be_used_are_left_out(self, recorder: LoadRecorder, name: str) -> None:
        before = recorder.report()
        recorder.set_named_metric(name, 1)
        recorder.set_utilization(name, 1)
        assert recorder.report() == before
        assert encode_report(before)

    def test_names_without_end_do_not_fill_the_memory(self, recorder: LoadRecorder) -> None:
        call = recorder.begin(is_timed=True)
        with within(call):
            for number in range(MOST_NAMES * 3):
                recorder.set_named_metric(f"metric-{number}", 1)
                record_request_cost(f"cost-{number}", 1)
        assert len(recorder.report().named_metrics) == MOST_NAMES + 1
        assert len(call.costs) == MOST_NAMES
        recorder.set_named_metric("metric-0", 2)  # one that is there may change
        assert recorder.report().named_metrics["metric-0"] == 2

    def test_the_reason_is_logged_once(
        self, recorder: LoadRecorder, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "_warned", set())
        with caplog.at_level(logging.WARNING, "grpclb_core.server"):
            for _ in range(3):
                recorder.set_mem_utilization(80)
        assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
            "mem_utilization is 80.0, outside 0 to 1"
        ]

    @pytest.mark.parametrize("window_s", [0, -1, math.nan, math.inf])
    def test_a_window_that_cannot_be_is_refused(self, window_s: float) -> None:
        with pytest.raises(ConfigError, match="window_s .* is not usable"):
            LoadRecorder(window_s=window_s)


class TestCosts:
    def test_they_are_those_of_the_current_call(self) -> None:
        one, other = Call(0, 0.0, True), Call(0, 0.0, True)
        record_request_cost("rows", 1)  # outside of any call: nothing
        with within(one):
            record_request_cost("rows", 2)
            with within(other):
                record_request_cost("rows", 3)
            record_request_cost("rows", 4)
            record_request_cost("bytes", math.nan)
        assert one.costs == {"rows": 4.0}
        assert other.costs == {"rows": 3.0}


class TestTrailers:
    REPORT = LoadReport(cpu_utilization=0.5, named_metrics={IN_FLIGHT_METRIC: 1.0, LATENCY_METRIC: 0.1})

    def test_both_keys_hold_the_same_bytes(self) -> None:
        message = encode_report(self.REPORT)
        assert with_report(None, self.REPORT) == (("endpoint-load-metrics-bin", message), ("grpclb-load-bin", message))

    def test_what_the_handler_sets_is_kept(self) -> None:
        theirs = [("x", "1"), ("endpoint-load-metrics-bin", b"own"), ("x", "2")]
        assert with_report(theirs, self.REPORT) == (*theirs, ("grpclb-load-bin", encode_report(self.REPORT)))

    def test_a_report_that_is_too_long_goes_without_names(self) -> None:
        names = {f"{number:060}": 0.5 for number in range(MOST_NAMES)}
        ours = self.REPORT.named_metrics
        report = LoadReport(cpu_utilization=0.5, utilization=names, request_cost=names, named_metrics={**names, **ours})
        assert len(encode_report(report)) > MOST_TRAILER_BYTES
        assert with_report(None, report) == with_report(None, self.REPORT)
