"""Outlier detection as gRPC has it: gRFC A50, step by step.

https://github.com/grpc/proposal/blob/master/A50-xds-outlier-detection.md. Where its text leaves something open, or its
implementations differ, the choice is that of C-core (outlier_detection.cc), for which reasons are given here:

* an endpoint without a call in the interval is no candidate, even where the request volume is 0: 0 of 0 is no rate;
* one that is ejected already is not ejected again, be it by the other algorithm in the same sweep. Its multiplier would
  count twice for one fault (in grpc-go it does);
* `minimum_hosts` counts endpoints with enough calls, in both algorithms;
* the enforcement percentage is drawn from 0 to 99, as the text has it (C-core draws from 1 to 99, so that 1 is never).

One thing is added: an ejection for which there is no `room` does not happen, which keeps one endpoint in, and the set
out of panic. A50 itself would let every endpoint go once its `max_ejection_percent` is high enough.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence, Set

import msgspec

from ...config import FailurePercentageEjection, OutlierDetection, SuccessRateEjection
from ...types import Address
from .records import Change, Event, Fleet, Reason, Seen
from .room import Room
from .window import Calls


class Ejection(msgspec.Struct, frozen=True):
    """What A50 keeps for an address, but for its counters."""

    since_s: float | None = None
    """The latest ejection timestamp; None while it is not ejected."""
    multiplier: int = 0
    reason: Reason | None = None


NEVER = Ejection()
NO_CALLS = Calls()

# Success rates that are equal may differ from their own mean in the last digit; counts of 32 bits cannot come so close.
ROUNDING = 1e-12


class Record(msgspec.Struct, frozen=True):
    """What is known from sweep to sweep."""

    timer_s: float | None = None
    """When the interval began; None while there is nothing to detect."""
    calls: Mapping[Address, Calls] = {}
    """Since the interval began."""
    ejections: Mapping[Address, Ejection] = {}
    ejected: frozenset[Address] = frozenset()
    """Who is ejected."""


IDLE = Record()


def sweep(
    record: Record,
    config: OutlierDetection,
    fleet: Fleet,
    now_s: float,
    rng: random.Random,
    room: Room,
    others: Set[Address] = frozenset(),
) -> tuple[Record, list[Event]]:
    """Take in what happened since the last call of this, and once an interval is over, look who is an outlier.

    It may be called as often as one likes; between the ends of two intervals it only counts. The interval keeps its
    beginning when `config` changes. Once that has neither algorithm, everyone is let in and forgotten. `others` are out
    or on trial by other rules: their calls count, but they are not ejected once more.
    """
    if not config.detects:
        events = [
            Event(address, Change.READMITTED, one.reason, "outlier detection was turned off")
            for address, one in record.ejections.items()
            if one.reason is not None and address in fleet
        ]
        return IDLE, events
    if record.timer_s is None:
        return Record(timer_s=now_s), []
    calls = {address: _counted(record.calls.get(address, NO_CALLS), seen) for address, seen in fleet.items()}
    ejections = {address: record.ejections.get(address, NEVER) for address in fleet}
    step = _Sweep(config, fleet, calls, ejections, now_s, rng, room, others)
    if now_s - record.timer_s < config.interval_s:
        step.let_in()
        return Record(record.timer_s, calls, step.ejections, step.ejected()), step.events
    if config.success_rate_ejection is not None:
        step.eject_by_success_rate(config.success_rate_ejection)
    if config.failure_percentage_ejection is not None:
        step.eject_by_failure_percentage(config.failure_percentage_ejection)
    step.uneject()
    step.let_in()
    return Record(now_s, {}, step.ejections, step.ejected()), step.events


def _counted(calls: Calls, seen: Seen) -> Calls:
    if not (seen.successes or seen.failures):
        return calls
    return Calls(calls.successes + seen.successes, calls.failures + seen.failures)


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean, and the standard deviation of a whole population, which is what A50 takes it for.

    Raises:
        ZeroDivisionError: there are no values.
    """
    mean = sum(values) / len(values)
    return mean, math.sqrt(sum([(value - mean) ** 2 for value in values]) / len(values))


