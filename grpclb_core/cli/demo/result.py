"""What a run comes to, as plain values; `--json` prints them as they are here."""

from __future__ import annotations

import bisect
import math
import os
import platform
from collections.abc import Sequence

import grpc
import msgspec

from .load import Answer, Side
from .options import Options
from .script import ADDED, HEALTHY_S, LATE, SERVERS, Event


class SideResult(msgspec.Struct, frozen=True):
    """One side; percentiles are those of the answered calls, timed from when each was due."""

    title: str
    answered: int
    errors: dict[str, int]
    """Failed calls by status code."""
    p50_ms: float | None
    p99_ms: float | None
    p999_ms: float | None
    new_server_after_s: float | None
    """Seconds from the entry in DNS to the first answer of the late server; None if it gave none."""
    dns_lookups: int
    shares: dict[str, float]
    """Part of the answered calls that each server answered."""
    start_delay_p99_ms: float | None
    """How late the client itself was with a call; a machine that is too busy shows here."""

    @property
    def failed(self) -> int:
        return sum(self.errors.values())


class Result(msgspec.Struct, frozen=True):
    """One run of the demonstration."""

    seconds: float
    rate: float
    seed: int
    policy: str
    machine: dict[str, str | int | None]
    servers: dict[str, str]
    events: tuple[Event, ...]
    round_robin: SideResult
    grpclb: SideResult

    @property
    def sides(self) -> tuple[SideResult, SideResult]:
        return self.round_robin, self.grpclb

    @property
    def busy_ms(self) -> float | None:
        """How late the client was with its calls (p99), where that is too much to trust the latencies; else None."""
        latest_ms = max(side.start_delay_p99_ms or 0.0 for side in self.sides)
        return latest_ms if latest_ms > HEALTHY_S * 1000 else None


def sum_up(options: Options, events: Sequence[Event], sides: Sequence[tuple[Side, int]]) -> Result:
    """Sum up both sides, gRPC's own first, each with the number of its lookups."""
    added_s = next((event.at_s for event in events if event.what == ADDED), None)
    round_robin, grpclb = (_sum_up(side, lookups, added_s) for side, lookups in sides)
    return Result(
        seconds=options.seconds,
        rate=options.rate,
        seed=options.seed,
        policy=options.policy,
        machine={"cpus": os.cpu_count(), "python": platform.python_version(), "grpcio": grpc.__version__},
        servers={server.name: server.role for server in SERVERS},
        events=tuple(events),
        round_robin=round_robin,
        grpclb=grpclb,
    )


def _sum_up(side: Side, lookups: int, added_s: float | None) -> SideResult:
    first_s = side.first_answer_s.get(LATE.name)
    answered = len(side.answers)
    return SideResult(
        title=side.title,
        answered=answered,
        errors=dict(side.errors),
        p50_ms=_percentile_ms(side.latencies, 0.5),
        p99_ms=_percentile_ms(side.latencies, 0.99),
        p999_ms=_percentile_ms(side.latencies, 0.999),
        new_server_after_s=None if first_s is None or added_s is None else round(first_s - added_s, 3),
        dns_lookups=lookups,
        shares={server.name: round(side.served[server.name] / max(answered, 1), 4) for server in SERVERS},
        start_delay_p99_ms=_percentile_ms(sorted(side.start_delays), 0.99),
    )


def percentile(ascending: Sequence[float], part: float) -> float | None:
    """Return the nearest-rank percentile of sorted values: the least one that `part` of them do not exceed."""
    return ascending[max(0, math.ceil(part * len(ascending)) - 1)] if ascending else None


def _percentile_ms(ascending: Sequence[float], part: float) -> float | None:
    value = percentile(ascending, part)
    return None if value is None else round(value * 1000, 2)


def sliding_p99_ms(
    answers: Sequence[Answer], seconds: float, window_s: float, step_s: float
) -> list[tuple[float, float]]:
    """Return (time in seconds, p99 in milliseconds of the calls due in the window that ends there)."""
    by_due = sorted((answer.due_s, answer.latency_s) for answer in answers)
    points = []
    for step in range(round(window_s / step_s), math.floor(seconds / step_s) + 1):
        end_s = step * step_s
        first = _first_at(by_due, end_s - window_s)
        value = percentile(sorted(latency for _, latency in by_due[first : _first_at(by_due, end_s)]), 0.99)
        if value is not None:
            points.append((end_s, value * 1000))
    return points


def _first_at(by_due: Sequence[tuple[float, float]], time_s: float) -> int:
    return bisect.bisect_left(by_due, (time_s, 0.0))
