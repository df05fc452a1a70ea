"""One connection to one endpoint: kept up, and its state known."""

from __future__ import annotations

import grpc
import grpc.aio


class Connection:
    """A grpc.aio channel that is asked to reconnect whenever it is found idle.

    Its state is read now and then, not watched: a watch that is open when the channel closes is answered only once
    every call of the channel is garbage, by then perhaps to an event loop that is closed (docs/adr/0001).
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.state = grpc.ChannelConnectivity.IDLE
        self.is_new = False
        """Whether the last poll found it ready and the one before did not."""
        self.last_error: str | None = None

    @property
    def is_ready(self) -> bool:
        return self.state is grpc.ChannelConnectivity.READY

    def poll(self) -> bool:
        """Read the state, and return whether it changed.

        A channel goes idle when the server sends GOAWAY or the connection breaks, and then waits for a call before it
        connects again; asking it at once has it back before anyone needs it.
        """
        state = self.channel.get_state(try_to_connect=True)
        self.is_new = False
        if state is self.state:
            return False
        self.state = state
        if self.is_ready:
            self.is_new = True
            self.last_error = None
        return True
