"""The Consul resolver: what an answer says, and how it asks, against a stub of the health endpoint."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpclb_core.config import Config, ConsulConfig, parse_config
from grpclb_core.errors import ConfigError, TargetError
from grpclb_core.resolve import parse_target, resolver_for
from grpclb_core.resolve.consul.health import MAX_INSTANCES, read_instances
from grpclb_core.resolve.consul.resolver import next_index
from grpclb_core.resolve.consul.target import parse_consul
from grpclb_core.types import Endpoint, Health, Locality
from support.consul import Consul, instance
from support.recorder import Recorder

A, B, C = "10.0.0.1:50051", "10.0.0.2:50051", "10.0.0.3:50051"
FAST = ConsulConfig(timeout_s=1.0, min_interval_s=0.05, max_backoff_s=0.2)


class TestTarget:
    def test_all_there_is_to_say(self) -> None:
        target = parse_consul("//10.0.0.9:1/greeter?tag=a&tag=b&dc=eu&near=_agent", tls=False)
        assert target.agent == "http://10.0.0.9:1"
        assert target.service == "greeter"
        assert target.query == (("tag", "a"), ("tag", "b"), ("dc", "eu"), ("near", "_agent"))

    def test_as_little_as_possible(self) -> None:
        target = parse_consul("//agent/greeter", tls=True)
        assert (target.agent, target.query) == ("https://agent:8500", ())

    @pytest.mark.parametrize(
        ("text", "advice"),
        [
            ("///greeter", "agent is missing"),
            ("//h:8500", "service is missing"),
            ("//h:8500/", "service is missing"),
            ("//h:8500/a/b", "no name of a service"),
            ("//h:8500/-a", "no name of a service"),
            ("//h:8500/a?token=x", "unknown option 'token'; known are tag, dc, near"),
            ("//h:8500/a?dc=", "option 'dc' is empty"),
            ("//h:8500/a?dc=x&dc=y", "'dc' is given twice"),
            ("//h:0/a", "port 0"),
            ("//h,i/a", "not usable"),
        ],
    )
    def test_bad_ones(self, text: str, advice: str) -> None:
        with pytest.raises(TargetError, match=advice):
            resolver_for(parse_target(f"consul:{text}"), Config())

    @given(st.text(max_size=60))
    def test_any_text_is_parsed_or_refused(self, text: str) -> None:
        try:
            target = parse_consul(f"//{text}", tls=False)
        except TargetError:
            return
        assert target.service
        assert target.agent

    def test_a_token_is_not_shown(self) -> None:
        assert "secret" not in repr(parse_config({"consul": {"token": "secret"}}))

    def test_files_need_tls(self) -> None:
        with pytest.raises(ConfigError, match="set tls to true"):
            parse_config({"consul": {"ca_file": "x"}})


def read(
    *instances: object, warning: Health = Health.HEALTHY, keep_order: bool = False
) -> tuple[tuple[Endpoint, ...], list[str]]:
    entries = [msgspec.Raw(json.dumps(each).encode()) for each in instances]
    return read_instances(entries, warning, keep_order=keep_order)


def only(*instances: object, warning: Health = Health.HEALTHY) -> Endpoint:
    (endpoint,), problems = read(*instances, warning=warning)
    assert problems == []
    return endpoint


class TestInstances:
    @pytest.mark.parametrize(
        ("statuses", "health"),
        [
            ([], Health.HEALTHY),
            (["passing", "passing"], Health.HEALTHY),
            (["passing", "warning"], Health.HEALTHY),
            (["warning", "critical"], Health.UNHEALTHY),
            (["passing", "odd"], Health.UNKNOWN),
        ],
    )
    def test_the_worst_check_counts(self, statuses: list[str], health: Health) -> None:
        assert (
            only(instance(A) | {"Checks": [{"CheckID": "c", "Status": status} for status in statuses]}).health == health
        )

    @pytest.mark.parametrize("check", ["_node_maintenance", "_service_maintenance:greeter-1"])
    def test_maintenance_drains(self, check: str) -> None:
        checks = [{"CheckID": check, "Status": "critical"}, {"CheckID": "c", "Status": "critical"}]
        assert only(instance(A) | {"Checks": checks}).health == Health.DRAINING

    def test_a_warning_may_be_taken_for_illness(self) -> None:
        assert only(instance(A, "warning"), warning=Health.UNHEALTHY).health == Health.UNHEALTHY

    @pytest.mark.parametrize(
        ("status", "weights", "weight", "health"),
        [
            ("passing", {"Passing": 5, "Warning": 2}, 5, Health.HEALTHY),
            ("warning", {"Passing": 5, "Warning": 2}, 2, Health.HEALTHY),
            ("warning", {"Passing": 5, "Warning": 0}, 5, Health.UNHEALTHY),
            ("passing", None, 1, Health.HEALTHY),
        ],
    )
    def test_weights(self, status: str, weights: object, weight: float, health: Health) -> None:
        endpoint = only(instance(A, status, Weights=weights))
        assert (endpoint.weight, endpoint.health) == (weight, health)

    def test_the_nodes_address_where_there_is_no_other(self) -> None:
        assert str(only(instance(A, Address="")).address) == "10.9.9.9:50051"

    def test_where_it_runs(self) -> None:
        assert only(instance(A)).locality == Locality("dc1")
        assert only(instance(A, Meta={"zone": "z"})).locality == Locality("dc1", "z")
        assert only(instance(A, Locality={"Region": "eu", "Zone": "eu-1"})).locality == Locality("eu", "eu-1")
        node = {"Node": "n", "Address": "10.9.9.9", "Locality": {"Region": "us", "Zone": "us-1"}}
        assert only(instance(A) | {"Node": node}).locality == Locality("us", "us-1")

    def test_meta_and_tags(self) -> None:
        assert only(instance(A, Meta={"v": "2"}, Tags=["a", "b"])).metadata == {"v": "2", "tags": "a,b"}

    @pytest.mark.parametrize(
        ("bad", "advice"),
        [
            (instance(A, Port=0), "'greeter-10.0.0.1:50051' on node 'node-1': it has no port"),
            (instance(A, Address="greeter.example"), "is no IP address"),
            (instance(A, Port=70000), "port 70000"),
            (instance(A, Port="x"), "instance 0: Expected `int`"),
            (instance(A, Weights={"Passing": 0, "Warning": 0}), "weight 0.0 is not usable"),
            ({"Service": {}}, "missing required field `Node`"),
            (None, "instance 0: Expected `object`"),
            ([], "instance 0: Expected `object`"),
        ],
    )
    def test_bad_ones_are_passed_over(self, bad: object, advice: str) -> None:
        endpoints, problems = read(bad, instance(B))
        assert [str(endpoint.address) for endpoint in endpoints] == [B]
        assert len(problems) == 1
        assert advice in problems[0]

    def test_of_two_with_one_address_the_later_counts(self) -> None:
        old, new = instance(A, ModifyIndex=3, Tags=["old"]), instance(A, ModifyIndex=4, Tags=["new"])
        assert only(old, new) == only(new, old)
        assert only(old, new).metadata == {"tags": "new"}

    def test_order(self) -> None:
        assert read(instance(B), instance(A)) == read(instance(A), instance(B))
        nearest, _ = read(instance(B), instance(A), keep_order=True)
        assert [str(endpoint.address) for endpoint in nearest] == [B, A]

    def test_there_is_an_end_to_it(self) -> None:
        many = [instance(f"10.0.{number >> 8}.{number & 255}:1") for number in range(MAX_INSTANCES + 2)]
        endpoints, problems = read(*many)
        assert len(endpoints) == MAX_INSTANCES
        assert len(problems) == 1

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just("10.0.0.1"),
            lambda inner: (
                st.lists(inner, max_size=2)
                | st.dictionaries(
                    st.sampled_from(
                        ["Node", "Service", "Checks", "Address", "Port", "Weights", "Passing", "Meta", "ID"]
                    ),
                    inner,
                )
            ),
            max_leaves=10,
        )
    )
    def test_any_json_is_read_or_passed_over(self, document: Any) -> None:
        endpoints, problems = read(document, instance(A) | {"Service": document}, instance(A, Weights=document))
        assert len(endpoints) + len(problems) <= 3

    @given(st.binary(max_size=100))
    def test_any_bytes_are_read_or_passed_over(self, raw: bytes) -> None:
        endpoints, problems = read_instances([msgspec.Raw(raw)], Health.HEALTHY)
        assert len(endpoints) + len(problems) == 1


@pytest.mark.parametrize(("asked", "answered", "then"), [(0, 7, 7), (7, 7, 7), (7, 9, 9), (9, 7, 0), (0, 0, 1)])
def test_next_index(asked: int, answered: int, then: int) -> None:
    assert next_index(asked, answered) == then


@pytest.fixture
def consul() -> Iterator[Consul]:
    with Consul() as running:
        yield running


@asynccontextmanager
async def following(consul: Consul, sink: Recorder, query: str = "", **options: object) -> AsyncIterator[None]:
    config = msgspec.structs.replace(FAST, **options)
    resolver = resolver_for(parse_target(f"consul://{consul.address}/greeter{query}"), Config(consul=config))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(resolver.run, sink)
        yield
        tasks.cancel_scope.cancel()


def listed(sink: Recorder) -> list[str]:
    return [str(endpoint.address) for endpoint in sink.updates[-1].endpoints] if sink.updates else []


def said(sink: Recorder, words: str) -> bool:
    return any(words in str(error) for error in sink.errors)


@pytest.mark.anyio
class TestQueries:
    async def test_what_is_asked(self, consul: Consul, sink: Recorder) -> None:
        consul.set([instance(A)])
        async with following(consul, sink, "?tag=v2&dc=eu", token="secret"):
            await sink.until(lambda: len(consul.requests) == 2)
        first, second = consul.requests
        assert (first.path, first.token) == ("/v1/health/service/greeter", "secret")
        assert first.query == {"tag": ["v2"], "dc": ["eu"]}
        assert second.query == first.query | {"index": ["11"], "wait": ["30s"]}
        assert sink.updates[0].version == "11"

    async def test_health_is_pushed_as_it_changes(self, consul: Consul, sink: Recorder) -> None:
        consul.set([instance(A)])
        async with following(consul, sink):
            await sink.until(lambda: sink.updates)
            consul.set([instance(A, "critical")])
            await sink.until(lambda: len(sink.updates) == 2)
        assert sink.updates[1].endpoints[0].health is Health.UNHEALTHY

    async def test_an_index_that_races_is_not_followed_blindly(self, consul: Consul, sink: Recorder) -> None:
        consul.set([instance(A)])
        async with following(consul, sink, min_interval_s=0.2):
            await sink.until(lambda: sink.updates)
            began_s = anyio.current_time()
            asked = len(consul.requests)
            while anyio.current_time() - began_s < 1.0:
                consul.touch()
                await anyio.sleep(0.01)
            lasted_s = anyio.current_time() - began_s
            assert len(consul.requests) - asked <= lasted_s / 0.2 + 1
        assert len(sink.updates) == 1

    async def test_an_index_that_goes_backwards(self, consul: Consul, sink: Recorder) -> None:
        consul.set([instance(A)], index=1_000)
        async with following(consul, sink):
            await sink.until(lambda: listed(sink) == [A])
            consul.set([instance(B)], index=5)
            await sink.until(lambda: listed(sink) == [B])
            await sink.until(lambda: consul.requests[-1].index == 5)
            consul.set([instance(C)])
            await sink.until(lambda: listed(sink) == [C])
        assert 0 in [request.index for request in consul.requests[1:]]
        assert sink.errors == []

    async def test_a_query_that_times_out_at_the_agent_is_no_fault(self, consul: Consul, sink: Recorder) -> None:
        consul.set([instance(A)])
        async with following(consul, sink, wait_s=1.0):
            await sink.until(lambda: len(consul.requests) == 3)
        assert sink.order == ["update"]

    async def test_an_agent_that_hangs(self, consul: Consul, sink: Recorder) -> None:
        consul.set([instance(A)])
        async with following(consul, sink, wait_s=1.0, timeout_s=0.5):
            await sink.until(lambda: listed(sink) == [A])
            consul.frozen.set()
            await sink.until(lambda: said(sink, "no answer within"))
            assert listed(sink) == [A]
            consul.set([instance(B)])
            consul.frozen.clear()
            await sink.until(lambda: listed(sink) == [B])

    async def test_it_may_not_ask(self, consul: Consul, sink: Recorder) -> None:
        consul.token = "secret"
        async with following(consul, sink, token="wrong"):
            await sink.until(lambda: said(sink, "service:read"))
        assert said(sink, "Permission denied")

    async def test_it_may_not_see(self, consul: Consul, sink: Recorder) -> None:
        consul.headers = {"X-Consul-Results-Filtered-By-ACLs": "true"}
        async with following(consul, sink):
            await sink.until(lambda: said(sink, "the token may not see all"))

    @pytest.mark.parametrize(
        ("status", "raw", "reason"),
        [
            (500, b"No cluster leader", "No cluster leader"),
            (429, b"\xff", "HTTP status 429"),
            (200, b"<html>", "cannot be understood"),
            (200, b'[{"Node":', "cannot be understood"),
            (200, b"{}", "cannot be understood"),
            (200, b"[" * 100_000, "cannot be understood"),
            (200, b"[3]", "passed over: instance 0"),
        ],
    )
    async def test_nonsense(self, consul: Consul, sink: Recorder, status: int, raw: bytes, reason: str) -> None:
        consul.set([instance(A)])
        async with following(consul, sink):
            await sink.until(lambda: listed(sink) == [A])
            consul.fail(status, raw)
            await sink.until(lambda: said(sink, reason))
            assert listed(sink) == [A]
            assert all(len(str(error)) < 1_000 for error in sink.errors)
            consul.heal()
            consul.touch()
            await sink.until(lambda: sink.order[-1] == "update")

    @pytest.mark.parametrize("index", ["", "x", "9" * 30])
    async def test_something_that_is_not_consul(self, consul: Consul, sink: Recorder, index: str) -> None:
        consul.headers = {"X-Consul-Index": index}
        async with following(consul, sink):
            await sink.until(lambda: said(sink, "is it Consul?"))


@pytest.mark.anyio
class TestEmptiness:
    async def test_deregistration_is_believed_at_once(self, consul: Consul, sink: Recorder) -> None:
        consul.set([instance(A)])
        async with following(consul, sink):
            await sink.until(lambda: listed(sink) == [A])
            consul.set([])
            await sink.until(lambda: sink.errors)
            assert sink.order == ["update", "update", "fail"]

    async def test_an_unknown_service(self, consul: Consul, sink: Recorder) -> None:
        async with following(consul, sink, wait_s=1.0):
            await sink.until(lambda: len(consul.requests) >= 3)
            assert sink.order == ["fail"]  # once
            consul.set([instance(A)])
            await sink.until(lambda: listed(sink) == [A])

    async def test_after_a_failure_it_is_held(self, consul: Consul, sink: Recorder) -> None:
        consul.set([instance(A)])
        async with following(consul, sink, empty_hold_s=2.0):
            await sink.until(lambda: listed(sink) == [A])
            consul.fail()
            await sink.until(lambda: sink.errors)
            consul.set([])
            consul.heal()
            await sink.until(lambda: said(sink, "stay in use"))
            held_s = anyio.current_time()
            assert listed(sink) == [A]
            await sink.until(lambda: listed(sink) == [])
            assert anyio.current_time() - held_s > 1.0

    async def test_when_all_begins_anew_it_is_held(self, consul: Consul, sink: Recorder) -> None:
        consul.set([instance(A)], index=1_000)
        async with following(consul, sink):
            await sink.until(lambda: listed(sink) == [A])
            consul.set([], index=5)
            await sink.until(lambda: said(sink, "stay in use"))
            consul.set([instance(B)])
            await sink.until(lambda: listed(sink) == [B])
        assert all(update.endpoints for update in sink.updates)
