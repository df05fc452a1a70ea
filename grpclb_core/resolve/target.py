"""What the user asked for: a target string, parsed once.

The forms are gRPC's own (https://github.com/grpc/grpc/blob/master/doc/naming.md):

    greeter:50051   dns:greeter:50051   dns:///greeter:50051   dns://10.0.0.2:53/greeter:50051
    ipv4:10.0.0.1:50051,10.0.0.2:50051   ipv6:[::1]:50051
    unix:run/greeter.sock   unix:///run/greeter.sock   unix-abstract:greeter

Read `parse_target` first. Every other scheme is followed by two slashes (`k8s:///greeter.default:50051`), so that a
host of that name stays one; what comes then is for the resolver of the scheme to read. Where gRPC guesses, this module
refuses: an IPv6 address must stand in brackets, and what could be a forgotten scheme or a mistyped address is not
looked up as a name.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote_to_bytes

import msgspec

from ..errors import ConfigError, TargetError
from ..types import Address, ip_address
from .schemes import known_schemes

DEFAULT_PORT = 443  # gRPC naming: "if not specified, 443 is used"
DNS_PORT = 53  # RFC 1035 4.2
MAX_NAME = 253  # RFC 1035 2.3.4: 255 octets on the wire, less the first length and the root
MAX_SOCKET_PATH = 107  # unix(7): `sun_path` holds 108 bytes, the last one a NUL (or the first, of an abstract name)
_SHOWN = 100  # characters of a target that a message repeats; a list of addresses may run to thousands

_PORT = re.compile(r"[0-9]{1,5}")
# RFC 1123 labels, and the underscore that service names carry. RFC 1035 2.3.4: a label has at most 63 octets.
_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
# UTS 46, section 7: IDNA 2003 and 2008 send these four to different domains, hence to different servers.
_DEVIATIONS = re.compile("[ß\u03c2\u200c\u200d]")


class Target(msgspec.Struct, frozen=True):
    """A parsed target: either a name to look up, or the addresses it spells out."""

    text: str
    """The target as the user gave it."""
    scheme: str
    host: str = ""
    """Of a `dns` target: the name in ASCII form, or an IP address in canonical form."""
    port: int = 0
    server: Address | None = None
    """The one DNS server to ask; None asks those of the machine."""
    authority: str | None = None
    """What calls carry as `:authority`, its host being the TLS name; None means each endpoint's own address."""
    addresses: tuple[Address, ...] = ()
    """What needs no lookup; empty when `host` is a name."""
    rest: str = ""
    """Of the other schemes: what follows the colon, for the resolver of that scheme to read."""


def parse_target(text: str) -> Target:
    """Parse a target string.

    Raises:
        TargetError: the scheme is unknown or a part cannot be used; one problem for each address of a list at fault.
    """
    if not isinstance(text, str):
        raise TargetError(f"target {text!r}: expected a string such as 'dns:///host:50051', got {type(text).__name__}")
    with problems_of(text):
        return _parse(text)


@contextmanager
def problems_of(text: str) -> Iterator[None]:
    """Put the target in front of every problem that is found with it."""
    try:
        yield
    except ConfigError as error:
        shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
        raise TargetError([f"target {shown!r}: {problem}" for problem in error.problems]) from None


def _parse(text: str) -> Target:
    if not text:
        raise TargetError("it is empty; write host:port or dns:///host:port")
    if " " in text or not text.isprintable():
        raise TargetError("it holds a space, a control or an invisible character; remove it (%20 in a socket's path)")
    scheme, colon, rest = text.partition(":")
    scheme = scheme.lower()
    if colon and scheme in _PARSERS:
        return _PARSERS[scheme](text, rest)
    if rest.startswith("//"):
        if scheme in known_schemes():
            return Target(text=text, scheme=scheme, rest=rest)
        raise TargetError(f"unknown scheme {scheme!r}; known are {_known()}, and a bare host:port means dns")
    if "/" in text and not colon and text.isascii() and text[0] not in "/.":
        # grpc.aio takes such a target and lets its calls fail, and programs use one as the target that cannot work.
        return Target(text=text, scheme="dns", host=text, port=DEFAULT_PORT)
    if "/" in text or "\\" in text:
        raise TargetError("it looks like a path; write unix:/path/of.sock for a socket, host:port for a name")
    return _name_target(text, text)


def _known() -> str:
    return ", ".join(known_schemes())


def _parse_dns(text: str, rest: str) -> Target:
    if not rest.startswith("//"):
        return _name_target(text, rest.removeprefix("/"))
    server, _, name = rest[2:].partition("/")
    if server and not name:
        raise TargetError(f"what follows two slashes is a DNS server; write dns:///{server} to look up a name")
    return _name_target(text, name, parse_server(server) if server else None)


def parse_server(text: str) -> Address:
    try:
        host, port = _split_port(text)
        return _literal(host, port or DNS_PORT)
    except ConfigError as error:
        raise TargetError([f"DNS server: {problem}" for problem in error.problems]) from None


def _name_target(text: str, name: str, server: Address | None = None) -> Target:
    if "," in name:
        raise TargetError("a dns target is one host; write ipv4:a:port,b:port for a list of addresses")
    host, port = _split_port(name)
    addresses: tuple[Address, ...] = ()
    if host.startswith("["):
        addresses = (_literal(host, port or DEFAULT_PORT),)
    else:
        host = ascii_name(host)
        if is_number(host.removesuffix(".").rpartition(".")[2]):
            # WHATWG URL, "ends in a number": such a host is an IPv4 address or a mistake, as no top domain is a number.
            addresses = (_literal(host, port or DEFAULT_PORT),)
    if addresses:
        host = addresses[0].host
    # gRPC sends the port only when the user wrote it. A final dot (no search list) belongs to DNS alone: RFC 6066 3.
    authority = f"[{host}]" if ":" in host else host.removesuffix(".")
    return Target(
        text=text,
        scheme="dns",
        host=host,
        port=port or DEFAULT_PORT,
        server=server,
        authority=f"{authority}:{port}" if port else authority,
        addresses=addresses,
    )


