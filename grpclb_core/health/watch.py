"""Asking a server about itself, by `grpc.health.v1.Health/Watch`, as gRFC A17 has it.

https://github.com/grpc/proposal/blob/master/A17-client-side-health-checking.md, with two additions. A server that does
not answer the first question in time is NOT_SERVING, where A17 would wait for ever. And a stream that ends right after
an answer is not opened again at once, where A17 would have client and server chase each other.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

import anyio
import grpc
import grpc.aio

from ..backoff import backoff_s
from ..config import HealthConfig
from ..types import Verdict
from .codec import WATCH, ServingStatus, decode_response, encode_request

if TYPE_CHECKING:
    from typing import TypeAlias

    _Call: TypeAlias = "grpc.aio.UnaryStreamCall[bytes, bytes]"

LET_GO_S = 1.0
"""A call that was cancelled ends within a turn or two of the event loop; past this it is not waited for."""


class Report(Protocol):
    """Takes what a watch finds out."""

    def __call__(self, verdict: Verdict, reason: str) -> None:
        """Hear the new verdict, and in one clause why it is so."""


async def watch_health(
    channel: grpc.aio.Channel, service: str, report: Report, *, rng: random.Random, config: HealthConfig
) -> None:
    """Follow what the server at the other end of a channel says of `service`, until cancelled.

    To be started when a connection is up and cancelled when it is lost, before its channel is drained or closed; the
    verdict is taken to be PENDING before the first report. Returns if the server has no health service, which is a
    SERVING one from then on, or if the channel is found closed. Whichever way it ends, no call of it is left open.
    """
    told = _Told(report)
    failures = 0  # streams in a row that ended without an answer
    while True:
        started_s = anyio.current_time()
        try:
            end = await _follow(channel, service, told, config.answer_timeout_s)
        except grpc.aio.UsageError:
            return  # the channel is closed
        if end.code is grpc.StatusCode.UNIMPLEMENTED:
            told.tell(Verdict.SERVING, "the server has no health service, so it counts as healthy")
            return
        told.tell(Verdict.NOT_SERVING, f"the health stream ended with {end.code.name}: {end.details}")
        failures = 0 if end.was_answered else failures + 1
        await anyio.sleep(pause_s(failures, anyio.current_time() - started_s, config, rng.random()))


def pause_s(failures: int, lasted_s: float, config: HealthConfig, random: float) -> float:
    """Seconds to wait after a stream that ended; `random` is drawn from [0, 1).

    Args:
        failures: streams in a row that ended without an answer, this one included; 0 if this one was answered.
        lasted_s: how long this one was open. After an answer the next one follows at once, yet no two begin within the
            first backoff of each other.
    """
    wait_s = backoff_s(max(failures - 1, 0), config.initial_backoff_s, config.max_backoff_s, random)
    return wait_s if failures else max(0.0, wait_s - lasted_s)


class _End(NamedTuple):
    """How a stream ended."""

    code: grpc.StatusCode
    details: str
    was_answered: bool


class _Told:
    """What has been reported: a verdict is told once, until another takes its place."""

    def __init__(self, report: Report) -> None:
        self.verdict = Verdict.PENDING
        self._report = report

    def tell(self, verdict: Verdict, reason: str) -> None:
        if verdict is not self.verdict:
            self.verdict = verdict
            self._report(verdict, reason)

    def tell_status(self, status: int, service: str) -> None:
        """Report what an answer says; nothing but SERVING is good enough."""
        if status == ServingStatus.SERVING:
            self.tell(Verdict.SERVING, "the server says SERVING")
        elif status == ServingStatus.SERVICE_UNKNOWN:
            known_as = "is that the name it sets its health for?"
            self.tell(Verdict.NOT_SERVING, f"the server does not know the service {service!r}; {known_as}")
        else:
            name = ServingStatus(status).name if status in set(ServingStatus) else str(status)
            self.tell(Verdict.NOT_SERVING, f"the server says {name}")

    def tell_silence(self, timeout_s: float) -> None:
        """Report that nothing was heard in time, unless an earlier stream had brought something."""
        if self.verdict is Verdict.PENDING:
            self.tell(Verdict.NOT_SERVING, f"the server has not answered for {timeout_s} s; its answer still counts")


async def _follow(channel: grpc.aio.Channel, service: str, told: _Told, timeout_s: float) -> _End:
    """Open one stream and report what it brings, to its end.

    Raises:
        UsageError: the channel is closed.
    """
    # Bytes go out and come in: a method without serializers passes them on.
    method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(WATCH)
    call = method(encode_request(service))
    loop = asyncio.get_running_loop()
    silence = loop.call_later(timeout_s, told.tell_silence, timeout_s)
    is_wanted = True
    was_answered = False

    def hear(message: bytes) -> None:
        nonlocal was_answered
        if is_wanted:
            status = decode_response(message)
            was_answered = True
            silence.cancel()
            told.tell_status(status, service)

    # The reader is a task of its own, for two reasons. grpc.aio raises CancelledError for a stream that the *server*
    # cancelled, and only so is that told from a cancellation of ours on every Python. And a read must not be cancelled
    # while its channel closes, which could leave the connection open for good (grpc#42125): instead the call is
    # cancelled, and the reader finds its end.
    reader = loop.create_task(_read(call, hear))
    try:
        await asyncio.wait((reader,))
    finally:
        is_wanted = False
        silence.cancel()
        call.cancel()  # does nothing to a call that has ended
        del call  # for the same reason as in `_read`: this may be the traceback of a cancellation
        with anyio.CancelScope(shield=True):
            _, unfinished = await asyncio.wait((reader,), timeout=LET_GO_S)
        for task in unfinished:
            task.cancel()
    code, details = reader.result()
    return _End(code, details, was_answered)


async def _read(call: _Call, hear: Callable[[bytes], None]) -> tuple[grpc.StatusCode, str]:
    """Read a stream to its end, and return how it ended.

    No exception leaves: its traceback would hold the call, and a call keeps its connection open even when it has ended.
    """
    try:
        while isinstance(message := await call.read(), bytes):  # the end of a stream is an object of grpc.aio's
            hear(message)
    except asyncio.CancelledError:
        return grpc.StatusCode.CANCELLED, "the server, or whoever closed the channel, cancelled it"
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or "no details"
    except ValueError as error:
        return grpc.StatusCode.INTERNAL, f"not an answer of grpc.health.v1: {error}"
    return grpc.StatusCode.OK, "a health stream has no end"
