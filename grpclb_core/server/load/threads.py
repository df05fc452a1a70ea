"""Load reports with every call of a synchronous gRPC server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, TypeVar

import grpc

from .handlers import behavior_of, with_behavior
from .recorder import Call, LoadRecorder, steps, within
from .trailers import is_counted, outcome_of, outcome_of_abandoned, with_report

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


class SyncLoadInterceptor(grpc.ServerInterceptor):
    """Counts and times the calls of a `grpc.server`, and sends a report with each, however it ends.

    To be the first of the server's interceptors, as `LoadInterceptor`. Handlers marked as `experimental_non_blocking`
    are left alone: such a one returns before its call ends.
    """

    def __init__(self, recorder: LoadRecorder) -> None:
        self._recorder = recorder

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[_Request, _Response] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[_Request, _Response] | None:
        """Find the handler of a call, and put the counting around it."""
        handler = continuation(handler_call_details)
        if handler is None or not is_counted(handler_call_details.method):
            return handler
        behavior = behavior_of(handler)
        if getattr(behavior, "experimental_non_blocking", False):
            return handler
        if handler.response_streaming:
            return with_behavior(handler, _around_generator(behavior, self._recorder))
        return with_behavior(handler, _around(behavior, self._recorder, is_timed=not handler.request_streaming))


def _around(behavior: Callable[..., Any], recorder: LoadRecorder, is_timed: bool) -> Callable[..., Any]:
    def counted(request: Any, context: grpc.ServicerContext) -> Any:
        with _Counted(context, recorder, is_timed) as call, within(call):
            return behavior(request, context)

    return counted


def _around_generator(behavior: Callable[..., Any], recorder: LoadRecorder) -> Callable[..., Any]:
    def counted(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        with _Counted(context, recorder, is_timed=False) as call:
            yield from steps(call, lambda: behavior(request, context))

    return counted


class _Counted:
    """Counts one call. Status and trailers are sent once the handler has left, also by `abort`: no context of ours."""

    def __init__(self, context: Any, recorder: LoadRecorder, is_timed: bool) -> None:
        self._context = context
        self._recorder = recorder
        self._call = recorder.begin(is_timed=is_timed)

    def __enter__(self) -> Call:
        return self._call

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        context = self._context
        if not context.is_active():
            outcome = outcome_of_abandoned(context.time_remaining(), self._recorder.lasted_s(self._call))
        else:
            outcome = outcome_of(context.code(), raised=error is not None)
        self._recorder.end(self._call, outcome)
        context.set_trailing_metadata(with_report(context.trailing_metadata(), self._recorder.report(self._call.costs)))
