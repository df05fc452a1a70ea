"""A resolver that resolves to what a test says."""

from __future__ import annotations

from collections.abc import Iterable

import anyio

from grpclb_core.errors import ResolutionError
from grpclb_core.resolve import Sink
from grpclb_core.types import Address, Drop, Endpoint, Resolution


def endpoint(address: str, **fields: object) -> Endpoint:
    host, _, port = address.rpartition(":")
    return Endpoint(Address(host, int(port)), **fields)  # type: ignore[arg-type]


class Source:
    """Tells its sink at once."""

    authority: str | None = None

    def __init__(self, endpoints: Iterable[Endpoint] = ()) -> None:
        self.endpoints = tuple(endpoints)
        self.refreshes = 0
        self._sink: Sink | None = None

    async def run(self, sink: Sink) -> None:
        self._sink = sink
        self.set(self.endpoints)
        await anyio.sleep_forever()

    def set(self, endpoints: Iterable[Endpoint], *drops: Drop) -> None:
        self.endpoints = tuple(endpoints)
        if self._sink is not None:
            self._sink.update(Resolution(self.endpoints, drops=drops))

    def fail(self, reason: str) -> None:
        assert self._sink is not None
        self._sink.fail(ResolutionError(reason))

    def refresh(self) -> None:
        self.refreshes += 1
