"""Every state and every event."""

from __future__ import annotations

import grpc
import pytest

from grpclb_core.endpoints.lifecycle import OF_CONNECTION, Event, State, after

# Written out once more, by hand and as a grid, so that a slip in the table shows.
c, r, i, f, d, g = State
GRID = {
    #                   from c  r  i  f  d  g
    Event.DIALLED:      (c, c, c, c, d, g),
    Event.CONNECTED:    (r, r, r, r, d, g),
    Event.DISCONNECTED: (i, i, i, i, d, g),
    Event.REFUSED:      (f, f, f, f, d, g),
    Event.SILENT:       (f, f, f, f, d, g),
    Event.REMOVED:      (d, d, d, d, d, g),
    Event.RETURNED:     (c, r, i, f, c, g),
    Event.DRAINED:      (c, r, i, f, g, g),
}  # fmt: skip


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", State)
def test_what_follows(state: State, event: Event) -> None:
    assert after(state, event) is GRID[event][list(State).index(state)]


def test_every_state_of_a_connection_is_an_event() -> None:
    assert set(OF_CONNECTION) == set(grpc.ChannelConnectivity)


def test_gone_is_for_good() -> None:
    assert {after(State.GONE, event) for event in Event} == {State.GONE}
