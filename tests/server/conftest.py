from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest, asyncio_backend: Any) -> Any:
    return asyncio_backend if request.param == "asyncio" else request.param
