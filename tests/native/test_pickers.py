"""Who is chosen: fair draws, fair shares, and what a slow, silent or new endpoint gets.

Statistical claims are made with 99.9 % confidence and fixed seeds; see fleet.py.
"""

from __future__ import annotations

import itertools
import math
import random
from types import ModuleType
from typing import Any

import pytest

from grpclb_core.native import (
    LeastRequestPicker,
    P2cEwmaPicker,
    Picker,
    RandomPicker,
    RoundRobinPicker,
    Slot,
    View,
)
from grpclb_core.native.picker import FEWEST_CHOICES, MOST_CHOICES
from grpclb_core.types import Outcome
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
    only,
)

PICKERS = [P2cEwmaPicker, LeastRequestPicker, RoundRobinPicker, RandomPicker]
BY_LOAD = [P2cEwmaPicker, LeastRequestPicker]
SEEDS = [1, 2, 3]


def ten_ms(_: int) -> int:
    return 10 * MILLISECOND


def jittered(mean_ns: list[int], seed: int) -> Any:
    """Service times within a fifth of the mean of each endpoint."""
    rng = random.Random(seed)
    return lambda index: int(mean_ns[index] * rng.uniform(0.8, 1.2))


class TestDraws:
    @pytest.mark.parametrize("seed", SEEDS)
    @pytest.mark.parametrize("count", [2, 3, 5, 7])
    def test_every_ordered_pair_is_as_likely_as_any_other(self, probe: ModuleType, count: int, seed: int) -> None:
        pairs = probe.count_pairs(count, 100_000, seed)
        assert [pairs[index][index] for index in range(count)] == [0] * count
        counts = [pairs[first][second] for first, second in itertools.permutations(range(count), 2)]
        assert sum(counts) == 100_000
        assert chi_square(counts) < CHI_SQUARE_999[count * (count - 1) - 1]

    @pytest.mark.parametrize("bound", [3 << 30, 3, 2**32 - 2])
    def test_a_bound_that_does_not_divide_the_range_favours_nobody(self, probe: ModuleType, bound: int) -> None:
        # Scaling 32 bits to 3 * 2^30 indices without rejection would give every third index twice the chance.
        counts = probe.count_below(bound, 3, 100_000, 7)
        assert chi_square(counts) < CHI_SQUARE_999[2]

    def test_a_bound_of_one_leaves_no_choice(self, probe: ModuleType) -> None:
        assert probe.count_below(1, 2, 1_000, 7) == [1_000, 0]

    def test_the_generator_is_wyrand(self, probe: ModuleType) -> None:
        # As published: the tests of a port to Nim have the first numbers of seed 42, those of one to Rust of seed 3.
        assert probe.draws(3, 42) == [12558987674375533620, 16846851108956068306, 14652274819296609082]
        assert probe.draws(1, 3) == [0x03E99A772750DCBE]

    @pytest.mark.parametrize("seed", [0, 1, 2, 3, 4, -1, 2**62])
    def test_draws_in_a_row_know_nothing_of_one_another(self, probe: ModuleType, seed: int) -> None:
        # Least request draws several times for one pick; the seeds are neighbours, and with few bits set.
        assert chi_square(probe.count_runs(200_000, seed)) < CHI_SQUARE_999[63]

    @pytest.mark.parametrize("picker", PICKERS)
    def test_a_seed_makes_them_repeatable(self, picker: type[Picker]) -> None:
        slots = new_slots(10)

        def choices(seed: int | None) -> list[Slot]:
            one = picker(View(slots), seed=seed)
            return [one.pick_at(START).slot for _ in range(40)]

        assert choices(5) == choices(5) == choices(5 + 2**64)
        assert len({tuple(map(id, choices(seed))) for seed in range(20)}) >= 8
        assert len({tuple(map(id, choices(None))) for _ in range(20)}) >= 5

    @pytest.mark.parametrize("seed", [-1, 0, 2**63, 2**64 - 1, -(2**80)])
    @pytest.mark.parametrize("picker", PICKERS)
    def test_any_integer_is_a_seed(self, picker: type[Picker], seed: int) -> None:
        picks = dropped_picks(picker(View(new_slots(3)), seed=seed), 300)
        assert min(picks) > 50


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("concurrency", [1, 64])
@pytest.mark.parametrize("picker", PICKERS)
def test_equal_endpoints_get_equal_shares(picker: type[Picker], concurrency: int, seed: int) -> None:
    picks = closed_loop(picker(View(new_slots(8)), seed=seed), ten_ms, 100_000, concurrency)
    assert sum(picks) == 100_000
    assert chi_square(picks) < CHI_SQUARE_999[7]


