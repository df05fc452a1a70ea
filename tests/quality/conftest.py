"""Scenarios of the tests: four servers, unless a test says otherwise."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from grpclb_core.quality import Scenario

FOUR = [{"count": 4, "slots": 8, "service": {"type": "exponential", "mean_s": 0.01}}]


@pytest.fixture
def scenario() -> Callable[..., Scenario]:
    """Make a scenario of what is other than usual."""

    def make(**changed: object) -> Scenario:
        usual = {"about": "", "source": "", "seconds": 10, "servers": FOUR, "load": [{"calls_per_s": 100}]}
        given = usual | changed
        return msgspec.convert({name: value for name, value in given.items() if value is not None}, Scenario)

    return make
