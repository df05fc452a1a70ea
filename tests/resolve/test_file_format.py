"""What a file of endpoints may say, and what is said of one that is broken."""

from __future__ import annotations

import json
import sys
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpclb_core.errors import ConfigError
from grpclb_core.resolve.file import format as file_format
from grpclb_core.resolve.file.format import MOST_PROBLEMS, parse_document, read_endpoints
from grpclb_core.types import Address, Endpoint, Health, Locality

PROMPT_S = 5.0  # bad input takes milliseconds, minutes where it is looked at again and again


def decode(text: str | bytes, name: str = "a.json") -> tuple[Endpoint, ...]:
    return read_endpoints(parse_document(text if isinstance(text, bytes) else text.encode(), name))


def problems_of(text: str | bytes, name: str = "a.json") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        decode(text, name)
    return list(caught.value.problems)


FULL = Endpoint(
    Address("10.0.0.1", 50051), 2.5, Locality("eu", "eu-1a", "rack-7"), 1, Health.DRAINING, {"pod": "greeter-0"}
)


def test_every_field_in_json() -> None:
    text = """{"endpoints": [{
        "address": "10.0.0.1:50051", "weight": 2.5, "region": "eu", "zone": "eu-1a", "sub_zone": "rack-7",
        "priority": 1, "health": "draining", "metadata": {"pod": "greeter-0"}
    }]}"""
    assert decode(text) == (FULL,)


def test_every_field_in_toml() -> None:
    text = """
[[endpoints]]
address = "10.0.0.1:50051"
weight = 2.5
region = "eu"
zone = "eu-1a"
sub_zone = "rack-7"
priority = 1
health = "draining"  # until tonight
metadata = { pod = "greeter-0" }
"""
    assert decode(text, "a.toml") == (FULL,)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('["10.0.0.2:2", "10.0.0.1:1"]', "a.json"),
        ('[{"address": "10.0.0.1:1"}, "10.0.0.2:2"]', "a.json"),
        ('\ufeff{"endpoints": ["10.0.0.1:1", "10.0.0.2:2"]}', "a.json"),
        ('endpoints = ["10.0.0.2:2", "10.0.0.1:1"]', "a.toml"),
        ('endpoints = ["10.0.0.2:2", {address = "10.0.0.1:1"}]', "b.c.toml"),
    ],
)
def test_short_forms_and_any_order_are_the_same_set(text: str, name: str) -> None:
    assert decode(text, name) == (Endpoint(Address("10.0.0.1", 1)), Endpoint(Address("10.0.0.2", 2)))


def test_every_kind_of_address() -> None:
    found = decode('["[::1]:1", "unix:/run/a.sock", "unix-abstract:b", "10.0.0.1"]')
    hosts = [Address("/run/a.sock"), Address("10.0.0.1", 443), Address("::1", 1), Address("@b")]
    assert [endpoint.address for endpoint in found] == hosts


@pytest.mark.parametrize(
    ("text", "name"), [("[]", "a.json"), ('{"endpoints": []}', "a.json"), ("endpoints=[]", "a.toml")]
)
def test_a_set_may_be_empty(text: str, name: str) -> None:
    assert decode(text, name) == ()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the file is empty"),
        (' \n{"endpoints": [', "line 2 column 16: Expecting value"),
        ("{'endpoints'}", "line 1 column 2"),
        ('{"endpoints": []}x', "line 1 column 18: Extra data"),
        ("3", "endpoints: expected a list, got int"),
        ("{}", "endpoints: missing"),
        ('{"endpoints": {}}', "endpoints: expected a list, got dict"),
        ('{"endpoints": null}', "endpoints: expected a list, got NoneType"),
        ('{"endpoints": [], "endpoints": []}', "'endpoints' stands twice"),
        ('[{"address": "10.0.0.1:1", "weight": NaN}]', "NaN is no JSON"),
        ("[" + "9" * 5000 + "]", "a number is not usable"),
        (b'["\xff"]', "line 1: byte 2 is not UTF-8"),
        ("[3]", "endpoints[0]: expected a mapping"),
        ("[{}]", "endpoints[0].address: missing"),
        ('["greeter:1"]', "endpoints[0].address: 'greeter:1' is not one address"),
        ('["dns:///greeter:1"]', "is not one address"),
        ('["ipv4:10.0.0.1:1,10.0.0.2:2"]', "is not one address"),
        ('["10.0.0.1:0"]', "port '0' is not a number from 1 to 65535"),
        ('["fe80::1:1"]', "put an IPv6 address in brackets"),
        ('["[fe80::1%' + "z" * 1000 + ']:1"]', "is not one address"),
        ('["10.0.0.1:1", "10.0.0.1:1"]', "endpoints[1].address: 10.0.0.1:1 is listed twice"),
        ('[{"address": "10.0.0.1:1", "weight": 0}]', "endpoints[0].weight: 0 is not usable"),
        ('[{"address": "10.0.0.1:1", "weight": 1e999}]', "endpoints[0].weight: inf is not usable"),
        ('[{"address": "10.0.0.1:1", "weight": "1"}]', "endpoints[0].weight: '1' is not usable"),
        ('[{"address": "10.0.0.1:1", "weight": true}]', "endpoints[0].weight: True is not usable"),
        ('[{"address": "10.0.0.1:1", "priority": -1}]', "endpoints[0].priority: -1 is not usable"),
        ('[{"address": "10.0.0.1:1", "priority": 129}]', "endpoints[0].priority: 129 is not usable"),
        (
            '[{"address": "10.0.0.1:1", "health": "Healthy"}]',
            "endpoints[0].health: 'Healthy' is not usable; use one of",
        ),
        ('[{"address": "10.0.0.1:1", "metadata": {"a": 1}}]', "endpoints[0].metadata: {'a': 1} is not usable"),
        ('[{"address": "10.0.0.1:1", "zones": "a"}]', "endpoints[0].zones: unknown"),
    ],
)
def test_json_that_is_refused(text: str | bytes, problem: str) -> None:
    (found,) = problems_of(text)
    assert problem in found


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "endpoints: missing"),
        ("[[endpoints]]\naddress = \n", "line 2"),
        ("endpoints = 1", "endpoints: expected a list, got int"),
        ('[[endpoints]]\naddress = "10.0.0.1:1"\nweight = nan', "endpoints[0].weight: nan is not usable"),
        ('[[endpoints]]\naddress = "10.0.0.1:1"\npriority = 2026-01-01', "endpoints[0].priority"),
        ('[endpoints]\naddress = "10.0.0.1:1"', "endpoints: expected a list, got dict"),
    ],
)
def test_toml_that_is_refused(text: str, problem: str) -> None:
    (found,) = problems_of(text, "a.toml")
    assert problem in found


