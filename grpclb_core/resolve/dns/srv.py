"""Endpoints of a service in DNS (RFC 2782): ports, priorities and weights come from its SRV records.

    srv:///_grpc._tcp.greeter.test   srv://10.0.0.2:53/_grpc._tcp.greeter.test

The pure parts are `parse_service`, `offered` and `endpoints_of`. What an answer means; `polling.py` has the rest:

    SRV records, and addresses of their targets      the set
    no address of some of the targets                the others, and the last known addresses of targets whose lookup
                                                     failed; targets that are left without any are reported
    SRV failed, or every target                      it failed
    no SRV records, a target of "." alone            nothing is there
"""

from __future__ import annotations

import math
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import anyio
import msgspec

from ...config import Config, DnsConfig
from ...errors import TargetError
from ...types import Address, Endpoint, ip_address
from ..target import MAX_NAME, Target, ascii_name, is_number, parse_server
from .lookup import RECORD_TYPES, Answer, Lookup, Service, look_up
from .polling import MAX_ENDPOINTS, Finding, Known, PolledResolver
from .resolvconf import RESOLV_CONF, DnsSettings, read_settings
from .resolver import remembered, source_of
from .service_config import ServiceConfigRecord

if TYPE_CHECKING:
    from .. import Resolver

MAX_TARGETS = 1000
"""Host names followed, those of the first priorities: each may cost two queries at every look."""
LOOKUPS_AT_ONCE = 64
"""Host names looked up at the same time, each with two sockets: an eighth of the 1024 files that a process may open by
default. Where there are more of them, they share the time, so that silence about some leaves time for the rest."""
ZERO_WEIGHT = 0.01
"""Stands for weight 0 where others are above it: RFC 2782 wants "a very small chance of being selected", and this is a
hundredth of the smallest weight that a record can have."""
_SHOWN = 3  # targets without address that a message names

_SERVICE = re.compile(r"(_[A-Za-z0-9_-]{1,62}\._[A-Za-z0-9_-]{1,62})\.(.+)")


class ServiceName(msgspec.Struct, frozen=True):
    """What a `srv` target asks for."""

    name: str
    """The name whose SRV records count."""
    host: str
    """The name without its service and protocol."""
    server: Address | None = None
    """The one DNS server to ask; None asks those of the machine."""


def parse_service(rest: str) -> ServiceName:
    """Read what follows `srv:`, beginning with its slashes.

    Raises:
        TargetError: a part cannot be used.
    """
    server, _, name = rest.removeprefix("//").partition("/")
    if not name:
        raise TargetError("the service is missing; write srv:///_grpc._tcp.host")
    if ":" in name:
        raise TargetError(f"{name!r} has a port; leave it out, it comes from the SRV records")
    found = _SERVICE.fullmatch(name)
    if found is None:
        raise TargetError(f"{name!r} is no service; write srv:///_grpc._tcp.host, or dns:///host:port for a host")
    host = ascii_name(found[2])
    if is_number(host.removesuffix(".").rpartition(".")[2]):
        raise TargetError(f"host {host!r} is an IP address, which has no services; write ipv4:address:port")
    full = f"{found[1]}.{host}"
    if len(full.removesuffix(".")) > MAX_NAME:
        raise TargetError(f"service of {len(full)} characters is too long; a name has at most {MAX_NAME}")
    return ServiceName(full, host, parse_server(server) if server else None)


def make_resolver(target: Target, config: Config) -> Resolver:
    """Make the resolver of a `srv` target."""
    return SrvResolver(parse_service(target.rest), config.dns)


