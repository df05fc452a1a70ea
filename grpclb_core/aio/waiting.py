"""Calls that must wait for an endpoint before they can start.

A waiting call is what grpc.aio's own call is, only later: once an endpoint is found everything is handed to the call
that was started there, and until then every method behaves as on a call whose connection is not up yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any

import grpc
import grpc.aio

# The words of grpc.aio, by which programs (and our own tickets) recognise a cancellation by the application.
LOCALLY_CANCELLED = "Locally cancelled by application!"
ALREADY_FINISHED = "RPC already finished."

DoneCallback = Callable[[Any], None]


class WaitingCall(grpc.aio.Call):
    """What all four arities share: status, metadata, cancellation and callbacks.

    Args:
        start: the task that waits for an endpoint and returns the call it started there, or raises the final error.
        deadline_s: when the call must be over, on the event loop's clock; None for never.
    """

    def __init__(self, start: asyncio.Task[Any], deadline_s: float | None) -> None:
        self._deadline_s = deadline_s
        self._call: Any = None
        self._failure: BaseException | None = None
        self._callbacks: list[DoneCallback] = []
        self._task = start
        self._task.add_done_callback(self._settle)

    def _settle(self, _: object = None) -> None:
        """Take over what became of the start; whoever asks may do so before the event loop has told."""
        task = self._task
        if self._call is not None or not task.done():
            return
        if self._failure is not None:
            if not task.cancelled() and task.exception() is None:
                task.result().cancel()  # the application cancelled in the very moment the call started
        elif task.cancelled():
            self._fail(_cancelled())
        elif (error := task.exception()) is not None:
            self._fail(error)
        else:
            self._call = task.result()
            callbacks, self._callbacks = self._callbacks, []
            for callback in callbacks:
                self.add_done_callback(callback)

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)

    async def _inner(self) -> Any:
        """Wait for the call that was started, or raise what a caller that reads or awaits has to see."""
        if not self._task.done():
            try:
                await asyncio.wait((self._task,))
            except asyncio.CancelledError:
                self.cancel()
                raise
        self._settle()
        if self._failure is not None:
            if _is_local_cancellation(self._failure):
                raise asyncio.CancelledError
            raise _again(self._failure)
        return self._call

    async def _status(self) -> Any:
        """Wait like `_inner`, but return a failure that has a status instead of raising it."""
        if not self._task.done() and self._failure is None:
            await asyncio.wait((self._task,))
        self._settle()
        if isinstance(self._failure, grpc.aio.AioRpcError):
            return None
        if self._failure is not None:
            raise self._failure
        return self._call

    # grpc.aio.RpcContext and Call

    def cancelled(self) -> bool:
        self._settle()
        if self._call is not None:
            return bool(self._call.cancelled())
        return isinstance(self._failure, grpc.aio.AioRpcError) and self._failure.code() is grpc.StatusCode.CANCELLED

    def done(self) -> bool:
        self._settle()
        return self._failure is not None if self._call is None else bool(self._call.done())

    def cancel(self) -> bool:
        self._settle()
        if self._call is not None:
            return bool(self._call.cancel())
        if self._failure is not None:
            return False
        self._task.cancel()
        self._fail(_cancelled())
        return True

    def time_remaining(self) -> float | None:
        if self._call is not None:
            remaining: float | None = self._call.time_remaining()
            return remaining
        return None if self._deadline_s is None else max(0.0, self._deadline_s - self._task.get_loop().time())

    def add_done_callback(self, callback: DoneCallback) -> None:
        self._settle()
        if self._call is not None:
            self._call.add_done_callback(lambda _: callback(self))
        elif self._failure is not None:
            callback(self)
        else:
            self._callbacks.append(callback)

    async def initial_metadata(self) -> grpc.aio.Metadata:
        call = await self._status()
        return self._error().initial_metadata() if call is None else await call.initial_metadata()

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        call = await self._status()
        return self._error().trailing_metadata() if call is None else await call.trailing_metadata()

    async def code(self) -> grpc.StatusCode:
        call = await self._status()
        return self._error().code() if call is None else await call.code()

    async def details(self) -> str:
        call = await self._status()
        return (self._error().details() or "") if call is None else str(await call.details())

    async def debug_error_string(self) -> str | None:
        call = await self._status()
        return self._error().debug_error_string() if call is None else await call.debug_error_string()

    async def wait_for_connection(self) -> None:
        await (await self._inner()).wait_for_connection()

    def _error(self) -> grpc.aio.AioRpcError:
        assert isinstance(self._failure, grpc.aio.AioRpcError)
        return self._failure

    def __repr__(self) -> str:
        if self._call is not None:
            return repr(self._call)
        return (
            f"<{type(self).__name__} {'that failed: ' + repr(self._failure) if self._failure else 'for an endpoint'}>"
        )


class _UnaryResponse(WaitingCall):
    def __await__(self) -> Generator[Any, None, Any]:
        call = yield from self._inner().__await__()
        return (yield from call.__await__())


class _StreamResponse(WaitingCall):
    _messages: AsyncIterator[Any] | None = None

    def __aiter__(self) -> AsyncIterator[Any]:
        if self._call is not None and self._messages is None:
            self._messages = self._call.__aiter__()
        if self._messages is None:
            self._messages = self._iterate()
        return self._messages

    async def _iterate(self) -> AsyncIterator[Any]:
        async for message in await self._inner():
            yield message

    async def read(self) -> Any:
        return await (await self._inner()).read()


class _StreamRequest(WaitingCall):
    @property
    def _done_writing_flag(self) -> bool:
        # grpc.aio asks this of a call that an interceptor returned.
        return bool(getattr(self._call, "_done_writing_flag", False))

    async def write(self, request: Any) -> None:
        if self._failure is not None:
            raise asyncio.InvalidStateError(ALREADY_FINISHED)
        await (await self._inner()).write(request)

    async def done_writing(self) -> None:
        if self._failure is None:
            await (await self._inner()).done_writing()


class WaitingUnaryUnaryCall(_UnaryResponse, grpc.aio.UnaryUnaryCall[Any, Any]):
    """A unary-unary call that waits for an endpoint."""


class WaitingUnaryStreamCall(_StreamResponse, grpc.aio.UnaryStreamCall[Any, Any]):
    """A unary-stream call that waits for an endpoint."""


class WaitingStreamUnaryCall(_StreamRequest, _UnaryResponse, grpc.aio.StreamUnaryCall[Any, Any]):
    """A stream-unary call that waits for an endpoint."""


class WaitingStreamStreamCall(_StreamRequest, _StreamResponse, grpc.aio.StreamStreamCall[Any, Any]):
    """A stream-stream call that waits for an endpoint."""


def rpc_error(code: grpc.StatusCode, details: str, debug: str | None = None) -> grpc.aio.AioRpcError:
    """Make the error a call ends with when it ends on this side."""
    return grpc.aio.AioRpcError(
        code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=details, debug_error_string=debug
    )


def _again(error: BaseException) -> BaseException:
    """Return what to raise for a failure that is kept: a fresh error, as grpc.aio raises.

    One that is kept and raised gathers the traceback of everyone who waits, and with it holds the call in a cycle.
    """
    if not isinstance(error, grpc.aio.AioRpcError):
        return error
    return grpc.aio.AioRpcError(
        error.code(),
        error.initial_metadata(),
        error.trailing_metadata(),
        details=error.details(),
        debug_error_string=error.debug_error_string(),
    )


def _cancelled() -> grpc.aio.AioRpcError:
    return rpc_error(grpc.StatusCode.CANCELLED, LOCALLY_CANCELLED)


def _is_local_cancellation(error: BaseException) -> bool:
    return (
        isinstance(error, grpc.aio.AioRpcError)
        and error.code() is grpc.StatusCode.CANCELLED
        and error.details() == LOCALLY_CANCELLED
    )
