"""What a weight is worth: how often an endpoint is drawn, and what a call in flight counts for there.

Statistical claims are made with 99.9 % confidence and fixed seeds; see fleet.py.
"""

from __future__ import annotations

import math
import random
from types import ModuleType

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from grpclb_core.native import LeastRequestPicker, P2cEwmaPicker, Picker, RandomPicker, RoundRobinPicker, Slot, View
from support.fleet import (
    CHI_SQUARE_999,
    MILLISECOND,
    SECOND,
    START,
    answer,
    chi_square,
    closed_loop,
    dropped_picks,
    hold,
    is_share,
    measured_fleet,
    new_slots,
)

BY_WEIGHT = [P2cEwmaPicker, LeastRequestPicker, RandomPicker]
BY_LOAD = [P2cEwmaPicker, LeastRequestPicker]
SEEDS = [1, 2, 3]

# Columns are kept in 32 bits of odds.
WHOLE = 2**32

# Each column is cut to whole parts, and what is cut off goes to its other owner: with as many columns as members, one
# member may gain or lose a part of 2^32 at most. Sums of doubles add next to nothing to that.
PRECISION = 1 / WHOLE + 1e-12

many_weights = st.lists(
    st.one_of(st.floats(1e-9, 1e9), st.floats(0.1, 10), st.sampled_from([1.0, 3.0, 1e-9, 1e9])), min_size=2, max_size=60
)


def ten_ms(_: int) -> int:
    return 10 * MILLISECOND


def odds(columns: list[tuple[int, int]]) -> list[float]:
    """Return how likely an alias table makes each of its members."""
    parts = [0] * len(columns)
    for place, (keep, other) in enumerate(columns):
        parts[place] += keep
        parts[other] += WHOLE - keep
    assert sum(parts) == WHOLE * len(columns)
    return [part / (WHOLE * len(columns)) for part in parts]


def drawn(columns: list[tuple[int, int]], bits: int) -> int:
    """Return whom a draw of 64 bits falls on: the high half says which column, the low half which of its owners."""
    high, low = divmod(bits, WHOLE)
    place = high * len(columns) // WHOLE
    keep, other = columns[place]
    return place if low < keep else other


def largest_error(probe: ModuleType, weights: list[float]) -> float:
    columns = probe.columns(View(new_slots(len(weights)), weights))
    total = math.fsum(weights)
    return max(abs(chance - weight / total) for chance, weight in zip(odds(columns), weights, strict=True))


