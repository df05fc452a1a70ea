"""The messages of load reports, by hand, as `grpclb_core.wire` reads and writes them.

    message OrcaLoadReport {
      double cpu_utilization = 1;  double mem_utilization = 2;  uint64 rps = 3 [deprecated];
      map<string, double> request_cost = 4;  map<string, double> utilization = 5;
      double rps_fractional = 6;  double eps = 7;
      map<string, double> named_metrics = 8;  double application_utilization = 9;
    }
    message OrcaLoadReportRequest {
      google.protobuf.Duration report_interval = 1;  repeated string request_cost_names = 2;
    }
    message Duration { int64 seconds = 1;  int32 nanos = 2; }

https://github.com/cncf/xds/blob/main/xds/data/orca/v3/orca_load_report.proto and xds/service/orca/v3/orca.proto.
The deprecated `rps` is skipped, as gRPC does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from struct import Struct
from typing import Any, NamedTuple

from ..types import LoadReport
from ..wire import BYTES, FIXED64, VARINT, as_signed, bytes_field, fields, tag_of, varint_field

MOST_BYTES = 16 * 1024
"""Longest message that is read: as much metadata as gRPC takes at all (`grpc.absolute_max_metadata_size`).

The slowest such message takes a few milliseconds to read.
"""
LONGEST_PERIOD_S = 315_576_000_000
"""The largest `google.protobuf.Duration`: ten thousand years."""

_DOUBLE = Struct("<d")
_NUMBERS = {
    tag_of(1, FIXED64): "cpu_utilization",
    tag_of(2, FIXED64): "mem_utilization",
    tag_of(6, FIXED64): "rps_fractional",
    tag_of(7, FIXED64): "eps",
    tag_of(9, FIXED64): "application_utilization",
}
_MAPS = {tag_of(4, BYTES): "request_cost", tag_of(5, BYTES): "utilization", tag_of(8, BYTES): "named_metrics"}
_KEY, _VALUE = tag_of(1, BYTES), tag_of(2, FIXED64)  # of an entry of a map
_INTERVAL, _COST_NAME = tag_of(1, BYTES), tag_of(2, BYTES)
_SECONDS, _NANOS = tag_of(1, VARINT), tag_of(2, VARINT)
_S = 1_000_000_000  # in ns


class LoadRequest(NamedTuple):
    """What a client asks of the out-of-band stream."""

    period_s: float
    """Seconds between two reports as the client would have it: any number that is finite, the negative ones too."""
    request_cost_names: tuple[str, ...] = ()
    """The costs that it wants to hear of; there are none out of band, so this is for the record."""


def encode_report(report: LoadReport) -> bytes:
    """Encode a report, whatever its values are.

    Raises:
        ValueError: a name is no text that can be encoded.
    """
    parts = []
    for tag, field in _NUMBERS.items():
        if number := getattr(report, field):
            parts.append(bytes((tag,)) + _DOUBLE.pack(number))
    for tag, field in _MAPS.items():
        named: Mapping[str, float] = getattr(report, field)
        for name, number in named.items():
            entry = bytes_field(_KEY >> 3, name.encode()) + bytes((_VALUE,)) + _DOUBLE.pack(number)
            parts.append(bytes_field(tag >> 3, entry))
    return b"".join(parts)


def decode_report(message: bytes) -> LoadReport:
    """Return the report in a message, be its values what they may: `trust` tells which of them are believed.

    Raises:
        ValueError: the bytes are no such message, or too many.
    """
    _bounded(message)
    values: dict[str, Any] = {}
    for tag, _, payload in fields(message):
        if field := _NUMBERS.get(tag):
            (values[field],) = _DOUBLE.unpack(payload)
        elif (field := _MAPS.get(tag)) and (entry := _decode_entry(payload)):
            name, number = entry
            values.setdefault(field, {})[name] = number
    return LoadReport(**values)


def _decode_entry(message: bytes) -> tuple[str, float] | None:
    """Return a name and its number, or nothing for an entry with anything else in it: protobuf's upb skips it whole."""
    name, number, strange = "", 0.0, False
    for tag, _, payload in fields(message):
        if tag == _KEY:
            name = payload.decode()
        elif tag == _VALUE:
            (number,) = _DOUBLE.unpack(payload)
        else:
            strange = True
    return None if strange else (name, number)


def encode_request(period_s: float, request_cost_names: Sequence[str] = ()) -> bytes:
    """Encode the wish for a report each `period_s`.

    Raises:
        ValueError: the period is negative, no number, or longer than a Duration.
    """
    if not 0 <= period_s <= LONGEST_PERIOD_S:
        raise ValueError(f"a period of {period_s} s; use 0 to {LONGEST_PERIOD_S}")
    seconds, nanos = divmod(round(period_s * _S), _S)
    interval = bytes_field(_INTERVAL >> 3, varint_field(1, seconds) + varint_field(2, nanos))
    return interval + b"".join(bytes_field(_COST_NAME >> 3, name.encode()) for name in request_cost_names)


def decode_request(message: bytes) -> LoadRequest:
    """Return what a client asks for; a period that is no proper Duration is taken as the sum of its parts.

    Raises:
        ValueError: the bytes are no such message, or too many.
    """
    _bounded(message)
    seconds = nanos = 0
    names = []
    for tag, _, payload in fields(message):
        if tag == _INTERVAL:
            for part, number, _ in fields(payload):
                if part == _SECONDS:
                    seconds = as_signed(number, 64)
                elif part == _NANOS:
                    nanos = as_signed(number, 32)
        elif tag == _COST_NAME:
            names.append(payload.decode())
    return LoadRequest(seconds + nanos / _S, tuple(names))


def _bounded(message: bytes) -> None:
    if len(message) > MOST_BYTES:
        raise ValueError(f"{len(message)} bytes; at most {MOST_BYTES} are read")
