"""Round robin: each endpoint in turn."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from ..config import PositiveSeconds
from ..native import Picker, RoundRobinPicker, View


class RoundRobin(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Takes endpoints in turn from a random start, whatever their weight, as gRPC's own policy does."""

    name: ClassVar[str] = "round_robin"

    decay_s: PositiveSeconds = 10.0
    """Mean lifetime in seconds of the latency that is reported; the choice does not look at it."""

    def build(self, view: View, seed: int) -> Picker:
        return RoundRobinPicker(view, decay_s=self.decay_s, seed=seed)
