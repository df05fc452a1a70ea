"""Servers to call, each in a process of its own, so that what they burn is not counted as the client's.

Run as a module it is one such server: it prints its port, and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import grpc.aio

from ...errors import GrpclbError
from .. import PACKAGE_HOME

METHOD = "/grpclb.Bench/Echo"

SERVERS = 4


@contextmanager
def running_servers(count: int = SERVERS) -> Iterator[list[str]]:
    """Run servers on free local ports; yield their addresses."""
    with ExitStack() as stack:
        # All of them first: each takes some tenths of a second to start.
        processes = [stack.enter_context(_process()) for _ in range(count)]
        yield [f"127.0.0.1:{_port(process)}" for process in processes]


@contextmanager
def _process() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(  # noqa: S603  (the command is our own)
        [sys.executable, "-m", __name__], cwd=PACKAGE_HOME, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()  # ends it, also when this process is killed
            process.wait()


def _port(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line.strip().isdigit():
        raise GrpclbError(f"a server for the benchmark did not start; it said {line!r}")
    return int(line)


async def serve() -> None:
    """Serve until standard input ends; every answer names the port it came from."""
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    port = server.add_insecure_port("127.0.0.1:0")
    answer = str(port).encode()

    async def echo(request: bytes, context: Any) -> bytes:
        return answer

    _, service, name = METHOD.split("/")
    handlers: dict[str, Any] = {name: grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    await server.start()
    print(port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(serve())
