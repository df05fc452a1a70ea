"""ring_hash on real servers: a header's value has one server, whichever way its calls come in."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

import grpc
import grpc.aio
import pytest

import grpclb_core as lb
from support.relay import Relay
from support.servers import (
    CHANNEL_OPTIONS,
    STREAM_STREAM,
    STREAM_UNARY,
    UNARY_STREAM,
    UNARY_UNARY,
    EchoServer,
    echo_servers,
    eventually,
    target_of,
)
from support.source import Source, endpoint

pytestmark = pytest.mark.anyio

HEADER = "x-user"
BY_USER = lb.RingHash(request_hash_header=HEADER)
USERS = [f"user-{number}" for number in range(60)]


def channel_to(servers: Iterable[EchoServer], policy: lb.RingHash = BY_USER, **options: Any) -> lb.Channel:
    return lb.insecure_channel(target_of(servers), options=CHANNEL_OPTIONS, policy=policy, **options)


async def ready(balancer: lb.Balancer | Any, count: int) -> None:
    balancer.start()
    await eventually(lambda: [one.state for one in balancer.snapshot().endpoints] == ["ready"] * count)


async def home(channel: grpc.aio.Channel, user: str, **options: Any) -> str:
    call = channel.unary_unary(UNARY_UNARY)(b"name", metadata=((HEADER, user),), timeout=10, **options)
    return str((await call).decode())


async def homes(channel: grpc.aio.Channel, users: Iterable[str] = USERS) -> dict[str, str]:
    return {user: await home(channel, user) for user in users}


async def test_it_agrees_with_grpcios_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRPC_EXPERIMENTAL_RING_HASH_SET_REQUEST_HASH_KEY", "true")  # off by default in grpcio 1.85
    config = {"loadBalancingConfig": [{"ring_hash_experimental": {"requestHashHeader": HEADER}}]}
    async with echo_servers(5) as servers:
        # Rounding gives single points to one or the other by their order, which is by name here.
        servers.sort(key=lambda server: server.address)
        options = (*CHANNEL_OPTIONS, ("grpc.service_config", json.dumps(config)))
        async with grpc.aio.insecure_channel(target_of(servers), options=options) as channel:
            theirs = {user: await home(channel, user, wait_for_ready=True) for user in USERS}
        async with lb.insecure_channel(target_of(servers), options=options) as channel:
            await ready(channel.balancer, 5)
            assert channel.balancer.policy == BY_USER
            assert await homes(channel) == theirs
        assert len(set(theirs.values())) == 5


class AddsUser(grpc.aio.UnaryUnaryClientInterceptor):
    """An interceptor of the user's that knows who it is for."""

    def __init__(self, user: str) -> None:
        self._user = user

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        metadata = grpc.aio.Metadata(*(details.metadata or ()), (HEADER, self._user))
        return await continuation(details._replace(metadata=metadata), request)


class TestEveryWayIn:
    async def test_all_four_arities_go_to_the_same_server(self) -> None:
        async with echo_servers(5) as servers, channel_to(servers) as channel:
            await ready(channel.balancer, 5)

            async def requests() -> Any:
                yield b"name"

            for user in USERS[:8]:
                options: dict[str, Any] = {"metadata": ((HEADER, user),), "timeout": 10}
                found = {await channel.unary_unary(UNARY_UNARY)(b"name", **options)}
                found |= {name async for name in channel.unary_stream(UNARY_STREAM)(b"name", **options)}
                found.add(await channel.stream_unary(STREAM_UNARY)(requests(), **options))
                found |= {name async for name in channel.stream_stream(STREAM_STREAM)(requests(), **options)}
                assert len(found) == 1

    async def test_through_interceptors_of_the_user(self) -> None:
        async with echo_servers(5) as servers, channel_to(servers) as plain:
            await ready(plain.balancer, 5)
            expected = await homes(plain, USERS[:10])
            for user in USERS[:10]:
                async with channel_to(servers, interceptors=[AddsUser(user)]) as channel:
                    await ready(channel.balancer, 5)
                    answer = await channel.unary_unary(UNARY_UNARY)(b"name", timeout=10)
                    assert answer.decode() == expected[user]

    async def test_through_interceptors_of_ours(self) -> None:
        async with echo_servers(5) as servers, channel_to(servers) as plain:
            await ready(plain.balancer, 5)
            expected = await homes(plain)
            async with lb.Balancer(target_of(servers), options=CHANNEL_OPTIONS, policy=BY_USER) as balancer:
                await ready(balancer, 5)
                interceptors = balancer.interceptors({UNARY_UNARY: (None, None)})
                async with grpc.aio.insecure_channel("x", interceptors=interceptors) as channel:
                    assert await homes(channel) == expected

    async def test_calls_that_had_to_wait(self) -> None:
        unbounded = lb.RingHash(request_hash_header=HEADER, bounded_load=0)  # they all start at once
        async with echo_servers(5) as servers, channel_to(servers, unbounded) as channel:
            await ready(channel.balancer, 5)
            expected = await homes(channel)
            channel.balancer.current.picker = None
            waiting = {user: asyncio.ensure_future(home(channel, user)) for user in USERS}
            await asyncio.sleep(0.05)
            assert not any(call.done() for call in waiting.values())
            channel.balancer._publish()
            assert {user: await call for user, call in waiting.items()} == expected

    async def test_values_as_bytes_and_more_than_one(self) -> None:
        async with echo_servers(5) as servers, channel_to(servers) as channel:
            await ready(channel.balancer, 5)
            method = channel.unary_unary(UNARY_UNARY)
            for user in USERS[:10]:
                expected = await home(channel, f"{user},b")
                for metadata in (
                    ((HEADER, user), (HEADER, "b")),
                    grpc.aio.Metadata((HEADER, user), ("x-other", "1"), (HEADER, "b")),
                ):
                    assert (await method(b"name", metadata=metadata, timeout=10)).decode() == expected


