"""Turns by weight: shares that are exact and even, and no weight that makes a pick long.

Shares are not drawn, so they are held to counts and not to a confidence; what is drawn is where turns begin.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections import Counter
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grpclb_core.native import Picker, RoundRobinPicker, Slot, StridePicker, View
from grpclb_core.native.stride import LEAST_OF_MEAN, MOST_OF_MEAN
from support.fleet import CHI_SQUARE_999, START, chi_square, dropped_picks, new_slots, only

# Utilization .1, .2, .4 and .8 at the same rate of calls: 53.3, 26.7, 13.3 and 6.7 %.
WEIGHTS = [10.0, 5.0, 2.5, 1.25]
SHARES = [8 / 15, 4 / 15, 2 / 15, 1 / 15]


def picker(weights: list[float] | None, shares: list[float] | None = None, seed: int = 1) -> StridePicker:
    """Choose among as many endpoints as there are weights; `shares` are those of the view."""
    count = len(weights if weights is not None else shares or ())
    return StridePicker(View(new_slots(count), shares), weights, seed=seed)


def order(chosen: Picker, picks: int) -> list[int]:
    """Return who is picked, in order."""
    position = {slot: index for index, slot in enumerate(chosen.view.slots)}
    found = []
    for _ in range(picks):
        found.append(position[chosen.pick_at(START).slot])
    return found


def farthest(found: list[int], shares: list[float]) -> float:
    """Return by how many picks any endpoint is ever ahead of, or behind, its share."""
    total = math.fsum(shares)
    counts = [0] * len(shares)
    most = 0.0
    for picks, index in enumerate(found, 1):
        counts[index] += 1
        most = max(most, *(abs(count - picks * share / total) for count, share in zip(counts, shares, strict=True)))
    return most


def parts_of(counts: list[int]) -> list[float]:
    return [count / sum(counts) for count in counts]


class TestShares:
    @pytest.mark.parametrize("seed", range(5))
    def test_weights_of_reports(self, seed: int) -> None:
        counts = dropped_picks(picker(WEIGHTS, seed=seed), 2_000)
        assert parts_of(counts) == pytest.approx(SHARES, abs=0.001)

    @pytest.mark.parametrize("seed", range(5))
    def test_weights_of_the_view(self, seed: int) -> None:
        counts = dropped_picks(picker(None, [0.5, 0.25, 0.125, 0.0625], seed), 2_000)
        assert parts_of(counts) == pytest.approx(SHARES, abs=0.001)

    def test_both_multiply(self) -> None:
        counts = dropped_picks(picker([2.0, 1.0, 1.0, 0.5], [5.0, 5.0, 2.5, 2.5]), 2_000)
        assert parts_of(counts) == pytest.approx(SHARES, abs=0.001)

    def test_nobody_is_ever_two_picks_from_its_share(self) -> None:
        for seed in range(20):
            assert farthest(order(picker(WEIGHTS, seed=seed), 500), SHARES) < 2

    def test_equal_weights_are_plain_turns(self) -> None:
        found = order(picker([3.0] * 7), 700)
        assert found[:7] * 100 == found
        assert sorted(found[:7]) == list(range(7))

    def test_one_endpoint_has_every_turn(self) -> None:
        assert order(picker([0.25]), 10) == [0] * 10

    @settings(derandomize=True, database=None, max_examples=100)
    @given(
        shares=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=12),
        seed=st.integers(0, 2**64 - 1),
    )
    def test_any_weights(self, shares: list[float], seed: int) -> None:
        found = order(picker(None, shares, seed), 600)
        assert farthest(found, shares) < 5

    def test_as_even_as_the_scheduler_of_grpc(self) -> None:
        for count in (5, 20, 60):
            rng = random.Random(count)
            ours, theirs = 0.0, 0.0
            for seed in range(8):
                shares = [rng.lognormvariate(0, 0.7) for _ in range(count)]
                ours += farthest(order(picker(None, shares, seed), count * 10), shares)
                theirs += farthest(as_grpc_has_it(shares, count * 10, rng.randrange(2**31)), shares)
            assert ours < 1.25 * theirs

    def test_the_first_pick_is_by_weight_too(self) -> None:
        """A client that makes one call between two rebuilds has the shares all the same."""
        view = View(new_slots(4))
        position = {slot: index for index, slot in enumerate(view.slots)}
        firsts = Counter(position[StridePicker(view, WEIGHTS, seed=seed).pick_at(START).slot] for seed in range(20_000))
        assert chi_square([firsts[index] for index in range(4)], SHARES) < CHI_SQUARE_999[3]


def as_grpc_has_it(shares: list[float], picks: int, sequence: int) -> list[int]:
    """C-core's static_stride_scheduler.cc: 16 bits, one turn each, neighbours half a round apart."""
    weights = [round(share / max(shares) * 65535) for share in shares]
    found: list[int] = []
    while len(found) < picks:
        generation, index = divmod(sequence, len(weights))
        sequence += 1
        if (weights[index] * generation + index * 32767) % 65535 >= 65535 - weights[index]:
            found.append(index)
    return found