class SrvResolver(PolledResolver):
    """Looks the SRV records of a service up, and the addresses of their targets."""

    def __init__(
        self,
        service: ServiceName,
        config: DnsConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: Callable[[], float] = random.random,
        resolv_conf: str = RESOLV_CONF,
    ) -> None:
        # A final dot belongs to DNS alone: RFC 6066 3.
        authority = service.host.removesuffix(".")
        record = None
        if config.service_config:
            record = ServiceConfigRecord(service.host, service.server, config, rng=rng, resolv_conf=resolv_conf)
        source = source_of(service.name, service.server)
        super().__init__(authority, source, config, clock=clock, rng=rng, record=record)
        self._service = service
        self._resolv_conf = resolv_conf

    async def look(self, known: Known) -> Finding:
        """Ask for the services, then for their addresses, at most `timeout_s` each."""
        settings = read_settings(self._resolv_conf, self._service.server)
        lookup = await look_up(self._service.name, ("SRV",), settings, self._config)
        answer = lookup.answers.get("SRV")
        if answer is None or not lookup.found:
            return Finding(reason=lookup.reason, failed=bool(lookup.failures))
        services = offered(answer.services)
        if not services:
            return Finding(reason="SRV: the service is not offered there, by a target of '.' or port 0")
        lookups = await self._addresses(services, answer, settings)
        return _finding(services, answer.ttl_s, lookups, known)

    async def _addresses(
        self, services: tuple[Service, ...], answer: Answer, settings: DnsSettings
    ) -> dict[str, Lookup]:
        late = dict.fromkeys(RECORD_TYPES, f"no answer in {self._config.timeout_s:g} s")
        lookups = {service.target: Lookup({}, late) for service in services}
        limit = anyio.CapacityLimiter(LOOKUPS_AT_ONCE)
        turns = math.ceil(len(lookups) / LOOKUPS_AT_ONCE)
        config = msgspec.structs.replace(self._config, timeout_s=self._config.timeout_s / turns)

        async def ask(name: str) -> None:
            # RFC 2782: addresses that came along need not be asked for. A type that did not come along may exist.
            came = answer.glue.get(name, {})
            missing = tuple(record_type for record_type in RECORD_TYPES if record_type not in came)
            lookups[name] = Lookup(came, {record_type: late[record_type] for record_type in missing})
            if missing:
                async with limit:
                    lookup = await look_up(name, missing, settings, config)
                lookups[name] = Lookup({**came, **lookup.answers}, lookup.failures)

        with anyio.move_on_after(self._config.timeout_s):
            async with anyio.create_task_group() as tasks:
                for name in lookups:
                    tasks.start_soon(ask, name)
        return lookups


def offered(services: Iterable[Service]) -> tuple[Service, ...]:
    """Give the services that can be used, first priorities first, of at most `MAX_TARGETS` hosts."""
    usable = sorted(service for service in services if service.port and service.target != ".")
    targets = set(list(dict.fromkeys(service.target for service in usable))[:MAX_TARGETS])
    return tuple(service for service in usable if service.target in targets)


def _finding(services: tuple[Service, ...], ttl_s: float, lookups: dict[str, Lookup], known: Known) -> Finding:
    fresh: dict[tuple[str, str], tuple[str, ...]] = {}
    for name, lookup in lookups.items():
        fresh |= remembered(name, lookup, known)
    hosts = {name: tuple(host for kind in RECORD_TYPES for host in fresh[name, kind]) for name in lookups}
    faults = [f"{name} {lookups[name].reason}" for name in lookups if not hosts[name]]
    reason = "; ".join(faults[:_SHOWN]) + (f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else "")
    failed = any(lookup.failures for lookup in lookups.values())
    ttl_s = min([ttl_s, *(lookup.ttl_s for lookup in lookups.values() if lookup.found)])
    return Finding(endpoints_of(services, hosts), ttl_s, fresh, reason, failed)


def endpoints_of(services: Iterable[Service], hosts: dict[str, tuple[str, ...]]) -> tuple[Endpoint, ...]:
    """Give the endpoints of services whose targets have these addresses.

    Priorities count from 0 without gaps. A record's weight is shared by the addresses of its target, so that one with
    more of them gets no more of the load. What two records name is one endpoint: of the first priority, and with the
    sum of the weights it has there.
    """
    first: dict[Address, int] = {}
    weights: dict[tuple[Address, int], float] = {}
    together: Counter[tuple[int, str, int]] = Counter()
    for service in services:
        together[service.priority, service.target, service.port] += service.weight
    for (priority, target, port), weight in sorted(together.items()):
        if len(weights) > MAX_ENDPOINTS:
            break  # a message has room for 2 000 services of one target, and for as many addresses of it
        found = {ip_address(host, port, where=target) for host in hosts.get(target, ())}
        for address in found:
            first.setdefault(address, priority)
            weights[address, priority] = weights.get((address, priority), 0.0) + weight / len(found)
    levels = {priority: level for level, priority in enumerate(sorted(set(first.values())))}
    weighted = {priority for address, priority in first.items() if weights[address, priority] > 0}
    zero = {priority: ZERO_WEIGHT if priority in weighted else 1.0 for priority in levels}
    return tuple(
        Endpoint(address, weight=weights[address, priority] or zero[priority], priority=levels[priority])
        for address, priority in sorted(first.items(), key=lambda item: (item[1], item[0]))
    )
