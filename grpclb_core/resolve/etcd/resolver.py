"""Endpoints from etcd: the keys under a prefix are listed once, then watched.

    the watch tells of a change     it is believed at once, a deletion too
    the watch ends, a member is     reported; the last set stays, and the watch goes on where it was, on the next
      lost or does not answer         member: nothing is missed, nothing is read twice
    the watch is silent             opened anew after `idle_s`, in case its member hangs or the connection is half open
    what was missed is compacted,   the keys are listed again
      or the store is another one
    a listing without endpoints     reported; believed at once when no endpoint was known, else after `empty_hold_s`
    a value that cannot be used     reported with its key; what the key named before stays

Read `values.py` for what a key says and `client.py` for how etcd is asked.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio
import msgspec

from ...config import Config, EtcdConfig
from ...errors import ConfigError, ResolutionError
from ...types import Endpoint, Resolution
from ..http import require_httpx, summed_up, tls_settings
from ..target import Target
from .client import CompactedError, EtcdClient, Header, WatchAnswer
from .target import EtcdTarget, parse_etcd
from .values import MAX_KEYS, Listing

if TYPE_CHECKING:
    from .. import Resolver, Sink

STEADY_S = 1.0
"""A watch that held this long makes the failures before it a thing of the past; one that ends at once does not."""


def make_resolver(target: Target, config: Config) -> Resolver:
    """Make the resolver of an `etcd` target."""
    require_httpx("etcd")
    tls_settings(config.etcd)  # a file that is missing is told now, not at the first connection
    return EtcdResolver(parse_etcd(target.rest, tls=config.etcd.tls), config.etcd)


class EtcdResolver:
    """Follows the keys under a prefix.

    `clock` (seconds, monotonic) measures how long an empty listing has been held; `rng` draws from [0, 1) for jitter.
    """

    def __init__(
        self,
        target: EtcdTarget,
        config: EtcdConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self.authority = target.authority
        self._target = target
        self._config = config
        self._clock = clock
        self._rng = rng

    async def run(self, sink: Sink) -> None:
        """List, watch and report until cancelled."""
        client = EtcdClient(self._target.members, self._config, rng=self._rng)
        await _Follower(self._target, self._config, client, self._clock, sink).run()

    def refresh(self) -> None:
        """Do nothing: the watch tells of every change, and its wait after failures is short."""


class _Follower:
    """One run of the resolver."""

    def __init__(
        self, target: EtcdTarget, config: EtcdConfig, client: EtcdClient, clock: Callable[[], float], sink: Sink
    ) -> None:
        self._target = target
        self._prefix = target.prefix.encode()
        self._config = config
        self._client = client
        self._clock = clock
        self._sink = sink
        self._listing = Listing()
        self._at: Header | None = None  # the state that the listing is of; None calls for a range
        self._pushed: tuple[Endpoint, ...] | None = None
        self._faulty = False  # the sink was told of a fault, and not yet that all is well
        self._empty_since: float | None = None
        self._watching_since = math.inf

    async def run(self) -> None:
        failures = 0  # in a row
        while True:
            self._watching_since = math.inf
            try:
                async with self._client:
                    await self._follow()
            except (ConfigError, ResolutionError) as error:
                self._fail(str(error))
            if self._clock() - self._watching_since >= STEADY_S:
                failures = 0
            await anyio.sleep(self._client.retry_wait_s(failures))
            failures += 1

    async def _follow(self) -> None:
        while True:
            listed = self._at is None
            if self._at is None:
                found = await self._client.range(self._prefix, MAX_KEYS)
                self._at = found.header
                problems = self._listing.replace(found.kvs)
                self._publish(told=False)
                self._report(problems)
            try:
                await self._watch(self._at)
            except CompactedError:
                self._at = None
            if listed and self._at is None:
                # Not at once: this would go round and round.
                raise ResolutionError(f"etcd {self._client.member}: it cannot watch what it has just listed")

    async def _watch(self, at: Header) -> None:
        """Take what a watch tells; return when it was silent for too long, or the store is not the one it was."""
        async with self._client.watch(self._prefix, int(at.revision) + 1) as watch:
            if not _continues(watch.header, at):
                self._at = None
                return
            self._watching_since = min(self._watching_since, self._clock())
            if self._faulty:
                self._publish(told=False)
            while answer := await watch.next(min(self._config.idle_s, self._hold_left_s())):
                self._take(answer)

    def _take(self, answer: WatchAnswer) -> None:
        assert self._at is not None
        # The header of events may be ahead of them; without events it says that all up to there was told.
        told = [int(event.kv.mod_revision) for event in answer.events] or [int(answer.header.revision)]
        self._at = msgspec.structs.replace(self._at, revision=str(max(int(self._at.revision), *told)))
        if answer.events:
            problems = self._listing.apply(answer.events)
            self._publish(told=True)
            self._report(problems)

    def _publish(self, *, told: bool) -> None:
        """Push the endpoints if they changed; `told` means that the watch told of every step that led there."""
        endpoints = self._listing.endpoints()
        if not endpoints and self._pushed:
            if self._empty_since is None and not told:
                self._empty_since = self._clock()
            if 0 < self._hold_left_s() < math.inf:
                return self._fail(f"{self._nothing}; it may have been lost, so the endpoints known before stay in use")
        news = endpoints != self._pushed or self._faulty
        if news and (endpoints or self._pushed):
            self._sink.update(Resolution(endpoints, version=self._at.revision if self._at else ""))
        self._pushed, self._faulty, self._empty_since = endpoints, False, None
        if news and not endpoints:
            # Last, so that calls which find no endpoint can say why.
            self._sink.fail(ResolutionError(f"{self._nothing}; register the servers, or check the prefix"))
        return None

    @property
    def _nothing(self) -> str:
        return f"etcd {self._client.member} has no endpoint under {self._target.prefix!r}"

    def _hold_left_s(self) -> float:
        """Seconds for which an empty listing is not yet believed; infinite where there is none in question."""
        if self._empty_since is None:
            return math.inf
        return max(0.0, self._empty_since + self._config.empty_hold_s - self._clock())

    def _report(self, problems: list[str]) -> None:
        if problems:
            self._sink.fail(ResolutionError(f"etcd {self._client.member}: passed over: {summed_up(problems)}"))

    def _fail(self, reason: str) -> None:
        self._faulty = True
        self._sink.fail(ResolutionError(reason))


def _continues(now: Header, before: Header) -> bool:
    """Whether a store can be the one it was, further on: a member that lags, or a store begun anew, cannot."""
    return (
        now.cluster_id == before.cluster_id
        and int(now.revision) >= int(before.revision)
        and int(now.raft_term) >= int(before.raft_term)
    )
