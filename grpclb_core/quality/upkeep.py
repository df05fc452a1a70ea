"""What clients do besides calling: they build pickers anew, take in load reports, and look who is better left out."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from functools import partial

from ..balancer.probing import IDLE_S, Turns
from ..endpoints.warming import WARMING_STEPS
from ..native import Slot
from ..policies import TakesReports, rebuild_s, takes_reports, wants_probes, wants_report
from ..types import IN_FLIGHT_METRIC, LATENCY_METRIC
from .agenda import Agenda
from .client import Client
from .reporter import Reporter
from .server import Server
from .service import NS_PER_S
from .variants import Variant

PROBE_NS = 1_000_000
"""What it takes to ask a server for its load, as long as it stands not still."""


class Upkeep:
    """Does for the simulated clients what a balancer does in its background tasks.

    Args:
        variant: says how often its picker is built anew, and takes reports in.
        clients: whom to do it for; each at times of its own.
        servers: whose reports are taken in.
        read_clock: tells the clients' time.
        end_ns: when it stops.
        rng: draws when the first time is.
    """

    def __init__(
        self,
        variant: Variant,
        clients: Sequence[Client],
        servers: Sequence[Server],
        agenda: Agenda,
        read_clock: Callable[[], int],
        end_ns: int,
        rng: random.Random,
    ) -> None:
        self._policy = variant.policy
        self._slow_start = variant.config.slow_start
        self._clients = clients
        self._servers = servers
        self._agenda = agenda
        self._read_clock = read_clock
        self._end_ns = end_ns
        self._rng = rng
        self._reported: TakesReports | None = variant.policy if takes_reports(variant.policy) else None

    def begin(self) -> None:
        """Put all of it on the agenda."""
        rebuilds_s = min(rebuild_s(self._policy) or math.inf, self._slow_start.window_s / WARMING_STEPS or math.inf)
        for client in self._clients:
            if math.isfinite(rebuilds_s):
                self._repeat(partial(self._rebuild, client, rebuilds_s))
            if client.watch is not None:
                self._repeat(partial(self._look, client))
            if self._reported is not None and self._reported.oob_period_s is not None:
                self._repeat(partial(self._ask_all, client, self._reported.oob_period_s))
            if wants_probes(self._policy):
                self._repeat(partial(self._probe, client, Turns(self._rng)))
        if self._reported is not None:
            for server in self._servers:
                server.reporter = Reporter(server.group.slots, self._agenda)

    def call_ended(self, client: Client, slot: Slot, server: Server) -> None:
        """Take in what came with the answer to a call."""
        if self._reported is not None and wants_report(self._policy, slot, self._read_clock()):
            self._take(client, slot, server, self._reported)

    def _take(self, client: Client, slot: Slot, server: Server, policy: TakesReports) -> None:
        """Take in a report, as `grpclb_core.balancer.load` does."""
        if server.reporter is None:
            return
        report, now_ns = server.reporter.report(), self._read_clock()
        metrics = report.named_metrics
        slot.report_load_at(int(metrics[IN_FLIGHT_METRIC]), metrics.get(LATENCY_METRIC, 0.0) * NS_PER_S, now_ns)
        policy.observe(report, slot, now_ns)
        if client.picker is not None:
            client.picker.reported(slot)

    def _answer_probe(self, asked: tuple[Client, Slot]) -> None:
        client, slot = asked
        index = client.server_of.get(slot)
        if index is not None and self._reported is not None and self._servers[index].frozen_ns is None:
            self._take(client, slot, self._servers[index], self._reported)

    # Each of these returns the time until it is due again.

    def _rebuild(self, client: Client, every_s: float) -> float:
        client.rebuild(self._read_clock())
        return every_s

    def _look(self, client: Client) -> float:
        client.look(self._read_clock())
        return math.inf if client.watch is None else client.watch.pause_s

    def _ask_all(self, client: Client, every_s: float) -> float:
        for slot, index in client.server_of.items():
            if self._reported is not None and self._servers[index].frozen_ns is None:
                self._take(client, slot, self._servers[index], self._reported)
        return every_s

    def _probe(self, client: Client, turns: Turns) -> float:
        if client.picker is not None and wants_probes(self._policy):
            for slot in turns.due(self._policy, client.picker, self._read_clock(), lambda slot: True):
                self._agenda.at(self._agenda.now_ns + PROBE_NS, self._answer_probe, (client, slot))
            return turns.pause_s
        return IDLE_S

    def _repeat(self, action: Callable[[], float]) -> None:
        """Do something again and again, for the first time after a random part of a second."""

        def due(_: None) -> None:
            wait_s = action()
            if self._agenda.now_ns + wait_s * NS_PER_S < self._end_ns:
                self._agenda.at(self._agenda.now_ns + max(1, int(wait_s * NS_PER_S)), due, None)

        self._agenda.at(int(self._rng.random() * min(NS_PER_S, self._end_ns)), due, None)
