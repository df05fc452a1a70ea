"""Asking servers for their load, for policies that have to hear of those that no call goes to.

Reports come with the answers of calls, and cost next to nothing; but they come from those that are called. To ask costs
a call of its own, so only those are asked that were not heard of for a while: in turn, as often as there are calls, and
a little where there are none. A server that cannot answer is not asked again on the same connection.
"""

from __future__ import annotations

import logging
import random
import weakref
from collections.abc import Callable, Sequence
from typing import Protocol

import anyio
import anyio.abc
import grpc.aio

from ..native import CurrentPicker, Picker, PrequalPicker, Slot, now_ns
from ..policies import Policy, WantsProbes, wants_probes
from ..reports import probe_load
from ..types import LoadReport

TICK_S = 0.05
"""How often it is looked whom to ask while there are calls; as connections are."""
IDLE_S = 0.5
"""The same while there are none, or the policy wants nobody asked."""
IDLE_AFTER_NS = 1_000_000_000
"""After so long without a call there are none."""
MOST_PER_S = 100.0
"""Most endpoints asked in a second. To ask one costs a client half a millisecond, so all of them a twentieth of a
core."""
MOST_AT_ONCE = 16
"""Most endpoints asked at once: as many reports as the paper has in its pool."""
LOOKS = 64
"""Endpoints looked at in one tick, which costs some 20 us."""
TIMEOUT_S = 0.25
"""How long an answer is waited for. The paper's 3 ms are for a network without a Python process at either end; and an
answer tells of the time when it was given, so a late one is as good."""
FEWEST_FRESH = 2
"""Fewer reports are no choice (paper)."""

logger = logging.getLogger("grpclb_core")


class Turns:
    """Tells whose turn it is to be asked: drawn without replacement, those not heard of for a while.

    Args:
        rng: draws the order.
    """

    def __init__(self, rng: random.Random) -> None:
        self.pause_s = TICK_S
        """How long to wait before `due` is called again, in seconds."""
        self._rng = rng
        self._order: list[Slot] = []
        self._of: Sequence[Slot] = ()
        self._place = 0
        self._credit = 0.0  # what calls, and the time without them, have earned
        self._allowance = float(MOST_AT_ONCE)  # what time alone allows
        self._picker: Picker | None = None
        self._picks = 0
        self._since_ns: int | None = None
        self._called_ns = 0

    def due(self, policy: WantsProbes, picker: Picker, now_ns: int, may_ask: Callable[[Slot], bool]) -> list[Slot]:
        """Return whom to ask now, given the picker in force."""
        slots, calls = picker.view.slots, self._calls(picker)
        lasted_s = 0.0 if self._since_ns is None else max(now_ns - self._since_ns, 0) * 1e-9
        self._since_ns = now_ns
        if calls:
            self._called_ns = now_ns
        self.pause_s = TICK_S if 0 <= now_ns - self._called_ns < IDLE_AFTER_NS else IDLE_S
        earned = calls * policy.probe_rate + policy.idle_probes_per_s * lasted_s
        self._credit = min(self._credit + earned, float(MOST_AT_ONCE))
        self._allowance = min(self._allowance + MOST_PER_S * lasted_s, float(MOST_AT_ONCE))
        drawn: list[Slot] = []
        for _ in range(min(LOOKS, len(slots))):
            if min(self._credit, self._allowance) < 1.0:
                break
            slot = self._next(slots)
            # From the future is no report either: the clock stepped back.
            if not 0 <= now_ns - slot.reported_ns < policy.probe_after_s * 1e9 and may_ask(slot) and slot not in drawn:
                self._credit -= 1.0
                self._allowance -= 1.0
                drawn.append(slot)
        return drawn

    def draw(self, slots: Sequence[Slot], count: int, may_ask: Callable[[Slot], bool]) -> list[Slot]:
        """Return so many endpoints, or as many as are found, whenever they were heard of."""
        drawn: list[Slot] = []
        for _ in range(min(LOOKS, len(slots))):
            slot = self._next(slots)
            if may_ask(slot) and slot not in drawn:
                drawn.append(slot)
                if len(drawn) == count:
                    break
        return drawn

    def _calls(self, picker: Picker) -> int:
        """Return how many calls were made since this was last called; pickers of other kinds do not tell."""
        before = self._picks if picker is self._picker else 0
        self._picker, self._picks = picker, getattr(picker, "picks", 0)
        return self._picks - before

    def _next(self, slots: Sequence[Slot]) -> Slot:
        if slots is not self._of or self._place >= len(self._order):
            self._of, self._order, self._place = slots, list(slots), 0
            self._rng.shuffle(self._order)
        self._place += 1
        return self._order[self._place - 1]


