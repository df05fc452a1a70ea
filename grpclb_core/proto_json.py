"""Protobuf messages as JSON has them (https://protobuf.dev/programming-guides/json), read into structs of our own.

A struct stands for a message: its field `choice_count` is `choiceCount` in JSON, and one that ends in `_s` is a
duration, unless that is `_per_s`, so that `decay_s` is `decay` and 0.5 is `"0.5s"`. Types and constraints of the struct
are the rules. As gRPC has it (gRFC A21), a field that nobody knows is left aside, and any other fault refuses the
whole; all faults are told together.
"""

from __future__ import annotations

import math
import re
import reprlib
import types
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from .errors import ConfigError

LONGEST_S = 315_576_000_000
"""Longest duration in seconds, 10 000 years (google/protobuf/duration.proto)."""
MOST_NOTES = 100  # problems that are listed; nobody reads more
_LONGEST_PATH = 200  # characters; ours have 90 at most, and the names in them may be anybody's

# Strictly what gRPC's own JSON reader takes of a duration: no sign, no exponent, and nanoseconds at the finest.
_DURATION = re.compile(r"([0-9]{1,12})(?:\.[0-9]{1,9})?s")
_INTEGER = re.compile(r"-?[0-9]{1,20}")  # 2^64 has 20 digits
_NUMBER = re.compile(r"-?[0-9]{1,40}(?:\.[0-9]{1,40})?(?:[eE][+-]?[0-9]{1,3})?")

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxlist = _SHORT.maxdict = _SHORT.maxlevel = 3

StructT = TypeVar("StructT", bound=msgspec.Struct)


class Notes:
    """What was found while reading: what is wrong, and what was left aside; each as a path and what to say of it."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.faults = 0
        """How many there are, those that are not listed included."""
        self.ignored: list[str] = []
        """Paths of fields that nobody knows."""

    def wrong(self, path: str, problem: str) -> None:
        """Note a fault; beyond `MOST_NOTES` only that there are more."""
        self.faults += 1
        if self.faults <= MOST_NOTES:
            self.problems.append(f"{_cut(path)}: {problem}")
        elif self.faults == MOST_NOTES + 1:
            self.problems.append("there are more; repair these first")

    def left_aside(self, path: str) -> None:
        """Note a field that nobody knows."""
        if len(self.ignored) < MOST_NOTES:
            self.ignored.append(_cut(path))


def read_message(kind: type[StructT], raw: object, path: str, notes: Notes) -> StructT | None:
    """Make a struct of a JSON object; None if it cannot be used, and then `notes` say why.

    `null` is the default of a field, and a number may stand in quotes, as 64-bit ones do. A struct may name fields in
    `capped_in_json`: what is above their ceiling means the ceiling; and in `not_in_json`: nobody knows them there.
    """
    if not isinstance(raw, Mapping):
        notes.wrong(path, f"expected an object, got {type_of(raw)}")
        return None
    before = notes.faults
    fields = _fields(kind)
    values: dict[str, object] = {}
    for name, value in raw.items():
        where = f"{path}.{name}"
        if name not in fields:
            notes.left_aside(where)
        elif value is not None:
            values[fields[name].name] = _value(fields[name], value, where, notes)
    for name, field in fields.items():
        if field.is_required and raw.get(name) is None:
            notes.wrong(f"{path}.{name}", "missing; it has no default")
    if notes.faults > before:
        return None
    try:
        return kind(**values)
    except ConfigError as error:
        for problem in error.problems:
            notes.wrong(path, problem)
        return None


def write_message(message: msgspec.Struct) -> dict[str, object]:
    """Make the JSON object of a struct, without what is the default anyway; `read_message` makes the same struct.

    Raises:
        ConfigError: naming a field whose value JSON has no way to write.
    """
    written: dict[str, object] = {}
    hidden = getattr(message, "not_in_json", ())
    for field in msgspec.structs.fields(message):
        value = getattr(message, field.name)
        if field.name in hidden:
            continue
        if value == field.default or (field.default_factory is not msgspec.NODEFAULT and not value):
            continue
        if isinstance(value, msgspec.Struct):
            written[json_name(field.name)] = write_message(value)
        elif isinstance(value, (tuple, list)):
            written[json_name(field.name)] = [
                write_message(item) if isinstance(item, msgspec.Struct) else msgspec.to_builtins(item) for item in value
            ]
        elif _is_duration(field.name) and isinstance(value, (int, float)):
            try:
                written[json_name(field.name)] = duration(value)
            except ConfigError as error:
                raise ConfigError([f"{field.name}: {problem}" for problem in error.problems]) from None
        elif isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{field.name}: {value} cannot be written as JSON; use a finite number")
        else:
            written[json_name(field.name)] = msgspec.to_builtins(value)
    return written


def json_name(field: str) -> str:
    """Return what a field of a struct is called in JSON."""
    first, *others = (field[:-2] if _is_duration(field) else field).split("_")
    return first + "".join(part.capitalize() for part in others)


def duration_s(raw: object) -> float:
    """Read a duration such as `"0.5s"`, in seconds.

    Raises:
        ValueError: it is none, with the rule.
    """
    found = _DURATION.fullmatch(raw) if isinstance(raw, str) else None
    if found is None or int(found[1]) > LONGEST_S:
        raise ValueError(f'{shown(raw)} is no duration; write seconds in quotes, as in "0.5s"')
    return min(float(found[0][:-1]), float(LONGEST_S))  # C-core takes a part of a second beyond it too


def duration(seconds: float) -> str:
    """Write a duration, to the nanosecond.

    Raises:
        ConfigError: there is none that is as short, or as long.
    """
    if not (seconds == 0 or 0.5e-9 < seconds <= LONGEST_S):
        raise ConfigError(f"{seconds} s cannot be written as a duration; use 0, or 1e-9 to {LONGEST_S}")
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def shown(value: object) -> str:
    """Return a value as messages repeat it: short, however long it is."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # Python does not write out a whole number of thousands of digits
        return "a number of thousands of digits"


