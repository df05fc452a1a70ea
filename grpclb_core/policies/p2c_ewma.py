"""Power of two choices over peak EWMA: the default."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from ..config import PositiveSeconds, Seconds
from ..native import P2cEwmaPicker, Picker, View

Factor = Annotated[float, msgspec.Meta(ge=0)]


class P2cEwma(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Draws two endpoints and takes the one where latency x (1 + calls in flight / weight) is less.

    Mitzenmacher's two choices, with finagle's peak EWMA as the load. A weight counts twice over: an endpoint is drawn
    as often as its weight says, so that shares hold where hardly anything is in flight; and each call in flight counts
    for less where there is more weight, so that they hold under load.

    Every rule past that can be switched off by a 0 (or False). ADR 7 has what each of them does in the simulator.
    """

    name: ClassVar[str] = "p2c_ewma"

    decay_s: PositiveSeconds = 10.0
    """Mean lifetime of a latency sample in seconds; finagle, linkerd, go-zero and brpc all use 10."""
    failure_penalty_s: Seconds = 5.0
    """A failed call counts as one that took so long, so that a server that fails at once does not look like the
    fastest; linkerd's base. This one is for UNKNOWN, INTERNAL, DATA_LOSS and DEADLINE_EXCEEDED."""
    unavailable_penalty_s: Seconds = 5.0
    """The same for UNAVAILABLE."""
    rate_limited_penalty_s: Seconds = 5.0
    """The same for RESOURCE_EXHAUSTED."""
    max_pushback_s: Seconds = 300.0
    """The longest that a server's `grpc-retry-pushback-ms` is granted; linkerd's ceiling."""
    age_factor: Factor = 1.5
    """Calls in flight whose mean age is past that many estimates stand in for the estimate, so that a server that hangs
    is seen before any answer is; brpc's `punish_inflight_ratio`."""
    peak_cap: Factor = 20.0
    """One answer counts for no more than that many times the mean of a typical endpoint, lest a single slow one exile
    its server. A value below 1 counts as 1."""
    alike_factor: Factor = 0.2
    """Estimates that differ by chance count as equal, so that calls in flight decide: those within 1 + that many times
    the spread, which is how many times their mean the peaks of this fleet are (5 where latencies are exponential, 10
    and more where some calls are far heavier than others)."""
    floor: bool = True
    """An estimate of more than twice what is typical does not fade below the least of the fleet, lest a slow server
    left alone come to look fastest."""
    probe_s: Seconds = 2.2
    """A slow endpoint is tried again after so long without a call, and taken back after three good answers; about one
    pick of 300 goes to that, or one of 18 where calls are rare."""
    widen_factor: Factor = 2.0
    """Where the better of two draws is slower than that many times what is typical, more are drawn: two draws of four
    servers fall on the two slow ones once in six. What is slow counts for its excess once more then."""
    stream_weight: Factor = 1.0
    """What an open stream counts for, where a call in flight counts for 1."""

    def build(self, view: View, seed: int, now_ns: int) -> Picker:
        return P2cEwmaPicker(
            view,
            decay_s=self.decay_s,
            seed=seed,
            failure_s=self.failure_penalty_s,
            unavailable_s=self.unavailable_penalty_s,
            rate_limited_s=self.rate_limited_penalty_s,
            pushback_s=self.max_pushback_s,
            age_factor=self.age_factor,
            peak_cap=self.peak_cap,
            alike_factor=self.alike_factor,
            floor=self.floor,
            probe_s=self.probe_s,
            widen_factor=self.widen_factor,
            stream_weight=self.stream_weight,
        )
