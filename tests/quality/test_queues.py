"""The simulated servers against queueing theory, with 99.9 % confidence over runs with different seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from itertools import accumulate

import pytest

from grpclb_core.policies import Random, RoundRobin
from grpclb_core.quality import Scenario, figures_of, load_scenario, simulate

SEEDS = range(1, 11)
STUDENT_999_9 = 4.781  # two-sided 99.9 % quantile of Student's t for the 9 degrees of freedom of ten seeds
MEAN_S = 0.01


def mean_latency_s(scenario: Scenario, seed: int) -> float:
    trace = simulate(scenario, RoundRobin(), seed)
    rows = trace.rows(int(scenario.warm_up_s * 1e9), int(scenario.seconds * 1e9))
    return statistics.fmean(trace.latency_ns[rows.start : rows.stop]) / 1e9


def interval(values: list[float]) -> tuple[float, float]:
    margin = STUDENT_999_9 * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.fmean(values) - margin, statistics.fmean(values) + margin


def erlang_c(servers: int, offered: float) -> float:
    """Return the probability that a call has to wait in M/M/c."""
    terms = list(accumulate(range(1, servers + 1), lambda term, k: term * offered / k, initial=1.0))
    last = terms[-1] * servers / (servers - offered)
    return last / (sum(terms[:-1]) + last)


@pytest.mark.parametrize(("slots", "load", "seconds"), [(1, 0.5, 100), (1, 0.8, 200), (8, 0.9, 40)])
def test_mean_latency_of_exponential_service(
    scenario: Callable[..., Scenario], slots: int, load: float, seconds: float
) -> None:
    service = {"type": "exponential", "mean_s": MEAN_S}
    queue = scenario(
        servers=[{"slots": slots, "service": service}], load=[{"of_capacity": load}], seconds=seconds, warm_up_s=5
    )
    found = [mean_latency_s(queue, seed) for seed in SEEDS]
    low, high = interval(found)
    expected = MEAN_S + erlang_c(slots, load * slots) * MEAN_S / (slots * (1 - load))
    assert low <= expected <= high
    assert high - low < 0.25 * expected  # so the claim says something


@pytest.mark.parametrize(
    ("service", "second_moment"),
    [
        ({"type": "constant", "mean_s": MEAN_S}, MEAN_S**2),
        ({"type": "uniform", "mean_s": MEAN_S}, MEAN_S**2 * 4 / 3),
        ({"type": "lognormal", "mean_s": MEAN_S, "sigma": 0.5}, MEAN_S**2 * math.exp(0.25)),
        (
            {"type": "mix", "parts": [
                {"weight": 9, "service": {"type": "constant", "mean_s": MEAN_S / 2}},
                {"weight": 1, "service": {"type": "constant", "mean_s": 5.5 * MEAN_S}},
            ]},
            MEAN_S**2 * (0.9 * 0.25 + 0.1 * 30.25),
        ),
    ],
    ids=["constant", "uniform", "lognormal", "mix"],
)  # fmt: skip
def test_mean_latency_of_any_service(
    scenario: Callable[..., Scenario], service: dict[str, object], second_moment: float
) -> None:
    """Pollaczek and Khinchine: waiting is arrivals x second moment / 2 (1 - load)."""
    load = 0.6
    queue = scenario(servers=[{"slots": 1, "service": service}], load=[{"of_capacity": load}], seconds=100, warm_up_s=5)
    low, high = interval([mean_latency_s(queue, seed) for seed in SEEDS])
    expected = MEAN_S + load / MEAN_S * second_moment / (2 * (1 - load))
    assert low <= expected <= high
    assert high - low < 0.25 * expected


def test_normal_service_keeps_its_mean(scenario: Callable[..., Scenario]) -> None:
    many = scenario(
        servers=[{"slots": 1000, "service": {"type": "normal", "mean_s": MEAN_S}}], load=[{"calls_per_s": 2000}]
    )
    low, high = interval([mean_latency_s(many, seed) for seed in SEEDS])
    assert low <= MEAN_S <= high
    assert high - low < 0.05 * MEAN_S


def test_random_picks_split_the_arrivals(scenario: Callable[..., Scenario]) -> None:
    """Poisson arrivals that are split at random are Poisson again: each of four servers is M/M/1 by itself."""
    four = scenario(
        servers=[{"count": 4, "slots": 1, "service": {"type": "exponential", "mean_s": MEAN_S}}],
        load=[{"of_capacity": 0.7}], seconds=60, warm_up_s=5,
    )  # fmt: skip
    p99 = [figures_of(simulate(four, Random(), seed), four).p99_ms for seed in SEEDS]
    low, high = interval(p99)
    assert low <= math.log(100) * 1e3 * MEAN_S / (1 - 0.7) <= high


def test_what_tower_published() -> None:
    """The figures of tower's pull request 76, from a run of 50 000 calls in real time: 906 and 988, 98 and 857 ms."""
    from grpclb_core.policies import LeastRequest

    mix = load_scenario("tower-mix")
    turns = figures_of(simulate(mix, RoundRobin(), 1), mix)
    assert turns.p99_ms == pytest.approx(906, rel=0.03)
    assert turns.p999_ms == pytest.approx(988, rel=0.03)
    least = figures_of(simulate(mix, LeastRequest(), 1), mix)
    assert least.p99_ms == pytest.approx(98, rel=0.03)
    assert least.p999_ms == pytest.approx(857, rel=0.1)
