"""Round robin: each endpoint in turn."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from ..config import PositiveSeconds
from ..native import Picker, RoundRobinPicker, StridePicker, View


class RoundRobin(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Takes endpoints in turn from a random start, as gRPC's own policy does.

    Where weights differ, be it those of endpoints, or the shares of zones and priorities, an endpoint has turns in
    proportion to its weight.
    """

    name: ClassVar[str] = "round_robin"

    decay_s: PositiveSeconds = 10.0
    """Mean lifetime in seconds of the latency that is reported; the choice does not look at it."""

    def build(self, view: View, seed: int, now_ns: int) -> Picker:
        kind = RoundRobinPicker if view.is_even else StridePicker
        return kind(view, decay_s=self.decay_s, seed=seed)
