"""Whether servers that join are overrun."""

from __future__ import annotations

import math

from .service import NS_PER_S
from .trace import ABSENT, Trace

NEWCOMER_NS = 10 * NS_PER_S
"""How long a server that joined is looked at as a newcomer."""


def peak(trace: Trace) -> float:
    """Return the most calls in flight on a server that had just joined, to the mean of its peers then.

    The worst of all that joined after the start; NaN if none did.
    """
    ratios = [
        _ratio(trace, server, since_ns, min(until_ns, since_ns + NEWCOMER_NS))
        for server, stays in enumerate(trace.members)
        for since_ns, until_ns in stays
        if since_ns > 0
    ]
    return max((ratio for ratio in ratios if not math.isnan(ratio)), default=math.nan)


def _ratio(trace: Trace, server: int, since_ns: int, until_ns: int) -> float:
    rows = trace.rows(since_ns, until_ns)
    columns = zip(trace.server[rows.start : rows.stop], trace.in_flight[rows.start : rows.stop], strict=True)
    most = max((in_flight for picked, in_flight in columns if picked == server), default=0)
    calls = peers = 0
    for time_ns, counts in trace.rif:
        if since_ns <= time_ns < until_ns:
            present = len(counts) - counts.count(ABSENT)
            calls += sum(counts) - ABSENT * (len(counts) - present) - max(counts[server], 0)
            peers += present - (counts[server] != ABSENT)
    return most * peers / calls if calls else math.nan
