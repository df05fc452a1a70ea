"""What a simulated server says of its load, kept by the recorder that real servers use."""

from __future__ import annotations

import math

from ..server.load.recorder import Call as ReportedCall
from ..server.load.recorder import LoadRecorder
from ..types import LoadReport, Outcome
from .agenda import Agenda
from .service import NS_PER_S
from .trace import FAILED

__all__ = ["ReportedCall", "Reporter"]

UTILIZATION_NS = 2 * NS_PER_S
"""Mean age of the work that counts as utilisation: about as long as a process looks back at its processor time."""


class Reporter:
    """Counts the calls of one server, and says how busy its slots are.

    Args:
        slots: how many calls the server works on at a time.
        agenda: tells the time.
    """

    __slots__ = ("_agenda", "_done_ns", "_recorder", "_since_ns", "_slots", "_start_ns")

    def __init__(self, slots: int, agenda: Agenda) -> None:
        self._slots = slots
        self._agenda = agenda
        self._recorder = LoadRecorder(clock=lambda: agenda.now_ns / NS_PER_S)
        self._start_ns = agenda.now_ns
        self._since_ns = agenda.now_ns
        self._done_ns = 0.0  # slot time of the calls that are done, fading

    def begin(self, is_timed: bool) -> ReportedCall:
        """Count a call that came."""
        return self._recorder.begin(is_timed=is_timed)

    def end(self, call: ReportedCall, outcome: int, slot_ns: float) -> None:
        """Count a call that is done, and how long it held a slot."""
        self._recorder.end(call, Outcome.FAILURE if outcome in FAILED else Outcome(outcome))
        self._done_ns = self._faded() + slot_ns
        self._since_ns = self._agenda.now_ns

    def report(self) -> LoadReport:
        """Return what the server would say now."""
        seen_ns = UTILIZATION_NS * (1 - math.exp((self._start_ns - self._agenda.now_ns) / UTILIZATION_NS))
        if seen_ns > 0:
            self._recorder.set_cpu_utilization(self._faded() / (seen_ns * self._slots))
        return self._recorder.report()

    def _faded(self) -> float:
        return self._done_ns * math.exp((self._since_ns - self._agenda.now_ns) / UTILIZATION_NS)
