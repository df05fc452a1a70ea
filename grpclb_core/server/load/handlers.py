"""Handlers of methods, in any of the four arities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import grpc

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")

# By whether requests, and whether responses are streamed: where the function is, and what makes a handler of one.
_ARITIES: dict[tuple[bool, bool], tuple[str, Callable[..., Any]]] = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}


def behavior_of(handler: grpc.RpcMethodHandler[_Request, _Response]) -> Callable[..., Any]:
    """Return the function that serves the calls of a handler."""
    name, _ = _ARITIES[bool(handler.request_streaming), bool(handler.response_streaming)]
    behavior: Callable[..., Any] = getattr(handler, name)
    return behavior


def with_behavior(
    handler: grpc.RpcMethodHandler[_Request, _Response], behavior: Callable[..., Any]
) -> grpc.RpcMethodHandler[_Request, _Response]:
    """Return a handler that differs in its function alone."""
    _, make = _ARITIES[bool(handler.request_streaming), bool(handler.response_streaming)]
    made: grpc.RpcMethodHandler[_Request, _Response] = make(
        behavior, request_deserializer=handler.request_deserializer, response_serializer=handler.response_serializer
    )
    return made
