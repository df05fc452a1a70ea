"""Endpoints from the health endpoint of Consul. Read `resolver.py` first, then `health.py`."""

from .resolver import make_resolver

__all__ = ["make_resolver"]
