from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.dns import FaultyDns
from support.recorder import Recorder


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest, asyncio_backend: Any) -> Any:
    return asyncio_backend if request.param == "asyncio" else request.param


@pytest.fixture
def sink() -> Recorder:
    return Recorder()


@pytest.fixture
def server() -> Iterator[FaultyDns]:
    with FaultyDns() as running:
        yield running
