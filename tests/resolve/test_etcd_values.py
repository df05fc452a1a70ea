"""What etcd targets, keys and answers say: pure functions, and every byte string as their input."""

from __future__ import annotations

import json
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpclb_core.config import Config, EtcdConfig, parse_config
from grpclb_core.errors import ConfigError, ResolutionError, TargetError
from grpclb_core.resolve import parse_target, resolver_for
from grpclb_core.resolve.etcd.client import Event, KeyValue, WatchAnswer, _refusal, _WatchLine
from grpclb_core.resolve.etcd.target import parse_etcd
from grpclb_core.resolve.etcd.values import MAX_KEYS, MAX_VALUE, Listing, endpoint_of, value_of
from grpclb_core.resolve.http import decode_json
from grpclb_core.types import Address, Endpoint, Locality

A = Address("10.0.0.1", 50051)


def value(addr: object = "10.0.0.1:50051", metadata: object = None) -> bytes:
    return json.dumps({"Op": 0, "Addr": addr, "Metadata": metadata}).encode()


class TestTarget:
    @pytest.mark.parametrize(
        ("text", "members", "prefix", "authority"),
        [
            ("//h/p", ["http://h:2379"], "p/", "p"),
            ("//h:1/a/b", ["http://h:1"], "a/b/", "b"),
            ("//h:1/a/b/", ["http://h:1"], "a/b/", "b"),
            ("//h:1,10.0.0.1,[::1]:3/a", ["http://h:1", "http://10.0.0.1:2379", "http://[::1]:3"], "a/", "a"),
            ("//h,h:2379/a", ["http://h:2379"], "a/", "a"),
            ("//h//a", ["http://h:2379"], "/a/", "a"),
            ("//h/a%20b", ["http://h:2379"], "a b/", None),
            ("//h/greeter.v1", ["http://h:2379"], "greeter.v1/", "greeter.v1"),
        ],
    )
    def test_good_ones(self, text: str, members: list[str], prefix: str, authority: str | None) -> None:
        target = parse_etcd(text, tls=False)
        assert list(target.members) == members
        assert (target.prefix, target.authority) == (prefix, authority)

    def test_tls_is_https(self) -> None:
        assert parse_etcd("//h/p", tls=True).members == ("https://h:2379",)

    @pytest.mark.parametrize(
        ("text", "advice"),
        [
            ("///p", "members of the cluster are missing"),
            ("//h", "prefix of the keys is missing"),
            ("//h/", "prefix of the keys is missing"),
            ("//h//", "prefix of the keys is missing"),
            ("//h,/p", "server '' is not usable; write host:2379"),
            ("//h:0/p", "port 0"),
            ("//h:x/p", "not usable"),
            ("//::1/p", "not usable"),
            ("//h:99999/p", "out of range"),
            ("//user:secret@h/p", "use the option etcd.username"),
            ("//h/p?x=1", "options do not belong"),
        ],
    )
    def test_bad_ones(self, text: str, advice: str) -> None:
        with pytest.raises(TargetError, match=advice):
            parse_etcd(text, tls=False)
        with pytest.raises(TargetError, match="target 'etcd:"):
            resolver_for(parse_target(f"etcd:{text}"), Config())

    def test_a_password_is_not_repeated(self) -> None:
        with pytest.raises(TargetError) as caught:
            parse_etcd("//user:secret@h/p", tls=False)
        assert "secret" not in str(caught.value)

    @given(st.text(max_size=60))
    def test_any_text_is_parsed_or_refused(self, text: str) -> None:
        try:
            target = parse_etcd(f"//{text}", tls=False)
        except TargetError:
            return
        assert target.members
        assert target.prefix.endswith("/")


class TestConfig:
    @pytest.mark.parametrize(
        ("options", "advice"),
        [
            ({"ca_file": "x"}, "set tls to true"),
            ({"tls": True, "key_file": "x"}, "cert_file, which is missing"),
            ({"username": "x"}, "go together"),
            ({"timeout_s": 0}, "config.etcd.timeout_s"),
        ],
    )
    def test_faults(self, options: dict[str, object], advice: str) -> None:
        with pytest.raises(ConfigError, match=advice):
            parse_config({"etcd": options})

    def test_a_password_is_not_shown(self) -> None:
        shown = repr(parse_config({"etcd": {"username": "root", "password": "secret"}}))
        assert "root" in shown
        assert "secret" not in shown

    def test_a_file_that_is_missing_is_told_at_once(self) -> None:
        config = parse_config({"etcd": {"tls": True, "ca_file": "/nowhere.pem"}})
        with pytest.raises(TargetError, match="/nowhere.pem cannot be used"):
            resolver_for(parse_target("etcd://h/p"), config)


