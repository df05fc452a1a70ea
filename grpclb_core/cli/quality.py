"""`grpclb bench quality`: policy against policy, on simulated fleets that misbehave."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .text import columns

POLICIES = ("p2c_ewma", "least_request", "round_robin")
SEEDS = 5
FIRST_SEED = 1
MOST_SEEDS = 1_000
MOST_JOBS = 256
EXIT_MISSED = 1


def add_parser(kinds: Any) -> None:
    """Add the kind of benchmark to `grpclb bench`."""
    parser: argparse.ArgumentParser = kinds.add_parser(
        "quality", help="tail latency and evenness, in simulation", description=__doc__.partition("\n")[0]
    )
    parser.add_argument(
        "scenarios", nargs="*", metavar="SCENARIO", help="a name of --list or a .json file; default: all"
    )
    parser.add_argument(
        "--policy",
        action="append",
        dest="policies",
        metavar="NAME[:OPTION=VALUE,...]",
        help="a policy to compare, may be given again (default: " + ", ".join(POLICIES) + ")",
    )
    parser.add_argument(
        "--seeds", type=int, default=SEEDS, help="runs of each, with seeds from 1 (default %(default)s)"
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="runs at the same time (default: one for each processor)"
    )
    parser.add_argument("--list", action="store_true", help="list the scenarios and stop")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a goal of a scenario is missed")
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the result as an SVG picture")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Simulate and print; return the exit status.

    Raises:
        ConfigError: a scenario, a policy or another option cannot be used, or the picture cannot be written.
    """
    from .measure import quality, quality_picture  # loaded here, so that the other verbs do not pay for it

    if options.list:
        print("\n".join(columns(quality.listing())))
        return 0
    _check(options)
    seeds = range(FIRST_SEED, FIRST_SEED + options.seeds)
    results = quality.measure(options.scenarios, options.policies or POLICIES, seeds, options.jobs, _progress())
    print(quality.to_json(results) if options.json else quality.to_text(results))
    if options.plot is not None:
        try:
            options.plot.write_text(quality_picture.draw(results), encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"--plot {options.plot}: {error.strerror or error}; give a file to write") from error
    missed = quality.missed(results) if options.check else []
    for line in missed:
        print(line, file=sys.stderr)
    return EXIT_MISSED if missed else 0


def _check(options: argparse.Namespace) -> None:
    problems = [
        f"--{name} {value} is out of range; use 1 to {most}"
        for name, value, most in (("seeds", options.seeds, MOST_SEEDS), ("jobs", options.jobs, MOST_JOBS))
        if not 1 <= value <= most
    ]
    if options.plot is not None and (options.plot.suffix != ".svg" or not options.plot.parent.is_dir()):
        problems.append(f"--plot {options.plot}: use a name that ends in .svg, in a folder that there is")
    if problems:
        raise ConfigError(problems)


def _progress() -> Callable[[str], None]:
    """Return what shows on a terminal how far the runs are."""
    if not sys.stderr.isatty():
        return lambda words: None
    return lambda words: print(f"\r\x1b[K{words}", end="", file=sys.stderr, flush=True)
