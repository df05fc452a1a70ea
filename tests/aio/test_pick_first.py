"""pick_first on real connections: one at a time, the next one when it has to be, and no way back before."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterator
from functools import partial

import grpc
import grpc.aio
import pytest

import grpclb_core as lb
from grpclb_core.types import Resolution
from support.relay import Relay
from support.servers import CHANNEL_OPTIONS, UNARY_UNARY, echo_servers, eventually
from support.source import Source, endpoint

pytestmark = pytest.mark.anyio

QUICK = {"connection": {"initial_backoff_s": 0.05, "max_backoff_s": 0.05}}


@contextlib.asynccontextmanager
async def relayed(count: int) -> AsyncIterator[list[Relay]]:
    """Run echo servers named a, b, c..., each behind a relay that counts the connections to it."""
    async with echo_servers(count) as servers:
        with contextlib.ExitStack() as stack:
            yield [stack.enter_context(Relay(server.port)) for server in servers]


@contextlib.contextmanager
def black_hole() -> Iterator[socket.socket]:
    """A port that takes connections and never says a word, so that none is ever ready."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def address_of(listener: socket.socket) -> str:
    return f"127.0.0.1:{listener.getsockname()[1]}"


def channel_to(target: lb.balancer.TargetLike, policy: lb.PickFirst | None = None, **config: object) -> lb.Channel:
    return lb.insecure_channel(target, options=CHANNEL_OPTIONS, policy=policy or lb.PickFirst(), config=QUICK | config)


async def name_from(channel: lb.Channel, **options: object) -> str:
    answer = await channel.unary_unary(UNARY_UNARY)(b"name", timeout=10, **options)
    return str(answer.decode())


def accepted(relays: list[Relay]) -> list[int]:
    return [relay.accepted for relay in relays]


async def test_all_calls_go_to_the_first_and_nobody_else_is_connected_to() -> None:
    async with relayed(3) as relays, channel_to([relay.address for relay in relays]) as channel:
        assert {await name_from(channel) for _ in range(30)} == {"a"}
        await asyncio.sleep(0.6)  # two attempt delays, had there been any more attempts
        assert accepted(relays) == [1, 0, 0]
        (one,) = channel.balancer.snapshot().endpoints
        assert (one.address, one.state) == (relays[0].address, "ready")
        assert channel.get_state() is grpc.ChannelConnectivity.READY


async def test_when_it_dies_the_next_one_is_taken_and_kept() -> None:
    async with relayed(3) as relays:
        source = Source(endpoint(relay.address) for relay in relays)
        async with channel_to(source) as channel:
            assert await name_from(channel) == "a"
            relays[0].cut()
            await eventually(
                lambda: channel.get_state() is not grpc.ChannelConnectivity.READY or accepted(relays)[1] > 0
            )
            assert await name_from(channel) == "b"
            assert source.refreshes > 0  # there may be others by now
            attempts = relays[0].accepted
            relays[0].heal()
            assert {await name_from(channel) for _ in range(10)} == {"b"}
            await asyncio.sleep(0.5)
            assert accepted(relays) == [attempts, 1, 0]
            relays[1].cut()
            await eventually(lambda: accepted(relays)[0] > attempts)
            assert await name_from(channel) == "a"  # from the top


async def test_one_that_does_not_answer_costs_an_attempt_delay() -> None:
    loop = asyncio.get_running_loop()
    with black_hole() as hole:
        async with relayed(2) as relays:
            targets = [address_of(hole), *(relay.address for relay in relays)]
            async with channel_to(targets, connection=QUICK["connection"] | {"connect_timeout_s": 0.5}) as channel:
                began_s = loop.time()
                assert await name_from(channel) == "a"
                assert 0.2 < loop.time() - began_s < 1.5
                assert accepted(relays) == [1, 0]
                assert len(channel.balancer.snapshot().endpoints) == 1
                # C-core ends an attempt that nobody waits for any more when its time is up; it makes no other.
                hole.settimeout(0.7)
                connection, _ = hole.accept()
                with connection:
                    connection.settimeout(5)
                    await loop.run_in_executor(None, _wait_until_closed, connection)
                with pytest.raises(TimeoutError):
                    await loop.run_in_executor(None, hole.accept)


def _wait_until_closed(connection: socket.socket) -> None:
    with contextlib.suppress(ConnectionResetError):
        while connection.recv(65536):
            pass


async def test_those_that_refuse_cost_next_to_nothing() -> None:
    async with relayed(4) as relays, channel_to([relay.address for relay in relays]) as channel:
        for relay in relays[:3]:
            relay.cut()
        assert await name_from(channel) == "d"
        assert accepted(relays)[3] == 1


