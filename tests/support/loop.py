"""The one asyncio loop of all tests of a process.

C-core hands its events to whichever loop of the process is running; one that is meant for the closed loop of an earlier
test, of grpc.aio's own channels too, would raise in an innocent later one. A fixture that outlives the tests would keep
their loop open, but anyio has one runner at a time: while it is kept on asyncio, the tests for trio run on asyncio too.
"""

from __future__ import annotations

import asyncio


class LastingLoop(asyncio.SelectorEventLoop):
    """A loop that stays as it is when a runner closes it, and ends with `end`."""

    async def shutdown_asyncgens(self) -> None:
        pass

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        pass

    def close(self) -> None:
        pass

    def end(self) -> None:
        super().close()
