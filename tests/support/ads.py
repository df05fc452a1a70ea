"""An xDS control plane for tests: EDS over ADS, in both dialects, which keeps what it was asked and breaks on demand.

Its answers are those that real Envoy takes (tests/resolve/test_xds_envoy.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
import grpc.aio
from envoy.config.core.v3.health_check_pb2 import HealthStatus
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.service.discovery.v3 import ads_pb2_grpc
from envoy.service.discovery.v3.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
    Resource,
)
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.wrappers_pb2 import BytesValue

from .ports import free_port
from .servers import SERVER_OPTIONS

EDS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"


def assignment(cluster: str, *addresses: str, weight: int = 1) -> ClusterLoadAssignment:
    """Make an assignment of one locality; addresses are `host:port`."""
    message = ClusterLoadAssignment(cluster_name=cluster)
    add_locality(message, "zone-a", addresses, weight=weight)
    return message


def add_locality(
    message: ClusterLoadAssignment,
    zone: str,
    addresses: Iterable[str],
    *,
    weight: int | None = 1,
    priority: int = 0,
    health: int = HealthStatus.UNKNOWN,
) -> Any:
    """Add a locality to an assignment and return it; `weight` None leaves it unset."""
    part = message.endpoints.add(priority=priority)
    part.locality.zone = zone
    if weight is not None:
        part.load_balancing_weight.value = weight
    for address in addresses:
        host, _, port = address.rpartition(":")
        item = part.lb_endpoints.add(health_status=health)
        item.endpoint.address.socket_address.address = host
        item.endpoint.address.socket_address.port_value = int(port)
    return part


def packed(message: ClusterLoadAssignment) -> AnyMessage:
    return AnyMessage(type_url=EDS, value=message.SerializeToString())


class _Stream:
    """A stream of a client: what it subscribed to, and what it was sent."""

    def __init__(self, delta: bool) -> None:
        self.delta = delta
        self.names: set[str] = set()
        self.sent: dict[str, str] = {}  # the version of each resource that the client has, or refused
        self.nonce = 0
        self.outbox: asyncio.Queue[Any] = asyncio.Queue()

    def send(self, response: Any) -> None:
        self.nonce += 1
        response.nonce = str(self.nonce)
        self.outbox.put_nowait(response)


class AdsServer(ads_pb2_grpc.AggregatedDiscoveryServiceServicer):
    """A control plane on a port of 127.0.0.1; `requests` holds all it was asked, oldest first."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.port = free_port()
        self.streams_opened = 0
        self.refuse_streams = False
        self.silent = False
        self._version = 0
        self._resources: dict[str, tuple[str, ClusterLoadAssignment]] = {}
        self._streams: set[_Stream] = set()
        self._server: grpc.aio.Server | None = None

    @property
    def uri(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def open_streams(self) -> int:
        return len(self._streams)

    @property
    def refusals(self) -> list[str]:
        """What clients said when they refused."""
        return [request.error_detail.message for request in self.requests if request.HasField("error_detail")]

    async def start(self, credentials: grpc.ServerCredentials | None = None) -> AdsServer:
        """Listen, on the same port each time."""
        self._server = grpc.aio.server(options=SERVER_OPTIONS)
        ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(self, self._server)
        if credentials is None:
            self.port = self._server.add_insecure_port(self.uri)
        else:
            self.port = self._server.add_secure_port(self.uri, credentials)
        await self._server.start()
        return self

    async def stop(self) -> None:
        """Cut every connection and stop to listen."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def __aenter__(self) -> AdsServer:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def set(self, message: ClusterLoadAssignment) -> None:
        """Publish an assignment, under a version of its own."""
        self._version += 1
        self._resources[message.cluster_name] = (str(self._version), message)
        for stream in self._streams:
            self._push(stream)

    def remove(self, cluster: str) -> None:
        """Forget a cluster; only clients that speak the delta dialect are told."""
        self._resources.pop(cluster, None)
        for stream in self._streams:
            self._push(stream)

    def push(self, response: Any) -> None:
        """Send any answer to all open streams of its dialect, under the next nonce of each."""
        for stream in self._streams:
            if stream.delta == isinstance(response, DeltaDiscoveryResponse):
                copy = type(response)()
                copy.CopyFrom(response)
                stream.send(copy)

    def babble(self) -> None:
        """Send what is a message, but no answer: where an answer has its version this has bytes that are no text."""
        for stream in self._streams:
            stream.outbox.put_nowait(BytesValue(value=b"\xff\xff"))

    def cut(self, code: grpc.StatusCode = grpc.StatusCode.OK) -> None:
        """End every open stream."""
        for stream in self._streams:
            stream.outbox.put_nowait(code)

    async def StreamAggregatedResources(  # noqa: N802 - the name of the method in the protocol
        self, requests: AsyncIterator[DiscoveryRequest], context: Any
    ) -> AsyncIterator[DiscoveryResponse]:
        async for response in self._serve(_Stream(delta=False), requests, context):
            yield response

    async def DeltaAggregatedResources(  # noqa: N802
        self, requests: AsyncIterator[DeltaDiscoveryRequest], context: Any
    ) -> AsyncIterator[DeltaDiscoveryResponse]:
        async for response in self._serve(_Stream(delta=True), requests, context):
            yield response

    async def _serve(self, stream: _Stream, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        self.streams_opened += 1
        if self.refuse_streams:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many clients")
        self._streams.add(stream)
        reader = asyncio.ensure_future(self._read(stream, requests))
        try:
            while True:
                item = await stream.outbox.get()
                if item is grpc.StatusCode.OK:
                    return
                if isinstance(item, grpc.StatusCode):
                    await context.abort(item, "cut on purpose")
                yield item
        finally:
            self._streams.discard(stream)
            reader.cancel()

    async def _read(self, stream: _Stream, requests: AsyncIterator[Any]) -> None:
        async for request in requests:
            self.requests.append(request)
            if request.type_url != EDS:
                continue
            if stream.delta:
                self._take_delta(stream, request)
            else:
                self._take(stream, request)
            self._push(stream)
        stream.outbox.put_nowait(grpc.StatusCode.OK)

    @staticmethod
    def _take(stream: _Stream, request: DiscoveryRequest) -> None:
        if request.response_nonce and request.response_nonce != str(stream.nonce):
            return  # it answers one that is no longer the newest
        if not request.response_nonce and request.version_info:
            stream.sent = dict.fromkeys(request.resource_names, request.version_info)
        stream.names = set(request.resource_names)

    @staticmethod
    def _take_delta(stream: _Stream, request: DeltaDiscoveryRequest) -> None:
        stream.names |= set(request.resource_names_subscribe)
        stream.names -= set(request.resource_names_unsubscribe)
        stream.sent |= request.initial_resource_versions

    def _push(self, stream: _Stream) -> None:
        """Send what the client wants and has not got, each version once."""
        if self.silent:
            return
        news = {
            name: self._resources[name]
            for name in stream.names & set(self._resources)
            if stream.sent.get(name) != self._resources[name][0]
        }
        gone = [name for name in stream.names - set(self._resources) if stream.sent.get(name, "?") is not None]
        stream.sent |= {name: version for name, (version, _) in news.items()}
        if stream.delta:
            stream.sent |= dict.fromkeys(gone)
            if news or gone:
                stream.send(_delta_response(news, gone))
            return
        for version, message in news.values():
            stream.send(DiscoveryResponse(version_info=version, type_url=EDS, resources=[packed(message)]))


def _delta_response(news: dict[str, tuple[str, ClusterLoadAssignment]], gone: list[str]) -> DeltaDiscoveryResponse:
    sent = [Resource(name=name, version=version, resource=packed(message)) for name, (version, message) in news.items()]
    return DeltaDiscoveryResponse(type_url=EDS, resources=sent, removed_resources=gone)
