"""The second door: the four interceptors on a channel the user already has."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import msgspec
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

import grpclb_core as lb
from grpclb_core.aio.codecs import Codec, codec_from_continuation, codec_from_pool, find_codec, parse_codecs
from support.servers import (
    STREAM_STREAM,
    STREAM_UNARY,
    UNARY_STREAM,
    UNARY_UNARY,
    EchoServer,
    echo_servers,
    target_of,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
async def servers() -> AsyncIterator[list[EchoServer]]:
    async with echo_servers(3) as three:
        yield three


@pytest.fixture
async def balancer(servers: list[EchoServer]) -> AsyncIterator[lb.Balancer]:
    async with lb.Balancer(target_of(servers), policy="round_robin") as made:
        yield made


@pytest.fixture
async def channel(balancer: lb.Balancer) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel("not.connected.test", interceptors=balancer.interceptors()) as made:
        yield made


async def requests(*messages: bytes) -> AsyncIterator[bytes]:
    for message in messages:
        yield message


async def test_four_arities(channel: grpc.aio.Channel, servers: list[EchoServer]) -> None:
    assert await channel.unary_unary(UNARY_UNARY)(b"x") == b"x"
    assert [message async for message in channel.unary_stream(UNARY_STREAM)(b"x")] == [b"x"] * 3
    assert await channel.stream_unary(STREAM_UNARY)(requests(b"1", b"2")) == b"1,2"
    assert [message async for message in channel.stream_stream(STREAM_STREAM)(requests(b"1"))] == [b"1"]
    assert sum(server.calls for server in servers) == 4
    assert channel.get_state() is grpc.ChannelConnectivity.IDLE


async def test_writes_instead_of_an_iterator(channel: grpc.aio.Channel) -> None:
    call = channel.stream_stream(STREAM_STREAM)()
    await call.write(b"1")
    assert await call.read() == b"1"
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_calls_are_spread(channel: grpc.aio.Channel, servers: list[EchoServer], balancer: lb.Balancer) -> None:
    method = channel.unary_unary(UNARY_UNARY)
    await method(b"x")
    while any(endpoint.state != "ready" for endpoint in balancer.snapshot().endpoints):
        await method(b"x")
    before = [server.calls for server in servers]
    for _ in range(30):
        await method(b"x")
    assert [server.calls - calls for server, calls in zip(servers, before, strict=True)] == [10, 10, 10]
    assert sum(endpoint.in_flight for endpoint in balancer.snapshot().endpoints) == 0


async def test_details_of_the_call_arrive(channel: grpc.aio.Channel, servers: list[EchoServer]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary(UNARY_UNARY)(b"hang", timeout=0.1)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    for _ in servers:
        await channel.unary_unary(UNARY_UNARY)(b"x", metadata=(("key", "value"),), compression=grpc.Compression.Gzip)
    assert all(("key", "value") in server.metadata for server in servers if server.calls)


async def test_errors_come_through(channel: grpc.aio.Channel) -> None:
    call = channel.unary_unary(UNARY_UNARY)(b"fail:NOT_FOUND")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is await call.code() is grpc.StatusCode.NOT_FOUND


async def test_interceptors_before_ours_run(balancer: lb.Balancer) -> None:
    class Shout(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            return await continuation(client_call_details, request.upper())

    chain = [Shout(), *balancer.interceptors()]
    async with grpc.aio.insecure_channel("x", interceptors=chain) as channel:
        assert await channel.unary_unary(UNARY_UNARY)(b"quiet") == b"QUIET"


async def test_interceptors_after_ours_are_refused(balancer: lb.Balancer) -> None:
    class Late(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            raise AssertionError("never run")

    async with grpc.aio.insecure_channel("x", interceptors=[*balancer.interceptors(), Late()]) as channel:
        with pytest.raises(lb.ConfigError, match="put balancer.interceptors\\(\\) last"):
            await channel.unary_unary(UNARY_UNARY)(b"x")


async def test_use_after_close(servers: list[EchoServer]) -> None:
    balancer = lb.Balancer(target_of(servers))
    async with grpc.aio.insecure_channel("x", interceptors=balancer.interceptors()) as channel:
        method = channel.unary_unary(UNARY_UNARY)
        assert await method(b"started by its first call") == b"started by its first call"
        await balancer.close()
        with pytest.raises(grpc.aio.UsageError, match="closed"):
            await method(b"x")


class Point(msgspec.Struct):
    x: int
    y: int


async def test_codecs_for_messages_that_are_no_protobuf(balancer: lb.Balancer) -> None:
    codecs = {"/test.Echo/": (msgspec.msgpack.encode, functools.partial(msgspec.msgpack.decode, type=Point))}
    async with grpc.aio.insecure_channel("x", interceptors=balancer.interceptors(codecs)) as channel:
        answer = await channel.unary_unary(UNARY_UNARY)(Point(1, 2))
    assert answer == Point(1, 2)


@pytest.mark.parametrize(
    ("codecs", "message"),
    [
        ({"/test.Echo/UnaryUnary": ("encode", bytes)}, "neither callable nor None"),
        ({"test.Echo": (bytes, bytes)}, "is no path"),
        ({"/test.Echo/UnaryUnary": bytes}, "needs a pair"),
    ],
)
async def test_bad_codecs(balancer: lb.Balancer, codecs: Any, message: str) -> None:
    with pytest.raises(lb.ConfigError, match=message):
        balancer.interceptors(codecs)


def describe_service(name: str) -> None:
    """Load the descriptor of a service whose one method takes and returns a DescriptorProto."""
    message = ".google.protobuf.DescriptorProto"
    method = descriptor_pb2.MethodDescriptorProto(name="UnaryUnary", input_type=message, output_type=message)
    service = descriptor_pb2.ServiceDescriptorProto(name="Echo", method=[method])
    descriptor_pool.Default().Add(
        descriptor_pb2.FileDescriptorProto(
            name=f"{name}.proto",
            package=name,
            dependency=["google/protobuf/descriptor.proto"],
            service=[service],
        )
    )


def test_order_of_the_sources() -> None:
    describe_service("pooled")
    path = "/pooled.Echo/UnaryUnary"

    async def run(*arguments: object) -> None:
        raise AssertionError("not called")

    continuation = functools.partial(run, [], path.encode(), str.encode, bytes.decode)
    registered = parse_codecs({path: (repr, eval)})
    assert find_codec(registered, path, continuation) == Codec(repr, eval)
    pooled = find_codec({}, path, continuation)
    assert pooled.serialize is not str.encode
    assert pooled.serialize is not None
    assert pooled.serialize(descriptor_pb2.DescriptorProto(name="n")) == b"\n\x01n"
    assert find_codec({}, "/unknown.Echo/UnaryUnary", continuation) == Codec(str.encode, bytes.decode)
    with pytest.raises(lb.CodecError, match=r"codecs=\{'/unknown.Echo/UnaryUnary'"):
        find_codec({}, "/unknown.Echo/UnaryUnary", run)


async def test_protobuf_needs_no_codecs(balancer: lb.Balancer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if grpcio stopped to keep the serializers where they are now."""
    monkeypatch.setattr("grpclb_core.aio.codecs.codec_from_continuation", lambda continuation: None)
    message = ".google.protobuf.DescriptorProto"
    method = descriptor_pb2.MethodDescriptorProto(name="UnaryUnary", input_type=message, output_type=message)
    file = descriptor_pb2.FileDescriptorProto(
        name="echo.proto",
        package="test",
        dependency=["google/protobuf/descriptor.proto"],
        service=[descriptor_pb2.ServiceDescriptorProto(name="Echo", method=[method])],
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(descriptor_pb2.FileDescriptorProto.FromString(descriptor_pb2.DESCRIPTOR.serialized_pb))
    pool.Add(file)
    monkeypatch.setattr(descriptor_pool, "Default", lambda: pool)
    from google.protobuf import message_factory

    request = message_factory.GetMessageClass(pool.FindMessageTypeByName("google.protobuf.DescriptorProto"))(name="n")
    async with grpc.aio.insecure_channel("x", interceptors=balancer.interceptors()) as channel:
        answer = await channel.unary_unary(UNARY_UNARY)(request)
    assert answer.name == "n"


async def test_this_grpcio_keeps_the_serializers_in_the_continuation() -> None:
    """If this fails, the installed grpcio has moved them: only protobuf and registered codecs still work."""
    seen: list[Codec | None] = []

    class Look(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            seen.append(codec_from_continuation(continuation))
            return "seen"

    async with grpc.aio.insecure_channel("x", interceptors=[Look()]) as channel:
        assert await channel.unary_unary(UNARY_UNARY, str.encode, bytes.decode)("x") == "seen"
    assert seen == [Codec(str.encode, bytes.decode)], grpc.__version__


def test_unknown_service_is_not_in_the_pool() -> None:
    assert codec_from_pool("/no.such.Service/Method") is None
