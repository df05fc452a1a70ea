from collections.abc import Iterable
from typing import final

from .slot import Slot

@final
class View:
    def __init__(
        self,
        slots: Iterable[Slot],
        weights: Iterable[float] | None = None,
        roster: Iterable[tuple[str, float, int]] | None = None,
    ) -> None: ...
    @property
    def slots(self) -> tuple[Slot, ...]: ...
    @property
    def roster(self) -> tuple[tuple[str, float, int], ...] | None: ...
    def __len__(self) -> int: ...
    @property
    def is_even(self) -> bool: ...
