"""The p99 of every balancer under every scenario, as one SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence

from grpclb_core.cli.demo.svg import GRID, INK, MUTED, Sheet

from .balancers import DIRECT
from .figures import WORK, Line
from .scenarios import Scenario
from .tables import milliseconds

WIDTH, COLUMNS, MARGIN, HEAD = 1120, 2, 32, 92
PANEL = (WIDTH - 3 * MARGIN) / COLUMNS
NAMES, NUMBERS = 176, 96  # of a panel: left of the plot, and right of it
ROW, PANEL_HEAD, PANEL_FOOT = 20, 34, 34

OURS, GRPCIO, PROXY = "#2563eb", "#d97706", "#059669"  # told apart by colour-blind readers too
TICKS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)


def draw(lines: Sequence[Line], scenarios: Sequence[Scenario], subtitle: str) -> str:
    """Draw a panel for each scenario, all with the same scale: a dot for the median round, a bar from least to most."""
    by_scenario = {each.name: [line for line in lines if line.scenario == each.name] for each in scenarios}
    most = max(map(len, by_scenario.values()))
    panel_height = PANEL_HEAD + most * ROW + PANEL_FOOT
    height = HEAD + math.ceil(len(scenarios) / COLUMNS) * panel_height
    title = "p99 latency in ms, less is better"
    sheet = Sheet(WIDTH, height, title, subtitle)
    sheet.text(MARGIN, 40, title, size=22, weight=700)
    sheet.text(MARGIN, 64, subtitle, size=13, fill=MUTED)
    scale = Scale([line.p99_ms.least for line in lines], [line.p99_ms.most for line in lines])
    for number, scenario in enumerate(scenarios):
        left = MARGIN + number % COLUMNS * (PANEL + MARGIN)
        top = HEAD + number // COLUMNS * panel_height
        sheet.text(left, top + 14, scenario.title, size=14, weight=600)
        _draw_panel(sheet, by_scenario[scenario.name], scale, left, top + PANEL_HEAD)
    return sheet.render()


class Scale:
    """From ms to a part of the plot's width, by logarithm."""

    def __init__(self, least_ms: Sequence[float], most_ms: Sequence[float]) -> None:
        least = max(TICKS_MS[0], min(least_ms))
        most = min(TICKS_MS[-1], max(most_ms))
        first = max(number for number, tick in enumerate(TICKS_MS) if tick <= least)
        last = min(number for number, tick in enumerate(TICKS_MS) if tick >= most)
        self.ticks = TICKS_MS[first : max(last, first + 1) + 1]

    def __call__(self, value_ms: float) -> float:
        low, high = math.log(self.ticks[0]), math.log(self.ticks[-1])
        value = min(max(value_ms, self.ticks[0]), self.ticks[-1])
        return (math.log(value) - low) / (high - low)


def _draw_panel(sheet: Sheet, lines: Sequence[Line], scale: Scale, left: float, top: float) -> None:
    begin, end = left + NAMES, left + PANEL - NUMBERS
    bottom = top + len(lines) * ROW
    for tick in scale.ticks:
        x = begin + (end - begin) * scale(tick)
        sheet.line(x, top, x, bottom, GRID)
        sheet.text(x, bottom + 14, f"{tick:g}", size=10.5, fill=MUTED, anchor="middle")
    for number, line in enumerate(lines):
        y = top + (number + 0.5) * ROW
        least, middle, most = (
            begin + (end - begin) * scale(value) for value in (line.p99_ms.least, line.p99_ms.median, line.p99_ms.most)
        )
        colour = _colour(line.balancer)
        sheet.text(begin - 10, y + 4, line.balancer, size=11.5, fill=colour, anchor="end")
        sheet.box(least, y - 1.5, most - least, 3, colour, 1.5)
        sheet.box(middle - 4.5, y - 4.5, 9, 9, colour, 4.5)
        words = milliseconds(line.p99_ms.median)
        if line.failed.median >= 0.0005:
            words += f", {line.failed.median:.1%} fail"
        sheet.text(end + 10, y + 4, words, size=11.5, fill=INK)


def _colour(balancer: str) -> str:
    if balancer in (WORK, DIRECT):
        return MUTED
    if balancer.startswith("Envoy"):
        return PROXY
    return GRPCIO if balancer.startswith("grpcio") else OURS
