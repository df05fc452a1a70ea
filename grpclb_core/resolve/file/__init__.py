"""Endpoints from a file that is watched. Read `resolver.py` first, then `format.py`."""

from .resolver import make_resolver

__all__ = ["make_resolver"]
