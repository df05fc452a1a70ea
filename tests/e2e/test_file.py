"""A file of endpoints that changes under load."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

import grpclb_core as lb
from support.servers import UNARY_UNARY, EchoServer, echo_servers

pytestmark = pytest.mark.anyio

WITHIN_S = 1.0  # of the change: what every source is held to that tells of changes as they come


def replace(path: Path, servers: list[EchoServer]) -> float:
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps([server.address for server in servers]))
    os.replace(draft, path)
    return asyncio.get_running_loop().time()


async def test_who_comes_takes_calls_and_who_goes_takes_none_within_a_second(tmp_path: Path) -> None:
    path = tmp_path / "endpoints.json"
    clock = asyncio.get_running_loop().time
    async with echo_servers(3) as (a, b, c):
        replace(path, [a, b])
        async with lb.insecure_channel(f"file://{path}", policy="round_robin") as channel:
            say = channel.unary_unary(UNARY_UNARY)
            answered: dict[bytes, float] = {}

            async def call_for(seconds: float, until: bytes = b"") -> None:
                ends_s = clock() + seconds
                while clock() < ends_s and until not in answered:
                    answered[await say(b"name", timeout=5)] = clock()
                    await asyncio.sleep(0.002)

            await call_for(0.2)
            assert set(answered) <= {b"a", b"b"}
            began_s = replace(path, [a, b, c])
            await call_for(5, until=b"c")
            assert answered[b"c"] - began_s <= WITHIN_S
            replace(path, [b, c])
            await call_for(WITHIN_S)
            last_s = clock()
            path.write_text('["10.0.0')  # nor does a broken file bring anyone back, or take anyone away
            await call_for(0.5)
            assert answered[b"a"] <= last_s
            assert min(answered[b"b"], answered[b"c"]) > last_s
