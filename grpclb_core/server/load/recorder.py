"""What a server knows of its load: what the application says of it, and what is measured as calls come and go."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import msgspec

from ...errors import ConfigError
from ...reports import fault_of
from ...types import IN_FLIGHT_METRIC, LATENCY_METRIC, LoadReport, Outcome
from .latency import LatencyByLoad
from .window import SlidingRate

WINDOW_S = 10.0
"""How far back rates and latencies look: the blackout period of gRFC A58, after which clients begin to use reports."""
MOST_NAMES = 64
"""Most names of one kind: names are few and fixed, and one that is made of a request would fill the memory."""
MOST_NAME_BYTES = 64
"""Longest name: reports travel with every call."""
OWN_PREFIX = "grpclb."
"""How the names of our own metrics begin; the application cannot set those."""

logger = logging.getLogger("grpclb_core.server")
_warned: set[str] = set()  # what was logged already
_Response = TypeVar("_Response")


class Call:
    """One call that is under way, or was."""

    __slots__ = ("costs", "found", "has_ended", "is_timed", "started_s")

    def __init__(self, found: int, started_s: float, is_timed: bool) -> None:
        self.found = found
        """How many others were under way when it came."""
        self.started_s = started_s
        self.is_timed = is_timed
        self.costs: dict[str, float] = {}
        self.has_ended = False


_current: ContextVar[Call | None] = ContextVar("grpclb_core.server.load.call", default=None)


def begin_current(call: Call) -> None:
    """Make a call the one whose costs are recorded in this task, which serves no other."""
    _current.set(call)


@contextmanager
def within(call: Call) -> Iterator[None]:
    """Make a call the one whose costs are recorded in this thread, which will serve others."""
    token = _current.set(call)
    try:
        yield
    finally:
        _current.reset(token)


def steps(call: Call, start: Callable[[], Iterable[_Response]]) -> Iterator[_Response]:
    """Iterate over the responses of a handler, each step within the call: two of them may be taken by two threads."""
    with within(call):
        responses = iter(start())
    try:
        while True:
            with within(call):
                try:
                    response = next(responses)
                except StopIteration:
                    return
            yield response
    finally:
        if isinstance(responses, Generator):
            with within(call):
                responses.close()


def record_request_cost(name: str, cost: float) -> None:
    """Record what the call that is being served has cost, in units of the application's own, to be reported with it.

    Of a name that is recorded twice the last value counts. A cost that no client would believe is left out, and logged.
    Outside of a call, or of a server with an interceptor, this does nothing.
    """
    call = _current.get()
    if call is not None and _is_usable(LoadReport(request_cost={name: float(cost)}), name, call.costs):
        call.costs[name] = float(cost)


class LoadRecorder:
    """Keeps what one server reports of its load; any thread may use it.

    A value that no client would believe (`grpclb_core.reports.trust`: no number, infinite, negative, a part above 1) is
    left out and logged, and the one before stays.

    Raises:
        ConfigError: the window is not above 0, or no number.
    """

    def __init__(self, *, window_s: float = WINDOW_S, clock: Callable[[], float] = time.monotonic) -> None:
        if not 0 < window_s < float("inf"):
            raise ConfigError(f"window_s {window_s!r} is not usable; use a number of seconds above 0, as {WINDOW_S}")
        self._clock = clock  # seconds, from any beginning
        self._lock = threading.Lock()
        self._said = LoadReport()  # by the application
        self._in_flight = 0
        now_s = clock()
        self._ended = SlidingRate(window_s, now_s)
        self._failed = SlidingRate(window_s, now_s)
        self._latency = LatencyByLoad(window_s)

    @property
    def in_flight(self) -> int:
        """How many calls are under way."""
        return self._in_flight

    def set_cpu_utilization(self, part: float) -> None:
        """Say which part of the processor time it may use is used; above 1 past a soft limit, 0 to say nothing."""
        self._say(LoadReport(cpu_utilization=float(part)), "cpu_utilization")

    def set_mem_utilization(self, part: float) -> None:
        """Say which part of the memory it may use is used, from 0 to 1; 0 to say nothing."""
        self._say(LoadReport(mem_utilization=float(part)), "mem_utilization")

    def set_application_utilization(self, part: float) -> None:
        """Say which part of its capacity is used, whatever limits it; clients prefer it to that of the processor."""
        self._say(LoadReport(application_utilization=float(part)), "application_utilization")

    def set_utilization(self, name: str, part: float | None) -> None:
        """Say which part of a resource of this name is used, from 0 to 1; None to say nothing."""
        self._say_named("utilization", name, part)

    def set_named_metric(self, name: str, value: float | None) -> None:
        """Say anything else, under a name that does not begin with "grpclb."; None to say nothing."""
        self._say_named("named_metrics", name, value)

    def _say(self, said: LoadReport, field: str) -> None:
        if _is_usable(said, field):
            with self._lock:
                self._said = msgspec.structs.replace(self._said, **{field: getattr(said, field)})

    def _say_named(self, field: str, name: str, value: float | None) -> None:
        with self._lock:
            present: dict[str, float] = getattr(self._said, field)
            said: dict[str, Any] = {field: {} if value is None else {name: float(value)}}
            if _is_usable(LoadReport(**said), name, present):
                kept = {other: number for other, number in present.items() if other != name}
                self._said = msgspec.structs.replace(self._said, **{field: kept | said[field]})

    def begin(self, *, is_timed: bool) -> Call:
        """Count a call that came; `is_timed` if how long it takes is up to the server alone, unlike a stream."""
        with self._lock:
            call = Call(self._in_flight, self._clock(), is_timed)
            self._in_flight += 1
        return call

    def end(self, call: Call, outcome: Outcome) -> None:
        """Count a call that ended, once: all of them for the rate, and the latency of those that were answered.

        A failure says nothing of how long answers take, and a call that was given up has none.
        """
        with self._lock:
            if call.has_ended:
                return
            call.has_ended = True
            self._in_flight -= 1
            now_s = self._clock()
            self._ended.add(now_s)
            if outcome == Outcome.FAILURE:
                self._failed.add(now_s)
            elif outcome == Outcome.SUCCESS and call.is_timed:
                self._latency.add(call.found, self.lasted_s(call), now_s)

    def lasted_s(self, call: Call) -> float:
        """Return how long ago a call came, in seconds."""
        return max(self._clock() - call.started_s, 0.0)

    def report(self, request_cost: Mapping[str, float] | None = None) -> LoadReport:
        """Return what is to be told now; `request_cost` if it is told with a call."""
        with self._lock:
            now_s = self._clock()
            ours = {IN_FLIGHT_METRIC: float(self._in_flight)}
            latency_s = self._latency.at(self._in_flight, now_s)
            if latency_s is not None:
                ours[LATENCY_METRIC] = latency_s
            return msgspec.structs.replace(
                self._said,
                rps_fractional=self._ended.at(now_s),
                eps=self._failed.at(now_s),
                named_metrics={**self._said.named_metrics, **ours},
                request_cost=dict(request_cost or {}),
            )


def _is_usable(said: LoadReport, what: str, present: Mapping[str, float] | None = None) -> bool:
    """Whether something can be said, under a name beside those present or as a field; if not, it is logged once."""
    fault = fault_of(said) or ("" if present is None else _fault_of_name(what, present))
    if fault and what not in _warned and len(_warned) < MOST_NAMES:
        _warned.add(what)
        logger.warning("left out of load reports, this time and whenever it is so again: %s", fault)
    return not fault


def _fault_of_name(name: str, present: Mapping[str, float]) -> str:
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return f"a name that is no text, {name[:MOST_NAME_BYTES]!r}"
    if size > MOST_NAME_BYTES:
        return f"a name of {size} bytes, where {MOST_NAME_BYTES} is the most: {name[:MOST_NAME_BYTES]!r}"
    if name.startswith(OWN_PREFIX):
        return f"{name!r}; names that begin with {OWN_PREFIX!r} are taken"
    if name not in present and len(present) >= MOST_NAMES:
        return f"{name!r}, as there are {MOST_NAMES} names already; use few, and the same for every call"
    return ""
