"""What is compared: policies with options, as the command line writes them.

    p2c_ewma
    p2c_ewma:widen_factor=0,decay_s=5
    p2c_ewma:outliers.max_ejected_share=0.5,slow_start.window_s=10

A plain option is one of the policy. One with a dot is one of `Config`: `outliers` and `slow_start` count here, and both
are off as long as nothing is said of them, so that what is seen is the policy.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from ..config import Config, OutlierConfig
from ..errors import ConfigError
from ..policies import POLICIES, Policy, connects_to_one

BARE = Config(outliers=OutlierConfig(max_ejected_share=0))
"""Nothing that helps a policy."""

SECTIONS = ("outliers", "slow_start")
"""The parts of `Config` that the simulation goes by."""


class Variant(NamedTuple):
    """A policy, and what a balancer does beside it."""

    policy: Policy
    config: Config = BARE


def parse_variant(text: str) -> Variant:
    """Read a policy by its name, with options after a colon.

    Raises:
        ConfigError: the policy or an option is unknown, a value cannot be used, or the policy makes no choice.
    """
    name, _, rest = text.partition(":")
    kind = POLICIES.get(name)
    if kind is None:
        raise ConfigError(f"policy {name!r} is unknown; known are {', '.join(sorted(POLICIES))}")
    if connects_to_one(kind):
        raise ConfigError(f"policy {name}: it sends all calls to one server, so there is nothing to simulate")
    options: dict[str, str] = {}
    sections: dict[str, dict[str, str]] = {}
    for part in filter(None, rest.split(",")):
        path, equals, value = part.partition("=")
        section, dot, option = path.partition(".")
        if not equals:
            raise ConfigError(f"policy {name}: {part!r} is no option; write name=value")
        if not dot:
            options[path] = value
        elif section in SECTIONS:
            sections.setdefault(section, {})[option] = value
        else:
            raise ConfigError(f"policy {name}: {section!r} is unknown; known are {', '.join(SECTIONS)}")
    try:
        policy: Policy = msgspec.convert(options, kind, strict=False)
        return Variant(policy, msgspec.structs.replace(BARE, **_parsed(sections)))
    except msgspec.ValidationError as error:
        raise ConfigError(f"policy {text}: {error}") from None


def _parsed(sections: dict[str, dict[str, str]]) -> dict[str, msgspec.Struct]:
    config = msgspec.convert(sections, Config, strict=False)
    return {section: getattr(config, section) for section in sections}