class TestAliasTable:
    """Vose's table: as many equal columns as members, each shared by two at most."""

    @settings(derandomize=True, database=None, max_examples=300)
    @given(weights=many_weights)
    def test_its_odds_are_the_weights(self, probe: ModuleType, weights: list[float]) -> None:
        assume(min(weights) < max(weights))
        assert largest_error(probe, weights) <= PRECISION

    @settings(derandomize=True, database=None, max_examples=100)
    @given(weights=many_weights, seed=st.integers(0, 2**64 - 1))
    def test_picks_are_what_it_says(self, probe: ModuleType, weights: list[float], seed: int) -> None:
        assume(min(weights) < max(weights))
        slots = new_slots(len(weights))
        view = View(slots, weights)
        picker = RandomPicker(view, seed=seed)
        columns = probe.columns(view)
        signed = (seed + 2**63) % 2**64 - 2**63
        for bits in probe.draws(50, signed):
            assert picker.pick_at(START).slot is slots[drawn(columns, bits)]

    @pytest.mark.parametrize("shape", ["uniform", "zipf", "one giant", "two kinds", "a step off"])
    def test_ten_thousand_weights(self, probe: ModuleType, shape: str) -> None:
        rng = random.Random(1)
        weights = {
            "uniform": [rng.random() + 1e-9 for _ in range(10_000)],
            "zipf": [1 / rank for rank in range(1, 10_001)],
            "one giant": [1e6] + [1.0] * 9_999,
            "two kinds": [1.0, 1e-9] * 5_000,
            "a step off": [1.0] * 9_999 + [math.nextafter(1.0, 2.0)],
        }[shape]
        assert largest_error(probe, weights) <= PRECISION

    def test_ten_thousand_weights_are_picked_so(self) -> None:
        rng = random.Random(2)
        weights = [rng.uniform(0.5, 2) for _ in range(10_000)]
        picks = dropped_picks(RandomPicker(View(new_slots(10_000), weights), seed=2), 100_000)
        # Twenty groups of five hundred, as a test of single ones would need millions of picks.
        groups = range(0, 10_000, 500)
        counts = [sum(picks[first : first + 500]) for first in groups]
        assert chi_square(counts, [sum(weights[first : first + 500]) for first in groups]) < CHI_SQUARE_999[19]

    def test_a_billionth_beside_one(self, probe: ModuleType) -> None:
        light, heavy = odds(probe.columns(View(new_slots(2), [1e-9, 1.0])))
        assert light == pytest.approx(1e-9, abs=1 / WHOLE)
        assert light > 0
        assert heavy == 1 - light

    @pytest.mark.parametrize("weights", [[5e-324, 1.0], [1e300, 1e-300], [1.0, 1e308]])
    def test_what_is_too_little_to_count_gets_nothing(self, weights: list[float]) -> None:
        light = weights.index(min(weights))
        for picker in BY_WEIGHT:
            assert dropped_picks(picker(View(new_slots(2), weights), seed=1), 1_000)[light] == 0

    @pytest.mark.parametrize("weight", [1.0, 0.1, 1e300, 5e-324])
    def test_equal_weights_need_none(self, probe: ModuleType, weight: float) -> None:
        assert probe.columns(View(new_slots(3), [weight] * 3)) == []
        assert probe.columns(View(new_slots(3))) == []


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("weights", [[1, 9], [1, 2, 4], [0.4, 0.3, 0.2, 0.1], [1, 1, 1, 1, 1e-3], list(range(1, 21))])
@pytest.mark.parametrize("picker", BY_WEIGHT)
class TestWhereCostsTie:
    """The first of the draws is taken, and that is anyone, with the odds of its weight."""

    def test_shares_are_as_the_weights(self, picker: type[Picker], weights: list[float], seed: int) -> None:
        slots = measured_fleet(len(weights))
        picks = dropped_picks(picker(View(slots, weights), seed=seed), 20_000)
        assert chi_square(picks, weights) < CHI_SQUARE_999[len(weights) - 1]

    def test_so_they_are_among_newcomers(self, picker: type[Picker], weights: list[float], seed: int) -> None:
        picks = dropped_picks(picker(View(new_slots(len(weights)), weights), seed=seed + 10), 20_000)
        assert chi_square(picks, weights) < CHI_SQUARE_999[len(weights) - 1]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("picker", [LeastRequestPicker, RandomPicker])
def test_one_call_at_a_time_goes_by_weight(picker: type[Picker], seed: int) -> None:
    picks = closed_loop(picker(View(new_slots(3), [1, 2, 4]), seed=seed), ten_ms, 20_000, 1)
    assert chi_square(picks, [1, 2, 4]) < CHI_SQUARE_999[2]


@pytest.mark.parametrize("concurrency", [2, 16, 64])
def test_random_goes_by_weight_whatever_the_load(concurrency: int) -> None:
    slots = new_slots(3)
    held = hold(slots[0], 50)
    picks = closed_loop(RandomPicker(View(slots, [1, 2, 4]), seed=concurrency), ten_ms, 20_000, concurrency)
    assert chi_square(picks, [1, 2, 4]) < CHI_SQUARE_999[2]
    assert len(held) == 50


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("weights", [[1, 2, 4], [1, 9], [1] * 9 + [11]])
@pytest.mark.parametrize("picker", BY_LOAD)
def test_under_load_shares_are_as_the_weights(picker: type[Picker], weights: list[float], seed: int) -> None:
    picks = closed_loop(picker(View(new_slots(len(weights)), weights), seed=seed), ten_ms, 50_000, 128)
    for share, weight in zip(picks, weights, strict=True):
        assert share == pytest.approx(50_000 * weight / sum(weights), rel=0.05)


@pytest.mark.parametrize("picker", BY_LOAD)
def test_a_burst_leaves_as_many_in_flight_as_the_weights_say(picker: type[Picker]) -> None:
    slots = measured_fleet(3)
    balanced = picker(View(slots, [1, 2, 4]), seed=1)
    burst = [balanced.pick_at(START) for _ in range(700)]
    for slot, exact in zip(slots, (100, 200, 400), strict=True):
        assert abs(slot.in_flight - exact) <= 5
    assert sum(slot.in_flight for slot in slots) == len(burst)


@pytest.mark.parametrize("choices", [2, 3, 10])
def test_more_choices_of_least_request_change_nothing_where_loads_tie(choices: int) -> None:
    picker = LeastRequestPicker(View(new_slots(5), [1, 2, 3, 4, 5]), choice_count=choices, seed=choices)
    assert chi_square(dropped_picks(picker, 20_000), [1, 2, 3, 4, 5]) < CHI_SQUARE_999[4]


