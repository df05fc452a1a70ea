"""What is said on a stream, in both dialects, without a server."""

from __future__ import annotations

from contextlib import suppress

import pytest
from envoy.service.discovery.v3.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
    Resource,
)
from google.protobuf.any_pb2 import Any as AnyMessage
from hypothesis import given
from hypothesis import strategies as st

from grpclb_core.errors import ConfigError
from grpclb_core.resolve.xds.assignment import RejectedError
from grpclb_core.resolve.xds.bootstrap import ChannelCredentials, Node, XdsServer
from grpclb_core.resolve.xds.stream import DELTA, SOTW, TYPE_URL, Dialect, Step, node_message
from grpclb_core.resolve.xds.subscription import Subscription
from grpclb_core.types import Locality
from support.ads import EDS, assignment, packed
from support.recorder import Recorder

A, B = "10.0.0.1:50051", "10.0.0.2:50051"
NODE = node_message(Node(id="me", cluster="mine", locality=Locality("r", "z", "s"), metadata={"team": "x", "n": [1]}))


def sotw(*resources: AnyMessage, version: str = "1", nonce: str = "n1", type_url: str = EDS) -> Step:
    body = DiscoveryResponse(version_info=version, nonce=nonce, type_url=type_url, resources=resources)
    return SOTW.answer("greeter", "0", body.SerializeToString())


def delta(*resources: Resource, removed: tuple[str, ...] = (), nonce: str = "n1", type_url: str = EDS) -> Step:
    body = DeltaDiscoveryResponse(nonce=nonce, type_url=type_url, resources=resources, removed_resources=removed)
    return DELTA.answer("greeter", "0", body.SerializeToString())


def resource(name: str, *addresses: str, version: str = "1") -> Resource:
    return Resource(name=name, version=version, resource=packed(assignment(name, *addresses)))


def hosts(step: Step) -> list[str]:
    assert step.found is not None
    return [str(endpoint.address) for endpoint in step.found.resolution.endpoints]


def sotw_reply(step: Step) -> DiscoveryRequest:
    assert step.reply is not None
    return DiscoveryRequest.FromString(step.reply)


def delta_reply(step: Step) -> DeltaDiscoveryRequest:
    assert step.reply is not None
    return DeltaDiscoveryRequest.FromString(step.reply)


class TestNode:
    def test_it_says_who_asks(self) -> None:
        assert (NODE.id, NODE.cluster, NODE.user_agent_name) == ("me", "mine", "grpclb-core")
        assert (NODE.locality.region, NODE.locality.zone, NODE.locality.sub_zone) == ("r", "z", "s")
        assert NODE.metadata["team"] == "x"
        assert NODE.user_agent_version
        assert list(NODE.client_features) == ["xds.config.resource-in-sotw"]

    def test_what_cannot_be_sent_is_told(self) -> None:
        with pytest.raises(ConfigError, match=r"node\.metadata cannot be sent"):
            node_message(Node(metadata={"large": 10**400}))


class TestStateOfTheWorld:
    def test_the_first_request(self) -> None:
        request = DiscoveryRequest.FromString(SOTW.first("greeter", "7", NODE))
        assert request.node == NODE
        assert (request.type_url, list(request.resource_names)) == (EDS, ["greeter"])
        assert (request.version_info, request.response_nonce) == ("7", "")

    def test_an_answer_is_accepted(self) -> None:
        step = sotw(packed(assignment("greeter", A, B)))
        assert hosts(step) == [A, B]
        assert step.version == "1"
        assert sotw_reply(step) == DiscoveryRequest(
            type_url=EDS, resource_names=["greeter"], version_info="1", response_nonce="n1"
        )

    def test_a_bad_one_is_refused_under_the_version_before(self) -> None:
        step = sotw(packed(assignment("greeter", "10.0.0.1:0")))
        reply = sotw_reply(step)
        assert step.found is None
        assert (step.version, reply.version_info, reply.response_nonce) == ("0", "0", "n1")
        assert list(reply.resource_names) == ["greeter"]
        assert reply.error_detail.code == 3
        assert "port 0 is out of range" in reply.error_detail.message
        assert reply.error_detail.message == step.problem
        assert not reply.HasField("node")

    def test_others_are_no_news_of_ours(self) -> None:
        step = sotw(packed(assignment("other", A)))
        assert (step.found, step.removed, step.problem, step.version) == (None, False, "", "1")

    def test_an_empty_answer_removes_nothing(self) -> None:
        step = sotw()
        assert (step.found, step.removed) == (None, False)
        assert not sotw_reply(step).HasField("error_detail")

    def test_what_is_good_counts_beside_what_is_not(self) -> None:
        step = sotw(packed(assignment("other", "10.0.0.1:0")), packed(assignment("greeter", A)))
        assert hosts(step) == [A]
        assert sotw_reply(step).version_info == "0"
        assert "cluster 'other'" in sotw_reply(step).error_detail.message

    def test_the_same_cluster_twice_is_refused(self) -> None:
        step = sotw(packed(assignment("greeter", A)), packed(assignment("greeter", B)))
        assert step.found is None
        assert "is in the answer 2 times" in step.problem

    def test_a_resource_may_be_wrapped(self) -> None:
        wrapped = AnyMessage()
        wrapped.Pack(resource("greeter", A))
        assert hosts(sotw(wrapped)) == [A]

    @pytest.mark.parametrize(
        "item",
        [
            AnyMessage(type_url="type.googleapis.com/envoy.config.cluster.v3.Cluster"),
            AnyMessage(type_url="type.googleapis.com/envoy.service.discovery.v3.Resource"),
            AnyMessage(type_url="type.googleapis.com/envoy.service.discovery.v3.Resource", value=b"\xff"),
            AnyMessage(type_url=EDS, value=b"\xff"),
            AnyMessage(),
        ],
    )
    def test_what_is_no_assignment_is_refused(self, item: AnyMessage) -> None:
        step = sotw(item)
        assert step.found is None
        assert sotw_reply(step).HasField("error_detail")


