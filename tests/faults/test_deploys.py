"""Servers that leave as they should, and sets that change all the time: nobody notices."""

from __future__ import annotations

import asyncio
from collections import Counter

import grpc
import grpc.aio
import pytest

import grpclb_core as lb
from grpclb_core.types import Health
from support.fleet import is_share
from support.scenarios.deploys import (
    AGED,
    OPENED,
    SERVED,
    STARTED,
    connection_age,
    flapping,
    rolling_restart,
    shared_port,
    unwell,
)
from support.servers import CHANNEL_OPTIONS, UNARY_UNARY, echo_servers, eventually
from support.source import Source, endpoint

pytestmark = pytest.mark.anyio


def by_address(channel: lb.Channel) -> dict[str, lb.EndpointSnapshot]:
    return {one.address: one for one in channel.balancer.snapshot().endpoints}


@pytest.mark.parametrize("how", ["deregistered", "draining"])
async def test_a_rolling_restart_fails_no_call(how: str) -> None:
    """All of four servers, one after the other, under 300 calls a second."""
    report = await rolling_restart(draining=how == "draining")
    assert report.failed == 0
    assert report.calls > 600
    assert report.recovered_s is not None
    assert report.recovered_s <= 5


async def test_connection_age_fails_no_call() -> None:
    """GOAWAY: the connection ends and is made again at once (fault F4)."""
    report = await connection_age(load_s=3)
    assert report.failed == 0
    assert report.figures[AGED] > 20, "it is used again after each GOAWAY"


async def test_a_flapping_endpoint_costs_no_connections() -> None:
    """In and out twenty times a second (fault F6): the connections stay, and everyone gets calls."""
    report = await flapping(turns=100)
    assert report.failed == 0
    assert report.figures[OPENED] == 0
    assert report.figures[SERVED] == 1
    assert report.recovered_s is not None
    assert report.recovered_s <= 2


async def test_streams_of_an_endpoint_that_left_run_on() -> None:
    async with echo_servers(2) as servers:
        source = Source(endpoint(server.address) for server in servers)
        config = {"connection": {"linger_s": 0.0, "drain_s": 1.0}}
        async with lb.insecure_channel(source, options=CHANNEL_OPTIONS, config=config) as channel:
            await eventually(lambda: all(one.state == "ready" for one in by_address(channel).values()))
            short, long = (channel.unary_unary(UNARY_UNARY)(b"sleep:" + time) for time in (b"0.5", b"30"))
            await eventually(lambda: sum(server.open_calls for server in servers) == 2)
            source.set([])
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary(UNARY_UNARY)(b"x", timeout=5)
            assert await short == b"sleep:0.5"
            assert await asyncio.wait_for(long.code(), 5) is grpc.StatusCode.CANCELLED, "its time to drain is up"


async def test_when_half_are_unwell_health_is_believed_and_when_more_are_it_is_not() -> None:
    """The panic threshold (fault F7)."""
    report = await unwell((0, 2, 4, 5, 8))
    assert list(report.figures.values()) == [8, 6, 4, 8, 8]


async def test_two_servers_cannot_share_a_port() -> None:
    """With grpcio's default they could, silently, and calls would die when one of them left (fault F24)."""
    assert (await shared_port()).figures[STARTED] == 1


async def test_what_a_control_plane_wants_dropped_is_dropped() -> None:
    """Each category is drawn for on its own: of a half and a half, a quarter is left (EDS `drop_overloads`)."""
    async with echo_servers(2) as servers:
        source = Source()
        async with lb.insecure_channel(source, options=CHANNEL_OPTIONS, config={"seed": 1}) as channel:
            channel.get_state(try_to_connect=True)
            await asyncio.sleep(0.05)
            everyone = [endpoint(server.address) for server in servers]
            source.set(everyone, lb.Drop("throttle", 0.5), lb.Drop("lb", 0.5))
            await channel.channel_ready()
            calls = [channel.unary_unary(UNARY_UNARY)(b"x", wait_for_ready=True) for _ in range(400)]
            codes = Counter([await call.code() for call in calls])
            assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
            assert is_share(codes[grpc.StatusCode.OK], 400, 0.25)
            assert sum(server.calls for server in servers) == codes[grpc.StatusCode.OK]
            (why, *_) = [await call.details() for call in calls if await call.code() is grpc.StatusCode.UNAVAILABLE]
            assert "dropped, as '" in why
            source.set(everyone)
            assert await channel.unary_unary(UNARY_UNARY)(b"x") == b"x"
            assert all(one.in_flight == 0 for one in by_address(channel).values())


async def test_a_snapshot_tells_how_much_of_the_set_is_connected_to_and_whether_health_is_believed() -> None:
    async with echo_servers(4) as servers:
        source = Source(endpoint(server.address, health=Health.UNHEALTHY) for server in servers)
        async with lb.insecure_channel(source, options=CHANNEL_OPTIONS, config={"subset_size": 3}) as channel:
            await channel.channel_ready()
            await eventually(lambda: all(one.state == "ready" for one in by_address(channel).values()))
            snapshot = channel.balancer.snapshot()
            assert (snapshot.known, len(snapshot.endpoints), snapshot.coverage) == (4, 3, 0.75)
            assert (snapshot.in_panic, snapshot.panics) == (True, 1)
            assert {one.health for one in snapshot.endpoints} == {"unhealthy"}
            source.set(endpoint(server.address) for server in servers[:2])
            await asyncio.sleep(0.05)
            snapshot = channel.balancer.snapshot()
            assert (snapshot.known, snapshot.coverage) == (2, 1.0)
            assert (snapshot.in_panic, snapshot.panics) == (False, 1)
            assert sorted(one.state for one in snapshot.endpoints).count("draining") >= 1


@pytest.mark.parametrize("target", [42, object()])
def test_what_is_no_target_is_refused(target: object) -> None:
    with pytest.raises(lb.ConfigError, match="expected a string, a list of endpoints or a resolver"):
        lb.insecure_channel(target)  # type: ignore[arg-type]
