"""The protobuf encoding, as far as the few small messages need it that are no reason to require protobuf.

https://protobuf.dev/programming-guides/encoding/. Reading is as protobuf's: unknown fields are skipped, the last of
several values counts, a missing one is 0. Groups (wire types 3 and 4), which proto3 cannot write, are refused.
"""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {FIXED64: 8, FIXED32: 4}
_MOST_VARINT_BYTES = 10  # 64 bits, seven to a byte
_LARGEST_FIELD = (1 << 29) - 1


def tag_of(field: int, wire_type: int) -> int:
    """Return what a field is announced by: its number and how its value is written."""
    return field << 3 | wire_type


def fields(message: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Walk the fields of a message: the tag, and the number of a VARINT field or the bytes of any other.

    Whoever reads bounds the length of the message beforehand: a million fields take seconds.

    Raises:
        ValueError: the bytes are no message; those before the fault have been told.
    """
    at = 0
    while at < len(message):
        tag, at = _decode_varint(message, at)
        field, wire_type = tag >> 3, tag & 7
        if not 1 <= field <= _LARGEST_FIELD:
            raise ValueError(f"field number {field} at byte {at}")
        if wire_type == VARINT:
            number, at = _decode_varint(message, at)
            yield tag, number, b""
            continue
        if wire_type == BYTES:
            size, at = _decode_varint(message, at)
        elif wire_type in _FIXED_SIZES:
            size = _FIXED_SIZES[wire_type]
        else:
            raise ValueError(f"wire type {wire_type} at byte {at}")
        end = at + size
        if end > len(message):
            raise ValueError(f"the message ends {end - len(message)} bytes too early")
        yield tag, 0, message[at:end]
        at = end


def bytes_field(field: int, payload: bytes) -> bytes:
    """Encode a field of bytes: a string, or a message within a message."""
    return encode_varint(tag_of(field, BYTES)) + encode_varint(len(payload)) + payload


def varint_field(field: int, number: int) -> bytes:
    """Encode a field of an integer type; nothing for 0, which is what a missing field says."""
    return encode_varint(tag_of(field, VARINT)) + encode_varint(number % (1 << 64)) if number else b""


def encode_varint(number: int) -> bytes:
    """Encode a number that is not negative, seven bits to a byte."""
    if number <= 0x7F:
        return bytes((number,))
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _decode_varint(message: bytes, at: int) -> tuple[int, int]:
    """Return the number at `at`, and where it ends."""
    if at < len(message) and message[at] < 0x80:  # nearly all are of one byte
        return message[at], at + 1
    number = 0
    for position, byte in enumerate(message[at : at + _MOST_VARINT_BYTES]):
        number |= (byte & 0x7F) << 7 * position
        if byte < 0x80:
            return number, at + position + 1
    raise ValueError(f"a number that does not end at byte {at}")


def as_signed(number: int, bits: int) -> int:
    """Read the number of a VARINT field as protobuf reads an int32, int64 or enum: the low bits, signed."""
    low = number & ((1 << bits) - 1)
    return low - (1 << bits) if low >> (bits - 1) else low
