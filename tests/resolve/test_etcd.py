"""The etcd resolver against real ones: what is written, lost, compacted, killed, frozen and cut off."""

from __future__ import annotations

import socketserver
import ssl
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import msgspec
import pytest
import trustme

from grpclb_core.config import Config, EtcdConfig
from grpclb_core.resolve import parse_target, resolver_for
from support.etcd import Cluster, Etcd, shared_etcd, unused_prefix, value
from support.recorder import Recorder
from support.relay import Relay

pytestmark = pytest.mark.anyio

A, B, C = "10.0.0.1:50051", "10.0.0.2:50051", "10.0.0.3:50051"
FAST = EtcdConfig(timeout_s=1.0, max_backoff_s=0.2)


@pytest.fixture
def etcd() -> Etcd:
    return shared_etcd()


@pytest.fixture
def prefix() -> str:
    return unused_prefix()


@pytest.fixture
def relay(etcd: Etcd) -> Iterator[Relay]:
    with Relay(etcd.port) as running:
        yield running


@asynccontextmanager
async def following(
    servers: str, prefix: str, sink: Recorder, config: EtcdConfig = FAST, **options: object
) -> AsyncIterator[None]:
    config = msgspec.structs.replace(config, **options)
    resolver = resolver_for(parse_target(f"etcd://{servers}/{prefix}"), Config(etcd=config))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(resolver.run, sink)
        yield
        tasks.cancel_scope.cancel()


def listed(sink: Recorder) -> list[str]:
    return [str(endpoint.address) for endpoint in sink.updates[-1].endpoints] if sink.updates else []


def said(sink: Recorder, words: str) -> bool:
    return any(words in str(error) for error in sink.errors)


class TestKeys:
    async def test_what_they_say_of_an_endpoint(self, etcd: Etcd, prefix: str, sink: Recorder) -> None:
        etcd.put(f"{prefix}/a", value(A, {"weight": 3, "zone": "z", "priority": 1, "pod": "p"}))
        async with following(etcd.address, prefix, sink):
            await sink.until(lambda: sink.updates)
        (endpoint,) = sink.updates[0].endpoints
        assert (endpoint.weight, endpoint.locality.zone, endpoint.priority) == (3, "z", 1)
        assert endpoint.metadata == {"pod": "p"}
        assert int(sink.updates[0].version) > 0

    async def test_a_changed_weight_is_pushed(self, etcd: Etcd, prefix: str, sink: Recorder) -> None:
        etcd.put(f"{prefix}/a", value(A))
        async with following(etcd.address, prefix, sink):
            await sink.until(lambda: sink.updates)
            etcd.put(f"{prefix}/a", value(A, {"weight": 2}))
            await sink.until(lambda: len(sink.updates) == 2)
        assert sink.updates[1].endpoints[0].weight == 2

    async def test_only_those_under_the_prefix(self, etcd: Etcd, prefix: str, sink: Recorder) -> None:
        etcd.put(f"{prefix}-canary/a", value(A))
        etcd.put(f"{prefix}/b", value(B))
        async with following(etcd.address, prefix, sink):
            await sink.until(lambda: sink.updates)
        assert listed(sink) == [B]

    async def test_bad_ones_are_told_and_the_rest_stays(self, etcd: Etcd, prefix: str, sink: Recorder) -> None:
        etcd.put(f"{prefix}/a", value(A))
        etcd.put(f"{prefix}/bad", "10.0.0.9:50051")
        async with following(etcd.address, prefix, sink):
            await sink.until(lambda: sink.errors)
            assert listed(sink) == [A]
            assert said(sink, f"key '{prefix}/bad'")
            etcd.put(f"{prefix}/a", "broken")
            etcd.put(f"{prefix}/bad", value(B))
            await sink.until(lambda: listed(sink) == [A, B])
            assert said(sink, f"key '{prefix}/a'")

    async def test_nothing_but_bad_ones(self, etcd: Etcd, prefix: str, sink: Recorder) -> None:
        etcd.put(f"{prefix}/bad", "{}")
        async with following(etcd.address, prefix, sink):
            await sink.until(lambda: said(sink, "/bad"))
        assert sink.updates == []

    async def test_more_than_fit_in_one_answer(self, etcd: Etcd, prefix: str, sink: Recorder) -> None:
        addresses = [f"10.1.{number >> 8}.{number & 255}:1" for number in range(1_050)]
        for start in range(0, len(addresses), 100):  # etcd takes 128 operations in a transaction
            etcd.put_all({f"{prefix}/{address}": value(address) for address in addresses[start : start + 100]})
        async with following(etcd.address, prefix, sink):
            await sink.until(lambda: sink.updates)
        assert len(sink.updates[0].endpoints) == len(addresses)
        assert sink.errors == []

    async def test_a_lease_that_runs_out(self, etcd: Etcd, prefix: str, sink: Recorder) -> None:
        lease = etcd.post("/v3/lease/grant", {"TTL": 1})["ID"]
        etcd.put(f"{prefix}/a", value(A), lease=lease)
        etcd.put(f"{prefix}/b", value(B))
        async with following(etcd.address, prefix, sink):
            await sink.until(lambda: listed(sink) == [A, B])
            await sink.until(lambda: listed(sink) == [B])
        assert sink.errors == []


