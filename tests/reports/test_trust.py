"""Which reports are believed, and what is said of the others."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpclb_core.reports import encode_report, fault_of, read_report
from grpclb_core.reports.trust import LARGEST, LONGEST_LATENCY_S, MOST_IN_FLIGHT
from grpclb_core.types import IN_FLIGHT_METRIC, LATENCY_METRIC, LoadReport

NEVER = [math.nan, math.inf, -math.inf, LARGEST * 2]


def test_what_servers_say_is_believed() -> None:
    report = LoadReport(
        cpu_utilization=1.5,  # past a soft limit
        mem_utilization=1.0,
        application_utilization=7.0,
        rps_fractional=1e6,
        eps=0.5,
        utilization={"disk": 1.0},
        request_cost={"rows": 1e9},
        named_metrics={"temperature": -40.0, IN_FLIGHT_METRIC: 3.0, LATENCY_METRIC: 0.02},
    )
    assert fault_of(report) is None
    assert read_report(encode_report(report)) == report
    assert fault_of(LoadReport()) is None


@pytest.mark.parametrize("number", [*NEVER, -0.1])
@pytest.mark.parametrize(
    "field", ["cpu_utilization", "mem_utilization", "application_utilization", "rps_fractional", "eps"]
)
def test_a_number_that_cannot_be_is_not(field: str, number: float) -> None:
    fault = fault_of(LoadReport(**{field: number}))  # type: ignore[arg-type]
    assert fault is not None
    assert fault.startswith(f"{field} is {number}, outside 0 to ")


@pytest.mark.parametrize("number", [*NEVER, -0.1])
@pytest.mark.parametrize("field", ["utilization", "request_cost"])
def test_nor_is_one_under_a_name(field: str, number: float) -> None:
    assert str(fault_of(LoadReport(**{field: {"good": 0.5, "bad": number}}))).startswith(f"{field}['bad'] is {number}")  # type: ignore[arg-type]


@pytest.mark.parametrize("number", NEVER)
def test_named_metrics_are_any_number(number: float) -> None:
    assert fault_of(LoadReport(named_metrics={"balance": -LARGEST})) is None
    assert fault_of(LoadReport(named_metrics={"balance": number})) is not None


@pytest.mark.parametrize("report", [LoadReport(mem_utilization=1.01), LoadReport(utilization={"disk": 1.01})])
def test_only_what_has_a_soft_limit_is_above_one(report: LoadReport) -> None:
    assert "is 1.01, outside 0 to 1" in str(fault_of(report))


@pytest.mark.parametrize(("name", "most"), [(IN_FLIGHT_METRIC, MOST_IN_FLIGHT), (LATENCY_METRIC, LONGEST_LATENCY_S)])
def test_ours_have_bounds_of_their_own(name: str, most: float) -> None:
    assert fault_of(LoadReport(named_metrics={name: most})) is None
    for number in (-1.0, most * 1.001):
        assert str(fault_of(LoadReport(named_metrics={name: number}))).startswith(name)


def test_a_long_name_is_not_repeated_whole() -> None:
    assert len(str(fault_of(LoadReport(utilization={"n" * 10_000: 2.0})))) < 200


@given(st.binary(max_size=64))
def test_what_is_read_is_believed(message: bytes) -> None:
    try:
        report = read_report(message)
    except ValueError:
        return
    assert fault_of(report) is None
