"""Keeping the connections of a balancer: made, followed, checked, replaced and let go."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from typing import Protocol, TypeAlias

import anyio
import anyio.abc
import grpc
import grpc.aio

from ..config import Config
from ..endpoints import Connection, Dialer, EndpointSet, Member, State, is_too_long
from ..errors import IdentityError
from ..health import watch_health
from ..native import Slot, now_ns
from ..types import Address, Endpoint, Verdict

# How often the states of connections are read. A call looks at the state of its own endpoint before it starts, so this
# decides only how soon a connection that broke unused is made again, and one that came up is taken into use.
POLL_S = 0.05
POLL_CONNECTING_S = 0.005

# One that is idle has just been asked to connect, and will say so in a moment.
UNDER_WAY = (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING)

# A reading costs half a microsecond, so this keeps all of them together below one hundredth of a core.
POLL_EACH_S = 50e-6

# What calls on a connection that was replaced may last. Nothing is wrong with them: it may be one very long call that
# made its endpoint look silent. So this only keeps what grpc.aio never ends from being kept for good.
RETIREMENT_S = 3600.0


# Time until an endpoint that is not who it should be is looked at again: gRPC's connection backoff starts there.
VERIFY_AGAIN_S = 1.0

Verify: TypeAlias = Callable[[Address], Awaitable[object]]

# Numbers of connections that take the place of others, in all balancers of the process; ConnectionConfig.per_endpoint
# keeps the others below.
fresh_numbers = itertools.count(1000)

logger = logging.getLogger("grpclb_core")


class Listens(Protocol):
    """Follows what servers report of their load beside the calls."""

    @property
    def period_s(self) -> float | None:
        """How often they are to report; None if nobody wants to hear it."""

    async def follow(self, channel: grpc.aio.Channel, slot: Slot) -> None:
        """Hear the reports of one server, until cancelled."""


class Upkeep:
    """Follows the connections of an endpoint set in one task.

    Args:
        dialer: makes connections.
        config: how connections are left, and health checked.
        decay_s: mean lifetime of a latency sample, by which silence is judged.
        rng: for jitter.
        changed: called when the set of usable endpoints may be another.
        lost: called when a connection broke that was up.
        forget: called with the slot of an endpoint whose connection is no longer to be used.
        greet: called with a member that is connected anew.
        verify: looks who listens at an address, and raises `IdentityError` if it is the wrong one.
        looked: called after each round of looking at the connections, whatever it found.
        load: follows the load reports of each endpoint.
    """

    def __init__(
        self,
        dialer: Dialer,
        config: Config,
        decay_s: float,
        rng: random.Random,
        *,
        changed: Callable[[], None],
        lost: Callable[[], None],
        forget: Callable[[Slot], None],
        greet: Callable[[Member], None],
        verify: Verify | None = None,
        load: Listens | None = None,
        looked: Callable[[], None] | None = None,
    ) -> None:
        settings = config.connection
        self.endpoints = EndpointSet(
            self._connect, config.slot_memory_s, settings.linger_s, settings.drain_s, settings.per_endpoint
        )
        self._dialer = dialer
        self._config = config
        self._decay_s = decay_s
        self._rng = rng
        self._changed = changed
        self._lost = lost
        self._forget = forget
        self._greet = greet
        self._verify = verify
        self._load = load
        self._looked = looked
        self._load_period_s = None if load is None else load.period_s
        self._retired: set[Connection] = set()
        self._checks: dict[Member, anyio.CancelScope] = {}
        self._stirred = anyio.Event()
        self._tasks: anyio.abc.TaskGroup | None = None

    def _connect(self, address: Address, number: int) -> Connection:
        return Connection(self._dialer.dial(address, number))

    def channels(self) -> Iterator[grpc.aio.Channel]:
        """Yield every channel that is open, those of connections on their way out included."""
        for member in (*self.endpoints.members(), *self.endpoints.draining()):
            yield member.connection.channel
            if member.successor is not None:
                yield member.successor.channel
        for connection in self._retired:
            yield connection.channel

    def is_busy(self) -> bool:
        """Tell whether any call is open."""
        return any(member.slot.in_flight for member in (*self.endpoints.members(), *self.endpoints.draining()))

    async def run(self, tasks: anyio.abc.TaskGroup) -> None:
        """Follow the connections until cancelled, closely while one of them is being made."""
        self._tasks = tasks
        for member in self.endpoints.members():
            if member.connection.is_ready:  # when run again, after a crash
                self._check(member)
        while True:
            self._stirred = anyio.Event()
            self.poll(self.endpoints.members())
            self._listen()
            if self._looked is not None:
                self._looked()
            self._let_go()
            with anyio.move_on_after(self._interval_s()):
                await self._stirred.wait()

    def update(self, endpoints: Iterable[Endpoint]) -> None:
        """Replace the set of endpoints: connect to those who came, send no more calls to those who left."""
        came, left = self.endpoints.update(endpoints, asyncio.get_running_loop().time())
        for member in left:
            self._stop_checking(member)
        for member in came:
            if member.connection.is_ready:  # it is back before its connection was closed
                self._check(member)
        if not self.poll(came):
            self._changed()
        self._stirred.set()

    def poll(self, members: Iterable[Member]) -> bool:
        """Look at connections; return whether any of them changed."""
        changed = lost = False
        now_s = asyncio.get_running_loop().time()
        for member in members:
            before, was_silent = member.state, member.is_silent
            if member.poll(now_s):
                changed = True
                if was_silent and not member.is_silent:
                    # A new connection is no answer: if the handlers hang, one call finds out as well as many.
                    member.slot.start_trial()
                lost |= before is State.READY and member.state is not State.READY
                self._settle(member)
        if changed:
            self._changed()
            self._stirred.set()  # as more is to be seen soon, and a call may have been the one to look
        if lost:
            self._lost()
        return changed

    def renew(self) -> None:
        """Make all connections anew, because the dialer makes others now; each takes over once it is up."""
        for member in (*self.endpoints.members(), *self.endpoints.draining()):
            self._replace(member)
        self._stirred.set()

    def adopt(self, config: Config, decay_s: float) -> None:
        """Go by other options from now on; `config.connection` is read when connections are made."""
        asked, period_s = self._config.health.service, self._load_period_s
        self._config, self._decay_s = config, decay_s
        self._load_period_s = None if self._load is None else self._load.period_s
        if (asked, period_s) != (config.health.service, self._load_period_s):
            for member in self.endpoints.members():
                if member.state is State.READY:
                    self._check(member)

    def _interval_s(self) -> float:
        connecting = any(
            member.connection.state in UNDER_WAY or member.successor is not None for member in self.endpoints.members()
        )
        return max(POLL_CONNECTING_S if connecting else POLL_S, len(self.endpoints) * POLL_EACH_S)

    def _settle(self, member: Member) -> None:
        """See to what a change of connection asks for."""
        self._retire(member)
        if member.is_new:
            member.came_s, member.jitter = asyncio.get_running_loop().time(), self._rng.random()
            # It may have been restarted; what its last calls waited for in vain must not keep it out.
            member.slot.forget_latency()
            member.slot.forget_weight()
            self._check(member)
            self._greet(member)
        elif member.state is not State.READY:
            self._stop_checking(member)

    # Replacing

    def _replace(self, member: Member) -> None:
        # C-core would share the connection that is to be replaced, were the new one made alike.
        member.replace(self._connect(member.endpoint.address, next(fresh_numbers)))
        self._retire(member)

    def _retire(self, member: Member) -> None:
        """Let the calls on connections that were replaced run on."""
        if member.retired:
            self._forget(member.slot)
            assert self._tasks is not None
            for connection in member.retired:
                self._retired.add(connection)
                self._tasks.start_soon(self._close, connection, RETIREMENT_S)
            member.retired.clear()

    def _let_go(self) -> None:
        """Close the connections of those who left and have nothing more to do."""
        assert self._tasks is not None
        for member in self.endpoints.reap(asyncio.get_running_loop().time()):
            self._forget(member.slot)
            for connection in filter(None, (member.connection, member.successor)):
                self._retired.add(connection)
                self._tasks.start_soon(self._close, connection, None)

    async def _close(self, connection: Connection, grace_s: float | None) -> None:
        try:
            await connection.channel.close(grace_s)
        except Exception:  # of grpc.aio's own bookkeeping; the balancer goes on without this connection all the same
            logger.exception("a connection could not be closed")
        finally:
            self._retired.discard(connection)

    # Calls that are not answered

    def _listen(self) -> None:
        """Take out those who leave their calls unanswered, and bring back those who answer after all."""
        now, now_s = now_ns(), asyncio.get_running_loop().time()
        least_ns = self._config.connection.silence_s * 1e9
        quiet: list[tuple[Member, int]] = []
        changed = fallen = False
        for member in self.endpoints.members():
            silence_ns = member.silence.seen(member.slot, now, self._decay_s)
            if member.is_silent and silence_ns == 0:
                member.recover()
                member.slot.forget_latency()  # what its calls waited for in vain is over
                self._retire(member)
                changed = True
            elif silence_ns >= least_ns and member.state is State.READY:
                quiet.append((member, silence_ns))
        for member, silence_ns in quiet:
            if is_too_long(silence_ns, member.silence.latency_ns, self._longest_latency_ns(member), least_ns):
                # The last one stays in use: where there is nowhere else to go, a call may as well try.
                if any(one.state is State.READY for one in self.endpoints.members() if one is not member):
                    member.fall_silent(now_s)
                    changed = fallen = True
                if member.successor is None:
                    self._replace(member)
        if changed:
            self._changed()
        if fallen:
            self._lost()

    def _longest_latency_ns(self, apart_from: Member) -> float | None:
        members = self.endpoints.members()
        known = (member.silence.latency_ns for member in members if member is not apart_from)
        return max((latency_ns for latency_ns in known if latency_ns is not None), default=None)

    # Who is at the other end, and how it is

    def _check(self, member: Member) -> None:
        """Begin to check what a new connection leads to."""
        self._stop_checking(member)
        wishes = (self._verify, self._config.health.service, self._load_period_s)
        if self._tasks is not None and any(wish is not None for wish in wishes):
            member.is_trusted = self._verify is None
            member.verdict = Verdict.UNKNOWN if self._config.health.service is None else Verdict.PENDING
            self._checks[member] = anyio.CancelScope()
            self._tasks.start_soon(self._follow, member, self._checks[member])

    async def _follow(self, member: Member, scope: anyio.CancelScope) -> None:
        """Find out who a server is, then how it is, for as long as its connection lasts."""

        def report(verdict: Verdict, reason: str) -> None:
            logger.info("%s: %s: %s", member.endpoint.address, verdict.value, reason)
            member.verdict = verdict
            self._changed()

        channel, service = member.connection.channel, self._config.health.service
        with scope:
            if self._verify is not None:
                await self._wait_for_trust(member, self._verify)
            async with anyio.create_task_group() as following:
                if service is not None:
                    watch = partial(watch_health, rng=self._rng, config=self._config.health)
                    following.start_soon(watch, channel, service, report)
                if self._load is not None and self._load_period_s is not None:
                    following.start_soon(self._load.follow, channel, member.slot)

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
                self._changed()

    def _stop_checking(self, member: Member) -> None:
        scope = self._checks.pop(member, None)
        if scope is not None:
            scope.cancel()
            member.verdict = Verdict.UNKNOWN
