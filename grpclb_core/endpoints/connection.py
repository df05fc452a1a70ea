"""One connection to one endpoint: kept up, watched, and let go of."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import grpc.aio

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
                state = self.channel.get_state(try_to_connect=True)
                if state is not self.state:
                    before, self.state = self.state, state
                    if state is READY:
                        self.last_error = None
                    self._on_change(self, before)
                await self.channel.wait_for_state_change(state)
        except grpc.aio.UsageError:
            return  # the channel was closed under the watch: nothing is left to follow
