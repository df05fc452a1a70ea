"""Load reports out of band: the server's side of `xds.service.orca.v3.OpenRcaService` (gRFC A51)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import grpc.aio

from ...errors import ConfigError
from ...reports import encode_report
from ...reports.codec import decode_request
from ...reports.keys import METHOD, SERVICE
from .recorder import LoadRecorder

MIN_PERIOD_S = 30.0
"""Shortest time between two reports on a stream unless the server allows less (gRFC A51)."""
LONGEST_PERIOD_S = 86_400.0
"""A client that asks for less than a report a day gets one a day: timers of centuries are nobody's intention."""


def add_load_service(server: grpc.aio.Server, recorder: LoadRecorder, *, min_period_s: float = MIN_PERIOD_S) -> None:
    """Let a grpc.aio server report its load out of band; before it is started.

    A stream brings a report at once, and then one in each period that the client asked for, or in each `min_period_s`
    if that is longer; so it is too for a client that asks for no period, or a negative one.

    Raises:
        ConfigError: the server is not of grpc.aio, or the period not above 0.
    """
    if not isinstance(server, grpc.aio.Server):
        raise ConfigError(
            f"{type(server).__module__}.{type(server).__qualname__} is no server of grpc.aio, which reports out of "
            "band need: on another each client would hold a thread for good"
        )
    if not 0 < min_period_s < float("inf"):
        raise ConfigError(f"min_period_s {min_period_s!r} is not usable; use seconds above 0, as {MIN_PERIOD_S}")

    async def stream(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> AsyncIterator[bytes]:
        try:
            requested_s = decode_request(request).period_s
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"not an OrcaLoadReportRequest: {error}")
        while True:
            yield encode_report(recorder.report())
            await asyncio.sleep(period_s(requested_s, min_period_s))

    # Without serializers, bytes are passed on.
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_stream_rpc_method_handler(stream)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))


def period_s(requested_s: float, min_period_s: float) -> float:
    """Return the seconds between two reports on a stream whose client asked for so many."""
    return max(min_period_s, min(requested_s, LONGEST_PERIOD_S))
