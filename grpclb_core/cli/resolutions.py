"""Resolutions as `grpclb resolve` prints them: a table and lines for people, JSON lines for machines."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Protocol

import msgspec

from ..errors import ConfigError
from ..service_config import parse_service_config
from ..types import Address, Endpoint, Resolution
from .text import columns, plain

SIGNS = {"added": "+", "removed": "-", "changed": "~"}
HEADINGS = ("ADDRESS", "WEIGHT", "PRIORITY", "LOCALITY", "HEALTH", "METADATA")


class Printer(Protocol):
    """Prints what a resolver says."""

    def found(self, resolution: Resolution, before: Resolution | None) -> None:
        """Print a set: whole, or what became of the one `before`."""

    def failed(self, reason: str) -> None:
        """Print why a lookup failed."""


class Change(msgspec.Struct, frozen=True):
    """What became of one address between two sets."""

    name: str
    """`added`, `removed` or `changed`."""
    endpoint: Endpoint
    """The endpoint as it is now; a removed one as it was."""
    before: Endpoint
    """The endpoint as it was; an added one as it is."""


def changes(before: Resolution, after: Resolution) -> list[Change]:
    """Return what changed from one set to another, sorted by address."""
    old: dict[Address, Endpoint] = {endpoint.address: endpoint for endpoint in before.endpoints}
    new: dict[Address, Endpoint] = {endpoint.address: endpoint for endpoint in after.endpoints}
    found = []
    for address in sorted(old.keys() | new.keys()):
        if address not in old:
            found.append(Change("added", new[address], new[address]))
        elif address not in new:
            found.append(Change("removed", old[address], old[address]))
        elif old[address] != new[address]:
            found.append(Change("changed", new[address], old[address]))
    return found


class TextPrinter:
    """Prints for people; failures go to standard error."""

    def __init__(self, target: str) -> None:
        self._target = target

    def found(self, resolution: Resolution, before: Resolution | None) -> None:
        """Print a table, or a line for each change and one for the whole."""
        if before is None:
            rows = [HEADINGS, *(_cells(endpoint) for endpoint in resolution.endpoints)]
            print(f"{plain(self._target)}: {_summary(resolution)}", *columns(rows), sep="\n", flush=True)
            return
        lines = [_line(change) for change in changes(before, resolution)]
        print(*(f"{_time()} {line}" for line in [*lines, f"= {_summary(resolution)}"]), sep="\n", flush=True)

    def failed(self, reason: str) -> None:
        """Print the reason."""
        print(f"{_time()} ! {plain(self._target)}: {plain(reason)}", file=sys.stderr, flush=True)


class JsonPrinter:
    """Prints one JSON object a line, failures among them; `event` says of what kind it is."""

    def __init__(self, target: str) -> None:
        self._target = target

    def found(self, resolution: Resolution, before: Resolution | None) -> None:
        """Print `set` with all endpoints, or `added`, `removed` and `changed` with one each and `state` last."""
        if before is None:
            self._print("set", **_state(resolution), endpoints=[_fields(endpoint) for endpoint in resolution.endpoints])
            return
        for change in changes(before, resolution):
            fields = {"endpoint": _fields(change.endpoint)}
            if change.name == "changed":
                fields["before"] = _fields(change.before)
            self._print(change.name, **fields)
        self._print("state", **_state(resolution))

    def failed(self, reason: str) -> None:
        """Print `failed`."""
        self._print("failed", reason=reason)

    def _print(self, event: str, **fields: object) -> None:
        time = datetime.now().astimezone().isoformat(timespec="milliseconds")
        print(json.dumps({"event": event, "time": time, "target": self._target, **fields}), flush=True)


def _time() -> str:
    return datetime.now().strftime("%H:%M:%S")


def _summary(resolution: Resolution) -> str:
    count = len(resolution.endpoints)
    parts = [f"{count} endpoint{'' if count == 1 else 's'}"]
    if resolution.version:
        parts.append(f"version {plain(resolution.version)}")
    if resolution.ttl_s is not None:
        parts.append(f"good for {resolution.ttl_s:g} s")
    for locality, weight in sorted(resolution.locality_weights.items()):
        parts.append(f"locality {plain(str(locality)) or '-'} weighs {weight:g}")
    parts += [f"drops {100 * drop.fraction:g} % as {plain(drop.category)}" for drop in resolution.drops]
    if resolution.service_config is not None:
        parts.append(_service_config(resolution.service_config))
    return ", ".join(parts)


def _service_config(text: str) -> str:
    try:
        config = parse_service_config(text)
    except ConfigError as error:
        return f"a service config that is refused ({plain(error.problems[0])})"
    return "a service config" if config.policy is None else f"a service config of policy {config.policy.name}"


def _texts(endpoint: Endpoint) -> dict[str, str]:
    """Return what there is to say of an endpoint beside its address, each in a word."""
    pairs = (f"{name}={value}" for name, value in sorted(endpoint.metadata.items()))
    return {
        "weight": f"{endpoint.weight:g}",
        "priority": str(endpoint.priority),
        "locality": plain(str(endpoint.locality)) or "-",
        "health": endpoint.health.value,
        "metadata": plain(" ".join(pairs)),
    }


def _cells(endpoint: Endpoint) -> tuple[str, ...]:
    return plain(str(endpoint.address)), *_texts(endpoint).values()


def _line(change: Change) -> str:
    old, new = _texts(change.before), _texts(change.endpoint)
    if change.name == "added":
        said = [f"{name} {text}" for name, text in new.items() if text not in ("", "-")]
    else:
        said = [f"{name} {old[name] or '-'} -> {new[name] or '-'}" for name in new if old[name] != new[name]]
    return f"{SIGNS[change.name]} {plain(str(change.endpoint.address))}  {', '.join(said)}".rstrip()


def _state(resolution: Resolution) -> dict[str, object]:
    return {
        "count": len(resolution.endpoints),
        "version": resolution.version,
        "ttl_s": resolution.ttl_s,
        "locality_weights": [
            {"locality": msgspec.to_builtins(locality), "weight": weight}
            for locality, weight in sorted(resolution.locality_weights.items())
        ],
        "drops": msgspec.to_builtins(resolution.drops),
        "service_config": resolution.service_config,
    }


def _fields(endpoint: Endpoint) -> dict[str, object]:
    return {
        "address": str(endpoint.address),
        "weight": endpoint.weight,
        "priority": endpoint.priority,
        "locality": msgspec.to_builtins(endpoint.locality),
        "health": endpoint.health.value,
        "metadata": dict(endpoint.metadata),
    }
