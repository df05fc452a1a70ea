"""Keepalive pings, counted on the wire, on a connection that carries nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

import grpc
import grpc.aio

import grpclb_core as lb
from support.servers import CHANNEL_OPTIONS, UNARY_STREAM

from . import Report

# RFC 9113, 4.1, 6.7 and 6.8
FRAME_HEADER = 9
PREFACE = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
PING, GOAWAY = 6, 7
ACK = 1

PINGS = "pings"
GOAWAYS = "GOAWAYs (too_many_pings)"
FIRST_PAUSE, LAST_PAUSE = "s between pings on the first connection", "s on the last one"


class Frame(NamedTuple):
    """A frame that says how a connection is doing."""

    at_s: float
    connection: int
    kind: int
    body: bytes


class Tap:
    """Passes connections on to a port of this machine; `pings` are those of the client, `goaways` the server's."""

    def __init__(self) -> None:
        self.pings: list[Frame] = []
        self.goaways: list[Frame] = []
        self.address = ""
        self._connections = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def on(self, port: int) -> AsyncIterator[Tap]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._connections += 1
            there, back = await asyncio.open_connection("127.0.0.1", port)
            for task in (
                asyncio.create_task(self._pass_on(reader, back, self._connections, PREFACE, PING, self.pings)),
                asyncio.create_task(self._pass_on(there, writer, self._connections, 0, GOAWAY, self.goaways)),
            ):
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            yield self
            if self._tasks:
                await asyncio.wait(self._tasks)

    async def _pass_on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        connection: int,
        skip: int,
        kind: int,
        found: list[Frame],
    ) -> None:
        clock = asyncio.get_running_loop().time
        pending = b""
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                pending += data
                skipped, skip = min(skip, len(pending)), max(0, skip - len(pending))
                pending = pending[skipped:]
                while len(pending) >= FRAME_HEADER:
                    end = FRAME_HEADER + int.from_bytes(pending[:3], "big")
                    if len(pending) < end:
                        break
                    if pending[3] == kind and not (kind == PING and pending[4] & ACK):
                        found.append(Frame(clock(), connection, kind, pending[FRAME_HEADER:end]))
                    pending = pending[end:]
        writer.close()

    def pauses_s(self) -> list[float]:
        """Return the shortest time between two pings, for each connection that had two, in the order they were made."""
        times: dict[int, list[float]] = {}
        for ping in self.pings:
            times.setdefault(ping.connection, []).append(ping.at_s)
        return [min(b - a for a, b in itertools.pairwise(each)) for each in times.values() if len(each) > 1]


async def silent_stream(
    seconds: float,
    keepalive_time_s: float | None = None,
    channel_options: Sequence[tuple[str, object]] = (),
    server_options: Sequence[tuple[str, object]] = (),
) -> Report:
    """Keep a stream open on which nothing is said, and open it again where it ends; streams count as calls."""
    clock = asyncio.get_running_loop().time
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0), *server_options))

    async def say_nothing(request: bytes, context: object) -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    handler = grpc.unary_stream_rpc_method_handler(say_nothing)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", {"UnaryStream": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    config = {} if keepalive_time_s is None else {"connection": {"keepalive_time_s": keepalive_time_s}}
    opened, ended, codes = 0, 0, set()
    async with Tap().on(port) as tap:
        options = [*CHANNEL_OPTIONS, *channel_options]
        async with lb.insecure_channel(f"ipv4:{tap.address}", options=options, config=config) as channel:
            ends_s = clock() + seconds
            while clock() < ends_s:
                stream = channel.unary_stream(UNARY_STREAM)(b"")
                opened += 1
                with contextlib.suppress(asyncio.TimeoutError):
                    code = await asyncio.wait_for(asyncio.shield(stream.code()), ends_s - clock())
                    ended += 1
                    codes.add(code.name)
            stream.cancel()
        await server.stop(None)
    pauses_s = tap.pauses_s() or [seconds]
    figures = {
        PINGS: len(tap.pings),
        GOAWAYS: sum(b"too_many_pings" in frame.body for frame in tap.goaways),
        FIRST_PAUSE: pauses_s[0],
        LAST_PAUSE: pauses_s[-1],
    }
    return Report(opened, ended, None, figures, frozenset(codes))
