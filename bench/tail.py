"""What one slow server does to the tail: p99 of a steady load, all four servers healthy and one ten times slower.

    python bench/tail.py [--seconds 20] [--rounds 2] [--json]

Servers are processes of their own with 8 slots each and exponential service times of 40 ms on average, so the four can
serve 800 calls a second; the load is 60 % of that, started on time whatever is still open. This package and grpc.aio's
round_robin have their turns one after the other, in every round again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc.aio
import msgspec

import grpclb_core as lb
from grpclb_core.cli import PACKAGE_HOME
from grpclb_core.cli.demo.fleet import free_port
from grpclb_core.cli.demo.load import DEADLINE_S, Side
from grpclb_core.cli.measure.machine import describe_machine

SERVERS, SLOTS, MEAN_S, SLOWER = 4, 8, 0.04, 10
LOAD = 0.6
RATE = LOAD * SERVERS * SLOTS / MEAN_S  # calls a second
SETTLING_S = 3.0  # what a phase begins with and does not count: a client that knows nothing yet
LIMIT = 1.3  # the budget: p99 with one slow server over p99 with none

ROUND_ROBIN = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})
OWN_CONNECTIONS = ("grpc.use_local_subchannel_pool", 1)


def ours(target: str) -> grpc.aio.Channel:
    return lb.insecure_channel(target, options=[OWN_CONNECTIONS])


def theirs(target: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(target, options=[OWN_CONNECTIONS, ("grpc.service_config", ROUND_ROBIN)])


SIDES: dict[str, Callable[[str], grpc.aio.Channel]] = {"p2c_ewma": ours, "grpc.aio round_robin": theirs}


@asynccontextmanager
async def fleet(slow: int, seed: int) -> AsyncIterator[str]:
    """Run four servers, the first `slow` of them ten times slower; yield their target."""
    processes, addresses = [], []
    try:
        for number in range(SERVERS):
            port, mean_s = free_port(), MEAN_S * (SLOWER if number < slow else 1)
            command = ["--name", str(number), "--host", "127.0.0.1", "--ports", str(port), "--mean-s", str(mean_s)]
            command += ["--slots", str(SLOTS), "--seed", str(seed)]
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "grpclb_core.cli.demo.server", *command],
                    cwd=PACKAGE_HOME,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            )
            addresses.append(f"127.0.0.1:{port}")
        for process in processes:
            assert process.stdout is not None
            await asyncio.to_thread(process.stdout.readline)
        yield "ipv4:" + ",".join(addresses)
    finally:
        for process in processes:
            process.kill()
            process.communicate()


async def phase(make: Callable[[str], grpc.aio.Channel], slow: int, seconds: float, seed: int) -> list[float]:
    """Return the latencies in s of one phase; a call that failed counts as long as its deadline."""
    async with fleet(slow, seed) as target, make(target) as channel:
        await channel.channel_ready()
        loop = asyncio.get_running_loop()
        await Side("", "", channel).load(loop.time(), RATE, SETTLING_S, 0.0)
        side = Side("", "", channel)
        await side.load(loop.time(), RATE, seconds, 0.0)
    return [answer.latency_s for answer in side.answers] + [DEADLINE_S] * side.errors.total()


def percentile_ms(latencies: list[float], part: float) -> float:
    return round(sorted(latencies)[int(len(latencies) * part)] * 1e3, 1)


async def measure(seconds: float, rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    latencies: dict[str, dict[str, list[float]]] = {side: {"healthy": [], "one slow": []} for side in SIDES}
    for seed in range(rounds):
        for side, make in SIDES.items():
            for slow, condition in enumerate(latencies[side]):
                latencies[side][condition] += await phase(make, slow, seconds, seed)
    return {
        side: {
            condition: {"p50_ms": percentile_ms(all_, 0.5), "p99_ms": percentile_ms(all_, 0.99), "calls": len(all_)}
            for condition, all_ in conditions.items()
        }
        for side, conditions in latencies.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    command = f"python bench/tail.py --seconds {options.seconds:g} --rounds {options.rounds}"
    machine = describe_machine(command)
    measured = asyncio.run(measure(options.seconds, options.rounds))
    ratios = {
        side: round(conditions["one slow"]["p99_ms"] / conditions["healthy"]["p99_ms"], 2)
        for side, conditions in measured.items()
    }
    if options.json:
        report = {"machine": machine, "load": LOAD, "rate": RATE, "measured": measured, "p99_ratio": ratios}
        print(msgspec.json.format(msgspec.json.encode(report), indent=1).decode())
    else:
        for side, conditions in measured.items():
            for condition, figures in conditions.items():
                print(f"{side:22}{condition:10}{figures}")
            print(f"{side:22}p99 with one slow server is {ratios[side]} times that with none")
    return 0 if ratios["p2c_ewma"] <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
