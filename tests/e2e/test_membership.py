"""Servers that come, go and come back, on real DNS and real processes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

import grpclb_core as lb
from grpclb_core.observe import EndpointSnapshot
from support.dns import DNSMASQ, Dnsmasq
from support.load import Load
from support.servers import CHANNEL_OPTIONS, UNARY_UNARY, ChildServer, EchoServer

pytestmark = pytest.mark.anyio

TTL_S = 1


@pytest.mark.skipif(DNSMASQ is None, reason="needs dnsmasq (Debian: dnsmasq-base)")
async def test_server_added_to_dns_takes_traffic_within_ttl_and_a_second(tmp_path: Path) -> None:
    first = await EchoServer("first").start("127.0.0.11")
    second = await EchoServer("second").start("127.0.0.12", first.port)
    with Dnsmasq(tmp_path, ttl_s=TTL_S) as dns:
        dns.set(greeter=["127.0.0.11"])
        async with lb.insecure_channel(f"dns://127.0.0.1:{dns.port}/greeter.test:{first.port}") as channel:
            await channel.channel_ready()
            async with Load(channel).running() as load:
                await asyncio.sleep(0.5)
                assert {who for _, who in load.answered} == {"first"}
                added_s = asyncio.get_running_loop().time()
                dns.set(greeter=["127.0.0.11", "127.0.0.12"])
                assert await load.wait_for("second", added_s, within_s=10) <= TTL_S + 1
                removed_s = asyncio.get_running_loop().time()
                dns.set(greeter=["127.0.0.12"])
                await asyncio.sleep(TTL_S + 1)
                last_s = asyncio.get_running_loop().time()
                await asyncio.sleep(0.5)
                assert load.first_answer_of("first", last_s) is None, "a server removed from DNS still takes calls"
                assert last_s > removed_s
            assert load.failures == []
    await first.stop()
    await second.stop()


@pytest.mark.parametrize("policy", ["p2c_ewma", "round_robin"])
async def test_killed_server_costs_no_more_than_its_calls_in_flight(policy: str) -> None:
    servers = [ChildServer(name) for name in "abcd"]
    try:
        for server in servers:
            server.start()
        target = "ipv4:" + ",".join(server.address for server in servers)
        async with lb.insecure_channel(target, options=CHANNEL_OPTIONS, policy=policy) as channel:
            await channel.channel_ready()
            loop = asyncio.get_running_loop()
            async with Load(channel).running() as load:
                await asyncio.sleep(1)
                victim = servers[0]
                assert load.first_answer_of("a", 0) is not None

                def seen() -> EndpointSnapshot:
                    return next(e for e in channel.balancer.snapshot().endpoints if e.address == victim.address)

                hanging = [channel.unary_unary(UNARY_UNARY)(b"sleep:30") for _ in range(20)]
                await asyncio.sleep(0.2)
                before = seen()
                victim.kill()
                await asyncio.sleep(1)
                failed_hanging = sum(call.done() for call in hanging)
                # While the end of the process was waited for no call was made, and some are then made up for before the
                # news of it is read; those are in flight as well.
                late = seen().picks - before.picks
                assert late <= 5
                assert len(load.failures) + failed_hanging <= before.in_flight + late
                assert failed_hanging > 0, "the victim had none of the calls that hang: nothing was tested"
                assert {code for _, code in load.failures} <= {grpc.StatusCode.UNAVAILABLE}
                killed = len(load.failures)

                victim.start()
                restarted_s = loop.time()
                assert await load.wait_for("a", restarted_s, within_s=10) <= 2
                assert len(load.failures) == killed
                for call in hanging:
                    call.cancel()
    finally:
        for server in servers:
            server.reap()
