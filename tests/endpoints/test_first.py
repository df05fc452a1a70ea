"""Whom pick_first connects to: its order, and every event of a race, on a manual clock."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpclb_core.endpoints.first import (
    Race,
    Stage,
    advanced,
    in_order,
    interleaved,
    is_alike,
    replaced,
    shuffled,
)
from grpclb_core.types import Address, Endpoint, Health
from support.fleet import is_share

COMING, UP, FAILING = Stage.COMING, Stage.UP, Stage.FAILING
DELAY_S = 0.25


def four(number: int, **fields: Any) -> Endpoint:
    return Endpoint(Address(f"10.0.0.{number}", 50051), **fields)


def six(number: int) -> Endpoint:
    return Endpoint(Address(f"fd00::{number}", 50051))


A, B, C, D = four(1), four(2), four(3), four(4)


def hosts(endpoints: Iterable[Endpoint]) -> str:
    """Return the last digits of the addresses."""
    return "".join(endpoint.address.host[-1] for endpoint in endpoints)


class Run:
    """A race over endpoints, and the stages of those it holds: whoever is begun is coming until told otherwise."""

    def __init__(self, *order: Endpoint, now_s: float = 100.0) -> None:
        self.now_s = now_s
        self.stages: dict[Address, Stage] = {}
        self.race = replaced(Race(), order, now_s, DELAY_S)

    def after(self, seconds: float = 0.0, told: Iterable[tuple[Endpoint, Stage]] = ()) -> tuple[Endpoint, ...]:
        """Let time pass, and look; return who is held."""
        self.now_s += seconds
        self.stages |= {endpoint.address: stage for endpoint, stage in told}
        self.race = advanced(self.race, self.stages, self.now_s, DELAY_S)
        held = {endpoint.address for endpoint in self.race.held}
        self.stages = {address: stage for address, stage in self.stages.items() if address in held}
        self.stages = dict.fromkeys(held, COMING) | self.stages
        return self.race.held

    def replace(self, *order: Endpoint) -> tuple[Endpoint, ...]:
        self.race = replaced(self.race, order, self.now_s, DELAY_S)
        return self.after()


class TestAPass:
    def test_it_begins_with_the_first_alone(self) -> None:
        run = Run(A, B, C)
        assert run.race.held == (A,)
        assert run.after() == (A,)
        assert run.after(0.2) == (A,)

    def test_one_that_does_not_answer_has_the_next_tried_beside_it(self) -> None:
        run = Run(A, B, C)
        assert run.after(0.25) == (A, B)
        assert run.after(0.24) == (A, B)
        assert run.after(0.01) == (A, B, C)
        assert run.after(60.0) == (A, B, C)

    def test_a_long_pause_between_two_looks_begins_one_more_and_not_all(self) -> None:
        assert Run(A, B, C).after(60.0) == (A, B)

    def test_one_that_fails_has_the_next_tried_at_once(self) -> None:
        run = Run(A, B, C)
        assert run.after(0.01, [(A, FAILING)]) == (A, B)
        assert run.after(0.24) == (A, B)
        assert run.after(0.01) == (A, B, C)

    def test_only_the_last_begun_one_hurries_the_next(self) -> None:
        run = Run(A, B, C)
        run.after(0.25)
        assert run.after(0.05, [(A, FAILING)]) == (A, B)
        assert run.after(0.05, [(B, FAILING)]) == (A, B, C)

    @pytest.mark.parametrize("winner", [A, B, C])
    def test_the_first_to_be_up_wins_and_the_others_are_let_go(self, winner: Endpoint) -> None:
        run = Run(A, B, C)
        run.after(0.25)
        run.after(0.25)
        assert run.after(0.01, [(winner, UP)]) == (winner,)
        assert run.after(600.0) == (winner,)
        assert run.race.winner == winner.address

    def test_of_two_up_at_once_the_earlier_wins(self) -> None:
        run = Run(A, B, C)
        run.after(0.25)
        assert run.after(0.01, [(B, UP), (A, UP)]) == (A,)

    def test_one_that_failed_may_win_after_all(self) -> None:
        run = Run(A, B)
        run.after(0.0, [(A, FAILING)])
        assert run.after(0.1, [(A, UP)]) == (A,)

    def test_those_that_are_failing_already_are_passed_in_one_look(self) -> None:
        """As A61 has it of one in backoff; their connections may be shared with other channels."""
        run = Run(A, B, C, D)
        assert run.after(0.0, [(A, FAILING), (B, FAILING), (C, FAILING)]) == (A, B, C, D)

    def test_one_that_is_up_already_wins_when_its_turn_comes(self) -> None:
        run = Run(A, B, C)
        assert run.after(0.0, [(A, FAILING), (B, UP)]) == (B,)

    def test_one_whose_turn_has_not_come_does_not_win(self) -> None:
        assert Run(A, B).after(0.1, [(B, UP)]) == (A,)

    def test_no_endpoints(self) -> None:
        run = Run()
        assert run.after() == ()
        assert run.after(9.0) == ()
        assert not run.race.is_failing
        assert not run.race.is_over

    def test_a_clock_that_stands_still(self) -> None:
        run = Run(A, B)
        for _ in range(5):
            assert run.after() == (A,)
        assert run.after(0.0, [(A, FAILING)]) == (A, B)

    def test_a_clock_that_steps_back(self) -> None:
        run = Run(A, B)
        assert run.after(-50.0) == (A,)
        assert run.after(0.0, [(A, FAILING)]) == (A, B)


class TestFailing:
    def failed(self) -> Run:
        run = Run(A, B)
        run.after(0.0, [(A, FAILING)])
        run.after(0.0, [(B, FAILING)])
        return run

    def test_it_is_failing_once_all_have_failed(self) -> None:
        run = Run(A, B, C)
        for one, over in ((A, False), (B, False), (C, True)):
            run.after(0.1, [(one, FAILING)])
            assert (run.race.is_failing, run.race.is_over) == (over, over)

    def test_one_failure_each_is_enough_though_none_fails_at_the_moment(self) -> None:
        run = Run(A, B)
        run.after(0.0, [(A, FAILING)])
        run.after(0.1, [(A, COMING)])
        run.after(0.1, [(B, FAILING)])
        assert run.race.is_failing

    def test_it_sticks_while_they_are_tried_on(self) -> None:
        run = self.failed()
        for told in ([(A, COMING), (B, COMING)], [(A, FAILING)], [(A, COMING)]):
            assert run.after(1.0, told) == (A, B)
            assert run.race.is_failing

    @pytest.mark.parametrize("winner", [A, B])
    def test_it_ends_when_any_is_up(self, winner: Endpoint) -> None:
        run = self.failed()
        assert run.after(5.0, [(winner, UP)]) == (winner,)
        assert not run.race.is_failing

    def test_it_outlasts_another_list(self) -> None:
        run = self.failed()
        assert run.replace(C, D) == (C,)
        assert run.race.is_failing
        assert not run.race.is_over
        run.after(0.0, [(C, FAILING)])
        run.after(0.0, [(D, FAILING)])
        assert run.race.is_over
        run.after(0.0, [(C, UP)])
        assert not run.race.is_failing

    def test_a_single_one(self) -> None:
        run = Run(A)
        run.after(0.0, [(A, FAILING)])
        assert run.race.is_failing
        assert run.after(1.0, [(A, UP)]) == (A,)


class TestLost:
    def won(self, winner: Endpoint = A) -> Run:
        run = Run(A, B, C)
        run.after(0.25)
        run.after(0.25)
        run.after(0.0, [(winner, UP)])
        return run

    @pytest.mark.parametrize("stage", [COMING, FAILING])
    def test_it_begins_from_the_top(self, stage: Stage) -> None:
        run = self.won(C)
        assert run.after(30.0, [(C, stage)]) == (A,)
        assert run.race.winner is None
        assert run.after(0.24) == (A,)
        assert run.after(0.01) == (A, B)

    def test_the_first_one_is_tried_again_at_once(self) -> None:
        run = self.won(A)
        assert run.after(30.0, [(A, COMING)]) == (A,)
        assert run.after(0.01, [(A, UP)]) == (A,)

    def test_one_that_broke_has_failed(self) -> None:
        assert self.won(A).after(30.0, [(A, FAILING)]) == (A, B)

    def test_its_failures_of_before_are_forgotten(self) -> None:
        run = Run(A, B)
        run.after(0.0, [(A, FAILING)])
        run.after(0.0, [(B, UP)])
        assert run.after(9.0, [(B, FAILING)]) == (A,)
        run.after(0.25)
        assert run.after(0.0, [(B, FAILING)]) == (A, B)
        assert not run.race.is_failing


class TestAnotherList:
    def test_one_with_the_winner_in_it_changes_nothing(self) -> None:
        run = Run(A, B)
        run.after(0.0, [(A, UP)])
        assert run.replace(D, C, A) == (A,)
        assert run.after(1.0, [(A, COMING)]) == (D,)  # and it is the order of the next pass

    def test_the_winner_gets_its_new_fields(self) -> None:
        run = Run(A, B)
        run.after(0.0, [(A, UP)])
        heavier = four(1, weight=3.0)
        assert run.replace(B, heavier) == (heavier,)

    def test_one_without_the_winner_begins_a_pass(self) -> None:
        run = Run(A, B)
        run.after(0.0, [(A, UP)])
        assert run.replace(B, C) == (B,)
        assert run.after(0.25) == (B, C)

    def test_the_same_one_leaves_the_pass_where_it_is(self) -> None:
        run = Run(A, B, C)
        run.after(0.25)
        assert run.replace(A, B, C) == (A, B)
        assert run.after(0.25) == (A, B, C)

    def test_another_order_begins_a_pass(self) -> None:
        run = Run(A, B, C)
        run.after(0.25)
        assert run.replace(C, B, A) == (C,)

    def test_an_empty_one_holds_nobody(self) -> None:
        run = Run(A, B)
        run.after(0.0, [(A, UP)])
        assert run.replace() == ()
        assert run.replace(B) == (B,)


class TestOrder:
    def test_it_is_that_of_the_list(self) -> None:
        assert in_order([C, A, B]) == (C, A, B)

    def test_priorities_come_first(self) -> None:
        late, later = four(5, priority=1), four(6, priority=7)
        assert in_order([later, C, late, A]) == (C, A, late, later)

    def test_families_take_turns_within_a_priority(self) -> None:
        late = four(9, priority=1)
        assert in_order([A, B, late, C, six(1), six(2)]) == (A, six(1), B, six(2), C, late)
        assert in_order([six(1), six(2), A]) == (six(1), A, six(2))

    def test_three_families(self) -> None:
        unix = Endpoint(Address("/run/a.sock"))
        assert interleaved([unix, A, B, six(1)]) == [unix, A, six(1), B]

    def test_an_address_counts_once(self) -> None:
        assert in_order([A, B, four(1, weight=2.0)]) == (A, B)

    def test_those_who_are_unwell_are_left_out(self) -> None:
        unwell, leaving = four(1, health=Health.UNHEALTHY), four(2, health=Health.DRAINING)
        assert in_order([unwell, leaving, C]) == (C,)
        assert in_order([unwell, leaving]) == (unwell, leaving)

    def test_nobody(self) -> None:
        assert in_order([]) == ()

    def test_so_many_of_each_priority(self) -> None:
        late = [four(number, priority=1) for number in (5, 6, 7)]
        assert hosts(in_order([A, B, C, *late], most=2)) == "1256"

    def test_the_winner_stays_among_them(self) -> None:
        late = [four(number, priority=1) for number in (5, 6, 7)]
        assert hosts(in_order([A, B, C, D, *late], None, 2, D.address)) == "1456"
        assert hosts(in_order([A, B, *late], None, 2, B.address)) == "1256"
        assert hosts(in_order([A, B, *late], None, 2, D.address)) == "1256"

    def test_sets_that_are_alike(self) -> None:
        assert is_alike([A, B], [B, four(1, weight=3.0)])
        assert not is_alike([A, B], [A])
        assert not is_alike([A, B], [A, four(2, priority=1)])
        assert not is_alike([A, B], [A, four(2, health=Health.UNHEALTHY)])


class TestShuffling:
    def test_any_order_is_as_likely_as_any_other(self) -> None:
        rng = random.Random(7)
        orders = Counter(hosts(shuffled([A, B, C], rng)) for _ in range(6_000))
        assert len(orders) == 6
        assert all(is_share(count, 6_000, 1 / 6) for count in orders.values())

    def test_the_first_is_drawn_by_weight(self) -> None:
        """Efraimidis and Spirakis: in front with the odds of its weight, then so on among those that are left."""
        rng = random.Random(7)
        weighed = [four(1), four(2, weight=2.0), four(5, weight=5.0)]
        orders = Counter(hosts(shuffled(weighed, rng)) for _ in range(8_000))
        assert is_share(sum(count for order, count in orders.items() if order[0] == "5"), 8_000, 5 / 8)
        assert is_share(sum(count for order, count in orders.items() if order[0] == "1"), 8_000, 1 / 8)
        assert is_share(orders["521"], 8_000, 5 / 8 * 2 / 3)

    @pytest.mark.parametrize("weights", [(5e-324, 1.7e308), (1e-300, 1e-300), (1.7e308, 1.7e308)])
    def test_extreme_weights(self, weights: Sequence[float]) -> None:
        one, other = (four(place, weight=weight) for place, weight in enumerate(weights))
        assert sorted(hosts(shuffled([one, other], random.Random(1)))) == ["0", "1"]

    def test_priorities_are_not_mixed(self) -> None:
        late = [four(number, priority=1) for number in range(10, 20)]
        order = in_order([*late, A, B, C, D], random.Random(3))
        assert sorted(hosts(order[:4])) == ["1", "2", "3", "4"]
        assert len(order) == 14
        assert order != in_order([*late, A, B, C, D], random.Random(4))


STAGES = st.sampled_from(list(Stage))
EVENTS = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.dictionaries(st.integers(0, 4), STAGES, max_size=3),
        st.none() | st.lists(st.integers(0, 4), unique=True, max_size=5),
    ),
    max_size=30,
)


@given(EVENTS)
def test_whatever_happens(events: list[tuple[float, dict[int, Stage], list[int] | None]]) -> None:
    """One alone is held while it is up; else the begun ones are a beginning of the order, and not none of them."""
    everyone = [four(number) for number in range(5)]
    run = Run(*everyone)
    for seconds, told, order in events:
        if order is not None:
            run.replace(*(everyone[number] for number in order))
        before = run.race
        known = [(everyone[number], stage) for number, stage in told.items() if everyone[number] in before.held]
        held = run.after(seconds, known)
        race = run.race
        if race.winner is not None:
            assert [endpoint.address for endpoint in held] == [race.winner]
            assert not race.is_failing
            assert run.stages[race.winner] is UP
        else:
            assert held == race.order[: len(held)]
            assert bool(held) == bool(race.order)
            assert not any(run.stages[endpoint.address] is UP for endpoint in held)
        assert advanced(race, run.stages, run.now_s, DELAY_S) == race  # at the same moment nothing more follows
