"""What no sound name server sends: the last good set stays, the fault is reported, nothing grows."""

from __future__ import annotations

import asyncio
import socket
import struct
import tracemalloc

import anyio
import anyio.to_thread
import pytest
from dnslib import AAAA, CNAME, QTYPE, RD, RR, SRV, TXT, A, DNSQuestion, DNSRecord
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grpclb_core.config import DnsConfig
from grpclb_core.resolve import parse_target
from grpclb_core.resolve.dns.exchange import is_modest
from grpclb_core.resolve.dns.lookup import RECORD_TYPES, Lookup, look_up
from grpclb_core.resolve.dns.resolvconf import DnsSettings
from grpclb_core.resolve.dns.resolver import DnsResolver
from grpclb_core.types import Address
from support.dns import Fault, FaultyDns
from support.recorder import Recorder

NAME = "greeter.test"
FAST = DnsConfig(min_ttl_s=0.05, max_ttl_s=0.1, max_backoff_s=0.1, timeout_s=0.6, max_queries_per_minute=100_000)


def resolver_at(server: FaultyDns) -> DnsResolver:
    return DnsResolver(parse_target(f"dns://{server.address}/{NAME}.:50051"), FAST, rng=lambda: 0.5)


async def asked(server: FaultyDns, *record_types: str, timeout_s: float = 5.0) -> Lookup:
    machine = DnsSettings(servers=(Address("127.0.0.1", server.port),))
    config = DnsConfig(timeout_s=timeout_s, max_queries_per_minute=1_000_000)
    return await look_up(f"{NAME}.", record_types or RECORD_TYPES, machine, config)


def endless(server: FaultyDns) -> None:
    server.alias(NAME, "loop.test")
    server.alias("loop.test", NAME)


def self_alias(server: FaultyDns) -> None:
    server.alias(NAME, NAME)


def long_chain(server: FaultyDns) -> None:
    server.alias(NAME, "link0.test")
    for number in range(30):
        server.alias(f"link{number}.test", f"link{number + 1}.test")
    server.set("link30.test", "10.0.0.9")


@pytest.mark.anyio
@pytest.mark.parametrize("spoil", [endless, self_alias, long_chain])
async def test_endless_aliases(server: FaultyDns, sink: Recorder, spoil: object) -> None:
    server.set(NAME, "10.0.0.1")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(resolver_at(server).run, sink)
        await sink.until(lambda: sink.updates)
        assert callable(spoil)
        spoil(server)
        await sink.until(lambda: len(sink.errors) >= 2)
        assert len(sink.updates) == 1
        server.set(NAME, "10.0.0.1")
        await sink.until(lambda: len(sink.updates) == 2)
        tasks.cancel_scope.cancel()
    assert "chain is too long" in str(sink.errors[0])


@pytest.mark.anyio
async def test_an_alias_that_leads_nowhere_is_empty(server: FaultyDns) -> None:
    server.alias(NAME, "nowhere.test")
    lookup = await asked(server)
    assert not lookup.found
    assert not lookup.failures
    assert "greeter.test. has no such record" in lookup.reason


@pytest.mark.anyio
@pytest.mark.parametrize("fault", [Fault.MALFORMED, Fault.WRONG_ID, Fault.WRONG_QUESTION])
async def test_what_is_no_answer_is_not_taken_for_one(server: FaultyDns, fault: Fault) -> None:
    """Such a datagram may be forged: the true answer is waited for, in vain here."""
    server.set(NAME, "10.0.0.1")
    server.fail(NAME, fault)
    lookup = await asked(server, timeout_s=0.3)
    assert not lookup.found
    assert f"no usable answer from 127.0.0.1:{server.port} in 0.3 s" in lookup.reason


@pytest.mark.anyio
@pytest.mark.parametrize("fault", [Fault.TRUNCATED, Fault.CUT_OFF])
async def test_a_fault_of_tcp_is_no_part_of_an_answer(server: FaultyDns, fault: Fault) -> None:
    server.set(NAME, "10.0.0.1")
    server.fail(NAME, fault)
    lookup = await asked(server)
    assert not lookup.found
    assert set(lookup.failures) == {"A", "AAAA"}
    assert "127.0.0.1" in lookup.reason


