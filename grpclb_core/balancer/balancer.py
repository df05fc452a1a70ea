"""How does it all hang together? The composition root: one resolver, one endpoint set, one policy.

Resolutions come in, connections come up and go down, and after each such change a new picker stands in `current`,
where the calls find it. All of that happens in background tasks of one task group; a call only reads.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import weakref
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

import anyio
import anyio.abc
import grpc
import grpc.aio

from ..config import ChannelOption, Config, parse_config
from ..endpoints import Dialer, Member, State, step_s
from ..errors import ResolutionError, WrongEventLoopError
from ..identity import ReloadingCredentials
from ..native import CurrentPicker, MultiCallable, Picker, RandomPicker, Slot, Ticket, View, now_ns
from ..observe import BalancerSnapshot
from ..policies import P2cEwma, Policy, goes_by_name, rebuild_s, takes_reports
from ..service_config import ServiceConfigs
from ..types import Resolution
from .credentials import identity_of
from .load import LoadReports
from .outage import outage_of
from .outliers import Outliers
from .probing import Probing
from .reach import Reach
from .roster import roster_of
from .selection import Selection, is_plain, select, view_of
from .snapshots import snapshots_of
from .source import TargetLike, source_of
from .upkeep import Upkeep

Connectivity = grpc.ChannelConnectivity

# Pause before a resolver that crashed is started again: gRPC's initial connection backoff.
RESTART_S = 1.0

# A policy of the user's may want its picker built anew more often; connections are looked at as often.
LEAST_REBUILD_S = 0.05

# How often a balancer that is closing looks whether its last call has ended.
CLOSING_POLL_S = 0.01

logger = logging.getLogger("grpclb_core")


class Balancer:
    """Balances calls to one target.

    Args:
        target: a gRPC target string, a list of endpoints, or a resolver.
        credentials: channel credentials for every connection, or files to read them from; None for plaintext.
        options: channel options passed on to every connection. A service config among them goes for the whole, as the
            default where the resolver says nothing.
        compression: passed on to every connection.
        policy: a policy object or the name of one, whatever a service config says; by default what that says, and
            `P2cEwma()` without one.
        config: a `Config`, or a mapping of its fields.

    Raises:
        ConfigError: target, policy, config or service config cannot be used.
        IdentityError: the files of the credentials cannot be used.
    """

    def __init__(
        self,
        target: TargetLike,
        credentials: grpc.ChannelCredentials | ReloadingCredentials | None = None,
        options: Sequence[ChannelOption] | None = None,
        compression: grpc.Compression | None = None,
        *,
        policy: Policy | str | None = None,
        config: Config | Mapping[str, object] | None = None,
    ) -> None:
        self._own_config = parse_config(config)
        self._service = ServiceConfigs(policy, options or ())
        self.config, self.policy = self._service.applied_to(self._own_config), self._service.policy
        self.is_secure = credentials is not None
        self.target, self._resolver = source_of(target, self.config)
        self.current = CurrentPicker(self.lost)
        first, self._identity = identity_of(credentials)
        self._verification = None if self._identity is None else self._identity.verification
        authority = self._resolver.authority
        self._dialer = Dialer(first, self._service.options, compression, authority, self.config.connection)
        self._dialer.service_config = self._service.for_connections
        self._random = random.Random(self.config.seed)
        self._load = LoadReports(weakref.ref(self), self._random)
        self._upkeep = self._make_upkeep()
        self._endpoints = self._upkeep.endpoints
        self._outliers = Outliers(self._endpoints, self.config, self._random, self._publish)
        self._reach = Reach(self._upkeep, self.config, self._random, self._refresh)
        self.probing = Probing(self, self._load.take, self._random)
        self._resolution = Resolution(())
        self._is_plain, self._in_panic, self._panics = True, False, 0
        self._stirred = anyio.Event()
        self._resolved = self._closed = self._stopping = False
        self._resolver_error: ResolutionError | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting: set[asyncio.Task[Any]] = set()
        self._supervisor: asyncio.Task[None] | None = None
        self._scope: anyio.CancelScope | None = None
        self._tasks: anyio.abc.TaskGroup | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._methods: weakref.WeakSet[MultiCallable] = weakref.WeakSet()

    def _make_upkeep(self) -> Upkeep:
        return Upkeep(
            self._dialer,
            self.config,
            self.policy.decay_s,
            self._random,
            changed=self._publish,
            lost=self._refresh,
            forget=self._forget,
            greet=self._greet,
            verify=self._verification,
            load=self._load,
            looked=self._look,
        )

    # Life

    @property
    def is_closed(self) -> bool:
        return self._closed

    def start(self) -> None:
        """Begin to resolve and to connect in the running event loop; do nothing if that has begun.

        Raises:
            WrongEventLoopError: no loop is running, or another than the one this balancer was started in.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise WrongEventLoopError(
                f"{self.target}: used outside a running event loop; make calls inside a coroutine"
            ) from None
        if self._loop is None:
            self._loop = self.current.loop = loop
            self._scope = anyio.CancelScope()
            self._supervisor = loop.create_task(self._supervise(), name=f"grpclb {self.target}")
            self._wake()
        elif self._loop is not loop:
            raise WrongEventLoopError(
                f"{self.target}: belongs to another event loop; make one channel for each loop, inside it"
            )

    async def close(self, grace: float | None = None) -> None:
        """Close every connection; calls may run on for `grace` seconds, without it they are cancelled.

        Raises:
            ValueError: `grace` is negative.
        """
        if grace is not None and grace < 0:
            raise ValueError(f"grace is {grace}; use a number of seconds of 0 or more, or None")
        if self._closed:
            return
        if self._loop is not None and self._loop is not asyncio.get_running_loop():
            self._leave_loop(self._loop)
            return
        self._closed = True
        self.current.loop = None  # turns new calls away from the fast path
        self._wake()
        try:
            await self._wind_down(grace or 0.0)
        finally:
            with anyio.CancelScope(shield=True):
                if self._supervisor is not None:
                    self._end()
                    await asyncio.wait((self._supervisor,))
                await self._upkeep.close()

    async def _wind_down(self, grace_s: float) -> None:
        """Let calls that wait, and those that run, come to their end."""
        ends_s = anyio.current_time() + grace_s
        if self._starting:
            if grace_s:
                await asyncio.wait(self._starting, timeout=grace_s)
            for task in self._starting:
                task.cancel()
        self._stopping = True
        self.current.picker = None
        # Not grpc.aio's own grace: a channel whose closing was cancelled half-way never closes.
        while self._upkeep.is_busy() and anyio.current_time() < ends_s:  # noqa: ASYNC110 - the core tells nobody of ends
            await anyio.sleep(CLOSING_POLL_S)

    def _leave_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Be closed from outside the loop of the calls; nothing is left to close in one that is over.

        Raises:
            WrongEventLoopError: it is not over.
        """
        if not loop.is_closed():
            raise WrongEventLoopError(f"{self.target}: belongs to another event loop; close it there")
        self._closed = True
        self.current.loop = self.current.picker = None

    def abandon(self) -> None:
        """Let go of everything without waiting; for a channel that was dropped and not closed. Safe in any thread."""
        if not self._closed and self._loop is not None and self._supervisor is not None and not self._loop.is_closed():
            self._closed = self._stopping = True
            self.current.picker = None
            self._loop.call_soon_threadsafe(self._end)

    def await_start(self, start: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run in the background what waits for an endpoint to start a call; closing ends it."""
        task = asyncio.get_running_loop().create_task(start)
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)
        return task

    async def __aenter__(self) -> Balancer:
        self.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def _supervise(self) -> None:
        # A task of our own, because a drop-in channel may never be entered with `async with`, and a task group has to
        # be left by the task that entered it.
        assert self._scope is not None
        with self._scope:
            while True:
                try:
                    await self._work()
                except Exception:
                    logger.exception("%s: background work crashed; it is started again in %s s", self.target, RESTART_S)
                await anyio.sleep(RESTART_S)

    async def _work(self) -> None:
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            tasks.start_soon(self._resolve)
            tasks.start_soon(self._rebuild)
            tasks.start_soon(self._outliers.run)
            tasks.start_soon(self.probing.run)
            if self._identity is not None:
                tasks.start_soon(self._identity.follow, self._renew)
            await self._upkeep.run(tasks)

    def _end(self) -> None:
        """Have the supervisor leave. Its scope is cancelled, not its task: before Python 3.11, a task whose own timeout
        runs out in the same moment takes the one cancellation for the other, and stays."""
        if self._scope is not None:
            self._scope.cancel()

    async def _resolve(self) -> None:
        while True:
            try:
                return await self._resolver.run(self)
            except Exception as error:
                logger.exception("the resolver of %s crashed; it is started again in %s s", self.target, RESTART_S)
                self.fail(ResolutionError(f"the resolver crashed with {type(error).__name__}: {error}"))
            await anyio.sleep(RESTART_S)

    # What the resolver reports

    def update(self, resolution: Resolution) -> None:
        """Take the full set of endpoints: connect to those who came, send no more calls to those who left."""
        if self._tasks is None or self._stopping:
            return  # closed before the resolver had a chance to answer
        self._resolution = resolution
        if self._service.take(resolution.service_config):
            self._adopt()
        self.current.sheds = bool(resolution.drops) or self.probing.is_synchronous
        self._is_plain = self._verification is None and is_plain(resolution, self.config)
        self._resolved = True
        self._resolver_error = None
        try:
            self._reach.update(resolution.endpoints, self.policy)
        except Exception as error:
            logger.exception("%s: the endpoints cannot be used", self.target)
            self.fail(ResolutionError(f"the endpoints cannot be used ({type(error).__name__}: {error})"))

    def _adopt(self) -> None:
        """Go by the service config that counts now; slots, and where they can stay connections, are kept."""
        service = self._service
        if service.fault is not None:
            logger.warning("%s: the service config is refused, the one before stays: %s", self.target, service.fault)
            return
        self.config, self.policy = service.applied_to(self._own_config), service.policy
        self._upkeep.adopt(self.config, self.policy.decay_s)
        self._outliers.config = self.config
        if service.for_connections != self._dialer.service_config:
            self._dialer.service_config = service.for_connections
            self._upkeep.renew()
        self._stirred.set()

    def fail(self, error: ResolutionError) -> None:
        """Take note of a failed lookup; the endpoints stay as they are."""
        self._resolver_error = error
        logger.warning("%s: %s", self.target, error)
        self._wake()

    def _refresh(self) -> None:
        try:
            self._resolver.refresh()
        except Exception:  # a resolver of the user's, most likely
            logger.exception("%s: the resolver failed to look again", self.target)

    # Connections

    def _renew(self, credentials: grpc.ChannelCredentials) -> None:
        self._dialer.credentials = credentials
        self._upkeep.renew()

    def lost(self, slot: Slot) -> None:
        """Hear from a call that found the connection of a picked endpoint gone."""
        self._upkeep.poll((self._endpoints.owner_of(slot),))

    def channel_of(self, slot: Slot) -> grpc.aio.Channel:
        """Return the channel to the endpoint that owns `slot`."""
        return self._endpoints.owner_of(slot).connection.channel

    def register(self, method: MultiCallable) -> None:
        """Have a multi-callable told when an endpoint leaves, so that it lets go of its channel."""
        self._methods.add(method)

    def _forget(self, slot: Slot) -> None:
        for method in self._methods:
            method.forget(slot)

    def _greet(self, member: Member) -> None:
        self._outliers.greet(member)
        self.probing.greet(member.slot)
        self._stirred.set()

    # The picker in force

    def _publish(self) -> None:
        """Put a picker over the ready endpoints in place of the one before."""
        if self._stopping:  # a picker would let in calls that begin now
            self._wake()
            return
        self._reach.follow()
        self._outliers.catch_up()
        selection = select(
            self._endpoints, self._resolution, self.config, self._all_alike, asyncio.get_running_loop().time()
        )
        self._panics += selection.in_panic and not self._in_panic
        self._in_panic = selection.in_panic
        picker = self._build(self._view_of(selection)) if selection.slots and self._reach.is_settled else None
        if picker is not None:
            picker.reporter = self._load if takes_reports(self.policy) else None
        self.current.picker = picker
        self._wake()

    def _look(self) -> None:
        if self._reach.follow():
            self._publish()

    @property
    def _all_alike(self) -> bool:
        return self._is_plain and not self._outliers.any_ejected

    def _view_of(self, selection: Selection) -> View:
        named = goes_by_name(self.policy)
        return view_of(selection, roster_of(self._endpoints, selection, self._all_alike) if named else None)

    def _build(self, view: View) -> Picker:
        seed, now = self._random.getrandbits(64), now_ns()
        try:
            return self.policy.build(view, seed, now)
        except Exception:  # a policy of the user's, most likely
            logger.exception("%s: the policy made no picker; the default one takes its place", self.target)
            return P2cEwma().build(view, seed, now)

    async def _rebuild(self) -> None:
        """Build the picker anew as often as the policy, or servers that are warming up, want it."""
        while True:
            self._stirred = anyio.Event()
            with anyio.move_on_after(self._rebuild_s()):
                await self._stirred.wait()
                continue  # with another policy, or with servers that just came
            if self.current.picker is not None:
                self._publish()

    def _rebuild_s(self) -> float:
        every_s, now_s = rebuild_s(self.policy), asyncio.get_running_loop().time()
        warming_s = step_s((now_s - member.came_s for member in self._endpoints.members()), self.config.slow_start)
        return min(warming_s, math.inf if every_s is None else max(LEAST_REBUILD_S, every_s))

    @property
    def state(self) -> Connectivity:
        """The connectivity of the target as a whole, aggregated as gRPC's round_robin does."""
        return Connectivity.SHUTDOWN if self._closed else self.connectivity()

    def connectivity(self) -> Connectivity:
        """Return the state as it is for calls that began before the balancer was closed."""
        if self._loop is None:
            return Connectivity.IDLE
        if len(self._endpoints):
            state = self._endpoints.state()
            if self._reach.is_failing:
                return Connectivity.TRANSIENT_FAILURE
            if state is Connectivity.READY and self.current.picker is None and not self._stopping:
                return self._state_of_the_unusable()
            return state
        if self._resolved or self._resolver_error is not None:
            return Connectivity.TRANSIENT_FAILURE
        return Connectivity.CONNECTING

    def _state_of_the_unusable(self) -> Connectivity:
        """Return the state where endpoints are connected to and none may be used, yet or at all."""
        ready = [member for member in self._endpoints.members() if member.state is State.READY]
        is_hopeless = all(not member.is_trusted and member.connection.last_error for member in ready)
        return Connectivity.TRANSIENT_FAILURE if is_hopeless else Connectivity.CONNECTING

    async def changed(self) -> None:
        """Wait until a new picker is in force, or something else about the state may have changed."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    # Why there is none

    def failing(self) -> Member | None:
        """Return a member whose connection fails, for a call to learn there what is wrong; None if there is none."""
        members = [member for member in self._endpoints.members() if member.state is State.FAILING]
        return self._random.choice(members) if members else None

    def shed(self) -> str | None:
        """Tell whether the next call is to be dropped: the category of the control plane that says so, or None.

        Categories are drawn for one after the other, as EDS has it.
        """
        for drop in self._resolution.drops:
            if self._random.random() < drop.fraction:
                return drop.category
        return None

    def open_ticket(self, member: Member, timed: bool) -> Ticket:
        """Open a ticket on one member, whatever a policy would choose."""
        picker = RandomPicker(View([member.slot]), decay_s=self.policy.decay_s, seed=0)
        return picker.pick() if timed else picker.pick_stream()

    def describe_outage(self) -> str:
        """Say in one clause why no endpoint can take a call: the target, its endpoints, and what the resolver said."""
        outage = outage_of(self._endpoints.members(), self._resolved, self._resolver_error)
        return f"{self.target}: {outage}"

    def snapshot(self) -> BalancerSnapshot:
        """Return the state at this moment as plain values."""
        return BalancerSnapshot(
            target=self.target,
            policy=self.policy.name,
            state=self.state.name.lower(),
            resolver_error=str(self._resolver_error) if self._resolver_error else None,
            service_config_error=self._service.fault,
            known=len(self._resolution.endpoints),
            in_panic=self._in_panic,
            panics=self._panics,
            ejections=self._outliers.ejections,
            readmissions=self._outliers.readmissions,
            endpoints=snapshots_of(self._endpoints, self.policy.decay_s),
        )
