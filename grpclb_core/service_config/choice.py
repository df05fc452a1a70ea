"""Which policy a service config names: the first one that is known here (gRFC A24)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast

import msgspec

from ..config import OutlierDetection
from ..errors import ConfigError
from ..policies import POLICIES, Policy
from ..proto_json import Notes, read_message, shown, type_of, write_message

OUTLIER_DETECTION = "outlier_detection_experimental"
"""In gRPC this is a policy around another one (A50); here it is no policy, but a part of health."""
EXPERIMENTAL = "_experimental"
"""gRPC's policies have names that end so until they are stable, and some still do; here a policy has both names."""


class Choice(NamedTuple):
    """What was found: a policy, and what stood around it."""

    policy: Policy | None = None
    outlier_detection: OutlierDetection | None = None


class _Entry(NamedTuple):
    name: str
    options: Mapping[str, object]
    path: str


def read_choice(raw: object, path: str, notes: Notes) -> Choice:
    """Read `loadBalancingConfig`; a choice without a policy has its reason in `notes`."""
    entry = _first_known(raw, path, notes)
    if entry is None:
        return Choice()
    if entry.name != OUTLIER_DETECTION:
        return Choice(_policy(*entry, notes))
    path = f"{entry.path}.childPolicy"
    options = {name: value for name, value in entry.options.items() if name != "childPolicy"}
    detection = read_message(OutlierDetection, options, entry.path, notes)
    child = _first_known(entry.options.get("childPolicy"), path, notes)
    if child is None:
        return Choice()
    if child.name == OUTLIER_DETECTION:
        notes.wrong(child.path, "outlier detection stands within outlier detection; keep one of them")
        return Choice()
    return Choice(_policy(*child, notes), detection)


def read_name(raw: object, path: str, notes: Notes) -> Policy | None:
    """Read `loadBalancingPolicy`, which A24 deprecates: a name in any case; empty is none at all."""
    if raw is None or raw == "":
        return None
    if not isinstance(raw, str):
        notes.wrong(path, f"expected a string, got {type_of(raw)}")
        return None
    name = raw.lower()
    if kind_of(name) is None:
        notes.wrong(path, f"{shown(raw)} is unknown; known are {_known()}")
        return None
    return _policy(name, {}, path, notes)


def write_choice(choice: Choice) -> list[dict[str, object]]:
    """Write `loadBalancingConfig`; an empty one where nothing was chosen.

    Raises:
        ConfigError: the policy is not one of ours, so nobody knows how it is written.
    """
    if choice.policy is None:
        return []
    name, policy = choice.policy.name, cast("object", choice.policy)
    if not isinstance(policy, msgspec.Struct) or kind_of(name) is not type(policy):
        raise ConfigError(f"policy {name!r}: cannot be written as JSON; known are {_known()}")
    entry: dict[str, object] = {name: write_message(policy)}
    if choice.outlier_detection is None:
        return [entry]
    return [{OUTLIER_DETECTION: {**write_message(choice.outlier_detection), "childPolicy": [entry]}}]


def kind_of(name: str) -> type[msgspec.Struct] | None:
    """Return the policy of a name, with or without `_experimental` at its end; None if there is none."""
    return POLICIES.get(name) or POLICIES.get(name.removesuffix(EXPERIMENTAL))


def _policy(name: str, options: Mapping[str, object], path: str, notes: Notes) -> Policy | None:
    kind = kind_of(name)
    assert kind is not None
    return cast("Policy | None", read_message(kind, options, path, notes))  # what is in POLICIES is one


def _first_known(raw: object, path: str, notes: Notes) -> _Entry | None:
    """Return the first entry that is known. C-core looks at the shape of those before it, and so do we."""
    if not isinstance(raw, list):
        missing = "missing; list the policies, the preferred one first"
        notes.wrong(path, missing if raw is None else f"expected an array, got {type_of(raw)}")
        return None
    for position, item in enumerate(raw):
        where = f"{path}[{position}]"
        if not isinstance(item, Mapping) or len(item) != 1:
            notes.wrong(where, f'expected an object with one name, as in {{"round_robin": {{}}}}, got {shown(item)}')
            return None
        ((raw_name, options),) = item.items()
        name = str(raw_name)
        if not isinstance(options, Mapping):
            notes.wrong(f"{where}.{name}", f"expected an object, got {type_of(options)}")
            return None
        if name == OUTLIER_DETECTION or kind_of(name) is not None:
            return _Entry(name, options, f"{where}.{name}")
    named = ", ".join(shown(name) for item in raw[:10] for name in item) or "none"
    notes.wrong(path, f"no policy of the list is known (it has {named}); known are {_known()}, {OUTLIER_DETECTION}")
    return None


def _known() -> str:
    return ", ".join(sorted(POLICIES))
