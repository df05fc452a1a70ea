"""The four interceptors that send calls where a balancer says, whatever channel they came from.

grpc.aio sorts an interceptor by the first of its base classes that fits, so each arity needs an object of its own.
They never call their continuation: the channel they hang on is not connected.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import grpc
import grpc.aio

from .method import ARITIES

Continuation = Callable[..., Awaitable[Any]]
Find = Callable[[str, Continuation, grpc.aio.ClientCallDetails], Callable[..., Any]]
"""Tells the multi-callable for a call: given its arity, the continuation, and the details."""

KINDS: dict[str, type[grpc.aio.ClientInterceptor]] = {
    "unary_unary": grpc.aio.UnaryUnaryClientInterceptor,
    "unary_stream": grpc.aio.UnaryStreamClientInterceptor,
    "stream_unary": grpc.aio.StreamUnaryClientInterceptor,
    "stream_stream": grpc.aio.StreamStreamClientInterceptor,
}


class _Router:
    def __init__(self, find: Find) -> None:
        self._find = find


class UnaryUnaryRouter(_Router, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(
        self, continuation: Continuation, details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        return _send(self._find("unary_unary", continuation, details), details, request)


class UnaryStreamRouter(_Router, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(
        self, continuation: Continuation, details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        return _send(self._find("unary_stream", continuation, details), details, request)


class StreamUnaryRouter(_Router, grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(
        self, continuation: Continuation, details: grpc.aio.ClientCallDetails, request_iterator: Any
    ) -> Any:
        return _send(self._find("stream_unary", continuation, details), details, request_iterator)


class StreamStreamRouter(_Router, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(
        self, continuation: Continuation, details: grpc.aio.ClientCallDetails, request_iterator: Any
    ) -> Any:
        return _send(self._find("stream_stream", continuation, details), details, request_iterator)


def routers(find: Find) -> tuple[grpc.aio.ClientInterceptor, ...]:
    """Make the four interceptors around one way to find a multi-callable."""
    return UnaryUnaryRouter(find), UnaryStreamRouter(find), StreamUnaryRouter(find), StreamStreamRouter(find)


def sort_by_arity(
    interceptors: Iterable[grpc.aio.ClientInterceptor],
) -> dict[str, list[grpc.aio.ClientInterceptor]]:
    """Sort interceptors as grpc.aio does: each counts for the first arity it fits.

    Raises:
        ValueError: an object is no client interceptor of grpc.aio, as grpc.aio itself reports it.
    """
    sorted_ones: dict[str, list[grpc.aio.ClientInterceptor]] = {name: [] for name in ARITIES}
    for interceptor in interceptors:
        arity = next((name for name, kind in KINDS.items() if isinstance(interceptor, kind)), None)
        if arity is None:
            kinds = ", ".join(kind.__name__ for kind in KINDS.values())
            raise ValueError(f"interceptor {interceptor!r} is none of {kinds}")
        sorted_ones[arity].append(interceptor)
    return sorted_ones


def _send(method: Callable[..., Any], details: grpc.aio.ClientCallDetails, request: Any) -> Any:
    return method(
        request,
        timeout=details.timeout,
        metadata=details.metadata,
        credentials=details.credentials,
        wait_for_ready=details.wait_for_ready,
    )
