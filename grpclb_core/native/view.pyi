from collections.abc import Iterable
from typing import final

from .slot import Slot

@final
class View:
    def __init__(self, slots: Iterable[Slot], weights: Iterable[float] | None = None) -> None: ...
    @property
    def slots(self) -> tuple[Slot, ...]: ...
    def __len__(self) -> int: ...
