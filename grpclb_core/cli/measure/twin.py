"""The default policy in plain Python: what the compiled core is compared with, and used by nothing else.

The same algorithm with the same features: two distinct draws, peak EWMA faded on reading, newcomers, weights, a sum of
start times for the mean age, streams, counters, a ticket settled exactly once and given back when dropped. Written as a
careful Python programmer would for speed: slots instead of dicts, the two draws unrolled, no call that can be avoided
at no cost in clarity.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp
from random import Random
from time import monotonic_ns

SUCCESS, FAILURE, CANCELLED, DROPPED = range(4)

# As in picker.pyx: more than any latency.
UNANSWERED_NS = 140737488355328.0


class TwinSlot:
    """The record of one endpoint, as slot.pxd has it."""

    __slots__ = (
        "failures",
        "latency_ns",
        "stamp_ns",
        "started_ns",
        "streams",
        "successes",
        "timed",
        "unjudged",
    )

    def __init__(self) -> None:
        self.timed = 0
        self.started_ns = 0
        self.streams = 0
        self.latency_ns = 0.0
        self.stamp_ns = 0
        self.successes = 0
        self.failures = 0
        self.unjudged = 0

    def projected_ns(self, now_ns: int, decay_ns: float) -> float:
        """Return the latency estimate faded to `now_ns`."""
        age_ns = now_ns - abs(self.stamp_ns)
        return self.latency_ns * exp(-age_ns / decay_ns) if age_ns > 0 else self.latency_ns

    def observe_answer(self, elapsed_ns: int, now_ns: int, decay_ns: float) -> None:
        """Fold the latency of an answer into the peak EWMA."""
        if self.stamp_ns <= 0 or elapsed_ns >= self.latency_ns:
            self.latency_ns = float(elapsed_ns)
        else:
            kept = exp((self.stamp_ns - now_ns) / decay_ns)
            self.latency_ns = self.latency_ns * kept + elapsed_ns * (1.0 - kept)
        self.stamp_ns = now_ns

    def observe_bound(self, elapsed_ns: int, now_ns: int, decay_ns: float) -> None:
        """Take the time a call was waited for in vain as a lower bound of the latency."""
        if elapsed_ns > self.projected_ns(now_ns, decay_ns):
            self.latency_ns = float(elapsed_ns)
            self.stamp_ns = now_ns if self.stamp_ns > 0 else -now_ns


class TwinTicket:
    """The debt of one pick, as ticket.pyx has it."""

    __slots__ = ("_decay_ns", "_is_open", "_slot", "_start_ns", "_stream")

    def __init__(self, slot: TwinSlot, start_ns: int, decay_ns: float, stream: bool) -> None:
        self._slot = slot
        self._start_ns = start_ns
        self._decay_ns = decay_ns
        self._stream = stream
        self._is_open = True

    def __del__(self) -> None:
        if self._is_open:
            self._settle(DROPPED, self._start_ns)

    def finish(self, outcome: int, /) -> bool:
        """Settle the debt; True only for the call that did it."""
        if not SUCCESS <= outcome <= DROPPED:
            raise ValueError(f"outcome {outcome} is unknown")
        return self._settle(outcome, monotonic_ns())

    def finish_at(self, outcome: int, now_ns: int, /) -> bool:
        """Do as `finish` does at the time `now_ns`."""
        return self._settle(outcome, now_ns)

    def _settle(self, outcome: int, now_ns: int) -> bool:
        if not self._is_open:
            return False
        self._is_open = False
        slot = self._slot
        if self._stream:
            slot.streams -= 1
        else:
            slot.timed -= 1
            slot.started_ns -= self._start_ns
            elapsed_ns = now_ns - self._start_ns
            if elapsed_ns < 1:
                elapsed_ns = 1
            if outcome == SUCCESS:
                slot.observe_answer(elapsed_ns, now_ns, self._decay_ns)
            elif outcome != DROPPED:
                slot.observe_bound(elapsed_ns, now_ns, self._decay_ns)
        if outcome == SUCCESS:
            slot.successes += 1
        elif outcome == FAILURE:
            slot.failures += 1
        else:
            slot.unjudged += 1
        return True


class TwinPicker:
    """Draws two endpoints and takes the one with less latency x calls in flight, as P2cEwmaPicker does."""

    __slots__ = ("_decay_ns", "_members", "_random")

    def __init__(
        self, slots: Sequence[TwinSlot], weights: Sequence[float] | None = None, *, decay_s: float = 10.0, seed: int = 0
    ) -> None:
        shares = [1.0] * len(slots) if weights is None else weights
        self._members = [(slot, 1.0 / weight) for slot, weight in zip(slots, shares, strict=True)]
        self._decay_ns = decay_s * 1e9
        self._random = Random(seed).random  # the bound method of the generator: nothing is looked up a pick

    def pick(self) -> TwinTicket:
        """Choose an endpoint for a unary call and open its ticket."""
        return self.pick_at(monotonic_ns(), False)

    def pick_at(self, now_ns: int, stream: bool = False) -> TwinTicket:
        """Do as `pick` does at the time `now_ns`."""
        slot = self._choose(now_ns)
        if stream:
            slot.streams += 1
        else:
            slot.timed += 1
            slot.started_ns += now_ns
        return TwinTicket(slot, now_ns, self._decay_ns, stream)

    def _choose(self, now_ns: int) -> TwinSlot:
        members = self._members
        count = len(members)
        if count == 1:
            return members[0][0]
        chance = self._random
        first_index = int(chance() * count)
        second_index = int(chance() * (count - 1))
        if second_index >= first_index:
            second_index += 1
        first, first_share = members[first_index]
        second, second_share = members[second_index]
        first_ns = first.projected_ns(now_ns, self._decay_ns)
        second_ns = second.projected_ns(now_ns, self._decay_ns)
        if first.stamp_ns <= 0 or second.stamp_ns <= 0:
            seed_ns = max(first_ns, second_ns, 1.0)
            if first.stamp_ns <= 0:
                first_ns = UNANSWERED_NS if first.timed else seed_ns
            if second.stamp_ns <= 0:
                second_ns = UNANSWERED_NS if second.timed else seed_ns
        first_cost = first_ns * (first.timed + first.streams + 1) * first_share
        return first if first_cost <= second_ns * (second.timed + second.streams + 1) * second_share else second