@pytest.mark.parametrize("picker", PICKERS)
def test_a_single_endpoint_gets_everything(picker: type[Picker]) -> None:
    assert dropped_picks(picker(View([Slot()]), seed=1), 1_000) == [1_000]


@pytest.mark.parametrize("picker", PICKERS)
def test_a_slot_listed_twice_is_drawn_for_both_places(picker: type[Picker]) -> None:
    one, other = new_slots(2)
    picks = [picker(View([one, other, one]), seed=seed).pick_at(START).slot for seed in range(300)]
    assert {one, other} == set(picks)


class TestTies:
    """Equal cost: the first of the draws, which is anyone."""

    @pytest.mark.parametrize("weights", [None, [2.0] * 5])
    @pytest.mark.parametrize("loads", [0, 3])
    @pytest.mark.parametrize("picker", BY_LOAD)
    def test_they_favour_nobody(self, picker: type[Picker], loads: int, weights: list[float] | None) -> None:
        slots = measured_fleet(5)
        held = [hold(slot, loads) for slot in slots]
        picks = dropped_picks(picker(View(slots, weights), seed=11), 100_000)
        assert chi_square(picks) < CHI_SQUARE_999[4]
        assert len(held) == 5


class TestLoad:
    """Calls in flight decide among endpoints that are equally fast."""

    @pytest.mark.parametrize("count", [2, 5, 10])
    @pytest.mark.parametrize("picker", BY_LOAD)
    def test_an_idle_endpoint_is_taken_whenever_it_is_drawn(self, picker: type[Picker], count: int) -> None:
        for idle in range(count):
            slots = measured_fleet(count)
            held = [hold(slot, 5) for slot in slots if slot is not slots[idle]]
            hits = dropped_picks(picker(View(slots), seed=idle), 100_000)[idle]
            assert is_share(hits, 100_000, 2 / count)
            assert len(held) == count - 1

    @pytest.mark.parametrize("picker", BY_LOAD)
    def test_a_busy_endpoint_is_never_taken_while_another_is_not(self, picker: type[Picker]) -> None:
        slots = measured_fleet(5)
        held = hold(slots[2], 1)
        assert dropped_picks(picker(View(slots), seed=4), 10_000)[2] == 0
        assert len(held) == 1

    @pytest.mark.parametrize("picker", BY_LOAD)
    def test_streams_are_load_too(self, picker: type[Picker]) -> None:
        slots = measured_fleet(2)
        streams = [only(slots[0]).pick_at(START, True) for _ in range(3)]
        assert dropped_picks(picker(View(slots), seed=4), 1_000) == [0, 1_000]
        assert len(streams) == 3

    @pytest.mark.parametrize("seed", SEEDS)
    @pytest.mark.parametrize("picker", BY_LOAD)
    def test_a_burst_on_a_cold_fleet_is_spread(self, picker: type[Picker], seed: int) -> None:
        slots = new_slots(4)
        balanced = picker(View(slots), seed=seed)
        burst = [balanced.pick_at(START) for _ in range(64)]
        loads = [slot.in_flight for slot in slots]
        assert sum(loads) == len(burst)
        assert max(loads) - min(loads) <= 3  # random draws stray by 8 on average

    @pytest.mark.parametrize("seed", SEEDS)
    def test_a_burst_on_a_fleet_long_silent_is_spread(self, seed: int) -> None:
        slots = measured_fleet(4)
        balanced = P2cEwmaPicker(View(slots), seed=seed)
        burst = [balanced.pick_at(START + 86_400 * SECOND) for _ in range(64)]
        loads = [slot.in_flight for slot in slots]
        assert sum(loads) == len(burst)
        assert max(loads) - min(loads) <= 3


class TestSilence:
    @pytest.mark.parametrize("silence_s", [10_000, 100_000_000])
    def test_of_the_long_silent_the_longest_is_tried(self, silence_s: int) -> None:
        slots = measured_fleet(2)
        answer(slots[1], MILLISECOND, START + silence_s * SECOND)
        assert dropped_picks(P2cEwmaPicker(View(slots), seed=1), 16, START + silence_s * SECOND) == [16, 0]


