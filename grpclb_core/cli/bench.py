"""`grpclb bench`: what a pick and a call cost on this machine, as ratios to what else there is."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from . import quality

if TYPE_CHECKING:
    from .measure.report import Check, Section

# Exit status with --check when a budget is missed.
EXIT_MISSED = 1

# Rounds are short and many: what disturbs a machine then falls on few of them, and the median does not see those.
PICK_ROUNDS = 100
CALL_ROUNDS = 60
SLOW_ROUNDS = 20  # threads and rebuilds, whose readings are 10 ms long and more
CALLS = 300
CONCURRENCY = 8

Findings = tuple[list["Section"], list["Check"]]


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "bench", help="measure picks, whole calls and balance", description=__doc__.partition("\n")[0]
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="pick|call|quality")
    pick = kinds.add_parser("pick", help="pick + finish: policies, scaffolding, plain Python, threads, rebuild")
    pick.add_argument("--rounds", type=int, default=PICK_ROUNDS, help="rounds of the picks (default %(default)s)")
    pick.add_argument(
        "--slow-rounds", type=int, default=SLOW_ROUNDS, help="rounds of threads and rebuilds (default %(default)s)"
    )
    pick.add_argument("--sizes", type=int, nargs="+", default=[2, 16, 1_000, 10_000], help="numbers of endpoints")
    pick.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4], help="numbers of threads")
    pick.add_argument("--scaffold", type=Path, help="source of the scaffolding, if not run from a source tree")
    pick.set_defaults(measure=_pick)
    call = kinds.add_parser("call", help="client CPU of a unary call: this channel, interceptors, grpc.aio's own")
    call.add_argument("--rounds", type=int, default=CALL_ROUNDS, help="rounds (default %(default)s)")
    call.add_argument("--calls", type=int, default=CALLS, help="calls of one reading (default %(default)s)")
    call.add_argument("--concurrency", type=int, default=CONCURRENCY, help="calls at a time (default %(default)s)")
    call.set_defaults(measure=_call)
    quality.add_parser(kinds)
    for kind in (pick, call):
        kind.add_argument("--json", action="store_true", help="print JSON for machines")
        kind.add_argument("--check", action="store_true", help="exit with 1 if a budget is missed")
        kind.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Measure and print; return the exit status.

    Raises:
        ConfigError: an option is out of range.
    """
    _require_positive(options)
    # Loaded here, so that the other verbs do not pay for it.
    from .measure.machine import describe_machine
    from .measure.report import Report, to_json, to_text

    machine = describe_machine(_command(options))  # before, for the load average to be that of the others
    sections, checks = options.measure(options)
    report = Report(machine, sections, checks)
    print(to_json(report) if options.json else to_text(report))
    return EXIT_MISSED if options.check and not report.keeps_budgets else 0


def _pick(options: argparse.Namespace) -> Findings:
    from .measure.pick import measure_picks
    from .measure.rebuild import measure_rebuild
    from .measure.scaffold import load_scaffold
    from .measure.threads import measure_threads

    scaffold = load_scaffold(options.scaffold)
    if scaffold is None:
        print(
            "grpclb bench pick: the rows on scaffolding and on loops without the GIL are left out; they need the "
            "project's source tree (or --scaffold bench/native/scaffold.pyx), Cython, setuptools and a C compiler",
            file=sys.stderr,
        )
    sections, checks = measure_picks(options.sizes, options.rounds, scaffold)
    sections.append(measure_threads(options.threads, options.slow_rounds, scaffold))
    rebuild, rebuild_checks = measure_rebuild(options.slow_rounds, scaffold)
    return [*sections, rebuild], [*checks, *rebuild_checks]


def _call(options: argparse.Namespace) -> Findings:
    from .measure.call import measure_calls

    section, checks = measure_calls(options.rounds, options.calls, options.concurrency)
    return [section], checks


# Highest number an option takes; far past use, it keeps a slip of the finger from filling the memory.
MOST = {
    "rounds": 100_000,
    "slow_rounds": 100_000,
    "sizes": 1_000_000,
    "threads": 64,
    "calls": 1_000_000,
    "concurrency": 1_000,
}


def _require_positive(options: argparse.Namespace) -> None:
    problems = []
    for name, most in MOST.items():
        values = getattr(options, name, 1)
        for value in values if isinstance(values, list) else [values]:
            if not 1 <= value <= most:
                problems.append(f"--{name.replace('_', '-')} {value} is out of range; use 1 to {most}")
    if problems:
        raise ConfigError(problems)


def _command(options: argparse.Namespace) -> str:
    """Return the command that would repeat this run, without any path in it."""
    words = ["grpclb", "bench", options.kind]
    for name in MOST:
        value = getattr(options, name, None)
        if value is not None:
            values = value if isinstance(value, list) else [value]
            words += ["--" + name.replace("_", "-"), *map(str, values)]
    return " ".join(words)
