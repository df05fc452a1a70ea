"""The parts of a service config that the connections apply: rules for methods, and the throttling of retries.

They are passed on as they stand, so all that is done here is to find what would be refused there: C-core fails every
call of a channel whose service config it cannot use, and a record in DNS must not be able to bring that about. Where
C-core is stricter than the specification (gRFC A6, service_config.proto), its rule is the one that holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from ..config import Seconds
from ..errors import ConfigError
from ..proto_json import Notes, read_message, shown, type_of

PASSED_ON = ("methodConfig", "retryThrottling", "connectionScaling")
"""The fields that connections are given."""

DEEPEST = 100
"""Levels of lists and objects that are passed on. C-core reads 255, and the fields that it knows need seven."""

Size = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]  # uint32
Attempts = Annotated[int, msgspec.Meta(ge=2, le=2**31 - 1)]  # A6: more than one; C-core keeps an int
Backoff = Annotated[float, msgspec.Meta(ge=0.001)]  # A6: above 0; C-core counts in milliseconds
Multiplier = Annotated[float, msgspec.Meta(ge=2.0**-126, le=3e38)]  # A6: above 0; C-core keeps a 32-bit float

StatusName = Literal[
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
]


class MethodName(msgspec.Struct, frozen=True):
    """Whom a rule is for: a method, all of a service, or, if both are empty, all there are."""

    service: str = ""
    method: str = ""

    def __post_init__(self) -> None:
        if self.method and not self.service:
            raise ConfigError(f"method {shown(self.method)} stands without its service; write both")


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When a call is tried again (gRFC A6)."""

    max_attempts: Attempts
    initial_backoff_s: Backoff
    max_backoff_s: Backoff
    backoff_multiplier: Multiplier
    retryable_status_codes: Annotated[tuple[StatusName, ...], msgspec.Meta(min_length=1)]
    per_attempt_recv_timeout_s: Backoff | None = None


class HedgingPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When a call is sent a second time before the first has failed (gRFC A6); C-core does not do it."""

    max_attempts: Attempts
    hedging_delay_s: Seconds = 0.0
    non_fatal_status_codes: tuple[StatusName, ...] = ()


class MethodConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The rules for some methods."""

    name: tuple[MethodName, ...] = ()
    timeout_s: Seconds | None = None
    wait_for_ready: bool | None = None
    max_request_message_bytes: Size | None = None
    max_response_message_bytes: Size | None = None
    retry_policy: RetryPolicy | None = None
    hedging_policy: HedgingPolicy | None = None

    def __post_init__(self) -> None:
        if self.retry_policy is not None and self.hedging_policy is not None:
            raise ConfigError("retryPolicy and hedgingPolicy exclude one another (gRFC A6); keep one of them")


class RetryThrottling(msgspec.Struct, frozen=True, kw_only=True):
    """When so much fails that nothing is tried again (gRFC A6)."""

    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=1000)]
    token_ratio: Annotated[float, msgspec.Meta(ge=0.001, le=1000)]  # C-core reads three decimals, and no exponent


class ConnectionScaling(msgspec.Struct, frozen=True, kw_only=True):
    """How many connections C-core may make to one address (gRFC A105)."""

    max_connections_per_subchannel: Size = 0


def read_passed_on(raw: Mapping[str, object], notes: Notes) -> dict[str, object]:
    """Return what connections are to be given, if it is known that they can use it; else nothing."""
    methods = raw.get("methodConfig")
    if methods is not None:
        _check_methods(methods, "methodConfig", notes)
    kinds: dict[str, type[msgspec.Struct]] = {
        "retryThrottling": RetryThrottling,
        "connectionScaling": ConnectionScaling,
    }
    for name, kind in kinds.items():
        if raw.get(name) is not None:
            read_message(kind, raw[name], name, notes)
    if notes.faults:
        return {}
    passed_on = {name: raw[name] for name in PASSED_ON if raw.get(name) is not None}
    for name, value in passed_on.items():
        if _depth(value) > DEEPEST:
            notes.wrong(name, f"nested deeper than {DEEPEST} levels, which no field needs")
    return {} if notes.faults else {name: _without_nulls(value) for name, value in passed_on.items()}


def _check_methods(raw: object, path: str, notes: Notes) -> None:
    if not isinstance(raw, list):
        notes.wrong(path, f"expected an array, got {type_of(raw)}")
        return
    seen: set[MethodName] = set()
    for position, item in enumerate(raw):
        where = f"{path}[{position}]"
        rules = read_message(MethodConfig, item, where, notes)
        for number, name in enumerate(() if rules is None else rules.name):
            if name in seen:
                called = shown(f"{name.service}/{name.method}".rstrip("/"))
                notes.wrong(f"{where}.name[{number}]", f"{called} has two sets of rules; keep one of them")
            seen.add(name)


def _depth(raw: object) -> int:
    """Return how many levels there are, or one more than `DEEPEST` if there are more than that."""
    level, depth = [raw], 0
    while level and depth <= DEEPEST:
        inner = (one.values() if isinstance(one, Mapping) else one for one in level if isinstance(one, (Mapping, list)))
        level, depth = [value for values in inner for value in values], depth + 1
    return depth


def _without_nulls(raw: object) -> object:
    """Leave out fields that are null, which JSON of protobuf takes for unset and C-core not everywhere."""
    if isinstance(raw, Mapping):
        return {name: _without_nulls(value) for name, value in raw.items() if value is not None}
    return [_without_nulls(item) for item in raw] if isinstance(raw, list) else raw
