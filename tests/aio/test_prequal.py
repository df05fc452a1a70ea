"""Prequal with real servers: reports with calls, servers that are asked, and those that cannot answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import grpc
import grpc.aio
import pytest

import grpclb_core as lb
from grpclb_core.balancer import probing
from grpclb_core.native import PrequalPicker, Slot, now_ns
from grpclb_core.reports import encode_report
from grpclb_core.reports.keys import METHOD, SERVICE
from grpclb_core.server import LoadInterceptor, LoadRecorder, add_load_service
from grpclb_core.types import IN_FLIGHT_METRIC, LoadReport, Resolution
from support.recorder import PATIENCE_S
from support.servers import CHANNEL_OPTIONS, UNARY_UNARY, EchoServer, eventually, target_of
from support.source import Source, endpoint

pytestmark = pytest.mark.anyio

QUIET = lb.Prequal(idle_probes_per_s=0.0, probe_rate=0.0)
"""Asks nobody by itself."""


class Telling(EchoServer):
    """Reports its load with its calls, and when it is asked."""

    def __init__(
        self, name: str = "", *, with_calls: bool = True, when_asked: bool = True, latency_s: float = 0.0
    ) -> None:
        super().__init__(name)
        self.recorder = LoadRecorder()
        self.delay_s = latency_s
        self.asked = 0
        self.interceptors = (LoadInterceptor(self.recorder),) if with_calls else ()
        self._when_asked = when_asked

    def serve(self, server: grpc.aio.Server) -> None:
        server.add_generic_rpc_handlers((_Counting(self),))
        if self._when_asked:
            add_load_service(server, self.recorder)


class _Counting(grpc.GenericRpcHandler):
    """Counts who asks, and leaves the answer to others."""

    def __init__(self, server: Telling) -> None:
        self._server = server

    def service(self, details: grpc.HandlerCallDetails) -> None:
        self._server.asked += details.method == f"/{SERVICE}/{METHOD}"


class Lying(EchoServer):
    """Answers whoever asks with a report that cannot be believed."""

    def serve(self, server: grpc.aio.Server) -> None:
        async def report(request: bytes, context: Any) -> AsyncIterator[bytes]:
            yield encode_report(LoadReport(named_metrics={IN_FLIGHT_METRIC: -1.0}))

        handler = grpc.unary_stream_rpc_method_handler(report)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))


@contextlib.asynccontextmanager
async def balanced(*servers: EchoServer, policy: lb.Prequal) -> AsyncIterator[lb.Channel]:
    """Run servers and a channel to all of them, connected."""
    for server in servers:
        await server.start()
    try:
        async with lb.insecure_channel(target_of(servers), options=CHANNEL_OPTIONS, policy=policy) as channel:
            channel.get_state(try_to_connect=True)
            await eventually(lambda: picker_of(channel) is not None and len(picker_of(channel)) == len(servers))
            yield channel
    finally:
        for server in servers:
            await server.stop()


def picker_of(channel: lb.Channel) -> PrequalPicker:
    picker: Any = channel.balancer.current.picker
    return picker


def slots_of(channel: lb.Channel) -> list[Slot]:
    return [member.slot for member in channel.balancer._endpoints.members()]


async def call(channel: lb.Channel, times: int = 1, at_once: int = 1) -> None:
    method = channel.unary_unary(UNARY_UNARY)

    async def caller() -> None:
        for _ in range(times // at_once):
            with contextlib.suppress(grpc.aio.AioRpcError):
                await method(b"x", timeout=PATIENCE_S)

    await asyncio.gather(*[caller() for _ in range(at_once)])


class TestWithCalls:
    async def test_the_faster_server_gets_the_calls(self) -> None:
        servers = [Telling("slow", latency_s=0.05), Telling("fast"), Telling("fast too")]
        async with balanced(*servers, policy=QUIET) as channel:
            with anyio.fail_after(PATIENCE_S):
                while picker_of(channel).pooled_at(now_ns()) < 3:  # all of them are new, so all get some
                    await call(channel, 3, at_once=3)
            before = [server.calls for server in servers]
            await call(channel, 200, at_once=2)
            assert servers[0].calls - before[0] <= 10
            assert all(slot.reported_ns > 0 for slot in slots_of(channel))

    async def test_a_server_that_fails_at_once_gets_few(self) -> None:
        servers = [Telling(str(place), latency_s=0.002) for place in range(4)]
        servers[0].delay_s, servers[0].failure = 0.0, grpc.StatusCode.UNAVAILABLE
        async with balanced(*servers, policy=lb.Prequal()) as channel:
            await call(channel, 400, at_once=4)
            assert servers[0].calls <= 8

    async def test_servers_that_tell_nothing_are_balanced_all_the_same(self) -> None:
        servers = [EchoServer(str(place)) for place in range(4)]
        servers[0].delay_s = 0.05
        async with balanced(*servers, policy=lb.Prequal()) as channel:
            await call(channel, 400, at_once=8)
            assert all(server.calls > 0 for server in servers)
            assert servers[0].calls < min(server.calls for server in servers[1:])  # it has more of them open
            assert picker_of(channel).pooled_at(now_ns()) == 0


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for servers to ask as often without calls as with them."""
    monkeypatch.setattr(probing, "IDLE_S", 0.02)


