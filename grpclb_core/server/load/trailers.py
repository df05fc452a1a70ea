"""What the interceptors for both kinds of server share: which calls count, how they ended, and what trails them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import grpc
import msgspec

from ...reports import OWN_KEY, STANDARD_KEY, encode_report
from ...reports.keys import SERVICE
from ...types import IN_FLIGHT_METRIC, LATENCY_METRIC, LoadReport, Outcome

if TYPE_CHECKING:
    from typing import TypeAlias

    Trailers: TypeAlias = tuple[tuple[str, str | bytes], ...]

UNCOUNTED = (
    f"/{SERVICE}/",
    "/grpc.health.v1.Health/",
    "/grpc.channelz.v1.Channelz/",
    "/grpc.reflection.v1.ServerReflection/",
    "/grpc.reflection.v1alpha.ServerReflection/",
)
"""Methods that ask about the server: they are no load, and their streams last as long as their connections."""

MOST_TRAILER_BYTES = 1024
"""Longest report that goes with a call; of a longer one names are left out. In base64 and twice it takes a third of the
8 KiB that a client accepts (`grpc.max_metadata_size`); a call whose trailers are longer than that may fail."""

DEADLINE_SLACK_S = 0.05
"""How long a request travels at most, or nearly so."""
DEADLINE_ROUNDING = 0.02
"""By what part a timeout grows on the wire: C-core writes it with two or three digits (`grpc-timeout`)."""

FAULTS = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""The statuses that speak against the server, as the compiled core has them for the client's side (`ticket.pyx`)."""
_FAULT_NUMBERS = frozenset(code.value[0] for code in FAULTS)


def is_counted(method: str) -> bool:
    """Whether calls of a method are load."""
    return not method.startswith(UNCOUNTED)


def outcome_of(code: grpc.StatusCode | int | None, *, raised: bool) -> Outcome:
    """Return how a call ended for which its handler set a status, or none, and returned or raised."""
    number = code.value[0] if isinstance(code, grpc.StatusCode) else code or 0
    if number == 0:
        return Outcome.FAILURE if raised else Outcome.SUCCESS  # gRPC makes UNKNOWN of an exception
    return Outcome.FAILURE if number in _FAULT_NUMBERS else Outcome.SUCCESS


def outcome_of_abandoned(time_remaining_s: float | None, lasted_s: float) -> Outcome:
    """Return how a call ended that nobody waits for any more: at its deadline it is the server that was too slow.

    The client gives up at its own reading of the deadline, and that is the earlier one: by the time that the request
    travelled, and by what its timeout was rounded up for the journey.
    """
    early_s = DEADLINE_SLACK_S + DEADLINE_ROUNDING * lasted_s
    return Outcome.FAILURE if time_remaining_s is not None and time_remaining_s <= early_s else Outcome.CANCELLED


def with_report(theirs: Iterable[tuple[str, str | bytes]] | None, report: LoadReport) -> Trailers:
    """Add a report to the trailers of a handler, under both keys; a key that the handler has set is left to it."""
    kept = tuple(theirs or ())
    present = {key for key, _ in kept}
    message = encode_report(report)
    if len(message) > MOST_TRAILER_BYTES:
        message = encode_report(_without_names(report))
    return kept + tuple((key, message) for key in (STANDARD_KEY, OWN_KEY) if key not in present)


def _without_names(report: LoadReport) -> LoadReport:
    ours = {name: number for name, number in report.named_metrics.items() if name in (IN_FLIGHT_METRIC, LATENCY_METRIC)}
    return msgspec.structs.replace(report, utilization={}, request_cost={}, named_metrics=ours)
