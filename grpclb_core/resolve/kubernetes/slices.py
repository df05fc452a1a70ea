"""What EndpointSlices say: pure functions from the objects of the API to endpoints.

A service has any number of slices (https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/), and one
endpoint may stand in two of them while it moves from one to the other. What the conditions of an endpoint mean, where
`ready` and `serving` are true and `terminating` is false unless they are given:

    terminating  serving  ready    health
    no           any      yes      HEALTHY      also when `serving` is not: the service publishes those not ready
    no           any      no       UNHEALTHY
    yes          yes      any      DRAINING     it finishes its calls; new ones only when there is no one else
    yes          no       any      UNHEALTHY

`serving` is that of `ready` where only `ready` is given. Fields that are absent are nothing, a wrong type is a
`ResolutionError`, and an endpoint that cannot be used is left out and told as a problem.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from ...errors import ConfigError, ResolutionError
from ...types import Endpoint, Health, Locality, ip_address

MAX_ENDPOINTS = 10_000  # beyond is ignored, as in every resolver of this room
_MAX_NAME = 253  # RFC 1123 subdomain, which Kubernetes holds names to; each problem repeats it
_SHOWN = 3  # problems and ports that a message repeats
_SHOWN_NAME = 63  # characters of the name of a port there; Kubernetes allows no more

# An endpoint that stands in two slices has one stale entry. The better one counts: a server that is gone is noticed by
# its connection, one that is wrongly thought gone would only be noticed by its absence.
_BEST_FIRST = (Health.HEALTHY, Health.DRAINING, Health.UNHEALTHY)


class Member(msgspec.Struct, frozen=True):
    """An endpoint of a slice."""

    endpoint: Endpoint
    owner: str
    """What the address belongs to, a pod as a rule; the same in the slices of both IP families. Empty if unknown."""


class Slice(msgspec.Struct, frozen=True):
    """What one slice contributes."""

    name: str
    members: tuple[Member, ...] = ()
    problems: tuple[str, ...] = ()


class Metadata(msgspec.Struct, rename="camel"):
    """The part of an object's or a list's metadata that counts here."""

    name: str | None = None
    resource_version: str | None = None
    continue_: str | None = msgspec.field(default=None, name="continue")


class _Conditions(msgspec.Struct):
    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class _Reference(msgspec.Struct):
    kind: str | None = None
    namespace: str | None = None
    name: str | None = None


class _Named(msgspec.Struct):
    name: str | None = None


class _Hints(msgspec.Struct, rename="camel"):
    for_zones: list[_Named] | None = None


class _Member(msgspec.Struct, rename="camel"):
    addresses: list[str] | None = None
    conditions: _Conditions | None = None
    zone: str | None = None
    node_name: str | None = None
    target_ref: _Reference | None = None
    hints: _Hints | None = None


class _Port(msgspec.Struct):
    name: str | None = None
    port: int | None = None
    protocol: str | None = None


class SliceObject(msgspec.Struct, rename="camel"):
    """An EndpointSlice as the API gives it (discovery.k8s.io/v1), less what does not matter here."""

    metadata: Metadata
    address_type: str | None = None
    endpoints: list[_Member] | None = None
    ports: list[_Port] | None = None


def health_of(ready: bool | None, serving: bool | None, terminating: bool | None) -> Health:
    """Map the conditions of an endpoint by the table at the top of this module."""
    is_ready = ready is not False
    is_serving = is_ready if serving is None else serving
    if terminating:
        return Health.DRAINING if is_serving else Health.UNHEALTHY
    return Health.HEALTHY if is_ready else Health.UNHEALTHY


def read_slice(found: SliceObject, port: int | str | None) -> Slice:
    """Give the endpoints of a slice at the wanted port.

    Raises:
        ResolutionError: the slice has no name, so that later changes of it could not be told from others.
    """
    name = found.metadata.name
    if not name or len(name) > _MAX_NAME:
        raise ResolutionError(f"an EndpointSlice has no metadata.name of 1 to {_MAX_NAME} characters")
    if not found.endpoints:
        return Slice(name)
    if found.address_type == "FQDN":
        reason = "its addresses are names (addressType FQDN); use a dns:/// target for each of them"
        return Slice(name, problems=(f"EndpointSlice {name}: {reason}",))
    try:
        number = _port_of(found.ports or [], port)
    except ConfigError as error:
        return Slice(name, problems=(f"EndpointSlice {name}: {error}",))
    members: list[Member] = []
    problems: list[str] = []
    for position, member in enumerate(found.endpoints):
        where = f"EndpointSlice {name}: endpoints[{position}]"
        try:
            members.append(_read_member(member, number, where))
        except ConfigError as error:
            problems += error.problems
    return Slice(name, tuple(members), tuple(problems))


def merge(slices: Iterable[Slice], preferred_family: str) -> tuple[tuple[Endpoint, ...], str]:
    """Join the slices of a service: the endpoints sorted by address, and the problems as one text.

    An endpoint that two slices list counts once, and a pod that has addresses of both families counts by the
    preferred one (`ipv4` or `ipv6`).
    """
    by_name = sorted(slices, key=lambda each: each.name)  # so that a tie is always broken the same way
    members = [member for each in by_name for member in each.members]
    preferred = {member.owner for member in members if member.owner and _family(member) == preferred_family}
    best: dict[object, Endpoint] = {}
    for member in members:
        if member.owner in preferred and _family(member) != preferred_family:
            continue
        endpoint = member.endpoint
        other = best.get(endpoint.address)
        if other is None or _BEST_FIRST.index(endpoint.health) < _BEST_FIRST.index(other.health):
            best[endpoint.address] = endpoint
    endpoints = sorted(best.values(), key=lambda endpoint: endpoint.address)
    problems = [problem for each in by_name for problem in each.problems]
    if len(endpoints) > MAX_ENDPOINTS:
        problems.append(f"{len(endpoints)} endpoints are more than {MAX_ENDPOINTS}; the others are not used")
    return tuple(endpoints[:MAX_ENDPOINTS]), _shortened(problems, "; ")


def _family(member: Member) -> str:
    return "ipv6" if ":" in member.endpoint.address.host else "ipv4"


def _port_of(ports: list[_Port], wanted: int | str | None) -> int:
    """Choose among the TCP ports of a slice.

    A slice without ports is that of a headless service which names none, and a port without a number stands for all:
    there a number is taken as it is.
    """
    listed = [port for port in ports if (port.protocol or "TCP") == "TCP"]
    if isinstance(wanted, int):
        if not ports or any(port.port in (wanted, None) for port in listed):
            return wanted
    else:
        found = [port.port for port in listed if port.port and (wanted is None or (port.name or "") == wanted)]
        if len(found) == 1:
            return found[0]
    shown = _shortened([f"{port.name or 'unnamed':.{_SHOWN_NAME}} ({port.port})" for port in listed], ", ") or "none"
    if wanted is None:
        raise ConfigError(f"the target names no port, and the slice has not just one for TCP but {shown}; add :port")
    raise ConfigError(
        f"no TCP port {wanted!r}, only {shown}; use one of these names or numbers (a number is the port of the pods, "
        "not that of the service)"
    )


def _read_member(member: _Member, port: int, where: str) -> Member:
    if not member.addresses:
        raise ConfigError(f"{where}: it has no address")
    conditions, owner = member.conditions or _Conditions(), member.target_ref or _Reference()
    return Member(
        Endpoint(
            # The others mean the same server, says the API, and kube-proxy too takes the first alone.
            address=ip_address(member.addresses[0], port, where=where),
            locality=Locality(zone=member.zone or ""),
            health=health_of(conditions.ready, conditions.serving, conditions.terminating),
            metadata=_metadata(member, owner),
        ),
        owner=f"{owner.kind}/{owner.namespace}/{owner.name}" if owner.name else "",
    )


def _metadata(member: _Member, owner: _Reference) -> Mapping[str, str]:
    zones = member.hints.for_zones if member.hints else None
    known = {
        "node": member.node_name,
        (owner.kind or "target").lower(): owner.name,
        "for_zones": ",".join(zone.name for zone in zones or () if zone.name),
    }
    return {key: value for key, value in known.items() if value}


def _shortened(items: list[str], separator: str) -> str:
    more = [f"and {len(items) - _SHOWN} more"] if len(items) > _SHOWN else []
    return separator.join(items[:_SHOWN] + more)
