"""Who fails its calls, and is better done without for a while?

Entry point: `sweep`, one step of outlier detection, which turns what every endpoint did since the last one into a new
`State` and a list of `Event`s. Read `records.py` first, then `accrual.py` (rules for sets of any size) and `a50.py`
(those of gRPC); `room.py` keeps both from ejecting too many. All of it is values and arithmetic: no clock is read,
nothing waits, and nothing knows of connections.
"""

from .detector import EMPTY, State, Step, sweep
from .records import Change, Event, Fleet, Reason, Seen
from .window import SLICES

__all__ = [
    "EMPTY",
    "SLICES",
    "Change",
    "Event",
    "Fleet",
    "Reason",
    "Seen",
    "State",
    "Step",
    "sweep",
]
