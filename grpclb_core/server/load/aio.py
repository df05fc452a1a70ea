"""Load reports with every call of a grpc.aio server."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing
from types import TracebackType
from typing import Any, TypeVar

import grpc
import grpc.aio

from .handlers import behavior_of, with_behavior
from .recorder import LoadRecorder, begin_current, steps, within
from .trailers import is_counted, outcome_of, outcome_of_abandoned, with_report

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


class LoadInterceptor(grpc.aio.ServerInterceptor):
    """Counts and times the calls of a grpc.aio server, and sends a report with each, however it ends.

    To be the first of the server's interceptors: one before it that sets trailers would take the report's place.
    Methods that ask about the server (health, reflection, channelz, load reports) are left alone.
    """

    def __init__(self, recorder: LoadRecorder) -> None:
        self._recorder = recorder

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[_Request, _Response] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[_Request, _Response] | None:
        """Find the handler of a call, and put the counting around it."""
        handler = await continuation(handler_call_details)
        if handler is None or not is_counted(handler_call_details.method):
            return handler
        return with_behavior(handler, self._around(handler))

    def _around(self, handler: grpc.RpcMethodHandler[_Request, _Response]) -> Callable[..., Any]:
        """Return a behaviour of the same kind, for grpc.aio looks at the function to tell how it is to be run."""
        behavior = behavior_of(handler)
        is_timed = not (handler.request_streaming or handler.response_streaming)
        if inspect.isasyncgenfunction(behavior):
            return _around_generator(behavior, self._recorder)
        if inspect.iscoroutinefunction(behavior):
            return _around_coroutine(behavior, self._recorder, is_timed)
        if handler.response_streaming:
            return _around_thread_generator(behavior, self._recorder)
        return _around_thread(behavior, self._recorder, is_timed)


def _around_coroutine(behavior: Callable[..., Any], recorder: LoadRecorder, is_timed: bool) -> Callable[..., Any]:
    async def counted(request: Any, context: Any) -> Any:
        with _Context(context, recorder, is_timed) as own:
            begin_current(own.call)
            return await behavior(request, own)

    return counted


def _around_generator(behavior: Callable[..., Any], recorder: LoadRecorder) -> Callable[..., Any]:
    async def counted(request: Any, context: Any) -> AsyncIterator[Any]:
        with _Context(context, recorder, is_timed=False) as own:
            begin_current(own.call)
            async with aclosing(behavior(request, own)) as responses:
                async for response in responses:
                    yield response

    return counted


def _around_thread(behavior: Callable[..., Any], recorder: LoadRecorder, is_timed: bool) -> Callable[..., Any]:
    def counted(request: Any, context: Any) -> Any:
        with _ThreadContext(context, recorder, is_timed) as own, within(own.call):
            return behavior(request, own)

    return counted


def _around_thread_generator(behavior: Callable[..., Any], recorder: LoadRecorder) -> Callable[..., Any]:
    def counted(request: Any, context: Any) -> Iterator[Any]:
        with _ThreadContext(context, recorder, is_timed=False) as own:
            yield from steps(own.call, lambda: behavior(request, own))

    return counted


class _Counted:
    """The context of a handler, which sees to it that the report is among the trailers when the call ends.

    It stands in for grpc.aio's own, of a class that cannot be subclassed. Whatever it does not know is that one's.
    """

    def __init__(self, context: Any, recorder: LoadRecorder, is_timed: bool) -> None:
        self._context = context
        self._recorder = recorder
        self._code: Any = None
        self._theirs: Iterable[tuple[str, str | bytes]] = ()
        if hasattr(context, "trailing_metadata"):  # what an interceptor has set already; handlers in threads see none
            self._theirs = context.trailing_metadata() or ()
        self.call = recorder.begin(is_timed=is_timed)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def set_code(self, code: Any) -> None:
        self._context.set_code(code)
        self._code = code

    def set_trailing_metadata(self, trailing_metadata: Iterable[tuple[str, str | bytes]]) -> None:
        self._context.set_trailing_metadata(trailing_metadata)
        self._theirs = trailing_metadata

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.call.has_ended:
            return  # it was aborted, and the trailers are on their way
        if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
            outcome = outcome_of_abandoned(self._context.time_remaining(), self._recorder.lasted_s(self.call))
        else:
            outcome = outcome_of(self._code, raised=error is not None)
        self._recorder.end(self.call, outcome)
        self._context.set_trailing_metadata(self._with_report(self._theirs))

    def _aborted(self, code: Any, theirs: Iterable[tuple[str, str | bytes]]) -> Any:
        """Count a call that is about to be aborted, and return its trailers."""
        self._recorder.end(self.call, outcome_of(code, raised=True))
        return self._with_report(theirs or self._theirs)  # as grpc.aio has it

    def _with_report(self, theirs: Iterable[tuple[str, str | bytes]]) -> Any:
        return with_report(theirs, self._recorder.report(self.call.costs))


class _Context(_Counted):
    """For a handler that is a coroutine or an asynchronous generator."""

    def __enter__(self) -> _Context:
        return self

    async def abort(
        self, code: Any, details: str = "", trailing_metadata: Iterable[tuple[str, str | bytes]] = ()
    ) -> None:
        await self._context.abort(code, details, self._aborted(code, trailing_metadata))

    async def abort_with_status(self, status: grpc.Status) -> None:
        await self.abort(status.code, status.details, status.trailing_metadata)


class _ThreadContext(_Counted):
    """For a handler that grpc.aio runs in a thread."""

    def __enter__(self) -> _ThreadContext:
        return self

    def abort(self, code: Any, details: str = "", trailing_metadata: Iterable[tuple[str, str | bytes]] = ()) -> None:
        self._context.abort(code, details, self._aborted(code, trailing_metadata))

    def abort_with_status(self, status: grpc.Status) -> None:
        self.abort(status.code, status.details, status.trailing_metadata or ())
