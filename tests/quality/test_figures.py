"""The figures, from traces that are written by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from grpclb_core.quality import Scenario, Trace, figures_of
from grpclb_core.quality.figures import quantile
from grpclb_core.types import Outcome

MakeScenario = Callable[..., Scenario]

MS = 1_000_000
SECOND = 1_000 * MS


def trace_of(
    servers: list[int],
    *,
    every_ms: int = 10,
    latency_ms: float = 5,
    outcomes: dict[int, Outcome] | None = None,
    members: list[list[tuple[int, int]]] | None = None,
    in_flight: int = 1,
) -> Trace:
    """Return a trace of calls at equal distances to these servers."""
    trace = Trace()
    trace.members = members or [[(0, 10 * SECOND)] for _ in range(4)]
    for turn, server in enumerate(servers):
        row = trace.add(turn * every_ms * MS, 0, server, in_flight)
        trace.end(row, turn * every_ms * MS + int(latency_ms * MS), (outcomes or {}).get(turn, Outcome.SUCCESS).value)
    return trace


def in_turn(calls: int, servers: int = 4) -> list[int]:
    return [turn % servers for turn in range(calls)]


FAULT = [{"type": "hang", "servers": [0], "from_s": 2, "until_s": 5}]


class TestQuantile:
    @pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.99, 99), (0.999, 100), (0.001, 1), (1, 100), (0, 1)])
    def test_of_a_hundred(self, share: float, value: float) -> None:
        assert quantile(list(range(1, 101)), share) == value

    def test_of_none(self) -> None:
        assert math.isnan(quantile([], 0.5))


class TestLatencyAndErrors:
    def test_of_calls_that_all_went_well(self, scenario: MakeScenario) -> None:
        figures = figures_of(trace_of(in_turn(1000)), scenario())
        assert (figures.calls, figures.p50_ms, figures.p999_ms, figures.errors) == (1000, 5, 5, 0)
        assert math.isnan(figures.late_error_share)

    def test_a_failure_is_not_fast_and_a_timeout_is_slow(self, scenario: MakeScenario) -> None:
        outcomes = {0: Outcome.UNAVAILABLE, 1: Outcome.FAILURE, 2: Outcome.RATE_LIMITED, 3: Outcome.TIMED_OUT}
        trace = trace_of(in_turn(100), outcomes=outcomes)
        trace.latency_ns[0] = trace.latency_ns[1] = 1
        trace.latency_ns[3] = 5 * SECOND
        figures = figures_of(trace, scenario())
        assert (figures.errors, figures.timeouts, figures.error_share) == (4, 1, 0.04)
        assert (figures.p50_ms, figures.p999_ms) == (5, 5000)

    def test_streams_do_not_count(self, scenario: MakeScenario) -> None:
        trace = trace_of(in_turn(100))
        trace.latency_ns[7] = 60 * SECOND
        trace.streams.add(7)
        assert figures_of(trace, scenario()).p999_ms == 5

    def test_only_what_is_measured(self, scenario: MakeScenario) -> None:
        trace = trace_of(in_turn(1000), outcomes={50: Outcome.FAILURE, 500: Outcome.FAILURE, 950: Outcome.FAILURE})
        figures = figures_of(trace, scenario(warm_up_s=1, measured_until_s=9))
        assert (figures.calls, figures.errors) == (800, 1)

    def test_errors_after_the_first_second(self, scenario: MakeScenario) -> None:
        outcomes = dict.fromkeys((210, 250, 299, 300, 400), Outcome.FAILURE)  # the fault begins with call 200
        assert (
            figures_of(trace_of(in_turn(1000), outcomes=outcomes), scenario(faults=FAULT)).late_error_share == 2 / 700
        )

    def test_each_step_of_the_load(self, scenario: MakeScenario) -> None:
        load = [{"calls_per_s": 100}, {"from_s": 4, "calls_per_s": 200}]
        trace = trace_of(in_turn(1000), outcomes={10: Outcome.FAILURE, 500: Outcome.TIMED_OUT})
        first, second = figures_of(trace, scenario(load=load)).steps
        assert (first.calls, first.error_share, first.timeouts, first.calls_per_s) == (400, 1 / 400, 0, 100)
        assert (second.calls, second.error_share, second.timeouts, second.from_s) == (600, 1 / 600, 1, 4)


class TestEvenness:
    def test_the_most_to_the_mean(self, scenario: MakeScenario) -> None:
        trace = trace_of([0, 0, 1, 2, 3] * 100)
        assert figures_of(trace, scenario()).load_max_over_mean == pytest.approx(2 / 1.25)

    def test_a_server_counts_for_the_time_it_was_there(self, scenario: MakeScenario) -> None:
        members = [[(0, 10 * SECOND)], [(0, 5 * SECOND)]]
        trace = trace_of([0, 1] * 250 + [0] * 500, members=members)
        assert figures_of(trace, scenario()).load_max_over_mean == pytest.approx(75 / 62.5)

    def test_calls_in_flight_over_servers_and_time(self, scenario: MakeScenario) -> None:
        trace = trace_of(in_turn(10))
        trace.rif = [(SECOND, [1, 2, 3, -1]), (2 * SECOND, [5, 6, 7, 8])]
        figures = figures_of(trace, scenario(warm_up_s=0.5))
        assert (figures.rif_p50, figures.rif_max) == (5, 8)

    def test_the_longest_wait_of_a_server(self, scenario: MakeScenario) -> None:
        calls = in_turn(1000)
        calls[300:500] = [0, 1, 2, 0] * 50  # nobody calls 3
        assert figures_of(trace_of(calls), scenario()).starved_s == pytest.approx(2.04)

    def test_one_that_is_away_or_faulty_does_not_wait(self, scenario: MakeScenario) -> None:
        calls = [1 + turn % 3 for turn in range(1000)]
        calls[300:600] = [1, 2] * 150
        members = [[(0, 10 * SECOND)]] * 3 + [[(0, 3 * SECOND), (6 * SECOND, 10 * SECOND)]]
        assert figures_of(trace_of(calls, members=members), scenario(faults=FAULT)).starved_s < 0.05


class TestFaults:
    def calls(self, shed: int, returned: int) -> list[int]:
        """Calls in turn, of which none goes to the first server between two of them."""
        return [turn % 3 + 1 if shed <= turn < returned else turn % 4 for turn in range(1000)]

    def test_shed_and_returned(self, scenario: MakeScenario) -> None:
        figures = figures_of(trace_of(self.calls(240, 640)), scenario(faults=FAULT))
        assert figures.shed_s == pytest.approx(0.4, abs=0.12)  # two calls of the window may still go there
        assert 1.15 < figures.return_s <= 1.4  # a fifth of its share may be missing in the window
        assert (figures.faulty_calls, figures.faulty_share) == (10, 10 / 300)

    def test_never_shed_and_never_back(self, scenario: MakeScenario) -> None:
        assert figures_of(trace_of(self.calls(0, 0)), scenario(faults=FAULT)).shed_s == math.inf
        assert figures_of(trace_of(self.calls(240, 1000)), scenario(faults=FAULT)).return_s == math.inf

    def test_shed_at_once(self, scenario: MakeScenario) -> None:
        figures = figures_of(trace_of(self.calls(200, 500)), scenario(faults=FAULT))
        assert figures.shed_s == 0
        assert figures.return_s == 0

    def test_without_an_end_there_is_no_return(self, scenario: MakeScenario) -> None:
        stays = [FAULT[0] | {"until_s": 10}]
        assert math.isnan(figures_of(trace_of(self.calls(240, 640)), scenario(faults=stays)).return_s)

    def test_nothing_wrong(self, scenario: MakeScenario) -> None:
        figures = figures_of(trace_of(in_turn(1000)), scenario())
        assert all(
            math.isnan(one) for one in (figures.shed_s, figures.return_s, figures.faulty_share, figures.faulty_calls)
        )


class TestNewcomers:
    def test_the_most_in_flight_to_the_mean_of_the_peers(self, scenario: MakeScenario) -> None:
        members = [[(0, 10 * SECOND)]] * 3 + [[(4 * SECOND, 10 * SECOND)]]
        trace = trace_of(in_turn(1000), members=members)
        trace.in_flight[703] = 9  # a call to the newcomer
        trace.in_flight[702] = 50  # one to another
        trace.rif = [(SECOND, [7, 7, 7, -1]), (5 * SECOND, [2, 4, 6, 1]), (6 * SECOND, [3, 3, 3, 9])]
        assert figures_of(trace, scenario()).newcomer_peak == pytest.approx(9 / 3.5)

    def test_without_any(self, scenario: MakeScenario) -> None:
        assert math.isnan(figures_of(trace_of(in_turn(100)), scenario()).newcomer_peak)
