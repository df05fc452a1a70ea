"""Draws the result: latency over time with what happened, the share of each server, and the figures."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from .load import Side
from .report import figures, takeaway
from .result import Result, sliding_p99_ms
from .script import BACK, KILLED, SERVERS
from .svg import GRID, INK, MUTED, Sheet, text_width, ticks

WIDTH, HEIGHT = 960, 640
COLOURS = ("#d97706", "#2563eb")  # gRPC's own, ours; told apart by colour-blind readers too
DOWN = "#f3f4f6"

LEFT, RIGHT, TOP, BOTTOM = 64, 790, 124, 356  # the plot over time; its right margin holds the names of the lines
BARS_RIGHT, BARS_TOP, BARS_BOTTOM = 560, 446, 586
TABLE_LEFT = 610

Scale = Callable[[float], float]  # from seconds to pixels

WINDOW_PART, STEP_S = 0.1, 0.25  # a tenth of the run at a time, so that a p99 has a few hundred calls to stand on


def draw(result: Result, sides: Sequence[Side]) -> str:
    """Draw a finished run as an SVG document."""
    title = "One slow server, one restart, one newcomer"
    sheet = Sheet(WIDTH, HEIGHT, title, takeaway(result))
    sheet.text(LEFT - 32, 44, title, size=22, weight=700)
    sheet.text(LEFT - 32, 66, _subtitle(result), size=13, fill=MUTED)
    _draw_latency(sheet, result, sides)
    _draw_shares(sheet, result)
    _draw_figures(sheet, result)
    return sheet.render()


def _subtitle(result: Result) -> str:
    load = f"{result.rate:g} calls/s for {result.seconds:g} s to each of two identical fleets of six servers"
    late = "" if result.busy_ms is None else f"; on a busy machine, which started calls {result.busy_ms:.0f} ms late"
    return f"grpclb demo: {load}{late}"


def save(document: str, path: Path) -> None:
    """Write the picture in the kind that the path's name asks for."""
    if path.suffix == ".png":
        cairosvg = importlib.import_module("cairosvg")  # the options were refused without it
        cairosvg.svg2png(bytestring=document.encode(), write_to=str(path), scale=2)
    else:
        path.write_text(document, encoding="utf-8")


# Latency over time


