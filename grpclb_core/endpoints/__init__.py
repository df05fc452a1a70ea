"""Who is in the set?

Entry point: `EndpointSet`. It turns resolutions into members with an identity (the address), a slot that outlives
updates, and a connection; and it says which of them are ready. Read `set.py` first, then `connection.py`. It decides
nothing about who gets a call.
"""

from .connection import Connection
from .dial import Dialer
from .set import EndpointSet, Member

__all__ = ["Connection", "Dialer", "EndpointSet", "Member"]
