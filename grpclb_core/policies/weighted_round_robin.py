"""Weighted round robin by load reports, as gRFC A58 has it (https://github.com/grpc/proposal, with A114)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar

import msgspec

from ..config import PositiveSeconds, Seconds
from ..native import Picker, Slot, StridePicker, View
from ..types import LoadReport
from .round_robin import RoundRobin

LEAST_UPDATE_PERIOD_S = 0.1
"""A shorter update period means this one (A58)."""

LOOKS_IN_A_PERIOD = 10
"""Reports with calls that are read of one endpoint in one update period. Only the last of them is put in force; a busy
endpoint sends thousands, and reading one costs 15 us."""

FEWEST_USABLE = 2
"""Endpoints whose weight is known, without which there is nothing to compare (A58)."""

# What a metric name may begin with (A114): a map, before a dot and a key, or the metric itself.
_MAPS = ("named_metrics", "utilization")
_NUMBERS = ("application_utilization", "cpu_utilization", "mem_utilization")


class WeightedRoundRobin(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Takes endpoints in turn, each as often as its load reports say it can take calls: calls a second / utilization.

    The share of an endpoint is what its reports make of it, times its weight in the set: that of its endpoint, its zone
    and its priority. Where fewer than two have reported, it is `RoundRobin`.
    """

    name: ClassVar[str] = "weighted_round_robin"
    capped_in_json: ClassVar[tuple[str, ...]] = ("oob_reporting_period_s",)

    enable_oob_load_report: bool = False
    """Whether endpoints are asked for reports on a stream of their own, beside those that come with calls."""
    oob_reporting_period_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 10.0
    """How often that stream is to bring one; a server may have a floor, commonly of 30 s (gRFC A51). A day is the
    longest, and in a service config what is longer means that: no weight lives on so long by default."""
    blackout_period_s: Seconds = 10.0
    """How long an endpoint has to have reported before its weight is used: what it says as it begins means little."""
    weight_expiration_period_s: PositiveSeconds = 180.0
    """A weight that is older is used no longer, and the blackout applies anew."""
    weight_update_period_s: Seconds = 1.0
    """How often weights are put in force; below 0.1 it is 0.1."""
    error_utilization_penalty: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    """What the share of calls that fail adds to the utilization of their server, times this."""
    metric_names_for_computing_utilization: tuple[str, ...] = ()
    """What stands for the utilization, the largest of them: `named_metrics.NAME`, `utilization.NAME`,
    `cpu_utilization`, `mem_utilization` or `application_utilization` (A114). Where none is reported, it is as without.
    """
    decay_s: PositiveSeconds = 10.0
    """Mean lifetime in seconds of the latency that is reported; the choice does not look at it."""

    @property
    def rebuild_s(self) -> float:
        """How often the picker is made anew, in seconds."""
        return max(self.weight_update_period_s, LEAST_UPDATE_PERIOD_S)

    @property
    def oob_period_s(self) -> float | None:
        """How often endpoints are asked for a report beside the calls, in seconds; None if they are not."""
        return self.oob_reporting_period_s if self.enable_oob_load_report else None

    def wants(self, slot: Slot, now_ns: int) -> bool:
        """Tell whether a report that comes with a call is worth reading: not if there was one just now."""
        return slot.weighed_ns == 0 or not 0 <= now_ns - slot.weighed_ns < self.rebuild_s * 1e9 / LOOKS_IN_A_PERIOD

    def observe(self, report: LoadReport, slot: Slot, now_ns: int) -> None:
        """Make a weight of a report; one without calls or utilization says nothing, and the weight before it stays."""
        weight = weight_of(report, self.error_utilization_penalty, self.metric_names_for_computing_utilization)
        if weight is None:
            slot.ignore_report()
        if slot.weighed_since_ns > now_ns:  # the clock stepped back
            slot.forget_weight()
        if weight:
            slot.report_weight_at(weight, now_ns)
        elif slot.weighed_since_ns == 0:
            # Only the time stays, for `wants`: servers that never say anything of use need not be heard each time.
            slot.report_weight_at(0.0, now_ns)
            slot.forget_weight()

    def build(self, view: View, seed: int, now_ns: int) -> Picker:
        weights = self.usable_weights(view, now_ns)
        if len(weights) - weights.count(0.0) < FEWEST_USABLE:
            return RoundRobin(decay_s=self.decay_s).build(view, seed, now_ns)
        return StridePicker(view, weights, decay_s=self.decay_s, seed=seed)

    def usable_weights(self, view: View, now_ns: int) -> list[float]:
        """Return the weight of each endpoint of a view, 0.0 for one that has none to be used; forget those too old."""
        blackout_ns, expiration_ns = self.blackout_period_s * 1e9, self.weight_expiration_period_s * 1e9
        weights = [0.0] * len(view)
        for place, slot in enumerate(view.slots):  # there may be ten thousand of them
            since_ns = slot.weighed_since_ns
            if since_ns == 0:
                continue
            # As far ahead as that is no news either: the clock stepped back, and what it says of the age means nothing.
            if abs(now_ns - slot.weighed_ns) >= expiration_ns:
                slot.forget_weight()
            elif now_ns - since_ns >= blackout_ns:
                weights[place] = slot.reported_weight
        return weights


def weight_of(report: LoadReport, penalty: float, metric_names: tuple[str, ...] = ()) -> float | None:
    """Return the weight that a report makes: calls per second / (utilization + failed part of the calls x penalty).

    It is 0 where the report lacks calls or utilization, and None where no weight can be made of what it says.
    """
    calls, failed, used = report.rps_fractional, report.eps, utilization_of(report, metric_names)
    if calls == 0 or used == 0:
        return 0.0
    if not (calls > 0 and used > 0 and failed >= 0):
        return None
    weight = calls / (used + (failed / calls * penalty if failed else 0.0))
    return weight if 0 < weight < math.inf else None


def utilization_of(report: LoadReport, metric_names: tuple[str, ...] = ()) -> float:
    """Return how busy a server is: the largest metric of those names, else the application, else the processor."""
    named = max((metric_of(report, name) for name in metric_names), default=0.0)
    return named or report.application_utilization or report.cpu_utilization


def metric_of(report: LoadReport, name: str) -> float:
    """Return a metric by the name that A114 gives it; 0.0 where it is not reported, or is no number above 0."""
    field, _, key = name.partition(".")
    value = 0.0
    if key and field in _MAPS:
        named: Mapping[str, float] = getattr(report, field)
        value = named.get(key, 0.0)
    elif name in _NUMBERS:
        value = getattr(report, name)
    return value if value > 0 else 0.0
