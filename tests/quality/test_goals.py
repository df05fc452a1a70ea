"""What is to be reached, on the scenarios that take a second; the others are for `grpclb bench quality --check`.

Seeds are fixed, so that each of these passes always or never.
"""

from __future__ import annotations

import pytest

from grpclb_core.cli.measure.quality import missed
from grpclb_core.quality import Estimate, Result, compare, load_scenario, scenario_names
from grpclb_core.quality.figures import Figures

QUICK = [
    "one-of-four-fails",
    "one-of-four-hangs",
    "one-of-four-slow",
    "recovery-1-per-second",
    "recovery-100-per-second",
    "two-of-four-slow",
]
SEEDS = range(1, 21)


@pytest.mark.parametrize("name", QUICK)
def test_the_default_policy_keeps_the_goals(name: str) -> None:
    scenario = load_scenario(name)
    assert scenario.goals
    assert missed([compare(name, scenario, "p2c_ewma", SEEDS)]) == []


@pytest.mark.parametrize("name", ["one-of-four-fails", "two-of-four-slow"])
def test_the_bare_policy_misses_them(name: str) -> None:
    bare = "p2c_ewma:failure_penalty_s=0,unavailable_penalty_s=0,rate_limited_penalty_s=0,widen_factor=0"
    result = compare(name, load_scenario(name), bare, SEEDS)
    assert missed([Result(scenario=name, policy="p2c_ewma", seeds=result.seeds, figures=result.figures)])


def of_prequal(policy: str, p99_ms: float) -> Result:
    estimate = Estimate(p99_ms, 1.0, p99_ms, p99_ms)
    return Result(scenario="prequal-at-0.9", policy=policy, seeds=(1,), figures={"p99_ms": estimate})


def test_a_goal_may_be_another_policy() -> None:
    ours, others = of_prequal("prequal", 300.0), of_prequal("p2c_ewma", 310.0)
    assert missed([ours, others]) == []
    assert missed([ours]) == []  # nothing to compare it with
    (line,) = missed([of_prequal("prequal", 320.0), others])
    assert line == "prequal-at-0.9: p99_ms of prequal is 320, and should be 310 at most"


def test_a_figure_that_there_is_not_is_a_goal_missed() -> None:
    assert missed([of_prequal("prequal", float("nan")), of_prequal("p2c_ewma", 310.0)])


def test_goals_name_figures_that_there_are() -> None:
    figures = {*Figures.__struct_fields__, "p99_over_healthy"}
    for name in scenario_names():
        assert {goal.figure for goal in load_scenario(name).goals} <= figures
