"""Endpoints that the user lists."""

from __future__ import annotations

import doctest
import math

import pytest

from grpclb_core.config import Config
from grpclb_core.errors import ConfigError
from grpclb_core.resolve import parse_target, resolver_for, static
from grpclb_core.resolve.static import StaticResolver, static_endpoints
from grpclb_core.types import Address, Endpoint, Resolution
from support.recorder import Recorder

A, B = Address("10.0.0.1", 1), Address("10.0.0.2", 2)


def test_every_form_of_an_endpoint() -> None:
    items: list[static.EndpointLike] = [
        Endpoint(B, 2.0),
        A,
        "10.0.0.3:3",
        ("10.0.0.4:4", 0.5),
        (Address("10.0.0.5", 5), 7),
        "[::1]:6",
        "unix:/run/a.sock",
    ]
    assert static_endpoints(items) == (
        Endpoint(B, 2.0),
        Endpoint(A),
        Endpoint(Address("10.0.0.3", 3)),
        Endpoint(Address("10.0.0.4", 4), 0.5),
        Endpoint(Address("10.0.0.5", 5), 7.0),
        Endpoint(Address("::1", 6)),
        Endpoint(Address("/run/a.sock")),
    )


@pytest.mark.parametrize(
    ("items", "says"),
    [
        ([], "the list is empty"),
        ("10.0.0.1:1", "expected a list"),
        ([A, "10.0.0.1:1"], r"endpoints\[1\]: 10.0.0.1:1 is listed twice"),
        ([(A, -1.0)], r"endpoints\[0\]: .*weight -1.0 is not usable"),
        ([(A, 0)], "weight 0.0 is not usable"),
        ([(A, math.nan)], "weight nan is not usable"),
        ([(A, True)], "weight True is not a number"),
        ([(A, "2")], "weight '2' is not a number"),
        ([(A, 1.0, 2.0)], "write \\(address, weight\\)"),
        ([5], "5 is not usable"),
        (["greeter:50051"], "'greeter:50051' is not one address"),
        (["ipv4:10.0.0.1:1,10.0.0.2:2"], "is not one address"),
        (["10.0.0.1:x"], "port 'x' is not a number"),
    ],
)
def test_refused(items: list[static.EndpointLike], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        static_endpoints(items)


def test_all_faults_are_reported_together() -> None:
    with pytest.raises(ConfigError) as caught:
        static_endpoints([(A, -1.0), "10.0.0.1:x", B, B])
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "endpoints[0]",
        "endpoints[1]",
        "endpoints[3]",
    ]


@pytest.mark.anyio
async def test_pushes_once_and_returns(sink: Recorder) -> None:
    resolver = StaticResolver([B, A])
    resolver.refresh()
    await resolver.run(sink)
    assert sink.updates == [Resolution((Endpoint(B), Endpoint(A)))]


@pytest.mark.anyio
@pytest.mark.parametrize("text", ["10.0.0.1:1", "dns:///10.0.0.1:1", "ipv4:10.0.0.1:1"])
async def test_spelled_out_targets_need_no_lookup(text: str, sink: Recorder) -> None:
    await resolver_for(parse_target(text), Config()).run(sink)
    assert sink.updates == [Resolution((Endpoint(A),))]


def test_documented_example() -> None:
    assert doctest.testmod(static) == (0, 2)
