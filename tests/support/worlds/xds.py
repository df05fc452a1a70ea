"""A cluster on a control plane of our own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from grpclb_core.config import Config, XdsConfig
from grpclb_core.resolve import parse_target, resolver_for
from support.ads import AdsServer, assignment

BACKENDS = ("asyncio",)  # as grpc.aio

CLUSTER = "greeter"


class XdsWorld:
    def __init__(self, server: AdsServer) -> None:
        self._server = server
        bootstrap = {"xds_servers": [{"server_uri": server.uri, "channel_creds": [{"type": "insecure"}]}]}
        config = Config(xds=XdsConfig(bootstrap=bootstrap, max_backoff_s=0.1))
        self.resolver = resolver_for(parse_target(f"xds:///{CLUSTER}"), config)

    async def publish(self, *addresses: str) -> None:
        self._server.set(assignment(CLUSTER, *addresses))

    async def fail(self) -> None:
        await self._server.stop()

    async def heal(self) -> None:
        await self._server.start()


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[XdsWorld]:
    async with AdsServer() as server:
        yield XdsWorld(server)