class TestDelta:
    def test_the_first_request(self) -> None:
        request = DeltaDiscoveryRequest.FromString(DELTA.first("greeter", "7", NODE))
        assert request.node == NODE
        assert (request.type_url, list(request.resource_names_subscribe)) == (EDS, ["greeter"])
        assert dict(request.initial_resource_versions) == {"greeter": "7"}

    def test_nothing_known_is_nothing_said(self) -> None:
        assert not DeltaDiscoveryRequest.FromString(DELTA.first("greeter", "", NODE)).initial_resource_versions

    def test_an_answer_is_accepted(self) -> None:
        step = delta(resource("greeter", A, version="5"))
        assert hosts(step) == [A]
        assert step.version == "5"
        assert delta_reply(step) == DeltaDiscoveryRequest(type_url=EDS, response_nonce="n1")

    def test_a_bad_one_is_refused(self) -> None:
        step = delta(resource("greeter", "10.0.0.1:0", version="5"))
        assert (step.found, step.version) == (None, "0")
        assert delta_reply(step).error_detail.code == 3
        assert "port 0" in delta_reply(step).error_detail.message

    def test_a_removal(self) -> None:
        step = delta(removed=("other", "greeter"))
        assert (step.found, step.removed, step.version) == (None, True, "")

    def test_the_removal_of_another(self) -> None:
        step = delta(removed=("other",))
        assert (step.removed, step.version) == (False, "0")

    def test_one_that_is_sent_is_not_removed(self) -> None:
        step = delta(resource("greeter", A), removed=("greeter",))
        assert hosts(step) == [A]
        assert not step.removed

    def test_a_heartbeat_changes_nothing(self) -> None:
        step = delta(Resource(name="greeter", version="0"))
        assert (step.found, step.removed, step.problem, step.version) == (None, False, "", "0")

    def test_the_same_cluster_twice_is_refused(self) -> None:
        step = delta(resource("greeter", A), resource("greeter", B))
        assert step.found is None
        assert "is in the answer 2 times" in step.problem


@pytest.mark.parametrize("dialect", [SOTW, DELTA], ids=["sotw", "delta"])
class TestBoth:
    def test_no_answer_at_all(self, dialect: Dialect) -> None:
        with pytest.raises(RejectedError, match="not a D"):
            dialect.answer("greeter", "0", b"\xff\xff")

    def test_a_type_nobody_asked_for_has_no_reply(self, dialect: Dialect) -> None:
        response = DiscoveryResponse(type_url="type.googleapis.com/envoy.config.listener.v3.Listener", nonce="n")
        other = DeltaDiscoveryResponse(type_url=response.type_url, nonce="n")
        step = dialect.answer("greeter", "0", (response if dialect is SOTW else other).SerializeToString())
        assert (step.reply, step.version) == (None, "0")
        assert "not asked for" in step.problem

    @given(body=st.binary(max_size=200))
    def test_any_bytes(self, dialect: Dialect, body: bytes) -> None:
        with suppress(RejectedError):
            dialect.answer("greeter", "0", body)

    @given(
        items=st.lists(
            st.tuples(
                st.sampled_from([TYPE_URL, "type.googleapis.com/envoy.service.discovery.v3.Resource", ""]) | st.text(),
                st.binary(max_size=60) | st.just(assignment("greeter", A).SerializeToString()),
            ),
            max_size=4,
        ),
        removed=st.lists(st.sampled_from(["greeter", "other", ""]), max_size=3),
    )
    def test_any_answer(self, dialect: Dialect, items: list[tuple[str, bytes]], removed: list[str]) -> None:
        sent = [AnyMessage(type_url=type_url, value=value) for type_url, value in items]
        if dialect is SOTW:
            response = DiscoveryResponse(type_url=EDS, nonce="n", version_info="1", resources=sent)
        else:
            wrapped = [Resource(name="greeter", version="1", resource=item) for item in sent]
            response = DeltaDiscoveryResponse(type_url=EDS, nonce="n", resources=wrapped, removed_resources=removed)
        step = dialect.answer("greeter", "0", response.SerializeToString())
        assert step.reply is not None
        assert step.found is None or not step.removed


