"""What a pick, a rebuild and a call may cost: the budgets of the project, stated here and nowhere else."""

from __future__ import annotations

import msgspec


class Budget(msgspec.Struct, frozen=True):
    """A limit on one measured number, the goal behind it, and why it is where it is."""

    name: str
    limit: float
    goal: float
    at_least: bool
    """Whether more is better."""
    why: str

    def admits(self, measured: float) -> bool:
        """Tell whether a measurement keeps the limit."""
        return measured >= self.limit if self.at_least else measured <= self.limit


def _at_most(name: str, limit: float, goal: float, why: str) -> Budget:
    return Budget(name, limit, goal, False, why)


TWIN = Budget("plain Python / p2c_ewma, 16 endpoints", 15.0, 20.0, True, "less would not be worth a compiled core")
FLOOR = _at_most(
    "p2c_ewma / two empty compiled calls + two clock readings", 1.5, 1.5,
    "no policy can cost less than that when Python calls it",
)  # fmt: skip
CLOCK = Budget(
    "two clock readings / the largest other part of a pick", 1.0, 1.0, True,
    "they are the one part that no better code removes",
)  # fmt: skip
GROWTH = _at_most(
    "p2c_ewma, 10000 endpoints / 16", 2.0, 1.0, "two choices look at two endpoints, however many there are"
)
RULES = _at_most(
    "p2c_ewma / the same with every rule off, 16 endpoints", 1.25, 1.0,
    "what holds when a fleet misbehaves must not be paid for while it does not",
)  # fmt: skip
CHANNEL = _at_most(
    "this channel / grpc.aio round_robin, client CPU", 1.02, 1.0, "a drop-in must not be paid for with throughput"
)
INTERCEPTORS = _at_most(
    "balancer.interceptors() / one empty interceptor, client CPU", 1.08, 1.05,
    "grpc.aio wraps every intercepted call; what counts is what balancing adds to that",
)  # fmt: skip
REBUILD = _at_most(
    "ms for one change of 1 % of 10000 endpoints", 5.0, 5.0, "the event loop, and every call on it, waits that long"
)
