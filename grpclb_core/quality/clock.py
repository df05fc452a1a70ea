"""The clock of the clients: simulated time, with what a scenario does to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .parts import ClockStep
from .service import NS_PER_S

START_NS = 3_600 * NS_PER_S
"""What the clients' clock shows when a run begins: an hour, so that a clock that jumps back stays above 0."""


def client_clock(steps: Sequence[ClockStep]) -> Callable[[int], int] | None:
    """Return what tells the clients' time by the simulated one in ns; None if it is always `START_NS` later."""
    if not steps:
        return None

    def read(now_ns: int) -> int:
        shown_ns = now_ns + START_NS
        for step in steps:
            since_ns = now_ns - int(step.at_s * NS_PER_S)
            if since_ns >= 0:
                shown_ns += int(step.by_s * NS_PER_S) - min(since_ns, int(step.still_s * NS_PER_S))
        return max(0, shown_ns)

    return read
