"""The latency estimate: up at once, down with the decay time, and never written by a reading."""

from __future__ import annotations

import itertools
import math

import pytest

from grpclb_core.native import Slot
from grpclb_core.types import Outcome
from support.fleet import MILLISECOND, SECOND, START, answer, only

# What the fit of 2^-f in ewma.pxd promises.
PRECISION = 4e-7

LONGEST_NS = 2**63 - 1


@pytest.fixture
def slot() -> Slot:
    """An endpoint that answered in one second, at START; its estimate in seconds is the decay itself."""
    slot = Slot()
    answer(slot, SECOND)
    return slot


def faded(slot: Slot, age_ns: int, decay_s: float) -> float:
    return slot.latency_ns_at(START + age_ns, decay_s) / SECOND


@pytest.mark.parametrize("decay_s", [0.001, 0.6, 10.0, 3600.0])
def test_the_decay_is_that_of_the_exponential_function(slot: Slot, decay_s: float) -> None:
    ages = [round(step / 1000 * decay_s * SECOND) for step in range(40_001)]  # to 40 decay times, 58 halvings
    worst = max(abs(faded(slot, age_ns, decay_s) - math.exp(-age_ns / (decay_s * SECOND))) for age_ns in ages)
    assert worst <= PRECISION


def test_what_is_lost_in_a_short_time_is_as_exact_as_what_is_kept(slot: Slot) -> None:
    # Else an endpoint asked a thousand times a second would fade faster than one asked once.
    for step in range(1, 2_000):
        age_ns = step**3  # from a nanosecond to eight seconds
        age = age_ns / (10 * SECOND)
        lost = 1.0 - faded(slot, age_ns, 10.0)
        rounding = 4 * 2.0**-53  # of the double from which it is subtracted
        assert abs(lost + math.expm1(-age)) <= PRECISION * age + rounding, age_ns


def test_the_short_series_is_exact_to_its_fourth_term(slot: Slot) -> None:
    # A 500th of a halving is 13.86 ms here. Past it the fit takes over, which is coarser.
    for age_ns in [*range(1, 2_000), *range(MILLISECOND, 13 * MILLISECOND, 1_007)]:
        assert abs(faded(slot, age_ns, 10.0) - math.exp(-age_ns / (10 * SECOND))) <= 6e-10, age_ns


def test_fading_often_is_fading_once() -> None:
    often, once = Slot(), Slot()
    for slot in (often, once):
        answer(slot, 100 * MILLISECOND)
    for step in range(1, 10_001):
        answer(often, MILLISECOND, START + step * MILLISECOND)
    answer(once, MILLISECOND, START + 10_000 * MILLISECOND)
    now_ns = START + 10 * SECOND
    assert often.latency_ns_at(now_ns, 10.0) == pytest.approx(once.latency_ns_at(now_ns, 10.0), rel=1e-6)
    assert once.latency_ns_at(now_ns, 10.0) == pytest.approx((1 + 99 * math.exp(-1)) * MILLISECOND, rel=1e-6)


