"""What a service config says, and what is said of one that cannot be used."""

from __future__ import annotations

import json
import math
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpclb_core.config import FailurePercentageEjection, OutlierDetection, SuccessRateEjection
from grpclb_core.errors import ConfigError
from grpclb_core.native import Picker, RandomPicker, View
from grpclb_core.policies import (
    POLICIES,
    LeastRequest,
    P2cEwma,
    PickFirst,
    Policy,
    Random,
    RingHash,
    RoundRobin,
    WeightedRoundRobin,
)
from grpclb_core.service_config import ServiceConfig, parse_service_config, service_config_json
from grpclb_core.service_config.methods import PASSED_ON

PATIENT = {"name": [{"service": "greeter"}], "timeout": "1.5s", "waitForReady": True}

COUNT = "loadBalancingConfig[0].least_request.choiceCount"
DECAY = "loadBalancingConfig[0].p2c_ewma.decay"


def policies(*entries: object) -> dict[str, object]:
    return {"loadBalancingConfig": list(entries)}


def problems_of(raw: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_service_config(raw)
    return list(caught.value.problems)


class TestChoice:
    @pytest.mark.parametrize(
        ("entry", "policy"),
        [
            ({"round_robin": {}}, RoundRobin()),
            ({"random": {}}, Random()),
            ({"p2c_ewma": {}}, P2cEwma()),
            ({"p2c_ewma": {"decay": "2.5s"}}, P2cEwma(decay_s=2.5)),
            ({"p2c_ewma": {"decay": None}}, P2cEwma()),
            ({"least_request": {}}, LeastRequest()),
            ({"least_request_experimental": {"choiceCount": 3}}, LeastRequest(choice_count=3)),
            ({"least_request_experimental": {"choiceCount": "3"}}, LeastRequest(choice_count=3)),  # a uint64
            ({"pick_first": {"shuffleAddressList": True}}, PickFirst(shuffle_address_list=True)),
            (
                {"ring_hash_experimental": {"minRingSize": "10", "maxRingSize": 20, "requestHashHeader": "user"}},
                RingHash(min_ring_size=10, max_ring_size=20, request_hash_header="user"),
            ),
            ({"ring_hash": {"ringSizeCap": 10}}, RingHash()),
            (
                {
                    "weighted_round_robin": {
                        "enableOobLoadReport": True,
                        "oobReportingPeriod": "30s",
                        "blackoutPeriod": "0s",
                        "weightExpirationPeriod": "60s",
                        "weightUpdatePeriod": "0.100s",
                        "errorUtilizationPenalty": 0.5,
                        "metricNamesForComputingUtilization": ["named_metrics.queue", "cpu_utilization"],
                    }
                },
                WeightedRoundRobin(
                    enable_oob_load_report=True,
                    oob_reporting_period_s=30.0,
                    blackout_period_s=0.0,
                    weight_expiration_period_s=60.0,
                    weight_update_period_s=0.1,
                    error_utilization_penalty=0.5,
                    metric_names_for_computing_utilization=("named_metrics.queue", "cpu_utilization"),
                ),
            ),
            ({"least_request_experimental": {"choiceCount": 100}}, LeastRequest(choice_count=10)),  # A48
        ],
    )
    def test_a_policy_with_its_options(self, entry: dict[str, object], policy: Policy) -> None:
        config = parse_service_config(policies(entry))
        assert config.policy == policy
        assert parse_service_config(service_config_json(config)).policy == policy

    @pytest.mark.parametrize("name", sorted(POLICIES))
    @pytest.mark.parametrize("suffix", ["", "_experimental"])
    def test_every_policy_is_known_by_both_names(self, name: str, suffix: str) -> None:
        assert parse_service_config(policies({name + suffix: {}})) == ServiceConfig(POLICIES[name]())

    @pytest.mark.parametrize(
        ("entries", "policy"),
        [
            ([{"round_robin": {}}, {"random": {}}], RoundRobin()),
            ([{"grpclb": {}}, {"rls_experimental": {"x": [1]}}, {"random": {}}, {"round_robin": {}}], Random()),
            ([{"Round_Robin": {}}, {"random": {}}], Random()),
            ([{"random": {}}, {"round_robin": 3}, 3, {}], Random()),  # what comes after is not looked at
            ([{"round_robin": {"decay": None}}, {"round_robin": {"decay": "no"}}], RoundRobin()),
        ],
    )
    def test_the_first_known_one_wins(self, entries: list[object], policy: Policy) -> None:
        assert parse_service_config(policies(*entries)).policy == policy

    @pytest.mark.parametrize("name", ["round_robin", "ROUND_ROBIN", "Round_Robin"])
    def test_the_deprecated_name_in_any_case(self, name: str) -> None:
        assert parse_service_config({"loadBalancingPolicy": name}).policy == RoundRobin()

    def test_the_deprecated_name_gives_way_to_the_list(self) -> None:
        raw = {"loadBalancingPolicy": "random", **policies({"round_robin": {}})}
        assert parse_service_config(raw).policy == RoundRobin()
        assert parse_service_config({"loadBalancingPolicy": "random", "loadBalancingConfig": None}).policy == Random()

    @pytest.mark.parametrize("raw", [{}, "{}", b"{}", {"loadBalancingPolicy": ""}, {"loadBalancingConfig": None}])
    def test_nothing_said_is_a_config_too(self, raw: Any) -> None:
        assert parse_service_config(raw) == ServiceConfig()

    @pytest.mark.parametrize(
        ("raw", "problem"),
        [
            (policies(), "loadBalancingConfig: no policy of the list is known (it has none); known are "),
            (policies({"grpclb": {}}, {"cds": {}}), "loadBalancingConfig: no policy of the list is known (it has 'gr"),
            ({"loadBalancingConfig": {"round_robin": {}}}, "loadBalancingConfig: expected an array, got an object"),
            (policies("round_robin"), "loadBalancingConfig[0]: expected an object with one name, as in {"),
            (policies({}), "loadBalancingConfig[0]: expected an object with one name"),
            (policies({"a": {}, "b": {}}), "loadBalancingConfig[0]: expected an object with one name"),
            (policies({"cds": {}}, 3, {"random": {}}), "loadBalancingConfig[1]: expected an object with one name"),
            (policies({"round_robin": None}), "loadBalancingConfig[0].round_robin: expected an object, got null"),
            (policies({"cds": 3}, {"round_robin": {}}), "loadBalancingConfig[0].cds: expected an object, got a number"),
            ({"loadBalancingPolicy": "xds"}, "loadBalancingPolicy: 'xds' is unknown; known are least_request"),
            ({"loadBalancingPolicy": 3}, "loadBalancingPolicy: expected a string, got a number"),
            (
                {"loadBalancingPolicy": "xds", **policies({"random": {}})},
                "loadBalancingPolicy: 'xds' is unknown",  # as C-core, which looks at both
            ),
            (
                policies({"least_request": {"choiceCount": 1}}),
                f"{COUNT}: 1 is not usable: Expected `int` >= 2",
            ),
            (policies({"least_request": {"choiceCount": 2.5}}), f"{COUNT}: 2.5 is"),
            (policies({"least_request": {"choiceCount": True}}), f"{COUNT}: True"),
            (policies({"least_request": {"choiceCount": "x"}}), f"{COUNT}: 'x'"),
            (
                policies({"ring_hash": {"minRingSize": 3, "maxRingSize": 2}}),
                "loadBalancingConfig[0].ring_hash: min_ring_size 3 is above max_ring_size 2",
            ),
            (
                policies({"weighted_round_robin": {"metricNamesForComputingUtilization": ["a", 3]}}),
                "loadBalancingConfig[0].weighted_round_robin.metricNamesForComputingUtilization[1]: 3 is not usable",
            ),
            (policies({"p2c_ewma": {"decay": "0s"}}), f"{DECAY}: 0.0 is not usable: Expected"),
            (policies({"p2c_ewma": {"decay": 2}}), f"{DECAY}: 2 is no duration; write seco"),
        ],
    )
    def test_what_cannot_be_used(self, raw: object, problem: str) -> None:
        (found,) = problems_of(raw)
        assert found.startswith(problem)


class TestOutlierDetection:
    def test_its_options_and_the_policy_in_it(self) -> None:
        entry = {
            "interval": "5s",
            "maxEjectionPercent": "50",
            "successRateEjection": {"stdevFactor": 1500},
            "failurePercentageEjection": {},
            "childPolicy": [{"cds": {}}, {"least_request": {"choiceCount": 4}}],
        }
        assert parse_service_config(policies({"outlier_detection_experimental": entry})) == ServiceConfig(
            LeastRequest(choice_count=4),
            OutlierDetection(
                interval_s=5.0,
                max_ejection_percent=50,
                success_rate_ejection=SuccessRateEjection(stdev_factor=1500),
                failure_percentage_ejection=FailurePercentageEjection(),
            ),
        )

    @pytest.mark.parametrize(
        ("entry", "problem"),
        [
            ({}, ".childPolicy: missing; list the policies"),
            ({"childPolicy": None}, ".childPolicy: missing"),
            ({"childPolicy": []}, ".childPolicy: no policy of the list is known"),
            ({"childPolicy": [{"cds": {}}]}, ".childPolicy: no policy of the list is known"),
            ({"childPolicy": [{"random": {"decay": "x"}}]}, ".childPolicy[0].random.decay: 'x' is no duration"),
            ({"interval": 5, "childPolicy": [{"random": {}}]}, ".interval: 5 is no duration"),
            (
                {"failurePercentageEjection": {"threshold": 101}, "childPolicy": [{"random": {}}]},
                ".failurePercentageEjection.threshold: 101 is not usable: Expected `int` <= 100",
            ),
            (
                {"childPolicy": [{"outlier_detection_experimental": {"childPolicy": [{"random": {}}]}}]},
                ".childPolicy[0].outlier_detection_experimental: outlier detection stands within outlier detection",
            ),
        ],
    )
    def test_what_cannot_be_used(self, entry: object, problem: str) -> None:
        (found,) = problems_of(policies({"outlier_detection_experimental": entry}))
        assert found.startswith("loadBalancingConfig[0].outlier_detection_experimental" + problem)

    def test_it_has_a_policy(self) -> None:
        with pytest.raises(ConfigError, match="stands without a policy"):
            ServiceConfig(outlier_detection=OutlierDetection())


class TestTheRest:
    @pytest.mark.parametrize(
        ("raw", "service"),
        [({}, None), ({"serviceName": None}, None), ({"serviceName": ""}, ""), ({"serviceName": "greeter"}, "greeter")],
    )
    def test_the_health_service(self, raw: object, service: str | None) -> None:
        assert parse_service_config({"healthCheckConfig": raw}).health_service == service

    def test_what_connections_apply_is_kept_as_it_was_given(self) -> None:
        raw = {
            "methodConfig": [PATIENT, {"name": [{}], "faultInjectionPolicy": {"abortCode": "ABORTED"}}],
            "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
        }
        assert parse_service_config(json.dumps(raw)).passed_on == raw

    def test_null_is_nothing(self) -> None:
        raw = {"methodConfig": [{**PATIENT, "retryPolicy": None}], "retryThrottling": None, "healthCheckConfig": None}
        assert parse_service_config(raw) == ServiceConfig(passed_on={"methodConfig": [PATIENT]})

    def test_what_nobody_knows_is_left_aside_and_listed(self) -> None:
        raw = {
            "loadbalancingConfig": [{"round_robin": {}}],
            **policies({"random": {"dekay": "1s"}}),
            "methodConfig": [{"name": [{"service": "a", "host": "b"}]}],
        }
        config = parse_service_config(raw)
        assert config.policy == Random()
        assert config.ignored == (
            "loadbalancingConfig",
            "loadBalancingConfig[0].random.dekay",
            "methodConfig[0].name[0].host",
        )

    def test_all_faults_are_told_together(self) -> None:
        raw = {
            **policies({"least_request": {"choiceCount": 0, "decay": "x"}}),
            "healthCheckConfig": {"serviceName": 3},
            "methodConfig": [{"timeout": "1"}, 3],
            "retryThrottling": {"maxTokens": 0},
        }
        assert [problem.partition(": ")[0] for problem in problems_of(raw)] == [
            "loadBalancingConfig[0].least_request.choiceCount",
            "loadBalancingConfig[0].least_request.decay",
            "healthCheckConfig.serviceName",
            "methodConfig[0].timeout",
            "methodConfig[1]",
            "retryThrottling.maxTokens",
            "retryThrottling.tokenRatio",
        ]

    @pytest.mark.parametrize("fault", [{"timeout": "x" * 10_000}, {"name": 1}, {"name": [{"service": 1}]}, 3])
    def test_a_flood_of_faults_is_cut_off(self, fault: object) -> None:
        problems = problems_of({"methodConfig": [fault] * 10_000})
        assert problems[-1].endswith("there are more; repair these first")
        assert len(problems) <= 102
        assert max(map(len, problems)) < 500

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("", "this is no JSON: Input data was truncated"),
            ("{'a': 1}", "this is no JSON: JSON is malformed"),
            ('{"a": NaN}', "this is no JSON"),
            ('{"a": 1} {}', "this is no JSON"),
            (b"\xff{}", "this is no JSON"),
            ("\ud800", "this is no JSON"),
            ('{"a": "\\ud800"}', "this is no JSON"),
            ("[]", "expected an object, got an array"),
            ("null", "expected an object, got null"),
            ('"x"', "expected an object, got a string"),
            ('{"methodConfig": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        ],
    )
    def test_broken_text(self, text: str | bytes, says: str) -> None:
        (problem,) = problems_of(text)
        assert problem.startswith("service config: ")
        assert says in problem


class Foreign:
    name: ClassVar[str] = "round_robin"
    decay_s = 1.0

    def build(self, view: View, seed: int, now_ns: int) -> Picker:
        return RandomPicker(view, decay_s=1.0, seed=seed)


class TestWriting:
    @pytest.mark.parametrize(
        "config",
        [
            ServiceConfig(),
            *(ServiceConfig(kind()) for kind in POLICIES.values()),
            ServiceConfig(P2cEwma(decay_s=0.000_001)),
            ServiceConfig(LeastRequest(choice_count=7, decay_s=1e6)),
            ServiceConfig(RoundRobin(), OutlierDetection()),
            ServiceConfig(
                Random(),
                OutlierDetection(interval_s=0.1, success_rate_ejection=SuccessRateEjection(minimum_hosts=3)),
                health_service="",
            ),
            ServiceConfig(health_service="greeter", passed_on={"methodConfig": [PATIENT]}),
        ],
    )
    def test_what_is_written_reads_as_the_same(self, config: ServiceConfig) -> None:
        assert parse_service_config(service_config_json(config)) == config

    def test_the_names_are_those_of_grpc(self) -> None:
        config = ServiceConfig(LeastRequest(choice_count=3, decay_s=0.5), OutlierDetection(base_ejection_time_s=60.0))
        assert json.loads(service_config_json(config)) == policies(
            {
                "outlier_detection_experimental": {
                    "baseEjectionTime": "60s",
                    "childPolicy": [{"least_request": {"choiceCount": 3, "decay": "0.5s"}}],
                }
            }
        )

    @pytest.mark.parametrize("decay_s", [1e-10, math.inf])
    def test_what_would_not_be_read_is_not_written(self, decay_s: float) -> None:
        with pytest.raises(ConfigError, match="decay_s: .* cannot be written as a duration"):
            service_config_json(ServiceConfig(P2cEwma(decay_s=decay_s)))

    def test_a_period_of_reports_beyond_a_day_means_a_day(self) -> None:
        policy = parse_service_config(policies({"weighted_round_robin": {"oobReportingPeriod": "86401s"}})).policy
        assert policy == WeightedRoundRobin(oob_reporting_period_s=86_400)

    def test_a_policy_of_somebody_else_cannot_be_written(self) -> None:
        with pytest.raises(ConfigError, match="policy 'round_robin': cannot be written as JSON"):
            service_config_json(ServiceConfig(Foreign()))


NAMES = ["loadBalancingConfig", "loadBalancingPolicy", "healthCheckConfig", "childPolicy", *PASSED_ON]
INNER = ["name", "service", "timeout", "retryPolicy", "maxAttempts", "decay", "choiceCount", "interval", "serviceName"]
KEYS = st.sampled_from([*NAMES, *INNER, *POLICIES, "outlier_detection_experimental"]) | st.text(max_size=3)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["1s", "3"])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=20
)


def accepted(raw: Any) -> ServiceConfig | None:
    try:
        return parse_service_config(raw)
    except ConfigError:
        return None


class TestAnything:
    @given(VALUES)
    def test_any_value_is_a_config_or_refused(self, raw: object) -> None:
        config = accepted(raw)
        if config is not None:
            again = parse_service_config(service_config_json(config))
            assert (again.policy, again.outlier_detection) == (config.policy, config.outlier_detection)

    @given(st.dictionaries(st.sampled_from(NAMES), VALUES))
    def test_any_text_of_json(self, raw: object) -> None:
        accepted(json.dumps(raw))
        accepted(msgspec.json.encode(raw))

    @given(st.text() | st.binary())
    def test_any_text(self, raw: str | bytes) -> None:
        accepted(raw)

    @given(st.dictionaries(KEYS, VALUES, max_size=4), st.sampled_from(sorted(POLICIES)))
    def test_any_options_of_a_policy(self, options: dict[str, object], name: str) -> None:
        accepted(policies({name: options}))
        accepted(policies({"outlier_detection_experimental": {**options, "childPolicy": [{name: options}]}}))
