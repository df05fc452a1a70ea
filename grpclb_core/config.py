"""Options: parsed once at the edge into frozen values, every default stated here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, TypeVar, get_type_hints

import msgspec

from .errors import ConfigError

Seconds = Annotated[float, msgspec.Meta(ge=0)]
PositiveSeconds = Annotated[float, msgspec.Meta(gt=0)]
PositiveCount = Annotated[int, msgspec.Meta(ge=1)]
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]


class DnsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How names are looked up and how often they are looked up again.

    Raises:
        ConfigError: the floor of the time between two lookups is above its ceiling.
    """

    min_ttl_s: PositiveSeconds = 1.0
    """Floor of the time between two lookups; a TTL of 0 would ask without pause."""
    max_ttl_s: PositiveSeconds = 30.0
    """Ceiling of that time: a long TTL would keep new servers idle. 30 s is what C-core waits at least."""
    jitter_s: Seconds = 0.5
    """Each wait is lengthened by a random part of this, at most a tenth of itself, so that clients spread."""
    timeout_s: PositiveSeconds = 5.0
    """Longest time one lookup may take, all tries and name servers included."""
    max_backoff_s: PositiveSeconds = 30.0
    """Ceiling of the wait after failed lookups, which grows as gRPC's connection backoff does."""
    empty_hold_s: Seconds = 30.0
    """How long an authoritative empty answer is disbelieved once endpoints were known."""

    def __post_init__(self) -> None:
        if self.min_ttl_s > self.max_ttl_s:
            raise ConfigError(f"min_ttl_s {self.min_ttl_s} is above max_ttl_s {self.max_ttl_s}; lower it")


class ConnectionConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every connection to an endpoint is opened with, and how it is left."""

    keepalive_time_s: PositiveSeconds = 30.0
    """Ping a silent connection after this long. gRPC leaves keepalive off, so a host that vanished is not noticed."""
    keepalive_timeout_s: PositiveSeconds = 10.0
    """A ping unanswered for this long ends the connection."""
    initial_backoff_s: PositiveSeconds = 0.25
    """Wait before the second attempt to connect; it grows 1.6-fold with each further one (gRPC connection backoff)."""
    max_backoff_s: PositiveSeconds = 1.5
    """Ceiling of that wait. gRPC's own 120 s would keep a restarted server idle for minutes; with its jitter of a fifth
    this has one back within two seconds, and the other endpoints serve meanwhile."""
    drain_s: Seconds = 120.0
    """Calls on an endpoint that left the set may run on for this long (linkerd2-proxy's drain time)."""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that can be set on a balanced channel beside its target and its policy."""

    dns: DnsConfig = DnsConfig()
    connection: ConnectionConfig = ConnectionConfig()
    slot_memory_s: Seconds = 60.0
    """How long the history of an endpoint that left is kept, should it come back: six decay times of 10 s,
    after which a latency has faded to a four hundredth."""
    seed: int | None = None
    """Seed of the random draws; None takes one from the system."""


def parse_config(raw: Config | Mapping[str, object] | None) -> Config:
    """Turn what a user gave into a `Config`.

    Raises:
        ConfigError: naming every unknown field, wrong type and value out of range, each with its path.
    """
    if raw is None:
        return Config()
    return parse_struct(Config, raw, "config")


StructT = TypeVar("StructT", bound=msgspec.Struct)


def parse_struct(kind: type[StructT], raw: object, path: str) -> StructT:
    """Convert a mapping to a struct, collecting every fault instead of stopping at the first.

    Raises:
        ConfigError: with one problem for each field at fault, its path in front.
    """
    problems: list[str] = []
    parsed = _collect(kind, raw, path, problems)
    if parsed is None:
        raise ConfigError(problems)
    return parsed


def _collect(kind: type[StructT], raw: object, path: str, problems: list[str]) -> StructT | None:
    if isinstance(raw, kind):
        # Constructors of structs do not check constraints, so a hand-made one is read like any other input.
        raw = msgspec.structs.asdict(raw)
    if not isinstance(raw, Mapping):
        problems.append(f"{path}: expected a mapping of options, got {type(raw).__name__}")
        return None
    found = len(problems)
    annotations = get_type_hints(kind, include_extras=True)
    values: dict[str, object] = {}
    for name, value in raw.items():
        where = f"{path}.{name}"
        if name not in annotations:
            problems.append(f"{where}: unknown option; known are {', '.join(sorted(annotations))}")
        elif isinstance(annotations[name], type) and issubclass(annotations[name], msgspec.Struct):
            values[name] = _collect(annotations[name], value, where, problems)
        else:
            try:
                values[name] = msgspec.convert(value, annotations[name])
            except msgspec.ValidationError as error:
                problems.append(f"{where}: {value!r} is not usable: {error}")
    for field in msgspec.structs.fields(kind):
        if field.required and field.name not in raw:
            problems.append(f"{path}.{field.name}: missing; it has no default")
    if len(problems) > found:
        return None
    try:
        return kind(**values)
    except ConfigError as error:
        problems += [f"{path}: {problem}" for problem in error.problems]
        return None
