"""How much each priority and each zone gets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpclb_core.endpoints.localities import Candidate, balanced_weights, priority_shares, zone_shares
from grpclb_core.types import Address, Endpoint, Locality

COUNTS = st.dictionaries(st.integers(0, 5), st.integers(1, 50), min_size=1)


def candidates(*groups: tuple[int, int, str, bool]) -> list[Candidate]:
    """Groups of (how many, priority, zone, usable)."""
    return [
        Candidate(Endpoint(Address(f"10.{group}.0.{number}", 1), 1.0, Locality(zone=zone), priority), usable)
        for group, (count, priority, zone, usable) in enumerate(groups)
        for number in range(count)
    ]


def shares_of(weights: list[float], *sizes: int) -> list[float]:
    shares, place = [], 0
    for size in sizes:
        shares.append(sum(weights[place : place + size]) / sum(weights))
        place += size
    return shares


class TestPriorities:
    # Envoy's documentation, "Priority levels": healthy endpoints of the first of two, and the load on it.
    @pytest.mark.parametrize(
        ("healthy", "load"), [(100, 1.0), (72, 1.0), (71, 0.994), (50, 0.70), (25, 0.35), (0, 0.0)]
    )
    def test_two(self, healthy: int, load: float) -> None:
        shares = priority_shares({0: healthy, 1: 100}, {0: 100, 1: 100})
        assert shares[0] == pytest.approx(load)
        assert shares[0] + shares[1] == pytest.approx(1)

    def test_three(self) -> None:
        shares = priority_shares({0: 20, 1: 20, 2: 100}, {0: 100, 1: 100, 2: 100})
        assert shares == pytest.approx({0: 0.28, 1: 0.28, 2: 0.44})

    def test_where_all_together_cannot_take_it_each_gets_its_part(self) -> None:
        assert priority_shares({0: 20, 1: 10}, {0: 100, 1: 100}) == pytest.approx({0: 2 / 3, 1: 1 / 3})

    @given(COUNTS, st.data())
    def test_the_load_is_always_the_whole_load(self, total: dict[int, int], data: st.DataObject) -> None:
        usable = {priority: data.draw(st.integers(0, count)) for priority, count in total.items()}
        shares = priority_shares(usable, total)
        assert sum(shares.values()) == pytest.approx(1 if any(usable.values()) else 0)
        assert all(share == 0 for priority, share in shares.items() if not usable[priority])


class TestZones:
    def test_a_zone_with_its_share_serves_its_own(self) -> None:
        assert zone_shares({"a": 4, "b": 4}, "a") == {"a": 1.0}
        assert zone_shares({"a": 6, "b": 3}, "a") == {"a": 1.0}

    def test_one_with_less_keeps_what_it_can_and_the_rest_goes_where_there_is_more(self) -> None:
        # Three zones with a third of the clients each: a has a sixth of the endpoints, only c has more than a third.
        assert zone_shares({"a": 2, "b": 4, "c": 6}, "a") == pytest.approx({"a": 0.5, "c": 0.5})

    def test_home_without_endpoints(self) -> None:
        assert zone_shares({"b": 3, "c": 3}, "a") == pytest.approx({"b": 0.5, "c": 0.5})

    @given(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 30), min_size=1), st.sampled_from("abcd"))
    def test_the_load_is_always_the_whole_load(self, usable: dict[str, int], home: str) -> None:
        shares = zone_shares(usable, home)
        assert sum(shares.values()) == pytest.approx(1)
        assert all(share > 0 for share in shares.values())

    @given(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 30), min_size=2))
    def test_clients_of_all_zones_together_load_every_endpoint_alike(self, usable: dict[str, int]) -> None:
        load = dict.fromkeys(usable, 0.0)
        for home in usable:
            for zone, share in zone_shares(usable, home).items():
                load[zone] += share / len(usable)
        whole = sum(usable.values())
        assert load == pytest.approx({zone: count / whole for zone, count in usable.items()})


class TestWeights:
    def test_with_nothing_known_they_are_those_of_the_source(self) -> None:
        endpoints = [Endpoint(Address("10.0.0.1", port), float(port)) for port in (1, 2, 3)]
        assert balanced_weights([Candidate(one, True) for one in endpoints], {}, "", 6) == [1.0, 2.0, 3.0]

    def test_the_unusable_get_nothing(self) -> None:
        assert balanced_weights(candidates((2, 0, "", True), (1, 0, "", False)), {}, "", 6) == [1.0, 1.0, 0.0]

    def test_nobody_usable(self) -> None:
        assert balanced_weights(candidates((3, 0, "", False)), {}, "", 6) == [0.0] * 3
        assert balanced_weights([], {}, "", 6) == []

    def test_a_priority_spills(self) -> None:
        mixed = candidates((2, 0, "", True), (2, 0, "", False), (4, 1, "", True))
        assert shares_of(balanced_weights(mixed, {}, "", 6), 2, 2, 4) == pytest.approx([0.7, 0.0, 0.3])

    def test_zones_are_preferred_from_a_number_on(self) -> None:
        three_each = candidates((3, 0, "a", True), (3, 0, "b", True))
        assert shares_of(balanced_weights(three_each, {}, "a", 6), 3, 3) == [1.0, 0.0]
        assert shares_of(balanced_weights(three_each, {}, "a", 7), 3, 3) == [0.5, 0.5]
        assert shares_of(balanced_weights(three_each, {}, "", 6), 3, 3) == [0.5, 0.5]
        assert shares_of(balanced_weights(three_each, {}, "elsewhere", 6), 3, 3) == [0.5, 0.5]

    def test_a_locality_shares_its_weight_among_the_usable(self) -> None:
        mixed = candidates((2, 0, "a", True), (2, 0, "a", False), (4, 0, "b", True))
        weights = balanced_weights(mixed, {Locality(zone="a"): 3.0, Locality(zone="b"): 1.0}, "b", 6)
        assert shares_of(weights, 2, 2, 4) == pytest.approx([0.75, 0.0, 0.25])

    def test_a_locality_without_weight_gets_nothing_unless_none_has_any(self) -> None:
        both = candidates((2, 0, "a", True), (2, 0, "b", True))
        assert shares_of(balanced_weights(both, {Locality(zone="a"): 3.0}, "", 6), 2, 2) == [1.0, 0.0]
        assert shares_of(balanced_weights(both, {Locality(zone="c"): 3.0}, "", 6), 2, 2) == [0.5, 0.5]
