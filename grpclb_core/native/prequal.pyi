from typing import final

from .picker import Picker
from .view import View

MOST_USES: int

@final
class PrequalPicker(Picker):
    def __init__(
        self,
        view: View,
        *,
        pool_size: int = 16,
        q_rif: float = 0.84,
        least_hot: float = 2.0,
        delta: float = 1.0,
        max_age_s: float = 1.0,
        probe_rate: float = 3.0,
        remove_rate: float = 0.5,
        explore_s: float = 5.0,
        aversion_s: float = 5.0,
        decay_s: float = 10.0,
        seed: int | None = None,
        now_ns: int | None = None,
    ) -> None: ...
    @property
    def picks(self) -> int: ...
    @property
    def reuse_budget(self) -> float: ...
    def pooled_at(self, now_ns: int) -> int: ...
