"""Every state and every event."""

from __future__ import annotations

import grpc
import pytest

from grpclb_core.endpoints.lifecycle import OF_CONNECTION, Event, State, after

# Written out once more, by hand and as a grid, so that a slip in the table shows.
C, R, I, F, D, G = State  # noqa: E741
GRID = {
    #                   from C  R  I  F  D  G
    Event.DIALLED:      (C, C, C, C, D, G),
    Event.CONNECTED:    (R, R, R, R, D, G),
    Event.DISCONNECTED: (I, I, I, I, D, G),
    Event.REFUSED:      (F, F, F, F, D, G),
    Event.SILENT:       (F, F, F, F, D, G),
    Event.REMOVED:      (D, D, D, D, D, G),
    Event.RETURNED:     (C, R, I, F, C, G),
    Event.DRAINED:      (C, R, I, F, G, G),
}  # fmt: skip


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", State)
def test_what_follows(state: State, event: Event) -> None:
    assert after(state, event) is GRID[event][list(State).index(state)]


def test_every_state_of_a_connection_is_an_event() -> None:
    assert set(OF_CONNECTION) == set(grpc.ChannelConnectivity)


def test_gone_is_for_good() -> None:
    assert {after(State.GONE, event) for event in Event} == {State.GONE}
