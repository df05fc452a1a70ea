"""Endpoints from the keys under a prefix of etcd. Read `resolver.py` first, then `values.py`; `client.py` asks etcd."""

from .resolver import make_resolver

__all__ = ["make_resolver"]
