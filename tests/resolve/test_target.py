"""What a target string says."""

from __future__ import annotations

import string

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from grpclb_core.config import Config
from grpclb_core.errors import TargetError
from grpclb_core.resolve import Target, parse_target, resolver_for
from grpclb_core.types import Address
from support.recorder import Recorder

LOCAL = Address("127.0.0.1", 50051)
LOOPBACK6 = Address("::1", 50051)


@pytest.mark.parametrize(
    ("text", "host", "port", "authority"),
    [
        ("greeter:50051", "greeter", 50051, "greeter:50051"),
        ("localhost:50051", "localhost", 50051, "localhost:50051"),
        ("greeter", "greeter", 443, "greeter"),
        ("dns:greeter:50051", "greeter", 50051, "greeter:50051"),
        ("dns:/greeter:50051", "greeter", 50051, "greeter:50051"),
        ("dns:///greeter.default.svc:1", "greeter.default.svc", 1, "greeter.default.svc:1"),
        ("DNS:///Greeter:65535", "Greeter", 65535, "Greeter:65535"),
        ("dns:///greeter", "greeter", 443, "greeter"),
        ("dns:///greeter:443", "greeter", 443, "greeter:443"),
        ("greeter.test.:50051", "greeter.test.", 50051, "greeter.test:50051"),
        ("_grpc.greeter-1:50051", "_grpc.greeter-1", 50051, "_grpc.greeter-1:50051"),
        ("k8s:50051", "k8s", 50051, "k8s:50051"),
        ("dns:///dns:50051", "dns", 50051, "dns:50051"),
        ("bücher.test:50051", "xn--bcher-kva.test", 50051, "xn--bcher-kva.test:50051"),
        ("dns:///例え.test", "xn--r8jz45g.test", 443, "xn--r8jz45g.test"),
    ],
)
def test_names_to_look_up(text: str, host: str, port: int, authority: str) -> None:
    assert parse_target(text) == Target(text=text, scheme="dns", host=host, port=port, authority=authority)


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("dns://10.0.0.2/greeter:50051", Address("10.0.0.2", 53)),
        ("dns://10.0.0.2:5353/greeter:50051", Address("10.0.0.2", 5353)),
        ("dns://[::1]/greeter:50051", Address("::1", 53)),
        ("dns://[::1]:5353/greeter:50051", Address("::1", 5353)),
    ],
)
def test_dns_server(text: str, server: Address) -> None:
    target = parse_target(text)
    assert (target.server, target.host, target.port, target.addresses) == (server, "greeter", 50051, ())


@pytest.mark.parametrize(
    ("text", "address", "authority"),
    [
        ("127.0.0.1:50051", LOCAL, "127.0.0.1:50051"),
        ("dns:///127.0.0.1:50051", LOCAL, "127.0.0.1:50051"),
        ("127.0.0.1", Address("127.0.0.1", 443), "127.0.0.1"),
        ("[::1]:50051", LOOPBACK6, "[::1]:50051"),
        ("[0:0::1]", Address("::1", 443), "[::1]"),
        ("dns:[::1]:50051", LOOPBACK6, "[::1]:50051"),
        ("[fe80::1%eth0]:50051", Address("fe80::1%eth0", 50051), "[fe80::1%eth0]:50051"),
        ("[fe80::1%25eth0]:50051", Address("fe80::1%eth0", 50051), "[fe80::1%eth0]:50051"),
        ("\uff11\uff12\uff17.0.0.1:50051", LOCAL, "127.0.0.1:50051"),
    ],
)
def test_ip_addresses_need_no_lookup(text: str, address: Address, authority: str) -> None:
    target = parse_target(text)
    assert target.addresses == (address,)
    assert (target.scheme, target.host, target.port) == ("dns", address.host, address.port)
    assert target.authority == authority


@pytest.mark.parametrize(
    ("text", "scheme", "addresses"),
    [
        ("ipv4:127.0.0.1:50051", "ipv4", (LOCAL,)),
        ("ipv4:///127.0.0.1:50051", "ipv4", (LOCAL,)),
        ("ipv4:10.0.0.2:2,10.0.0.1:1", "ipv4", (Address("10.0.0.2", 2), Address("10.0.0.1", 1))),
        ("ipv4:127.0.0.1", "ipv4", (Address("127.0.0.1", 443),)),
        ("ipv6:[::1]:50051,[2001:DB8::1]:2", "ipv6", (LOOPBACK6, Address("2001:db8::1", 2))),
        ("ipv6:///[::1]:50051", "ipv6", (LOOPBACK6,)),
        ("ipv6:[::1]", "ipv6", (Address("::1", 443),)),
    ],
)
def test_address_lists_keep_their_order(text: str, scheme: str, addresses: tuple[Address, ...]) -> None:
    assert parse_target(text) == Target(text=text, scheme=scheme, addresses=addresses)


