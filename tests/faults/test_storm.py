"""What connections that break all the time cost a DNS server."""

from __future__ import annotations

import pytest

import grpclb_core as lb
from support.scenarios.storm import BREAKS, PER_CHANNEL, storm

pytestmark = pytest.mark.anyio

STORM_S = 4.0


async def test_each_channel_asks_no_more_than_its_floor_allows() -> None:
    """Fault F11. The ceiling that all channels of a process share binds later than that, see tests/resolve."""
    report = await storm(STORM_S, channels=3)
    assert report.figures[BREAKS] > 2 * STORM_S
    most_per_s = 1 / lb.DnsConfig().min_ttl_s
    assert 0 < report.figures[PER_CHANNEL] <= most_per_s + 1 / STORM_S, "one more, for where the window begins"
    assert report.recovered_s is not None
    assert report.recovered_s <= 3