@pytest.mark.parametrize("name", ["endpoints", "endpoints.yaml", ".json"])
def test_the_format_is_told_by_the_name(name: str) -> None:
    assert "call it .json or .toml" in problems_of("[]", name)[0]


def test_every_fault_is_found_at_once() -> None:
    text = """{"endpoint": 1, "endpoints": [
        {"address": "10.0.0.1:99999", "weight": -1, "helth": "up"},
        "10.0.0.2:2",
        {"address": "greeter:1", "health": "up", "metadata": []}
    ]}"""
    found = [problem.partition(": ")[0] for problem in problems_of(text)]
    assert found == [
        "endpoint",
        "endpoints[0].weight",
        "endpoints[0].helth",
        "endpoints[0].address",
        "endpoints[2].metadata",
        "endpoints[2].address",
        "endpoints[2].health",
    ]


def test_faults_without_end_are_cut_short() -> None:
    found = problems_of(json.dumps([{"address": "x" * 10_000, "weight": "y" * 10_000}] * 200))
    assert len(found) == MOST_PROBLEMS + 1
    assert found[-1] == "there are more; repair these first"
    assert max(map(len, found)) < 1000


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("[" * 100_000, "a.json"),
        ('{"a":' * 100_000, "a.json"),
        ('[{"address": "10.0.0.1:1", "metadata": ' + "[" * 900 + "]" * 900 + "}]", "a.json"),
        ("endpoints = " + "[" * 100_000, "a.toml"),
        (".".join("a" * 100_000) + " = 1", "a.toml"),
        ("[" + ".".join(['"a\\"#"'] * 100_000) + "]", "a.toml"),
        ("{" + ",".join(f'"a{number}":1' for number in range(100_000)) + ', "z":1, "z":2}', "a.json"),
    ],
)
def test_bad_input_is_refused_promptly(text: str, name: str) -> None:
    began_s = perf_counter()
    assert problems_of(text, name)
    assert perf_counter() - began_s < PROMPT_S


def test_dots_in_strings_and_comments_are_no_keys() -> None:
    dots = "." * 200
    text = f'[[endpoints]] # {dots}\naddress = "10.0.0.1:1"\nmetadata = {{ "a" = "{dots}\\"{dots}", b = \'{dots}\' }}'
    assert decode(text, "a.toml")[0].metadata == {"a": f'{dots}"{dots}', "b": dots}


@pytest.mark.skipif(sys.version_info >= (3, 11), reason="this Python reads TOML itself")
def test_toml_without_tomli_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tomli", None)
    assert "pip install 'grpclb-core[toml]'" in problems_of("endpoints = []", "a.toml")[0]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)
ADDRESSES = st.builds("10.0.{}.{}:{}".format, st.integers(0, 300), st.integers(0, 300), st.integers(-1, 70_000))
ENTRIES = ADDRESSES | st.fixed_dictionaries(
    {"address": ADDRESSES | JSON_VALUES},
    optional={name: JSON_VALUES for name in file_format.Entry.__struct_fields__ if name != "address"}
    | {"health": st.sampled_from(["healthy", "unknown", "draining", "sick"]), "weight": st.floats(0.1, 10)},
)


def refuse_or_read(data: bytes, name: str) -> None:
    endpoints: tuple[Endpoint, ...] = ()
    problems: tuple[str, ...] = ()
    try:
        endpoints = read_endpoints(parse_document(data, name))
    except ConfigError as error:
        problems = error.problems or ("",)
    assert all(problems)
    assert len(problems) <= MOST_PROBLEMS + 1
    addresses = [endpoint.address for endpoint in endpoints]
    assert addresses == sorted(set(addresses))
    assert all(0 < endpoint.weight <= file_format.MAX_WEIGHT for endpoint in endpoints)


@given(st.binary(max_size=200), st.sampled_from(["a.json", "a.toml"]))
def test_any_bytes(data: bytes, name: str) -> None:
    refuse_or_read(data, name)


@given(st.lists(ENTRIES | JSON_VALUES, max_size=6))
def test_any_entries(entries: list[object]) -> None:
    refuse_or_read(json.dumps({"endpoints": entries}).encode(), "a.json")


@given(st.lists(ADDRESSES, max_size=4), st.data())
def test_a_file_cut_off_or_garbled_anywhere(entries: list[str], data: st.DataObject) -> None:
    whole = json.dumps({"endpoints": entries}).encode()
    at = data.draw(st.integers(0, len(whole)))
    refuse_or_read(whole[:at], "a.json")
    refuse_or_read(whole[:at] + data.draw(st.binary(max_size=3)) + whole[at:], "a.json")
