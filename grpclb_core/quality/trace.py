"""What a run leaves behind: one row a call, in columns, and samples of what every server had in flight."""

from __future__ import annotations

from array import array
from bisect import bisect_left

from ..types import Outcome

OPEN = -1
"""Outcome of a call that had no end when the run had."""

FAILED = frozenset(
    outcome.value for outcome in (Outcome.FAILURE, Outcome.UNAVAILABLE, Outcome.RATE_LIMITED, Outcome.TIMED_OUT)
)
"""Outcomes that the caller sees as an error."""

ABSENT = -1
"""In flight on a server that was not in the set."""

NOBODY = -1
"""Server of a call for which there was none."""


class Trace:
    """Rows in the order in which the calls were made; figures are read from it when the run is over."""

    __slots__ = (
        "client",
        "connections",
        "in_flight",
        "latency_ns",
        "members",
        "outcome",
        "picked_ns",
        "rif",
        "server",
        "streams",
    )

    def __init__(self) -> None:
        self.picked_ns = array("q")
        self.client = array("i")
        self.server = array("i")
        self.in_flight = array("i")
        """What the server had in flight, with this call."""
        self.latency_ns = array("q")
        self.outcome = array("b")
        self.streams: set[int] = set()
        """The rows of calls whose length says nothing."""
        self.rif: list[tuple[int, list[int]]] = []
        """Times, and the calls in flight on each server then; `ABSENT` for those that were not in the set."""
        self.connections = 0
        """How many connections the clients made after their first view."""
        self.members: list[list[tuple[int, int]]] = []
        """When each server was in the set: begin and end in ns."""

    def __len__(self) -> int:
        return len(self.picked_ns)

    def add(self, now_ns: int, client: int, server: int, in_flight: int) -> int:
        """Take down a call that was just made; return its row."""
        row = len(self.picked_ns)
        self.picked_ns.append(now_ns)
        self.client.append(client)
        self.server.append(server)
        self.in_flight.append(in_flight)
        self.latency_ns.append(0)
        self.outcome.append(OPEN)
        return row

    def row_at(self, time_ns: int) -> int:
        """Return the row of the first call at or after a time."""
        return bisect_left(self.picked_ns, time_ns)

    def rows(self, start_ns: int, end_ns: int) -> range:
        """Return the rows of the calls made from one time until before another."""
        return range(self.row_at(start_ns), self.row_at(end_ns))

    def end(self, row: int, now_ns: int, outcome: int) -> None:
        """Take down how a call ended."""
        self.latency_ns[row] = now_ns - self.picked_ns[row]
        self.outcome[row] = outcome
