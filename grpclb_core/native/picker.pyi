from typing import final

from typing_extensions import disjoint_base

from .ticket import Ticket
from .view import View

DEFAULT_DECAY_S: float
FEWEST_CHOICES: int
MOST_CHOICES: int

@disjoint_base
class Picker:
    def __init__(self, view: View, *, decay_s: float = 10.0, seed: int | None = None) -> None: ...
    @property
    def view(self) -> View: ...
    def __len__(self) -> int: ...
    def pick(self) -> Ticket: ...
    def pick_stream(self) -> Ticket: ...
    def pick_at(self, now_ns: int, stream: bool = False) -> Ticket: ...

@final
class P2cEwmaPicker(Picker): ...

@final
class LeastRequestPicker(Picker):
    def __init__(
        self, view: View, *, choice_count: int = 2, decay_s: float = 10.0, seed: int | None = None
    ) -> None: ...

@final
class RoundRobinPicker(Picker): ...

@final
class RandomPicker(Picker): ...
