"""Reports out of band, by real servers: to our client, and to one that is written with protobuf's own messages."""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xds.data.orca.v3.orca_load_report_pb2 import OrcaLoadReport
from xds.service.orca.v3.orca_pb2 import OrcaLoadReportRequest

from grpclb_core.errors import ConfigError
from grpclb_core.reports import probe_load, watch_load
from grpclb_core.reports.keys import STREAM
from grpclb_core.server import LoadInterceptor, LoadRecorder, add_load_service
from grpclb_core.server.load.service import LONGEST_PERIOD_S, period_s
from grpclb_core.types import IN_FLIGHT_METRIC, LoadReport
from support.recorder import PATIENCE_S
from support.servers import CHANNEL_OPTIONS, SERVER_OPTIONS, eventually

pytestmark = pytest.mark.anyio


@contextlib.asynccontextmanager
async def serving(recorder: LoadRecorder, min_period_s: float) -> AsyncIterator[grpc.aio.Channel]:
    server = grpc.aio.server(interceptors=(LoadInterceptor(recorder),), options=SERVER_OPTIONS)
    add_load_service(server, recorder, min_period_s=min_period_s)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=CHANNEL_OPTIONS) as channel:
        yield channel
    await server.stop(None)


class Heard:
    def __init__(self) -> None:
        self.reports: list[LoadReport] = []

    def hear(self, report: LoadReport) -> None:
        self.reports.append(report)

    def ignore(self, reason: str) -> None:
        raise AssertionError(reason)


async def test_our_client_hears_what_our_server_reports() -> None:
    recorder, heard = LoadRecorder(), Heard()
    recorder.set_application_utilization(0.25)
    async with serving(recorder, 0.02) as channel, anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: watch_load(channel, heard, period_s=0.02, rng=random.Random(1)))
        await eventually(lambda: len(heard.reports) >= 2, PATIENCE_S)
        assert heard.reports[0] == LoadReport(application_utilization=0.25, named_metrics={IN_FLIGHT_METRIC: 0.0})
        recorder.set_application_utilization(0.75)
        await eventually(lambda: heard.reports[-1].application_utilization == 0.75, PATIENCE_S)
        assert recorder.in_flight == 0  # the stream is no load
        tasks.cancel_scope.cancel()


async def test_a_probe_is_answered_at_once_whatever_the_period() -> None:
    recorder = LoadRecorder()
    async with serving(recorder, 30) as channel:
        for part in (0.25, 0.5):
            recorder.set_cpu_utilization(part)
            probe = await probe_load(channel, PATIENCE_S)
            assert probe.report is not None
            assert probe.report.cpu_utilization == part


def ask(channel: grpc.aio.Channel, seconds: int, nanos: int) -> Any:
    request = OrcaLoadReportRequest(request_cost_names=["rows"])
    request.report_interval.seconds, request.report_interval.nanos = seconds, nanos
    method: Any = channel.unary_stream(
        STREAM,
        request_serializer=OrcaLoadReportRequest.SerializeToString,
        response_deserializer=OrcaLoadReport.FromString,
    )
    return method(request)


@pytest.mark.parametrize(("seconds", "nanos"), [(0, 0), (0, 1), (-5, 0), (-(2**63), -(2**31)), (0, -(2**31))])
async def test_who_asks_for_no_time_between_reports_gets_the_least_there_is(seconds: int, nanos: int) -> None:
    recorder = LoadRecorder()
    recorder.set_cpu_utilization(0.5)
    async with serving(recorder, 0.1) as channel:
        loop = asyncio.get_running_loop()
        stream = ask(channel, seconds, nanos)
        first = await stream.read()
        started_s = loop.time()
        for _ in range(2):
            assert (await stream.read()).cpu_utilization == 0.5
        assert loop.time() - started_s > 0.1
        assert dict(first.named_metrics) == {IN_FLIGHT_METRIC: 0.0}
        stream.cancel()


async def test_who_asks_for_ages_gets_the_first_at_once() -> None:
    async with serving(LoadRecorder(), 0.02) as channel:
        streams = [ask(channel, seconds, nanos) for seconds, nanos in [(2**63 - 1, 2**31 - 1), (5, 0)]]
        for stream in streams:
            assert isinstance(await stream.read(), OrcaLoadReport)
        await anyio.sleep(0.1)
        for stream in streams:
            assert not stream.done()
            stream.cancel()


async def test_what_is_no_request_is_refused() -> None:
    async with serving(LoadRecorder(), 0.02) as channel:
        stream: Any = channel.unary_stream(STREAM)(b"\xff")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "not an OrcaLoadReportRequest" in str(caught.value.details())


@given(st.floats(-(2.0**63), 2.0**63), st.floats(1e-6, 1e6))
def test_a_period_is_never_below_the_least_and_never_without_end(requested_s: float, min_period_s: float) -> None:
    chosen_s = period_s(requested_s, min_period_s)
    assert min_period_s <= chosen_s <= max(min_period_s, LONGEST_PERIOD_S)
    if min_period_s <= requested_s <= LONGEST_PERIOD_S:
        assert chosen_s == requested_s


@pytest.mark.parametrize("min_period_s", [0, -1, float("nan"), float("inf")])
async def test_a_least_period_that_cannot_be_is_refused(min_period_s: float) -> None:
    with pytest.raises(ConfigError, match="min_period_s .* is not usable"):
        add_load_service(grpc.aio.server(), LoadRecorder(), min_period_s=min_period_s)


def test_a_synchronous_server_is_refused() -> None:
    with ThreadPoolExecutor(1) as threads, pytest.raises(ConfigError, match="is no server of grpc.aio"):
        add_load_service(grpc.server(threads), LoadRecorder())  # type: ignore[arg-type]


def test_the_example_runs() -> None:
    example = Path(__file__).parents[3] / "examples" / "load_reports" / "run.py"
    done = subprocess.run([sys.executable, example], capture_output=True, text=True, timeout=60, cwd=example.parent)
    assert done.returncode == 0, done.stderr
    shouts, with_call, out_of_band = done.stdout.splitlines()
    assert shouts == str([b"HELLO"] * 4)
    assert "request_cost={'rows': 5.0}" in with_call
    assert "request_cost={}" in out_of_band
