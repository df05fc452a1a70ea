"""What a control plane says of a cluster: a ClusterLoadAssignment, read and checked.

The rules are those of gRPC (gRFC A27) and of the message's own description; what breaks one is refused whole, so that
the assignment before stays. Pure: bytes in, values out, and `RejectedError` is the only thing raised.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec
from envoy.config.core.v3.address_pb2 import Address as AddressMessage
from envoy.config.core.v3.address_pb2 import SocketAddress
from envoy.config.core.v3.health_check_pb2 import HealthStatus
from envoy.config.endpoint.v3.endpoint_components_pb2 import (
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.type.v3.percent_pb2 import FractionalPercent
from google.protobuf.message import DecodeError

from ...errors import ConfigError, ResolutionError
from ...types import Address, Drop, Endpoint, Health, Locality, Resolution, ip_address
from ..target import MAX_SOCKET_PATH

MAX_WEIGHTS = 2**32 - 1  # of the localities of a priority (A27), and of the endpoints of a locality (LbEndpoint)
_SHOWN_NAME = 100  # characters of a name that each problem repeats
_SHOWN = 10  # problems that a message lists: an assignment may have as many as endpoints

# gRPC takes UNKNOWN and HEALTHY for usable and leaves the others alone; so do we, save in panic. A health check that
# timed out has failed. DEGRADED is what Envoy falls back on, as panic does; a number of a later version is no promise.
_HEALTH = {
    HealthStatus.UNKNOWN: Health.UNKNOWN,
    HealthStatus.HEALTHY: Health.HEALTHY,
    HealthStatus.UNHEALTHY: Health.UNHEALTHY,
    HealthStatus.DRAINING: Health.DRAINING,
    HealthStatus.TIMEOUT: Health.UNHEALTHY,
    HealthStatus.DEGRADED: Health.UNHEALTHY,
}

_DENOMINATORS = {
    FractionalPercent.HUNDRED: 100,
    FractionalPercent.TEN_THOUSAND: 10_000,
    FractionalPercent.MILLION: 1_000_000,
}


class RejectedError(ResolutionError):
    """Raised when an answer breaks a rule and is to be refused (NACK); `problems` holds one line for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        shown = list(self.problems[:_SHOWN])
        if len(self.problems) > _SHOWN:
            shown.append(f"and {len(self.problems) - _SHOWN} more")
        super().__init__("; ".join(shown))


class Assignment(msgspec.Struct, frozen=True):
    """The endpoints of a cluster."""

    cluster: str
    resolution: Resolution
    emptiness: str = ""
    """Why there is no endpoint, where there is none."""


def decode_assignment(body: bytes, version: str) -> Assignment:
    """Read a ClusterLoadAssignment in its wire form.

    Raises:
        RejectedError: it is none, or it breaks a rule.
    """
    try:
        message = ClusterLoadAssignment.FromString(body)
    except DecodeError as error:
        raise RejectedError([f"not a ClusterLoadAssignment ({error})"]) from None
    return read_assignment(message, version)


def read_assignment(message: ClusterLoadAssignment, version: str) -> Assignment:
    """Check an assignment and turn it into what the rest of this package knows.

    Raises:
        RejectedError: with every rule that it breaks.
    """
    problems: list[str] = []
    used = [part for part in message.endpoints if part.load_balancing_weight.value]  # A27: others are left out
    if not message.cluster_name:
        problems.append("cluster_name is empty")
    problems += _faults_of_priorities(used)
    endpoints = _endpoints(message, problems)
    drops = _drops(message, problems)
    if problems:
        where = f"cluster {message.cluster_name!r:.{_SHOWN_NAME}}: "
        raise RejectedError([where + problem for problem in problems])
    # A locality may be in several priorities, with other weights; the most wanted one speaks for it.
    weights = {
        _locality(part): float(part.load_balancing_weight.value)
        for part in sorted(used, key=lambda part: part.priority, reverse=True)
        if part.lb_endpoints
    }
    resolution = Resolution(endpoints, version=version, locality_weights=weights, drops=drops)
    return Assignment(message.cluster_name, resolution, "" if endpoints else _emptiness(message))


def _endpoints(message: ClusterLoadAssignment, problems: list[str]) -> tuple[Endpoint, ...]:
    found: dict[Address, Endpoint] = {}
    for number, part in enumerate(message.endpoints):
        where = f"endpoints[{number}]"
        problems += [f"{where}: {problem}" for problem in _faults_of_locality(part)]
        for position, item in enumerate(part.lb_endpoints):
            try:
                endpoint = _endpoint(item, part)
            except ConfigError as error:
                problems += [f"{where}.lb_endpoints[{position}]: {problem}" for problem in error.problems]
                continue
            if endpoint.address in found:
                problems.append(f"{where}.lb_endpoints[{position}]: {endpoint.address} is listed twice")
            if part.load_balancing_weight.value:
                found[endpoint.address] = endpoint
    return tuple(sorted(found.values(), key=lambda endpoint: (endpoint.priority, endpoint.address)))


