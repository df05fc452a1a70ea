"""What resolv.conf says."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from grpclb_core.errors import ResolutionError
from grpclb_core.resolve.dns.resolvconf import (
    MAX_SIZE,
    TRY_S,
    DnsSettings,
    candidates,
    parse_resolv_conf,
    read_settings,
)
from grpclb_core.types import Address

POD = """
# as in a pod
nameserver 10.96.0.10
search default.svc.cluster.local svc.cluster.local. cluster.local
options ndots:5
"""


def test_a_pod() -> None:
    assert parse_resolv_conf(POD, "greeter-0") == DnsSettings(
        servers=(Address("10.96.0.10", 53),),
        search=("default.svc.cluster.local", "svc.cluster.local", "cluster.local"),
        ndots=5,
    )


def test_every_option() -> None:
    settings = parse_resolv_conf("options rotate edns0 use-vc timeout:1 ndots:2\noptions ndots:3 attempts:9 odd\n")
    assert settings == DnsSettings(ndots=3, try_s=1.0, rotate=True, edns=True, tcp=True)


@pytest.mark.parametrize(
    ("line", "servers"),
    [
        ("nameserver 10.0.0.2", [Address("10.0.0.2", 53)]),
        ("nameserver\t2001:db8::1  ", [Address("2001:db8::1", 53)]),
        ("nameserver fe80::1%eth0", [Address("fe80::1%eth0", 53)]),
        ("nameserver [10.0.0.2]:5353", [Address("10.0.0.2", 5353)]),
        ("nameserver [::1]:5353", [Address("::1", 5353)]),
        ("nameserver [::1]", [Address("::1", 53)]),
        (
            "nameserver 10.0.0.2\nnameserver 10.0.0.1\nnameserver 10.0.0.2",
            [Address("10.0.0.2", 53), Address("10.0.0.1", 53)],
        ),
        ("nameserver ns.test\nnameserver 10.0.0.2", [Address("10.0.0.2", 53)]),
        ("nameserver [10.0.0.2]:70000", []),
        ("nameserver 10.0.0.2:5353", []),
        ("nameserver", []),
        ("#nameserver 10.0.0.2", []),
        ("; nameserver 10.0.0.2", []),
    ],
)
def test_name_servers(line: str, servers: list[Address]) -> None:
    assert list(parse_resolv_conf(line).servers) == servers


@pytest.mark.parametrize(
    ("text", "hostname", "search"),
    [
        ("", "web-1.prod.test", ["prod.test"]),
        ("", "web-1", []),
        ("domain a.test\n", "web-1.prod.test", ["a.test"]),
        ("search a.test\nsearch b.test c.test\n", "", ["b.test", "c.test"]),
        ("search a.test\ndomain b.test\n", "", ["b.test"]),
        ("search a..test . b.test büro.test " + "x" * 64 + "\n", "", ["b.test"]),
        ("search\n", "web-1.prod.test", ["prod.test"]),
    ],
)
def test_the_last_search_list_counts(text: str, hostname: str, search: list[str]) -> None:
    assert list(parse_resolv_conf(text, hostname).search) == search


@pytest.mark.parametrize(
    ("options", "ndots", "try_s"),
    [
        ("ndots:0 timeout:0", 0, TRY_S),
        ("ndots:99 timeout:99", 15, 30.0),
        ("ndots:-1 timeout:x", 1, TRY_S),
        ("ndots: timeout", 1, TRY_S),
        ("ndots:" + "9" * 5000, 15, TRY_S),
    ],
)
def test_numbers_are_capped(options: str, ndots: int, try_s: float) -> None:
    settings = parse_resolv_conf(f"options {options}\n")
    assert (settings.ndots, settings.try_s) == (ndots, try_s)


@pytest.mark.parametrize(
    ("name", "ndots", "full"),
    [
        ("greeter", 1, ["greeter.a.test.", "greeter.b.test.", "greeter."]),
        ("greeter.default", 1, ["greeter.default.", "greeter.default.a.test.", "greeter.default.b.test."]),
        ("greeter.default", 2, ["greeter.default.a.test.", "greeter.default.b.test.", "greeter.default."]),
        ("greeter", 0, ["greeter.", "greeter.a.test.", "greeter.b.test."]),
        ("greeter.", 5, ["greeter."]),
    ],
)
def test_what_a_short_name_may_stand_for(name: str, ndots: int, full: list[str]) -> None:
    assert list(candidates(name, DnsSettings(search=("a.test", "b.test"), ndots=ndots))) == full


def test_a_name_that_gets_too_long_is_not_tried() -> None:
    name = ".".join(["x" * 60] * 4)
    assert candidates(name, DnsSettings(search=("domain.test", "a.test"), ndots=9)) == (f"{name}.a.test.", f"{name}.")


WORDS = st.sampled_from(
    ["nameserver", "search", "domain", "options", "ndots:", "timeout:7", "10.0.0.2", "[::1]:5", "a.test"]
)


@given(st.text() | st.lists(WORDS | st.text(max_size=5)).map(" ".join) | st.lists(WORDS).map("\n".join))
@example("nameserver \ud800")
@example("options ndots:\u0664")
def test_any_text_gives_settings_that_can_be_used(text: str) -> None:
    settings = parse_resolv_conf(text)
    assert 0 <= settings.ndots <= 15
    assert 0 < settings.try_s <= 30
    assert all(1 <= server.port <= 65535 for server in settings.servers)
    names = candidates("greeter.test", settings)
    assert "greeter.test." in names
    assert all(len(name) <= 254 and ".." not in name for name in names)


def test_a_server_that_is_given_is_the_only_one(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text(POD)
    given_server = Address("10.0.0.7", 5353)
    settings = read_settings(str(path), given_server)
    assert settings.servers == (given_server,)
    assert settings.ndots == 5
    assert read_settings(str(tmp_path / "none"), given_server).servers == (given_server,)


@pytest.mark.parametrize(
    "content", [None, b"", b"search a.test\n", b"\xff\xfe\x00", b"\n" * MAX_SIZE + b"nameserver 10.0.0.2"]
)
def test_none_at_all_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "resolv.conf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ResolutionError, match="gives no usable DNS server .*name a server as in dns://"):
        read_settings(str(path), None)
