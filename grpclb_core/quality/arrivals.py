"""When the next call comes, and of what work it is."""

from __future__ import annotations

import math
import random

from .scenario import Scenario
from .service import NS_PER_S


class Arrivals:
    """Tells the times of calls in turn: at random ones (Poisson), or at equal distances.

    A random arrival that falls past a change of the load is drawn anew from there, which is exact, as the process has
    no memory.
    """

    def __init__(self, scenario: Scenario, rng: random.Random) -> None:
        self._chance = rng.random
        self._evenly = scenario.evenly
        self._gaps_ns = [NS_PER_S / rate for rate in scenario.rates]
        self._ends_ns = [step.from_s * NS_PER_S for step in scenario.load[1:]] + [math.inf]
        self._step = 0
        self._last_ns = 0.0

    def next_ns(self) -> int:
        """Return the time of the next call in ns."""
        while True:
            gap_ns = self._gaps_ns[self._step]
            time_ns = self._last_ns + (gap_ns if self._evenly else -gap_ns * math.log(1.0 - self._chance()))
            if time_ns < self._ends_ns[self._step]:
                self._last_ns = time_ns
                return int(time_ns)
            self._last_ns = self._ends_ns[self._step]
            self._step += 1
