"""How often something happens, over the last few seconds."""

from __future__ import annotations

BUCKETS = 10
"""Parts of the window that are counted apart: the rate is of a window that is longer by a tenth at most."""


class SlidingRate:
    """Events per second over a window that slides by a tenth of its length; memory does not grow with the events."""

    def __init__(self, window_s: float, now_s: float) -> None:
        self._bucket_s = window_s / BUCKETS
        self._start_s = now_s
        self._last = 0  # the number of the bucket that is being filled, counted from the start
        self._counts = [0] * (BUCKETS + 1)  # the full ones, and that one
        self._total = 0

    def add(self, now_s: float) -> None:
        """Count one event; on a clock that went back it counts as one of the latest moment there was."""
        self._slide(now_s)
        self._counts[self._last % len(self._counts)] += 1
        self._total += 1

    def at(self, now_s: float) -> float:
        """Return the rate; in the first window it is of the time there has been, but of no less than a tenth of it."""
        self._slide(now_s)
        into_bucket_s = min(max(now_s - self._start_s - self._last * self._bucket_s, 0.0), self._bucket_s)
        covered_s = min(self._last, BUCKETS) * self._bucket_s + into_bucket_s
        return self._total / max(covered_s, self._bucket_s)

    def _slide(self, now_s: float) -> None:
        number = int((now_s - self._start_s) / self._bucket_s)
        for passed in range(self._last + 1, min(number, self._last + len(self._counts)) + 1):
            place = passed % len(self._counts)
            self._total -= self._counts[place]
            self._counts[place] = 0
        self._last = max(self._last, number)
