"""What is said on an ADS stream: two dialects as pure functions of the answers, without a connection.

https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol. The node is in the first request of a stream only;
each answer is replied to once, under its own nonce; a refusal (NACK) carries the reason in `error_detail`, and in the
state-of-the-world dialect the version accepted before. What is good in an answer counts even if the rest of it is
refused (gRFC A46).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from importlib.metadata import version as version_of
from typing import NamedTuple

import msgspec
from envoy.config.core.v3.base_pb2 import Node as NodeMessage
from envoy.service.discovery.v3.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
    Resource,
)
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError

from ...errors import ConfigError
from .assignment import Assignment, RejectedError, decode_assignment
from .bootstrap import Node

TYPE_URL = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
RESOURCE_URL = "type.googleapis.com/envoy.service.discovery.v3.Resource"

FEATURES = ("xds.config.resource-in-sotw",)
"""What a server may rely on: it may wrap what it sends in a `Resource`."""

INVALID_ARGUMENT = 3  # google.rpc.Code, what gRPC and Envoy refuse with


class Step(msgspec.Struct, frozen=True):
    """What one answer leads to."""

    reply: bytes | None = None
    """The request to send back; None where the answer is no business of ours."""
    version: str = ""
    """The version accepted last, for this stream's next reply and the first request of the next stream."""
    found: Assignment | None = None
    removed: bool = False
    """The server says that the cluster does not exist (any more)."""
    problem: str = ""
    """What was refused, and why."""


class Dialect(NamedTuple):
    """A variant of the protocol."""

    method: str
    first: Callable[[str, str, NodeMessage], bytes]
    """Make the first request of a stream of the cluster, the version accepted before ("" if none) and the node."""
    answer: Callable[[str, str, bytes], Step]
    """Take an answer, given the cluster and the version accepted before.

    Raises:
        RejectedError: it is no answer at all, so that nothing can be replied.
    """


def node_message(node: Node) -> NodeMessage:
    """Turn the node of the bootstrap into its wire form.

    Raises:
        ConfigError: its metadata cannot be expressed.
    """
    message = NodeMessage(
        id=node.id,
        cluster=node.cluster,
        user_agent_name="grpclb-core",
        user_agent_version=version_of("grpclb-core"),
        client_features=FEATURES,
    )
    where = node.locality
    message.locality.region, message.locality.zone, message.locality.sub_zone = where.region, where.zone, where.sub_zone
    try:
        message.metadata.update(node.metadata)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ConfigError(f"bootstrap: node.metadata cannot be sent ({error}); use what JSON has") from None
    return message


def first_sotw(cluster: str, version: str, node: NodeMessage) -> bytes:
    """Open a state-of-the-world stream."""
    request = DiscoveryRequest(node=node, type_url=TYPE_URL, resource_names=[cluster], version_info=version)
    return _wire(request)


def answer_sotw(cluster: str, version: str, body: bytes) -> Step:
    """Take a DiscoveryResponse; that one does not name the cluster says nothing of it."""
    try:
        response = DiscoveryResponse.FromString(body)
    except DecodeError as error:
        raise RejectedError([f"not a DiscoveryResponse ({error})"]) from None
    if response.type_url != TYPE_URL:
        return _unasked(response.type_url, version)
    problems: list[str] = []
    found = _ours(cluster, ((item, response.version_info) for item in map(_unwrap, response.resources)), problems)
    accepted = version if problems else response.version_info
    request = DiscoveryRequest(
        type_url=TYPE_URL, resource_names=[cluster], version_info=accepted, response_nonce=response.nonce
    )
    return Step(_reply(request, problems), accepted, found, problem=_problem(problems))


def first_delta(cluster: str, version: str, node: NodeMessage) -> bytes:
    """Open a delta stream."""
    known = {cluster: version} if version else {}
    request = DeltaDiscoveryRequest(
        node=node, type_url=TYPE_URL, resource_names_subscribe=[cluster], initial_resource_versions=known
    )
    return _wire(request)


def answer_delta(cluster: str, version: str, body: bytes) -> Step:
    """Take a DeltaDiscoveryResponse, which says in so many words what is gone."""
    try:
        response = DeltaDiscoveryResponse.FromString(body)
    except DecodeError as error:
        raise RejectedError([f"not a DeltaDiscoveryResponse ({error})"]) from None
    if response.type_url != TYPE_URL:
        return _unasked(response.type_url, version)
    problems: list[str] = []
    # One without a body only prolongs a time to live, of which we keep no account.
    sent = [item for item in response.resources if item.HasField("resource")]
    found = _ours(cluster, ((item.resource, item.version) for item in sent), problems)
    removed = cluster in response.removed_resources and found is None
    accepted = found.resolution.version if found else "" if removed else version
    request = DeltaDiscoveryRequest(type_url=TYPE_URL, response_nonce=response.nonce)
    return Step(_reply(request, problems), accepted, found, removed, _problem(problems))


SOTW = Dialect(
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources", first_sotw, answer_sotw
)
DELTA = Dialect(
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources", first_delta, answer_delta
)


def _ours(cluster: str, items: Iterable[tuple[AnyMessage, str]], problems: list[str]) -> Assignment | None:
    """Read all that was sent, as the server is to hear of every fault, and give the assignment of the cluster."""
    read: list[Assignment] = []
    for position, (item, version) in enumerate(items):
        if item.type_url != TYPE_URL:
            problems.append(f"resources[{position}]: type {item.type_url!r} is not the one of the answer")
            continue
        try:
            read.append(decode_assignment(item.value, version))
        except RejectedError as error:
            problems += error.problems
    problems += [
        f"cluster {name!r} is in the answer {count} times"
        for name, count in Counter(assignment.cluster for assignment in read).items()
        if count > 1
    ]
    ours = [assignment for assignment in read if assignment.cluster == cluster]
    return ours[0] if len(ours) == 1 else None


def _unwrap(item: AnyMessage) -> AnyMessage:
    if item.type_url != RESOURCE_URL:
        return item
    try:
        inner: AnyMessage = Resource.FromString(item.value).resource
    except DecodeError:
        return item  # refused for its type
    return inner


def _unasked(type_url: str, version: str) -> Step:
    # As gRPC: an answer of a type nobody asked for is neither accepted nor refused.
    return Step(version=version, problem=f"an answer of type {type_url!r}, which was not asked for")


def _reply(request: DiscoveryRequest | DeltaDiscoveryRequest, problems: list[str]) -> bytes:
    if problems:
        request.error_detail.code = INVALID_ARGUMENT
        request.error_detail.message = _problem(problems)
    return _wire(request)


def _problem(problems: list[str]) -> str:
    return str(RejectedError(problems)) if problems else ""


def _wire(request: DiscoveryRequest | DeltaDiscoveryRequest) -> bytes:
    body: bytes = request.SerializeToString()
    return body
