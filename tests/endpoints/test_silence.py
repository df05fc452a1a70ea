"""When nothing comes back."""

from __future__ import annotations

import pytest

from grpclb_core.endpoints.silence import PATIENCE, Silence, is_too_long
from grpclb_core.native import Slot
from grpclb_core.types import Outcome
from support.fleet import MILLISECOND, SECOND, START, answer, hold, only

DECAY_S = 10.0


def look(silence: Silence, slot: Slot, at_s: float) -> float:
    return silence.seen(slot, START + round(at_s * SECOND), DECAY_S) / SECOND


class TestSilence:
    def test_an_idle_endpoint_is_not_silent(self) -> None:
        silence, slot = Silence(), Slot()
        answer(slot, MILLISECOND)
        assert [look(silence, slot, at_s) for at_s in (0, 1, 100)] == [0, 0, 0]

    def test_it_counts_from_the_first_look_that_finds_a_call_waiting(self) -> None:
        silence, slot = Silence(), Slot()
        answer(slot, MILLISECOND)
        assert look(silence, slot, 0) == 0
        held = hold(slot, 1)
        assert [look(silence, slot, at_s) for at_s in (1, 2, 4)] == [0, 1, 3]
        assert len(held) == 1

    def test_a_call_that_timed_out_is_silence_until_there_is_an_answer(self) -> None:
        silence, slot = Silence(), Slot()
        answer(slot, MILLISECOND)
        look(silence, slot, 0)
        answer(slot, SECOND, START + SECOND, Outcome.TIMED_OUT)
        assert [look(silence, slot, at_s) for at_s in (1, 2, 5)] == [0, 1, 4]
        answer(slot, MILLISECOND, START + 6 * SECOND)
        assert [look(silence, slot, at_s) for at_s in (6, 60)] == [0, 0]

    @pytest.mark.parametrize("outcome", [Outcome.SUCCESS, Outcome.FAILURE])
    def test_any_answer_ends_it(self, outcome: Outcome) -> None:
        silence, slot = Silence(), Slot()
        held = hold(slot, 2)
        assert [look(silence, slot, at_s) for at_s in (0, 3)] == [0, 3]
        held[0].finish_at(outcome, START + 3 * SECOND)
        assert look(silence, slot, 4) == 0
        assert look(silence, slot, 5) == 0, "it begins anew with the next look"
        assert look(silence, slot, 6) == 1

    def test_streams_may_be_silent_for_as_long_as_they_like(self) -> None:
        silence, slot = Silence(), Slot()
        answer(slot, MILLISECOND)
        look(silence, slot, 0)
        stream = only(slot).pick_at(START, True)
        only(slot).pick_at(START, True).finish_at(Outcome.TIMED_OUT, START + SECOND)
        assert [look(silence, slot, at_s) for at_s in (2, 60)] == [0, 0]
        assert stream.is_open

    def test_the_latency_it_is_held_against_is_not_that_of_calls_given_up(self) -> None:
        silence, slot = Silence(), Slot()
        answer(slot, 10 * MILLISECOND)
        look(silence, slot, 0)
        answer(slot, SECOND, START + SECOND, Outcome.TIMED_OUT)
        look(silence, slot, 1)
        assert silence.latency_ns == pytest.approx(10 * MILLISECOND, rel=0.01)

    def test_a_single_call_that_is_given_up_is_no_lasting_silence(self) -> None:
        """As the loser of a hedge is, on an endpoint with nothing else to do."""
        silence, slot = Silence(), Slot()
        answer(slot, MILLISECOND)
        look(silence, slot, 0)
        answer(slot, SECOND // 10, START + SECOND, Outcome.CANCELLED)
        assert [look(silence, slot, at_s) for at_s in (1, 5, 60)] == [0, 0, 0]

    def test_another_connection_begins_anew(self) -> None:
        silence, slot = Silence(), Slot()
        answer(slot, MILLISECOND)
        held = hold(slot, 1)
        look(silence, slot, 0)
        silence.end(slot)
        assert silence.latency_ns is None
        assert look(silence, slot, 60) == 0
        assert len(held) == 1

    def test_calls_of_the_connection_before_are_not_held_against_it(self) -> None:
        silence, slot = Silence(), Slot()
        answer(slot, MILLISECOND)
        former = hold(slot, 2)
        look(silence, slot, 0)
        silence.end(slot)
        assert [look(silence, slot, at_s) for at_s in (1, 60)] == [0, 0]
        own = hold(slot, 1)
        assert [look(silence, slot, at_s) for at_s in (61, 63)] == [0, 2]
        own[0].finish_at(Outcome.SUCCESS, START + 64 * SECOND)
        assert look(silence, slot, 64) == 0
        former[0].finish_at(Outcome.TIMED_OUT, START + 65 * SECOND)
        assert [look(silence, slot, at_s) for at_s in (65, 99)] == [0, 0]
        own = hold(slot, 1)
        assert [look(silence, slot, at_s) for at_s in (100, 103)] == [0, 3]
        assert len(former) == 2
        assert len(own) == 1

    def test_a_call_of_its_own_that_times_out_is(self) -> None:
        silence, slot = Silence(), Slot()
        former = hold(slot, 1)
        silence.end(slot)
        own = hold(slot, 2)
        look(silence, slot, 0)
        for call in own:
            call.finish_at(Outcome.TIMED_OUT, START + SECOND)
        assert [look(silence, slot, at_s) for at_s in (1, 3)] == [1, 3]
        assert len(former) == 1


class TestTooLong:
    LEAST = 2 * SECOND

    @pytest.mark.parametrize(
        ("silence_s", "own_s", "fleet_s", "verdict"),
        [
            (1.9, 0.01, 0.01, False),
            (2.0, 0.01, 0.01, True),
            (3.9, 1.0, 0.01, False),  # its own answers take that long
            (PATIENCE, 1.0, 0.01, True),
            (2.0, None, 0.01, True),  # a newcomer is held against the others
            (3.9, None, 1.0, False),
            (1e6, None, None, False),  # nobody has answered yet: a slow service, perhaps
            (2.0, 0.01, None, True),
        ],
    )
    def test_it(self, silence_s: float, own_s: float | None, fleet_s: float | None, verdict: bool) -> None:
        own = None if own_s is None else own_s * SECOND
        fleet = None if fleet_s is None else fleet_s * SECOND
        assert is_too_long(silence_s * SECOND, own, fleet, self.LEAST) is verdict
