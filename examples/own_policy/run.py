"""A policy of one's own: calls go where workers are free, as the servers tell with their answers."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, ClassVar

import grpc
import grpc.aio
import msgspec

import grpclb_core as lb
from grpclb_core.native import LeastRequestPicker, Picker, Slot, View
from grpclb_core.server import LoadInterceptor, LoadRecorder


class FreeWorkers(msgspec.Struct, frozen=True):
    """Least request, with the free workers that a server reports as its weight."""

    name: ClassVar[str] = "free_workers"
    decay_s: float = 10.0
    rebuild_s: float = 0.05  # weights are put in force that often
    oob_period_s: float | None = None  # reports come with the answers; nobody is asked beside that

    def observe(self, report: lb.LoadReport, slot: Slot, now_ns: int) -> None:
        slot.report_weight_at(max(report.named_metrics.get("free_workers", 0.0), 0.1), now_ns)

    def build(self, view: View, seed: int, now_ns: int) -> Picker:
        weights = [slot.reported_weight or 1.0 for slot in view.slots]
        return LeastRequestPicker(View(view.slots, weights), decay_s=self.decay_s, seed=seed)


async def start(name: str, free_workers: float) -> tuple[grpc.aio.Server, str]:
    recorder = LoadRecorder()
    recorder.set_named_metric("free_workers", free_workers)

    async def handle(request: bytes, context: Any) -> bytes:
        await asyncio.sleep(0.001)
        return name.encode()

    server = grpc.aio.server(interceptors=[LoadInterceptor(recorder)])
    handlers = {"Who": grpc.unary_unary_rpc_method_handler(handle)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("example.Names", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, f"127.0.0.1:{port}"


async def main() -> None:
    running = [await start("small", 2.0), await start("medium", 6.0), await start("large", 12.0)]
    target = "ipv4:" + ",".join(address for _, address in running)
    async with lb.insecure_channel(target, policy=FreeWorkers()) as channel:
        await channel.channel_ready()
        who: Any = channel.unary_unary("/example.Names/Who")
        for _ in range(3):
            answers = Counter(await asyncio.gather(*[who(b"") for _ in range(300)]))
            print({name: answers[name.encode()] for name in ("small", "medium", "large")})
            await asyncio.sleep(0.1)  # until the weights are in force
    for server, _ in running:
        await server.stop(None)


if __name__ == "__main__":
    asyncio.run(main())
