"""Runs scenarios under policies, and writes the figures down for people and for machines."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

import msgspec

from ...quality import Estimate, Result, compare, load_scenario, parse_variant, scenario_names
from ..text import columns


class Column(msgspec.Struct, frozen=True):
    """A figure as a table shows it."""

    figure: str
    head: str
    form: str = "{:.3g}"
    scale: float = 1.0


COLUMNS = (
    Column("p50_ms", "p50 ms", "{:.4g}"),
    Column("p99_ms", "p99 ms", "{:.4g}"),
    Column("p999_ms", "p99.9 ms", "{:.4g}"),
    Column("p99_over_healthy", "p99/healthy", "{:.3f}"),
    Column("error_share", "errors %", "{:.3g}", 100),
    Column("late_error_share", "after 1 s %", "{:.3g}", 100),
    Column("timeouts", "timeouts", "{:.4g}"),
    Column("faulty_share", "to faulty %", "{:.3g}", 100),
    Column("faulty_calls", "calls", "{:.4g}"),
    Column("shed_s", "shed s"),
    Column("return_s", "return s"),
    Column("load_max_over_mean", "max/mean", "{:.3f}"),
    Column("rif_p99", "RIF p99"),
    Column("newcomer_peak", "newcomer peak", "{:.2f}"),
    Column("starved_s", "starved s"),
    Column("connections", "moved", "{:.6g}"),
)


def listing() -> list[tuple[str, str]]:
    """Return the scenarios that ship with the package, and what each shows."""
    return [(name, load_scenario(name).about) for name in scenario_names()]


def measure(
    names: Sequence[str], policies: Sequence[str], seeds: Sequence[int], jobs: int, progress: Callable[[str], None]
) -> list[Result]:
    """Run every scenario under every policy; all of them are read before the first one runs.

    Raises:
        ConfigError: a scenario or a policy cannot be used.
    """
    for policy in policies:
        parse_variant(policy)
    scenarios = {name: load_scenario(name) for name in names or scenario_names()}
    results = []
    with _mapping(min(jobs, len(seeds))) as each:
        for name, scenario in scenarios.items():
            for policy in policies:
                progress(f"{name} {policy}")
                results.append(compare(name, scenario, policy, seeds, each))
    progress("")
    return results


@contextmanager
def _mapping(jobs: int) -> Iterator[Any]:
    """Provide a `map` that uses so many processes."""
    if jobs == 1:
        yield map
    else:
        # Not forked: gRPC's core does not stand that.
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
            yield pool.map


def to_json(results: Sequence[Result]) -> str:
    """Return the results as indented JSON; figures that there are not, or without end, are null."""
    return msgspec.json.format(msgspec.json.encode(results), indent=1).decode()


def to_text(results: Sequence[Result]) -> str:
    """Return a table for each scenario; columns in which nothing happened are left out."""
    lines = []
    for name in dict.fromkeys(result.scenario for result in results):
        group = [result for result in results if result.scenario == name]
        lines += [name, f"  {load_scenario(name).about}", *_aligned(_rows(group)), *_aligned(_step_rows(group)), ""]
    seeds = len(results[0].seeds)
    last = f"means over {seeds} seeds, +- half the 95 % confidence interval (Student's t)" if seeds > 1 else "one seed"
    return "\n".join([*lines, last])


def missed(results: Sequence[Result]) -> list[str]:
    """Tell which goals of the scenarios the policies that were run have missed."""
    found = {(one.scenario, one.policy): one.figures for one in results}
    lines = []
    for (name, policy), figures in found.items():
        for goal in load_scenario(name).goals:
            other = found.get((name, goal.times), {}) if goal.times else {}
            if goal.policy != policy or (goal.times and not other):
                continue
            most = goal.most * other[goal.figure].mean if goal.times else goal.most
            mean = figures[goal.figure].mean
            if not mean <= most:  # nor is it kept where there is nothing to tell it by
                lines.append(f"{name}: {goal.figure} of {policy} is {mean:.4g}, and should be {most:.4g} at most")
    return lines


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"  {line}" for line in columns(rows)] if rows else []


def _rows(results: Sequence[Result]) -> list[list[str]]:
    shown = _shown([result.figures for result in results])
    heads = ["", *(column.head for column in shown)]
    return [heads, *([one.policy, *(_cell(one.figures[each.figure], each) for each in shown)] for one in results)]


def _step_rows(results: Sequence[Result]) -> list[list[str]]:
    if not results[0].steps:
        return []
    shown = [Column("calls_per_s", "calls/s", "{:.0f}"), *_shown([step for result in results for step in result.steps])]
    heads = ["", *(column.head for column in shown)]
    cells = [
        [result.policy, *(_cell(step[each.figure], each) for each in shown)]
        for result in results
        for step in result.steps
    ]
    return [heads, *cells]


def _shown(found: Sequence[dict[str, Estimate]]) -> list[Column]:
    """Return the columns in which something happened: not all nothing, and not all without a value."""
    return [
        column
        for column in COLUMNS
        if any(
            column.figure in one and not math.isnan(one[column.figure].mean) and one[column.figure].mean
            for one in found
        )
    ]


def _cell(found: Estimate, column: Column) -> str:
    if math.isnan(found.mean):
        return "-"
    if math.isinf(found.mean):
        return "never"
    text = column.form.format(found.mean * column.scale)
    return text if math.isnan(found.margin) or not found.margin else f"{text} +-{found.margin * column.scale:.2g}"
