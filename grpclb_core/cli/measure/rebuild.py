"""What does a change of the endpoints cost, and do picks wait for it?

The balancer, its endpoint set and its policy are the real ones; only the connections are not, for ten thousand
sockets would measure the kernel.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import anyio
import grpc
import grpc.aio

from ...balancer import Balancer
from ...endpoints import Connection
from ...policies import P2cEwma
from ...resolve.static import static_endpoints
from ...types import Address, Endpoint, Resolution
from . import budgets
from .fleets import Fleet
from .pick import REFERENCE_SIZE, SEED
from .report import Check, Row, Section, check
from .rounds import no_collection, ratio, shuffled, spread
from .scaffold import Scaffold

ENDPOINTS = 10_000
CHURN = ENDPOINTS // 100

# How long picks are watched at a time. The scheduler interrupts them too; the control without any change shows how much.
WATCHED_NS = 20_000_000


class _AlwaysReady:
    """As much of a channel as a connection asks for."""

    def __init__(self) -> None:
        self._closed = asyncio.Event()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return grpc.ChannelConnectivity.SHUTDOWN if self._closed.is_set() else grpc.ChannelConnectivity.READY

    async def wait_for_state_change(self, last: grpc.ChannelConnectivity) -> None:
        await self._closed.wait()
        raise grpc.aio.UsageError("Channel is closed.")

    async def close(self, grace: float | None = None) -> None:
        self._closed.set()


class TimedBalancer(Balancer):
    """A balancer without sockets that keeps the time of each picker it puts in place, in seconds."""

    publishing_s: list[float]

    def _connect(self, address: Address) -> Connection:
        channel: Any = _AlwaysReady()
        return Connection(channel, self._connection_changed)

    def _publish(self) -> None:
        begin_s = time.perf_counter()
        super()._publish()
        self.publishing_s.append(time.perf_counter() - begin_s)


def endpoints_of(generation: int, count: int = ENDPOINTS) -> tuple[Endpoint, ...]:
    """Return a set in which each generation has one percent of other members than the one before."""
    first = generation * (count // 100)
    numbers = range(first, first + count)
    return tuple(Endpoint(Address(f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}", 50051)) for n in numbers)


def measure_rebuild(rounds: int, scaffold: Scaffold | None) -> tuple[Section, list[Check]]:
    """Replace one percent of ten thousand endpoints, once a round."""
    changes_ms, newcomers_ms = asyncio.run(_changes(rounds))
    rows = [
        Row(name="the change is taken up, a new picker is in place", cost=spread(changes_ms), unit="ms"),
        Row(name="the newcomers are connected, a picker with them is in place", cost=spread(newcomers_ms), unit="ms"),
    ]
    if scaffold is not None:
        rows += asyncio.run(_picks_meanwhile(rounds, scaffold))
    worst = max(row.cost.median for row in rows[:2])
    return Section(f"rebuild after {CHURN} of {ENDPOINTS} endpoints changed", rows), [check(budgets.REBUILD, worst)]


async def _changes(rounds: int) -> tuple[list[float], list[float]]:
    """Return how long the event loop is held by each of the two steps of a change, in ms."""
    changes_ms, newcomers_ms = [], []
    async with await _settled() as balancer:
        for generation in range(1, rounds + 1):
            resolution = Resolution(endpoints_of(generation))
            with no_collection():
                begin_s = time.perf_counter()
                balancer.update(resolution)
                changes_ms.append((time.perf_counter() - begin_s) * 1e3)
                balancer.publishing_s.clear()
                await _published(balancer)
            newcomers_ms.append(balancer.publishing_s[-1] * 1e3)
    return changes_ms, newcomers_ms


async def _settled() -> TimedBalancer:
    """Return a started balancer in which every endpoint is ready."""
    balancer = TimedBalancer(static_endpoints([str(each.address) for each in endpoints_of(0)]), config={"seed": SEED})
    balancer.publishing_s = []
    balancer.start()
    while balancer.current.picker is None or len(balancer.current.picker) < ENDPOINTS:
        await _published(balancer)
    return balancer


async def _published(balancer: TimedBalancer) -> None:
    before = len(balancer.publishing_s)
    while len(balancer.publishing_s) == before:
        await anyio.sleep(0.001)


async def _picks_meanwhile(rounds: int, scaffold: Scaffold) -> list[Row]:
    """Pick in a second thread, with and without rebuilds in the first, and compare the slowest picks of both."""
    quiet, changing = "slowest pick of 20 ms, nothing changes", "slowest pick of 20 ms, endpoints change without pause"
    slowest_us: dict[str, list[float]] = {quiet: [], changing: []}
    picker = P2cEwma().build(Fleet(REFERENCE_SIZE, SEED).view, SEED)
    generation = 0
    async with await _settled() as balancer:
        for order in shuffled(list(slowest_us), rounds):
            for name in order:
                picking = asyncio.get_running_loop().run_in_executor(None, scaffold.slowest_ns, picker, WATCHED_NS)
                while not picking.done():
                    if name is changing:
                        generation += 1
                        balancer.update(Resolution(endpoints_of(generation)))
                        assert balancer.current.picker is not None, "there is a picker at every moment"
                    await anyio.sleep(0)
                slowest_us[name].append(await picking / 1e3)
    against = ratio(slowest_us[changing], slowest_us[quiet])
    return [
        Row(name=quiet, cost=spread(slowest_us[quiet]), unit="us"),
        Row(name=changing, cost=spread(slowest_us[changing]), unit="us", ratio=against, to="nothing changes"),
    ]
