"""What a balanced channel does beyond what grpc.aio's own does."""

from __future__ import annotations

import asyncio
import threading
import time
import traceback
from collections.abc import AsyncIterator
from typing import Any

import anyio
import grpc
import grpc.aio
import pytest
import trustme

import grpclb_core as lb
from grpclb_core.balancer.upkeep import POLL_S
from support.dns import FaultyDns
from support.ports import free_port
from support.servers import (
    CHANNEL_OPTIONS,
    UNARY_STREAM,
    UNARY_UNARY,
    EchoServer,
    echo_servers,
    eventually,
    target_of,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
async def servers() -> AsyncIterator[list[EchoServer]]:
    async with echo_servers(4) as four:
        yield four


async def all_ready(channel: lb.Channel) -> None:
    await channel.channel_ready()
    await eventually(lambda: all(endpoint.state == "ready" for endpoint in channel.balancer.snapshot().endpoints))


async def test_calls_are_spread_over_the_servers(servers: list[EchoServer]) -> None:
    async with lb.insecure_channel(target_of(servers), policy="round_robin") as channel:
        await all_ready(channel)
        for _ in range(40):
            await channel.unary_unary(UNARY_UNARY)(b"x")
    assert [server.calls for server in servers] == [10, 10, 10, 10]


async def test_fast_path_hands_back_the_call_of_grpc_aio(servers: list[EchoServer]) -> None:
    async with grpc.aio.insecure_channel(servers[0].address) as plain:
        async with lb.insecure_channel(target_of(servers)) as channel:
            await channel.channel_ready()
            ours, theirs = channel.unary_unary(UNARY_UNARY)(b"x"), plain.unary_unary(UNARY_UNARY)(b"x")
            assert type(ours) is type(theirs)
            assert await ours == await theirs
            stream = channel.unary_stream(UNARY_STREAM)(b"x")
            assert type(stream) is type(plain.unary_stream(UNARY_STREAM)(b"x"))
            assert [message async for message in stream] == [b"x"] * 3


async def test_outcomes_are_counted(servers: list[EchoServer]) -> None:
    async with lb.insecure_channel(target_of(servers[:1])) as channel:
        method = channel.unary_unary(UNARY_UNARY)
        assert await method(b"x") == b"x"
        for code in ("NOT_FOUND", "INTERNAL"):
            with pytest.raises(grpc.aio.AioRpcError):
                await method(b"fail:" + code.encode())
        call = method(b"hang")
        await asyncio.sleep(0.01)
        call.cancel()
        (endpoint,) = channel.balancer.snapshot().endpoints
        assert (endpoint.picks, endpoint.successes, endpoint.failures, endpoint.unjudged) == (4, 2, 1, 1)
        assert endpoint.in_flight == 0
        assert endpoint.latency_s is not None
        assert 0 < endpoint.latency_s < 5


async def test_cancelling_does_not_make_a_server_look_fast(servers: list[EchoServer]) -> None:
    servers[0].delay_s = 0.2
    async with lb.insecure_channel(target_of(servers[:1])) as channel:
        method = channel.unary_unary(UNARY_UNARY)
        await method(b"x")
        measured = channel.balancer.snapshot().endpoints[0].latency_s
        assert measured is not None
        for _ in range(10):
            method(b"x").cancel()
        after = channel.balancer.snapshot().endpoints[0].latency_s
        assert after is not None
        assert after > 0.9 * measured  # it fades with time, and with nothing else


async def test_weights_of_a_static_list(servers: list[EchoServer]) -> None:
    listed = [(server.address, weight) for server, weight in zip(servers, (1, 1, 2, 4), strict=True)]
    async with lb.insecure_channel(listed, policy=lb.LeastRequest(choice_count=4)) as channel:
        await all_ready(channel)
        method = channel.unary_unary(UNARY_UNARY)
        calls = [method(b"hang") for _ in range(80)]
        await eventually(lambda: sum(server.open_calls for server in servers) == 80)
        shares = [server.open_calls for server in servers]
        for call in calls:
            call.cancel()
    # Of four draws by weight two may fall on one server, so the least loaded for its weight is not always found: of the
    # picker alone, none of twenty thousand seeds was off by more than 3 (99.98 % confidence).
    assert all(abs(share - exact) <= 3 for share, exact in zip(shares, (10, 10, 20, 40), strict=True)), shares


async def test_outage_says_what_where_and_why() -> None:
    async with lb.insecure_channel("ipv4:127.0.0.1:1,127.0.0.1:2") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(UNARY_UNARY)(b"x")
        details = str(caught.value.details())
        assert "ipv4:127.0.0.1:1,127.0.0.1:2" in details
        assert "none of 2 endpoints is ready" in details
        assert "the resolver answered" in details
        assert "Connection refused" in details
        errors = [endpoint.connection_error for endpoint in channel.balancer.snapshot().endpoints]
        assert any(error is not None and "refused" in error for error in errors)


async def test_outage_of_the_resolver() -> None:
    async with lb.insecure_channel("foo/bar") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(UNARY_UNARY)(b"x")
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "no host name" in str(caught.value.details())
        assert channel.balancer.snapshot().resolver_error is not None


async def test_waiting_counts_towards_the_deadline() -> None:
    async with lb.insecure_channel("ipv4:127.0.0.1:1") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(UNARY_UNARY)(b"x", wait_for_ready=True, timeout=0.2)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "none of 1 endpoint is ready" in str(caught.value.details())


async def test_failing_endpoints_get_no_calls(servers: list[EchoServer]) -> None:
    await servers[0].stop()
    async with lb.insecure_channel(target_of(servers), policy="round_robin") as channel:
        for _ in range(60):
            await channel.unary_unary(UNARY_UNARY)(b"x")
        states = {endpoint.address: endpoint.state for endpoint in channel.balancer.snapshot().endpoints}
    assert states[servers[0].address] != "ready"
    assert servers[0].calls == 0


async def test_interceptors_pick_anew_when_they_retry(servers: list[EchoServer]) -> None:
    class Retry(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            for _ in servers:
                call = await continuation(client_call_details, request)
                if await call.code() is grpc.StatusCode.OK:
                    break
            return call

    for failing in servers[1:]:
        failing.failure = grpc.StatusCode.UNAVAILABLE
    async with lb.insecure_channel(target_of(servers), policy="round_robin", interceptors=[Retry()]) as channel:
        await all_ready(channel)
        for _ in range(8):
            assert await channel.unary_unary(UNARY_UNARY)(b"x") == b"x"
    assert servers[0].calls == 8


async def test_interceptors_may_rename_the_method(servers: list[EchoServer]) -> None:
    class Rename(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            return await continuation(client_call_details._replace(method=UNARY_UNARY.encode()), request)

    async with lb.insecure_channel(target_of(servers), interceptors=[Rename()]) as channel:
        method = channel.unary_unary("/test.Echo/Missing", _registered_method=True)
        assert await method(b"x") == b"x"


async def test_connections_are_made_by_the_factory_of_the_module(
    servers: list[EchoServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instrumentation replaces `grpc.aio.insecure_channel`."""
    dialled: list[str] = []
    original = grpc.aio.insecure_channel

    def instrumented(target: str, *arguments: Any, **keywords: Any) -> grpc.aio.Channel:
        dialled.append(target)
        return original(target, *arguments, **keywords)

    monkeypatch.setattr(grpc.aio, "insecure_channel", instrumented)
    async with lb.insecure_channel(target_of(servers)) as channel:
        await channel.unary_unary(UNARY_UNARY)(b"x")
    assert dialled == [f"ipv4:{server.address}" for server in servers]


async def test_unix_socket(tmp_path: Any) -> None:
    server = await EchoServer().start(f"unix:{tmp_path}/echo.sock")
    async with lb.insecure_channel(f"unix:{tmp_path}/echo.sock") as channel:
        assert await channel.unary_unary(UNARY_UNARY)(b"x") == b"x"
    await server.stop()


async def test_ipv6() -> None:
    server = await EchoServer().start("[::1]")
    async with lb.insecure_channel(f"ipv6:[::1]:{server.port}") as channel:
        assert await channel.unary_unary(UNARY_UNARY)(b"x") == b"x"
    await server.stop()


async def test_localhost(servers: list[EchoServer]) -> None:
    async with lb.insecure_channel(f"localhost:{servers[0].port}") as channel:
        assert await channel.unary_unary(UNARY_UNARY)(b"x", timeout=10) == b"x"


class Tls:
    def __init__(self) -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert("greeter.test")
        self.server = grpc.ssl_server_credentials(
            [(certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes())]
        )
        self.client = grpc.ssl_channel_credentials(authority.cert_pem.bytes())


async def test_tls_checks_the_name_of_the_target() -> None:
    """The certificate is the target's, although connections are made to addresses."""
    tls = Tls()
    with FaultyDns() as dns:
        for name in ("greeter.test", "stranger.test"):
            dns.set(name, "127.0.0.1")
        await check_names(tls, f"dns://{dns.address}")


async def check_names(tls: Tls, dns: str) -> None:
    async with echo_servers(1, tls.server) as (one,):
        async with lb.secure_channel(f"{dns}/greeter.test:{one.port}", tls.client) as channel:
            assert await channel.unary_unary(UNARY_UNARY)(b"x", timeout=10) == b"x"
            token = grpc.access_token_call_credentials("secret")
            assert await channel.unary_unary(UNARY_UNARY)(b"x", credentials=token, timeout=10) == b"x"
            assert ("authorization", "Bearer secret") in one.metadata
        async with lb.secure_channel(f"{dns}/stranger.test:{one.port}", tls.client) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(UNARY_UNARY)(b"x", timeout=10)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_tls_name_of_the_user_wins() -> None:
    tls = Tls()
    async with echo_servers(1, tls.server) as (server,):
        options = [("grpc.ssl_target_name_override", "greeter.test")]
        async with lb.secure_channel(f"ipv4:{server.address}", tls.client, options) as channel:
            assert await channel.unary_unary(UNARY_UNARY)(b"x", timeout=10) == b"x"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("", "empty"),
        ("nothing://x", "unknown scheme"),
        ("ipv4:127.0.0.1:70000", "1 to 65535"),
        ("ipv4:127.0.0.1:1,127.0.0.1:1", "twice"),
        ([("127.0.0.1:1", -1.0)], "weight"),
        ([], "empty"),
    ],
)
async def test_bad_targets(target: Any, message: str) -> None:
    with pytest.raises(lb.ConfigError, match=message):
        lb.insecure_channel(target)


async def test_bad_policy_and_config() -> None:
    with pytest.raises(lb.ConfigError, match="fastest.*known are"):
        lb.insecure_channel("localhost:1", policy="fastest")
    with pytest.raises(lb.ConfigError) as caught:
        lb.insecure_channel("localhost:1", config={"dns": {"min_ttl_s": -1, "nothing": 1}, "sead": 2})
    assert len(caught.value.problems) == 3
    with pytest.raises(lb.ConfigError, match="choice_count"):
        lb.insecure_channel("localhost:1", policy=lb.LeastRequest(choice_count=1))


async def test_use_from_another_loop_is_refused(servers: list[EchoServer]) -> None:
    async with lb.insecure_channel(target_of(servers)) as channel:
        method = channel.unary_unary(UNARY_UNARY)
        await method(b"x")
        caught: list[BaseException] = []

        async def use() -> None:
            try:
                await method(b"x")
            except lb.WrongEventLoopError as error:
                caught.append(error)

        thread = threading.Thread(target=lambda: asyncio.run(use()))
        thread.start()
        await asyncio.to_thread(thread.join)
        assert "another event loop" in str(caught[0])
        assert await method(b"x") == b"x"


def test_use_outside_a_loop_is_refused() -> None:
    channel = lb.insecure_channel("localhost:1")
    with pytest.raises(lb.WrongEventLoopError, match="outside a running event loop"):
        channel.unary_unary(UNARY_UNARY)(b"x")


def test_channel_made_before_the_loop_runs() -> None:
    async def use(channel: lb.Channel, server: EchoServer) -> bytes:
        await server.start(port=server.port)
        answer: bytes = await channel.unary_unary(UNARY_UNARY)(b"early", wait_for_ready=True, timeout=10)
        await channel.close()
        await server.stop()
        return answer

    server = EchoServer()
    server.port = free_port()
    channel = lb.insecure_channel(f"ipv4:127.0.0.1:{server.port}", options=CHANNEL_OPTIONS)
    assert asyncio.run(use(channel, server)) == b"early"


async def test_goaway_reconnects_at_once() -> None:
    """A server that rotates its connections is ready again without a call having to ask for it."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_connection_age_ms", 200)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.add_generic_rpc_handlers((EchoServer()._handlers(),))
    await server.start()
    async with lb.insecure_channel(f"ipv4:127.0.0.1:{port}") as channel:
        await channel.channel_ready()
        states: list[str] = []
        for _ in range(60):
            states.append(channel.balancer.snapshot().endpoints[0].state)
            await asyncio.sleep(0.01)
        assert await channel.unary_unary(UNARY_UNARY)(b"x") == b"x"
    assert states.count("ready") > len(states) * 0.7
    await server.stop(None)


@pytest.mark.parametrize("rounds", range(8))
async def test_closing_at_the_moment_of_a_timeout(rounds: int) -> None:
    """Before Python 3.11 a task takes a cancellation that comes with its own timeout for that, and stays."""
    channel = lb.insecure_channel("ipv4:127.0.0.1:1")
    channel.get_state(try_to_connect=True)
    await asyncio.sleep(POLL_S / 2)  # the watch over the connections waits by now
    closing = asyncio.ensure_future(channel.close())
    for _ in range(rounds):  # of the event loop: closing has to be half-way when the watch's timeout is found run out
        await asyncio.sleep(0)
    time.sleep(2 * POLL_S)  # noqa: ASYNC251 - keeps the loop from noticing
    with anyio.fail_after(5):
        await closing


def test_no_credentials_are_not_taken_for_plaintext() -> None:
    with pytest.raises(lb.ConfigError, match="insecure_channel"):
        nothing: Any = None
        lb.secure_channel("ipv4:127.0.0.1:1", nothing)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"options": [("grpc.x", object())]}, "neither a number nor a string"),
        ({"options": [("grpc.x", None)]}, "neither a number nor a string"),
        ({"options": [("grpc.x", 2**31)]}, "32 bits"),
        ({"options": [(1, 1)]}, "the name is no string"),
        ({"compression": "gzip"}, "expected grpc.Compression"),
    ],
)
def test_what_grpc_aio_would_refuse_is_refused_at_once(arguments: dict[str, Any], says: str) -> None:
    """It would come up in a background task otherwise, when the first endpoint is dialled."""
    with pytest.raises(lb.ConfigError, match=says):
        lb.insecure_channel("ipv4:127.0.0.1:1", **arguments)


@pytest.mark.parametrize("credentials", ["x", grpc.access_token_call_credentials("token")])
def test_credentials_of_another_kind_are_refused_at_once(credentials: Any) -> None:
    with pytest.raises(lb.ConfigError, match=r"expected grpc\.ChannelCredentials"):
        lb.secure_channel("ipv4:127.0.0.1:1", credentials)


async def test_each_who_waits_for_a_failed_call_gets_an_error_of_their_own() -> None:
    """One that is kept would gather the tracebacks of all, and keep the call in a cycle with them."""
    async with lb.insecure_channel("ipv4:127.0.0.1:1") as channel:
        call = channel.unary_unary(UNARY_UNARY)(b"x")
        errors = []
        for _ in range(3):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            errors.append(caught.value)
        assert len({id(error) for error in errors}) == 3
        assert len({str(error) for error in errors}) == 1
        depths = [len(list(traceback.walk_tb(error.__traceback__))) for error in errors]
        assert len(set(depths)) == 1
