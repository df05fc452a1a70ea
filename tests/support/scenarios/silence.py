"""Servers that stop to answer: they crash, their host vanishes, their process freezes, or their handlers hang."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import grpclb_core as lb
from support.load import RATE, Load
from support.namespaces import Host
from support.servers import CHANNEL_OPTIONS, UNARY_UNARY, ChildServer, EchoServer, echo_servers, target_of

from . import PATIENCE_S, Report, all_ready, endpoint_of, last_answer_of, report_of

SETTLED_S = 1.5  # a load has seen every server by then
NOTICED_S = 3.0  # the figure: after this long, no new call
DEADLINE_S = 1.0  # of calls to servers that may not answer
HEALED_S = 1.0  # of load after it is well again
BACK_WITHIN_S = 45.0  # beyond the longest pause that an endpoint is given which went silent again and again
AFTERMATH_S = 0.05  # the budget: a crash fails no call that begins later than this

LATE_CALLS = f"sent there {NOTICED_S:g} s later and on"
LATE_FAILURES = f"failed of those that began {NOTICED_S:g} s later and on"
HEALED_FAILURES = "failed after its first answer"
HELD = "lost of those that take long"
IN_FLIGHT = "had, or sent before its end could be known"
AFTERWARDS = f"failed {AFTERMATH_S * 1e3:g} ms later and on"


@contextlib.asynccontextmanager
async def fleet(victim: ChildServer, rate: float = RATE, **options: object) -> AsyncIterator[tuple[lb.Channel, Load]]:
    """Run three servers and a victim, under load."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(server) for server in (*map(ChildServer, "bcd"), victim)]
        target = "ipv4:" + ",".join(server.address for server in servers)
        async with lb.insecure_channel(target, options=CHANNEL_OPTIONS, **options) as channel:  # type: ignore[arg-type]
            await all_ready(channel)
            async with Load(channel, rate, timeout_s=DEADLINE_S).running() as load:
                await asyncio.sleep(SETTLED_S)
                yield channel, load


async def killed(rate: float) -> Report:
    """Kill a server among four while calls are in flight on it, and start it again."""
    clock = asyncio.get_running_loop().time
    victim = ChildServer("a")
    async with fleet(victim, rate=rate) as (channel, load):
        last_answer_of(load, "a")
        held = [channel.unary_unary(UNARY_UNARY)(b"sleep:30") for _ in range(20)]
        await asyncio.sleep(0.2)
        before = endpoint_of(channel, victim.address)
        victim.kill()
        await asyncio.sleep(AFTERMATH_S)
        unaware = endpoint_of(channel, victim.address).picks - before.picks
        late_s = clock()
        await asyncio.sleep(HEALED_S)
        lost = sum(call.done() for call in held)
        victim.start()
        recovered_s = await load.wait_for("a", clock(), PATIENCE_S)
        await asyncio.sleep(HEALED_S)
        for call in held:
            call.cancel()
    afterwards = sum(time >= late_s for time, _ in load.failures)
    report = report_of(load, recovered_s, {HELD: lost, IN_FLIGHT: before.in_flight + unaware, AFTERWARDS: afterwards})
    return report._replace(calls=load.calls + len(held), failed=report.failed + lost)


async def vanished(policy: str, gone_s: float) -> Report:
    """Have a host vanish without a word, and come back."""
    with Host() as host:
        victim = ChildServer("a", host.address, prefix=host.prefix)
        async with fleet(victim, policy=policy) as (channel, load):
            return await _out(channel, load, victim, host.vanish, host.come_back, gone_s)


async def frozen(policy: str, gone_s: float) -> Report:
    """Stop a process in its tracks, its connections up, and let it go on."""
    victim = ChildServer("a")
    async with fleet(victim, policy=policy) as (channel, load):
        return await _out(channel, load, victim, victim.freeze, victim.thaw, gone_s)


async def hanging(policy: str, gone_s: float) -> Report:
    """Have the handlers of a server never answer, while it takes connections and answers pings as before."""
    async with echo_servers(4) as servers:
        victim = servers[0]
        channel = lb.insecure_channel(target_of(servers), options=CHANNEL_OPTIONS, policy=policy)
        async with channel, Load(channel, timeout_s=DEADLINE_S).running() as load:
            await all_ready(channel)
            await asyncio.sleep(SETTLED_S)

            def hang() -> None:
                victim.delay_s = 3600.0

            def answer() -> None:
                victim.delay_s = 0.0

            return await _out(channel, load, victim, hang, answer, gone_s)


async def _out(
    channel: lb.Channel,
    load: Load,
    victim: ChildServer | EchoServer,
    go: Callable[[], None],
    come_back: Callable[[], None],
    gone_s: float,
) -> Report:
    """Have a server of a fleet under load go silent for some seconds."""
    clock = asyncio.get_running_loop().time
    last_answer_of(load, "a")  # it was in use
    go()
    gone_at_s = clock()
    await asyncio.sleep(NOTICED_S)
    sent = endpoint_of(channel, victim.address).picks
    await asyncio.sleep(gone_s - NOTICED_S)
    late_calls = endpoint_of(channel, victim.address).picks - sent
    come_back()
    back_s = clock()
    recovered_s = await load.wait_for("a", back_s, BACK_WITHIN_S)
    await asyncio.sleep(HEALED_S)
    failures_s = [time for time, _ in load.failures]
    figures = {
        LATE_CALLS: late_calls,
        LATE_FAILURES: sum(gone_at_s + NOTICED_S + DEADLINE_S < time <= back_s for time in failures_s),
        HEALED_FAILURES: sum(time > back_s + recovered_s for time in failures_s),
    }
    return report_of(load, recovered_s, figures)