class _Sweep:
    """One sweep on its way."""

    def __init__(
        self,
        config: OutlierDetection,
        fleet: Fleet,
        calls: Mapping[Address, Calls],
        ejections: dict[Address, Ejection],
        now_s: float,
        rng: random.Random,
        room: Room,
        others: Set[Address],
    ) -> None:
        self.ejections = ejections
        self.events: list[Event] = []
        self._config = config
        self._fleet = fleet
        self._calls = calls
        self._now_s = now_s
        self._rng = rng
        self._room = room
        self._others = others
        self._ejected = sum(one.since_s is not None for one in ejections.values())

    def ejected(self) -> frozenset[Address]:
        """Return who is ejected at the moment."""
        return frozenset(address for address, one in self.ejections.items() if one.since_s is not None)

    def eject_by_success_rate(self, algorithm: SuccessRateEjection) -> None:
        """Eject those whose success rate is too many standard deviations below the mean."""
        candidates = self._candidates(algorithm.request_volume, algorithm.minimum_hosts)
        if candidates:
            mean, deviation = mean_and_deviation([calls.success_ratio for calls in candidates.values()])
            least = mean - deviation * (algorithm.stdev_factor / 1000)

            def fault(calls: Calls) -> str | None:
                rate = calls.success_ratio
                if rate >= least - ROUNDING:
                    return None
                return f"{rate:.1%} of {calls.total} calls succeeded, where {least:.1%} should at least"

            self._eject_outliers(candidates, fault, algorithm.enforcement_percentage, Reason.A50_SUCCESS_RATE)

    def eject_by_failure_percentage(self, algorithm: FailurePercentageEjection) -> None:
        """Eject those of whose calls too many fail."""

        def fault(calls: Calls) -> str | None:
            # In whole numbers: 85 of 100 are not above 85 %, which a division may leave open.
            is_above = 100 * calls.failures > algorithm.threshold * calls.total
            return f"{calls.failures} of {calls.total} calls failed, {algorithm.threshold} % may" if is_above else None

        candidates = self._candidates(algorithm.request_volume, algorithm.minimum_hosts)
        self._eject_outliers(candidates, fault, algorithm.enforcement_percentage, Reason.A50_FAILURE_PERCENTAGE)

    def _candidates(self, volume: int, hosts: int) -> dict[Address, Calls]:
        """Return those with enough calls in the interval; nobody if they are too few."""
        found = {address: calls for address, calls in self._calls.items() if calls.total >= max(1, volume)}
        return found if len(found) >= hosts else {}

    def _eject_outliers(
        self,
        candidates: Mapping[Address, Calls],
        fault: Callable[[Calls], str | None],
        enforcement_percentage: int,
        reason: Reason,
    ) -> None:
        for address, calls in candidates.items():
            is_out = address in self._others or self.ejections[address].since_s is not None
            detail = None if is_out else fault(calls)
            if detail is None:
                continue
            if 100 * self._ejected >= self._config.max_ejection_percent * len(self._fleet):
                return
            if self._rng.randrange(100) < enforcement_percentage and self._room.take(address):
                multiplier = self.ejections[address].multiplier + 1
                self.ejections[address] = Ejection(self._now_s, multiplier, reason)
                self._ejected += 1
                self.events.append(Event(address, Change.EJECTED, reason, detail))

    def uneject(self) -> None:
        """Let in whose time is over, and have the others' next time be shorter for each interval they are in."""
        base_s, longest_s = self._config.base_ejection_time_s, self._config.longest_ejection_s
        for address, one in self.ejections.items():
            if one.since_s is None:
                if one.multiplier:
                    self.ejections[address] = Ejection(multiplier=one.multiplier - 1)
            elif self._now_s > one.since_s + min(base_s * one.multiplier, longest_s):
                self._let_in(address, one, "its time is over")

    def let_in(self) -> None:
        """Let in those ejected first, where nobody else is left."""
        if not self._ejected:
            return
        out = [address for address, one in self.ejections.items() if one.since_s is not None]
        for address in sorted(out, key=lambda address: self.ejections[address].since_s or 0.0):
            if not self._room.is_overdrawn():
                return
            if self._fleet[address].standing is not None:
                self._let_in(address, self.ejections[address], "no one else is left")

    def _let_in(self, address: Address, one: Ejection, detail: str) -> None:
        assert one.reason is not None
        self.ejections[address] = Ejection(multiplier=one.multiplier)
        self._ejected -= 1
        self.events.append(Event(address, Change.READMITTED, one.reason, detail))
        self._room.give_back(address)
