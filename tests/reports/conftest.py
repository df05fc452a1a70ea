"""All tests of this folder share one event loop, for the reason that tests/aio/conftest.py gives."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest


@pytest.fixture(scope="session", autouse=True)
async def one_event_loop(anyio_backend: str) -> AsyncIterator[None]:
    yield  # noqa: PT022 - the loop lives as long as this fixture