def type_of(value: object) -> str:
    """Return the JSON type of a value."""
    names = {bool: "a boolean", str: "a string", list: "an array", dict: "an object", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, (int, float)) else type(value).__name__)


def _cut(path: str) -> str:
    return path if len(path) <= _LONGEST_PATH else path[:_LONGEST_PATH] + "..."


def _is_duration(field: str) -> bool:
    return field.endswith("_s") and not field.endswith("_per_s")  # that one is a rate


class _Field(NamedTuple):
    """What is known of one field of a struct."""

    name: str
    hint: Any
    kind: Any
    """The type without constraints, and without None where that is allowed too."""
    is_required: bool = False
    ceiling: float | None = None
    """What is above it means it."""


@cache
def _fields(kind: type[msgspec.Struct]) -> dict[str, _Field]:
    """Return the fields of a struct by their names in JSON; finding them out takes longer than reading an object."""
    hints = get_type_hints(kind, include_extras=True)
    capped = getattr(kind, "capped_in_json", ())
    found = {}
    for field in msgspec.structs.fields(kind):
        if field.name in getattr(kind, "not_in_json", ()):
            continue
        bare, ceilings = _bare(hints[field.name])
        ceiling = min(ceilings) if field.name in capped else None
        found[json_name(field.name)] = _Field(field.name, hints[field.name], bare, field.required, ceiling)
    return found


def _bare(hint: Any) -> tuple[Any, list[float]]:
    """Take the constraints, and `None`, off a type hint; return what is left, and the ceilings among them."""
    ceilings: list[float] = []
    while True:
        origin = get_origin(hint)
        if origin is Annotated:
            hint, *extras = get_args(hint)
            ceilings += [extra.le for extra in extras if isinstance(extra, msgspec.Meta) and extra.le is not None]
        elif origin in (Union, types.UnionType):
            members = [member for member in get_args(hint) if member is not type(None)]
            if len(members) != 1:
                return hint, ceilings
            hint = members[0]
        else:
            return hint, ceilings


def _value(field: _Field, raw: object, path: str, notes: Notes) -> object:
    """Convert one value to what a field asks for; what comes back when that failed is of no use."""
    if isinstance(field.kind, type) and issubclass(field.kind, msgspec.Struct):
        return read_message(field.kind, raw, path, notes)
    if get_origin(field.kind) in (tuple, list):
        return _items(field, raw, path, notes)
    try:
        if field.kind is float:
            raw = duration_s(raw) if _is_duration(field.name) else _number(raw)
        elif field.kind is int:
            raw = _integer(raw)
        if field.ceiling is not None and isinstance(raw, (int, float)):
            raw = min(raw, field.ceiling)
        return msgspec.convert(raw, field.hint)
    except msgspec.ValidationError as error:
        notes.wrong(path, f"{shown(raw)} is not usable: {error}")
    except ValueError as error:
        notes.wrong(path, str(error))
    return None


def _items(field: _Field, raw: object, path: str, notes: Notes) -> object:
    if not isinstance(raw, list):
        notes.wrong(path, f"expected an array, got {type_of(raw)}")
        return None
    before = notes.faults
    of_one = get_args(field.kind)[0]
    item = _Field("", of_one, _bare(of_one)[0])
    items = [_value(item, value, f"{path}[{position}]", notes) for position, value in enumerate(raw)]
    if notes.faults > before or any(isinstance(one, msgspec.Struct) for one in items):
        return tuple(items)
    try:
        return msgspec.convert(items, field.hint)
    except msgspec.ValidationError as error:
        notes.wrong(path, f"{shown(raw)} is not usable: {error}")
        return None


def _integer(raw: object) -> int:
    if isinstance(raw, str) and _INTEGER.fullmatch(raw):
        raw = int(raw)
    if isinstance(raw, bool) or not isinstance(raw, int) or abs(raw) >= 2**64:  # protobuf has none that is longer
        raise ValueError(f"{shown(raw)} is no whole number of 64 bits; write one, as in 2")
    return raw


def _number(raw: object) -> float:
    if isinstance(raw, str) and _NUMBER.fullmatch(raw):
        raw = float(raw)
    if isinstance(raw, bool) or not isinstance(raw, (int, float)):
        raise ValueError(f"{shown(raw)} is no number; write one, as in 0.5")
    try:
        number = float(raw)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{shown(raw)} is not finite; write a number, as in 0.5")
    return number
