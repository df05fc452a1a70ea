"""A part of a large set: even over clients, steady over changes."""

from __future__ import annotations

from collections import Counter

import pytest

from grpclb_core.endpoints import Subset
from grpclb_core.types import Address, Endpoint
from support.fleet import is_share


def fleet(count: int, first: int = 0, priority: int = 0) -> list[Endpoint]:
    return [
        Endpoint(Address(f"10.{priority}.{number // 256}.{number % 256}", 1), priority=priority)
        for number in range(first, first + count)
    ]


def test_a_small_set_is_taken_whole() -> None:
    assert Subset(64, 1).of(fleet(64)) == tuple(fleet(64))


def test_a_large_one_is_cut_to_size_in_its_order() -> None:
    chosen = Subset(64, 1).of(fleet(1000))
    assert len(chosen) == 64
    assert list(chosen) == [endpoint for endpoint in fleet(1000) if endpoint in chosen]


def test_it_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    assert Subset(8, 1).of(fleet(100)) == Subset(8, 1).of(fleet(100)) != Subset(8, 2).of(fleet(100))


def test_the_order_of_the_set_does_not_matter() -> None:
    forward, backward = Subset(8, 1).of(fleet(100)), Subset(8, 1).of(reversed(fleet(100)))
    assert {one.address for one in forward} == {one.address for one in backward}


@pytest.mark.parametrize("seed", range(20))
def test_one_change_moves_one_connection_at_most(seed: int) -> None:
    subset = Subset(16, seed)
    before = {one.address for one in subset.of(fleet(200))}
    for first in range(50):
        grown = {one.address for one in subset.of(fleet(201, first))}  # one came
        assert len(before - grown) == len(grown - before) <= 1
        shrunk = {one.address for one in subset.of(fleet(200, first + 1))}  # and one left
        assert len(grown - shrunk) == len(shrunk - grown) <= 1
        before = shrunk


def test_every_endpoint_is_drawn_as_often_as_any_other() -> None:
    drawn = Counter(one.address for seed in range(2000) for one in Subset(10, seed).of(fleet(40)))
    # At 99.9 % each, one of forty may stray by chance (4 %); two would be one chance in a thousand.
    assert sum(not is_share(count, 2000, 10 / 40) for count in drawn.values()) <= 1
    assert len(drawn) == 40


def test_each_priority_is_cut_on_its_own() -> None:
    chosen = Subset(8, 1).of([*fleet(100), *fleet(3, priority=1)])
    assert Counter(one.priority for one in chosen) == {0: 8, 1: 3}


def test_scores_of_those_who_left_are_forgotten() -> None:
    subset = Subset(8, 1)
    for generation in range(50):
        subset.of(fleet(100, first=100 * generation))
    assert len(subset._scores) == 100
