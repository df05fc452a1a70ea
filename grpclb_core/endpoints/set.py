"""The members of a target: who they are, across updates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import grpc

from ..native import Slot
from ..types import Address, Endpoint
from .connection import Connection
from .lifecycle import Event, State
from .member import Member


class Key(NamedTuple):
    """What makes two members the same one, where an address has several connections: which of them it is."""

    address: Address
    number: int


class EndpointSet:
    """Members by address. An update keeps those who stay, slot and connection and all.

    Those who left drain: their connection stays until their last call has ended and `linger_s` have passed, so that an
    endpoint that flaps costs no new connections, but no longer than `drain_s`. After that their slots are remembered
    for `slot_memory_s`, so that one that comes back is no stranger.

    Args:
        connect: opens a connection, given an address and which of its connections it is.
        slot_memory_s: see above; these three are seconds on whatever clock the callers keep.
        linger_s: see above.
        drain_s: see above.
        connections_each: connections to one endpoint; each is a member, with a share of the weight.
    """

    def __init__(
        self,
        connect: Callable[[Address, int], Connection],
        slot_memory_s: float,
        linger_s: float = 0.0,
        drain_s: float = 0.0,
        connections_each: int = 1,
    ) -> None:
        self._connect = connect
        self._slot_memory_s = slot_memory_s
        self.linger_s = linger_s
        self._drain_s = drain_s
        self._connections_each = connections_each
        self._members: dict[Address | Key, Member] = {}
        self._draining: dict[Address | Key, tuple[Member, float]] = {}
        self._departed: dict[Address | Key, tuple[Slot, float]] = {}
        self._by_slot: dict[Slot, Member] = {}

    def __len__(self) -> int:
        return len(self._members)

    def members(self) -> Iterable[Member]:
        """Return the members in the order of the last update."""
        return self._members.values()

    def draining(self) -> Iterator[Member]:
        """Yield those who left and whose connection is still open."""
        return (member for member, _ in self._draining.values())

    @property
    def share(self) -> float:
        """A member's share of the weight of its endpoint."""
        return 1 / self._connections_each

    def owner_of(self, slot: Slot) -> Member:
        """Return the member a slot belongs to.

        Raises:
            KeyError: its endpoint is gone.
        """
        return self._by_slot[slot]

    def update(self, endpoints: Iterable[Endpoint], now_s: float) -> tuple[list[Member], list[Member]]:
        """Replace the set; return the members that came, or came back, and those that left."""
        before, listed = self._members.copy(), dict[Address | Key, Member]()
        came: list[Member] = []
        for key, endpoint in self._keyed(endpoints):
            member = before.pop(key, None) or listed.get(key)  # an address that is listed twice is one endpoint
            if member is None:
                member = self._enter(key, endpoint, now_s)
                came.append(member)
            member.endpoint = endpoint
            listed[key] = member
        self._members = listed  # not before: a connection that cannot be made leaves the set as it was
        for key, member in before.items():
            member.leave()
            self._draining[key] = (member, now_s)
        return came, list(before.values())

    def _keyed(self, endpoints: Iterable[Endpoint]) -> Iterable[tuple[Address | Key, Endpoint]]:
        if self._connections_each == 1:
            every = list(endpoints)
            return zip([endpoint.address for endpoint in every], every, strict=True)
        return [
            (Key(endpoint.address, number), endpoint)
            for endpoint in endpoints
            for number in range(self._connections_each)
        ]

    def _enter(self, key: Address | Key, endpoint: Endpoint, now_s: float) -> Member:
        if key in self._draining:
            member, _ = self._draining.pop(key)
            member.undergo(Event.RETURNED)
            return member
        slot, left_s = self._departed.pop(key, (None, 0.0))
        if slot is None or now_s - left_s > self._slot_memory_s:
            slot = Slot()
        number = key.number if isinstance(key, Key) else 0
        member = Member(endpoint, slot, self._connect(endpoint.address, number), number)
        self._by_slot[slot] = member
        return member

    def reap(self, now_s: float) -> list[Member]:
        """Return the members that have drained by now; they are gone, and the caller closes their connections."""
        gone = []
        for key, (member, left_s) in list(self._draining.items()):
            waited_s = now_s - left_s
            if waited_s >= self._drain_s or (waited_s >= self.linger_s and member.slot.in_flight == 0):
                member.undergo(Event.DRAINED)
                gone.append(member)
                del self._draining[key], self._by_slot[member.slot]
                self._departed[key] = (member.slot, now_s)
        self._forget(now_s)
        return gone

    def _forget(self, now_s: float) -> None:
        for key, (_, left_s) in list(self._departed.items()):
            if now_s - left_s <= self._slot_memory_s:
                break  # the others left later: a dict keeps the order in which they came
            del self._departed[key]

    def state(self) -> grpc.ChannelConnectivity:
        """Return the state of the set as gRPC's round_robin reports it: READY if any is, else CONNECTING if any is."""
        states = {member.state for member in self._members.values()}
        if State.READY in states:
            return grpc.ChannelConnectivity.READY
        # An idle member has been asked to connect and has not begun yet.
        if State.CONNECTING in states or State.IDLE in states:
            return grpc.ChannelConnectivity.CONNECTING
        return grpc.ChannelConnectivity.TRANSIENT_FAILURE
