"""A wall clock that jumps; a native clock that is set back is in tests/native."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.scenarios.clock import JUMPED, TTL_S, clock_jumps, library

pytestmark = pytest.mark.anyio


@pytest.mark.skipif(library() is None, reason="needs libfaketime (Debian: faketime)")
async def test_a_wall_clock_that_jumps_fails_no_call(tmp_path: Path) -> None:
    """Fault F22: a month ahead, two months back, and to the right time; DNS is followed all the same."""
    report = await clock_jumps(tmp_path, each_s=1.0)
    assert report.figures[JUMPED] == 120
    assert report.failed == 0
    assert report.calls > 300
    assert report.recovered_s is not None
    assert report.recovered_s <= TTL_S + 1
