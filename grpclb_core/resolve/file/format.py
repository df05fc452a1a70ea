"""What a file of endpoints says: JSON or TOML, taken as a whole or refused as a whole.

    {"endpoints": [
        {"address": "10.0.0.1:50051", "weight": 2, "zone": "eu-1a", "metadata": {"pod": "greeter-0"}},
        "10.0.0.2:50051"
    ]}

Every fault is found before the file is refused, each with its place: line and column where the text itself is broken,
the path of the field where its meaning is. docs/resolvers/file.md lists the fields.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import PurePath
from types import ModuleType
from typing import Annotated, NoReturn

import msgspec

from ...config import parse_struct
from ...errors import ConfigError
from ...types import Address, Endpoint, Health, Locality
from ..target import parse_target

SUFFIXES = (".json", ".toml")

# Limits of EDS, so that a set may move from a file to a control plane: `load_balancing_weight` is a uint32, `priority`
# at most 128 (envoy.config.endpoint.v3).
MAX_WEIGHT = 2**32 - 1
MAX_PRIORITY = 128

MOST_PROBLEMS = 100  # that are listed; nobody reads more, and a file has room for a million
_LONGEST_PROBLEM = 400  # characters of one; a message repeats the value at fault, which may be the whole file
_LONGEST_ADDRESS = 400  # characters: a socket's path of 107 bytes, each escaped, and a scheme
_SHOWN = 100  # characters of it in a message
_REMEMBERED = 16_384  # addresses whose text is not parsed again; parsing is most of the work of reading a file
_MOST_DOTS = 100  # in a line of TOML: for a dotted key, tomllib takes time with the square of its parts
# Strings and comments of TOML. Each may lack its end, so that a match never fails and is not tried again from the next
# quote, which would take time with the square of the file; where a string has no end, the parser goes no further.
_STRING = re.compile(
    r'"""(?:[^"\\]|\\.?|"(?!""))*"{0,5}'
    r"|'''(?:[^']|'(?!''))*'{0,5}"
    r'|"(?:[^"\\\n]|\\.?)*"?'
    r"|'[^'\n]*'?"
    r"|#[^\n]*",
    re.DOTALL,
)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # how JSON spells half of a character; fine where the other half follows


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One endpoint as the file has it; an entry that is only a string is its address."""

    address: str
    weight: Annotated[float, msgspec.Meta(gt=0, le=MAX_WEIGHT)] = 1.0
    region: str = ""
    zone: str = ""
    sub_zone: str = ""
    priority: Annotated[int, msgspec.Meta(ge=0, le=MAX_PRIORITY)] = 0
    health: str = Health.UNKNOWN.value
    metadata: dict[str, str] = {}


def parse_document(data: bytes, name: str) -> object:
    """Parse the text of a file, as JSON or TOML by the end of its name.

    Raises:
        ConfigError: the name has another end, or the text is broken, with line and column where they are known.
    """
    suffix = PurePath(name).suffix
    require_format(suffix)
    try:
        text = data.decode("utf-8-sig")  # some editors put a byte order mark in front
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"line {line}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    if suffix == ".json" and not text.strip():
        raise ConfigError("the file is empty; it was perhaps about to be written")
    try:
        return _parse_json(text) if suffix == ".json" else _parse_toml(text)
    except RecursionError:
        raise ConfigError("it is nested too deeply; endpoints need three levels") from None


def require_format(suffix: str) -> None:
    """Make sure that files which end so can be read.

    Raises:
        ConfigError: they cannot, with what to do about it.
    """
    if suffix not in SUFFIXES:
        raise ConfigError(f"cannot tell the format of a file that ends in {suffix!r}; call it .json or .toml")
    if suffix == ".toml":
        try:
            _toml_module()
        except ImportError:
            raise ConfigError("TOML on Python 3.10 needs tomli; pip install 'grpclb-core[toml]', or use JSON") from None


def read_endpoints(document: object) -> tuple[Endpoint, ...]:
    """Make the endpoints of a parsed document, sorted by address; a set may be empty.

    Raises:
        ConfigError: with one problem for each fault, the first `MOST_PROBLEMS` of them.
    """
    endpoints: dict[Address, Endpoint] = {}
    problems: list[str] = []
    for problem in _faults(document, endpoints):
        if len(problems) == MOST_PROBLEMS:
            problems.append("there are more; repair these first")
            break
        problems.append(problem if len(problem) <= _LONGEST_PROBLEM else problem[:_LONGEST_PROBLEM] + "...")
    if problems:
        raise ConfigError(problems)
    return tuple(endpoints[address] for address in sorted(endpoints))


def _faults(document: object, endpoints: dict[Address, Endpoint]) -> Iterator[str]:
    """Put the endpoints of a document into `endpoints`, and yield what is wrong with the others."""
    entries = document
    if isinstance(document, Mapping):
        yield from (f"{name}: unknown field; known is endpoints" for name in document if name != "endpoints")
        if "endpoints" not in document:
            yield "endpoints: missing; list the endpoints there, an empty list if there are none"
            return
        entries = document["endpoints"]
    if not isinstance(entries, list):
        yield f"endpoints: expected a list, got {type(entries).__name__}"
        return
    for position, raw in enumerate(entries):
        where = f"endpoints[{position}]"
        try:
            endpoint = _endpoint(raw, where)
        except ConfigError as error:
            yield from error.problems
        except RecursionError:
            yield f"{where}: nested too deeply; no field of an endpoint needs more than one level"
        else:
            if endpoint.address in endpoints:
                yield f"{where}.address: {endpoint.address} is listed twice; list it once, with the sum of the weights"
            endpoints[endpoint.address] = endpoint


def _endpoint(raw: object, where: str) -> Endpoint:
    if isinstance(raw, str):
        raw = {"address": raw}
    try:
        entry = msgspec.convert(raw, Entry)
        address, health = _address(entry.address), _health(entry.health)
    except (msgspec.ValidationError, ConfigError):
        raise ConfigError(list(_entry_faults(raw, where))) from None
    locality = Locality(entry.region, entry.zone, entry.sub_zone)
    return Endpoint(address, entry.weight, locality, entry.priority, health, entry.metadata)


def _entry_faults(raw: object, where: str) -> Iterator[str]:
    """Yield everything that is wrong with an entry, where `_endpoint` stops at the first."""
    try:
        parse_struct(Entry, raw, where)
    except ConfigError as error:
        yield from error.problems
    fields = raw if isinstance(raw, Mapping) else {}
    for name, read in (("address", _address), ("health", _health)):
        try:
            if isinstance(fields.get(name), str):
                read(fields[name])
        except ConfigError as error:
            yield from (f"{where}.{name}: {problem}" for problem in error.problems)


def _health(text: str) -> Health:
    try:
        return Health(text)
    except ValueError:
        known = ", ".join(health.value for health in Health)
        raise ConfigError(f"{text!r} is not usable; use one of {known}") from None


@lru_cache(maxsize=_REMEMBERED)
def _address(text: str) -> Address:
    addresses = parse_target(text).addresses if len(text) <= _LONGEST_ADDRESS else ()
    if len(addresses) != 1:
        raise ConfigError(f"{text[:_SHOWN]!r} is not one address; write ip:port, [ipv6]:port or unix:/path/of.sock")
    return addresses[0]


def _parse_json(text: str) -> object:
    try:
        document = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
        if _SURROGATE.search(text):
            json.dumps(document, ensure_ascii=False).encode()
        return document
    except json.JSONDecodeError as error:
        raise ConfigError(f"line {error.lineno} column {error.colno}: {error.msg}") from None
    except ConfigError:
        raise
    except UnicodeEncodeError:
        raise ConfigError("a text holds half of a surrogate pair; write the character itself") from None
    except ValueError as error:  # a whole number of thousands of digits, which Python does not read
        raise ConfigError(f"a number is not usable: {error}") from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Make the mapping of an object; JSON itself lets a later field overrule an earlier one of the same name."""
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise ConfigError(f"{name[:_LONGEST_PROBLEM]!r} stands twice in one object; keep one of them")
        found[name] = value
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ConfigError(f"{name} is no JSON; write a number")


def _parse_toml(text: str) -> object:
    tomllib = _toml_module()
    bare = _STRING.sub(lambda found: "\n" * found[0].count("\n"), text)
    for number, line in enumerate(bare.split("\n"), start=1):
        if line.count(".") > _MOST_DOTS:
            raise ConfigError(f"line {number}: more than {_MOST_DOTS} dots outside of strings; split the line")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(error)[:_LONGEST_PROBLEM]) from None
    except ValueError as error:
        raise ConfigError(f"a value is not usable: {error}"[:_LONGEST_PROBLEM]) from None


if sys.version_info >= (3, 11):

    def _toml_module() -> ModuleType:
        import tomllib

        return tomllib

else:

    def _toml_module() -> ModuleType:
        import tomli

        return tomli
