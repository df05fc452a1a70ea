"""Whom pick_first connects to, and how far it is there."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any, cast

import msgspec
import pytest

from grpclb_core.balancer.reach import Reach, stage_of, stages
from grpclb_core.config import Config
from grpclb_core.endpoints import Connection, EndpointSet, Member, State
from grpclb_core.endpoints.first import Stage
from grpclb_core.native import Slot
from grpclb_core.policies import PickFirst
from grpclb_core.types import Address, Endpoint


class Line:
    last_error: str | None = None


def member(state: State, number: int = 1, *, trusted: bool = True, error: str | None = None) -> Member:
    line = Line()
    line.last_error = error
    one = Member(Endpoint(Address(f"10.0.0.{number}", 80)), Slot(), cast("Connection", cast("Any", line)))
    one.state, one.is_trusted = state, trusted
    return one


@pytest.mark.parametrize(
    ("one", "stage"),
    [
        (member(State.READY), Stage.UP),
        (member(State.READY, error="of before"), Stage.UP),
        (member(State.CONNECTING), Stage.COMING),
        (member(State.IDLE), Stage.COMING),
        (member(State.FAILING), Stage.FAILING),
        (member(State.READY, trusted=False), Stage.COMING),  # not known yet who it is
        (member(State.READY, trusted=False, error="somebody else"), Stage.FAILING),
    ],
)
def test_the_stage_of_a_member(one: Member, stage: Stage) -> None:
    assert stage_of(one) is stage


def test_an_endpoint_is_as_far_as_its_best_connection() -> None:
    members = [
        member(State.FAILING, 1),
        member(State.READY, 1),
        member(State.FAILING, 2),
        member(State.CONNECTING, 2),
        member(State.FAILING, 3),
        member(State.FAILING, 3),
    ]
    assert [stage for _, stage in sorted(stages(members).items())] == [Stage.UP, Stage.COMING, Stage.FAILING]


class Upkeep:
    """Connects to nobody, and keeps whom it was told."""

    def __init__(self) -> None:
        self.endpoints = EndpointSet(lambda address, number: cast("Connection", None), 0.0)
        self.held: list[Endpoint] = []

    def update(self, endpoints: Iterable[Endpoint]) -> None:
        self.held = list(endpoints)


SHUFFLED = PickFirst(shuffle_address_list=True)


def reach(subset_size: int = 64) -> tuple[Reach, Upkeep]:
    upkeep = Upkeep()
    return Reach(cast("Any", upkeep), Config(subset_size=subset_size), random.Random(1), lambda: None), upkeep


@pytest.mark.anyio
async def test_the_same_set_again_does_not_begin_a_race_anew() -> None:
    everyone = [Endpoint(Address(f"10.0.0.{number}", 80)) for number in range(20)]
    one, upkeep = reach(subset_size=8)
    one.update(everyone, SHUFFLED)
    first = upkeep.held
    for weight in (1.0, 2.0, 3.0):
        one.update([msgspec.structs.replace(endpoint, weight=weight) for endpoint in reversed(everyone)], SHUFFLED)
        assert [endpoint.address for endpoint in upkeep.held] == [endpoint.address for endpoint in first]
        assert upkeep.held[0].weight == weight
    others = [Endpoint(Address(f"10.0.1.{number}", 80)) for number in range(20)]
    one.update(others, SHUFFLED)
    assert upkeep.held[0] in others


@pytest.mark.anyio
async def test_the_next_priority_is_tried_however_many_the_first_has() -> None:
    first = [Endpoint(Address(f"10.0.0.{number}", 80)) for number in range(20)]
    second = [Endpoint(Address(f"10.0.1.{number}", 80), priority=1) for number in range(20)]
    one, _ = reach(subset_size=4)
    one.update([*second, *first], PickFirst())
    assert one._race is not None
    assert [endpoint.priority for endpoint in one._race.order] == [0] * 4 + [1] * 4
