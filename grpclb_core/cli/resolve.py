"""`grpclb resolve`: what does a target resolve to, now and from now on?"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from ..config import Config
from ..errors import ConfigError, ResolutionError
from ..resolve import Resolver, parse_target, resolver_for
from ..types import Resolution
from .check import config_of, read_document
from .resolutions import JsonPrinter, Printer, TextPrinter

# Exit status when a target cannot be resolved.
EXIT_UNRESOLVED = 1

# Longest silence that is waited through when nothing is said: twice the longest lookup of DNS (`DnsConfig.timeout_s`).
PATIENCE_S = 10.0

Report = Resolution | ResolutionError | None
"""What a resolver says; None once it has nothing more to say."""


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "resolve",
        help="print what a target resolves to",
        description="Print what a target resolves to. Exit with 1 if it cannot be resolved.",
    )
    parser.add_argument("target", metavar="TARGET", help="as for a channel: dns:///greeter:50051, file:///path.json")
    parser.add_argument("--watch", action="store_true", help="go on, and print every change as it comes")
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line, for machines")
    parser.add_argument(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="try for so long (default: the first answer counts, and silence of "
        f"{PATIENCE_S:g} s is one; with --watch, without end)",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="options of the resolver, JSON or TOML")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Resolve and print; return the exit status.

    Raises:
        ConfigError: the target, the config or an option cannot be used.
    """
    if options.timeout is not None and not 0 < options.timeout < math.inf:
        raise ConfigError(f"--timeout {options.timeout} is out of range; use a number of seconds above 0")
    config = _config(options.config)
    target = parse_target(options.target)
    printer: Printer = JsonPrinter(target.text) if options.json else TextPrinter(target.text)
    # Made inside, because a resolver may want a running event loop.
    make = partial(resolver_for, target, config)

    async def resolve() -> int:
        return await follow(make(), printer, options.watch, options.timeout)

    try:
        return anyio.run(resolve)
    except asyncio.CancelledError:  # what Python 3.10 makes of an interrupt
        raise KeyboardInterrupt from None


def _config(path: Path | None) -> Config:
    if path is None:
        return Config()
    try:
        return config_of(read_document(path))
    except ConfigError as error:
        raise ConfigError([f"{path}: {problem}" for problem in error.problems]) from None


async def follow(resolver: Resolver, printer: Printer, watch: bool, timeout_s: float | None) -> int:
    """Run a resolver and print what it says; return the exit status."""
    sending, receiving = anyio.create_memory_object_stream[Report](math.inf)
    async with sending, receiving, anyio.create_task_group() as tasks:
        tasks.start_soon(_report, resolver, sending)
        try:
            status = await _print(receiving, printer, watch, timeout_s)
        except BrokenPipeError:  # whoever read has enough; Python would say so once more when it flushes at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            status = 0
        tasks.cancel_scope.cancel()
    return status


async def _report(resolver: Resolver, reports: MemoryObjectSendStream[Report]) -> None:
    try:
        await resolver.run(_Sink(reports))
    except Exception as error:
        reports.send_nowait(ResolutionError(f"the resolver crashed with {type(error).__name__}: {error}"))
    reports.send_nowait(None)


class _Sink:
    def __init__(self, reports: MemoryObjectSendStream[Report]) -> None:
        self._reports = reports

    def update(self, resolution: Resolution) -> None:
        self._reports.send_nowait(resolution)

    def fail(self, error: ResolutionError) -> None:
        self._reports.send_nowait(error)


async def _print(
    reports: MemoryObjectReceiveStream[Report], printer: Printer, watch: bool, timeout_s: float | None
) -> int:
    """Print until everything asked for was said, or the time for a first set is over; return the exit status."""
    one_is_enough = timeout_s is None and not watch
    limit_s = PATIENCE_S if one_is_enough else timeout_s if timeout_s is not None else math.inf
    deadline_s = anyio.current_time() + limit_s
    shown: Resolution | None = None
    while True:
        report: Report = None
        with anyio.CancelScope(deadline=math.inf if shown else deadline_s) as scope:
            report = await reports.receive()
        if scope.cancelled_caught:
            printer.failed(f"no endpoints within {limit_s:g} s")
            return EXIT_UNRESOLVED
        if report is None:
            if shown is None:
                printer.failed("the resolver ended without endpoints")
            return EXIT_UNRESOLVED if shown is None else 0
        if isinstance(report, ResolutionError):
            printer.failed(str(report))
        elif report.endpoints or watch:
            printer.found(report, shown)
            shown = report
            if not watch:
                return 0
        else:
            printer.failed("the set is empty")
        if one_is_enough:
            return EXIT_UNRESOLVED
