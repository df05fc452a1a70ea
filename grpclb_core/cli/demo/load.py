"""Sends calls through one channel at a fixed rate, and keeps what became of them."""

from __future__ import annotations

import asyncio
import bisect
from collections import Counter, deque

import anyio
import anyio.abc
import grpc
import grpc.aio
import msgspec

from .server import METHOD, SERVICE

DEADLINE_S = 2.0
RECENT_S = 2.0  # what the live view looks back on


class Answer(msgspec.Struct, frozen=True):
    """A call that was answered; times in seconds from the start of the load."""

    due_s: float
    answered_s: float
    server: str
    in_flight: int
    """Other calls at the server as it answered, from this client."""

    @property
    def latency_s(self) -> float:
        return self.answered_s - self.due_s


class Side:
    """One of the two balancers under the load.

    Args:
        name: what it is called in the result.
        title: what it is called on the screen and in the picture.
        channel: balances the calls.
    """

    def __init__(self, name: str, title: str, channel: grpc.aio.Channel) -> None:
        self.name = name
        self.title = title
        self.channel = channel
        self._method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/{METHOD}")
        self.answers: list[Answer] = []
        self.latencies: list[float] = []
        """Seconds, in ascending order."""
        self.start_delays: list[float] = []
        """How many seconds after it was due each call was started: the client's own part of the latency."""
        self.errors: Counter[str] = Counter()
        self.served: Counter[str] = Counter()
        self.first_answer_s: dict[str, float] = {}
        self._recent: deque[Answer] = deque()

    async def load(self, start_s: float, rate: float, seconds: float, offset_s: float) -> None:
        """Start calls at a fixed rate, the first one `offset_s` after the start, and wait until all have ended.

        `start_s` is a time of the event loop's clock.
        """
        loop = asyncio.get_running_loop()
        async with anyio.create_task_group() as calls:
            for number in range(round(seconds * rate)):
                due_s = number / rate + offset_s
                await asyncio.sleep(start_s + due_s - loop.time())
                calls.start_soon(self._call, start_s, due_s)

    async def _call(self, start_s: float, due_s: float) -> None:
        loop = asyncio.get_running_loop()
        self.start_delays.append(loop.time() - start_s - due_s)
        try:
            name, in_flight = (await self._method(b"", timeout=DEADLINE_S)).split()
        except grpc.aio.AioRpcError as error:
            self.errors[error.code().name] += 1
            return
        self._take(Answer(due_s, loop.time() - start_s, name.decode(), int(in_flight)))

    def _take(self, answer: Answer) -> None:
        self.answers.append(answer)
        bisect.insort(self.latencies, answer.latency_s)
        self.served[answer.server] += 1
        self.first_answer_s.setdefault(answer.server, answer.answered_s)
        self._recent.append(answer)

    def recent(self, now_s: float) -> list[Answer]:
        """Return what was answered in the last `RECENT_S`."""
        while self._recent and self._recent[0].answered_s < now_s - RECENT_S:
            self._recent.popleft()
        return list(self._recent)
