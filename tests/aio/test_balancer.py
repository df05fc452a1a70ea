"""What happens around a balancer that is not as it should be: others go on."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import grpc
import grpc.aio
import pytest

import grpclb_core as lb
from grpclb_core.native import Picker, View, now_ns
from grpclb_core.types import Health
from support.servers import CHANNEL_OPTIONS, UNARY_UNARY, EchoServer, echo_servers, eventually, target_of
from support.source import Source, endpoint

pytestmark = pytest.mark.anyio


class Moody:
    """A policy that fails every other time."""

    name = "moody"
    decay_s = 10.0

    def __init__(self) -> None:
        self.built = 0

    def build(self, view: View, seed: int, now_ns: int) -> Picker:
        self.built += 1
        if self.built % 2 == 0:
            raise RuntimeError("not today")
        return lb.RoundRobin().build(view, seed, now_ns)


async def test_a_policy_that_fails_does_not_end_the_rest() -> None:
    async with echo_servers(2) as servers:
        source = Source([endpoint(servers[0].address)])
        policy = Moody()
        async with lb.insecure_channel(source, options=CHANNEL_OPTIONS, policy=policy) as channel:
            method = channel.unary_unary(UNARY_UNARY)
            await method(b"x")
            for _ in range(6):
                source.set(endpoint(server.address) for server in servers)
                await asyncio.sleep(0.01)
                source.set([endpoint(servers[0].address)])
                assert await method(b"x", timeout=5) == b"x"
            assert policy.built > 6


class Restless:
    """A policy that wants its picker built anew ten times a second."""

    name = "restless"
    decay_s = 10.0
    rebuild_s = 0.1

    def __init__(self) -> None:
        self.built_ns: list[int] = []

    def build(self, view: View, seed: int, now_ns: int) -> Picker:
        self.built_ns.append(now_ns)
        return lb.RoundRobin().build(view, seed, now_ns)


async def test_a_picker_is_built_anew_as_often_as_its_policy_wants() -> None:
    async with echo_servers(1) as servers:
        policy = Restless()
        before_ns = now_ns()
        async with lb.insecure_channel(target_of(servers), options=CHANNEL_OPTIONS, policy=policy) as channel:
            await channel.unary_unary(UNARY_UNARY)(b"x")
            first = channel.balancer.current.picker
            await eventually(lambda: len(policy.built_ns) >= 4)
            assert channel.balancer.current.picker is not first
        assert policy.built_ns == sorted(policy.built_ns)
        assert before_ns <= policy.built_ns[0] <= policy.built_ns[-1] <= now_ns()


@pytest.mark.parametrize("policy", ["p2c_ewma", "least_request", "round_robin", "random"])
async def test_an_endpoint_on_trial_gets_one_call_until_that_is_answered(policy: str) -> None:
    async with echo_servers(2) as (tried, other):
        async with lb.insecure_channel(target_of([tried, other]), options=CHANNEL_OPTIONS, policy=policy) as channel:
            method = channel.unary_unary(UNARY_UNARY)
            await eventually(lambda: _states(channel) == ["ready", "ready"])
            picker = channel.balancer.current.picker
            assert picker is not None
            for slot in picker.view.slots:
                slot.start_trial()
            while any(slot.is_on_trial for slot in picker.view.slots[1:]):
                assert await method(b"x") == b"x"
            picker.view.slots[0].start_trial()  # the other one is through
            calls = [method(b"hang") for _ in range(20)]
            await eventually(lambda: tried.open_calls + other.open_calls == len(calls))
            assert sorted([tried.open_calls, other.open_calls]) == [1, 19]
            for call in calls:
                call.cancel()
            await eventually(lambda: picker.view.slots[0].in_flight == 0)
            while picker.view.slots[0].is_on_trial:
                assert await method(b"x") == b"x"


async def test_a_resolver_that_fails_to_look_again_does_not_end_the_rest() -> None:
    class Lazy(Source):
        def refresh(self) -> None:
            super().refresh()
            raise RuntimeError("not today")

    async with echo_servers(1) as (other,):
        server = await EchoServer("a").start()
        source = Lazy([endpoint(server.address), endpoint(other.address)])
        async with lb.insecure_channel(source, options=CHANNEL_OPTIONS) as channel:
            await eventually(lambda: _states(channel) == ["ready", "ready"])
            await server.stop()
            await eventually(lambda: source.refreshes > 0)
            again = await EchoServer("a").start(port=server.port)
            await eventually(lambda: _states(channel) == ["ready", "ready"])
            await again.stop()


def _states(channel: lb.Channel) -> list[str]:
    if channel.balancer.snapshot().state == "idle":
        channel.get_state(try_to_connect=True)
    return [one.state for one in channel.balancer.snapshot().endpoints]


async def test_interceptors_that_are_dropped_leave_the_balancer_open() -> None:
    async with echo_servers(1) as servers:
        async with lb.Balancer(target_of(servers), options=CHANNEL_OPTIONS) as balancer:
            dropped = balancer.interceptors()
            del dropped
            assert not balancer.is_closed
            channel = grpc.aio.insecure_channel("x", interceptors=balancer.interceptors({UNARY_UNARY: (None, None)}))
            assert await channel.unary_unary(UNARY_UNARY)(b"x") == b"x"
            await channel.close()


async def test_a_deadline_in_the_moment_of_a_change() -> None:
    """Whoever waits for a change may give up in the very turn in which it comes."""
    balancer = lb.Balancer("ipv4:127.0.0.1:1")
    waiting = asyncio.ensure_future(balancer.changed())
    await asyncio.sleep(0)
    balancer._wake()
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    assert balancer._waiters == []


async def test_one_that_flaps_while_it_is_unwell_is_asked_again() -> None:
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc

    class Unwell(EchoServer):
        def serve(self, server: grpc.aio.Server) -> None:
            servicer = health.aio.HealthServicer()
            servicer._server_status[""] = health_pb2.HealthCheckResponse.NOT_SERVING
            health_pb2_grpc.add_HealthServicer_to_server(servicer, server)

    unwell = await Unwell("a").start()
    async with echo_servers(1) as (well,):
        everyone = [endpoint(unwell.address), endpoint(well.address)]
        source = Source(everyone)
        config = {"health": {"service": ""}}
        async with lb.insecure_channel(source, options=CHANNEL_OPTIONS, config=config) as channel:
            await channel.unary_unary(UNARY_UNARY)(b"x")

            def verdicts() -> dict[str, str]:
                return {one.address: one.verdict for one in channel.balancer.snapshot().endpoints}

            await eventually(lambda: verdicts()[unwell.address] == "not serving")
            source.set(everyone[1:])
            await asyncio.sleep(0.05)
            source.set(everyone)
            await eventually(lambda: verdicts()[unwell.address] == "not serving")
            calls = unwell.calls
            for _ in range(20):
                await channel.unary_unary(UNARY_UNARY)(b"x")
            assert unwell.calls == calls
    await unwell.stop()


async def test_a_close_that_is_cancelled_closes_all_the_same() -> None:
    async with echo_servers(1) as servers:
        channel = lb.insecure_channel(target_of(servers), options=CHANNEL_OPTIONS)
        call = channel.unary_unary(UNARY_UNARY)(b"sleep:30")
        await eventually(lambda: servers[0].open_calls == 1)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(channel.close(20), 0.2)
        await channel.close()
        assert await asyncio.wait_for(call.code(), 5) is grpc.StatusCode.CANCELLED
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("grpclb ")]


async def test_what_cannot_be_connected_to_is_reported_and_the_set_stays() -> None:
    async with echo_servers(1) as (server,):
        source = Source([endpoint(server.address)])
        async with lb.insecure_channel(source, options=CHANNEL_OPTIONS) as channel:
            await channel.unary_unary(UNARY_UNARY)(b"x")
            source.set([endpoint(server.address), lb.Endpoint(lb.Address("\udcff", 1))])
            assert "cannot be used" in str(channel.balancer.snapshot().resolver_error)
            assert await channel.unary_unary(UNARY_UNARY)(b"x") == b"x"


async def test_the_unwell_are_used_in_panic_and_strangers_never(tmp_path: Any) -> None:
    async with echo_servers(1) as (server,):
        source = Source([endpoint(server.address, health=Health.UNHEALTHY)])
        async with lb.insecure_channel(source, options=CHANNEL_OPTIONS) as channel:
            assert await channel.unary_unary(UNARY_UNARY)(b"x", timeout=5) == b"x"
            for member in channel.balancer._endpoints.members():
                member.is_trusted = False
                member.connection.last_error = "it is somebody else"
            channel.balancer._publish()
            assert channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE
            with pytest.raises(grpc.aio.AioRpcError, match="it is somebody else"):
                await channel.unary_unary(UNARY_UNARY)(b"x")


def test_closing_in_another_loop() -> None:
    channel = lb.insecure_channel("ipv4:127.0.0.1:1")

    async def use() -> None:
        channel.get_state(try_to_connect=True)
        await asyncio.sleep(0.01)

    asyncio.run(use())
    asyncio.run(channel.close())  # the loop of its calls is over: there is nothing left to wait for
    assert channel.balancer.is_closed