def _draw_latency(sheet: Sheet, result: Result, sides: Sequence[Side]) -> None:
    window_s = max(1.0, result.seconds * WINDOW_PART)
    curves = [sliding_p99_ms(side.answers, result.seconds, window_s, STEP_S) for side in sides]
    scale = ticks(max((value for curve in curves for _, value in curve), default=1.0))

    def x_of(time_s: float) -> float:
        return LEFT + (RIGHT - LEFT) * time_s / result.seconds

    def y_of(value_ms: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * value_ms / scale[-1]

    sheet.text(LEFT - 32, TOP - 26, f"p99 latency in ms, calls of the last {window_s:g} s", size=13, weight=600)
    _draw_downtime(sheet, result, x_of)
    for value_ms in scale:
        sheet.line(LEFT, y_of(value_ms), RIGHT, y_of(value_ms), MUTED if value_ms == 0 else GRID)
        sheet.text(LEFT - 8, y_of(value_ms) + 4, f"{value_ms:g}", size=11, fill=MUTED, anchor="end")
    for time_s in ticks(result.seconds):
        if time_s <= result.seconds:
            sheet.text(x_of(time_s), BOTTOM + 18, f"{time_s:g} s", size=11, fill=MUTED, anchor="middle")
    _draw_events(sheet, result, x_of)
    for curve, colour in zip(curves, COLOURS, strict=True):
        sheet.curve([(x_of(time_s), y_of(value_ms)) for time_s, value_ms in curve], colour)
    _name_curves(sheet, result, [y_of(curve[-1][1]) if curve else BOTTOM for curve in curves])


def _draw_downtime(sheet: Sheet, result: Result, x_of: Scale) -> None:
    killed_s = next((event.at_s for event in result.events if event.what == KILLED), result.seconds)
    back_s = next((event.at_s for event in result.events if event.what == BACK), result.seconds)
    sheet.box(x_of(killed_s), TOP, x_of(min(back_s, result.seconds)) - x_of(killed_s), BOTTOM - TOP, DOWN)


def _draw_events(sheet: Sheet, result: Result, x_of: Scale) -> None:
    """Mark each event by a dashed line, with its name to the left where another event follows closely."""
    places = [x_of(min(event.at_s, result.seconds)) for event in result.events]
    for event, x, following in zip(result.events, places, [*places, math.inf][1:], strict=True):
        sheet.line(x, TOP - 14, x, BOTTOM, MUTED, "3 3")
        is_crowded = following - x < text_width(str(event), 11) + 8
        sheet.text(x - 4 if is_crowded else x + 4, TOP - 6, str(event), size=11, fill=MUTED,
                   anchor="end" if is_crowded else "start")  # fmt: skip


def _name_curves(sheet: Sheet, result: Result, heights: list[float]) -> None:
    apart = 32.0  # two lines of text
    first, second = heights
    if abs(first - second) < apart:
        middle = min((first + second) / 2, BOTTOM - apart / 2)
        up, down = middle - apart / 2, middle + apart / 2
        heights = [up, down] if first <= second else [down, up]
    for side, y, colour in zip(result.sides, heights, COLOURS, strict=True):
        library, policy = side.title.split(" ", 1)
        sheet.text(RIGHT + 10, y, library, size=12, fill=colour, weight=700)
        sheet.text(RIGHT + 10, y + 14, policy, size=12, fill=colour)


# Shares


def _draw_shares(sheet: Sheet, result: Result) -> None:
    highest = max(share for side in result.sides for share in side.shares.values()) or 1.0
    sheet.text(LEFT - 32, BARS_TOP - 34, "Share of the calls each server answered", size=13, weight=600)
    _draw_legend(sheet, result, BARS_RIGHT, BARS_TOP - 34)
    step = (BARS_RIGHT - LEFT + 32) / len(SERVERS)
    width = step * 0.34
    for index, server in enumerate(SERVERS):
        middle = LEFT - 32 + (index + 0.5) * step
        for side, x, colour in zip(result.sides, (middle - width - 1, middle + 1), COLOURS, strict=True):
            share = side.shares[server.name]
            height = (BARS_BOTTOM - BARS_TOP) * share / highest
            sheet.box(x, BARS_BOTTOM - height, width, height, colour, 2)
            label = f"{share:.0%}" if share >= 0.095 or share == 0 else f"{share * 100:.1f}%"
            sheet.text(x + width / 2, BARS_BOTTOM - height - 5, label, size=10.5, fill=colour, anchor="middle")
        sheet.text(middle, BARS_BOTTOM + 18, server.name, size=13, weight=600, anchor="middle")
        sheet.text(middle, BARS_BOTTOM + 34, server.role, size=11, fill=MUTED, anchor="middle")
    sheet.line(LEFT - 32, BARS_BOTTOM, BARS_RIGHT, BARS_BOTTOM, MUTED)


def _draw_legend(sheet: Sheet, result: Result, right: float, y: float) -> None:
    for side, colour in reversed(list(zip(result.sides, COLOURS, strict=True))):
        name = side.title.partition(" ")[0]
        sheet.text(right, y, name, size=11, fill=MUTED, anchor="end")
        right -= text_width(name, 11) + 16
        sheet.box(right, y - 9, 10, 10, colour, 2)
        right -= 12


# Figures


def _draw_figures(sheet: Sheet, result: Result) -> None:
    columns = (WIDTH - 130, WIDTH - 32)
    y = BARS_TOP - 34
    sheet.text(TABLE_LEFT, y, "The whole run", size=13, weight=600)
    for side, x, colour in zip(result.sides, columns, COLOURS, strict=True):
        sheet.text(x, y, side.title.partition(" ")[0], size=12, weight=700, fill=colour, anchor="end")
    for name, *values in figures(result):
        sheet.line(TABLE_LEFT, y + 10, WIDTH - 32, y + 10)
        y += 29
        sheet.text(TABLE_LEFT, y, name, size=12, fill=MUTED)
        for value, x in zip(values, columns, strict=True):
            sheet.text(x, y, value, size=13, fill=INK, anchor="end", weight=600)
