"""Whom a balancer connects to: a part of the set for policies that spread calls, one endpoint for those that do not."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

import anyio

from ..config import Config
from ..endpoints import Member, State, Subset
from ..endpoints.first import Race, Stage, advanced, in_order, is_alike, replaced
from ..policies import Policy, connects_to_one
from ..types import Address, Endpoint
from .upkeep import Upkeep


class Reach:
    """Hands to the upkeep whom to connect to, and for a policy that connects to one endpoint follows the race for it.

    Args:
        upkeep: makes the connections.
        config: how many endpoints count, and how long the connections of those who left are kept.
        rng: for the draws of this client.
        ask_again: called when none of the endpoints could be connected to.
    """

    def __init__(self, upkeep: Upkeep, config: Config, rng: random.Random, ask_again: Callable[[], None]) -> None:
        self._upkeep = upkeep
        self._config = config
        self._rng = rng
        self._ask_again = ask_again
        self._subset = Subset(config.subset_size, rng.getrandbits(64))
        self._race: Race | None = None
        self._listed: tuple[Endpoint, ...] = ()
        self._delay_s = 0.0
        self._is_following = False

    @property
    def is_settled(self) -> bool:
        """Whether the members that are ready are those to use."""
        return self._race is None or self._race.winner is not None

    @property
    def is_failing(self) -> bool:
        """Whether a whole pass over the endpoints has failed, and none could be connected to since."""
        return self._race is not None and self._race.is_failing

    def update(self, endpoints: Iterable[Endpoint], policy: Policy) -> None:
        """Take the full set, and connect as the policy needs it."""
        linger_s = self._config.connection.linger_s
        if connects_to_one(policy):
            race, self._delay_s = self._race or Race(), policy.attempt_delay_s
            order = self._ordered(tuple(endpoints), race, policy.shuffle_address_list)
            self._race = replaced(race, order, anyio.current_time(), self._delay_s)
            self._upkeep.endpoints.linger_s = 0.0  # those that lost the race are not to come up after all
            self._upkeep.update(self._race.held)
        else:
            self._race = None
            self._upkeep.endpoints.linger_s = linger_s
            self._upkeep.update(self._subset.of(endpoints))

    def _ordered(self, endpoints: tuple[Endpoint, ...], race: Race, shuffles: bool) -> tuple[Endpoint, ...]:
        """Return the order in which to try endpoints; where one was drawn, it stays as long as the set does."""
        before, self._listed = self._listed, endpoints
        if shuffles and race.order and is_alike(before, endpoints):  # another draw would begin a race under way anew
            by_address = {one.address: one for one in endpoints}
            return tuple(by_address[one.address] for one in race.order)
        return in_order(endpoints, self._rng if shuffles else None, self._config.subset_size, race.winner)

    def follow(self) -> bool:
        """Look how the connections are, and connect as the race has it; return whether it moved on.

        Connecting makes the upkeep tell of a change, and then this is called from within itself, and does nothing.
        """
        if self._race is None or self._is_following:
            return False
        before = self._race
        self._is_following = True
        try:
            while (race := self._advanced(self._race)) != self._race:
                last, self._race = self._race, race
                if race.held != last.held:
                    self._upkeep.update(race.held)
        finally:
            self._is_following = False
        if self._race.is_over and not before.is_over:
            self._ask_again()
        return self._race != before

    def _advanced(self, race: Race) -> Race:
        return advanced(race, stages(self._upkeep.endpoints.members()), anyio.current_time(), self._delay_s)


def stages(members: Iterable[Member]) -> dict[Address, Stage]:
    """Return how far each endpoint is: as far as the best of its connections."""
    found: dict[Address, Stage] = {}
    for member in members:
        address = member.endpoint.address
        found[address] = max(found.get(address, Stage.FAILING), stage_of(member), key=_RANK.__getitem__)
    return found


_RANK = {Stage.FAILING: 0, Stage.COMING: 1, Stage.UP: 2}


def stage_of(member: Member) -> Stage:
    """Return how far one connection is; one that leads to somebody else than it should has failed."""
    if member.state is State.READY and member.is_trusted:
        return Stage.UP
    if member.state is State.FAILING or (member.state is State.READY and member.connection.last_error):
        return Stage.FAILING
    return Stage.COMING
