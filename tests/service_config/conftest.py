"""All tests of this folder share one event loop.

C-core hands its events to whichever loop of the process is running; one that is meant for the closed loop of an earlier
test, of grpc.aio's own channels too, would raise in an innocent later one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest


@pytest.fixture(scope="session", autouse=True)
async def one_event_loop(anyio_backend: str) -> AsyncIterator[None]:
    yield  # noqa: PT022 - the loop lives as long as this fixture