class TestEmptiness:
    async def test_deletions_are_believed_at_once(self, etcd: Etcd, prefix: str, sink: Recorder) -> None:
        etcd.put(f"{prefix}/a", value(A))
        async with following(etcd.address, prefix, sink):
            await sink.until(lambda: listed(sink) == [A])
            etcd.delete(f"{prefix}/a")
            await sink.until(lambda: said(sink, "no endpoint under"))
            assert sink.order == ["update", "update", "fail"]
            assert sink.updates[-1].endpoints == ()
            etcd.put(f"{prefix}/a", value(A))
            await sink.until(lambda: listed(sink) == [A])

    async def test_a_prefix_without_keys(self, etcd: Etcd, prefix: str, sink: Recorder) -> None:
        async with following(etcd.address, prefix, sink, idle_s=0.1):
            await sink.until(lambda: sink.errors)
            await anyio.sleep(0.5)
            assert sink.order == ["fail"]  # once, however often the watch is opened anew
            etcd.put(f"{prefix}/a", value(A))
            await sink.until(lambda: listed(sink) == [A])

    async def test_an_empty_listing_after_a_gap_is_held(
        self, etcd: Etcd, relay: Relay, prefix: str, sink: Recorder
    ) -> None:
        etcd.put(f"{prefix}/a", value(A))
        async with following(relay.address, prefix, sink, empty_hold_s=2.0):
            await sink.until(lambda: listed(sink) == [A])
            relay.cut()
            etcd.delete(f"{prefix}/a")
            etcd.compact(etcd.put("other", "x"))
            relay.heal()
            await sink.until(lambda: said(sink, "stay in use"))
            held_s = anyio.current_time()
            assert listed(sink) == [A]
            await sink.until(lambda: listed(sink) == [])
            assert anyio.current_time() - held_s > 1.0
            assert "register the servers" in str(sink.errors[-1])

    async def test_what_comes_ends_the_hold(self, etcd: Etcd, relay: Relay, prefix: str, sink: Recorder) -> None:
        etcd.put(f"{prefix}/a", value(A))
        async with following(relay.address, prefix, sink):
            await sink.until(lambda: listed(sink) == [A])
            relay.cut()
            etcd.delete(f"{prefix}/a")
            etcd.compact(etcd.put("other", "x"))
            relay.heal()
            await sink.until(lambda: said(sink, "stay in use"))
            etcd.put(f"{prefix}/b", value(B))
            await sink.until(lambda: listed(sink) == [B])
        assert all(update.endpoints for update in sink.updates)


