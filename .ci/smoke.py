"""One real call through an installed wheel, with nothing else installed."""

import asyncio

import grpc
import grpc.aio

import grpclb_core as lb


async def echo(request: bytes, context: object) -> bytes:
    return request


async def main() -> None:
    server = grpc.aio.server()
    handlers = {"Call": grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("smoke.Echo", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with lb.insecure_channel(f"localhost:{port}") as channel:
        assert await channel.unary_unary("/smoke.Echo/Call")(b"works", timeout=10) == b"works"
        print(channel.balancer.snapshot())
    await server.stop(None)


asyncio.run(main())
