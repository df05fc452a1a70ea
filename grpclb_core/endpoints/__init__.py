"""Who is in the set?

Entry point: `EndpointSet`. It turns resolutions into members with an identity (the address), a slot that outlives
updates, and a connection; and it says which of them are ready. Read `lifecycle.py` first, then `set.py`. `subset.py`
and `localities.py` say how many of a large set are connected to, and how much of the load each zone and priority
should get. Who gets a call is not decided here.
"""

from .connection import Connection
from .dial import Dialer
from .lifecycle import State
from .localities import Candidate, balanced_weights
from .member import Member
from .set import EndpointSet
from .silence import is_too_long
from .subset import Subset
from .warming import ramps, step_s

__all__ = [
    "Candidate",
    "Connection",
    "Dialer",
    "EndpointSet",
    "Member",
    "State",
    "Subset",
    "balanced_weights",
    "is_too_long",
    "ramps",
    "step_s",
]
