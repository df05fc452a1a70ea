"""What a ClusterLoadAssignment means, and when it is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from envoy.config.core.v3.address_pb2 import SocketAddress
from envoy.config.core.v3.health_check_pb2 import HealthStatus
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.type.v3.percent_pb2 import FractionalPercent
from hypothesis import given
from hypothesis import strategies as st

from grpclb_core.resolve.xds.assignment import Assignment, RejectedError, decode_assignment, read_assignment
from grpclb_core.types import Address, Drop, Endpoint, Health, Locality
from support.ads import add_locality, assignment

A, B, C = "10.0.0.1:50051", "10.0.0.2:50051", "[2001:db8::1]:50051"
ZONE_A, ZONE_B = Locality(zone="zone-a"), Locality(zone="zone-b")


def greeter(*addresses: str) -> ClusterLoadAssignment:
    return assignment("greeter", *addresses)


def endpoints_of(message: ClusterLoadAssignment) -> tuple[Endpoint, ...]:
    return read_assignment(message, "1").resolution.endpoints


def problems_of(message: ClusterLoadAssignment) -> tuple[str, ...]:
    with pytest.raises(RejectedError) as refused:
        read_assignment(message, "1")
    return refused.value.problems


class TestWhatIsRead:
    def test_addresses_are_sorted_and_canonical(self) -> None:
        message = greeter(B, A)
        message.endpoints[0].lb_endpoints.add().endpoint.address.socket_address.CopyFrom(
            SocketAddress(address="2001:DB8:0::1", port_value=50051)
        )
        assert [str(endpoint.address) for endpoint in endpoints_of(message)] == [A, B, C]

    def test_the_order_of_the_source_is_no_difference(self) -> None:
        assert endpoints_of(greeter(A, B)) == endpoints_of(greeter(B, A))

    def test_a_pipe_is_a_socket(self) -> None:
        message = greeter()
        message.endpoints[0].lb_endpoints.add().endpoint.address.pipe.path = "/run/greeter.sock"
        assert endpoints_of(message)[0].address == Address("/run/greeter.sock")

    def test_localities_carry_priority_and_weight(self) -> None:
        message = greeter(A)
        message.endpoints[0].locality.region = "north"
        add_locality(message, "zone-b", [B], weight=3)
        add_locality(message, "zone-b", ["10.0.0.9:1"], weight=7, priority=1)
        resolution = read_assignment(message, "42").resolution
        assert [(str(one.locality), one.priority) for one in resolution.endpoints] == [
            ("north/zone-a", 0),
            ("zone-b", 0),
            ("zone-b", 1),
        ]
        # One weight for each locality: that of the priority used first.
        assert resolution.locality_weights == {Locality("north", "zone-a"): 1.0, ZONE_B: 3.0}
        assert resolution.version == "42"

    def test_a_weight_left_out_is_one(self) -> None:
        message = greeter(A, B)
        message.endpoints[0].lb_endpoints[1].load_balancing_weight.value = 5
        assert [endpoint.weight for endpoint in endpoints_of(message)] == [1.0, 5.0]

    @pytest.mark.parametrize(
        ("status", "health"),
        [
            (HealthStatus.UNKNOWN, Health.UNKNOWN),
            (HealthStatus.HEALTHY, Health.HEALTHY),
            (HealthStatus.UNHEALTHY, Health.UNHEALTHY),
            (HealthStatus.DRAINING, Health.DRAINING),
            (HealthStatus.TIMEOUT, Health.UNHEALTHY),
            (HealthStatus.DEGRADED, Health.UNHEALTHY),
            (77, Health.UNHEALTHY),
        ],
    )
    def test_health(self, status: int, health: Health) -> None:
        message = ClusterLoadAssignment(cluster_name="greeter")
        add_locality(message, "zone-a", [A], health=status)
        assert endpoints_of(message)[0].health is health

    def test_every_status_of_the_message_is_known(self) -> None:
        assert sorted(HealthStatus.values()) == [0, 1, 2, 3, 4, 5]

    @pytest.mark.parametrize(
        ("numerator", "denominator", "fraction"),
        [
            (25, FractionalPercent.HUNDRED, 0.25),
            (25, FractionalPercent.TEN_THOUSAND, 0.0025),
            (25, FractionalPercent.MILLION, 0.000025),
            (101, FractionalPercent.HUNDRED, 1.0),
        ],
    )
    def test_drops(self, numerator: int, denominator: int, fraction: float) -> None:
        message = greeter(A)
        drop = message.policy.drop_overloads.add(category="throttle")
        drop.drop_percentage.numerator, drop.drop_percentage.denominator = numerator, denominator
        assert read_assignment(message, "1").resolution.drops == (Drop("throttle", fraction),)

    def test_drops_keep_their_order(self) -> None:
        message = greeter(A)
        for category in ("lb", "throttle"):
            message.policy.drop_overloads.add(category=category).drop_percentage.numerator = 1
        assert [drop.category for drop in read_assignment(message, "1").resolution.drops] == ["lb", "throttle"]

    def test_the_hostname_and_the_texts_for_balancing_are_kept(self) -> None:
        message = greeter(A)
        item = message.endpoints[0].lb_endpoints[0]
        item.endpoint.hostname = "greeter-0.example"
        item.metadata.filter_metadata["envoy.lb"].update({"hash_key": "0", "weight": 3})
        item.metadata.filter_metadata["somebody.else"].update({"hash_key": "1"})
        assert endpoints_of(message)[0].metadata == {"hash_key": "0", "hostname": "greeter-0.example"}

    def test_additional_addresses_are_ignored(self) -> None:
        message = greeter(A)
        more = message.endpoints[0].lb_endpoints[0].endpoint.additional_addresses.add()
        more.address.socket_address.CopyFrom(SocketAddress(address="no address at all", port_value=0))
        assert [str(endpoint.address) for endpoint in endpoints_of(message)] == [A]


class TestWhatIsLeftOut:
    @pytest.mark.parametrize("weight", [None, 0])
    def test_a_locality_without_weight(self, weight: int | None) -> None:
        message = greeter(A)
        add_locality(message, "zone-b", [B], weight=weight)
        resolution = read_assignment(message, "1").resolution
        assert [str(endpoint.address) for endpoint in resolution.endpoints] == [A]
        assert ZONE_B not in resolution.locality_weights

    def test_a_locality_without_endpoints(self) -> None:
        message = greeter(A)
        add_locality(message, "zone-b", [])
        assert read_assignment(message, "1").resolution.locality_weights == {ZONE_A: 1.0}

    def test_an_empty_set_says_why(self) -> None:
        assert read_assignment(greeter(), "1").emptiness == "the control plane lists none"
        assert "load_balancing_weight" in read_assignment(assignment("greeter", A, weight=0), "1").emptiness
        assert read_assignment(greeter(A), "1").emptiness == ""


def gap(message: ClusterLoadAssignment) -> None:
    add_locality(message, "zone-a", [B], priority=2)


def gap_of_a_locality_without_weight(message: ClusterLoadAssignment) -> None:
    add_locality(message, "zone-a", [B], priority=1, weight=0)
    add_locality(message, "zone-a", ["10.0.0.9:1"], priority=2)


def largest_priority(message: ClusterLoadAssignment) -> None:
    add_locality(message, "zone-a", [B], priority=2**32 - 1)


def nothing_first(message: ClusterLoadAssignment) -> None:
    message.endpoints[0].priority = 1


def locality_twice(message: ClusterLoadAssignment) -> None:
    add_locality(message, "zone-a", [B])


def locality_missing(message: ClusterLoadAssignment) -> None:
    message.endpoints[0].ClearField("locality")


def heavy_localities(message: ClusterLoadAssignment) -> None:
    add_locality(message, "zone-b", [B], weight=2**32 - 1)


def heavy_endpoints(message: ClusterLoadAssignment) -> None:
    add_locality(message, "zone-b", [B, "10.0.0.9:1"])
    message.endpoints[1].lb_endpoints[0].load_balancing_weight.value = 2**32 - 1


def endpoint_of_no_weight(message: ClusterLoadAssignment) -> None:
    message.endpoints[0].lb_endpoints[0].load_balancing_weight.value = 0


def address_twice(message: ClusterLoadAssignment) -> None:
    add_locality(message, "zone-b", [A], priority=1)


def name_for_an_address(message: ClusterLoadAssignment) -> None:
    message.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address = "greeter.example"


def port_zero(message: ClusterLoadAssignment) -> None:
    message.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.port_value = 0


def port_too_large(message: ClusterLoadAssignment) -> None:
    message.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.port_value = 65536


def named_port(message: ClusterLoadAssignment) -> None:
    message.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.named_port = "grpc"


def udp(message: ClusterLoadAssignment) -> None:
    message.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.protocol = SocketAddress.UDP


def no_address(message: ClusterLoadAssignment) -> None:
    message.endpoints[0].lb_endpoints.add()


def long_pipe(message: ClusterLoadAssignment) -> None:
    message.endpoints[0].lb_endpoints.add().endpoint.address.pipe.path = "/" + "a" * 107


def endpoint_by_name(message: ClusterLoadAssignment) -> None:
    message.endpoints[0].lb_endpoints.add(endpoint_name="greeter-0")


def leds(message: ClusterLoadAssignment) -> None:
    message.endpoints[0].leds_cluster_locality_config.leds_collection_name = "xdstp://somewhere"


def drop_without_category(message: ClusterLoadAssignment) -> None:
    message.policy.drop_overloads.add().drop_percentage.numerator = 1


def drop_without_share(message: ClusterLoadAssignment) -> None:
    message.policy.drop_overloads.add(category="throttle")


def drop_of_something(message: ClusterLoadAssignment) -> None:
    message.policy.drop_overloads.add(category="throttle").drop_percentage.denominator = 9


def nameless(message: ClusterLoadAssignment) -> None:
    message.cluster_name = ""


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("spoil", "says"),
        [
            (gap, "priority 1 is empty, though 2 is not"),
            (gap_of_a_locality_without_weight, "priority 1 is empty"),
            (largest_priority, "priority 1 is empty, though 4294967295 is not"),
            (nothing_first, "priority 0 is empty"),
            (locality_twice, "locality 'zone-a' is in priority 0 2 times"),
            (locality_missing, "endpoints[0]: locality is missing"),
            (heavy_localities, "localities of priority 0 add up to 4294967296"),
            (heavy_endpoints, "endpoints[1]: the weights of its endpoints add up to 4294967296"),
            (endpoint_of_no_weight, "weight 0.0 is not usable"),
            (address_twice, "endpoints[1].lb_endpoints[0]: 10.0.0.1:50051 is listed twice"),
            (name_for_an_address, "'greeter.example' is not an IP address"),
            (port_zero, "port 0 is out of range"),
            (port_too_large, "port 65536 is out of range"),
            (named_port, "neither a socket_address with port_value nor a pipe"),
            (udp, "protocol 1 is not TCP"),
            (no_address, "endpoints[0].lb_endpoints[1]: address: neither"),
            (long_pipe, "path of 108 bytes"),
            (endpoint_by_name, "neither a socket_address"),
            (leds, "leds_cluster_locality_config is not supported"),
            (drop_without_category, "policy.drop_overloads[0]: a category"),
            (drop_without_share, "policy.drop_overloads[0]: a category"),
            (drop_of_something, "policy.drop_overloads[0]: a category"),
            (nameless, "cluster_name is empty"),
        ],
    )
    def test_one_fault(self, spoil: Callable[[ClusterLoadAssignment], None], says: str) -> None:
        message = greeter(A)
        spoil(message)
        (problem,) = problems_of(message)
        assert says in problem
        assert problem.startswith(f"cluster {message.cluster_name!r}: ")

    def test_weights_up_to_the_limit_are_fine(self) -> None:
        message = greeter(A)
        add_locality(message, "zone-b", [B], weight=2**32 - 2)
        message.endpoints[0].lb_endpoints[0].load_balancing_weight.value = 2**32 - 1
        assert len(endpoints_of(message)) == 2

    def test_all_faults_are_told_but_not_shown_without_end(self) -> None:
        message = greeter(*(f"10.0.0.{number}:0" for number in range(50)))
        problems = problems_of(message)
        assert len(problems) == 50
        text = str(RejectedError(problems))
        assert text.endswith("and 40 more")
        assert len(text) < 2000

    def test_what_is_no_assignment(self) -> None:
        with pytest.raises(RejectedError, match="not a ClusterLoadAssignment"):
            decode_assignment(b"\xff\xff", "1")


small = st.integers(0, 3) | st.integers(0, 2**32 - 1)
texts = st.sampled_from(["10.0.0.1", "::1", "fe80::1%eth0", "", "x" * 300, "\0"]) | st.text(max_size=20)


@st.composite
def messages(draw: st.DrawFn) -> ClusterLoadAssignment:
    message = ClusterLoadAssignment(cluster_name=draw(texts))
    for _ in range(draw(st.integers(0, 4))):
        part = message.endpoints.add(priority=draw(small))
        if draw(st.booleans()):
            part.locality.zone = draw(st.sampled_from(["a", "b"]) | texts)
        if draw(st.booleans()):
            part.load_balancing_weight.value = draw(small)
        for _ in range(draw(st.integers(0, 3))):
            item = part.lb_endpoints.add(health_status=draw(st.integers(-(2**31), 2**31 - 1) | st.integers(0, 6)))
            if draw(st.booleans()):
                item.load_balancing_weight.value = draw(small)
            item.endpoint.hostname = draw(texts)
            if draw(st.booleans()):
                item.endpoint.address.pipe.path = draw(texts)
            else:
                socket = item.endpoint.address.socket_address
                socket.address, socket.port_value = draw(texts), draw(small)
    for _ in range(draw(st.integers(0, 2))):
        drop = message.policy.drop_overloads.add(category=draw(texts))
        drop.drop_percentage.numerator = draw(small)
        drop.drop_percentage.denominator = draw(st.integers(0, 4))
    return message


def read(body: bytes) -> Assignment | None:
    """Decode, taking a refusal for an answer; anything else that is raised fails the test."""
    try:
        return decode_assignment(body, "1")
    except RejectedError:
        return None


class TestFuzz:
    @given(st.binary(max_size=200))
    def test_any_bytes(self, body: bytes) -> None:
        read(body)

    @given(messages())
    def test_any_message(self, message: ClusterLoadAssignment) -> None:
        found = read(message.SerializeToString())
        if found is None:
            return
        resolution = found.resolution
        priorities = {endpoint.priority for endpoint in resolution.endpoints}
        assert max(priorities, default=0) < len(message.endpoints) or not priorities
        assert {endpoint.locality for endpoint in resolution.endpoints} == set(resolution.locality_weights)
        assert len({endpoint.address for endpoint in resolution.endpoints}) == len(resolution.endpoints)
        assert all(0 <= drop.fraction <= 1 for drop in resolution.drops)
        assert bool(found.emptiness) == (not resolution.endpoints)

    @given(messages(), st.integers(0, 400), st.binary(min_size=1, max_size=4))
    def test_any_damage(self, message: ClusterLoadAssignment, place: int, damage: bytes) -> None:
        body = message.SerializeToString()
        read(body[:place] + damage + body[place + len(damage) :])
