"""Sends one DNS query to one name server and takes the reply, over UDP or TCP; what messages mean is for others.

dnspython has this too, but keeps every datagram that comes and decodes whatever it says: on an ordinary machine a
message of 64 KiB whose names are all long takes it ten seconds, in which the event loop does nothing else. Read
`is_modest` first, which is pure.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import TypeVar

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream

from ...types import Address

ReplyT = TypeVar("ReplyT")

MAX_DATAGRAM = 4096
"""Bytes taken of one datagram. A query allows 512 of them (RFC 1035), or the 1232 of dnspython's EDNS."""
MAX_LABELS = 32_768
"""Labels of all the names in one message. 64 KiB hold 2 000 SRV records, whose names have 24 000 labels if each has
six; dnspython decodes about 100 000 a second."""
_LONGEST = 255  # RFC 1035 2.3.4: octets of a name, hence more than its labels and the pointers between them

# Where the data of a record have names, and how many; by the number of its type (RFC 1035, 2782, 4034, 6672).
_NAMES = {2: (0, 1), 5: (0, 1), 6: (0, 2), 12: (0, 1), 15: (2, 1), 33: (6, 1), 39: (0, 1), 46: (18, 1), 47: (0, 1)}
# A, TXT, AAAA, OPT, DS, DNSKEY, NSEC3. Other types have no business in an answer, and some hold thousands of names.
_NAMELESS = frozenset({1, 16, 28, 41, 43, 48, 50})
_POINTER = 0xC0  # RFC 1035 4.1.4: where a length would stand, the two highest bits are set


async def over_udp(server: Address, query: bytes, accept: Callable[[bytes], ReplyT | None]) -> ReplyT:
    """Send a query and wait for the datagram that `accept` makes a reply of; any other may be forged.

    Raises:
        OSError: the server cannot be reached.
    """
    with socket.socket(_family(server), socket.SOCK_DGRAM) as opened:
        opened.setblocking(False)
        opened.connect((server.host, server.port))  # from now on the system drops what others send
        opened.send(query)
        while True:
            await anyio.wait_readable(opened)
            try:
                reply = accept(opened.recv(MAX_DATAGRAM))
            except BlockingIOError:
                continue  # its checksum was wrong: select(2)
            if reply is not None:
                return reply


async def over_tcp(server: Address, query: bytes) -> bytes:
    """Send a query and give the reply, whatever it is.

    Raises:
        OSError: the server cannot be reached, or ends the connection too early.
    """
    try:
        async with await anyio.connect_tcp(server.host, server.port) as stream:
            await stream.send(struct.pack("!H", len(query)) + query)
            incoming = BufferedByteReceiveStream(stream)
            (size,) = struct.unpack("!H", await incoming.receive_exactly(2))
            return await incoming.receive_exactly(size)
    except (anyio.IncompleteRead, anyio.EndOfStream, anyio.BrokenResourceError) as error:
        raise ConnectionError("the connection ended within the reply") from error


def _family(server: Address) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in server.host else socket.AF_INET


def is_modest(wire: bytes) -> bool:
    """Tell whether a message can be decoded in a fraction of a second; one that ends too early is judged so far."""
    try:
        questions, *counts = struct.unpack_from("!4H", wire, 4)
        at, left = 12, MAX_LABELS
        for _ in range(questions):
            at, left = _skip_name(wire, at, left)
            at += 4
        for _ in range(sum(counts)):
            at, left = _skip_name(wire, at, left)
            record_type, size = struct.unpack_from("!H6xH", wire, at)
            names_at, names = _NAMES.get(record_type, (0, 0))
            if not names and record_type not in _NAMELESS:
                return False
            at += 10
            name_at = at + names_at
            for _ in range(names):
                name_at, left = _skip_name(wire, name_at, left)
            at += size
    except (IndexError, struct.error):
        return True  # the decoder will refuse it, at this place
    except _TooLongError:
        return False
    return True


class _TooLongError(Exception):
    """There are more labels than a message, or a name, may have."""


def _skip_name(wire: bytes, at: int, left: int) -> tuple[int, int]:
    """Give where the name that begins at `at` ends, and how many of the `left` labels remain."""
    end = 0
    for steps in range(_LONGEST):
        size = wire[at]
        if size >= _POINTER:
            end = end or at + 2
            at = (size & ~_POINTER) << 8 | wire[at + 1]
        elif size == 0:
            if steps > left:
                break
            return end or at + 1, left - steps
        else:
            at += size + 1
    raise _TooLongError
