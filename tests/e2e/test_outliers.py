"""Servers that fail their calls, on a balanced channel."""

from __future__ import annotations

import asyncio

import grpc
import pytest

import grpclb_core as lb
from support.load import Load
from support.servers import CHANNEL_OPTIONS, UNARY_UNARY, EchoServer, echo_servers, eventually, target_of

pytestmark = pytest.mark.anyio

# One pause after another, short enough to wait for; what is asked for is left as it is.
BRISK = {"outliers": {"first_pause_s": 0.3, "max_pause_s": 0.5}}


def endpoint_of(channel: lb.Channel, server: EchoServer) -> lb.EndpointSnapshot:
    return next(one for one in channel.balancer.snapshot().endpoints if one.address == server.address)


async def all_ready(channel: lb.Channel) -> None:
    channel.get_state(try_to_connect=True)
    await eventually(lambda: {one.state for one in channel.balancer.snapshot().endpoints} == {"ready"})


async def test_one_of_four_that_fails_is_left_alone_until_it_answers_a_trial() -> None:
    async with echo_servers(4) as servers:
        bad = servers[0]
        bad.failure = grpc.StatusCode.INTERNAL
        async with lb.insecure_channel(
            target_of(servers), options=CHANNEL_OPTIONS, policy="round_robin", config=BRISK
        ) as channel:
            await all_ready(channel)
            async with Load(channel).running() as load:
                await eventually(lambda: endpoint_of(channel, bad).is_ejected)
                assert endpoint_of(channel, bad).outlier_reason == "consecutive failures"
                # Seven in a row, and what came until the next sweep at 50 calls a second to it.
                assert 7 <= len(load.failures) <= 40
                failed_before, since_s = bad.calls, asyncio.get_running_loop().time()
                await asyncio.sleep(1.0)
                seconds = asyncio.get_running_loop().time() - since_s
                # Nothing but trials: after 0.3 s, then 0.5 s, each a call or two; round_robin would have had 50.
                assert 1 <= bad.calls - failed_before <= 3 * (seconds / 0.3)
                assert endpoint_of(channel, bad).outlier_reason == "failed trial"
                bad.failure = None
                healed_s = asyncio.get_running_loop().time()
                assert await load.wait_for("a", healed_s, within_s=5) <= 2
                await eventually(lambda: endpoint_of(channel, bad).outlier_reason is None)
                failures, answered = len(load.failures), len(load.answered)
                await asyncio.sleep(0.4)
                assert len(load.failures) == failures
                share = [name for _, name in load.answered[answered:]].count("a")
                assert share >= 0.15 * (len(load.answered) - answered)
            snapshot = channel.balancer.snapshot()
            assert snapshot.ejections >= 2
            assert snapshot.readmissions == 1
            assert snapshot.panics == 0


async def test_on_trial_it_gets_one_call_at_a_time() -> None:
    async with echo_servers(4) as servers:
        bad = servers[0]
        bad.failure = grpc.StatusCode.INTERNAL
        async with lb.insecure_channel(
            target_of(servers), options=CHANNEL_OPTIONS, policy="round_robin", config=BRISK
        ) as channel:
            await all_ready(channel)
            async with Load(channel).running():
                # Calls of before are no part of a trial, so it begins when none is left.
                await eventually(lambda: (one := endpoint_of(channel, bad)).is_ejected and one.in_flight == 0)
                bad.failure, bad.delay_s = None, 0.6
                calls = bad.calls
                await eventually(lambda: endpoint_of(channel, bad).is_on_trial)
                await eventually(lambda: bad.calls > calls)
                for _ in range(20):  # 0.4 s: at 50 calls a second, 20 would have come
                    await asyncio.sleep(0.02)
                    if endpoint_of(channel, bad).is_on_trial:
                        assert bad.open_calls <= 1
                bad.delay_s = 0.0
                await eventually(lambda: endpoint_of(channel, bad).outlier_reason is None)


async def test_where_all_four_fail_not_all_are_ejected() -> None:
    async with echo_servers(4) as servers:
        async with lb.insecure_channel(
            target_of(servers), options=CHANNEL_OPTIONS, policy="round_robin", config=BRISK
        ) as channel:
            await all_ready(channel)
            async with Load(channel).running() as load:
                await asyncio.sleep(0.3)
                for server in servers:
                    server.failure = grpc.StatusCode.INTERNAL
                since_s = asyncio.get_running_loop().time()
                most = 0
                while asyncio.get_running_loop().time() - since_s < 1.0:
                    await asyncio.sleep(0.02)
                    snapshot = channel.balancer.snapshot()
                    most = max(most, sum(one.outlier_reason is not None for one in snapshot.endpoints))
                    assert not snapshot.in_panic
                assert most <= 2
                assert {code for _, code in load.failures} == {grpc.StatusCode.INTERNAL}
                for server in servers:
                    server.failure = None
                loop = asyncio.get_running_loop()
                healed_s = loop.time()
                for name in "abcd":
                    await load.wait_for(name, healed_s, within_s=5)


async def test_a_single_server_is_never_ejected() -> None:
    async with echo_servers(1) as servers:
        async with lb.insecure_channel(target_of(servers), options=CHANNEL_OPTIONS, config=BRISK) as channel:
            servers[0].failure = grpc.StatusCode.INTERNAL
            method = channel.unary_unary(UNARY_UNARY)
            for _ in range(30):
                with pytest.raises(grpc.aio.AioRpcError, match="INTERNAL"):
                    await method(b"x", timeout=5)
            await asyncio.sleep(0.3)
            servers[0].failure = None
            assert await method(b"x", timeout=5) == b"x"
            assert channel.balancer.snapshot().ejections == 0


async def test_several_connections_to_one_server_are_judged_as_one() -> None:
    async with echo_servers(3) as servers:
        bad = servers[0]
        bad.failure = grpc.StatusCode.INTERNAL
        config = {**BRISK, "connection": {"per_endpoint": 2}}
        async with lb.insecure_channel(
            target_of(servers), options=CHANNEL_OPTIONS, policy="round_robin", config=config
        ) as channel:
            await all_ready(channel)

            def standings() -> list[tuple[bool, bool]]:
                endpoints = channel.balancer.snapshot().endpoints
                return [(one.is_ejected, one.is_on_trial) for one in endpoints if one.address == bad.address]

            async with Load(channel).running():
                await eventually(lambda: standings() == [(True, False)] * 2)
                assert channel.balancer.snapshot().ejections == 1
                bad.failure = None
                await eventually(lambda: standings() == [(False, False)] * 2)
                await eventually(lambda: channel.balancer.snapshot().readmissions == 1)


async def test_grpcs_own_rules() -> None:
    config = {
        "outliers": {
            "max_ejected_share": 0.0,
            "a50": {
                "interval_s": 0.2,
                "base_ejection_time_s": 0.5,
                "max_ejection_percent": 33,
                "failure_percentage_ejection": {"threshold": 50, "minimum_hosts": 3, "request_volume": 5},
            },
        }
    }
    async with echo_servers(3) as servers:
        bad = servers[0]
        bad.failure = grpc.StatusCode.INTERNAL
        async with lb.insecure_channel(
            target_of(servers), options=CHANNEL_OPTIONS, policy="round_robin", config=config
        ) as channel:
            await all_ready(channel)
            async with Load(channel).running():
                await eventually(lambda: endpoint_of(channel, bad).is_ejected)
                assert endpoint_of(channel, bad).outlier_reason == "failure percentage (A50)"
                bad.failure = None
                await eventually(lambda: not endpoint_of(channel, bad).is_ejected)
                assert not endpoint_of(channel, bad).is_on_trial
