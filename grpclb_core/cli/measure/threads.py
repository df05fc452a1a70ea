"""What does pick + finish cost when threads do it at once, on the same endpoints?"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from ...policies import P2cEwma
from .fleets import Fleet
from .pick import REFERENCE_SIZE, SEED, pick_and_finish
from .report import Row, Section
from .rounds import interleave, no_collection, ratio, spread
from .scaffold import Scaffold

THREADS = (1, 2, 4)

# Each thread's share of one reading: some 10 ms, so that starting the threads does not count. With a GIL that is a few
# of the interpreter's switch intervals of 5 ms.
PICKS = 100_000


def measure_threads(threads: Sequence[int], rounds: int, scaffold: Scaffold | None) -> Section:
    """Measure the default policy with several threads sharing one picker."""
    picker = P2cEwma().build(Fleet(REFERENCE_SIZE, SEED).view, SEED, 0)
    kinds: dict[str, Callable[[int], object]] = {"from Python": partial(pick_and_finish, picker.pick)}
    if scaffold is not None:
        kinds["in C, without the GIL"] = partial(scaffold.pick_and_finish, picker)
    counts = sorted({1, *threads})
    variants = {_name(kind, count): partial(_reading, run, count) for kind, run in kinds.items() for count in counts}
    with no_collection():
        interleave(variants, 1)
        readings = interleave(variants, rounds)
    rows = [
        Row(
            name=_name(kind, count),
            cost=spread(readings[_name(kind, count)]),
            unit="ns",
            ratio=ratio(readings[_name(kind, count)], readings[_name(kind, 1)]),
            to=_name(kind, 1),
        )
        for kind in kinds
        for count in counts
    ]
    return Section("wall time for each pick + finish, several threads on one picker of 16 endpoints", rows)


def _name(kind: str, count: int) -> str:
    return f"{kind}, {count} thread{'s' if count > 1 else ''}"


def _reading(run: Callable[[int], object], threads: int, turn: int) -> float:
    return threaded_ns(run, threads, PICKS)


def threaded_ns(run: Callable[[int], object], threads: int, picks: int) -> float:
    """Return the wall time in ns for each of the picks that all threads make together."""
    start = threading.Barrier(threads + 1)

    def work() -> None:
        start.wait()
        run(picks)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    start.wait()
    begin_ns = time.perf_counter_ns()
    for worker in workers:
        worker.join()
    return (time.perf_counter_ns() - begin_ns) / (threads * picks)
