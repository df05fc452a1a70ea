"""What EndpointSlices say."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpclb_core.errors import ResolutionError
from grpclb_core.resolve.http import decode_json
from grpclb_core.resolve.kubernetes.slices import MAX_ENDPOINTS, Slice, SliceObject, health_of, merge, read_slice
from grpclb_core.types import Address, Endpoint, Health, Locality
from support.kubernetes import Json, endpoint, endpoint_slice


def read(found: Json, port: int | str | None = "grpc") -> Slice:
    return read_slice(msgspec.json.decode(json.dumps(found).encode(), type=SliceObject), port)


def addresses(*slices: Slice, family: str = "ipv4") -> list[str]:
    endpoints, _ = merge(slices, family)
    return [str(each.address) for each in endpoints]


def problems(*slices: Slice) -> str:
    return merge(slices, "ipv4")[1]


# Conditions: None is "not given".
@pytest.mark.parametrize(
    ("ready", "serving", "terminating", "health"),
    [
        (None, None, None, Health.HEALTHY),
        (True, None, None, Health.HEALTHY),
        (True, True, False, Health.HEALTHY),
        (True, False, False, Health.HEALTHY),  # publishNotReadyAddresses
        (False, None, None, Health.UNHEALTHY),
        (False, False, False, Health.UNHEALTHY),
        (False, True, False, Health.UNHEALTHY),
        (False, True, True, Health.DRAINING),
        (None, True, True, Health.DRAINING),
        (True, True, True, Health.DRAINING),
        (None, None, True, Health.DRAINING),
        (False, None, True, Health.UNHEALTHY),
        (False, False, True, Health.UNHEALTHY),
        (True, False, True, Health.UNHEALTHY),
    ],
)
def test_conditions(ready: bool | None, serving: bool | None, terminating: bool | None, health: Health) -> None:
    assert health_of(ready, serving, terminating) is health


def test_all_that_an_endpoint_tells() -> None:
    found = endpoint_slice(
        "greeter-1",
        endpoint(
            "10.0.0.1",
            zone="zone-a",
            nodeName="node-1",
            targetRef={"kind": "Pod", "namespace": "default", "name": "greeter-abc", "uid": "1"},
            hints={"forZones": [{"name": "zone-a"}, {"name": "zone-b"}], "forNodes": [{"name": "node-1"}]},
            hostname="greeter-0",
        ),
    )
    (each,), told = merge([read(found)], "ipv4")
    assert told == ""
    assert each == Endpoint(
        Address("10.0.0.1", 50051),
        locality=Locality(zone="zone-a"),
        health=Health.HEALTHY,
        metadata={"node": "node-1", "pod": "greeter-abc", "for_zones": "zone-a,zone-b"},
    )


class TestPorts:
    PORTS = (("grpc", 50051), ("http", 8080))

    @pytest.mark.parametrize(("port", "number"), [("grpc", 50051), ("http", 8080), (8080, 8080)])
    def test_by_name_and_number(self, port: int | str, number: int) -> None:
        assert addresses(read(endpoint_slice("a", "10.0.0.1", ports=self.PORTS), port)) == [f"10.0.0.1:{number}"]

    def test_the_only_one_needs_no_name(self) -> None:
        assert addresses(read(endpoint_slice("a", "10.0.0.1"), None)) == ["10.0.0.1:50051"]
        assert addresses(read(endpoint_slice("a", "10.0.0.1", ports=[("", 7)]), None)) == ["10.0.0.1:7"]

    @pytest.mark.parametrize(
        ("port", "says"),
        [
            ("grcp", "EndpointSlice a: no TCP port 'grcp', only grpc (50051), http (8080)"),
            (80, "no TCP port 80, only grpc (50051), http (8080); use one of these names or numbers"),
            (None, "the target names no port, and the slice has not just one for TCP but grpc (50051)"),
        ],
    )
    def test_one_that_is_not_there(self, port: int | str | None, says: str) -> None:
        found = read(endpoint_slice("a", "10.0.0.1", ports=self.PORTS), port)
        assert found.members == ()
        assert says in problems(found)

    def test_an_empty_slice_needs_no_port(self) -> None:
        assert read(endpoint_slice("a", ports=()), "grpc") == Slice("a")

    def test_udp_is_no_port_of_ours(self) -> None:
        found = endpoint_slice("a", "10.0.0.1")
        found["ports"] = [{"name": "grpc", "port": 1, "protocol": "UDP"}, {"name": "grpc", "port": 2}]
        assert addresses(read(found)) == ["10.0.0.1:2"]

    @pytest.mark.parametrize("ports", [None, [], [{"name": "", "port": None}]])
    def test_a_number_is_enough_where_none_is_listed(self, ports: Any) -> None:
        found = endpoint_slice("a", "10.0.0.1") | {"ports": ports}
        assert addresses(read(found, 7)) == ["10.0.0.1:7"]
        assert "no TCP port 'grpc'" in problems(read(found, "grpc"))

    def test_each_slice_has_its_own_number(self) -> None:
        old = read(endpoint_slice("a", "10.0.0.1", ports=[("grpc", 1)]))
        new = read(endpoint_slice("b", "10.0.0.2", ports=[("grpc", 2)]))
        assert addresses(old, new) == ["10.0.0.1:1", "10.0.0.2:2"]


class TestMerge:
    def test_sorted_whatever_the_order(self) -> None:
        one, two = read(endpoint_slice("a", "10.0.0.3", "10.0.0.1")), read(endpoint_slice("b", "10.0.0.2"))
        assert merge([one, two], "ipv4") == merge([two, one], "ipv4")
        assert addresses(one, two) == ["10.0.0.1:50051", "10.0.0.2:50051", "10.0.0.3:50051"]

    @pytest.mark.parametrize("first", ["a", "z"])
    def test_the_better_of_two_entries_counts(self, first: str) -> None:
        leaving = endpoint("10.0.0.1", conditions={"ready": False, "serving": True, "terminating": True})
        slices = read(endpoint_slice(first, leaving)), read(endpoint_slice("m", "10.0.0.1"))
        ((each,), _) = merge(slices, "ipv4")
        assert each.health is Health.HEALTHY

    @pytest.mark.parametrize(("family", "kept"), [("ipv4", "10.0.0.1:50051"), ("ipv6", "[fd00::1]:50051")])
    def test_a_pod_of_both_families_is_one_endpoint(self, family: str, kept: str) -> None:
        pod = {"targetRef": {"kind": "Pod", "namespace": "default", "name": "greeter-abc"}}
        four = read(endpoint_slice("a", endpoint("10.0.0.1", **pod)))
        six = read(endpoint_slice("b", endpoint("fd00::1", **pod), family="IPv6"))
        assert addresses(four, six, family=family) == [kept]
        assert addresses(six, family="ipv4") == ["[fd00::1]:50051"]

    def test_families_without_a_pod_are_all_kept(self) -> None:
        four, six = read(endpoint_slice("a", "10.0.0.1")), read(endpoint_slice("b", "fd00:0::1", family="IPv6"))
        assert addresses(four, six) == ["10.0.0.1:50051", "[fd00::1]:50051"]

    def test_the_set_is_bounded(self) -> None:
        many = [f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(MAX_ENDPOINTS + 10)]
        endpoints, told = merge([read(endpoint_slice("a", *many))], "ipv4")
        assert len(endpoints) == MAX_ENDPOINTS
        assert "10010 endpoints are more than 10000" in told


class TestBadInput:
    @pytest.mark.parametrize(
        "member",
        [
            {},
            {"addresses": None},
            {"addresses": []},
            {"addresses": ["greeter-0.greeter"]},
            {"addresses": ["10.0.0.300"]},
            {"addresses": [""]},
        ],
    )
    def test_one_bad_endpoint_is_left_out_and_told(self, member: Json) -> None:
        found = read(endpoint_slice("a", "10.0.0.1", member))
        assert addresses(found) == ["10.0.0.1:50051"]
        assert "EndpointSlice a: endpoints[1]" in problems(found)

    def test_names_are_told_to_be_for_dns(self) -> None:
        found = read(endpoint_slice("a", "example.com", family="FQDN"))
        assert addresses(found) == []
        assert "addressType FQDN" in problems(found)
        assert "dns:///" in problems(found)

    def test_a_port_out_of_range(self) -> None:
        found = read(endpoint_slice("a", "10.0.0.1", ports=[("grpc", 70000)]))
        assert "port 70000 is out of range" in problems(found)

    def test_a_message_stays_short(self) -> None:
        found = read(endpoint_slice("a", *[{"addresses": ["x" * 5]}] * 1000))
        assert len(problems(found)) < 1000
        assert "and 997 more" in problems(found)

    def test_all_that_may_be_missing(self) -> None:
        assert read({"metadata": {"name": "a"}}) == Slice("a")
        least = {"metadata": {"name": "a"}, "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 1}]}
        assert addresses(read(least, None)) == ["10.0.0.1:1"]
        nothing = dict.fromkeys(("conditions", "zone", "nodeName", "targetRef", "hints"))
        least["endpoints"] = [{"addresses": ["10.0.0.1"]} | nothing]
        assert addresses(read(least, 1)) == ["10.0.0.1:1"]

    def test_a_slice_without_a_name(self) -> None:
        with pytest.raises(ResolutionError, match=r"no metadata\.name"):
            read({"metadata": {}})


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def _or_json(usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return usual | st.none() | _JSON


_IP = st.ip_addresses().map(str) | st.text(max_size=10)
_CONDITIONS = st.dictionaries(st.sampled_from(["ready", "serving", "terminating"]), st.none() | st.booleans())
_MEMBER = st.fixed_dictionaries(
    {},
    optional={
        "addresses": _or_json(st.lists(_IP, max_size=3)),
        "conditions": _or_json(_CONDITIONS),
        "zone": _or_json(st.text(max_size=5)),
        "nodeName": _or_json(st.text(max_size=5)),
        "targetRef": _or_json(st.fixed_dictionaries({"kind": st.text(max_size=4), "name": st.text(max_size=4)})),
        "hints": _or_json(st.fixed_dictionaries({"forZones": st.lists(st.fixed_dictionaries({"name": st.text()}))})),
    },
)
_PORT = st.fixed_dictionaries({}, optional={"name": _or_json(st.text()), "port": _or_json(st.integers())})
_SLICE = st.fixed_dictionaries(
    {"metadata": _or_json(st.fixed_dictionaries({"name": st.text(max_size=5)}))},
    optional={
        "addressType": _or_json(st.sampled_from(["IPv4", "IPv6", "FQDN"])),
        "endpoints": _or_json(st.lists(_MEMBER, max_size=5)),
        "ports": _or_json(st.lists(_PORT, max_size=3)),
    },
)


class TestFuzz:
    @given(st.lists(_SLICE, max_size=3), st.none() | st.just("grpc") | st.integers(1, 65535))
    def test_objects(self, objects: list[Any], port: int | str | None) -> None:
        slices = []
        for found in objects:
            try:
                decoded = decode_json(json.dumps(found).encode(), SliceObject, "test")
                slices.append(read_slice(decoded, port))
            except ResolutionError:
                continue
        endpoints, _ = merge(slices, "ipv4")
        assert len({each.address for each in endpoints}) == len(endpoints)
        assert all(1 <= each.address.port <= 65535 for each in endpoints)

    @given(st.binary(max_size=200) | _JSON.map(lambda found: json.dumps(found).encode()))
    def test_bytes(self, body: bytes) -> None:
        with suppress(ResolutionError):
            decode_json(body, SliceObject, "test")

    def test_nesting_without_end(self) -> None:
        with pytest.raises(ResolutionError):
            decode_json(b'{"metadata":' + b"[" * 100_000, SliceObject, "test")
