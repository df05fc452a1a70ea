"""Our messages against protobuf's own."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from xds.data.orca.v3.orca_load_report_pb2 import OrcaLoadReport
from xds.service.orca.v3.orca_pb2 import OrcaLoadReportRequest

from grpclb_core.reports.codec import (
    LONGEST_PERIOD_S,
    MOST_BYTES,
    LoadRequest,
    decode_report,
    decode_request,
    encode_report,
    encode_request,
)
from grpclb_core.types import LoadReport

NUMBERS = ["cpu_utilization", "mem_utilization", "application_utilization", "rps_fractional", "eps"]
MAPS = ["utilization", "request_cost", "named_metrics"]

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {}, optional={name: st.floats() for name in NUMBERS} | {name: st.dictionaries(TEXT, st.floats()) for name in MAPS}
)


def bits(number: float) -> bytes:
    """What a number is, the sign of zero aside: NaN is not equal to itself."""
    return struct.pack("<d", number + 0.0)


def content(report: Any) -> dict[str, Any]:
    """Return what is in a report, be it ours or protobuf's."""
    numbers = {name: bits(getattr(report, name)) for name in NUMBERS}
    return numbers | {name: {key: bits(value) for key, value in getattr(report, name).items()} for name in MAPS}


@given(VALUES)
def test_a_report_of_ours_is_one_of_theirs(values: dict[str, Any]) -> None:
    report = LoadReport(**values)
    assert content(OrcaLoadReport.FromString(encode_report(report))) == content(report)


@given(VALUES)
def test_a_report_of_theirs_is_one_of_ours(values: dict[str, Any]) -> None:
    report = OrcaLoadReport(**values)
    assert content(decode_report(report.SerializeToString())) == content(report)


def test_nothing_is_encoded_as_nothing() -> None:
    assert encode_report(LoadReport()) == b""
    assert decode_report(b"") == LoadReport()


@pytest.mark.parametrize(
    ("message", "report"),
    [
        (OrcaLoadReport(rps=7).SerializeToString(), LoadReport()),  # deprecated, and read by no gRPC
        (b"\x09" + bytes(8) + b"\x09" + struct.pack("<d", 2.0), LoadReport(cpu_utilization=2.0)),  # the last one counts
        (b"\x0a\x01\x05", LoadReport()),  # field 1 of another type is an unknown field
        (b"\x42\x00", LoadReport(named_metrics={"": 0.0})),  # a missing key, a missing value
        (
            b"\x42\x05\x0a\x03abc\x42\x0e\x0a\x03abc\x11" + struct.pack("<d", 1.0),
            LoadReport(named_metrics={"abc": 1.0}),
        ),
        (b"\x42\x07\x0a\x03abc\x18\x05", LoadReport()),  # an entry with a field that no entry has
        (
            b"\x42\x0b\x0a\x00\x11" + struct.pack("<d", 1.0) + b"\x42\x0b\x08\x04\x11" + bytes(8),
            LoadReport(named_metrics={"": 1.0}),  # the second one's key is of another type
        ),
    ],
)
def test_what_else_may_be_in_a_report(message: bytes, report: LoadReport) -> None:
    assert decode_report(message) == report
    assert content(OrcaLoadReport.FromString(message)) == content(report)


@pytest.mark.parametrize(
    "message",
    [b"\x09abc", b"\x42\x05ab", b"\x42\x03\x0a\x05a", b"\x0b", b"\x00\x01", b"\x42\x03\x0a\x01\xff", b"\x80" * 11],
)
def test_what_is_no_report_is_refused(message: bytes) -> None:
    with pytest.raises(ValueError, match="byte"):
        decode_report(message)
    with pytest.raises(DecodeError):
        OrcaLoadReport.FromString(message)


def test_what_is_too_long_is_not_read() -> None:
    name = "n" * (MOST_BYTES // 2)
    assert decode_report(encode_report(LoadReport(named_metrics={name: 1.0}))).named_metrics == {name: 1.0}
    with pytest.raises(ValueError, match="at most 16384 are read"):
        decode_report(b"\x10\x01" * MOST_BYTES)
    with pytest.raises(ValueError, match="at most 16384 are read"):
        decode_request(b"\x18\x01" * MOST_BYTES)


@given(
    st.binary(max_size=64)
    | st.builds(lambda values, at, byte: spoilt(values, at, byte), VALUES, st.integers(0), st.integers(0, 255))
)
def test_any_bytes_are_read_or_refused(message: bytes) -> None:
    try:
        report = decode_report(message)
    except ValueError:
        return
    try:
        expected = OrcaLoadReport.FromString(message)
    except DecodeError:
        return  # protobuf is stricter about tags and lengths that are spelled too long
    assert content(report) == content(expected)


def spoilt(values: dict[str, Any], at: int, byte: int) -> bytes:
    """Return a report with one byte of it changed."""
    message = bytearray(OrcaLoadReport(**values).SerializeToString())
    if message:
        message[at % len(message)] = byte
    return bytes(message)


class TestRequests:
    @given(st.floats(0, LONGEST_PERIOD_S), st.lists(TEXT, max_size=3))
    def test_ours_is_theirs(self, period_s: float, names: list[str]) -> None:
        theirs = OrcaLoadReportRequest.FromString(encode_request(period_s, names))
        interval = theirs.report_interval
        assert interval.seconds + interval.nanos / 1e9 == pytest.approx(period_s, rel=1e-12, abs=1e-9)
        assert 0 <= interval.nanos < 1_000_000_000
        assert list(theirs.request_cost_names) == names

    @given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1), st.lists(TEXT, max_size=3))
    def test_theirs_is_ours(self, seconds: int, nanos: int, names: list[str]) -> None:
        theirs = OrcaLoadReportRequest(request_cost_names=names)
        theirs.report_interval.seconds = seconds
        theirs.report_interval.nanos = nanos
        assert decode_request(theirs.SerializeToString()) == LoadRequest(seconds + nanos / 1e9, tuple(names))

    def test_an_interval_in_two_parts_is_merged(self) -> None:
        message = b"\x0a\x02\x08\x05" + b"\x0a\x02\x10\x07"
        assert OrcaLoadReportRequest.FromString(message).report_interval.seconds == 5
        assert decode_request(message) == LoadRequest(5 + 7e-9)

    def test_none_is_no_interval(self) -> None:
        assert decode_request(b"") == LoadRequest(0.0)

    @pytest.mark.parametrize("period_s", [-1.0, float("nan"), float("inf"), 1e12])
    def test_a_period_that_cannot_be_said_is_refused(self, period_s: float) -> None:
        with pytest.raises(ValueError, match="use 0 to 315576000000"):
            encode_request(period_s)

    @given(st.binary(max_size=64))
    def test_any_bytes_are_read_or_refused(self, message: bytes) -> None:
        try:
            request = decode_request(message)
        except ValueError:
            return
        assert abs(request.period_s) <= 2**63 + 3
