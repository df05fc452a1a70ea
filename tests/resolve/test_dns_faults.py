"""What answers mean, against a DNS server that fails on demand."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import anyio
import dns.resolver
import pytest

from grpclb_core.config import Config, DnsConfig
from grpclb_core.resolve import parse_target, resolver_for
from grpclb_core.resolve.dns.hosts import HostsFile
from grpclb_core.resolve.dns.lookup import SECOND_ANSWER_S
from grpclb_core.resolve.dns.resolver import MAX_ENDPOINTS, DnsResolver
from support.dns import Fault, FaultyDns
from support.recorder import Recorder

pytestmark = pytest.mark.anyio

FAST = DnsConfig(min_ttl_s=0.05, max_ttl_s=0.1, max_backoff_s=0.1, timeout_s=1.0)
NAME = "greeter.test"
SLACK_S = 0.8  # a busy machine is late by this much, at most


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@asynccontextmanager
async def running(resolver: DnsResolver, sink: Recorder) -> AsyncIterator[DnsResolver]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(resolver.run, sink)
        yield resolver
        tasks.cancel_scope.cancel()


def resolver_at(
    server: FaultyDns, config: DnsConfig = FAST, name: str = f"{NAME}.", clock: Callable[[], float] = time.monotonic
) -> DnsResolver:
    """A resolver that asks only this server, without jitter, for a name that no search list lengthens."""
    target = parse_target(f"dns://{server.address}/{name}:50051")
    return DnsResolver(target, config, clock=clock, rng=lambda: 0.5)


async def test_both_record_types_sorted_and_without_duplicates(server: FaultyDns, sink: Recorder) -> None:
    server.set(NAME, "10.0.0.2", "2001:db8::1", "10.0.0.1", "10.0.0.2")
    async with running(resolver_at(server), sink):
        await sink.until(lambda: sink.updates)
    assert [str(endpoint.address) for endpoint in sink.updates[0].endpoints] == [
        "10.0.0.1:50051",
        "10.0.0.2:50051",
        "[2001:db8::1]:50051",
    ]
    assert [endpoint.weight for endpoint in sink.updates[0].endpoints] == [1.0, 1.0, 1.0]


async def test_an_unchanged_set_is_pushed_once(server: FaultyDns, sink: Recorder) -> None:
    server.set(NAME, "10.0.0.1", "10.0.0.2")
    async with running(resolver_at(server), sink):
        await sink.until(lambda: len(server.asked(NAME)) >= 3)
        server.set(NAME, "10.0.0.2", "10.0.0.1")
        seen = len(server.asked(NAME))
        await sink.until(lambda: len(server.asked(NAME)) >= seen + 3)
    assert sink.order == ["update"]


async def test_added_and_removed_records_are_seen_with_nothing_broken(server: FaultyDns, sink: Recorder) -> None:
    server.set(NAME, "10.0.0.1")
    async with running(resolver_at(server), sink):
        await sink.until(lambda: sink.updates)
        server.set(NAME, "10.0.0.1", "10.0.0.2")
        await sink.until(lambda: sink.hosts == ["10.0.0.1", "10.0.0.2"])
        server.set(NAME, "10.0.0.2")
        await sink.until(lambda: sink.hosts == ["10.0.0.2"])
    assert not sink.errors


def gaps_s(server: FaultyDns, name: str = NAME) -> list[float]:
    times = [query.at_s for query in server.asked(name)]
    return [later - earlier for earlier, later in itertools.pairwise(times)]


async def test_the_ttl_sets_the_pace(server: FaultyDns, sink: Recorder) -> None:
    server.set(NAME, "10.0.0.1", ttl_s=1)
    async with running(resolver_at(server, DnsConfig(min_ttl_s=0.05)), sink):
        await sink.until(lambda: len(server.asked(NAME)) >= 2)
    assert 1.0 <= gaps_s(server)[0] <= 1.1 + SLACK_S


async def test_the_ttl_of_an_alias_counts(server: FaultyDns, sink: Recorder) -> None:
    server.alias(NAME, "middle.test", ttl_s=30)
    server.alias("middle.test", "end.test", ttl_s=1)
    server.set("end.test", "10.0.0.1", ttl_s=30)
    async with running(resolver_at(server, DnsConfig(min_ttl_s=0.05)), sink):
        await sink.until(lambda: len(server.asked(NAME)) >= 2)
    assert sink.hosts == ["10.0.0.1"]
    assert 1.0 <= gaps_s(server)[0] <= 1.1 + SLACK_S


async def test_the_smaller_ttl_of_both_types_counts(server: FaultyDns, sink: Recorder) -> None:
    server.add(NAME, "10.0.0.1", ttl_s=30)
    server.add(NAME, "2001:db8::1", ttl_s=1)
    async with running(resolver_at(server, DnsConfig(min_ttl_s=0.05)), sink):
        await sink.until(lambda: len(server.asked(NAME)) >= 2)
    assert 1.0 <= gaps_s(server)[0] <= 1.1 + SLACK_S


async def test_a_long_ttl_is_cut_to_the_ceiling(server: FaultyDns, sink: Recorder) -> None:
    server.set(NAME, "10.0.0.1", ttl_s=3600)
    async with running(resolver_at(server, DnsConfig(min_ttl_s=0.05, max_ttl_s=0.3)), sink):
        await sink.until(lambda: len(server.asked(NAME)) >= 3)
    assert all(0.3 <= gap <= 0.33 + SLACK_S for gap in gaps_s(server))


async def test_refresh_looks_again_at_once_but_not_before_the_floor(server: FaultyDns, sink: Recorder) -> None:
    server.set(NAME, "10.0.0.1", ttl_s=3600)
    async with running(resolver_at(server, DnsConfig(min_ttl_s=0.3)), sink) as resolver:
        await sink.until(lambda: sink.updates)
        server.set(NAME, "10.0.0.2", ttl_s=3600)
        for _ in range(20):
            resolver.refresh()
            await anyio.sleep(0.005)
        await sink.until(lambda: sink.hosts == ["10.0.0.2"])
        await anyio.sleep(0.5)  # the twenty wishes were one
        assert len(server.asked(NAME)) == 2
        resolver.refresh()
        await sink.until(lambda: len(server.asked(NAME)) == 3)
    assert all(gap >= 0.3 for gap in gaps_s(server))
    assert gaps_s(server)[0] <= 0.3 + SLACK_S


async def test_refresh_cuts_a_backoff_short(server: FaultyDns, sink: Recorder) -> None:
    server.fail(NAME, Fault.SERVFAIL)
    async with running(resolver_at(server, DnsConfig(min_ttl_s=0.1)), sink) as resolver:
        await sink.until(lambda: sink.errors)
        server.heal(NAME)
        server.set(NAME, "10.0.0.1")
        resolver.refresh()
        await sink.until(lambda: sink.updates)
    assert 0.1 <= gaps_s(server)[0] < 0.9  # the backoff is 1 s


async def test_refresh_before_run_is_harmless(server: FaultyDns, sink: Recorder) -> None:
    server.set(NAME, "10.0.0.1", ttl_s=3600)
    resolver = resolver_at(server)
    resolver.refresh()
    async with running(resolver, sink):
        await sink.until(lambda: sink.updates)


@pytest.mark.parametrize("fault", [Fault.SERVFAIL, Fault.DROP, Fault.NXDOMAIN, Fault.EMPTY])
async def test_any_bad_answer_keeps_the_set_and_is_reported(server: FaultyDns, sink: Recorder, fault: Fault) -> None:
    server.set(NAME, "10.0.0.1")
    async with running(resolver_at(server, DnsConfig(min_ttl_s=0.05, max_backoff_s=0.1, timeout_s=0.2)), sink):
        await sink.until(lambda: sink.updates)
        server.fail(NAME, fault)
        await sink.until(lambda: len(sink.errors) >= 3)
        server.heal(NAME)
        await sink.until(lambda: sink.order[-1] == "update")  # the same set once more: the failure is over
        seen = len(server.asked(NAME))
        await sink.until(lambda: len(server.asked(NAME)) >= seen + 3)
    assert all(update == sink.updates[0] for update in sink.updates)
    # A set is pushed again after a failure, of which a busy machine makes more than asked for, and never otherwise.
    assert ("update", "update") not in itertools.pairwise(sink.order)
    assert "'greeter.test.' from 127.0.0.1:" in str(sink.errors[0])
    assert "stay in use" in str(sink.errors[0])


@pytest.mark.parametrize("fault", list(Fault))
async def test_nothing_is_pushed_where_nothing_was_ever_known(server: FaultyDns, sink: Recorder, fault: Fault) -> None:
    server.fail(NAME, fault)
    config = DnsConfig(min_ttl_s=0.05, max_backoff_s=0.1, timeout_s=0.2, empty_hold_s=0)
    async with running(resolver_at(server, config), sink):
        await sink.until(lambda: len(sink.errors) >= 3)
        assert not sink.updates
        assert "check the name" in str(sink.errors[0])
        server.heal(NAME)
        server.set(NAME, "10.0.0.1")
        await sink.until(lambda: sink.updates)
    assert sink.hosts == ["10.0.0.1"]


@pytest.mark.parametrize("fault", [Fault.NXDOMAIN, Fault.EMPTY])
async def test_an_empty_answer_is_believed_once_held_long_enough(
    server: FaultyDns, sink: Recorder, fault: Fault
) -> None:
    clock = Clock()
    server.set(NAME, "10.0.0.1")
    async with running(resolver_at(server, clock=clock), sink):
        await sink.until(lambda: sink.updates)
        server.fail(NAME, fault)
        await sink.until(lambda: len(sink.errors) >= 2)
        clock.now_s += 29.9
        held = len(sink.errors)
        await sink.until(lambda: len(sink.errors) >= held + 2)
        assert len(sink.updates) == 1
        clock.now_s += 0.2
        await sink.until(lambda: len(sink.updates) == 2)
        assert sink.updates[1].endpoints == ()
        told = len(sink.errors)
        await sink.until(lambda: len(sink.errors) >= told + 2)  # reported on, and pushed no more
        assert len(sink.updates) == 2
        server.heal(NAME)
        await sink.until(lambda: len(sink.updates) == 3)
    assert sink.hosts == ["10.0.0.1"]


async def test_a_good_answer_starts_the_hold_afresh(server: FaultyDns, sink: Recorder) -> None:
    clock = Clock()
    server.set(NAME, "10.0.0.1")
    async with running(resolver_at(server, clock=clock), sink):
        await sink.until(lambda: sink.updates)
        server.fail(NAME, Fault.EMPTY)
        await sink.until(lambda: sink.errors)
        clock.now_s += 20
        server.heal(NAME)
        await sink.until(lambda: len(sink.updates) == 2)
        server.fail(NAME, Fault.EMPTY)
        seen = len(sink.errors)
        await sink.until(lambda: len(sink.errors) > seen)
        clock.now_s += 20  # 40 s after the first empty answer, 20 s after the first of this row
        seen = len(sink.errors)
        await sink.until(lambda: len(sink.errors) >= seen + 2)
    assert len(sink.updates) == 2


async def test_failures_do_not_end_the_hold(server: FaultyDns, sink: Recorder) -> None:
    clock = Clock()
    server.set(NAME, "10.0.0.1")
    async with running(resolver_at(server, clock=clock), sink):
        await sink.until(lambda: sink.updates)
        server.fail(NAME, Fault.SERVFAIL)
        await sink.until(lambda: sink.errors)
        clock.now_s += 3600
        seen = len(sink.errors)
        await sink.until(lambda: len(sink.errors) >= seen + 2)
    assert len(sink.updates) == 1


async def test_the_hold_ends_on_time_however_long_the_backoff(server: FaultyDns, sink: Recorder) -> None:
    server.set(NAME, "10.0.0.1")
    config = DnsConfig(min_ttl_s=0.05, max_backoff_s=30, empty_hold_s=0.3)
    async with running(resolver_at(server, config), sink):
        await sink.until(lambda: sink.updates)
        server.fail(NAME, Fault.EMPTY)
        await sink.until(lambda: sink.errors)
        start_s = anyio.current_time()
        await sink.until(lambda: len(sink.updates) == 2)
    # The backoff alone would have been 1 s.
    assert 0.25 <= anyio.current_time() - start_s < 0.9


@pytest.mark.parametrize("fault", [Fault.SERVFAIL, Fault.NXDOMAIN, Fault.EMPTY])
@pytest.mark.parametrize(("broken", "host"), [("A", "2001:db8::1"), ("AAAA", "10.0.0.1")])
async def test_the_type_that_answers_is_enough(
    server: FaultyDns, sink: Recorder, fault: Fault, broken: str, host: str
) -> None:
    server.set(NAME, "10.0.0.1", "2001:db8::1")
    server.fail(NAME, fault, broken)
    async with running(resolver_at(server), sink):
        await sink.until(lambda: sink.updates)
    assert sink.hosts == [host]
    assert not sink.errors


async def test_a_type_that_fails_later_keeps_its_last_addresses(server: FaultyDns, sink: Recorder) -> None:
    server.set(NAME, "10.0.0.1", "2001:db8::1")
    async with running(resolver_at(server), sink):
        await sink.until(lambda: sink.updates)
        server.fail(NAME, Fault.SERVFAIL, "AAAA")
        server.set(NAME, "10.0.0.2")
        await sink.until(lambda: len(sink.updates) == 2)
        assert sink.hosts == ["10.0.0.2", "2001:db8::1"]
        server.heal(NAME)
        await sink.until(lambda: len(sink.updates) == 3)
    assert sink.hosts == ["10.0.0.2"]
    assert not sink.errors


async def test_one_type_empty_and_the_other_failed_is_a_failure(server: FaultyDns, sink: Recorder) -> None:
    server.set(NAME, "10.0.0.1")
    async with running(resolver_at(server, DnsConfig(min_ttl_s=0.05, max_backoff_s=0.1, empty_hold_s=0)), sink):
        await sink.until(lambda: sink.updates)
        server.fail(NAME, Fault.EMPTY, "A")
        server.fail(NAME, Fault.SERVFAIL, "AAAA")
        await sink.until(lambda: len(sink.errors) >= 3)
    assert len(sink.updates) == 1


async def test_swallowed_queries_of_one_type_do_not_hold_up_the_other(server: FaultyDns, sink: Recorder) -> None:
    server.set(NAME, "10.0.0.1", ttl_s=30)
    server.fail(NAME, Fault.DROP, "AAAA")
    start_s = anyio.current_time()
    async with running(resolver_at(server, DnsConfig(timeout_s=8.0)), sink):
        await sink.until(lambda: sink.updates)
    assert anyio.current_time() - start_s < SECOND_ANSWER_S + SLACK_S
    assert sink.hosts == ["10.0.0.1"]


async def test_a_lookup_is_given_up_in_time_and_tried_twice(server: FaultyDns, sink: Recorder) -> None:
    server.fail(NAME, Fault.DROP)
    start_s = anyio.current_time()
    async with running(resolver_at(server, DnsConfig(timeout_s=0.5)), sink):
        await sink.until(lambda: sink.errors)
    assert 0.4 < anyio.current_time() - start_s < 0.5 + SLACK_S
    assert len(server.asked(NAME)) >= 2


async def test_a_jump_of_the_wall_clock_fails_no_lookup(
    server: FaultyDns, sink: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.set(NAME, "10.0.0.1")
    monkeypatch.setattr(dns.resolver, "time", SimpleNamespace(time=lambda: time.time() + 3600))
    async with running(resolver_at(server), sink):
        await sink.until(lambda: sink.order)
    assert sink.order == ["update"]


async def test_failing_lookups_back_off(server: FaultyDns, sink: Recorder) -> None:
    server.fail(NAME, Fault.SERVFAIL)
    async with running(resolver_at(server, DnsConfig(min_ttl_s=0.05, max_backoff_s=0.36)), sink):
        await sink.until(lambda: len(sink.errors) >= 4)
    # The ceiling of 0.36 s, lowered by its jitter; one query a lookup, as SERVFAIL is not asked again.
    assert all(0.3 <= gap <= 0.3 + SLACK_S for gap in gaps_s(server))


async def test_a_large_answer_comes_over_tcp(server: FaultyDns, sink: Recorder) -> None:
    hosts = [f"10.0.{high}.{low}" for high in range(3) for low in range(1, 100)]
    server.set(NAME, *hosts)
    async with running(resolver_at(server), sink):
        await sink.until(lambda: sink.updates)
    assert sink.hosts == sorted(hosts)
    assert [query.over_tcp for query in server.asked(NAME)][:2] == [False, True]


async def test_international_names(server: FaultyDns, sink: Recorder) -> None:
    server.set("xn--bcher-kva.test", "10.0.0.1")
    async with running(resolver_at(server, name="bücher.test."), sink):
        await sink.until(lambda: sink.updates)
    assert sink.hosts == ["10.0.0.1"]


async def test_the_search_list_applies(server: FaultyDns, sink: Recorder, tmp_path: Path) -> None:
    server.set("greeter.default.svc.test", "10.0.0.1")
    settings = tmp_path / "resolv.conf"
    settings.write_text("nameserver 127.0.0.1\nsearch default.svc.test svc.test\noptions ndots:5\n")
    target = parse_target(f"dns://{server.address}/greeter:50051")
    async with running(DnsResolver(target, FAST, resolv_conf=str(settings)), sink):
        await sink.until(lambda: sink.updates)
    assert sink.hosts == ["10.0.0.1"]


@pytest.mark.parametrize("text", ["", "nameserver not-an-address\n", None])
async def test_unusable_dns_settings_are_reported_and_read_again(
    sink: Recorder, tmp_path: Path, text: str | None
) -> None:
    settings = tmp_path / "resolv.conf"
    if text is not None:
        settings.write_text(text)
    config = DnsConfig(min_ttl_s=0.05, max_backoff_s=0.1, timeout_s=0.1)
    resolver = DnsResolver(parse_target(f"{NAME}:50051"), config, resolv_conf=str(settings))
    async with running(resolver, sink):
        await sink.until(lambda: len(sink.errors) >= 2)
        assert "gives no usable DNS server" in str(sink.errors[0])
        settings.write_text("nameserver 127.0.0.1\n")
        await sink.until(lambda: "from the name servers of this machine" in str(sink.errors[-1]) or sink.updates)


async def test_a_named_server_needs_no_settings(server: FaultyDns, sink: Recorder, tmp_path: Path) -> None:
    server.set(NAME, "10.0.0.1")
    target = parse_target(f"dns://{server.address}/{NAME}:50051")
    async with running(DnsResolver(target, FAST, resolv_conf=str(tmp_path / "none")), sink):
        await sink.until(lambda: sink.updates)


async def test_the_hosts_file_wins_and_is_read_again(sink: Recorder, tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text(f"10.0.0.1 {NAME}\n")
    config = DnsConfig(min_ttl_s=0.05)
    async with running(DnsResolver(parse_target(f"{NAME}:50051"), config, hosts=HostsFile(path)), sink):
        await sink.until(lambda: sink.updates)
        path.write_text(f"10.0.0.1 {NAME}\n10.0.0.2 {NAME}\n")
        await sink.until(lambda: len(sink.updates) == 2)
    assert sink.hosts == ["10.0.0.1", "10.0.0.2"]
    assert not sink.errors


async def test_a_named_server_is_asked_in_spite_of_the_hosts_file(
    server: FaultyDns, sink: Recorder, tmp_path: Path
) -> None:
    path = tmp_path / "hosts"
    path.write_text(f"10.0.0.9 {NAME}\n")
    server.set(NAME, "10.0.0.1")
    target = parse_target(f"dns://{server.address}/{NAME}:50051")
    async with running(DnsResolver(target, FAST, hosts=HostsFile(path)), sink):
        await sink.until(lambda: sink.updates)
    assert sink.hosts == ["10.0.0.1"]


@pytest.mark.parametrize("name", ["localhost", "greeter.localhost"])
async def test_localhost_needs_neither_file_nor_server(
    server: FaultyDns, sink: Recorder, tmp_path: Path, name: str
) -> None:
    for authority in ("", server.address):
        resolver = DnsResolver(
            parse_target(f"dns://{authority}/{name}:50051"), FAST, hosts=HostsFile(tmp_path / "none")
        )
        async with running(resolver, sink):
            await sink.until(lambda: sink.updates)
        assert sink.hosts == ["127.0.0.1", "::1"]
        sink.updates.clear()
    assert not server.queries


async def test_a_flood_of_addresses_is_cut(sink: Recorder, tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text("".join(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255} {NAME}\n" for n in range(MAX_ENDPOINTS + 5)))
    async with running(DnsResolver(parse_target(f"{NAME}:50051"), FAST, hosts=HostsFile(path)), sink):
        await sink.until(lambda: sink.updates)
    assert len(sink.updates[0].endpoints) == MAX_ENDPOINTS


async def test_resolver_for_passes_the_options_on(server: FaultyDns, sink: Recorder) -> None:
    server.set(NAME, "10.0.0.1", ttl_s=3600)
    resolver = resolver_for(parse_target(f"dns://{server.address}/{NAME}.:50051"), Config(dns=FAST))
    assert isinstance(resolver, DnsResolver)
    async with running(resolver, sink):
        await sink.until(lambda: len(server.asked(NAME)) >= 3)
    assert sink.hosts == ["10.0.0.1"]
