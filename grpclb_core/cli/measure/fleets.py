"""Endpoints with a past, for pickers and for their twin in plain Python."""

from __future__ import annotations

import random

from ...native import RandomPicker, Slot, Ticket, View, now_ns
from ...types import Outcome
from .twin import TwinPicker, TwinSlot, TwinTicket

# A fleet as a busy client sees it: every endpoint has answered, in 1 to 20 ms, and has up to three calls in flight.
# With no past at all every pick would compare nothing with nothing, and the processor would foresee each choice.
FASTEST_NS, SLOWEST_NS = 1_000_000, 20_000_000
MOST_IN_FLIGHT = 3


class Fleet:
    """Slots with latencies and calls in flight, which stay open as long as this object lives."""

    def __init__(self, count: int, seed: int) -> None:
        chance = random.Random(seed)
        self.slots = [Slot() for _ in range(count)]
        self.view = View(self.slots)
        self._open: list[Ticket] = []
        for slot in self.slots:
            picker = RandomPicker(View([slot]), seed=0)
            now = now_ns()
            picker.pick_at(now - chance.randrange(FASTEST_NS, SLOWEST_NS)).finish_at(Outcome.SUCCESS, now)
            # Streams, which may stay open: calls that do, where others end at once, are those of a server that hangs.
            self._open += [picker.pick_stream() for _ in range(chance.randint(0, MOST_IN_FLIGHT))]


class TwinFleet:
    """The same for the twin."""

    def __init__(self, count: int, seed: int) -> None:
        chance = random.Random(seed)
        slots = [TwinSlot() for _ in range(count)]
        self._open: list[TwinTicket] = []
        for slot in slots:
            picker = TwinPicker([slot])
            now = now_ns()
            picker.pick_at(now - chance.randrange(FASTEST_NS, SLOWEST_NS)).finish_at(Outcome.SUCCESS, now)
            self._open += [picker.pick() for _ in range(chance.randint(0, MOST_IN_FLIGHT))]
        self.picker = TwinPicker(slots, seed=seed)
