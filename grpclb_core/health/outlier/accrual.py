r"""Ejection for sets of any size: each endpoint is judged by its own calls, and may come back on trial.

    IN -- a rule applies, and there is room --> OUT -- its pause is over, and it is connected --> TRIAL
     ^                                           ^                                                 |  |
     |                                           +------------ a call fails; a longer pause -------+  |
     +---------------------------------------------------- a call succeeds ---------------------------+

Three rules, of which one is enough (linkerd calls this its unified breaker, finagle failure accrual):

* so many failures in a row, without a success in between;
* a share of successes within a window of time that is too low;
* so many connections in a row that were lost or not made, without a call that succeeded. This one ejects nobody, as
  there is no connection to keep calls from; it has the endpoint begin on trial once it is connected again.

The first two hold only against an endpoint that does worse than the rest. Where all fail alike it is not the endpoint,
and to eject half of them would burden the others. (linkerd has no such rule; among healthy others it changes nothing.)

Pure steps: what was known, what is seen, the time and a draw go in; what is known and what happened come out.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from enum import Enum

import msgspec

from ...config import OutlierConfig
from ...types import Address
from ..combine import Standing
from .records import Change, Event, Fleet, Reason, Seen
from .room import Room
from .window import Calls, Window, slice_at, slide, total

_CAN_BE_CALLED = (Standing.USABLE, Standing.LEAVING)
_MOST_DOUBLINGS = 60  # 2^60 s is beyond every ceiling, and no overflow


class Phase(Enum):
    """Where an endpoint stands."""

    IN = "in"
    OUT = "out"
    TRIAL = "on trial"


class Track(msgspec.Struct, frozen=True):
    """What is known of one endpoint."""

    phase: Phase = Phase.IN
    reason: Reason | None = None
    """Why it is out or on trial."""
    window: Window = ()
    """Its calls of late; empty while it is not in."""
    since_s: float = 0.0
    """When the phase began."""
    until_s: float = 0.0
    """Out: when a trial may begin."""
    called_s: float | None = None
    """On trial: since when the call is in flight that is now; calls of before may be in the way of one."""
    picks: int = 0
    """On trial: calls that were begun, ever, at the last sweep."""
    ejections: int = 0
    """Of late; the next pause is the longer for each (`forgiven`)."""
    was_away: bool = False
    """Whether it was not connected at the last sweep."""


NEW = Track()
"""What is known of an endpoint that nothing is known of."""


class Record(msgspec.Struct, frozen=True):
    """What is known from sweep to sweep."""

    tracks: Mapping[Address, Track] = {}
    """Of those that differ from `NEW`."""
    out: frozenset[Address] = frozenset()
    """Who is out or on trial."""


IDLE = Record()


def pause_s(ejections: int, config: OutlierConfig, draw: float) -> float:
    """Seconds that an endpoint is left alone for, given how often it was ejected before; `draw` is from [0, 1).

    It doubles, with a random part on top, as linkerd's exp-backoff; but the ceiling holds for the sum.
    """
    grown_s = config.first_pause_s * 2.0 ** min(ejections, _MOST_DOUBLINGS)
    return min(grown_s, config.max_pause_s / (1 + config.jitter)) * (1 + config.jitter * draw)


def forgiven(track: Track, now_s: float, config: OutlierConfig) -> int:
    """Return how many ejections still count for one that is in: one less for each window it has been in.

    As A50's multiplier does, whose interval is as long. linkerd begins anew at once, so that an endpoint which answers
    most of its trials and little else is back after the shortest pause each time.
    """
    windows = max(0.0, now_s - track.since_s) / config.window_s
    return max(0, track.ejections - int(min(windows, track.ejections)))


def sweep(
    record: Record, config: OutlierConfig, fleet: Fleet, now_s: float, rng: random.Random, room: Room
) -> tuple[Record, list[Event]]:
    """Take in what happened since the sweep before, and decide who is in.

    Those who are no longer listed are forgotten. `room` is as the record says; it is brought up to date. Where all
    rules are off, everyone is let in and forgotten.
    """
    if not config.accrues:
        return IDLE, [
            Event(address, Change.READMITTED, track.reason, "the rules were turned off")
            for address, track in record.tracks.items()
            if track.reason is not None and address in fleet
        ]
    step = _Sweep(config, now_s, rng, room)
    for address, seen in fleet.items():
        step.follow(address, record.tracks.get(address, NEW), seen)
    for address, seen in fleet.items():
        step.judge(address, seen)
    step.let_in(fleet)
    return Record(step.tracks, frozenset(step.out)), step.events


def _failed_in_a_row(seen: Seen, config: OutlierConfig) -> bool:
    return 0 < config.consecutive_failures <= seen.failure_streak


def _fault_of_connection(seen: Seen, config: OutlierConfig) -> tuple[Reason, str] | None:
    """Return what speaks against one that has just been connected again."""
    if 0 < config.connection_failures <= seen.connection_failures:
        return Reason.CONNECTION_FAILURES, f"{seen.connection_failures} connections failed before this one"
    if _failed_in_a_row(seen, config):
        return Reason.CONSECUTIVE_FAILURES, f"{seen.failure_streak} calls failed in a row before it was connected again"
    return None


def _called_s(track: Track, seen: Seen, now_s: float) -> float | None:
    """Return since when the call of a trial has been in flight; None if there is none."""
    if not seen.is_waited_for:
        return None
    return now_s if track.called_s is None or track.picks != seen.picks else track.called_s


class _Sweep:
    """One sweep on its way."""

    def __init__(self, config: OutlierConfig, now_s: float, rng: random.Random, room: Room) -> None:
        self.tracks: dict[Address, Track] = {}
        self.out: set[Address] = set()
        self.events: list[Event] = []
        self._config = config
        self._now_s = now_s
        self._slice = slice_at(now_s, config.window_s)
        self._rng = rng
        self._room = room
        self._successes = self._failures = 0
        """Of all who are in, in their windows."""
        self._well = 0
        """How many of those who are in have not failed their last call."""

    # Counting

    def follow(self, address: Address, track: Track, seen: Seen) -> None:
        """Bring what is known of an endpoint up to date; it stays in its phase, but for a trial that ended well."""
        if track.phase is Phase.TRIAL and not seen.is_on_trial:
            track = self._readmit(address, track, "it answered a call")
        if track.phase is Phase.IN:
            if seen.successes or seen.failures or track.window:
                window = slide(track.window, seen.successes, seen.failures, self._slice)
                calls = total(window)
                self._successes += calls.successes
                self._failures += calls.failures
                if window is not track.window:
                    track = msgspec.structs.replace(track, window=window)
            if seen.failure_streak == 0 and seen.standing in _CAN_BE_CALLED:
                self._well += 1
        self._keep(address, track)

    def _keep(self, address: Address, track: Track) -> None:
        if track is not NEW:
            self.tracks[address] = track
        if track.phase is not Phase.IN:
            self.out.add(address)

    # Judging

    def judge(self, address: Address, seen: Seen) -> None:
        """Move an endpoint to the phase that follows, if one does."""
        before = self.tracks.get(address, NEW)
        if before.phase is Phase.IN:
            track = self._judge_one_in(address, before, seen)
        elif before.phase is Phase.OUT:
            track = self._judge_one_out(address, before, seen)
        else:
            track = self._judge_one_on_trial(address, before, seen)
        is_away = seen.standing is None
        if is_away is not track.was_away:
            track = msgspec.structs.replace(track, was_away=is_away)
        if track is not before:
            self.out.discard(address)
            self._keep(address, track)

    def _judge_one_in(self, address: Address, track: Track, seen: Seen) -> Track:
        came_back = track.was_away and seen.standing is not None
        if came_back:
            found = _fault_of_connection(seen, self._config)
        elif seen.failures and seen.standing in _CAN_BE_CALLED:
            found = self._fault_of_calls(seen, total(track.window))
        else:
            return track  # nothing new is held against it; what is old was not enough, or there was no room
        if found is None or not self._room.take(address, self._config.max_ejected_share):
            return track
        reason, detail = found
        if came_back:
            return self._begin_trial(address, track, reason, detail)
        return self._eject(address, reason, detail, forgiven(track, self._now_s, self._config))

    def _judge_one_out(self, address: Address, track: Track, seen: Seen) -> Track:
        if self._now_s < track.until_s or seen.standing is None:
            return track
        assert track.reason is not None
        return self._begin_trial(address, track, track.reason, "its pause is over")

    def _fault_of_calls(self, seen: Seen, calls: Calls) -> tuple[Reason, str] | None:
        """Return the rule that applies to one that has just failed calls, and its figures."""
        if _failed_in_a_row(seen, self._config) and self._well:
            return Reason.CONSECUTIVE_FAILURES, f"{seen.failure_streak} calls failed in a row"
        others = Calls(self._successes - calls.successes, self._failures - calls.failures)
        least = self._config.success_ratio * others.success_ratio
        if calls.total >= self._config.min_requests and calls.success_ratio < least:
            return Reason.SUCCESS_RATIO, f"{calls.failures} of {calls.total} calls failed"
        return None

    def _judge_one_on_trial(self, address: Address, track: Track, seen: Seen) -> Track:
        if seen.failures:
            if not self._well:
                return self._readmit(address, track, "its call failed, as those of the others do")
            # It was out of the count already; but others may have come to be missing meanwhile.
            self._room.give_back(address)
            if self._room.take(address, self._config.max_ejected_share):
                return self._eject(address, Reason.FAILED_TRIAL, "its call failed", track.ejections)
            return self._let_in(address, track, "its call failed, but it cannot be done without")
        called_s = _called_s(track, seen, self._now_s)
        if called_s is not None and self._now_s - called_s >= self._config.window_s:
            # A stream may last for days before it tells how it ends. A call that hangs is found by its silence.
            return self._readmit(address, track, f"its call has run for {self._config.window_s} s")
        if (called_s, seen.picks) == (track.called_s, track.picks):
            return track
        return msgspec.structs.replace(track, called_s=called_s, picks=seen.picks)

    def let_in(self, fleet: Fleet) -> None:
        """Let in those who come next, where more are out than may be."""
        if not self.out:
            return
        next_first = sorted(self.out, key=lambda one: (self.tracks[one].phase is Phase.OUT, self.tracks[one].until_s))
        for address in next_first:
            if not self._room.is_overdrawn(self._config.max_ejected_share):
                return
            if fleet[address].standing is not None:
                self.tracks[address] = self._readmit(address, self.tracks[address], "too few are left")
                self.out.discard(address)

    # Changing

    def _eject(self, address: Address, reason: Reason, detail: str, ejections: int) -> Track:
        pause = pause_s(ejections, self._config, self._rng.random())
        until_s = self._now_s + pause
        self.events.append(Event(address, Change.EJECTED, reason, f"{detail}; out for {pause:.1f} s"))
        return Track(Phase.OUT, reason, since_s=self._now_s, until_s=until_s, ejections=ejections + 1)

    def _begin_trial(self, address: Address, track: Track, reason: Reason, detail: str) -> Track:
        self.events.append(Event(address, Change.ON_TRIAL, reason, detail))
        return Track(Phase.TRIAL, reason, since_s=self._now_s, ejections=track.ejections)

    def _readmit(self, address: Address, track: Track, detail: str) -> Track:
        self._room.give_back(address)
        return self._let_in(address, track, detail)

    def _let_in(self, address: Address, track: Track, detail: str) -> Track:
        assert track.reason is not None
        self.events.append(Event(address, Change.READMITTED, track.reason, detail))
        return Track(since_s=self._now_s, ejections=track.ejections, was_away=track.was_away)
