"""One percent of ten thousand endpoints is replaced."""

from __future__ import annotations

from pytest_benchmark.fixture import BenchmarkFixture

from grpclb_core.cli.measure.rebuild import ENDPOINTS, measure_rebuild
from grpclb_core.cli.measure.report import Section
from grpclb_core.cli.measure.scaffold import Scaffold
from grpclb_core.native import P2cEwmaPicker, Slot, View

ROUNDS = 20


def test_view_and_picker(benchmark: BenchmarkFixture) -> None:
    benchmark.group = f"rebuild, {ENDPOINTS} endpoints"
    slots, weights = [Slot() for _ in range(ENDPOINTS)], [1.0] * ENDPOINTS
    benchmark.pedantic(lambda: P2cEwmaPicker(View(slots, weights), seed=1), rounds=ROUNDS, warmup_rounds=2)


def test_change(benchmark: BenchmarkFixture, scaffold: Scaffold, sections: list[Section]) -> None:
    """The whole change, as the event loop sees it, and the slowest picks of another thread meanwhile."""
    section, _ = benchmark.pedantic(measure_rebuild, args=(ROUNDS, scaffold), rounds=1)
    sections.append(section)
