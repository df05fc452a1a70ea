"""Endpoints from DNS: looked up again as the records expire, so that new servers are found with nothing broken.

What an answer means; `polling.py` has the rest:

    addresses             the set
    A or AAAA failed,     the addresses of the one that answered, and the last known ones of the other
      the other did not
    both failed           it failed
    neither has records   nothing is there
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ...config import Config, DnsConfig
from ...types import Address, Endpoint, ip_address
from ..static import NoResolver, StaticResolver
from ..target import Target
from .hosts import HostsFile, loopback
from .lookup import RECORD_TYPES, Lookup, look_up
from .polling import MAX_ENDPOINTS, Finding, Known, PolledResolver
from .resolvconf import RESOLV_CONF, read_settings
from .service_config import ServiceConfigRecord

if TYPE_CHECKING:
    from .. import Resolver

__all__ = ["MAX_ENDPOINTS", "DnsResolver", "make_resolver", "remembered", "source_of"]


def make_resolver(target: Target, config: Config) -> Resolver:
    """Make the resolver of a `dns` target, which may spell an address out all the same."""
    if target.addresses:
        return StaticResolver(target.addresses, target.authority)
    if "/" in target.host:
        reason = f"{target.host!r} is no host name; write host:port, or unix:/path/of.sock for a socket"
        return NoResolver(reason, target.authority)
    return DnsResolver(target, config.dns)


class DnsResolver(PolledResolver):
    """Looks a name up in the hosts file and in DNS.

    Other sources that the machine may be configured for (as in nsswitch.conf) are not asked.
    """

    def __init__(
        self,
        target: Target,
        config: DnsConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: Callable[[], float] = random.random,
        hosts: HostsFile | None = None,
        resolv_conf: str = RESOLV_CONF,
    ) -> None:
        record = None
        if config.service_config:
            record = ServiceConfigRecord(target.host, target.server, config, rng=rng, resolv_conf=resolv_conf)
        source = source_of(target.host, target.server)
        super().__init__(target.authority, source, config, clock=clock, rng=rng, record=record)
        self._target = target
        self._hosts = hosts or HostsFile()
        self._resolv_conf = resolv_conf

    async def look(self, known: Known) -> Finding:
        """Look at the hosts file, and where it does not know the name, ask DNS."""
        host = self._target.host
        local = self._local()
        if local:
            return self._finding({(host, "hosts"): local}, ttl_s=None)  # a look at a file costs next to nothing
        settings = read_settings(self._resolv_conf, self._target.server)
        lookup = await look_up(host, RECORD_TYPES, settings, self._config)
        if not lookup.found:
            return Finding(reason=lookup.reason, failed=bool(lookup.failures))
        return self._finding(remembered(host, lookup, known), lookup.ttl_s)

    def record(self) -> ServiceConfigRecord | None:
        """Return what to ask for a service config: nothing where the hosts file answers, and no DNS is asked."""
        return None if self._local() else super().record()

    def _local(self) -> tuple[str, ...]:
        # A DNS server named in the target is to be the only source; for localhost no server is ever asked.
        listed = self._hosts.look_up(self._target.host) if self._target.server is None else ()
        return listed or loopback(self._target.host)

    def _finding(self, known: Known, ttl_s: float | None) -> Finding:
        port, where = self._target.port, self._target.text
        addresses = {ip_address(host, port, where=where) for hosts in known.values() for host in hosts}
        return Finding(tuple(Endpoint(address) for address in sorted(addresses)), ttl_s, known)


def remembered(name: str, lookup: Lookup, known: Known) -> Known:
    """Give the addresses of a name by record type; of a type that failed, those known before."""
    answered = {(name, record_type): answer.addresses for record_type, answer in lookup.answers.items()}
    kept = {(name, record_type): known.get((name, record_type), ()) for record_type in lookup.failures}
    return {**kept, **answered}


def source_of(name: str, server: Address | None) -> str:
    """Say what is looked up, and where, as messages have it."""
    return f"{name!r} from {server or 'the name servers of this machine'}"
