"""What is found out about a server while it is connected: who it is, then how it is, and how busy.

Each of these is a task of its own, so that a change of what is wished for begins anew what it is about and leaves the
rest alone: what is known stays in force until something else is.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Protocol, TypeAlias

import anyio
import anyio.abc
import grpc.aio

from ..config import HealthConfig
from ..endpoints import Member
from ..errors import IdentityError
from ..health import watch_health
from ..native import Slot
from ..types import Address, Verdict

VERIFY_AGAIN_S = 1.0
"""Time until an endpoint that is not who it should be is looked at again: gRPC's connection backoff starts there."""

Verify: TypeAlias = Callable[[Address], Awaitable[object]]
"""Looks who listens at an address, and raises `IdentityError` if it is the wrong one."""

Work: TypeAlias = Callable[[], Awaitable[object]]

TRUST, HEALTH, LOAD = "trust", "health", "load"

logger = logging.getLogger("grpclb_core")


class Listens(Protocol):
    """Follows what servers report of their load beside the calls."""

    @property
    def period_s(self) -> float | None:
        """How often they are to report; None if nobody wants to hear it."""

    async def follow(self, channel: grpc.aio.Channel, slot: Slot, address: Address) -> None:
        """Hear the reports of one server, until cancelled."""


class Checks:
    """Runs the checks of connected members, and puts down with them what is found.

    Args:
        health: whether, and how, servers are asked how they are.
        rng: for jitter.
        changed: called when others may have calls than before.
        verify: looks who a server is; None trusts everyone.
        load: follows the load reports; None if there is nobody to hear them.
    """

    def __init__(
        self,
        health: HealthConfig,
        rng: random.Random,
        changed: Callable[[], None],
        verify: Verify | None,
        load: Listens | None,
    ) -> None:
        self.tasks: anyio.abc.TaskGroup | None = None
        """Where they run; none is begun while this is None."""
        self._health = health
        self._rng = rng
        self._changed = changed
        self._verify = verify
        self._load = load
        self._period_s = None if load is None else load.period_s
        self._scopes: dict[tuple[Member, str], anyio.CancelScope] = {}

    def begin(self, member: Member) -> None:
        """Begin to check what a new connection leads to."""
        self.stop(member)
        member.is_trusted = self._verify is None
        if self._verify is None:
            self._ask(member)
        else:
            self._start(member, TRUST, partial(self._wait_for_trust, member, self._verify))

    def stop(self, member: Member) -> None:
        """Ask no more: its connection is down, or it left."""
        for what in (TRUST, HEALTH, LOAD):
            self._stop(member, what)
        member.verdict = Verdict.UNKNOWN

    def adopt(self, health: HealthConfig, connected: Iterable[Member]) -> None:
        """Go by other wishes from now on; those who are connected are asked anew only what is wished otherwise.

        A member keeps the verdict it has until there is another, or nobody asks any more: nothing is known against it
        that was not before.
        """
        before, self._health = (self._health.service, self._period_s), health
        self._period_s = None if self._load is None else self._load.period_s
        for member in connected:
            if before[0] != health.service:
                self._stop(member, HEALTH)
                if health.service is None:
                    member.verdict = Verdict.UNKNOWN
                elif member.is_trusted:
                    self._ask_health(member)
            if before[1] != self._period_s:
                self._stop(member, LOAD)
                if member.is_trusted:
                    self._ask_load(member)

    def _ask(self, member: Member) -> None:
        if self._health.service is not None:
            member.verdict = Verdict.PENDING
        self._ask_health(member)
        self._ask_load(member)

    def _ask_health(self, member: Member) -> None:
        def report(verdict: Verdict, reason: str) -> None:
            logger.info("%s: %s: %s", member.endpoint.address, verdict.value, reason)
            member.verdict = verdict
            self._changed()

        if self._health.service is not None:
            channel, service, rng, config = member.connection.channel, self._health.service, self._rng, self._health
            self._start(member, HEALTH, partial(watch_health, channel, service, report, rng=rng, config=config))

    def _ask_load(self, member: Member) -> None:
        if self._load is not None and self._period_s is not None:
            address = member.endpoint.address
            self._start(member, LOAD, partial(self._load.follow, member.connection.channel, member.slot, address))

    async def _wait_for_trust(self, member: Member, verify: Verify) -> None:
        while not member.is_trusted:
            try:
                await verify(member.endpoint.address)
            except IdentityError as error:
                member.connection.last_error = str(error)
                logger.warning("%s; it gets no calls, and is looked at again in %s s", error, VERIFY_AGAIN_S)
                await anyio.sleep(VERIFY_AGAIN_S)
            else:
                member.is_trusted = True
                self._ask(member)
                self._changed()

    def _start(self, member: Member, what: str, work: Work) -> None:
        if self.tasks is not None:
            scope = self._scopes[member, what] = anyio.CancelScope()
            self.tasks.start_soon(_within, scope, work)

    def _stop(self, member: Member, what: str) -> None:
        scope = self._scopes.pop((member, what), None)
        if scope is not None:
            scope.cancel()


async def _within(scope: anyio.CancelScope, work: Work) -> None:
    with scope:
        await work()
