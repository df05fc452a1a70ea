"""A sink for tests."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from grpclb_core.errors import ResolutionError
from grpclb_core.types import Resolution

PATIENCE_S = 10.0  # of tests that wait for something to happen; a busy machine is slow


class Recorder:
    """A sink that remembers, in order, what it was told."""

    def __init__(self) -> None:
        self.updates: list[Resolution] = []
        self.errors: list[ResolutionError] = []
        self.order: list[str] = []

    def update(self, resolution: Resolution) -> None:
        self.updates.append(resolution)
        self.order.append("update")

    def fail(self, error: ResolutionError) -> None:
        self.errors.append(error)
        self.order.append("fail")

    @property
    def hosts(self) -> list[str]:
        """The hosts of the latest set."""
        return [endpoint.address.host for endpoint in self.updates[-1].endpoints]

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for a condition."""
        with anyio.move_on_after(PATIENCE_S):
            while not condition():  # noqa: ASYNC110 - conditions look at the DNS server too, which knows no events
                await anyio.sleep(0.005)
            return
        pytest.fail(f"it never came true; updates: {self.updates[-2:]}, errors: {self.errors[-2:]}")
