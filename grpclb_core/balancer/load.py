"""What servers say of their load, on its way to the policy: with the calls that end, and on streams of their own.

A report is believed or ignored as a whole (`grpclb_core.reports.trust`). What is of use whatever the policy, how many
calls a server has in flight and what they take there, goes into its slot; the rest is for the policy to make of it.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable
from typing import Protocol

import grpc.aio

from ..native import CurrentPicker, Slot, now_ns
from ..policies import Policy, takes_reports, wants_report
from ..reports import OWN_KEY, read_report, watch_load
from ..types import IN_FLIGHT_METRIC, LATENCY_METRIC, Address, LoadReport

logger = logging.getLogger("grpclb_core")


class Owner(Protocol):
    """Whose endpoints report: what is in force with it at the moment."""

    @property
    def policy(self) -> Policy: ...
    @property
    def current(self) -> CurrentPicker: ...


class LoadReports:
    """Takes in the load reports of the endpoints of a balancer, for as long as its policy goes by them.

    Open calls hold it, by the picker they were picked by; so it must not hold the balancer, and asks for it each time.

    Args:
        owner: returns the balancer; None once it is gone.
        rng: for jitter.
    """

    def __init__(self, owner: Callable[[], Owner | None], rng: random.Random) -> None:
        self._owner = owner
        self._rng = rng
        self._has_failed = False

    def __call__(self, slot: Slot, trailing: Iterable[tuple[str, str | bytes]] | None) -> None:
        """Take in the report among what a server sent at the end of a call; pickers have this as their `reporter`."""
        owner = self._owner()
        if owner is None or not wants_report(owner.policy, slot, now_ns()):
            return  # to read one takes a tenth of what a whole call does
        for key, value in trailing or ():
            if key == OWN_KEY:
                self._read(slot, value)
                return  # one to a call: whatever comes twice is not ours

    def _read(self, slot: Slot, message: str | bytes) -> None:
        try:
            report = read_report(message if isinstance(message, bytes) else message.encode())
        except ValueError:
            slot.ignore_report()
        else:
            self.take(slot, report)

    def take(self, slot: Slot, report: LoadReport) -> None:
        """Take in a report that can be believed."""
        owner = self._owner()
        if owner is None:
            return
        policy = owner.policy
        if not takes_reports(policy):
            return
        now = now_ns()
        in_flight = report.named_metrics.get(IN_FLIGHT_METRIC)
        if in_flight is not None:
            slot.report_load_at(int(in_flight), report.named_metrics.get(LATENCY_METRIC, 0.0) * 1e9, now)
        try:
            policy.observe(report, slot, now)
        except Exception:  # a policy of the user's, most likely; told once, as the next call brings the next report
            if not self._has_failed:
                logger.exception("policy %s does not take a load report; this is not told again", owner.policy.name)
            self._has_failed = True
        picker = owner.current.picker
        if picker is not None:
            picker.reported(slot)

    @property
    def period_s(self) -> float | None:
        """How often endpoints are to be asked beside the calls, in seconds; None if they are not."""
        owner = self._owner()
        return owner.policy.oob_period_s if owner is not None and takes_reports(owner.policy) else None

    async def follow(self, channel: grpc.aio.Channel, slot: Slot, address: Address) -> None:
        """Take in what the server at the other end of a channel reports out of band, until cancelled or it has none."""
        period_s = self.period_s
        if period_s is None:
            return
        try:
            end = await watch_load(channel, _Listener(self, slot, address), period_s=period_s, rng=self._rng)
        except (TypeError, ValueError) as error:  # the period of a policy of the user's, most likely
            logger.warning("%s: cannot be asked for load reports out of band: %s", address, error)
        else:
            logger.info("%s: no load reports out of band: %s", address, end)


class _Listener:
    """Hears what is reported of one endpoint."""

    def __init__(self, reports: LoadReports, slot: Slot, address: Address) -> None:
        self._reports = reports
        self._slot = slot
        self._address = address
        self._has_ignored = False

    def hear(self, report: LoadReport) -> None:
        self._reports.take(self._slot, report)

    def ignore(self, reason: str) -> None:
        if not self._has_ignored:  # a server that sends one sends many; the slot counts them
            logger.info("%s: a load report is ignored, as others will be without a word: %s", self._address, reason)
        self._has_ignored = True
        self._slot.ignore_report()
