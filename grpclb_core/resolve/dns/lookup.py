"""Asks DNS for the records of a name, once. The only module that imports dnspython.

`look_up` is the way in. Lookups that are the same and happen at the same time are one (flights.py); how often a name
server is asked for a name has a ceiling (pace.py); a name server that was silent is asked after the others.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping
from typing import Any

import anyio
import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.message
import dns.nameserver
import dns.rdataclass
import dns.rdatatype
import dns.resolver
import msgspec

from ...config import DnsConfig
from ...types import Address
from . import exchange
from .flights import shared
from .pace import Pace
from .resolvconf import DnsSettings, candidates

RECORD_TYPES = ("A", "AAAA")
SECOND_ANSWER_S = 1.0
"""How long the second record type may keep a good first answer waiting. RFC 8305 gives it 0.05 s, but wants one
address only; we want all, and no more than this delay where a firewall swallows every AAAA query."""
SILENT_S = 30.0
"""How long a name server that let a query time out is asked after the others, so that a dead first one does not hold up
every lookup. It is what C-core waits between two lookups."""
MAX_SILENT = 1024  # name servers remembered as silent; a machine has three
QUERIES_A_TYPE = 2
"""Queries there must be room for before a lookup begins: one may be asked once more, over TCP or after silence."""

_pace = Pace()
_silent_until_s: dict[Address, float] = {}


class Service(msgspec.Struct, frozen=True, order=True):
    """One SRV record (RFC 2782)."""

    priority: int
    weight: int
    port: int
    target: str
    """A full name in lower case, with its final dot."""


class Answer(msgspec.Struct, frozen=True):
    """The records of one type; none of them, with the reason, when the name or the type does not exist."""

    addresses: tuple[str, ...]
    ttl_s: float
    """The smallest TTL of the records and of the aliases (CNAME) that led to them."""
    why_empty: str = ""
    services: tuple[Service, ...] = ()
    """What SRV has in place of addresses."""
    texts: tuple[str, ...] = ()
    """What TXT has in place of addresses, the strings of a record put together."""
    glue: Mapping[str, Mapping[str, Answer]] = {}
    """Addresses that came along with services: by name, then by record type."""


class Lookup(msgspec.Struct, frozen=True):
    """What became of one lookup: for each record type either an answer or the reason of the failure."""

    answers: Mapping[str, Answer]
    failures: Mapping[str, str]

    @property
    def found(self) -> bool:
        return any(map(_has_records, self.answers.values()))

    @property
    def ttl_s(self) -> float:
        """The smallest TTL of what was found; a type without records has a say only when nothing was."""
        answers = self.answers.values()
        return min(answer.ttl_s for answer in answers if _has_records(answer) or not self.found)

    @property
    def reason(self) -> str:
        """Why there is nothing, in one line."""
        empty = {name: answer.why_empty for name, answer in self.answers.items() if answer.why_empty}
        return "; ".join(f"{name}: {text}" for name, text in sorted({**empty, **self.failures}.items()))


def _has_records(answer: Answer) -> bool:
    return bool(answer.addresses or answer.services or answer.texts)


async def look_up(name: str, record_types: tuple[str, ...], settings: DnsSettings, config: DnsConfig) -> Lookup:
    """Ask for all record types at once, for at most `config.timeout_s` seconds.

    It begins when the ceiling on queries allows; that wait is not part of the time.
    """
    key = (name.lower(), record_types, settings, config.timeout_s, config.max_queries_per_minute)
    return await shared(key, lambda: _look_up(name, record_types, settings, config))


async def _look_up(name: str, record_types: tuple[str, ...], settings: DnsSettings, config: DnsConfig) -> Lookup:
    names = candidates(name, settings)
    await _room(names, QUERIES_A_TYPE * len(record_types), settings, config)
    answers: dict[str, Answer] = {}
    servers = ", ".join(str(server) for server in settings.servers)
    failures = dict.fromkeys(record_types, f"no usable answer from {servers} in {config.timeout_s:g} s")
    with anyio.move_on_after(config.timeout_s) as scope:

        async def ask(record_type: str) -> None:
            try:
                answer = answers[record_type] = await _ask(names, record_type, settings, config)
            except (dns.exception.DNSException, OSError, ValueError) as error:
                failures[record_type] = str(error) or type(error).__name__
                return
            del failures[record_type]
            if answer.addresses:
                scope.deadline = min(scope.deadline, anyio.current_time() + SECOND_ANSWER_S)

        async with anyio.create_task_group() as tasks:
            for record_type in record_types:
                tasks.start_soon(ask, record_type)
    return Lookup(answers, failures)


async def _room(names: tuple[str, ...], count: int, settings: DnsSettings, config: DnsConfig) -> None:
    """Wait until every name server may be asked `count` times for every name."""
    pairs = [(server, name.lower()) for server in settings.servers for name in names]
    while True:
        wait_s = max(_pace.wait_s(pair, count, config.max_queries_per_minute) for pair in pairs)
        if not wait_s:
            return
        await anyio.sleep(wait_s)


async def _ask(names: tuple[str, ...], record_type: str, settings: DnsSettings, config: DnsConfig) -> Answer:
    # Left to itself, dnspython settles on the kind of event loop it saw first, for good.
    backend = dns.asyncbackend.get_backend(dns.asyncbackend.sniff())
    for name in names:
        client = _client(settings, config)
        try:
            answer = await client.resolve(
                name, record_type, tcp=settings.tcp, raise_on_no_answer=False, search=False, backend=backend
            )
        except dns.resolver.NXDOMAIN:
            continue
        # A name that exists ends the search, whatever records it has: else A and AAAA might end at different names.
        return _read(answer, record_type)
    return Answer((), 0.0, f"the name does not exist: {', '.join(names)}")


def _client(settings: DnsSettings, config: DnsConfig) -> dns.asyncresolver.Resolver:
    client = dns.asyncresolver.Resolver(configure=False)
    servers = list(settings.servers)
    if settings.rotate:
        random.shuffle(servers)
    servers.sort(key=_is_silent)
    client.nameservers = [_NameServer(server, config.max_queries_per_minute) for server in servers]
    client.lifetime = math.inf  # it would be measured on the wall clock, which jumps; the caller keeps the time
    client.timeout = min(settings.try_s, config.timeout_s / 2)  # a lost datagram leaves time for a second one
    if settings.edns:
        client.use_edns()
    return client


class _UselessError(OSError):
    """This name server is of no use to this lookup; dnspython goes on to the next after an OSError."""


class _NameServer(dns.nameserver.Do53Nameserver):
    """A name server that is not asked beyond the ceiling, and whose silence is remembered."""

    def __init__(self, server: Address, per_minute: int) -> None:
        super().__init__(server.host, server.port)
        self._server = server
        self._per_minute = per_minute

    async def async_query(
        self,
        request: dns.message.QueryMessage,
        timeout: float,
        source: str | None,
        source_port: int,
        max_size: bool,
        *args: Any,
        **options: Any,
    ) -> dns.message.Message:
        if not _pace.take((self._server, request.question[0].name.to_text().lower()), self._per_minute):
            raise _UselessError(f"asked max_queries_per_minute = {self._per_minute} times already")
        with anyio.move_on_after(timeout):
            reply = await self._exchange(request, over_tcp=max_size)
            _silent_until_s.pop(self._server, None)
            return reply
        _note_silence(self._server)
        raise dns.exception.Timeout

    async def _exchange(self, request: dns.message.QueryMessage, over_tcp: bool) -> dns.message.Message:
        query = request.to_wire()
        if not over_tcp:
            return await exchange.over_udp(self._server, query, lambda wire: _reply(request, wire))
        reply = _reply(request, await exchange.over_tcp(self._server, query))
        if reply is None:
            raise _UselessError("its answer over TCP cannot be used")
        return reply


def _reply(request: dns.message.QueryMessage, wire: bytes) -> dns.message.Message | None:
    """Decode a reply; None if it is none to this request, or cannot be decoded.

    Raises:
        dns.message.Truncated: it is one, and not all of it.
    """
    if wire[:2] != request.id.to_bytes(2, "big") or not exchange.is_modest(wire):
        return None
    try:
        reply = dns.message.from_wire(wire, raise_on_truncation=True)
    except dns.message.Truncated as error:
        truncated: Any = error  # its methods have no types
        if request.is_response(truncated.message()):
            raise
        return None
    except Exception:  # bytes from the network: whatever the decoder makes of them, they are no reply
        return None
    return reply if request.is_response(reply) else None


def _is_silent(server: Address) -> bool:
    return _silent_until_s.get(server, -math.inf) > time.monotonic()


def _note_silence(server: Address) -> None:
    if len(_silent_until_s) >= MAX_SILENT:
        _silent_until_s.clear()  # it costs a lookup some time, and nothing else
    _silent_until_s[server] = time.monotonic() + SILENT_S


def _read(answer: dns.resolver.Answer, record_type: str) -> Answer:
    ttl_s = float(answer.chaining_result.minimum_ttl)
    if not answer.rrset:
        return Answer((), ttl_s, f"{answer.qname} has no such record")
    if record_type == "TXT":
        texts = (b"".join(record.strings).decode(errors="replace") for record in answer)
        return Answer((), ttl_s, texts=tuple(sorted(texts)))
    if record_type != "SRV":
        return Answer(tuple(record.address for record in answer), ttl_s)
    services = tuple(
        sorted(
            Service(record.priority, record.weight, record.port, record.target.to_text().lower()) for record in answer
        )
    )
    return Answer((), ttl_s, services=services, glue=_glue(answer.response))


def _glue(message: dns.message.Message) -> dict[str, dict[str, Answer]]:
    glue: dict[str, dict[str, Answer]] = {}
    for records in message.additional:
        record_type = dns.rdatatype.to_text(records.rdtype)
        if record_type in RECORD_TYPES and records.rdclass == dns.rdataclass.IN:  # in other classes it is no address
            addresses = tuple(record.address for record in records)
            of_name = glue.setdefault(records.name.to_text().lower(), {})
            of_name[record_type] = Answer(addresses, float(records.ttl))
    return glue
