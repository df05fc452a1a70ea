"""How far a member is, as pick_first sees it."""

from __future__ import annotations

from typing import Any, cast

import pytest

from grpclb_core.balancer.reach import stage_of, stages
from grpclb_core.endpoints import Connection, Member, State
from grpclb_core.endpoints.first import Stage
from grpclb_core.native import Slot
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