class TestLeastRequest:
    @pytest.mark.parametrize("choices", range(FEWEST_CHOICES, MOST_CHOICES + 1))
    def test_draws_are_distinct_and_as_many_as_asked_for(self, choices: int) -> None:
        # Drawn with replacement, ten of ten would find the one idle endpoint 65 times in a hundred.
        count = 10
        for idle in (0, 4, 9):
            slots = new_slots(count)
            held = [hold(slot, 1) for slot in slots if slot is not slots[idle]]
            picker = LeastRequestPicker(View(slots), choice_count=choices, seed=idle)
            hits = dropped_picks(picker, 10_000)[idle]
            assert is_share(hits, 10_000, choices / count)
            assert len(held) == count - 1

    @pytest.mark.parametrize("count", [2, 3, 5])
    def test_as_many_choices_as_endpoints_always_find_the_least_loaded(self, count: int) -> None:
        for loads in itertools.permutations(range(1, count + 1)):
            slots = new_slots(count)
            held = [hold(slot, load) for slot, load in zip(slots, loads, strict=True)]
            picks = dropped_picks(LeastRequestPicker(View(slots), choice_count=5, seed=3), 50)
            assert picks[loads.index(1)] == 50
            assert len(held) == count

    def test_latency_does_not_matter(self) -> None:
        slots = new_slots(2)
        answer(slots[0], MILLISECOND)
        answer(slots[1], SECOND)
        assert chi_square(dropped_picks(LeastRequestPicker(View(slots), seed=2), 10_000)) < CHI_SQUARE_999[1]

    @pytest.mark.parametrize("choices", [FEWEST_CHOICES - 1, MOST_CHOICES + 1, 0, -1, math.nan])
    def test_other_numbers_of_choices_are_refused(self, choices: float) -> None:
        with pytest.raises(ValueError, match=f"choice_count is {choices!r}; use 2 to 10"):
            LeastRequestPicker(View(new_slots(3)), choice_count=choices)  # type: ignore[arg-type]


class TestRoundRobin:
    def test_each_round_takes_everyone_once_in_the_same_order(self) -> None:
        slots = new_slots(7)
        picker = RoundRobinPicker(View(slots), seed=123)
        rounds = [[slots.index(picker.pick_at(START).slot) for _ in slots] for _ in range(100)]
        first = rounds[0][0]
        assert rounds == [[(first + step) % 7 for step in range(7)]] * 100

    def test_the_start_is_anywhere(self) -> None:
        slots = new_slots(5)
        rng = random.Random(1)
        starts = [0] * 5
        for _ in range(10_000):
            starts[slots.index(RoundRobinPicker(View(slots), seed=rng.getrandbits(64)).pick_at(START).slot)] += 1
        assert chi_square(starts) < CHI_SQUARE_999[4]

    def test_without_a_seed_clients_start_apart(self) -> None:
        slots = new_slots(5)
        assert len({id(RoundRobinPicker(View(slots)).pick_at(START).slot) for _ in range(100)}) == 5

    @pytest.mark.parametrize("picker", [RoundRobinPicker, RandomPicker])
    def test_load_does_not_matter(self, picker: type[Picker]) -> None:
        slots = new_slots(2)
        held = hold(slots[0], 50)
        assert chi_square(dropped_picks(picker(View(slots), seed=5), 10_000)) < CHI_SQUARE_999[1]
        assert len(held) == 50