@pytest.mark.anyio
async def test_the_most_that_a_message_holds(server: FaultyDns, sink: Recorder) -> None:
    hosts = [f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(4090)]
    server.set(NAME, *hosts, ttl_s=30)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(DnsResolver(parse_target(f"dns://{server.address}/{NAME}.:1"), DnsConfig()).run, sink)
        await sink.until(lambda: sink.updates)
        tasks.cancel_scope.cancel()
    assert len(sink.updates[0].endpoints) == 4090


@pytest.mark.anyio
async def test_ten_thousand_records_do_not_fit_and_leave_the_set(server: FaultyDns, sink: Recorder) -> None:
    server.set(NAME, "10.0.0.1")
    config = DnsConfig(min_ttl_s=0.05, max_ttl_s=0.1, max_backoff_s=0.1, timeout_s=5.0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(DnsResolver(parse_target(f"dns://{server.address}/{NAME}.:1"), config).run, sink)
        await sink.until(lambda: sink.updates)
        server.set(NAME, *(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(10_000)))
        await sink.until(lambda: sink.errors)
        tasks.cancel_scope.cancel()
    assert len(sink.updates) == 1


def hostile(query_reply: bytes, record_type: int, data: bytes) -> bytes:
    """A message of 64 KiB whose question is followed by records of the root, with this data each."""
    longest = b"\x01a" * 126 + b"\0"
    end = query_reply.index(b"\0", 12) + 5
    head = query_reply[:end] + struct.pack("!HHHIH", 0xC000 | 12, 16, 1, 0, len(longest)) + longest
    names_at = struct.pack("!H", 0xC000 | (end + 12))
    record = struct.pack("!HHIH", record_type, 1, 7, len(data.replace(b"@@", names_at)))
    record = names_at + record + data.replace(b"@@", names_at)
    count = (65_535 - len(head)) // len(record)
    counts = struct.pack("!4H", 1, count + 1, 0, 0)
    return head[:2] + b"\x81\x80" + counts + head[12:] + record * count


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("record_type", "data"),
    [
        (5, b"@@"),
        (33, b"\0" * 6 + b"@@"),
        (6, b"@@@@" + b"\0" * 20),
        (55, b"\0\1\0\1aa" + b"@@" * 3000),
        (1, b"\x0a\0\0\1"),
    ],
    ids=["CNAME", "SRV", "SOA", "HIP", "A"],
)
async def test_a_message_made_to_be_slow_holds_nothing_up(server: FaultyDns, record_type: int, data: bytes) -> None:
    """dnspython alone would take ten seconds and more for some of them."""
    server.set(NAME, "10.0.0.1")
    server.mangle = lambda whole: hostile(whole, record_type, data)
    start_s = anyio.current_time()
    lookup = await asked(server, "A")
    assert anyio.current_time() - start_s < 2.0
    assert "its answer over TCP cannot be used" in lookup.failures["A"]


@given(
    st.lists(
        st.sampled_from([A("10.0.0.1"), AAAA("2001:db8::1"), CNAME("b.test"), SRV(1, 2, 3, "c.d.test"), TXT("text")]),
        max_size=30,
    ),
    st.integers(0, 40),
)
def test_sound_messages_are_modest_wherever_they_end(records: list[RD], cut: int) -> None:
    message = DNSRecord(q=DNSQuestion("greeter.default.svc.test"))
    for record in records:
        message.add_answer(RR("greeter.default.svc.test", QTYPE.reverse[type(record).__name__], rdata=record))
        message.add_ar(RR("other.test", QTYPE.A, rdata=A("10.0.0.2")))
    wire = message.pack()
    assert is_modest(wire)
    assert is_modest(wire[: len(wire) - cut])


