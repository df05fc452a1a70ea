"""More than one connection to an endpoint, where one is not enough."""

from __future__ import annotations

import asyncio

import psutil
import pytest

import grpclb_core as lb
from support.servers import CHANNEL_OPTIONS, UNARY_UNARY, EchoServer, eventually

pytestmark = pytest.mark.anyio

AT_ONCE = 4  # calls that the server allows a connection


@pytest.mark.parametrize(("connections", "served"), [(1, AT_ONCE), (3, 3 * AT_ONCE)])
async def test_calls_past_the_limit_of_a_connection(connections: int, served: int) -> None:
    server = EchoServer("a")
    server.options = (("grpc.max_concurrent_streams", AT_ONCE),)
    await server.start()
    config = {"connection": {"per_endpoint": connections}}
    async with lb.insecure_channel(
        f"ipv4:{server.address}", options=CHANNEL_OPTIONS, policy="round_robin", config=config
    ) as channel:
        channel.get_state(try_to_connect=True)
        snapshot = channel.balancer.snapshot
        await eventually(lambda: [one.state for one in snapshot().endpoints] == ["ready"] * connections)
        calls = [channel.unary_unary(UNARY_UNARY)(b"hang") for _ in range(3 * AT_ONCE)]
        await eventually(lambda: server.open_calls == served)
        await asyncio.sleep(0.2)
        assert server.open_calls == served
        mine = psutil.Process().net_connections("tcp")
        assert len([one for one in mine if one.raddr and one.raddr.port == server.port]) == connections
        assert snapshot().coverage == 1.0
        for call in calls:
            call.cancel()
    await server.stop()
