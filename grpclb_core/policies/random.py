"""Random: any endpoint, each as likely as its weight says."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from ..config import PositiveSeconds
from ..native import Picker, RandomPicker, View


class Random(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Takes any endpoint, each as likely as its weight says; the yardstick for every other policy."""

    name: ClassVar[str] = "random"

    decay_s: PositiveSeconds = 10.0
    """Mean lifetime in seconds of the latency that is reported; the choice does not look at it."""

    def build(self, view: View, seed: int, now_ns: int) -> Picker:
        return RandomPicker(view, decay_s=self.decay_s, seed=seed)
