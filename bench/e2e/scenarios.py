"""What the servers do wrong, as data."""

from __future__ import annotations

import msgspec

SLOTS = 8  # calls a server works on at a time; the others wait
MEAN_S = 0.010  # of the exponentially distributed work that a call asks for

BEHIND = 1.03
"""Where no server is at fault there is nothing to gain; p99 may be this much over that of the best rival."""
AHEAD = 1.0


class Behaviour(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """How one server treats its calls."""

    slots: int = SLOTS
    slower: float = 1.0
    """Work takes this many times as long as was asked for."""
    fails: bool = False
    """Every call is refused at once, as UNAVAILABLE."""
    pause_s: float = 0.0
    """The process stands still for so long..."""
    pause_every_s: float = 0.0
    """...this often."""
    cold_calls: int = 0
    """So many calls, from the first one, are `cold_slower` times slower."""
    cold_slower: float = 1.0


class Scenario(msgspec.Struct, frozen=True):
    """Four servers, one more that may join them, and the work that calls ask for."""

    name: str
    title: str
    servers: tuple[Behaviour, Behaviour, Behaviour, Behaviour]
    newcomer: Behaviour | None = None
    heavy_share: float = 0.0
    """Part of the calls that ask for `heavier` times the work."""
    heavier: float = 1.0
    limit: float = AHEAD
    """The p99 of this library over that of the best rival may be less than this, or this where nobody is at fault."""

    @property
    def faulty(self) -> frozenset[int]:
        """The numbers of the servers at fault; the newcomer is the last one."""
        known = {number for number, server in enumerate(self.servers) if server != Behaviour(slots=server.slots)}
        return frozenset(known if self.newcomer is None else {*known, len(self.servers)})


_WELL = Behaviour()
_SLOW = Behaviour(slower=10)
_FAILING = Behaviour(fails=True)
# A collection of a large heap; the times are those that services with some GB of it report.
_PAUSING = Behaviour(pause_s=0.2, pause_every_s=2.0)
# An empty cache and code that is not compiled yet.
_COLD = Behaviour(cold_calls=200, cold_slower=20)
# A worker that does one thing at a time: with slots to spare a heavy call would be in nobody's way.
_SINGLE = Behaviour(slots=1)

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("healthy", "healthy", (_WELL,) * 4, limit=BEHIND),
        Scenario("one-slow", "1 of 4 ten times slower", (_SLOW, _WELL, _WELL, _WELL)),
        Scenario("two-slow", "2 of 4 ten times slower", (_SLOW, _SLOW, _WELL, _WELL)),
        Scenario("failing", "1 of 4 fails at once", (_FAILING, _WELL, _WELL, _WELL)),
        Scenario("pauses", "1 of 4 stops for 200 ms every 2 s", (_PAUSING, _WELL, _WELL, _WELL)),
        Scenario("newcomer", "a fifth joins, cold: 200 calls 20 times slower", (_WELL,) * 4, newcomer=_COLD),
        Scenario(
            "mixed", "1 % of calls 20 times the work, one slot", (_SINGLE,) * 4,
            heavy_share=0.01, heavier=20, limit=BEHIND,
        ),
    )
}  # fmt: skip
