"""Asking a server for its load out of band, by `xds.service.orca.v3.OpenRcaService/StreamCoreMetrics` (gRFC A51).

https://github.com/grpc/proposal/blob/master/A51-custom-backend-metrics.md. The stream is opened on the connection whose
server it asks about. It is not a call: it is not picked, counted in flight or timed.
"""

from __future__ import annotations

import random
from typing import NamedTuple, Protocol

import anyio
import grpc
import grpc.aio

from ..backoff import pause_s
from ..follow import follow
from ..types import LoadReport
from .codec import encode_request
from .keys import STREAM
from .trust import read_report

INITIAL_BACKOFF_S = 1.0
"""The first wait after a stream without a report, and the least time between two beginnings; as in C-core."""
MAX_BACKOFF_S = 120.0
"""The longest such wait; as in C-core (`SubchannelStreamClient`)."""
PROBE_PERIOD_S = 60.0
"""What a probe asks for. It takes the first report, which comes at once, and is gone before there is a second."""


class Listener(Protocol):
    """Takes what a watch brings."""

    def hear(self, report: LoadReport) -> None:
        """Take a report that can be believed."""

    def ignore(self, reason: str) -> None:
        """Count a report that cannot, and hear in one clause why not."""


class Probe(NamedTuple):
    """What came of asking once."""

    report: LoadReport | None
    fault: str = ""
    """Why there is no report."""
    is_unsupported: bool = False
    """The server has no such service: it need not be asked again."""
    is_ignored: bool = False
    """There is a report, and it cannot be believed."""


async def watch_load(
    channel: grpc.aio.Channel,
    listener: Listener,
    *,
    period_s: float,
    rng: random.Random,
    initial_backoff_s: float = INITIAL_BACKOFF_S,
    max_backoff_s: float = MAX_BACKOFF_S,
) -> str:
    """Follow what the server at the other end of a channel reports each `period_s`, until cancelled.

    The server may report less often: most take no period below 30 s unless told to. To be started when a connection is
    up and cancelled when it is lost, before its channel is drained or closed. Returns, and says why in one clause, if
    the server has no such service or the channel is found closed. Whichever way it ends, no call of it is left open.

    Raises:
        ValueError: the period is negative, no number, or beyond ten thousand years.
    """
    request = encode_request(period_s)
    failures = 0  # streams in a row that ended without an answer
    while True:
        started_s = anyio.current_time()
        try:
            end = await follow(channel, STREAM, request, lambda message: _tell(listener, message))
        except grpc.aio.UsageError:
            return "the channel is closed"
        if end.code is grpc.StatusCode.UNIMPLEMENTED:
            return "the server does not report its load out of band"
        failures = 0 if end.was_answered else failures + 1
        lasted_s = anyio.current_time() - started_s
        await anyio.sleep(pause_s(failures, lasted_s, initial_backoff_s, max_backoff_s, rng.random()))


def _tell(listener: Listener, message: bytes) -> None:
    try:
        report = read_report(message)
    except ValueError as error:
        listener.ignore(str(error))
    else:
        listener.hear(report)


async def probe_load(channel: grpc.aio.Channel, timeout_s: float) -> Probe:
    """Ask a server for its load once, and wait for the answer no longer than `timeout_s`; nothing is raised."""
    probe = Probe(None, f"no report within {timeout_s} s")

    def take(message: bytes) -> None:
        nonlocal probe
        try:
            probe = Probe(read_report(message))
        except ValueError as error:
            probe = Probe(None, str(error), is_ignored=True)
        scope.cancel()  # one is enough

    with anyio.move_on_after(timeout_s) as scope:
        try:
            end = await follow(channel, STREAM, encode_request(PROBE_PERIOD_S), take)
        except grpc.aio.UsageError:
            return Probe(None, "the channel is closed")
        if not end.was_answered:
            fault = f"the stream ended with {end.code.name}: {end.details}"
            probe = Probe(None, fault, is_unsupported=end.code is grpc.StatusCode.UNIMPLEMENTED)
    return probe
