"""Pick + finish by 1, 2 and 4 threads on one picker."""

from __future__ import annotations

from functools import partial

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from grpclb_core.cli.measure.fleets import Fleet
from grpclb_core.cli.measure.pick import REFERENCE_SIZE, SEED, pick_and_finish
from grpclb_core.cli.measure.report import Section
from grpclb_core.cli.measure.scaffold import Scaffold
from grpclb_core.cli.measure.threads import PICKS, THREADS, measure_threads, threaded_ns
from grpclb_core.policies import P2cEwma

ROUNDS = 10


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("kind", ["from Python", "in C"])
def test_threads(benchmark: BenchmarkFixture, scaffold: Scaffold, kind: str, threads: int) -> None:
    benchmark.group = f"{PICKS} x pick + finish in each thread, {kind}"
    fleet = Fleet(REFERENCE_SIZE, SEED)
    picker = P2cEwma().build(fleet.view, SEED, 0)
    work = partial(pick_and_finish, picker.pick) if kind == "from Python" else partial(scaffold.pick_and_finish, picker)
    benchmark.pedantic(threaded_ns, args=(work, threads, PICKS), rounds=ROUNDS, warmup_rounds=1)


def test_ratios(benchmark: BenchmarkFixture, scaffold: Scaffold, sections: list[Section]) -> None:
    sections.append(benchmark.pedantic(measure_threads, args=(THREADS, ROUNDS, scaffold), rounds=1))
