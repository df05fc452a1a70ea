"""grpcio's own `weighted_round_robin` (gRFC A58) takes our standard trailer."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from grpclb_core.server import LoadInterceptor, LoadRecorder, add_load_service
from grpclb_core.types import Outcome
from support.servers import CHANNEL_OPTIONS, SERVER_OPTIONS

pytestmark = pytest.mark.anyio

UTILIZATIONS = (0.1, 0.2, 0.4, 0.8)
SHARES = (0.533, 0.267, 0.133, 0.067)  # 8:4:2:1, as a weight is calls a second over utilisation
TOLERANCE = 0.005
"""A static stride schedule is exact but for its ends, and begins anew with each update of weights."""
CALLS = 1200
BEFORE = 1000


def policy(out_of_band: bool) -> str:
    config = {
        "blackoutPeriod": "0s",
        "weightUpdatePeriod": "0.1s",
        "enableOobLoadReport": out_of_band,
        "oobReportingPeriod": "0.1s",
    }
    return json.dumps({"loadBalancingConfig": [{"weighted_round_robin": config}]})


async def start(recorder: LoadRecorder, handler: Callable[..., Any]) -> tuple[grpc.aio.Server, int]:
    server = grpc.aio.server(interceptors=(LoadInterceptor(recorder),), options=SERVER_OPTIONS)
    handlers = {"Call": grpc.unary_unary_rpc_method_handler(handler)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Share", handlers),))
    add_load_service(server, recorder, min_period_s=0.1)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, port


@pytest.mark.parametrize("out_of_band", [False, True], ids=["trailers", "out of band"])
async def test_calls_are_shared_by_what_servers_report(out_of_band: bool) -> None:
    answered: Counter[int] = Counter()

    def server(number: int) -> tuple[LoadRecorder, Callable[..., Any]]:
        recorder = LoadRecorder(clock=lambda: 1000.0)  # at a time that stands still, a rate is a number of calls
        for _ in range(BEFORE):
            recorder.end(recorder.begin(is_timed=True), Outcome.SUCCESS)

        def work() -> None:
            recorder.set_application_utilization(UTILIZATIONS[number] * recorder.report().rps_fractional / BEFORE)

        async def handle(request: bytes, context: Any) -> bytes:
            work()  # each is the busier the more calls it has: else those with many would get ever more
            answered[number] += 1
            return b""

        work()
        return recorder, handle

    async with contextlib.AsyncExitStack() as stack:
        ports = []
        for number in range(len(UTILIZATIONS)):
            started, port = await start(*server(number))
            stack.push_async_callback(started.stop, None)
            ports.append(port)
        target = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)
        options = (*CHANNEL_OPTIONS, ("grpc.service_config", policy(out_of_band)))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(target, options=options))
        call: Any = channel.unary_unary("/test.Share/Call")

        async def load(calls: int) -> None:
            for _ in range(calls):
                await call(b"", wait_for_ready=True)

        for _ in range(2):
            await asyncio.gather(*(load(25) for _ in range(4)))
            await asyncio.sleep(0.25)  # two rounds of weights
        answered.clear()
        await asyncio.gather(*(load(CALLS // 4) for _ in range(4)))
    shares = [answered[number] / CALLS for number in range(len(UTILIZATIONS))]
    assert shares == pytest.approx(SHARES, abs=TOLERANCE)
