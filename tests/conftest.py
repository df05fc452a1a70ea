"""Fixtures that every room uses."""

from __future__ import annotations

import os
import signal

# The tests break things on purpose, and C-core logs each of them. It reads this once, when it is first imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import hypothesis
import pytest

# What a shell starts in the background ignores interrupts, and so would the processes that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """grpc.aio runs on asyncio alone; what is free of grpc overrides this to run on trio too."""
    return "asyncio"


# Examples take longer on a busy machine; how long one takes proves nothing.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")
