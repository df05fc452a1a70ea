"""The loop of every resolver that looks again by time: when it looks, what it pushes, and what it reports.

What a look may come to:

    endpoints             the set; it is pushed when it changed, or when something was wrong before
    endpoints, and a      the same, and what is wrong with the rest of them is reported
      reason
    it failed             reported; the last set stays, and the next look backs off
    nothing is there      reported as well; believed, so that an empty set is pushed, once it has been the answer for
                          `empty_hold_s`, or at once when no endpoint was ever known

A service config is looked for beside it, where that is wanted; without one, or with one that changed, the set is pushed
like any other, and one that could not be read is reported, while the last good one stays.
"""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

import anyio
import msgspec

from ...config import DnsConfig
from ...errors import ResolutionError
from ...types import Endpoint, Resolution
from ..schedule import backoff_s, next_wait_s
from .service_config import Said, ServiceConfigRecord

if TYPE_CHECKING:
    from .. import Sink

MAX_ENDPOINTS = 10_000  # beyond is ignored. A DNS message of 64 KiB holds 4 000 A records; a hosts file has no bound.

Known: TypeAlias = "Mapping[tuple[str, str], tuple[str, ...]]"
"""The last good addresses of each name and record type."""


class Finding(msgspec.Struct, frozen=True):
    """What one look came to."""

    endpoints: tuple[Endpoint, ...] = ()
    ttl_s: float | None = None
    """How long the source says it is good for; None looks again at the fastest pace there is."""
    known: Known = {}
    """What the next look is to remember."""
    reason: str = ""
    """Why there are no endpoints, or not all of them."""
    failed: bool = False
    """Nobody could say whether there are endpoints."""


class PolledResolver(ABC):
    """Looks again and again; a kind of resolver says how.

    `source` is what messages call it: "'greeter' from 10.0.0.2:53". `clock` (seconds, monotonic) measures how long an
    empty answer has been held; `rng` draws from [0, 1) for jitter. `record` is asked for a service config.
    """

    def __init__(
        self,
        authority: str | None,
        source: str,
        config: DnsConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: Callable[[], float] = random.random,
        record: ServiceConfigRecord | None = None,
    ) -> None:
        self.authority = authority
        self._source = source
        self._config = config
        self._clock = clock
        self._rng = rng
        self._asked = anyio.Event()
        self._known: Known = {}
        self._pushed: tuple[Endpoint, ...] = ()
        self._missing = ""  # the reason that was reported with the set
        self._record = record
        self._service_config: str | None = None  # the last good one
        self._unread = ""  # why a later one is not in use
        self._failures = 0  # in a row; an empty answer counts as one
        self._empty_since: float | None = None

    @abstractmethod
    async def look(self, known: Known) -> Finding:
        """Look once.

        Raises:
            ResolutionError: it failed, for a reason of its own.
        """

    def record(self) -> ServiceConfigRecord | None:
        """Return what to ask for a service config at the next look; None not to ask."""
        return self._record

    async def run(self, sink: Sink) -> None:
        """Look and report until cancelled."""
        while True:
            await self._pause(await self._step(sink))

    def refresh(self) -> None:
        """Look again at once, but no sooner than `min_ttl_s` after the look before.

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
        """Look once, report, and give the seconds to wait until the next time."""
        record, said = self.record(), Said()
        try:
            if record is None:
                finding = await self.look(self._known)
            else:
                finding, said = await record.beside(lambda: self.look(self._known))
        except ResolutionError as error:
            return self._failed(sink, error)
        if finding.endpoints:
            return self._found(sink, finding, said)
        return self._failed(sink, self._error(finding)) if finding.failed else self._empty(sink, finding)

    def _found(self, sink: Sink, finding: Finding, said: Said) -> float:
        endpoints = finding.endpoints[:MAX_ENDPOINTS]
        text = self._service_config if said.fault else said.text
        before = (self._pushed, self._missing, self._service_config, self._unread)
        changed = (endpoints, finding.reason, text, said.fault) != before or self._failures > 0
        self._pushed, self._missing, self._service_config, self._unread = endpoints, finding.reason, text, said.fault
        self._known, self._failures, self._empty_since = finding.known, 0, None
        ttl_s = finding.ttl_s if finding.ttl_s is None or said.ttl_s is None else min(finding.ttl_s, said.ttl_s)
        if changed:
            sink.update(Resolution(endpoints, ttl_s=ttl_s, service_config=text))
            if said.fault:
                advice = "the one before stays" if text is not None else "there is none before it; check the record"
                sink.fail(ResolutionError(f"the service config could not be read ({said.fault}); {advice}"))
            if finding.reason:
                sink.fail(ResolutionError(f"{self._source}: some endpoints are missing ({finding.reason}); check them"))
        return next_wait_s(ttl_s or 0.0, self._config, self._rng())

    def _failed(self, sink: Sink, error: ResolutionError) -> float:
        sink.fail(error)
        wait_s = backoff_s(self._failures, self._config.min_ttl_s, self._config.max_backoff_s, self._rng())
        self._failures += 1
        return wait_s

    def _empty(self, sink: Sink, finding: Finding) -> float:
        if not self._pushed:
            return self._failed(sink, self._error(finding))
        now = self._clock()
        if self._empty_since is None:
            self._empty_since = now
        left_s = self._empty_since + self._config.empty_hold_s - now
        if left_s > 0:
            return min(self._failed(sink, self._error(finding)), max(left_s, self._config.min_ttl_s))
        self._pushed, self._known = (), {}
        sink.update(Resolution((), service_config=self._service_config))
        return self._failed(sink, self._error(finding))  # last, so that calls which find no endpoint can say why

    def _error(self, finding: Finding) -> ResolutionError:
        advice = "the endpoints known before stay in use" if self._pushed else "check the name and the DNS server"
        return ResolutionError(f"no address for {self._source} ({finding.reason}); {advice}")
