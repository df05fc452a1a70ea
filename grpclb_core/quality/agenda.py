"""What happens next: events in the order of simulated time."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Agenda:
    """Runs actions at their times; those of one time in the order in which they were put down."""

    __slots__ = ("_order", "entries", "now_ns")

    def __init__(self) -> None:
        self.now_ns = 0
        self.entries: list[tuple[int, int, Callable[..., object], object]] = []
        self._order = 0

    def at(self, time_ns: int, action: Callable[[T], object], subject: T) -> None:
        """Put down that `action(subject)` is due at a time."""
        self._order = order = self._order + 1
        heapq.heappush(self.entries, (time_ns, order, action, subject))

    def run(self, until_ns: int) -> None:
        """Do what is due, up to a time; `now_ns` is the time of the action that runs."""
        entries, pop = self.entries, heapq.heappop
        while entries and entries[0][0] <= until_ns:
            time_ns, _, action, subject = pop(entries)
            self.now_ns = time_ns
            action(subject)
