"""Listing and watching EndpointSlices, and all that breaks on the way."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import anyio
import pytest

from grpclb_core.config import Config, KubernetesConfig
from grpclb_core.errors import ConfigError, TargetError
from grpclb_core.resolve import parse_target, resolver_for
from grpclb_core.resolve.kubernetes import api as kubernetes_api
from grpclb_core.resolve.kubernetes.cluster import Cluster
from grpclb_core.resolve.kubernetes.resolver import KubernetesResolver
from grpclb_core.resolve.kubernetes.target import parse_kubernetes
from grpclb_core.types import Health
from support.kubernetes import ApiServer, endpoint, endpoint_slice
from support.recorder import Recorder

# A stream that is left early must leave nothing to the garbage collector.
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("error::ResourceWarning", "error::pytest.PytestUnraisableExceptionWarning"),
]

FAST = KubernetesConfig(min_backoff_s=0.05, max_backoff_s=0.1, timeout_s=5.0)
QUIET_S = 0.4


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with ApiServer() as running:
        yield running


def resolver_of(
    api: ApiServer, config: KubernetesConfig = FAST, target: str = "///greeter:grpc", namespace: str = "default"
) -> KubernetesResolver:
    cluster = Cluster(server=api.url, namespace=namespace, token="secret")
    return KubernetesResolver(parse_kubernetes(target), config, find=lambda: cluster)


@asynccontextmanager
async def following(resolver: KubernetesResolver, sink: Recorder) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(resolver.run, sink)
        yield
        tasks.cancel_scope.cancel()


def verbs(api: ApiServer) -> list[str]:
    return [request.verb for request in api.requests]


class TestWatching:
    async def test_events_are_taken_as_they_come(self, api: ApiServer, sink: Recorder) -> None:
        api.put(endpoint_slice("a", "10.0.0.1"))
        async with following(resolver_of(api), sink):
            await sink.until(lambda: sink.updates and sink.hosts == ["10.0.0.1"])
            api.put(endpoint_slice("b", "10.0.0.2"))
            await sink.until(lambda: sink.hosts == ["10.0.0.1", "10.0.0.2"])
            api.put(endpoint_slice("a", "10.0.0.3"))
            await sink.until(lambda: sink.hosts == ["10.0.0.2", "10.0.0.3"])
            version = sink.updates[-1].version
            api.delete("b")
            await sink.until(lambda: sink.hosts == ["10.0.0.3"])
        assert int(sink.updates[-1].version) > int(version)
        assert verbs(api) == ["list", "watch"]
        assert sink.errors == []

    async def test_other_services_and_namespaces_are_not_ours(self, api: ApiServer, sink: Recorder) -> None:
        api.put(endpoint_slice("a", "10.0.0.1"), namespace="team")
        api.put(endpoint_slice("a", "10.0.0.2"))
        api.put(endpoint_slice("b", "10.0.0.3", service="other"), namespace="team")
        async with following(resolver_of(api, namespace="team"), sink):
            await sink.until(lambda: sink.updates)
            api.put(endpoint_slice("c", "10.0.0.4", service="other"), namespace="team")
            api.put(endpoint_slice("c", "10.0.0.5"))
            api.put(endpoint_slice("d", "10.0.0.6"), namespace="team")
            await sink.until(lambda: len(sink.updates) == 2)
        assert sink.hosts == ["10.0.0.1", "10.0.0.6"]

    async def test_health_changes_are_pushed(self, api: ApiServer, sink: Recorder) -> None:
        api.put(endpoint_slice("a", "10.0.0.1"))
        async with following(resolver_of(api), sink):
            await sink.until(lambda: sink.updates)
            leaving = {"ready": False, "serving": True, "terminating": True}
            api.put(endpoint_slice("a", endpoint("10.0.0.1", conditions=leaving)))
            await sink.until(lambda: len(sink.updates) == 2)
        assert sink.updates[-1].endpoints[0].health is Health.DRAINING

    async def test_what_says_nothing_new_is_not_pushed(self, api: ApiServer, sink: Recorder) -> None:
        api.put(endpoint_slice("a", "10.0.0.1"))
        async with following(resolver_of(api), sink):
            await sink.until(lambda: sink.updates and api.watching)
            for _ in range(20):
                api.put(endpoint_slice("a", "10.0.0.1"))
            api.put(endpoint_slice("b", "10.0.0.1"))
            api.inject(b"\n")
            api.inject(b'{"type": "PARADE", "object": {}}\n')
            await anyio.sleep(QUIET_S)
        assert sink.order == ["update"]

    async def test_a_burst_ends_with_the_last_state(self, api: ApiServer, sink: Recorder) -> None:
        api.put(endpoint_slice("a", "10.0.0.1"))
        async with following(resolver_of(api), sink):
            await sink.until(lambda: sink.updates)
            for number in range(200):
                api.put(endpoint_slice("a", f"10.0.1.{number}"))
            await sink.until(lambda: sink.hosts == ["10.0.1.199"])
        assert sink.errors == []

    async def test_lists_come_in_pages(self, api: ApiServer, sink: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(kubernetes_api, "PAGE_SIZE", 2)
        for number in range(5):
            api.put(endpoint_slice(f"slice-{number}", f"10.0.0.{number}"))
        async with following(resolver_of(api), sink):
            await sink.until(lambda: sink.updates and api.watching)
        assert sink.hosts == [f"10.0.0.{number}" for number in range(5)]
        assert verbs(api) == ["list"] * 3 + ["watch"]
        assert [len(request.params.get("continue", "")) > 0 for request in api.requests[:3]] == [False, True, True]

    async def test_the_watch_goes_on_when_its_time_is_over(self, api: ApiServer, sink: Recorder) -> None:
        config = KubernetesConfig(watch_timeout_s=1, min_backoff_s=0.05, max_backoff_s=0.1)
        api.put(endpoint_slice("a", "10.0.0.1"))
        async with following(resolver_of(api, config), sink):
            await sink.until(lambda: sink.updates and api.watching)
            api.put(endpoint_slice("x", "10.0.0.9", service="other"))  # moves the version, which only a bookmark tells
            await sink.until(lambda: verbs(api).count("watch") >= 2)
            api.put(endpoint_slice("b", "10.0.0.2"))
            await sink.until(lambda: len(sink.updates) == 2)
        assert sink.hosts == ["10.0.0.1", "10.0.0.2"]
        assert verbs(api).count("list") == 1
        versions = [int(request.params["resourceVersion"]) for request in api.requests if request.verb == "watch"]
        assert versions[1] > versions[0]
        assert sink.errors == []

    async def test_a_server_that_ends_every_watch_at_once_is_not_pressed(self, api: ApiServer, sink: Recorder) -> None:
        api.bookmarks = False
        config = KubernetesConfig(min_backoff_s=0.5, max_backoff_s=1.0)
        api.put(endpoint_slice("a", "10.0.0.1"))
        async with following(resolver_of(api, config), sink):
            await sink.until(lambda: sink.updates)
            with anyio.move_on_after(1.0):
                while True:
                    api.inject(b"", then="end")
                    await anyio.sleep(0.01)
        assert verbs(api).count("watch") <= 6
        assert sink.errors == []


class TestBreaking:
    async def test_410_in_the_stream(self, api: ApiServer, sink: Recorder) -> None:
        api.put(endpoint_slice("a", "10.0.0.1"))
        async with following(resolver_of(api), sink):
            await sink.until(lambda: sink.updates and api.watching)
            api.put_quietly(endpoint_slice("b", "10.0.0.2"))
            api.expire_watches()
            await sink.until(lambda: len(sink.updates) == 2)
        assert sink.hosts == ["10.0.0.2"]
        assert verbs(api)[:3] == ["list", "watch", "list"]
        assert sink.errors == []  # it happens to everyone

    async def test_410_as_the_answer(self, api: ApiServer, sink: Recorder) -> None:
        api.put(endpoint_slice("a", "10.0.0.1"))
        api.deny("watch", 410, "Expired")
        async with following(resolver_of(api), sink):
            await sink.until(lambda: verbs(api).count("list") >= 3)
            api.put_quietly(endpoint_slice("b", "10.0.0.2"))
            api.allow("watch")
            await sink.until(lambda: sink.hosts == ["10.0.0.2"])
        assert sink.errors == []

    async def test_a_watch_from_before_an_outage_is_told_410(self, api: ApiServer, sink: Recorder) -> None:
        api.put(endpoint_slice("a", "10.0.0.1"))
        async with following(resolver_of(api), sink):
            await sink.until(lambda: sink.updates and api.watching)
            api.go_down()
            await sink.until(lambda: sink.errors)
            api.put_quietly(endpoint_slice("b", "10.0.0.2"))
            api.come_up()
            await sink.until(lambda: sink.hosts == ["10.0.0.2"])

    async def test_410_without_end_is_no_storm(self, api: ApiServer, sink: Recorder) -> None:
        api.put(endpoint_slice("a", "10.0.0.1"))
        api.deny("watch", 410, "Expired")
        config = KubernetesConfig(min_backoff_s=0.5, max_backoff_s=0.6)
        async with following(resolver_of(api, config), sink):
            await sink.until(lambda: sink.updates)
            await anyio.sleep(1.0)
        assert len(api.requests) <= 10

    async def test_a_page_that_is_too_old_begins_the_list_anew(
        self, api: ApiServer, sink: Recorder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(kubernetes_api, "PAGE_SIZE", 1)
        for number in range(3):
            api.put(endpoint_slice(f"slice-{number}", f"10.0.0.{number}"))
        page, compacted = api.page, []

        def compact_once(params: dict[str, str], namespace: str) -> dict[str, object]:
            if "continue" in params and not compacted:
                compacted.append(True)
                api.compact()
            return page(params, namespace)

        monkeypatch.setattr(api, "page", compact_once)
        async with following(resolver_of(api), sink):
            await sink.until(lambda: sink.updates)
        assert sink.hosts == ["10.0.0.0", "10.0.0.1", "10.0.0.2"]
        assert sink.errors == []

    async def test_a_stream_cut_in_the_middle_of_a_line(self, api: ApiServer, sink: Recorder) -> None:
        api.put(endpoint_slice("a", "10.0.0.1"))
        async with following(resolver_of(api), sink):
            await sink.until(lambda: sink.updates and api.watching)
            api.cut_watches()
            await sink.until(lambda: sink.errors)
            await sink.until(lambda: api.watching)
            api.put(endpoint_slice("b", "10.0.0.2"))
            await sink.until(lambda: sink.hosts == ["10.0.0.1", "10.0.0.2"])
        assert verbs(api).count("list") == 1  # the watch went on
        assert api.url in str(sink.errors[0])
        assert all("10.9.9.9" not in str(update) for update in sink.updates)

    async def test_a_line_cut_by_an_orderly_end_comes_again(self, api: ApiServer, sink: Recorder) -> None:
        api.put(endpoint_slice("a", "10.0.0.1"))
        async with following(resolver_of(api), sink):
            await sink.until(lambda: sink.updates and api.watching)
            api.inject(b'{"type": "MODIFIED", "obj', then="end")
            api.put(endpoint_slice("b", "10.0.0.2"))
            await sink.until(lambda: len(sink.updates) == 2)
        assert sink.hosts == ["10.0.0.1", "10.0.0.2"]

    @pytest.mark.parametrize(
        "line",
        [
            b"no JSON\n",
            b"[]\n",
            b'{"type": "ADDED"}\n',
            b'{"type": "ADDED", "object": {}}\n',
            b'{"type": "ADDED", "object": {"metadata": {"name": ""}}}\n',
            b'{"type": "MODIFIED", "object": {"metadata": {"name": "a"}, "endpoints": 5}}\n',
            b'{"type": "BOOKMARK", "object": []}\n',
            b'{"type": "ERROR", "object": {"code": 500, "message": "etcd lacks progress requests"}}\n',
            b'{"type": "ERROR", "object": null}\n',
            b"\xff\xfe\n",
        ],
    )
    async def test_an_event_that_cannot_be_read(self, api: ApiServer, sink: Recorder, line: bytes) -> None:
        api.put(endpoint_slice("a", "10.0.0.1"))
        async with following(resolver_of(api), sink):
            await sink.until(lambda: sink.updates and api.watching)
            api.inject(line)
            await sink.until(lambda: sink.errors)
            assert sink.hosts == ["10.0.0.1"]
            await sink.until(lambda: verbs(api).count("list") == 2 and api.watching)
            api.put(endpoint_slice("a", "10.0.0.2"))
            await sink.until(lambda: sink.hosts == ["10.0.0.2"])
        assert "service 'greeter' in namespace 'default', asked of http://127.0.0.1" in str(sink.errors[0])

    @pytest.mark.parametrize(
        "page",
        [
            {"items": []},
            {"metadata": {}, "items": []},
            {"metadata": {"resourceVersion": "1"}, "items": [{"metadata": {}}]},
            {"metadata": {"resourceVersion": "1"}, "items": {}},
            {"metadata": {"resourceVersion": "1", "continue": "again"}, "items": []},
        ],
    )
    async def test_a_list_that_cannot_be_read(
        self, api: ApiServer, sink: Recorder, monkeypatch: pytest.MonkeyPatch, page: dict[str, object]
    ) -> None:
        api.put(endpoint_slice("a", "10.0.0.1"))
        async with following(resolver_of(api), sink):
            await sink.until(lambda: sink.updates and api.watching)
            with monkeypatch.context() as patched:
                patched.setattr(api, "page", lambda params, namespace: page)
                api.expire_watches()
                await sink.until(lambda: sink.errors)
                assert sink.hosts == ["10.0.0.1"]
            api.put(endpoint_slice("a", "10.0.0.2"))
            await sink.until(lambda: sink.hosts == ["10.0.0.2"])

    async def test_too_many_slices_are_refused(
        self, api: ApiServer, sink: Recorder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(kubernetes_api, "MAX_SLICES", 2)
        for number in range(3):
            api.put(endpoint_slice(f"slice-{number}", f"10.0.0.{number}"))
        async with following(resolver_of(api), sink):
            await sink.until(lambda: sink.errors)
        assert "more than 2 slices" in str(sink.errors[0])
        assert sink.updates == []

    async def test_a_server_that_answers_nothing(self, api: ApiServer, sink: Recorder) -> None:
        async with await anyio.create_tcp_listener(local_host="127.0.0.1") as silent:
            port = silent.extra(anyio.abc.SocketAttribute.local_port)
            cluster = Cluster(server=f"http://127.0.0.1:{port}")
            config = KubernetesConfig(timeout_s=0.2, min_backoff_s=0.05, max_backoff_s=0.1)
            resolver = KubernetesResolver(parse_kubernetes("///greeter"), config, find=lambda: cluster)
            async with following(resolver, sink):
                await sink.until(lambda: len(sink.errors) >= 2)
        assert "no answer within 0.2 s" in str(sink.errors[0])


class TestEmpty:
    async def test_from_the_beginning(self, api: ApiServer, sink: Recorder) -> None:
        async with following(resolver_of(api), sink):
            await sink.until(lambda: sink.errors)
            assert sink.updates == []
            api.put(endpoint_slice("a"))
            await sink.until(lambda: len(sink.errors) == 2)
            api.put(endpoint_slice("a", "10.0.0.1"))
            await sink.until(lambda: sink.updates)
        assert "it has no EndpointSlice; check the names" in str(sink.errors[0])
        assert "its EndpointSlices are empty" in str(sink.errors[1])
        assert sink.hosts == ["10.0.0.1"]

    async def test_an_event_that_empties_the_set_is_believed(self, api: ApiServer, sink: Recorder) -> None:
        api.put(endpoint_slice("a", "10.0.0.1"))
        async with following(resolver_of(api), sink):
            await sink.until(lambda: sink.updates and api.watching)
            api.delete("a")
            await sink.until(lambda: sink.errors)
        assert sink.hosts == []
        assert sink.order == ["update", "update", "fail"]

    async def test_a_list_that_empties_the_set_is_held(self, api: ApiServer, sink: Recorder) -> None:
        config = KubernetesConfig(min_backoff_s=0.05, max_backoff_s=0.1, empty_hold_s=0.5)
        api.put(endpoint_slice("a", "10.0.0.1"))
        async with following(resolver_of(api, config), sink):
            await sink.until(lambda: sink.updates and api.watching)
            api.put_quietly()
            api.expire_watches()
            await sink.until(lambda: sink.errors)
            assert sink.hosts == ["10.0.0.1"]
            assert "the endpoints known before stay in use for 0.5 s" in str(sink.errors[0])
            await sink.until(lambda: sink.hosts == [])
            api.put(endpoint_slice("b", "10.0.0.2"))
            await sink.until(lambda: sink.hosts == ["10.0.0.2"])
        assert len(sink.updates) == 3

    async def test_an_endpoint_ends_the_hold(self, api: ApiServer, sink: Recorder) -> None:
        config = KubernetesConfig(min_backoff_s=0.05, max_backoff_s=0.1, empty_hold_s=0.5)
        api.put(endpoint_slice("a", "10.0.0.1"))
        async with following(resolver_of(api, config), sink):
            await sink.until(lambda: sink.updates and api.watching)
            api.put_quietly()
            api.expire_watches()
            await sink.until(lambda: sink.errors)
            api.put(endpoint_slice("b", "10.0.0.2"))
            await sink.until(lambda: sink.hosts == ["10.0.0.2"])
            await anyio.sleep(0.7)
        assert [[each.address.host for each in update.endpoints] for update in sink.updates] == [
            ["10.0.0.1"],
            ["10.0.0.2"],
        ]

    async def test_a_set_that_became_unusable_is_no_empty_one(self, api: ApiServer, sink: Recorder) -> None:
        api.put(endpoint_slice("a", "10.0.0.1"))
        async with following(resolver_of(api), sink):
            await sink.until(lambda: sink.updates and api.watching)
            api.put(endpoint_slice("a", "10.0.0.2", ports=[("http", 80)]))
            await sink.until(lambda: sink.errors)
            assert sink.hosts == ["10.0.0.1"]
            api.put(endpoint_slice("a", "10.0.0.2"))
            await sink.until(lambda: sink.hosts == ["10.0.0.2"])
        assert "no TCP port 'grpc', only http (80)" in str(sink.errors[0])

    async def test_the_usable_part_is_used_and_the_rest_told(self, api: ApiServer, sink: Recorder) -> None:
        api.put(endpoint_slice("a", "10.0.0.1", "nonsense"))
        async with following(resolver_of(api), sink):
            await sink.until(lambda: sink.errors)
            assert sink.order == ["update", "fail"]
            api.put(endpoint_slice("a", "10.0.0.1"))
            await sink.until(lambda: len(sink.updates) == 2)  # the fault is over, so the set is pushed again
        assert "EndpointSlice a: endpoints[1]: 'nonsense' is not an IP address" in str(sink.errors[0])


class TestRefusals:
    async def test_not_allowed_to_list(self, api: ApiServer, sink: Recorder) -> None:
        api.deny("list")
        api.put(endpoint_slice("a", "10.0.0.1"))
        async with following(resolver_of(api), sink):
            await sink.until(lambda: sink.errors)
            api.allow("list")
            await sink.until(lambda: sink.updates)
        said = str(sink.errors[0])
        assert "list of endpointslices was refused with 403" in said
        assert "system:serviceaccount:default:default" in said
        assert "kubectl apply -n default -f deploy/kubernetes/rbac.yaml" in said
        assert "it may list endpointslices (discovery.k8s.io) in this namespace" in said

    async def test_allowed_to_list_but_not_to_watch(self, api: ApiServer, sink: Recorder) -> None:
        api.deny("watch")
        api.put(endpoint_slice("a", "10.0.0.1"))
        async with following(resolver_of(api), sink):
            await sink.until(lambda: sink.errors)
            api.put(endpoint_slice("a", "10.0.0.2"))
            await sink.until(lambda: sink.hosts == ["10.0.0.2"])  # by the next list
        assert "it may watch endpointslices" in str(sink.errors[0])

    async def test_no_token_and_a_wrong_one(self, api: ApiServer, sink: Recorder) -> None:
        api.token = "other"
        async with following(resolver_of(api), sink):
            await sink.until(lambda: sink.errors)
        assert "401 (Unauthorized); the token or certificate is not accepted" in str(sink.errors[0])
        assert all("secret" not in str(error) for error in sink.errors)

    async def test_a_server_that_is_no_api_server(self, api: ApiServer, sink: Recorder) -> None:
        cluster = Cluster(server=f"{api.url}/elsewhere")
        resolver = KubernetesResolver(parse_kubernetes("///greeter"), FAST, find=lambda: cluster)
        async with following(resolver, sink):
            await sink.until(lambda: sink.errors)
        assert "this is no API server, or one older than Kubernetes 1.21" in str(sink.errors[0])

    async def test_an_overloaded_server(self, api: ApiServer, sink: Recorder) -> None:
        api.deny("list", 429, "TooManyRequests")
        async with following(resolver_of(api), sink):
            await sink.until(lambda: sink.errors)
        assert "429 (TooManyRequests)" in str(sink.errors[0])


class TestMaking:
    def test_by_its_target(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "")
        monkeypatch.setenv("KUBECONFIG", "")
        monkeypatch.setenv("HOME", "/nonexistent")
        with pytest.raises(TargetError, match="no Kubernetes cluster is known"):
            resolver_for(parse_target("k8s:///greeter.default:50051"), Config())
        with pytest.raises(TargetError, match="port 'x_y' is neither"):
            resolver_for(parse_target("k8s:///greeter.default:x_y"), Config())

    async def test_credentials_that_break_later_are_a_fault(self, api: ApiServer, sink: Recorder) -> None:
        broken = False

        def find() -> Cluster:
            if broken:
                raise ConfigError("the kubeconfig is gone")
            return Cluster(server=api.url)

        api.put(endpoint_slice("a", "10.0.0.1"))
        async with following(KubernetesResolver(parse_kubernetes("///greeter"), FAST, find=find), sink):
            await sink.until(lambda: sink.updates and api.watching)
            broken = True
            api.expire_watches()
            await sink.until(lambda: sink.errors)
            assert sink.hosts == ["10.0.0.1"]
            broken = False
            api.put(endpoint_slice("a", "10.0.0.2"))
            await sink.until(lambda: sink.hosts == ["10.0.0.2"])
        assert "service 'greeter': the kubeconfig is gone" in str(sink.errors[0])

    async def test_refresh_shortens_the_wait_after_a_failure(self, api: ApiServer, sink: Recorder) -> None:
        config = KubernetesConfig(min_backoff_s=0.05, max_backoff_s=math.inf)
        resolver = resolver_of(api, config)
        api.put(endpoint_slice("a", "10.0.0.1"))
        api.deny("list")
        async with following(resolver, sink):
            for count in range(1, 8):  # without it, the seventh would come after half a minute
                await sink.until(lambda count=count: len(sink.errors) >= count)  # type: ignore[misc]
                resolver.refresh()
            api.allow("list")
            resolver.refresh()
            await sink.until(lambda: sink.updates)

    def test_options(self) -> None:
        with pytest.raises(ConfigError, match="min_backoff_s 2 is above max_backoff_s 1"):
            KubernetesConfig(min_backoff_s=2, max_backoff_s=1)
