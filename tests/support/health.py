"""Servers with a health service: the real one, in this process or a child of it, and one that does as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health

from support.ports import free_port

SERVER_OPTIONS = (("grpc.so_reuseport", 0),)
CHANNEL_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 300),
)
SERVICE = "greeter.Greeter"

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def answer(status: int) -> bytes:
    return health_pb2.HealthCheckResponse(status=status).SerializeToString()


@contextlib.asynccontextmanager
async def serve(add: Callable[[grpc.aio.Server], None] = lambda server: None) -> AsyncIterator[int]:
    """Run a server on a free port."""
    server = grpc.aio.server(options=SERVER_OPTIONS)
    add(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


@contextlib.asynccontextmanager
async def health_server() -> AsyncIterator[tuple[int, health.HealthServicer]]:
    """Run a server with grpcio-health-checking's service, which knows of the whole server alone."""
    servicer = health.HealthServicer()
    async with serve(lambda server: health_pb2_grpc.add_HealthServicer_to_server(servicer, server)) as port:
        yield port, servicer


class Script:
    """A health service that does with each Watch what it is told, and counts them."""

    def __init__(self, act: Callable[[int, Any], AsyncIterator[bytes]]) -> None:
        self.act = act
        self.watches = 0
        self.requests: list[bytes] = []

    def add_to(self, server: grpc.aio.Server) -> None:
        async def watch(request: bytes, context: Any) -> AsyncIterator[bytes]:
            self.watches += 1
            self.requests.append(request)
            async for message in self.act(self.watches, context):
                yield message

        method = grpc.unary_stream_rpc_method_handler(watch)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Watch": method}),)
        )


class ChildServer:
    """A server with the real health service, SERVING, in a process to be killed and started again on its port."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.health", str(self.port)],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert int(self._process.stdout.readline()) == self.port

    def kill(self) -> None:
        """End the process without a word, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process = None

    def __enter__(self) -> ChildServer:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()


async def _serve(port: int) -> None:
    server = grpc.aio.server(options=SERVER_OPTIONS)
    servicer = health.HealthServicer()
    await servicer.set(SERVICE, SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    print(port, flush=True)
    # The parent's end of the pipe closes when it goes, however it goes.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
