"""The ring of hashes: gRPC's own ring, keys that stay where they are, and bounds that hold.

Names and keys are fixed, so whatever is said of shares holds always or never. A share of a ring made of k points
strays from its due by about 1 / sqrt(k) of it.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from types import ModuleType
from typing import Any

import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpclb_core.native import RingHashPicker, Slot, Ticket, View
from grpclb_core.native.ring import MOST_POINTS, xxh64_of
from grpclb_core.types import Outcome
from support.fleet import START, dropped_picks, hold, new_slots

Line = tuple[str, float, int]

KEYS = [f"user-{number}" for number in range(2_000)]


def names(count: int) -> list[str]:
    return [f"10.0.{index // 256}.{index % 256}:50051" for index in range(count)]


def roster_of(known: Sequence[str], weights: Sequence[float] | None = None) -> list[Line]:
    return [(name, 1.0 if weights is None else weights[place], place) for place, name in enumerate(known)]


def ring(roster: Iterable[Line], count: int, **options: Any) -> RingHashPicker:
    options = {"key_header": "key", "bounded_load": 0, "seed": 1} | options
    return RingHashPicker(View(new_slots(count), None, roster), **options)


def take(picker: RingHashPicker, metadata: object) -> Ticket:
    return picker.pick_for_at(metadata, START)


def place_of(picker: RingHashPicker, metadata: object) -> int:
    ticket = take(picker, metadata)
    ticket.finish_at(Outcome.DROPPED, START)
    return picker.view.slots.index(ticket.slot)


def homes(picker: RingHashPicker, known: Sequence[str], keys: Sequence[str] = KEYS) -> dict[str, str]:
    """Return the name of the endpoint that each key goes to; `known` are those of the view, in its order."""
    at = dict(zip(picker.view.slots, known, strict=True))
    found = {}
    for key in keys:
        ticket = take(picker, (("key", key),))
        found[key] = at[ticket.slot]
        ticket.finish_at(Outcome.DROPPED, START)
    return found


def written_out(roster: Sequence[Line], min_ring_size: int, max_ring_size: int) -> list[tuple[int, str]]:
    """A42's ring, in the steps of C-core's ring_hash.cc: (hash, name) by hash."""
    total = sum(weight for _, weight, _ in roster)
    parts = [weight / total for _, weight, _ in roster]
    least = min(1.0, *parts)
    scale = min(math.ceil(least * min_ring_size) / least, max_ring_size)
    points: list[tuple[int, str]] = []
    due = 0.0
    for (name, _, _), part in zip(roster, parts, strict=True):
        due += scale * part
        number = 0
        while len(points) < due:
            points.append((xxh64_of(f"{name}_{number}".encode()), name))
            number += 1
    return sorted(points)


def first_clockwise(points: Sequence[tuple[int, str]], key: str) -> str:
    found = xxh64_of(key.encode())
    return next((name for point, name in points if point >= found), points[0][1])


class TestXxh64:
    """Against what its author published: the sanity test of xxhsum, and values that many ports quote."""

    @pytest.mark.parametrize(
        ("length", "expected"),
        [
            (0, 0xEF46DB3751D8E999),
            (1, 0xE934A84ADB052768),
            (4, 0x9136A0DCA57457EE),
            (14, 0x8282DCC4994E35C8),
            (222, 0xB641AE8CB691C174),
        ],
    )
    def test_the_sanity_buffer(self, length: int, expected: int) -> None:
        state, buffer = 2654435761, bytearray()
        for _ in range(length):
            buffer.append(state >> 56)
            state = state * 11400714785074694797 & 0xFFFF_FFFF_FFFF_FFFF
        assert xxh64_of(bytes(buffer)) == expected

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (b"a", 0xD24EC4F1A98C6E5B),
            (b"abc", 0x44BC2CF5AD770999),
            (b"Nobody inspects the spammish repetition", 0xFBCEA83C8A378BF1),
        ],
    )
    def test_well_known_texts(self, text: bytes, expected: int) -> None:
        assert xxh64_of(text) == expected


class TestTheRing:
    @pytest.mark.parametrize(
        ("weights", "sizes"),
        [
            ([1.0] * 3, (1024, 4096)),
            ([1.0] * 7, (1024, 4096)),
            ([1.0] * 64, (1024, 4096)),
            ([1, 2, 4], (1024, 4096)),
            ([1, 2, 4], (1, 4096)),
            ([3, 1, 3, 1.5], (10, 12)),
            ([1.0, 1e6], (1024, 4096)),
            ([1.0] * 50, (1024, 30)),
            ([0.1, 0.7, 0.2], (1, 1)),
        ],
    )
    def test_it_is_the_one_of_a42(self, weights: list[float], sizes: tuple[int, int]) -> None:
        roster = sorted(roster_of(names(len(weights)), weights))
        at_least, at_most = sizes
        picker = ring(roster, len(weights), min_ring_size=min(sizes), max_ring_size=at_most)
        points = written_out(roster, min(at_least, at_most), at_most)
        assert picker.ring_size == len(points)
        found = homes(picker, names(len(weights)), KEYS[:500])
        assert found == {key: first_clockwise(points, key) for key in KEYS[:500]}

    def test_the_order_of_the_roster_does_not_matter(self) -> None:
        known = names(20)
        there = homes(ring(roster_of(known), 20), known)
        assert homes(ring(reversed(roster_of(known)), 20), known) == there

    def test_without_a_roster_the_places_are_the_names(self) -> None:
        picker = RingHashPicker(View(new_slots(5), [1, 2, 1, 1, 1]), key_header="key", bounded_load=0)
        points = written_out(sorted((str(place), [1, 2, 1, 1, 1][place], place) for place in range(5)), 1024, 4096)
        assert homes(picker, "01234", KEYS[:200]) == {key: first_clockwise(points, key) for key in KEYS[:200]}

    def test_equal_endpoints_get_about_equal_parts(self) -> None:
        counts = Counter(
            homes(ring(roster_of(names(10)), 10, min_ring_size=100_000, max_ring_size=100_000), names(10)).values()
        )
        assert len(counts) == 10
        assert max(counts.values()) < 1.3 * 200  # 2000 keys: 4 standard deviations are 0.27 of 200
        assert min(counts.values()) > 0.7 * 200

    def test_weights_are_shares(self) -> None:
        picker = ring(roster_of(names(3), [1, 2, 4]), 3, min_ring_size=50_000, max_ring_size=100_000)
        picks = dropped_picks(picker, 20_000)
        assert [count / 20_000 for count in picks] == pytest.approx([1 / 7, 2 / 7, 4 / 7], abs=0.02)

    def test_those_of_one_name_share_its_points(self) -> None:
        """As several connections to one endpoint do."""
        known = names(4)
        single = homes(ring(roster_of(known), 4), known)
        doubled = [(name, 0.5, place) for place, name in enumerate([*known, *known])]
        picker = ring(doubled, 8)
        assert homes(picker, [*known, *known]) == single
        picks = dropped_picks(picker, 8_000)
        for one, other in zip(picks[:4], picks[4:], strict=True):
            assert 0.5 < one / other < 2

    def test_one_of_two_connections_is_gone(self) -> None:
        known = names(4)
        doubled = [(name, 0.5, place if place < 5 else -1) for place, name in enumerate([*known, *known])]
        assert homes(ring(doubled, 5), [*known, known[0]]) == homes(ring(roster_of(known), 4), known)

    def test_odd_names(self) -> None:
        known = ["", "_", "1_1", "ÿ", "\ud800", "x" * 100_000, "unix:/run/a b.sock", "1"]
        found = Counter(homes(ring(roster_of(known), len(known)), known).values())
        assert len(found) == len(known)

    def test_a_large_one_is_made_in_no_time(self) -> None:
        picker = ring(roster_of(names(10_000)), 10_000)
        assert picker.ring_size == 4096
        began = time.perf_counter()
        ring(roster_of(names(10_000)), 10_000, min_ring_size=40_000, max_ring_size=40_000)
        assert time.perf_counter() - began < 2  # 10 ms on a quiet machine

    def test_numbers_with_many_digits(self) -> None:
        picker = ring([("a", 1.0, 0), ("b", 1.0, 1)], 2, min_ring_size=200_000, max_ring_size=200_000)
        points = written_out([("a", 1.0, 0), ("b", 1.0, 1)], 200_000, 200_000)
        assert picker.ring_size == 200_000
        assert homes(picker, "ab", KEYS[:20]) == {key: first_clockwise(points, key) for key in KEYS[:20]}


class TestWhoStays:
    def test_only_the_keys_of_one_that_is_away_go_elsewhere(self) -> None:
        known = names(10)
        before = homes(ring(roster_of(known), 10), known)
        away = known[3]
        there = [name for name in known if name != away]
        roster = [*roster_of(there), (away, 1.0, -1)]
        after = homes(ring(roster, 9), there)
        moved = {key for key in KEYS if before[key] != after[key]}
        assert moved == {key for key in KEYS if before[key] == away}
        assert len({after[key] for key in moved}) == 9  # its load is spread, and not put on one neighbour

    def test_with_most_of_them_away(self) -> None:
        known = names(10)
        before = homes(ring(roster_of(known), 10), known)
        roster = [(name, 1.0, (place - 8 if place >= 8 else -1)) for place, name in enumerate(known)]
        after = homes(ring(roster, 2), known[8:])
        assert all(after[key] == before[key] for key in KEYS if before[key] in known[8:])

    def test_one_that_leaves_for_good(self) -> None:
        """Of 100 and of 99 each has 11 points; so nothing moves but what has to, and what the rounding of A42 moves."""
        known = names(100)
        before = homes(ring(roster_of(known), 100), known)
        after = homes(ring(roster_of(known[:99]), 99), known[:99])
        moved = {key for key in KEYS if before[key] != after[key]}
        own = {key for key in KEYS if before[key] == known[99]}
        assert moved >= own
        assert len(moved - own) <= len(KEYS) * 3 / 1100  # three points of all

    def test_one_that_comes(self) -> None:
        known = names(101)
        before = homes(ring(roster_of(known[:100]), 100), known[:100])
        after = homes(ring(roster_of(known), 101), known)
        moved = [key for key in KEYS if before[key] != after[key]]
        assert sum(after[key] != known[100] for key in moved) <= len(KEYS) * 3 / 1100  # A42's rounding, as above
        assert 0.1 < len(moved) / (len(KEYS) / 101) < 2  # 11 points: within 3 standard deviations of a 101st

    def test_a_number_that_changes_the_points_moves_twice_as_much(self) -> None:
        """A42 has 103 points for each of 10, and 94 for each of 11: an 11th moves, and so does what the others lose."""
        known = names(11)
        before = homes(ring(roster_of(known[:10]), 10), known[:10])
        after = homes(ring(roster_of(known), 11), known)
        moved = sum(before[key] != after[key] for key in KEYS) / len(KEYS)
        assert 1 / 11 < moved < 2.5 / 11

    @given(st.sets(st.integers(0, 29), min_size=1, max_size=30), st.sampled_from(KEYS))
    def test_whoever_is_there_keeps_its_keys(self, there: set[int], key: str) -> None:
        known = names(30)
        present = sorted(there)
        at = {index: place for place, index in enumerate(present)}
        picker = ring([(name, 1.0, at.get(index, -1)) for index, name in enumerate(known)], len(present))
        home = homes(picker, [known[index] for index in present], [key])[key]
        points = written_out(sorted(roster_of(known)), 1024, 4096)
        start = first_clockwise(points, key)
        if known.index(start) in there:
            assert home == start
        else:
            assert known.index(home) in there


class TestKeys:
    """Which headers make which key (A76)."""

    def test_the_value_of_the_header_decides(self) -> None:
        picker = ring(roster_of(names(50)), 50)
        places = {place_of(picker, (("key", f"{number}"),)) for number in range(200)}
        assert len(places) > 40
        for number in range(20):
            assert len({place_of(picker, (("other", f"{turn}"), ("key", f"{number}"))) for turn in range(5)}) == 1

    @pytest.mark.parametrize(
        "metadata",
        [
            (("key", "a,b"),),
            [("key", "a,b")],
            (("key", "a"), ("x", "y"), ("key", "b")),
            (("key", b"a"), ("key", "b")),
            (("key", b"a,b"),),
            grpc.aio.Metadata(("key", "a"), ("key", "b")),
            pytest.param(iter([("key", "a"), ("key", "b")]), id="iterator"),
        ],
        ids=str,
    )
    def test_values_are_joined_by_commas(self, metadata: object) -> None:
        picker = ring(roster_of(names(500)), 500)
        assert place_of(picker, metadata) == place_of(picker, (("key", "a,b"),))

    @pytest.mark.parametrize(
        "metadata",
        [
            None,
            (),
            (("other", "a"),),
            (("Key", "a"),),
            (("key", ""),),
            (("key", b""),),
            ((b"key", "a"),),
            (("key", 7),),
            (("key", None),),
            (("key", "\ud800"),),
            ("key", "a"),
            (("key", "a", "b"),),
            5,
            pytest.param(object(), id="object"),
            grpc.aio.Metadata(),
        ],
        ids=repr,
    )
    def test_without_a_usable_value_a_call_goes_anywhere(self, metadata: object) -> None:
        picker = ring(roster_of(names(50)), 50)
        assert len({place_of(picker, metadata) for _ in range(100)}) > 20
        assert [slot.in_flight for slot in picker.view.slots] == [0] * 50

    def test_a_huge_value_is_a_key_like_any_other(self) -> None:
        picker = ring(roster_of(names(50)), 50)
        huge = "x" * 3_000_000
        assert len({place_of(picker, (("key", huge),)) for _ in range(5)}) == 1
        assert len({place_of(picker, (("key", huge + str(number)),)) for number in range(30)}) > 10
        assert len({place_of(picker, tuple(("key", "v") for _ in range(10_000))) for _ in range(3)}) == 1

    def test_headers_nobody_asked_for_do_not_matter(self) -> None:
        picker = ring(roster_of(names(50)), 50, key_header=None)
        assert picker.key_header is None
        assert len({place_of(picker, (("key", "a"),)) for _ in range(100)}) > 20

    def test_random_keys_are_repeatable(self) -> None:
        one, other = (ring(roster_of(names(50)), 50, seed=3) for _ in range(2))
        assert [place_of(one, None) for _ in range(20)] == [place_of(other, None) for _ in range(20)]


def bound_of(slots: Sequence[Slot], factor: float) -> int:
    return math.ceil(factor * (sum(slot.in_flight for slot in slots) / len(slots) + 1))


class TestBoundedLoads:
    @pytest.mark.parametrize("factor", [1.0, 1.25, 2.0])
    @pytest.mark.parametrize("count", [1, 2, 5, 64])
    def test_one_key_makes_nobody_much_busier_than_others(self, count: int, factor: float) -> None:
        picker = ring(roster_of(names(count)), count, bounded_load=factor)
        slots = picker.view.slots
        held = []
        for _ in range(10 * count):
            bound = bound_of(slots, factor)
            held.append(take(picker, (("key", "hot"),)))
            assert max(slot.in_flight for slot in slots) <= bound

    def test_calls_go_on_to_the_next_clockwise(self) -> None:
        known = names(10)
        picker = ring(roster_of(known), 10, bounded_load=1.25)
        home = place_of(picker, (("key", "hot"),))
        without = [*roster_of([name for name in known if name != known[home]]), (known[home], 1.0, -1)]
        (second,) = homes(ring(without, 9), [name for name in known if name != known[home]], ["hot"]).values()
        held = [take(picker, (("key", "hot"),)) for _ in range(3)]
        # With few calls open, two of a key stay together: 1.25 x (0.2 + 1) is less than 2.
        assert [known[picker.view.slots.index(ticket.slot)] for ticket in held] == [known[home], known[home], second]

    def test_the_key_comes_home_when_the_calls_have_ended(self) -> None:
        picker = ring(roster_of(names(64)), 64, bounded_load=1.25)
        home = place_of(picker, (("key", "hot"),))
        held = [take(picker, (("key", "hot"),)) for _ in range(500)]
        assert sum(slot.in_flight > 0 for slot in picker.view.slots) > 40
        for ticket in held:
            ticket.finish_at(Outcome.SUCCESS, START)
        assert {place_of(picker, (("key", "hot"),)) for _ in range(100)} == {home}

    def test_calls_that_ended_no_longer_raise_the_bound(self) -> None:
        count = 64
        picker = ring(roster_of(names(count)), count, bounded_load=1.25)
        held = [take(picker, (("key", "hot"),)) for _ in range(2_000)]
        for ticket in held:
            ticket.finish_at(Outcome.SUCCESS, START)
        for number in range(count):  # two are looked at in each pick
            place_of(picker, (("key", str(number)),))
        held = [take(picker, (("key", "hot"),)) for _ in range(5)]
        assert max(slot.in_flight for slot in picker.view.slots) == 2

    def test_calls_of_the_generation_before_count(self) -> None:
        slots = new_slots(10)
        held = [ticket for slot in slots for ticket in hold(slot, 20)]
        picker = RingHashPicker(View(slots, None, roster_of(names(10))), key_header="key", seed=1)
        held += [take(picker, (("key", "hot"),)) for _ in range(10)]
        assert max(slot.in_flight for slot in slots) == 28  # the last call finds 209 open: 1.25 x (20.9 + 1) is 27.4

    def test_weights_count(self) -> None:
        """One that weighs ten times as much may have ten times the calls."""
        slots = new_slots(11)
        weights = [10.0, *[1.0] * 10]
        picker = RingHashPicker(View(slots, weights, roster_of(names(11), weights)), key_header="key", seed=1)
        held = [take(picker, None) for _ in range(2_000)]
        assert len(held) == 2_000
        assert 900 <= slots[0].in_flight <= 1.25 * (2_011 / 2) + 1
        assert max(slot.in_flight for slot in slots[1:]) <= 1.25 * (2_011 / 20) + 1

    def test_without_a_bound_a_key_stays_whatever_it_does(self) -> None:
        picker = ring(roster_of(names(10)), 10, bounded_load=0)
        held = [take(picker, (("key", "hot"),)) for _ in range(500)]
        assert len({ticket.slot for ticket in held}) == 1

    def test_streams_count(self) -> None:
        picker = ring(roster_of(names(5)), 5, bounded_load=1.25)
        held = [picker.pick_for_at((("key", "hot"),), START, stream=True) for _ in range(50)]
        assert len({ticket.slot for ticket in held}) >= 4
        assert max(slot.in_flight for slot in picker.view.slots) <= 14  # 1.25 x (50 / 5 + 1)

    def test_the_count_survives_picks_without_the_gil(self, probe: ModuleType) -> None:
        picker = ring(roster_of(names(16)), 16, bounded_load=1.25)
        assert probe.work(picker, 20_000, 64) == 0
        for number in range(16):
            place_of(picker, (("key", str(number)),))
        held = [take(picker, (("key", "hot"),)) for _ in range(8)]
        assert max(slot.in_flight for slot in picker.view.slots) == 2
        assert len(held) == 8


class TestTrials:
    def test_one_on_trial_has_one_call_at_a_time(self) -> None:
        picker = ring(roster_of(names(5)), 5)
        home = picker.view.slots[place_of(picker, (("key", "a"),))]
        home.start_trial_at(START)
        first, second = take(picker, (("key", "a"),)), take(picker, (("key", "a"),))
        assert first.slot is home
        assert second.slot is not home
        first.finish_at(Outcome.SUCCESS, START)
        assert [take(picker, (("key", "a"),)).slot for _ in range(2)] == [home, home]

    def test_where_all_are_on_trial_and_busy_it_is_the_first(self) -> None:
        picker = ring(roster_of(names(3)), 3)
        home = place_of(picker, (("key", "a"),))
        for slot in picker.view.slots:
            slot.start_trial_at(START)
        held = [ticket for slot in picker.view.slots for ticket in hold(slot, 1)]
        assert place_of(picker, (("key", "a"),)) == home
        assert picker.pick_at(START).slot in picker.view.slots
        assert len(held) == 3


class TestBadInput:
    def test_one_endpoint_gets_everything(self) -> None:
        picker = ring(roster_of(names(1)), 1, bounded_load=1)
        held = [take(picker, metadata) for metadata in (None, (("key", "a"),), (("key", "b"),)) for _ in range(20)]
        assert {ticket.slot for ticket in held} == set(picker.view.slots)

    def test_with_fewer_points_than_endpoints_some_get_none(self) -> None:
        picks = dropped_picks(ring(roster_of(names(50)), 50, max_ring_size=10, min_ring_size=10), 1_000)
        assert 5 <= sum(count > 0 for count in picks) <= 10

    def test_where_nobody_there_has_a_point_all_get_calls(self) -> None:
        picker = ring([("a", 1.0, -1), ("b", 1.0, 0), ("c", 1.0, 1)], 2, min_ring_size=1, max_ring_size=1)
        assert picker.ring_size == 0
        assert min(dropped_picks(picker, 100)) > 20
        assert place_of(picker, (("key", "a"),)) in (0, 1)

    def test_an_empty_roster(self) -> None:
        assert min(dropped_picks(ring([], 2, bounded_load=1.25), 100)) > 20

    @pytest.mark.parametrize("weights", [[1e-300, 1e300], [5e-324, 1.0], [1.7e308, 1.7e308, 1.0], [1e-320] * 3])
    def test_extreme_weights(self, weights: list[float]) -> None:
        picker = ring(roster_of(names(len(weights)), weights), len(weights))
        assert 1 <= picker.ring_size <= 4096
        assert sum(dropped_picks(picker, 100)) == 100

    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            (("a", 0.0, 0), "weight 0.0"),
            (("a", -1.0, 0), "weight -1.0"),
            (("a", math.nan, 0), "weight nan"),
            (("a", math.inf, 0), "weight inf"),
            (("a", 1.0, 1), "place 1, and the view has 1 slots"),
            (("a", 1.0, -2), "place -2"),
        ],
    )
    def test_a_roster_that_cannot_be_is_refused(self, line: Line, problem: str) -> None:
        with pytest.raises(ValueError, match=problem):
            ring([line], 1)

    @pytest.mark.parametrize(
        "line", [(1, 1.0, 0), ("a", "x", 0), ("a", 1.0, "x"), ("a", 1.0), (None, 1.0, 0), ["a", 1.0, 0]]
    )
    def test_what_is_no_roster_is_refused(self, line: Any) -> None:
        with pytest.raises((TypeError, ValueError)):
            ring([line], 1)

    @pytest.mark.parametrize(
        "options",
        [
            {"min_ring_size": 0},
            {"max_ring_size": 0},
            {"min_ring_size": MOST_POINTS + 1},
            {"max_ring_size": MOST_POINTS + 1},
            {"max_ring_size": -1},
            {"bounded_load": 0.5},
            {"bounded_load": -1},
            {"bounded_load": math.nan},
            {"bounded_load": math.inf},
            {"decay_s": 0},
        ],
        ids=str,
    )
    def test_options_out_of_range_are_refused(self, options: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"use|cannot be made"):
            ring(roster_of(names(2)), 2, **options)

    def test_a_ring_is_made_once(self) -> None:
        picker = ring(roster_of(names(2)), 2)
        with pytest.raises(ValueError, match="make another one"):
            picker.__init__(picker.view)  # type: ignore[misc]

    def test_a_view_keeps_its_roster(self) -> None:
        assert View([Slot()]).roster is None
        assert View([Slot()], None, iter([("a", 1.0, 0)])).roster == (("a", 1.0, 0),)


def test_points_are_in_order() -> None:
    points = [point for point, _ in written_out(roster_of(names(5)), 1024, 4096)]
    assert all(one < other for one, other in pairwise(points))
