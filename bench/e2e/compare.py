"""What becomes of the tail when servers misbehave: this library, grpcio and Envoy, on the same servers and load.

python bench/e2e [--seconds 10] [--rounds 5] [--rate 120] [--policies NAME...] [--scenarios NAME...]
                 [--json FILE] [--svg FILE] [--check]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import statistics
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import msgspec

from grpclb_core.cli.demo.fleet import StartError
from grpclb_core.cli.demo.load import DEADLINE_S
from grpclb_core.cli.demo.names import name_server
from grpclb_core.cli.measure.machine import Machine, describe_machine
from grpclb_core.policies import POLICIES, parse_policy
from support.envoy import EnvoyMissingError, envoy_binary

from . import balancers, picture, tables
from .balancers import Balancer, Place
from .figures import WORK, Line, Reading, Verdict, judge, lines_of, read, read_work
from .fleet import HOSTS, NOBODY, Fleet, FleetError, running_fleet
from .load import SETTLING_S, Call, plan, run
from .scenarios import MEAN_S, SCENARIOS, SLOTS, Scenario

JOINS_AT = 0.2  # of the part that counts
CONNECTED_WITHIN_S = 10.0
SWITCH_S = 0.5  # between two turns: connections and, for Envoy, a process
LATE_MS = MEAN_S * 1e3 / 2
"""A client that starts calls later than this has shifted the latencies by half a mean service time."""
MOST_LATE = 0.1
"""Of the turns: the medians do not see so few, whatever balancer they fall on."""
RIVALS = [*balancers.RIVALS, balancers.ENVOY_OUTLIERS]
DEFAULT = parse_policy(None).name
EXIT_MISSED, EXIT_FAULT = 1, 2  # with --check where the default policy is not ahead; nothing could be measured


class Turn(NamedTuple):
    """One balancer under one scenario, once."""

    number: int
    scenario: Scenario
    balancer: Balancer
    calls: Sequence[Call]


class Result(msgspec.Struct, frozen=True):
    """Everything that one run found."""

    machine: Machine
    slots: int
    mean_work_ms: float
    deadline_ms: float
    settling_s: float
    seconds: float
    rate: float
    rounds: int
    seed: int
    late_ms: float
    """Median over the turns of the p99 of how late calls were started."""
    lines: list[Line]
    verdicts: list[Verdict]
    readings: list[Reading]


def turns(options: argparse.Namespace, scenarios: Sequence[Scenario], everyone: Sequence[Balancer]) -> Iterator[Turn]:
    """Yield all turns: in each round every scenario, in each of these every balancer, both in an order drawn anew.

    The balancers of a scenario follow one another, so that what is compared is close in time; their calls are the same.
    """
    chance = random.Random(options.seed)
    for number in range(options.rounds):
        for scenario in chance.sample(scenarios, len(scenarios)):
            calls = plan(scenario, options.rate, options.seconds, f"{options.seed} {number}")
            taking_part = [balancer for balancer in everyone if balancer.takes_part(scenario)]
            for balancer in chance.sample(taking_part, len(taking_part)):
                yield Turn(number, scenario, balancer, calls)


async def take(turn: Turn, fleet: Fleet, seconds: float) -> Reading:
    """Have one balancer carry the load while the servers do what the scenario says."""
    gc.collect()  # what the turn before left behind is not this one's cost
    scenario, balancer = turn.scenario, turn.balancer
    await fleet.tell(scenario)
    async with AsyncExitStack() as stack:
        zone = [*HOSTS[:-1], *([NOBODY] if balancer.needs_a_broken_address else [])]
        names = None if scenario.newcomer is None else await stack.enter_async_context(name_server(zone))
        channel = await stack.enter_async_context(balancer.open(Place(fleet.port, names)))
        await asyncio.wait_for(channel.channel_ready(), CONNECTED_WITHIN_S)
        loop = asyncio.get_running_loop()
        joining = loop.call_later(SETTLING_S + JOINS_AT * seconds, zone.append, HOSTS[-1])
        outcome = await run(channel, turn.calls, loop.time())
        joining.cancel()
    return read(scenario, balancer.name, turn.number, outcome, await fleet.tell(SCENARIOS["healthy"]))


async def measure(every_turn: Sequence[Turn], seconds: float, readings: list[Reading]) -> None:
    """Take all turns, tell how it goes, and add what was read."""
    takes_s = len(every_turn) * (SETTLING_S + seconds + SWITCH_S)
    _say(f"{len(every_turn)} turns, about {takes_s / 60:.0f} minutes; Ctrl-C ends it and keeps whole rounds")
    async with running_fleet() as fleet:
        for number, turn in enumerate(every_turn, 1):
            reading = await take(turn, fleet, seconds)
            readings.append(reading)
            _say(
                f"{number}/{len(every_turn)}  round {turn.number + 1}  {reading.scenario:9} {reading.balancer:29}"
                f"p99 {reading.p99_ms:6.1f} ms  failed {reading.failed:.1%}  started {reading.late_ms:.1f} ms late"
            )


def whole_rounds(readings: Sequence[Reading], every_turn: Sequence[Turn]) -> list[Reading]:
    """Return the readings of the rounds that were finished, and the work of these, by scenario and balancer."""
    planned = Counter(turn.number for turn in every_turn)
    taken = Counter(reading.round for reading in readings)
    whole = [reading for reading in readings if taken[reading.round] == planned[reading.round]]
    plans = {
        (turn.number, turn.scenario.name): turn for turn in every_turn if taken[turn.number] == planned[turn.number]
    }
    whole += [read_work(turn.scenario, turn.number, turn.calls) for turn in plans.values()]
    scenarios = list(SCENARIOS)
    places = [WORK, balancers.DIRECT, *RIVALS, *POLICIES]
    return sorted(whole, key=lambda each: (scenarios.index(each.scenario), places.index(each.balancer), each.round))


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def sum_up(options: argparse.Namespace, machine: Machine, readings: list[Reading]) -> Result:
    """Take medians, and hold every policy against every rival."""
    found = [
        judge(readings, SCENARIOS[scenario], policy, options.rivals)
        for policy in options.policies
        for scenario in options.scenarios
    ]
    return Result(
        machine=machine,
        slots=SLOTS,
        mean_work_ms=MEAN_S * 1e3,
        deadline_ms=DEADLINE_S * 1e3,
        settling_s=SETTLING_S,
        seconds=options.seconds,
        rate=options.rate,
        rounds=len({each.round for each in readings}),
        seed=options.seed,
        late_ms=statistics.median(each.late_ms for each in readings if each.served),
        lines=lines_of(readings),
        verdicts=[verdict for verdict in found if verdict is not None],
        readings=readings,
    )


def report(result: Result) -> str:
    """Say it all in Markdown."""
    load = f"{result.rate:g} calls/s in {result.rounds} x {result.seconds:g} s, medians of the rounds"
    parts = [
        f"{result.machine.describe()}\n{load}; a call that failed counts as one of {result.deadline_ms:g} ms",
        tables.table(result.lines, SCENARIOS),
        lateness(result),
    ]
    if result.verdicts:
        parts += ["p99 over that of the best rival, median of the rounds:", tables.verdicts(result.verdicts)]
    if missed := missed_by_default(result):
        parts.append(tables.missed(missed))
    return "\n\n".join(parts)


def lateness(result: Result) -> str:
    """Say whether the client kept up with its plan."""
    taken = [reading for reading in result.readings if reading.served]
    late = sum(reading.late_ms > LATE_MS for reading in taken)
    words = f"p99 of how late calls were started: {result.late_ms:.1f} ms in the median turn"
    if late:
        words += f", above {LATE_MS:g} ms in {late} of {len(taken)}"
    if late > len(taken) * MOST_LATE:
        words += "; THIS MACHINE WAS TOO BUSY, or is too small for the rate: believe none of it"
    return words


def missed_by_default(result: Result) -> list[Verdict]:
    """Return where the default policy is not ahead."""
    return [verdict for verdict in result.verdicts if verdict.policy == DEFAULT and not verdict.holds]


def competitors(options: argparse.Namespace) -> list[Balancer]:
    """Return whom to compare, rivals first.

    Raises:
        EnvoyMissingError: Envoy is to take part, and there is none.
    """
    rivals = []
    for name in options.rivals:
        if name not in balancers.GRPCIO:
            if options.envoy is not None and not os.access(options.envoy, os.X_OK):
                raise EnvoyMissingError(f"{options.envoy} is no program that can be run")
            rivals.append(balancers.envoy(name, options.envoy or envoy_binary()))
        else:
            rivals.append(balancers.grpcio(name))
    return [balancers.direct(), *rivals, *map(balancers.ours, options.policies)]


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python bench/e2e", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=_positive, default=10.0, help="part of a turn that counts (%(default)s)")
    parser.add_argument("--rounds", type=int, choices=range(1, 1001), metavar="N", default=5, help="(%(default)s)")
    parser.add_argument("--rate", type=_positive, default=120.0, help="calls a second (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the load, and the order of turns (%(default)s)")
    every = {"policies": list(POLICIES), "scenarios": list(SCENARIOS), "rivals": RIVALS}
    for option, names in every.items():
        usual = [name for name in names if name != balancers.ENVOY_OUTLIERS]
        parser.add_argument(
            f"--{option}", nargs="*", choices=names, default=usual, metavar="NAME",
            help=f"of {', '.join(map(repr, names))}; without it {'all' if usual == names else 'all but the last'}",
        )  # fmt: skip
    parser.add_argument("--envoy", type=Path, help="an Envoy to run, in place of the one from PyPI")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write every reading")
    parser.add_argument("--svg", type=Path, metavar="FILE", default=Path("e2e.svg"), help="the picture (%(default)s)")
    parser.add_argument("--check", action="store_true", help=f"exit with {EXIT_MISSED} if {DEFAULT} is not ahead")
    options = parser.parse_args(arguments)
    for option, names in every.items():  # once each, in the order of all tables
        setattr(options, option, [name for name in names if name in getattr(options, option)])
    return options


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number <= 100_000:
        raise argparse.ArgumentTypeError(f"{text} is out of range; give more than 0, and 100000 at most")
    return number


def main() -> int:
    options = parse(sys.argv[1:])
    machine = describe_machine(" ".join(["python", "bench/e2e", *sys.argv[1:]]))
    readings: list[Reading] = []
    try:
        scenarios = [SCENARIOS[name] for name in options.scenarios]
        every_turn = list(turns(options, scenarios, competitors(options)))
        asyncio.run(measure(every_turn, options.seconds, readings))
    except EnvoyMissingError as error:
        _say(f"{error}\nGive one by --envoy FILE, or leave it out: --rivals {' '.join(map(repr, balancers.GRPCIO))}")
        return EXIT_FAULT
    except (StartError, FleetError) as error:
        _say(str(error))
        return EXIT_FAULT
    except KeyboardInterrupt:
        _say("ended early")
    if not (whole := whole_rounds(readings, every_turn)):
        return EXIT_FAULT
    result = sum_up(options, machine, whole)
    print(report(result))
    write(result, scenarios, options)
    return EXIT_MISSED if options.check and missed_by_default(result) else 0


def write(result: Result, scenarios: Sequence[Scenario], options: argparse.Namespace) -> None:
    """Write the files that were asked for."""
    load = f"{result.rate:g} calls/s in {result.rounds} x {result.seconds:g} s"
    options.svg.write_text(picture.draw(result.lines, scenarios, f"{load}: median of the rounds, least and most"))
    if options.json is not None:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1))
