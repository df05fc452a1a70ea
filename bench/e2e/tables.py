"""The numbers as Markdown that a terminal shows well too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from grpclb_core.cli.measure.rounds import Spread

from .balancers import DIRECT
from .figures import WORK, Line, Verdict
from .scenarios import Scenario

HEAD = ("scenario", "balancer", "p50 ms", "p99 ms", "least-most", "p99.9 ms", "failed", "on faulty", "max/mean")


def table(lines: Iterable[Line], scenarios: Mapping[str, Scenario]) -> str:
    """Lay out one line for each balancer under each scenario."""
    return _aligned([HEAD, *(_cells(line, scenarios[line.scenario]) for line in lines)], left=2)


def _cells(line: Line, scenario: Scenario) -> tuple[str, ...]:
    balances = line.balancer not in (WORK, DIRECT)
    return (
        line.scenario,
        line.balancer,
        milliseconds(line.p50_ms.median),
        milliseconds(line.p99_ms.median),
        f"{milliseconds(line.p99_ms.least)}-{milliseconds(line.p99_ms.most)}",
        milliseconds(line.p999_ms.median),
        percent(line.failed),
        percent(line.faulty) if balances and scenario.faulty else "-",
        f"{line.unevenness.median:.2f}" if balances else "-",
    )


def verdicts(found: Sequence[Verdict]) -> str:
    """Lay out a line for each scenario and a column for each policy; a ratio that is over the limit is bold."""
    policies = list(dict.fromkeys(verdict.policy for verdict in found))
    cells = {(verdict.policy, verdict.scenario): _ratio(verdict) for verdict in found}
    limits = {verdict.scenario: f"{verdict.limit:.2f}" for verdict in found}
    rows = [
        (scenario, limit, *(cells.get((policy, scenario), "-") for policy in policies))
        for scenario, limit in limits.items()
    ]
    return _aligned([("scenario", "below", *policies), *rows], left=1)


def _ratio(verdict: Verdict) -> str:
    ratio = f"{verdict.ratio.median:.2f}"
    return ratio if verdict.holds else f"**{ratio}**"


def missed(found: Sequence[Verdict]) -> str:
    """Say where one policy is not ahead, of whom, and how far the rounds lie apart."""
    return "\n".join(
        f"{verdict.policy} misses {verdict.scenario}: {verdict.ratio.median:.2f} times the p99 of {verdict.rival} "
        f"({verdict.ratio.least:.2f} to {verdict.ratio.most:.2f}), limit {verdict.limit:g}"
        for verdict in found
        if not verdict.holds
    )


def milliseconds(value: float) -> str:
    """Write a time with the digits that mean something."""
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def percent(part: Spread) -> str:
    return f"{part.median:.1%}"


def _aligned(rows: Sequence[Sequence[str]], left: int) -> str:
    """Pad the columns, the first `left` to the left and numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = ["-" * width if number < left else "-" * (width - 1) + ":" for number, width in enumerate(widths)]
    return "\n".join(_row(cells, widths, left) for cells in (rows[0], rule, *rows[1:]))


def _row(cells: Sequence[str], widths: Sequence[int], left: int) -> str:
    words = [cell.ljust(width) for cell, width in zip(cells[:left], widths[:left], strict=True)]
    numbers = [cell.rjust(width) for cell, width in zip(cells[left:], widths[left:], strict=True)]
    return f"| {' | '.join([*words, *numbers])} |"
