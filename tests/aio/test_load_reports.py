"""What real servers say of their load, and what a channel makes of it: with calls, and out of band."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import math
import random
import weakref
from collections.abc import AsyncIterator, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar

import anyio
import grpc
import grpc.aio
import msgspec
import pytest

import grpclb_core as lb
from grpclb_core.balancer.load import LoadReports
from grpclb_core.native import Picker, RoundRobinPicker, Slot, StridePicker, Ticket, View, now_ns
from grpclb_core.reports import OWN_KEY, STANDARD_KEY, encode_report
from grpclb_core.server import LoadInterceptor, LoadRecorder, add_load_service
from grpclb_core.types import IN_FLIGHT_METRIC, LATENCY_METRIC, LoadReport, Resolution
from support.recorder import PATIENCE_S
from support.servers import CHANNEL_OPTIONS, UNARY_STREAM, UNARY_UNARY, EchoServer, eventually, target_of
from support.source import Source, endpoint

pytestmark = pytest.mark.anyio

# At the same rate of calls they are used at .1, .2, .4 and .8: 53.3, 26.7, 13.3 and 6.7 % of the calls.
CAPACITIES = [800.0, 400.0, 200.0, 100.0]
SHARES = [8 / 15, 4 / 15, 2 / 15, 1 / 15]
HALF_A_POINT = 0.005
CALLS, CALLERS = 1_500, 10

WITH_CALLS = lb.WeightedRoundRobin(blackout_period_s=0.1, weight_update_period_s=0.2)
OUT_OF_BAND = lb.WeightedRoundRobin(
    blackout_period_s=0.1, weight_update_period_s=0.2, enable_oob_load_report=True, oob_reporting_period_s=0.02
)


class Machine(LoadRecorder):
    """Knows how many calls a second are all it can take."""

    def __init__(self, capacity: float) -> None:
        super().__init__()
        self.capacity = capacity
        self.reports = 0

    def report(self, request_cost: Mapping[str, float] | None = None) -> LoadReport:
        self.reports += 1
        report = super().report(request_cost)
        return msgspec.structs.replace(report, application_utilization=report.rps_fractional / self.capacity)


class Idle(Machine):
    """Tells of calls that others make."""

    def report(self, request_cost: Mapping[str, float] | None = None) -> LoadReport:
        self.reports += 1
        return LoadReport(rps_fractional=80.0, application_utilization=80.0 / self.capacity)


class Reporting(EchoServer):
    """Reports with its calls, or out of band."""

    def __init__(self, name: str, machine: Machine, *, out_of_band: bool = False) -> None:
        super().__init__(name)
        self.machine = machine
        self._out_of_band = out_of_band
        if not out_of_band:
            self.interceptors = (LoadInterceptor(machine),)

    def serve(self, server: grpc.aio.Server) -> None:
        if self._out_of_band:
            add_load_service(server, self.machine, min_period_s=0.01)


class Saying(EchoServer):
    """Sends whatever trailers it is told to."""

    trailers: tuple[tuple[str, bytes], ...] = ()

    async def _begin(self, context: Any) -> None:
        context.set_trailing_metadata(self.trailers)


@contextlib.asynccontextmanager
async def running(*servers: EchoServer) -> AsyncIterator[None]:
    for server in servers:
        await server.start()
    try:
        yield
    finally:
        for server in servers:
            await server.stop()


def slots_of(channel: lb.Channel) -> list[Slot]:
    return [member.slot for member in channel.balancer._endpoints.members()]


def has_ignored(slot: Slot, count: int) -> bool:
    return slot.ignored_reports == count


async def all_weighed(channel: lb.Channel) -> None:
    """Make calls until every endpoint has a weight that is used."""
    method, current = channel.unary_unary(UNARY_UNARY), channel.balancer.current
    policy = channel.balancer.policy
    assert isinstance(policy, lb.WeightedRoundRobin)
    with anyio.fail_after(PATIENCE_S):
        while type(current.picker) is not StridePicker or not all(policy.usable_weights(current.picker.view, now_ns())):
            await method(b"x", timeout=PATIENCE_S)
    await asyncio.sleep(policy.rebuild_s + 0.05)  # the picker in force may still be of the first of them


async def shares(channel: lb.Channel, servers: list[Any]) -> list[float]:
    """Make many calls; return the part of them that each server got."""
    method, before = channel.unary_unary(UNARY_UNARY), [server.calls for server in servers]

    async def caller() -> None:
        for _ in range(CALLS // CALLERS):
            await method(b"x", timeout=PATIENCE_S)

    await asyncio.gather(*[caller() for _ in range(CALLERS)])
    return [(server.calls - calls) / CALLS for server, calls in zip(servers, before, strict=True)]


class TestWeightedRoundRobin:
    async def test_reports_with_calls_make_the_shares(self) -> None:
        servers = [Reporting(str(place), Machine(capacity)) for place, capacity in enumerate(CAPACITIES)]
        async with running(*servers):
            async with lb.insecure_channel(target_of(servers), options=CHANNEL_OPTIONS, policy=WITH_CALLS) as channel:
                await all_weighed(channel)
                assert await shares(channel, servers) == pytest.approx(SHARES, abs=HALF_A_POINT)
                assert [slot.ignored_reports for slot in slots_of(channel)] == [0] * 4

    async def test_reports_out_of_band_make_them_too(self) -> None:
        servers = [Reporting(str(place), Idle(capacity), out_of_band=True) for place, capacity in enumerate(CAPACITIES)]
        async with running(*servers):
            async with lb.insecure_channel(target_of(servers), options=CHANNEL_OPTIONS, policy=OUT_OF_BAND) as channel:
                await all_weighed(channel)
                assert await shares(channel, servers) == pytest.approx(SHARES, abs=HALF_A_POINT)
                assert all(slot.in_flight == 0 for slot in slots_of(channel))  # the streams are no calls
            told = [server.machine.reports for server in servers]
            await asyncio.sleep(0.1)
            assert [server.machine.reports for server in servers] == told  # nobody listens any more

    async def test_servers_that_do_not_report_are_taken_in_turn(self) -> None:
        servers = [EchoServer("a"), EchoServer("b")]
        async with running(*servers):
            for policy in (WITH_CALLS, OUT_OF_BAND):
                async with lb.insecure_channel(target_of(servers), options=CHANNEL_OPTIONS, policy=policy) as channel:
                    await eventually(lambda: _ready(channel) == 2)
                    for _ in range(20):
                        await channel.unary_unary(UNARY_UNARY)(b"x", timeout=PATIENCE_S)
                    assert type(channel.balancer.current.picker) is RoundRobinPicker
                    # Turns begin anew with each picker, and one may have been made in between.
                    assert [slot.picks for slot in slots_of(channel)] == pytest.approx([10, 10], abs=2)

    async def test_a_new_connection_makes_the_weight_unknown_again(self) -> None:
        server = Reporting("a", Machine(100))
        await server.start()
        async with lb.insecure_channel(target_of([server]), options=CHANNEL_OPTIONS, policy=WITH_CALLS) as channel:
            await channel.unary_unary(UNARY_UNARY)(b"x", timeout=PATIENCE_S)
            (slot,) = slots_of(channel)
            await eventually(lambda: slot.weighed_since_ns > 0)
            await server.stop()
            await eventually(lambda: _ready(channel) == 0)
            await server.start(port=server.port)
            await eventually(lambda: _ready(channel) == 1)
            assert slot.weighed_since_ns == 0
        await server.stop()

    async def test_a_service_config_can_ask_for_reports_out_of_band(self) -> None:
        server = Reporting("a", Idle(100), out_of_band=True)
        async with running(server):
            source = Source([endpoint(server.address)])
            async with lb.insecure_channel(source, options=CHANNEL_OPTIONS) as channel:
                await channel.unary_unary(UNARY_UNARY)(b"x", timeout=PATIENCE_S)
                assert server.machine.reports == 0

                def say(policy: str, **options: object) -> None:
                    text = json.dumps({"loadBalancingConfig": [{policy: options}]})
                    assert source._sink is not None
                    source._sink.update(Resolution(source.endpoints, service_config=text))

                say("weighted_round_robin", enableOobLoadReport=True, oobReportingPeriod="0.02s")
                await eventually(lambda: slots_of(channel)[0].weighed_since_ns > 0)
                say("round_robin")
                await asyncio.sleep(0.05)
                told = server.machine.reports
                await asyncio.sleep(0.1)
                assert server.machine.reports == told


def _ready(channel: lb.Channel) -> int:
    channel.get_state(try_to_connect=True)
    return sum(one.state == "ready" for one in channel.balancer.snapshot().endpoints)


class Curious:
    """A policy that goes by reports in a way of its own."""

    name: ClassVar[str] = "curious"
    decay_s = 10.0
    oob_period_s: float | None = None

    def __init__(self, fault: Exception | None = None) -> None:
        self.heard: list[LoadReport] = []
        self.fault = fault

    def build(self, view: View, seed: int, now_ns: int) -> Picker:
        return lb.RoundRobin().build(view, seed, now_ns)

    def observe(self, report: LoadReport, slot: Slot, now_ns: int) -> None:
        assert slot.ignored_reports == 0
        self.heard.append(report)
        if self.fault is not None:
            raise self.fault


class TestAnyPolicy:
    async def test_what_servers_have_in_flight_is_known(self) -> None:
        server, policy = Reporting("a", Machine(100)), Curious()
        async with running(server):
            async with lb.insecure_channel(target_of([server]), options=CHANNEL_OPTIONS, policy=policy) as channel:
                method = channel.unary_unary(UNARY_UNARY)
                slow = [method(b"sleep:0.3", timeout=PATIENCE_S) for _ in range(3)]
                await eventually(lambda: server.open_calls == 3)
                await method(b"x", timeout=PATIENCE_S)
                (slot,) = slots_of(channel)
                await eventually(lambda: slot.reported_ns > 0)
                assert slot.reported_in_flight == 3
                await asyncio.gather(*slow)
                await eventually(lambda: slot.reported_in_flight == 0)
                await eventually(lambda: len(policy.heard) == 4)
                assert slot.reported_latency_ns == pytest.approx(policy.heard[-1].named_metrics[LATENCY_METRIC] * 1e9)

    async def test_streams_bring_reports_too(self) -> None:
        server, policy = Reporting("a", Machine(100)), Curious()
        async with running(server):
            async with lb.insecure_channel(target_of([server]), options=CHANNEL_OPTIONS, policy=policy) as channel:
                assert len([answer async for answer in channel.unary_stream(UNARY_STREAM)(b"x")]) == 3
                await eventually(lambda: len(policy.heard) == 1)

    async def test_failed_calls_bring_reports_too(self) -> None:
        server, policy = Reporting("a", Machine(100)), Curious()
        async with running(server):
            async with lb.insecure_channel(target_of([server]), options=CHANNEL_OPTIONS, policy=policy) as channel:
                with pytest.raises(grpc.aio.AioRpcError):
                    await channel.unary_unary(UNARY_UNARY)(b"fail:INTERNAL", timeout=PATIENCE_S)
                await eventually(lambda: len(policy.heard) == 1)
                assert policy.heard[0].eps > 0

    async def test_reports_that_cannot_be_believed_are_ignored_and_counted(self) -> None:
        server, policy = Saying("a"), lb.WeightedRoundRobin()
        async with running(server):
            async with lb.insecure_channel(target_of([server]), options=CHANNEL_OPTIONS, policy=policy) as channel:
                method = channel.unary_unary(UNARY_UNARY)

                async def slot_after(*trailers: tuple[str, bytes]) -> Slot:
                    server.trailers = trailers
                    await method(b"x", timeout=PATIENCE_S)
                    await asyncio.sleep(0.002)  # the end of the call is told in a turn of its own
                    return slots_of(channel)[0]

                untrusted = [
                    b"\xff\xff\xff",
                    b"no report",
                    *(
                        encode_report(LoadReport(**{"rps_fractional": 9.0, "cpu_utilization": 0.5} | {field: number}))
                        for field in ("cpu_utilization", "rps_fractional", "eps", "application_utilization")
                        for number in (math.nan, math.inf, -math.inf, -1.0)
                    ),
                    encode_report(LoadReport(mem_utilization=1.5)),
                    encode_report(LoadReport(named_metrics={IN_FLIGHT_METRIC: -1.0})),
                    encode_report(LoadReport(named_metrics={LATENCY_METRIC: math.nan})),
                ]
                for count, message in enumerate(untrusted, 1):
                    slot = await slot_after((OWN_KEY, message))
                    await eventually(partial(has_ignored, slot, count))
                assert (slot.weighed_ns, slot.reported_ns) == (0, 0)

                past_capacity = LoadReport(rps_fractional=9.0, cpu_utilization=4.5)
                slot = await slot_after((OWN_KEY, encode_report(past_capacity)), (OWN_KEY, b"a second one"))
                await eventually(lambda: slot.reported_weight == 2.0)
                assert slot.ignored_reports == len(untrusted)

                # C-core takes the standard one for itself, and another one is nobody's.
                slot = await slot_after((STANDARD_KEY, b"\xff"), ("other-bin", b"\xff"))
                assert slot.reported_weight == 2.0
                assert slot.ignored_reports == len(untrusted)

    async def test_a_policy_that_fails_on_reports_fails_no_call(self, caplog: pytest.LogCaptureFixture) -> None:
        server, policy = Reporting("a", Machine(100)), Curious(fault=RuntimeError("not today"))
        async with running(server):
            with caplog.at_level(logging.ERROR, "grpclb_core"):
                async with lb.insecure_channel(target_of([server]), options=CHANNEL_OPTIONS, policy=policy) as channel:
                    for _ in range(5):
                        assert await channel.unary_unary(UNARY_UNARY)(b"x", timeout=PATIENCE_S) == b"x"
                    await eventually(lambda: len(policy.heard) == 5)
                    assert slots_of(channel)[0].reported_ns > 0
        (record,) = caplog.records
        assert "policy curious does not take a load report" in record.message

    async def test_the_picker_in_force_hears_of_it(self) -> None:
        told: list[Slot] = []
        picker = SimpleNamespace(reported=told.append)
        owner: Any = SimpleNamespace(policy=Curious(), current=SimpleNamespace(picker=picker))
        reports, slot = LoadReports(lambda: owner, random.Random(1)), Slot()
        reports.take(slot, LoadReport())
        owner.current.picker = None
        reports.take(slot, LoadReport())
        assert told == [slot]

    async def test_a_policy_without_an_interest_reads_none(self) -> None:
        server = Reporting("a", Machine(100))
        async with running(server):
            for policy in (None, "round_robin", "least_request", "random"):
                async with lb.insecure_channel(target_of([server]), options=CHANNEL_OPTIONS, policy=policy) as channel:
                    await channel.unary_unary(UNARY_UNARY)(b"x", timeout=PATIENCE_S)
                    assert channel.balancer.current.picker is not None
                    assert channel.balancer.current.picker.reporter is None
                    assert slots_of(channel)[0].reported_ns == 0


class TestLife:
    async def test_an_open_ticket_does_not_hold_the_balancer(self) -> None:
        async def leave_behind(target: str) -> tuple[weakref.ref[lb.Balancer], Ticket, Any]:
            async with lb.Balancer(target, options=CHANNEL_OPTIONS, policy="weighted_round_robin") as balancer:
                await eventually(lambda: balancer.current.picker is not None)
                assert balancer.current.picker is not None
                return weakref.ref(balancer), balancer.current.picker.pick(), balancer.current.picker.reporter

        async with running(server := EchoServer("a")):
            gone, ticket, reporter = await leave_behind(target_of([server]))
            await asyncio.sleep(0.05)
            gc.collect()
            assert gone() is None
            reporter(ticket.slot, ((OWN_KEY, encode_report(LoadReport(rps_fractional=1.0, cpu_utilization=1.0))),))
            assert ticket.slot.weighed_ns == 0

    async def test_nothing_to_read(self) -> None:
        policy = Curious()
        owner: Any = SimpleNamespace(policy=policy, current=SimpleNamespace(picker=None))
        reports, slot = LoadReports(lambda: owner, random.Random(1)), Slot()
        for trailing in (None, (), (("x", "y"),), (("other-bin", b"\xff"),)):
            reports(slot, trailing)
        assert (slot.ignored_reports, policy.heard) == (0, [])
        reports(slot, ((OWN_KEY, b""),))
        assert policy.heard == [LoadReport()]  # empty, which is no fault
        reports(slot, ((OWN_KEY, "text"),))
        assert slot.ignored_reports == 1

    async def test_nobody_to_read_it(self) -> None:
        reports, slot = LoadReports(lambda: None, random.Random(1)), Slot()
        reports(slot, ((OWN_KEY, b"\xff"),))
        reports.take(slot, LoadReport())
        assert reports.period_s is None
        assert (slot.ignored_reports, slot.reported_ns) == (0, 0)
