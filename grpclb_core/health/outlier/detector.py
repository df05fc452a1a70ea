"""Both kinds of rules over one set: the state of outlier detection, and the step from one sweep to the next."""

from __future__ import annotations

import random
from typing import NamedTuple

import msgspec

from ...config import OutlierConfig
from ...types import Address
from . import a50, accrual
from .accrual import Phase
from .records import Event, Fleet, Reason, Seen
from .room import Room


class State(msgspec.Struct, frozen=True):
    """All that outlier detection knows."""

    accrual: accrual.Record = accrual.IDLE
    a50: a50.Record = a50.IDLE

    @property
    def has_out(self) -> bool:
        """Whether anyone is ejected or on trial."""
        return bool(self.accrual.out or self.a50.ejected)

    def ejected(self) -> dict[Address, Reason]:
        """Return who is to get no calls, and why."""
        reasons = {address: self.a50.ejections[address].reason for address in self.a50.ejected}
        return self._in_phase(Phase.OUT) | {one: reason for one, reason in reasons.items() if reason is not None}

    def on_trial(self) -> dict[Address, Reason]:
        """Return who has to answer a call well yet, and why."""
        return self._in_phase(Phase.TRIAL)

    def _in_phase(self, phase: Phase) -> dict[Address, Reason]:
        tracks = {address: self.accrual.tracks[address] for address in self.accrual.out}
        return {one: track.reason for one, track in tracks.items() if track.phase is phase and track.reason is not None}


EMPTY = State()


class Step(NamedTuple):
    """What came of a sweep."""

    state: State
    events: list[Event]
    """In the order they happened."""


def sweep(
    state: State, config: OutlierConfig, fleet: Fleet, now_s: float, rng: random.Random, panic_threshold: float
) -> Step:
    """Take in what every endpoint did since the sweep before, and decide who is ejected, on trial, or in again.

    Args:
        state: what came of the sweep before; `EMPTY` at first.
        config: may be another than before. Rules that are off let in whom they had ejected.
        fleet: what is seen of each endpoint that is listed; others are forgotten.
        now_s: on any clock that does not jump; if it stands still, or steps back, pauses are so much longer.
        rng: for jitter, and the enforcement percentages of A50.
        panic_threshold: no ejection may bring the share of usable endpoints below this.
    """
    # Nobody is out by both kinds of rules at once; to ours, one that is out by A50 is as good as not connected.
    theirs = state.a50.ejected
    ours = (
        {address: _hidden(seen) if address in theirs else seen for address, seen in fleet.items()} if theirs else fleet
    )
    # The room is counted over the fleet as it is, so hidden ones are out; nobody asks for room for them.
    room = Room(fleet, theirs | state.accrual.out, panic_threshold)
    record, events = accrual.sweep(state.accrual, config, ours, now_s, rng, room)
    if not config.a50.detects and not state.a50.ejections:
        return Step(State(record), events)
    room = Room(fleet, theirs | record.out, panic_threshold)
    other_record, more = a50.sweep(state.a50, config.a50, fleet, now_s, rng, room, record.out)
    return Step(State(record, other_record), events + more)


def _hidden(seen: Seen) -> Seen:
    return seen._replace(successes=0, failures=0, standing=None)
