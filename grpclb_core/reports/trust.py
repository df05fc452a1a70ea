"""Which reports are believed.

A server may be wrong, or hostile, and its report decides where calls go. So a report is believed as a whole or not at
all, by these rules:

| field | believed |
|---|---|
| `cpu_utilization`, `application_utilization` | 0 and more: above 1 is past a soft limit, and legal (gRFC A51) |
| `mem_utilization`, each `utilization` | 0 to 1, as gRPC's own recorders have it (grpc/grpc#39667 asks for more) |
| `rps_fractional`, `eps`, each `request_cost` | 0 and more |
| each of `named_metrics` | any number; ours from 0 to the bounds below |

And nothing beyond `LARGEST`, nothing infinite, nothing that is no number. A quotient of two believed numbers may still
be infinite, as the smaller has no floor: whoever divides looks.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..types import IN_FLIGHT_METRIC, LATENCY_METRIC, LoadReport
from .codec import decode_report

LARGEST = 1e12
"""Nothing that servers measure is larger, and with it sums and products of a few numbers stay finite."""
MOST_IN_FLIGHT = 2**31 - 1
"""Most calls under way: HTTP/2 has no more streams on a connection (RFC 9113 5.1.1)."""
LONGEST_LATENCY_S = 86_400.0
"""Longest latency that is believed, a day: it fits into 64 bits of nanoseconds many times over."""

_MOST = {
    "cpu_utilization": LARGEST,
    "mem_utilization": 1.0,
    "application_utilization": LARGEST,
    "rps_fractional": LARGEST,
    "eps": LARGEST,
}
_OURS = {IN_FLIGHT_METRIC: MOST_IN_FLIGHT, LATENCY_METRIC: LONGEST_LATENCY_S}
_SHOWN = 64  # characters of a name that a message repeats


def read_report(message: bytes) -> LoadReport:
    """Return the report in a trailer or in a message of the stream, if it can be believed.

    Raises:
        ValueError: the bytes are no report, or one that is not believed; the message says why.
    """
    report = decode_report(message)
    if fault := fault_of(report):
        raise ValueError(fault)
    return report


def fault_of(report: LoadReport) -> str | None:
    """Return in one clause why a report is not believed, None if it is."""
    for field, most in _MOST.items():
        number = getattr(report, field)
        if not 0 <= number <= most:  # neither holds for what is no number
            return _fault(field, number, 0, most)
    return (
        _fault_of_named("utilization", report.utilization, 0, 1)
        or _fault_of_named("request_cost", report.request_cost, 0, LARGEST)
        or _fault_of_named("named_metrics", report.named_metrics, -LARGEST, LARGEST)
        or _fault_of_ours(report.named_metrics)
    )


def _fault_of_named(field: str, named: Mapping[str, float], least: float, most: float) -> str | None:
    for name, number in named.items():
        if not least <= number <= most:
            return _fault(f"{field}[{name[:_SHOWN]!r}]", number, least, most)
    return None


def _fault_of_ours(named: Mapping[str, float]) -> str | None:
    for name, most in _OURS.items():
        number = named.get(name, 0.0)
        if not 0 <= number <= most:
            return _fault(name, number, 0, most)
    return None


def _fault(what: str, number: float, least: float, most: float) -> str:
    return f"{what} is {number}, outside {least:g} to {most:g}"
