"""Sources of endpoints that are lost while calls run: no call is lost with them, and what changed counts soon after."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.scenarios.outages import ADDED, REMOVED, outage
from support.scenarios.sources import PROMPT_S, SOURCES, TTL_S

pytestmark = pytest.mark.anyio

LOAD_S = 2.0  # of calls without a source; bench/reliability.py has a minute of them


@pytest.mark.parametrize("name", SOURCES)
async def test_losing_the_source_fails_no_call(name: str, tmp_path: Path) -> None:
    """Faults F8, F9 and F12 to F14."""
    report = await outage(SOURCES[name], tmp_path, LOAD_S)
    prompt_s = TTL_S + PROMPT_S if name.startswith("dns") else PROMPT_S
    assert report.failed == 0
    assert report.calls > LOAD_S * 100
    assert (report.said is not None) is (name != "kubernetes-410"), "the fault is told, where it is none of everyday"
    assert report.figures[ADDED] <= prompt_s
    assert report.figures[REMOVED] <= prompt_s
