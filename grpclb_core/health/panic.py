"""Which endpoints to use when some, or nearly all, are said to be unwell.

Sending everything to the few that are left would bring those down too, and when most of a set seems ill at once the
opinions are likelier to be wrong than the servers. Envoy calls this panic: below a threshold health is not believed
(https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/panic_threshold).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .combine import Standing


class Choice(NamedTuple):
    """Who may be used."""

    chosen: tuple[bool, ...]
    """One for each standing, in their order."""
    in_panic: bool
    """Whether health is not believed at the moment."""


_COUNTED = (Standing.USABLE, Standing.LEAVING, Standing.PENDING, Standing.UNUSABLE)
_USED_IN_PANIC = (Standing.USABLE, Standing.LEAVING, Standing.UNUSABLE)


def choose(standings: Sequence[Standing | None], threshold: float) -> Choice:
    """Choose whom to use of a set.

    1. Those who are USABLE, or, if there is none, those who are LEAVING, as long as they are a share of at least
       `threshold` (0 to 1; Envoy's default is 0.5) of them and the UNUSABLE together. PENDING ones count as usable to
       be, so a set that is only starting is not in panic.
    2. Below that share: panic, everyone who is USABLE, LEAVING or UNUSABLE.
    3. If nobody is either USABLE or LEAVING: no one as long as somebody is PENDING, which does not last; else panic as
       in 2, whatever the threshold; else those who have LEFT.

    None stands for an endpoint without a connection. It is not chosen, and says nothing of the health of the set: that
    a server cannot be reached is a fact, and panic is doubt in opinions. Whoever is connected and is not PENDING is
    never left out in favour of no one.

    Example:
        >>> choose([Standing.USABLE, Standing.UNUSABLE], 0.5)
        Choice(chosen=(True, False), in_panic=False)
        >>> choose([Standing.USABLE, Standing.UNUSABLE, Standing.UNUSABLE], 0.5)
        Choice(chosen=(True, True, True), in_panic=True)
    """
    usable, leaving, pending, unusable = (standings.count(one) for one in _COUNTED)
    serving, good = (Standing.USABLE, usable) if usable else (Standing.LEAVING, leaving)
    if good:
        good += pending
        if good / (good + unusable) >= threshold:
            return Choice(tuple([one is serving for one in standings]), in_panic=False)
    elif pending:
        return Choice((False,) * len(standings), in_panic=False)
    elif not unusable:
        return Choice(tuple([one is Standing.LEFT for one in standings]), in_panic=False)
    return Choice(tuple([one in _USED_IN_PANIC for one in standings]), in_panic=True)
