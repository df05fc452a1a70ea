"""One connection to one endpoint: kept up, watched, and let go of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc
import grpc.aio

# C-core answers a watch on a channel that is destroyed at once; this only keeps a fault of its from blocking a loop.
LAST_EVENT_S = 1.0

READY = grpc.ChannelConnectivity.READY


class Connection:
    """A grpc.aio channel that is asked to reconnect whenever it falls idle.

    Args:
        channel: the channel to the endpoint.
        on_change: told of each change of state, with this connection and the state before.
    """

    def __init__(
        self, channel: grpc.aio.Channel, on_change: Callable[[Connection, grpc.ChannelConnectivity], None]
    ) -> None:
        self.channel = channel
        self.state = grpc.ChannelConnectivity.IDLE
        self.last_error: str | None = None
        self._on_change = on_change

    @property
    def is_ready(self) -> bool:
        return self.state is READY

    async def watch(self) -> None:
        """Follow the state until cancelled or closed.

        A channel goes idle when the server sends GOAWAY or the connection breaks, and then waits for a call before it
        connects again; asking it at once has it back before anyone needs it.
        """
        try:
            while True:
                self._take(self.channel.get_state(try_to_connect=True))
                await self.channel.wait_for_state_change(self.state)
        except grpc.aio.UsageError:
            return  # the channel was closed under the watch: nothing is left to follow
        except asyncio.CancelledError:
            await self._collect_last_event()
            raise

    def _take(self, state: grpc.ChannelConnectivity) -> None:
        if state is self.state:
            return
        before, self.state = self.state, state
        if state is READY:
            self.last_error = None
        self._on_change(self, before)

    async def _collect_last_event(self) -> None:
        """Close the channel, and stay until C-core has answered the watch that was cancelled.

        An answer that arrives when its event loop is closed breaks the delivery of events to every other loop of the
        process. A second watch is answered after the first.
        """
        watch = asyncio.ensure_future(self.channel.wait_for_state_change(self.channel.get_state()))
        await asyncio.sleep(0)
        await self.channel.close()
        await asyncio.wait((watch,), timeout=LAST_EVENT_S)
        if not watch.cancelled():
            watch.exception()
