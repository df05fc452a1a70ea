"""Endpoints whose connection is up and whose calls are not answered: hosts that vanish, processes that freeze."""

from __future__ import annotations

import asyncio

import grpc
import pytest

import grpclb_core as lb
from support.load import Load
from support.namespaces import Host, why_not
from support.scenarios.silence import (
    AFTERWARDS,
    HEALED_FAILURES,
    HELD,
    IN_FLIGHT,
    LATE_CALLS,
    LATE_FAILURES,
    frozen,
    hanging,
    killed,
    vanished,
)
from support.servers import CHANNEL_OPTIONS, UNARY_STREAM, UNARY_UNARY, ChildServer, eventually

pytestmark = pytest.mark.anyio

NO_HOSTS = why_not()
OUT_S = 7.0  # three times as long as it takes to notice


async def test_a_process_that_was_killed_costs_what_it_had_in_its_hands() -> None:
    report = await killed(rate=300)
    assert report.figures[HELD] > 0, "it had none of the calls that take long: nothing was tested"
    assert report.failed <= report.figures[IN_FLIGHT]
    assert report.figures[AFTERWARDS] == 0
    assert report.codes <= {"UNAVAILABLE"}
    assert report.recovered_s is not None
    assert report.recovered_s <= 2


@pytest.mark.skipif(NO_HOSTS is not None, reason=str(NO_HOSTS))
@pytest.mark.parametrize("policy", ["p2c_ewma", "round_robin"])
async def test_a_host_that_vanished_gets_no_calls_and_is_back_when_it_is_back(policy: str) -> None:
    report = await vanished(policy, OUT_S)
    assert report.figures[LATE_CALLS] == 0
    assert report.figures[LATE_FAILURES] == 0, "the others take the load"
    assert report.codes <= {"DEADLINE_EXCEEDED", "UNAVAILABLE"}
    assert report.recovered_s is not None
    assert report.recovered_s <= 3
    assert report.figures[HEALED_FAILURES] == 0
    assert report.calls > 1500


@pytest.mark.skipif(NO_HOSTS is not None, reason=str(NO_HOSTS))
async def test_no_call_waits_longer_than_keepalive_takes() -> None:
    with Host() as host:
        victim = ChildServer("a", host.address, prefix=host.prefix)
        config = {"connection": {"keepalive_time_s": 2, "keepalive_timeout_s": 1}}
        with victim:
            async with lb.insecure_channel(f"ipv4:{victim.address}", options=CHANNEL_OPTIONS, config=config) as channel:
                method = channel.unary_unary(UNARY_UNARY)
                await method(b"x")
                calls = [method(b"sleep:60") for _ in range(8)]
                await asyncio.sleep(0.2)
                host.vanish()
                done, pending = await asyncio.wait([asyncio.ensure_future(call.code()) for call in calls], timeout=6)
                assert not pending
                assert {task.result() for task in done} == {grpc.StatusCode.UNAVAILABLE}
                host.come_back()


async def test_no_call_to_a_frozen_process_waits_longer_than_keepalive_takes() -> None:
    """Its kernel takes whatever is sent to it, so that TCP sees no fault; only the ping is not answered."""
    config = {"connection": {"keepalive_time_s": 1, "keepalive_timeout_s": 1}}
    with ChildServer("a") as victim:
        async with lb.insecure_channel(f"ipv4:{victim.address}", options=CHANNEL_OPTIONS, config=config) as channel:
            calls = [channel.unary_stream(UNARY_STREAM)(b"hang"), channel.unary_unary(UNARY_UNARY)(b"hang")]
            await asyncio.sleep(0.5)
            victim.freeze()
            codes = [asyncio.ensure_future(call.code()) for call in calls]
            _, pending = await asyncio.wait(codes, timeout=5)
            for call in calls:
                call.cancel()
            assert not pending


@pytest.mark.parametrize("policy", ["p2c_ewma", "least_request"])
async def test_a_frozen_process_gets_no_calls_and_is_back_when_it_thaws(policy: str) -> None:
    report = await frozen(policy, OUT_S)
    assert report.figures[LATE_CALLS] == 0
    assert report.recovered_s is not None
    assert report.recovered_s <= 3


@pytest.mark.parametrize("policy", ["p2c_ewma", "round_robin"])
async def test_a_server_whose_handlers_hang_gets_a_call_now_and_then(policy: str) -> None:
    """It takes connections and answers pings, so that only a call can tell; each such call waits twice as long."""
    report = await hanging(policy, 7)
    assert report.figures[LATE_CALLS] <= 3, "one after each new connection, and these are 0, 1, 2, 4... s apart"
    assert report.figures[LATE_FAILURES] <= report.figures[LATE_CALLS]
    assert report.recovered_s is not None
    assert report.recovered_s <= 10


async def test_where_there_is_only_one_it_stays_in_use() -> None:
    """A call may as well try; and the half-open connection is replaced all the same."""
    with ChildServer("a") as victim:
        async with lb.insecure_channel(f"ipv4:{victim.address}", options=CHANNEL_OPTIONS) as channel:
            async with Load(channel, rate=50, timeout_s=1.0).running() as load:
                await eventually(lambda: len(load.answered) > 20)
                victim.freeze()
                await asyncio.sleep(4)
                assert channel.get_state() is grpc.ChannelConnectivity.READY
                victim.thaw()
                await load.wait_for("a", asyncio.get_running_loop().time(), within_s=5)


async def test_a_slow_service_is_not_a_silent_one() -> None:
    """Calls that always take longer than silence may last are what this service is like."""
    config = {"connection": {"silence_s": 0.3}}
    with ChildServer("a") as one, ChildServer("b") as other:
        target = f"ipv4:{one.address},{other.address}"
        async with lb.insecure_channel(target, options=CHANNEL_OPTIONS, config=config) as channel:
            method = channel.unary_unary(UNARY_UNARY)
            for _ in range(3):
                await asyncio.gather(*(method(b"sleep:0.8") for _ in range(8)))
                states = {endpoint.state for endpoint in channel.balancer.snapshot().endpoints}
                assert states == {"ready"}
