"""Services in DNS: what a `srv` target says, what SRV records mean, and what becomes of them as they change."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import groupby
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpclb_core.config import Config, DnsConfig
from grpclb_core.errors import TargetError
from grpclb_core.resolve import parse_target, resolver_for
from grpclb_core.resolve.dns.lookup import Service
from grpclb_core.resolve.dns.srv import (
    MAX_TARGETS,
    ZERO_WEIGHT,
    ServiceName,
    SrvResolver,
    endpoints_of,
    offered,
    parse_service,
)
from grpclb_core.types import Address
from support.dns import DNSMASQ, Dnsmasq, Fault, FaultyDns
from support.recorder import Recorder

NAME = "_grpc._tcp.greeter.test"
FAST = DnsConfig(min_ttl_s=0.05, max_ttl_s=0.1, max_backoff_s=0.1, timeout_s=1.0, max_queries_per_minute=10_000)


class TestTarget:
    @pytest.mark.parametrize(
        ("text", "service", "authority"),
        [
            ("srv:///_grpc._tcp.greeter", ServiceName("_grpc._tcp.greeter", "greeter"), "greeter"),
            ("SRV:///_grpc._tcp.greeter.test.", ServiceName(f"{NAME}.", "greeter.test."), "greeter.test"),
            (
                "srv://10.0.0.2:5353/_grpc._tcp.greeter.test",
                ServiceName(NAME, "greeter.test", Address("10.0.0.2", 5353)),
                "greeter.test",
            ),
            (
                "srv://[::1]/_grpc._tcp.greeter.test",
                ServiceName(NAME, "greeter.test", Address("::1", 53)),
                "greeter.test",
            ),
            (
                "srv:///_grpc._tcp.bücher.test",
                ServiceName("_grpc._tcp.xn--bcher-kva.test", "xn--bcher-kva.test"),
                "xn--bcher-kva.test",
            ),
        ],
    )
    def test_services(self, text: str, service: ServiceName, authority: str) -> None:
        target = parse_target(text)
        assert parse_service(target.rest) == service
        assert resolver_for(target, Config()).authority == authority

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("srv://", "the service is missing; write srv:///_grpc._tcp.host"),
            ("srv:///", "the service is missing"),
            ("srv://_grpc._tcp.greeter", "the service is missing"),
            ("srv:///greeter.test", "'greeter.test' is no service; write srv:///_grpc._tcp.host, or dns:///"),
            ("srv:///_grpc.greeter.test", "is no service"),
            ("srv:///_grpc._tcp.", "is no service"),
            ("srv:///_grpc._tcp", "is no service"),
            ("srv:///_grpc._tcp.greeter:50051", "has a port; leave it out, it comes from the SRV records"),
            ("srv:///_grpc._tcp.10.0.0.1", "'10.0.0.1' is an IP address, which has no services"),
            ("srv:///_grpc._tcp.a/b", "'a/b' is no host name"),
            ("srv:///_grpc._tcp.a..b", "is no host name"),
            ("srv:///_grpc._tcp." + ".".join(["x" * 60] * 4), "service of 254 characters is too long"),
            ("srv:///_grpc._tcp." + "x" * 300, "host of 300 characters is too long"),
            ("srv://ns.test/_grpc._tcp.greeter", "DNS server: host 'ns.test'"),
        ],
    )
    def test_what_cannot_be_used_is_told(self, text: str, says: str) -> None:
        with pytest.raises(TargetError) as caught:
            resolver_for(parse_target(text), Config())
        assert says in str(caught.value)

    @given(st.text(alphabet="_ab.:/[]1 \u00fc-", max_size=40) | st.text(max_size=20))
    def test_any_text_is_a_service_or_an_error(self, text: str) -> None:
        try:
            service = parse_service(f"//{text}")
        except TargetError:
            return
        assert service.name.endswith(service.host)
        assert service.name.isascii()
        assert len(service.name) <= 254


HOSTS = {"a.": ("10.0.0.1",), "b.": ("10.0.0.2",), "c.": ("10.0.0.3", "2001:db8::3"), "none.": ()}


def listed(*services: Service) -> list[tuple[str, float, int]]:
    return [(str(endpoint.address), endpoint.weight, endpoint.priority) for endpoint in endpoints_of(services, HOSTS)]


class TestMeaning:
    def test_priorities_count_from_0_without_gaps(self) -> None:
        services = Service(30, 1, 1, "a."), Service(10, 1, 2, "b."), Service(20, 1, 3, "none."), Service(30, 1, 4, "b.")
        assert listed(*services) == [("10.0.0.2:2", 1, 0), ("10.0.0.1:1", 1, 1), ("10.0.0.2:4", 1, 1)]

    def test_weights(self) -> None:
        assert listed(Service(0, 10, 1, "a."), Service(0, 60, 1, "b.")) == [
            ("10.0.0.1:1", 10, 0),
            ("10.0.0.2:1", 60, 0),
        ]

    def test_weight_0_beside_others_is_a_very_small_one(self) -> None:
        assert listed(Service(0, 0, 1, "a."), Service(0, 1, 1, "b.")) == [
            ("10.0.0.1:1", ZERO_WEIGHT, 0),
            ("10.0.0.2:1", 1, 0),
        ]

    def test_weight_0_throughout_a_priority_is_no_weight(self) -> None:
        services = Service(0, 0, 1, "a."), Service(0, 0, 1, "b."), Service(1, 5, 2, "a."), Service(1, 0, 2, "b.")
        assert listed(*services) == [
            ("10.0.0.1:1", 1, 0),
            ("10.0.0.2:1", 1, 0),
            ("10.0.0.1:2", 5, 1),
            ("10.0.0.2:2", ZERO_WEIGHT, 1),
        ]

    def test_a_target_with_two_addresses_gets_no_more_than_its_weight(self) -> None:
        assert listed(Service(0, 6, 1, "a."), Service(0, 6, 1, "c.")) == [
            ("10.0.0.1:1", 6, 0),
            ("10.0.0.3:1", 3, 0),
            ("[2001:db8::3]:1", 3, 0),
        ]

    def test_what_two_records_name_is_one_endpoint(self) -> None:
        services = Service(0, 1, 1, "a."), Service(0, 2, 1, "a."), Service(5, 100, 1, "a.")
        assert listed(*services) == [("10.0.0.1:1", 3, 0)]

    def test_what_is_not_offered_is_left_out(self) -> None:
        good = Service(0, 0, 1, "a.")
        assert offered([Service(0, 0, 1, "."), Service(0, 0, 0, "a."), good]) == (good,)
        assert offered([Service(0, 0, 0, ".")]) == ()

    def test_targets_are_limited_and_the_first_priorities_kept(self) -> None:
        services = [Service(5, 0, 1, f"h{number}.") for number in range(MAX_TARGETS + 5)]
        kept = offered([*services, Service(0, 0, 1, "a."), Service(9, 0, 2, "a.")])
        assert len({service.target for service in kept}) == MAX_TARGETS
        assert [service.priority for service in kept if service.target == "a."] == [0, 9]

    @given(
        st.lists(
            st.builds(
                Service,
                st.integers(0, 65535) | st.integers(0, 2),
                st.integers(0, 65535) | st.just(0),
                st.integers(0, 65535),
                st.sampled_from([*HOSTS, ".", "unknown."]),
            ),
            max_size=12,
        )
    )
    def test_any_records_give_endpoints_that_can_be_used(self, services: list[Service]) -> None:
        endpoints = endpoints_of(offered(services), HOSTS)
        assert endpoints == endpoints_of(offered(reversed(services)), HOSTS)
        assert len({endpoint.address for endpoint in endpoints}) == len(endpoints)
        assert [priority for priority, _ in groupby(endpoint.priority for endpoint in endpoints)] == list(
            range(len({endpoint.priority for endpoint in endpoints}))
        )
        assert all(math.isfinite(endpoint.weight) and endpoint.weight > 0 for endpoint in endpoints)
        names = {(str(Address(host, s.port))) for s in services if s.port for host in HOSTS.get(s.target, ())}
        assert {str(endpoint.address) for endpoint in endpoints} == names


@asynccontextmanager
async def running(resolver: SrvResolver, sink: Recorder) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(resolver.run, sink)
        yield
        tasks.cancel_scope.cancel()


def resolver_at(server: FaultyDns, config: DnsConfig = FAST, name: str = f"{NAME}.") -> SrvResolver:
    return SrvResolver(parse_service(f"//{server.address}/{name}"), config, rng=lambda: 0.5)


@pytest.mark.anyio
class TestResolver:
    async def test_records_and_addresses_become_endpoints(self, server: FaultyDns, sink: Recorder) -> None:
        server.serve(NAME, (10, 5, 50051, "a.test"), (20, 0, 50052, "b.test"), ttl_s=9)
        server.add("a.test", "10.0.0.1", ttl_s=8)
        server.add("a.test", "2001:db8::1", ttl_s=7)
        server.set("b.test", "10.0.0.2", ttl_s=20)
        async with running(resolver_at(server), sink):
            await sink.until(lambda: sink.updates)
        (resolution,) = sink.updates[:1]
        assert [(str(e.address), e.weight, e.priority) for e in resolution.endpoints] == [
            ("10.0.0.1:50051", 2.5, 0),
            ("[2001:db8::1]:50051", 2.5, 0),
            ("10.0.0.2:50052", 1.0, 1),
        ]
        assert resolution.ttl_s == 7
        assert not sink.errors

    async def test_changes_are_seen(self, server: FaultyDns, sink: Recorder) -> None:
        server.serve(NAME, (0, 1, 50051, "a.test"))
        server.set("a.test", "10.0.0.1")
        server.set("b.test", "10.0.0.2")
        async with running(resolver_at(server), sink):
            await sink.until(lambda: sink.updates)
            server.serve(NAME, (0, 1, 50051, "a.test"), (0, 3, 50051, "b.test"))
            await sink.until(lambda: sink.hosts == ["10.0.0.1", "10.0.0.2"])
            server.set("a.test", "10.0.0.9")
            await sink.until(lambda: sink.hosts == ["10.0.0.2", "10.0.0.9"])
            server.serve(NAME, (0, 2, 50051, "b.test"))
            await sink.until(lambda: sink.hosts == ["10.0.0.2"])
            server.serve(NAME, (0, 4, 50051, "b.test"))
            await sink.until(lambda: sink.updates[-1].endpoints[0].weight == 4)
        assert not sink.errors
        assert len(sink.updates) == 5

    async def test_addresses_that_come_along_are_not_asked_for(self, server: FaultyDns, sink: Recorder) -> None:
        server.serve(NAME, (0, 0, 1, "a.test"), (0, 0, 1, "b.test"), ttl_s=30)
        server.come_along("A.test", "10.0.0.1", "2001:db8::1", ttl_s=3)
        server.come_along("b.test", "10.0.0.2", ttl_s=30)
        server.come_along("stranger.test", "10.0.0.66", ttl_s=30)
        async with running(resolver_at(server, DnsConfig()), sink):
            await sink.until(lambda: sink.updates)
        assert sink.hosts == ["10.0.0.1", "10.0.0.2", "2001:db8::1"]
        assert [(query.name, query.record_type) for query in server.queries] == [(NAME, "SRV"), ("b.test", "AAAA")]
        assert sink.updates[0].ttl_s == 3

    @pytest.mark.parametrize("fault", [Fault.SERVFAIL, Fault.DROP, Fault.NXDOMAIN, Fault.EMPTY, Fault.MALFORMED])
    async def test_services_that_cannot_be_had_keep_the_set(
        self, server: FaultyDns, sink: Recorder, fault: Fault
    ) -> None:
        server.serve(NAME, (0, 0, 1, "a.test"))
        server.set("a.test", "10.0.0.1")
        config = DnsConfig(min_ttl_s=0.05, max_backoff_s=0.1, timeout_s=0.3)
        async with running(resolver_at(server, config), sink):
            await sink.until(lambda: sink.updates)
            server.fail(NAME, fault)
            await sink.until(lambda: len(sink.errors) >= 2)
            assert len(sink.updates) == 1
            server.heal(NAME)
            await sink.until(lambda: len(sink.updates) == 2)
        assert f"'{NAME}.' from 127.0.0.1:{server.port} (SRV:" in str(sink.errors[0])
        assert "stay in use" in str(sink.errors[0])

    async def test_a_service_withdrawn_is_believed_once_held_long_enough(
        self, server: FaultyDns, sink: Recorder
    ) -> None:
        server.serve(NAME, (0, 0, 1, "a.test"))
        server.set("a.test", "10.0.0.1")
        config = DnsConfig(min_ttl_s=0.05, max_ttl_s=0.1, max_backoff_s=0.1, empty_hold_s=0.3)
        async with running(resolver_at(server, config), sink):
            await sink.until(lambda: sink.updates)
            server.serve(NAME, (0, 0, 0, "."))
            await sink.until(lambda: len(sink.updates) == 2)
        assert sink.updates[1].endpoints == ()
        assert "not offered" in str(sink.errors[0])

    async def test_a_target_that_fails_later_keeps_its_last_addresses(self, server: FaultyDns, sink: Recorder) -> None:
        server.serve(NAME, (0, 0, 1, "a.test"), (0, 0, 1, "b.test"))
        server.set("a.test", "10.0.0.1")
        server.set("b.test", "10.0.0.2")
        async with running(resolver_at(server), sink):
            await sink.until(lambda: sink.updates)
            server.fail("a.test", Fault.SERVFAIL)
            server.set("b.test", "10.0.0.3")
            await sink.until(lambda: len(sink.updates) == 2)
            assert sink.hosts == ["10.0.0.1", "10.0.0.3"]
            server.fail("b.test", Fault.SERVFAIL)
            seen = len(server.asked(NAME, "SRV"))
            await sink.until(lambda: len(server.asked(NAME, "SRV")) > seen + 2)
            assert sink.hosts == ["10.0.0.1", "10.0.0.3"]
        assert not sink.errors

    async def test_a_target_without_address_is_told_and_the_others_serve(
        self, server: FaultyDns, sink: Recorder
    ) -> None:
        server.serve(NAME, (0, 0, 1, "a.test"), (0, 0, 1, "lost.test"))
        server.set("a.test", "10.0.0.1")
        async with running(resolver_at(server), sink):
            await sink.until(lambda: sink.errors)
            assert sink.order == ["update", "fail"]
            seen = len(server.asked(NAME, "SRV"))
            await sink.until(lambda: len(server.asked(NAME, "SRV")) > seen + 3)
            assert sink.order == ["update", "fail"]  # the same fault is told once
            server.set("lost.test", "10.0.0.2")
            await sink.until(lambda: len(sink.updates[-1].endpoints) == 2)  # it may come between A and AAAA
        assert sink.hosts == ["10.0.0.1", "10.0.0.2"]
        assert "some endpoints are missing (lost.test. A: the name does not exist" in str(sink.errors[0])

    async def test_no_target_with_an_address_is_a_fault(self, server: FaultyDns, sink: Recorder) -> None:
        server.serve(NAME, *((0, 0, 1, f"lost{number}.test") for number in range(5)))
        async with running(resolver_at(server), sink):
            await sink.until(lambda: len(sink.errors) >= 2)
        assert not sink.updates
        assert "and 2 more" in str(sink.errors[0])

    async def test_silence_about_some_targets_leaves_time_for_the_others(
        self, server: FaultyDns, sink: Recorder
    ) -> None:
        silent = [f"silent{number}.test" for number in range(150)]
        server.serve(NAME, (0, 0, 1, "a.test"), *((0, 0, 1, name) for name in silent))
        server.set("a.test", "10.0.0.1")
        for name in silent:
            server.fail(name, Fault.DROP)
        config = DnsConfig(min_ttl_s=0.05, timeout_s=3.0)
        start_s = anyio.current_time()
        async with running(resolver_at(server, config), sink):
            await sink.until(lambda: sink.updates)
        assert anyio.current_time() - start_s < 6.0  # once for the services, once for all of their targets
        assert sink.hosts == ["10.0.0.1"]
        assert "and 147 more" in str(sink.errors[0])

    async def test_many_services_come_over_tcp(self, server: FaultyDns, sink: Recorder) -> None:
        server.serve(NAME, *((0, 0, 1, f"h{number}.test") for number in range(100)))
        for number in range(100):
            server.set(f"h{number}.test", f"10.0.0.{number}")
        async with running(resolver_at(server, DnsConfig()), sink):
            await sink.until(lambda: sink.updates)
        assert len(sink.updates[0].endpoints) == 100
        assert [query.over_tcp for query in server.asked(NAME, "SRV")] == [False, True]

    async def test_the_search_list_applies(self, server: FaultyDns, sink: Recorder, tmp_path: Path) -> None:
        server.serve("_grpc._tcp.greeter.default.svc.test", (0, 0, 1, "a.test"))
        server.set("a.test", "10.0.0.1")
        path = tmp_path / "resolv.conf"
        path.write_text(f"nameserver [127.0.0.1]:{server.port}\nsearch default.svc.test svc.test\noptions ndots:5\n")
        resolver = SrvResolver(parse_service("///_grpc._tcp.greeter"), FAST, resolv_conf=str(path))
        async with running(resolver, sink):
            await sink.until(lambda: sink.updates)
        assert not server.asked("a.test.default.svc.test")  # targets are full names


@pytest.mark.anyio
@pytest.mark.skipif(DNSMASQ is None, reason="dnsmasq is not installed (Debian package dnsmasq-base)")
async def test_a_real_server(sink: Recorder, tmp_path: Path) -> None:
    options = [f"--srv-host={NAME},a.test,50051,0,10", f"--srv-host={NAME},b.test,50052,1,0"]
    with Dnsmasq(tmp_path, 2, *options) as dnsmasq:
        dnsmasq.set(a=["10.0.0.1", "2001:db8::1"], b=["10.0.0.2"])
        service = parse_service(f"//127.0.0.1:{dnsmasq.port}/{NAME}")
        async with running(SrvResolver(service, FAST), sink):
            await sink.until(lambda: sink.updates)
            dnsmasq.set(a=["10.0.0.1"], b=["10.0.0.2"])
            await sink.until(lambda: len(sink.updates) == 2)
    assert [(str(e.address), e.weight, e.priority) for e in sink.updates[0].endpoints] == [
        ("10.0.0.1:50051", 5, 0),
        ("[2001:db8::1]:50051", 5, 0),
        ("10.0.0.2:50052", 1, 1),
    ]
    assert sink.hosts == ["10.0.0.1", "10.0.0.2"]
    assert not sink.errors
