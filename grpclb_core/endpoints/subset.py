"""A part of a large set for one client: fewer connections on both sides, and few moves when the set changes.

gRFC A68, random subsetting: every endpoint gets a score from its address and the client's own seed, and the lowest win.
A change of one endpoint changes the subset by one at most. Other clients draw other subsets, so the load of a server
spreads binomially; the default size keeps that within a tenth where there are as many clients as servers.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable
from hashlib import blake2b

from ..types import Address, Endpoint


class Subset:
    """Chooses the endpoints that one client connects to.

    Args:
        size: how many endpoints of each priority; a set that is no larger is taken whole.
        seed: of this client, 64 bits.
    """

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._key = (seed & 0xFFFF_FFFF_FFFF_FFFF).to_bytes(8, "little")
        self._scores: dict[Address, bytes] = {}
        """Kept for the addresses of the last set, as scoring ten thousand takes milliseconds."""

    def of(self, endpoints: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
        """Return the endpoints to connect to, in the order of the set."""
        every = tuple(endpoints)
        if len(every) <= self._size:
            return every
        by_priority: dict[int, list[Endpoint]] = {}
        for endpoint in every:
            by_priority.setdefault(endpoint.priority, []).append(endpoint)
        if all(len(group) <= self._size for group in by_priority.values()):
            self._scores = {}
            return every
        known = self._scores
        self._scores = {one.address: known.get(one.address) or self._score(one.address) for one in every}
        chosen: set[Address] = set()
        for group in by_priority.values():
            addresses = [endpoint.address for endpoint in group]
            chosen.update(heapq.nsmallest(self._size, addresses, key=self._scores.__getitem__))
        return tuple(endpoint for endpoint in every if endpoint.address in chosen)

    def _score(self, address: Address) -> bytes:
        # A68 takes XXH64; any hash that mixes as well gives the same spread, and this one ships with Python.
        name = os.fsencode(f"{address.host}\0{address.port}")
        return blake2b(name, digest_size=8, key=self._key).digest()
