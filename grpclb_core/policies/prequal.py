"""Prequal: the least latency among those whose calls in flight are not too many, as servers tell them (NSDI '24)."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from ..config import Fraction, PositiveSeconds, Seconds
from ..native import Picker, PrequalPicker, Slot, View
from ..types import LoadReport

Rate = Annotated[float, msgspec.Meta(ge=0, le=1_000)]

READ_EVERY_S = 0.01
"""Of one endpoint no more reports are read than that, with answers of calls: reading one costs 15 us, and where more
come, the calls in flight that we count ourselves are most of those it has."""


class Prequal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Takes the endpoint with the least latency among those whose calls in flight are not above a quantile.

    Servers tell both, with the answers to calls (`grpclb_core.server.LoadInterceptor`); those not heard of for a while
    are asked (`add_load_service`). Where no server does so, this is `least_request`. ADR 8 has what is different from
    the paper, and why.
    """

    name: ClassVar[str] = "prequal"

    q_rif: Fraction = 0.84
    """An endpoint is hot whose calls in flight are above that quantile of the last reports; 0 to go by calls in flight
    alone, 1 by latency alone. The paper's 2^-0.25; ADR 8 has what the simulator made of others."""
    least_hot: Annotated[float, msgspec.Meta(ge=0)] = 2.0
    """An endpoint with no more calls in flight than that is never hot: where hardly any server has two, having one is
    no reason to go to a slow one. It is not in the paper; 0 for as there."""
    pool_size: Annotated[int, msgspec.Meta(ge=2, le=64)] = 16
    """Most reports that are chosen among; the paper's."""
    max_age_s: PositiveSeconds = 1.0
    """A report that is older is used no longer; the paper's."""
    probe_rate: Rate = 2.0
    """Endpoints asked for each call, if that many were not heard of for `probe_after_s`. With the report that comes
    with the answer, that makes the paper's three."""
    probe_after_s: Seconds = 1.0
    """An endpoint may be asked that was not heard of for so long."""
    idle_probes_per_s: Rate = 2.0
    """Endpoints asked each second without any call, so that the next one finds two reports that are fresh."""
    remove_rate: Rate = 0.5
    """Entries of the pool taken out for each call, the oldest and the worst in turn. The paper's 1 makes reports be
    used more often by its formula, which in the simulator did worse."""
    delta: Annotated[float, msgspec.Meta(ge=0, le=1_000)] = 1.0
    """How much more comes into the pool than goes, which sets how many calls may go by one report; the paper's."""
    aversion_s: Seconds = 5.0
    """After a failed call an endpoint is left aside for so long, and up to four times that where failures go on; for a
    part of it, where other calls were answered. As much as a failed call counts for in `p2c_ewma`."""
    explore_s: PositiveSeconds = 5.0
    """An endpoint that was not heard of for so long, as it cannot be asked, gets a call to hear of it."""
    sync_probes: Annotated[int, msgspec.Meta(ge=0, le=16)] = 0
    """Without two fresh reports, a call asks that many endpoints and waits for all but one of them (the paper's
    synchronous mode); 0 or 1 for never."""
    decay_s: PositiveSeconds = 10.0
    """Mean lifetime in seconds of the latency that is shown; the choice does not look at it."""

    @property
    def oob_period_s(self) -> float | None:
        """None: endpoints are asked one by one, and not on streams of their own."""
        return None

    def wants(self, slot: Slot, now_ns: int) -> bool:
        """Tell whether a report that comes with a call is worth reading: not if there was one just now."""
        return not 0 <= now_ns - slot.reported_ns < READ_EVERY_S * 1e9

    def observe(self, report: LoadReport, slot: Slot, now_ns: int) -> None:
        """Do nothing: calls in flight and latency are in the slot by now, and the picker takes them from there."""

    def build(self, view: View, seed: int, now_ns: int) -> Picker:
        return PrequalPicker(
            view,
            pool_size=self.pool_size,
            q_rif=self.q_rif,
            delta=self.delta,
            max_age_s=self.max_age_s,
            probe_rate=1.0 + self.probe_rate,
            remove_rate=self.remove_rate,
            explore_s=self.explore_s,
            aversion_s=self.aversion_s,
            least_hot=self.least_hot,
            decay_s=self.decay_s,
            seed=seed,
            now_ns=now_ns,
        )