async def test_once_all_have_failed_calls_fail_until_one_is_up() -> None:
    async with relayed(3) as relays:
        source = Source(endpoint(relay.address) for relay in relays)
        async with channel_to(source) as channel:
            for relay in relays:
                relay.cut()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await name_from(channel)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert "none of 3 endpoints is ready" in str(caught.value.details())
            assert source.refreshes > 0
            states = set()
            for _ in range(40):  # several attempts of each, and none of them shows
                states.add(channel.get_state())
                await asyncio.sleep(0.005)
            assert states == {grpc.ChannelConnectivity.TRANSIENT_FAILURE}
            patient = asyncio.ensure_future(name_from(channel, wait_for_ready=True))
            await asyncio.sleep(0.05)
            relays[1].heal()
            assert await patient == "b"
            assert channel.get_state() is grpc.ChannelConnectivity.READY


async def test_a_list_that_still_has_it_changes_nothing() -> None:
    async with relayed(3) as relays:
        a, b, c = (endpoint(relay.address) for relay in relays)
        source = Source([a, b])
        async with channel_to(source) as channel:
            assert await name_from(channel) == "a"
            source.set([c, b, a])
            assert {await name_from(channel) for _ in range(5)} == {"a"}
            assert accepted(relays) == [1, 0, 0]


async def test_a_list_without_it_moves_on_and_lets_open_calls_end() -> None:
    async with relayed(2) as relays:
        a, b = (endpoint(relay.address) for relay in relays)
        source = Source([a])
        async with channel_to(source) as channel:
            assert await name_from(channel) == "a"
            running = channel.unary_unary(UNARY_UNARY)(b"sleep:0.3", timeout=10)
            await asyncio.sleep(0.1)
            source.set([b])
            assert await name_from(channel) == "b"
            assert await running == b"sleep:0.3"
            await eventually(lambda: len(channel.balancer.snapshot().endpoints) == 1)
            source.set([])
            with pytest.raises(grpc.aio.AioRpcError, match="no endpoint is known"):
                await name_from(channel)
            source.set([a])
            assert await name_from(channel, wait_for_ready=True) == "a"


async def test_priorities_come_before_the_order() -> None:
    async with relayed(3) as relays:
        a, b, c = (
            endpoint(relay.address, priority=priority) for relay, priority in zip(relays, (2, 1, 1), strict=True)
        )
        async with channel_to(Source([a, b, c])) as channel:
            assert await name_from(channel) == "b"
            assert accepted(relays) == [0, 1, 0]


async def test_shuffled_clients_begin_with_different_ones() -> None:
    async with relayed(2) as relays:
        names = set()
        for seed in range(6):
            shuffled = lb.PickFirst(shuffle_address_list=True)
            async with channel_to([relay.address for relay in relays], shuffled, seed=seed) as channel:
                names.add(await name_from(channel))
        assert names == {"a", "b"}
        assert sum(accepted(relays)) == 6


async def test_several_connections_go_to_the_one() -> None:
    async with relayed(2) as relays:
        config = QUICK["connection"] | {"per_endpoint": 3}
        async with channel_to([relay.address for relay in relays], connection=config) as channel:
            assert await name_from(channel) == "a"
            await eventually(lambda: accepted(relays) == [3, 0])
            await asyncio.gather(*(name_from(channel) for _ in range(30)))
            await eventually(lambda: [one.state for one in channel.balancer.snapshot().endpoints] == ["ready"] * 3)
            await asyncio.gather(*(name_from(channel) for _ in range(30)))
            assert all(one.picks > 0 for one in channel.balancer.snapshot().endpoints)


async def test_a_service_config_may_ask_for_it_and_take_it_back() -> None:
    async with relayed(3) as relays:
        everyone = tuple(endpoint(relay.address) for relay in relays)
        source = Source(everyone)
        async with lb.insecure_channel(source, options=CHANNEL_OPTIONS) as channel:
            await name_from(channel)
            await eventually(lambda: accepted(relays) == [1, 1, 1])

            def are_ready(count: int) -> bool:
                return [one.state for one in channel.balancer.snapshot().endpoints] == ["ready"] * count

            await eventually(partial(are_ready, 3))
            for policy, count in (({"pick_first": {"shuffleAddressList": False}}, 1), ({"round_robin": {}}, 3)):
                text = json.dumps({"loadBalancingConfig": [policy]})
                assert source._sink is not None
                source._sink.update(Resolution(everyone, service_config=text))
                await eventually(partial(are_ready, count))
                assert len({await name_from(channel) for _ in range(12)}) == count
