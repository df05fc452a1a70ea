"""A scenario as data: who calls whom, how often, and what goes wrong when.

Entry points: `load_scenario` for one that ships with the package, `parse_scenario` for any other. Servers are numbered
in the order of their groups, from 0. What a scenario is made of is in `parts.py` and `service.py`.
"""

from __future__ import annotations

import re
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import msgspec

from ..errors import ConfigError
from .parts import (
    Antagonist,
    AnyChange,
    AnyFault,
    Change,
    ClockStep,
    Count,
    Goal,
    Group,
    Pauses,
    PositiveSeconds,
    Seconds,
    Step,
    Streams,
    Which,
)

RANGE = re.compile(r"[0-9]{0,9}:[0-9]{0,9}(:[1-9][0-9]{0,8})?")
"""Of servers by their numbers, as Python slices."""
MOST_CALLS = 20_000_000
"""Of one run; the columns of its trace then take half a gigabyte."""
MOST_SERVERS = 100_000
MOST_SLOTS = 2_000_000
"""Of all clients together; each takes some hundred bytes."""
MOST_EVENTS = 1_000_000
"""Of faults that come and go, and servers that leave and come back."""


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything about one simulated run but the policy and the seed.

    Raises:
        ConfigError: a fault or a change names a server that there is not, times are in the wrong order, or no server
            is there at the start.
    """

    about: str
    """What it shows, in one sentence."""
    source: str
    """Whose set-up it is."""
    seconds: Annotated[float, msgspec.Meta(ge=0.001, le=86_400)]
    servers: tuple[Group, ...]
    load: tuple[Step, ...] = ()
    """In the order of time; the first from the start."""
    concurrency: Count | None = None
    """Instead of a load: so many calls are always open, the next one starts when one ends."""
    evenly: bool = False
    """Calls come at equal distances, instead of at random ones (Poisson)."""
    clients: Count = 1
    subset: Count | None = None
    """How many servers each client knows, a random part of all of them; None: all."""
    deadline_s: PositiveSeconds | None = None
    deadline_reaches_server: bool = True
    """Whether a server lets go of a call whose deadline has passed, as gRPC servers do."""
    faults: tuple[AnyFault, ...] = ()
    changes: tuple[AnyChange, ...] = ()
    streams: Streams | None = None
    clock: tuple[ClockStep, ...] = ()
    goals: tuple[Goal, ...] = ()
    warm_up_s: Seconds = 0.0
    """What comes before is not measured."""
    measured_until_s: PositiveSeconds | None = None

    def __post_init__(self) -> None:
        if not self.servers:
            raise ConfigError("servers: give at least one group")
        problems = [*_load_problems(self), *_server_problems(self)]
        problems = problems or _time_problems(self)  # which counts the servers that are named
        if problems:
            raise ConfigError(problems)

    @property
    def size(self) -> int:
        """How many servers there are, those who join later included."""
        return sum(group.count for group in self.servers)

    def groups(self) -> list[Group]:
        """Return the group of each server, by its number."""
        return [group for group in self.servers for _ in range(group.count)]

    @property
    def rates(self) -> tuple[float, ...]:
        """Calls a second that all clients together ask for in each step of the load."""
        return tuple(step.calls_per_s or (step.of_capacity or 0.0) * self.capacity for step in self.load)

    def numbers(self, which: Which) -> tuple[int, ...]:
        """Return the numbers of the servers that are meant."""
        if not isinstance(which, str):
            return which
        start, stop, step = ([int(part) if part else None for part in which.split(":")] + [None])[:3]
        return tuple(range(self.size)[start:stop:step])

    @property
    def capacity(self) -> float:
        """Calls a second that the servers of the start can do, when nothing is wrong."""
        first = [group for group in self.servers if group.joins_s == 0]
        return sum(group.count * group.slots * group.speed / group.service.mean_s for group in first)

    @property
    def faulty(self) -> frozenset[int]:
        """The servers that something goes wrong with; none if it does with all, as then there is no better one."""
        found = frozenset(server for fault in self.faults for server in self.numbers(fault.servers))
        return found if len(found) < self.size else frozenset()

    @property
    def fault_s(self) -> float | None:
        """When the first fault begins."""
        return min((fault.from_s for fault in self.faults), default=None)

    @property
    def healed_s(self) -> float | None:
        """When the last fault is over; None if there is none, or one that stays."""
        ends = [fault.until_s for fault in self.faults]
        return max((end for end in ends if end is not None), default=None) if None not in ends else None

    def healthy_twin(self) -> Scenario:
        """Return the same scenario with nothing wrong in it."""
        return msgspec.structs.replace(self, faults=())


def _load_problems(scenario: Scenario) -> list[str]:
    if (scenario.concurrency is None) == (not scenario.load):
        return ["give either load or concurrency"]
    starts = [step.from_s for step in scenario.load]
    if starts and (starts[0] != 0 or starts != sorted(set(starts)) or starts[-1] >= scenario.seconds):
        return [f"load: from_s must begin at 0, rise from step to step, and stay below seconds {scenario.seconds:g}"]
    times = pairwise([*starts, scenario.seconds])
    calls = sum(rate * (end - start) for rate, (start, end) in zip(scenario.rates, times, strict=True))
    return [f"load: {calls:.0f} calls are more than {MOST_CALLS}; ask for fewer"] if calls > MOST_CALLS else []


def _server_problems(scenario: Scenario) -> list[str]:
    if scenario.size > MOST_SERVERS:
        return [f"servers: {scenario.size} are more than {MOST_SERVERS}; use fewer"]
    problems = []
    if scenario.clients * min(scenario.size, scenario.subset or scenario.size) > MOST_SLOTS:
        problems.append(f"clients: {scenario.clients} know more than {MOST_SLOTS} servers together; use fewer")
    if all(group.joins_s > 0 for group in scenario.servers):
        problems.append("servers: none is there at the start; let one group have joins_s 0")
    named: list[tuple[str, Which]] = [(f"faults[{at}].servers", one.servers) for at, one in enumerate(scenario.faults)]
    for at, change in enumerate(scenario.changes):
        if isinstance(change, Change):
            named += [(f"changes[{at}].remove", change.remove), (f"changes[{at}].add", change.add)]
    for where, which in named:
        if isinstance(which, str) and not RANGE.fullmatch(which):
            problems.append(f"{where}: {which!r} is no range; write start:stop or start:stop:step")
            continue
        servers = scenario.numbers(which)
        beyond = [one for one in servers if one >= scenario.size]
        if beyond or (which and not servers):
            problems.append(f"{where}: {which!r} names no server of 0 to {scenario.size - 1}")
    return problems


def _time_problems(scenario: Scenario) -> list[str]:
    problems = []
    for at, fault in enumerate(scenario.faults):
        if fault.until_s is not None and fault.until_s <= fault.from_s:
            problems.append(f"faults[{at}].until_s: {fault.until_s:g} is not after from_s {fault.from_s:g}")
        if isinstance(fault, (Antagonist, Pauses)):
            cycle_s = (
                fault.mean_on_s + fault.mean_off_s if isinstance(fault, Antagonist) else fault.every_s + fault.for_s
            )
            if scenario.seconds / cycle_s * len(scenario.numbers(fault.servers)) > MOST_EVENTS:
                problems.append(f"faults[{at}]: it comes and goes more than {MOST_EVENTS} times; make that longer")
    for at, change in enumerate(scenario.changes):
        if not isinstance(change, Change) and scenario.seconds / change.every_s > MOST_EVENTS:
            problems.append(
                f"changes[{at}].every_s: {change.every_s:g} means more than {MOST_EVENTS} changes; raise it"
            )
    end_s = scenario.seconds if scenario.measured_until_s is None else scenario.measured_until_s
    if not scenario.warm_up_s < end_s <= scenario.seconds:
        problems.append(
            f"measured_until_s: {end_s:g} must be after warm_up_s {scenario.warm_up_s:g} "
            f"and no later than seconds {scenario.seconds:g}"
        )
    return problems


# Files


def scenario_names() -> list[str]:
    """Return the names of the scenarios that ship with the package."""
    folder = resources.files(__package__) / "scenarios"
    return sorted(entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json"))


def load_scenario(name: str) -> Scenario:
    """Read a scenario by its name, or from a path that ends in `.json`.

    Raises:
        ConfigError: there is none of that name, the file cannot be read, or what it says cannot be used.
    """
    if name.endswith(".json"):
        try:
            return parse_scenario(Path(name).read_bytes(), name)
        except OSError as error:
            raise ConfigError(f"scenario {name}: {error.strerror or error}; give a file that can be read") from error
    if name not in scenario_names():
        raise ConfigError(f"scenario {name!r} is unknown; see grpclb bench quality --list, or give a .json file")
    return parse_scenario((resources.files(__package__) / "scenarios" / f"{name}.json").read_bytes(), name)


def parse_scenario(document: bytes, name: str) -> Scenario:
    """Read a scenario from JSON.

    Raises:
        ConfigError: naming the scenario, the path of the value at fault, and the rule it breaks.
    """
    try:
        return msgspec.json.decode(document, type=Scenario)
    except ConfigError as error:
        raise ConfigError([f"scenario {name}: {problem}" for problem in error.problems]) from None
    except msgspec.ValidationError as error:
        # A rule of ours that is broken inside a list comes wrapped, with the path behind.
        raise ConfigError(f"scenario {name}: {error}") from None
    except msgspec.DecodeError as error:
        raise ConfigError(f"scenario {name}: not JSON: {error}") from None
