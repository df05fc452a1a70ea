"""Whom to connect to where one endpoint is enough: pick_first, as values and steps (gRFC A61, A62, A113).

    order      priorities one after the other; in each, IPv4 and IPv6 in turn (RFC 8305 section 4)
    a pass     the next one is tried when the one before fails, or has not answered for the attempt delay; those begun
               go on. The first to be up wins, and the others are let go
    failed     once all have failed; all of them are tried on and on then, and calls fail, until one is up
    lost       the winner's connection broke: another pass, from the top

Nothing here knows what a connection is; `Stage` is all it is told of one.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from itertools import chain, zip_longest
from typing import NamedTuple

from ..types import Address, Endpoint, Health

_UNWELL = (Health.UNHEALTHY, Health.DRAINING)


class Stage(Enum):
    """How far the connection to an endpoint is."""

    COMING = "coming"
    UP = "up"
    FAILING = "failing"


class Race(NamedTuple):
    """Where a pass stands. The begun ones are those to be connected to until there is a winner, then it alone."""

    order: tuple[Endpoint, ...] = ()
    begun: int = 0
    """How many of the order were tried, from the top."""
    next_s: float = math.inf
    """When the next one is tried, if nothing happens before."""
    failed: frozenset[Address] = frozenset()
    """Those of the begun ones that failed at least once."""
    winner: Address | None = None
    is_failing: bool = False
    """Whether a whole pass has failed and none was up since: TRANSIENT_FAILURE, which sticks (A62)."""

    @property
    def held(self) -> tuple[Endpoint, ...]:
        """Whom to connect to."""
        if self.winner is None:
            return self.order[: self.begun]
        return tuple(endpoint for endpoint in self.order if endpoint.address == self.winner)

    @property
    def is_over(self) -> bool:
        """Whether every endpoint failed at least once in this pass: it is time to ask for others."""
        return bool(self.order) and self.winner is None and len(self.failed) == len(self.order)


def in_order(
    endpoints: Iterable[Endpoint],
    rng: random.Random | None = None,
    most: int | None = None,
    kept: Address | None = None,
) -> tuple[Endpoint, ...]:
    """Put endpoints in the order in which they are tried; `rng` shuffles each priority by weight.

    Those that their source says are unwell are left out, as gRPC leaves out those of EDS, unless all of them are. Of
    each priority there are no more than `most`, and `kept` is among them if it is there at all.
    """
    unique: dict[Address, Endpoint] = {}
    for endpoint in endpoints:
        unique.setdefault(endpoint.address, endpoint)
    well = [one for one in unique.values() if one.health not in _UNWELL]
    by_priority: dict[int, list[Endpoint]] = {}
    for endpoint in well or unique.values():
        by_priority.setdefault(endpoint.priority, []).append(endpoint)
    groups = [by_priority[priority] for priority in sorted(by_priority)]
    orders = [interleaved(group if rng is None else shuffled(group, rng)) for group in groups]
    return tuple(chain.from_iterable(_cut(order, most, kept) for order in orders))


def _cut(order: list[Endpoint], most: int | None, kept: Address | None) -> list[Endpoint]:
    head, tail = order[:most], order[most:] if most is not None else []
    found = [one for one in tail if one.address == kept]
    return head[: len(head) - len(found)] + found


def is_alike(one: Iterable[Endpoint], other: Iterable[Endpoint]) -> bool:
    """Tell whether two lists are the same set as far as the order of its endpoints goes, weights apart."""
    return _traits(one) == _traits(other)


def _traits(endpoints: Iterable[Endpoint]) -> dict[Address, tuple[int, bool]]:
    return {one.address: (one.priority, one.health in _UNWELL) for one in endpoints}


def shuffled(endpoints: Sequence[Endpoint], rng: random.Random) -> list[Endpoint]:
    """Draw an order by weight: descending u ^ (1 / weight), u in (0, 1) (A113; Efraimidis, Spirakis 2006)."""
    # In logarithms, which order the same: u ^ (1 / weight) of a small weight is 0 for any u.
    keys = [(math.log(1.0 - rng.random()) / endpoint.weight, place) for place, endpoint in enumerate(endpoints)]
    return [endpoints[place] for _, place in sorted(keys, reverse=True)]


def interleaved(endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    """Take the families of addresses in turn, that of the first one first, and each family in its own order."""
    families: dict[str, list[Endpoint]] = {}
    for endpoint in endpoints:
        families.setdefault(_family(endpoint.address), []).append(endpoint)
    turns = zip_longest(*families.values())
    return [endpoint for turn in turns for endpoint in turn if endpoint is not None]


def replaced(race: Race, order: tuple[Endpoint, ...], now_s: float, delay_s: float) -> Race:
    """Take another list of endpoints: it changes nothing where the winner is in it, and else begins a pass."""
    addresses = [endpoint.address for endpoint in order]
    if race.winner in addresses or (race.winner is None and addresses == [one.address for one in race.order]):
        return race._replace(order=order)
    return _from_the_top(race._replace(order=order), now_s, delay_s)


def advanced(race: Race, stages: Mapping[Address, Stage], now_s: float, delay_s: float) -> Race:
    """Return what follows from how the connections are at `now_s`; `delay_s` is the attempt delay."""
    if race.winner is not None:
        if stages.get(race.winner) is Stage.UP:
            return race
        race = _from_the_top(race, now_s, delay_s)
    begun, next_s, failed = 0, race.next_s, set(race.failed)
    for endpoint in race.order:
        stage = stages.get(endpoint.address)
        if begun >= race.begun:
            if now_s < next_s and race.order[begun - 1].address not in failed:
                break
            next_s = now_s + delay_s
        begun += 1
        if stage is Stage.UP:
            return race._replace(begun=begun, winner=endpoint.address, is_failing=False, next_s=math.inf)
        if stage is Stage.FAILING:
            failed.add(endpoint.address)
    race = race._replace(begun=begun, next_s=next_s, failed=frozenset(failed))
    return race._replace(is_failing=race.is_failing or race.is_over)


def _from_the_top(race: Race, now_s: float, delay_s: float) -> Race:
    return race._replace(
        begun=min(1, len(race.order)), next_s=now_s + delay_s, failed=frozenset[Address](), winner=None
    )


def _family(address: Address) -> str:
    if address.is_unix:
        return "unix"
    return "ipv6" if ":" in address.host else "ipv4"
