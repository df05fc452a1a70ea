"""Shows the run as it happens: as plain lines, or live where there is a terminal and rich."""

from __future__ import annotations

import asyncio
import os
from contextlib import AbstractContextManager
from statistics import fmean
from typing import Protocol, TextIO

import anyio
import msgspec

from ...aio import Channel
from .load import RECENT_S, Answer, Side
from .options import Options
from .result import percentile
from .script import SERVERS, SLOW, Event, Server, condition

SHORTER = {"transient_failure": "failing"}


class Progress:
    """How far the run has come; `start_s` is when the load began, by the event loop's clock."""

    def __init__(self, options: Options, sides: list[Side]) -> None:
        self.options = options
        self.sides = sides
        self.events: list[Event] = []
        self.start_s = 0.0

    def elapsed_s(self) -> float:
        return asyncio.get_running_loop().time() - self.start_s

    async def sleep_until(self, elapsed_s: float) -> None:
        await anyio.sleep(max(0.0, elapsed_s - self.elapsed_s()))


class View(Protocol):
    """What follows a run."""

    @property
    def every_s(self) -> float:
        """Seconds between two refreshes."""

    def say(self, text: str) -> None:
        """Tell of something that just happened."""

    async def refresh(self, progress: Progress) -> None:
        """Show the state of the run."""


def open_view(stream: TextIO) -> AbstractContextManager[View]:
    """Choose the view that suits where the output goes."""
    # https://no-color.org asks for no colours, not for no movement; rich sees to the colours.
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        try:
            from .live import LiveView
        except ImportError:  # rich is an extra
            return PlainView(stream)
        return LiveView(stream)
    return PlainView(stream)


class PlainView(AbstractContextManager["PlainView"]):
    """A line a second, and one an event."""

    every_s = 1.0

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __exit__(self, *exception: object) -> None:
        pass

    def say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    async def refresh(self, progress: Progress) -> None:
        elapsed_s = progress.elapsed_s()
        if elapsed_s > self.every_s / 2:
            self.say(f"{elapsed_s:5.1f} s  " + "  |  ".join(_line(side, elapsed_s) for side in progress.sides))


def _line(side: Side, now_s: float) -> str:
    slow = next(row for row in rows(side, [], now_s) if row.server is SLOW)
    slow_share = "-" if slow.share is None else f"{slow.share:3.0%}"
    return f"{side.name} {so_far(side)}, slow server {slow_share}"


def so_far(side: Side) -> str:
    """Say in one line how a side has done since the start."""
    p50, p99 = (milliseconds(percentile(side.latencies, part)) for part in (0.5, 0.99))
    return f"p50 {p50:>3} p99 {p99:>3} ms, failed {side.errors.total()}"


def note(side: Side) -> str:
    """Say where the numbers of `rows` come from."""
    source = "counted by the client" if isinstance(side.channel, Channel) else "told by the servers"
    return f"last {RECENT_S:g} s; in flight as {source}"


def milliseconds(seconds: float | None) -> str:
    """Write seconds as milliseconds with the digits that matter; a dash where there is nothing."""
    return "-" if seconds is None else f"{seconds * 1000:.{1 if seconds < 0.00995 else 0}f}"


class Row(msgspec.Struct, frozen=True):
    """One server as one side sees it; what looks back does so over the last `RECENT_S`."""

    server: Server
    condition: str
    state: str
    share: float | None
    in_flight: int | None
    latency_s: float | None


def rows(side: Side, events: list[Event], now_s: float) -> list[Row]:
    """Describe each server from one side's point of view."""
    recent = side.recent(now_s)
    by_name: dict[str, list[Answer]] = {server.name: [] for server in SERVERS}
    for answer in recent:
        by_name[answer.server].append(answer)
    seen = _seen_by_balancer(side.channel) if isinstance(side.channel, Channel) else _seen_in_answers(by_name)
    found = []
    for server in SERVERS:
        answers = by_name[server.name]
        state, in_flight = seen.get(server.host) or seen.get(server.name) or ("unknown", None)
        found.append(
            Row(
                server=server,
                condition=condition(server, events),
                state=state,
                share=len(answers) / len(recent) if recent else None,
                in_flight=in_flight,
                latency_s=fmean(answer.latency_s for answer in answers) if answers else None,
            )
        )
    return found


def _seen_by_balancer(channel: Channel) -> dict[str, tuple[str, int | None]]:
    return {
        endpoint.address.rpartition(":")[0]: (SHORTER.get(endpoint.state, endpoint.state), endpoint.in_flight)
        for endpoint in channel.balancer.snapshot().endpoints
    }


def _seen_in_answers(by_name: dict[str, list[Answer]]) -> dict[str, tuple[str, int | None]]:
    """Derive what can be known of a channel that does not show its connections."""
    return {name: ("answers", answers[-1].in_flight) for name, answers in by_name.items() if answers} | {
        name: ("silent", None) for name, answers in by_name.items() if not answers
    }
