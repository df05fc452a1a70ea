"""The drop-in channel: grpc.aio's interface over one channel for each endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import grpc
import grpc.aio

from ..balancer import Balancer, TargetLike
from ..config import ChannelOption, Config
from ..errors import ConfigError
from ..identity import ReloadingCredentials
from ..native import MultiCallable
from ..policies import Policy
from .interceptors import Continuation, routers, sort_by_arity
from .method import ARITIES, CallArguments, Deserializer, Method, Serializer

_method: ContextVar[Method] = ContextVar("grpclb_core.method")


class Channel(grpc.aio.Channel):
    """A `grpc.aio.Channel` that balances each call.

    Args:
        balancer: who finds endpoints; the channel closes it.
        interceptors: run in order around every call, before an endpoint is picked.
        owner: whether the balancer is this channel's own, and ends with it.
    """

    # Client libraries that Google generates append to these lists after the channel was made.
    _unary_unary_interceptors: list[grpc.aio.ClientInterceptor]
    _unary_stream_interceptors: list[grpc.aio.ClientInterceptor]
    _stream_unary_interceptors: list[grpc.aio.ClientInterceptor]
    _stream_stream_interceptors: list[grpc.aio.ClientInterceptor]

    def __init__(
        self,
        balancer: Balancer,
        interceptors: Sequence[grpc.aio.ClientInterceptor] | None = None,
        *,
        owner: bool = True,
    ) -> None:
        self._balancer = balancer
        self._owner = owner
        for name, chosen in sort_by_arity(interceptors or ()).items():
            setattr(self, f"_{name}_interceptors", chosen)
        self._intercepting: dict[tuple[grpc.aio.ClientInterceptor, ...], grpc.aio.Channel] = {}

    @property
    def balancer(self) -> Balancer:
        """The balancer behind this channel; its `snapshot()` tells how the endpoints are doing."""
        return self._balancer

    async def __aenter__(self) -> Channel:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    def __del__(self) -> None:
        if getattr(self, "_owner", False):
            self._balancer.abandon()

    async def close(self, grace: float | None = None) -> None:
        """Close the channel; calls may run on for `grace` seconds, without it they are cancelled at once.

        New calls are refused from now on, with `grpc.aio.UsageError`.

        Raises:
            ValueError: `grace` is negative.
        """
        await asyncio.gather(
            self._balancer.close(grace), *(channel.close(grace) for channel in self._intercepting.values())
        )

    # Connectivity

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Return the state of the target as a whole: READY as soon as one endpoint is."""
        state = self._balancer.state
        if try_to_connect and not self._balancer.is_closed:
            self._balancer.start()
        return state

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait until the state is another than the one given.

        Raises:
            grpc.aio.UsageError: the channel is closed.
        """
        if self._balancer.is_closed:
            raise grpc.aio.UsageError("Channel is closed.")
        while self._balancer.state is last_observed_state:
            await self._balancer.changed()

    async def channel_ready(self) -> None:
        """Connect, and wait until the first endpoint is ready."""
        while (state := self.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
            await self.wait_for_state_change(state)

    # Methods

    def unary_unary(
        self,
        method: str,
        request_serializer: Serializer | None = None,
        response_deserializer: Deserializer | None = None,
        _registered_method: bool | None = False,
    ) -> Any:
        return self._multi_callable(
            "unary_unary", method, request_serializer, response_deserializer, _registered_method
        )

    def unary_stream(
        self,
        method: str,
        request_serializer: Serializer | None = None,
        response_deserializer: Deserializer | None = None,
        _registered_method: bool | None = False,
    ) -> Any:
        return self._multi_callable(
            "unary_stream", method, request_serializer, response_deserializer, _registered_method
        )

    def stream_unary(
        self,
        method: str,
        request_serializer: Serializer | None = None,
        response_deserializer: Deserializer | None = None,
        _registered_method: bool | None = False,
    ) -> Any:
        return self._multi_callable(
            "stream_unary", method, request_serializer, response_deserializer, _registered_method
        )

    def stream_stream(
        self,
        method: str,
        request_serializer: Serializer | None = None,
        response_deserializer: Deserializer | None = None,
        _registered_method: bool | None = False,
    ) -> Any:
        return self._multi_callable(
            "stream_stream", method, request_serializer, response_deserializer, _registered_method
        )

    def _multi_callable(
        self,
        arity: str,
        path: str,
        serializer: Serializer | None,
        deserializer: Deserializer | None,
        registered: bool | None,
    ) -> Any:
        method = Method(self._balancer, ARITIES[arity], path, serializer, deserializer, registered)
        interceptors: list[grpc.aio.ClientInterceptor] = getattr(self, f"_{arity}_interceptors")
        return self._make(method, interceptors)

    def _make(self, method: Method, interceptors: list[grpc.aio.ClientInterceptor]) -> Any:
        def otherwise(multi_callable: MultiCallable, *arguments: Any) -> Any:
            if interceptors:
                return self._intercept(method, interceptors, CallArguments(*arguments))
            return method.start_or_wait(multi_callable, CallArguments(*arguments))

        multi_callable = method.arity.multi_callable(
            self._balancer.current, method.bind, otherwise, interceptors, method.arity.timed
        )
        self._balancer.register(multi_callable)
        return multi_callable

    # Interceptors of the user

    def _intercept(
        self, method: Method, interceptors: list[grpc.aio.ClientInterceptor], arguments: CallArguments
    ) -> Any:
        """Run a call through grpc.aio's own interceptor chain, with a router of ours at the end of it.

        An endpoint is picked when the chain comes to its end, so an interceptor that retries gets a new pick.
        """
        if self._balancer.is_closed:
            raise grpc.aio.UsageError("Channel is closed.")
        self._balancer.start()
        chain = tuple(interceptors)
        channel = self._intercepting.get(chain)
        if channel is None:
            # Never connected: the router does not call its continuation. Made anew when someone appends to a list.
            channel = grpc.aio.insecure_channel(self._balancer.target, interceptors=[*chain, *routers(self._route)])
            self._intercepting[chain] = channel
        request, *others = arguments
        keywords = dict(zip(CallArguments._fields[1:], others, strict=True))
        # The call's task copies this context when it is made, so the router sees the method of its own call.
        token = _method.set(method)
        try:
            return method.on_channel(channel)(request, **keywords)
        finally:
            _method.reset(token)

    def _route(self, arity: str, continuation: Continuation, details: grpc.aio.ClientCallDetails) -> Any:
        """Return the multi-callable of an intercepted call, under the path that the interceptors left it with."""
        method = _method.get()
        path = details.method.decode() if isinstance(details.method, bytes) else details.method
        if path != method.path:
            method = method.at(path)
        if method.direct is None:
            method.direct = self._make(method, [])
        return method.direct


def insecure_channel(
    target: TargetLike,
    options: Sequence[ChannelOption] | None = None,
    compression: grpc.Compression | None = None,
    interceptors: Sequence[grpc.aio.ClientInterceptor] | None = None,
    *,
    policy: Policy | str | None = None,
    config: Config | Mapping[str, object] | None = None,
) -> Channel:
    """Make a balanced channel without transport security; the first four arguments are those of grpc.aio's.

    Args:
        target: a gRPC target, as `dns:///greeter:50051`, a list of endpoints, or a resolver.
        options: channel options, passed on to every connection.
        compression: default compression of the calls.
        interceptors: run in order around every call.
        policy: how endpoints are chosen: an object such as `RoundRobin()`, a name, or None for what a service config
            says, and `P2cEwma()` without one.
        config: a `Config` or a mapping of its fields.

    Raises:
        ConfigError: target, policy or config cannot be used.
    """
    return Channel(Balancer(target, None, options, compression, policy=policy, config=config), interceptors)


def secure_channel(
    target: TargetLike,
    credentials: grpc.ChannelCredentials | ReloadingCredentials,
    options: Sequence[ChannelOption] | None = None,
    compression: grpc.Compression | None = None,
    interceptors: Sequence[grpc.aio.ClientInterceptor] | None = None,
    *,
    policy: Policy | str | None = None,
    config: Config | Mapping[str, object] | None = None,
) -> Channel:
    """Make a balanced channel over TLS; as `insecure_channel`, with credentials.

    Connections are made to addresses, but certificates are checked for the name in the target. With
    `ReloadingCredentials` they are made anew, before the old ones go, whenever the files change.

    Raises:
        ConfigError: target, policy or config cannot be used.
        IdentityError: the files of the credentials cannot be used.
    """
    if credentials is None:
        raise ConfigError("credentials: None would mean plaintext; give channel credentials, or use insecure_channel()")
    return Channel(Balancer(target, credentials, options, compression, policy=policy, config=config), interceptors)
