"""The run: clients send calls to servers in simulated time, by the compiled pickers of a policy.

Entry point: `simulate`. The same scenario, policy and seed give the same trace. What differs from a real run: there is
no network between clients and servers, and every client learns of a change of the set at once.
"""

from __future__ import annotations

import random
import sys
from collections import deque

from ..policies import Policy
from ..types import Outcome
from .agenda import Agenda
from .arrivals import Arrivals
from .client import Client
from .clock import START_NS, client_clock
from .scenario import Scenario
from .server import Call, Server
from .service import NS_PER_S
from .trace import NOBODY, Trace
from .upkeep import Upkeep
from .variants import Variant
from .world import World

SUCCESS, UNAVAILABLE, TIMED_OUT = Outcome.SUCCESS.value, Outcome.UNAVAILABLE.value, Outcome.TIMED_OUT.value

AGAIN_NS = 1_000_000
"""When a caller tries again for whom there was no server, where so many calls are always open."""


def simulate(scenario: Scenario, variant: Variant | Policy, seed: int) -> Trace:
    """Run a scenario from its beginning to its end, and let what is open then come to an end."""
    return Simulation(scenario, variant, seed).run()


class Simulation:
    """One run; see `simulate`.

    Chance has a source for each purpose, so that two policies meet the same arrivals and the same faults.
    """

    def __init__(self, scenario: Scenario, variant: Variant | Policy, seed: int) -> None:
        variant = variant if isinstance(variant, Variant) else Variant(variant)
        arrivals, work, faults, chance = (random.Random(f"{seed} {purpose}") for purpose in range(4))
        self.scenario = scenario
        self.agenda = Agenda()
        self.trace = Trace()
        self.servers = [
            Server(index, group, self.agenda, faults, self._answered) for index, group in enumerate(scenario.groups())
        ]
        self.clients = [Client(variant, scenario.subset, chance) for _ in range(scenario.clients)]
        self._read_clock = client_clock(scenario.clock)
        self.world = World(scenario, self.servers, self.clients, self.agenda, self._clients_time, self.trace, faults)
        self._arrivals = Arrivals(scenario, arrivals) if scenario.load else None
        self._chance = arrivals.random
        draws = {group: group.service.draw(work) for group in scenario.servers}
        self._draws = [draws[group] for group in scenario.groups()]
        self._stream_share = 0.0 if scenario.streams is None else scenario.streams.share
        self._draw_stream = None if scenario.streams is None else scenario.streams.lasts.draw(work)
        self._deadline_ns = None if scenario.deadline_s is None else int(scenario.deadline_s * NS_PER_S)
        self._awaited: deque[tuple[int, Call]] = deque()  # calls with a deadline, in its order
        self._end_ns = int(scenario.seconds * NS_PER_S)
        self._upkeep = Upkeep(
            variant, self.clients, self.servers, self.agenda, self._clients_time, self._end_ns, chance
        )

    def run(self) -> Trace:
        """Run to the end of the scenario, then without new calls until none is open."""
        self.world.begin()
        self._upkeep.begin()
        if self._arrivals is not None:
            self._expect(self._arrivals)
        for _ in range(self.scenario.concurrency or 0):
            self.agenda.at(0, self._send, None)
        self.agenda.run(self._end_ns - 1)
        self.world.end()
        self.agenda.run(sys.maxsize)
        return self.trace

    # Calls

    def _arrive(self, arrivals: Arrivals) -> None:
        self._send(None)
        self._expect(arrivals)

    def _expect(self, arrivals: Arrivals) -> None:
        next_ns = arrivals.next_ns()
        if next_ns < self._end_ns:
            self.agenda.at(next_ns, self._arrive, arrivals)

    def _send(self, _: None) -> None:
        now_ns = self.agenda.now_ns
        number = int(self._chance() * len(self.clients))
        client = self.clients[number]
        if client.picker is None:
            self.trace.end(self.trace.add(now_ns, number, NOBODY, 0), now_ns, UNAVAILABLE)
            if self._arrivals is None and now_ns + AGAIN_NS < self._end_ns:
                self.agenda.at(now_ns + AGAIN_NS, self._send, None)
            return
        is_stream = self._stream_share > 0 and self._chance() < self._stream_share
        ticket = client.picker.pick_at(self._clients_time(), is_stream)
        index = client.server_of[ticket.slot]
        server = self.servers[index]
        draw = self._draw_stream if is_stream and self._draw_stream else self._draws[index]
        row = self.trace.add(now_ns, number, index, server.in_flight + 1)
        call = Call(ticket, number, server, row, draw(), is_stream)
        if is_stream:
            self.trace.streams.add(row)
        elif self._deadline_ns is not None:
            self._awaited.append((now_ns + self._deadline_ns, call))
            if len(self._awaited) == 1:
                self.agenda.at(now_ns + self._deadline_ns, self._expire, None)
        server.take(call)

    def _answered(self, call: Call) -> None:
        self._end(call, call.outcome)
        if call.outcome == SUCCESS:
            self._upkeep.call_ended(self.clients[call.client], call.ticket.slot, call.server)

    def _end(self, call: Call, outcome: int) -> None:
        call.is_over = True
        call.ticket.finish_at(outcome, self._clients_time())
        now_ns = self.agenda.now_ns
        self.trace.end(call.row, now_ns, outcome)
        if self._arrivals is None and now_ns < self._end_ns:  # one comes for each that goes
            self.agenda.at(now_ns, self._send, None)

    def _expire(self, _: None) -> None:
        """End the calls whose deadline has come, and look again at that of the first one that is still open."""
        now_ns, awaited = self.agenda.now_ns, self._awaited
        while awaited and (awaited[0][1].is_over or awaited[0][0] <= now_ns):
            call = awaited.popleft()[1]
            if not call.is_over:
                self._end(call, TIMED_OUT)
                if self.scenario.deadline_reaches_server:
                    call.server.let_go(call)
        if awaited:
            self.agenda.at(awaited[0][0], self._expire, None)

    def _clients_time(self) -> int:
        now_ns = self.agenda.now_ns
        return now_ns + START_NS if self._read_clock is None else self._read_clock(now_ns)
