"""What does a change of the endpoints cost, and do picks wait for it?

The balancer, its endpoint set and its policy are the real ones; only the channels are not, for ten thousand sockets
would measure the kernel.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from unittest import mock

import anyio.lowlevel
import grpc
import grpc.aio

from ...balancer import Balancer
from ...native import Slot, View
from ...policies import P2cEwma
from ...types import Address, Endpoint, Resolution
from . import budgets
from .fleets import Fleet
from .pick import REFERENCE_SIZE, SEED
from .report import Check, Row, Section, check
from .rounds import no_collection, ratio, shuffled, spread
from .scaffold import Scaffold

ENDPOINTS = 10_000
CHURN = ENDPOINTS // 100

# How long picks are watched at a time. The scheduler interrupts them too; a control without any change shows how much.
WATCHED_NS = 20_000_000


class SocketlessChannel:
    """As much of a channel as a balancer asks for; it is ready the second time it is asked."""

    def __init__(self, *arguments: object, **options: object) -> None:
        self._state = grpc.ChannelConnectivity.IDLE
        self._closed = asyncio.Event()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        state = self._state
        self._state = grpc.ChannelConnectivity.READY
        return state

    async def wait_for_state_change(self, last: grpc.ChannelConnectivity) -> None:
        if last is self._state:
            await self._closed.wait()
            raise grpc.aio.UsageError("Channel is closed.")

    async def close(self, grace: float | None = None) -> None:
        self._closed.set()


def endpoints_of(generation: int) -> tuple[Endpoint, ...]:
    """Return a set of which one percent is other than in the generation before."""
    numbers = range(generation * CHURN, generation * CHURN + ENDPOINTS)
    return tuple(Endpoint(Address(f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}", 50051)) for n in numbers)


def measure_rebuild(rounds: int, scaffold: Scaffold | None) -> tuple[Section, list[Check]]:
    """Replace one percent of ten thousand endpoints, once a round."""
    changes_ms, pickers_ms = asyncio.run(_changes(rounds))
    rows = [
        Row(name="taking up the change, all of it", cost=spread(changes_ms), unit="ms"),
        Row(
            name="a view and a picker alone",
            cost=spread(pickers_ms),
            unit="ms",
            ratio=ratio(pickers_ms, changes_ms),
            to="all of it",
        ),
    ]
    if scaffold is not None:
        rows += asyncio.run(_picks_meanwhile(rounds, scaffold))
    return (
        Section(f"rebuild after {CHURN} of {ENDPOINTS} endpoints were replaced", rows),
        [check(budgets.REBUILD, rows[0].cost.median)],
    )


@asynccontextmanager
async def socketless_balancer() -> AsyncIterator[Balancer]:
    """Run a balancer in which every endpoint of the first generation is ready."""
    with mock.patch.object(grpc.aio, "insecure_channel", SocketlessChannel):
        async with Balancer(endpoints_of(0), config={"seed": SEED, "subset_size": ENDPOINTS}) as balancer:
            await complete(balancer)
            yield balancer


async def complete(balancer: Balancer) -> None:
    """Wait until the picker in force chooses among all endpoints."""
    while balancer.current.picker is None or len(balancer.current.picker) < ENDPOINTS:
        await balancer.changed()


async def _changes(rounds: int) -> tuple[list[float], list[float]]:
    """Return how long the event loop is held by a change, and by making a view and a picker, in ms.

    Taken in CPU time of the loop's thread: what the scheduler gives to others in between is not the change's cost.
    """
    changes_ms, pickers_ms = [], []
    policy: Any = P2cEwma()
    slots = [Slot() for _ in range(ENDPOINTS)]
    weights = [1.0] * ENDPOINTS
    async with socketless_balancer() as balancer:
        for generation in range(1, rounds + 1):
            resolution = Resolution(endpoints_of(generation))
            with no_collection():
                begin_s = time.thread_time()
                balancer.update(resolution)
                changed_s = time.thread_time()
                policy.build(View(slots, weights), SEED, 0)
                pickers_ms.append((time.thread_time() - changed_s) * 1e3)
                changes_ms.append((changed_s - begin_s) * 1e3)
            await complete(balancer)
    return changes_ms, pickers_ms


async def _picks_meanwhile(rounds: int, scaffold: Scaffold) -> list[Row]:
    """Pick in a second thread, with and without changes in the first, and compare the slowest picks of both."""
    quiet, changing = "slowest pick of 20 ms, nothing changes", "slowest pick of 20 ms, endpoints change without pause"
    slowest_us: dict[str, list[float]] = {quiet: [], changing: []}
    picker = P2cEwma().build(Fleet(REFERENCE_SIZE, SEED).view, SEED, 0)
    generation = 0
    async with socketless_balancer() as balancer:
        for order in shuffled(list(slowest_us), rounds):
            for name in order:
                picking = asyncio.get_running_loop().run_in_executor(None, scaffold.slowest_ns, picker, WATCHED_NS)
                while not picking.done():
                    if name is changing:
                        generation += 1
                        balancer.update(Resolution(endpoints_of(generation)))
                        assert balancer.current.picker is not None, "there is a picker at every moment"
                    await anyio.lowlevel.checkpoint()
                slowest_us[name].append(await picking / 1e3)
    against = ratio(slowest_us[changing], slowest_us[quiet])
    return [
        Row(name=quiet, cost=spread(slowest_us[quiet]), unit="us"),
        Row(name=changing, cost=spread(slowest_us[changing]), unit="us", ratio=against, to="nothing changes"),
    ]
