"""Endpoints from Consul: one query after another, each held by the agent until there is something new.

    instances                     the set; it is pushed when it changed, or when the query before failed
    the index goes backwards      begun anew from 0, as Consul's rules for blocking queries have it: a state was
                                    restored, or the servers were replaced
    the query failed              reported; the last set stays, and the next query backs off
    no instances                  reported; believed at once, but for the first answer after a failure or a new
                                    beginning: that one once it has been the answer for `empty_hold_s`
    an instance cannot be used    reported by name, and passed over

Read `health.py` for what an instance says. The rules: https://developer.hashicorp.com/consul/api-docs/features/blocking
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import anyio
import msgspec

from ...config import Config, ConsulConfig
from ...errors import ConfigError, ResolutionError
from ...types import Endpoint, Health, Resolution
from ..http import decode_json, http_client, http_faults, read_bounded, require_httpx, summed_up, tls_settings
from ..schedule import backoff_s
from ..target import Target
from .health import read_instances
from .target import ConsulTarget, parse_consul

if TYPE_CHECKING:
    import httpx

    from .. import Resolver, Sink

WAIT_JITTER = 1 / 16  # "up to wait / 16", which Consul adds to what was asked for, so that queries spread


class Answer(msgspec.Struct, frozen=True):
    """What the agent said, and at which index."""

    index: int
    entries: list[msgspec.Raw]
    filtered: bool = False
    """The token may not see all of it."""


def make_resolver(target: Target, config: Config) -> Resolver:
    """Make the resolver of a `consul` target."""
    require_httpx("consul")
    tls_settings(config.consul)  # a file that is missing is told now, not at the first connection
    return ConsulResolver(parse_consul(target.rest, tls=config.consul.tls), config.consul)


def next_index(asked: int, answered: int) -> int:
    """The index to ask with next: 0, which is not held, when it went backwards; never 0 otherwise."""
    return 0 if answered < asked else max(1, answered)


class ConsulResolver:
    """Follows the instances of a service.

    `clock` (seconds, monotonic) measures how long an empty answer has been held; `rng` draws from [0, 1) for jitter.
    """

    def __init__(
        self,
        target: ConsulTarget,
        config: ConsulConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self.authority: str | None = target.service
        self._target = target
        self._config = config
        self._clock = clock
        self._rng = rng

    async def run(self, sink: Sink) -> None:
        """Ask and report until cancelled."""
        await _Follower(self._target, self._config, self._clock, self._rng, sink).run()

    def refresh(self) -> None:
        """Do nothing: the agent tells of every change, and the wait after failures is short."""


class _Follower:
    """One run of the resolver."""

    def __init__(
        self,
        target: ConsulTarget,
        config: ConsulConfig,
        clock: Callable[[], float],
        rng: Callable[[], float],
        sink: Sink,
    ) -> None:
        self._target = target
        self._config = config
        self._clock = clock
        self._rng = rng
        self._sink = sink
        self._source = f"consul {target.agent}"
        self._index = 0
        self._pushed: tuple[Endpoint, ...] | None = None
        self._faulty = False  # the sink was told of a fault, and not yet that all is well
        self._unbroken = False  # the answer before was good, and this one follows it
        self._empty_since: float | None = None

    async def run(self) -> None:
        failures = 0  # in a row
        while True:
            try:
                async with self._client() as client:
                    while True:
                        began = self._clock()
                        self._take(await self._ask(client))
                        failures = 0
                        await anyio.sleep(max(0.0, began + self._config.min_interval_s - self._clock()))
            except (ConfigError, ResolutionError) as error:
                self._unbroken = False
                self._index = 0  # answered at once, to tell without delay that all is well again
                self._fail(str(error))
            config = self._config
            await anyio.sleep(backoff_s(failures, config.min_interval_s, config.max_backoff_s, self._rng()))
            failures += 1

    def _client(self) -> httpx.AsyncClient:
        headers = {"X-Consul-Token": self._config.token} if self._config.token else {}
        verify = tls_settings(self._config)
        return http_client(self._target.agent, "consul", timeout=None, headers=headers, verify=verify)

    async def _ask(self, client: httpx.AsyncClient) -> Answer:
        """Query once; the agent holds the answer until its index passes ours.

        Raises:
            ResolutionError: it did not answer in time, or with what is no list of instances.
        """
        wait_s = min(self._config.wait_s, max(1.0, self._hold_left_s()))
        query = [*self._target.query]
        if self._index:
            query += [("index", str(self._index)), ("wait", f"{wait_s:.0f}s")]
        longest_s = self._config.timeout_s + (wait_s * (1 + WAIT_JITTER) if self._index else 0)
        try:
            with anyio.fail_after(longest_s), http_faults(self._source):
                return await self._answer(client, query)
        except TimeoutError:
            raise ResolutionError(f"{self._source}: no answer within {longest_s:.1f} s") from None

    async def _answer(self, client: httpx.AsyncClient, query: list[tuple[str, str]]) -> Answer:
        path = f"/v1/health/service/{self._target.service}?{urlencode(query)}"
        async with client.stream("GET", path) as response:
            body = await read_bounded(response, self._source)
        if response.status_code != 200:
            raise ResolutionError(
                f"{self._source}: HTTP status {response.status_code}: {body[:200].decode(errors='replace').strip()}"
                + ("; the option consul.token needs service:read and node:read" if response.status_code == 403 else "")
            )
        index = response.headers.get("X-Consul-Index", "")
        if not (index.isascii() and index.isdigit() and len(index) <= 20):
            raise ResolutionError(f"{self._source}: X-Consul-Index {index[:100]!r} is no number; is it Consul?")
        entries = decode_json(body, list[msgspec.Raw], self._source)
        filtered = response.headers.get("X-Consul-Results-Filtered-By-ACLs", "") == "true"
        return Answer(int(index), entries, filtered)

    def _take(self, answer: Answer) -> None:
        index = next_index(self._index, answer.index)
        if index == 0:
            self._unbroken = False
        self._index = index
        endpoints, problems = read_instances(
            answer.entries, Health(self._config.warning), keep_order=bool(self._target.near)
        )
        self._publish(endpoints, answer)
        self._unbroken = index > 0
        if problems:
            self._sink.fail(ResolutionError(f"{self._source}: passed over: {summed_up(problems)}"))

    def _publish(self, endpoints: tuple[Endpoint, ...], answer: Answer) -> None:
        nothing = f"{self._source} has no usable instance of {self._target.service!r}"
        if not endpoints and self._pushed:
            doubtful = answer.entries or answer.filtered or not self._unbroken
            if self._empty_since is None and doubtful:
                self._empty_since = self._clock()
            if 0 < self._hold_left_s() < math.inf:
                return self._fail(f"{nothing}; it may have been lost, so the endpoints known before stay in use")
        news = endpoints != self._pushed or self._faulty
        if news and (endpoints or self._pushed):
            self._sink.update(Resolution(endpoints, version=str(answer.index)))
        self._pushed, self._faulty, self._empty_since = endpoints, False, None
        if news and not endpoints:
            # Last, so that calls which find no endpoint can say why.
            advice = "the token may not see all; give it service:read" if answer.filtered else "check its name"
            self._sink.fail(ResolutionError(f"{nothing}; {advice}"))
        return None

    def _hold_left_s(self) -> float:
        """Seconds for which an empty answer is not yet believed; infinite where there is none in question."""
        if self._empty_since is None:
            return math.inf
        return max(0.0, self._empty_since + self._config.empty_hold_s - self._clock())

    def _fail(self, reason: str) -> None:
        self._faulty = True
        self._sink.fail(ResolutionError(reason))
