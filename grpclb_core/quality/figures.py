"""The figures of one run, read from its trace."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import msgspec

from ..types import Outcome
from . import newcomers, shedding
from .scenario import Scenario
from .service import NS_PER_S
from .trace import ABSENT, FAILED, NOBODY, OPEN, Trace

GRACE_S = 1.0
"""What a policy is given to notice a fault, before failures count against it."""

WITHOUT_LATENCY = FAILED - {Outcome.TIMED_OUT.value} | {OPEN}
"""A call that failed at once was not fast, and one that is still open has no latency yet."""


class StepFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What one step of the load came to."""

    from_s: float
    calls_per_s: float
    """What was asked for."""
    calls: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    error_share: float
    timeouts: int


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What a run came to, in the time that its scenario measures. NaN: there was nothing to measure it by."""

    calls: int
    p50_ms: float
    """Latencies are those of the unary calls that were answered or timed out."""
    p99_ms: float
    p999_ms: float
    errors: int
    error_share: float
    late_error_share: float
    """Errors among the calls made later than a second after the fault began."""
    timeouts: int
    load_max_over_mean: float
    """Calls per second of the server with the most, while it was in the set, to the mean of all servers."""
    rif_p50: float
    """Calls in flight on a server, over servers and time."""
    rif_p99: float
    rif_max: float
    shed_s: float
    """From the fault until the faulty servers get no more than a tenth of their fair share; infinite if never."""
    return_s: float
    """From the healing until they have four fifths of their fair share again."""
    faulty_share: float
    """Share of the calls that went to the faulty servers while they were faulty."""
    faulty_calls: float
    """How many that were, for each client."""
    newcomer_peak: float
    """Most calls in flight on a newcomer in its first seconds, to the mean of its peers then."""
    starved_s: float
    """Longest time for which a server in the set, with nothing wrong with it, got no call."""
    connections: int
    """Connections made after the start."""
    steps: tuple[StepFigures, ...] = ()
    """For each step of the load, where there is more than one."""


def figures_of(trace: Trace, scenario: Scenario) -> Figures:
    """Read the figures of a run."""
    end_s = scenario.seconds if scenario.measured_until_s is None else scenario.measured_until_s
    start_ns, end_ns = int(scenario.warm_up_s * NS_PER_S), int(end_s * NS_PER_S)
    rows = trace.rows(start_ns, end_ns)
    latencies = _latencies_ms(trace, rows)
    rif = sorted(
        count for time_ns, counts in trace.rif if start_ns <= time_ns < end_ns for count in counts if count != ABSENT
    )
    errors = _errors(trace, rows)
    faulty = shedding.rows_of_fault(trace, scenario)
    to_faulty = sum(map(scenario.faulty.__contains__, trace.server[faulty.start : faulty.stop]))
    return Figures(
        calls=len(rows),
        p50_ms=quantile(latencies, 0.5),
        p99_ms=quantile(latencies, 0.99),
        p999_ms=quantile(latencies, 0.999),
        errors=errors,
        error_share=_ratio(errors, len(rows)),
        late_error_share=_late_error_share(trace, scenario, rows),
        timeouts=_timeouts(trace, rows),
        load_max_over_mean=_load_max_over_mean(trace, rows, start_ns, end_ns),
        rif_p50=quantile(rif, 0.5),
        rif_p99=quantile(rif, 0.99),
        rif_max=float(rif[-1]) if rif else math.nan,
        shed_s=shedding.shed_s(trace, scenario),
        return_s=shedding.return_s(trace, scenario),
        faulty_share=_ratio(to_faulty, len(faulty)),
        faulty_calls=to_faulty / scenario.clients if faulty else math.nan,
        newcomer_peak=newcomers.peak(trace),
        starved_s=_starved_s(trace, scenario.faulty, rows, start_ns, end_ns),
        connections=trace.connections,
        steps=_steps(trace, scenario) if len(scenario.load) > 1 else (),
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the least value that at least `share` of all values do not exceed; NaN of none."""
    return float(ordered[max(0, math.ceil(share * len(ordered)) - 1)]) if ordered else math.nan


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _latencies_ms(trace: Trace, rows: range) -> list[float]:
    ended = zip(rows, trace.latency_ns[rows.start : rows.stop], trace.outcome[rows.start : rows.stop], strict=True)
    streams = trace.streams
    return sorted(
        latency_ns / 1e6 for row, latency_ns, outcome in ended if outcome not in WITHOUT_LATENCY and row not in streams
    )


def _errors(trace: Trace, rows: range) -> int:
    return sum(map(FAILED.__contains__, trace.outcome[rows.start : rows.stop]))


def _timeouts(trace: Trace, rows: range) -> int:
    return trace.outcome[rows.start : rows.stop].count(Outcome.TIMED_OUT.value)


def _late_error_share(trace: Trace, scenario: Scenario, rows: range) -> float:
    if scenario.fault_s is None:
        return math.nan
    late = range(max(rows.start, trace.row_at(int((scenario.fault_s + GRACE_S) * NS_PER_S))), rows.stop)
    return _ratio(_errors(trace, late), len(late))


def _load_max_over_mean(trace: Trace, rows: range, start_ns: int, end_ns: int) -> float:
    """Compare the rates of servers, each while it was in the set, if that was for a tenth of the time at least."""
    picks = Counter(trace.server[rows.start : rows.stop])
    rates = []
    for server, stays in enumerate(trace.members):
        present_ns = sum(max(0, min(until_ns, end_ns) - max(since_ns, start_ns)) for since_ns, until_ns in stays)
        if present_ns * 10 >= end_ns - start_ns:
            rates.append(picks[server] / present_ns)
    return _ratio(max(rates, default=0.0) * len(rates), sum(rates))


def _starved_s(trace: Trace, faulty: frozenset[int], rows: range, start_ns: int, end_ns: int) -> float:
    picked: list[list[int]] = [[] for _ in trace.members]
    columns = zip(trace.server[rows.start : rows.stop], trace.picked_ns[rows.start : rows.stop], strict=True)
    for server, time_ns in columns:
        if server != NOBODY:
            picked[server].append(time_ns)
    longest_ns = 0
    for server, stays in enumerate(trace.members):
        for since_ns, until_ns in stays if server not in faulty else ():
            since_ns, until_ns = max(since_ns, start_ns), min(until_ns, end_ns)
            if since_ns < until_ns:
                times = picked[server][bisect_left(picked[server], since_ns) : bisect_left(picked[server], until_ns)]
                gaps = (later - time for time, later in pairwise([since_ns, *times, until_ns]))
                longest_ns = max(longest_ns, max(gaps))
    return longest_ns / NS_PER_S


def _steps(trace: Trace, scenario: Scenario) -> tuple[StepFigures, ...]:
    found = []
    ends_s = [step.from_s for step in scenario.load[1:]] + [scenario.seconds]
    for step, rate, end_s in zip(scenario.load, scenario.rates, ends_s, strict=True):
        rows = trace.rows(int(step.from_s * NS_PER_S), int(end_s * NS_PER_S))
        latencies = _latencies_ms(trace, rows)
        found.append(
            StepFigures(
                from_s=step.from_s,
                calls_per_s=rate,
                calls=len(rows),
                p50_ms=quantile(latencies, 0.5),
                p99_ms=quantile(latencies, 0.99),
                p999_ms=quantile(latencies, 0.999),
                error_share=_ratio(_errors(trace, rows), len(rows)),
                timeouts=_timeouts(trace, rows),
            )
        )
    return tuple(found)
