"""What a balancer does about its connections while something else happens: silence, other wishes, closing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

import grpclb_core as lb
from grpclb_core.balancer import balancer as module
from grpclb_core.balancer.load import LoadReports, _Listener
from grpclb_core.endpoints import Member, State
from grpclb_core.endpoints.lifecycle import Event
from grpclb_core.native import Picker, Slot, View
from grpclb_core.types import LoadReport, Resolution
from support.servers import CHANNEL_OPTIONS, UNARY_STREAM, UNARY_UNARY, EchoServer, echo_servers, eventually, target_of
from support.source import Source, endpoint

pytestmark = pytest.mark.anyio

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Said(Source):
    """A resolver with a service config beside its endpoints."""

    def say(self, **config: object) -> None:
        assert self._sink is not None
        self._sink.update(Resolution(self.endpoints, service_config=json.dumps(config)))


class HealthyServer(EchoServer):
    """Tells of its health, once it is let."""

    def __init__(self, name: str = "") -> None:
        super().__init__(name)
        self.health = health.aio.HealthServicer()

    def serve(self, server: grpc.aio.Server) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)


@contextlib.asynccontextmanager
async def healthy_servers(count: int, status: Any = SERVING) -> AsyncIterator[list[HealthyServer]]:
    servers = [HealthyServer(chr(ord("a") + place)) for place in range(count)]
    for server in servers:
        await server.health.set("greeter", status)
        await server.start()
    try:
        yield servers
    finally:
        for server in servers:
            await server.stop()


def members(channel: lb.Channel) -> list[Member]:
    return list(channel.balancer._endpoints.members())


def ready(channel: lb.Channel) -> int:
    channel.get_state(try_to_connect=True)
    return sum(member.state is State.READY for member in members(channel))


class TestSilence:
    async def test_one_that_hung_gets_calls_again_though_those_of_before_are_still_open(self) -> None:
        config = {"connection": {"silence_s": 0.3}}
        async with echo_servers(2) as servers:
            async with lb.insecure_channel(
                target_of(servers), options=CHANNEL_OPTIONS, policy="round_robin", config=config
            ) as channel:
                await eventually(lambda: ready(channel) == 2)
                method, victim = channel.unary_unary(UNARY_UNARY), servers[0]
                for _ in range(20):
                    await method(b"x")
                victim.delay_s = 3600.0
                calls = []

                async def call_on(seconds: float) -> None:
                    for _ in range(round(seconds * 100)):
                        calls.append(method(b"x"))
                        await asyncio.sleep(0.01)

                await call_on(1.0)
                assert victim.open_calls > 0
                victim.delay_s = 0.0
                await call_on(3.0)
                before = victim.calls
                await call_on(0.5)
                assert victim.calls - before > 10
                assert [member.is_silent for member in members(channel)] == [False, False]
                for call in calls:
                    call.cancel()


class TestWishes:
    """What a service config says of checks, while calls go on."""

    async def test_asking_for_health_takes_nobody_out_before_there_is_an_answer(self) -> None:
        async with healthy_servers(2) as servers:
            source = Said(endpoint(server.address) for server in servers)
            async with lb.insecure_channel(source, options=CHANNEL_OPTIONS, policy="round_robin") as channel:
                await eventually(lambda: ready(channel) == 2)
                source.say(healthCheckConfig={"serviceName": "greeter"})
                assert channel.balancer.current.picker is not None
                assert len(channel.balancer.current.picker.view) == 2
                await eventually(lambda: [one.verdict.value for one in members(channel)] == ["serving"] * 2)
                await servers[0].health.set("greeter", NOT_SERVING)
                await eventually(lambda: members(channel)[0].verdict.value == "not serving")

    async def test_asking_for_load_leaves_health_alone(self) -> None:
        async with healthy_servers(2) as servers:
            source = Said(endpoint(server.address) for server in servers)
            config = {"health": {"service": "greeter"}}
            async with lb.insecure_channel(source, options=CHANNEL_OPTIONS, config=config) as channel:
                await eventually(lambda: ready(channel) == 2)
                await eventually(lambda: [one.verdict.value for one in members(channel)] == ["serving"] * 2)
                for options in ({"enableOobLoadReport": True}, {}):
                    source.say(loadBalancingConfig=[{"weighted_round_robin": options}])
                    assert [one.verdict.value for one in members(channel)] == ["serving"] * 2
                    assert channel.balancer.current.picker is not None
                    await asyncio.sleep(0.05)
                await servers[1].health.set("greeter", NOT_SERVING)  # and they are still heard
                await eventually(lambda: members(channel)[1].verdict.value == "not serving")

    async def test_nobody_has_to_be_trusted_anew(self) -> None:
        async with healthy_servers(1) as servers:
            source = Said(endpoint(server.address) for server in servers)
            async with lb.insecure_channel(source, options=CHANNEL_OPTIONS) as channel:
                asked = 0

                async def verify(_: object) -> None:
                    nonlocal asked
                    asked += 1

                channel.balancer._upkeep._checks._verify = verify
                await eventually(lambda: ready(channel) == 1 and members(channel)[0].is_trusted)
                source.say(
                    healthCheckConfig={"serviceName": "greeter"},
                    loadBalancingConfig=[{"weighted_round_robin": {"enableOobLoadReport": True}}],
                )
                assert members(channel)[0].is_trusted
                await eventually(lambda: members(channel)[0].verdict.value == "serving")
                assert asked == 1

    async def test_one_that_is_silent_meanwhile_is_asked_too(self) -> None:
        async with healthy_servers(2, NOT_SERVING) as servers:
            await servers[1].health.set("greeter", SERVING)
            source = Said(endpoint(server.address) for server in servers)
            async with lb.insecure_channel(source, options=CHANNEL_OPTIONS) as channel:
                await eventually(lambda: ready(channel) == 2)
                silent = members(channel)[0]
                silent.undergo(Event.SILENT)
                source.say(healthCheckConfig={"serviceName": "greeter"})
                await eventually(lambda: silent.verdict.value == "not serving")

    async def test_one_that_left_is_asked_nothing(self) -> None:
        async with healthy_servers(2) as servers:
            everyone = [endpoint(server.address) for server in servers]
            source = Said(everyone)
            config = {"health": {"service": "greeter"}}
            async with lb.insecure_channel(source, options=CHANNEL_OPTIONS, config=config) as channel:
                await eventually(lambda: ready(channel) == 2)
                await eventually(lambda: [one.verdict.value for one in members(channel)] == ["serving"] * 2)
                left = members(channel)[0]
                source.set(everyone[1:])
                await servers[0].health.set("greeter", NOT_SERVING)
                await asyncio.sleep(0.1)
                assert left.verdict.value == "unknown"


class Hasty:
    """A policy that wants load reports, and a picker, at times there are none of."""

    name: ClassVar[str] = "hasty"
    decay_s = 10.0
    oob_period_s: float | None = -1.0
    rebuild_s: float | None = -1.0

    def __init__(self) -> None:
        self.built = 0

    def build(self, view: View, seed: int, now_ns: int) -> Picker:
        self.built += 1
        return lb.RoundRobin().build(view, seed, now_ns)

    def observe(self, report: LoadReport, slot: Slot, now_ns: int) -> None: ...


async def test_a_period_that_cannot_be_asked_for_ends_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    policy = Hasty()
    async with echo_servers(1) as servers:
        with caplog.at_level(logging.WARNING, "grpclb_core"):
            async with lb.insecure_channel(target_of(servers), options=CHANNEL_OPTIONS, policy=policy) as channel:
                await channel.unary_unary(UNARY_UNARY)(b"x", timeout=5)
                built = policy.built
                await asyncio.sleep(0.5)
                assert policy.built - built <= 11, "twenty times a second is the most"
    (said,) = [record.getMessage() for record in caplog.records]
    assert "cannot be asked for load reports out of band: a period of -1.0 s" in said
    assert servers[0].address in said


async def test_calls_go_on_while_the_background_is_down_and_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESTART_S", 0.3)
    async with healthy_servers(1) as servers:
        config = {"health": {"service": "greeter"}}
        async with lb.insecure_channel(target_of(servers), options=CHANNEL_OPTIONS, config=config) as channel:
            method, upkeep = channel.unary_unary(UNARY_UNARY), channel.balancer._upkeep
            await method(b"x", timeout=5)
            (member,) = members(channel)

            def crash() -> None:
                upkeep._looked = None
                raise RuntimeError("not today")

            upkeep._looked = crash
            await eventually(lambda: upkeep._tasks is None)
            member.connection.state = grpc.ChannelConnectivity.CONNECTING  # it comes up, and a call finds it
            channel.balancer.lost(member.slot)
            upkeep.renew()
            assert await method(b"x", timeout=5) == b"x"
            await eventually(lambda: upkeep._tasks is not None)
            await eventually(lambda: member.verdict.value == "serving" and not member.retired)


async def test_no_picker_comes_back_while_the_balancer_closes() -> None:
    async with echo_servers(1) as servers:
        channel = lb.insecure_channel(target_of(servers), options=CHANNEL_OPTIONS)
        call = channel.unary_stream(UNARY_STREAM)(b"hang")
        await eventually(lambda: servers[0].open_calls == 1)
        closing = asyncio.ensure_future(channel.close(0.3))
        await eventually(lambda: channel.balancer.current.picker is None)
        channel.balancer._upkeep._changed()
        assert channel.balancer.current.picker is None
        await closing
        assert await call.code() is grpc.StatusCode.CANCELLED


async def test_a_window_of_slow_start_that_is_over_costs_nothing_more() -> None:
    class Counting(Hasty):
        oob_period_s = None
        rebuild_s = None

    policy = Counting()
    async with echo_servers(2) as servers:
        config = {"slow_start": {"window_s": 0.4}}
        async with lb.insecure_channel(
            target_of(servers), options=CHANNEL_OPTIONS, policy=policy, config=config
        ) as channel:
            await eventually(lambda: ready(channel) == 2)
            await asyncio.sleep(0.7)
            assert policy.built > 4
            built = policy.built
            await asyncio.sleep(0.3)
            assert policy.built == built


async def test_ignored_reports_are_told_once_with_their_address(caplog: pytest.LogCaptureFixture) -> None:
    slot = Slot()
    listener = _Listener(LoadReports(lambda: None, random.Random(0)), slot, lb.Address("10.0.0.1", 80))
    with caplog.at_level(logging.INFO, "grpclb_core"):
        for _ in range(3):
            listener.ignore("it is nonsense")
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("10.0.0.1:80: a load report is ignored")
    assert slot.ignored_reports == 3


async def test_reports_are_in_the_snapshot() -> None:
    async with echo_servers(1) as servers:
        async with lb.insecure_channel(target_of(servers), options=CHANNEL_OPTIONS) as channel:
            await eventually(lambda: ready(channel) == 1)
            slot = members(channel)[0].slot
            (before,) = channel.balancer.snapshot().endpoints
            assert (before.reported_weight, before.ignored_reports) == (None, 0)
            slot.ignore_report()
            slot.report_weight_at(2.5, 1)
            (after,) = channel.balancer.snapshot().endpoints
            assert (after.reported_weight, after.ignored_reports) == (2.5, 1)
