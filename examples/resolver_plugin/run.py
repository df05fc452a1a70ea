"""Starts two servers, one after the other, and calls them through a target that finds those that are up.

With the word `object` it gives the channel the resolver itself, which needs no entry point.
"""

from __future__ import annotations

import asyncio
import socket
import sys

import grpc
import grpc.aio

import grpclb_core as lb

CALLS = 20


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


async def serve(address: str, name: bytes) -> grpc.aio.Server:
    async def say(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return name

    server = grpc.aio.server()
    methods = {"Say": grpc.unary_unary_rpc_method_handler(say)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Name", methods),))
    server.add_insecure_port(address)
    await server.start()
    return server


async def answers(channel: grpc.aio.Channel) -> list[str]:
    say = channel.unary_unary("/Name/Say")
    return sorted({(await say(b"", timeout=10)).decode() for _ in range(CALLS)})


async def main(door: str = "target") -> None:
    addresses = [free_address(), free_address()]
    target = "listening:///" + ",".join(addresses)
    if door == "object":
        from grpclb_listening import Listening

        target = Listening([lb.Address(host, int(port)) for host, port in (item.split(":") for item in addresses)])
    servers = [await serve(addresses[0], b"first")]
    async with lb.insecure_channel(target, policy="round_robin") as channel:
        print("one is up:", *await answers(channel))
        servers.append(await serve(addresses[1], b"second"))
        found: list[str] = []
        while len(found) < len(servers):
            await asyncio.sleep(0.1)
            found = await answers(channel)
        print("both are up:", *found)
    for server in servers:
        await server.stop(None)


asyncio.run(main(*sys.argv[1:]))
