"""One method of a stub on a balanced channel: how its calls start, at once or later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

import anyio
import grpc
import grpc.aio

from ..balancer import Balancer
from ..native import (
    MultiCallable,
    Slot,
    StreamStreamMultiCallable,
    StreamUnaryMultiCallable,
    UnaryStreamMultiCallable,
    UnaryUnaryMultiCallable,
)
from .waiting import (
    WaitingCall,
    WaitingStreamStreamCall,
    WaitingStreamUnaryCall,
    WaitingUnaryStreamCall,
    WaitingUnaryUnaryCall,
    rpc_error,
)

Serializer = Callable[[Any], bytes]
Deserializer = Callable[[bytes], Any]


class Arity(NamedTuple):
    """What tells the four kinds of method apart."""

    name: str
    """Of the factory on a channel, and of the parts of grpc.aio's names."""
    multi_callable: type[MultiCallable]
    waiting_call: type[WaitingCall]
    timed: bool
    """Whether the length of a call says how fast its server is: with a stream on either side it does not."""


ARITIES: dict[str, Arity] = {
    arity.name: arity
    for arity in (
        Arity("unary_unary", UnaryUnaryMultiCallable, WaitingUnaryUnaryCall, True),
        Arity("unary_stream", UnaryStreamMultiCallable, WaitingUnaryStreamCall, False),
        Arity("stream_unary", StreamUnaryMultiCallable, WaitingStreamUnaryCall, False),
        Arity("stream_stream", StreamStreamMultiCallable, WaitingStreamStreamCall, False),
    )
}


class CallArguments(NamedTuple):
    """What every multi-callable takes, in grpc.aio's order."""

    request: Any
    timeout: float | None
    metadata: Any
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class Method:
    """A method as a stub asked for it: its arity, path and serializers.

    Args:
        balancer: who finds endpoints.
        arity: the kind of method.
        path: the full method name, as `/package.Service/Method`.
        serializer: turns a request into bytes; None if requests are bytes.
        deserializer: turns bytes into a response; None to leave them.
        registered: as generated code passes it: C-core may prepare the method ahead.
    """

    def __init__(
        self,
        balancer: Balancer,
        arity: Arity,
        path: str,
        serializer: Serializer | None,
        deserializer: Deserializer | None,
        registered: bool | None,
    ) -> None:
        self.balancer = balancer
        self.arity = arity
        self.path = path
        self.serializer = serializer
        self.deserializer = deserializer
        self._extra = {"_registered_method": True} if registered else {}
        self.direct: MultiCallable | None = None
        """The multi-callable that bypasses interceptors, once a call came through them."""

    def at(self, path: str) -> Method:
        """Return the same kind of method under another path."""
        return Method(self.balancer, self.arity, path, self.serializer, self.deserializer, False)

    def on_channel(self, channel: grpc.aio.Channel) -> Any:
        """Return the multi-callable of this method on a plain channel."""
        factory = getattr(channel, self.arity.name)
        return factory(self.path, self.serializer, self.deserializer, **self._extra)

    def bind(self, slot: Slot) -> tuple[Any, Callable[[], grpc.ChannelConnectivity]]:
        """Return this method's multi-callable on the channel of the owner of `slot`, and how to ask for its state."""
        channel = self.balancer.channel_of(slot)
        return self.on_channel(channel), channel.get_state

    def start_or_wait(self, multi_callable: MultiCallable, arguments: CallArguments) -> Any:
        """Start a call if an endpoint is ready, else return one that waits for an endpoint.

        Raises:
            grpc.aio.UsageError: the channel is closed, or call credentials are given on an insecure channel.
            WrongEventLoopError: the channel belongs to another event loop, or none is running.
        """
        if self.balancer.is_closed:
            raise grpc.aio.UsageError("Channel is closed.")
        if arguments.credentials is not None and not self.balancer.is_secure:
            raise grpc.aio.UsageError("Call credentials are only valid on secure channels")
        self.balancer.start()
        category = self.balancer.shed()
        if category is not None:
            start = self.balancer.await_start(_drop(f"{self.balancer.target}: dropped, as {category!r} asks for"))
            return self.arity.waiting_call(start, None)
        call = None if self.balancer.probing.is_awaited else multi_callable.start(*arguments)
        if call is not None:
            return call
        deadline_s = None if arguments.timeout is None else asyncio.get_running_loop().time() + arguments.timeout
        start = self.balancer.await_start(
            _start(self.balancer, multi_callable, self.arity.timed, arguments, deadline_s)
        )
        return self.arity.waiting_call(start, deadline_s)


async def _drop(why: str) -> Any:
    raise rpc_error(grpc.StatusCode.UNAVAILABLE, why)


async def _start(
    balancer: Balancer, multi_callable: MultiCallable, timed: bool, arguments: CallArguments, deadline_s: float | None
) -> Any:
    """Wait for an endpoint by gRPC's rules and start the call there; the wait counts towards the deadline.

    A call waits while connections are being made. Once all of them fail it fails too, unless it is to wait for ready.
    """
    with anyio.move_on_after(None if deadline_s is None else deadline_s - asyncio.get_running_loop().time()):
        if balancer.probing.is_awaited:
            await balancer.probing.ask_first()
        while True:
            left = _with_time_left(arguments, deadline_s)
            call = multi_callable.start(*left)
            if call is not None:
                return call
            if balancer.connectivity() is grpc.ChannelConnectivity.TRANSIENT_FAILURE and not arguments.wait_for_ready:
                return await _fail_with_reason(balancer, multi_callable, timed, left)
            await balancer.changed()
    raise rpc_error(
        grpc.StatusCode.DEADLINE_EXCEEDED,
        f"Deadline Exceeded while waiting for an endpoint: {balancer.describe_outage()}",
    )


def _with_time_left(arguments: CallArguments, deadline_s: float | None) -> CallArguments:
    if deadline_s is None:
        return arguments
    return arguments._replace(timeout=deadline_s - asyncio.get_running_loop().time())


async def _fail_with_reason(
    balancer: Balancer, multi_callable: MultiCallable, timed: bool, arguments: CallArguments
) -> Any:
    """Try the call on one of the failing connections, since that is where C-core tells what is wrong with them.

    It fails there at once, before anything is sent; should the connection come up in that very moment, all the better.
    """
    outage = balancer.describe_outage()
    member = balancer.failing()
    if member is None:
        raise rpc_error(grpc.StatusCode.UNAVAILABLE, outage)
    call = multi_callable.start_on(balancer.open_ticket(member, timed), *arguments)
    try:
        await call.wait_for_connection()
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            return call
        member.connection.last_error = error.details()
        raise rpc_error(
            grpc.StatusCode.UNAVAILABLE,
            f"{outage}; last connection error: {error.details()}",
            error.debug_error_string(),
        ) from None
    return call