@pytest.mark.usefixtures("quick")
class TestAsking:
    async def test_those_no_call_goes_to_are_asked(self) -> None:
        servers = [Telling(str(place), with_calls=False) for place in range(3)]
        async with balanced(*servers, policy=lb.Prequal(idle_probes_per_s=100.0)) as channel:
            await eventually(lambda: picker_of(channel).pooled_at(now_ns()) == 3)
            assert [server.calls for server in servers] == [0, 0, 0]
            assert all(slot.in_flight == 0 and slot.picks == 0 for slot in slots_of(channel))

    async def test_for_each_call_some_are(self) -> None:
        servers = [Telling(str(place), with_calls=False) for place in range(3)]
        async with balanced(*servers, policy=lb.Prequal(idle_probes_per_s=0.0)) as channel:
            await asyncio.sleep(0.1)
            assert [server.asked for server in servers] == [0, 0, 0]
            await call(channel, 10)
            await eventually(lambda: all(server.asked for server in servers))

    async def test_who_cannot_answer_is_not_asked_again_on_the_same_connection(self) -> None:
        server, other = Telling(when_asked=False, with_calls=False), Telling()
        async with balanced(server, other, policy=lb.Prequal(idle_probes_per_s=1_000.0, probe_after_s=0.0)) as channel:
            await eventually(lambda: other.asked > 10)
            assert server.asked == 1
            await server.stop()
            await eventually(lambda: len(picker_of(channel)) == 1)
            await server.start(port=server.port)
            await eventually(lambda: server.asked == 2)

    async def test_who_is_not_believed_is_counted(self) -> None:
        async with balanced(Lying(), Lying(), policy=lb.Prequal(idle_probes_per_s=100.0)) as channel:
            await eventually(lambda: all(slot.ignored_reports for slot in slots_of(channel)))
            assert picker_of(channel).pooled_at(now_ns()) == 0
            await call(channel)

    async def test_another_policy_asks_nobody(self) -> None:
        server = Telling(with_calls=False)
        await server.start()
        source = Source([endpoint(server.address)])

        def say(policy: str, **options: object) -> None:
            text = json.dumps({"loadBalancingConfig": [{policy: options}]})
            assert source._sink is not None
            source._sink.update(Resolution(source.endpoints, service_config=text))

        async with lb.insecure_channel(source, options=CHANNEL_OPTIONS) as channel:
            await call(channel)
            assert server.asked == 0
            say("prequal", idleProbesPerS=100, probeAfter="0s")
            await eventually(lambda: server.asked > 3)
            say("round_robin")
            await asyncio.sleep(0.1)
            asked = server.asked
            await asyncio.sleep(0.2)
            assert server.asked == asked
        await server.stop()

    async def test_closing_does_not_wait_for_an_answer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(probing, "TIMEOUT_S", 60.0)
        server = Hanging()
        with anyio.fail_after(PATIENCE_S):
            async with balanced(server, policy=lb.Prequal(idle_probes_per_s=100.0)):
                await eventually(lambda: server.asked > 0)


class Hanging(Telling):
    """Is asked, and never answers."""

    def __init__(self) -> None:
        super().__init__(when_asked=False, with_calls=False)

    def serve(self, server: grpc.aio.Server) -> None:
        super().serve(server)

        async def hang(request: bytes, context: Any) -> AsyncIterator[bytes]:
            await asyncio.Event().wait()
            yield b""

        handler = grpc.unary_stream_rpc_method_handler(hang)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))


class TestSynchronous:
    POLICY = lb.Prequal(idle_probes_per_s=0.0, probe_rate=0.0, sync_probes=3)

    async def test_a_call_asks_first_where_nothing_is_known(self) -> None:
        servers = [Telling(str(place)) for place in range(3)]
        async with balanced(*servers, policy=self.POLICY) as channel:
            await call(channel)
            assert sum(server.asked for server in servers) == 3
            assert sum(server.calls for server in servers) == 1
            await call(channel, 5)  # what is known is fresh
            assert sum(server.asked for server in servers) == 3

    async def test_calls_at_once_ask_once(self) -> None:
        servers = [Telling(str(place)) for place in range(3)]
        async with balanced(*servers, policy=self.POLICY) as channel:
            await call(channel, 20, at_once=20)
            assert sum(server.asked for server in servers) == 3

    async def test_one_that_does_not_answer_is_not_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(probing, "TIMEOUT_S", 60.0)
        servers = [Telling(), Telling(), Hanging()]
        async with balanced(*servers, policy=self.POLICY) as channel:
            with anyio.fail_after(PATIENCE_S):
                await call(channel)
            assert servers[2].asked == 1

    async def test_where_nobody_can_answer_calls_go_all_the_same(self) -> None:
        servers = [EchoServer(str(place)) for place in range(3)]
        async with balanced(*servers, policy=self.POLICY) as channel:
            await call(channel, 30)
            assert sum(server.calls for server in servers) == 30

    async def test_the_deadline_counts_while_it_asks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(probing, "TIMEOUT_S", 60.0)
        async with balanced(Hanging(), Hanging(), policy=self.POLICY) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await channel.unary_unary(UNARY_UNARY)(b"x", timeout=0.1)
            assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    async def test_a_call_that_is_cancelled_leaves_the_others_waiting(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(probing, "TIMEOUT_S", 0.3)
        async with balanced(Hanging(), Hanging(), policy=self.POLICY) as channel:
            method = channel.unary_unary(UNARY_UNARY)
            first, second = method(b"x"), method(b"y", timeout=PATIENCE_S)
            await asyncio.sleep(0.05)
            first.cancel()
            assert await second == b"y"

    async def test_one_server_is_no_choice_and_nobody_asks(self) -> None:
        server = Telling()
        async with balanced(server, policy=self.POLICY) as channel:
            await call(channel, 5)
            assert (server.asked, server.calls) == (0, 5)
