"""Who may take calls: health, priorities and zones together."""

from __future__ import annotations

from typing import Any, cast

import grpc
import pytest

from grpclb_core.balancer.selection import is_plain, select, view_of
from grpclb_core.config import Config, parse_config
from grpclb_core.endpoints import Connection, EndpointSet, Member
from grpclb_core.types import Address, Endpoint, Health, Locality, Resolution, Verdict

READY, CONNECTING, FAILING = (
    grpc.ChannelConnectivity.READY,
    grpc.ChannelConnectivity.CONNECTING,
    grpc.ChannelConnectivity.TRANSIENT_FAILURE,
)


class StandIn:
    is_new = False

    def __init__(self, address: Address, number: int) -> None:
        self.state = READY

    @property
    def is_ready(self) -> bool:
        return self.state is READY

    def poll(self) -> bool:
        return True


def fleet(*fields: dict[str, Any]) -> tuple[EndpointSet, list[Member], Resolution]:
    endpoints = EndpointSet(lambda address, number: cast(Connection, StandIn(address, number)), 60.0)
    listed = tuple(Endpoint(Address("10.0.0.1", port), **one) for port, one in enumerate(fields, start=1))
    members, _ = endpoints.update(listed, 0.0)
    for member in members:
        member.poll(0.0)
    return endpoints, members, Resolution(listed)


def chosen(
    endpoints: EndpointSet, members: list[Member], resolution: Resolution, config: Config | None = None
) -> dict[int, float]:
    """Return the weight of each chosen one, by its place."""
    config = config or Config()
    selection = select(endpoints, resolution, config, is_plain(resolution, config), 0.0)
    place = {member.slot: number for number, member in enumerate(members)}
    return {place[slot]: weight for slot, weight in zip(selection.slots, selection.weights, strict=True)}


def go(member: Member, state: grpc.ChannelConnectivity) -> None:
    member.connection.state = state
    member.poll(0.0)


def test_the_ready_with_their_weights() -> None:
    endpoints, members, resolution = fleet({}, {"weight": 2.0}, {})
    go(members[2], FAILING)
    assert chosen(endpoints, members, resolution) == {0: 1.0, 1: 2.0}


@pytest.mark.parametrize(
    ("fields", "config", "plain"),
    [
        ({}, {}, True),
        ({"weight": 3.0}, {}, True),
        ({"locality": Locality(zone="a")}, {}, True),
        ({"locality": Locality(zone="a")}, {"locality": {"zone": "a"}}, False),
        ({"priority": 1}, {}, False),
        ({"health": Health.HEALTHY}, {}, False),
        ({}, {"health": {"service": ""}}, False),
        ({}, {"slow_start": {"window_s": 30}}, False),
    ],
)
def test_what_saves_a_look_at_each(fields: dict[str, Any], config: dict[str, Any], plain: bool) -> None:
    _, _, resolution = fleet({}, fields)
    assert is_plain(resolution, parse_config(config)) is plain


def test_the_unwell_and_the_leaving_are_left_out() -> None:
    endpoints, members, resolution = fleet({}, {}, {"health": Health.UNHEALTHY}, {"health": Health.DRAINING})
    assert chosen(endpoints, members, resolution) == {0: 1.0, 1: 1.0}
    members[0].verdict = Verdict.NOT_SERVING
    assert chosen(endpoints, members, resolution, parse_config({"panic_threshold": 0.1})) == {1: 1.0}


def test_one_that_leaves_is_used_where_there_is_no_other() -> None:
    endpoints, members, resolution = fleet({}, {"health": Health.DRAINING})
    go(members[0], FAILING)
    assert chosen(endpoints, members, resolution) == {1: 1.0}


def test_one_on_its_way_is_waited_for_rather_than_one_that_is_unwell() -> None:
    endpoints, members, resolution = fleet({}, {"health": Health.UNHEALTHY})
    go(members[0], CONNECTING)
    assert chosen(endpoints, members, resolution) == {}
    go(members[0], FAILING)
    assert chosen(endpoints, members, resolution) == {1: 1.0}
    go(members[0], READY)
    assert chosen(endpoints, members, resolution) == {0: 1.0}


def test_one_that_just_came_has_a_part_of_its_weight() -> None:
    endpoints, members, resolution = fleet({"weight": 2.0}, {}, {})
    members[0].jitter, members[0].came_s = 0.5, -15.0
    members[1].came_s = members[2].came_s = -60.0
    config = parse_config({"slow_start": {"window_s": 30}})
    assert chosen(endpoints, members, resolution, config) == pytest.approx({0: 1.0, 1: 1.0, 2: 1.0})


def test_one_that_is_somebody_else_is_not_used_even_in_panic() -> None:
    endpoints, members, resolution = fleet({"health": Health.UNHEALTHY}, {"health": Health.UNHEALTHY})
    members[0].is_trusted = False
    assert chosen(endpoints, members, resolution) == {1: 1.0}


@pytest.mark.parametrize("weights", [(1.0, 5e-324), (1e308, 1e-300), (5e-324, 5e-324), (1.7e308,) * 3])
def test_no_weight_becomes_nothing_or_infinite(weights: tuple[float, float]) -> None:
    endpoints, members, resolution = fleet(*({"weight": weight} for weight in weights))
    config = parse_config({"connection": {"per_endpoint": 2}})
    selection = select(endpoints, resolution, config, is_plain(resolution, config), 0.0)
    assert len(view_of(selection)) == len(members)


def test_in_panic_zones_are_not_looked_at() -> None:
    unwell = [{"health": Health.UNHEALTHY, "locality": Locality(zone="b")}] * 6
    endpoints, members, resolution = fleet(*[{"locality": Locality(zone="a")}] * 6, *unwell)
    config = parse_config({"locality": {"zone": "a"}, "panic_threshold": 0.5})
    assert set(chosen(endpoints, members, resolution, config)) == set(range(6))
    for member in members[:3]:
        member.verdict = Verdict.NOT_SERVING
    assert set(chosen(endpoints, members, resolution, config)) == set(range(12))


def test_a_priority_that_is_down_is_replaced_by_the_next() -> None:
    endpoints, members, resolution = fleet({}, {}, {"priority": 1}, {"priority": 1})
    assert set(chosen(endpoints, members, resolution)) == {0, 1}
    for member in members[:2]:
        go(member, FAILING)
    assert set(chosen(endpoints, members, resolution)) == {2, 3}
