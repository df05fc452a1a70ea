"""Five server processes, started once: every balancer meets the same ones, told anew before each turn."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence

import msgspec

from grpclb_core.cli import PACKAGE_HOME
from grpclb_core.cli.demo.fleet import free_port
from grpclb_core.cli.demo.script import SERVERS

from .scenarios import Behaviour, Scenario

# One port for all, as servers behind one DNS name have, so each needs a loopback address of its own.
*HOSTS, NOBODY = (server.host for server in SERVERS)
"""The four servers and the newcomer; and an address where nobody listens."""
STARTED_WITHIN_S = 30.0
TOLD_WITHIN_S = 5.0


class FleetError(Exception):
    """Raised when a server does not start, or is gone."""


class Fleet:
    """The server processes, and the port that all of them listen on."""

    def __init__(self, port: int, processes: Sequence[asyncio.subprocess.Process]) -> None:
        self.port = port
        self._processes = processes

    async def tell(self, scenario: Scenario) -> list[int]:
        """Have all servers behave as the scenario says; return how many counted calls each had until now."""
        behaviours = [*scenario.servers, scenario.newcomer or Behaviour()]
        return list(await asyncio.gather(*map(self._tell, self._processes, behaviours)))

    async def _tell(self, process: asyncio.subprocess.Process, behaviour: Behaviour) -> int:
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(behaviour) + b"\n")
        return int(await _line(process, TOLD_WITHIN_S))


@contextlib.asynccontextmanager
async def running_fleet() -> AsyncIterator[Fleet]:
    """Run the servers for as long as the context lasts.

    Raises:
        grpclb_core.cli.demo.fleet.StartError: this machine lacks the servers' addresses.
        FleetError: a server did not start.
    """
    port = free_port()
    processes: list[asyncio.subprocess.Process] = []
    try:
        for host in HOSTS:
            processes.append(
                await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "e2e.server", f"{host}:{port}",
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    cwd=PACKAGE_HOME,
                    start_new_session=True,  # Ctrl-C is for the parent, who ends its children
                    # The child finds what its parent found, in whatever way that was arranged.
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                )
            )  # fmt: skip
        for process in processes:
            await _line(process, STARTED_WITHIN_S)  # "ready"
        yield Fleet(port, processes)
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                process.kill()
            await process.wait()


async def _line(process: asyncio.subprocess.Process, within_s: float) -> bytes:
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), within_s)
    except asyncio.TimeoutError as error:
        raise FleetError(f"a server was silent for {within_s:g} s; is this machine overloaded?") from error
    if not line:
        raise FleetError("a server ended; its own words are above")
    return line
