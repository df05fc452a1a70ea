"""A connection that is replaced while it is in use."""

from __future__ import annotations

from typing import cast

import grpc.aio
import pytest
from grpc import ChannelConnectivity as Connectivity

from grpclb_core.endpoints import Connection, Member, State
from grpclb_core.endpoints.member import FIRST_PAUSE_S, LONGEST_PAUSE_S, PAUSE_MEMORY_S
from grpclb_core.native import Slot
from grpclb_core.types import Address, Endpoint


class StandIn:
    """A channel whose state is set by hand."""

    def __init__(self, state: Connectivity = Connectivity.IDLE) -> None:
        self.state = state

    def get_state(self, try_to_connect: bool = False) -> Connectivity:
        return self.state


def connection(state: Connectivity = Connectivity.IDLE) -> tuple[Connection, StandIn]:
    channel = StandIn(state)
    return Connection(cast("grpc.aio.Channel", channel)), channel


@pytest.fixture
def ready() -> tuple[Member, StandIn]:
    first, channel = connection(Connectivity.READY)
    member = Member(Endpoint(Address("10.0.0.1", 1)), Slot(), first)
    assert member.poll(0.0)
    assert member.state is State.READY
    return member, channel


def test_a_successor_takes_over_once_it_is_up(ready: tuple[Member, StandIn]) -> None:
    member, _ = ready
    before = member.connection
    successor, channel = connection()
    member.replace(successor)
    assert not member.poll(1.0)
    assert (member.connection, member.state) == (before, State.READY)
    channel.state = Connectivity.READY
    assert member.poll(2.0)
    assert (member.connection, member.state, member.retired) == (successor, State.READY, [before])
    assert member.is_new
    assert not member.poll(3.0)
    assert not member.is_new


def test_a_connection_that_is_down_is_replaced_at_once(ready: tuple[Member, StandIn]) -> None:
    member, channel = ready
    channel.state = Connectivity.TRANSIENT_FAILURE
    member.poll(1.0)
    before = member.connection
    successor, _ = connection()
    member.replace(successor)
    assert (member.connection, member.successor, member.retired) == (successor, None, [before])
    assert member.state is State.CONNECTING


def test_the_latest_successor_counts(ready: tuple[Member, StandIn]) -> None:
    member, _ = ready
    (first, _), (second, _) = connection(), connection(Connectivity.READY)
    member.replace(first)
    member.replace(second)
    assert member.retired == [first]
    member.poll(1.0)
    assert member.connection is second


def test_one_that_fell_silent_is_out_until_the_successor_is_up(ready: tuple[Member, StandIn]) -> None:
    member, _ = ready
    successor, channel = connection()
    member.fall_silent(1.0)
    member.replace(successor)
    member.poll(2.0)
    assert (member.state, member.is_silent) == (State.FAILING, True)
    channel.state = Connectivity.READY
    member.poll(3.0)
    assert (member.state, member.is_silent) == (State.READY, False)


def test_one_that_answers_after_all_needs_no_successor(ready: tuple[Member, StandIn]) -> None:
    member, _ = ready
    before = member.connection
    successor, _ = connection()
    member.fall_silent(1.0)
    member.replace(successor)
    member.recover()
    assert (member.connection, member.successor, member.state) == (before, None, State.READY)
    assert member.retired == [successor]


def test_a_connection_that_was_made_anew_by_itself_needs_none_either(ready: tuple[Member, StandIn]) -> None:
    member, channel = ready
    before = member.connection
    successor, _ = connection()
    member.replace(successor)
    channel.state = Connectivity.TRANSIENT_FAILURE
    member.poll(1.0)
    channel.state = Connectivity.READY
    member.poll(2.0)
    assert (member.connection, member.successor, member.retired) == (before, None, [successor])


def test_one_that_falls_silent_again_and_again_is_left_alone_for_longer(ready: tuple[Member, StandIn]) -> None:
    member, _ = ready
    now_s = 100.0
    pauses = []
    for _ in range(9):
        member.fall_silent(now_s)
        member.replace(connection(Connectivity.READY)[0])
        fell_s = now_s
        while member.is_silent:
            member.poll(now_s)
            now_s += 0.5
        pauses.append(now_s - 0.5 - fell_s)
    assert pauses == [0.0, FIRST_PAUSE_S, 2.0, 4.0, 8.0, 16.0, LONGEST_PAUSE_S, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    now_s += PAUSE_MEMORY_S
    member.fall_silent(now_s)
    member.replace(connection(Connectivity.READY)[0])
    member.poll(now_s)
    assert not member.is_silent


def test_one_that_left_stays_out_whatever_its_connections_do(ready: tuple[Member, StandIn]) -> None:
    from grpclb_core.endpoints.lifecycle import Event

    member, _ = ready
    member.replace(connection(Connectivity.READY)[0])
    member.undergo(Event.REMOVED)
    member.poll(1.0)
    assert member.state is State.DRAINING
