"""Watching the health of real servers: what they say, how they fall silent, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import sys
from collections.abc import AsyncIterator
from typing import Any

import anyio
import grpc
import grpc.aio
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpclb_core.backoff import JITTER, pause_s
from grpclb_core.config import HealthConfig
from grpclb_core.health import watch_health
from grpclb_core.types import Verdict
from support.health import (
    CHANNEL_OPTIONS,
    NOT_SERVING,
    SERVICE,
    SERVING,
    ChildServer,
    Script,
    answer,
    health_server,
    serve,
)
from support.recorder import PATIENCE_S
from support.servers import eventually

pytestmark = pytest.mark.anyio

QUICK = HealthConfig(answer_timeout_s=PATIENCE_S, initial_backoff_s=0.05, max_backoff_s=0.1)


class Reports:
    """Remembers what a watch reported."""

    def __init__(self) -> None:
        self.verdicts: list[Verdict] = []
        self.reasons: list[str] = []

    def __call__(self, verdict: Verdict, reason: str) -> None:
        self.verdicts.append(verdict)
        self.reasons.append(reason)

    async def until(self, *verdicts: Verdict) -> None:
        """Wait until these were reported, and no others."""
        await eventually(lambda: self.verdicts == list(verdicts) or len(self.verdicts) > len(verdicts), PATIENCE_S)
        assert self.verdicts == list(verdicts), self.reasons


def channel_to(port: int) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=CHANNEL_OPTIONS)


@contextlib.asynccontextmanager
async def watching(port: int, service: str = SERVICE, config: HealthConfig = QUICK) -> AsyncIterator[Reports]:
    reports = Reports()
    async with channel_to(port) as channel, anyio.create_task_group() as tasks:
        await channel.channel_ready()
        tasks.start_soon(
            lambda: watch_health(channel, service, reports, rng=random.Random(1), config=config), name="watch"
        )
        yield reports
        tasks.cancel_scope.cancel()


class TestWhatTheServerSays:
    async def test_every_change_is_reported_once(self) -> None:
        async with health_server() as (port, servicer):
            await servicer.set(SERVICE, SERVING)
            async with watching(port) as reports:
                await reports.until(Verdict.SERVING)
                await servicer.set(SERVICE, NOT_SERVING)
                await reports.until(Verdict.SERVING, Verdict.NOT_SERVING)
                assert reports.reasons[-1] == "the server says NOT_SERVING"
                await servicer.set(SERVICE, SERVING)
                await reports.until(Verdict.SERVING, Verdict.NOT_SERVING, Verdict.SERVING)

    async def test_the_empty_name_is_the_server_as_a_whole(self) -> None:
        async with health_server() as (port, servicer):
            await servicer.set(SERVICE, NOT_SERVING)
            async with watching(port, service="") as reports:
                await reports.until(Verdict.SERVING)
                await servicer.enter_graceful_shutdown()
                await reports.until(Verdict.SERVING, Verdict.NOT_SERVING)

    async def test_a_service_the_server_does_not_know_is_not_serving_until_it_does(self) -> None:
        async with health_server() as (port, servicer), watching(port) as reports:
            await reports.until(Verdict.NOT_SERVING)
            assert reports.reasons[-1].startswith(f"the server does not know the service '{SERVICE}'")
            await servicer.set(SERVICE, SERVING)
            await reports.until(Verdict.NOT_SERVING, Verdict.SERVING)

    async def test_a_server_without_a_health_service_is_healthy_and_not_asked_again(self) -> None:
        reports = Reports()
        async with serve() as port, channel_to(port) as channel:
            with anyio.fail_after(PATIENCE_S):  # it returns by itself
                await watch_health(channel, SERVICE, reports, rng=random.Random(1), config=QUICK)
        assert reports.verdicts == [Verdict.SERVING]
        assert "no health service" in reports.reasons[0]

    @pytest.mark.parametrize("status", [0, 7])
    async def test_only_serving_is_good_enough(self, status: int) -> None:
        async def act(turn: int, context: Any) -> AsyncIterator[bytes]:
            yield bytes((0x08, status))
            await asyncio.Event().wait()

        script = Script(act)
        async with serve(script.add_to) as port, watching(port) as reports:
            await reports.until(Verdict.NOT_SERVING)


class TestStreamsThatEnd:
    async def test_a_server_that_is_killed_and_started_again(self) -> None:
        with ChildServer() as child:
            async with watching(child.port) as reports:
                await reports.until(Verdict.SERVING)
                child.kill()
                await reports.until(Verdict.SERVING, Verdict.NOT_SERVING)
                assert "UNAVAILABLE" in reports.reasons[-1]
                child.start()
                await reports.until(Verdict.SERVING, Verdict.NOT_SERVING, Verdict.SERVING)

    @pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED, None])
    async def test_whatever_ends_a_stream_the_next_one_decides(self, code: grpc.StatusCode | None) -> None:
        """CANCELLED is the hard one: grpc.aio raises the same for it as for a cancellation of the client's own."""

        async def act(turn: int, context: Any) -> AsyncIterator[bytes]:
            yield answer(SERVING)
            if turn == 1:
                if code is not None:
                    await context.abort(code, "told to")
                return
            await asyncio.Event().wait()

        async with serve(Script(act).add_to) as port, watching(port) as reports:
            await reports.until(Verdict.SERVING, Verdict.NOT_SERVING, Verdict.SERVING)
            assert (code.name if code else "OK") in reports.reasons[1]

    async def test_what_is_not_an_answer_ends_the_stream(self) -> None:
        async def act(turn: int, context: Any) -> AsyncIterator[bytes]:
            yield b"\xff" if turn == 1 else answer(SERVING)
            await asyncio.Event().wait()

        async with serve(Script(act).add_to) as port, watching(port) as reports:
            await reports.until(Verdict.NOT_SERVING, Verdict.SERVING)
            assert "not an answer of grpc.health.v1" in reports.reasons[0]

    async def test_a_server_that_answers_and_ends_is_not_chased(self) -> None:
        async def act(turn: int, context: Any) -> AsyncIterator[bytes]:
            yield answer(SERVING)

        script = Script(act)
        config = HealthConfig(initial_backoff_s=0.2)
        async with serve(script.add_to) as port, watching(port, config=config):
            await anyio.sleep(1.0)
            # Two begin at least 0.2 s less a fifth apart: 1 + 1.0 / 0.16.
            assert script.watches <= 7

    async def test_failing_streams_are_opened_ever_more_slowly(self) -> None:
        async def act(turn: int, context: Any) -> AsyncIterator[bytes]:
            await context.abort(grpc.StatusCode.INTERNAL, "told to")
            yield b""

        script = Script(act)
        config = HealthConfig(initial_backoff_s=0.1)
        async with serve(script.add_to) as port, watching(port, config=config) as reports:
            await anyio.sleep(1.0)
            # The waits are at least 0.08, 0.128, 0.205, 0.328 and 0.524 s: the sixth begins after the end.
            assert script.watches <= 5
            assert reports.verdicts == [Verdict.NOT_SERVING]


