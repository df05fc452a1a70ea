"""A name on a DNS server of our own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from grpclb_core.config import DnsConfig
from grpclb_core.resolve import parse_target
from grpclb_core.resolve.dns.resolver import DnsResolver
from support.dns import Fault, FaultyDns

NAME = "greeter.test"
FAST = DnsConfig(min_ttl_s=0.05, max_ttl_s=0.1, max_backoff_s=0.1, timeout_s=1.0)


class DnsWorld:
    def __init__(self, server: FaultyDns) -> None:
        self._server = server
        self.resolver = DnsResolver(parse_target(f"dns://{server.address}/{NAME}.:50051"), FAST)

    async def publish(self, *addresses: str) -> None:
        self._server.set(NAME, *(address.rpartition(":")[0] for address in addresses))

    async def fail(self) -> None:
        self._server.fail(NAME, Fault.SERVFAIL)

    async def heal(self) -> None:
        self._server.heal(NAME)


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[DnsWorld]:
    with FaultyDns() as server:
        yield DnsWorld(server)