class TestReportedWeights:
    def test_the_unknown_get_the_mean_of_the_known(self) -> None:
        counts = dropped_picks(picker([3.0, 0.0, 1.0, 0.0]), 4_000)
        assert parts_of(counts) == pytest.approx([0.375, 0.25, 0.125, 0.25], abs=0.001)

    def test_they_are_cut_to_ten_times_the_mean(self) -> None:
        weights = [1e6] + [1.0] * 99
        mean = sum(weights) / 100
        heavy = dropped_picks(picker(weights), 20_000)[0] / 20_000
        assert heavy == pytest.approx(
            MOST_OF_MEAN * mean / (MOST_OF_MEAN * mean + 99 * LEAST_OF_MEAN * mean), abs=0.001
        )

    def test_they_are_cut_to_a_hundredth_of_the_mean(self) -> None:
        counts = dropped_picks(picker([1.0, 1.0, 1.0, 1e-12]), 40_000)
        assert counts[3] / counts[0] == pytest.approx(LEAST_OF_MEAN * 0.75, rel=0.02)

    def test_all_unknown_is_as_if_nobody_had_reported(self) -> None:
        assert parts_of(dropped_picks(picker([0.0, 0.0], [1.0, 3.0]), 4_000)) == pytest.approx([0.25, 0.75], abs=0.001)

    @pytest.mark.parametrize("scale", [5e-324, 1e-300, 1e307])
    def test_only_ratios_count(self, scale: float) -> None:
        counts = dropped_picks(picker([8 * scale, 4 * scale, 2 * scale, scale]), 2_000)
        assert parts_of(counts) == pytest.approx(SHARES, abs=0.001)

    def test_sums_that_are_infinite(self) -> None:
        assert parts_of(dropped_picks(picker([1.7e308] * 3), 300)) == pytest.approx([1 / 3] * 3, abs=0.01)

    @pytest.mark.parametrize("weight", [-1.0, -5e-324, math.inf, -math.inf, math.nan])
    def test_one_that_is_not_usable(self, weight: float) -> None:
        with pytest.raises(ValueError, match=f"weight {weight!r} is not usable; use 0 or more"):
            picker([1.0, weight])

    @pytest.mark.parametrize("count", [0, 1, 3])
    def test_not_as_many_as_endpoints(self, count: int) -> None:
        with pytest.raises(ValueError, match=f"2 endpoints need as many weights; got {count}"):
            StridePicker(View(new_slots(2)), [1.0] * count)

    @pytest.mark.parametrize("weights", [["a"], [None], 3])
    def test_no_numbers_at_all(self, weights: object) -> None:
        with pytest.raises(TypeError):
            StridePicker(View(new_slots(1)), weights)  # type: ignore[arg-type]


