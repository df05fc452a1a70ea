"""A DNS server for one name, small enough to run beside the clients.

Each side asks a server of its own, so that their lookups can be counted apart; the records are the same.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.rdatatype
import dns.rrset

NAME = "greeter.demo"
TTL_S = 1


class NameServer(asyncio.DatagramProtocol):
    """Answers every question with the addresses of the zone.

    Args:
        zone: the addresses; to add a server, append to it.
    """

    def __init__(self, zone: list[str]) -> None:
        self._zone = zone
        self.lookups = 0
        """Questions for IPv4 addresses; each lookup asks one."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    @property
    def port(self) -> int:
        port: int = self._transport.get_extra_info("sockname")[1]
        return port

    def target(self, port: int) -> str:
        """Return the target of the service on `port`, looked up here."""
        return f"dns://127.0.0.1:{self.port}/{NAME}:{port}"

    def datagram_received(self, wire: bytes, client: tuple[str, int]) -> None:
        try:
            question = dns.message.from_wire(wire)
            reply = dns.message.make_response(question)
        except dns.exception.DNSException:
            return  # not for us
        reply.flags |= dns.flags.AA
        for entry in question.question:
            if entry.rdtype == dns.rdatatype.A:
                self.lookups += 1
                reply.answer.append(dns.rrset.from_text_list(entry.name, TTL_S, "IN", "A", self._zone))
        self._transport.sendto(reply.to_wire(), client)


@contextlib.asynccontextmanager
async def name_server(zone: list[str]) -> AsyncIterator[NameServer]:
    """Serve the zone on a free port of 127.0.0.1."""
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: NameServer(zone), local_addr=("127.0.0.1", 0)
    )
    try:
        yield server
    finally:
        transport.close()
