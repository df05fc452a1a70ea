"""Endpoints from DNS: the addresses of a name, or the servers of a SRV record.

Read `resolver.py` first, then `polling.py`; `lookup.py` asks the name servers.
"""

from .resolver import make_resolver

__all__ = ["make_resolver"]
