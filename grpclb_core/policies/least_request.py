"""Least request: the fewest calls in flight among a few drawn endpoints."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from ..config import PositiveSeconds
from ..native import LeastRequestPicker, Picker, View


class LeastRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Draws `choice_count` endpoints and takes the one with the fewest calls in flight for its weight.

    gRFC A48, save that the draws are distinct where all weigh the same; A48 may compare an endpoint with itself.
    """

    name: ClassVar[str] = "least_request"
    capped_in_json: ClassVar[tuple[str, ...]] = ("choice_count",)
    """In a service config, a count above 10 is taken for 10 (A48)."""

    choice_count: Annotated[int, msgspec.Meta(ge=2, le=10)] = 2
    """How many endpoints are drawn; the range and the default are those of A48."""

    decay_s: PositiveSeconds = 10.0
    """Mean lifetime in seconds of the latency that is reported; the choice does not look at it."""

    def build(self, view: View, seed: int, now_ns: int) -> Picker:
        return LeastRequestPicker(view, choice_count=self.choice_count, decay_s=self.decay_s, seed=seed)
