"""The members of a target: who they are, across updates."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import grpc

from ..native import Slot
from ..types import Address, Endpoint
from .connection import Connection


class Member:
    """An endpoint of the set with what belongs to its identity, its slot, and its connection of the moment."""

    def __init__(self, endpoint: Endpoint, slot: Slot, connection: Connection) -> None:
        self.endpoint = endpoint
        self.slot = slot
        self.connection = connection


class EndpointSet:
    """Members by address. An update keeps those who stay, slot and connection and all.

    Slots of members that left are remembered for `slot_memory_s`, so that one that comes back is no stranger.
    """

    def __init__(self, connect: Callable[[Address], Connection], slot_memory_s: float) -> None:
        self._connect = connect
        self._slot_memory_s = slot_memory_s
        self._members: dict[Address, Member] = {}
        self._departed: dict[Address, tuple[Slot, float]] = {}
        self._by_slot: dict[Slot, Member] = {}

    def __len__(self) -> int:
        return len(self._members)

    def members(self) -> Iterable[Member]:
        """Return the members in the order of the last update."""
        return self._members.values()

    def owner_of(self, slot: Slot) -> Member:
        """Return the member a slot belongs to.

        Raises:
            KeyError: its endpoint has left.
        """
        return self._by_slot[slot]

    def update(self, endpoints: Iterable[Endpoint], now_s: float) -> tuple[list[Member], list[Member]]:
        """Replace the set; return the members that came and those that left, for the caller to start and to drain."""
        before, self._members = self._members, {}
        came: list[Member] = []
        for endpoint in endpoints:
            member = before.pop(endpoint.address, None)
            if member is None:
                member = self._enter(endpoint, now_s)
                came.append(member)
            member.endpoint = endpoint
            self._members[endpoint.address] = member
        left = list(before.values())
        for member in left:
            del self._by_slot[member.slot]
            self._departed[member.endpoint.address] = (member.slot, now_s)
        self._forget(now_s)
        return came, left

    def _enter(self, endpoint: Endpoint, now_s: float) -> Member:
        slot, left_s = self._departed.pop(endpoint.address, (None, 0.0))
        if slot is None or now_s - left_s > self._slot_memory_s:
            slot = Slot()
        member = Member(endpoint, slot, self._connect(endpoint.address))
        self._by_slot[slot] = member
        return member

    def _forget(self, now_s: float) -> None:
        for address, (_, left_s) in list(self._departed.items()):
            if now_s - left_s <= self._slot_memory_s:
                break  # the others left later: a dict keeps the order in which they came
            del self._departed[address]

    def state(self) -> grpc.ChannelConnectivity:
        """Return the state of the set as gRPC's round_robin reports it: READY if any is, else CONNECTING if any is."""
        states = {member.connection.state for member in self._members.values()}
        for state in (grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.CONNECTING):
            if state in states:
                return state
        # An idle member has been asked to connect and has not begun yet.
        if grpc.ChannelConnectivity.IDLE in states:
            return grpc.ChannelConnectivity.CONNECTING
        return grpc.ChannelConnectivity.TRANSIENT_FAILURE
