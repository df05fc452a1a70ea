"""Endpoints from Kubernetes: the EndpointSlices of a service, listed once and watched from then on.

What happens, and what comes of it:

    a list or an event            the set; it is pushed when it changed, or when the lookup before failed
    the watch ends in order       it goes on from the last version
    the connection breaks         reported; the last set stays, and the watch goes on from there after a pause
    the version is too old        the slices are listed again: at once, or after a pause when it has just been done
    refused, or not understood    reported; the last set stays, and the slices are listed again after a pause
    an event empties the set      believed at once, and reported as well
    some endpoints are unusable   reported; the others are the set, or the last set stays if there are no others
    a later list is empty         reported; believed once the set has stayed empty for `empty_hold_s`, as it may be
                                  the answer of a server that has only just come up
    empty from the beginning      reported; nothing is pushed until there is an endpoint
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio
import msgspec

from ...config import Config, KubernetesConfig
from ...errors import ConfigError, ResolutionError
from ..http import require_httpx
from ..schedule import backoff_s
from ..target import Target
from .api import Api, ExpiredError, open_api
from .cluster import Cluster, find_cluster
from .state import Known
from .target import KubernetesTarget, parse_kubernetes

if TYPE_CHECKING:
    from .. import Resolver, Sink

STEADY_S = 1.0  # a watch that lasted so long was no failure, though it told nothing


def make_resolver(target: Target, config: Config) -> Resolver:
    """Make the resolver of a `k8s` target.

    Raises:
        ConfigError: the target cannot be used, no cluster is known, or httpx or PyYAML is missing.
    """
    parsed = parse_kubernetes(target.rest)
    require_httpx("k8s")
    find_cluster(config.kubernetes)  # read again for each connection; a mistake in it is better told at once
    return KubernetesResolver(parsed, config.kubernetes)


class KubernetesResolver:
    """Follows the EndpointSlices of one service.

    `find` gives the API server and the credentials, anew for every connection; `rng` draws from [0, 1) for jitter.
    """

    def __init__(
        self,
        target: KubernetesTarget,
        config: KubernetesConfig,
        *,
        find: Callable[[], Cluster] | None = None,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self.authority: str | None = target.authority
        self._target = target
        self._config = config
        self._find = find or (lambda: find_cluster(config))
        self._rng = rng
        self._asked = anyio.Event()

    async def run(self, sink: Sink) -> None:
        """List, watch and report until cancelled."""
        known = Known(sink, self._config.preferred_family, self._config.empty_hold_s)
        failures = 0  # in a row; a version that was too old is one, and so is a watch that ended at once
        while True:
            turn = _Turn()
            try:
                await self._follow(known, turn)
            except ExpiredError:
                known.version = ""
            except ResolutionError as error:
                known.failed(error)
                turn.failed = True
            failures = 0 if turn.steady else failures + 1
            if turn.failed or failures > 1:
                await self._pause(max(failures - 1, 0))

    def refresh(self) -> None:
        """Try again at once if that is being waited for, but no sooner than `min_backoff_s` after the last failure.

        While a watch runs there is nothing to ask: it tells of every change. To be called in the thread of the event
        loop.
        """
        self._asked.set()

    async def _pause(self, attempt: int) -> None:
        config = self._config
        wait_s = backoff_s(attempt, config.min_backoff_s, config.max_backoff_s, self._rng())
        floor_s = min(wait_s, config.min_backoff_s)
        await anyio.sleep(floor_s)
        with anyio.move_on_after(wait_s - floor_s):
            await self._asked.wait()
        self._asked = anyio.Event()

    async def _follow(self, known: Known, turn: _Turn) -> None:
        """List if need be, and watch once."""
        try:
            cluster = self._find()
            async with open_api(cluster, self._target, self._config.timeout_s) as api:
                known.source = api.source
                if not known.version:
                    slices, version = await api.list_slices()
                    known.listed(slices, version, anyio.current_time())
                await self._watch(api, known, turn)
        except ConfigError as error:
            raise ResolutionError(f"service {self._target.service!r}: {error}") from error

    async def _watch(self, api: Api, known: Known, turn: _Turn) -> None:
        # At random between one and two times, as client-go does, so that clients spread.
        duration_s = int(self._config.watch_timeout_s * (1 + self._rng()))
        async with api.watch(known.version, duration_s) as changes:
            opened_s = anyio.current_time()
            known.resumed(opened_s)
            try:
                with anyio.CancelScope(deadline=known.held_until_s) as hold:
                    async for change in changes:
                        turn.steady = True
                        known.changed(change)
                        hold.deadline = known.held_until_s
            finally:
                turn.steady |= anyio.current_time() - opened_s >= STEADY_S
            if hold.cancelled_caught:
                turn.steady = True
                known.resumed(anyio.current_time())


class _Turn(msgspec.Struct):
    """How one round of listing and watching went."""

    steady: bool = False
    """The watch told something, or lasted; a failure after it is the first one."""
    failed: bool = False