@pytest.mark.parametrize("picker", BY_LOAD)
def test_load_counts_for_less_where_there_is_more_weight(picker: type[Picker]) -> None:
    # One call in flight beside three: the other has less for its weight if that is above three.
    slots = measured_fleet(2)
    held = [hold(slots[0], 1), hold(slots[1], 3)]
    for weight, better in ((2.9, 0), (3.1, 1)):
        weights = [1, weight]
        # The worse one is taken only where both draws fall on it.
        chance = 1 - (weights[1 - better] / sum(weights)) ** 2
        picks = dropped_picks(picker(View(slots, weights), seed=4), 10_000)
        assert is_share(picks[better], 10_000, chance)
    assert [len(tickets) for tickets in held] == [1, 3]


@given(
    ages_s=st.tuples(*[st.floats(0, 300)] * 2),
    latencies_s=st.tuples(*[st.floats(1e-4, 60)] * 2),
    loads=st.tuples(*[st.integers(0, 20)] * 2),
    weights=st.tuples(*[st.floats(1, 3)] * 2),
    decay_s=st.floats(0.1, 100),
)
def test_cost_is_the_faded_latency_times_one_and_load_over_weight(
    ages_s: tuple[float, float],
    latencies_s: tuple[float, float],
    loads: tuple[int, int],
    weights: tuple[float, float],
    decay_s: float,
) -> None:
    now_ns = START + 300 * SECOND
    slots = new_slots(2)
    for slot, age_s, latency_s in zip(slots, ages_s, latencies_s, strict=True):
        answer(slot, round(latency_s * SECOND), now_ns - round(age_s * SECOND))
    held = [hold(slot, load, now_ns) for slot, load in zip(slots, loads, strict=True)]
    mean = sum(weights) / 2
    costs = [
        slot.latency_ns_at(now_ns, decay_s) * (1 + len(tickets) * mean / weight)
        for slot, tickets, weight in zip(slots, held, weights, strict=True)
    ]
    assume(min(costs) > 0 and max(costs) / min(costs) > 1 + 1e-6)
    picks = dropped_picks(P2cEwmaPicker(View(slots, weights), decay_s=decay_s, seed=1), 400, now_ns)
    cheap = costs.index(min(costs))
    if weights[0] == weights[1]:  # both are drawn each time
        assert picks[cheap] == 400
        return
    # The dearer one is taken where both draws fall on it, and else it would be the other way round. Between the two
    # lie 2 p q of the picks, and half of that is more than seven standard deviations.
    least, most = (weights[place] / sum(weights) for place in (cheap, 1 - cheap))
    assert picks[1 - cheap] / 400 < most**2 + least * most


@pytest.mark.parametrize("unit", [1e-9, 1e9])
@pytest.mark.parametrize("picker", BY_WEIGHT)
def test_only_their_ratio_matters(picker: type[Picker], unit: float) -> None:
    slots = measured_fleet(3)
    held = hold(slots[2], 3)
    plain = dropped_picks(picker(View(slots, [1, 2, 4]), seed=9), 1_000)
    assert dropped_picks(picker(View(slots, [unit, 2 * unit, 4 * unit]), seed=9), 1_000) == plain
    assert len(held) == 3


def test_round_robin_looks_at_no_weight() -> None:
    slots = new_slots(2)
    held = hold(slots[0], 50)
    assert dropped_picks(RoundRobinPicker(View(slots, [1, 9]), seed=5), 10_000) == [5_000, 5_000]
    assert len(held) == 50


@pytest.mark.parametrize("picker", [*BY_WEIGHT, RoundRobinPicker])
def test_a_single_endpoint_gets_everything_at_any_weight(picker: type[Picker]) -> None:
    for weight in (1e-9, 1.0, 1e300):
        assert dropped_picks(picker(View([Slot()], [weight]), seed=1), 100) == [100]


@pytest.mark.parametrize("weights", [[1e308] * 3, [1.7e308, 1.7e308]])
def test_weights_whose_sum_is_no_number_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="add up to more than a number holds; use smaller ones"):
        View(new_slots(len(weights)), weights)


def test_a_view_that_could_not_be_made_is_no_view() -> None:
    view = View.__new__(View)
    with pytest.raises(TypeError):
        view.__init__([Slot(), None])  # type: ignore[misc]
    with pytest.raises(ValueError, match="never made"):
        RandomPicker(view)
