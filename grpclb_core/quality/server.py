"""A simulated server: slots, a queue before them, and everything that can be wrong with it."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

from ..native import Ticket
from ..types import Outcome
from .agenda import Agenda
from .parts import Group
from .reporter import ReportedCall, Reporter

SUCCESS = Outcome.SUCCESS.value


class Call:
    """One call, from the pick until nobody works on it any more."""

    __slots__ = (
        "client",
        "due_ns",
        "found",
        "is_gone",
        "is_over",
        "is_started",
        "is_stream",
        "outcome",
        "row",
        "server",
        "standstill_ns",
        "ticket",
        "work_ns",
    )

    def __init__(self, ticket: Ticket, client: int, server: Server, row: int, work_ns: float, is_stream: bool) -> None:
        self.ticket = ticket
        self.client = client
        self.server = server
        self.row = row
        """Where it stands in the trace."""
        self.work_ns = work_ns
        """Its work; once that is begun, the time that it takes."""
        self.is_stream = is_stream
        """Streams last as long as they do: they take no slot, and a slow server does not make them longer."""
        self.outcome = SUCCESS
        """How the server ends it."""
        self.is_over = False
        """Whether the client has its answer, or has given up."""
        self.is_gone = False
        """Whether the server has let go of it."""
        self.is_started = False
        """Whether it holds a slot of its server."""
        self.due_ns = 0
        """When the server is done with it, if it does not stand still before."""
        self.standstill_ns = 0
        """How long its server had stood still in all when it began."""
        self.found: ReportedCall | None = None
        """What the reporter of the server keeps of it."""


class Server:
    """Works on `slots` calls at a time, in the order in which they came.

    Args:
        index: its number.
        group: what it is like.
        agenda: where it puts down when it will be done with a call.
        rng: draws which calls fail.
        answer: told each call that is done.
    """

    __slots__ = (
        "_agenda",
        "_answer",
        "_held",
        "_queue",
        "_rng",
        "_standstill_ns",
        "added_ns",
        "busy",
        "cold_left",
        "factor",
        "fail_after_ns",
        "fail_outcome",
        "fail_share",
        "frozen_ns",
        "group",
        "in_flight",
        "index",
        "reporter",
        "warming",
    )

    def __init__(
        self, index: int, group: Group, agenda: Agenda, rng: random.Random, answer: Callable[[Call], None]
    ) -> None:
        self.index = index
        self.group = group
        self._agenda = agenda
        self._rng = rng
        self._answer = answer
        self._queue: deque[Call] = deque()
        self._held: list[Call] = []  # that would have been done while it stood still
        self._standstill_ns = 0  # all times that it stood still, added up
        self.busy = 0
        self.in_flight = 0
        """Calls that are here: worked on, waiting, or about to fail."""
        self.reporter: Reporter | None = None
        """Keeps what it says of its load, where anyone wants to know."""
        self.factor = 1.0 / group.speed
        self.added_ns = 0
        self.cold_left = group.cold_calls
        self.warming: tuple[int, int, float] | None = None
        """Since when it warms up, until when, and how many times longer calls take at most."""
        self.fail_share = 0.0
        self.fail_after_ns = 0
        self.fail_outcome = SUCCESS
        self.frozen_ns: int | None = None
        """Since when it stands still."""

    def take(self, call: Call) -> None:
        """Take in a call that was just sent."""
        self.in_flight += 1
        if self.reporter is not None:
            call.found = self.reporter.begin(not call.is_stream)
        if call.is_stream:
            self._end_in(call, call.work_ns)
        elif self.fail_share and self._rng.random() < self.fail_share:
            call.outcome = self.fail_outcome
            self._end_in(call, self.fail_after_ns)
        elif self.busy < self.group.slots and self.frozen_ns is None:
            self._begin(call)
        else:
            self._queue.append(call)

    def let_go(self, call: Call) -> None:
        """Stop working on a call whose client has given up."""
        self._leave(call, Outcome.CANCELLED)
        self._fill()  # one that waits is passed over when its turn comes

    def freeze(self) -> None:
        """Stand still from now on."""
        if self.frozen_ns is None:
            self.frozen_ns = self._agenda.now_ns

    def thaw(self) -> None:
        """Go on where everything stood still."""
        if self.frozen_ns is None:
            return
        self._standstill_ns += self._agenda.now_ns - self.frozen_ns
        self.frozen_ns = None
        held, self._held = self._held, []
        for call in held:
            self._complete(call)
        self._fill()

    def successor(self) -> Server:
        """Return a server that has just started in the place of this one."""
        fresh = Server(self.index, self.group, self._agenda, self._rng, self._answer)
        fresh.reporter = None if self.reporter is None else Reporter(self.group.slots, self._agenda)
        return fresh

    def _begin(self, call: Call) -> None:
        self.busy += 1
        call.is_started = True
        time_ns = call.work_ns * self.factor + self.added_ns
        if self.cold_left:
            self.cold_left -= 1
            time_ns *= self.group.cold_factor
        if self.warming is not None:
            time_ns *= _warming_factor(self._agenda.now_ns, *self.warming)
        call.work_ns = time_ns
        self._end_in(call, time_ns)

    def _end_in(self, call: Call, time_ns: float) -> None:
        call.due_ns = due_ns = self._agenda.now_ns + int(time_ns)
        call.standstill_ns = self._standstill_ns
        self._agenda.at(due_ns, self._complete, call)

    def _complete(self, call: Call) -> None:
        if call.is_gone:
            return
        if self.frozen_ns is not None:
            self._held.append(call)
        elif call.standstill_ns != self._standstill_ns:  # it stood still with its server, and takes that much longer
            call.due_ns += self._standstill_ns - call.standstill_ns
            call.standstill_ns = self._standstill_ns
            self._agenda.at(call.due_ns, self._complete, call)
        else:
            self._leave(call, call.outcome)
            if not call.is_over:
                self._answer(call)
            if self._queue:
                self._fill()

    def _leave(self, call: Call, outcome: int) -> None:
        call.is_gone = True
        self.in_flight -= 1
        self.busy -= call.is_started
        if self.reporter is not None and call.found is not None:
            self.reporter.end(call.found, outcome, call.work_ns if call.is_started else 0.0)

    def _fill(self) -> None:
        queue = self._queue
        while queue and self.busy < self.group.slots and self.frozen_ns is None:
            call = queue.popleft()
            if not call.is_gone:
                self._begin(call)


def _warming_factor(now_ns: int, since_ns: int, until_ns: int, most: float) -> float:
    if now_ns >= until_ns:
        return 1.0
    return min(most, (until_ns - since_ns) / max(1, now_ns - since_ns))
