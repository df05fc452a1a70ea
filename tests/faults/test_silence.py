"""Endpoints whose connection is up and whose calls are not answered: hosts that vanish, processes that freeze."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc
import pytest

import grpclb_core as lb
from support.load import Load
from support.namespaces import Host, why_not
from support.servers import CHANNEL_OPTIONS, UNARY_UNARY, ChildServer, eventually

pytestmark = pytest.mark.anyio

NO_HOSTS = why_not()
SETTLED_S = 1.5  # a load has seen every server by then
NOTICED_S = 3.0  # the figure: after this long, no new call


@contextlib.asynccontextmanager
async def fleet(victim: ChildServer, **options: object) -> AsyncIterator[tuple[lb.Channel, Load]]:
    """Three servers and a victim, under load."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(server) for server in (*map(ChildServer, "bcd"), victim)]
        target = "ipv4:" + ",".join(server.address for server in servers)
        async with lb.insecure_channel(target, options=CHANNEL_OPTIONS, **options) as channel:  # type: ignore[arg-type]
            await eventually(lambda: all(one.state == "ready" for one in channel.balancer.snapshot().endpoints))
            async with Load(channel, timeout_s=1.0).running() as load:
                await asyncio.sleep(SETTLED_S)
                yield channel, load


def picks(channel: lb.Channel, server: ChildServer) -> int:
    return next(one.picks for one in channel.balancer.snapshot().endpoints if one.address == server.address)


@pytest.mark.skipif(NO_HOSTS is not None, reason=str(NO_HOSTS))
@pytest.mark.parametrize("policy", ["p2c_ewma", "round_robin"])
async def test_a_host_that_vanished_gets_no_calls_and_is_back_when_it_is_back(policy: str) -> None:
    with Host() as host:
        victim = ChildServer("a", host.address, prefix=host.prefix)
        async with fleet(victim, policy=policy) as (channel, load):
            loop = asyncio.get_running_loop()
            assert load.first_answer_of("a", 0) is not None
            host.vanish()
            await asyncio.sleep(NOTICED_S)
            sent, calls = picks(channel, victim), load.calls
            await asyncio.sleep(4)
            assert picks(channel, victim) == sent
            assert load.calls > calls + 400, "the others take the load"
            failures = len(load.failures)
            assert {code for _, code in load.failures} <= {
                grpc.StatusCode.DEADLINE_EXCEEDED,
                grpc.StatusCode.UNAVAILABLE,
            }
            host.come_back()
            back_s = loop.time()
            assert await load.wait_for("a", back_s, within_s=10) <= 3
            await asyncio.sleep(1)
            assert len(load.failures) == failures


@pytest.mark.skipif(NO_HOSTS is not None, reason=str(NO_HOSTS))
async def test_no_call_waits_longer_than_keepalive_takes() -> None:
    with Host() as host:
        victim = ChildServer("a", host.address, prefix=host.prefix)
        config = {"connection": {"keepalive_time_s": 2, "keepalive_timeout_s": 1}}
        with victim:
            async with lb.insecure_channel(f"ipv4:{victim.address}", options=CHANNEL_OPTIONS, config=config) as channel:
                method = channel.unary_unary(UNARY_UNARY)
                await method(b"x")
                calls = [method(b"sleep:60") for _ in range(8)]
                await asyncio.sleep(0.2)
                host.vanish()
                done, pending = await asyncio.wait([asyncio.ensure_future(call.code()) for call in calls], timeout=6)
                assert not pending
                assert {task.result() for task in done} == {grpc.StatusCode.UNAVAILABLE}
                host.come_back()


@pytest.mark.parametrize("policy", ["p2c_ewma", "least_request"])
async def test_a_frozen_process_gets_no_calls_and_is_back_when_it_thaws(policy: str) -> None:
    victim = ChildServer("a")
    async with fleet(victim, policy=policy) as (channel, load):
        loop = asyncio.get_running_loop()
        victim.freeze()
        await asyncio.sleep(NOTICED_S)
        sent = picks(channel, victim)
        await asyncio.sleep(3)
        assert picks(channel, victim) == sent
        victim.thaw()
        assert await load.wait_for("a", loop.time(), within_s=10) <= 3


async def test_where_there_is_only_one_it_stays_in_use() -> None:
    """A call may as well try; and the half-open connection is replaced all the same."""
    with ChildServer("a") as victim:
        async with lb.insecure_channel(f"ipv4:{victim.address}", options=CHANNEL_OPTIONS) as channel:
            async with Load(channel, rate=50, timeout_s=1.0).running() as load:
                await eventually(lambda: len(load.answered) > 20)
                victim.freeze()
                await asyncio.sleep(4)
                assert channel.get_state() is grpc.ChannelConnectivity.READY
                victim.thaw()
                await load.wait_for("a", asyncio.get_running_loop().time(), within_s=5)


async def test_a_slow_service_is_not_a_silent_one() -> None:
    """Calls that always take longer than silence may last are what this service is like."""
    config = {"connection": {"silence_s": 0.3}}
    with ChildServer("a") as one, ChildServer("b") as other:
        target = f"ipv4:{one.address},{other.address}"
        async with lb.insecure_channel(target, options=CHANNEL_OPTIONS, config=config) as channel:
            method = channel.unary_unary(UNARY_UNARY)
            for _ in range(3):
                await asyncio.gather(*(method(b"sleep:0.8") for _ in range(8)))
                states = {endpoint.state for endpoint in channel.balancer.snapshot().endpoints}
                assert states == {"ready"}
