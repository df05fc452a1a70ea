"""Endpoints from the EndpointSlices of a Kubernetes service. Read `resolver.py` first, then `slices.py`."""

from .resolver import make_resolver

__all__ = ["make_resolver"]
