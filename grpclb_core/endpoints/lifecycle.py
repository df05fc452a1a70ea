r"""The life of an endpoint, as one table.

    CONNECTING -- READY -- IDLE -- FAILING    while the resolver lists it: as its connection goes
        \___________|________|________/
                    DRAINING                  no longer listed: open calls run on, no new ones come
                       |
                      GONE                    closed; its slot is remembered for a while

Only a READY endpoint gets calls. IDLE is a connection that ended without a fault (GOAWAY, mostly); it is asked to
connect again at once. FAILING is one that could not be made, and C-core tries again by gRPC's connection backoff; or
one over which nothing comes back, and another is made in its place.
"""

from __future__ import annotations

from enum import Enum

import grpc


class State(Enum):
    """Where an endpoint stands; the values are the words of snapshots."""

    CONNECTING = "connecting"
    READY = "ready"
    IDLE = "idle"
    FAILING = "failing"
    DRAINING = "draining"
    GONE = "gone"


class Event(Enum):
    """What can happen to an endpoint."""

    DIALLED = "its connection is being made"
    CONNECTED = "its connection is up"
    DISCONNECTED = "its connection ended without a fault"
    REFUSED = "its connection could not be made, or broke"
    SILENT = "its connection seems up, but calls are not answered"
    REMOVED = "the resolver lists it no more"
    RETURNED = "the resolver lists it again"
    DRAINED = "its last call ended, or its time is up"


OF_CONNECTION = {
    grpc.ChannelConnectivity.IDLE: Event.DISCONNECTED,
    grpc.ChannelConnectivity.CONNECTING: Event.DIALLED,
    grpc.ChannelConnectivity.READY: Event.CONNECTED,
    grpc.ChannelConnectivity.TRANSIENT_FAILURE: Event.REFUSED,
    grpc.ChannelConnectivity.SHUTDOWN: Event.REFUSED,
}
"""The event that a state of C-core's connection stands for."""

_LISTED = {
    Event.DIALLED: State.CONNECTING,
    Event.CONNECTED: State.READY,
    Event.DISCONNECTED: State.IDLE,
    Event.REFUSED: State.FAILING,
    Event.SILENT: State.FAILING,
    Event.REMOVED: State.DRAINING,
}

# What is not in here changes nothing. A connection may come and go while its endpoint drains; that is no way back.
TRANSITIONS: dict[State, dict[Event, State]] = {
    State.CONNECTING: _LISTED,
    State.READY: _LISTED,
    State.IDLE: _LISTED,
    State.FAILING: _LISTED,
    State.DRAINING: {Event.RETURNED: State.CONNECTING, Event.DRAINED: State.GONE},
    State.GONE: {},
}


def after(state: State, event: Event) -> State:
    """Return the state that follows."""
    return TRANSITIONS[state].get(event, state)
