"""Sources of endpoints that can be lost and come back."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from support.ads import AdsServer, assignment
from support.consul import Consul, instance
from support.dns import Fault, FaultyDns
from support.etcd import Etcd
from support.kubernetes import ApiServer, endpoint_slice
from support.relay import Relay

NAME = "greeter"
TTL_S = 1
EXPIRE_S = 1.5
PROMPT_S = 1.0  # the figure for sources that tell of changes as they come; DNS has its TTL in addition


class Source(NamedTuple):
    """Where a channel gets its endpoints from; the addresses that it is given are all on one port."""

    target: str
    config: Mapping[str, object]
    publish: Callable[[Sequence[str]], Awaitable[None]]
    """Have these addresses, and no others."""
    fail: Callable[[], Awaitable[None]]
    heal: Callable[[Sequence[str]], Awaitable[None]]
    """Come back, with other addresses than before."""
    prompt_s: float = PROMPT_S
    """How soon a change has to count."""


Open = Callable[[Path, int], AbstractAsyncContextManager[Source]]
"""Opens a source, given a folder of its own and the port of the endpoints."""


@asynccontextmanager
async def _dns(folder: Path, port: int, fault: Fault, options: Mapping[str, object] = {}) -> AsyncIterator[Source]:
    name = f"{NAME}.test"
    with FaultyDns() as server:

        async def publish(addresses: Sequence[str]) -> None:
            server.set(name, *(address.rpartition(":")[0] for address in addresses), ttl_s=TTL_S)

        async def fail() -> None:
            server.fail(name, fault)

        async def heal(addresses: Sequence[str]) -> None:
            await publish(addresses)
            server.heal(name)

        target = f"dns://{server.address}/{name}.:{port}"
        yield Source(target, {"dns": options}, publish, fail, heal, TTL_S + PROMPT_S)


@asynccontextmanager
async def _file(folder: Path, port: int) -> AsyncIterator[Source]:
    path = folder / "endpoints.json"

    async def publish(addresses: Sequence[str]) -> None:
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(list(addresses)))
        os.replace(draft, path)

    async def fail() -> None:
        path.write_text(path.read_text()[:-10])

    yield Source(f"file://{path}", {}, publish, fail, publish)


@asynccontextmanager
async def _etcd(folder: Path, port: int) -> AsyncIterator[Source]:
    """A real etcd, killed, and started again with its data."""
    prefix = f"services/{NAME}"
    with Etcd() as etcd:

        async def publish(addresses: Sequence[str]) -> None:
            await asyncio.to_thread(etcd.publish, prefix, addresses)

        async def fail() -> None:
            etcd.kill()

        async def heal(addresses: Sequence[str]) -> None:
            await asyncio.to_thread(etcd.start)
            await publish(addresses)

        yield Source(f"etcd://{etcd.address}/{prefix}", {}, publish, fail, heal)


@asynccontextmanager
async def _etcd_compacted(folder: Path, port: int) -> AsyncIterator[Source]:
    """A real etcd that is out of reach for a while, and has by then forgotten what happened meanwhile."""
    prefix = f"services/{NAME}"
    with Etcd() as etcd, Relay(etcd.port) as relay:

        async def publish(addresses: Sequence[str]) -> None:
            await asyncio.to_thread(etcd.publish, prefix, addresses)

        async def fail() -> None:
            relay.cut()

        async def heal(addresses: Sequence[str]) -> None:
            await publish(addresses)
            revision = await asyncio.to_thread(etcd.put, "unrelated", "x")
            await asyncio.to_thread(etcd.compact, revision)
            relay.heal()

        yield Source(f"etcd://{relay.address}/{prefix}", {}, publish, fail, heal)


@asynccontextmanager
async def _kubernetes(folder: Path, port: int) -> AsyncIterator[Source]:
    """An API server that is stopped, and started again."""
    with ApiServer() as server:

        async def publish(addresses: Sequence[str]) -> None:
            server.put(_slice_of(addresses))

        async def fail() -> None:
            server.go_down()

        async def heal(addresses: Sequence[str]) -> None:
            await publish(addresses)
            server.come_up()

        yield Source(_KUBERNETES_TARGET, _kubernetes_config(server, folder), publish, fail, heal)


@asynccontextmanager
async def _kubernetes_expired(folder: Path, port: int) -> AsyncIterator[Source]:
    """An API server that ends every watch with 410 (inside the stream, at status 200), again and again."""
    with ApiServer() as server:
        expiring: list[asyncio.Task[None]] = []

        async def publish(addresses: Sequence[str]) -> None:
            server.put(_slice_of(addresses))

        async def expire() -> None:
            while True:
                server.expire_watches()
                await asyncio.sleep(EXPIRE_S)

        async def fail() -> None:
            expiring.append(asyncio.create_task(expire()))

        async def heal(addresses: Sequence[str]) -> None:
            expiring.pop().cancel()
            server.put_quietly(_slice_of(addresses))  # not told by any watch: the slices have to be listed again
            server.expire_watches()

        yield Source(_KUBERNETES_TARGET, _kubernetes_config(server, folder), publish, fail, heal)


_KUBERNETES_TARGET = f"k8s:///{NAME}.default:grpc"


def _slice_of(addresses: Sequence[str]) -> dict[str, object]:
    hosts = [address.rpartition(":")[0] for address in addresses]
    port = int(addresses[0].rpartition(":")[2])
    return endpoint_slice(f"{NAME}-1", *hosts, service=NAME, ports=[("grpc", port)])


def _kubernetes_config(server: ApiServer, folder: Path) -> Mapping[str, object]:
    path = folder / "kubeconfig"
    kubeconfig = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "namespace": "default"}}],
        "clusters": [{"name": "here", "cluster": {"server": server.url}}],
    }
    path.write_text(json.dumps(kubeconfig))  # which is YAML too
    return {"kubernetes": {"kubeconfig": str(path)}}


@asynccontextmanager
async def _xds(folder: Path, port: int) -> AsyncIterator[Source]:
    """A control plane whose process ends, and is started again on the same port."""
    async with AdsServer() as server:

        async def publish(addresses: Sequence[str]) -> None:
            server.set(assignment(NAME, *addresses))

        async def heal(addresses: Sequence[str]) -> None:
            await publish(addresses)
            await server.start()

        bootstrap = {"xds_servers": [{"server_uri": server.uri, "channel_creds": [{"type": "insecure"}]}]}
        yield Source(f"xds:///{NAME}", {"xds": {"bootstrap": bootstrap}}, publish, server.stop, heal)


@asynccontextmanager
async def _consul(folder: Path, port: int) -> AsyncIterator[Source]:
    """An agent that cannot be reached for a while."""
    with Consul() as agent, Relay(int(agent.address.rpartition(":")[2])) as relay:

        async def publish(addresses: Sequence[str]) -> None:
            agent.set([instance(address) for address in addresses])

        async def fail() -> None:
            relay.cut()

        async def heal(addresses: Sequence[str]) -> None:
            await publish(addresses)
            relay.heal()

        yield Source(f"consul://{relay.address}/{NAME}", {}, publish, fail, heal)


SOURCES: Mapping[str, Open] = {
    "dns-servfail": partial(_dns, fault=Fault.SERVFAIL),
    "dns-timeout": partial(_dns, fault=Fault.DROP, options={"timeout_s": 1.0}),  # for an outage to outlast it
    "dns-nxdomain": partial(_dns, fault=Fault.NXDOMAIN),
    "dns-empty": partial(_dns, fault=Fault.EMPTY),
    "file": _file,
    "etcd": _etcd,
    "etcd-compacted": _etcd_compacted,
    "kubernetes": _kubernetes,
    "kubernetes-410": _kubernetes_expired,
    "xds": _xds,
    "consul": _consul,
}
"""Every source with a way to lose it, by name."""
