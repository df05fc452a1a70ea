from typing import final

from .picker import Picker
from .view import View

MIN_RING_SIZE: int
MAX_RING_SIZE: int
MOST_POINTS: int
BOUNDED_LOAD: float

@final
class RingHashPicker(Picker):
    def __init__(
        self,
        view: View,
        *,
        min_ring_size: int = 1024,
        max_ring_size: int = 4096,
        key_header: str | None = None,
        bounded_load: float = 1.25,
        decay_s: float = 10.0,
        seed: int | None = None,
    ) -> None: ...
    @property
    def ring_size(self) -> int: ...

def xxh64_of(data: bytes) -> int: ...
