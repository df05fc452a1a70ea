"""Draws results: the p99 and the errors of every scenario, and the p99.9 over the steps of a load that rises."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ...quality import Estimate, Result
from ..demo.svg import GRID, MUTED, Sheet, text_width, ticks

WIDTH = 960
LEFT, MIDDLE, GAP, RIGHT = 230, 640, 690, 920  # names | latencies | errors
TOP, ROW, BOTTOM = 120, 26, 60
CURVE_HEIGHT, CURVE_ROOM = 220, 320
DOT = 4.0

# Okabe and Ito's colours, which colour-blind readers can tell apart; the dark ones first.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8a8a00")

Scale = Callable[[float], float]  # from values to pixels


def draw(results: Sequence[Result]) -> str:
    """Draw results as an SVG document."""
    scenarios = list(dict.fromkeys(result.scenario for result in results))
    policies = list(dict.fromkeys(result.policy for result in results))
    colours = {policy: COLOURS[place % len(COLOURS)] for place, policy in enumerate(policies)}
    ramps = [name for name in scenarios if any(one.steps for one in results if one.scenario == name)]
    end = TOP + ROW * len(scenarios)
    title = "Balancing on simulated fleets that misbehave"
    sheet = Sheet(WIDTH, end + BOTTOM + CURVE_ROOM * len(ramps), title, f"{len(scenarios)} scenarios")
    sheet.text(32, 40, title, size=20, weight=700)
    seeds = len(results[0].seeds)
    said = f"means of {seeds} seeds, bars are 95 % confidence intervals" if seeds > 1 else "one seed"
    sheet.text(32, 60, said, fill=MUTED)
    _draw_legend(sheet, colours)
    _draw_names(sheet, scenarios)
    _draw_latencies(sheet, results, scenarios, colours)
    _draw_errors(sheet, results, scenarios, colours)
    for place, name in enumerate(ramps):
        group = [result for result in results if result.scenario == name]
        _draw_ramp(sheet, group, end + BOTTOM + 40 + CURVE_ROOM * place, colours)
    return sheet.render()


def _draw_legend(sheet: Sheet, colours: dict[str, str]) -> None:
    x = 32.0
    for policy, colour in colours.items():
        sheet.box(x, 74, 2 * DOT, 2 * DOT, colour, DOT)
        sheet.text(x + 14, 82, policy)
        x += text_width(policy, 12) + 34


def _draw_names(sheet: Sheet, scenarios: Sequence[str]) -> None:
    for place, name in enumerate(scenarios):
        y = TOP + ROW * (place + 0.5)
        sheet.text(LEFT - 12, y + 4, name, anchor="end")
        sheet.line(LEFT, y, MIDDLE, y)
        sheet.line(GAP, y, RIGHT, y)


def _draw_latencies(sheet: Sheet, results: Sequence[Result], scenarios: Sequence[str], colours: dict[str, str]) -> None:
    """Draw the p99 on a logarithmic axis, as they lie decades apart."""
    values = [result.figures["p99_ms"].mean for result in results]
    known = [value for value in values if math.isfinite(value) and value > 0] or [1.0]
    low, high = math.floor(math.log10(min(known))), math.ceil(math.log10(max(known)) + 1e-9)

    def x_of(value: float) -> float:
        return LEFT + (MIDDLE - LEFT) * (math.log10(max(value, 10.0**low)) - low) / max(1, high - low)

    sheet.text(LEFT, TOP - 10, "p99 in ms", weight=600)
    for power in range(low, high + 1):
        _draw_tick(sheet, x_of(10.0**power), f"{10.0**power:g}", len(scenarios))
    _draw_dots(sheet, results, scenarios, colours, "p99_ms", 1.0, x_of)


def _draw_errors(sheet: Sheet, results: Sequence[Result], scenarios: Sequence[str], colours: dict[str, str]) -> None:
    scale = ticks(max(100 * result.figures["error_share"].mean for result in results) or 1.0, about=4)

    def x_of(value: float) -> float:
        return GAP + (RIGHT - GAP) * value / scale[-1]

    sheet.text(GAP, TOP - 10, "errors in %", weight=600)
    for value in scale:
        _draw_tick(sheet, x_of(value), f"{value:g}", len(scenarios))
    _draw_dots(sheet, results, scenarios, colours, "error_share", 100.0, x_of)


def _draw_tick(sheet: Sheet, x: float, label: str, rows: int) -> None:
    sheet.line(x, TOP, x, TOP + ROW * rows)
    sheet.text(x, TOP + ROW * rows + 16, label, size=11, fill=MUTED, anchor="middle")


def _draw_dots(
    sheet: Sheet,
    results: Sequence[Result],
    scenarios: Sequence[str],
    colours: dict[str, str],
    figure: str,
    factor: float,
    x_of: Scale,
) -> None:
    policies = list(colours)
    for result in results:
        found: Estimate = result.figures[figure]
        if not math.isfinite(found.mean):
            continue
        apart = (policies.index(result.policy) - (len(policies) - 1) / 2) * min(5.0, ROW / (len(policies) + 1))
        y = TOP + ROW * (scenarios.index(result.scenario) + 0.5) + apart
        colour = colours[result.policy]
        if math.isfinite(found.margin):
            ends = [x_of(max(0.0, found.mean + side * found.margin) * factor) for side in (-1, 1)]
            sheet.line(ends[0], y, ends[1], y, colour)
        sheet.box(x_of(found.mean * factor) - DOT, y - DOT, 2 * DOT, 2 * DOT, colour, DOT)


def _draw_ramp(sheet: Sheet, results: Sequence[Result], top: float, colours: dict[str, str]) -> None:
    """Draw the p99.9 of each step of the load, and where calls timed out."""
    steps = [step["calls_per_s"].mean for step in results[0].steps]
    highest = max(step["p999_ms"].mean for result in results for step in result.steps)
    scale = ticks(highest)
    bottom = top + CURVE_HEIGHT

    def x_of(place: int) -> float:
        return LEFT + (RIGHT - LEFT) * place / max(1, len(steps) - 1)

    def y_of(value_ms: float) -> float:
        return bottom - CURVE_HEIGHT * value_ms / scale[-1]

    sheet.text(32, top - 16, f"{results[0].scenario}: p99.9 in ms at each step of the load", weight=600)
    for value in scale:
        sheet.line(LEFT, y_of(value), RIGHT, y_of(value), MUTED if value == 0 else GRID)
        sheet.text(LEFT - 8, y_of(value) + 4, f"{value:g}", size=11, fill=MUTED, anchor="end")
    for place, rate in enumerate(steps):
        sheet.text(x_of(place), bottom + 18, f"{rate:.0f}/s", size=11, fill=MUTED, anchor="middle")
    for result in results:
        points = [(x_of(place), y_of(step["p999_ms"].mean)) for place, step in enumerate(result.steps)]
        sheet.curve(points, colours[result.policy])
        for (x, y), step in zip(points, result.steps, strict=True):
            if step["timeouts"].mean > 0:
                sheet.text(x, y - 6, "x", weight=700, fill=colours[result.policy], anchor="middle")
    sheet.text(LEFT, bottom + 40, "x: calls timed out", size=11, fill=MUTED)
