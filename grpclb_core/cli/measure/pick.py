"""What does pick + finish cost: by policy and size, against its scaffolding and its twin, from Python and inside C?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import repeat
from typing import Any

from ...native import P2cEwmaPicker, Picker
from ...policies import POLICIES, P2cEwma
from . import budgets
from .fleets import Fleet, TwinFleet
from .report import Check, Row, Section, check
from .rounds import interleave, no_collection, ratio, spread, timed_ns
from .scaffold import Scaffold

SIZES = (2, 16, 1_000, 10_000)
REFERENCE_SIZE = 16

SEED = 1

# Picks of one reading: two milliseconds of them, long against the two clock readings around and short against a time
# slice of the scheduler. The twin is ten times slower and gets a tenth.
PICKS = 20_000
TWIN_PICKS = 2_000

P2C = f"{P2cEwma.name} {REFERENCE_SIZE}"
TWIN = f"plain Python {REFERENCE_SIZE}"
BARE = f"{P2C} with every rule off"
FLOOR = "two empty calls + two clock readings"
LOOP, EMPTY, CLOCKED, NULL = "empty loop", "two empty calls", "two calls with a clock reading each", "null picker"
NOGIL_CLOCK, NOGIL_NULL, NOGIL_P2C = "two clock readings in C", "null picker in C", f"{P2C} in C"

Variants = dict[str, Callable[[int], float]]
Readings = dict[str, list[float]]


def pick_and_finish(pick: Callable[[], Any], count: int) -> None:
    """Pick and finish `count` times; the loop around it is part of what is measured."""
    for _ in repeat(None, count):
        pick().finish(0)


def empty_loop(count: int) -> None:
    """Do nothing, `count` times."""
    for _ in repeat(None, count):
        pass


def measure_picks(sizes: Sequence[int], rounds: int, scaffold: Scaffold | None) -> tuple[list[Section], list[Check]]:
    """Measure every policy at every size, the twin, and the scaffolding if there is one, all in the same rounds."""
    twin = TwinFleet(REFERENCE_SIZE, SEED)
    variants: Variants = {TWIN: from_python(twin.picker.pick, TWIN_PICKS)}
    # Each has a fleet of its own: what one policy learns of its endpoints is not what another would have learnt.
    for size in sorted({*sizes, REFERENCE_SIZE}):
        for name, policy in POLICIES.items():
            picker = policy().build(Fleet(size, SEED).view, SEED, 0)
            variants[f"{name} {size}"] = from_python(picker.pick, warm_up=2 * size)
    bare = P2cEwmaPicker(Fleet(REFERENCE_SIZE, SEED).view, seed=SEED)
    variants[BARE] = from_python(bare.pick, warm_up=2 * REFERENCE_SIZE)
    if scaffold is not None:
        variants |= _scaffolding(scaffold)
    with no_collection():
        interleave(variants, 1)  # warms up caches and Python's own specialisation
        readings = interleave(variants, rounds)
    if scaffold is not None:
        # Each measured alone. In CLOCKED the processor overlaps them, which a pick that needs the time cannot do.
        readings[FLOOR] = [sum(both) for both in zip(readings[EMPTY], readings[NOGIL_CLOCK], strict=True)]
    sections = [_by_policy(readings, sizes), _against(readings)]
    checks = [
        check(budgets.TWIN, ratio(readings[TWIN], readings[P2C]).median),
        check(budgets.RULES, ratio(readings[P2C], readings[BARE]).median),
    ]
    if 10_000 in sizes:
        checks.append(check(budgets.GROWTH, ratio(readings[f"{P2cEwma.name} 10000"], readings[P2C]).median))
    if scaffold is not None:
        sections += [_breakdown(readings), _in_c(readings)]
        checks += _floor_checks(readings)
    return sections, checks


def from_python(pick: Callable[[], object], count: int = PICKS, warm_up: int = 0) -> Callable[[int], float]:
    """Return a variant that picks and finishes in a Python loop."""
    return partial(timed_ns, partial(pick_and_finish, pick), count, warm_up)


def _scaffolding(scaffold: Scaffold) -> Variants:
    null: Picker = scaffold.NullPicker(Fleet(REFERENCE_SIZE, SEED).view, seed=SEED)
    p2c = P2cEwma().build(Fleet(REFERENCE_SIZE, SEED).view, SEED, 0)
    return {
        LOOP: partial(timed_ns, empty_loop, PICKS, 0),
        EMPTY: from_python(scaffold.EmptyPicker().pick),
        CLOCKED: from_python(scaffold.ClockedPicker().pick),
        NULL: from_python(null.pick),
        NOGIL_CLOCK: partial(timed_ns, scaffold.read_clock_twice, PICKS, 0),
        NOGIL_NULL: partial(timed_ns, partial(scaffold.pick_and_finish, null), PICKS, 0),
        NOGIL_P2C: partial(timed_ns, partial(scaffold.pick_and_finish, p2c), PICKS, 0),
    }


# What the readings say


def _row(readings: Readings, name: str, to: str, label: str = "") -> Row:
    return Row(
        name=label or name, cost=spread(readings[name]), unit="ns", ratio=ratio(readings[name], readings[to]), to=to
    )


def _by_policy(readings: Readings, sizes: Sequence[int]) -> Section:
    rows = [
        _row(readings, f"{name} {size}", f"{name} {REFERENCE_SIZE}") for name in POLICIES for size in sorted(set(sizes))
    ]
    return Section("pick + finish from Python, by policy and number of endpoints", rows)


def _against(readings: Readings) -> Section:
    rows = [_row(readings, TWIN, P2C)]
    rows += [_row(readings, P2C, name) for name in (BARE, FLOOR, CLOCKED, NULL) if name in readings]
    return Section(f"the default policy at {REFERENCE_SIZE} endpoints against what it is measured by", rows)


# What each part adds, from an empty loop to the whole: the first costs that much more than the second. The clock is
# taken on its own, as in FLOOR, so the parts add up.
PARTS = (
    ("the measuring loop", LOOP, None),
    ("two compiled calls", EMPTY, LOOP),
    ("two clock readings, measured alone", NOGIL_CLOCK, None),
    ("counters, latency and ticket", NULL, FLOOR),
    ("the choice", P2C, NULL),
)


def _part(readings: Readings, more: str, less: str | None) -> list[float]:
    without = readings[less] if less is not None else [0.0] * len(readings[more])
    return [whole - rest for whole, rest in zip(readings[more], without, strict=True)]


def _breakdown(readings: Readings) -> Section:
    rows = [
        Row(name=label, cost=spread(part), unit="ns", ratio=ratio(part, readings[P2C]), to=P2C)
        for label, part in ((label, _part(readings, more, less)) for label, more, less in PARTS)
    ]
    overlapped = spread(_part(readings, CLOCKED, EMPTY)).median
    return Section(
        f"what pick + finish at {REFERENCE_SIZE} endpoints consists of",
        rows,
        f"in calls that do nothing else the processor overlaps the clock readings, and they add {overlapped:.1f} ns",
    )


def _in_c(readings: Readings) -> Section:
    rows = [_row(readings, name, NOGIL_CLOCK) for name in (NOGIL_CLOCK, NOGIL_NULL, NOGIL_P2C)]
    return Section("choose + open_call + close_call in one loop without the GIL", rows)


def _floor_checks(readings: Readings) -> list[Check]:
    clock, *others = (spread(_part(readings, more, less)).median for _, more, less in PARTS[2:])
    return [
        check(budgets.FLOOR, ratio(readings[P2C], readings[FLOOR]).median),
        check(budgets.CLOCK, clock / max(others)),
    ]
