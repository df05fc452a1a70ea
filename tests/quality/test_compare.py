"""Estimates over seeds, and policies with options."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from grpclb_core.errors import ConfigError
from grpclb_core.policies import P2cEwma, RoundRobin
from grpclb_core.quality import BARE, Scenario, compare, estimate, parse_variant
from grpclb_core.quality.compare import student

MakeScenario = Callable[..., Scenario]


class TestEstimates:
    def test_of_several_runs(self) -> None:
        found = estimate([1.0, 2.0, 3.0, 4.0])
        # Deviation 1.29099, quantile 3.182 for three degrees of freedom, over the root of four.
        assert (found.mean, found.margin) == (2.5, pytest.approx(3.182 * 1.29099 / 2, rel=1e-4))
        assert (found.least, found.most) == (1.0, 4.0)

    def test_of_one_run(self) -> None:
        assert math.isnan(estimate([3.0]).margin)

    def test_of_what_never_happened(self) -> None:
        assert estimate([1.0, math.inf]).mean == math.inf
        assert math.isnan(estimate([1.0, math.nan]).mean)

    @pytest.mark.parametrize(("freedom", "value"), [(1, 12.706), (30, 2.042), (40, 2.021), (120, 1.980)])
    def test_students_quantiles(self, freedom: int, value: float) -> None:
        assert student(freedom) == pytest.approx(value, abs=0.002)


class TestCompare:
    def test_runs_and_twins(self, scenario: MakeScenario) -> None:
        slow = scenario(seconds=20, faults=[{"type": "slow", "servers": [0], "from_s": 1, "factor": 20}])
        result = compare("mine", slow, "round_robin", (1, 2, 3))
        assert (result.scenario, result.policy, result.seeds) == ("mine", "round_robin", (1, 2, 3))
        assert len(result.runs) == 3
        assert result.figures["p99_ms"].mean == pytest.approx(sum(run.p99_ms for run in result.runs) / 3)
        assert result.figures["p99_over_healthy"].mean > 5

    def test_without_faults_there_is_no_twin(self, scenario: MakeScenario) -> None:
        result = compare("mine", scenario(seconds=2), "round_robin", (1, 2))
        assert math.isnan(result.figures["p99_over_healthy"].mean)
        assert result.steps == ()

    def test_steps(self, scenario: MakeScenario) -> None:
        load = [{"calls_per_s": 100}, {"from_s": 1, "calls_per_s": 200}]
        first, second = compare("mine", scenario(seconds=2, load=load), "round_robin", (1, 2)).steps
        assert (first["calls_per_s"].mean, second["calls_per_s"].mean) == (100, 200)
        assert second["calls"].mean == pytest.approx(200, rel=0.3)

    def test_the_runs_may_be_made_elsewhere(self, scenario: MakeScenario) -> None:
        short = scenario(seconds=2)
        with ThreadPoolExecutor(2) as pool:
            assert (
                compare("mine", short, "p2c_ewma", (1, 2), pool.map).runs
                == compare("mine", short, "p2c_ewma", (1, 2)).runs
            )


class TestVariants:
    def test_a_name_alone(self) -> None:
        assert parse_variant("round_robin") == (RoundRobin(), BARE)
        assert not BARE.outliers.accrues
        assert BARE.slow_start.window_s == 0

    def test_options_of_the_policy(self) -> None:
        assert parse_variant("p2c_ewma:decay_s=5").policy == P2cEwma(decay_s=5)
        assert parse_variant("p2c_ewma:").policy == P2cEwma()

    def test_options_of_the_balancer(self) -> None:
        policy, config = parse_variant("p2c_ewma:slow_start.window_s=10,decay_s=5,outliers.max_ejected_share=0.3")
        assert (config.slow_start.window_s, config.outliers.max_ejected_share) == (10, 0.3)
        assert policy == P2cEwma(decay_s=5)
        assert config.outliers.accrues

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "policy '' is unknown; known are .*p2c_ewma"),
            ("p2c", "policy 'p2c' is unknown"),
            ("pick_first", "nothing to simulate"),
            ("round_robin:fast", "'fast' is no option; write name=value"),
            ("round_robin:fast=1", "unknown field `fast`"),
            ("p2c_ewma:decay_s=soon", "decay_s"),
            ("p2c_ewma:decay_s=-1", "> 0.* `\\$.decay_s`"),
            ("p2c_ewma:decay_s=nan", "decay_s|nan"),
            ("p2c_ewma:dns.timeout_s=1", "'dns' is unknown; known are outliers, slow_start"),
            ("p2c_ewma:outliers.max_ejected_share=2", "<= 1"),
            ("p2c_ewma:outliers.first_pause_s=9,outliers.max_pause_s=1", "lower it"),
        ],
    )
    def test_bad_input(self, text: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            parse_variant(text)
