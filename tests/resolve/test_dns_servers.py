"""Which name server is asked, for which name, and over what."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from grpclb_core.config import DnsConfig
from grpclb_core.resolve import parse_target
from grpclb_core.resolve.dns.hosts import HostsFile
from grpclb_core.resolve.dns.resolver import DnsResolver
from support.dns import DNSMASQ, Dnsmasq, Fault, FaultyDns
from support.recorder import Recorder

pytestmark = pytest.mark.anyio

NAME = "greeter.test"
FAST = DnsConfig(min_ttl_s=0.05, max_ttl_s=0.1, max_backoff_s=0.1, timeout_s=1.0)


@pytest.fixture
def second() -> Iterator[FaultyDns]:
    with FaultyDns() as running:
        yield running


def settings_of(folder: Path, *ports: int, lines: str = "") -> str:
    path = folder / "resolv.conf"
    path.write_text("".join(f"nameserver [127.0.0.1]:{port}\n" for port in ports) + lines)
    return str(path)


def resolver_with(resolv_conf: str, folder: Path, name: str = f"{NAME}.", config: DnsConfig = FAST) -> DnsResolver:
    return DnsResolver(
        parse_target(f"{name}:50051"), config, hosts=HostsFile(folder / "no-hosts"), resolv_conf=resolv_conf
    )


async def resolved(resolver: DnsResolver, sink: Recorder) -> list[str]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(resolver.run, sink)
        await sink.until(lambda: sink.updates)
        tasks.cancel_scope.cancel()
    return sink.hosts


async def test_the_ttl_is_told(server: FaultyDns, sink: Recorder) -> None:
    server.alias(NAME, "end.test", ttl_s=40)
    server.add("end.test", "10.0.0.1", ttl_s=50)
    server.add("end.test", "2001:db8::1", ttl_s=60)
    await resolved(DnsResolver(parse_target(f"dns://{server.address}/{NAME}.:50051"), FAST), sink)
    assert sink.updates[-1].ttl_s == 40


async def test_a_hosts_file_has_no_ttl(sink: Recorder) -> None:
    await resolved(DnsResolver(parse_target("localhost:50051"), FAST), sink)
    assert sink.updates[-1].ttl_s is None


@pytest.mark.parametrize(
    "fault", [Fault.SERVFAIL, Fault.REFUSED, Fault.CUT_OFF, Fault.TRUNCATED, Fault.DROP, Fault.WRONG_ID]
)
async def test_the_next_server_is_asked_when_one_fails(
    server: FaultyDns, second: FaultyDns, sink: Recorder, tmp_path: Path, fault: Fault
) -> None:
    server.fail(NAME, fault)
    second.set(NAME, "10.0.0.2")
    path = settings_of(tmp_path, server.port, second.port, lines="options timeout:1\n")
    assert await resolved(resolver_with(path, tmp_path), sink) == ["10.0.0.2"]
    assert not sink.errors
    assert server.asked(NAME)


async def test_a_server_that_does_not_listen_is_passed_over(server: FaultyDns, sink: Recorder, tmp_path: Path) -> None:
    with FaultyDns() as gone:
        pass
    server.set(NAME, "10.0.0.1")
    assert await resolved(resolver_with(settings_of(tmp_path, gone.port, server.port), tmp_path), sink) == ["10.0.0.1"]


async def test_an_answer_that_a_name_does_not_exist_is_final(
    server: FaultyDns, second: FaultyDns, sink: Recorder, tmp_path: Path
) -> None:
    second.set(NAME, "10.0.0.2")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(resolver_with(settings_of(tmp_path, server.port, second.port), tmp_path).run, sink)
        await sink.until(lambda: sink.errors)
        tasks.cancel_scope.cancel()
    assert not second.queries
    assert f"the name does not exist: {NAME}." in str(sink.errors[0])


async def test_a_silent_server_holds_up_one_lookup_and_not_the_next(
    server: FaultyDns, second: FaultyDns, sink: Recorder, tmp_path: Path
) -> None:
    server.fail(NAME, Fault.DROP)
    second.set(NAME, "10.0.0.2")
    resolver = resolver_with(settings_of(tmp_path, server.port, second.port), tmp_path)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(resolver.run, sink)
        await sink.until(lambda: len(second.asked(NAME)) >= 4)
        tasks.cancel_scope.cancel()
    times = [query.at_s for query in second.asked(NAME)]
    assert len(server.asked(NAME)) == 1
    assert all(
        later - earlier < 0.5 for earlier, later in itertools.pairwise(times)
    )  # half of timeout_s is its patience
    assert not sink.errors


async def test_all_servers_failing_is_told_with_each_of_them(
    server: FaultyDns, second: FaultyDns, sink: Recorder, tmp_path: Path
) -> None:
    server.fail(NAME, Fault.SERVFAIL)
    second.fail(NAME, Fault.REFUSED)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(resolver_with(settings_of(tmp_path, server.port, second.port), tmp_path).run, sink)
        await sink.until(lambda: sink.errors)
        tasks.cancel_scope.cancel()
    message = str(sink.errors[0])
    assert f"{server.port} answered SERVFAIL" in message
    assert f"{second.port} answered REFUSED" in message


async def test_rotation_asks_every_server(server: FaultyDns, second: FaultyDns, sink: Recorder, tmp_path: Path) -> None:
    server.set(NAME, "10.0.0.1")
    second.set(NAME, "10.0.0.1")
    path = settings_of(tmp_path, server.port, second.port, lines="options rotate\n")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(resolver_with(path, tmp_path).run, sink)
        await sink.until(lambda: server.queries and second.queries)
        tasks.cancel_scope.cancel()


async def test_tcp_from_the_start_when_asked_for(server: FaultyDns, sink: Recorder, tmp_path: Path) -> None:
    server.set(NAME, "10.0.0.1")
    await resolved(resolver_with(settings_of(tmp_path, server.port, lines="options use-vc\n"), tmp_path), sink)
    assert all(query.over_tcp for query in server.queries)


async def test_both_types_truncated_come_over_tcp(server: FaultyDns, sink: Recorder, tmp_path: Path) -> None:
    hosts = [f"10.0.0.{number}" for number in range(1, 100)] + [f"2001:db8::{number:x}" for number in range(1, 100)]
    server.set(NAME, *hosts)
    found = await resolved(resolver_with(settings_of(tmp_path, server.port), tmp_path), sink)
    assert sorted(found) == sorted(hosts)
    for record_type in ("A", "AAAA"):
        assert [query.over_tcp for query in server.asked(NAME, record_type)][:2] == [False, True]


async def asked_names(server: FaultyDns, resolver: DnsResolver, sink: Recorder) -> list[str]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(resolver.run, sink)
        await sink.until(lambda: sink.order)
        tasks.cancel_scope.cancel()
    return [query.name for query in server.queries if query.record_type == "A"]


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("greeter", ["greeter.a.test", "greeter.b.test"]),
        ("greeter.x", ["greeter.x.a.test", "greeter.x.b.test"]),
        ("greeter.x.y", ["greeter.x.y"]),
        ("greeter.", ["greeter"]),
    ],
)
async def test_search_domains_and_ndots(
    server: FaultyDns, sink: Recorder, tmp_path: Path, name: str, asked: list[str]
) -> None:
    server.set(asked[-1], "10.0.0.1", ttl_s=30)
    path = settings_of(tmp_path, server.port, lines="search a.test b.test\noptions ndots:2\n")
    assert await asked_names(server, resolver_with(path, tmp_path, name, DnsConfig()), sink) == asked
    assert sink.hosts == ["10.0.0.1"]


async def test_a_name_in_no_domain_is_told_with_all_that_was_tried(
    server: FaultyDns, sink: Recorder, tmp_path: Path
) -> None:
    path = settings_of(tmp_path, server.port, lines="search a.test b.test\n")
    await asked_names(server, resolver_with(path, tmp_path, "greeter", DnsConfig()), sink)
    assert "A: the name does not exist: greeter.a.test., greeter.b.test., greeter." in str(sink.errors[0])


async def test_the_search_ends_at_the_first_name_that_exists(server: FaultyDns, sink: Recorder, tmp_path: Path) -> None:
    """A name with A alone is not completed by the AAAA of a namesake further down the list."""
    server.set("greeter.a.test", "10.0.0.1", ttl_s=30)
    server.set("greeter.b.test", "2001:db8::1", ttl_s=30)
    path = settings_of(tmp_path, server.port, lines="search a.test b.test\n")
    assert await resolved(resolver_with(path, tmp_path, "greeter", DnsConfig()), sink) == ["10.0.0.1"]
    assert not server.asked("greeter.b.test", "AAAA")


@pytest.mark.skipif(DNSMASQ is None, reason="dnsmasq is not installed (Debian package dnsmasq-base)")
class TestDnsmasq:
    async def test_failover_search_and_tcp_with_a_real_server(
        self, server: FaultyDns, sink: Recorder, tmp_path: Path
    ) -> None:
        server.fail("greeter.test", Fault.SERVFAIL)
        hosts = sorted(f"10.0.0.{number}" for number in range(1, 121))
        with Dnsmasq(tmp_path, 1) as dnsmasq:
            dnsmasq.set(greeter=hosts)
            path = settings_of(tmp_path, server.port, dnsmasq.port, lines="search test\noptions ndots:1\n")
            assert sorted(await resolved(resolver_with(path, tmp_path, "greeter"), sink)) == hosts
        assert sink.updates[-1].ttl_s == 1
