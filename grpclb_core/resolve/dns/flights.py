"""One piece of work for all who want the same at the same time, within one event loop.

Nothing is kept once it is done: who comes after that has it done anew.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar, cast

import anyio
from anyio.lowlevel import RunVar

ResultT = TypeVar("ResultT")


class _Flight(Generic[ResultT]):
    def __init__(self) -> None:
        self.landed = anyio.Event()
        self.results: list[ResultT] = []  # one, unless who flew it was cancelled or failed


_flights: RunVar[dict[Hashable, _Flight[object]]] = RunVar("grpclb_core.resolve.dns.flights")


async def shared(key: Hashable, work: Callable[[], Awaitable[ResultT]]) -> ResultT:
    """Do `work`, or wait for the same under way: `key` must say all that its result depends on.

    The work runs in the task of whoever came first. When that one is cancelled, or the work raises there, another of
    those who wait begins it anew.
    """
    flights = _of_this_loop()
    while key in flights:
        other = cast("_Flight[ResultT]", flights[key])
        await other.landed.wait()
        if other.results:
            return other.results[0]
    flight: _Flight[ResultT] = _Flight()
    flights[key] = cast("_Flight[object]", flight)
    try:
        flight.results.append(await work())
    finally:
        del flights[key]
        flight.landed.set()
    return flight.results[0]


def _of_this_loop() -> dict[Hashable, _Flight[object]]:
    try:
        return _flights.get()
    except LookupError:
        flights: dict[Hashable, _Flight[object]] = {}
        _flights.set(flights)
        return flights
