"""The live view and the final table on a terminal; the only module that needs rich."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from typing import TextIO

import anyio.to_thread
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from .options import Options
from .script import LATE, RESTARTING, SLOW, Server
from .view import Progress, Row, milliseconds, note, rows, so_far

SIDE_BY_SIDE = 120  # columns that two panels need; on a narrower terminal one panel stands above the other
BAR_CELLS = 8
FULL_BAR = 0.4  # share at which the bar is full: twice what each of five servers gets
BLOCKS = " ▏▎▍▌▋▊▉█"
EVENTS_SHOWN = 5
COLOURS = {SLOW.name: "red", RESTARTING.name: "yellow", LATE.name: "cyan"}
# Drawing takes some ten milliseconds. It happens in a thread that gives way to the calls after half a one, so that it
# is not in their latencies; Python's default is 5 ms.
SWITCH_INTERVAL_S = 0.0005

Frame = list[tuple[str, str, str, list[Row]]]  # for each side its title, how it has done so far, a note, its servers

WORKING = {"ready", "answers"}


class LiveView(AbstractContextManager["LiveView"]):
    """Both sides next to each other, redrawn in place."""

    every_s = 0.5

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._said: list[str] = []

    def __enter__(self) -> LiveView:
        self._switch_interval_s = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()
        sys.setswitchinterval(self._switch_interval_s)
        for text in self._said:
            self._console.print(text, highlight=False)

    def say(self, text: str) -> None:
        self._said.append(text)
        if len(self._said) == 1:
            self._live.update(Text(text), refresh=True)

    async def refresh(self, progress: Progress) -> None:
        now_s = progress.elapsed_s()
        frame = [(side.title, so_far(side), note(side), rows(side, progress.events, now_s)) for side in progress.sides]
        await anyio.to_thread.run_sync(self._draw, progress.options, now_s, frame)

    def _draw(self, options: Options, now_s: float, frame: Frame) -> None:
        self._live.update(self._screen(options, now_s, frame), refresh=True)

    def _screen(self, options: Options, now_s: float, frame: Frame) -> RenderableType:
        head = Text.assemble(
            ("grpclb demo  ", "bold"),
            f"{now_s:4.1f} of {options.seconds:g} s   {options.rate:g} calls/s to each side   seed {options.seed}",
        )
        panels = [_panel(*side) for side in frame]
        both: RenderableType = Group(*panels)
        if self._console.width >= SIDE_BY_SIDE:
            grid = Table.grid(expand=True)
            for _ in panels:
                grid.add_column(ratio=1)
            grid.add_row(*panels)
            both = grid
        said = Text("\n".join(self._said[-EVENTS_SHOWN:]), style="dim")
        return Group(head, both, Padding(said, (0, 2)))


def _panel(title: str, summary: str, note: str, servers: list[Row]) -> Panel:
    table = Table(box=None, expand=True, padding=(0, 1, 0, 0), header_style="dim")
    for heading in ("server", "is", "share"):
        table.add_column(heading, no_wrap=True)
    table.add_column("in\nflight", justify="right", no_wrap=True)
    table.add_column("ms", justify="right", min_width=4, no_wrap=True)
    table.add_column("state", min_width=10, no_wrap=True)
    for row in servers:
        table.add_row(*_cells(row))
    return Panel(table, title=f"[bold]{title}[/]   {summary}", subtitle=f"[dim]{note}[/]")


def _cells(row: Row) -> list[RenderableType]:
    colour = _colour(row.server)
    return [
        Text(f"{row.server.name} {row.server.host.removeprefix('127.0.0')}", style=colour),
        Text(row.condition, style=colour),
        Text(f"{_bar(row.share or 0)} {row.share or 0:4.0%}", style=colour),
        Text("-" if row.in_flight is None else str(row.in_flight)),
        Text(milliseconds(row.latency_s)),
        Text(row.state, style="green" if row.state in WORKING else "dim"),
    ]


def _colour(server: Server) -> str:
    return COLOURS.get(server.name, "default")


def _bar(share: float) -> str:
    eighths = round(min(share / FULL_BAR, 1.0) * BAR_CELLS * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (BLOCKS[rest] if rest else "")).ljust(BAR_CELLS)


def print_table(headings: list[str], lines: list[list[str]], stream: TextIO) -> None:
    """Print the final table; the first column names what the others give."""
    table = Table(header_style="bold")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left")
    for line in lines:
        table.add_row(*line)
    Console(file=stream).print(table)