SERVERS = [XdsServer("one:1", (ChannelCredentials("insecure"),)), XdsServer("two:2", (ChannelCredentials("insecure"),))]
HOLD_S = 30.0


class TestSubscription:
    def subscription(self, sink: Recorder, *features: str) -> Subscription:
        servers = [XdsServer(server.server_uri, server.channel_creds, features) for server in SERVERS]
        return Subscription("greeter", servers, sink, HOLD_S)

    def test_a_change_is_pushed_and_no_change_is_not(self, sink: Recorder) -> None:
        subscription = self.subscription(sink)
        for step in (
            sotw(packed(assignment("greeter", A)), version="1"),
            sotw(packed(assignment("greeter", A)), version="2"),
            sotw(packed(assignment("greeter", A, weight=2)), version="3"),
        ):
            subscription.take(0, step, first=True)
        assert [resolution.version for resolution in sink.updates] == ["1", "3"]
        assert subscription.versions == ["3", ""]

    def test_after_a_fault_the_set_is_pushed_again(self, sink: Recorder) -> None:
        subscription = self.subscription(sink)
        subscription.take(0, sotw(packed(assignment("greeter", A))), first=True)
        subscription.lose(0, "UNAVAILABLE")
        subscription.take(0, sotw(packed(assignment("greeter", A))), first=True)
        assert sink.order == ["update", "fail", "update"]

    def test_a_refused_answer_keeps_the_set_and_the_version(self, sink: Recorder) -> None:
        subscription = self.subscription(sink)
        subscription.take(0, sotw(packed(assignment("greeter", A))), first=True)
        subscription.take(0, sotw(packed(assignment("greeter", "10.0.0.1:0")), version="2"), first=False)
        assert sink.order == ["update", "fail"]
        assert subscription.versions[0] == "1"
        assert "xds cluster 'greeter' from one:1" in str(sink.errors[0])
        assert "the endpoints known before stay in use" in str(sink.errors[0])

    @pytest.mark.parametrize("empty", [sotw(packed(assignment("greeter")), version="2"), delta(removed=("greeter",))])
    def test_emptiness_on_a_stream_that_has_spoken_is_believed(self, sink: Recorder, empty: Step) -> None:
        subscription = self.subscription(sink)
        subscription.take(0, sotw(packed(assignment("greeter", A))), first=True)
        assert subscription.take(0, empty, first=False) is None
        assert sink.order == ["update", "update", "fail"]
        assert sink.updates[-1].endpoints == ()
        assert "no endpoint: the control plane" in str(sink.errors[0])

    @pytest.mark.parametrize("empty", [sotw(packed(assignment("greeter")), version="2"), delta(removed=("greeter",))])
    def test_emptiness_at_the_start_of_a_stream_is_held(self, sink: Recorder, empty: Step) -> None:
        subscription = self.subscription(sink)
        subscription.take(0, sotw(packed(assignment("greeter", A))), first=True)
        pending = subscription.take(0, empty, first=True)
        assert pending is not None
        assert sink.order == ["update", "fail"]
        assert "not believed for 30 s" in str(sink.errors[0])
        assert subscription.versions[0] == "1"  # so that the next stream is told again
        pending()
        assert sink.order == ["update", "fail", "update", "fail"]
        assert sink.updates[-1].endpoints == ()
        assert subscription.versions[0] == empty.version

    def test_emptiness_is_believed_if_nothing_was_known(self, sink: Recorder) -> None:
        assert self.subscription(sink).take(0, sotw(packed(assignment("greeter"))), first=True) is None
        assert sink.order == ["update", "fail"]

    def test_a_server_may_ask_not_to_be_believed(self, sink: Recorder) -> None:
        subscription = self.subscription(sink, "ignore_resource_deletion")
        subscription.take(0, delta(resource("greeter", A)), first=True)
        assert subscription.take(0, delta(removed=("greeter",)), first=False) is None
        assert sink.order == ["update", "fail"]
        assert "ignored" in str(sink.errors[0])

    def test_a_cluster_that_is_not_named_in_time(self, sink: Recorder) -> None:
        subscription = self.subscription(sink)
        subscription.expire(0, 15.0)
        assert sink.order == ["fail"]
        assert "does not exist: no answer named it within 15 s" in str(sink.errors[0])
        subscription.take(0, sotw(packed(assignment("greeter", A))), first=True)
        assert sink.order == ["fail", "update"]

    def test_each_server_has_versions_of_its_own(self, sink: Recorder) -> None:
        subscription = self.subscription(sink)
        subscription.take(1, sotw(packed(assignment("greeter", A)), version="9"), first=True)
        assert subscription.versions == ["", "9"]
