"""A service of a Consul of our own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from grpclb_core.config import ConsulConfig
from grpclb_core.resolve.consul.resolver import ConsulResolver
from grpclb_core.resolve.consul.target import parse_consul
from support.consul import Consul, instance

FAST = ConsulConfig(timeout_s=1.0, min_interval_s=0.02, max_backoff_s=0.1)


class ConsulWorld:
    def __init__(self, consul: Consul) -> None:
        self._consul = consul
        self.resolver = ConsulResolver(parse_consul(f"//{consul.address}/greeter", tls=False), FAST)

    async def publish(self, *addresses: str) -> None:
        self._consul.set([instance(address) for address in addresses])

    async def fail(self) -> None:
        self._consul.fail()

    async def heal(self) -> None:
        self._consul.heal()


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[ConsulWorld]:
    with Consul() as consul:
        yield ConsulWorld(consul)
