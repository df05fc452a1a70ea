"""Servers that put themselves into a real etcd, and what becomes of them there."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from grpclb_core import server
from grpclb_core.config import Config, EtcdConfig
from grpclb_core.errors import ConfigError, TargetError
from grpclb_core.resolve import parse_target, resolver_for
from support.etcd import Etcd, shared_etcd, unused_prefix
from support.ports import free_port
from support.recorder import PATIENCE_S, Recorder
from support.relay import Relay

pytestmark = pytest.mark.anyio

A, B = "10.0.0.1:50051", "10.0.0.2:50051"
FAST = {"timeout_s": 1.0, "max_backoff_s": 0.2}


@pytest.fixture
def etcd() -> Etcd:
    return shared_etcd()


@pytest.fixture
def prefix() -> str:
    return unused_prefix()


def found(etcd: Etcd, prefix: str) -> dict[str, Any]:
    """The values under a prefix, by key."""
    return {b64decode(pair["key"]).decode(): json.loads(b64decode(pair["value"])) for pair in etcd.keys(f"{prefix}/")}


def lease_of(etcd: Etcd, prefix: str) -> str:
    return str(etcd.keys(f"{prefix}/")[0].get("lease", ""))


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - etcd knows nothing of our events
            await anyio.sleep(0.02)


class TestInAndOut:
    async def test_it_is_there_as_long_as_the_block_runs(self, etcd: Etcd, prefix: str) -> None:
        async with server.register(f"etcd://{etcd.address}/{prefix}", A) as registration:
            assert found(etcd, prefix) == {f"{prefix}/{A}": {"Op": 0, "Addr": A, "Metadata": None}}
            assert registration.key == f"{prefix}/{A}"
            assert registration.registered
            assert registration.fault is None
        assert found(etcd, prefix) == {}
        assert not registration.registered

    async def test_clients_find_it_with_all_that_it_says(self, etcd: Etcd, prefix: str) -> None:
        target, sink = f"etcd://{etcd.address}/{prefix}", Recorder()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(resolver_for(parse_target(target), Config()).run, sink)
            async with server.register(target, A, weight=3, zone="z", region="r", priority=1, metadata={"pod": "p"}):
                await sink.until(lambda: sink.updates)
                (endpoint,) = sink.updates[0].endpoints
                assert (endpoint.weight, str(endpoint.locality), endpoint.priority) == (3, "r/z", 1)
                assert endpoint.metadata == {"pod": "p"}
            tasks.cancel_scope.cancel()

    async def test_clients_leave_before_the_server_does(self, etcd: Etcd, prefix: str) -> None:
        target, sink = f"etcd://{etcd.address}/{prefix}", Recorder()
        async with anyio.create_task_group() as tasks:
            async with server.register(target, B):
                tasks.start_soon(resolver_for(parse_target(target), Config()).run, sink)
                async with server.register(target, A, drain_s=1):
                    await sink.until(lambda: sink.updates and sink.hosts == ["10.0.0.1", "10.0.0.2"])
                    leaving_s = anyio.current_time()
                assert sink.hosts == ["10.0.0.2"]
                assert anyio.current_time() - leaving_s >= 1
            tasks.cancel_scope.cancel()

    async def test_what_goes_wrong_inside_comes_out_as_it_is(self, etcd: Etcd, prefix: str) -> None:
        with pytest.raises(KeyError, match="mine"):
            async with server.register(f"etcd://{etcd.address}/{prefix}", A):
                raise KeyError("mine")
        assert found(etcd, prefix) == {}

    async def test_cancelled_it_is_taken_out_and_does_not_linger(self, etcd: Etcd, prefix: str) -> None:
        async def serve() -> None:
            async with server.register(f"etcd://{etcd.address}/{prefix}", A, drain_s=3600):
                await anyio.sleep_forever()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            await until(lambda: found(etcd, prefix))
            tasks.cancel_scope.cancel()
        assert found(etcd, prefix) == {}

    async def test_who_took_the_key_over_keeps_it(self, etcd: Etcd, prefix: str) -> None:
        target = f"etcd://{etcd.address}/{prefix}"
        leave, left = anyio.Event(), anyio.Event()

        async def older() -> None:
            async with server.register(target, A, weight=2):
                await leave.wait()
            left.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(older)
            await until(lambda: found(etcd, prefix))
            async with server.register(target, A, weight=3) as newer:
                leave.set()
                await left.wait()
                assert found(etcd, prefix)[newer.key]["Metadata"] == {"weight": 3}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # they take their time; nothing in them differs on trio
class TestLeases:
    async def test_it_is_kept_alive(self, etcd: Etcd, prefix: str) -> None:
        async with server.register(f"etcd://{etcd.address}/{prefix}", A, lease_ttl_s=1):
            lease = lease_of(etcd, prefix)
            await anyio.sleep(2.5)
            assert lease_of(etcd, prefix) == lease

    async def test_a_process_that_dies_is_gone_soon(self, etcd: Etcd, prefix: str, tmp_path: Path) -> None:
        program = (
            "import anyio, sys\n"
            "from grpclb_core import server\n"
            "async def main():\n"
            "    async with server.register(sys.argv[1], sys.argv[2], lease_ttl_s=1):\n"
            "        await anyio.sleep_forever()\n"
            "anyio.run(main)\n"
        )
        target = f"etcd://{etcd.address}/{prefix}"
        process = subprocess.Popen([sys.executable, "-c", program, target, A], cwd=tmp_path)  # noqa: ASYNC220
        try:
            await until(lambda: found(etcd, prefix))
            process.send_signal(signal.SIGKILL)
            await until(lambda: not found(etcd, prefix))
        finally:
            process.kill()
            process.wait()

    async def test_lost_it_is_taken_anew(self, etcd: Etcd, prefix: str) -> None:
        async with server.register(f"etcd://{etcd.address}/{prefix}", A, lease_ttl_s=1) as registration:
            lease = lease_of(etcd, prefix)
            etcd.post("/v3/lease/revoke", {"ID": lease})
            await until(lambda: found(etcd, prefix))
            assert lease_of(etcd, prefix) != lease
            await until(lambda: registration.fault is None)

    async def test_cut_off_until_it_ran_out(self, etcd: Etcd, prefix: str) -> None:
        with Relay(etcd.port) as relay:
            async with server.register(f"etcd://{relay.address}/{prefix}", A, lease_ttl_s=1, etcd=FAST) as registration:
                relay.cut()
                await until(lambda: not found(etcd, prefix))
                assert registration.fault is not None
                relay.heal()
                await until(lambda: found(etcd, prefix))

    async def test_a_key_that_somebody_deletes_stays_deleted(self, etcd: Etcd, prefix: str) -> None:
        async with server.register(f"etcd://{etcd.address}/{prefix}", A, lease_ttl_s=1) as registration:
            etcd.delete(registration.key)
            await anyio.sleep(1)
            assert found(etcd, prefix) == {}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # they take their time; nothing in them differs on trio
class TestEtcdComesAndGoes:
    @pytest.mark.parametrize("with_data", [True, False])
    async def test_restarted(self, prefix: str, with_data: bool) -> None:
        with Etcd() as etcd:
            async with server.register(f"etcd://{etcd.address}/{prefix}", A, lease_ttl_s=1, etcd=FAST):
                etcd.kill()
                if not with_data:
                    etcd.wipe()
                await anyio.to_thread.run_sync(etcd.start)
                await until(lambda: found(etcd, prefix))
                await anyio.sleep(1.5)
                assert found(etcd, prefix)
            assert found(etcd, prefix) == {}

    async def test_it_may_start_later(self, prefix: str) -> None:
        etcd = Etcd()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.to_thread.run_sync, etcd.start)
                async with server.register(f"etcd://{etcd.address}/{prefix}", A, etcd=FAST):
                    assert found(etcd, prefix)
        finally:
            etcd.close()

    async def test_it_never_comes(self, prefix: str) -> None:
        with pytest.raises(server.RegistrationError, match=r"within 0.5 s \(etcd http://127.0.0.1:.*ConnectError"):
            async with server.register(f"etcd://127.0.0.1:{free_port()}/{prefix}", A, start_timeout_s=0.5, drain_s=60):
                pytest.fail("it cannot be registered")

    async def test_leaving_while_it_is_away(self, prefix: str) -> None:
        with Etcd() as etcd:
            async with server.register(f"etcd://{etcd.address}/{prefix}", A, etcd=FAST):
                etcd.kill()
                leaving_s = anyio.current_time()
            assert anyio.current_time() - leaving_s < PATIENCE_S

    async def test_another_member_does(self, etcd: Etcd, prefix: str) -> None:
        async with server.register(f"etcd://127.0.0.1:{free_port()},{etcd.address}/{prefix}", A, etcd=FAST):
            assert found(etcd, prefix)


@pytest.mark.parametrize(
    ("target", "address", "options", "error", "advice"),
    [
        ("etcd://h/p", "greeter:50051", {}, ConfigError, "is not an IP address"),
        ("etcd://h/p", "10.0.0.1", {}, ConfigError, "the port is missing"),
        ("etcd://h/p", "0.0.0.0:50051", {}, ConfigError, "the one that clients reach it by"),
        ("etcd://h/p", "[::]:50051", {}, ConfigError, "the one that clients reach it by"),
        ("etcd://h/p", A, {"weight": 0}, ConfigError, "weight 0"),
        ("etcd://h/p", A, {"metadata": {"zone": "z"}}, ConfigError, "metadata may not hold zone"),
        ("etcd://h/p", A, {"lease_ttl_s": 0}, ConfigError, "lease_ttl_s 0"),
        ("etcd://h/p", A, {"etcd": {"tsl": True}}, ConfigError, "etcd.tsl: unknown option"),
        ("etcd://h/p", A, {"etcd": EtcdConfig(timeout_s=-1)}, ConfigError, "etcd.timeout_s"),
        ("etcd://h", A, {}, TargetError, "target 'etcd://h': the prefix of the keys is missing"),
        ("dns:///h:1", A, {}, ConfigError, "servers register with etcd alone"),
        ("nothing://h", A, {}, TargetError, "unknown scheme"),
    ],
)
async def test_arguments(
    target: str, address: str, options: dict[str, Any], error: type[Exception], advice: str
) -> None:
    with pytest.raises(error, match=advice.replace("(", r"\(")):
        async with server.register(target, address, **options):
            pytest.fail("it cannot be registered")
