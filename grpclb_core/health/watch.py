"""Asking a server about itself, by `grpc.health.v1.Health/Watch`, as gRFC A17 has it.

https://github.com/grpc/proposal/blob/master/A17-client-side-health-checking.md, with two additions. A server that does
not answer the first question in time is NOT_SERVING, where A17 would wait for ever. And a stream that ends right after
an answer is not opened again at once, where A17 would have client and server chase each other.
"""

from __future__ import annotations

import random
from typing import Protocol

import anyio
import grpc
import grpc.aio

from ..backoff import pause_s
from ..config import HealthConfig
from ..follow import Silence, follow
from ..types import Verdict
from .codec import WATCH, ServingStatus, decode_response, encode_request


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
    request = encode_request(service)
    silence = Silence(config.answer_timeout_s, lambda: told.tell_silence(config.answer_timeout_s))
    failures = 0  # streams in a row that ended without an answer
    while True:
        started_s = anyio.current_time()
        try:
            end = await follow(
                channel, WATCH, request, lambda answer: told.tell_status(decode_response(answer), service), silence
            )
        except grpc.aio.UsageError:
            return  # the channel is closed
        if end.code is grpc.StatusCode.UNIMPLEMENTED:
            told.tell(Verdict.SERVING, "the server has no health service, so it counts as healthy")
            return
        told.tell(Verdict.NOT_SERVING, f"the health stream ended with {end.code.name}: {end.details}")
        failures = 0 if end.was_answered else failures + 1
        lasted_s = anyio.current_time() - started_s
        await anyio.sleep(pause_s(failures, lasted_s, config.initial_backoff_s, config.max_backoff_s, rng.random()))


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