class TestValue:
    @pytest.mark.parametrize(
        ("metadata", "endpoint"),
        [
            (None, Endpoint(A)),
            ({}, Endpoint(A)),
            ("v2", Endpoint(A, metadata={"Metadata": "v2"})),
            ([1, "a"], Endpoint(A, metadata={"Metadata": '[1,"a"]'})),
            ({"weight": 3}, Endpoint(A, 3)),
            ({"weight": "2.5"}, Endpoint(A, 2.5)),
            ({"zone": "eu-1a", "region": "eu"}, Endpoint(A, locality=Locality("eu", "eu-1a"))),
            ({"priority": "1"}, Endpoint(A, priority=1)),
            ({"pod": "a", "ports": [1]}, Endpoint(A, metadata={"pod": "a", "ports": "[1]"})),
        ],
    )
    def test_metadata(self, metadata: object, endpoint: Endpoint) -> None:
        assert endpoint_of(value(metadata=metadata)) == endpoint

    @pytest.mark.parametrize("addr", ["10.0.0.1:50051", "[2001:db8::1]:50051"])
    def test_addresses(self, addr: str) -> None:
        assert str(endpoint_of(value(addr)).address) == addr

    def test_as_go_reads_it(self) -> None:
        assert endpoint_of(b'{"addr":"10.0.0.1:50051","Op":1,"Attributes":{}}') == Endpoint(A)

    @pytest.mark.parametrize(
        ("raw", "advice"),
        [
            (b"", "no JSON"),
            (b"10.0.0.1:50051", "no JSON"),
            (b'{"Addr":"10.0.0.1:50051"', "no JSON"),
            (b"\xff\xfe", "no JSON"),
            (b"[" * 15_000, "no JSON"),
            (b"3", "no object"),
            (b"{}", "Addr None is no string"),
            (value(""), "the port is missing"),
            (value("10.0.0.1"), "the port is missing"),
            (value("10.0.0.1:"), "the port is missing"),
            (value("10.0.0.1:70000"), "port 70000 is out of range"),
            (value("::1:50051"), "brackets are for IPv6"),
            (value("[10.0.0.1]:50051"), "brackets are for IPv6"),
            (value("greeter:50051"), "is not an IP address"),
            (value(7), "no string"),
            (value(metadata={"weight": "many"}), "weight 'many' is not a number"),
            (value(metadata={"weight": 0}), "weight 0.0 is not usable"),
            (value(metadata={"weight": "nan"}), "weight nan is not usable"),
            (value(metadata={"priority": 1.5}), "priority 1.5 is not a whole number"),
            (value(metadata={"priority": -1}), "priority -1"),
            (value(metadata={"priority": 1e300}), "priority 1e"),
            (value(metadata="x" * MAX_VALUE), "at most 16384"),
        ],
    )
    def test_what_cannot_be_used(self, raw: bytes, advice: str) -> None:
        with pytest.raises(ConfigError, match=advice) as caught:
            endpoint_of(raw)
        assert len(str(caught.value)) < 500

    @given(st.binary(max_size=200) | st.from_regex(rb'\{"Addr":.{0,40}"Metadata":.{0,40}\}', fullmatch=True))
    def test_any_bytes_are_read_or_refused(self, raw: bytes) -> None:
        with suppress(ConfigError):
            endpoint_of(raw)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["Addr", "Metadata", "weight", "zone", "priority", "x"]), inner)
            ),
            max_leaves=8,
        )
    )
    def test_any_json_is_read_or_refused(self, document: object) -> None:
        for shaped in (document, {"Addr": document}, {"Addr": "10.0.0.1:1", "Metadata": document}):
            with suppress(ConfigError):
                endpoint_of(json.dumps(shaped).encode())

    @given(
        st.floats(min_value=1e-6, max_value=1e6),
        st.integers(0, 128),
        st.text(max_size=8),
        st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
    )
    def test_what_is_written_is_read(self, weight: float, priority: int, zone: str, metadata: dict[str, str]) -> None:
        endpoint = Endpoint(A, weight, Locality(zone=zone), priority, metadata=metadata)
        assert endpoint_of(value_of(endpoint)) == endpoint

    def test_names_with_a_meaning_are_not_for_metadata(self) -> None:
        with pytest.raises(ConfigError, match="metadata may not hold weight"):
            value_of(Endpoint(A, metadata={"weight": "1"}))


