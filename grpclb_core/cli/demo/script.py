"""Who the six servers are, and what happens to them when."""

from __future__ import annotations

import msgspec

SLOTS = 8  # calls a server works on at a time; the others queue
HEALTHY_S = 0.010
SLOW_FACTOR = 10

# Fractions of the run. The addition stands before the kill: what breaks makes gRPC look the name up again, and nothing
# has to break for a server to be added in real life.
ADDED_AT = 0.25
KILLED_AT = 0.5
DOWN_S = 1.0


class Server(msgspec.Struct, frozen=True):
    """One of the six servers."""

    name: str
    host: str
    role: str
    mean_s: float = HEALTHY_S
    """Mean of the exponentially distributed service time."""


# One port for all, as servers behind one DNS name have, so each needs a loopback address of its own.
SERVERS = (
    Server("A", "127.0.0.11", "healthy"),
    Server("B", "127.0.0.12", "healthy"),
    Server("C", "127.0.0.13", f"{SLOW_FACTOR}x slower", HEALTHY_S * SLOW_FACTOR),
    Server("D", "127.0.0.14", "healthy"),
    Server("E", "127.0.0.15", "restarts"),
    Server("F", "127.0.0.16", "added late"),
)
SLOW, RESTARTING, LATE = SERVERS[2], SERVERS[4], SERVERS[5]


class Event(msgspec.Struct, frozen=True):
    """Something that happened to a server, `at_s` seconds into the run."""

    at_s: float
    server: str
    what: str

    def __str__(self) -> str:
        return f"{self.server} {self.what}"


ADDED, KILLED, BACK, LOST = "added to DNS", "killed", "is back", "did not come back"


def condition(server: Server, events: list[Event]) -> str:
    """Say in a word or two how a server is by now."""
    happened = {event.what for event in events if event.server == server.name}
    if server is LATE:
        return "just added" if ADDED in happened else "not in DNS"
    if server is RESTARTING:
        return "restarted" if BACK in happened else "down" if KILLED in happened else "healthy"
    return server.role
