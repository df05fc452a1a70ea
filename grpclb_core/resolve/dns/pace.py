"""A ceiling on how often the same is asked within a minute, however many ask and for whatever reason.

The generic cell rate algorithm (ITU-T I.371, "virtual scheduling"): a key holds one number, the time at which the
queries sent so far would be due if they had been sent evenly. Half of the ceiling is the even pace, and the queries may
run ahead of it by one minute, which is the other half; so that no minute has more than the ceiling.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

AHEAD_S = 60.0
MAX_KEYS = 4096
"""Keys remembered, those used last. Where more are in use within a minute, each has few queries to its name."""
_ROUNDING_S = 1e-6  # below what a clock or an event loop tells apart


class Pace:
    """Counts what was sent under each key. Threads may share it; `clock` gives seconds and is monotonic."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due_s: OrderedDict[Hashable, float] = OrderedDict()
        self._lock = threading.Lock()

    def wait_s(self, key: Hashable, count: int, per_minute: int) -> float:
        """Seconds until there is room for `count` more, at most half of `per_minute`; 0 when there is now."""
        with self._lock:
            wait_s = self._due_after(key, count, per_minute) - self._clock() - AHEAD_S
        return wait_s if wait_s > _ROUNDING_S else 0.0

    def take(self, key: Hashable, per_minute: int) -> bool:
        """Count one, unless that is one too many."""
        with self._lock:
            due_s = self._due_after(key, 1, per_minute)
            if due_s > self._clock() + AHEAD_S + _ROUNDING_S:
                return False
            self._due_s[key] = due_s
            self._due_s.move_to_end(key)
            if len(self._due_s) > MAX_KEYS:
                self._due_s.popitem(last=False)
            return True

    def _due_after(self, key: Hashable, count: int, per_minute: int) -> float:
        now_s = self._clock()
        return max(self._due_s.get(key, now_s), now_s) + count * 2 * AHEAD_S / per_minute