class TestSilence:
    async def test_no_answer_in_time_is_not_serving_and_a_late_one_still_counts(self) -> None:
        gate = asyncio.Event()

        async def act(turn: int, context: Any) -> AsyncIterator[bytes]:
            await gate.wait()
            yield answer(SERVING)
            await asyncio.Event().wait()

        script = Script(act)
        config = HealthConfig(answer_timeout_s=0.1)
        async with serve(script.add_to) as port, watching(port, config=config) as reports:
            await reports.until(Verdict.NOT_SERVING)
            assert reports.reasons == ["the server has not answered for 0.1 s; its answer still counts"]
            gate.set()
            await reports.until(Verdict.NOT_SERVING, Verdict.SERVING)
            assert script.watches == 1


def connections_to(port: int) -> int:
    """Connections this process has open to a port of its own."""
    if sys.version_info < (3, 11):
        # There a call of grpc.aio that was cancelled before its first answer refers to itself, until this is run.
        gc.collect()
    return sum(bool(one.raddr) and one.raddr.port == port for one in psutil.Process().net_connections("tcp"))


class TestCancellation:
    """Whoever cancels a watch may close the channel at once: no call, task, connection or report comes after."""

    @pytest.mark.parametrize("natively", [False, True], ids=["scope", "task"])
    @pytest.mark.parametrize("moment", ["at once", "unanswered", "answered", "while it waits"])
    async def test_nothing_is_left(self, moment: str, natively: bool) -> None:
        open_watches = 0

        async def act(turn: int, context: Any) -> AsyncIterator[bytes]:
            nonlocal open_watches
            open_watches += 1
            try:
                if moment == "answered":
                    yield answer(SERVING)
                if moment != "while it waits":
                    await asyncio.Event().wait()
            finally:
                open_watches -= 1

        script = Script(act)
        config = HealthConfig(initial_backoff_s=5.0, answer_timeout_s=PATIENCE_S)
        async with serve(script.add_to) as port:
            before = len(asyncio.all_tasks())  # the server replaces one of its own with each call
            for turn in range(5):
                reports = Reports()
                channel = channel_to(port)
                await channel.channel_ready()
                scope = anyio.CancelScope()

                async def watch(channel=channel, reports=reports, scope=scope) -> None:  # type: ignore[no-untyped-def]
                    with scope:
                        await watch_health(channel, SERVICE, reports, rng=random.Random(1), config=config)

                task = asyncio.create_task(watch())
                await asyncio.sleep(0)
                if moment != "at once":
                    await eventually(lambda turn=turn: script.watches > turn, PATIENCE_S)  # type: ignore[misc]
                if moment in ("answered", "while it waits"):
                    await eventually(lambda reports=reports: reports.verdicts, PATIENCE_S)  # type: ignore[misc]
                told = len(reports.verdicts)
                if natively:
                    task.cancel()
                else:
                    scope.cancel()
                done, _ = await asyncio.wait((task,), timeout=PATIENCE_S)
                assert done
                await channel.close()
                assert len(reports.verdicts) == told
            await eventually(lambda: open_watches == 0, PATIENCE_S)
            await eventually(lambda: connections_to(port) == 0, PATIENCE_S)
            await eventually(lambda: len(asyncio.all_tasks()) <= before, PATIENCE_S)

    async def test_on_a_closed_channel_it_returns(self) -> None:
        reports = Reports()
        async with health_server() as (port, _):
            channel = channel_to(port)
            await channel.close()
            with anyio.fail_after(PATIENCE_S):
                await watch_health(channel, "", reports, rng=random.Random(1), config=QUICK)
        assert reports.verdicts == []

    async def test_a_channel_that_is_closed_first_takes_no_one_else_along(self) -> None:
        """Some versions of grpcio end its calls as if their tasks were cancelled, others leave them open."""
        reports = Reports()
        async with health_server() as (port, _):
            channel = channel_to(port)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: watch_health(channel, "", reports, rng=random.Random(1), config=QUICK))
                await reports.until(Verdict.SERVING)
                await channel.close()
                await anyio.sleep(0.2)
                assert not tasks.cancel_scope.cancel_called
                tasks.cancel_scope.cancel()
            await eventually(lambda: connections_to(port) == 0, PATIENCE_S)


