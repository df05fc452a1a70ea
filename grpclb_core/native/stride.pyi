from collections.abc import Iterable
from typing import final

from .picker import Picker
from .view import View

MOST_OF_MEAN: float
LEAST_OF_MEAN: float

@final
class StridePicker(Picker):
    def __init__(
        self, view: View, weights: Iterable[float] | None = None, *, decay_s: float = 10.0, seed: int | None = None
    ) -> None: ...
