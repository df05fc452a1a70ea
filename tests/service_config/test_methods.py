"""What connections are given is what C-core takes: it fails every call of a channel whose service config it refuses."""

from __future__ import annotations

import json
from typing import Any

import grpc
import grpc.aio
import pytest

from grpclb_core.errors import ConfigError
from grpclb_core.service_config import ServiceConfigs

pytestmark = pytest.mark.anyio

REFUSED_AFTER_S = 5.0  # at the latest; it takes a millisecond
TAKEN_AFTER_S = 0.3  # some of those taken wait for a server, which there is none of


def rules(**fields: object) -> dict[str, object]:
    return {"methodConfig": [{"name": [{"service": "greeter"}], **fields}]}


def retries(**fields: object) -> dict[str, object]:
    usual = {
        "maxAttempts": 2,
        "initialBackoff": "0.1s",
        "maxBackoff": "1s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    return rules(retryPolicy={**usual, **fields})


def throttling(**fields: object) -> dict[str, object]:
    return {"retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1, **fields}}


def nested(levels: int) -> object:
    inner: object = {}
    for _ in range(levels):
        inner = {"a": [inner]}
    return inner


USABLE: list[dict[str, Any]] = [
    {"methodConfig": []},
    {"methodConfig": None},
    {"methodConfig": [{}]},
    {"methodConfig": [{"name": None, "timeout": None}]},
    {"methodConfig": [{"name": []}, {"name": [{}]}, {"name": [{"service": "a"}, {"service": "a", "method": "b"}]}]},
    {"methodConfig": [{"name": [{"service": "\0", "method": "é"}]}]},
    rules(somethingNew=nested(45)),
    rules(timeout="0s"),
    rules(timeout="0.000000001s"),
    rules(timeout="01s"),
    rules(timeout="315576000000.999999999s"),
    rules(waitForReady=False),
    rules(maxRequestMessageBytes=0, maxResponseMessageBytes=2**32 - 1),
    rules(maxRequestMessageBytes="12", somethingNew=[1]),
    retries(),
    retries(maxAttempts="3", retryableStatusCodes=["OK", "ABORTED", "ABORTED"]),
    retries(maxAttempts=2**31 - 1, initialBackoff="0.001s", maxBackoff="315576000000s", backoffMultiplier="0.1"),
    retries(backoffMultiplier=2.0**-126),
    retries(backoffMultiplier=3e38),
    retries(backoffMultiplier="1e-5", perAttemptRecvTimeout="0.001s"),
    rules(hedgingPolicy={"maxAttempts": 2, "hedgingDelay": "0.1s", "nonFatalStatusCodes": ["ABORTED"]}),
    throttling(),
    throttling(maxTokens=1000, tokenRatio=1000),
    throttling(maxTokens="1", tokenRatio=0.001),
    throttling(tokenRatio=0.0019999999),
    throttling(tokenRatio=100.123456789),
    {"retryThrottling": None},
    {"connectionScaling": {"maxConnectionsPerSubchannel": 2}},
    {"connectionScaling": {}},
]

# With the path of the fault, and whether C-core refuses it too.
UNUSABLE: list[tuple[dict[str, Any], str, bool]] = [
    ({"methodConfig": {}}, "methodConfig", True),
    ({"methodConfig": [3]}, "methodConfig[0]", True),
    ({"methodConfig": [{"name": [None]}]}, "methodConfig[0].name[0]", True),
    ({"methodConfig": [{"name": {}}]}, "methodConfig[0].name", True),
    ({"methodConfig": [{"name": [{"method": "b"}]}]}, "methodConfig[0].name[0]", True),
    ({"methodConfig": [{"name": [{"service": "a"}, {"service": "a"}]}]}, "methodConfig[0].name[1]", True),
    ({"methodConfig": [{"name": [{}]}, {"name": [{"service": ""}]}]}, "methodConfig[1].name[0]", True),
    (rules(somethingNew=nested(200)), "methodConfig", True),
    (rules(timeout="1"), "methodConfig[0].timeout", True),
    (rules(timeout=1), "methodConfig[0].timeout", True),
    (rules(timeout="-1s"), "methodConfig[0].timeout", True),
    (rules(timeout="1e3s"), "methodConfig[0].timeout", True),
    (rules(timeout=".5s"), "methodConfig[0].timeout", True),
    (rules(timeout="1.0000000001s"), "methodConfig[0].timeout", True),
    (rules(timeout="315576000001s"), "methodConfig[0].timeout", True),
    (rules(timeout=" 1s"), "methodConfig[0].timeout", False),
    (rules(timeout="١s"), "methodConfig[0].timeout", True),  # noqa: RUF001 - a digit, but of Arabic
    (rules(waitForReady="true"), "methodConfig[0].waitForReady", True),
    (rules(maxRequestMessageBytes=2**32), "methodConfig[0].maxRequestMessageBytes", True),
    (rules(maxResponseMessageBytes=-1), "methodConfig[0].maxResponseMessageBytes", True),
    (retries(maxAttempts=1), "methodConfig[0].retryPolicy.maxAttempts", True),
    (retries(maxAttempts=2.5), "methodConfig[0].retryPolicy.maxAttempts", True),
    (retries(maxAttempts=2**31), "methodConfig[0].retryPolicy.maxAttempts", True),
    (retries(maxAttempts=None), "methodConfig[0].retryPolicy.maxAttempts", True),
    (retries(initialBackoff="0s"), "methodConfig[0].retryPolicy.initialBackoff", True),
    (retries(initialBackoff="0.0009s"), "methodConfig[0].retryPolicy.initialBackoff", True),
    (retries(maxBackoff="0s"), "methodConfig[0].retryPolicy.maxBackoff", True),
    (retries(backoffMultiplier=0), "methodConfig[0].retryPolicy.backoffMultiplier", True),
    (retries(backoffMultiplier=-1), "methodConfig[0].retryPolicy.backoffMultiplier", True),
    (retries(backoffMultiplier="NaN"), "methodConfig[0].retryPolicy.backoffMultiplier", False),
    (retries(retryableStatusCodes=[]), "methodConfig[0].retryPolicy.retryableStatusCodes", True),
    (retries(retryableStatusCodes=[14]), "methodConfig[0].retryPolicy.retryableStatusCodes[0]", True),
    (retries(retryableStatusCodes=["unavailable"]), "methodConfig[0].retryPolicy.retryableStatusCodes[0]", True),
    (rules(hedgingPolicy={"maxAttempts": 1}), "methodConfig[0].hedgingPolicy.maxAttempts", False),
    (
        rules(hedgingPolicy={"maxAttempts": 2}, **retries()["methodConfig"][0]),  # type: ignore[index]
        "methodConfig[0]",
        False,
    ),
    (throttling(maxTokens=0), "retryThrottling.maxTokens", True),
    (throttling(maxTokens=1001), "retryThrottling.maxTokens", False),  # A6 has a ceiling, C-core none
    (throttling(tokenRatio=0.0009), "retryThrottling.tokenRatio", True),
    (throttling(tokenRatio=None), "retryThrottling.tokenRatio", True),
    ({"retryThrottling": 3}, "retryThrottling", True),
    ({"connectionScaling": {"maxConnectionsPerSubchannel": -1}}, "connectionScaling.maxConnectionsPerSubchannel", True),
]


async def is_taken(text: str, timeout_s: float) -> bool:
    """Ask C-core, with a call that can only fail."""
    options = [("grpc.service_config", text)]
    async with grpc.aio.insecure_channel("ipv4:127.0.0.1:1", options=options) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await channel.unary_unary("/other/method")(b"", timeout=timeout_s)
    if failed.value.code() is not grpc.StatusCode.INVALID_ARGUMENT:
        return True
    assert "service config" in (failed.value.details() or "") or "JSON" in (failed.value.details() or "")
    return False


@pytest.mark.parametrize("raw", USABLE, ids=json.dumps)
async def test_what_is_passed_on_is_taken(raw: dict[str, Any]) -> None:
    configs = ServiceConfigs()
    assert configs.take(json.dumps(raw))
    assert configs.fault is None
    assert await is_taken(configs.for_connections or "{}", TAKEN_AFTER_S)


@pytest.mark.parametrize(("raw", "path", "by_core"), UNUSABLE, ids=lambda value: json.dumps(value))
async def test_what_would_not_be_taken_is_refused(raw: dict[str, Any], path: str, by_core: bool) -> None:
    text = json.dumps(raw)
    with pytest.raises(ConfigError) as caught:
        ServiceConfigs(options=[("grpc.service_config", text)])
    (problem,) = caught.value.problems
    assert problem.startswith(f"options: grpc.service_config: {path}: ")
    assert await is_taken(text, REFUSED_AFTER_S if by_core else TAKEN_AFTER_S) is not by_core


async def test_policies_and_health_are_not_passed_on() -> None:
    raw = {
        "loadBalancingConfig": [{"p2c_ewma": {}}],
        "loadBalancingPolicy": "p2c_ewma",
        "healthCheckConfig": {"serviceName": "greeter"},
        "methodConfig": [{"name": [{}], "timeout": "1s"}],
        "unknown": 3,
    }
    configs = ServiceConfigs(options=[("grpc.service_config", json.dumps(raw))])
    assert json.loads(configs.for_connections or "") == {"methodConfig": raw["methodConfig"]}
