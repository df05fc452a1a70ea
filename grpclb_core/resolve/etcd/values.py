"""What the keys under a prefix say: one endpoint each, in the JSON of etcd's own gRPC naming.

    {"Op": 0, "Addr": "10.0.0.1:50051", "Metadata": {"weight": 2, "zone": "eu-1a"}}

The layout is `Update` of go.etcd.io/etcd/client/v3/naming/endpoints/internal. As Go reads JSON, the case of the three
names means nothing and unknown ones are passed over; as etcd's own resolver, `Op` is not looked at. `Metadata` may be
anything; of an object, the names of `_KNOWN` are understood and the rest is handed on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from ...errors import ConfigError
from ...types import Address, Endpoint, Locality, ip_address
from .client import Event, KeyValue

MAX_VALUE = 16 * 1024
"""Bytes of one value; a registration has about a hundred, and etcd would take a megabyte and a half."""
MAX_KEYS = 10_000
"""Keys under one prefix; those beyond are passed over, and that is reported."""
MAX_PRIORITY = 128
"""That of EDS (envoy.config.endpoint.v3.LocalityLbEndpoints)."""

_PLACES = ("region", "zone", "sub_zone")
_KNOWN = (*_PLACES, "weight", "priority")
_SHOWN = 100  # characters of a value that a message repeats


def endpoint_of(value: bytes) -> Endpoint:
    """Read the value of one key.

    Raises:
        ConfigError: it is no JSON, not of the layout, or names no usable address.
    """
    if len(value) > MAX_VALUE:
        raise ConfigError(f"the value has {len(value)} bytes; at most {MAX_VALUE} are read")
    try:
        raw = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{_shown(value)} is no JSON ({error})") from None
    if not isinstance(raw, dict):
        raise ConfigError(f'{_shown(value)} is no object; write {{"Addr": "10.0.0.1:50051"}}')
    fields = {name.lower(): field for name, field in raw.items()}
    metadata = fields.get("metadata")
    address = address_of(fields.get("addr"))
    if not isinstance(metadata, dict):
        return Endpoint(address, metadata={} if metadata is None else {"Metadata": _text(metadata)})
    known = {name: metadata.pop(name) for name in _KNOWN if name in metadata}
    return Endpoint(
        address,
        weight=_number(known.get("weight", 1.0), "weight"),
        locality=Locality(*(_text(known.get(place, "")) for place in _PLACES)),
        priority=_priority(known.get("priority", 0)),
        metadata={name: _text(field) for name, field in metadata.items()},
    )


def value_of(endpoint: Endpoint) -> bytes:
    """Write an endpoint as the value of a key; what is as by default is left out.

    Raises:
        ConfigError: its metadata uses a name that has a meaning of its own.
    """
    taken = [name for name in _KNOWN if name in endpoint.metadata]
    if taken:
        raise ConfigError(f"metadata may not hold {', '.join(taken)}; give it as what it is, a field of the endpoint")
    metadata: dict[str, object] = dict(endpoint.metadata)
    for place in _PLACES:
        if getattr(endpoint.locality, place):
            metadata[place] = getattr(endpoint.locality, place)
    if endpoint.weight != 1:
        metadata["weight"] = endpoint.weight
    if endpoint.priority:
        metadata["priority"] = endpoint.priority
    return msgspec.json.encode({"Op": 0, "Addr": str(endpoint.address), "Metadata": metadata or None})


def _shown(value: bytes) -> str:
    return repr(value if len(value) <= _SHOWN else value[:_SHOWN] + b"...")


def address_of(addr: object) -> Address:
    """Read an IP address with a port.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(addr, str):
        raise ConfigError(f"Addr {addr!r:.{_SHOWN}} is no string; write an IP address and a port")
    where = f"Addr {addr!r:.{_SHOWN}}"
    host, colon, port = addr.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit() and len(port) <= 5):
        raise ConfigError(f"{where}: the port is missing; write 10.0.0.1:50051 or [::1]:50051")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if (":" in bare) != (bare is not host):
        raise ConfigError(f"{where}: brackets are for IPv6 addresses, and for them alone; write [::1]:50051")
    return ip_address(bare, int(port), where=where)


def _text(field: object) -> str:
    return field if isinstance(field, str) else msgspec.json.encode(field).decode()


def _number(field: object, name: str) -> float:
    # Go programs often keep metadata in a map of strings.
    try:
        return msgspec.convert(field, float, strict=False)
    except msgspec.ValidationError:
        raise ConfigError(f"{name} {_text(field)!r:.{_SHOWN}} is not a number") from None


def _priority(field: object) -> int:
    number = _number(field, "priority")
    if not (number.is_integer() and 0 <= number <= MAX_PRIORITY):
        raise ConfigError(f"priority {number:g} is not a whole number from 0 to {MAX_PRIORITY}")
    return int(number)


class _Entry(msgspec.Struct, frozen=True):
    revision: int
    endpoint: Endpoint


class Listing:
    """The keys under a prefix as they are now, and the endpoints they name.

    A value that cannot be used changes nothing: the endpoint that its key named before stays. Both methods give one
    problem for each such value, with its key.
    """

    def __init__(self) -> None:
        self._entries: dict[bytes, _Entry] = {}

    def replace(self, pairs: Iterable[KeyValue]) -> list[str]:
        """Take what a range found in place of all that was known."""
        before, self._entries = self._entries, {}
        return self._put(pairs, before)

    def apply(self, events: Iterable[Event]) -> list[str]:
        """Take what a watch told."""
        problems: list[str] = []
        for event in events:
            if event.type == "DELETE":
                self._entries.pop(event.kv.key, None)
            else:
                problems += self._put((event.kv,), self._entries)
        return problems

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Give the endpoints by address; of two keys that name the same one, the later written counts."""
        latest: dict[Address, _Entry] = {}
        for entry in self._entries.values():
            known = latest.get(entry.endpoint.address)
            if known is None or known.revision < entry.revision:
                latest[entry.endpoint.address] = entry
        return tuple(latest[address].endpoint for address in sorted(latest))

    def _put(self, pairs: Iterable[KeyValue], before: Mapping[bytes, _Entry]) -> list[str]:
        problems = []
        for pair in pairs:
            name = pair.key[:_SHOWN].decode(errors="backslashreplace")
            if pair.key not in self._entries and len(self._entries) >= MAX_KEYS:
                problems.append(f"key {name!r}: there are {MAX_KEYS} keys already; spread them over several prefixes")
                continue
            try:
                self._entries[pair.key] = _Entry(int(pair.mod_revision), endpoint_of(pair.value))
            except ConfigError as error:
                problems += [f"key {name!r}: {problem}" for problem in error.problems]
                if pair.key in before:
                    self._entries[pair.key] = before[pair.key]
        return problems
