"""The control plane of these tests is one that real Envoy takes, and our resolver speaks to it as Envoy does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from grpclb_core.config import XdsConfig
from grpclb_core.resolve.xds.bootstrap import parse_bootstrap
from grpclb_core.resolve.xds.client import XdsResolver
from support.ads import AdsServer, assignment
from support.envoy import EnvoyMissingError, envoy, envoy_binary
from support.recorder import PATIENCE_S, Recorder

pytestmark = pytest.mark.anyio

A, B, C = "10.0.0.1:50051", "10.0.0.2:50051", "10.0.0.3:50051"
CLUSTER = "greeter"

Listing = Callable[[], Awaitable[list[str]]]
"""Tells what a client takes the endpoints of the cluster to be."""


@pytest.fixture
def anyio_backend(asyncio_backend: Any) -> Any:
    return asyncio_backend  # as grpc.aio


@pytest.fixture(params=[False, True], ids=["sotw", "delta"])
def delta(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(scope="module")
def binary() -> Path:
    try:
        return envoy_binary()
    except EnvoyMissingError as error:
        pytest.skip(str(error))


def bootstrap_of(server: AdsServer, delta: bool) -> dict[str, Any]:
    ads = {"ads": {}, "resource_api_version": "V3"}
    http2 = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    address = {"socket_address": {"address": "127.0.0.1", "port_value": server.port}}
    control_plane = {
        "name": "control-plane",
        "type": "STATIC",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2},
        "load_assignment": {
            "cluster_name": "control-plane",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
    backoff = {"base_interval": "0.1s", "max_interval": "0.2s"}
    service = {"envoy_grpc": {"cluster_name": "control-plane", "retry_policy": {"retry_back_off": backoff}}}
    return {
        "node": {"id": "me", "cluster": "mine"},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC" if delta else "GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,  # as gRPC does, and we
                "grpc_services": [service],
            }
        },
        "static_resources": {
            "clusters": [control_plane, {"name": CLUSTER, "type": "EDS", "eds_cluster_config": {"eds_config": ads}}]
        },
    }


@asynccontextmanager
async def real_envoy(binary: Path, server: AdsServer, *, delta: bool, folder: Path) -> AsyncIterator[Listing]:
    async with envoy(binary, bootstrap_of(server, delta), folder) as running:
        yield lambda: running.endpoints(CLUSTER)


@asynccontextmanager
async def our_resolver(server: AdsServer, *, delta: bool) -> AsyncIterator[Listing]:
    raw = {"xds_servers": [{"server_uri": server.uri, "channel_creds": [{"type": "insecure"}]}], "node": {"id": "me"}}
    config = XdsConfig(delta=delta, max_backoff_s=0.2)
    sink = Recorder()

    async def listing() -> list[str]:
        return [str(endpoint.address) for endpoint in sink.updates[-1].endpoints] if sink.updates else []

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(XdsResolver(CLUSTER, parse_bootstrap(raw, "test"), config).run, sink)
        yield listing
        tasks.cancel_scope.cancel()


async def until(listing: Listing, expected: list[str]) -> None:
    found: list[str] = []
    with anyio.move_on_after(PATIENCE_S):
        while (found := await listing()) != expected:  # noqa: ASYNC110 - there is nothing to be told by
            await anyio.sleep(0.02)
        return
    pytest.fail(f"it never listed {expected}; it lists {found}")


async def replied(server: AdsServer, count: int) -> None:
    with anyio.move_on_after(PATIENCE_S):
        while len(server.requests) < count:  # noqa: ASYNC110 - the server knows no events
            await anyio.sleep(0.01)
        return
    pytest.fail(f"it never made {count} requests; it made {server.requests}")


async def converse(server: AdsServer, listing: Listing) -> None:
    """Publish, change, publish nonsense, repair, and restart the control plane."""
    await until(listing, [A])
    await replied(server, 2)
    server.set(assignment(CLUSTER, A, B))
    await until(listing, [A, B])
    await replied(server, 3)
    server.set(assignment(CLUSTER, "nowhere:50051"))
    await replied(server, 4)
    assert await listing() == [A, B]
    server.set(assignment(CLUSTER, C))
    await until(listing, [C])
    await replied(server, 5)
    await server.stop()
    assert await listing() == [C]
    server.set(assignment(CLUSTER, A))
    await server.start()
    await until(listing, [A])
    await replied(server, 7)


def gist(server: AdsServer, delta: bool) -> list[tuple[object, ...]]:
    """What each request comes down to."""
    common = [
        (request.node.id if request.HasField("node") else "", request.response_nonce, request.HasField("error_detail"))
        for request in server.requests
    ]
    if delta:
        own = [
            (list(request.resource_names_subscribe), dict(request.initial_resource_versions))
            for request in server.requests
        ]
    else:
        own = [(list(request.resource_names), request.version_info) for request in server.requests]
    return [(*first, *second) for first, second in zip(common, own, strict=True)]


async def test_envoy_and_we_say_the_same(binary: Path, delta: bool, tmp_path: Path) -> None:
    said: list[list[tuple[object, ...]]] = []
    clients = (partial(real_envoy, binary, delta=delta, folder=tmp_path), partial(our_resolver, delta=delta))
    for client in clients:
        async with AdsServer() as server:
            server.set(assignment(CLUSTER, A))
            async with client(server) as listing:
                await converse(server, listing)
            assert "nowhere" in server.refusals[0]
            said.append(gist(server, delta))
    assert said[0] == said[1]
