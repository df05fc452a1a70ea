"""A service on an API server of our own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from grpclb_core.config import KubernetesConfig
from grpclb_core.resolve.kubernetes.cluster import Cluster
from grpclb_core.resolve.kubernetes.resolver import KubernetesResolver
from grpclb_core.resolve.kubernetes.target import parse_kubernetes
from support.kubernetes import ApiServer, endpoint_slice

FAST = KubernetesConfig(min_backoff_s=0.05, max_backoff_s=0.1, timeout_s=5.0)


class KubernetesWorld:
    def __init__(self, server: ApiServer) -> None:
        self._server = server
        cluster = Cluster(server=server.url)
        self.resolver = KubernetesResolver(parse_kubernetes("///greeter.default:grpc"), FAST, find=lambda: cluster)

    async def publish(self, *addresses: str) -> None:
        self._server.put(endpoint_slice("greeter-1", *(address.rpartition(":")[0] for address in addresses)))

    async def fail(self) -> None:
        self._server.go_down()

    async def heal(self) -> None:
        self._server.come_up()


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[KubernetesWorld]:
    with ApiServer() as server:
        yield KubernetesWorld(server)
