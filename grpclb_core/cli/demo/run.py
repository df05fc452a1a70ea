"""Plays the script under the load, and shows what comes of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import grpc.aio

from ...aio import insecure_channel
from .fleet import Fleet, StartError, running_fleet
from .load import Side
from .names import NameServer, name_server
from .options import Options
from .picture import draw, save
from .report import as_json, print_report
from .result import Result, sum_up
from .script import ADDED, ADDED_AT, BACK, DOWN_S, KILLED, KILLED_AT, LATE, LOST, RESTARTING, SERVERS, Event
from .view import Progress, View, open_view

READY_WITHIN_S = 10.0
# After the first connection of each side; by then the others are up too, and neither begins with one server.
SETTLE_S = 0.5

# A proxy of the environment is not asked for the way to this very machine.
CHANNEL_OPTIONS = (("grpc.enable_http_proxy", 0),)
ROUND_ROBIN = ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]}))

FAILED = 1
TERMINATED = 143  # 128 + SIGTERM, as shells report it


def run(options: Options) -> int:
    """Run the demonstration and return the exit status."""
    # The other one of gRPC's DNS clients cannot be pointed at a server.
    os.environ["GRPC_DNS_RESOLVER"] = "ares"
    stream = sys.stderr if options.as_json else sys.stdout
    try:
        with open_view(stream) as view:
            result, sides = asyncio.run(_play(options, view))
    except StartError as error:
        print(f"grpclb demo: {error}", file=sys.stderr)
        return FAILED
    except asyncio.CancelledError:
        return TERMINATED
    print_report(result, stream)
    if options.as_json:
        print(as_json(result))
    if options.picture is not None:
        save(draw(result, sides), options.picture)
        print(f"picture: {options.picture}", file=stream)
    return 0


async def _play(options: Options, view: View) -> tuple[Result, list[Side]]:
    _end_on_sigterm()
    zone = [server.host for server in SERVERS if server is not LATE]
    async with AsyncExitStack() as stack:
        view.say("starting six servers")
        fleet = await stack.enter_async_context(running_fleet(options.seed))
        name_servers = [await stack.enter_async_context(name_server(zone)) for _ in range(2)]
        sides = await stack.enter_async_context(_connected(options, fleet, name_servers))
        progress = Progress(options, sides)
        await _drive(progress, fleet, zone, view)
        lookups = [each.lookups for each in name_servers]
    return sum_up(options, progress.events, list(zip(sides, lookups, strict=True))), sides


def _end_on_sigterm() -> None:
    # So that the terminal is restored; the servers would end anyhow.
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


@asynccontextmanager
async def _connected(options: Options, fleet: Fleet, name_servers: list[NameServer]) -> AsyncIterator[list[Side]]:
    """Connect both sides, each to its own fleet.

    Raises:
        StartError: one of them found no server.
    """
    targets = [server.target(port) for server, port in zip(name_servers, fleet.ports, strict=True)]
    plain = grpc.aio.insecure_channel(targets[0], options=(*CHANNEL_OPTIONS, ROUND_ROBIN))
    balanced = insecure_channel(
        targets[1], options=CHANNEL_OPTIONS, policy=options.policy, config={"seed": options.seed}
    )
    async with plain, balanced:
        sides = [
            Side("round_robin", "grpc.aio round_robin", plain),
            Side("grpclb", f"grpclb {options.policy}", balanced),
        ]
        for side in sides:
            with anyio.move_on_after(READY_WITHIN_S) as scope:
                await side.channel.channel_ready()
            if scope.cancelled_caught:
                raise StartError(f"{side.title} found no server within {READY_WITHIN_S:g} s")
        await anyio.sleep(SETTLE_S)
        yield sides


async def _drive(progress: Progress, fleet: Fleet, zone: list[str], view: View) -> None:
    """Send the load through both sides while the script runs and the view follows."""
    options = progress.options
    progress.start_s = asyncio.get_running_loop().time()
    async with anyio.create_task_group() as background:
        background.start_soon(_script, progress, fleet, zone, view)
        background.start_soon(_show, progress, view)
        async with anyio.create_task_group() as loads:
            for number, side in enumerate(progress.sides):
                # Half an interval apart, so that no call of the one side always starts behind one of the other.
                offset_s = number / options.rate / len(progress.sides)
                loads.start_soon(side.load, progress.start_s, options.rate, options.seconds, offset_s)
        background.cancel_scope.cancel()


async def _script(progress: Progress, fleet: Fleet, zone: list[str], view: View) -> None:
    def happened(server: str, what: str) -> None:
        event = Event(round(progress.elapsed_s(), 3), server, what)
        progress.events.append(event)
        view.say(f"{event.at_s:5.1f} s  {event}")

    seconds = progress.options.seconds
    await progress.sleep_until(seconds * ADDED_AT)
    zone.append(LATE.host)
    happened(LATE.name, ADDED)
    await progress.sleep_until(seconds * KILLED_AT)
    await fleet.kill(RESTARTING)
    happened(RESTARTING.name, KILLED)
    await progress.sleep_until(seconds * KILLED_AT + DOWN_S)
    try:
        await fleet.start(RESTARTING)
    except StartError:
        happened(RESTARTING.name, LOST)
    else:
        happened(RESTARTING.name, BACK)


async def _show(progress: Progress, view: View) -> None:
    while True:
        await view.refresh(progress)
        await anyio.sleep(view.every_s)
