"""Who is on a ring, and with what weight, whoever of them can take calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest

from grpclb_core.balancer.roster import LEAST_WEIGHT, MOST_WEIGHT, Line, name_of, roster_of
from grpclb_core.balancer.selection import is_plain, select
from grpclb_core.config import Config
from grpclb_core.endpoints import EndpointSet, State
from grpclb_core.types import Address, Endpoint, Health, Locality, Resolution

EAST, WEST = Locality("eu", "east"), Locality("eu", "west")


def one(number: int, **fields: Any) -> Endpoint:
    return Endpoint(Address(f"10.0.0.{number}", 80), **fields)


def roster(
    *endpoints: Endpoint,
    away: tuple[int, ...] = (),
    connections: int = 1,
    localities: Mapping[Locality, float] | None = None,
    config: Config | None = None,
) -> list[Line]:
    """Make the roster of a set where those whose numbers are in `away` are not connected."""
    members = EndpointSet(lambda address, number: cast("Any", None), 60.0, connections_each=connections)
    members.update(endpoints, 0.0)
    for member in members.members():
        gone = any(member.endpoint.address == one(number).address for number in away)
        member.state = State.FAILING if gone else State.READY
    resolution, config = Resolution(endpoints, locality_weights=localities or {}), config or Config()
    plain = is_plain(resolution, config)
    return roster_of(members, select(members, resolution, config, plain, 0.0), plain)


def test_those_who_are_away_keep_their_weight_and_have_no_place() -> None:
    assert roster(one(1), one(2, weight=3.0), one(3), away=(2,)) == [
        ("10.0.0.1:80", 1.0, 0),
        ("10.0.0.2:80", 3.0, -1),
        ("10.0.0.3:80", 1.0, 1),
    ]


def test_several_connections_share_the_name_and_the_weight() -> None:
    assert roster(one(1), one(2, weight=4.0), connections=2, away=(1,)) == [
        ("10.0.0.1:80", 0.5, -1),
        ("10.0.0.1:80", 0.5, -1),
        ("10.0.0.2:80", 2.0, 0),
        ("10.0.0.2:80", 2.0, 1),
    ]


@pytest.mark.parametrize(
    ("endpoint", "name"),
    [
        (one(1), "10.0.0.1:80"),
        (Endpoint(Address("fd00::1", 80)), "[fd00::1]:80"),
        (Endpoint(Address("/run/a.sock")), "/run/a.sock"),
        (one(1, metadata={"hash_key": "pod-7", "other": "x"}), "pod-7"),
        (one(1, metadata={"hash_key": ""}), "10.0.0.1:80"),
    ],
)
def test_names(endpoint: Endpoint, name: str) -> None:
    assert name_of(endpoint) == name


def test_priorities_that_are_not_in_use_are_not_on_the_ring() -> None:
    first, second = (one(1), one(2)), (one(3, priority=1), one(4, priority=1))
    assert [name for name, _, _ in roster(*first, *second)] == ["10.0.0.1:80", "10.0.0.2:80"]
    lines = roster(*first, *second, away=(1, 2))
    assert lines == [("10.0.0.3:80", 1.0, 0), ("10.0.0.4:80", 1.0, 1)]


def test_those_who_are_unwell_hold_their_places() -> None:
    lines = roster(one(1), one(2, health=Health.UNHEALTHY), one(3))
    assert lines == [("10.0.0.1:80", 1.0, 0), ("10.0.0.2:80", 1.0, -1), ("10.0.0.3:80", 1.0, 1)]


def test_weights_of_localities_count_for_those_who_are_away_too() -> None:
    endpoints = (one(1, locality=EAST), one(2, locality=EAST), one(3, locality=WEST, weight=2.0), one(4, locality=WEST))
    lines = roster(*endpoints, away=(4,), localities={EAST: 30.0, WEST: 10.0})
    weights = {name: weight for name, weight, _ in lines}
    assert weights["10.0.0.1:80"] == weights["10.0.0.2:80"] == pytest.approx(15.0)
    assert weights["10.0.0.3:80"] == pytest.approx(10.0)  # all that there is of its locality
    assert weights["10.0.0.4:80"] == pytest.approx(5.0)  # half of the other, as it weighs half


def test_a_locality_of_which_all_are_away() -> None:
    endpoints = (one(1, locality=EAST), one(2, locality=WEST))
    lines = roster(*endpoints, away=(2,), localities={EAST: 30.0, WEST: 10.0})
    assert [(name, place) for name, _, place in lines] == [("10.0.0.1:80", 0), ("10.0.0.2:80", -1)]


def test_extreme_weights_stay_usable() -> None:
    lines = roster(one(1, weight=5e-324), one(2, weight=1.7e308), connections=4)
    assert all(LEAST_WEIGHT <= weight <= MOST_WEIGHT * 1e8 for _, weight, _ in lines)
    endpoints = (one(1, weight=5e-324, locality=EAST), one(2, weight=1e308, locality=WEST))
    lines = roster(*endpoints, localities={EAST: 1e300, WEST: 1e-300})
    assert all(LEAST_WEIGHT <= weight <= MOST_WEIGHT for _, weight, _ in lines)
