"""A channel that goes by what the resolver, or the user, says in a service config."""

from __future__ import annotations

import json
import logging
from typing import Any

import anyio
import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

import grpclb_core as lb
from grpclb_core.types import Resolution
from support.dns import FaultyDns
from support.servers import CHANNEL_OPTIONS, UNARY_UNARY, EchoServer, echo_servers, eventually, target_of
from support.source import Source, endpoint

pytestmark = pytest.mark.anyio

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
PATIENCE_S = 5.0


def config_of(policy: str, **fields: object) -> str:
    return json.dumps({"loadBalancingConfig": [{policy: {}}], **fields})


class ConfiguredSource(Source):
    """A resolver with a service config beside its endpoints."""

    def __init__(self, servers: list[EchoServer], service_config: str | None = None) -> None:
        super().__init__([endpoint(server.address) for server in servers])
        self.service_config = service_config

    def say(self, service_config: str | None) -> None:
        self.service_config = service_config
        self.set(self.endpoints)

    def set(self, endpoints: Any, *drops: Any) -> None:
        self.endpoints = tuple(endpoints)
        if self._sink is not None:
            self._sink.update(Resolution(self.endpoints, service_config=self.service_config))


async def test_the_policy_follows_the_resolver_and_slots_are_kept() -> None:
    async with echo_servers(2) as servers:
        source = ConfiguredSource(servers, config_of("round_robin"))
        async with lb.insecure_channel(source, options=CHANNEL_OPTIONS) as channel:
            method, balancer = channel.unary_unary(UNARY_UNARY), channel.balancer
            await eventually(lambda: _ready(channel) == 2)
            assert type(balancer.current.picker).__name__ == "RoundRobinPicker"
            for _ in range(10):
                await method(b"x")
            source.say(config_of("least_request_experimental"))
            assert type(balancer.current.picker).__name__ == "LeastRequestPicker"
            source.say(None)
            assert type(balancer.current.picker).__name__ == "P2cEwmaPicker"
            snapshot = balancer.snapshot()
            assert snapshot.policy == "p2c_ewma"
            assert sorted(one.picks for one in snapshot.endpoints) == [5, 5]
            assert [one.state for one in snapshot.endpoints] == ["ready", "ready"]


async def test_a_faulty_one_changes_nothing_and_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    async with echo_servers(2) as servers:
        source = ConfiguredSource(servers, config_of("round_robin"))
        async with lb.insecure_channel(source, options=CHANNEL_OPTIONS) as channel:
            await eventually(lambda: _ready(channel) == 2)
            with caplog.at_level(logging.WARNING, "grpclb_core"):
                for _ in range(3):  # as a resolver that pushes the same set again
                    source.say(config_of("random", methodConfig=[{"timeout": "soon"}]))
            assert len(caplog.records) == 1
            snapshot = channel.balancer.snapshot()
            assert snapshot.policy == "round_robin"
            assert snapshot.service_config_error is not None
            assert snapshot.service_config_error.startswith("methodConfig[0].timeout: 'soon' is no duration")
            assert snapshot.resolver_error is None
            assert await channel.unary_unary(UNARY_UNARY)(b"x", timeout=PATIENCE_S) == b"x"
            source.say(config_of("random"))
            assert channel.balancer.snapshot().service_config_error is None
            assert channel.balancer.snapshot().policy == "random"


async def test_a_faulty_first_one_leaves_the_default() -> None:
    async with echo_servers(1) as servers:
        options = [*CHANNEL_OPTIONS, ("grpc.service_config", config_of("round_robin"))]
        async with lb.insecure_channel(ConfiguredSource(servers, "{"), options=options) as channel:
            assert await channel.unary_unary(UNARY_UNARY)(b"x", timeout=PATIENCE_S) == b"x"
            assert channel.balancer.snapshot().policy == "round_robin"
            assert "this is no JSON" in (channel.balancer.snapshot().service_config_error or "")


async def test_what_the_user_says_counts_more() -> None:
    async with echo_servers(1) as servers:
        source = ConfiguredSource(servers, config_of("round_robin"))
        async with lb.insecure_channel(source, options=CHANNEL_OPTIONS, policy="random") as channel:
            await channel.unary_unary(UNARY_UNARY)(b"x", timeout=PATIENCE_S)
            assert channel.balancer.snapshot().policy == "random"


