"""Slow start, as a function of age."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpclb_core.config import SlowStartConfig
from grpclb_core.endpoints.warming import LEAST_STEP_S, ramp, ramps, step_s

WINDOW = SlowStartConfig(window_s=10)
MIDDLE = 0.5  # a jitter that leaves the window as it is


@pytest.mark.parametrize(
    ("age_s", "part"), [(-1, 0.1), (0, 0.1), (1, 0.1), (2, 0.2), (5, 0.5), (9.9, 0.99), (10, 1), (1e9, 1)]
)
def test_the_share_grows_with_age(age_s: float, part: float) -> None:
    assert ramp(age_s, MIDDLE, WINDOW) == pytest.approx(part)


@pytest.mark.parametrize(("aggression", "part"), [(0.5, 0.25), (1, 0.5), (2, 0.5**0.5)])
def test_aggression_bends_it(aggression: float, part: float) -> None:
    assert ramp(5, MIDDLE, SlowStartConfig(window_s=10, aggression=aggression)) == pytest.approx(part)


def test_two_that_came_together_do_not_end_together() -> None:
    assert ramp(9.5, 0.0, WINDOW) == 1
    assert ramp(9.5, 1.0, WINDOW) < 1
    assert ramp(11, 1.0, WINDOW) == 1


@given(st.floats(0, 100), st.floats(0, 100), st.floats(0, 1))
def test_it_never_shrinks(one_s: float, other_s: float, jitter: float) -> None:
    young, old = sorted((one_s, other_s))
    assert 0.1 <= ramp(young, jitter, WINDOW) <= ramp(old, jitter, WINDOW) <= 1


def test_a_newcomer_among_many_is_spared() -> None:
    assert ramps([(5, MIDDLE), (50, MIDDLE), (50, MIDDLE)], WINDOW) == [0.5, 1, 1]


def test_half_of_a_set_may_be_new_and_no_more() -> None:
    assert ramps([(5, MIDDLE), (50, MIDDLE)], WINDOW) == [0.5, 1]
    assert ramps([(5, MIDDLE), (5, MIDDLE), (50, MIDDLE)], WINDOW) == [1, 1, 1]


def test_nobody_at_all() -> None:
    assert ramps([], WINDOW) == []


def test_weights_are_worked_out_anew_only_while_somebody_warms_up() -> None:
    assert step_s([1e9, 10.9], WINDOW) == 0.5
    assert step_s([1e9, 11.1], WINDOW) == math.inf
    assert step_s([], WINDOW) == math.inf
    assert step_s([0.0], SlowStartConfig()) == math.inf


@pytest.mark.parametrize("window_s", [1e-308, 1e-3, 0.9])
def test_and_not_more_often_than_is_of_any_use(window_s: float) -> None:
    assert step_s([0.0], SlowStartConfig(window_s=window_s)) == LEAST_STEP_S
