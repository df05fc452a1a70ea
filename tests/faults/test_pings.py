"""Keepalive on connections that carry nothing else: often enough, and not too often."""

from __future__ import annotations

import pytest

import grpclb_core as lb
from support.scenarios.pings import FIRST_PAUSE, GOAWAYS, LAST_PAUSE, PINGS, silent_stream

pytestmark = pytest.mark.anyio

MOST_STRIKES = 2
"""Pings that come too soon, beyond which a gRPC server ends the connection (GRPC_ARG_HTTP2_MAX_PING_STRIKES)."""


async def test_a_minute_of_silence_has_too_few_pings_for_a_strict_server() -> None:
    """A server as gRPC's are, which wants five minutes between two pings (fault F5).

    C-core sends two pings in a row, and after them one a minute, whatever the time is that was set.
    """
    assert 60 / lb.ConnectionConfig().keepalive_time_s <= MOST_STRIKES
    report = await silent_stream(4, keepalive_time_s=1)
    assert report.failed == 0
    assert report.figures[GOAWAYS] == 0
    assert report.figures[PINGS] == 2


async def test_a_client_that_pings_too_often_is_told_once_and_pings_half_as_often() -> None:
    """It has to be provoked: by default there are too few pings in a row for that."""
    report = await silent_stream(
        9,
        keepalive_time_s=1,
        channel_options=[("grpc.http2.max_pings_without_data", 0)],
        server_options=[("grpc.http2.max_ping_strikes", 1), ("grpc.http2.min_ping_interval_without_data_ms", 1500)],
    )
    assert report.figures[GOAWAYS] == report.failed == 1
    assert report.codes == {"UNAVAILABLE"}
    assert report.figures[FIRST_PAUSE] == pytest.approx(1, abs=0.3)
    assert report.figures[LAST_PAUSE] == pytest.approx(2, abs=0.3)
