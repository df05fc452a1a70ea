"""Every test here runs against grpc.aio's own channel and against ours: the first is the specification."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
import pytest

import grpclb_core as lb
from support.servers import (
    CHANNEL_OPTIONS,
    STREAM_STREAM,
    STREAM_UNARY,
    UNARY_STREAM,
    UNARY_UNARY,
    EchoServer,
    echo_servers,
    eventually,
)

pytestmark = pytest.mark.anyio

NOBODY = "ipv4:127.0.0.1:1"  # nothing listens on the port of tcpmux
Factory = Callable[..., grpc.aio.Channel]


@pytest.fixture(params=["grpc.aio", "grpclb_core"])
def factory(request: pytest.FixtureRequest) -> Factory:
    return grpc.aio.insecure_channel if request.param == "grpc.aio" else lb.insecure_channel


@pytest.fixture
async def server() -> AsyncIterator[EchoServer]:
    async with echo_servers(1) as (one,):
        yield one


@pytest.fixture(params=["first call", "connected"])
async def channel(request: pytest.FixtureRequest, factory: Factory, server: EchoServer) -> AsyncIterator[Any]:
    """A channel before its first call, when calls have to wait, and one that is connected."""
    made = factory(f"ipv4:{server.address}", options=CHANNEL_OPTIONS)
    if request.param == "connected":
        await made.channel_ready()
    yield made
    await made.close()


async def requests(*messages: bytes) -> AsyncIterator[bytes]:
    for message in messages:
        yield message


async def test_unary_unary(channel: Any) -> None:
    call = channel.unary_unary(UNARY_UNARY)(b"hello")
    assert isinstance(call, grpc.aio.UnaryUnaryCall)
    assert not call.done()
    assert await call == b"hello"
    assert call.done()
    assert not call.cancelled()
    assert not call.cancel()
    assert await call.code() is grpc.StatusCode.OK
    assert await call.details() == ""
    assert dict(await call.trailing_metadata())["x-server"] == "a"
    assert await call.initial_metadata() is not None


async def test_unary_stream(channel: Any) -> None:
    call = channel.unary_stream(UNARY_STREAM)(b"m")
    assert isinstance(call, grpc.aio.UnaryStreamCall)
    assert [message async for message in call] == [b"m"] * 3
    assert await call.code() is grpc.StatusCode.OK


async def test_unary_stream_by_read(channel: Any) -> None:
    call = channel.unary_stream(UNARY_STREAM)(b"m")
    assert [await call.read() for _ in range(3)] == [b"m"] * 3
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_stream_unary(channel: Any) -> None:
    call = channel.stream_unary(STREAM_UNARY)(requests(b"1", b"2"))
    assert isinstance(call, grpc.aio.StreamUnaryCall)
    assert await call == b"1,2"


async def test_stream_unary_by_plain_iterator(channel: Any) -> None:
    assert await channel.stream_unary(STREAM_UNARY)([b"1", b"2"]) == b"1,2"


async def test_stream_unary_by_write(channel: Any) -> None:
    call = channel.stream_unary(STREAM_UNARY)()
    await call.write(b"1")
    await call.write(b"2")
    await call.done_writing()
    await call.done_writing()
    assert await call == b"1,2"
    with pytest.raises(asyncio.InvalidStateError):
        await call.write(b"3")


async def test_stream_stream(channel: Any) -> None:
    call = channel.stream_stream(STREAM_STREAM)(requests(b"1", b"2"))
    assert isinstance(call, grpc.aio.StreamStreamCall)
    assert [message async for message in call] == [b"1", b"2"]


async def test_stream_stream_by_read_and_write(channel: Any) -> None:
    call = channel.stream_stream(STREAM_STREAM)()
    for message in (b"1", b"2"):
        await call.write(message)
        assert await call.read() == message
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_styles_do_not_mix(channel: Any) -> None:
    call = channel.stream_stream(STREAM_STREAM)(requests(b"1"))
    await call.read()
    with pytest.raises(grpc.aio.UsageError):
        await call.write(b"2")
    with pytest.raises(grpc.aio.UsageError):
        call.__aiter__()
    call.cancel()


async def test_error_of_the_server(channel: Any) -> None:
    call = channel.unary_unary(UNARY_UNARY)(b"fail:NOT_FOUND")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert caught.value.details() == "told to"
    assert dict(caught.value.trailing_metadata())["x-server"] == "a"
    assert await call.code() is grpc.StatusCode.NOT_FOUND
    assert "NOT_FOUND" in str(await call.debug_error_string())


async def test_error_in_the_middle_of_a_stream(channel: Any) -> None:
    call = channel.stream_stream(STREAM_STREAM)(requests(b"1", b"fail:ABORTED"))
    received = []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for message in call:
            received.append(message)
    assert received == [b"1"]
    assert caught.value.code() is grpc.StatusCode.ABORTED


async def test_deadline(channel: Any) -> None:
    call = channel.unary_unary(UNARY_UNARY)(b"hang", timeout=0.3)
    remaining = call.time_remaining()
    assert remaining is not None
    assert 0 < remaining <= 0.3
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "Deadline Exceeded" in str(caught.value.details())


async def test_no_deadline(channel: Any) -> None:
    call = channel.unary_unary(UNARY_UNARY)(b"x")
    assert call.time_remaining() is None
    await call


@pytest.mark.parametrize("arity", ["unary_unary", "unary_stream", "stream_unary", "stream_stream"])
async def test_cancel(channel: Any, arity: str) -> None:
    path = {
        "unary_unary": UNARY_UNARY,
        "unary_stream": UNARY_STREAM,
        "stream_unary": STREAM_UNARY,
        "stream_stream": STREAM_STREAM,
    }[arity]
    call = getattr(channel, arity)(path)(b"hang" if arity.startswith("unary") else requests(b"hang"))
    assert call.cancel()
    assert not call.cancel()
    assert call.cancelled()
    assert call.done()
    with pytest.raises(asyncio.CancelledError):
        if arity.endswith("unary"):
            await call
        else:
            await call.read()
    assert await call.code() is grpc.StatusCode.CANCELLED
    assert await call.details() == "Locally cancelled by application!"


async def test_cancel_of_the_task_that_awaits(channel: Any) -> None:
    call = channel.unary_unary(UNARY_UNARY)(b"hang")

    async def wait() -> None:
        await call

    task = asyncio.create_task(wait())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert call.cancelled()


async def test_cancel_reaches_the_server(channel: Any, server: EchoServer) -> None:
    call = channel.unary_unary(UNARY_UNARY)(b"hang")
    await eventually(lambda: server.open_calls == 1)
    call.cancel()
    await eventually(lambda: server.open_calls == 0)


async def test_done_callback(channel: Any) -> None:
    call = channel.unary_unary(UNARY_UNARY)(b"x")
    seen: list[Any] = []
    call.add_done_callback(seen.append)
    await call
    await eventually(lambda: seen == [call])
    call.add_done_callback(seen.append)
    assert seen == [call, call]


async def test_metadata(channel: Any, server: EchoServer) -> None:
    sent = (("key", "value"), ("key", "again"), ("data-bin", b"\x00\xff"))
    await channel.unary_unary(UNARY_UNARY)(b"x", metadata=sent)
    assert [pair for pair in server.metadata if pair[0] in ("key", "data-bin")] == list(sent)
    await channel.unary_unary(UNARY_UNARY)(b"x", metadata=grpc.aio.Metadata(*sent))
    assert [pair for pair in server.metadata if pair[0] in ("key", "data-bin")] == list(sent)


async def test_compression(channel: Any) -> None:
    assert await channel.unary_unary(UNARY_UNARY)(b"x" * 5000, compression=grpc.Compression.Gzip) == b"x" * 5000


async def test_serializers(channel: Any) -> None:
    method = channel.unary_unary(UNARY_UNARY, request_serializer=str.encode, response_deserializer=bytes.decode)
    assert await method("text") == "text"


async def test_registered_method(channel: Any) -> None:
    assert await channel.unary_unary(UNARY_UNARY, _registered_method=True)(b"x") == b"x"


async def test_unknown_method(channel: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary("/test.Echo/Missing")(b"x")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_wait_for_connection(channel: Any) -> None:
    call = channel.stream_stream(STREAM_STREAM)()
    await call.wait_for_connection()
    await call.write(b"1")
    assert await call.read() == b"1"
    call.cancel()


async def test_credentials_need_a_secure_channel(channel: Any) -> None:
    with pytest.raises(grpc.aio.UsageError):
        channel.unary_unary(UNARY_UNARY)(b"x", credentials=grpc.access_token_call_credentials("token"))


async def test_multi_callables_are_recognised(channel: Any) -> None:
    assert isinstance(channel, grpc.aio.Channel)
    assert isinstance(channel.unary_unary(UNARY_UNARY), grpc.aio.UnaryUnaryMultiCallable)
    assert isinstance(channel.unary_stream(UNARY_STREAM), grpc.aio.UnaryStreamMultiCallable)
    assert isinstance(channel.stream_unary(STREAM_UNARY), grpc.aio.StreamUnaryMultiCallable)
    assert isinstance(channel.stream_stream(STREAM_STREAM), grpc.aio.StreamStreamMultiCallable)
    assert not isinstance(channel.unary_unary(UNARY_UNARY), grpc.aio.UnaryStreamMultiCallable)


async def test_connection_refused(factory: Factory) -> None:
    async with factory(NOBODY) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(UNARY_UNARY)(b"x")
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "Connection refused" in str(caught.value.details())


@pytest.mark.parametrize("arity", ["unary_stream", "stream_stream"])
async def test_connection_refused_to_a_stream(factory: Factory, arity: str) -> None:
    async with factory(NOBODY) as channel:
        call = getattr(channel, arity)(UNARY_STREAM)(b"x" if arity.startswith("unary") else requests(b"x"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in call:
                pass
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert await call.code() is grpc.StatusCode.UNAVAILABLE


async def test_wait_for_ready(factory: Factory) -> None:
    async with echo_servers(1) as (server,):
        await server.stop()
        async with factory(f"ipv4:{server.address}", options=CHANNEL_OPTIONS) as channel:
            call = channel.unary_unary(UNARY_UNARY)(b"patience", wait_for_ready=True, timeout=20)
            await asyncio.sleep(0.1)
            assert not call.done()
            await server.start(port=server.port)
            assert await call == b"patience"


async def test_wait_for_ready_with_deadline(factory: Factory) -> None:
    async with factory(NOBODY) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(UNARY_UNARY)(b"x", wait_for_ready=True, timeout=0.2)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_states(factory: Factory, server: EchoServer) -> None:
    channel = factory(f"ipv4:{server.address}", options=CHANNEL_OPTIONS)
    assert channel.get_state() is grpc.ChannelConnectivity.IDLE
    assert channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.IDLE
    await channel.wait_for_state_change(grpc.ChannelConnectivity.IDLE)
    await asyncio.wait_for(channel.channel_ready(), 10)
    assert channel.get_state() is grpc.ChannelConnectivity.READY
    waiter = asyncio.create_task(channel.wait_for_state_change(grpc.ChannelConnectivity.READY))
    await asyncio.sleep(0)
    await channel.close()
    await asyncio.wait_for(waiter, 10)
    assert channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN
    with pytest.raises(grpc.aio.UsageError):
        await channel.wait_for_state_change(grpc.ChannelConnectivity.SHUTDOWN)


async def test_state_of_a_failing_target(factory: Factory) -> None:
    async with factory(NOBODY) as channel:
        seen = channel.get_state(try_to_connect=True)
        while seen is not grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            await asyncio.wait_for(channel.wait_for_state_change(seen), 10)
            seen = channel.get_state(try_to_connect=True)


async def test_call_after_close(factory: Factory, server: EchoServer) -> None:
    channel = factory(f"ipv4:{server.address}")
    method = channel.unary_unary(UNARY_UNARY)
    await channel.close()
    await channel.close()
    with pytest.raises(grpc.aio.UsageError, match="Channel is closed"):
        method(b"x")


async def test_close_with_negative_grace(factory: Factory, server: EchoServer) -> None:
    channel = factory(f"ipv4:{server.address}")
    with pytest.raises(ValueError, match="grace"):
        await channel.close(-1)
    await channel.close()


async def test_close_cancels(channel: Any) -> None:
    calls = [channel.unary_unary(UNARY_UNARY)(b"hang") for _ in range(3)]
    await channel.close()
    assert [call.cancelled() for call in calls] == [True] * 3


async def test_close_with_grace_lets_calls_finish(channel: Any) -> None:
    call = channel.unary_unary(UNARY_UNARY)(b"sleep:0.3")
    await channel.close(grace=10)
    assert await call.code() is grpc.StatusCode.OK


async def test_close_when_grace_runs_out(channel: Any) -> None:
    call = channel.unary_unary(UNARY_UNARY)(b"hang")
    await channel.close(grace=0.2)
    assert await call.code() is grpc.StatusCode.CANCELLED


class Tagging(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, tag: str) -> None:
        self.tag = tag

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        metadata = grpc.aio.Metadata(*(client_call_details.metadata or ()), ("tag", self.tag))
        return await continuation(client_call_details._replace(metadata=metadata), request + self.tag.encode())


async def test_interceptors_run_in_order(factory: Factory, server: EchoServer) -> None:
    chain = [Tagging("1"), Tagging("2")]
    async with factory(f"ipv4:{server.address}", interceptors=chain) as channel:
        call = channel.unary_unary(UNARY_UNARY)(b"x")
        assert await call == b"x12"
        assert await call.code() is grpc.StatusCode.OK
        assert [value for key, value in server.metadata if key == "tag"] == ["1", "2"]


async def test_interceptors_added_later(factory: Factory, server: EchoServer) -> None:
    """As the transports of generated Google clients do."""
    async with factory(f"ipv4:{server.address}") as channel:
        method = channel.unary_unary(UNARY_UNARY)
        assert await method(b"x") == b"x"
        opened: Any = channel
        opened._unary_unary_interceptors.append(Tagging("late"))
        assert await method(b"x") == b"xlate"


async def test_no_interceptor(factory: Factory) -> None:
    with pytest.raises(ValueError, match="UnaryUnaryClientInterceptor"):
        factory(NOBODY, interceptors=[object()])
