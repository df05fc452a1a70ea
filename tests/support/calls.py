"""Calls that are over, and ways to have a ticket follow one."""

from __future__ import annotations

from typing import Any

import grpc

from grpclb_core.native import Slot, Ticket
from grpclb_core.native.multicallable import CurrentPicker, UnaryUnaryMultiCallable


class FinishedCall:
    """As much of a grpc.aio call that is done as a done callback needs."""

    def __init__(self, code: object, details: object = "", trailing: object = None) -> None:
        self._code = code
        self._details = details
        self._trailing = trailing

    async def code(self) -> object:
        return self._code

    async def details(self) -> object:
        return self._details

    async def trailing_metadata(self) -> object:
        return self._trailing


class CoreAlone:
    """Nothing of a grpc.aio call but C-core's side of it: whoever asks for more than that fails."""

    def __init__(self, call: Any) -> None:
        self._cython_call = call._cython_call


def follow(ticket: Ticket, call: object) -> None:
    """Tie a ticket to a call that was just started."""
    starts = UnaryUnaryMultiCallable(
        CurrentPicker(lambda _: None),
        lambda _: (lambda _: call, lambda: grpc.ChannelConnectivity.READY),
        lambda *_: None,
        [],
        True,
    )
    assert starts.start_on(ticket, b"", None, None, None, None, None) is call


def counts(slot: Slot) -> tuple[int, int, int, int]:
    """Return the calls in flight, and those that ended, by how they did."""
    return slot.in_flight, slot.successes, slot.failures, slot.unjudged
