"""The same cases against our stub and, where `GRPCLB_TEST_KUBECONFIG` names a kubeconfig, against a real API server.

What the credentials must allow there: to create and delete a namespace, and to write EndpointSlices in it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpx
import msgspec
import pytest
import yaml

from grpclb_core.config import KubernetesConfig
from grpclb_core.resolve.kubernetes import api as kubernetes_api
from grpclb_core.resolve.kubernetes.api import ExpiredError, RelistError, cluster_tls, open_api
from grpclb_core.resolve.kubernetes.cluster import Cluster, find_cluster
from grpclb_core.resolve.kubernetes.resolver import KubernetesResolver
from grpclb_core.resolve.kubernetes.target import parse_kubernetes
from grpclb_core.types import Health, Locality
from support.kubernetes import ApiServer, Json, endpoint, endpoint_slice
from support.recorder import Recorder

pytestmark = pytest.mark.anyio

KUBECONFIG = os.environ.get("GRPCLB_TEST_KUBECONFIG", "")
TARGET = parse_kubernetes("///greeter:grpc")
OPTIONS = {"min_backoff_s": 0.05, "max_backoff_s": 0.5}


class Namespace:
    """A namespace of a cluster, made for one test and written to over HTTP, as anybody would."""

    def __init__(self, kubeconfig: str) -> None:
        self.kubeconfig = kubeconfig
        self.cluster = find_cluster(KubernetesConfig(kubeconfig=kubeconfig))
        self.name = f"grpclb-test-{secrets.token_hex(4)}"
        verify = cluster_tls(self.cluster) if self.cluster.server.startswith("https") else False
        token = self.cluster.bearer()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=self.cluster.server, verify=verify, headers=headers, trust_env=False)
        self._slices = f"apis/discovery.k8s.io/v1/namespaces/{self.name}/endpointslices"
        self._known: set[str] = set()

    def __enter__(self) -> Namespace:
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.name}}
        self._http.post("api/v1/namespaces", json=body).raise_for_status()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.delete(f"api/v1/namespaces/{self.name}").raise_for_status()
        self._http.close()

    def put(self, found: Json) -> None:
        name = found["metadata"]["name"]
        if name in self._known:
            self._http.put(f"{self._slices}/{name}", json=found).raise_for_status()
        else:
            self._http.post(self._slices, json=found).raise_for_status()
        self._known.add(name)

    def delete(self, name: str) -> None:
        self._http.delete(f"{self._slices}/{name}").raise_for_status()
        self._known.discard(name)

    @asynccontextmanager
    async def following(self, sink: Recorder, **options: float) -> AsyncIterator[None]:
        config = KubernetesConfig(kubeconfig=self.kubeconfig, **{**OPTIONS, **options})
        target = msgspec.structs.replace(TARGET, namespace=self.name)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(KubernetesResolver(target, config).run, sink)
            yield
            tasks.cancel_scope.cancel()

    def in_place_of(self, cluster: Cluster) -> Cluster:
        return msgspec.structs.replace(cluster, namespace=self.name)


@pytest.fixture(params=["stub", "real"])
def namespace(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Namespace]:
    if request.param == "real":
        if not KUBECONFIG:
            pytest.skip("GRPCLB_TEST_KUBECONFIG names no kubeconfig")
        with Namespace(KUBECONFIG) as made:
            yield made
        return
    with ApiServer(token="secret") as api:
        api.compact()
        content = {
            "current-context": "stub",
            "contexts": [{"name": "stub", "context": {"cluster": "stub", "user": "stub"}}],
            "clusters": [{"name": "stub", "cluster": {"server": api.url}}],
            "users": [{"name": "stub", "user": {"token": "secret"}}],
        }
        path = tmp_path / "kubeconfig"
        path.write_text(yaml.safe_dump(content))
        with Namespace(str(path)) as made:
            yield made


async def test_every_kind_of_event(namespace: Namespace, sink: Recorder) -> None:
    namespace.put(endpoint_slice("a", "10.0.0.1"))
    async with namespace.following(sink):
        await sink.until(lambda: sink.updates and sink.hosts == ["10.0.0.1"])
        namespace.put(endpoint_slice("b", "10.0.0.2"))
        await sink.until(lambda: sink.hosts == ["10.0.0.1", "10.0.0.2"])
        namespace.put(endpoint_slice("a", "10.0.0.3"))
        await sink.until(lambda: sink.hosts == ["10.0.0.2", "10.0.0.3"])
        namespace.delete("a")
        await sink.until(lambda: sink.hosts == ["10.0.0.2"])
        namespace.delete("b")
        await sink.until(lambda: sink.hosts == [])
    assert sink.order[-2:] == ["update", "fail"]


async def test_what_an_endpoint_tells(namespace: Namespace, sink: Recorder) -> None:
    leaving = {"ready": False, "serving": True, "terminating": True}
    told = endpoint(
        "10.0.0.1",
        conditions=leaving,
        zone="zone-a",
        nodeName="node-1",
        targetRef={"kind": "Pod", "name": "greeter-abc", "namespace": namespace.name},
        hints={"forZones": [{"name": "zone-a"}]},
    )
    namespace.put(endpoint_slice("a", told))
    namespace.put(endpoint_slice("b", "fd00::1", family="IPv6"))
    async with namespace.following(sink):
        await sink.until(lambda: sink.updates)
    four, six = sink.updates[0].endpoints
    assert four.health is Health.DRAINING
    assert four.locality == Locality(zone="zone-a")
    assert four.metadata == {"node": "node-1", "pod": "greeter-abc", "for_zones": "zone-a"}
    assert str(six.address) == "[fd00::1]:50051"


async def test_pages(namespace: Namespace, sink: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_api, "PAGE_SIZE", 1)
    for number in range(1, 4):
        namespace.put(endpoint_slice(f"slice-{number}", f"10.0.0.{number}"))
    async with namespace.following(sink):
        await sink.until(lambda: sink.updates)
    assert sink.hosts == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]


async def test_a_watch_that_ended_in_its_time(namespace: Namespace, sink: Recorder) -> None:
    namespace.put(endpoint_slice("a", "10.0.0.1"))
    async with namespace.following(sink, watch_timeout_s=1):
        await sink.until(lambda: sink.updates)
        await anyio.sleep(1.5)
        namespace.put(endpoint_slice("b", "10.0.0.2"))
        await sink.until(lambda: sink.hosts == ["10.0.0.1", "10.0.0.2"])
    assert sink.order == ["update", "update"]


async def test_a_bookmark_comes_before_the_end(namespace: Namespace) -> None:
    namespace.put(endpoint_slice("a", "10.0.0.1"))
    async with open_api(namespace.in_place_of(namespace.cluster), TARGET, 10) as api:
        _, version = await api.list_slices()
        async with api.watch(version, 1) as changes:
            last = [change async for change in changes][-1]
    assert last.slice is None
    assert int(last.version) >= int(version)


async def test_a_version_that_is_too_old(namespace: Namespace) -> None:
    async with open_api(namespace.in_place_of(namespace.cluster), TARGET, 10) as api:
        with pytest.raises(ExpiredError):
            async with api.watch("1", 5) as changes:
                async for _ in changes:
                    pass


@pytest.mark.parametrize(("token", "codes"), [("wrong", {"401"}), ("", {"401", "403"})])
async def test_credentials_that_are_refused(namespace: Namespace, token: str, codes: set[str]) -> None:
    mine = namespace.cluster
    cluster = Cluster(mine.server, namespace.name, mine.ca_file, mine.ca_data, mine.insecure, mine.tls_name, token)
    async with open_api(cluster, TARGET, 10) as api:
        with pytest.raises(RelistError) as caught:
            await api.list_slices()
    assert any(f"list of endpointslices was refused with {code}" in str(caught.value) for code in codes)


async def test_a_burst_of_changes(namespace: Namespace, sink: Recorder) -> None:
    namespace.put(endpoint_slice("a", "10.0.0.1"))
    async with namespace.following(sink):
        await sink.until(lambda: sink.updates)
        for number in range(1, 101):
            await anyio.to_thread.run_sync(namespace.put, endpoint_slice("a", f"10.0.1.{number}"))
        await sink.until(lambda: sink.hosts == ["10.0.1.100"])
    assert sink.errors == []
