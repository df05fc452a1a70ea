"""Pick first: one endpoint for all calls, the first one that can be connected to (gRFC A61, A62)."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from ..config import PositiveSeconds
from ..native import LeastRequestPicker, Picker, View


class PickFirst(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Connects to the endpoints in their order until one is connected, and sends all calls there while it is.

    Whom to connect to is decided in `endpoints/first.py`; where an endpoint has several connections, a call takes one
    with few calls on it.
    """

    name: ClassVar[str] = "pick_first"

    shuffle_address_list: bool = False
    """Whether each client draws an order of its own, heavier endpoints more often in front (A62, A113)."""
    attempt_delay_s: Annotated[float, msgspec.Meta(ge=0.1, le=2)] = 0.25
    """The next endpoint is tried when this one has not answered for so long: RFC 8305's Connection Attempt Delay."""
    decay_s: PositiveSeconds = 10.0
    """Mean lifetime in seconds of the latency that is reported; the choice does not look at it."""

    def build(self, view: View, seed: int, now_ns: int) -> Picker:
        return LeastRequestPicker(view, decay_s=self.decay_s, seed=seed)
