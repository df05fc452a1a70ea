"""What is known of the cluster, and what each answer changes in it. Pure: it has a sink, and no connection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from ...errors import ResolutionError
from ...types import Resolution
from .assignment import Assignment
from .bootstrap import IGNORE_DELETION, XdsServer
from .stream import Step

if TYPE_CHECKING:
    from .. import Sink

NOWHERE = Resolution(())
"""What is known of a cluster that does not exist."""


class Subscription:
    """One run of a resolver: the last good set, and the version each server was told to be accepted."""

    def __init__(self, cluster: str, servers: Sequence[XdsServer], sink: Sink, empty_hold_s: float) -> None:
        self.cluster = cluster
        self.known: Resolution | None = None
        self.versions = [""] * len(servers)  # one server's versions mean nothing to another
        self._servers = servers
        self._sink = sink
        self._empty_hold_s = empty_hold_s
        self._failed = False  # whether the last that was reported is a fault

    def take(self, index: int, step: Step, first: bool) -> Callable[[], None] | None:
        """Take an answer of server number `index`; `first` is the first on its stream to tell what the set is.

        Returns:
            What to do once `empty_hold_s` has passed without another such answer, if the answer is not to be believed
            until then; else None.
        """
        told = self._told(index, step)
        pending: Callable[[], None] | None = None
        if told is None:
            if not step.problem:
                self.versions[index] = step.version
        elif first and not told.resolution.endpoints and self.known is not None and self.known.endpoints:
            # A control plane that has just started may not have heard of its endpoints yet. The version stays what it
            # was, so that the next stream is told again if this one does not last.
            self.fail(index, f"no endpoint: {told.emptiness}; it is not believed for {self._empty_hold_s:g} s")
            pending = partial(self._believe, index, told, step.version)
        else:
            self._believe(index, told, step.version)
        if step.problem:
            self.fail(index, f"the answer is not taken: {step.problem}; {self._advice()}")
        return pending

    def expire(self, index: int, after_s: float) -> None:
        """Take note that a server which was asked has not named the cluster in time."""
        self.known = NOWHERE
        self.fail(index, f"the cluster does not exist: no answer named it within {after_s:g} s; check its name")

    def lose(self, index: int, reason: str) -> None:
        """Take note that a server cannot be reached, or had nothing to say."""
        self.fail(index, f"{reason}; {self._advice()}")

    def fail(self, index: int, reason: str) -> None:
        """Report a fault of a server."""
        self._failed = True
        uri = self._servers[index].server_uri
        self._sink.fail(ResolutionError(f"xds cluster {self.cluster!r} from {uri}: {reason}"))

    def _told(self, index: int, step: Step) -> Assignment | None:
        """Return what an answer says of the cluster; None if it says nothing that counts."""
        if not step.removed:
            return step.found
        if IGNORE_DELETION in self._servers[index].server_features:
            self.fail(index, f"it was removed, which is ignored as the server's feature {IGNORE_DELETION} asks")
            return None
        return Assignment(self.cluster, NOWHERE, "the control plane says that the cluster does not exist")

    def _believe(self, index: int, told: Assignment, version: str) -> None:
        self.versions[index] = version
        news = self.known is None or _content(told.resolution) != _content(self.known)
        self.known = told.resolution
        if news or self._failed:
            self._failed = False
            self._sink.update(told.resolution)
        if told.emptiness:  # last, so that calls which find no endpoint can say why
            self.fail(index, f"no endpoint: {told.emptiness}")

    def _advice(self) -> str:
        if self.known is not None and self.known.endpoints:
            return "the endpoints known before stay in use"
        return "check that the control plane runs, and what it knows of the cluster"


def _content(resolution: Resolution) -> tuple[object, ...]:
    return resolution.endpoints, resolution.locality_weights, resolution.drops
