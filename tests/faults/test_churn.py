"""A thousand endpoints that change ten times a second."""

from __future__ import annotations

import pytest

from support.scenarios.churn import CHANGES, ENDPOINTS, GROWN, OPENED, churn

pytestmark = pytest.mark.anyio

BUSY_S = 3.0
MOST_GROWN_MIB = 16.0
"""Endpoints that came and were kept, 10 KiB each, would come to 1.5 MiB; the rest is for what malloc keeps."""


async def test_churn_costs_neither_memory_nor_connections_nor_calls() -> None:
    """With what is set by default, of which a subset of 64 is part. What a pick costs is for bench/reliability.py."""
    report = await churn(quiet_s=0.2, busy_s=BUSY_S, subset_size=64)
    assert report.failed == 0
    assert report.calls > 0
    assert report.figures[CHANGES] >= BUSY_S * 10 * 2
    assert 0 < report.figures[OPENED] <= report.figures[CHANGES]
    assert report.figures[GROWN] <= MOST_GROWN_MIB


async def test_churn_with_a_connection_to_everyone_opens_no_more_than_came() -> None:
    report = await churn(quiet_s=0.2, busy_s=BUSY_S, subset_size=ENDPOINTS)
    assert report.failed == 0
    assert 0 < report.figures[OPENED] <= report.figures[CHANGES]
