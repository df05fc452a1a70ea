"""Servers that leave in good order, connections that grow old, and sets that change all the time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import grpc
import grpc.aio
import psutil

import grpclb_core as lb
from grpclb_core.types import Health
from support.load import Load
from support.servers import CHANNEL_OPTIONS, UNARY_UNARY, ChildServer, EchoServer, echo_servers
from support.source import Source, endpoint

from . import PATIENCE_S, Report, all_ready, report_of

NOTICE_S = 0.3  # what a server gives its clients between saying that it leaves and leaving
RATE = 300  # the figure, in calls a second
AGE_S = 0.3
FLAP_S = 0.05  # 20 Hz, the fastest of the fault table

AGED = "of them on those connections"
OPENED = "connections opened"
SERVED = "share of the servers in use"
STARTED = "servers that could start"


async def rolling_restart(draining: bool) -> Report:
    """Restart all of four servers, one after the other; the source says `DRAINING`, or drops them from the set.

    `recovered_s` is the longest time from a server's listing to its first call.
    """
    clock = asyncio.get_running_loop().time
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(ChildServer(name)) for name in "abcd"]
        source = Source(endpoint(server.address) for server in servers)
        channel = lb.insecure_channel(source, options=CHANNEL_OPTIONS)
        async with channel, Load(channel, RATE).running() as load:
            await all_ready(channel)
            await asyncio.sleep(0.5)
            recoveries = []
            for server in servers:
                others = [endpoint(one.address) for one in servers if one is not server]
                leaving = [endpoint(server.address, health=Health.DRAINING)] if draining else []
                source.set([*others, *leaving])
                await asyncio.sleep(NOTICE_S)
                await asyncio.to_thread(server.drain)
                server.start()
                source.set([*others, endpoint(server.address)])
                recoveries.append(await load.wait_for(server.name, clock(), PATIENCE_S))
    return report_of(load, max(recoveries))


async def connection_age(load_s: float) -> Report:
    """Have one of two servers send GOAWAY after a third of a second, again and again."""
    ages = (("grpc.max_connection_age_ms", round(AGE_S * 1e3)), ("grpc.max_connection_age_grace_ms", 5000))
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0), *ages))

    async def echo(request: bytes, context: object) -> bytes:
        await asyncio.sleep(0.02)
        return b"aged"

    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("test.Echo", {"UnaryUnary": grpc.unary_unary_rpc_method_handler(echo)}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with echo_servers(1) as (other,):
        target = f"ipv4:127.0.0.1:{port},{other.address}"
        async with lb.insecure_channel(target, options=CHANNEL_OPTIONS, policy="round_robin") as channel:
            await channel.channel_ready()
            async with Load(channel, rate=100).running() as load:
                await asyncio.sleep(load_s)
    await server.stop(None)
    return report_of(load, figures={AGED: sum(name == "aged" for _, name in load.answered)})


async def flapping(turns: int) -> Report:
    """List one of four servers, and do not, twenty times a second."""
    clock = asyncio.get_running_loop().time
    async with echo_servers(4) as servers:
        everyone = [endpoint(server.address) for server in servers]
        source = Source(everyone)
        channel = lb.insecure_channel(source, options=CHANNEL_OPTIONS, policy="round_robin")
        async with channel, Load(channel).running() as load:
            await all_ready(channel)
            before = _connected_ports()
            for turn in range(turns):
                source.set(everyone if turn % 2 else everyone[1:])
                await asyncio.sleep(FLAP_S)
            source.set(everyone)
            recovered_s = await load.wait_for("a", clock(), PATIENCE_S)
            opened = len(_connected_ports() - before)
        served = len({name for _, name in load.answered}) / len(servers)
    return report_of(load, recovered_s, {OPENED: opened, SERVED: served})


async def unwell(counts: Sequence[int]) -> Report:
    """Have the source call so many of eight servers unhealthy, one number after the other."""
    calls, figures = 0, {}
    async with echo_servers(8) as servers:
        source = Source(endpoint(server.address) for server in servers)
        async with lb.insecure_channel(source, options=CHANNEL_OPTIONS, policy="round_robin") as channel:
            for count in counts:
                source.set(
                    endpoint(server.address, health=Health.UNHEALTHY if number < count else Health.HEALTHY)
                    for number, server in enumerate(servers)
                )
                await all_ready(channel)
                before = [server.calls for server in servers]
                for _ in range(64):
                    await channel.unary_unary(UNARY_UNARY)(b"x")
                calls += 64
                figures[f"in use while {count} of 8 are unwell"] = sum(
                    server.calls > one for server, one in zip(servers, before, strict=True)
                )
    return Report(calls, 0, None, figures)


async def shared_port() -> Report:
    """Start two servers on one port."""
    first, second = EchoServer("a"), EchoServer("b")
    await first.start()
    try:
        await second.start(port=first.port)
    except RuntimeError:
        started = 1
    else:
        started = 2
        await second.stop()
    await first.stop()
    return Report(0, 0, None, {STARTED: started})


def _connected_ports() -> set[int]:
    connections = psutil.Process().net_connections("tcp")
    return {one.laddr.port for one in connections if one.status == psutil.CONN_ESTABLISHED}
