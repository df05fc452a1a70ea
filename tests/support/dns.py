"""DNS servers for tests: one that fails on demand, and a real dnsmasq."""

from __future__ import annotations

import getpass
import ipaddress
import os
import shutil
import signal
import socketserver
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from dnslib import AAAA, CNAME, QTYPE, RCODE, RR, SOA, SRV, TXT, A, DNSQuestion, DNSRecord

from support.ports import free_port

MAX_DATAGRAM = 512  # RFC 1035 4.2.1, for a query without EDNS
DNSMASQ = shutil.which("dnsmasq", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
MAX_STRING = 255  # RFC 1035 3.3: a byte in front of a string of TXT tells its size
MAX_MESSAGE = 65535  # RFC 1035 4.2.2: two bytes in front of a message over TCP tell its size
MAX_LINKS = 40  # of a chain of aliases that has no end
STARTED_WITHIN_S = 10.0


class Fault(Enum):
    """How a name misbehaves."""

    NXDOMAIN = "nxdomain"
    EMPTY = "empty"
    SERVFAIL = "servfail"
    REFUSED = "refused"
    DROP = "drop"
    MALFORMED = "malformed"
    """Bytes that are no message, after those of its id."""
    WRONG_ID = "wrong id"
    WRONG_QUESTION = "wrong question"
    TRUNCATED = "truncated"
    """The flag, over TCP too."""
    CUT_OFF = "cut off"
    """Truncated over UDP; over TCP the connection ends within the message."""


_RCODES = {Fault.NXDOMAIN: RCODE.NXDOMAIN, Fault.SERVFAIL: RCODE.SERVFAIL, Fault.REFUSED: RCODE.REFUSED}


class Query(NamedTuple):
    at_s: float
    name: str
    record_type: str
    over_tcp: bool


class FaultyDns:
    """An authoritative server on a free port of 127.0.0.1, over UDP and TCP, whose answers can be changed as it runs.

    Unknown names do not exist. Names are given without the final dot. Every query is kept in `queries`.
    """

    def __init__(self) -> None:
        self.queries: list[Query] = []
        self.mangle: Callable[[bytes], bytes] | None = None
        """Where given, changes each answer over TCP; those over UDP are truncated then."""
        self._records: dict[str, list[RR]] = {}
        self._glue: list[RR] = []
        self._faults: dict[tuple[str, str], Fault] = {}
        self._lock = threading.Lock()
        self._servers = _listen_twice(self)
        self.port: int = self._servers[0].server_address[1]

    def __enter__(self) -> FaultyDns:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    @property
    def address(self) -> str:
        """What stands between the slashes of `dns://server/name`."""
        return f"127.0.0.1:{self.port}"

    def set(self, name: str, *addresses: str, ttl_s: int = 0) -> None:
        """Give a name these A and AAAA records, and none beside."""
        with self._lock:
            self._records[name] = [_record(name, address, ttl_s) for address in addresses]

    def add(self, name: str, address: str, ttl_s: int = 0) -> None:
        """Give a name one record more."""
        with self._lock:
            self._records.setdefault(name, []).append(_record(name, address, ttl_s))

    def alias(self, name: str, other: str, ttl_s: int = 0) -> None:
        """Make a name a CNAME of another."""
        with self._lock:
            self._records[name] = [RR(name, QTYPE.CNAME, rdata=CNAME(other), ttl=ttl_s)]

    def serve(self, name: str, *services: tuple[int, int, int, str], ttl_s: int = 0) -> None:
        """Give a name these SRV records (priority, weight, port, target), and none beside."""
        with self._lock:
            self._records[name] = [RR(name, QTYPE.SRV, rdata=SRV(*service), ttl=ttl_s) for service in services]

    def describe(self, name: str, *texts: str, ttl_s: int = 0) -> None:
        """Give a name these TXT records, and none beside; a long one in strings of 255 bytes."""
        cut = [[text[at : at + MAX_STRING] for at in range(0, len(text), MAX_STRING)] for text in texts]
        with self._lock:
            self._records[name] = [RR(name, QTYPE.TXT, rdata=TXT(strings), ttl=ttl_s) for strings in cut]

    def come_along(self, name: str, *addresses: str, ttl_s: int = 0) -> None:
        """Add these addresses of a name to every answer with services."""
        with self._lock:
            self._glue += [_record(name, address, ttl_s) for address in addresses]

    def fail(self, name: str, fault: Fault, *record_types: str) -> None:
        """Let queries for a name go wrong: those of these types, or all."""
        with self._lock:
            for record_type in record_types or ("A", "AAAA", "SRV", "TXT"):
                self._faults[name, record_type] = fault

    def heal(self, name: str) -> None:
        """End the faults of a name."""
        with self._lock:
            self._faults = {key: fault for key, fault in self._faults.items() if key[0] != name}

    def asked(self, name: str, record_type: str = "A") -> list[Query]:
        """Give the queries for a name and type so far."""
        with self._lock:
            return [query for query in self.queries if (query.name, query.record_type) == (name, record_type)]

    def answer(self, wire: bytes, over_tcp: bool) -> bytes | None:
        """Give the reply to a message, over TCP with its size in front; None for silence."""
        request = DNSRecord.parse(wire)
        name, record_type = str(request.q.qname).rstrip(".").lower(), QTYPE[request.q.qtype]
        with self._lock:
            self.queries.append(Query(time.monotonic(), name, record_type, over_tcp))
            fault = self._faults.get((name, record_type))
            records = [] if fault is Fault.EMPTY else self._chain(name, record_type)
            known = name in self._records
        if fault is Fault.DROP:
            return None
        reply = request.reply()
        if fault in _RCODES:
            reply.header.rcode = _RCODES[fault]
        elif not (known or fault):
            reply.header.rcode = RCODE.NXDOMAIN
        else:
            reply.add_answer(*records)
            if record_type == "SRV":
                reply.add_ar(*self._glue)
        if not reply.rr:
            reply.add_auth(RR("test", QTYPE.SOA, rdata=SOA("ns.test", "admin.test", (1, 1, 1, 1, 0)), ttl=0))
        return self._over_tcp(reply, fault) if over_tcp else self._over_udp(reply, fault)

    def _over_udp(self, reply: DNSRecord, fault: Fault | None) -> bytes:
        packed = _packed(reply, fault)
        if len(packed) <= MAX_DATAGRAM and fault not in (Fault.TRUNCATED, Fault.CUT_OFF) and not self.mangle:
            return packed
        return _truncated(reply)

    def _over_tcp(self, reply: DNSRecord, fault: Fault | None) -> bytes:
        packed = _truncated(reply) if fault is Fault.TRUNCATED else _packed(reply, fault)
        if self.mangle:
            packed = self.mangle(packed)
        size = struct.pack("!H", min(len(packed), MAX_MESSAGE))
        return size + (packed[:20] if fault is Fault.CUT_OFF else packed)

    def _chain(self, name: str, record_type: str, links: int = 0) -> list[RR]:
        found = []
        for record in self._records.get(name, ()):
            if record.rtype == QTYPE.CNAME and links < MAX_LINKS:
                found += [record, *self._chain(str(record.rdata.label).rstrip("."), record_type, links + 1)]
            elif QTYPE[record.rtype] == record_type:
                found.append(record)
        return found


def _packed(reply: DNSRecord, fault: Fault | None) -> bytes:
    if fault is Fault.WRONG_ID:
        reply.header.id ^= 1
    elif fault is Fault.WRONG_QUESTION:
        reply.questions = [DNSQuestion("other.test", reply.q.qtype)]
    packed: bytes = reply.pack()
    return packed[:2] + b"\xff" * 30 if fault is Fault.MALFORMED else packed


def _truncated(reply: DNSRecord) -> bytes:
    reply.rr, reply.ar, reply.header.tc = [], [], 1
    packed: bytes = reply.pack()
    return packed


def _record(name: str, address: str, ttl_s: int) -> RR:
    if ipaddress.ip_address(address).version == 4:
        return RR(name, QTYPE.A, rdata=A(address), ttl=ttl_s)
    return RR(name, QTYPE.AAAA, rdata=AAAA(address), ttl=ttl_s)


class _Datagrams(socketserver.ThreadingUDPServer):
    daemon_threads = True
    dns: FaultyDns


class _Streams(socketserver.ThreadingTCPServer):
    daemon_threads = True
    dns: FaultyDns


class _DatagramHandler(socketserver.BaseRequestHandler):
    server: _Datagrams

    def handle(self) -> None:
        wire, reply_to = self.request
        reply = self.server.dns.answer(wire, over_tcp=False)
        if reply is not None:
            reply_to.sendto(reply, self.client_address)


class _StreamHandler(socketserver.StreamRequestHandler):
    server: _Streams

    def handle(self) -> None:
        size = self.rfile.read(2)
        if len(size) < 2:
            return
        reply = self.server.dns.answer(self.rfile.read(struct.unpack("!H", size)[0]), over_tcp=True)
        if reply is not None:
            self.wfile.write(reply)


def _listen_twice(dns: FaultyDns) -> tuple[_Datagrams, _Streams]:
    """Listen on one port over both transports; the port that is free for the one may be taken for the other."""
    for _ in range(20):
        datagrams = _Datagrams(("127.0.0.1", 0), _DatagramHandler)
        try:
            streams = _Streams(("127.0.0.1", datagrams.server_address[1]), _StreamHandler)
        except OSError:
            datagrams.server_close()
            continue
        datagrams.dns = streams.dns = dns
        return datagrams, streams
    raise OSError("no port of 127.0.0.1 was free for both UDP and TCP in 20 tries")


class Dnsmasq:
    """A real dnsmasq on a free port of 127.0.0.1, serving a hosts file whose records have one TTL.

    Check `DNSMASQ` first: it is None where dnsmasq is not installed. `options` are further ones of its command line.
    """

    def __init__(self, folder: Path, ttl_s: int, *options: str) -> None:
        self._hosts = folder / "records"
        self._version = 0
        self._write({})
        self._log = folder / "log"
        self.port = free_port()
        assert DNSMASQ is not None
        self._process = subprocess.Popen(
            [
                DNSMASQ,
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--pid-file=",
                f"--user={getpass.getuser()}",  # else it becomes a user who cannot read the records
                "--no-resolv",
                "--no-hosts",
                f"--port={self.port}",
                "--listen-address=127.0.0.1",
                "--bind-interfaces",
                "--local=/test/",
                f"--local-ttl={ttl_s}",
                f"--addn-hosts={self._hosts}",
                "--log-queries",
                f"--log-facility={self._log}",
                *options,
            ]
        )

    def __enter__(self) -> Dnsmasq:
        self._wait_until_served()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait(STARTED_WITHIN_S)

    def set(self, **records: list[str]) -> None:
        """Serve these names of the zone `test`, and no others, from the moment this returns."""
        self._write(records)
        self._process.send_signal(signal.SIGHUP)
        self._wait_until_served()

    def count(self, name: str, record_type: str = "A") -> int:
        """Count the queries for a name so far."""
        return self._log.read_text().count(f"query[{record_type}] {name} ")

    def _write(self, records: dict[str, list[str]]) -> None:
        # A name that tells this version of the file from the one before.
        self._version += 1
        lines = [f"127.0.0.1 version-{self._version}.test"]
        lines += [f"{address} {name}.test" for name, addresses in records.items() for address in addresses]
        self._hosts.write_text("\n".join(lines) + "\n")

    def _wait_until_served(self) -> None:
        question = DNSRecord.question(f"version-{self._version}.test")
        end_s = time.monotonic() + STARTED_WITHIN_S
        while time.monotonic() < end_s:
            assert self._process.poll() is None, f"dnsmasq ended:\n{self._log.read_text()}"
            try:
                if DNSRecord.parse(question.send("127.0.0.1", self.port, timeout=0.1)).rr:
                    return
            except OSError:
                pass  # not listening yet
            time.sleep(0.02)
        raise TimeoutError(f"dnsmasq does not serve version {self._version}:\n{self._log.read_text()}")
