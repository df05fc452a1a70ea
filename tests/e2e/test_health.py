"""Servers that say how they are, on a balanced channel."""

from __future__ import annotations

import asyncio

import grpc.aio
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

import grpclb_core as lb
from support.load import Load
from support.servers import CHANNEL_OPTIONS, UNARY_UNARY, EchoServer, echo_servers, eventually, target_of

pytestmark = pytest.mark.anyio

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class HealthyServer(EchoServer):
    """An echo server with the standard health service."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.health = health.aio.HealthServicer()

    def serve(self, server: grpc.aio.Server) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)


async def test_a_server_that_is_unwell_gets_no_calls() -> None:
    servers = [HealthyServer(name) for name in "abc"]
    for server in servers:
        await server.health.set("", SERVING)
        await server.start()
    config, policy = {"health": {"service": ""}}, "round_robin"  # which one slow answer does not put off
    async with lb.insecure_channel(
        target_of(servers), options=CHANNEL_OPTIONS, policy=policy, config=config
    ) as channel:
        async with Load(channel).running() as load:
            await load.wait_for("a", 0, within_s=5)
            loop = asyncio.get_running_loop()
            await servers[0].health.set("", NOT_SERVING)
            await asyncio.sleep(1)
            since_s = loop.time()
            await asyncio.sleep(0.5)
            assert load.first_answer_of("a", since_s) is None
            await servers[0].health.set("", SERVING)
            assert await load.wait_for("a", loop.time(), within_s=5) <= 1
        assert load.failures == []
    for server in servers:
        await server.stop()


async def test_a_server_that_was_never_well_is_not_used_while_another_is() -> None:
    servers = [HealthyServer(name) for name in "ab"]
    await servers[0].health.set("", SERVING)
    await servers[1].health.set("", NOT_SERVING)
    for server in servers:
        await server.start()
    config = {"health": {"service": ""}}
    async with lb.insecure_channel(target_of(servers), options=CHANNEL_OPTIONS, config=config) as channel:
        assert {await channel.unary_unary(UNARY_UNARY)(b"name") for _ in range(20)} == {b"a"}
    for server in servers:
        await server.stop()


async def test_servers_without_a_health_service_are_well() -> None:
    async with echo_servers(2) as servers:
        config = {"health": {"service": "greeter"}}
        async with lb.insecure_channel(target_of(servers), options=CHANNEL_OPTIONS, config=config) as channel:
            await channel.unary_unary(UNARY_UNARY)(b"x", timeout=5)
            await eventually(lambda: channel.get_state() is grpc.ChannelConnectivity.READY)
        tasks = [task for task in asyncio.all_tasks() if "grpclb" in task.get_name()]
        assert tasks == []
