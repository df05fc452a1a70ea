"""Power of two choices over peak EWMA: the default."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from ..config import PositiveSeconds
from ..native import P2cEwmaPicker, Picker, View


class P2cEwma(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Draws two endpoints and takes the one where latency x (calls in flight + 1) / weight is less.

    Mitzenmacher's two choices, with finagle's peak EWMA as the load. Weights are exact while endpoints are busy; a
    client with hardly a call at a time prefers the heavier of each pair.
    """

    name: ClassVar[str] = "p2c_ewma"

    decay_s: PositiveSeconds = 10.0
    """Mean lifetime of a latency sample in seconds; finagle, linkerd, go-zero and brpc all use 10."""

    def build(self, view: View, seed: int) -> Picker:
        return P2cEwmaPicker(view, decay_s=self.decay_s, seed=seed)
