"""Those who fell silent and have another connection: one call at a time, until one is answered or it took too long.

A trial is kept up by the compiled core: no call is picked while one is in flight that was made since a call last ended
there, nor beside a stream. So it may be in the way of what it is there to find out: streams of before run on, over the
connection that was replaced, for as long as their callers like; and a stream tells only when it ends.
"""

from __future__ import annotations

from typing import NamedTuple

from ..endpoints import Member, State


class Trial(NamedTuple):
    """How one goes."""

    picks: int
    """Of the slot, when last looked at."""
    since_s: float
    """Since when it has been waiting for calls; or when it was looked at, if it does not."""
    is_called: bool = False
    """Whether a call was picked since the trial began; if not, it waits for streams of before."""


class Trials:
    """Begins the trials of members, and ends those that are of no use."""

    def __init__(self) -> None:
        self._trials: dict[Member, Trial] = {}

    def begin(self, member: Member, now_s: float) -> None:
        """Put a member on trial, unless it is already; that trial is for whoever began it."""
        if not member.slot.is_on_trial:
            member.slot.start_trial()
            self._trials[member] = Trial(member.slot.picks, now_s)

    def look(self, now_s: float, silence_s: float, stream_s: float) -> None:
        """End the trials that have gone on for too long.

        Args:
            now_s: on any clock, that of `begin`.
            silence_s: how long streams of before may keep the first call from being made.
            stream_s: how long a call that was picked on trial may run; silence ends it sooner if it is no stream.
        """
        for member, trial in list(self._trials.items()):
            slot = member.slot
            is_listed = member.state not in (State.DRAINING, State.GONE)
            if not slot.is_on_trial or (is_listed and member.outlier_reason is not None):
                del self._trials[member]  # it is over, or the concern of `outliers.py` by now
                continue
            self._trials[member] = trial = _seen(trial, slot.picks, slot.is_waited_for, now_s)
            if not is_listed or now_s - trial.since_s >= (stream_s if trial.is_called else silence_s):
                slot.end_trial()
                del self._trials[member]


def _seen(trial: Trial, picks: int, is_waited_for: bool, now_s: float) -> Trial:
    is_new = picks != trial.picks
    return Trial(picks, now_s if is_new or not is_waited_for else trial.since_s, trial.is_called or is_new)
