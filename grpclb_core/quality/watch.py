"""Outlier detection for a simulated client: the steps of `health.outlier`, over its slots."""

from __future__ import annotations

import random
from collections.abc import Mapping

from ..balancer.outliers import SWEEP_S, TRIAL_POLL_S
from ..config import Config
from ..health import Standing, choose
from ..health.outlier import EMPTY, Change, Seen, sweep
from ..native import Slot
from ..types import Address
from .service import NS_PER_S


class Watch:
    """Decides which servers get no calls, because those they got failed.

    Args:
        config: the rules, and the threshold of panic.
        rng: for jitter.
    """

    __slots__ = ("_config", "_counted", "_rng", "_state", "_trials")

    def __init__(self, config: Config, rng: random.Random) -> None:
        self._config = config
        self._rng = rng
        self._state = EMPTY
        self._counted: dict[Slot, tuple[int, int]] = {}
        self._trials: set[Slot] = set()
        """Those that began here; there are other reasons for one."""

    @property
    def pause_s(self) -> float:
        """How long to wait until the next look; a balancer waits as long."""
        return TRIAL_POLL_S if self._state.on_trial() else SWEEP_S

    def look(self, slots: Mapping[int, Slot], now_ns: int) -> frozenset[int]:
        """Return the servers that are to get no calls from now on."""
        before = self._counted
        self._counted = {slot: (slot.successes, slot.failures) for slot in slots.values()}
        addresses = {Address("server", server): slot for server, slot in slots.items()}
        fleet = {address: self._seen(slot, before.get(slot)) for address, slot in addresses.items()}
        step = sweep(
            self._state, self._config.outliers, fleet, now_ns / NS_PER_S, self._rng, self._config.panic_threshold
        )
        self._state = step.state
        for event in step.events:
            if event.change is Change.ON_TRIAL:
                addresses[event.address].start_trial_at(now_ns)
                self._trials.add(addresses[event.address])
                addresses[event.address].forget_latency_at(now_ns)
        ejected, on_trial = self._state.ejected(), self._state.on_trial()
        over = self._trials - {addresses[address] for address in on_trial if address in addresses}
        for slot in over:
            slot.end_trial()
        self._trials -= over
        standings = [Standing.UNUSABLE if address in ejected else Standing.USABLE for address in addresses]
        chosen, _ = choose(standings, self._config.panic_threshold)
        return frozenset(server for server, is_chosen in zip(slots, chosen, strict=True) if not is_chosen)

    def _seen(self, slot: Slot, before: tuple[int, int] | None) -> Seen:
        successes, failures = self._counted[slot]
        earlier = (successes, failures) if before is None else before
        return Seen(
            successes - earlier[0],
            failures - earlier[1],
            slot.failure_streak,
            is_on_trial=slot.is_on_trial,
            is_waited_for=slot.is_waited_for,
            picks=slot.picks,
        )
