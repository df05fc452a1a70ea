"""An open loop: calls start when they are due, whatever has become of those before."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import grpc
import grpc.aio
import msgspec

from grpclb_core.cli.demo.load import DEADLINE_S

from .scenarios import MEAN_S, Scenario
from .server import METHOD, SERVICE, Work

SETTLING_S = 2.0  # what a turn begins with and does not count: a client that knows nothing yet


class Call(NamedTuple):
    """One call of a plan."""

    due_s: float
    work: Work


class Outcome(NamedTuple):
    """What became of the counted calls of one turn."""

    latencies_s: list[float]
    """From when the call was due to its answer, so that a late start counts too."""
    failures: Counter[str]
    """Status codes of those that were not answered."""
    start_delays_s: list[float]
    """How late each was started: the client's own part of the latency, and a measure of how busy the machine is."""

    @classmethod
    def empty(cls) -> Outcome:
        return cls([], Counter(), [])


def plan(scenario: Scenario, rate: float, seconds: float, seed: object) -> list[Call]:
    """Draw when calls are due and what they ask for: the same for every balancer that is given the same seed.

    Arrivals are Poisson, `rate` a second on average; the work is exponential.
    """
    chance = random.Random(f"{seed} {scenario.name}")
    calls = []
    due_s = chance.expovariate(rate)
    while due_s < SETTLING_S + seconds:
        heavier = scenario.heavier if chance.random() < scenario.heavy_share else 1.0
        calls.append(Call(due_s, Work(chance.expovariate(1 / MEAN_S) * heavier, due_s >= SETTLING_S)))
        due_s += chance.expovariate(rate)
    return calls


async def run(channel: grpc.aio.Channel, calls: Sequence[Call], start_s: float) -> Outcome:
    """Make the calls, from a time of the event loop's clock on, and wait until all have ended."""
    method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/{METHOD}")
    clock = asyncio.get_running_loop().time
    outcome = Outcome.empty()

    async def make(call: Call) -> None:
        delay_s = clock() - start_s - call.due_s
        failure = ""
        try:
            await method(msgspec.json.encode(call.work), timeout=DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            failure = error.code().name
        if not call.work.counted:
            return
        outcome.start_delays_s.append(delay_s)
        if failure:
            outcome.failures[failure] += 1
        else:
            outcome.latencies_s.append(clock() - start_s - call.due_s)

    tasks = set()
    for call in calls:
        if (early_s := start_s + call.due_s - clock()) > 0:
            await asyncio.sleep(early_s)
        tasks.add(asyncio.create_task(make(call)))
    await asyncio.gather(*tasks)
    return outcome
