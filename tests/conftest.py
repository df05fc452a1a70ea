"""Fixtures that every room uses."""

from __future__ import annotations

import os
import signal

# The tests break things on purpose, and C-core logs each of them. It reads this once, when it is first imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest

from support.loop import LastingLoop

# What a shell starts in the background ignores interrupts, and so would the processes that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def asyncio_backend() -> Iterator[Any]:
    """Asyncio as anyio names it, with the loop that all tests share."""
    loop = LastingLoop()
    yield "asyncio", {"loop_factory": lambda: loop}
    loop.end()


@pytest.fixture
def anyio_backend(asyncio_backend: Any) -> Any:
    """grpc.aio runs on asyncio alone; what is free of grpc overrides this to run on trio too."""
    return asyncio_backend


# A change is judged by the same examples each time, and not by how long they take: the machine may be busy.
hypothesis.settings.register_profile(
    "repeatable", derandomize=True, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("repeatable")
