"""What does a whole call cost the client, on this channel and on grpc.aio's own?"""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import grpc
import grpc.aio

from ...aio import Balancer, insecure_channel
from . import budgets
from .report import Check, Row, Section, check
from .rounds import ratio, shuffled, spread
from .servers import METHOD, SERVERS, running_servers

ROUND_ROBIN = "grpc.aio round_robin"
AGAIN = "grpc.aio round_robin, a second one"
OURS = "this channel"
OURS_ROUND_ROBIN = "this channel, policy round_robin"
EMPTY = "one empty interceptor"
ROUTED = "balancer.interceptors()"

# What each is compared with. The second round_robin channel is the first over again: how far its ratio lies from 1 is
# how far any of these can be trusted. With the same policy on both sides, what is left is the price of the channel:
# a policy that prefers some servers also changes how full the connections are, and with that the work of grpcio.
COMPARISONS = (
    (AGAIN, ROUND_ROBIN),
    (OURS, ROUND_ROBIN),
    (OURS_ROUND_ROBIN, ROUND_ROBIN),
    (EMPTY, ROUND_ROBIN),
    (ROUTED, EMPTY),
    (ROUTED, ROUND_ROBIN),
)

KINDS = tuple(dict.fromkeys(name for pair in COMPARISONS for name in pair))

# Connections are shared between the channels of a process unless each has a pool of its own.
OWN_CONNECTIONS = (("grpc.use_local_subchannel_pool", 1),)
SERVICE_CONFIG = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})

REQUEST = b"x" * 64  # bytes
WARM_UP_S = 30.0

# Where a channel and its connections come to lie in memory shifts its calls by two hundredths, for as long as it lives:
# the same channel twice tells. So servers and channels are made anew every so many rounds, each time in another order:
# the channel that is made first is the cheapest by a hundredth.
ROUNDS_OF_A_FLEET = 10


class _EmptyInterceptor(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(details, request)


def measure_calls(rounds: int, calls: int, concurrency: int) -> tuple[Section, list[Check]]:
    """Make the same unary calls over each channel in turn, against the same servers; count the client's CPU time."""
    readings: dict[str, list[float]] = {}
    starts = range(0, rounds, ROUNDS_OF_A_FLEET)
    for begin, order in zip(starts, shuffled(KINDS, len(starts)), strict=True):
        with running_servers() as addresses:
            turns = asyncio.run(_measure(addresses, order, min(ROUNDS_OF_A_FLEET, rounds - begin), calls, concurrency))
        for name, costs in turns.items():
            readings.setdefault(name, []).extend(costs)
    rows = [Row(name=ROUND_ROBIN, cost=spread(readings[ROUND_ROBIN]), unit="us")]
    rows += [
        Row(name=name, cost=spread(readings[name]), unit="us", ratio=ratio(readings[name], readings[to]), to=to)
        for name, to in COMPARISONS
    ]
    section = Section(
        f"client CPU of one unary call over {SERVERS} servers, {concurrency} at a time",
        rows,
        "CPU of all the client's threads; the servers run in other processes",
    )
    return section, [
        check(budgets.CHANNEL, ratio(readings[OURS], readings[ROUND_ROBIN]).median),
        check(budgets.INTERCEPTORS, ratio(readings[ROUTED], readings[EMPTY]).median),
    ]


async def _measure(
    addresses: list[str], kinds: list[str], rounds: int, calls: int, concurrency: int
) -> dict[str, list[float]]:
    async with _channels("ipv4:" + ",".join(addresses), kinds) as channels:
        methods = {name: channel.unary_unary(METHOD) for name, channel in channels.items()}
        for method in methods.values():
            await _warm_up(method, len(addresses), calls, concurrency)
        # What exists now stays; the collector runs as it would in a service, over what the calls leave behind.
        gc.collect()
        gc.freeze()
        try:
            readings: dict[str, list[float]] = {name: [] for name in methods}
            for order in shuffled(list(methods), rounds):
                for name in order:
                    readings[name].append(await cpu_us(methods[name], calls, concurrency))
            return readings
        finally:
            gc.unfreeze()


@asynccontextmanager
async def _channels(target: str, kinds: list[str]) -> AsyncIterator[dict[str, Any]]:
    """Open one channel of each kind, in this order."""
    plain = (*OWN_CONNECTIONS, ("grpc.service_config", SERVICE_CONFIG))
    async with AsyncExitStack() as stack:
        balancer = await stack.enter_async_context(Balancer(target, options=OWN_CONNECTIONS))
        routing = balancer.interceptors({METHOD: (None, None)})
        make: dict[str, Callable[[], Any]] = {
            ROUND_ROBIN: lambda: grpc.aio.insecure_channel(target, options=plain),
            AGAIN: lambda: grpc.aio.insecure_channel(target, options=plain),
            OURS: lambda: insecure_channel(target, options=OWN_CONNECTIONS),
            OURS_ROUND_ROBIN: lambda: insecure_channel(target, options=OWN_CONNECTIONS, policy="round_robin"),
            EMPTY: lambda: grpc.aio.insecure_channel(target, options=plain, interceptors=[_EmptyInterceptor()]),
            ROUTED: lambda: grpc.aio.insecure_channel(target, interceptors=routing),
        }
        yield {kind: await stack.enter_async_context(make[kind]()) for kind in kinds}


async def _warm_up(method: Any, servers: int, calls: int, concurrency: int) -> None:
    """Call until every server has answered, and as long as one reading takes."""
    seen: set[bytes] = set()
    with anyio.fail_after(WARM_UP_S):
        while len(seen) < servers:
            seen.add(await method(REQUEST))
    await cpu_us(method, calls, concurrency)


async def cpu_us(method: Any, calls: int, concurrency: int) -> float:
    """Return the CPU time of this process in us for each of `calls` calls, `concurrency` of them at a time."""
    left = calls

    async def caller() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await method(REQUEST)

    begin_ns = time.process_time_ns()
    await asyncio.gather(*(caller() for _ in range(concurrency)))
    return (time.process_time_ns() - begin_ns) / calls / 1e3
