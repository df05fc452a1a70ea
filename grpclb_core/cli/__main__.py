"""Reads the command line and runs the verb."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ..errors import GrpclbError
from . import bench, check, demo, resolve

VERBS = (demo, bench, resolve, check)

# sysexits.h: the command was used wrongly.
EXIT_USAGE = 64


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `grpclb` and return its exit status: 0, 1 for a failure, 64 for wrong use."""
    parser = argparse.ArgumentParser(prog="grpclb", description="Per-call load balancing for gRPC in Python.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb in VERBS:
        verb.add_parser(verbs)
    options = parser.parse_args(arguments)
    try:
        status: int = options.run(options)
    except GrpclbError as error:
        print(f"grpclb {options.verb}: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as shells report it
    return status


if __name__ == "__main__":
    sys.exit(main())
