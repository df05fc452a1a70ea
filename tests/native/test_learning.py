"""How calls change the estimate where a picker asks for more than bare peak EWMA: caps, penalties and hints."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from types import ModuleType

import pytest

from grpclb_core.native import P2cEwmaPicker, Slot, View
from grpclb_core.types import Outcome
from support.fleet import MILLISECOND, SECOND, START, answer

FAILURES = [Outcome.FAILURE, Outcome.TIMED_OUT, Outcome.UNAVAILABLE, Outcome.RATE_LIMITED]
PENALTIES = {"failure_ns": 2 * SECOND, "unavailable_ns": 3 * SECOND, "rate_limited_ns": 4 * SECOND}
PENALTY_OF = {
    Outcome.FAILURE: 2 * SECOND,
    Outcome.TIMED_OUT: 2 * SECOND,
    Outcome.UNAVAILABLE: 3 * SECOND,
    Outcome.RATE_LIMITED: 4 * SECOND,
    Outcome.CANCELLED: MILLISECOND,
    Outcome.DROPPED: 0,
}

Learn = Callable[..., None]


@pytest.fixture
def slot() -> Slot:
    return Slot()


@pytest.fixture
def learn(probe: ModuleType, slot: Slot) -> Learn:
    """Takes an outcome, a latency, the time of the end, and ways to learn that are not those of bare peak EWMA."""
    return functools.partial(probe.answer_as, slot)


def latency(slot: Slot, now_ns: int = START) -> float:
    return slot.latency_ns_at(now_ns, 10.0)


class TestCap:
    """One slow answer exiles nobody: the estimate rises to the cap at most."""

    @pytest.mark.parametrize("newcomer", [False, True])
    def test_an_answer_counts_for_no_more(self, learn: Learn, slot: Slot, newcomer: bool) -> None:
        if not newcomer:
            learn(Outcome.SUCCESS, MILLISECOND, START)
        learn(Outcome.SUCCESS, 10 * SECOND, START, cap_ns=SECOND)
        assert latency(slot) == SECOND

    def test_below_it_nothing_changes(self, learn: Learn, slot: Slot) -> None:
        learn(Outcome.SUCCESS, MILLISECOND, START, cap_ns=SECOND)
        assert latency(slot) == MILLISECOND
        learn(Outcome.SUCCESS, SECOND, START, cap_ns=SECOND)
        assert latency(slot) == SECOND

    def test_an_estimate_above_it_comes_down_with_time(self, learn: Learn, slot: Slot) -> None:
        learn(Outcome.SUCCESS, 5 * SECOND, START)
        learn(Outcome.SUCCESS, 5 * SECOND, START + 10 * SECOND, cap_ns=SECOND)
        expected = (5 * math.exp(-1) + 1 - math.exp(-1)) * SECOND
        assert latency(slot, START + 10 * SECOND) == pytest.approx(expected, rel=1e-6)


class TestPenalties:
    """A failed call counts as one that took long, else a server that fails at once looks like a fast one."""

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("outcome", FAILURES)
    def test_each_class_of_failures_has_its_own(self, learn: Learn, slot: Slot, outcome: Outcome, stream: bool) -> None:
        learn(outcome, MILLISECOND, START, stream=stream, **PENALTIES)
        assert latency(slot) == PENALTY_OF[outcome]

    @pytest.mark.parametrize("outcome", [Outcome.CANCELLED, Outcome.DROPPED])
    def test_what_says_nothing_of_the_server_has_none(self, learn: Learn, slot: Slot, outcome: Outcome) -> None:
        learn(outcome, MILLISECOND, START, **PENALTIES)
        assert latency(slot) == PENALTY_OF[outcome]

    @pytest.mark.parametrize("outcome", FAILURES)
    def test_a_call_that_took_longer_counts_for_what_it_took(self, learn: Learn, slot: Slot, outcome: Outcome) -> None:
        learn(outcome, 10 * SECOND, START, **PENALTIES)
        assert latency(slot) == 10 * SECOND

    def test_a_stream_that_took_longer_does_not(self, learn: Learn, slot: Slot) -> None:
        learn(Outcome.FAILURE, 10 * SECOND, START, stream=True, **PENALTIES)
        assert latency(slot) == 2 * SECOND

    def test_it_never_lowers_an_estimate(self, learn: Learn, slot: Slot) -> None:
        learn(Outcome.SUCCESS, 5 * SECOND, START)
        learn(Outcome.FAILURE, MILLISECOND, START, **PENALTIES)
        assert latency(slot) == 5 * SECOND

    def test_bare_peak_ewma_mixes_it_in(self, learn: Learn, slot: Slot) -> None:
        learn(Outcome.SUCCESS, MILLISECOND, START)
        learn(Outcome.FAILURE, SECOND, START + 1)
        learn(Outcome.SUCCESS, MILLISECOND, START + 2)
        assert latency(slot, START + 2) == pytest.approx(SECOND, rel=1e-6)

    @pytest.mark.parametrize("outcome", FAILURES)
    def test_bare_peak_ewma_has_none(self, slot: Slot, outcome: Outcome) -> None:
        answer(slot, MILLISECOND, START, outcome)
        assert latency(slot) == MILLISECOND


class TestHints:
    """How long a server asks to be left alone stands in for a latency, as far as that is granted."""

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("outcome", FAILURES)
    def test_a_failure_with_one_raises_the_estimate_to_it(
        self, learn: Learn, slot: Slot, outcome: Outcome, stream: bool
    ) -> None:
        learn(outcome, MILLISECOND, START, stream=stream, hint_ns=7 * SECOND, most_hint_ns=300 * SECOND, **PENALTIES)
        assert latency(slot) == 7 * SECOND
        assert slot.is_newcomer

    def test_no_more_is_granted_than_that(self, learn: Learn, slot: Slot) -> None:
        learn(Outcome.RATE_LIMITED, MILLISECOND, START, hint_ns=math.inf, most_hint_ns=300 * SECOND)
        assert latency(slot) == 300 * SECOND

    def test_it_does_not_take_the_place_of_a_greater_penalty(self, learn: Learn, slot: Slot) -> None:
        learn(Outcome.RATE_LIMITED, MILLISECOND, START, hint_ns=SECOND, most_hint_ns=300 * SECOND, **PENALTIES)
        assert latency(slot) == 4 * SECOND

    @pytest.mark.parametrize("outcome", [Outcome.CANCELLED, Outcome.DROPPED, Outcome.SUCCESS])
    def test_with_anything_but_a_failure_it_is_none(self, learn: Learn, slot: Slot, outcome: Outcome) -> None:
        learn(outcome, MILLISECOND, START, hint_ns=7 * SECOND, most_hint_ns=300 * SECOND)
        assert latency(slot) <= MILLISECOND

    def test_bare_peak_ewma_grants_none(self, learn: Learn, slot: Slot) -> None:
        learn(Outcome.RATE_LIMITED, MILLISECOND, START, hint_ns=7 * SECOND)
        assert latency(slot) == MILLISECOND


@pytest.mark.parametrize("outcome", FAILURES)
def test_the_picker_that_made_a_pick_says_how_it_is_learnt_from(slot: Slot, outcome: Outcome) -> None:
    view = View([slot])
    strict = P2cEwmaPicker(view, failure_s=2.0, unavailable_s=3.0, rate_limited_s=4.0)
    tickets = [strict.pick_at(START), P2cEwmaPicker(view).pick_at(START)]
    tickets.pop().finish_at(outcome, START + MILLISECOND)
    assert latency(slot, START) == MILLISECOND
    tickets.pop().finish_at(outcome, START + MILLISECOND)
    assert latency(slot, START) == PENALTY_OF[outcome]


def test_a_ticket_outlives_its_picker_and_what_it_learnt_by(slot: Slot) -> None:
    ticket = P2cEwmaPicker(View([slot]), failure_s=2.0).pick_at(START)
    ticket.finish_at(Outcome.FAILURE, START + MILLISECOND)
    assert latency(slot, START) == 2 * SECOND