def is_number(label: str) -> bool:
    return label.isascii() and label.isdigit()


def ascii_name(host: str) -> str:
    """Check a host name and give its ASCII form (IDNA 2003, as Python's own codec has it)."""
    if len(host.removesuffix(".")) > MAX_NAME:
        raise TargetError(f"host of {len(host)} characters is too long; a name has at most {MAX_NAME}")
    if not host.isascii():
        if _DEVIATIONS.search(host):
            raise TargetError(f"host {host!r} means different names to different programs; write its xn-- form")
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError as error:
            raise TargetError(f"host {host!r} has no ASCII form ({error}); write its xn-- form") from None
    if not _NAME.fullmatch(host) or len(host.removesuffix(".")) > MAX_NAME:
        raise TargetError(
            f"host {host!r} is no host name; use letters, digits, '-', '_' and dots, at most 63 between two dots"
        )
    return host


def _split_port(item: str) -> tuple[str, int | None]:
    """Split `host:port`, the brackets of an IPv6 address left on the host; the port is None when left out."""
    if item.startswith("["):
        host, bracket, tail = item.partition("]")
        host += bracket
        if not bracket or (tail and not tail.startswith(":")):
            raise TargetError(f"brackets of {item!r} do not match; write [::1]:50051")
        colon, port = tail[:1], tail[1:]
    else:
        host, colon, port = item.partition(":")
        if ":" in port:
            raise TargetError(f"{item!r} has several colons; put an IPv6 address in brackets, as in [::1]:50051")
        if "[" in item or "]" in item:
            raise TargetError(f"brackets of {item!r} do not match; write [::1]:50051")
    if not host:
        raise TargetError("host is missing; write host:port")
    if not colon:
        return host, None
    if not _PORT.fullmatch(port) or not 1 <= int(port) <= 65535:
        raise TargetError(f"port {port!r} is not a number from 1 to 65535 (and {host!r} no scheme; known: {_known()})")
    return host, int(port)


def _literal(host: str, port: int, version: int | None = None) -> Address:
    """Make an address of an IP literal, IPv6 in brackets; `version` is the only IP version allowed."""
    bare = host[1:-1].replace("%25", "%") if host.startswith("[") else host  # RFC 6874: %25 begins a zone
    address = ip_address(bare, port, where=f"host {host!r}")
    found = ipaddress.ip_address(address.host).version
    if version is not None and found != version:
        raise TargetError(f"host {host!r} is an IPv{found} address; list it under ipv{found}:")
    if host.startswith("[") != (found == 6):
        raise TargetError(f"host {host!r}: brackets are for IPv6 addresses, and for them alone")
    return address


def _parse_list(text: str, rest: str, version: int) -> Target:
    problems: list[str] = []
    addresses: dict[Address, None] = {}
    for item in _without_authority(rest).removeprefix("/").split(","):
        if not item:
            problems.append("an address of the list is empty; remove the comma or write the address")
            continue
        try:
            host, port = _split_port(item)
            address = _literal(host, port or DEFAULT_PORT, version)
        except ConfigError as error:
            problems += error.problems
            continue
        if address in addresses:
            problems.append(f"address {address} is listed twice; list it once")
        addresses[address] = None
    if problems:
        raise TargetError(problems)
    return Target(text=text, scheme=f"ipv{version}", addresses=tuple(addresses))


def _parse_ipv4(text: str, rest: str) -> Target:
    return _parse_list(text, rest, 4)


def _parse_ipv6(text: str, rest: str) -> Target:
    return _parse_list(text, rest, 6)


def _parse_unix(text: str, rest: str) -> Target:
    path = _socket_name(_without_authority(rest))
    # An address that begins with "@" is an abstract one.
    return _socket_target(text, "unix", f"./{path}" if path.startswith("@") else path)


def _parse_unix_abstract(text: str, rest: str) -> Target:
    return _socket_target(text, "unix-abstract", "@" + _socket_name(_without_authority(rest)))


def _without_authority(rest: str) -> str:
    if not rest.startswith("//"):
        return rest
    if rest[2:3] != "/":
        raise TargetError("this scheme knows no server between slashes; begin with three slashes, or with none")
    return rest[2:]


def _socket_name(quoted: str) -> str:
    # gRPC takes the path for a part of a URI, so %20 is a space.
    name = os.fsdecode(unquote_to_bytes(quoted))
    if not name:
        raise TargetError("the socket's path is missing; write unix:/path/of.sock")
    if "\0" in name:
        raise TargetError("the socket's path holds a NUL; remove it")
    return name


def _socket_target(text: str, scheme: str, path: str) -> Target:
    size = len(os.fsencode(path))
    if size > MAX_SOCKET_PATH:
        raise TargetError(f"the socket's path has {size} bytes; the system allows {MAX_SOCKET_PATH}")
    # As grpc-go. C-core sends the path, escaped, which is no host and which strict HTTP/2 servers refuse.
    return Target(text=text, scheme=scheme, authority="localhost", addresses=(Address(path),))


_PARSERS = {
    "dns": _parse_dns,
    "ipv4": _parse_ipv4,
    "ipv6": _parse_ipv6,
    "unix": _parse_unix,
    "unix-abstract": _parse_unix_abstract,
}