class TestSlowEndpoints:
    """Power of two choices over peak EWMA sheds whoever answers late."""

    def test_one_slow_answer_is_enough(self) -> None:
        slots = measured_fleet(4)
        answer(slots[0], 100 * MILLISECOND)
        mean_ns = [100 * MILLISECOND] + [10 * MILLISECOND] * 3
        picks = closed_loop(P2cEwmaPicker(View(slots), seed=1), jittered(mean_ns, 1), 1_000, 16)
        assert picks[0] <= 100

    @pytest.mark.parametrize("concurrency", [1, 16, 64])
    def test_an_endpoint_ten_times_slower_gets_next_to_nothing(self, concurrency: int) -> None:
        mean_ns = [100 * MILLISECOND] + [10 * MILLISECOND] * 3
        picks = closed_loop(P2cEwmaPicker(View(new_slots(4)), seed=2), jittered(mean_ns, 2), 100_000, concurrency)
        assert 0 < picks[0] <= 1_000

    def test_under_heavy_load_rates_go_by_the_square_of_the_latency(self) -> None:
        # Calls in flight are rate x latency, costs are latency x calls in flight, and costs level out: half as fast
        # is a quarter of the rate.
        mean_ns = [20 * MILLISECOND, 10 * MILLISECOND]
        slow, fast = closed_loop(P2cEwmaPicker(View(new_slots(2)), seed=3), jittered(mean_ns, 3), 100_000, 200)
        assert slow / fast == pytest.approx(1 / 4, rel=0.05)

    def test_with_hardly_a_call_each_half_as_fast_gets_about_half(self) -> None:
        mean_ns = [20 * MILLISECOND] + [10 * MILLISECOND] * 99
        picks = closed_loop(P2cEwmaPicker(View(new_slots(100)), seed=4), jittered(mean_ns, 4), 100_000, 64)
        assert picks[0] / (sum(picks[1:]) / 99) == pytest.approx(1 / 2, rel=0.3)

    def test_an_endpoint_that_recovered_comes_back(self) -> None:
        slots = measured_fleet(4)
        answer(slots[0], SECOND)
        picker = P2cEwmaPicker(View(slots), seed=5)
        service_ns = jittered([10 * MILLISECOND] * 4, 5)
        shed = closed_loop(picker, service_ns, 8_000, 16)  # five seconds
        assert shed[0] == 0
        # A hundred times slower fades in 10 s x ln 100 = 46 s; then some calls more, and the past is past.
        closed_loop(picker, service_ns, 160_000, 16, START + 5 * SECOND)
        back = closed_loop(picker, service_ns, 10_000, 16, START + 105 * SECOND)
        assert back[0] == pytest.approx(2_500, rel=0.1)

    def test_a_failing_endpoint_is_not_thought_faster_than_it_was(self) -> None:
        slots = measured_fleet(2)
        for _ in range(100):
            answer(slots[0], MILLISECOND, START, Outcome.FAILURE)
        assert chi_square(dropped_picks(P2cEwmaPicker(View(slots), seed=6), 10_000)) < CHI_SQUARE_999[1]

    def test_calls_given_up_after_long_are_held_against_an_endpoint(self) -> None:
        slots = measured_fleet(2)
        answer(slots[0], SECOND, START, Outcome.CANCELLED)
        assert dropped_picks(P2cEwmaPicker(View(slots), seed=6), 1_000) == [0, 1_000]


class TestNewcomers:
    """An endpoint that has not answered yet gets one call, and then none until it does."""

    @pytest.mark.parametrize("seed", SEEDS)
    @pytest.mark.parametrize("concurrency", [1, 64])
    def test_a_silent_one_gets_one_probe_in_a_hundred_thousand(self, concurrency: int, seed: int) -> None:
        picker = P2cEwmaPicker(View([Slot(), *measured_fleet(9)]), seed=seed)
        picks = closed_loop(picker, lambda index: None if index == 0 else 10 * MILLISECOND, 100_000, concurrency)
        assert picks[0] == 1

    @pytest.mark.parametrize("seed", SEEDS)
    def test_a_silent_one_gets_no_more_where_all_are_new(self, seed: int) -> None:
        picker = P2cEwmaPicker(View(new_slots(10)), seed=seed)
        picks = closed_loop(picker, lambda index: None if index == 0 else 10 * MILLISECOND, 100_000, 1)
        assert picks[0] == 1

    @pytest.mark.parametrize("seed", SEEDS)
    def test_a_burst_sends_it_one_probe(self, seed: int) -> None:
        slots = [*measured_fleet(4), Slot()]
        picker = P2cEwmaPicker(View(slots), seed=seed)
        burst = [picker.pick_at(START) for _ in range(64)]
        assert slots[-1].in_flight == 1
        assert sum(slot.in_flight for slot in slots) == len(burst)

    def test_it_is_one_of_the_others_from_its_first_answer_on(self) -> None:
        slots = [*measured_fleet(4), Slot()]
        picker = P2cEwmaPicker(View(slots), seed=1)
        before = closed_loop(picker, lambda index: None if index == 4 else 10 * MILLISECOND, 10_000, 16)
        assert before[4] == 1
        # Its probe was lost with the loop that made it. The next one is answered.
        after = closed_loop(picker, ten_ms, 10_000, 16, START + 10 * SECOND)
        assert after[4] == pytest.approx(2_000, rel=0.05)

    def test_a_probe_that_was_cancelled_makes_way_for_another(self) -> None:
        slots = [*measured_fleet(1), Slot()]
        picker = P2cEwmaPicker(View(slots), seed=1)
        for turn in range(1, 4):
            probes = [ticket for ticket in (picker.pick_at(START) for _ in range(20)) if ticket.slot is slots[1]]
            assert len(probes) == 1
            probes[0].finish_at(Outcome.DROPPED, START)
            assert slots[1].picks == turn

    def test_it_is_as_good_as_the_one_it_is_compared_with(self) -> None:
        # The newcomer is drawn in four pairs of ten; it ties with each, and is first in half of them.
        slots = [*measured_fleet(4), Slot()]
        picks = dropped_picks(P2cEwmaPicker(View(slots), seed=1), 10_000)
        assert is_share(picks[4], 10_000, 1 / 5)

    def test_one_that_was_waited_for_in_vain_is_no_better_than_that(self) -> None:
        slots = [*measured_fleet(4), Slot()]
        answer(slots[4], SECOND, START, Outcome.CANCELLED)
        assert slots[4].is_newcomer
        assert dropped_picks(P2cEwmaPicker(View(slots), seed=1), 10_000)[4] == 0

    def test_one_whose_latency_was_forgotten_gets_one_probe(self) -> None:
        slots = measured_fleet(4)
        slots[0].forget_latency_at(START)
        picks = closed_loop(
            P2cEwmaPicker(View(slots), seed=1), lambda index: None if index == 0 else 10 * MILLISECOND, 10_000, 16
        )
        assert picks[0] == 1

    def test_one_that_was_slow_is_back_at_once_when_that_is_forgotten(self) -> None:
        slots = measured_fleet(4)
        answer(slots[0], 100 * SECOND)
        picker = P2cEwmaPicker(View(slots), seed=1)
        assert dropped_picks(picker, 10_000)[0] == 0
        slots[0].forget_latency_at(START)
        assert is_share(dropped_picks(picker, 10_000)[0], 10_000, 1 / 4)

    def test_a_stream_is_no_probe(self) -> None:
        slots = [*measured_fleet(1), Slot()]
        stream = only(slots[1]).pick_at(START, True)
        held = hold(slots[0], 3)
        assert dropped_picks(P2cEwmaPicker(View(slots), seed=1), 100) == [0, 100]
        assert stream.is_open
        assert len(held) == 3


