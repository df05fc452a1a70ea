"""A service on a DNS server of our own, each address under a host name of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from grpclb_core.config import DnsConfig
from grpclb_core.resolve.dns.srv import SrvResolver, parse_service
from support.dns import Fault, FaultyDns

NAME = "_grpc._tcp.greeter.test"
FAST = DnsConfig(min_ttl_s=0.05, max_ttl_s=0.1, max_backoff_s=0.1, timeout_s=1.0)


class SrvWorld:
    def __init__(self, server: FaultyDns) -> None:
        self._server = server
        self.resolver = SrvResolver(parse_service(f"//{server.address}/{NAME}."), FAST)

    async def publish(self, *addresses: str) -> None:
        services = []
        for address in addresses:
            host, _, port = address.rpartition(":")
            target = f"h{host.replace('.', '-')}.test"
            self._server.set(target, host)
            services.append((0, 0, int(port), target))
        self._server.serve(NAME, *services)

    async def fail(self) -> None:
        self._server.fail(NAME, Fault.SERVFAIL)

    async def heal(self) -> None:
        self._server.heal(NAME)


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[SrvWorld]:
    with FaultyDns() as server:
        yield SrvWorld(server)
