"""One endpoint of the set, or one of several connections to it."""

from __future__ import annotations

import grpc

from ..native import Slot
from ..types import Endpoint, Verdict
from .connection import Connection
from .lifecycle import OF_CONNECTION, Event, State, after
from .silence import Silence

# Time that an endpoint is left alone after it fell silent, from the second time on, doubling: brpc isolates a faulty
# server for 0.1 s doubling to 30 s; here finding the fault took seconds already.
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
# After so long without falling silent the count begins anew.
PAUSE_MEMORY_S = 60.0


class Member:
    """An endpoint with what belongs to its identity, its slot, and its connection of the moment.

    The connection can be replaced while it is in use, because of new credentials or because nothing comes back over it:
    a successor is made, and takes over once it is up. The one before ends up in `retired`, where open calls run on.
    """

    def __init__(self, endpoint: Endpoint, slot: Slot, connection: Connection, number: int = 0) -> None:
        self.endpoint = endpoint
        self.number = number
        self.slot = slot
        self.connection = connection
        self.successor: Connection | None = None
        self.retired: list[Connection] = []
        self.state = State.CONNECTING
        self.verdict = Verdict.UNKNOWN
        self.is_trusted = True
        """Whether it is known to be who it should be, or nobody asks."""
        self.silence = Silence()
        self.is_new = False
        """Whether the last poll found another connection up than the one before did."""
        self.is_silent = False
        """Whether it is out because its calls were not answered."""
        self.is_ejected = False
        """Whether it is out because its calls failed."""
        self.outlier_reason: str | None = None
        """Why it is ejected, or on trial after that; None while it is neither."""
        self.connection_failures = 0
        """Connections lost or not made; whoever counts its calls sets it to 0 at a success."""
        self.came_s = 0.0
        """When its connection of the moment was first seen up, on the event loop's clock."""
        self.jitter = 0.0
        """Its own part, from 0 to 1, in what should not happen to all at once."""
        self._falls = 0
        self._fell_s = 0.0

    def undergo(self, event: Event) -> None:
        """Move to the state that follows an event."""
        self.state = after(self.state, event)

    def leave(self) -> None:
        """Take note that it is listed no more; what was found of its calls is for the set it was in."""
        self.undergo(Event.REMOVED)
        self.is_ejected, self.outlier_reason = False, None

    def poll(self, now_s: float) -> bool:
        """Look at the connections; return whether the state changed, or another connection is in use."""
        before, connection = self.state, self.connection
        was_ready = connection.is_ready
        if connection.poll():
            self.connection_failures += was_ready or connection.state is grpc.ChannelConnectivity.TRANSIENT_FAILURE
            self.undergo(OF_CONNECTION[connection.state])
        elif before is State.CONNECTING:
            self.undergo(OF_CONNECTION[connection.state])
        if self.successor is not None:
            self._hand_over(self.successor, now_s)
        self.is_new = self.connection.is_new or self.connection is not connection
        if self.is_new:
            self.is_silent = False
            self.silence.end(self.slot)
        return self.state is not before or self.connection is not connection

    def replace(self, successor: Connection) -> None:
        """Have another connection take over as soon as it is up, or at once if the present one is not."""
        self._drop_successor()
        if self.connection.is_ready:
            self.successor = successor
        else:
            self.retired.append(self.connection)
            self.connection = successor
            self.undergo(Event.DIALLED)

    def fall_silent(self, now_s: float) -> None:
        """Take note that calls are not answered."""
        if now_s - self._fell_s > PAUSE_MEMORY_S:
            self._falls = 0
        self._falls += 1
        self._fell_s = now_s
        self.is_silent = True
        self.undergo(Event.SILENT)

    def recover(self) -> None:
        """Take note that calls are answered again, over the connection that was silent."""
        self._drop_successor()
        self.is_silent = False
        self.undergo(OF_CONNECTION[self.connection.state])

    def _hand_over(self, successor: Connection, now_s: float) -> None:
        successor.poll()
        if self.connection.is_new:
            self._drop_successor()  # the one in use was made anew by itself
        elif successor.is_ready and now_s >= self._fell_s + self._pause_s():
            self.retired.append(self.connection)
            self.connection, self.successor = successor, None
            self.undergo(Event.CONNECTED)

    def _pause_s(self) -> float:
        return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self._falls - 2, 10)) if self._falls > 1 else 0.0

    def _drop_successor(self) -> None:
        if self.successor is not None:
            self.retired.append(self.successor)
            self.successor = None
