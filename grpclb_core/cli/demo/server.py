"""One server of the demonstration: a child process that plays its part in both fleets.

Run by `fleet.py` with its settings as arguments. It writes `ready` once it listens, and ends with its parent: when that
is gone, however it went, standard input closes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys

import grpc
import grpc.aio

SERVICE, METHOD = "demo.Greeter", "Greet"


class Greeter:
    """Works on a few calls at a time, each for an exponentially distributed time, and answers who it is.

    The answer is `name in_flight`: how many other calls it has at that moment, waiting ones included.
    """

    def __init__(self, name: str, mean_s: float, slots: int, seed: str) -> None:
        self._name = name
        self._mean_s = mean_s
        self._slots = asyncio.Semaphore(slots)
        self._random = random.Random(seed)
        self._in_flight = 0

    async def greet(self, request: bytes, context: object) -> bytes:
        self._in_flight += 1
        try:
            async with self._slots:
                await asyncio.sleep(self._random.expovariate(1 / self._mean_s))
        finally:
            self._in_flight -= 1
        return f"{self._name} {self._in_flight}".encode()


async def serve(settings: argparse.Namespace) -> None:
    """Listen on every port, each with slots of its own, until standard input closes."""
    servers = []  # held, for a server that nobody holds is collected and stops
    for port in settings.ports:
        # The same seed behind each port: the n-th call takes as long in the one fleet as in the other.
        greeter = Greeter(settings.name, settings.mean_s, settings.slots, f"{settings.seed} {settings.name}")
        # Without it a second server could take the same port, and half of the calls.
        server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(greeter.greet)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
        server.add_insecure_port(f"{settings.host}:{port}")
        await server.start()
        servers.append(server)
    print("ready", flush=True)
    parent = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(parent), sys.stdin)
    await parent.read()
    os._exit(0)  # nothing to save, and open calls need no farewell


def main() -> None:
    """Read the settings and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--ports", required=True, type=int, nargs="+")
    parser.add_argument("--mean-s", required=True, type=float)
    parser.add_argument("--slots", required=True, type=int)
    parser.add_argument("--seed", required=True)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
