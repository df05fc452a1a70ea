"""A prefix of a real etcd."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from grpclb_core.config import EtcdConfig
from grpclb_core.resolve.etcd.resolver import EtcdResolver
from grpclb_core.resolve.etcd.target import parse_etcd
from support.etcd import Etcd, shared_etcd, unused_prefix

FAST = EtcdConfig(timeout_s=1.0, max_backoff_s=0.1)


class EtcdWorld:
    def __init__(self, etcd: Etcd) -> None:
        self._etcd = etcd
        self._prefix = unused_prefix()
        self._listed: tuple[str, ...] = ()
        self.resolver = EtcdResolver(parse_etcd(f"//{etcd.address}/{self._prefix}", tls=False), FAST)

    async def publish(self, *addresses: str) -> None:
        self._listed = addresses
        if self._etcd.running:
            self._etcd.publish(self._prefix, addresses)

    async def fail(self) -> None:
        self._etcd.kill()

    async def heal(self) -> None:
        await anyio.to_thread.run_sync(self._etcd.start)
        self._etcd.publish(self._prefix, self._listed)


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[EtcdWorld]:
    yield EtcdWorld(shared_etcd())
