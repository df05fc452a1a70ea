"""What a k8s target says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpclb_core.errors import TargetError
from grpclb_core.resolve.kubernetes.target import KubernetesTarget, parse_kubernetes


@pytest.mark.parametrize(
    ("rest", "parsed"),
    [
        ("///greeter.default:50051", KubernetesTarget("greeter", "default", 50051, "greeter.default:50051")),
        ("///greeter.default:grpc", KubernetesTarget("greeter", "default", "grpc", "greeter.default")),
        ("///greeter:grpc", KubernetesTarget("greeter", "", "grpc", "greeter")),
        ("///greeter.default", KubernetesTarget("greeter", "default", None, "greeter.default")),
        ("///greeter.team-a.svc:1", KubernetesTarget("greeter", "team-a", 1, "greeter.team-a.svc:1")),
        (
            "///greeter.a.svc.cluster.local:65535",
            KubernetesTarget("greeter", "a", 65535, "greeter.a.svc.cluster.local:65535"),
        ),
    ],
)
def test_read(rest: str, parsed: KubernetesTarget) -> None:
    assert parse_kubernetes(rest) == parsed


@pytest.mark.parametrize(
    ("rest", "says"),
    [
        ("///", "the service is missing"),
        ("///:50051", "the service is missing"),
        ("//greeter.default:50051", "'greeter.default:50051' stands where an API server would"),
        ("//api:6443/greeter.default:50051", "'api:6443' stands where an API server would"),
        ("///Greeter.default:50051", "use lower-case letters"),
        ("///greeter..svc:1", "use lower-case letters"),
        ("///greeter_a:1", "use lower-case letters"),
        ("///greeter.default.pod:1", "too many parts"),
        ("///a.greeter.default.svc:1", "too many parts"),
        ("///greeter.default/path:1", "is no service of a namespace"),
        ("///greeter.default:", "port '' is neither"),
        ("///greeter.default:0", "port '0' is neither"),
        ("///greeter.default:65536", "port '65536' is neither"),
        ("///greeter.default:000000000000001", "is neither a number from 1 to 65535 nor the name of a port"),
        ("///greeter.default:gRPC", "port 'gRPC' is neither"),
        ("///greeter.default:1:2", "port '1:2' is neither"),
        ("///greeter.default:\u00b2", "is neither"),
        (f"///{'a' * 64}:1", "at most 63 between two dots"),
    ],
)
def test_refused(rest: str, says: str) -> None:
    with pytest.raises(TargetError) as caught:
        parse_kubernetes(rest)
    assert says in str(caught.value)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(TargetError) as caught:
        parse_kubernetes("///Greeter:0")
    assert len(caught.value.problems) == 2


@given(st.text())
def test_anything_is_read_or_refused(text: str) -> None:
    try:
        parsed = parse_kubernetes("//" + text)
    except TargetError:
        return
    assert parsed.service