class TestWeightsOfTheView:
    def test_next_to_nothing_stays_next_to_nothing(self) -> None:
        """As the weight of a zone that is to get no calls, times ten thousand endpoints."""
        counts = dropped_picks(picker(None, [1.0] + [1e-9] * 9_999), 50_000)
        assert sum(counts[1:]) <= 2  # 0.5 are due

    def test_a_part_of_a_thousandth_is_had(self) -> None:
        """16 bits would make a thousandth, split among 1000, nothing at all, or ten times as much."""
        counts = dropped_picks(picker(None, [999.0] + [1e-3] * 1_000), 200_000)
        assert sum(counts[1:]) == pytest.approx(200, abs=20)

    @pytest.mark.parametrize("heavy", ["first", "middle", "last"])
    def test_one_as_heavy_as_all_the_others(self, heavy: str) -> None:
        count = 1_001
        place = {"first": 0, "middle": 500, "last": 1_000}[heavy]
        shares = [1.0] * count
        shares[place] = 1_000.0
        found = order(picker(None, shares), 4_000)
        assert found.count(place) == pytest.approx(2_000, abs=4)
        longest = max(len(run) for run in "".join("x" if index == place else " " for index in found).split())
        assert longest <= 3  # its turns are spread over the round

    def test_a_pick_takes_a_few_steps_whatever_the_weights(self) -> None:
        """Passing over everyone who weighs nothing would take 10^5 steps a pick: minutes, and not milliseconds."""
        count = 100_000
        chosen = picker(None, [float(count)] + [1.0] * count)
        began_s = time.monotonic()
        dropped_picks(chosen, 50_000)
        assert time.monotonic() - began_s < 5

    @settings(derandomize=True, database=None, max_examples=200)
    @given(
        shares=st.lists(st.one_of(st.floats(5e-324, 1e300), st.sampled_from([1e-9, 1.0, 1e9])), min_size=1, max_size=9),
        reported=st.lists(st.one_of(st.floats(0, 1.7e308), st.just(0.0)), min_size=9, max_size=9),
        seed=st.integers(0, 2**64 - 1),
    )
    def test_every_pick_ends(self, shares: list[float], reported: list[float], seed: int) -> None:
        chosen = StridePicker(View(new_slots(len(shares)), shares), reported[: len(shares)], seed=seed)
        assert sum(dropped_picks(chosen, 50)) == 50


class TestAsAPicker:
    def test_seeds_make_turns_repeatable(self) -> None:
        assert order(picker(WEIGHTS, seed=5), 50) == order(picker(WEIGHTS, seed=5), 50)
        assert len({tuple(order(picker(WEIGHTS, seed=seed), 50)) for seed in range(20)}) > 10

    def test_without_a_seed_each_begins_elsewhere(self) -> None:
        view = View(new_slots(50))
        assert len({StridePicker(view, [1.0, 2.0] * 25).pick_at(START).slot for _ in range(30)}) > 5

    @pytest.mark.parametrize("decay_s", [0, -1, math.nan])
    def test_the_decay_time_is_above_0(self, decay_s: float) -> None:
        with pytest.raises(ValueError, match="decay_s"):
            StridePicker(View(new_slots(2)), decay_s=decay_s)

    def test_it_does_not_change_once_made(self) -> None:
        chosen = picker(WEIGHTS)
        with pytest.raises(ValueError, match="make another one"):
            chosen.__init__(chosen.view, [1.0] * 4)  # type: ignore[misc]
        assert parts_of(dropped_picks(chosen, 2_000)) == pytest.approx(SHARES, abs=0.001)

    def test_one_that_was_not_made_whole(self) -> None:
        with pytest.raises(ValueError, match="not usable"):
            StridePicker(View(new_slots(2)), [1.0, math.nan])  # and nothing is freed that was not there

    def test_who_is_on_trial_has_one_call_at_a_time(self) -> None:
        slots = new_slots(3)
        slots[0].start_trial_at(START)
        held = only(slots[0]).pick_at(START)
        counts = dropped_picks(StridePicker(View(slots, [100.0, 1.0, 1.0]), seed=1), 100)
        assert counts[0] == 0
        assert held.is_open

    def test_picks_without_the_gil_are_as_many_as_were_made(self, probe: ModuleType) -> None:
        chosen = picker(WEIGHTS)
        threads = [threading.Thread(target=probe.work, args=(chosen, 30_000, 4)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        picks = [slot.picks for slot in chosen.view.slots]
        assert sum(picks) == 120_000
        assert parts_of(picks) == pytest.approx(SHARES, abs=0.001)


class TestEvenViews:
    def test_a_view_tells_whether_all_weigh_the_same(self) -> None:
        assert View(new_slots(1)).is_even
        assert View(new_slots(3)).is_even
        assert View(new_slots(3), [2.0] * 3).is_even
        assert not View(new_slots(3), [2.0, 2.0, 2.5]).is_even

    def test_there_plain_turns_do(self) -> None:
        slots: list[Slot] = new_slots(3)
        assert sorted(order(RoundRobinPicker(View(slots), seed=1), 3)) == [0, 1, 2]
