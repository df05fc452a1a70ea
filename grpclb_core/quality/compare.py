"""Policy against policy: the same scenario under each, over several seeds, with confidence intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import msgspec

from .figures import Figures, figures_of
from .scenario import Scenario
from .simulation import simulate
from .variants import parse_variant

CONFIDENCE = 0.95

# Two-sided quantiles of Student's t at 95 % for 1 to 30 degrees of freedom.
STUDENT_95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


class Run(NamedTuple):
    """One run, and one of the same policy and seed with nothing wrong."""

    figures: Figures
    p99_over_healthy: float
    """NaN of a scenario without faults."""


class Estimate(msgspec.Struct, frozen=True):
    """The mean of a figure over the seeds; at 95 % confidence the true one is no further away than `margin`."""

    mean: float
    margin: float
    """NaN of a single run, which says nothing of the spread."""
    least: float
    most: float


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What one policy made of one scenario."""

    scenario: str
    policy: str
    seeds: tuple[int, ...]
    figures: dict[str, Estimate]
    """By the names of `Figures`, and `p99_over_healthy`."""
    steps: tuple[dict[str, Estimate], ...] = ()
    """The same for each step of the load, by the names of `StepFigures`."""
    runs: tuple[Figures, ...] = ()


def compare(
    name: str,
    scenario: Scenario,
    policy: str,
    seeds: Sequence[int],
    each: Callable[[Callable[[int], Run], Sequence[int]], Iterable[Run]] = map,
) -> Result:
    """Run a scenario under a policy, once for each seed; `each` does so in its own way, as the `map` of a pool.

    Raises:
        ConfigError: the policy cannot be used.
    """
    parse_variant(policy)  # here, and not in another process
    runs = list(each(partial(run, scenario, policy), seeds))
    summed = _estimates([msgspec.structs.asdict(one.figures) for one in runs])
    summed["p99_over_healthy"] = estimate([one.p99_over_healthy for one in runs])
    steps = zip(*(one.figures.steps for one in runs), strict=True)
    return Result(
        scenario=name,
        policy=policy,
        seeds=tuple(seeds),
        figures=summed,
        steps=tuple(_estimates([msgspec.structs.asdict(step) for step in group]) for group in steps),
        runs=tuple(one.figures for one in runs),
    )


def run(scenario: Scenario, policy: str, seed: int) -> Run:
    """Run a scenario once, and once more with nothing wrong if something is."""
    parsed = parse_variant(policy)
    figures = figures_of(simulate(scenario, parsed, seed), scenario)
    if not scenario.faults:
        return Run(figures, math.nan)
    twin = scenario.healthy_twin()
    healthy = figures_of(simulate(twin, parsed, seed), twin)
    return Run(figures, figures.p99_ms / healthy.p99_ms)


def estimate(values: Sequence[float]) -> Estimate:
    """Sum up a figure of independent runs by its mean, with Student's interval."""
    mean = statistics.fmean(values)
    if len(values) < 2 or not math.isfinite(mean):
        return Estimate(mean, math.nan, min(values), max(values))
    return Estimate(
        mean, student(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values)), min(values), max(values)
    )


def student(freedom: int) -> float:
    """Return the two-sided 95 % quantile of Student's t, beyond the table to four digits."""
    if freedom <= len(STUDENT_95):
        return STUDENT_95[freedom - 1]
    normal = statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    return normal + (normal**3 + normal) / (4 * freedom)  # the first terms of its expansion by Fisher


def _estimates(rows: Sequence[dict[str, object]]) -> dict[str, Estimate]:
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return {
        name: estimate([value for value in values if isinstance(value, (int, float))])
        for name, values in columns.items()
        if isinstance(values[0], (int, float))
    }