class TestLostAndFound:
    async def test_kill_and_restart_with_data(self, etcd: Etcd, prefix: str, sink: Recorder) -> None:
        etcd.put(f"{prefix}/a", value(A))
        async with following(etcd.address, prefix, sink):
            await sink.until(lambda: listed(sink) == [A])
            etcd.kill()
            await sink.until(lambda: sink.errors)
            await anyio.to_thread.run_sync(etcd.start)
            await sink.until(lambda: sink.order[-1] == "update")  # told that all is well again
            assert listed(sink) == [A]
            etcd.put(f"{prefix}/b", value(B))
            await sink.until(lambda: listed(sink) == [A, B])

    async def test_a_restart_without_data(self, prefix: str, sink: Recorder) -> None:
        with Etcd() as etcd:
            etcd.put(f"{prefix}/a", value(A))
            etcd.put(f"{prefix}/b", value(B))
            async with following(etcd.address, prefix, sink):
                await sink.until(lambda: listed(sink) == [A, B])
                etcd.kill()
                etcd.wipe()
                await anyio.to_thread.run_sync(etcd.start)
                await sink.until(lambda: said(sink, "stay in use"))
                assert listed(sink) == [A, B]
                etcd.put(f"{prefix}/c", value(C))
                await sink.until(lambda: listed(sink) == [C])

    async def test_what_happened_meanwhile_is_told(self, etcd: Etcd, relay: Relay, prefix: str, sink: Recorder) -> None:
        etcd.put(f"{prefix}/a", value(A))
        async with following(relay.address, prefix, sink):
            await sink.until(lambda: listed(sink) == [A])
            relay.cut()
            etcd.put(f"{prefix}/b", value(B))
            etcd.delete(f"{prefix}/a")
            await sink.until(lambda: sink.errors)
            relay.heal()
            await sink.until(lambda: listed(sink) == [B])

    async def test_compacted_meanwhile(self, etcd: Etcd, relay: Relay, prefix: str, sink: Recorder) -> None:
        etcd.put(f"{prefix}/a", value(A))
        async with following(relay.address, prefix, sink):
            await sink.until(lambda: listed(sink) == [A])
            relay.cut()
            etcd.delete(f"{prefix}/a")
            etcd.compact(etcd.put(f"{prefix}/b", value(B)))
            relay.heal()
            await sink.until(lambda: listed(sink) == [B])
            assert not said(sink, "compacted")  # it is no fault
            etcd.put(f"{prefix}/c", value(C))
            await sink.until(lambda: listed(sink) == [B, C])

    async def test_a_half_open_connection(self, etcd: Etcd, relay: Relay, prefix: str, sink: Recorder) -> None:
        etcd.put(f"{prefix}/a", value(A))
        async with following(relay.address, prefix, sink, idle_s=1.0):
            await sink.until(lambda: listed(sink) == [A])
            await anyio.sleep(0.2)  # the watch is on
            relay.stall()
            etcd.put(f"{prefix}/b", value(B))
            await sink.until(lambda: listed(sink) == [A, B])
        assert sink.errors == []

    async def test_a_silent_watch_is_cheap_to_open_anew(self, etcd: Etcd, prefix: str, sink: Recorder) -> None:
        etcd.put(f"{prefix}/a", value(A))
        async with following(etcd.address, prefix, sink, idle_s=0.1):
            await anyio.sleep(1.0)
            etcd.put(f"{prefix}/b", value(B))
            await sink.until(lambda: listed(sink) == [A, B])
        assert sink.order == ["update", "update"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # they take their time; nothing in them differs on trio
class TestMembers:
    async def test_one_is_killed_one_hangs_one_is_left_alone(self, prefix: str, sink: Recorder) -> None:
        with Cluster() as cluster:
            first, second, third = cluster.members
            first.put(f"{prefix}/a", value(A))
            async with following(cluster.addresses, prefix, sink, idle_s=1.0):
                await sink.until(lambda: listed(sink) == [A])
                first.kill()
                await anyio.to_thread.run_sync(second.wait)
                second.put(f"{prefix}/b", value(B))
                await sink.until(lambda: listed(sink) == [A, B])
                await anyio.to_thread.run_sync(first.start)
                second.freeze()
                await anyio.to_thread.run_sync(third.wait)
                third.put(f"{prefix}/c", value(C))
                await sink.until(lambda: listed(sink) == [A, B, C])
                # Without its cluster the last one knows nothing new, and says so.
                first.kill()
                await sink.until(lambda: said(sink, "no leader"))
                assert listed(sink) == [A, B, C]
                second.thaw()
                await anyio.to_thread.run_sync(third.wait)
                third.delete(f"{prefix}/a")
                await sink.until(lambda: listed(sink) == [B, C])

    async def test_one_that_never_was(self, etcd: Etcd, prefix: str, sink: Recorder) -> None:
        etcd.put(f"{prefix}/a", value(A))
        async with following(f"127.0.0.1:1,{etcd.address}", prefix, sink):
            await sink.until(lambda: listed(sink) == [A])
        assert all("127.0.0.1:1" in str(error) for error in sink.errors)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # they take their time; nothing in them differs on trio
class TestWhoMayAsk:
    @pytest.fixture
    def guarded(self) -> Iterator[Etcd]:
        with Etcd() as etcd:
            for name in ("root", "reader"):
                etcd.post("/v3/auth/user/add", {"name": name, "password": "secret"})
            etcd.post("/v3/auth/role/add", {"name": "root"})
            etcd.post("/v3/auth/user/grant", {"user": "root", "role": "root"})
            etcd.put("open/a", value(A))
            etcd.post("/v3/auth/enable", {})
            yield etcd

    async def test_a_user_with_a_password(self, guarded: Etcd, sink: Recorder) -> None:
        async with following(guarded.address, "open", sink, username="root", password="secret"):
            await sink.until(lambda: listed(sink) == [A])
            guarded.kill()  # the tokens go with it
            await sink.until(lambda: sink.errors)
            guarded.launch()
            await sink.until(lambda: sink.order[-1] == "update")
            token = guarded.post("/v3/auth/authenticate", {"name": "root", "password": "secret"})["token"]
            guarded.post("/v3/kv/deleterange", {"key": "b3Blbi9h"}, token)
            await sink.until(lambda: listed(sink) == [])

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({}, "user name is empty"),
            ({"username": "root", "password": "wrong"}, "invalid user ID or password"),
            ({"username": "reader", "password": "secret"}, "permission denied"),
        ],
    )
    async def test_others(self, guarded: Etcd, sink: Recorder, options: Mapping[str, object], reason: str) -> None:
        async with following(guarded.address, "open", sink, **options):
            await sink.until(lambda: said(sink, reason))
        assert sink.updates == []

    async def test_tls_with_a_certificate(self, tmp_path: Path, sink: Recorder) -> None:
        authority = trustme.CA()
        ca, ours = tmp_path / "ca.pem", tmp_path / "ours.pem"
        authority.cert_pem.write_to_path(ca)
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(ours)
        context = ssl.create_default_context(cafile=str(ca))
        context.load_cert_chain(ours)
        files = ["--cert-file", str(ours), "--key-file", str(ours), "--trusted-ca-file", str(ca)]
        with Etcd("m0", *files, "--client-cert-auth", tls=context) as etcd:
            etcd.put("p/a", value(A))
            async with following(etcd.address, "p", sink, tls=True, ca_file=str(ca), cert_file=str(ours)):
                await sink.until(lambda: listed(sink) == [A])
            stranger = Recorder()
            async with following(etcd.address, "p", stranger, tls=True):
                await stranger.until(lambda: said(stranger, "CERTIFICATE_VERIFY_FAILED"))