def test_the_estimate_never_rises_by_waiting(slot: Slot) -> None:
    # The fit has a seam at each halving; 6.93 s are one. The short series ends at a 500th of the first.
    seam_ns = round(10 * SECOND * math.log(2))
    for halvings in (1 / 500, 1, 2, 7, 40):
        around = [faded(slot, round(halvings * seam_ns) + step, 10.0) for step in range(-2_000, 2_000)]
        assert all(later <= sooner * (1 + PRECISION) for sooner, later in itertools.pairwise(around))
    every = [faded(slot, step * SECOND // 100, 10.0) for step in range(10_000)]
    assert every == sorted(every, reverse=True)


def test_nothing_is_left_of_a_latency_after_for_ever(slot: Slot) -> None:
    assert faded(slot, 6_800 * SECOND, 10.0) > 0.0  # 981 halvings
    assert faded(slot, 7_000 * SECOND, 10.0) == 0.0  # 1010, past which a double is denormal
    assert slot.latency_ns_at(LONGEST_NS, 10.0) == 0.0
    assert slot.latency_ns_at(LONGEST_NS, 1e-9) == 0.0


def test_an_endless_decay_time_keeps_everything(slot: Slot) -> None:
    assert slot.latency_ns_at(LONGEST_NS, math.inf) == SECOND


def test_a_clock_that_stepped_back_is_no_age(slot: Slot) -> None:
    assert faded(slot, 0, 10.0) == faded(slot, -1, 10.0) == faded(slot, -START, 10.0) == 1.0


def test_reading_writes_nothing(slot: Slot) -> None:
    before = faded(slot, SECOND, 10.0)
    for age_ns in (60 * SECOND, -SECOND, LONGEST_NS - START):
        faded(slot, age_ns, 10.0)
    assert faded(slot, SECOND, 10.0) == before
    assert faded(slot, 0, 10.0) == 1.0


def test_picking_writes_no_latency(slot: Slot) -> None:
    only(slot).pick_at(START + 60 * SECOND).finish_at(Outcome.DROPPED, START + 60 * SECOND)
    assert faded(slot, 0, 10.0) == 1.0


def test_a_slower_answer_is_believed_at_once() -> None:
    slot = Slot()
    answer(slot, MILLISECOND)
    answer(slot, 80 * MILLISECOND, START + SECOND)
    assert slot.latency_ns_at(START + SECOND, 10.0) == 80 * MILLISECOND


def test_a_faster_answer_is_believed_as_far_as_the_slower_one_is_old() -> None:
    slot = Slot()
    answer(slot, 80 * MILLISECOND)
    answer(slot, MILLISECOND, START + 10 * SECOND)
    expected = (80 * math.exp(-1) + 1 * (1 - math.exp(-1))) * MILLISECOND
    assert slot.latency_ns_at(START + 10 * SECOND, 10.0) == pytest.approx(expected, rel=1e-5)


def test_a_faster_answer_at_the_same_moment_changes_nothing() -> None:
    slot = Slot()
    answer(slot, 80 * MILLISECOND)
    answer(slot, MILLISECOND)
    assert slot.latency_ns_at(START, 10.0) == 80 * MILLISECOND


def test_the_decay_time_is_that_of_the_picker_that_made_the_pick() -> None:
    slow, quick = Slot(), Slot()
    for slot, decay_s in ((slow, 10.0), (quick, 0.1)):
        answer(slot, 80 * MILLISECOND)
        only(slot, decay_s).pick_at(START + SECOND).finish_at(Outcome.SUCCESS, START + SECOND + MILLISECOND)
    now_ns = START + SECOND + MILLISECOND
    assert slow.latency_ns_at(now_ns, 10.0) == pytest.approx(72.5 * MILLISECOND, rel=1e-3)
    assert quick.latency_ns_at(now_ns, 10.0) == pytest.approx(MILLISECOND, rel=1e-2)


def test_a_clock_that_steps_back_during_a_call_makes_it_the_shortest() -> None:
    slot = Slot()
    only(slot).pick_at(START).finish_at(Outcome.SUCCESS, START - SECOND)
    assert not slot.is_newcomer
    assert slot.latency_ns_at(START - SECOND, 10.0) == 1.0


@pytest.mark.parametrize(
    "outcome", [Outcome.CANCELLED, Outcome.FAILURE, Outcome.TIMED_OUT, Outcome.UNAVAILABLE, Outcome.RATE_LIMITED]
)
class TestLowerBounds:
    """A call waited for in vain tells how fast the server is not."""

    def test_it_raises_the_estimate(self, slot: Slot, outcome: Outcome) -> None:
        answer(slot, 3 * SECOND, START + SECOND, outcome)
        assert slot.latency_ns_at(START + SECOND, 10.0) == 3 * SECOND
        assert not slot.is_newcomer

    def test_it_never_lowers_it(self, slot: Slot, outcome: Outcome) -> None:
        for step in range(100):
            answer(slot, MILLISECOND, START + step, outcome)
        assert faded(slot, 0, 10.0) == 1.0

    def test_it_does_not_make_the_estimate_younger(self, slot: Slot, outcome: Outcome) -> None:
        answer(slot, MILLISECOND, START + 10 * SECOND, outcome)
        assert faded(slot, 10 * SECOND, 10.0) == pytest.approx(math.exp(-1), abs=PRECISION)

    def test_it_is_held_against_the_estimate_of_the_moment(self, slot: Slot, outcome: Outcome) -> None:
        # After ten seconds, 0.37 s are left of the second: half a second is news.
        answer(slot, SECOND // 2, START + 10 * SECOND, outcome)
        assert faded(slot, 10 * SECOND, 10.0) == 0.5

    def test_a_newcomer_stays_one(self, outcome: Outcome) -> None:
        slot = Slot()
        answer(slot, 2 * SECOND, START, outcome)
        assert slot.is_newcomer
        assert slot.latency_ns_at(START, 10.0) == 2 * SECOND
        assert slot.latency_ns_at(START + 10 * SECOND, 10.0) == pytest.approx(2 * SECOND / math.e, rel=1e-6)
        answer(slot, 3 * SECOND, START + SECOND, outcome)
        assert slot.is_newcomer
        assert slot.latency_ns_at(START + SECOND, 10.0) == 3 * SECOND

    def test_the_first_answer_takes_the_place_of_all_bounds(self, outcome: Outcome) -> None:
        slot = Slot()
        answer(slot, 2 * SECOND, START, outcome)
        answer(slot, 5 * MILLISECOND, START + 1)
        assert not slot.is_newcomer
        assert slot.latency_ns_at(START + 1, 10.0) == 5 * MILLISECOND

    def test_it_holds_on_a_clock_below_zero(self, outcome: Outcome) -> None:
        slot = Slot()
        answer(slot, SECOND, -SECOND, outcome)
        assert slot.is_newcomer
        answer(slot, 2 * SECOND, -SECOND)
        assert not slot.is_newcomer
        answer(slot, 3 * SECOND, -SECOND, outcome)
        assert not slot.is_newcomer
        assert slot.latency_ns_at(0, 10.0) == 3 * SECOND


def test_a_dropped_call_says_nothing(slot: Slot) -> None:
    newcomer = Slot()
    for endpoint in (slot, newcomer):
        answer(endpoint, 100 * SECOND, START + SECOND, Outcome.DROPPED)
    assert faded(slot, 0, 10.0) == 1.0
    assert newcomer.is_newcomer
    assert newcomer.latency_ns_at(START, 10.0) == 0.0


def test_an_endpoint_nobody_called_has_no_latency() -> None:
    slot = Slot()
    assert slot.is_newcomer
    assert slot.latency_ns_at(START, 10.0) == 0.0
