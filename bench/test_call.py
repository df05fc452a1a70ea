"""Whole unary calls: this channel, its interceptors, and grpc.aio's own, interleaved over the same four servers."""

from __future__ import annotations

from pytest_benchmark.fixture import BenchmarkFixture

from grpclb_core.cli.measure.call import measure_calls
from grpclb_core.cli.measure.report import Section

ROUNDS = 40
CALLS = 300


def test_call(benchmark: BenchmarkFixture, sections: list[Section]) -> None:
    """What the benchmark table shows is the run as a whole; the client's CPU time for each call is in the ratios."""
    section, _ = benchmark.pedantic(measure_calls, args=(ROUNDS, CALLS, 8), rounds=1)
    for row in section.rows:
        benchmark.extra_info[f"{row.name}{', over ' + row.to if row.to else ''}"] = (
            row.ratio.median if row.ratio else row.cost.median
        )
    sections.append(section)
