from collections.abc import Callable
from typing import Any, final

from typing_extensions import Never, disjoint_base

from .slot import Slot

@disjoint_base
class Issuer:
    reporter: Callable[[Slot, Any], None] | None

@final
class Ticket:
    def __init__(self, *args: object, **kwargs: object) -> Never: ...
    @property
    def slot(self) -> Slot: ...
    @property
    def is_open(self) -> bool: ...
    def finish(self, outcome: int, /) -> bool: ...
    def finish_at(self, outcome: int, now_ns: int) -> bool: ...
    def __call__(self, call: Any = None) -> None: ...
