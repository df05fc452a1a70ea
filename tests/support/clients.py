"""Calls under p2c_ewma to endpoints whose answers are under control, on a manual clock."""

from __future__ import annotations

from typing import Any

from grpclb_core.native import Ticket, View
from grpclb_core.policies import P2cEwma
from grpclb_core.types import Outcome
from support.fleet import SECOND, START, new_slots


class Clients:
    """Calls to endpoints that answer in a time of their own, one at a time, at an even rate."""

    def __init__(self, latencies_ns: list[int], rate: float, seed: int = 1, **rules: Any) -> None:
        self.slots = new_slots(len(latencies_ns))
        self.latencies_ns = latencies_ns
        self.outcomes = [Outcome.SUCCESS] * len(latencies_ns)
        self.picker = P2cEwma(**rules).build(View(self.slots), seed, START)
        self.gap_ns = int(SECOND / rate)
        self.now_ns = START
        self._open: list[tuple[int, int, Ticket]] = []

    def run(self, seconds: float) -> list[int]:
        """Make calls for so long; return the endpoint of each."""
        place = {slot: index for index, slot in enumerate(self.slots)}
        picked = []
        for _ in range(int(seconds * SECOND / self.gap_ns)):
            self.now_ns += self.gap_ns
            self._end_those_due()
            ticket = self.picker.pick_at(self.now_ns)
            picked.append(place[ticket.slot])
            self._open.append((self.now_ns + self.latencies_ns[picked[-1]], picked[-1], ticket))
        return picked

    def run_until(self, index: int, seconds: float = 60.0) -> None:
        """Make calls until one goes to that endpoint."""
        for _ in range(int(seconds * SECOND / self.gap_ns)):
            if index in self.run(self.gap_ns / SECOND):
                return
        raise AssertionError(f"endpoint {index} is never picked in {seconds} s")

    def reconnect(self, index: int) -> None:
        """End all calls, and have an endpoint start over, as with a connection made anew."""
        self.end_all()
        self.slots[index].forget_latency_at(self.now_ns)

    def end_all(self) -> None:
        for _, index, ticket in self._open:
            ticket.finish_at(self.outcomes[index], self.now_ns)
        self._open.clear()

    def _end_those_due(self) -> None:
        due = sorted((one for one in self._open if one[0] <= self.now_ns), key=lambda one: one[0])
        self._open = [one for one in self._open if one[0] > self.now_ns]
        for end_ns, index, ticket in due:
            ticket.finish_at(self.outcomes[index], end_ns)
