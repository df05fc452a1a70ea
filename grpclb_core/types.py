"""The frozen values that rooms hand to one another."""

from __future__ import annotations

import ipaddress
import math
import os
import re
from collections.abc import Mapping
from enum import Enum, IntEnum
from urllib.parse import quote

import msgspec

from .errors import ConfigError

_ZONE = re.compile(r"[A-Za-z0-9._~-]{1,15}")  # RFC 6874 2, unescaped; if_nametoindex(3): 16 bytes, the last one a NUL
_SHOWN = 100  # characters of a host that a message repeats


class Outcome(IntEnum):
    """How a pick ended, as far as balancing is concerned.

    The numbers are those of the compiled core (`slot.pxd`).
    """

    SUCCESS = 0
    """The server answered, be it with an error that is the caller's own fault (as NOT_FOUND)."""
    FAILURE = 1
    """The server failed the call."""
    CANCELLED = 2
    """The caller gave up: the time it waited is a lower bound of the latency, and no more than that."""
    DROPPED = 3
    """The call never left this process, or nobody knows how it ended: it says nothing of the server."""
    TIMED_OUT = 4
    """The server let the deadline pass: a failure that is no sign of life."""
    UNAVAILABLE = 5
    """A failure: the server, or the way to it, was not there (UNAVAILABLE)."""
    RATE_LIMITED = 6
    """A failure: the server wants fewer calls (RESOURCE_EXHAUSTED)."""


class Address(msgspec.Struct, frozen=True, order=True):
    """Where a server listens: an IP address with a port, or the path of a unix socket (`port` is 0).

    Equality of addresses is what makes two endpoints the same endpoint.
    """

    host: str
    port: int = 0

    @property
    def is_unix(self) -> bool:
        return self.port == 0

    @property
    def uri(self) -> str:
        """The address as a gRPC target that dials exactly it."""
        if self.is_unix:
            scheme, name = ("unix-abstract", self.host[1:]) if self.host.startswith("@") else ("unix", self.host)
            return f"{scheme}:{quote(os.fsencode(name))}"  # as gRPC unquotes it, and would cut it at a "#" or "?"
        family = "ipv6" if ":" in self.host else "ipv4"
        return f"{family}:{self}"

    def __str__(self) -> str:
        if self.is_unix:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def ip_address(host: str, port: int, *, where: str) -> Address:
    """Make an address of an IP literal in its canonical form.

    Raises:
        ConfigError: `host` is no IP literal or `port` is outside 1..65535; `where` names the source.
    """
    if not 1 <= port <= 65535:
        raise ConfigError(f"{where}: port {port} is out of range; use 1 to 65535")
    try:
        canonical = str(ipaddress.ip_address(host))
    except ValueError:
        host = host[:_SHOWN]
        is_name = any(character.isalpha() for character in host)
        advice = f"use dns:///{host}:{port} for a name" if is_name else "write all four numbers, as in 127.0.0.1"
        raise ConfigError(f"{where}: {host!r} is not an IP address; {advice}") from None
    _, percent, zone = canonical.partition("%")
    if percent and not _ZONE.fullmatch(zone):
        raise ConfigError(f"{where}: zone {zone[:_SHOWN]!r} is no name or number of a network interface")
    return Address(canonical, port)


class Health(Enum):
    """What a source of endpoints says of one of them; the names of EDS (envoy.config.core.v3.HealthStatus)."""

    UNKNOWN = "unknown"
    """The source does not say; the endpoint is used as a healthy one is."""
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    DRAINING = "draining"
    """It is about to leave: its calls may finish, new ones go elsewhere as long as there is an elsewhere."""


class Verdict(Enum):
    """What active checking says of an endpoint."""

    UNKNOWN = "unknown"
    """It is not checked."""
    PENDING = "pending"
    """It is asked and has not answered yet; until it has, no call goes there (gRFC A17)."""
    SERVING = "serving"
    NOT_SERVING = "not serving"


class Locality(msgspec.Struct, frozen=True, order=True):
    """Where an endpoint runs; empty parts are unknown."""

    region: str = ""
    zone: str = ""
    sub_zone: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.region, self.zone, self.sub_zone) if part)


class Endpoint(msgspec.Struct, frozen=True):
    """One member of a resolution: an address, how much of the load it should get, and what its source says of it.

    Raises:
        ConfigError: the weight is negative, zero, infinite or not a number, or the priority is negative.
    """

    address: Address
    weight: float = 1.0
    locality: Locality = Locality()
    priority: int = 0
    """0 is used first; a higher one only as far as those before it cannot take the load."""
    health: Health = Health.UNKNOWN
    metadata: Mapping[str, str] = {}
    """Whatever else the source tells, for people and for policies of their own."""

    def __post_init__(self) -> None:
        if self.priority < 0:
            raise ConfigError(f"endpoint {self.address}: priority {self.priority} is negative; use 0 or more")
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ConfigError(
                f"endpoint {self.address}: weight {self.weight!r} is not usable; "
                "use a number above 0, or leave the endpoint out"
            )


class Drop(msgspec.Struct, frozen=True):
    """A share of the calls that a control plane wants failed at once (EDS `drop_overloads`)."""

    category: str
    fraction: float
    """From 0 to 1."""


class Resolution(msgspec.Struct, frozen=True):
    """The full set of endpoints at a moment; it replaces the one before, whole."""

    endpoints: tuple[Endpoint, ...]
    version: str = ""
    """What the source calls this state: a resource version, an index, a revision; empty where it has none."""
    ttl_s: float | None = None
    """How long the source says it is good for; None where changes are told as they come."""
    locality_weights: Mapping[Locality, float] = {}
    """The share of each locality, where the source gives one; the weights of endpoints count within theirs."""
    drops: tuple[Drop, ...] = ()
    service_config: str | None = None
    """What the source says of the balancing itself, as gRPC's JSON; None where it says nothing."""


IN_FLIGHT_METRIC = "grpclb.in_flight"
"""Name of our own metric in a `LoadReport`: how many calls the server has under way."""
LATENCY_METRIC = "grpclb.latency_s"
"""Name of our own metric in a `LoadReport`: seconds that calls took which found the server as loaded as it is."""


class LoadReport(msgspec.Struct, frozen=True):
    """What a server says of its load; the fields of xds.data.orca.v3.OrcaLoadReport (gRFC A51)."""

    cpu_utilization: float = 0.0
    """Part of the processor in use; above 1 where the server is past what it was given."""
    mem_utilization: float = 0.0
    """Part of the memory in use, from 0 to 1."""
    application_utilization: float = 0.0
    """How busy the server is by its own measure; above 1 past its capacity. It goes before `cpu_utilization`."""
    rps_fractional: float = 0.0
    """Calls per second that it ends."""
    eps: float = 0.0
    """Calls per second that it fails."""
    utilization: Mapping[str, float] = {}
    """Other resources by name, each from 0 to 1."""
    request_cost: Mapping[str, float] = {}
    """What this one call cost, by name, in units of the application."""
    named_metrics: Mapping[str, float] = {}
    """Anything else; `IN_FLIGHT_METRIC` and `LATENCY_METRIC` are here."""