def pair(key: str, raw: bytes, revision: int = 1) -> KeyValue:
    return KeyValue(key.encode(), raw, str(revision))


class TestListing:
    def test_a_value_at_fault_changes_nothing(self) -> None:
        listing = Listing()
        assert listing.replace([pair("a", value()), pair("b", value("10.0.0.2:1"))]) == []
        before = listing.endpoints()
        assert len(before) == 2
        (problem,) = listing.apply([Event(pair("a", b"broken", 2))])
        assert problem.startswith("key 'a': ")
        assert listing.endpoints() == before
        assert len(listing.replace([pair("a", b"broken", 3), pair("b", value("10.0.0.2:1"))])) == 1
        assert listing.endpoints() == before
        listing.apply([Event(pair("a", b""), "DELETE")])
        assert listing.endpoints() == before[1:]

    def test_a_new_key_at_fault_is_passed_over(self) -> None:
        listing = Listing()
        assert len(listing.replace([pair("a", b"broken"), pair("b", value())])) == 1
        assert listing.endpoints() == (Endpoint(A),)

    def test_of_two_keys_for_one_address_the_later_counts(self) -> None:
        listing = Listing()
        listing.replace([pair("b", value(metadata={"weight": 5}), 9), pair("a", value(metadata={"weight": 2}), 10)])
        assert [endpoint.weight for endpoint in listing.endpoints()] == [2]

    def test_there_is_an_end_to_it(self) -> None:
        listing = Listing()
        pairs = [pair(str(number), value(f"10.0.{number >> 8}.{number & 255}:1")) for number in range(MAX_KEYS + 1)]
        (problem,) = listing.replace(pairs)
        assert "there are 10000 keys already" in problem
        assert len(listing.endpoints()) == MAX_KEYS
        assert len(listing.apply([Event(pair("x", value()))])) == 1

    def test_deleting_what_is_unknown_is_nothing(self) -> None:
        assert Listing().apply([Event(pair("a", b""), "DELETE")]) == []


class TestAnswers:
    def test_a_message_of_a_watch(self) -> None:
        event = b'{"type":"DELETE","kv":{"key":"YS8x","mod_revision":"3"}}'
        line = b'{"result":{"header":{"revision":"3"},"events":[' + event + b"]}}"
        answer = decode_json(line, _WatchLine, "etcd").result
        assert answer is not None
        assert answer.events == [Event(KeyValue(b"a/1", mod_revision="3"), "DELETE")]

    @given(st.binary(max_size=100) | st.from_regex(rb'\{"result":\{.{0,50}\}\}', fullmatch=True))
    def test_any_line_is_read_or_refused(self, line: bytes) -> None:
        try:
            answer = decode_json(line, _WatchLine, "etcd").result
        except ResolutionError:
            return
        if answer is not None:
            int(answer.compact_revision), int(answer.header.revision)
            Listing().apply(answer.events)

    @given(
        st.builds(
            WatchAnswer,
            events=st.lists(
                st.builds(
                    Event,
                    kv=st.builds(KeyValue, key=st.binary(max_size=3), value=st.binary(max_size=30)),
                    type=st.sampled_from(["PUT", "DELETE", "OTHER"]),
                ),
                max_size=5,
            ),
        )
    )
    def test_what_etcd_writes_is_read(self, answer: WatchAnswer) -> None:
        line = msgspec.json.encode({"result": answer})
        assert decode_json(line, _WatchLine, "etcd").result == answer
        Listing().apply(answer.events)

    @given(st.integers(400, 599), st.binary(max_size=300))
    def test_any_refusal_has_a_reason(self, status: int, body: bytes) -> None:
        assert "etcd" in str(_refusal("etcd", status, body))

    @pytest.mark.parametrize(
        "body",
        [
            b'{"error":"no leader","code":14,"message":"no leader"}',
            b'{"code":14,"message":"no leader"}',
            b'{"error":{"grpc_code":14,"http_code":503,"message":"no leader"}}',
            b'{"error":{"code":14,"message":"no leader"}}',
        ],
    )
    def test_all_the_ways_etcd_says_no(self, body: bytes) -> None:
        refusal = _refusal("etcd", 503, body)
        assert (str(refusal), refusal.code) == ("etcd: no leader (code 14)", 14)

    def test_defaults_are_usable(self) -> None:
        assert parse_config({"etcd": {}}).etcd == EtcdConfig()
