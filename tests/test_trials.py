"""Trials after a silence, on a manual clock."""

from __future__ import annotations

from typing import cast

import pytest

from grpclb_core.balancer.trials import Trials
from grpclb_core.endpoints import Connection, Member, State
from grpclb_core.native import Slot, now_ns
from grpclb_core.types import Address, Endpoint, Outcome
from support.fleet import MILLISECOND, START, hold, only

SILENCE_S, STREAM_S = 2.0, 10.0


class World:
    """A member that is up, and the trials."""

    def __init__(self) -> None:
        self.member = Member(Endpoint(Address("10.0.0.1", 1)), Slot(), cast("Connection", object()))
        self.member.state = State.READY
        self.slot = self.member.slot
        self.trials = Trials()
        self.now_s = 100.0

    def begin(self) -> None:
        self.trials.begin(self.member, self.now_s)

    def is_on_trial_after(self, seconds: float) -> bool:
        ends_s = self.now_s + seconds
        while self.now_s < ends_s:
            self.now_s += 0.05
            self.trials.look(self.now_s, SILENCE_S, STREAM_S)
        return self.slot.is_on_trial


def test_it_waits_for_a_call_for_as_long_as_none_comes() -> None:
    world = World()
    world.begin()
    assert world.is_on_trial_after(100.0)
    only(world.slot).pick_at(START).finish_at(Outcome.SUCCESS, START + MILLISECOND)
    assert not world.is_on_trial_after(0.0)


def test_calls_of_before_are_not_waited_for() -> None:
    world = World()
    former = hold(world.slot, 3)
    world.begin()
    assert world.is_on_trial_after(100.0)
    own = hold(world.slot, 1, now_ns())
    assert world.is_on_trial_after(9.8)
    assert not world.is_on_trial_after(0.3)
    assert len(former) + len(own) == 4


def test_streams_of_before_are_waited_for_no_longer_than_a_silence() -> None:
    world = World()
    former = only(world.slot).pick_at(START, True)
    world.begin()
    assert world.is_on_trial_after(1.9)
    assert not world.is_on_trial_after(0.2)
    assert former.is_open


def test_once_they_have_ended_it_goes_on() -> None:
    world = World()
    former = only(world.slot).pick_at(START, True)
    world.begin()
    assert world.is_on_trial_after(1.9)
    former.finish_at(Outcome.CANCELLED, START)
    assert world.is_on_trial_after(0.1)
    own = hold(world.slot, 1)
    assert world.is_on_trial_after(9.9)
    assert not world.is_on_trial_after(0.2)
    assert len(own) == 1


@pytest.mark.parametrize("pauses", [True, False])
def test_a_call_that_fails_leaves_it_its_time(pauses: bool) -> None:
    world = World()
    world.begin()
    for _ in range(5):
        (call,) = hold(world.slot, 1)
        assert world.is_on_trial_after(8.0)
        call.finish_at(Outcome.FAILURE, START)
        assert world.is_on_trial_after(1.0 if pauses else 0.0)


def test_a_stream_may_be_the_call() -> None:
    world = World()
    world.begin()
    stream = only(world.slot).pick_at(START, True)
    assert world.is_on_trial_after(9.8)
    assert not world.is_on_trial_after(0.3)
    assert stream.is_open


def test_one_that_left_is_on_trial_no_more() -> None:
    world = World()
    world.begin()
    world.member.leave()
    assert not world.is_on_trial_after(0.1)


def test_what_others_began_is_left_to_them() -> None:
    world = World()
    world.slot.start_trial()
    former = hold(world.slot, 1)
    world.begin()
    assert world.is_on_trial_after(100.0)
    world.slot.end_trial()
    world.begin()
    world.member.outlier_reason = "failed trial"
    assert world.is_on_trial_after(100.0)
    assert len(former) == 1