def _faults_of_priorities(used: list[LocalityLbEndpoints]) -> Iterator[str]:
    priorities = {part.priority for part in used}
    if priorities and max(priorities) >= len(priorities):
        missing = next(number for number in range(len(priorities)) if number not in priorities)
        yield f"priority {missing} is empty, though {max(priorities)} is not"
    for (priority, locality), count in Counter((part.priority, _locality(part)) for part in used).items():
        if count > 1:
            yield f"locality '{locality!s:.{_SHOWN_NAME}}' is in priority {priority} {count} times"
    weights: Counter[int] = Counter()
    for part in used:
        weights[part.priority] += part.load_balancing_weight.value
    for priority, whole in sorted(weights.items()):
        if whole > MAX_WEIGHTS:
            yield f"the weights of the localities of priority {priority} add up to {whole}, above {MAX_WEIGHTS}"


def _faults_of_locality(part: LocalityLbEndpoints) -> Iterator[str]:
    if not part.HasField("locality"):
        yield "locality is missing"
    if part.WhichOneof("lb_config"):
        yield f"{part.WhichOneof('lb_config')} is not supported; list the endpoints in lb_endpoints"
    whole = sum(_weight(item) for item in part.lb_endpoints)
    if whole > MAX_WEIGHTS:
        yield f"the weights of its endpoints add up to {whole}, above {MAX_WEIGHTS}"


def _endpoint(item: LbEndpoint, part: LocalityLbEndpoints) -> Endpoint:
    return Endpoint(
        _address(item.endpoint.address),
        weight=float(_weight(item)),
        locality=_locality(part),
        priority=part.priority,
        health=_HEALTH.get(item.health_status, Health.UNHEALTHY),
        metadata=_metadata(item),
    )


def _weight(item: LbEndpoint) -> int:
    # LbEndpoint.load_balancing_weight: "if unspecified, will be treated as 1"; a 0 that is there breaks its rule.
    weight: int = item.load_balancing_weight.value if item.HasField("load_balancing_weight") else 1
    return weight


def _address(message: AddressMessage) -> Address:
    if message.WhichOneof("address") == "pipe":
        size = len(message.pipe.path.encode())
        if not 0 < size <= MAX_SOCKET_PATH or "\0" in message.pipe.path:
            raise ConfigError(
                f"address.pipe: path of {size} bytes; 1 to {MAX_SOCKET_PATH} are possible, none of them NUL"
            )
        return Address(message.pipe.path)
    socket = message.socket_address
    if message.WhichOneof("address") != "socket_address" or socket.WhichOneof("port_specifier") != "port_value":
        raise ConfigError("address: neither a socket_address with port_value nor a pipe")
    if socket.protocol != SocketAddress.TCP:
        raise ConfigError(f"address: protocol {socket.protocol} is not TCP")
    return ip_address(socket.address, socket.port_value, where="address")


def _locality(part: LocalityLbEndpoints) -> Locality:
    return Locality(part.locality.region, part.locality.zone, part.locality.sub_zone)


def _metadata(item: LbEndpoint) -> dict[str, str]:
    """Keep the hostname, and the texts of `envoy.lb`, where what concerns balancing is put (`hash_key`, gRFC A76)."""
    if not item.endpoint.hostname and not item.HasField("metadata"):
        return {}
    fields = item.metadata.filter_metadata["envoy.lb"].fields
    texts = {name: value.string_value for name, value in fields.items() if value.WhichOneof("kind") == "string_value"}
    return texts | ({"hostname": item.endpoint.hostname} if item.endpoint.hostname else {})


def _drops(message: ClusterLoadAssignment, problems: list[str]) -> tuple[Drop, ...]:
    drops = []
    for position, item in enumerate(message.policy.drop_overloads):
        denominator = _DENOMINATORS.get(item.drop_percentage.denominator)
        if not item.category or not item.HasField("drop_percentage") or denominator is None:
            problems.append(f"policy.drop_overloads[{position}]: a category and a drop_percentage are needed")
            continue
        # As gRPC: more than all is all.
        drops.append(Drop(item.category, min(1.0, item.drop_percentage.numerator / denominator)))
    return tuple(drops)


def _emptiness(message: ClusterLoadAssignment) -> str:
    if any(part.lb_endpoints for part in message.endpoints):
        return "none of its localities has a load_balancing_weight, and those without are left out"
    return "the control plane lists none"