@given(st.binary(max_size=100), st.integers(0, 3), st.integers(0, 3))
def test_any_bytes_are_judged(tail: bytes, questions: int, records: int) -> None:
    is_modest(tail)
    is_modest(struct.pack("!HHHHHH", 1, 0, questions, records, 0, 0) + tail)


def test_a_pointer_to_itself_is_not_modest() -> None:
    assert not is_modest(struct.pack("!HHHHHH", 1, 0, 1, 0, 0, 0) + struct.pack("!H", 0xC000 | 12))


@pytest.mark.anyio
async def test_the_true_answer_is_found_among_forged_ones() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as name_server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger,
    ):
        name_server.bind(("127.0.0.1", 0))
        server = Address(*name_server.getsockname())

        def serve() -> None:
            wire, client = name_server.recvfrom(4096)
            reply = DNSRecord.parse(wire).reply()
            reply.add_answer(RR(NAME, QTYPE.A, rdata=A("10.0.0.66"), ttl=7))
            stranger.sendto(reply.pack(), client)
            for number in range(20):
                name_server.sendto(bytes([number]) * number, client)
            reply.header.id ^= 1
            name_server.sendto(reply.pack(), client)
            reply.header.id ^= 1
            reply.rr[0].rdata = A("10.0.0.1")
            name_server.sendto(reply.pack(), client)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, serve)
            lookup = await look_up(f"{NAME}.", ("A",), DnsSettings(servers=(server,)), DnsConfig())
    assert lookup.answers["A"].addresses == ("10.0.0.1",)


def altered(whole: bytes, cut: int, changes: list[tuple[int, int]]) -> bytes:
    """A message with some of its bytes changed and its end missing, its id as it was."""
    spoilt = bytearray(whole)
    for position, value in changes:
        spoilt[2 + position % (len(spoilt) - 2)] = value
    return bytes(spoilt[: max(2, len(spoilt) - cut)])


@pytest.mark.parametrize("record_type", ["A", "SRV"])
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cut=st.integers(0, 20) | st.just(0),
    changes=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=6),
    tail=st.binary(max_size=40),
)
def test_any_bytes_give_an_answer_or_a_reason(
    server: FaultyDns, record_type: str, cut: int, changes: list[tuple[int, int]], tail: bytes
) -> None:
    if record_type == "A":
        server.alias(NAME, "end.test", ttl_s=7)
        server.set("end.test", "10.0.0.1", "10.0.0.2", ttl_s=7)
    else:
        server.serve(NAME, (1, 2, 3, "a.test"), (0, 0, 65535, "b.test"), ttl_s=7)
    server.mangle = lambda whole: altered(whole, cut, changes) + tail
    lookup = asyncio.run(asked(server, record_type))
    (answer,) = lookup.answers.values() or [None]
    if answer is None:
        assert lookup.failures[record_type]
    else:
        assert answer.addresses or answer.services or answer.why_empty
        assert answer.ttl_s >= 0


@pytest.mark.anyio
async def test_memory_stays_bounded(server: FaultyDns, anyio_backend_name: str) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("what is kept does not depend on the event loop")
    server.set(NAME, *(f"10.0.{n >> 8}.{n & 255}" for n in range(500)))
    for fault in [None, Fault.SERVFAIL, Fault.CUT_OFF] * 3:  # what is made once, is made now
        if fault:
            server.fail(NAME, fault)
        await asked(server)
        server.heal(NAME)
    tracemalloc.start()
    try:
        before = tracemalloc.take_snapshot()
        for _ in range(10):
            for fault in [None, Fault.SERVFAIL, Fault.CUT_OFF]:
                if fault:
                    server.fail(NAME, fault)
                await asked(server)
                server.heal(NAME)
        server.queries.clear()
        grown = sum(entry.size_diff for entry in tracemalloc.take_snapshot().compare_to(before, "filename"))
    finally:
        tracemalloc.stop()
    assert grown < 1_000_000  # one answer is 500 addresses of 60 bytes, and there were thirty of them
