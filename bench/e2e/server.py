"""One server of the fleet: a child process that works on calls by waiting, and misbehaves as it is told.

Each line of standard input is a `Behaviour` in JSON. The answer is a line with the number of counted calls under the
one before, and from then on the new one holds. The process ends when standard input does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections import deque
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import msgspec

from grpclb_core.server import LoadInterceptor, LoadRecorder, add_load_service

from .scenarios import Behaviour

SERVICE, METHOD = "e2e.Worker", "Work"
MEASURED_S = 1.0  # what a load report looks back on
# What it takes to refuse a call. A server that says it is not busy at all would have its report ignored (gRFC A58), and
# what the report says of failures with it.
REFUSING_S = 0.0001


class Work(msgspec.Struct, frozen=True, array_like=True):
    """What a call asks for."""

    seconds: float
    counted: bool
    """Whether it belongs to the part of the load that is measured."""


class Meter:
    """Tells how busy the slots were over the last second."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._busy = 0
        self._busy_s = 0.0  # slots times seconds, since the start
        self._now_s = time.monotonic()
        self._past = deque([(self._now_s, 0.0)])

    def take(self, slots: int) -> None:
        """Take so many slots, or give them back where it is less than 0."""
        self.spend(0.0)
        self._busy += slots

    def spend(self, busy_s: float) -> None:
        """Count time that no slot was taken for."""
        now_s = time.monotonic()
        self._busy_s += self._busy * (now_s - self._now_s) + busy_s
        self._now_s = now_s
        self._past.append((now_s, self._busy_s))
        while self._past[1][0] <= now_s - MEASURED_S:
            self._past.popleft()

    def utilization(self) -> float:
        """Return which part of the slots was taken."""
        self.spend(0.0)
        since_s, busy_s = self._past[0]
        return (self._busy_s - busy_s) / max(self._now_s - since_s, MEASURED_S / 10) / self._slots


class Worker:
    """Works on calls under one behaviour."""

    def __init__(self, behaviour: Behaviour, recorder: LoadRecorder) -> None:
        self.counted_calls = 0
        self._behaviour = behaviour
        self._recorder = recorder
        self._slots = asyncio.Semaphore(behaviour.slots)
        self._meter = Meter(behaviour.slots)
        self._calls = 0
        self._pauses = asyncio.create_task(self._pause()) if behaviour.pause_s else None

    async def work(self, request: Work, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        self.counted_calls += request.counted
        self._calls += 1
        if self._behaviour.fails:
            self._meter.spend(REFUSING_S)
            self._recorder.set_application_utilization(self._meter.utilization())
            await context.abort(grpc.StatusCode.UNAVAILABLE, "told to fail")
        cold = self._calls <= self._behaviour.cold_calls
        async with self._slots:
            self._meter.take(1)
            try:
                await asyncio.sleep(
                    request.seconds * self._behaviour.slower * (self._behaviour.cold_slower if cold else 1)
                )
            finally:
                self._meter.take(-1)
        self._recorder.set_application_utilization(self._meter.utilization())

    async def _pause(self) -> None:
        while True:
            await asyncio.sleep(self._behaviour.pause_every_s - self._behaviour.pause_s)
            time.sleep(self._behaviour.pause_s)  # the event loop stands still, as under a garbage collector

    def stop(self) -> None:
        if self._pauses is not None:
            self._pauses.cancel()


class Service(grpc.GenericRpcHandler):
    """Hands calls to the worker of the moment."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self._decode = msgspec.json.Decoder(Work).decode
        self._handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(self._work)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        return self._handler if details.method == f"/{SERVICE}/{METHOD}" else None

    async def _work(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        await self.worker.work(self._decode(request), context)
        return b""


@contextlib.asynccontextmanager
async def told() -> AsyncIterator[asyncio.StreamReader]:
    """Read standard input without a thread."""
    lines = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(lines)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    try:
        yield lines
    finally:
        transport.close()


async def serve(address: str) -> None:
    """Listen, and do as told until standard input closes."""
    # One for all turns: what it looks back on is shorter than the part of a turn that does not count.
    recorder = LoadRecorder(window_s=MEASURED_S)
    service = Service(Worker(Behaviour(), recorder))
    server = grpc.aio.server(
        handlers=[service],
        interceptors=[LoadInterceptor(recorder)],
        # Without it a second server could take the same port, and half of the calls.
        options=(("grpc.so_reuseport", 0),),
    )
    add_load_service(server, recorder, min_period_s=MEASURED_S)
    server.add_insecure_port(address)
    await server.start()
    async with told() as lines:
        print("ready", flush=True)
        while line := await lines.readline():
            service.worker.stop()
            print(service.worker.counted_calls, flush=True)
            service.worker = Worker(msgspec.json.decode(line, type=Behaviour), recorder)
    os._exit(0)  # nothing to save, and open calls need no farewell


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