class TestPauses:
    CONFIG = HealthConfig()

    def pause_s(self, failures: int, lasted_s: float, random: float) -> float:
        return pause_s(failures, lasted_s, self.CONFIG.initial_backoff_s, self.CONFIG.max_backoff_s, random)

    @given(st.integers(1, 1000), st.floats(0, 1e6), st.floats(0, 1, exclude_max=True))
    def test_without_an_answer_they_grow_to_the_ceiling(self, failures: int, lasted_s: float, random: float) -> None:
        pause = self.pause_s(failures, lasted_s, random)
        assert self.CONFIG.initial_backoff_s * (1 - JITTER) <= pause <= self.CONFIG.max_backoff_s
        assert pause <= self.pause_s(failures + 1, lasted_s, random)

    @given(st.floats(0, 1e6), st.floats(0, 1, exclude_max=True))
    def test_after_an_answer_there_is_none_but_to_keep_two_apart(self, lasted_s: float, random: float) -> None:
        pause = self.pause_s(0, lasted_s, random)
        assert 0 <= pause <= self.CONFIG.initial_backoff_s * (1 + JITTER)
        assert lasted_s + pause >= self.CONFIG.initial_backoff_s * (1 - JITTER) - 1e-9
        if lasted_s >= self.CONFIG.initial_backoff_s * (1 + JITTER):
            assert pause == 0

    def test_the_first_ones(self) -> None:
        assert [round(self.pause_s(failures, 0, 0.5), 3) for failures in (1, 2, 3)] == [1, 1.6, 2.56]
