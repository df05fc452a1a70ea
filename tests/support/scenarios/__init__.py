"""Faults and what becomes of calls meanwhile: the same code for the tests of tests/faults and for bench/reliability.py.

A scenario brings its own servers and its own channel, lets something go wrong, and reports. It judges nothing: tests
say what a report has to be, and the script writes it down.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple

import grpclb_core as lb
from support.load import Load
from support.servers import EchoServer, eventually

PATIENCE_S = 10.0
"""What a scenario waits for an endpoint to be in use, or in use again, before it gives up: far beyond every figure."""


class Report(NamedTuple):
    """What became of calls while something went wrong."""

    calls: int
    failed: int
    recovered_s: float | None = None
    """From the moment that all was well again to the first call that shows it; None where nothing was ever out."""
    figures: Mapping[str, float] = {}
    """What else was measured; the names say of what, and in which unit."""
    codes: frozenset[str] = frozenset()
    """The names of the status codes of what failed."""
    said: str | None = None
    """What the channel itself had to say of the fault meanwhile."""


def report_of(load: Load, recovered_s: float | None = None, figures: Mapping[str, float] | None = None) -> Report:
    """Report on a load that has ended."""
    codes = frozenset(code.name for _, code in load.failures)
    return Report(load.calls, len(load.failures), recovered_s, figures or {}, codes)


async def all_ready(channel: lb.Channel, within_s: float = PATIENCE_S) -> None:
    """Have a channel start, and wait until every endpoint is connected."""
    channel.get_state(try_to_connect=True)

    def is_ready() -> bool:
        endpoints = channel.balancer.snapshot().endpoints
        return bool(endpoints) and all(one.state == "ready" for one in endpoints)

    await eventually(is_ready, within_s)


def endpoint_of(channel: lb.Channel, address: str) -> lb.EndpointSnapshot:
    """Return what the channel knows of one endpoint."""
    return next(one for one in channel.balancer.snapshot().endpoints if one.address == address)


def last_answer_of(load: Load, name: str) -> float:
    """Return when a server last answered, on the event loop's clock."""
    return max(time for time, who in load.answered if who == name)


@contextlib.asynccontextmanager
async def servers_on_one_port(count: int) -> AsyncIterator[list[EchoServer]]:
    """Run echo servers on 127.0.0.11 and following, all on one port, for sources that know of one port only."""
    servers = [EchoServer(chr(ord("a") + number)) for number in range(count)]
    started: list[EchoServer] = []
    try:
        for number, server in enumerate(servers, 11):
            started.append(await server.start(f"127.0.0.{number}", started[0].port if started else 0))
        yield servers
    finally:
        for server in started:
            await server.stop()
