"""A simulated client: its own slots and its own picker, over all servers or a part of them."""

from __future__ import annotations

import random
from collections.abc import Sequence

from ..endpoints import Subset, ramps
from ..native import Picker, Slot, View
from ..policies import goes_by_name
from ..types import Address, Endpoint
from .service import NS_PER_S
from .variants import Variant
from .watch import Watch

SEED_BITS = 63


class Client:
    """Keeps a slot for every server it knows, and a picker of the policy over those that may have calls.

    Args:
        variant: the policy that builds the pickers, and what else is done.
        subset: how many servers it knows at most; None for all.
        rng: seeds the draws of this client.
    """

    __slots__ = ("_came", "_left_out", "_rng", "_slots", "_subset", "_variant", "picker", "server_of", "watch")

    def __init__(self, variant: Variant, subset: int | None, rng: random.Random) -> None:
        self._variant = variant
        self._rng = rng
        self._subset = None if subset is None else Subset(subset, rng.getrandbits(SEED_BITS))
        self._slots: dict[int, Slot] = {}
        self._came: dict[Slot, tuple[int, float]] = {}  # when it came, and where in the jitter of slow starts it is
        self._left_out: frozenset[int] = frozenset()
        outliers = variant.config.outliers
        self.watch = Watch(variant.config, rng) if outliers.accrues or outliers.a50.detects else None
        self.picker: Picker | None = None
        """The picker in force; None while no server is in the set."""
        self.server_of: dict[Slot, int] = {}
        """The number of the server behind each slot of the set."""

    def forget(self, server: int) -> None:
        """Drop what is known of a server that is another one now."""
        self._slots.pop(server, None)

    def update(self, members: Sequence[int], now_ns: int) -> int:
        """Take these servers for the set; return how many connections had to be made."""
        known = self.server_of.keys()
        servers = members if self._subset is None else _chosen(self._subset, members)
        self.server_of = {self._slots.setdefault(server, Slot()): server for server in servers}
        made = self.server_of.keys() - known
        if self._variant.config.slow_start.window_s:
            self._came.update((slot, (now_ns, self._rng.random())) for slot in self.server_of if slot in made)
        self.rebuild(now_ns)
        return len(made)

    def look(self, now_ns: int) -> None:
        """Decide anew who gets no calls, where outlier detection is on."""
        if self.watch is not None and self.server_of:
            left_out = self.watch.look({server: slot for slot, server in self.server_of.items()}, now_ns)
            if left_out != self._left_out:
                self._left_out = left_out
                self.rebuild(now_ns)

    def rebuild(self, now_ns: int) -> None:
        """Build the picker anew."""
        slots = [slot for slot, server in self.server_of.items() if server not in self._left_out]
        slots = slots or list(self.server_of)
        if slots:
            policy, seed = self._variant.policy, self._rng.getrandbits(SEED_BITS)
            roster = [(str(self.server_of[slot]), 1.0, place) for place, slot in enumerate(slots)]
            view = View(slots, self._weights(slots, now_ns), roster if goes_by_name(policy) else None)
            self.picker = policy.build(view, seed, now_ns)
        else:
            self.picker = None

    def _weights(self, slots: Sequence[Slot], now_ns: int) -> list[float] | None:
        slow_start = self._variant.config.slow_start
        if not slow_start.window_s:
            return None
        came = [self._came[slot] for slot in slots]
        return ramps([((now_ns - came_ns) / NS_PER_S, jitter) for came_ns, jitter in came], slow_start)


def _chosen(subset: Subset, members: Sequence[int]) -> list[int]:
    return [endpoint.address.port for endpoint in subset.of(map(_endpoint, members))]


def _endpoint(server: int) -> Endpoint:
    return Endpoint(Address("server", server))
