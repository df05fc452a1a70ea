"""The xds resolver against a control plane of our own, over real connections."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import grpc
import pytest
import trustme
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryResponse, DiscoveryResponse

import grpclb_core as lb
from grpclb_core.config import Config, XdsConfig
from grpclb_core.resolve.xds import client
from grpclb_core.resolve.xds.bootstrap import parse_bootstrap
from grpclb_core.resolve.xds.client import XdsResolver
from support.ads import EDS, AdsServer, assignment, packed
from support.recorder import Recorder
from support.servers import UNARY_UNARY, EchoServer

pytestmark = pytest.mark.anyio

A, B, C = "10.0.0.1:50051", "10.0.0.2:50051", "10.0.0.3:50051"
CLUSTER = "greeter"
QUIET_S = 0.4  # long against the waits set here, short against a test run
LONG_S = 60.0  # never comes within a test


@pytest.fixture
def anyio_backend(asyncio_backend: Any) -> Any:
    return asyncio_backend  # as grpc.aio


@pytest.fixture(params=[False, True], ids=["sotw", "delta"])
def delta(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
async def ads() -> AsyncIterator[AdsServer]:
    async with AdsServer() as running:
        yield running


def resolver_of(
    *servers: AdsServer,
    delta: bool = False,
    creds: dict[str, Any] | None = None,
    features: tuple[str, ...] = (),
    **options: Any,
) -> XdsResolver:
    raw = [
        {"server_uri": server.uri, "channel_creds": [creds or {"type": "insecure"}], "server_features": features}
        for server in servers
    ]
    bootstrap = parse_bootstrap({"xds_servers": raw, "node": {"id": "me"}}, "test")
    config = XdsConfig(**({"delta": delta, "max_backoff_s": 0.1, "empty_hold_s": LONG_S} | options))
    return XdsResolver(CLUSTER, bootstrap, config)


@asynccontextmanager
async def running(resolver: XdsResolver, sink: Recorder) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(resolver.run, sink)
        yield
        tasks.cancel_scope.cancel()


def greeter(*addresses: str) -> ClusterLoadAssignment:
    return assignment(CLUSTER, *addresses)


def listed(sink: Recorder) -> list[str]:
    return [str(endpoint.address) for endpoint in sink.updates[-1].endpoints] if sink.updates else []


def said(sink: Recorder) -> str:
    return str(sink.errors[-1]) if sink.errors else ""


class TestConversation:
    async def test_each_answer_is_accepted_once(self, ads: AdsServer, sink: Recorder, delta: bool) -> None:
        ads.set(greeter(A))
        async with running(resolver_of(ads, delta=delta), sink):
            await sink.until(lambda: listed(sink) == [A])
            ads.set(greeter(A, B))
            await sink.until(lambda: listed(sink) == [A, B])
            await sink.until(lambda: len(ads.requests) == 3)
            await anyio.sleep(QUIET_S)
        first, *accepted = ads.requests
        assert first.node.id == "me"
        assert [request.response_nonce for request in ads.requests] == ["", "1", "2"]
        assert not any(request.HasField("node") or request.HasField("error_detail") for request in accepted)
        if delta:
            assert list(first.resource_names_subscribe) == [CLUSTER]
            assert not any(request.resource_names_subscribe for request in accepted)
        else:
            assert [request.version_info for request in ads.requests] == ["", "1", "2"]
            assert all(list(request.resource_names) == [CLUSTER] for request in ads.requests)
        assert sink.errors == []
        assert [resolution.version for resolution in sink.updates] == ["1", "2"]

    async def test_a_refused_answer_keeps_the_last_good_set(self, ads: AdsServer, sink: Recorder, delta: bool) -> None:
        ads.set(greeter(A))
        async with running(resolver_of(ads, delta=delta), sink):
            await sink.until(lambda: listed(sink) == [A])
            ads.set(greeter("10.0.0.2:0"))
            await sink.until(lambda: ads.refusals and sink.errors)
            assert "port 0 is out of range" in ads.refusals[0]
            assert ads.refusals[0] in said(sink)
            assert listed(sink) == [A]
            if not delta:
                assert ads.requests[-1].version_info == "1"
                assert ads.requests[-1].response_nonce == "2"
            ads.set(greeter(C))
            await sink.until(lambda: listed(sink) == [C])
            await sink.until(lambda: ads.requests[-1].response_nonce == "3")
            assert not ads.requests[-1].HasField("error_detail")
        assert ads.streams_opened == 1

    async def test_it_says_what_it_knows_when_a_stream_begins(
        self, ads: AdsServer, sink: Recorder, delta: bool
    ) -> None:
        ads.set(greeter(A))
        async with running(resolver_of(ads, delta=delta), sink):
            await sink.until(lambda: listed(sink) == [A] and len(ads.requests) == 2)
            ads.cut()
            await sink.until(lambda: len(ads.requests) == 3)
            again = ads.requests[-1]
            assert again.node.id == "me"
            assert again.response_nonce == ""
            if delta:
                assert dict(again.initial_resource_versions) == {CLUSTER: "1"}
            else:
                assert again.version_info == "1"
            ads.set(greeter(B))
            await sink.until(lambda: listed(sink) == [B])
        # gRFC A57: a stream that has said something may end.
        assert sink.errors == []

    async def test_an_answer_of_another_type_is_reported_and_no_more(
        self, ads: AdsServer, sink: Recorder, delta: bool
    ) -> None:
        ads.set(greeter(A))
        async with running(resolver_of(ads, delta=delta), sink):
            await sink.until(lambda: listed(sink) == [A] and len(ads.requests) == 2)
            ads.push((DeltaDiscoveryResponse if delta else DiscoveryResponse)(type_url="type.googleapis.com/other"))
            await sink.until(lambda: "not asked for" in said(sink))
            await anyio.sleep(QUIET_S)
        assert len(ads.requests) == 2

    async def test_a_flood_of_bad_answers_is_survived(self, ads: AdsServer, sink: Recorder) -> None:
        ads.set(greeter(A))
        async with running(resolver_of(ads), sink):
            await sink.until(lambda: listed(sink) == [A])
            bad = packed(greeter("nowhere:1"))
            for _ in range(200):
                ads.push(DiscoveryResponse(version_info="bad", type_url=EDS, resources=[bad]))
            ads.set(greeter(B))
            await sink.until(lambda: listed(sink) == [B])
        assert len(ads.refusals) >= 200

    async def test_a_large_set_comes_through(self, ads: AdsServer, sink: Recorder) -> None:
        # About 300 KB; gRPC's own limit of 4 MiB is reached at a hundred thousand.
        ads.set(greeter(*(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}:50051" for n in range(10_000))))
        async with running(resolver_of(ads), sink):
            await sink.until(lambda: len(listed(sink)) == 10_000)


class TestWhatDoesNotExist:
    async def test_a_cluster_that_is_not_named_in_time(self, ads: AdsServer, sink: Recorder) -> None:
        async with running(resolver_of(ads, resource_timeout_s=0.2), sink):
            await sink.until(lambda: "does not exist: no answer named it within 0.2 s" in said(sink))
            ads.set(greeter(A))
            await sink.until(lambda: listed(sink) == [A])
        assert sink.order == ["fail", "update"]

    async def test_time_is_up_only_if_nothing_is_known(self, ads: AdsServer, sink: Recorder, delta: bool) -> None:
        ads.set(greeter(A))
        async with running(resolver_of(ads, delta=delta, resource_timeout_s=0.2), sink):
            await sink.until(lambda: listed(sink) == [A] and len(ads.requests) == 2)
            ads.cut()
            await sink.until(lambda: len(ads.requests) == 3)
            await anyio.sleep(QUIET_S)
        assert sink.errors == []

    async def test_a_refused_answer_stops_the_clock(self, ads: AdsServer, sink: Recorder, delta: bool) -> None:
        ads.set(greeter("10.0.0.1:0"))
        async with running(resolver_of(ads, delta=delta, resource_timeout_s=0.2), sink):
            await sink.until(lambda: sink.errors)
            await anyio.sleep(QUIET_S)
        assert len(sink.errors) == 1
        assert "port 0" in said(sink)

    async def test_delta_says_it_at_once(self, ads: AdsServer, sink: Recorder) -> None:
        async with running(resolver_of(ads, delta=True), sink):
            await sink.until(lambda: "the control plane says that the cluster does not exist" in said(sink))
        assert [resolution.endpoints for resolution in sink.updates] == [()]

    async def test_a_removal_is_believed(self, ads: AdsServer, sink: Recorder) -> None:
        ads.set(greeter(A))
        async with running(resolver_of(ads, delta=True), sink):
            await sink.until(lambda: listed(sink) == [A])
            ads.remove(CLUSTER)
            await sink.until(lambda: sink.updates[-1].endpoints == () and sink.errors)
            ads.set(greeter(B))
            await sink.until(lambda: listed(sink) == [B])
        assert sink.order == ["update", "update", "fail", "update"]

    async def test_a_removal_is_ignored_if_the_bootstrap_says_so(self, ads: AdsServer, sink: Recorder) -> None:
        ads.set(greeter(A))
        async with running(resolver_of(ads, delta=True, features=("ignore_resource_deletion",)), sink):
            await sink.until(lambda: listed(sink) == [A])
            ads.remove(CLUSTER)
            await sink.until(lambda: "ignored" in said(sink))
        assert listed(sink) == [A]

    async def test_an_empty_set_after_a_reconnect_is_held(self, ads: AdsServer, sink: Recorder, delta: bool) -> None:
        ads.set(greeter(A))
        async with running(resolver_of(ads, delta=delta, empty_hold_s=0.5), sink):
            await sink.until(lambda: listed(sink) == [A] and len(ads.requests) == 2)
            await ads.stop()
            ads.set(greeter())
            await ads.start()
            await sink.until(lambda: "not believed for 0.5 s" in said(sink))
            assert listed(sink) == [A]
            await sink.until(lambda: sink.updates[-1].endpoints == ())

    async def test_an_empty_set_that_is_held_may_be_taken_back(
        self, ads: AdsServer, sink: Recorder, delta: bool
    ) -> None:
        ads.set(greeter(A))
        async with running(resolver_of(ads, delta=delta, empty_hold_s=LONG_S), sink):
            await sink.until(lambda: listed(sink) == [A] and len(ads.requests) == 2)
            await ads.stop()
            ads.set(greeter())
            await ads.start()
            await sink.until(lambda: "not believed" in said(sink))
            ads.cut()  # the next stream is told again
            await sink.until(lambda: len([e for e in sink.errors if "not believed" in str(e)]) == 2)
            ads.set(greeter(B))
            await sink.until(lambda: listed(sink) == [B])
        assert all(resolution.endpoints for resolution in sink.updates)


class TestCuts:
    async def test_a_restarted_server_is_found_again(self, ads: AdsServer, sink: Recorder, delta: bool) -> None:
        ads.set(greeter(A))
        async with running(resolver_of(ads, delta=delta), sink):
            await sink.until(lambda: listed(sink) == [A])
            await ads.stop()
            await sink.until(lambda: "UNAVAILABLE" in said(sink))
            assert ads.uri in said(sink)
            assert "stay in use" in said(sink)
            ads.set(greeter(B))
            await ads.start()
            await sink.until(lambda: listed(sink) == [B])
        assert all(resolution.endpoints for resolution in sink.updates)

    async def test_an_error_after_an_answer_is_no_fault(self, ads: AdsServer, sink: Recorder, delta: bool) -> None:
        ads.set(greeter(A))
        async with running(resolver_of(ads, delta=delta), sink):
            await sink.until(lambda: listed(sink) == [A])
            ads.cut(grpc.StatusCode.INTERNAL)
            await sink.until(lambda: ads.streams_opened == 2 and ads.open_streams)
        assert sink.errors == []

    async def test_waits_grow_until_an_answer_is_good(
        self, ads: AdsServer, sink: Recorder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        attempts: list[int] = []
        monkeypatch.setattr(client, "backoff_s", lambda attempt, *_: attempts.append(attempt) or 0.01)
        ads.refuse_streams = True
        async with running(resolver_of(ads, max_backoff_s=LONG_S), sink):
            await sink.until(lambda: len(attempts) == 4)
            # The reason is lost if the stream ends just as the request is sent.
            assert re.search("RESOURCE_EXHAUSTED: too many clients|the stream ended while", said(sink))
            ads.refuse_streams = False
            ads.set(greeter("10.0.0.1:0"))
            await sink.until(lambda: ads.refusals)
            ads.cut()
            await sink.until(lambda: len(ads.refusals) == 2)
            grown = len(attempts)
            ads.set(greeter(A))
            await sink.until(lambda: listed(sink) == [A] and not ads.requests[-1].HasField("error_detail"))
            ads.cut()
            await sink.until(lambda: len(attempts) > grown)
        # Refused streams, then one whose answer was refused, then one that was good.
        assert attempts[:grown] == list(range(grown))
        assert attempts[grown] == 0

    async def test_what_is_no_answer_ends_the_stream(self, ads: AdsServer, sink: Recorder, delta: bool) -> None:
        ads.silent = True
        async with running(resolver_of(ads, delta=delta), sink):
            await sink.until(lambda: ads.open_streams and ads.requests)
            ads.babble()
            await sink.until(lambda: sink.errors)
            assert "Response (" in said(sink)
            await sink.until(lambda: ads.streams_opened == 2)

    async def test_a_port_where_nobody_listens(self, sink: Recorder) -> None:
        server = AdsServer()
        await server.start()
        await server.stop()
        async with running(resolver_of(server), sink):
            await sink.until(lambda: len(sink.errors) >= 3)
        assert sink.updates == []
        assert "check that the control plane runs" in said(sink)


class TestFallback:
    """gRFC A71."""

    @pytest.fixture
    async def second(self) -> AsyncIterator[AdsServer]:
        async with AdsServer() as server:
            yield server

    async def test_the_next_server_is_asked_if_the_first_is_silent(
        self, ads: AdsServer, second: AdsServer, sink: Recorder, delta: bool
    ) -> None:
        second.set(greeter(B))
        await ads.stop()
        async with running(resolver_of(ads, second, delta=delta), sink):
            await sink.until(lambda: listed(sink) == [B])
            ads.set(greeter(A))
            await ads.start()
            await sink.until(lambda: listed(sink) == [A])
            await sink.until(lambda: not second.open_streams)
            second.set(greeter(C))
            await anyio.sleep(QUIET_S)
            assert listed(sink) == [A]

    async def test_the_first_is_enough(self, ads: AdsServer, second: AdsServer, sink: Recorder) -> None:
        ads.set(greeter(A))
        second.set(greeter(B))
        async with running(resolver_of(ads, second), sink):
            await sink.until(lambda: listed(sink) == [A])
            await ads.stop()
            await sink.until(lambda: len(sink.errors) >= 3)
        # What is known is good enough until the first one comes back.
        assert second.streams_opened == 0
        assert listed(sink) == [A]

    async def test_there_may_be_a_third(self, ads: AdsServer, second: AdsServer, sink: Recorder) -> None:
        async with AdsServer() as third:
            third.set(greeter(C))
            await ads.stop()
            await second.stop()
            async with running(resolver_of(ads, second, third), sink):
                await sink.until(lambda: listed(sink) == [C])

    async def test_a_server_that_answers_is_not_fallen_back_from(
        self, ads: AdsServer, second: AdsServer, sink: Recorder
    ) -> None:
        second.set(greeter(B))
        async with running(resolver_of(ads, second, resource_timeout_s=0.2), sink):
            await sink.until(lambda: "does not exist" in said(sink))
            ads.cut()
            await sink.until(lambda: ads.streams_opened > 1)
            await anyio.sleep(QUIET_S)
        assert second.streams_opened == 0


class TestCalls:
    async def test_a_new_endpoint_takes_calls_within_a_second(self, ads: AdsServer, delta: bool) -> None:
        first, second = await EchoServer("first").start(), await EchoServer("second").start()
        bootstrap = {"xds_servers": [{"server_uri": ads.uri, "channel_creds": [{"type": "insecure"}]}]}
        ads.set(greeter(first.address))
        config = Config(xds=XdsConfig(bootstrap=bootstrap, delta=delta))
        async with lb.insecure_channel(f"xds:///{CLUSTER}", config=config) as channel:
            call = channel.unary_unary(UNARY_UNARY)
            assert await call(b"name", timeout=10) == b"first"
            ads.set(greeter(second.address))
            told_s = anyio.current_time()
            while await call(b"name", timeout=10) != b"second":  # noqa: ASYNC110
                await anyio.sleep(0.01)
            assert anyio.current_time() - told_s < 1.0
            await ads.stop()
            assert [await call(b"name", timeout=10) for _ in range(20)] == [b"second"] * 20
        await first.stop()
        await second.stop()


class TestTls:
    @pytest.fixture
    def authority(self) -> trustme.CA:
        return trustme.CA()

    @pytest.fixture
    def files(self, authority: trustme.CA, tmp_path: Path) -> dict[str, str]:
        own = authority.issue_cert("client@example")
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        own.private_key_pem.write_to_path(tmp_path / "key.pem")
        own.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
        return {
            "ca_certificate_file": str(tmp_path / "ca.pem"),
            "certificate_file": str(tmp_path / "cert.pem"),
            "private_key_file": str(tmp_path / "key.pem"),
        }

    async def serve(self, authority: trustme.CA) -> AdsServer:
        certificate = authority.issue_cert("127.0.0.1")
        pair = (certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes())
        server = AdsServer()
        server.set(greeter(A))
        return await server.start(grpc.ssl_server_credentials([pair], authority.cert_pem.bytes(), True))

    async def test_both_sides_show_a_certificate(
        self, authority: trustme.CA, files: dict[str, str], sink: Recorder
    ) -> None:
        server = await self.serve(authority)
        async with running(resolver_of(server, creds={"type": "tls", "config": files}), sink):
            await sink.until(lambda: listed(sink) == [A])
        await server.stop()

    async def test_a_file_that_is_missing_may_come(
        self, authority: trustme.CA, files: dict[str, str], sink: Recorder
    ) -> None:
        server = await self.serve(authority)
        path = anyio.Path(files["private_key_file"])
        kept = await path.read_bytes()
        await path.unlink()
        async with running(resolver_of(server, creds={"type": "tls", "config": files}), sink):
            await sink.until(lambda: "cannot connect" in said(sink))
            assert str(path) in said(sink)
            await path.write_bytes(kept)
            await sink.until(lambda: listed(sink) == [A])
        await server.stop()
