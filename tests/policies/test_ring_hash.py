"""The options of ring_hash and pick_first, from Python and from gRPC's service config."""

from __future__ import annotations

from typing import Any

import pytest

from grpclb_core.errors import ConfigError
from grpclb_core.native import LeastRequestPicker, RingHashPicker, View
from grpclb_core.policies import (
    PickFirst,
    RingHash,
    RoundRobin,
    connects_to_one,
    goes_by_name,
    parse_policy,
)
from grpclb_core.service_config import parse_service_config
from support.fleet import START, new_slots


def problem_of(policy: Any, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_policy(policy(**options))
    (problem,) = caught.value.problems
    return problem


def from_json(name: str, **options: object) -> object:
    return parse_service_config({"loadBalancingConfig": [{name: options}]}).policy


def built(policy: RingHash, count: int = 3) -> RingHashPicker:
    roster = [(str(place), 1.0, place) for place in range(count)]
    picker = policy.build(View(new_slots(count), None, roster), 1, START)
    assert isinstance(picker, RingHashPicker)
    return picker


class TestRingHash:
    def test_defaults_are_those_of_a42(self) -> None:
        policy = RingHash()
        assert (policy.min_ring_size, policy.max_ring_size, policy.ring_size_cap) == (1024, 4096, 4096)
        assert (policy.request_hash_header, policy.bounded_load) == ("", 1.25)
        assert built(policy).ring_size == 1026  # the least number above 1024 that three can share
        assert built(policy).key_header is None

    @pytest.mark.parametrize(
        ("options", "size"),
        [
            ({"min_ring_size": 10}, 12),
            ({"min_ring_size": 4096}, 4096),
            ({"min_ring_size": 1, "max_ring_size": 1}, 1),
            ({"min_ring_size": 8_000_000, "max_ring_size": 8_388_608}, 4096),
            ({"min_ring_size": 5_000, "max_ring_size": 8_388_608, "ring_size_cap": 6_000}, 5_001),
            ({"ring_size_cap": 7}, 7),
        ],
    )
    def test_sizes_are_capped(self, options: dict[str, int], size: int) -> None:
        assert built(RingHash(**options)).ring_size == size

    @pytest.mark.parametrize("header", ["x-user", "session", "a_b.c-1", "X-User"])
    def test_a_header_is_found_in_lower_case(self, header: str) -> None:
        policy = parse_policy(RingHash(request_hash_header=header))
        assert isinstance(policy, RingHash)
        assert built(policy).key_header == header.lower()

    @pytest.mark.parametrize("header", [" ", "x user", "x:y", ":authority", "ä", "x\n", "x" * 5 + "\x00", "a,b"])
    def test_what_is_no_header_is_refused(self, header: str) -> None:
        assert "is no header's name" in problem_of(RingHash, request_hash_header=header)

    @pytest.mark.parametrize("header", ["x-user-bin", "X-BIN", "-bin"])
    def test_a_binary_header_is_refused(self, header: str) -> None:
        assert "binary header" in problem_of(RingHash, request_hash_header=header)

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({"min_ring_size": 5000}, "min_ring_size 5000 is above max_ring_size 4096"),
            ({"max_ring_size": 1000}, "min_ring_size 1024 is above max_ring_size 1000"),
            ({"bounded_load": 0.99}, "bounded_load 0.99 is below the mean"),
            ({"bounded_load": -1.0}, "policy ring_hash.bounded_load"),
            ({"min_ring_size": 0}, "policy ring_hash.min_ring_size"),
            ({"max_ring_size": 8_388_609}, "policy ring_hash.max_ring_size"),
            ({"ring_size_cap": 0}, "policy ring_hash.ring_size_cap"),
        ],
    )
    def test_options_out_of_range(self, options: dict[str, Any], expected: str) -> None:
        assert expected in problem_of(RingHash, **options)

    @pytest.mark.parametrize("name", ["ring_hash_experimental", "ring_hash"])
    def test_from_a_service_config(self, name: str) -> None:
        given = from_json(name, minRingSize=10, maxRingSize="20", requestHashHeader="x-user")
        assert given == RingHash(min_ring_size=10, max_ring_size=20, request_hash_header="x-user")
        assert from_json(name) == RingHash()
        assert from_json(name, boundedLoad=0) == RingHash(bounded_load=0)

    @pytest.mark.parametrize(
        "options",
        [
            {"minRingSize": 0},
            {"maxRingSize": 8_388_609},
            {"minRingSize": 5000},
            {"requestHashHeader": "x-bin"},
            {"requestHashHeader": 3},
            {"boundedLoad": 0.5},
        ],
    )
    def test_a_service_config_that_cannot_be_is_refused(self, options: dict[str, object]) -> None:
        with pytest.raises(ConfigError, match="ring_hash"):
            from_json("ring_hash_experimental", **options)

    def test_it_goes_by_names(self) -> None:
        assert goes_by_name(RingHash())
        assert not goes_by_name(RoundRobin())


class TestPickFirst:
    def test_its_picker_takes_what_there_is(self) -> None:
        view = View(new_slots(1))
        picker = PickFirst().build(view, 1, START)
        assert type(picker) is LeastRequestPicker
        assert picker.pick_at(START).slot is view.slots[0]

    def test_it_connects_to_one(self) -> None:
        assert connects_to_one(PickFirst())
        assert not connects_to_one(RoundRobin())

    @pytest.mark.parametrize("delay_s", [0.09, 2.1, 0])
    def test_the_attempt_delay_has_the_range_of_rfc_8305(self, delay_s: float) -> None:
        assert "policy pick_first.attempt_delay_s" in problem_of(PickFirst, attempt_delay_s=delay_s)

    def test_from_a_service_config(self) -> None:
        assert from_json("pick_first") == PickFirst()
        assert from_json("pick_first", shuffleAddressList=True) == PickFirst(shuffle_address_list=True)
        with pytest.raises(ConfigError, match="shuffleAddressList"):
            from_json("pick_first", shuffleAddressList="yes")
