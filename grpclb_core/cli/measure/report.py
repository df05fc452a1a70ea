"""What a run of benchmarks found, as a table for people and as JSON for machines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from .budgets import Budget
from .machine import Machine
from .rounds import Spread


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One measured thing: what it costs, and how that compares."""

    name: str
    cost: Spread
    unit: str
    ratio: Spread | None = None
    to: str = ""
    """What the ratio is taken to."""


class Section(msgspec.Struct, frozen=True):
    """Rows that belong together."""

    title: str
    rows: list[Row]
    note: str = ""


class Check(msgspec.Struct, frozen=True):
    """A budget, and whether the run kept it."""

    budget: Budget
    measured: float
    kept: bool


class Report(msgspec.Struct, frozen=True):
    """Everything one run found."""

    machine: Machine
    sections: list[Section]
    checks: list[Check]

    @property
    def keeps_budgets(self) -> bool:
        return all(check.kept for check in self.checks)


def check(budget: Budget, measured: float) -> Check:
    """Hold a measurement against its budget."""
    return Check(budget, measured, budget.admits(measured))


def to_json(report: Report) -> str:
    """Return the report as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(report), indent=1).decode()


def to_text(report: Report) -> str:
    """Return the report as tables for a terminal: ratios are medians of the rounds, with quartiles and extremes."""
    lines = [report.machine.describe()]
    for section in report.sections:
        lines += ["", section.title]
        lines += _aligned([_HEAD, *(_cells(row) for row in section.rows)])
        if section.note:
            lines.append(f"  {section.note}")
    if report.checks:
        lines += ["", "budgets"]
        lines += _aligned([("", "measured", "limit", "goal", "verdict"), *(_verdict(each) for each in report.checks)])
    return "\n".join(lines)


_HEAD = ("", "cost", "ratio", "quartiles", "extremes", "to")


def _cells(row: Row) -> tuple[str, ...]:
    cost = f"{row.cost.median:.4g} {row.unit}"
    if row.ratio is None:
        return (row.name, cost, "", "", "", "")
    ratio = row.ratio
    return (
        row.name,
        cost,
        f"{ratio.median:.3g}x" if ratio.median >= 10 else f"{ratio.median:.3f}x",
        f"{ratio.lower_quartile:.3f}-{ratio.upper_quartile:.3f}",
        f"{ratio.least:.3f}-{ratio.most:.3f}",
        row.to,
    )


def _verdict(result: Check) -> tuple[str, ...]:
    bound = ">=" if result.budget.at_least else "<="
    return (
        result.budget.name,
        f"{result.measured:.3f}",
        f"{bound} {result.budget.limit:g}",
        f"{bound} {result.budget.goal:g}",
        "kept" if result.kept else "MISSED",
    )


def _aligned(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Pad the columns: the first and the last to the left, numbers to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for first, *middle, last in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(middle, widths[1:-1], strict=True))]
        yield "  " + "  ".join([*cells, last]).rstrip()
