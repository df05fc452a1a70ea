"""Every pick is paid back, whatever becomes of its call; and nothing else is left behind either."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import grpc
import grpc.aio
import psutil
import pytest

import grpclb_core as lb
from support.servers import (
    CHANNEL_OPTIONS,
    STREAM_STREAM,
    STREAM_UNARY,
    UNARY_STREAM,
    UNARY_UNARY,
    ChildServer,
    echo_servers,
    eventually,
    target_of,
)

pytestmark = pytest.mark.anyio

STORM_CALLS = 10_000
AT_ONCE = 200
PATHS = {
    "unary_unary": UNARY_UNARY,
    "unary_stream": UNARY_STREAM,
    "stream_unary": STREAM_UNARY,
    "stream_stream": STREAM_STREAM,
}
Start = Callable[..., Any]


async def endless() -> AsyncIterator[bytes]:
    while True:
        yield b"sleep:0.01"


async def end_of(call: Any) -> None:
    """Wait for a call to end, without a word about how."""
    with_messages = hasattr(call, "__aiter__")
    try:
        if with_messages:
            async for _ in call:
                pass
        else:
            await call
    except (grpc.aio.AioRpcError, asyncio.CancelledError):
        pass


async def complete(start: Start, streams: bool) -> None:
    await end_of(start([b"1", b"2"] if streams else b"1"))


async def fail(start: Start, streams: bool) -> None:
    await end_of(start([b"fail:INTERNAL"] if streams else b"fail:INTERNAL"))


async def cancel_at_once(start: Start, streams: bool) -> None:
    start([b"hang"] if streams else b"hang").cancel()


async def cancel_later(start: Start, streams: bool) -> None:
    call = start(endless() if streams else b"hang")
    await asyncio.sleep(0.01)
    call.cancel()


async def cancel_the_caller(start: Start, streams: bool) -> None:
    task = asyncio.ensure_future(end_of(start([b"hang"] if streams else b"hang")))
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait((task,))


async def run_out_of_time(start: Start, streams: bool) -> None:
    await end_of(start([b"hang"] if streams else b"hang", timeout=0.02))


async def drop(start: Start, streams: bool) -> None:
    """Let go of a call without a look at it. grpc.aio keeps a stream nobody reads until its deadline, and so do we."""
    start([b"1"] if streams else b"1", timeout=0.2)


async def read_one_and_drop(start: Start, streams: bool) -> None:
    call = start(endless() if streams else b"1", timeout=0.2)
    if hasattr(call, "read"):
        with contextlib.suppress(grpc.aio.AioRpcError):
            await call.read()


async def send_bad_metadata(start: Start, streams: bool) -> None:
    """C-core refuses it, and grpc.aio then forgets the done callbacks."""
    with contextlib.suppress(Exception):  # another class for each arity, or a wait without end
        with anyio.move_on_after(0.1):
            await end_of(start([b"1"] if streams else b"1", metadata=(("Bad Key", "value"),)))


FATES = (
    complete,
    fail,
    cancel_at_once,
    cancel_later,
    cancel_the_caller,
    run_out_of_time,
    drop,
    read_one_and_drop,
    send_bad_metadata,
)


def in_flight(channel: lb.Channel) -> int:
    return sum(endpoint.in_flight for endpoint in channel.balancer.snapshot().endpoints)


async def storm(channel: lb.Channel, seed: int) -> None:
    chance = random.Random(seed)
    methods = {arity: getattr(channel, arity)(path) for arity, path in PATHS.items()}
    gate = anyio.CapacityLimiter(AT_ONCE)

    async def one(fate: Callable[[Start, bool], Awaitable[None]], arity: str) -> None:
        async with gate:
            await fate(methods[arity], arity.startswith("stream"))

    fates = [(chance.choice(FATES), chance.choice(tuple(PATHS))) for _ in range(STORM_CALLS)]
    await asyncio.gather(*(one(*fate) for fate in fates))


@pytest.mark.parametrize("policy", ["p2c_ewma", "round_robin"])
async def test_in_flight_returns_to_zero(policy: str) -> None:
    async with echo_servers(4) as servers:
        async with lb.insecure_channel(target_of(servers), options=CHANNEL_OPTIONS, policy=policy) as channel:
            await channel.channel_ready()
            await storm(channel, seed=1)

            def settled() -> bool:
                gc.collect()  # grpc.aio keeps calls in reference cycles
                return in_flight(channel) == 0

            await eventually(settled, within_s=10)
            endpoints = channel.balancer.snapshot().endpoints
            assert sum(endpoint.picks for endpoint in endpoints) >= STORM_CALLS
            assert all(endpoint.streams == 0 for endpoint in endpoints)
            assert all(endpoint.in_flight_age_s == 0 for endpoint in endpoints)


async def test_close_settles_every_call() -> None:
    async with echo_servers(4) as servers:
        channel = lb.insecure_channel(target_of(servers), options=CHANNEL_OPTIONS)
        await channel.channel_ready()
        calls = []
        for arity, path in PATHS.items():
            streams = arity.startswith("stream")
            calls += [getattr(channel, arity)(path)([b"hang"] if streams else b"hang") for _ in range(250)]
        await eventually(lambda: sum(server.open_calls for server in servers) == len(calls))
        assert in_flight(channel) == len(calls)
        await channel.close()
        assert in_flight(channel) == 0
        assert [await call.code() for call in calls] == [grpc.StatusCode.CANCELLED] * len(calls)


async def test_a_call_that_cannot_be_sent_gives_its_pick_back() -> None:
    """grpc.aio never ends a call whose serializer returned no bytes; only its garbage tells that it is over."""
    async with echo_servers(2) as servers:
        async with lb.insecure_channel(target_of(servers), options=CHANNEL_OPTIONS) as channel:
            await channel.channel_ready()
            method = channel.unary_unary(UNARY_UNARY, request_serializer=lambda message: message)
            for _ in range(20):
                with pytest.raises(TypeError):
                    await method("no bytes")

            def settled() -> bool:
                gc.collect()
                return in_flight(channel) == 0

            await eventually(settled)
            endpoints = channel.balancer.snapshot().endpoints
            assert sum(endpoint.unjudged for endpoint in endpoints) == 20
            assert sum(endpoint.successes + endpoint.failures for endpoint in endpoints) == 0
            assert all(endpoint.latency_s is None for endpoint in endpoints)


async def test_nothing_is_left_after_close() -> None:
    """No task, no socket, no object: the channel can be made and closed for ever."""
    process = psutil.Process()
    async with echo_servers(2) as servers:

        async def use() -> None:
            async with lb.insecure_channel(target_of(servers), options=CHANNEL_OPTIONS) as channel:
                await asyncio.gather(*(channel.unary_unary(UNARY_UNARY)(b"x") for _ in range(8)))

        def alive() -> tuple[int, int, int]:
            gc.collect()
            ours = [thing for thing in gc.get_objects() if str(type(thing).__module__).startswith("grpclb_core.")]
            return len(asyncio.all_tasks()), len(process.net_connections()), len(ours)

        await use()
        await asyncio.sleep(0.1)
        before = alive()
        for _ in range(20):
            await use()
        await asyncio.sleep(0.1)
        after = alive()
        assert after[0] == before[0]
        assert after[1] <= before[1]
        assert after[2] <= before[2]


async def test_a_dropped_channel_lets_go() -> None:
    async with echo_servers(1) as (server,):
        channel = lb.insecure_channel(f"ipv4:{server.address}", options=CHANNEL_OPTIONS)
        assert await channel.unary_unary(UNARY_UNARY)(b"x") == b"x"
        tasks = len(asyncio.all_tasks())
        del channel

        def gone() -> bool:
            gc.collect()
            return len(asyncio.all_tasks()) < tasks

        await eventually(gone)


async def test_memory_is_flat() -> None:
    """100 000 calls leave no more memory in use than the first 20 000 did."""
    process = psutil.Process()
    servers = [ChildServer(name) for name in "ab"]
    try:
        for server in servers:
            server.start()
        target = "ipv4:" + ",".join(server.address for server in servers)
        async with lb.insecure_channel(target, options=CHANNEL_OPTIONS) as channel:
            method = channel.unary_unary(UNARY_UNARY)

            async def worker(count: int) -> None:
                for _ in range(count):
                    await method(b"x", timeout=30)

            async def calls(count: int) -> int:
                await asyncio.gather(*(worker(count // 16) for _ in range(16)))
                gc.collect()
                return int(process.memory_info().rss)

            warm = await calls(20_000)
            end = await calls(80_000)
            assert in_flight(channel) == 0
            # A leak of one small object a call would be 4 MB and more; the allocator's own play is below 1 MB.
            assert end - warm < 2_000_000
    finally:
        for server in servers:
            server.reap()
