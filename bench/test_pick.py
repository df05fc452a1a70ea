"""Pick + finish from Python: every policy at four sizes, the scaffolding, and the twin in plain Python."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from grpclb_core.cli.measure.fleets import Fleet, TwinFleet
from grpclb_core.cli.measure.pick import (
    PICKS,
    REFERENCE_SIZE,
    SEED,
    SIZES,
    TWIN_PICKS,
    measure_picks,
    pick_and_finish,
)
from grpclb_core.cli.measure.report import Section
from grpclb_core.cli.measure.scaffold import Scaffold
from grpclb_core.policies import POLICIES

ROUNDS = 100


def run(benchmark: BenchmarkFixture, pick: Callable[[], object], picks: int = PICKS) -> None:
    """Time loops of many picks; a single one is too short for a timer."""
    benchmark.extra_info["picks_per_round"] = picks
    benchmark.pedantic(pick_and_finish, args=(pick, picks), rounds=ROUNDS, warmup_rounds=2)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("size", SIZES)
def test_policy(benchmark: BenchmarkFixture, policy: str, size: int) -> None:
    benchmark.group = f"{PICKS} x pick + finish, {size} endpoints"
    fleet = Fleet(size, SEED)
    run(benchmark, POLICIES[policy]().build(fleet.view, SEED, 0).pick)


@pytest.mark.parametrize("kind", ["EmptyPicker", "ClockedPicker", "NullPicker"])
def test_scaffolding(benchmark: BenchmarkFixture, scaffold: Scaffold, kind: str) -> None:
    benchmark.group = f"{PICKS} x pick + finish, {REFERENCE_SIZE} endpoints"
    fleet = Fleet(REFERENCE_SIZE, SEED)
    picker = scaffold.NullPicker(fleet.view, seed=SEED) if kind == "NullPicker" else getattr(scaffold, kind)()
    run(benchmark, picker.pick)


def test_plain_python(benchmark: BenchmarkFixture) -> None:
    benchmark.group = f"{TWIN_PICKS} x pick + finish in plain Python, {REFERENCE_SIZE} endpoints"
    run(benchmark, TwinFleet(REFERENCE_SIZE, SEED).picker.pick, TWIN_PICKS)


@pytest.mark.parametrize("size", [REFERENCE_SIZE, max(SIZES)])
def test_without_gil(benchmark: BenchmarkFixture, scaffold: Scaffold, size: int) -> None:
    benchmark.group = f"{PICKS} x choose + open_call + close_call in C"
    fleet = Fleet(size, SEED)
    picker = POLICIES["p2c_ewma"]().build(fleet.view, SEED, 0)
    benchmark.pedantic(scaffold.pick_and_finish, args=(picker, PICKS), rounds=ROUNDS, warmup_rounds=2)


def test_ratios(benchmark: BenchmarkFixture, scaffold: Scaffold, sections: list[Section]) -> None:
    """All of the above side by side; the only numbers to compare between two machines, or two runs of one."""
    found, _ = benchmark.pedantic(measure_picks, args=(SIZES, ROUNDS, scaffold), rounds=1)
    sections += found
