"""Service configs in TXT records: which one is for this client, and what becomes of one that cannot be had."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpclb_core.config import Config, DnsConfig
from grpclb_core.errors import ConfigError
from grpclb_core.resolve import parse_target
from grpclb_core.resolve.dns.hosts import HostsFile
from grpclb_core.resolve.dns.lookup import SECOND_ANSWER_S
from grpclb_core.resolve.dns.polling import PolledResolver
from grpclb_core.resolve.dns.resolver import DnsResolver
from grpclb_core.resolve.dns.service_config import ServiceConfigRecord, choose
from grpclb_core.resolve.dns.srv import SrvResolver, make_resolver, parse_service
from support.dns import DNSMASQ, Dnsmasq, Fault, FaultyDns
from support.recorder import Recorder

NAME = "greeter.test"
RECORD = f"_grpc_config.{NAME}"
FAST = DnsConfig(min_ttl_s=0.05, max_ttl_s=0.1, max_backoff_s=0.1, timeout_s=1.0, service_config=True)
SLACK_S = 3.0  # a busy machine is late by this much, at most
QUICK = DnsConfig(min_ttl_s=0.05, max_ttl_s=0.1, max_backoff_s=0.1, timeout_s=0.4, service_config=True)
ROUND_ROBIN = {"loadBalancingConfig": [{"round_robin": {}}]}
LONG = 20  # rules in a long record, some 600 bytes; dnsmasq reads lines of a thousand
RANDOM = {"loadBalancingConfig": [{"random": {}}]}


def record(*choices: object) -> str:
    return "grpc_config=" + json.dumps(choices, separators=(",", ":"))


def choice(config: object = ROUND_ROBIN, **criteria: object) -> dict[str, object]:
    return {**criteria, "serviceConfig": config}


def chosen(*texts: str, percentile: int = 50, hostname: str = "here") -> object:
    found = choose(texts, percentile, hostname)
    return None if found is None else json.loads(found)


class TestChoosing:
    @pytest.mark.parametrize(
        "criteria",
        [
            {},
            {"clientLanguage": []},
            {"clientLanguage": ["go", "Python"]},
            {"clientHostname": ["there", "here"]},
            {"percentage": 51},
            {"percentage": 100},
            {"percentage": None, "clientHostname": None, "clientLanguage": None},
            {"clientLanguage": ["python"], "clientHostname": ["here"], "percentage": 51},
        ],
    )
    def test_one_that_is_for_this_client(self, criteria: dict[str, object]) -> None:
        assert chosen(record(choice(RANDOM, **criteria), choice())) == RANDOM

    @pytest.mark.parametrize(
        "criteria",
        [
            {"clientLanguage": ["c++"]},
            {"clientLanguage": ["pytho", "python3", ""]},
            {"clientHostname": ["Here"]},
            {"clientHostname": ["here.example.org"]},
            {"percentage": 0},
            {"percentage": 50},
            {"clientLanguage": ["python"], "clientHostname": ["here"], "percentage": 50},
        ],
    )
    def test_one_that_is_for_others(self, criteria: dict[str, object]) -> None:
        assert chosen(record(choice(RANDOM, **criteria), choice())) == ROUND_ROBIN
        assert chosen(record(choice(RANDOM, **criteria))) is None

    def test_the_share_of_clients_is_the_percentage(self) -> None:
        text = record(choice(RANDOM, percentage=30), choice())
        assert [chosen(text, percentile=one) for one in range(100)].count(RANDOM) == 30

    @pytest.mark.parametrize("texts", [[], ["v=spf1"], ["grpc_configs=[]"], [" grpc_config=["], ["grpc_config=[]"]])
    def test_no_choice_is_no_config(self, texts: list[str]) -> None:
        assert chosen(*texts) is None

    def test_other_records_are_none_of_ours(self) -> None:
        assert chosen("v=spf1", "a=b", record(choice())) == ROUND_ROBIN

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("grpc_config=", "this is no JSON"),
            ("grpc_config=[{'a': 1}]", "this is no JSON"),
            ("grpc_config={}", "expected an array of choices, got an object"),
            ("grpc_config=[3]", "choice[0]: expected an object, got a number"),
            (record({}), "choice[0].serviceConfig: missing"),
            (record(choice(None)), "choice[0].serviceConfig: missing"),
            (record(choice([])), "choice[0].serviceConfig: [] is not usable"),
            (record(choice(percentage=101)), "choice[0].percentage: 101 is not usable"),
            (record(choice(percentage=-1)), "choice[0].percentage: -1 is not usable"),
            (record(choice(percentage=1.5)), "choice[0].percentage: 1.5 is no whole number"),
            (record(choice(clientLanguage="python")), "choice[0].clientLanguage: expected an array, got a string"),
            (record(choice(clientHostname=[3])), "choice[0].clientHostname[0]: 3 is not usable"),
            (record(choice(clientlanguage=["go"])), "choice[0].clientlanguage: unknown field"),
            (record(choice(), choice(percentage=101)), "choice[1].percentage: 101"),  # A2: the whole record
            ("grpc_config=" + "[" * 30_000 + "]" * 30_000, "nested too deeply"),
        ],
    )
    def test_a_record_that_cannot_be_read(self, text: str, problem: str) -> None:
        with pytest.raises(ConfigError) as caught:
            chosen(text)
        assert caught.value.problems[0].startswith(problem)
        assert chosen(text, record(choice(RANDOM))) == RANDOM  # one beside it can

    @given(st.text() | st.binary().map(lambda data: data.decode(errors="replace")))
    def test_any_text(self, text: str) -> None:
        for whole in (text, "grpc_config=" + text, f'grpc_config=[{{"serviceConfig": {text}}}]'):
            with suppress(ConfigError):
                choose([whole], 50, "here")


@pytest.mark.parametrize(("drawn", "config"), [(0.0, RANDOM), (0.099, RANDOM), (0.1, None), (0.999, None)])
def test_the_share_is_drawn_once(drawn: float, config: object) -> None:
    draws = iter([drawn])
    asked = ServiceConfigRecord(NAME, None, FAST, rng=lambda: next(draws), resolv_conf="", hostname="here")
    text = record(choice(RANDOM, percentage=10))
    assert chosen(text, percentile=asked._percentile) == config


@asynccontextmanager
async def running(resolver: PolledResolver, sink: Recorder) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(resolver.run, sink)
        yield
        tasks.cancel_scope.cancel()


def resolver_at(server: FaultyDns, config: DnsConfig = FAST, rng: Callable[[], float] = lambda: 0.5) -> DnsResolver:
    return DnsResolver(parse_target(f"dns://{server.address}/{NAME}.:50051"), config, rng=rng)


def config_of(sink: Recorder) -> object:
    text = sink.updates[-1].service_config
    return None if text is None else json.loads(text)


@pytest.mark.anyio
class TestLooking:
    async def test_it_comes_with_the_addresses(self, server: FaultyDns, sink: Recorder) -> None:
        server.set(NAME, "10.0.0.1")
        server.describe(RECORD, "v=spf1", record(choice(RANDOM, percentage=10), choice()))
        async with running(resolver_at(server), sink):
            await sink.until(lambda: sink.updates)
        assert sink.hosts == ["10.0.0.1"]
        assert config_of(sink) == ROUND_ROBIN
        assert sink.order == ["update"]

    async def test_nobody_is_asked_unless_it_is_wanted(self, server: FaultyDns, sink: Recorder) -> None:
        server.set(NAME, "10.0.0.1")
        server.describe(RECORD, record(choice()))
        assert not DnsConfig().service_config
        off = DnsConfig(min_ttl_s=0.05, max_ttl_s=0.1)
        async with running(resolver_at(server, off), sink):
            await sink.until(lambda: len(server.asked(NAME)) > 2)
        assert sink.updates[-1].service_config is None
        assert server.asked(RECORD, "TXT") == []

    @pytest.mark.parametrize("fault", [Fault.NXDOMAIN, Fault.EMPTY])
    async def test_no_record_is_no_config(self, server: FaultyDns, sink: Recorder, fault: Fault) -> None:
        server.set(NAME, "10.0.0.1")
        server.describe(RECORD, record(choice()))
        async with running(resolver_at(server), sink):
            await sink.until(lambda: sink.updates and config_of(sink) == ROUND_ROBIN)
            server.fail(RECORD, fault)
            await sink.until(lambda: config_of(sink) is None)
            server.heal(RECORD)
            await sink.until(lambda: config_of(sink) == ROUND_ROBIN)
        assert sink.hosts == ["10.0.0.1"]
        assert sink.order == ["update"] * 3

    @pytest.mark.parametrize("fault", [Fault.SERVFAIL, Fault.DROP, Fault.MALFORMED, Fault.TRUNCATED])
    async def test_a_failure_keeps_the_config_and_harms_no_addresses(
        self, server: FaultyDns, sink: Recorder, fault: Fault
    ) -> None:
        server.set(NAME, "10.0.0.1")
        server.describe(RECORD, record(choice()))
        async with running(resolver_at(server, QUICK), sink):
            await sink.until(lambda: sink.updates)
            server.fail(RECORD, fault)
            server.set(NAME, "10.0.0.2")
            await sink.until(lambda: sink.hosts == ["10.0.0.2"] and sink.errors)
            assert config_of(sink) == ROUND_ROBIN
            message = str(sink.errors[0])
            assert message.startswith(f"the service config could not be read ({RECORD}: ")
            assert message.endswith("the one before stays")
            server.heal(RECORD)
            server.describe(RECORD, record(choice(RANDOM)))
            await sink.until(lambda: config_of(sink) == RANDOM)
        assert sink.order[-1] == "update"

    async def test_a_failure_from_the_start(self, server: FaultyDns, sink: Recorder) -> None:
        server.set(NAME, "10.0.0.1")
        server.fail(RECORD, Fault.DROP)
        async with running(resolver_at(server, QUICK), sink):
            await sink.until(lambda: sink.errors)
            asked = len(server.asked(NAME))
            await sink.until(lambda: len(server.asked(NAME)) > asked)
        assert sink.order == ["update", "fail"]
        assert sink.hosts == ["10.0.0.1"]
        assert "there is none before it" in str(sink.errors[0])

    async def test_addresses_wait_a_second_at_most(self, server: FaultyDns, sink: Recorder) -> None:
        server.set(NAME, "10.0.0.1")
        server.fail(RECORD, Fault.DROP)
        patient = DnsConfig(timeout_s=30.0, service_config=True)
        start_s = anyio.current_time()
        async with running(resolver_at(server, patient), sink):
            await sink.until(lambda: sink.updates)
        assert SECOND_ANSWER_S <= anyio.current_time() - start_s < SECOND_ANSWER_S + SLACK_S
        assert str(sink.errors[0]).startswith(
            "the service config could not be read (_grpc_config.greeter.test: no answer"
        )

    async def test_a_record_that_cannot_be_read_is_reported_once(self, server: FaultyDns, sink: Recorder) -> None:
        server.set(NAME, "10.0.0.1")
        server.describe(RECORD, record(choice()))
        async with running(resolver_at(server), sink):
            await sink.until(lambda: sink.updates)
            server.describe(RECORD, "grpc_config=[{")
            await sink.until(lambda: sink.errors)
            asked = len(server.asked(RECORD, "TXT"))
            await sink.until(lambda: len(server.asked(RECORD, "TXT")) > asked + 2)
        assert sink.order == ["update", "update", "fail"]
        assert config_of(sink) == ROUND_ROBIN
        assert "this is no JSON" in str(sink.errors[0])

    async def test_addresses_that_fail_are_reported_as_ever(self, server: FaultyDns, sink: Recorder) -> None:
        server.set(NAME, "10.0.0.1")
        server.describe(RECORD, record(choice()))
        async with running(resolver_at(server), sink):
            await sink.until(lambda: sink.updates)
            server.fail(NAME, Fault.SERVFAIL)
            await sink.until(lambda: sink.errors)
            server.heal(NAME)
            await sink.until(lambda: len(sink.updates) == 2)
        assert "no address for" in str(sink.errors[0])
        assert config_of(sink) == ROUND_ROBIN

    async def test_the_sooner_ttl_counts(self, server: FaultyDns, sink: Recorder) -> None:
        patient = DnsConfig(min_ttl_s=0.05, service_config=True)
        server.set(NAME, "10.0.0.1", ttl_s=30)
        server.describe(RECORD, record(choice()), ttl_s=0)
        async with running(resolver_at(server, patient), sink):
            await sink.until(lambda: len(server.asked(RECORD, "TXT")) > 2)
        assert sink.updates[0].ttl_s == 0.0
        assert len(server.asked(NAME)) >= 2

    async def test_a_name_in_the_hosts_file_is_not_asked_for(
        self, server: FaultyDns, sink: Recorder, tmp_path: Path
    ) -> None:
        (tmp_path / "hosts").write_text(f"10.0.0.9 {NAME}\n")
        (tmp_path / "resolv.conf").write_text(f"nameserver [127.0.0.1]:{server.port}\n")
        server.describe(RECORD, record(choice()))
        resolver = DnsResolver(
            parse_target(f"dns:///{NAME}:50051"),
            FAST,
            hosts=HostsFile(tmp_path / "hosts"),
            resolv_conf=str(tmp_path / "resolv.conf"),
        )
        async with running(resolver, sink):
            await sink.until(lambda: sink.updates)
        assert sink.hosts == ["10.0.0.9"]
        assert server.queries == []

    async def test_a_machine_without_name_servers_is_reported_as_ever(self, sink: Recorder) -> None:
        resolver = DnsResolver(parse_target("dns:///greeter.test:1"), FAST, resolv_conf="/nowhere")
        async with running(resolver, sink):
            await sink.until(lambda: sink.errors)
        assert "gives no usable DNS server" in str(sink.errors[0])

    async def test_a_name_that_is_too_long_with_the_prefix(self, server: FaultyDns, sink: Recorder) -> None:
        name = ".".join(["a" * 60] * 4)  # 243 characters, and 13 more
        server.set(name, "10.0.0.1")
        resolver = DnsResolver(parse_target(f"dns://{server.address}/{name}.:50051"), FAST)
        async with running(resolver, sink):
            await sink.until(lambda: sink.errors)
        assert sink.hosts == ["10.0.0.1"]

    async def test_the_host_of_a_service_has_one_too(self, server: FaultyDns, sink: Recorder) -> None:
        server.serve(f"_grpc._tcp.{NAME}", (0, 1, 50051, "a.test"))
        server.set("a.test", "10.0.0.1")
        server.describe(RECORD, record(choice()))
        resolver = SrvResolver(parse_service(f"//{server.address}/_grpc._tcp.{NAME}."), FAST)
        async with running(resolver, sink):
            await sink.until(lambda: sink.updates)
        assert sink.hosts == ["10.0.0.1"]
        assert config_of(sink) == ROUND_ROBIN


def test_a_service_that_is_asked_for_by_its_target() -> None:
    resolver = make_resolver(parse_target("srv:///_grpc._tcp.greeter.test"), Config(dns=FAST))
    assert isinstance(resolver, SrvResolver)
    asked = resolver.record()
    assert asked is not None
    assert asked.name == RECORD


@pytest.fixture
def dnsmasq(tmp_path: Path) -> Iterator[Dnsmasq]:
    long = {**ROUND_ROBIN, "methodConfig": [{"name": [{"service": f"s{number}"}]} for number in range(LONG)]}
    records = {RECORD: record(choice()), f"_grpc_config.long.{NAME}": record(choice(long))}
    lines = []
    for name, text in records.items():
        quoted = text.replace("\\", "\\\\").replace('"', '\\"')
        lines.append(f'txt-record={name},"{quoted}"\n')
    (tmp_path / "txt").write_text("".join(lines))
    with Dnsmasq(tmp_path, 1, f"--conf-file={tmp_path / 'txt'}") as running_one:
        yield running_one


@pytest.mark.anyio
@pytest.mark.skipif(DNSMASQ is None, reason="dnsmasq is not installed (Debian package dnsmasq-base)")
class TestDnsmasq:
    async def test_a_record_of_one_string(self, dnsmasq: Dnsmasq, sink: Recorder) -> None:
        dnsmasq.set(greeter=["10.0.0.1"])
        async with running(self.resolver(dnsmasq, NAME), sink):
            await sink.until(lambda: sink.updates)
        assert config_of(sink) == ROUND_ROBIN

    async def test_a_record_of_many_strings(self, dnsmasq: Dnsmasq, sink: Recorder) -> None:
        """255 bytes are the most of one string, and 512 of a datagram; this one has more."""
        dnsmasq.set(**{"long.greeter": ["10.0.0.1"]})
        async with running(self.resolver(dnsmasq, f"long.{NAME}"), sink):
            await sink.until(lambda: sink.updates)
        config = config_of(sink)
        assert isinstance(config, dict)
        assert len(config["methodConfig"]) == LONG
        assert sink.errors == []

    async def test_a_name_without_one(self, dnsmasq: Dnsmasq, sink: Recorder) -> None:
        dnsmasq.set(other=["10.0.0.1"])
        async with running(self.resolver(dnsmasq, "other.test"), sink):
            await sink.until(lambda: sink.updates)
        assert config_of(sink) is None
        assert sink.errors == []
        assert dnsmasq.count("_grpc_config.other.test", "TXT") == 1

    def resolver(self, dnsmasq: Dnsmasq, name: str) -> DnsResolver:
        return DnsResolver(
            parse_target(f"dns://127.0.0.1:{dnsmasq.port}/{name}.:50051"), DnsConfig(service_config=True)
        )
