"""How often DNS is asked: lookups that are shared, and the ceiling on queries."""

from __future__ import annotations

import time
from collections import Counter

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grpclb_core.config import DnsConfig, parse_config
from grpclb_core.errors import ConfigError
from grpclb_core.resolve import parse_target
from grpclb_core.resolve.dns.flights import shared
from grpclb_core.resolve.dns.lookup import RECORD_TYPES, look_up
from grpclb_core.resolve.dns.pace import MAX_KEYS, Pace
from grpclb_core.resolve.dns.resolvconf import DnsSettings
from grpclb_core.resolve.dns.resolver import DnsResolver
from grpclb_core.types import Address
from support.dns import Fault, FaultyDns
from support.recorder import Recorder

NAME = "greeter.test"
MINUTE_S = 60.0


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class TestShared:
    pytestmark = pytest.mark.anyio

    async def test_those_who_come_meanwhile_get_the_same(self) -> None:
        begun = 0
        gate = anyio.Event()

        async def work() -> object:
            nonlocal begun
            begun += 1
            await gate.wait()
            return object()

        results: list[object] = []

        async def want() -> None:
            results.append(await shared("a", work))

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(want)
            await anyio.wait_all_tasks_blocked()
            gate.set()
        assert begun == 1
        assert len(results) == 5
        assert len(set(map(id, results))) == 1
        await shared("a", work)  # nothing was kept
        assert begun == 2

    async def test_other_keys_are_other_work(self) -> None:
        seen = Counter[str]()

        async def want(key: str) -> None:
            async def work() -> None:
                seen[key] += 1
                await anyio.sleep(0.01)

            await shared(key, work)

        async with anyio.create_task_group() as tasks:
            for key in "aabbb":
                tasks.start_soon(want, key)
        assert seen == {"a": 1, "b": 1}

    async def test_another_takes_over_when_the_first_is_cancelled(self) -> None:
        begun = 0
        gate = anyio.Event()
        results: list[int] = []

        async def work() -> int:
            nonlocal begun
            begun += 1
            await gate.wait()
            return begun

        first = anyio.CancelScope()

        async def want(scope: anyio.CancelScope) -> None:
            with scope:
                results.append(await shared("a", work))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(want, first)
            await anyio.wait_all_tasks_blocked()
            for _ in range(3):
                tasks.start_soon(want, anyio.CancelScope())
            await anyio.wait_all_tasks_blocked()
            first.cancel()
            await anyio.wait_all_tasks_blocked()
            gate.set()
        assert results == [2, 2, 2]

    async def test_one_who_waits_may_leave(self) -> None:
        gate = anyio.Event()

        async def work() -> str:
            await gate.wait()
            return "done"

        results: list[str] = []

        async def want() -> None:
            results.append(await shared("a", work))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(want)
            await anyio.wait_all_tasks_blocked()
            with anyio.move_on_after(0.01) as scope:
                await shared("a", work)
            assert scope.cancelled_caught
            gate.set()
        assert results == ["done"]

    async def test_a_fault_is_met_by_each(self) -> None:
        begun = 0
        caught: list[str] = []

        async def work() -> None:
            nonlocal begun
            begun += 1
            number = begun
            await anyio.sleep(0.01)
            raise OSError(str(number))

        async def want() -> None:
            try:
                await shared("a", work)
            except OSError as error:
                caught.append(str(error))

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(want)
        assert sorted(caught) == ["1", "2", "3"]


class TestPace:
    def test_half_at_once_then_evenly(self) -> None:
        clock = Clock()
        pace = Pace(clock)
        assert [pace.take("a", 8) for _ in range(5)] == [True] * 4 + [False]
        assert pace.wait_s("a", 1, 8) == pytest.approx(15)
        assert pace.wait_s("a", 4, 8) == pytest.approx(60)
        clock.now_s += 15
        assert pace.wait_s("a", 1, 8) == 0
        assert [pace.take("a", 8) for _ in range(2)] == [True, False]

    def test_each_key_counts_for_itself(self) -> None:
        pace = Pace(Clock())
        assert all(pace.take("a", 8) for _ in range(4))
        assert pace.take("b", 8)
        assert not pace.take("a", 8)

    @pytest.mark.parametrize("per_minute", [8, 60, 240, 1000])
    def test_a_wait_is_enough(self, per_minute: int) -> None:
        clock = Clock()
        pace = Pace(clock)
        for _ in range(3 * per_minute):
            clock.now_s += pace.wait_s("a", 1, per_minute)
            assert pace.take("a", per_minute)
        assert clock.now_s - 100 == pytest.approx(2.5 * 2 * MINUTE_S, rel=0.05)

    @given(st.integers(8, 60), st.lists(st.tuples(st.floats(0, 20), st.integers(1, 40)), max_size=60))
    @settings(max_examples=50)
    def test_no_minute_has_more_than_the_ceiling(self, per_minute: int, bursts: list[tuple[float, int]]) -> None:
        clock = Clock()
        pace = Pace(clock)
        sent: list[float] = []
        for pause_s, wanted in bursts:
            clock.now_s += pause_s
            sent += [clock.now_s for _ in range(wanted) if pace.take("a", per_minute)]
        for start_s in sent:
            assert sum(start_s <= at_s < start_s + MINUTE_S for at_s in sent) <= per_minute

    def test_memory_is_bounded(self) -> None:
        pace = Pace(Clock())
        for number in range(MAX_KEYS + 100):
            pace.take(number, 8)
        assert len(pace._due_s) == MAX_KEYS

    def test_options(self) -> None:
        assert parse_config({"dns": {"max_queries_per_minute": 8}}).dns.max_queries_per_minute == 8
        with pytest.raises(ConfigError, match="max_queries_per_minute"):
            parse_config({"dns": {"max_queries_per_minute": 7}})


