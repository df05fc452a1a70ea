"""How long calls take at the load that there is now: the server's half of Prequal (NSDI '24, arXiv 2312.10172).

A call is marked with the number of calls that it finds under way, and when it ends its latency is kept under that mark.
What is told is the median of the recent latencies at the number that is under way now, or nearest to it.
"""

from __future__ import annotations

from collections import deque
from statistics import median

SAMPLES = 16
"""Latencies kept of each level. The paper gives no number; the median of so few is robust, and follows a change."""
_EXACT_BITS = 4  # below 16 calls under way each number is a level of its own, above it there are 8 to each doubling
_MOST_BITS = 20  # a million calls under way and more are one level


class LatencyByLoad:
    """The latencies of recent calls, by how many were under way when they came; memory is bounded."""

    def __init__(self, recent_s: float) -> None:
        self._recent_s = recent_s
        self._levels: dict[int, deque[tuple[float, float]]] = {}  # when a call ended and how long it took, oldest first

    def add(self, in_flight: int, latency_s: float, now_s: float) -> None:
        """Record a call that ended now, and found `in_flight` others when it came."""
        self._levels.setdefault(level_of(in_flight), deque(maxlen=SAMPLES)).append((now_s, latency_s))

    def at(self, in_flight: int, now_s: float) -> float | None:
        """Return the median latency at the level nearest to this one, in seconds; None if no call ended recently.

        Of two levels that are equally near, the lower one is taken.
        """
        wanted = level_of(in_flight)
        while self._levels:
            nearest = min(self._levels, key=lambda level: (abs(level - wanted), level))
            samples = self._levels[nearest]
            while samples and samples[0][0] < now_s - self._recent_s:
                samples.popleft()
            if samples:
                return median(latency_s for _, latency_s in samples)
            del self._levels[nearest]
        return None


def level_of(in_flight: int) -> int:
    """Return the level of a number of calls under way: its first bits and how many follow."""
    in_flight = min(in_flight, 1 << _MOST_BITS)
    shift = max(in_flight.bit_length() - _EXACT_BITS, 0)
    return (shift << _EXACT_BITS - 1) + (in_flight >> shift)
