"""The two messages of grpc.health.v1, by hand: one string and one number are no reason to require protobuf.

    message HealthCheckRequest  { string service = 1; }
    message HealthCheckResponse { ServingStatus status = 1; }

https://github.com/grpc/grpc-proto/blob/master/grpc/health/v1/health.proto. Reading is as protobuf's: unknown fields are
skipped, the last of several values counts, a missing one is 0. Groups (wire types 3 and 4), which proto3 cannot write,
are refused.
"""

from __future__ import annotations

from enum import IntEnum

WATCH = "/grpc.health.v1.Health/Watch"

_FIELD = 1
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}
_MOST_VARINT_BYTES = 10  # 64 bits, seven to a byte
_LARGEST_FIELD = (1 << 29) - 1
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
    name = service.encode()
    return bytes((_FIELD << 3 | _BYTES,)) + _encode_varint(len(name)) + name if name else b""


def decode_response(message: bytes) -> int:
    """Return the status in an answer, one of `ServingStatus` or a number of a later version of the protocol.

    Raises:
        ValueError: the bytes are no such message.
    """
    if len(message) > _LONGEST:
        raise ValueError(f"{len(message)} bytes; an answer has at most {_LONGEST}")
    status, at = 0, 0
    while at < len(message):
        tag, at = _decode_varint(message, at)
        field, wire_type = tag >> 3, tag & 7
        if not 1 <= field <= _LARGEST_FIELD:
            raise ValueError(f"field number {field} at byte {at}")
        if wire_type == _VARINT:
            value, at = _decode_varint(message, at)
            if field == _FIELD:
                status = _as_int32(value)
            continue
        if wire_type == _BYTES:
            size, at = _decode_varint(message, at)
        elif wire_type in _FIXED_SIZES:
            size = _FIXED_SIZES[wire_type]
        else:
            raise ValueError(f"wire type {wire_type} at byte {at}")
        at += size
        if at > len(message):
            raise ValueError(f"the message ends {at - len(message)} bytes too early")
    return status


def _encode_varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _decode_varint(message: bytes, at: int) -> tuple[int, int]:
    """Return the number at `at`, and where it ends."""
    value = 0
    for position, byte in enumerate(message[at : at + _MOST_VARINT_BYTES]):
        value |= (byte & 0x7F) << 7 * position
        if byte < 0x80:
            return value, at + position + 1
    raise ValueError(f"a number that does not end at byte {at}")


def _as_int32(value: int) -> int:
    """Read an enum as protobuf does: the low 32 bits, signed."""
    low = value & 0xFFFFFFFF
    return low - (1 << 32) if low >> 31 else low
