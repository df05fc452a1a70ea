"""Options are parsed once, and every fault is told at once, with its path."""

from __future__ import annotations

import math

import msgspec
import pytest

from grpclb_core.config import Config, ConnectionConfig, DnsConfig, PositiveCount, parse_config, parse_struct
from grpclb_core.errors import ConfigError


class Inner(msgspec.Struct, frozen=True, kw_only=True):
    size: PositiveCount
    label: str | None = None


class Outer(msgspec.Struct, frozen=True, kw_only=True):
    inner: Inner
    tags: list[str] = []


def problems_of(raw: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(raw)  # type: ignore[arg-type]
    return list(caught.value.problems)


def test_nothing_given_means_the_defaults() -> None:
    assert parse_config(None) == parse_config({}) == parse_config(Config()) == Config()


def test_values_arrive_where_they_belong() -> None:
    config = parse_config({"dns": {"min_ttl_s": 2, "timeout_s": 0.5}, "connection": {"drain_s": 0}, "seed": 7})
    assert config == Config(
        dns=DnsConfig(min_ttl_s=2.0, timeout_s=0.5), connection=ConnectionConfig(drain_s=0.0), seed=7
    )


def test_mappings_and_structs_mix() -> None:
    config = parse_config({"dns": DnsConfig(timeout_s=1.0), "connection": {"drain_s": 3.0}})
    assert config == Config(dns=DnsConfig(timeout_s=1.0), connection=ConnectionConfig(drain_s=3.0))


@pytest.mark.parametrize(
    ("raw", "path", "says"),
    [
        ({"dsn": {}}, "config.dsn", "unknown option; known are connection, consul, dns"),
        ({"dns": {"ttl": 1}}, "config.dns.ttl", "unknown option; known are"),
        ({1: 2}, "config.1", "unknown option"),
        ({"dns": {"timeout_s": "5"}}, "config.dns.timeout_s", "'5' is not usable: Expected `float`, got `str`"),
        ({"dns": {"timeout_s": None}}, "config.dns.timeout_s", "Expected `float`, got `null`"),
        ({"dns": {"timeout_s": True}}, "config.dns.timeout_s", "got `bool`"),
        ({"dns": {"timeout_s": 0}}, "config.dns.timeout_s", "0 is not usable: Expected `float` > 0.0"),
        ({"dns": {"jitter_s": -0.1}}, "config.dns.jitter_s", "Expected `float` >= 0.0"),
        ({"dns": {"timeout_s": math.nan}}, "config.dns.timeout_s", "nan is not usable"),
        ({"seed": 1.5}, "config.seed", "1.5 is not usable"),
        ({"dns": None}, "config.dns", "expected a mapping of options, got NoneType"),
        ({"dns": [1]}, "config.dns", "expected a mapping of options, got list"),
        ({"dns": ConnectionConfig()}, "config.dns", "expected a mapping of options, got ConnectionConfig"),
        ([], "config", "expected a mapping of options, got list"),
        ("dns", "config", "expected a mapping of options, got str"),
        ({"dns": {"min_ttl_s": 60}}, "config.dns", "min_ttl_s 60.0 is above max_ttl_s 30.0"),
        (Config(dns=DnsConfig(timeout_s=-1)), "config.dns.timeout_s", "-1 is not usable"),
        (Config(seed=object()), "config.seed", "is not usable"),  # type: ignore[arg-type]
        ({"dns": DnsConfig(timeout_s=0)}, "config.dns.timeout_s", "0 is not usable"),
    ],
)
def test_one_fault(raw: object, path: str, says: str) -> None:
    (problem,) = problems_of(raw)
    assert problem.startswith(f"{path}: ")
    assert says in problem


def test_all_faults_are_told_together() -> None:
    raw = {
        "dns": {"timeout_s": 0, "nonsense": 1, "min_ttl_s": 40},
        "connection": {"drain_s": "long"},
        "sede": 1,
    }
    assert [problem.partition(": ")[0] for problem in problems_of(raw)] == [
        "config.dns.timeout_s",
        "config.dns.nonsense",
        "config.connection.drain_s",
        "config.sede",
    ]


def test_the_message_holds_every_problem() -> None:
    with pytest.raises(ConfigError, match=r"config\.a: .*; config\.b: "):
        parse_config({"a": 1, "b": 2})


def test_a_missing_option_is_a_fault_like_any_other() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_struct(Outer, {"inner": {"label": 1}, "tags": ["a", 2]}, "policy")
    assert [problem.partition(": ")[0] for problem in caught.value.problems] == [
        "policy.inner.label",
        "policy.inner.size",
        "policy.tags",
    ]
    with pytest.raises(ConfigError, match=r"policy\.inner: missing; it has no default"):
        parse_struct(Outer, {}, "policy")


def test_any_struct_can_be_parsed() -> None:
    assert parse_struct(Outer, {"inner": {"size": 3}}, "policy") == Outer(inner=Inner(size=3))


@pytest.mark.parametrize(
    "option", ["keepalive_time_s", "keepalive_timeout_s", "initial_backoff_s", "max_backoff_s", "connect_timeout_s"]
)
@pytest.mark.parametrize("seconds", [math.inf, 1e7, 2**31 / 1000])
def test_seconds_that_the_core_cannot_take(option: str, seconds: float) -> None:
    (problem,) = problems_of({"connection": {option: seconds}})
    assert problem.startswith(f"config.connection.{option}: ")