@pytest.mark.parametrize(
    ("text", "scheme", "path"),
    [
        ("unix:run/a.sock", "unix", "run/a.sock"),
        ("unix:/run/a.sock", "unix", "/run/a.sock"),
        ("unix:///run/a.sock", "unix", "/run/a.sock"),
        ("unix:/run/a%20b.sock", "unix", "/run/a b.sock"),
        ("unix:/run/100%", "unix", "/run/100%"),
        ("unix:@odd", "unix", "./@odd"),
        ("unix-abstract:greeter", "unix-abstract", "@greeter"),
        ("UNIX:" + "x" * 107, "unix", "x" * 107),
    ],
)
def test_sockets(text: str, scheme: str, path: str) -> None:
    assert parse_target(text) == Target(text=text, scheme=scheme, authority="localhost", addresses=(Address(path),))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("dns:", "host is missing"),
        ("dns:///", "host is missing"),
        (":50051", "host is missing"),
        ("dns:///:50051", "host is missing"),
        ("dns://10.0.0.2/", r"two slashes is a DNS server; write dns:///10\.0\.0\.2"),
        ("dns://greeter:50051", "write dns:///greeter:50051"),
        ("dns://ns.test/greeter", "DNS server: host 'ns.test': 'ns.test' is not an IP address"),
        ("dns://10.0.0.2:0/greeter", "DNS server: port '0'"),
        ("dns:///a/b", "'a/b' is no host name"),
        ("dns:///greeter:50051?x=1", "port '50051\\?x=1' is not a number"),
        ("greeter:", "port '' is not a number"),
        ("greeter:0", "port '0' is not a number from 1 to 65535"),
        ("greeter:65536", "port '65536'"),
        ("greeter:-1", "port '-1'"),
        ("greeter:+1", "port '\\+1'"),
        ("greeter:http", "port 'http' is not a number"),
        ("greeter:\uff11", "port '\uff11' is not a number"),
        ("greeter:" + "0" * 5000 + "1", "is not a number"),
        ("xds:cluster", "'xds' no scheme; known: consul, dns, "),
        ("zookeeper:///greeter", "unknown scheme 'zookeeper'; known are .*dns"),
        ("zookeeper:///greeter", "unknown scheme 'zookeeper'"),
        ("https://greeter:50051", "unknown scheme 'https'"),
        ("/run/a.sock", "looks like a path; write unix:"),
        ("./a.sock", "looks like a path"),
        ("C:\\run\\a.sock", "looks like a path"),
        ("C:/run/a.sock", "looks like a path"),
        ("greeter /a", "holds a space"),
        (" greeter:50051", "holds a space"),
        ("greeter:50051\n", "a control"),
        ("gre\x00eter", "a control"),
        ("gre\u200beter:1", "an invisible character"),
        ("\ud800:1", "an invisible character"),
        ("::1", "put an IPv6 address in brackets"),
        ("fe80::1:50051", "put an IPv6 address in brackets"),
        ("[::1", "brackets of '\\[::1' do not match"),
        ("::1]:50051", "brackets"),
        ("[::1]50051", "do not match"),
        ("[]:50051", "not an IP address"),
        ("[127.0.0.1]:50051", "brackets are for IPv6"),
        ("[greeter]:50051", "not an IP address"),
        ("gr[eeter:1", "do not match"),
        ("[fe80::1%]:1", "not an IP address"),
        ("127.0.0.1%eth0:1", "no host name"),
        ("127.0.0.300:50051", "not an IP address"),
        ("127.0.0.01:50051", "not an IP address"),
        ("50051", "not an IP address"),
        ("10.0.0.1:1,10.0.0.2:1", "write ipv4:"),
        ("user@greeter:1", "no host name"),
        ("a..b:1", "no host name"),
        (".:1", "no host name"),
        ("a" * 64 + ":1", "at most 63"),
        (".".join(["a" * 50] * 6), "305 characters is too long"),
        ("ü" * 60 + ":1", "no ASCII form"),
        (".".join(["ü" * 30] * 8), "no host name"),
        ("faß.test:1", "means different names"),
        ("a\uff0fb:1", "no host name"),
        ("ipv4:", "an address of the list is empty"),
        ("ipv4:127.0.0.1:1,", "an address of the list is empty"),
        ("ipv4:127.0.0.1:1,,10.0.0.1:1", "an address of the list is empty"),
        ("ipv4:127.0.0.1:1,127.0.0.1:1", "127.0.0.1:1 is listed twice"),
        ("ipv6:[::1]:1,[0::1]:1", r"\[::1\]:1 is listed twice"),
        ("ipv4:greeter:1", "not an IP address; use dns:///greeter:1"),
        ("ipv4:[::1]:1", "is an IPv6 address; list it under ipv6:"),
        ("ipv6:127.0.0.1:1", "is an IPv4 address; list it under ipv4:"),
        ("ipv6:::1", "put an IPv6 address in brackets"),
        ("ipv4://127.0.0.1:1", "begin with three slashes"),
        ("unix:", "path is missing"),
        ("unix://", "begin with three slashes"),
        ("unix://run/a.sock", "begin with three slashes"),
        ("unix:/run/%00", "NUL"),
        ("unix:" + "x" * 108, "108 bytes; the system allows 107"),
        ("unix-abstract:", "path is missing"),
        ("unix-abstract:" + "x" * 107, "108 bytes"),
    ],
)
def test_refused(text: str, says: str) -> None:
    with pytest.raises(TargetError, match=says) as caught:
        parse_target(text)
    assert all(problem.startswith("target '") for problem in caught.value.problems)


