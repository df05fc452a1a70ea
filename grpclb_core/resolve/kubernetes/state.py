"""What is known of a service, and what its sink was told: the rules of `kubernetes.py`, free of any I/O."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ...errors import ResolutionError
from ...types import Endpoint, Resolution
from .api import MAX_SLICES, Change, RelistError
from .slices import Slice, merge

if TYPE_CHECKING:
    from .. import Sink


class Known:
    """The slices of a service as they were last heard of, and the set that was made of them.

    `now_s` is a monotonic time in seconds.
    """

    def __init__(self, sink: Sink, preferred_family: str, empty_hold_s: float) -> None:
        self.version = ""
        """The state to watch from; empty when only a list can tell it."""
        self.held_until_s = math.inf
        """When an empty list will be believed; infinite while none is held."""
        self.source = ""
        """The service and the server, as messages name them."""
        self._sink = sink
        self._preferred_family = preferred_family
        self._empty_hold_s = empty_hold_s
        self._slices: dict[str, Slice] = {}
        self._pushed: tuple[Endpoint, ...] = ()
        self._fault = ""  # the last one that the sink was told, as long as it lasts

    def listed(self, slices: dict[str, Slice], version: str, now_s: float) -> None:
        """Take the full state of the service."""
        self._slices, self.version = slices, version
        self._report(hold_from_s=now_s)

    def changed(self, change: Change) -> None:
        """Take an event of the watch.

        Raises:
            RelistError: there are more slices than can be right.
        """
        self.version = change.version or self.version
        if change.slice is None:
            return
        if change.deleted:
            self._slices.pop(change.slice.name, None)
        else:
            self._slices[change.slice.name] = change.slice
        if len(self._slices) > MAX_SLICES:
            raise RelistError(f"{self.source}: there are more than {MAX_SLICES} slices")
        self._report()

    def resumed(self, now_s: float) -> None:
        """Take note that the source answers: what was held for its time is believed, and a fault is over."""
        if now_s >= self.held_until_s:
            self.held_until_s = math.inf
            self._report()
        elif self._fault:
            self._report()

    def failed(self, error: ResolutionError) -> None:
        """Report a fault of the source; the last set stays."""
        if isinstance(error, RelistError):
            self.version = ""
        self._fault = str(error)
        self._sink.fail(error)

    def _report(self, hold_from_s: float | None = None) -> None:
        endpoints, problems = merge(self._slices.values(), self._preferred_family)
        if endpoints or problems:
            self.held_until_s = math.inf
        elif hold_from_s is not None and self._pushed and self.held_until_s == math.inf:
            self.held_until_s = hold_from_s + self._empty_hold_s
        fault = f"{self.source}: {self._say(endpoints, problems)}" if problems or not endpoints else ""
        if not endpoints and (problems or self.held_until_s < math.inf):
            endpoints = self._pushed
        if endpoints == self._pushed and fault == self._fault:
            return
        if endpoints != self._pushed or (endpoints and not fault):
            self._sink.update(Resolution(endpoints, version=self.version))
            self._pushed = endpoints
        if fault:  # after the set, so that calls which find no endpoint can say why
            self._sink.fail(ResolutionError(fault))
        self._fault = fault

    def _say(self, endpoints: tuple[Endpoint, ...], problems: str) -> str:
        if endpoints:
            return f"a part of its EndpointSlices is not used: {problems}"
        if problems:
            return f"none of its endpoints can be used: {problems}"
        why = "its EndpointSlices are empty" if self._slices else "it has no EndpointSlice"
        if self.held_until_s < math.inf:
            return f"{why}; the endpoints known before stay in use for {self._empty_hold_s} s"
        return f"{why}; check the names of the service and the namespace, and that pods match its selector"
