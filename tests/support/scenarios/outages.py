"""Sources of endpoints that are lost while calls run, and what changes count for after that."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpclb_core as lb
from support.load import RATE, Load
from support.servers import CHANNEL_OPTIONS, eventually

from . import Report, all_ready, last_answer_of, report_of, servers_on_one_port
from .sources import Open

SETTLED_S = 0.5  # a load has seen both servers by then
RECOVERED_S = 60.0  # twice the longest wait after failures that a source has by default
NOTED_S = 0.5  # calls that follow a removal for so long beyond its figure show whether it counts

RECOVERED, ADDED, REMOVED = "recovered", "first call of a server that came, s", "last call of a server that went, s"


async def outage(open_source: Open, folder: Path, outage_s: float, rate: float = RATE) -> Report:
    """Lose a source for some seconds under load; then let one server come and another go, each told by the source.

    `recovered_s` counts from the return of the source to the first call of a server that came during the outage.
    """
    clock = asyncio.get_running_loop().time
    async with servers_on_one_port(4) as servers:
        a, b, c, d = (server.address for server in servers)
        async with open_source(folder, servers[0].port) as source:
            await source.publish([a, b])
            channel = lb.insecure_channel(source.target, options=CHANNEL_OPTIONS, config=dict(source.config))
            async with channel, Load(channel, rate).running() as load:
                await all_ready(channel)
                await asyncio.sleep(SETTLED_S)
                recovered_s = said = None
                if outage_s:
                    await source.fail()
                    await asyncio.sleep(outage_s)
                    said = channel.balancer.snapshot().resolver_error
                    await source.heal([a, b, c])
                    recovered_s = await load.wait_for("c", clock(), RECOVERED_S)
                    await eventually(lambda: channel.balancer.snapshot().resolver_error is None, RECOVERED_S)
                else:
                    await source.publish([a, b, c])
                    await load.wait_for("c", clock(), RECOVERED_S)
                came_s = clock()
                await source.publish([a, b, c, d])
                added_s = await load.wait_for("d", came_s, RECOVERED_S)
                went_s = clock()
                await source.publish([b, c, d])
                await asyncio.sleep(source.prompt_s + NOTED_S)
                removed_s = max(0.0, last_answer_of(load, "a") - went_s)
    return report_of(load, recovered_s, {ADDED: added_s, REMOVED: removed_s})._replace(said=said)
