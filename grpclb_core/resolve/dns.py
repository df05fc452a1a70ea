"""Endpoints from DNS: looked up again as the records expire, so that new servers are found with nothing broken.

What an answer means:

    addresses             the set; it is pushed when it changed, or when the lookup before failed
    A or AAAA failed,     the addresses of the one that answered, and the last known ones of the other
      the other did not
    both failed           reported; the last set stays, and the next lookup backs off
    neither has records   reported as well; believed, so that an empty set is pushed, once it has been the answer for
                          `empty_hold_s`, or at once when no endpoint was ever known
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio

from ..config import Config, DnsConfig
from ..errors import ResolutionError
from ..types import Endpoint, Resolution, ip_address
from .hosts import HostsFile, loopback
from .lookup import RESOLV_CONF, Lookup, look_up
from .schedule import backoff_s, next_wait_s
from .static import NoResolver, StaticResolver
from .target import Target

if TYPE_CHECKING:
    from . import Resolver, Sink

MAX_ENDPOINTS = 10_000  # beyond is ignored. A DNS message of 64 KiB holds 4 000 A records; a hosts file has no bound.


def make_resolver(target: Target, config: Config) -> Resolver:
    """Make the resolver of a `dns` target, which may spell an address out all the same."""
    if target.addresses:
        return StaticResolver(target.addresses, target.authority)
    if "/" in target.host:
        reason = f"{target.host!r} is no host name; write host:port, or unix:/path/of.sock for a socket"
        return NoResolver(reason, target.authority)
    return DnsResolver(target, config.dns)


class DnsResolver:
    """Looks a name up in the hosts file and in DNS, again and again.

    `clock` (seconds, monotonic) measures how long an empty answer has been held; `rng` draws from [0, 1) for jitter.
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
        self.authority = target.authority
        self._target = target
        self._config = config
        self._clock = clock
        self._rng = rng
        self._hosts = hosts or HostsFile()
        self._resolv_conf = resolv_conf
        self._asked = anyio.Event()
        self._known: dict[str, tuple[str, ...]] = {}  # the last good answer of each record type
        self._pushed: tuple[Endpoint, ...] = ()
        self._failures = 0  # in a row; an empty answer counts as one
        self._empty_since: float | None = None

    async def run(self, sink: Sink) -> None:
        """Look up and report until cancelled."""
        while True:
            await self._pause(await self._step(sink))

    def refresh(self) -> None:
        """Look up again at once, but no sooner than `min_ttl_s` after the lookup before.

        To be called in the thread of the event loop.
        """
        self._asked.set()

    async def _pause(self, wait_s: float) -> None:
        floor_s = min(wait_s, self._config.min_ttl_s)
        await anyio.sleep(floor_s)
        with anyio.move_on_after(wait_s - floor_s):
            await self._asked.wait()
        self._asked = anyio.Event()

    async def _step(self, sink: Sink) -> float:
        """Look up once, report, and give the seconds to wait until the next time."""
        local = self._local()
        if local:
            self._known = {"hosts": local}
            return self._found(sink, ttl_s=0)  # a file has no TTL, and looking at it costs next to nothing
        target, config = self._target, self._config
        try:
            lookup = await look_up(target.host, target.server, config.timeout_s, self._resolv_conf)
        except ResolutionError as error:
            return self._failed(sink, error)
        if lookup.found:
            kept = {record_type: self._known.get(record_type, ()) for record_type in lookup.failures}
            self._known = kept | {record_type: answer.addresses for record_type, answer in lookup.answers.items()}
            return self._found(sink, lookup.ttl_s)
        return self._failed(sink, self._error(lookup)) if lookup.failures else self._empty(sink, lookup)

    def _local(self) -> tuple[str, ...]:
        # A DNS server named in the target is to be the only source; for localhost no server is ever asked.
        listed = self._hosts.look_up(self._target.host) if self._target.server is None else ()
        return listed or loopback(self._target.host)

    def _found(self, sink: Sink, ttl_s: float) -> float:
        addresses = {
            ip_address(host, self._target.port, where=self._target.text)
            for hosts in self._known.values()
            for host in hosts
        }
        endpoints = tuple(Endpoint(address) for address in sorted(addresses)[:MAX_ENDPOINTS])
        if endpoints != self._pushed or self._failures:
            sink.update(Resolution(endpoints))
        self._pushed, self._failures, self._empty_since = endpoints, 0, None
        return next_wait_s(ttl_s, self._config, self._rng())

    def _failed(self, sink: Sink, error: ResolutionError) -> float:
        sink.fail(error)
        wait_s = backoff_s(self._failures, self._config.min_ttl_s, self._config.max_backoff_s, self._rng())
        self._failures += 1
        return wait_s

    def _empty(self, sink: Sink, lookup: Lookup) -> float:
        if not self._pushed:
            return self._failed(sink, self._error(lookup))
        now = self._clock()
        if self._empty_since is None:
            self._empty_since = now
        left_s = self._empty_since + self._config.empty_hold_s - now
        if left_s > 0:
            return min(self._failed(sink, self._error(lookup)), max(left_s, self._config.min_ttl_s))
        self._pushed, self._known = (), {}
        sink.update(Resolution(()))
        return self._failed(sink, self._error(lookup))  # last, so that calls which find no endpoint can say why

    def _error(self, lookup: Lookup) -> ResolutionError:
        server = self._target.server or "the name servers of this machine"
        advice = "the endpoints known before stay in use" if self._pushed else "check the name and the DNS server"
        return ResolutionError(f"no address for {self._target.host!r} from {server} ({lookup.reason}); {advice}")
