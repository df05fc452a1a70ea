"""What happens to the servers: faults that begin and end, and servers that come and go."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeAlias, TypeVar

from ..types import Outcome
from .agenda import Agenda
from .client import Client
from .parts import Antagonist, AnyFault, Change, Churn, Deploy, Fail, Hang, Pauses, Slow, Warming
from .scenario import Scenario
from .server import Server
from .service import NS_PER_S
from .trace import ABSENT, Trace

T = TypeVar("T")

SAMPLES = 1_000
"""How often the calls in flight are looked at in one run,"""
MOST_READINGS = 1_000_000
"""unless there are so many servers that it would be more readings than this."""

OUTCOMES = {
    "UNAVAILABLE": Outcome.UNAVAILABLE.value,
    "INTERNAL": Outcome.FAILURE.value,
    "RESOURCE_EXHAUSTED": Outcome.RATE_LIMITED.value,
}

Effect: TypeAlias = Slow | Hang | Fail | Warming
"""What a server can be told to be like; the other faults switch one of these on and off."""


class World:
    """Puts the faults and changes of a scenario on the agenda, and tells servers and clients when they are due."""

    def __init__(
        self,
        scenario: Scenario,
        servers: list[Server],
        clients: list[Client],
        agenda: Agenda,
        read_clock: Callable[[], int],
        trace: Trace,
        rng: random.Random,
    ) -> None:
        self._scenario = scenario
        self._servers = servers
        self._clients = clients
        self._agenda = agenda
        self._read_clock = read_clock
        self._trace = trace
        self._rng = rng
        self._members = {server.index: 0 for server in servers if server.group.joins_s == 0}
        self._effects: list[list[Effect]] = [[] for _ in servers]
        self._end_ns = int(scenario.seconds * NS_PER_S)
        trace.members = [[] for _ in servers]

    def begin(self) -> None:
        """Give the clients their first view, and put down all that will happen."""
        self._tell_clients()
        self._trace.connections = 0  # the first ones are not moved, but made
        for time_s in {server.group.joins_s for server in self._servers} - {0}:
            come = tuple(server.index for server in self._servers if server.group.joins_s == time_s)
            self._at(time_s, self._change, Change(at_s=time_s, add=come, renewed=False))
        for fault in self._scenario.faults:
            self._plan_fault(fault)
        for change in self._scenario.changes:
            if isinstance(change, Change):
                self._at(change.at_s, self._change, change)
            elif isinstance(change, Deploy):
                self._plan_deploy(change)
            else:
                self._plan_churn(change)
        self._sample(None)

    def end(self) -> None:
        """Let all servers go on, so that what is open can come to an end, and close the books."""
        for server in self._servers:
            server.thaw()
        for index in self._members:
            self._trace.members[index].append((self._members[index], self._end_ns))

    def _at(self, time_s: float, action: Callable[[T], object], subject: T) -> None:
        time_ns = int(time_s * NS_PER_S)
        if time_ns < self._end_ns:
            self._agenda.at(time_ns, action, subject)

    # Faults

    def _plan_fault(self, fault: AnyFault) -> None:
        for index in self._scenario.numbers(fault.servers):
            if isinstance(fault, Antagonist):
                self._plan_spells(index, fault, Slow(servers=(), from_s=0, factor=fault.factor))
            elif isinstance(fault, Pauses):
                self._plan_spells(index, fault, Hang(servers=(), from_s=0))
            else:
                self._at(fault.from_s, self._switch_on, (index, fault))
                if fault.until_s is not None:
                    self._at(fault.until_s, self._switch_off, (index, fault))

    def _plan_spells(self, index: int, fault: Antagonist | Pauses, effect: Effect) -> None:
        """Draw when the effect of a fault comes and goes on one server."""
        until_s = self._scenario.seconds if fault.until_s is None else fault.until_s
        chance = self._rng
        time_s = fault.from_s
        if isinstance(fault, Antagonist):
            mean_off_s, mean_on_s = fault.mean_off_s, fault.mean_on_s
            is_on = chance.random() < mean_on_s / (mean_on_s + mean_off_s)
        else:
            mean_off_s, mean_on_s, is_on = fault.every_s, fault.for_s, False
        while time_s < until_s:
            if is_on:
                self._at(time_s, self._switch_on, (index, effect))
            if not is_on:
                time_s += chance.expovariate(1 / mean_off_s)
            elif isinstance(fault, Pauses):
                time_s += mean_on_s
            else:
                time_s += chance.expovariate(1 / mean_on_s)
            if is_on:
                self._at(min(time_s, until_s), self._switch_off, (index, effect))
            is_on = not is_on

    def _switch_on(self, which: tuple[int, Effect]) -> None:
        index, effect = which
        self._effects[index].append(effect)
        self._apply(index)

    def _switch_off(self, which: tuple[int, Effect]) -> None:
        index, effect = which
        self._effects[index].remove(effect)
        self._apply(index)

    def _apply(self, index: int) -> None:
        server, effects = self._servers[index], self._effects[index]
        server.factor, server.added_ns = 1.0 / server.group.speed, 0
        server.fail_share, server.warming = 0.0, None
        for effect in effects:
            if isinstance(effect, Slow):
                server.factor *= effect.factor
                server.added_ns += int(effect.added_s * NS_PER_S)
            elif isinstance(effect, Fail):
                server.fail_share = max(server.fail_share, effect.share)
                server.fail_after_ns = int(effect.after_s * NS_PER_S)
                server.fail_outcome = OUTCOMES[effect.status]
            elif isinstance(effect, Warming):
                until_s = self._scenario.seconds if effect.until_s is None else effect.until_s
                server.warming = (int(effect.from_s * NS_PER_S), int(until_s * NS_PER_S), effect.factor)
        if any(isinstance(effect, Hang) for effect in effects):
            server.freeze()
        else:
            server.thaw()

    # The set

    def _plan_deploy(self, deploy: Deploy) -> None:
        for turn in range(0, len(self._servers), deploy.batch):
            batch = tuple(range(turn, min(turn + deploy.batch, len(self._servers))))
            time_s = deploy.from_s + turn // deploy.batch * deploy.every_s
            self._at(time_s, self._change, Change(at_s=time_s, remove=batch))
            self._at(time_s + deploy.down_s, self._change, Change(at_s=time_s, add=batch))

    def _plan_churn(self, churn: Churn) -> None:
        time_s = churn.from_s
        while time_s < self._scenario.seconds:
            one = (self._rng.randrange(len(self._servers)),)
            self._at(time_s, self._change, Change(at_s=time_s, remove=one))
            self._at(time_s + churn.down_s, self._change, Change(at_s=time_s, add=one, renewed=False))
            time_s += churn.every_s

    def _change(self, change: Change) -> None:
        for index in self._scenario.numbers(change.remove):
            since_ns = self._members.pop(index, None)
            if since_ns is not None:
                self._trace.members[index].append((since_ns, self._agenda.now_ns))
        for index in self._scenario.numbers(change.add):
            if index not in self._members:
                self._members[index] = self._agenda.now_ns
                if change.renewed:
                    self._renew(index)
        self._tell_clients()

    def _renew(self, index: int) -> None:
        """Put another server in the place of one, which finishes what it has."""
        self._servers[index].thaw()
        self._servers[index] = self._servers[index].successor()
        self._apply(index)
        for client in self._clients:
            client.forget(index)

    def _tell_clients(self) -> None:
        members = sorted(self._members)
        for client in self._clients:
            self._trace.connections += client.update(members, self._read_clock())

    def _sample(self, _: None) -> None:
        counts = [server.in_flight if server.index in self._members else ABSENT for server in self._servers]
        self._trace.rif.append((self._agenda.now_ns, counts))
        samples = max(10, min(SAMPLES, MOST_READINGS // len(self._servers)))
        self._at(self._agenda.now_ns / NS_PER_S + self._scenario.seconds / samples, self._sample, None)
