"""What is left to read when the run is over: a table, what follows from it, and the same as JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import TextIO

import msgspec

from .result import Result, SideResult
from .script import ADDED, LATE, SLOW

ALIKE = 1.1  # ratio of two percentiles up to which a run of seconds cannot tell them apart

# https://github.com/grpc/grpc/blob/master/doc/naming.md, and grpc.dns_min_time_between_resolutions_ms
WHY_NEVER = "gRPC looks a name up again only after a connection broke, and no sooner than 30 s after the last time"


def print_report(result: Result, stream: TextIO) -> None:
    """Print the table and the conclusion."""
    headings = ["", *(side.title for side in result.sides)]
    lines = _lines(result)
    print(file=stream)
    _table_printer(stream)(headings, lines, stream)
    print(f"\n{takeaway(result)}", file=stream)
    if result.round_robin.new_server_after_s is None:
        print(f"({WHY_NEVER}.)", file=stream)
    if result.busy_ms is not None:
        print(
            f"The machine was busy: the client itself started calls up to {_ms(result.busy_ms)} ms late (p99), and the "
            "latencies of both sides contain that. Run it again when less else is going on.",
            file=stream,
        )


def _table_printer(stream: TextIO) -> Callable[[list[str], list[list[str]], TextIO], None]:
    if stream.isatty():
        try:
            from .live import print_table
        except ImportError:  # rich is an extra
            return _print_text
        return print_table
    return _print_text


def as_json(result: Result) -> str:
    """Write the result as a JSON document."""
    document = msgspec.to_builtins(result) | {"takeaway": takeaway(result)}
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()


def takeaway(result: Result) -> str:
    """Say in one sentence what the numbers of this run amount to."""
    plain, ours = result.sides
    return (
        f"Through {ours.title} instead of {plain.title}, {_compare_p99(plain, ours)}; "
        f"{SLOW.name}, the slow server, got {ours.shares[SLOW.name]:.1%} of the calls "
        f"instead of {plain.shares[SLOW.name]:.1%}; "
        f"{_compare_failed(plain, ours)}; and the first answer of {LATE.name}, the new server, came "
        f"{_compare_newcomer(plain, ours)}."
    )


def figures(result: Result) -> list[list[str]]:
    """Return the rows of the short table: the name of a figure, then its value for each side."""
    plain, ours = result.sides
    return [
        ["p50", f"{_ms(plain.p50_ms)} ms", f"{_ms(ours.p50_ms)} ms"],
        ["p99", f"{_ms(plain.p99_ms)} ms", f"{_ms(ours.p99_ms)} ms"],
        ["p99.9", f"{_ms(plain.p999_ms)} ms", f"{_ms(ours.p999_ms)} ms"],
        ["failed calls", str(plain.failed), str(ours.failed)],
        ["new server answered", _new_server(plain), _new_server(ours)],
        ["DNS lookups", str(plain.dns_lookups), str(ours.dns_lookups)],
    ]


def _compare_p99(plain: SideResult, ours: SideResult) -> str:
    if not plain.p99_ms or not ours.p99_ms:
        return "p99 cannot be compared, for one side answered nothing"
    ratio = plain.p99_ms / ours.p99_ms
    verdict = f"{ratio:.1f} times lower" if ratio > 1 else f"{1 / ratio:.1f} times higher"
    if 1 / ALIKE < ratio < ALIKE:
        verdict = "about the same"
    return f"p99 was {_ms(ours.p99_ms)} ms instead of {_ms(plain.p99_ms)} ms ({verdict})"


def _compare_failed(plain: SideResult, ours: SideResult) -> str:
    failed = f"{ours.failed or 'no'} call{'' if ours.failed == 1 else 's'} failed"
    return f"{failed}, as many as there" if ours.failed == plain.failed else f"{failed} instead of {plain.failed}"


def _compare_newcomer(plain: SideResult, ours: SideResult) -> str:
    taken, taken_there = _new_server(ours), _new_server(plain)
    return f"{taken}, as there" if taken == taken_there else f"{taken} instead of {taken_there}"


def _new_server(side: SideResult) -> str:
    return "never" if side.new_server_after_s is None else f"after {side.new_server_after_s:.1f} s"


def _lines(result: Result) -> list[list[str]]:
    sides = result.sides
    lines = [
        [f"{name} ms", *(_ms(getattr(side, field)) for side in sides)]
        for name, field in (("p50", "p50_ms"), ("p99", "p99_ms"), ("p99.9", "p999_ms"))
    ]
    lines.append(["calls answered", *(str(side.answered) for side in sides)])
    lines.append(["calls failed", *(_errors(side) for side in sides)])
    lines.append([f"share of {SLOW.name}, the slow server", *(f"{side.shares[SLOW.name]:.1%}" for side in sides)])
    lines.append([f"first answer of {LATE.name}, {ADDED}", *(_new_server(side) for side in sides)])
    lines.append(["DNS lookups", *(str(side.dns_lookups) for side in sides)])
    lines.append(["client's own delay, p99 ms", *(_ms(side.start_delay_p99_ms) for side in sides)])
    return lines


def _errors(side: SideResult) -> str:
    return ", ".join(f"{count} {code}" for code, count in sorted(side.errors.items())) or "0"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


def _print_text(headings: list[str], lines: list[list[str]], stream: TextIO) -> None:
    widths = [max(map(len, column)) for column in zip(headings, *lines, strict=True)]
    for first, *others in (headings, *lines):
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        print("  ".join(cells), file=stream)
