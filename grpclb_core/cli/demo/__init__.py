"""`grpclb demo`: the main job on an embedded default, shown beside gRPC's own round_robin.

Six real grpc.aio servers run as child processes: one is ten times slower, one is killed half-way and comes back, one
is added late. The same load goes through both balancers. What makes the comparison fair:

* Each balancer has a fleet of its own, so that neither stands in the queues of the other. To be light, a server
  process plays its part in both fleets: it listens on two ports, with separate slots and the same seeded service
  times behind each, and is killed for both at once.
* Both clients share one process and one event loop; what else the machine does hits both alike.
* The load is open: calls start at a fixed rate, whatever became of those before, and the time of each counts from when
  it was due, so a stalled client or server cannot hide its delay.
* Both look up the same name over DNS, with a TTL of one second. The late server is added before anything breaks,
  because gRPC looks a name up again after a connection broke.

Read `run.py` first. `script.py` says who the servers are and what happens when, `server.py` is one server,
`fleet.py` starts and kills them, `names.py` is the DNS server, `load.py` makes the calls, `result.py` sums them up,
`view.py` shows them as they happen, `report.py` and `picture.py` at the end.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .options import DEFAULT_RATE, DEFAULT_SECONDS, DEFAULT_SEED, parse_options

if TYPE_CHECKING:
    # What argparse returns from `add_subparsers`, which has no public name.
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]

__all__ = ["add_parser"]


def add_parser(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "demo",
        help="compare this library with gRPC's round_robin on six local servers",
        description="Start six local gRPC servers (one slow, one restarting, one added late), send the same load "
        "through gRPC's own round_robin and through this library, and compare.",
    )
    # Numbers stay text here: `parse_options` reads them, and reports all that is wrong at once.
    parser.add_argument("--seconds", default=DEFAULT_SECONDS, help="length of the load (default: %(default)s)")
    parser.add_argument("--rate", default=DEFAULT_RATE, help="calls per second to each side (default: %(default)s)")
    parser.add_argument("--policy", metavar="NAME", help="policy of this library (default: its own default)")
    parser.add_argument("--seed", default=DEFAULT_SEED, help="seed of service times and draws (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON, and all else to stderr")
    parser.add_argument("--picture", default="demo.svg", metavar="PATH", help="where to draw the result (%(default)s)")
    parser.add_argument("--no-picture", action="store_const", const=None, dest="picture", help="draw nothing")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    options = parse_options(vars(arguments))
    from .run import run  # the servers import this package too, and need none of it

    return run(options)
