"""Who is done without because its calls fail: `health.outlier` at work on the members of a balancer."""

from __future__ import annotations

import logging
import math
import random
import weakref
from collections.abc import Callable, Mapping, Sequence, Set

import anyio

from ..config import Config
from ..endpoints import EndpointSet, Member
from ..health import Standing
from ..health.outlier import EMPTY, SLICES, Change, Event, Seen, sweep
from ..native import Slot
from ..types import Address
from .selection import standing_of

SWEEP_S = 0.1
"""How often the counters are read. So long an endpoint that fails may go unnoticed: ten failures, at a hundred calls a
second to it, of which the first seven are asked for anyway."""
TRIAL_POLL_S = 0.01
"""How often those on trial are looked at: a failed one should not have more calls."""
SWEEP_EACH_S = 500e-6
"""A sweep costs 2 to 4 us an endpoint, so this keeps all of them together below one hundredth of a core."""
IDLE_S = 1.0
"""While no rule is on, how often it is looked whether one is."""

# The best of what is said of several connections to one endpoint is what counts.
_BEST_FIRST = (Standing.USABLE, Standing.LEAVING, Standing.PENDING, Standing.UNUSABLE, Standing.LEFT)

logger = logging.getLogger("grpclb_core")


class Outliers:
    """Sweeps over the members of an endpoint set, ejects those whose calls fail, and has them come back on trial.

    An endpoint with several connections is judged as one. What is found is put down with the members.

    Args:
        endpoints: whose members are watched.
        config: the rules, and the threshold of panic; may be replaced at any time.
        rng: for jitter.
        changed: called when others may have calls than before.
        clock: tells the time in seconds.
    """

    def __init__(
        self,
        endpoints: EndpointSet,
        config: Config,
        rng: random.Random,
        changed: Callable[[], None],
        clock: Callable[[], float] = anyio.current_time,
    ) -> None:
        self.config = config
        self.ejections = 0
        """How often an endpoint was ejected."""
        self.readmissions = 0
        """How often one was let in again."""
        self.any_ejected = False
        self._endpoints = endpoints
        self._rng = rng
        self._changed = changed
        self._clock = clock
        self._state = EMPTY
        self._trials: weakref.WeakSet[Slot] = weakref.WeakSet()
        """Whose trial began here; there are other reasons for one."""
        self._swept_s = -math.inf
        self._counted: dict[Slot, tuple[int, int]] = {}
        self._has_suspects = False

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            rules = self.config.outliers
            if not (rules.accrues or rules.a50.detects) and self._state == EMPTY:
                await anyio.sleep(IDLE_S)
                continue
            await self._pause()
            if self.is_due and self.sweep():
                self._changed()

    async def _pause(self) -> None:
        """Wait until it is time to look again, or one on trial has answered its call."""
        ends_s = anyio.current_time() + max(SWEEP_S, len(self._endpoints) * SWEEP_EACH_S)
        on_trial = [member.slot for member in self._endpoints.members() if member.slot in self._trials]
        while (left_s := ends_s - anyio.current_time()) > 0:
            await anyio.sleep(min(left_s, TRIAL_POLL_S) if on_trial else left_s)
            if any(not slot.is_on_trial or slot.failures != self._failures_of(slot) for slot in on_trial):
                return

    def _failures_of(self, slot: Slot) -> int:
        return self._counted[slot][1] if slot in self._counted else -1

    @property
    def is_due(self) -> bool:
        """Whether a sweep may find anything: a call failed, somebody is out, or the windows have to slide on."""
        config = self.config.outliers
        if self._state.has_out or config.a50.detects or self._clock() - self._swept_s >= config.window_s / SLICES:
            return True
        return any(member.slot.failures != self._failures_of(member.slot) for member in self._endpoints.members())

    def greet(self, member: Member) -> None:
        """Take note that a member is connected anew; if much speaks against it, `catch_up` looks before calls do."""
        rules = self.config.outliers
        self._has_suspects |= (
            0 < rules.connection_failures <= member.connection_failures
            or 0 < rules.consecutive_failures <= member.slot.failure_streak
        )

    def catch_up(self) -> None:
        """Sweep now if one was connected anew that may have to be put on trial."""
        if self._has_suspects:
            self.sweep()

    def sweep(self) -> bool:
        """Look at what every member did since the last sweep; return whether others may have calls than before."""
        self._has_suspects = False
        before, self._counted = self._counted, {}
        groups: dict[Address, list[Member]] = {}
        fleet: dict[Address, Seen] = {}
        for member in self._endpoints.members():
            address, seen = member.endpoint.address, self._seen(member, before)
            groups.setdefault(address, []).append(member)
            fleet[address] = _together(fleet[address], seen) if address in fleet else seen
        now_s = self._swept_s = self._clock()
        step = sweep(self._state, self.config.outliers, fleet, now_s, self._rng, self.config.panic_threshold)
        self._state = step.state
        for event in step.events:
            self._tell(event)
            if event.change is Change.ON_TRIAL:
                for member in groups[event.address]:
                    member.slot.start_trial()
                    self._trials.add(member.slot)
                    member.slot.forget_latency()  # or its failures would have policies that go by it leave it alone
        return self._put_down(groups)

    def _seen(self, member: Member, before: Mapping[Slot, tuple[int, int]]) -> Seen:
        """Return what is seen of a member, given what its slot had counted before."""
        slot = member.slot
        successes, failures = now = self._counted[slot] = (slot.successes, slot.failures)
        if now == before.get(slot, now):
            successes = failures = 0
        else:
            successes, failures = successes - before[slot][0], failures - before[slot][1]
            if successes:
                member.connection_failures = 0
        return Seen(
            successes,
            failures,
            slot.failure_streak,
            member.connection_failures,
            slot.is_on_trial,
            slot.is_waited_for,
            standing_of(member),
            slot.picks,
        )

    def _tell(self, event: Event) -> None:
        logger.info("%s: %s for %s: %s", event.address, event.change.value, event.reason.value, event.detail)
        self.ejections += event.change is Change.EJECTED
        self.readmissions += event.change is Change.READMITTED

    def _put_down(self, groups: Mapping[Address, Sequence[Member]]) -> bool:
        """Have the members tell what was found; return whether it is another set that may have calls."""
        ejected, on_trial = self._state.ejected(), self._state.on_trial()
        self.any_ejected = bool(ejected)
        is_another = False
        for address, members in groups.items():
            is_ejected = address in ejected
            for member in members:
                is_another |= member.is_ejected is not is_ejected
                member.is_ejected = is_ejected
                reason = ejected.get(address) or on_trial.get(address)
                member.outlier_reason = None if reason is None else reason.value
        self._end_trials({member.slot for address in on_trial for member in groups.get(address, ())})
        return is_another

    def _end_trials(self, ongoing: Set[Slot]) -> None:
        """End those that began here and are over, wherever their members are by now."""
        for slot in [slot for slot in self._trials if slot not in ongoing]:
            slot.end_trial()
            self._trials.discard(slot)


def _together(first: Seen, second: Seen) -> Seen:
    """Return what is seen of an endpoint with two connections."""
    standings = (first.standing, second.standing)
    return Seen(
        first.successes + second.successes,
        first.failures + second.failures,
        _streak(first, second),
        min(first.connection_failures, second.connection_failures),
        first.is_on_trial and second.is_on_trial,
        first.is_waited_for or second.is_waited_for,
        next((one for one in _BEST_FIRST if one in standings), None),
        first.picks + second.picks,
    )


def _streak(first: Seen, second: Seen) -> int:
    """Return the failures in a row of two connections: what one answers well is no failure of their endpoint."""
    connected = [one.failure_streak for one in (first, second) if one.standing is not None]
    return min(connected or (first.failure_streak, second.failure_streak))
