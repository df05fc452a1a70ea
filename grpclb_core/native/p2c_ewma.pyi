from typing import final

from .picker import Picker
from .view import View

@final
class P2cEwmaPicker(Picker):
    def __init__(
        self,
        view: View,
        *,
        decay_s: float = 10.0,
        seed: int | None = None,
        failure_s: float = 0.0,
        unavailable_s: float = 0.0,
        rate_limited_s: float = 0.0,
        pushback_s: float = 0.0,
        age_factor: float = 0.0,
        peak_cap: float = 0.0,
        floor: bool = False,
        probe_s: float = 0.0,
        widen_factor: float = 0.0,
        stream_weight: float = 1.0,
        alike_factor: float = 0.0,
    ) -> None: ...
