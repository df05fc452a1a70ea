"""Ports that nobody else is given, not even while their server is down.

What the kernel chose for one may be the next one's as soon as it is free: a connection's, or a server's of the tests
that run beside these. So these lie below what the kernel chooses from, and each process of tests has its own range.
"""

from __future__ import annotations

import itertools
import os
import random
import socket

FIRST = 10_000
COUNT = 2_000  # ten ranges of these end before 32768, where the kernel's begins (ip_local_port_range)

_first = FIRST + COUNT * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 10)
# In another order in each process, as another run may be under way.
_candidates = itertools.cycle(random.Random().sample(range(_first, _first + COUNT), COUNT))


def free_port() -> int:
    """Return a port that is free on every address, for TCP and UDP."""
    return next(filter(_is_free, itertools.islice(_candidates, COUNT)))


def _is_free(port: int) -> bool:
    with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagram:
        try:
            stream.bind(("", port))
            datagram.bind(("", port))
        except OSError:
            return False
    return True
