"""How soon faulty servers lose their calls, and how soon healed ones have them back."""

from __future__ import annotations

import math
from itertools import accumulate

from .scenario import Scenario
from .service import NS_PER_S
from .trace import Trace

SHED_SHARE = 0.1
"""A faulty server has been shed when it gets no more than this part of its fair share,"""
RETURNED_SHARE = 0.8
"""and is back when it gets at least this part of it."""

WINDOW_CALLS = 100
"""Both are seen in this many calls, brpc's measure (at least 90 of 100 elsewhere after one slow sample);"""
FAIR_CALLS = 25
"""or in more, so that a fair share of them is at least this many."""


def rows_of_fault(trace: Trace, scenario: Scenario) -> range:
    """Return the calls made while some servers were faulty."""
    if scenario.fault_s is None or not scenario.faulty:
        return range(0)
    healed_s = scenario.seconds if scenario.healed_s is None else scenario.healed_s
    return trace.rows(int(scenario.fault_s * NS_PER_S), int(healed_s * NS_PER_S))


def shed_s(trace: Trace, scenario: Scenario) -> float:
    """Return the time from the fault to the first call from which on the faulty servers are shed.

    Infinite if they never are; NaN if nobody is faulty, or everybody.
    """
    if scenario.fault_s is None or not scenario.faulty:
        return math.nan
    fair = _fair_share(trace, scenario, scenario.fault_s)
    row = _first_window(trace, scenario, rows_of_fault(trace, scenario), fair, 0.0, SHED_SHARE * fair)
    return math.inf if row is None else trace.picked_ns[row] / NS_PER_S - scenario.fault_s


def return_s(trace: Trace, scenario: Scenario) -> float:
    """Return the time from the healing to the first call from which on the servers have their share back.

    Infinite if they never have; NaN if nobody is healed.
    """
    healed_s = scenario.healed_s
    if healed_s is None or healed_s >= scenario.seconds or not scenario.faulty:
        return math.nan
    fair = _fair_share(trace, scenario, healed_s)
    rows = trace.rows(int(healed_s * NS_PER_S), int(scenario.seconds * NS_PER_S))
    row = _first_window(trace, scenario, rows, fair, RETURNED_SHARE * fair, 1.0)
    return math.inf if row is None else trace.picked_ns[row] / NS_PER_S - healed_s


def _fair_share(trace: Trace, scenario: Scenario, time_s: float) -> float:
    """Return which part of the servers in the set at a time are faulty ones."""
    time_ns = int(time_s * NS_PER_S)
    present = [
        server
        for server, stays in enumerate(trace.members)
        if any(since_ns <= time_ns < until_ns for since_ns, until_ns in stays)
    ]
    return sum(map(scenario.faulty.__contains__, present)) / len(present) if present else 0.0


def _first_window(trace: Trace, scenario: Scenario, rows: range, fair: float, least: float, most: float) -> int | None:
    """Return the first row from which on a window of calls has a share of faulty servers within two bounds."""
    size = max(WINDOW_CALLS, math.ceil(FAIR_CALLS / fair)) if fair > 0 else 0
    if not size:
        return None
    faulty = scenario.faulty
    counts = list(accumulate((server in faulty for server in trace.server[rows.start : rows.stop]), initial=0))
    for start in range(len(rows) - size + 1):
        if least * size <= counts[start + size] - counts[start] <= most * size:
            return rows[start]
    return None
