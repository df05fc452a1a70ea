"""How much of the load each priority and each zone gets: pure functions of who is usable.

Priorities fail over as Envoy's do. Each can take its usable share of the load times an overprovisioning factor of 1.4;
what the first cannot take goes to the next, so that a priority spills only once less than 71 % of it is usable.

Zones are a preference. With as many clients in each zone, a zone whose share of the usable endpoints is at least its
share of the clients serves its own clients alone; one with less serves what it can, and the rest goes to the zones that
have more than they need (Envoy, zone aware routing).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from ..types import Endpoint, Locality

KeyT = TypeVar("KeyT", bound=Hashable)

OVERPROVISIONING = 1.4
"""envoy.config.endpoint.v3.ClusterLoadAssignment.Policy.overprovisioning_factor, 140 %."""


class Candidate(NamedTuple):
    """An endpoint, and whether it may take calls."""

    endpoint: Endpoint
    usable: bool


def priority_shares(usable: Mapping[int, int], total: Mapping[int, int]) -> dict[int, float]:
    """Return the share of the load for each priority, from 0 to 1; all of them together 1, or none if none is usable.

    Args:
        usable: usable endpoints of each priority.
        total: all endpoints of each priority.
    """
    able = {
        priority: min(1.0, OVERPROVISIONING * usable.get(priority, 0) / count)
        for priority, count in sorted(total.items())
        if count
    }
    whole = min(1.0, sum(able.values()))
    shares: dict[int, float] = {}
    left = 1.0
    for priority, capacity in able.items():
        # Where all together cannot take the load it is spread in proportion to what each can.
        shares[priority] = min(left, capacity / whole) if whole else 0.0
        left -= shares[priority]
    return shares


def zone_shares(usable: Mapping[str, int], home: str) -> dict[str, float]:
    """Return the share of the load for each zone, from 0 to 1, for a client in the zone `home`; zero shares left out.

    Every zone is taken to have as many clients as any other that has endpoints.

    Args:
        usable: usable endpoints of each zone; at least one altogether.
        home: the client's zone.
    """
    whole = sum(usable.values())
    clients = 1 / len(usable)
    capacity = {zone: count / whole for zone, count in usable.items()}
    kept = min(1.0, capacity.get(home, 0.0) / clients)
    if kept >= 1.0:
        return {home: 1.0}
    residual = {zone: max(0.0, share - clients) for zone, share in capacity.items() if zone != home}
    if not any(residual.values()):
        residual = {zone: share for zone, share in capacity.items() if zone != home}
    spare = sum(residual.values())
    shares = {zone: (1 - kept) * share / spare for zone, share in residual.items() if share}
    return ({home: kept} if kept else {}) | shares


def balanced_weights(
    candidates: Sequence[Candidate],
    locality_weights: Mapping[Locality, float],
    home: str,
    least_for_zones: int,
) -> list[float]:
    """Return the weight of each candidate, 0 for one that gets no calls.

    A locality's weight, where the source gives one, is shared by its usable endpoints; else each endpoint's own counts.

    Args:
        candidates: who there is.
        locality_weights: of the resolution.
        home: the zone of this client; empty for none, and then zones are all the same.
        least_for_zones: usable endpoints of a priority from which on zones are preferred.
    """
    total = _count(candidate.endpoint.priority for candidate in candidates)
    usable = _count(candidate.endpoint.priority for candidate in candidates if candidate.usable)
    shares = priority_shares(usable, total)
    weights = [0.0] * len(candidates)
    for priority, share in shares.items():
        if share > 0:
            places = [
                place
                for place, (endpoint, is_usable) in enumerate(candidates)
                if is_usable and endpoint.priority == priority
            ]
            own = _within([candidates[place].endpoint for place in places], locality_weights, home, least_for_zones)
            # With one priority in use, weights stay what the source said.
            factor = 1.0 if share == 1.0 else share / sum(own)
            for place, weight in zip(places, own, strict=True):
                weights[place] = weight * factor
    return weights


def _within(
    endpoints: list[Endpoint], locality_weights: Mapping[Locality, float], home: str, least_for_zones: int
) -> list[float]:
    """Return the weights of the usable endpoints of one priority, among themselves."""
    weights = [endpoint.weight for endpoint in endpoints]
    if locality_weights:
        of_locality = _sums((one.locality, weight) for one, weight in zip(endpoints, weights, strict=True))
        # A locality that the source gives no weight gets no calls (EDS), unless no locality has any.
        given = [
            locality_weights.get(one.locality, 0.0) * weight / of_locality[one.locality]
            for one, weight in zip(endpoints, weights, strict=True)
        ]
        return given if any(given) else weights
    zones = _count(endpoint.locality.zone for endpoint in endpoints)
    if not home or home not in zones or len(zones) < 2 or len(endpoints) < least_for_zones:
        return weights
    shares = zone_shares(zones, home)
    of_zone = _sums((one.locality.zone, weight) for one, weight in zip(endpoints, weights, strict=True))
    return [
        shares.get(one.locality.zone, 0.0) * weight / of_zone[one.locality.zone]
        for one, weight in zip(endpoints, weights, strict=True)
    ]


def _count(keys: Iterable[KeyT]) -> dict[KeyT, int]:
    return dict(Counter(keys))


def _sums(pairs: Iterable[tuple[KeyT, float]]) -> dict[KeyT, float]:
    sums: dict[KeyT, float] = {}
    for key, value in pairs:
        sums[key] = sums.get(key, 0.0) + value
    return sums