async def test_calls_without_the_header_go_anywhere() -> None:
    async with echo_servers(4) as servers, channel_to(servers) as channel:
        await ready(channel.balancer, 4)
        method = channel.unary_unary(UNARY_UNARY)
        found = Counter([(await method(b"name", timeout=10)).decode() for _ in range(120)])
        found.update([(await home(channel, "")) for _ in range(80)])
        assert len(found) == 4
        assert max(found.values()) < 100


async def test_a_huge_header_fails_its_own_call_alone() -> None:
    async with echo_servers(3) as servers, channel_to(servers) as channel:
        await ready(channel.balancer, 3)
        with pytest.raises(grpc.aio.AioRpcError):
            await home(channel, "x" * 2_000_000)
        assert await home(channel, "a") == await home(channel, "a")
        assert all(one.in_flight == 0 for one in channel.balancer.snapshot().endpoints)


async def test_headers_that_grpc_refuses_are_refused_by_grpc() -> None:
    async with echo_servers(2) as servers, channel_to(servers) as channel:
        await ready(channel.balancer, 2)
        for metadata in (((HEADER, 7),), ((HEADER,),), 5):
            with pytest.raises((TypeError, ValueError)):
                await channel.unary_unary(UNARY_UNARY)(b"name", metadata=metadata, timeout=5)
        assert await home(channel, "a") in {"a", "b"}
        assert all(one.in_flight == 0 for one in channel.balancer.snapshot().endpoints)


async def test_only_the_users_of_a_server_that_dies_go_elsewhere_and_come_back() -> None:
    async with echo_servers(4) as servers:
        with Relay(servers[0].port) as relay:
            targets = [relay.address, *(server.address for server in servers[1:])]
            config = {"connection": {"initial_backoff_s": 0.05, "max_backoff_s": 0.05}}
            async with lb.insecure_channel(targets, options=CHANNEL_OPTIONS, policy=BY_USER, config=config) as channel:
                await ready(channel.balancer, 4)
                before = await homes(channel)
                relay.cut()
                await eventually(lambda: channel.balancer.snapshot().endpoints[0].state != "ready")
                during = await homes(channel)
                assert {user for user in USERS if during[user] != before[user]} == {
                    user for user in USERS if before[user] == "a"
                }
                relay.heal()
                await ready(channel.balancer, 4)
                assert await homes(channel) == before


async def test_a_name_of_the_source_outlives_addresses() -> None:
    async with echo_servers(4) as servers:
        named = [endpoint(one.address, metadata={"hash_key": f"pod-{place}"}) for place, one in enumerate(servers)]
        source = Source(named[:3])
        async with lb.insecure_channel(source, options=CHANNEL_OPTIONS, policy=BY_USER) as channel:
            await ready(channel.balancer, 3)
            before = await homes(channel)
            # pod-2 is started anew, at another address.
            source.set([*named[:2], endpoint(servers[3].address, metadata={"hash_key": "pod-2"})])
            await eventually(lambda: [one.state for one in channel.balancer.snapshot().endpoints][:3] == ["ready"] * 3)
            assert await homes(channel) == {user: {"c": "d"}.get(name, name) for user, name in before.items()}


@pytest.mark.parametrize(("bounded_load", "most"), [(1.25, 14), (0, 40)])
async def test_a_hot_user_is_shared_out(bounded_load: float, most: int) -> None:
    """Of 40 calls on 4 servers no server has more than 1.25 x (10 + 1) = 13.75; without a bound one has them all."""
    async with echo_servers(4) as servers:
        policy = lb.RingHash(request_hash_header=HEADER, bounded_load=bounded_load)
        async with channel_to(servers, policy) as channel:
            await ready(channel.balancer, 4)
            method = channel.unary_unary(UNARY_UNARY)
            calls = [method(b"hang", metadata=((HEADER, "hot"),)) for _ in range(40)]
            await eventually(lambda: sum(server.open_calls for server in servers) == 40)
            assert max(server.open_calls for server in servers) == most
            for call in calls:
                call.cancel()


async def test_several_connections_share_the_users_of_their_server() -> None:
    async with echo_servers(3) as servers:
        async with (
            channel_to(servers) as single,
            channel_to(servers, config={"connection": {"per_endpoint": 2}}) as double,
        ):
            await ready(single.balancer, 3)
            await ready(double.balancer, 6)
            assert await homes(double) == await homes(single)
            assert sum(one.picks > 0 for one in double.balancer.snapshot().endpoints) == 6
