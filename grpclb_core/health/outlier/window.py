"""How many of the calls of the last seconds were answered well, exactly.

Counts in slices of time, as linkerd has them (linkerd2-proxy, breaker/success_rate.rs): a mean that decays gives the
calls of a burst too little weight, and so misses an outage that comes all at once.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

SLICES = 10
"""To a window; linkerd's figure. The oldest calls leave it a tenth of its length at a time."""


class Calls(NamedTuple):
    """Calls that came to an end."""

    successes: int = 0
    failures: int = 0

    @property
    def total(self) -> int:
        return self.successes + self.failures

    @property
    def success_ratio(self) -> float:
        """From 0 to 1; 1 where there were no calls, as nothing speaks against who was not asked."""
        return self.successes / self.total if self.total else 1.0


class Slice(NamedTuple):
    """The calls of one slice of time; `number` counts slices from the beginning of the clock."""

    number: int
    successes: int
    failures: int


Window: TypeAlias = tuple[Slice, ...]
"""Slices in the order of time; those without a call are left out."""


def slice_at(now_s: float, window_s: float) -> int:
    """Return the number of the slice of a moment."""
    return math.floor(now_s * SLICES / window_s)


def slide(window: Window, successes: int, failures: int, now: int) -> Window:
    """Return the window as it is in slice `now`, with calls that have just ended.

    A clock that steps back changes nothing: the calls then count for the latest slice there is.
    """
    if window and now <= window[-1].number:
        if not (successes or failures):
            return window
        last = window[-1]
        return (*window[:-1], Slice(last.number, last.successes + successes, last.failures + failures))
    kept = window
    if window and window[0].number <= now - SLICES:
        kept = tuple([one for one in window if one.number > now - SLICES])
    return (*kept, Slice(now, successes, failures)) if successes or failures else kept


def total(window: Window) -> Calls:
    """Return the calls of a whole window."""
    successes = failures = 0
    for one in window:
        successes += one.successes
        failures += one.failures
    return Calls(successes, failures)