@pytest.mark.parametrize("value", [None, 50051, b"greeter:50051", ["greeter:50051"]])
def test_only_strings(value: object) -> None:
    with pytest.raises(TargetError, match="expected a string"):
        parse_target(value)  # type: ignore[arg-type]


def test_every_faulty_address_of_a_list_is_reported() -> None:
    with pytest.raises(TargetError) as caught:
        parse_target("ipv4:127.0.0.1:0,greeter:1,127.0.0.1:1,,127.0.0.1:1")
    assert len(caught.value.problems) == 4


def test_long_targets_are_cut_in_messages() -> None:
    with pytest.raises(TargetError) as caught:
        parse_target("ipv4:" + "127.0.0.1:1," * 1000)
    assert all(len(problem) < 300 for problem in caught.value.problems)


PIECES = st.sampled_from(
    ["dns", "ipv4", "ipv6", "unix", "unix-abstract", ":", "/", "//", "///", "[", "]", ",", "%", "%25", "%00", "@", ".",
     "::1", "127.0.0.1", "localhost", "50051", "0", "xn--", "ü", "\u3002", " ", "a" * 64]
)  # fmt: skip


@given(st.one_of(st.text(max_size=300), st.lists(PIECES, max_size=12).map("".join)))
@example("dns:\uff0f\uff0fa")
def test_any_text_gives_a_target_or_a_target_error(text: str) -> None:
    try:
        target = parse_target(text)
    except TargetError:
        return
    assert target.text == text
    assert target.scheme in {"dns", "ipv4", "ipv6", "unix", "unix-abstract"}
    if "/" in target.host:
        assert target.addresses == ()
        assert target.host == text
    elif target.scheme == "dns":
        assert target.host.isascii()
        assert 1 <= target.port <= 65535
        assert target.authority
    else:
        assert target.addresses
        assert target.host == ""
    for address in target.addresses:
        assert parse_target(address.uri).addresses == (address,)


LABELS = st.text(string.ascii_letters + string.digits + "-_", min_size=1, max_size=63)
NAMES = st.lists(LABELS, min_size=1, max_size=3).map(".".join).filter(lambda name: not name.split(".")[-1].isdigit())
PORTS = st.integers(1, 65535)
IPS = st.ip_addresses().map(str)


@given(NAMES, PORTS, st.none() | st.builds(Address, IPS, PORTS))
def test_dns_round_trip(host: str, port: int, server: Address | None) -> None:
    target = parse_target(f"dns://{server or ''}/{host}:{port}")
    assert (target.host, target.port, target.server) == (host, port, server)
    assert target.authority == f"{host}:{port}"


@given(st.lists(st.builds(Address, st.ip_addresses(v=4).map(str), PORTS), min_size=1, unique=True))
def test_address_list_round_trip(addresses: list[Address]) -> None:
    assert parse_target("ipv4:" + ",".join(map(str, addresses))).addresses == tuple(addresses)


@given(st.text(min_size=1, max_size=20))
def test_socket_address_round_trip(path: str) -> None:
    # Not addresses that a target can give: a NUL, an abstract socket without a name, or what reads as `//server`.
    assume("\0" not in path and path != "@" and not path.removeprefix("@").startswith("//"))
    assert parse_target(Address(path).uri).addresses == (Address(path),)


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
@pytest.mark.anyio
async def test_bare_path_is_a_target_without_endpoints(anyio_backend: str) -> None:
    """As with grpc.aio, whose own tests call `foo/bar` the unreachable target."""
    recorder = Recorder()
    await resolver_for(parse_target("foo/bar"), Config()).run(recorder)
    assert recorder.updates == []
    assert ["is no host name" in str(error) for error in recorder.errors] == [True]