async def test_the_channel_option_alone() -> None:
    """Policies that C-core does not know are no matter: they are not passed on."""
    async with echo_servers(2) as servers:
        entries = [{"grpclb": {}}, {"least_request_experimental": {"choiceCount": 4}}]
        options = [*CHANNEL_OPTIONS, ("grpc.service_config", json.dumps({"loadBalancingConfig": entries}))]
        async with lb.insecure_channel(target_of(servers), options=options) as channel:
            assert await channel.unary_unary(UNARY_UNARY)(b"x", timeout=PATIENCE_S) == b"x"
            assert channel.balancer.policy == lb.LeastRequest(choice_count=4)


async def test_from_dns_to_the_picker() -> None:
    async with echo_servers(1) as (server,):
        with FaultyDns() as dns:
            dns.set("greeter.test", "127.0.0.1")
            choice = {"clientLanguage": ["python"], "serviceConfig": json.loads(config_of("round_robin"))}
            dns.describe("_grpc_config.greeter.test", "grpc_config=" + json.dumps([choice]))
            options = [*CHANNEL_OPTIONS, ("grpc.service_config_disable_resolution", 0)]
            target = f"dns://{dns.address}/greeter.test.:{server.port}"
            async with lb.insecure_channel(target, options=options) as channel:
                assert await channel.unary_unary(UNARY_UNARY)(b"x", timeout=PATIENCE_S) == b"x"
                assert channel.balancer.snapshot().policy == "round_robin"
            async with lb.insecure_channel(target, options=CHANNEL_OPTIONS) as channel:  # as C-core: not asked for
                assert await channel.unary_unary(UNARY_UNARY)(b"x", timeout=PATIENCE_S) == b"x"
                assert channel.balancer.snapshot().policy == "p2c_ewma"
            assert len(dns.asked("_grpc_config.greeter.test", "TXT")) == 1


def test_a_channel_option_that_cannot_be_used() -> None:
    options = [("grpc.service_config", config_of("xds_cluster_resolver_experimental"))]
    with pytest.raises(lb.ConfigError, match=r"options: grpc\.service_config: loadBalancingConfig: no policy of the"):
        lb.insecure_channel("ipv4:127.0.0.1:1", options=options)


async def test_rules_for_methods_reach_the_connections() -> None:
    async with echo_servers(1) as servers:
        source = ConfiguredSource(servers, config_of("random", methodConfig=[{"name": [{}], "timeout": "0.05s"}]))
        async with lb.insecure_channel(source, options=CHANNEL_OPTIONS) as channel:
            method = channel.unary_unary(UNARY_UNARY)
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await method(b"sleep:60")
            assert failed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            source.say(config_of("random"))  # connections are made anew, and take over once they are up

            async def is_patient() -> bool:
                try:
                    return await method(b"sleep:0.1", timeout=PATIENCE_S) == b"sleep:0.1"
                except grpc.aio.AioRpcError:
                    return False

            with anyio.fail_after(PATIENCE_S):
                while not await is_patient():
                    pass
            assert len(channel.balancer.snapshot().endpoints) == 1


async def test_the_health_service_follows_the_resolver() -> None:
    servers = [_HealthyServer(name) for name in "ab"]
    for server in servers:
        await server.health.set("greeter", SERVING if server.name == "a" else NOT_SERVING)
        await server.start()
    source = ConfiguredSource(list(servers), config_of("round_robin"))
    async with lb.insecure_channel(source, options=CHANNEL_OPTIONS) as channel:
        method = channel.unary_unary(UNARY_UNARY)
        await eventually(lambda: _ready(channel) == 2)
        assert {await method(b"name") for _ in range(4)} == {b"a", b"b"}
        source.say(config_of("round_robin", healthCheckConfig={"serviceName": "greeter"}))
        await eventually(lambda: _verdicts(channel) == ["not serving", "serving"])
        assert {await method(b"name") for _ in range(4)} == {b"a"}
        source.say(config_of("round_robin"))
        assert _verdicts(channel) == ["unknown", "unknown"]
        assert {await method(b"name") for _ in range(4)} == {b"a", b"b"}
    for server in servers:
        await server.stop()


class _HealthyServer(EchoServer):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.health = health.aio.HealthServicer()

    def serve(self, server: grpc.aio.Server) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)


def _ready(channel: lb.Channel) -> int:
    channel.get_state(try_to_connect=True)
    return [one.state for one in channel.balancer.snapshot().endpoints].count("ready")


def _verdicts(channel: lb.Channel) -> list[str]:
    return sorted(one.verdict for one in channel.balancer.snapshot().endpoints)
