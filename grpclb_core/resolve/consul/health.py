"""What Consul's health endpoint says of a service: its instances with their checks, each made an endpoint.

    any check                health
    maintenance              DRAINING     `consul maint`, for a node or a service
    critical                 UNHEALTHY
    warning                  HEALTHY, or UNHEALTHY by the option `warning`, or where Weights.Warning is 0
    passing, or no check     HEALTHY
    a status not listed      UNKNOWN

The worst of an instance's checks counts, in this order: Consul's own `AggregatedStatus` (api/health.go). Weights are
those of the service definition: `Weights.Warning` while a check warns, `Weights.Passing` otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ...errors import ConfigError
from ...types import Address, Endpoint, Health, Locality, ip_address

MAX_INSTANCES = 10_000
"""Instances of one service; those beyond are passed over, and that is reported."""

# api/health.go: NodeMaint, ServiceMaintPrefix
_NODE_MAINTENANCE = "_node_maintenance"
_SERVICE_MAINTENANCE = "_service_maintenance:"
_WORST_FIRST = ("maintenance", "critical", "warning", "passing")


class Place(msgspec.Struct, frozen=True, rename="pascal"):
    """Where a node or an instance says it runs; older versions of Consul do not know it."""

    region: str = ""
    zone: str = ""


class Node(msgspec.Struct, frozen=True, rename="pascal"):
    """The machine of an instance."""

    name: str = msgspec.field(default="", name="Node")
    address: str = ""
    datacenter: str = ""
    locality: Place | None = None


class Weights(msgspec.Struct, frozen=True, rename="pascal"):
    """Shares of the load, by the state of the checks."""

    passing: float = 1
    warning: float = 1


class Service(msgspec.Struct, frozen=True, rename="pascal"):
    """One instance."""

    name: str = msgspec.field(default="", name="ID")
    address: str = ""
    port: int = 0
    meta: dict[str, str] | None = None
    tags: list[str] | None = None
    weights: Weights | None = None
    locality: Place | None = None
    modify_index: int = 0


class Check(msgspec.Struct, frozen=True, rename="pascal"):
    """One health check, of the node or the instance."""

    name: str = msgspec.field(default="", name="CheckID")
    status: str = ""

    @property
    def state(self) -> str:
        """The status, or that it stands for maintenance."""
        maintained = self.name == _NODE_MAINTENANCE or self.name.startswith(_SERVICE_MAINTENANCE)
        return "maintenance" if maintained else self.status


class Instance(msgspec.Struct, frozen=True, rename="pascal"):
    """One element of the answer."""

    node: Node
    service: Service
    checks: list[Check] | None = None


def read_instances(
    entries: Iterable[msgspec.Raw], warning: Health, *, keep_order: bool = False
) -> tuple[tuple[Endpoint, ...], list[str]]:
    """Make the endpoints of an answer, by address, and one problem for each instance that cannot be used.

    Of two instances with the same address the one changed last counts. `keep_order` leaves them as they came.
    """
    problems: list[str] = []
    latest: dict[Address, tuple[int, Endpoint]] = {}
    for position, raw in enumerate(entries):
        if position >= MAX_INSTANCES:
            problems.append(f"instances beyond {MAX_INSTANCES}; split the service")
            break
        try:
            instance = msgspec.json.decode(raw, type=Instance)
            endpoint = endpoint_of(instance, warning)
        except ConfigError as error:
            problems += error.problems
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            problems.append(f"instance {position}: {error}")
        else:
            changed, _ = latest.get(endpoint.address, (-1, None))
            if changed < instance.service.modify_index:
                latest[endpoint.address] = instance.service.modify_index, endpoint
    order = latest if keep_order else sorted(latest)
    return tuple(latest[address][1] for address in order), problems


def endpoint_of(instance: Instance, warning: Health) -> Endpoint:
    """Make the endpoint of an instance.

    Raises:
        ConfigError: its address is no IP address, its port is missing, or its weight cannot be used.
    """
    node, service = instance.node, instance.service
    where = f"instance {service.name!r:.100} on node {node.name!r:.100}"
    host = service.address or node.address
    try:
        address = ip_address(host, service.port, where=where)
    except ConfigError:
        if service.port:
            raise ConfigError(f"{where}: {host!r:.100}, port {service.port}, is no IP address with a port") from None
        raise ConfigError(f"{where}: it has no port; register the service with one") from None
    weights = service.weights or Weights()
    state = _worst(instance.checks or ())
    metadata = dict(service.meta or {})
    if service.tags:
        metadata["tags"] = ",".join(service.tags)
    return Endpoint(
        address,
        weight=weights.warning if state == "warning" and weights.warning > 0 else weights.passing,
        locality=_locality(node, service),
        health=_health(state, weights, warning),
        metadata=metadata,
    )


def _locality(node: Node, service: Service) -> Locality:
    place = service.locality or node.locality or Place()
    zone = place.zone or (service.meta or {}).get("zone", "")
    return Locality(region=place.region or node.datacenter, zone=zone)


def _worst(checks: Iterable[Check]) -> str:
    states = {check.state for check in checks}
    if states - set(_WORST_FIRST):
        return "unknown"
    return next((state for state in _WORST_FIRST if state in states), "passing")


def _health(state: str, weights: Weights, warning: Health) -> Health:
    if state == "warning":
        return warning if weights.warning > 0 else Health.UNHEALTHY
    return {
        "maintenance": Health.DRAINING,
        "critical": Health.UNHEALTHY,
        "passing": Health.HEALTHY,
    }.get(state, Health.UNKNOWN)
