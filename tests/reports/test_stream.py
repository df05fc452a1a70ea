"""Asking real servers for their load: what they report, how they fail, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import grpc
import grpc.aio
import pytest
from xds.data.orca.v3.orca_load_report_pb2 import OrcaLoadReport
from xds.service.orca.v3.orca_pb2 import OrcaLoadReportRequest

from grpclb_core.reports import Probe, probe_load, watch_load
from grpclb_core.reports.keys import METHOD, SERVICE
from grpclb_core.types import LoadReport
from support.health import CHANNEL_OPTIONS, serve
from support.recorder import PATIENCE_S
from support.servers import eventually

pytestmark = pytest.mark.anyio


class Heard:
    """Remembers what a watch brought."""

    def __init__(self) -> None:
        self.reports: list[LoadReport] = []
        self.reasons: list[str] = []

    def hear(self, report: LoadReport) -> None:
        self.reports.append(report)

    def ignore(self, reason: str) -> None:
        self.reasons.append(reason)


class Script:
    """A load service that does with each stream what it is told, and counts them."""

    def __init__(self, act: Callable[[int, Any], AsyncIterator[OrcaLoadReport | bytes]]) -> None:
        self.act = act
        self.streams = 0
        self.open = 0
        self.periods_s: list[float] = []

    def add_to(self, server: grpc.aio.Server) -> None:
        async def stream(request: OrcaLoadReportRequest, context: Any) -> AsyncIterator[OrcaLoadReport | bytes]:
            self.streams += 1
            self.open += 1
            self.periods_s.append(request.report_interval.ToNanoseconds() / 1e9)
            try:
                async for message in self.act(self.streams, context):
                    yield message
            finally:
                self.open -= 1

        method = grpc.unary_stream_rpc_method_handler(
            stream,
            request_deserializer=OrcaLoadReportRequest.FromString,
            response_serializer=lambda report: report if isinstance(report, bytes) else report.SerializeToString(),
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: method}),))


async def reports_for_ever(stream: int, context: Any) -> AsyncIterator[OrcaLoadReport]:
    yield OrcaLoadReport(cpu_utilization=0.25, named_metrics={"queue": 3})
    yield OrcaLoadReport(cpu_utilization=0.5)
    await asyncio.Event().wait()


async def nothing_for_ever(stream: int, context: Any) -> AsyncIterator[OrcaLoadReport]:
    await asyncio.Event().wait()
    yield OrcaLoadReport()


async def failure(stream: int, context: Any) -> AsyncIterator[OrcaLoadReport]:
    await context.abort(grpc.StatusCode.INTERNAL, "told to")
    yield OrcaLoadReport()


def channel_to(port: int) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=CHANNEL_OPTIONS)


async def watch(channel: grpc.aio.Channel, heard: Heard, initial_backoff_s: float = 0.05) -> str:
    return await watch_load(
        channel, heard, period_s=2.5, rng=random.Random(1), initial_backoff_s=initial_backoff_s, max_backoff_s=0.1
    )


@contextlib.asynccontextmanager
async def watching(port: int, initial_backoff_s: float = 0.05) -> AsyncIterator[Heard]:
    heard = Heard()
    async with channel_to(port) as channel, anyio.create_task_group() as tasks:
        tasks.start_soon(watch, channel, heard, initial_backoff_s)
        yield heard
        tasks.cancel_scope.cancel()


class TestWatching:
    async def test_what_the_server_reports_is_heard(self) -> None:
        script = Script(reports_for_ever)
        async with serve(script.add_to) as port:
            async with watching(port) as heard:
                await eventually(lambda: len(heard.reports) == 2, PATIENCE_S)
            await eventually(lambda: script.open == 0, PATIENCE_S)
        assert heard.reports == [
            LoadReport(cpu_utilization=0.25, named_metrics={"queue": 3.0}),
            LoadReport(cpu_utilization=0.5),
        ]
        assert heard.reasons == []
        assert script.periods_s == [2.5]

    async def test_a_server_without_the_service_is_not_asked_again(self) -> None:
        heard = Heard()
        async with serve() as port, channel_to(port) as channel:
            with anyio.fail_after(PATIENCE_S):  # it returns by itself
                assert "out of band" in await watch(channel, heard)
        assert heard.reports == []
        assert heard.reasons == []

    async def test_on_a_closed_channel_it_returns(self) -> None:
        async with serve(Script(reports_for_ever).add_to) as port:
            channel = channel_to(port)
            await channel.close()
            with anyio.fail_after(PATIENCE_S):
                assert await watch(channel, Heard()) == "the channel is closed"

    async def test_a_period_that_cannot_be_asked_for_is_refused(self) -> None:
        async with channel_to(1) as channel:
            with pytest.raises(ValueError, match="a period of -1 s"):
                await watch_load(channel, Heard(), period_s=-1, rng=random.Random(1))

    async def test_a_report_that_is_not_believed_is_ignored_and_the_stream_stays(self) -> None:
        async def act(stream: int, context: Any) -> AsyncIterator[OrcaLoadReport | bytes]:
            yield OrcaLoadReport(cpu_utilization=float("nan"))
            yield b"\xff"
            yield b"\x10\x01" * 10_000
            yield OrcaLoadReport(cpu_utilization=0.5)
            await asyncio.Event().wait()

        script = Script(act)
        async with serve(script.add_to) as port, watching(port) as heard:
            await eventually(lambda: bool(heard.reports), PATIENCE_S)
            assert heard.reports == [LoadReport(cpu_utilization=0.5)]
            assert len(heard.reasons) == 3
            assert heard.reasons[0].startswith("cpu_utilization is nan")
            assert script.streams == 1

    async def test_a_stream_that_ends_is_opened_again_and_the_server_not_chased(self) -> None:
        async def act(stream: int, context: Any) -> AsyncIterator[OrcaLoadReport]:
            yield OrcaLoadReport(cpu_utilization=stream / 100)

        script = Script(act)
        async with serve(script.add_to) as port, watching(port) as heard:
            await anyio.sleep(0.5)
            # Two begin at least 0.05 s less a fifth apart: 1 + 0.5 / 0.04.
            assert 2 <= script.streams <= 13
            assert len(heard.reports) >= script.streams - 1

    async def test_failing_streams_are_opened_ever_more_slowly(self) -> None:
        script = Script(failure)
        async with serve(script.add_to) as port, watching(port, initial_backoff_s=0.08) as heard:
            await anyio.sleep(0.5)
            # The waits are at least 0.064 s and then two thirds of 0.1 s.
            assert 2 <= script.streams <= 9
            assert heard.reports == []

    @pytest.mark.parametrize("natively", [False, True], ids=["scope", "task"])
    async def test_cancelled_it_leaves_nothing(self, natively: bool) -> None:
        script = Script(nothing_for_ever)
        async with serve(script.add_to) as port:
            before = len(asyncio.all_tasks())
            async with channel_to(port) as channel:
                scope = anyio.CancelScope()

                async def scoped() -> None:
                    with scope:
                        await watch(channel, Heard())

                task = asyncio.create_task(scoped())
                await eventually(lambda: script.open == 1, PATIENCE_S)
                if natively:
                    task.cancel()
                else:
                    scope.cancel()
                done, _ = await asyncio.wait((task,), timeout=PATIENCE_S)
                assert done
                await eventually(lambda: script.open == 0, PATIENCE_S)
            await eventually(lambda: len(asyncio.all_tasks()) <= before, PATIENCE_S)


class TestProbing:
    async def test_the_first_report_is_the_answer(self) -> None:
        script = Script(reports_for_ever)
        async with serve(script.add_to) as port, channel_to(port) as channel:
            for _ in range(3):
                probe = await probe_load(channel, PATIENCE_S)
                assert probe.report == LoadReport(cpu_utilization=0.25, named_metrics={"queue": 3.0})
                assert not probe.is_unsupported
            await eventually(lambda: script.open == 0, PATIENCE_S)
            assert script.streams == 3

    async def test_a_server_without_the_service_need_not_be_asked_again(self) -> None:
        async with serve() as port, channel_to(port) as channel:
            probe = await probe_load(channel, PATIENCE_S)
        assert probe.report is None
        assert probe.is_unsupported

    async def test_one_that_fails_may(self) -> None:
        async with serve(Script(failure).add_to) as port, channel_to(port) as channel:
            probe = await probe_load(channel, PATIENCE_S)
        assert probe == Probe(None, "the stream ended with INTERNAL: told to")

    async def test_one_that_says_nothing_is_waited_for_no_longer_than_told(self) -> None:
        script = Script(nothing_for_ever)
        async with serve(script.add_to) as port, channel_to(port) as channel:
            with anyio.fail_after(PATIENCE_S):
                assert await probe_load(channel, 0.05) == Probe(None, "no report within 0.05 s")
            await eventually(lambda: script.open == 0, PATIENCE_S)

    async def test_a_report_that_is_not_believed_is_none(self) -> None:
        async def act(stream: int, context: Any) -> AsyncIterator[OrcaLoadReport]:
            yield OrcaLoadReport(eps=-1)
            await asyncio.Event().wait()

        async with serve(Script(act).add_to) as port, channel_to(port) as channel:
            probe = await probe_load(channel, PATIENCE_S)
        assert probe.report is None
        assert probe.fault.startswith("eps is -1.0")
        assert probe.is_ignored

    async def test_a_closed_channel_is_told(self) -> None:
        channel = channel_to(1)
        await channel.close()
        assert await probe_load(channel, PATIENCE_S) == Probe(None, "the channel is closed")