CREATED = b'{"result":{"header":{"revision":"5"},"created":true}}\n'


@contextmanager
def scripted(watch: bytes) -> Iterator[str]:
    """Something that lists one endpoint as etcd does, and says what it is told to when it is watched."""
    pair = msgspec.json.encode({"key": b"p/a", "value": value(A).encode(), "mod_revision": "5"})
    found = b'{"header":{"revision":"5"},"kvs":[' + pair + b"]}"

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            asked = self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n")
            self.wfile.write(found if b"range" in asked else watch)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize("anyio_backend", ["trio"])  # the stricter one about what is left open
@pytest.mark.parametrize(
    ("watch", "reason"),
    [
        (b"", "the watch ended"),
        (b"<html>", "the watch ended"),
        (b"<html>\n", "cannot be understood"),
        (b'{"result":{}}\n', "not confirmed"),
        (b'{"error":{"grpc_code":14,"message":"gone"}}\n', "gone"),
        (b"{}\n", "an error without a message"),
        (CREATED[:20], "the watch ended"),
        (CREATED, "the watch ended"),
        (CREATED + b'{"result":{"canceled":true,"cancel_reason":"tired"}}\n', "tired"),
        (CREATED + b'{"result":{"canceled":true,"compact_revision":"9"}}\n', "cannot watch what it has just listed"),
        (CREATED.replace(b"5", b"4"), "cannot watch what it has just listed"),
        (CREATED + b'{"result":{"events":[{"kv":{"key":"!"}}]}}\n', "cannot be understood"),
        (CREATED + b'{"result":{"events":[{"type":"DELETE"}]}}\n', "cannot be understood"),
        (CREATED + b'{"result":{"header":{"revision":"x"}}}\n', "cannot be understood"),
        (CREATED + b'{"result":{"events":[{"type":"DELETE","kv":{"key":"cC9h', "the watch ended"),
        (b"[" * 100_000 + b"\n", "cannot be understood"),
    ],
)
async def test_a_watch_that_says_nonsense(watch: bytes, reason: str, sink: Recorder) -> None:
    with scripted(watch) as address:
        async with following(address, "p", sink):
            await sink.until(lambda: said(sink, reason))
            seen = len(sink.order)
            await anyio.sleep(0.5)
            assert len(sink.order) - seen < 10  # it does not go round and round
    assert listed(sink) == [A]
    assert all(len(str(error)) < 1_000 for error in sink.errors)
