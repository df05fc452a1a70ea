"""Our two messages against protobuf's own."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2
from hypothesis import given
from hypothesis import strategies as st

from grpclb_core.health.codec import ServingStatus, decode_response, encode_request

INT32 = st.integers(-(2**31), 2**31 - 1)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_request_is_encoded_as_protobuf_does(service: str) -> None:
    assert encode_request(service) == health_pb2.HealthCheckRequest(service=service).SerializeToString()


def test_a_long_name_has_a_longer_length() -> None:
    assert health_pb2.HealthCheckRequest.FromString(encode_request("a" * 70_000)).service == "a" * 70_000


@given(INT32)
def test_a_response_is_read_as_protobuf_does(status: int) -> None:
    message = health_pb2.HealthCheckResponse(status=status).SerializeToString()
    assert decode_response(message) == status


def test_the_statuses_are_those_of_the_protocol() -> None:
    assert {status.name: status.value for status in ServingStatus} == dict(
        health_pb2.HealthCheckResponse.ServingStatus.items()
    )


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (b"", 0),
        (b"\x08\x01\x08\x02", 2),  # the last one counts
        (b"\x12\x03abc\x08\x01", 1),  # an unknown field of bytes
        (b"\x08\x01\x19" + bytes(8) + b"\x1d" + bytes(4), 1),  # unknown fixed-size fields
        (b"\x0a\x01\x05\x08\x01", 1),  # field 1 of another type is an unknown field too
        (b"\x08\x81\x80\x80\x80\x00", 1),  # longer than need be
    ],
)
def test_what_else_may_be_in_a_response(message: bytes, status: int) -> None:
    assert decode_response(message) == status
    assert health_pb2.HealthCheckResponse.FromString(message).status == status


@pytest.mark.parametrize("message", [b"\x08", b"\x08" + b"\xff" * 10, b"\x12\x05abc", b"\x19abc", b"\x00\x01", b"\x0b"])
def test_what_is_no_message_is_refused(message: bytes) -> None:
    with pytest.raises(ValueError, match="byte"):
        decode_response(message)
    with pytest.raises(DecodeError):
        health_pb2.HealthCheckResponse.FromString(message)


@given(st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(message: bytes) -> None:
    try:
        status = decode_response(message)
    except ValueError:
        return
    try:
        expected = health_pb2.HealthCheckResponse.FromString(message).status
    except DecodeError:
        return  # protobuf is stricter about tags and lengths that are spelled too long
    assert status == expected
