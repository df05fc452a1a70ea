"""Which of several service configs counts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from grpclb_core.config import Config, DnsConfig, HealthConfig, OutlierConfig, OutlierDetection, SuccessRateEjection
from grpclb_core.errors import ConfigError
from grpclb_core.policies import LeastRequest, P2cEwma, Random, RoundRobin
from grpclb_core.service_config import ServiceConfigs

DETECTION = OutlierDetection(success_rate_ejection=SuccessRateEjection())


def text_of(policy: str, **fields: object) -> str:
    return json.dumps({"loadBalancingConfig": [{policy: {}}], **fields})


def option(policy: str) -> tuple[str, str]:
    return ("grpc.service_config", text_of(policy))


BROKEN = text_of("nobody_knows")


class TestPolicy:
    def test_without_any_it_is_the_default(self) -> None:
        configs = ServiceConfigs()
        assert (configs.policy, configs.fault, configs.for_connections) == (P2cEwma(), None, None)

    @pytest.mark.parametrize(
        ("given", "options", "text", "policy"),
        [
            ("random", [], None, Random()),
            (LeastRequest(choice_count=3), [option("round_robin")], text_of("random"), LeastRequest(choice_count=3)),
            (None, [option("round_robin")], None, RoundRobin()),
            (None, [option("round_robin")], text_of("random"), Random()),
            (None, [option("round_robin")], "{}", P2cEwma()),  # as gRPC: the resolver's counts whole
            (None, [("grpc.lb_policy_name", "round_robin")], None, RoundRobin()),
            (None, [("grpc.lb_policy_name", b"ROUND_ROBIN")], "{}", RoundRobin()),
            (None, [("grpc.lb_policy_name", "round_robin"), option("random")], None, Random()),
            (None, [(b"grpc.service_config", text_of("random").encode())], None, Random()),
            (None, [option("random"), option("round_robin")], None, RoundRobin()),  # as C-core: the last one
            (None, [("grpc.service_config_disable_resolution", 1)], text_of("random"), P2cEwma()),
            (None, [("grpc.service_config_disable_resolution", 1), option("random")], text_of("round_robin"), Random()),
            (None, [("grpc.service_config_disable_resolution", 0)], text_of("random"), Random()),
            (None, [option("round_robin")], BROKEN, RoundRobin()),
            (None, [], BROKEN, P2cEwma()),
        ],
    )
    def test_who_decides(self, given: Any, options: Any, text: str | None, policy: object) -> None:
        configs = ServiceConfigs(given, options)
        configs.take(text)
        assert configs.policy == policy

    @pytest.mark.parametrize(
        ("given", "options", "problem"),
        [
            ("xds", [], "policy: 'xds' is unknown"),
            (None, [("grpc.service_config", BROKEN)], "options: grpc.service_config: loadBalancingConfig: no policy"),
            (None, [("grpc.service_config", "{")], "options: grpc.service_config: service config: this is no JSON"),
            (None, [("grpc.service_config", 3)], "options: grpc.service_config: expected JSON text, got int"),
            (None, [("grpc.lb_policy_name", "xds")], "options: grpc.lb_policy_name: policy: 'xds' is unknown"),
            (None, [("grpc.lb_policy_name", 3)], "options: grpc.lb_policy_name: policy: expected a string"),
        ],
    )
    def test_what_the_user_gave_has_to_be_usable(self, given: Any, options: Any, problem: str) -> None:
        with pytest.raises(ConfigError) as caught:
            ServiceConfigs(given, options)
        assert caught.value.problems[0].startswith(problem)


class TestTheResolvers:
    def test_a_faulty_one_is_refused_whole_and_the_one_before_stays(self) -> None:
        configs = ServiceConfigs(options=[option("round_robin")])
        assert configs.take(text_of("random", methodConfig=[{"name": [{}], "timeout": "1s"}]))
        kept = configs.current
        for faulty in (
            BROKEN,
            "{",
            text_of("round_robin", methodConfig=[{"timeout": "x"}]),
            text_of("round_robin", healthCheckConfig=3),
        ):
            assert configs.take(faulty)
            assert configs.fault
            assert configs.current is kept
        assert configs.take(text_of("least_request"))
        assert configs.fault is None
        assert configs.policy == LeastRequest()

    def test_one_that_was_taken_back_leaves_the_default(self) -> None:
        configs = ServiceConfigs(options=[option("round_robin")])
        configs.take(text_of("random"))
        configs.take(BROKEN)
        assert configs.take(None)
        assert (configs.policy, configs.fault) == (RoundRobin(), None)

    def test_the_same_again_is_no_change(self) -> None:
        configs = ServiceConfigs()
        assert not configs.take(None)
        assert configs.take(BROKEN)
        fault = configs.fault
        assert not configs.take(BROKEN)
        assert configs.fault is fault
        assert configs.take(text_of("random"))
        assert not configs.take(text_of("random"))

    def test_a_fault_is_told_in_short(self) -> None:
        configs = ServiceConfigs()
        configs.take(json.dumps({"methodConfig": [{"timeout": "x"}] * 1000}))
        assert (configs.fault or "").endswith("; and 98 more")
        assert len(configs.fault or "") < 500


class TestOptions:
    def test_those_of_the_service_config_are_not_for_connections(self) -> None:
        rest = [("grpc.keepalive_time_ms", 10), (3, "x"), ([], "x")]
        given: Any = [
            option("random"),
            *rest,
            ("grpc.lb_policy_name", "random"),
            (b"grpc.service_config_disable_resolution", 1),
        ]
        assert list(ServiceConfigs(options=given).options) == rest

    @pytest.mark.parametrize(
        ("options", "own", "wanted"),
        [
            ([], False, False),
            ([], True, True),
            ([("grpc.service_config_disable_resolution", 0)], False, True),
            ([("grpc.service_config_disable_resolution", 1)], True, False),
            ([("grpc.service_config_disable_resolution", True)], True, False),
        ],
    )
    def test_whether_dns_is_asked(self, options: Any, own: bool, wanted: bool) -> None:
        config = Config(dns=DnsConfig(service_config=own))
        assert ServiceConfigs(options=options).applied_to(config).dns.service_config is wanted

    def test_health_and_outliers_where_the_user_is_silent(self) -> None:
        configs = ServiceConfigs()
        entry = {"successRateEjection": {}, "childPolicy": [{"random": {}}]}
        said = {
            "loadBalancingConfig": [{"outlier_detection_experimental": entry}],
            "healthCheckConfig": {"serviceName": "greeter"},
        }
        configs.take(json.dumps(said))
        config = configs.applied_to(Config(seed=3))
        assert config == Config(seed=3, health=HealthConfig(service="greeter"), outliers=OutlierConfig(a50=DETECTION))
        own = Config(health=HealthConfig(service=""), outliers=OutlierConfig(a50=OutlierDetection(interval_s=1.0)))
        assert configs.applied_to(own) == own
        assert configs.take(None)
        assert configs.applied_to(Config()) == Config()
