"""Measuring side by side: rounds in which every variant has its turn, and what is left of them as numbers."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec

# Makes the order of the variants repeatable; it differs from round to round, so that none always follows the same one.
ORDER_SEED = 1

# Python frames lie one after the other in memory, and where the measuring loop's comes to lie shifts a pick by up to a
# quarter: one place in four was slow where this was found. A fixed place would be luck, so each round takes the next.
FRAME_POSITIONS = 8


class Spread(msgspec.Struct, frozen=True):
    """The middle of many readings, and how far they lie apart."""

    median: float
    lower_quartile: float
    upper_quartile: float
    least: float
    most: float
    rounds: int


def spread(readings: Sequence[float]) -> Spread:
    """Sum up readings, of which there is at least one."""
    lower, middle, upper = statistics.quantiles(readings, n=4) if len(readings) > 1 else (readings[0],) * 3
    return Spread(middle, lower, upper, min(readings), max(readings), len(readings))


def shuffled(names: Sequence[str], rounds: int) -> Iterator[list[str]]:
    """Yield all the names, in another order for each round."""
    chance = random.Random(ORDER_SEED)
    for _ in range(rounds):
        yield chance.sample(names, len(names))


def interleave(variants: Mapping[str, Callable[[int], float]], rounds: int) -> dict[str, list[float]]:
    """Run every variant once a round, telling it which round it is; return the readings of each, round by round."""
    readings: dict[str, list[float]] = {name: [] for name in variants}
    for turn, order in enumerate(shuffled(list(variants), rounds)):
        for name in order:
            readings[name].append(variants[name](turn))
    return readings


def timed_ns(run: Callable[[int], object], count: int, warm_up: int = 0, turn: int = 0) -> float:
    """Return what one of `count` turns of a loop takes in ns, its frame shifted as far as the round says.

    The first `warm_up` turns do not count: what the variants before left in the caches is not this one's cost.
    """
    if turn % FRAME_POSITIONS:
        return timed_ns(run, count, warm_up, turn % FRAME_POSITIONS - 1)
    if warm_up:
        run(warm_up)
    begin_ns = time.perf_counter_ns()
    run(count)
    return (time.perf_counter_ns() - begin_ns) / count


def ratio(over: Sequence[float], under: Sequence[float]) -> Spread:
    """Sum up the ratios of two variants, each taken within one round."""
    return spread([above / below for above, below in zip(over, under, strict=True)])


@contextmanager
def no_collection() -> Iterator[None]:
    """Keep the garbage collector from running in the middle of a reading."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
