"""When does an endpoint leave its callers without an answer for too long?

A host that vanished, a frozen process and a half-open connection look alike from here: calls go out, and nothing comes
back, while the connection stays up until keepalive finds it dead. What is too long depends on how long answers take
there, so silence is held against the endpoint's own latency, or that of the fleet while it has none of its own.
"""

from __future__ import annotations

from ..native import Slot

PATIENCE = 4.0
"""Latencies that silence has to last to be one. The estimate is a peak or more, so that an answer four times as late as
the latest of the last seconds is none to wait for."""


class Silence:
    """How long the calls of one endpoint have gone unanswered, as seen by looking now and then."""

    def __init__(self) -> None:
        self.latency_ns: float | None = None
        """The estimate when an answer was last found to have come; calls that time out raise that of the slot."""
        self._answer_ns = 0
        self._timed_out = 0
        self._is_overdue = False
        self._since_ns: int | None = None
        self._until_ns = 0
        self._former = 0
        """Calls that run on over the connection before, and say nothing of this one."""

    def seen(self, slot: Slot, now_ns: int, decay_s: float) -> int:
        """Look at the slot; return for how many ns its timed calls have been waiting, all of them, without an answer.

        It counts from the first look that found a call waiting to the last one that did, or to now if a call has timed
        out meanwhile; so it comes short by the time between two looks. `decay_s` is the mean lifetime of a latency
        sample.
        """
        answer_ns, timed_out = slot.last_answer_ns, slot.timed_out
        if answer_ns != self._answer_ns:
            self._since_ns, self._is_overdue = None, False
            self.latency_ns = None if slot.is_newcomer else slot.latency_ns_at(now_ns, decay_s)
        elif timed_out - self._timed_out > self._former:
            self._is_overdue = True
        waiting = slot.in_flight - slot.streams
        self._former = min(self._former, waiting)  # those that ended; who ended is not known, so the doubt is theirs
        if self._is_overdue or (answer_ns == self._answer_ns and waiting > self._former):
            self._since_ns = now_ns if self._since_ns is None else self._since_ns
            self._until_ns = now_ns
        self._answer_ns, self._timed_out = answer_ns, timed_out
        return 0 if self._since_ns is None else max(0, self._until_ns - self._since_ns)

    def end(self, slot: Slot) -> None:
        """Begin anew, because the connection is another one; the calls that are open are none of its own."""
        self._since_ns = self.latency_ns = None
        self._is_overdue = False
        self._former = slot.in_flight - slot.streams


def is_too_long(silence_ns: float, latency_ns: float | None, fleet_latency_ns: float | None, least_ns: float) -> bool:
    """Tell whether an endpoint has been silent for too long.

    Args:
        silence_ns: what `Silence.seen` says.
        latency_ns: the endpoint's own, as it was when it last answered; None while it has not.
        fleet_latency_ns: the longest of the others; None while none of them has answered either, and then nobody can
            tell a slow service from a dead one.
        least_ns: silence that is short of this is none.
    """
    expected_ns = fleet_latency_ns if latency_ns is None else latency_ns
    return expected_ns is not None and silence_ns >= max(least_ns, PATIENCE * expected_ns)
