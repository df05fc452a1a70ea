"""A steady load on a channel, and what became of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc
import grpc.aio

from support.servers import UNARY_UNARY, eventually

RATE = 200  # calls a second


class Load:
    """Calls at a steady rate; knows which server answered when, and which calls failed."""

    def __init__(self, channel: grpc.aio.Channel, rate: float = RATE, timeout_s: float | None = 5.0) -> None:
        self.calls = 0
        self.answered: list[tuple[float, str]] = []
        self.failures: list[tuple[float, grpc.StatusCode]] = []
        self._method = channel.unary_unary(UNARY_UNARY)
        self._rate = rate
        self._timeout_s = timeout_s
        self._open: set[asyncio.Task[None]] = set()

    async def _call(self) -> None:
        loop = asyncio.get_running_loop()
        self.calls += 1
        try:
            name = await self._method(b"name", timeout=self._timeout_s)
        except grpc.aio.AioRpcError as error:
            self.failures.append((loop.time(), error.code()))
        else:
            self.answered.append((loop.time(), name.decode()))

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        next_s = loop.time()
        while True:
            task = asyncio.create_task(self._call())
            self._open.add(task)
            task.add_done_callback(self._open.discard)
            next_s += 1 / self._rate  # an event loop that was late catches up
            await asyncio.sleep(max(0.0, next_s - loop.time()))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Load]:
        task = asyncio.create_task(self._run())
        try:
            yield self
        finally:
            task.cancel()
            if self._open:
                await asyncio.wait(self._open)

    def first_answer_of(self, name: str, since_s: float) -> float | None:
        return next((time for time, who in self.answered if who == name and time >= since_s), None)

    async def wait_for(self, name: str, since_s: float, within_s: float) -> float:
        """Return the seconds from `since_s` to the first answer of a server."""
        await eventually(lambda: self.first_answer_of(name, since_s) is not None, within_s)
        answered = self.first_answer_of(name, since_s)
        assert answered is not None
        return answered - since_s
