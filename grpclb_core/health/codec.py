"""The two messages of grpc.health.v1, by hand: one string and one number are no reason to require protobuf.

    message HealthCheckRequest  { string service = 1; }
    message HealthCheckResponse { ServingStatus status = 1; }

https://github.com/grpc/grpc-proto/blob/master/grpc/health/v1/health.proto.
"""

from __future__ import annotations

from enum import IntEnum

from ..wire import VARINT, as_signed, bytes_field, fields, tag_of

WATCH = "/grpc.health.v1.Health/Watch"

_SERVICE = 1
_STATUS = tag_of(1, VARINT)
_LONGEST = 4096  # bytes of an answer, which has two as a rule; reading a million unknown fields would take seconds


class ServingStatus(IntEnum):
    """What a server says of a service."""

    UNKNOWN = 0
    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3
    """Only in answers to Watch: the server has never heard of the service, and may yet."""


def encode_request(service: str) -> bytes:
    """Encode the question after a service; the empty name is the server as a whole."""
    return bytes_field(_SERVICE, service.encode()) if service else b""


def decode_response(message: bytes) -> int:
    """Return the status in an answer, one of `ServingStatus` or a number of a later version of the protocol.

    Raises:
        ValueError: the bytes are no such message.
    """
    if len(message) > _LONGEST:
        raise ValueError(f"{len(message)} bytes; an answer has at most {_LONGEST}")
    status = 0
    for tag, number, _ in fields(message):
        if tag == _STATUS:
            status = as_signed(number, 32)
    return status