class Owner(Protocol):
    """Whose endpoints are asked: what is in force with it at the moment."""

    @property
    def policy(self) -> Policy: ...
    @property
    def current(self) -> CurrentPicker: ...

    def channel_of(self, slot: Slot) -> grpc.aio.Channel:
        """Return the channel to an endpoint, or raise KeyError if it is gone."""


class Probing:
    """Asks the endpoints of a balancer for their load, for as long as its policy wants them asked.

    Args:
        owner: the balancer.
        take: takes in a report that can be believed.
        rng: draws whom to ask.
    """

    def __init__(self, owner: Owner, take: Callable[[Slot, LoadReport], None], rng: random.Random) -> None:
        self._owner = owner
        self._take = take
        self._turns = Turns(rng)
        self._asked: set[Slot] = set()
        self._mute: weakref.WeakSet[Slot] = weakref.WeakSet()  # those that cannot answer
        self._tasks: anyio.abc.TaskGroup | None = None
        self._round: anyio.Event | None = None

    async def run(self) -> None:
        """Ask until cancelled."""
        try:
            async with anyio.create_task_group() as self._tasks:
                while True:
                    wait_s = self._tick(self._tasks)
                    await anyio.sleep(wait_s)
        finally:
            self._tasks = None
            self._asked.clear()

    def greet(self, slot: Slot) -> None:
        """Take note that an endpoint is connected anew: it may be able to answer now."""
        self._mute.discard(slot)

    def _tick(self, tasks: anyio.abc.TaskGroup) -> float:
        """Begin to ask those whose turn it is; return how long to wait until the next time."""
        policy, picker = self._owner.policy, self._owner.current.picker
        if picker is None or not wants_probes(policy):
            return IDLE_S
        for slot in self._turns.due(policy, picker, now_ns(), self._may_ask):
            tasks.start_soon(self._ask, slot)
        return self._turns.pause_s

    def _may_ask(self, slot: Slot) -> bool:
        return slot not in self._mute and slot not in self._asked and len(self._asked) < MOST_AT_ONCE

    async def _ask(self, slot: Slot) -> None:
        if not self._may_ask(slot):
            return
        self._asked.add(slot)
        try:
            probe = await probe_load(self._owner.channel_of(slot), TIMEOUT_S)
        except KeyError:
            return  # it left a moment ago
        finally:
            self._asked.discard(slot)
        if probe.report is not None:
            self._take(slot, probe.report)
        elif probe.is_unsupported:
            self._mute.add(slot)
        elif probe.is_ignored:
            logger.debug("a load report is ignored: %s", probe.fault)
            slot.ignore_report()

    # Before a call

    @property
    def is_synchronous(self) -> bool:
        """Whether calls are to look first if there is a choice."""
        policy = self._owner.policy
        return wants_probes(policy) and policy.sync_probes >= FEWEST_FRESH

    @property
    def is_awaited(self) -> bool:
        """Whether a call is to wait until endpoints were asked, as too few are known of and more can answer."""
        picker = self._owner.current.picker
        return (
            self.is_synchronous
            and isinstance(picker, PrequalPicker)
            and len(picker) - len(self._mute) >= FEWEST_FRESH
            and picker.pooled_at(now_ns()) < FEWEST_FRESH
        )

    async def ask_first(self) -> None:
        """Ask as many endpoints as the policy says, and wait for all but one; calls at the same time wait together."""
        if self._round is None:
            if self._tasks is None:
                return
            self._round = anyio.Event()
            self._tasks.start_soon(self._ask_round, self._round)
        await self._round.wait()

    async def _ask_round(self, is_over: anyio.Event) -> None:
        policy, picker = self._owner.policy, self._owner.current.picker
        try:
            if picker is None or not wants_probes(policy):
                return
            drawn = self._turns.draw(picker.view.slots, policy.sync_probes, self._may_ask)
            missing = max(len(drawn) - 1, 1)

            async def ask(slot: Slot) -> None:
                nonlocal missing
                await self._ask(slot)
                missing -= 1
                if missing == 0:
                    self._end_round(is_over)

            async with anyio.create_task_group() as asking:
                for slot in drawn:
                    asking.start_soon(ask, slot)
        finally:
            self._end_round(is_over)

    def _end_round(self, is_over: anyio.Event) -> None:
        is_over.set()
        if self._round is is_over:
            self._round = None
