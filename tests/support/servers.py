"""Real grpc.aio servers for the tests: echo in four arities, in this process or in children of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from support.ports import free_port

SERVICE = "test.Echo"
UNARY_UNARY = f"/{SERVICE}/UnaryUnary"
UNARY_STREAM = f"/{SERVICE}/UnaryStream"
STREAM_UNARY = f"/{SERVICE}/StreamUnary"
STREAM_STREAM = f"/{SERVICE}/StreamStream"

# Without these two servers silently share a port, and two channels a connection.
SERVER_OPTIONS = (("grpc.so_reuseport", 0),)
CHANNEL_OPTIONS = (("grpc.use_local_subchannel_pool", 1),)


class EchoServer:
    """An echo server whose behaviour is set while it runs.

    The first request of a call may be a command: b"sleep:SECONDS", b"fail:CODE NAME", b"name", b"hang".
    """

    def __init__(self, name: str = "", credentials: grpc.ServerCredentials | None = None) -> None:
        self.name = name
        self.delay_s = 0.0
        self.failure: grpc.StatusCode | None = None
        self.calls = 0
        self.open_calls = 0
        self.most_open_calls = 0
        self.metadata: list[tuple[str, str | bytes]] = []
        self.host = ""
        self.port = 0
        self.options: tuple[tuple[str, object], ...] = ()
        self.interceptors: tuple[grpc.aio.ServerInterceptor, ...] = ()
        self._credentials = credentials
        self._server: grpc.aio.Server | None = None

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> EchoServer:
        self._server = grpc.aio.server(interceptors=self.interceptors, options=(*SERVER_OPTIONS, *self.options))
        self._server.add_generic_rpc_handlers((self._handlers(),))
        self.serve(self._server)
        address = host if host.startswith("unix:") else f"{host}:{port or free_port()}"
        if self._credentials is None:
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, self._credentials)
        self.host = host
        await self._server.start()
        return self

    def serve(self, server: grpc.aio.Server) -> None:
        """Add other services; there are none here."""

    async def stop(self, grace: float | None = None) -> None:
        assert self._server is not None
        await self._server.stop(grace)

    async def _act(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        command, _, argument = request.partition(b":")
        if command == b"sleep":
            await asyncio.sleep(float(argument))
        elif command == b"hang":
            await asyncio.Event().wait()
        elif command == b"fail":
            await context.abort(grpc.StatusCode[argument.decode()], "told to")
        elif command == b"name":
            return self.name.encode()
        return request

    async def _begin(self, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        self.metadata = list(context.invocation_metadata() or ())
        context.set_trailing_metadata((("x-server", self.name or "unnamed"),))
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if self.failure is not None:
            await context.abort(self.failure, "this server fails")

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        self.calls += 1
        self.open_calls += 1
        self.most_open_calls = max(self.most_open_calls, self.open_calls)
        try:
            yield
        finally:
            self.open_calls -= 1

    def _handlers(self) -> grpc.GenericRpcHandler:
        async def unary_unary(request: bytes, context: Any) -> bytes:
            with self._counted():
                await self._begin(context)
                return await self._act(request, context)

        async def unary_stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
            with self._counted():
                await self._begin(context)
                for _ in range(3):
                    yield await self._act(request, context)

        async def stream_unary(requests: AsyncIterator[bytes], context: Any) -> bytes:
            with self._counted():
                await self._begin(context)
                return b",".join([await self._act(request, context) async for request in requests])

        async def stream_stream(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            with self._counted():
                await self._begin(context)
                async for request in requests:
                    yield await self._act(request, context)

        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "UnaryUnary": grpc.unary_unary_rpc_method_handler(unary_unary),
                "UnaryStream": grpc.unary_stream_rpc_method_handler(unary_stream),
                "StreamUnary": grpc.stream_unary_rpc_method_handler(stream_unary),
                "StreamStream": grpc.stream_stream_rpc_method_handler(stream_stream),
            },
        )


@contextlib.asynccontextmanager
async def echo_servers(
    count: int, credentials: grpc.ServerCredentials | None = None
) -> AsyncIterator[list[EchoServer]]:
    """Run `count` echo servers on free ports of loopback, named a, b, c..."""
    servers = [EchoServer(chr(ord("a") + index), credentials) for index in range(count)]
    for server in servers:
        await server.start()
    try:
        yield servers
    finally:
        for server in servers:
            await server.stop()


def target_of(servers: Iterable[EchoServer]) -> str:
    """Return the target that lists these servers."""
    return "ipv4:" + ",".join(server.address for server in servers)


async def eventually(condition: Callable[[], bool], within_s: float = 5.0) -> None:
    """Wait until something holds.

    Raises:
        AssertionError: it did not come to hold in time.
    """
    loop = asyncio.get_running_loop()
    ends_s = loop.time() + within_s
    while not condition():
        assert loop.time() < ends_s, f"did not come to hold within {within_s} s"
        await asyncio.sleep(0.005)


DRAINED_WITHIN_S = 10.0


class ChildServer:
    """An echo server in a process of its own, to be killed, frozen and started again on the same port."""

    def __init__(self, name: str, host: str = "127.0.0.1", port: int = 0, prefix: Sequence[str] = ()) -> None:
        self.name = name
        self.host = host
        self.port = port or free_port()
        self._prefix = list(prefix)
        self._process: subprocess.Popen[str] | None = None

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def start(self) -> None:
        self._process = subprocess.Popen(
            [*self._prefix, sys.executable, "-m", "support.servers", self.name, self.host, str(self.port)],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert int(self._process.stdout.readline()) == self.port

    def kill(self) -> None:
        """End the process without a word, as a crash does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self.reap()

    def drain(self) -> None:
        """Stop as a server does that is told to: finish what it has, refuse what is new, and end."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(DRAINED_WITHIN_S)
        self.reap()

    def freeze(self) -> None:
        """Stop the process in its tracks; its connections stay up."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def reap(self) -> None:
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
        self.reap()


async def _serve(name: str, host: str, port: int) -> None:
    server = await EchoServer(name).start(host, port)
    loop = asyncio.get_running_loop()
    draining = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, draining.set)
    # The parent's end of the pipe closes when it goes, however it goes.
    orphaned = asyncio.ensure_future(loop.run_in_executor(None, sys.stdin.read))
    orphaned.add_done_callback(lambda _: os._exit(0))
    print(server.port, flush=True)
    await draining.wait()
    await server.stop(DRAINED_WITHIN_S)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], sys.argv[2], int(sys.argv[3])))
