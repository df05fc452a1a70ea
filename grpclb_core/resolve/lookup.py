"""Asks DNS for the addresses of a name, once. The only module that imports dnspython.

The search list of resolv.conf applies, as it does for plain gRPC, so that `greeter.default.svc` works in a pod.
"""

from __future__ import annotations

import math

import anyio
import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.nameserver
import dns.resolver
import msgspec

from ..errors import ResolutionError
from ..types import Address

RESOLV_CONF = "/etc/resolv.conf"
RECORD_TYPES = ("A", "AAAA")
SECOND_ANSWER_S = 1.0
"""How long the second record type may keep a good first answer waiting. RFC 8305 gives it 0.05 s, but wants one
address only; we want all, and no more than this delay where a firewall swallows every AAAA query."""


class Answer(msgspec.Struct, frozen=True):
    """The records of one type; none of them, with the reason, when the name or the type does not exist."""

    addresses: tuple[str, ...]
    ttl_s: float
    """The smallest TTL of the records and of the aliases (CNAME) that led to them."""
    why_empty: str = ""


class Lookup(msgspec.Struct, frozen=True):
    """What became of one lookup: for each record type either an answer or the reason of the failure."""

    answers: dict[str, Answer]
    failures: dict[str, str]

    @property
    def found(self) -> bool:
        return any(answer.addresses for answer in self.answers.values())

    @property
    def ttl_s(self) -> float:
        """The smallest TTL of what was found; a type without records has a say only when nothing was."""
        answers = self.answers.values()
        return min(answer.ttl_s for answer in answers if answer.addresses or not self.found)

    @property
    def reason(self) -> str:
        """Why there are no addresses, in one line."""
        empty = {name: answer.why_empty for name, answer in self.answers.items() if answer.why_empty}
        return "; ".join(f"{name}: {text}" for name, text in sorted({**empty, **self.failures}.items()))


async def look_up(name: str, server: Address | None, timeout_s: float, resolv_conf: str = RESOLV_CONF) -> Lookup:
    """Ask for all record types at once, for at most `timeout_s` seconds.

    Raises:
        ResolutionError: the machine's DNS settings cannot be used.
    """
    # Read anew each time, as the machine may have moved to another network.
    client = _client(server, timeout_s, resolv_conf)
    answers: dict[str, Answer] = {}
    failures = dict.fromkeys(RECORD_TYPES, "no answer in time")
    with anyio.move_on_after(timeout_s) as scope:

        async def ask(record_type: str) -> None:
            try:
                answer = answers[record_type] = await _ask(client, name, record_type)
            except (dns.exception.DNSException, OSError, ValueError) as error:
                failures[record_type] = str(error) or type(error).__name__
                return
            del failures[record_type]
            if answer.addresses:
                scope.deadline = min(scope.deadline, anyio.current_time() + SECOND_ANSWER_S)

        async with anyio.create_task_group() as tasks:
            for record_type in RECORD_TYPES:
                tasks.start_soon(ask, record_type)
    return Lookup(answers, failures)


def _client(server: Address | None, timeout_s: float, resolv_conf: str) -> dns.asyncresolver.Resolver:
    try:
        client = dns.asyncresolver.Resolver(resolv_conf)
    except (dns.exception.DNSException, OSError, ValueError) as error:
        if server is None:
            advice = "repair it, or name a server as in dns://10.0.0.2/host:port"
            raise ResolutionError(f"{resolv_conf} gives no usable DNS server ({error}); {advice}") from error
        client = dns.asyncresolver.Resolver(configure=False)
    if server is not None:
        client.nameservers = [dns.nameserver.Do53Nameserver(server.host, server.port)]
    client.lifetime = math.inf  # it would be measured on the wall clock, which jumps; the caller keeps the time
    client.timeout = min(client.timeout, timeout_s / 2)  # a lost datagram leaves time for a second one
    return client


async def _ask(client: dns.asyncresolver.Resolver, name: str, record_type: str) -> Answer:
    # Left to itself, dnspython settles on the kind of event loop it saw first, for good.
    backend = dns.asyncbackend.get_backend(dns.asyncbackend.sniff())
    try:
        answer = await client.resolve(name, record_type, raise_on_no_answer=False, search=True, backend=backend)
    except dns.resolver.NXDOMAIN as error:
        return Answer((), 0.0, str(error))
    addresses = tuple(record.address for record in answer)
    why_empty = "" if addresses else f"{answer.qname} has no such record"
    return Answer(addresses, float(answer.chaining_result.minimum_ttl), why_empty)
