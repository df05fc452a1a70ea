"""Starts the server processes, kills them on cue, and ends them all whatever happens."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator

import anyio
import anyio.abc

from .. import PACKAGE_HOME
from . import server as server_module
from .script import SERVERS, SLOTS, Server

STARTED_WITHIN_S = 30.0  # six interpreters on a busy machine
PORT_TRIES = 20
LONGEST_COMPLAINT = 500  # characters of a failed child's stderr that are repeated


class StartError(Exception):
    """Raised when this machine cannot run the demonstration; says why and what to do."""


class Fleet:
    """The server processes of both sides, which differ by `ports`."""

    def __init__(self, ports: tuple[int, int], seed: int) -> None:
        self.ports = ports
        self._seed = seed
        self._processes: dict[str, anyio.abc.Process] = {}

    async def start(self, server: Server) -> None:
        """Start a server and return when it listens.

        Raises:
            StartError: it ended or was silent instead.
        """
        process = self._processes[server.name] = await anyio.open_process(
            self._command(server),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=PACKAGE_HOME,
            # The child finds what its parent found, in whatever way that was arranged.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,  # Ctrl-C is for the parent, who ends its children
        )
        assert process.stdout is not None
        assert process.stderr is not None
        said = b""
        with anyio.move_on_after(STARTED_WITHIN_S):
            try:
                while not said.endswith(b"ready\n"):
                    said += await process.stdout.receive()
                return
            except anyio.EndOfStream:
                said = b"".join([chunk async for chunk in process.stderr])
        reason = said.decode(errors="replace").strip()[-LONGEST_COMPLAINT:] or f"silent for {STARTED_WITHIN_S:g} s"
        raise StartError(f"server {server.name} on {server.host} did not start: {reason}")

    def _command(self, server: Server) -> list[str]:
        settings = {
            "name": server.name, "host": server.host, "mean-s": server.mean_s, "slots": SLOTS, "seed": self._seed
        }  # fmt: skip
        command = [sys.executable, "-m", server_module.__name__, "--ports", *map(str, self.ports)]
        return command + [f"--{name}={value}" for name, value in settings.items()]

    async def kill(self, server: Server) -> None:
        """Kill a server as a crash would, for both sides at once."""
        process = self._processes.pop(server.name)
        _kill(process)
        await process.aclose()

    async def end(self) -> None:
        """End every server that runs."""
        processes, self._processes = self._processes, {}
        for process in processes.values():
            _kill(process)
        with anyio.CancelScope(shield=True):
            for process in processes.values():
                await process.aclose()


def _kill(process: anyio.abc.Process) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended by itself
        process.kill()


@contextlib.asynccontextmanager
async def running_fleet(seed: int) -> AsyncIterator[Fleet]:
    """Run all six servers for as long as the context lasts.

    Raises:
        StartError: the addresses cannot be used, or a server did not start.
    """
    first = free_port()
    fleet = Fleet((first, free_port(but_not=first)), seed)
    failures: list[StartError] = []

    async def start(server: Server) -> None:
        try:
            await fleet.start(server)
        except StartError as error:
            failures.append(error)

    try:
        async with anyio.create_task_group() as starting:
            for server in SERVERS:
                starting.start_soon(start, server)
        if failures:
            raise failures[0]
        yield fleet
    finally:
        await fleet.end()


def free_port(but_not: int = 0) -> int:
    """Find a port that is free on every server's address.

    Raises:
        StartError: the machine lacks one of the addresses, or no port is free on all.
    """
    for _ in range(PORT_TRIES):
        with contextlib.ExitStack() as held:
            port = 0
            try:
                for server in SERVERS:
                    probe = held.enter_context(socket.socket())
                    probe.bind((server.host, port))
                    port = probe.getsockname()[1]
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL:
                    raise StartError(
                        f"this machine has no address {server.host}; the servers need {SERVERS[0].host} to "
                        f"{SERVERS[-1].host}, which Linux has and macOS gets by: sudo ifconfig lo0 alias {server.host}"
                    ) from error
                continue
            if port != but_not:
                return port
    raise StartError(f"no port was free on all of {SERVERS[0].host} to {SERVERS[-1].host} in {PORT_TRIES} tries")
