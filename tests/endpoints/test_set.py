"""Who is in the set, and who they were before."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any, cast

import grpc
import pytest

from grpclb_core.endpoints import EndpointSet, Member, State
from grpclb_core.endpoints.connection import Connection
from grpclb_core.types import Address, Endpoint, Outcome
from support.fleet import START, hold

CHANNEL_STATES = list(grpc.ChannelConnectivity)
MEMORY_S = 60.0


class StandIn:
    """As much of a connection as the set looks at."""

    def __init__(self, address: Address, number: int) -> None:
        self.address = address
        self.number = number
        self.state = grpc.ChannelConnectivity.IDLE
        self.is_new = False

    @property
    def is_ready(self) -> bool:
        return self.state is grpc.ChannelConnectivity.READY

    def poll(self) -> bool:
        return True


def connect(address: Address, number: int = 0) -> Connection:
    return cast(Connection, StandIn(address, number))


def at(*ports: int, weight: float = 1.0) -> list[Endpoint]:
    return [Endpoint(Address("10.0.0.1", port), weight) for port in ports]


def ports(members: Any) -> list[int]:
    return [member.endpoint.address.port for member in members]


def by_port(endpoints: EndpointSet) -> dict[int, Member]:
    return {member.endpoint.address.port: member for member in endpoints.members()}


@pytest.fixture
def endpoints() -> EndpointSet:
    return EndpointSet(connect, MEMORY_S)


class TestUpdate:
    def test_it_starts_empty(self, endpoints: EndpointSet) -> None:
        assert len(endpoints) == 0
        assert list(endpoints.members()) == []

    def test_the_first_all_came(self, endpoints: EndpointSet) -> None:
        came, left = endpoints.update(at(1, 2, 3), 0.0)
        assert ports(came) == ports(endpoints.members()) == [1, 2, 3]
        assert left == []
        assert [cast(StandIn, member.connection).address.port for member in came] == [1, 2, 3]
        assert len({member.slot for member in came}) == len(endpoints) == 3

    def test_those_who_stay_stay_the_same(self, endpoints: EndpointSet) -> None:
        endpoints.update(at(1, 2, 3), 0.0)
        before = by_port(endpoints)
        kept = {port: (member.slot, member.connection) for port, member in before.items()}
        came, left = endpoints.update(at(4, 3, 2), 1.0)
        after = by_port(endpoints)
        assert ports(came) == [4]
        assert left == [before[1]]
        for port in (2, 3):
            assert after[port] is before[port]
            assert (after[port].slot, after[port].connection) == kept[port]

    def test_the_order_is_that_of_the_last_update(self, endpoints: EndpointSet) -> None:
        for order in itertools.permutations((1, 2, 3)):
            came, left = endpoints.update(at(*order), 0.0)
            assert ports(endpoints.members()) == list(order)
        assert came == left == []

    def test_an_update_that_changes_nothing_changes_nothing(self, endpoints: EndpointSet) -> None:
        endpoints.update(at(1, 2), 0.0)
        members = list(endpoints.members())
        assert endpoints.update(at(1, 2), 1.0) == ([], [])
        assert list(endpoints.members()) == members

    def test_all_may_leave(self, endpoints: EndpointSet) -> None:
        endpoints.update(at(1, 2), 0.0)
        came, left = endpoints.update([], 1.0)
        assert (came, ports(left), len(endpoints)) == ([], [1, 2], 0)

    def test_a_new_weight_is_taken_up_and_no_reason_to_reconnect(self, endpoints: EndpointSet) -> None:
        (member,), _ = endpoints.update(at(1, weight=1.0), 0.0)
        slot, connection = member.slot, member.connection
        assert endpoints.update(at(1, weight=3.0), 1.0) == ([], [])
        assert member.endpoint.weight == 3.0
        assert (member.slot, member.connection) == (slot, connection)

    def test_an_address_that_is_listed_twice_is_one_endpoint(self, endpoints: EndpointSet) -> None:
        for now_s in (0.0, 1.0):
            endpoints.update([*at(1, 2), *at(1, weight=2.0)], now_s)
            assert ports(endpoints.members()) == [1, 2]
        assert by_port(endpoints)[1].endpoint.weight == 2.0

    def test_a_connection_that_cannot_be_made_leaves_the_set_as_it_was(self) -> None:
        def refuse(address: Address, number: int) -> Connection:
            if address.port == 3:
                raise ValueError("no such thing")
            return connect(address, number)

        endpoints = EndpointSet(refuse, MEMORY_S)
        endpoints.update(at(1, 2), 0.0)
        with pytest.raises(ValueError, match="no such thing"):
            endpoints.update(at(2, 3), 1.0)
        assert ports(endpoints.members()) == [1, 2]

    def test_host_and_port_both_tell_endpoints_apart(self, endpoints: EndpointSet) -> None:
        addresses = [Address("10.0.0.1", 1), Address("10.0.0.2", 1), Address("10.0.0.1", 2), Address("/run/a.sock")]
        came, _ = endpoints.update(map(Endpoint, addresses), 0.0)
        assert [member.endpoint.address for member in came] == addresses


class TestOwner:
    def test_a_slot_has_one_while_its_endpoint_is_there(self, endpoints: EndpointSet) -> None:
        came, _ = endpoints.update(at(1, 2), 0.0)
        assert [endpoints.owner_of(member.slot) for member in came] == came
        endpoints.update(at(2), 1.0)
        assert endpoints.owner_of(came[1].slot) is came[1]
        endpoints.reap(1.0)
        with pytest.raises(KeyError):
            endpoints.owner_of(came[0].slot)

    def test_one_that_came_back_after_it_was_gone_has_its_new_connection(self, endpoints: EndpointSet) -> None:
        (before,), _ = endpoints.update(at(1), 0.0)
        endpoints.update([], 1.0)
        assert endpoints.reap(1.0) == [before]
        (after,), _ = endpoints.update(at(1), 2.0)
        assert endpoints.owner_of(before.slot) is after
        assert after.connection is not before.connection


class TestDraining:
    LINGER_S, DRAIN_S = 5.0, 60.0

    @pytest.fixture
    def endpoints(self) -> EndpointSet:
        return EndpointSet(connect, MEMORY_S, self.LINGER_S, self.DRAIN_S)

    def test_one_that_left_lingers(self, endpoints: EndpointSet) -> None:
        (member,), _ = endpoints.update(at(1), 0.0)
        endpoints.update([], 10.0)
        assert member.state is State.DRAINING
        assert endpoints.reap(14.9) == []
        assert list(endpoints.draining()) == [member]
        assert endpoints.reap(15.0) == [member]
        assert member.state is State.GONE
        assert list(endpoints.draining()) == []
        assert endpoints.reap(16.0) == []

    def test_its_calls_may_end(self, endpoints: EndpointSet) -> None:
        (member,), _ = endpoints.update(at(1), 0.0)
        (ticket,) = hold(member.slot, 1)
        endpoints.update([], 10.0)
        assert endpoints.reap(69.9) == []
        ticket.finish_at(Outcome.SUCCESS, START)
        assert endpoints.reap(69.9) == [member]

    def test_but_not_run_on_for_ever(self, endpoints: EndpointSet) -> None:
        (member,), _ = endpoints.update(at(1), 0.0)
        held = hold(member.slot, 1)
        endpoints.update([], 10.0)
        assert endpoints.reap(70.0) == [member]
        assert len(held) == 1

    def test_one_that_flaps_keeps_its_connection(self, endpoints: EndpointSet) -> None:
        (member,), _ = endpoints.update(at(1), 0.0)
        connection = member.connection
        for turn in range(1, 1000):  # a whole minute at 16 changes a second
            came, left = endpoints.update(at(1) if turn % 2 == 0 else [], turn * 0.06)
            assert came + left == [member]
            assert endpoints.reap(turn * 0.06) == []
        endpoints.update(at(1), 60.0)
        assert member.connection is connection

    def test_it_is_what_its_connection_is_once_it_is_back(self, endpoints: EndpointSet) -> None:
        (member,), _ = endpoints.update(at(1), 0.0)
        member.connection.state = grpc.ChannelConnectivity.READY
        member.poll(0.0)
        endpoints.update([], 1.0)
        assert member.state is State.DRAINING
        member.poll(0.0)
        assert member.state is State.DRAINING
        endpoints.update(at(1), 2.0)
        member.poll(0.0)
        assert member.state is State.READY


class TestSeveralConnections:
    def test_each_is_a_member_with_a_part_of_the_weight(self) -> None:
        endpoints = EndpointSet(connect, MEMORY_S, connections_each=3)
        came, _ = endpoints.update(at(1, 2, weight=6.0), 0.0)
        assert ports(came) == [1, 1, 1, 2, 2, 2]
        assert [cast(StandIn, member.connection).number for member in came] == [0, 1, 2] * 2
        assert len({member.slot for member in came}) == 6
        assert [member.endpoint.weight * endpoints.share for member in came] == pytest.approx([2.0] * 6)

    def test_they_leave_together(self) -> None:
        endpoints = EndpointSet(connect, MEMORY_S, connections_each=2)
        came, _ = endpoints.update(at(1, 2), 0.0)
        _, left = endpoints.update(at(2), 1.0)
        assert left == came[:2]


class Reaping(EndpointSet):
    """A set whose departed are gone at once."""

    def update(self, endpoints: Iterable[Endpoint], now_s: float) -> tuple[list[Member], list[Member]]:
        changes = super().update(endpoints, now_s)
        self.reap(now_s)
        return changes


class TestSlotMemory:
    @pytest.fixture
    def endpoints(self) -> EndpointSet:
        return Reaping(connect, MEMORY_S)

    @pytest.mark.parametrize(
        ("away_s", "is_known"), [(0.0, True), (59.9, True), (60.0, True), (60.1, False), (1e6, False)]
    )
    def test_one_that_comes_back_in_time_is_no_stranger(
        self, endpoints: EndpointSet, away_s: float, is_known: bool
    ) -> None:
        (before,), _ = endpoints.update(at(1), 100.0)
        endpoints.update([], 200.0)
        (after,), _ = endpoints.update(at(1), 200.0 + away_s)
        assert after is not before
        assert (after.slot is before.slot) is is_known

    def test_updates_in_between_neither_lengthen_nor_shorten_it(self, endpoints: EndpointSet) -> None:
        came, _ = endpoints.update(at(1, 2, 3), 0.0)
        slots = [member.slot for member in came]
        endpoints.update(at(2, 3), 10.0)
        endpoints.update(at(3), 40.0)
        endpoints.update(at(3), 69.0)
        endpoints.update(at(3), 71.0)  # the first has been gone for 61 s, the second for 31
        endpoints.update(at(1, 2, 3), 72.0)
        after = by_port(endpoints)
        assert after[1].slot not in slots
        assert after[2].slot is slots[1]
        assert after[3].slot is slots[2]

    def test_it_counts_from_the_last_time_one_left(self, endpoints: EndpointSet) -> None:
        (first,), _ = endpoints.update(at(1), 0.0)
        for now_s in range(50, 500, 50):  # there at every other update
            endpoints.update(at(1) if now_s % 100 == 0 else [], float(now_s))
        assert len(endpoints) == 0
        (last,), _ = endpoints.update(at(1), 500.0)
        assert last.slot is first.slot

    def test_one_forgotten_long_ago_does_not_hold_up_the_others(self, endpoints: EndpointSet) -> None:
        came, _ = endpoints.update(at(1, 2), 0.0)
        endpoints.update(at(2), 10.0)
        endpoints.update(at(1, 2), 20.0)
        endpoints.update(at(1), 30.0)  # now the second left before the first
        endpoints.update([], 80.0)
        endpoints.update(at(1, 2), 100.0)
        after = by_port(endpoints)
        assert after[1].slot is came[0].slot
        assert after[2].slot is not came[1].slot

    def test_no_memory_keeps_nobody(self) -> None:
        endpoints = Reaping(connect, 0.0)
        (before,), _ = endpoints.update(at(1), 0.0)
        endpoints.update([], 1.0)
        (after,), _ = endpoints.update(at(1), 1.1)
        assert after.slot is not before.slot

    def test_calls_that_were_open_all_the_while_are_settled_on_the_same_slot(self, endpoints: EndpointSet) -> None:
        (before,), _ = endpoints.update(at(1), 0.0)
        (ticket,) = hold(before.slot, 1)
        endpoints.update([], 1.0)
        (after,), _ = endpoints.update(at(1), 2.0)
        assert after.slot.in_flight == 1
        ticket.finish_at(Outcome.SUCCESS, START)
        assert (after.slot.in_flight, after.slot.successes) == (0, 1)


class TestState:
    """The state of all from the states of each, as gRPC's round_robin reports it."""

    @staticmethod
    def of(states: tuple[grpc.ChannelConnectivity, ...]) -> grpc.ChannelConnectivity:
        endpoints = EndpointSet(connect, MEMORY_S)
        came, _ = endpoints.update(at(*range(1, len(states) + 1)), 0.0)
        for member, state in zip(came, states, strict=True):
            member.connection.state = state
            member.poll(0.0)
        return endpoints.state()

    def test_nobody_is_a_failure(self) -> None:
        assert self.of(()) is grpc.ChannelConnectivity.TRANSIENT_FAILURE

    @pytest.mark.parametrize(
        ("alone", "all_of_it"),
        [
            ("IDLE", "CONNECTING"),  # it has been asked to connect, and has not begun
            ("CONNECTING", "CONNECTING"),
            ("READY", "READY"),
            ("TRANSIENT_FAILURE", "TRANSIENT_FAILURE"),
            ("SHUTDOWN", "TRANSIENT_FAILURE"),
        ],
    )
    def test_of_one_kind(self, alone: str, all_of_it: str) -> None:
        for count in (1, 3):
            assert self.of((grpc.ChannelConnectivity[alone],) * count) is grpc.ChannelConnectivity[all_of_it]

    @pytest.mark.parametrize(
        ("decisive", "over"),
        [
            ("READY", CHANNEL_STATES),
            ("CONNECTING", [state for state in CHANNEL_STATES if state.name != "READY"]),
        ],
    )
    def test_one_that_is_further_decides(self, decisive: str, over: list[grpc.ChannelConnectivity]) -> None:
        state = grpc.ChannelConnectivity[decisive]
        for others in itertools.combinations_with_replacement(over, 2):
            for mixed in itertools.permutations((state, *others)):
                assert self.of(mixed) is state

    def test_one_about_to_connect_is_hope_among_failures(self) -> None:
        failing, idle = grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.IDLE
        for mixed in itertools.permutations((failing, failing, idle)):
            assert self.of(mixed) is grpc.ChannelConnectivity.CONNECTING
