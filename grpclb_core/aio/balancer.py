"""The balancer as users hold it: with the door for channels they already have."""

from __future__ import annotations

from typing import Any

import grpc.aio

from .. import balancer
from ..errors import ConfigError
from .channel import Channel
from .codecs import Codec, CodecMapping, find_codec, interceptors_after, parse_codecs
from .interceptors import Continuation, routers


class Balancer(balancer.Balancer):
    """Balances calls to one target; used as an async context manager, or closed with `close()`.

    The arguments are those of `grpclb_core.balancer.Balancer`.
    """

    def interceptors(self, codecs: CodecMapping | None = None) -> tuple[grpc.aio.ClientInterceptor, ...]:
        """Return four interceptors, one an arity, that balance the calls of the channel they are given to.

        That channel is never connected, so its target does not matter, and neither do its credentials and options:
        connections are made with the balancer's. They have to stand last among the channel's interceptors.

        Args:
            codecs: by method path (`/package.Service/Method`) or service path (`/package.Service/`), a pair
                (serialize, deserialize). Methods of loaded protobuf descriptors need none.

        Raises:
            ConfigError: a codec cannot be used.
        """
        return routers(_Routes(Channel(self, owner=False), parse_codecs(codecs)).find)

    async def __aenter__(self) -> Balancer:
        await super().__aenter__()
        return self


class _Routes:
    """Remembers the multi-callable of each method that was called through the interceptors."""

    def __init__(self, channel: Channel, codecs: dict[str, Codec]) -> None:
        self._channel = channel
        self._codecs = codecs
        self._known: dict[tuple[str, Any], Any] = {}

    def find(self, arity: str, continuation: Continuation, details: grpc.aio.ClientCallDetails) -> Any:
        known = self._known.get((arity, details.method))
        return known if known is not None else self._learn(arity, continuation, details.method)

    def _learn(self, arity: str, continuation: Continuation, method: str | bytes) -> Any:
        path = method.decode() if isinstance(method, bytes) else method
        skipped = interceptors_after(continuation)
        if skipped:
            raise ConfigError(
                f"{path}: {skipped} interceptor(s) behind ours would never run; put balancer.interceptors() last"
            )
        codec = find_codec(self._codecs, path, continuation)
        multi_callable = getattr(self._channel, arity)(path, codec.serialize, codec.deserialize)
        self._known[arity, method] = multi_callable
        return multi_callable
