"""Hearing what a server streams, to the end of the stream: the calls of ours that are nobody's call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import anyio
import grpc
import grpc.aio

if TYPE_CHECKING:
    from typing import TypeAlias

    _Call: TypeAlias = "grpc.aio.UnaryStreamCall[bytes, bytes]"

LET_GO_S = 1.0
"""A call that was cancelled ends within a turn or two of the event loop; past this it is not waited for."""


class End(NamedTuple):
    """How a stream ended."""

    code: grpc.StatusCode
    details: str
    was_answered: bool


class Silence(NamedTuple):
    """What is to be done when the first answer of a stream does not come in time; the stream stays."""

    after_s: float
    act: Callable[[], None]


async def follow(
    channel: grpc.aio.Channel,
    method: str,
    request: bytes,
    hear: Callable[[bytes], None],
    silence: Silence | None = None,
) -> End:
    """Open a stream, and hand on what it brings until it ends or this is cancelled; nothing is heard after that.

    `hear` raises ValueError for what is no answer, which ends the stream.

    Raises:
        UsageError: the channel is closed.
    """
    # Bytes go out and come in: a method without serializers passes them on.
    stream: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(method)
    call = stream(request)
    loop = asyncio.get_running_loop()
    timer = loop.call_later(*silence) if silence is not None else None
    is_wanted = True
    was_answered = False

    def take(message: bytes) -> None:
        nonlocal was_answered
        if is_wanted:
            hear(message)
            was_answered = True
            if timer is not None:
                timer.cancel()

    # The reader is a task of its own, for two reasons. grpc.aio raises CancelledError for a stream that the *server*
    # cancelled, and only so is that told from a cancellation of ours on every Python. And a read must not be cancelled
    # while its channel closes, which could leave the connection open for good (grpc#42125): instead the call is
    # cancelled, and the reader finds its end.
    reader = loop.create_task(_read(call, method, take))
    try:
        await asyncio.wait((reader,))
    finally:
        is_wanted = False
        if timer is not None:
            timer.cancel()
        call.cancel()  # does nothing to a call that has ended
        del call  # for the same reason as in `_read`: this may be the traceback of a cancellation
        with anyio.CancelScope(shield=True):
            _, unfinished = await asyncio.wait((reader,), timeout=LET_GO_S)
        for task in unfinished:
            task.cancel()
    code, details = reader.result()
    return End(code, details, was_answered)


async def _read(call: _Call, method: str, take: Callable[[bytes], None]) -> tuple[grpc.StatusCode, str]:
    """Read a stream to its end, and return how it ended.

    No exception leaves: its traceback would hold the call, and a call keeps its connection open even when it has ended.
    """
    try:
        while isinstance(message := await call.read(), bytes):  # the end of a stream is an object of grpc.aio's
            take(message)
    except asyncio.CancelledError:
        return grpc.StatusCode.CANCELLED, "the server, or whoever closed the channel, cancelled it"
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or "no details"
    except ValueError as error:
        return grpc.StatusCode.INTERNAL, f"not an answer of {method[1:]}: {error}"
    return grpc.StatusCode.OK, "the server ended a stream that has no end"
