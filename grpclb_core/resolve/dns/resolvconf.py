"""What resolv.conf(5) says: which name servers to ask, and which names a short name may stand for.

Read `parse_resolv_conf` first; it and `candidates` are pure. What cannot be used is left out, as libc does. A name
server may stand on another port than 53 when it is written as OpenBSD writes it: `nameserver [10.0.0.2]:5353`.
"""

from __future__ import annotations

import re
import socket
from itertools import islice

import msgspec

from ...errors import ConfigError, ResolutionError
from ...types import Address, ip_address
from ..target import DNS_PORT, MAX_NAME

RESOLV_CONF = "/etc/resolv.conf"
MAX_SIZE = 64 * 1024
"""Characters read of the file; what comes after is no longer a configuration."""
MAX_SERVERS = 3  # resolv.conf(5): MAXNS
MAX_SEARCH = 32  # Kubernetes' own ceiling (MaxDNSSearchPaths); each name may be asked of each server
MAX_NDOTS = 15  # resolv.conf(5): "silently capped to 15"
MAX_TRY_S = 30.0  # resolv.conf(5): "silently capped to 30"
TRY_S = 2.0
"""How long one name server is waited for where the file does not say: what dnspython has. libc waits 5 s, which would
leave a lookup no time for the next server."""

_DOMAIN = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*")  # as in a target, see target.py
_BRACKETS = re.compile(r"\[([^\]]+)\](?::([0-9]{1,5}))?")


class DnsSettings(msgspec.Struct, frozen=True):
    """How to ask DNS; two lookups with equal settings are the same lookup."""

    servers: tuple[Address, ...] = ()
    """In the order of preference."""
    search: tuple[str, ...] = ()
    """Domains that lengthen a short name, without their final dots."""
    ndots: int = 1
    """A name with fewer dots is lengthened before it is tried as it stands."""
    try_s: float = TRY_S
    """How long one name server is waited for, until the next one is asked."""
    rotate: bool = False
    """Begin with any of the servers, instead of the first."""
    edns: bool = False
    """Allow datagrams beyond 512 bytes (RFC 6891)."""
    tcp: bool = False
    """Ask over TCP from the start (`use-vc`)."""


def read_settings(path: str, server: Address | None) -> DnsSettings:
    """Read the machine's settings; `server`, where one is given, is the only one to ask.

    Raises:
        ResolutionError: no server is given, and the file names none or cannot be read.
    """
    text, reason = "", "it has no line such as 'nameserver 10.0.0.2'"
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(MAX_SIZE)
    except OSError as error:
        reason = str(error)
    settings = parse_resolv_conf(text, socket.gethostname())
    if server is not None:
        return msgspec.structs.replace(settings, servers=(server,))
    if not settings.servers:
        advice = "repair it, or name a server as in dns://10.0.0.2/host:port"
        raise ResolutionError(f"{path} gives no usable DNS server ({reason}); {advice}")
    return settings


def parse_resolv_conf(text: str, hostname: str = "") -> DnsSettings:
    """Read resolv.conf(5); where it has no domain, that of `hostname` is the one to search."""
    servers: dict[Address, None] = {}
    options: list[str] = []
    search = [hostname.partition(".")[2]]
    for line in text.splitlines():
        keyword, *values = line.split() or [""]
        if not values:
            continue
        if keyword == "nameserver":
            servers |= dict.fromkeys(_server(values[0]))
        elif keyword in ("domain", "search"):  # the last of them counts
            search = values if keyword == "search" else values[:1]
        elif keyword == "options":
            options += values
    domains = (domain.removesuffix(".") for domain in search)
    usable = (domain for domain in domains if _DOMAIN.fullmatch(domain) and len(domain) <= MAX_NAME)
    return DnsSettings(
        servers=tuple(servers)[:MAX_SERVERS],
        search=tuple(islice(usable, MAX_SEARCH)),
        ndots=min(_number(options, "ndots", 1), MAX_NDOTS),
        try_s=min(_number(options, "timeout", 0) or TRY_S, MAX_TRY_S),
        rotate="rotate" in options,
        edns="edns0" in options,
        tcp="use-vc" in options,
    )


def candidates(name: str, settings: DnsSettings) -> tuple[str, ...]:
    """Give the full names that a name may stand for, in the order to try them; each ends with a dot."""
    if name.endswith("."):
        return (name,)
    longer = [f"{name}.{domain}." for domain in settings.search if len(name) + 1 + len(domain) <= MAX_NAME]
    if name.count(".") >= settings.ndots:
        return (f"{name}.", *longer)
    return (*longer, f"{name}.")


def _server(text: str) -> tuple[Address, ...]:
    brackets = _BRACKETS.fullmatch(text)
    host, port = (brackets[1], int(brackets[2] or DNS_PORT)) if brackets else (text, DNS_PORT)
    try:
        return (ip_address(host, port, where=RESOLV_CONF),)
    except ConfigError:
        return ()


def _number(options: list[str], name: str, default: int) -> int:
    found = [option.partition(":")[2] for option in options if option.startswith(f"{name}:")]
    digits = [text[:9] for text in found if text.isascii() and text.isdigit()]
    return int(digits[-1]) if digits else default
