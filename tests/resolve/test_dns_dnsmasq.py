"""The DNS resolver against a real name server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from grpclb_core.config import DnsConfig
from grpclb_core.resolve import parse_target
from grpclb_core.resolve.dns.resolver import DnsResolver
from support.dns import DNSMASQ, Dnsmasq
from support.recorder import Recorder

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(DNSMASQ is None, reason="dnsmasq is not installed (Debian package dnsmasq-base)"),
]

TTL_S = 1
SLACK_S = 1.0


@pytest.fixture
def dnsmasq(tmp_path: Path) -> Iterator[Dnsmasq]:
    with Dnsmasq(tmp_path, TTL_S) as server:
        yield server


def resolver_at(server: Dnsmasq) -> DnsResolver:
    return DnsResolver(parse_target(f"dns://127.0.0.1:{server.port}/greeter.test.:50051"), DnsConfig(min_ttl_s=0.1))


async def test_both_record_types(dnsmasq: Dnsmasq, sink: Recorder) -> None:
    dnsmasq.set(greeter=["10.0.0.2", "10.0.0.1", "2001:db8::1"], other=["10.0.0.9"])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(resolver_at(dnsmasq).run, sink)
        await sink.until(lambda: sink.updates)
        tasks.cancel_scope.cancel()
    assert sink.hosts == ["10.0.0.1", "10.0.0.2", "2001:db8::1"]


async def test_an_added_server_is_known_a_second_after_its_ttl(dnsmasq: Dnsmasq, sink: Recorder) -> None:
    dnsmasq.set(greeter=["10.0.0.1"])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(resolver_at(dnsmasq).run, sink)
        await sink.until(lambda: sink.updates)
        dnsmasq.set(greeter=["10.0.0.1", "10.0.0.2"])
        start_s = anyio.current_time()
        await sink.until(lambda: len(sink.updates) == 2)
        assert anyio.current_time() - start_s < TTL_S + SLACK_S
        tasks.cancel_scope.cancel()
    assert sink.hosts == ["10.0.0.1", "10.0.0.2"]
    assert not sink.errors


async def test_the_ttl_is_honoured(dnsmasq: Dnsmasq, sink: Recorder) -> None:
    dnsmasq.set(greeter=["10.0.0.1"])
    with anyio.move_on_after(2.5):
        await resolver_at(dnsmasq).run(sink)
    # At 0, 1 and 2 s, each wait up to a tenth longer. The floor of 0.1 s would have given 20 queries.
    assert 2 <= dnsmasq.count("greeter.test") <= 3


async def test_a_name_taken_away(dnsmasq: Dnsmasq, sink: Recorder) -> None:
    dnsmasq.set(greeter=["10.0.0.1"])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(resolver_at(dnsmasq).run, sink)
        await sink.until(lambda: sink.updates)
        dnsmasq.set(other=["10.0.0.9"])
        await sink.until(lambda: sink.errors)
        tasks.cancel_scope.cancel()
    assert len(sink.updates) == 1
    assert "does not exist" in str(sink.errors[0])
