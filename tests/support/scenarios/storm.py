"""Connections that break all the time, and what their channels ask of DNS."""

from __future__ import annotations

import asyncio
import contextlib

import grpclb_core as lb
from support.dns import FaultyDns
from support.load import Load
from support.relay import Relay
from support.servers import CHANNEL_OPTIONS, echo_servers

from . import PATIENCE_S, Report, all_ready

NAME = "greeter.test"
TTL_S = 300  # so that nothing but what breaks makes anyone ask
UP_S, DOWN_S = 0.3, 0.05

BREAKS = "breaks"
QUERIES = "queries of both types"
PER_CHANNEL = "look-ups of a channel a second"


async def storm(load_s: float, channels: int) -> Report:
    """Break the one connection of each channel three times a second; each break has the channel ask DNS again."""
    clock = asyncio.get_running_loop().time
    async with contextlib.AsyncExitStack() as stack:
        (server,) = await stack.enter_async_context(echo_servers(1))
        relay = stack.enter_context(Relay(server.port))
        dns = stack.enter_context(FaultyDns())
        dns.set(NAME, "127.0.0.1", ttl_s=TTL_S)
        target = f"dns://{dns.address}/{NAME}.:{relay.address.rpartition(':')[2]}"
        loads = []
        for _ in range(channels):
            channel = await stack.enter_async_context(lb.insecure_channel(target, options=CHANNEL_OPTIONS))
            loads.append(await stack.enter_async_context(Load(channel, rate=50, timeout_s=1.0).running()))
            await all_ready(channel)
        asked, breaks, ends_s = len(dns.queries), 0, clock() + load_s
        while clock() < ends_s:
            await asyncio.sleep(UP_S)
            relay.cut()
            breaks += 1
            await asyncio.sleep(DOWN_S)
            relay.heal()
        queries = len(dns.queries) - asked
        back_s = clock()
        recovered_s = max([await load.wait_for("a", back_s, PATIENCE_S) for load in loads])
    calls, failures = sum(load.calls for load in loads), [code for load in loads for _, code in load.failures]
    figures = {BREAKS: breaks, QUERIES: queries, PER_CHANNEL: queries / 2 / channels / load_s}
    return Report(calls, len(failures), recovered_s, figures, frozenset(code.name for code in failures))
