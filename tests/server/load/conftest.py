from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def anyio_backend(asyncio_backend: Any) -> Any:
    return asyncio_backend  # as grpc.aio


class Clock:
    """A clock that is set by hand, in seconds."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()
