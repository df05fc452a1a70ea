"""Where everyone falls silent, somebody stays in use; it must not be the wrong one for good."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

import grpclb_core as lb
from support.load import Load
from support.servers import CHANNEL_OPTIONS, ChildServer, eventually
from support.source import Source, endpoint

pytestmark = pytest.mark.anyio


async def test_the_first_to_answer_again_is_used_and_the_last_to_fall_is_left() -> None:
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(ChildServer(name)) for name in "ab"]
        source = Source(endpoint(server.address) for server in servers)
        async with lb.insecure_channel(source, options=CHANNEL_OPTIONS, policy="round_robin") as channel:
            async with Load(channel, rate=50, timeout_s=1.0).running() as load:
                await eventually(lambda: {name for _, name in load.answered} == {"a", "b"})
                for server in servers:
                    server.freeze()
                await eventually(lambda: _states(channel).count("failing") == 1, within_s=10)
                silent = next(place for place, state in enumerate(_states(channel)) if state == "failing")
                servers[silent].thaw()
                thawed_s = asyncio.get_running_loop().time()
                await load.wait_for(servers[silent].name, thawed_s, within_s=10)
                await eventually(lambda: _states(channel)[1 - silent] == "failing", within_s=10)
                failures = len(load.failures)
                await asyncio.sleep(2.5)
                late = [code for time, code in load.failures[failures:] if time > thawed_s + 6]
                assert late == []
                servers[1 - silent].thaw()


def _states(channel: lb.Channel) -> list[str]:
    return [one.state for one in channel.balancer.snapshot().endpoints]
