"""Keeping the connections of a balancer: made, followed, checked, replaced and let go."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import Callable, Iterable, Iterator

import anyio
import anyio.abc
import grpc
import grpc.aio

from ..config import Config
from ..endpoints import Connection, Dialer, EndpointSet, Member, State, is_too_long
from ..native import Slot, now_ns
from ..types import Address, Endpoint
from .checks import Checks, Listens, Verify
from .trials import Trials

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

# Numbers of connections that take the place of others, in all balancers of the process; ConnectionConfig.per_endpoint
# keeps the others below.
fresh_numbers = itertools.count(1000)

logger = logging.getLogger("grpclb_core")


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
        self._looked = looked
        self._checks = Checks(config.health, rng, changed, verify, load)
        self._trials = Trials()
        self._retired: set[Connection] = set()
        self._stirred = anyio.Event()
        self._tasks: anyio.abc.TaskGroup | None = None

    def _connect(self, address: Address, number: int) -> Connection:
        return Connection(self._dialer.dial(address, number))

    async def close(self) -> None:
        """Close every channel that is open, those of connections on their way out included."""
        async with anyio.create_task_group() as closing:
            for channel in list(self._channels()):
                closing.start_soon(channel.close)

    def _channels(self) -> Iterator[grpc.aio.Channel]:
        for member in (*self.endpoints.members(), *self.endpoints.draining()):
            for connection in (member.connection, member.successor, *member.retired):
                if connection is not None:
                    yield connection.channel
        for connection in self._retired:
            yield connection.channel

    def is_busy(self) -> bool:
        """Tell whether any call is open."""
        return any(member.slot.in_flight for member in (*self.endpoints.members(), *self.endpoints.draining()))

    async def run(self, tasks: anyio.abc.TaskGroup) -> None:
        """Follow the connections until cancelled, closely while one of them is being made."""
        self._tasks = self._checks.tasks = tasks
        for member in self.endpoints.members():  # when run again, after a crash
            self._retire(member)
            if member.connection.is_ready:
                self._checks.begin(member)
        try:
            while True:
                self._stirred = anyio.Event()
                self.poll(self.endpoints.members())
                self._listen()
                if self._looked is not None:
                    self._looked()
                self._let_go()
                with anyio.move_on_after(self._interval_s()):
                    await self._stirred.wait()
        finally:
            self._tasks = self._checks.tasks = None

    def update(self, endpoints: Iterable[Endpoint]) -> None:
        """Replace the set of endpoints: connect to those who came, send no more calls to those who left."""
        came, left = self.endpoints.update(endpoints, asyncio.get_running_loop().time())
        for member in left:
            self._checks.stop(member)
        for member in came:
            if member.connection.is_ready:  # it is back before its connection was closed
                self._checks.begin(member)
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
                    self._trials.begin(member, now_s)
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
        self._config, self._decay_s = config, decay_s
        # By the connection: one that is silent may answer after all, and would not be asked anew then.
        self._checks.adopt(config.health, [one for one in self.endpoints.members() if one.connection.is_ready])

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
            self._checks.begin(member)
            self._greet(member)
        elif not member.connection.is_ready:
            self._checks.stop(member)

    # Replacing

    def _replace(self, member: Member) -> None:
        # C-core would share the connection that is to be replaced, were the new one made alike.
        member.replace(self._connect(member.endpoint.address, next(fresh_numbers)))
        self._retire(member)

    def _retire(self, member: Member) -> None:
        """Let the calls on connections that were replaced run on."""
        if member.retired:
            self._forget(member.slot)
            if self._tasks is None:
                return  # after a crash; when it is run again
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
        silence_s = self._config.connection.silence_s
        least_ns = silence_s * 1e9
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
        self._trials.look(now_s, silence_s, self._config.outliers.window_s)
        if changed:
            self._changed()
        if fallen:
            self._lost()

    def _longest_latency_ns(self, apart_from: Member) -> float | None:
        members = self.endpoints.members()
        known = (member.silence.latency_ns for member in members if member is not apart_from)
        return max((latency_ns for latency_ns in known if latency_ns is not None), default=None)
