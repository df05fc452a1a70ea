"""The connections to the control plane: one stream, opened again when it is cut, and servers to fall back on.

Needs grpc.aio, and hence asyncio.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import anyio
import grpc
import grpc.aio
from anyio.abc import TaskGroup

from ...config import XdsConfig
from ...errors import ConfigError
from ..schedule import backoff_s
from . import authority_of
from .assignment import RejectedError
from .bootstrap import Bootstrap
from .connect import open_channel
from .stream import DELTA, SOTW, Step, node_message
from .subscription import Subscription

if TYPE_CHECKING:
    from .. import Sink

    _Call: TypeAlias = grpc.aio.StreamStreamCall[bytes, bytes]


class XdsResolver:
    """Subscribes to one cluster.

    `clock` (seconds, monotonic) tells how long a stream lasted; `rng` draws from [0, 1) for jitter.

    Raises:
        ConfigError: the node of the bootstrap cannot be sent.
    """

    def __init__(
        self,
        cluster: str,
        bootstrap: Bootstrap,
        config: XdsConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self.authority = authority_of(cluster)
        self._cluster = cluster
        self._servers = bootstrap.xds_servers
        self._node = node_message(bootstrap.node)
        self._config = config
        self._dialect = DELTA if config.delta else SOTW
        self._clock = clock
        self._rng = rng

    async def run(self, sink: Sink) -> None:
        """Report until cancelled."""
        subscription = Subscription(self._cluster, self._servers, sink, self._config.empty_hold_s)
        await self._follow(0, subscription)

    def refresh(self) -> None:
        """Do nothing: changes are told as they come, and a stream that was cut is opened again at its own pace."""

    async def _follow(self, index: int, subscription: Subscription) -> None:
        """Keep a stream to one server; and to the next one while this one is silent and nothing is known (gRFC A71)."""
        ceiling_s = self._config.max_backoff_s
        failures = 0
        fallback = anyio.CancelScope()  # of the servers after this one
        fallen_back = False
        async with anyio.create_task_group() as tasks:
            while True:
                stream = _Stream(index, subscription, fallback.cancel)
                reason = await self._run_stream(stream)
                # gRFC A57: servers end streams now and then to spread their clients, which is a fault only if they said
                # nothing. One that knows no more than we do has nothing to say; it is judged by how long it stayed.
                lasted = stream.connected_s is not None and self._clock() - stream.connected_s > ceiling_s
                if stream.answered:
                    fallback, fallen_back = anyio.CancelScope(), False
                elif not lasted:
                    subscription.lose(index, reason)
                    if subscription.known is None and not fallen_back and index + 1 < len(self._servers):
                        fallen_back = True
                        tasks.start_soon(self._fall_back, index + 1, subscription, fallback)
                failures = 0 if stream.accepted or lasted else failures + 1
                await anyio.sleep(backoff_s(max(0, failures - 1), 0.0, ceiling_s, self._rng()))

    async def _fall_back(self, index: int, subscription: Subscription, scope: anyio.CancelScope) -> None:
        with scope:
            await self._follow(index, subscription)

    async def _run_stream(self, stream: _Stream) -> str:
        """Talk to a server until the stream is cut, and say why it was."""
        try:
            channel = open_channel(self._servers[stream.index])
        except (ConfigError, OSError) as error:
            return f"cannot connect: {error}"
        async with channel, anyio.create_task_group() as tasks:
            call: _Call = channel.stream_stream(self._dialect.method)()
            reason = await self._talk(stream, call, tasks)
            tasks.cancel_scope.cancel()
        return reason

    async def _talk(self, stream: _Stream, call: _Call, tasks: TaskGroup) -> str:
        subscription, config = stream.subscription, self._config
        version = subscription.versions[stream.index]
        try:
            await _send(call, self._dialect.first(self._cluster, version, self._node))
            stream.connected_s = self._clock()
            if subscription.known is None:
                stream.later(
                    tasks,
                    config.resource_timeout_s,
                    partial(subscription.expire, stream.index, config.resource_timeout_s),
                )
            while isinstance(body := await call.read(), bytes):
                step = self._dialect.answer(self._cluster, version, body)
                version = step.version
                pending = stream.take(step)
                if pending is not None:
                    stream.later(tasks, config.empty_hold_s, pending)
                if step.reply is not None:
                    await _send(call, step.reply)
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
        except (RejectedError, _LostError) as error:
            return str(error)
        return "the server ended the stream"


class _Stream:
    """What happened on one stream, from its first request to its end."""

    def __init__(self, index: int, subscription: Subscription, on_answer: Callable[[], None]) -> None:
        self.index = index
        self.subscription = subscription
        self.connected_s: float | None = None
        self.answered = False
        self.accepted = False
        self._on_answer = on_answer
        self._told = False  # whether an answer of this stream said what the set is
        self._alarm = anyio.CancelScope()

    def take(self, step: Step) -> Callable[[], None] | None:
        """Take an answer, as `Subscription.take` does; what was to be done later is off if it concerns the cluster."""
        if step.reply is not None:
            self.answered = True
            self.accepted = self.accepted or not step.problem
            self._on_answer()
        told = step.removed or step.found is not None
        if told or step.problem:
            self._alarm.cancel()
        first, self._told = not self._told, self._told or told
        return self.subscription.take(self.index, step, first)

    def later(self, tasks: TaskGroup, wait_s: float, action: Callable[[], None]) -> None:
        """Do something after a while, unless an answer or the end of the stream comes first."""
        self._alarm = anyio.CancelScope()
        tasks.start_soon(_after, wait_s, action, self._alarm)


class _LostError(Exception):
    """Raised when a stream ended and nobody knows why."""


async def _send(call: _Call, request: bytes) -> None:
    """Send a request; that the stream has ended is for the next `read` to tell, which knows why.

    Raises:
        _LostError: it ended just now, in which case grpc.aio forgets the reason.
        AioRpcError: there is no connection.
    """
    try:
        await call.write(request)
    except asyncio.InvalidStateError:
        return
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.INTERNAL:
            raise
        raise _LostError("the stream ended while a request was on its way") from error


async def _after(wait_s: float, action: Callable[[], None], scope: anyio.CancelScope) -> None:
    with scope:
        await anyio.sleep(wait_s)
        action()