def resolver_at(server: FaultyDns, config: DnsConfig, name: str = NAME) -> DnsResolver:
    return DnsResolver(parse_target(f"dns://{server.address}/{name}.:50051"), config, rng=lambda: 0.5)


@pytest.mark.anyio
async def test_resolvers_of_one_name_share_a_lookup(server: FaultyDns) -> None:
    server.set(NAME, "10.0.0.1", ttl_s=30)
    sinks = [Recorder() for _ in range(50)]
    async with anyio.create_task_group() as tasks:
        for number, sink in enumerate(sinks):
            # Names are the same whatever their case.
            tasks.start_soon(resolver_at(server, DnsConfig(), NAME if number % 2 else NAME.upper()).run, sink)
        for sink in sinks:
            await sink.until(lambda sink=sink: sink.updates)  # type: ignore[misc]
        tasks.cancel_scope.cancel()
    assert len(server.queries) == 2
    assert all(sink.hosts == ["10.0.0.1"] for sink in sinks)


@pytest.mark.anyio
async def test_a_resolver_that_stops_does_not_stop_the_others(server: FaultyDns, sink: Recorder) -> None:
    server.fail(NAME, Fault.DROP)
    config = DnsConfig(timeout_s=2.0)
    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as first:
            tasks.start_soon(resolver_at(server, config).run, sink)
            other = Recorder()
            await other.until(lambda: server.queries)
            async with anyio.create_task_group() as doomed:
                doomed.start_soon(resolver_at(server, config).run, other)
                await anyio.sleep(0.05)
                doomed.cancel_scope.cancel()
        assert not first.cancelled_caught
        server.heal(NAME)
        server.set(NAME, "10.0.0.1")
        await sink.until(lambda: sink.updates)
        tasks.cancel_scope.cancel()
    assert not other.updates


@pytest.mark.anyio
@pytest.mark.parametrize("fault", [None, Fault.SERVFAIL, Fault.TRUNCATED])
async def test_a_storm_of_refreshes_stays_below_the_ceiling(server: FaultyDns, fault: Fault | None) -> None:
    """Fault F11: channels whose connections break all the time ask, between them, no more than is allowed."""
    server.set(NAME, "10.0.0.1")
    if fault:
        server.fail(NAME, fault)
    config = DnsConfig(min_ttl_s=0.01, max_ttl_s=0.02, max_backoff_s=0.02, timeout_s=1.0, max_queries_per_minute=120)
    resolvers = [resolver_at(server, config) for _ in range(20)]
    sinks = [Recorder() for _ in resolvers]
    start_s = time.monotonic()
    async with anyio.create_task_group() as tasks:
        for resolver, sink in zip(resolvers, sinks, strict=True):
            tasks.start_soon(resolver.run, sink)
        while time.monotonic() - start_s < 1.5:
            for resolver in resolvers:
                resolver.refresh()
            await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    took_s = time.monotonic() - start_s
    # Half of the ceiling at once, then half of it a minute.
    assert 10 <= len(server.queries) <= 60 + took_s + 1
    assert all(sink.order for sink in sinks)
    if fault is None:
        assert all(sink.order == ["update"] for sink in sinks)


@pytest.mark.anyio
async def test_beyond_the_ceiling_lookups_wait_and_share(server: FaultyDns) -> None:
    server.set(NAME, "10.0.0.1")
    asked = DnsSettings(servers=(Address("127.0.0.1", server.port),))
    config = DnsConfig(timeout_s=1.0, max_queries_per_minute=480)  # 4 queries a second, after 240 at once
    found = 0

    async def want() -> None:
        nonlocal found
        while True:
            lookup = await look_up(f"{NAME}.", RECORD_TYPES, asked, config)
            found += lookup.found

    with anyio.move_on_after(3):
        async with anyio.create_task_group() as tasks:
            for _ in range(30):
                tasks.start_soon(want)
    steady = [query for query in server.asked(NAME) if query.at_s > server.queries[0].at_s + 2]
    assert 1 <= len(steady) <= 6
    assert len(server.queries) <= 240 + 4 * 5
    assert found >= 30 * 120  # none of them was left out
