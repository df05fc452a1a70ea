"""A large set of endpoints that changes all the time: memory, connections, and what a pick costs."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import random
import resource
import time
from array import array
from collections.abc import AsyncIterator, Coroutine

import psutil

import grpclb_core as lb
from grpclb_core.native import CurrentPicker
from grpclb_core.types import Outcome
from support.load import Load
from support.servers import CHANNEL_OPTIONS, ChildServer
from support.source import Source, endpoint

from . import Report, all_ready, report_of

ENDPOINTS = 1000
UPDATES_PER_S = 10
REPLACED = 5  # endpoints that leave with each update, as many come: the whole set is another one after 20 s
SEED = 7
RATE = 100  # calls a second
WARM_S = 2.0  # of changes that are not counted: what the first ones allocate stays
CONNECTED_WITHIN_S = 60.0  # a thousand connections, on a busy machine

CHANGES = "came or went"
OPENED = "connections opened"
GROWN = "RSS grown by, MiB"
QUIET_P99, BUSY_P99 = "p99 of a pick before, ns", "p99 of a pick, ns"

PICKS = 20  # in a row, and then the event loop has its turn
PAUSE_S = 0.01
LOOK_S = 1.0  # a connection is kept for 5 s after its endpoint left, so that none is missed
MIB = 2**20


class Fleet:
    """Endpoints by the thousand, all of them one server, which listens on all of 127.0.0.0/8; and their changes."""

    def __init__(self, port: int) -> None:
        self._fresh = (endpoint(f"127.1.{number >> 8}.{number & 0xFF}:{port}") for number in itertools.count(1))
        self._random = random.Random(SEED)
        self.listed = [next(self._fresh) for _ in range(ENDPOINTS)]
        self.changes = 0

    def change(self) -> None:
        """Replace some, drawn at random."""
        for place in self._random.sample(range(ENDPOINTS), REPLACED):
            self.listed[place] = next(self._fresh)
        self.changes += 2 * REPLACED


class Connections:
    """Every connection of this process to a port that was open at some time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._process = psutil.Process()
        self.seen: set[tuple[int, str]] = set()

    async def watch(self) -> None:
        while True:
            for one in self._process.net_connections("tcp"):
                if one.raddr and one.raddr.port == self._port and one.status == psutil.CONN_ESTABLISHED:
                    self.seen.add((one.laddr.port, one.raddr.ip))
            await asyncio.sleep(LOOK_S)


async def churn(quiet_s: float, busy_s: float, subset_size: int) -> Report:
    """Leave a set of a thousand alone for a while, and then change it ten times a second, under load."""
    _allow_files(3 * subset_size)
    with ChildServer("a", "0.0.0.0") as server:
        fleet, opened = Fleet(server.port), Connections(server.port)
        source = Source(fleet.listed)
        channel = lb.insecure_channel(source, options=CHANNEL_OPTIONS, config={"subset_size": subset_size})
        async with channel, Load(channel, RATE).running() as load:
            await all_ready(channel, CONNECTED_WITHIN_S)
            current = channel.balancer.current
            quiet_ns = await _picks(current, quiet_s)
            async with _running(opened.watch()):
                await _keep_changing(source, fleet, WARM_S)
                before, rss = len(opened.seen), _rss()
                fleet.changes = 0
                changing = asyncio.create_task(_keep_changing(source, fleet, busy_s))
                busy_ns = await _picks(current, busy_s)
                await changing
                await asyncio.sleep(LOOK_S)
            grown = _rss() - rss
    figures = {
        CHANGES: fleet.changes,
        OPENED: len(opened.seen) - before,
        GROWN: grown / MIB,
        QUIET_P99: _p99(quiet_ns),
        BUSY_P99: _p99(busy_ns),
    }
    return report_of(load, figures=figures)


def _allow_files(count: int) -> None:
    """Raise what the process, and servers that it starts, may open; each connection is an open file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        most = count if hard == resource.RLIM_INFINITY else min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


async def _keep_changing(source: Source, fleet: Fleet, seconds: float) -> None:
    clock = asyncio.get_running_loop().time
    next_s = clock()
    ends_s = next_s + seconds
    while next_s < ends_s:
        fleet.change()
        source.set(fleet.listed)
        next_s += 1 / UPDATES_PER_S
        await asyncio.sleep(max(0.0, next_s - clock()))


async def _picks(current: CurrentPicker, seconds: float) -> array[int]:
    """Pick now and then, and tell how long each took, in ns."""
    clock, taken_ns = asyncio.get_running_loop().time, array("q")
    ends_s = clock() + seconds
    while clock() < ends_s:
        for _ in range(PICKS):
            assert current.picker is not None
            began_ns = time.perf_counter_ns()
            ticket = current.picker.pick()
            taken_ns.append(time.perf_counter_ns() - began_ns)
            ticket.finish(Outcome.DROPPED)
        await asyncio.sleep(PAUSE_S)
    return taken_ns


@contextlib.asynccontextmanager
async def _running(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()


def _rss() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)


def _p99(taken_ns: array[int]) -> float:
    return sorted(taken_ns)[len(taken_ns) * 99 // 100]