class TestBadArguments:
    def test_no_endpoints(self) -> None:
        with pytest.raises(ValueError, match="at least one slot"):
            View([])

    @pytest.mark.parametrize("weight", [0, 0.0, -1, math.nan, math.inf, -math.inf])
    def test_weights_that_are_none(self, weight: float) -> None:
        with pytest.raises(ValueError, match="at position 1 is not usable; use a number above 0"):
            View(new_slots(3), [1, weight, 1])

    @pytest.mark.parametrize("weights", [[], [1], [1, 1, 1]])
    def test_weights_for_others(self, weights: list[float]) -> None:
        with pytest.raises(ValueError, match=f"2 slots need as many weights; got {len(weights)}"):
            View(new_slots(2), weights)

    @pytest.mark.parametrize("stranger", [None, object(), 1])
    def test_slots_that_are_none(self, stranger: object) -> None:
        with pytest.raises(TypeError, match="Slot"):
            View([Slot(), stranger])  # type: ignore[list-item]

    def test_a_view_does_not_change(self) -> None:
        slots = new_slots(2)
        view = View(slots)
        with pytest.raises(ValueError, match="immutable"):
            view.__init__(new_slots(3))  # type: ignore[misc]
        slots.clear()
        assert len(view) == len(view.slots) == 2

    @pytest.mark.parametrize("picker", PICKERS)
    def test_one_that_was_never_made(self, picker: type[Picker]) -> None:
        unmade = picker.__new__(picker)
        assert len(unmade) == 0
        for pick in (unmade.pick, unmade.pick_stream, lambda: unmade.pick_at(1)):
            with pytest.raises(ValueError, match="never made"):
                pick()

    @pytest.mark.parametrize("decay_s", [0, 0.0, -1, math.nan])
    @pytest.mark.parametrize("picker", PICKERS)
    def test_decay_times_that_are_none(self, picker: type[Picker], decay_s: float) -> None:
        with pytest.raises(ValueError, match=f"decay_s is {decay_s!r}; use a number of seconds above 0"):
            picker(View(new_slots(2)), decay_s=decay_s)

    @pytest.mark.parametrize("picker", PICKERS)
    def test_views_that_are_none(self, picker: type[Picker]) -> None:
        for view in (None, new_slots(2)):
            with pytest.raises(TypeError):
                picker(view)  # type: ignore[arg-type]

    @pytest.mark.parametrize("picker", PICKERS)
    def test_a_picker_is_as_long_as_its_view(self, picker: type[Picker]) -> None:
        view = View(new_slots(3))
        assert len(picker(view)) == 3
        assert picker(view).view is view
