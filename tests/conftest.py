"""Fixtures that every room uses."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """grpc.aio runs on asyncio alone; what is free of grpc overrides this to run on trio too."""
    return "asyncio"
