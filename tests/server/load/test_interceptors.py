"""Reports with calls of real servers: every arity, every way to write a handler, every way to end."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from xds.data.orca.v3.orca_load_report_pb2 import OrcaLoadReport

from grpclb_core.reports import OWN_KEY, STANDARD_KEY, read_report
from grpclb_core.server import LoadInterceptor, LoadRecorder, SyncLoadInterceptor, record_request_cost
from grpclb_core.types import IN_FLIGHT_METRIC, LATENCY_METRIC, LoadReport
from support.recorder import PATIENCE_S
from support.servers import CHANNEL_OPTIONS, SERVER_OPTIONS, eventually

pytestmark = pytest.mark.anyio

SERVICE = "test.Load"
WORKERS = 4


class Ending:
    """What a handler does once it has recorded its cost; the request says which."""

    def __init__(self, code: grpc.StatusCode, *, is_failure: bool, trailers: tuple[tuple[str, str], ...] = ()) -> None:
        self.code = code
        self.is_failure = is_failure
        self.trailers = trailers


THEIRS = (("x-theirs", "1"),)
ENDINGS = {
    b"answer": Ending(grpc.StatusCode.OK, is_failure=False),
    b"trailers": Ending(grpc.StatusCode.OK, is_failure=False, trailers=THEIRS),
    b"set code": Ending(grpc.StatusCode.NOT_FOUND, is_failure=False),
    b"set code of a fault": Ending(grpc.StatusCode.INTERNAL, is_failure=True),
    b"raise": Ending(grpc.StatusCode.UNKNOWN, is_failure=True, trailers=THEIRS),
    b"set code and raise": Ending(grpc.StatusCode.UNAVAILABLE, is_failure=True),
    b"abort": Ending(grpc.StatusCode.INVALID_ARGUMENT, is_failure=False),
    b"abort after trailers": Ending(grpc.StatusCode.RESOURCE_EXHAUSTED, is_failure=True, trailers=THEIRS),
}


def prepare(request: bytes, context: Any) -> None:
    record_request_cost("bytes", len(request))
    if request in (b"trailers", b"raise", b"abort after trailers"):
        context.set_trailing_metadata(THEIRS)
    if request == b"set code":
        context.set_code(grpc.StatusCode.NOT_FOUND)
    if request == b"set code of a fault":
        context.set_code(grpc.StatusCode.INTERNAL)
    if request == b"set code and raise":
        context.set_code(grpc.StatusCode.UNAVAILABLE)
    if request in (b"raise", b"set code and raise"):
        raise RuntimeError("told to")


def end(request: bytes, context: Any) -> bytes:
    """Do what the request says; for handlers in threads."""
    prepare(request, context)
    if request in (b"abort", b"abort after trailers"):
        context.abort(ENDINGS[request].code, "told to")
    if request == b"wait until cancelled":
        gone = threading.Event()
        context.add_callback(gone.set)
        gone.wait(PATIENCE_S)
    return b"answer"


async def aend(request: bytes, context: Any) -> bytes:
    prepare(request, context)
    if request in (b"abort", b"abort after trailers"):
        await context.abort(ENDINGS[request].code, "told to")
    if request == b"abort with trailers":
        await context.abort(grpc.StatusCode.INTERNAL, "told to", THEIRS)
    if request == b"abort with status":
        await context.abort_with_status(Status(grpc.StatusCode.INTERNAL, "told to", THEIRS))
    if request == b"hang":
        await asyncio.Event().wait()
    return b"answer"


class Status(grpc.Status):
    def __init__(self, code: grpc.StatusCode, details: str, trailing_metadata: Any) -> None:
        self.code, self.details, self.trailing_metadata = code, details, trailing_metadata


async def unary_unary(request: bytes, context: Any) -> bytes:
    return await aend(request, context)


async def stream_unary(requests: AsyncIterator[bytes], context: Any) -> bytes:
    return [await aend(request, context) async for request in requests][-1]


async def unary_stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
    yield b"first"
    yield await aend(request, context)


async def stream_stream(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield await aend(request, context)


async def writing_unary_stream(request: bytes, context: Any) -> None:
    await context.write(b"first")
    await context.write(await aend(request, context))


async def writing_stream_stream(requests: AsyncIterator[bytes], context: Any) -> None:
    while isinstance(request := await context.read(), bytes):
        await context.write(await aend(request, context))


def threaded_stream_unary(requests: Iterator[bytes], context: Any) -> bytes:
    return [end(request, context) for request in requests][-1]


def threaded_unary_stream(request: bytes, context: Any) -> Iterator[bytes]:
    yield end(request, context)  # at first: grpc.aio may hang when a thread aborts what its loop is just writing to
    yield b"second"


def threaded_stream_stream(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
    for request in requests:
        yield end(request, context)


THREADED = {
    "UnaryUnary": grpc.unary_unary_rpc_method_handler(end),
    "StreamUnary": grpc.stream_unary_rpc_method_handler(threaded_stream_unary),
    "UnaryStream": grpc.unary_stream_rpc_method_handler(threaded_unary_stream),
    "StreamStream": grpc.stream_stream_rpc_method_handler(threaded_stream_stream),
}
HANDLERS = {
    "UnaryUnary": grpc.unary_unary_rpc_method_handler(unary_unary),
    "StreamUnary": grpc.stream_unary_rpc_method_handler(stream_unary),
    "UnaryStream": grpc.unary_stream_rpc_method_handler(unary_stream),
    "StreamStream": grpc.stream_stream_rpc_method_handler(stream_stream),
    "WritingUnaryStream": grpc.unary_stream_rpc_method_handler(writing_unary_stream),
    "WritingStreamStream": grpc.stream_stream_rpc_method_handler(writing_stream_stream),
} | {f"Threaded{name}": handler for name, handler in THREADED.items()}


@contextlib.asynccontextmanager
async def threads() -> AsyncIterator[ThreadPoolExecutor]:
    """Threads that have come to their end when this does; until then the event loop hears what they have to tell it."""
    pool = ThreadPoolExecutor(WORKERS)
    yield pool
    with anyio.fail_after(PATIENCE_S):
        await anyio.to_thread.run_sync(pool.shutdown, abandon_on_cancel=True)


@contextlib.asynccontextmanager
async def serving(
    recorder: LoadRecorder, *others: grpc.aio.ServerInterceptor, add: Callable[[grpc.aio.Server], None] | None = None
) -> AsyncIterator[grpc.aio.Channel]:
    """Run a grpc.aio server with the interceptor, and a channel to it."""
    async with threads() as pool:
        server = grpc.aio.server(pool, interceptors=(LoadInterceptor(recorder), *others), options=SERVER_OPTIONS)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, HANDLERS),))
        if add is not None:
            add(server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=CHANNEL_OPTIONS) as channel:
            yield channel
        await server.stop(None)


@contextlib.asynccontextmanager
async def serving_in_threads(recorder: LoadRecorder) -> AsyncIterator[grpc.aio.Channel]:
    """Run a synchronous server with the interceptor, and a channel to it."""
    async with threads() as pool:
        server = grpc.server(pool, interceptors=(SyncLoadInterceptor(recorder),), options=SERVER_OPTIONS)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, THREADED),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=CHANNEL_OPTIONS) as channel:
            yield channel
        server.stop(None)


async def call(
    channel: grpc.aio.Channel, method: str, request: bytes, answered: asyncio.Event | None = None
) -> tuple[grpc.StatusCode, dict[str, Any]]:
    """Make a call with one request, tell when a stream has begun to answer, and return its status and its trailers."""
    make = {
        "UnaryUnary": channel.unary_unary,
        "StreamUnary": channel.stream_unary,
        "UnaryStream": channel.unary_stream,
        "StreamStream": channel.stream_stream,
    }[next(name for name in THREADED if method.endswith(name))]
    multicallable: Any = make(f"/{SERVICE}/{method}")
    started = multicallable(iter([request]) if "StreamUnary" in method or "StreamStream" in method else request)
    with contextlib.suppress(grpc.aio.AioRpcError):
        if method.endswith("Stream"):
            async for _ in started:
                if answered is not None:
                    answered.set()
        else:
            await started
    return await started.code(), dict(iter(await started.trailing_metadata()))


async def check(channel: grpc.aio.Channel, recorder: LoadRecorder, method: str, request: bytes) -> None:
    """Make a call that is to end in one of the known ways, and look at what is reported of it."""
    wanted = ENDINGS[request]
    code, trailers = await call(channel, method, request)
    assert code is wanted.code
    message = trailers.pop(OWN_KEY)
    assert trailers == dict(wanted.trailers)  # the standard one too has been taken out, by C-core
    report = read_report(message)
    assert report.request_cost == {"bytes": len(request)}
    assert report.cpu_utilization == 0.5
    assert report.named_metrics[IN_FLIGHT_METRIC] == 0
    is_timed = method.endswith("UnaryUnary") and not wanted.is_failure
    assert (LATENCY_METRIC in report.named_metrics) == is_timed
    assert report.rps_fractional == 1
    assert report.eps == wanted.is_failure
    assert recorder.in_flight == 0
    theirs = OrcaLoadReport.FromString(message)
    assert dict(theirs.named_metrics) == report.named_metrics
    assert theirs.rps_fractional == 1


@pytest.fixture
def recorder(clock: Any) -> LoadRecorder:
    recorder = LoadRecorder(clock=clock)
    recorder.set_cpu_utilization(0.5)
    return recorder


@pytest.mark.parametrize("method", HANDLERS)
async def test_every_ending_is_reported(method: str) -> None:
    for request in ENDINGS:
        recorder = LoadRecorder(clock=lambda: 1000.0)
        recorder.set_cpu_utilization(0.5)
        async with serving(recorder) as channel:
            await check(channel, recorder, method, request)


@pytest.mark.parametrize("method", THREADED)
async def test_so_it_is_by_a_synchronous_server(method: str) -> None:
    for request in ENDINGS:
        recorder = LoadRecorder(clock=lambda: 1000.0)
        recorder.set_cpu_utilization(0.5)
        async with serving_in_threads(recorder) as channel:
            await check(channel, recorder, method, request)


@pytest.mark.parametrize("request_", [b"abort with trailers", b"abort with status"])
async def test_trailers_of_an_abort_are_kept(recorder: LoadRecorder, request_: bytes) -> None:
    async with serving(recorder) as channel:
        code, trailers = await call(channel, "UnaryUnary", request_)
    assert code is grpc.StatusCode.INTERNAL
    assert read_report(trailers.pop(OWN_KEY)).eps == 1
    assert trailers == dict(THEIRS)


async def test_calls_that_are_served_at_once_keep_their_costs_apart(recorder: LoadRecorder) -> None:
    async with serving(recorder) as channel:
        requests = [b"r" * size for size in range(1, 40)]
        ends = await asyncio.gather(
            *(call(channel, method, request) for request in requests for method in ("UnaryUnary", "ThreadedUnaryUnary"))
        )
    costs = [read_report(trailers[OWN_KEY]).request_cost["bytes"] for _, trailers in ends]
    assert costs == [len(request) for request in requests for _ in range(2)]


class TestAbandoned:
    @pytest.mark.parametrize("method", ["UnaryUnary", "UnaryStream", "WritingUnaryStream"])
    async def test_a_call_that_is_cancelled_is_no_longer_under_way(self, recorder: LoadRecorder, method: str) -> None:
        async with serving(recorder) as channel:
            answered = asyncio.Event()
            task = asyncio.create_task(call(channel, method, b"hang", answered))
            await eventually(lambda: recorder.in_flight == 1, PATIENCE_S)
            if method.endswith("Stream"):  # grpc.aio may lose a cancellation that meets the first message half way
                await answered.wait()
            task.cancel()
            await eventually(lambda: recorder.in_flight == 0, PATIENCE_S)
            report = recorder.report()
            assert (report.rps_fractional, report.eps) == (1, 0)
            assert LATENCY_METRIC not in report.named_metrics

    async def test_nor_is_a_stream_that_nobody_reads(self, recorder: LoadRecorder) -> None:
        async def endless(request: bytes, context: Any) -> AsyncIterator[bytes]:
            while True:
                yield bytes(100_000)

        def add(server: grpc.aio.Server) -> None:
            handlers = {"Endless": grpc.unary_stream_rpc_method_handler(endless)}
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Endless", handlers),))

        async with serving(recorder, add=add) as channel:
            stream: Any = channel.unary_stream("/test.Endless/Endless")(b"")
            await stream.read()
            await eventually(lambda: recorder.in_flight == 1, PATIENCE_S)
            stream.cancel()
            await eventually(lambda: recorder.in_flight == 0, PATIENCE_S)

    async def test_nor_is_one_that_a_synchronous_server_finds_cancelled(self, recorder: LoadRecorder) -> None:
        async with serving_in_threads(recorder) as channel:
            task = asyncio.create_task(call(channel, "UnaryUnary", b"wait until cancelled"))
            await eventually(lambda: recorder.in_flight == 1, PATIENCE_S)
            task.cancel()
            await eventually(lambda: recorder.in_flight == 0, PATIENCE_S)
            assert (recorder.report().rps_fractional, recorder.report().eps) == (1, 0)

    async def test_one_that_ran_into_its_deadline_is_the_servers_failure(self, recorder: LoadRecorder) -> None:
        async with serving(recorder) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary(f"/{SERVICE}/UnaryUnary")(b"hang", timeout=0.2)
            await eventually(lambda: recorder.in_flight == 0, PATIENCE_S)
            assert recorder.report().eps == 1


class TestWhatIsLeftAlone:
    async def test_questions_about_the_server_are_no_load(self, recorder: LoadRecorder) -> None:
        servicer = health.HealthServicer()
        async with serving(
            recorder, add=lambda server: health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        ) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            watch = stub.Watch(health_pb2.HealthCheckRequest())
            await watch.read()
            answer = stub.Check(health_pb2.HealthCheckRequest())
            await answer
            assert OWN_KEY not in dict(iter(await answer.trailing_metadata()))
            assert recorder.in_flight == 0
            assert recorder.report().rps_fractional == 0
            watch.cancel()

    async def test_an_unknown_method_is_grpcs_own_affair(self, recorder: LoadRecorder) -> None:
        async with serving(recorder) as channel:
            code, trailers = await call(channel, "NoUnaryUnary", b"")
        assert code is grpc.StatusCode.UNIMPLEMENTED
        assert trailers == {}
        assert recorder.report().rps_fractional == 0

    async def test_a_context_is_otherwise_grpcs_own(self, recorder: LoadRecorder) -> None:
        """What the wrapper does not know is passed on, to and from interceptors further in too."""

        class Inner(grpc.aio.ServerInterceptor):
            async def intercept_service(self, continuation: Any, details: Any) -> Any:
                handler = await continuation(details)

                async def wrapped(request: bytes, context: Any) -> bytes:
                    assert context.peer().startswith("ipv4:")
                    assert context.time_remaining() is None
                    assert context.invocation_metadata()
                    context.set_trailing_metadata((("x-inner", "1"),))
                    assert tuple(context.trailing_metadata()) == (("x-inner", "1"),)
                    context.set_details("of no account")
                    response: bytes = await handler.unary_unary(request, context)
                    return response

                return grpc.unary_unary_rpc_method_handler(wrapped)

        async with serving(recorder, Inner()) as channel:
            code, trailers = await call(channel, "UnaryUnary", b"answer")
        assert code is grpc.StatusCode.OK
        assert isinstance(read_report(trailers.pop(OWN_KEY)), LoadReport)
        assert trailers == {"x-inner": "1"}
        assert STANDARD_KEY not in trailers
