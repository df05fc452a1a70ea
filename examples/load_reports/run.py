"""A server that reports its load with every call and out of band, and a client that looks at both."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio

from grpclb_core import reports, server

WORKERS = 8


async def main() -> None:
    recorder = server.LoadRecorder()

    async def handle(request: bytes, context: Any) -> bytes:
        recorder.set_application_utilization(recorder.in_flight / WORKERS)
        await asyncio.sleep(0.01)
        server.record_request_cost("rows", len(request))
        return request.upper()

    backend = grpc.aio.server(interceptors=[server.LoadInterceptor(recorder)])
    handlers = {"Shout": grpc.unary_unary_rpc_method_handler(handle)}
    backend.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("example.Shouter", handlers),))
    server.add_load_service(backend, recorder)
    port = backend.add_insecure_port("127.0.0.1:0")
    await backend.start()

    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        shout: Any = channel.unary_unary("/example.Shouter/Shout")
        calls = [shout(b"hello") for _ in range(4)]
        print(await asyncio.gather(*calls))
        trailers = await calls[-1].trailing_metadata()
        print("with a call: ", reports.read_report(trailers[reports.OWN_KEY]))
        print("out of band: ", (await reports.probe_load(channel, timeout_s=1)).report)
    await backend.stop(None)


if __name__ == "__main__":
    asyncio.run(main())
