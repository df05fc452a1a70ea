"""From latencies to numbers, from rounds to medians, and from medians to a verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from grpclb_core.cli.demo.load import DEADLINE_S
from grpclb_core.cli.measure.rounds import Spread, ratio, spread

from .load import Call, Outcome
from .scenarios import Scenario

WORK = "the work alone"
"""What the calls asked for: as if each had a server to itself, at no distance. No balancer can be better."""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """One turn: one balancer under one scenario, in one round. Times in ms; parts are of all the calls."""

    scenario: str
    balancer: str
    round: int
    calls: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    """Percentiles, in which a call that failed has lasted its deadline."""
    answered_p99_ms: float
    """The same without the calls that failed."""
    failed: float
    faulty: float
    """Part of the calls that came to servers at fault."""
    unevenness: float
    """Calls of the server that had most of them, over the mean of all servers."""
    late_ms: float
    """p99 of how late calls were started."""
    codes: dict[str, int]
    served: list[int]


def percentile(ascending: Sequence[float], part: float) -> float:
    """Return the least value that `part` of all do not exceed (nearest rank); 0 if there are none."""
    return ascending[max(0, math.ceil(len(ascending) * part) - 1)] if ascending else 0.0


def read(scenario: Scenario, balancer: str, number: int, outcome: Outcome, served: Sequence[int]) -> Reading:
    """Sum up one turn of a round; `served` are the calls that came to each server, the newcomer last."""
    answered_ms = sorted(latency_s * 1e3 for latency_s in outcome.latencies_s)
    failed = outcome.failures.total()
    every_ms = sorted([*answered_ms, *[DEADLINE_S * 1e3] * failed])
    calls = len(every_ms)
    members = served if scenario.newcomer is not None else served[: len(scenario.servers)]
    mean = sum(members) / len(members) if members else 0.0
    return Reading(
        scenario=scenario.name,
        balancer=balancer,
        round=number,
        calls=calls,
        p50_ms=percentile(every_ms, 0.5),
        p99_ms=percentile(every_ms, 0.99),
        p999_ms=percentile(every_ms, 0.999),
        answered_p99_ms=percentile(answered_ms, 0.99),
        failed=failed / calls if calls else 0.0,
        faulty=sum(served[number] for number in scenario.faulty) / calls if calls and served else 0.0,
        unevenness=max(members) / mean if mean else 0.0,
        late_ms=percentile(sorted(outcome.start_delays_s), 0.99) * 1e3,
        codes=dict(outcome.failures),
        served=list(served),
    )


def read_work(scenario: Scenario, number: int, calls: Sequence[Call]) -> Reading:
    """Sum up what a plan asks for."""
    outcome = Outcome.empty()
    outcome.latencies_s.extend(call.work.seconds for call in calls if call.work.counted)
    return read(scenario, WORK, number, outcome, [])


class Line(msgspec.Struct, frozen=True):
    """All rounds of one balancer under one scenario."""

    scenario: str
    balancer: str
    p50_ms: Spread
    p99_ms: Spread
    p999_ms: Spread
    failed: Spread
    faulty: Spread
    unevenness: Spread


SPREADS = ("p50_ms", "p99_ms", "p999_ms", "failed", "faulty", "unevenness")


def lines_of(readings: Sequence[Reading]) -> list[Line]:
    """Take the medians over the rounds, in the order in which scenarios and balancers first appear."""
    lines = []
    for scenario, balancer in dict.fromkeys((each.scenario, each.balancer) for each in readings):
        rounds = [each for each in readings if (each.scenario, each.balancer) == (scenario, balancer)]
        figures = [spread([getattr(each, name) for each in rounds]) for name in SPREADS]
        lines.append(Line(scenario, balancer, *figures))
    return lines


class Verdict(msgspec.Struct, frozen=True):
    """One policy under one scenario against the rival that comes nearest to it, or goes farthest past."""

    scenario: str
    policy: str
    rival: str
    ratio: Spread
    """Its p99 over the rival's, each pair from one round; the median counts."""
    limit: float

    @property
    def holds(self) -> bool:
        return self.ratio.median < self.limit


def judge(readings: Sequence[Reading], scenario: Scenario, policy: str, rivals: Sequence[str]) -> Verdict | None:
    """Hold a policy against the rivals; None if there is nothing to hold against."""

    def p99s(balancer: str) -> list[float]:
        return [each.p99_ms for each in readings if (each.scenario, each.balancer) == (scenario.name, balancer)]

    own = p99s(policy)
    ratios = {rival: ratio(own, theirs) for rival in rivals if (theirs := p99s(rival))}
    if not own or not ratios:
        return None
    rival = max(ratios, key=lambda name: ratios[name].median)
    return Verdict(scenario.name, policy, rival, ratios[rival], scenario.limit)
