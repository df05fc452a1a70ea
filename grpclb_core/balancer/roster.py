"""Who is known by name: every endpoint of the set for policies that go by names, ready or not.

A hash ring holds the places of those who can take no call now, so that their keys come back to them and nobody else's
keys move (gRFC A42).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TypeAlias

from ..endpoints import EndpointSet, Member
from ..types import Endpoint
from .selection import Selection

Line: TypeAlias = tuple[str, float, int]
"""A name, its weight, and its place in the view; -1 for none."""

LEAST_WEIGHT, MOST_WEIGHT = 1e-300, 1e300
"""What numbers that were multiplied are kept between, lest they come to be 0 or infinite."""

HASH_KEY = "hash_key"
"""Where a source may put a name that outlives addresses: the field of `envoy.lb` in an EDS endpoint (gRFC A76)."""


def roster_of(endpoints: EndpointSet, selection: Selection, is_plain: bool) -> list[Line]:
    """List the members of the priorities that are in use, with the weights they have or would have.

    `is_plain` as in `select`: then weights are those of the endpoints.
    """
    places = {slot: place for place, slot in enumerate(selection.slots)}
    members, share = list(endpoints.members()), endpoints.share
    if is_plain:  # looked up once: there may be ten thousand members
        weighed = [(one, one.endpoint.weight * share or LEAST_WEIGHT) for one in members]
        return [(name_of(one.endpoint), weight, places.get(one.slot, -1)) for one, weight in weighed]
    taken = [(one, selection.weights[places[one.slot]] / one.endpoint.weight) for one in members if one.slot in places]
    factors = _factors(taken)
    lines = []
    for one in members:
        endpoint = one.endpoint
        factor = factors.get(_group(endpoint), factors.get((endpoint.priority,)))
        if factor is not None:
            weight = min(max(endpoint.weight * factor, LEAST_WEIGHT), MOST_WEIGHT)
            lines.append((name_of(endpoint), weight, places.get(one.slot, -1)))
    return lines


def name_of(endpoint: Endpoint) -> str:
    """Return the name of an endpoint on a ring: the one its source gave it, else its address."""
    return endpoint.metadata.get(HASH_KEY) or str(endpoint.address)


def _group(endpoint: Endpoint) -> tuple[object, ...]:
    return endpoint.priority, endpoint.locality


def _factors(taken: Sequence[tuple[Member, float]]) -> dict[tuple[object, ...], float]:
    """Return what the weights of endpoints were multiplied with, on average: by locality, and by priority alone."""
    found: defaultdict[tuple[object, ...], list[float]] = defaultdict(list)
    for member, factor in taken:
        found[_group(member.endpoint)].append(factor)
        found[member.endpoint.priority,].append(factor)
    return {group: sum(factors) / len(factors) for group, factors in found.items()}
