"""A service config as a whole: from JSON, and back.

    {"loadBalancingConfig": [{"least_request_experimental": {"choiceCount": 3}}, {"round_robin": {}}],
     "healthCheckConfig": {"serviceName": "greeter"},
     "methodConfig": [{"name": [{}], "timeout": "1s"}]}

The rules of choice are gRFC A24's: the first policy of the list that is known here counts, those before it are skipped,
those after it are not looked at, and a list without any is a fault. Whatever is wrong refuses the whole (A21).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ..config import OutlierDetection
from ..errors import ConfigError
from ..policies import Policy
from ..proto_json import Notes, read_message, type_of
from .choice import Choice, read_choice, read_name, write_choice
from .methods import PASSED_ON, read_passed_on

KNOWN = ("loadBalancingConfig", "loadBalancingPolicy", "healthCheckConfig", *PASSED_ON)
"""The fields that mean something here; a file that has any of them is a service config."""


class ServiceConfig(msgspec.Struct, frozen=True):
    """What a service config says.

    Raises:
        ConfigError: there is outlier detection without a policy.
    """

    policy: Policy | None = None
    """How endpoints are chosen; None where nothing is said of it."""
    outlier_detection: OutlierDetection | None = None
    """What `outlier_detection_experimental` says, but for the policy in it; None where nothing is said of it."""
    health_service: str | None = None
    """The name that servers set their health for; None where nothing is said of it."""
    passed_on: Mapping[str, object] = {}
    """What the connections apply, as it was given: rules for methods, and the throttling of retries."""
    ignored: tuple[str, ...] = ()
    """The paths of fields that nobody knows; they do no harm (A21), but may be misspelt."""

    def __post_init__(self) -> None:
        if self.outlier_detection is not None and self.policy is None:
            raise ConfigError("outlier_detection: stands without a policy; give one")


class _HealthCheckConfig(msgspec.Struct, frozen=True):
    service_name: str | None = None


def parse_service_config(raw: str | bytes | Mapping[str, object]) -> ServiceConfig:
    """Read a service config: the text of it, or what JSON makes of that.

    Raises:
        ConfigError: with one problem for each fault, its path in front.
    """
    notes = Notes()
    config = None
    try:
        config = _read(_document(raw), notes)
    except RecursionError:
        notes.wrong("service config", "nested too deeply; no field needs more than twenty levels")
    if config is None or notes.problems:
        raise ConfigError(notes.problems)
    return config


def service_config_json(config: ServiceConfig) -> str:
    """Write a service config; `parse_service_config` makes the same one of it.

    Raises:
        ConfigError: its policy is not one of ours, so nobody knows how it is written.
    """
    written: dict[str, object] = {}
    if config.policy is not None:
        written["loadBalancingConfig"] = write_choice(Choice(config.policy, config.outlier_detection))
    if config.health_service is not None:
        written["healthCheckConfig"] = {"serviceName": config.health_service}
    return msgspec.json.encode({**written, **config.passed_on}).decode()


def _document(raw: str | bytes | Mapping[str, object]) -> object:
    if not isinstance(raw, (str, bytes)):
        return raw
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ConfigError(f"service config: this is no JSON: {error}") from None


def _read(raw: object, notes: Notes) -> ServiceConfig | None:
    path = "service config"
    if not isinstance(raw, Mapping):
        notes.wrong(path, f"expected an object, got {type_of(raw)}")
        return None
    for name in raw:
        if name not in KNOWN:
            notes.left_aside(str(name))
    choice = Choice(read_name(raw.get("loadBalancingPolicy"), "loadBalancingPolicy", notes))
    if raw.get("loadBalancingConfig") is not None:
        choice = read_choice(raw["loadBalancingConfig"], "loadBalancingConfig", notes)
    health = None
    if raw.get("healthCheckConfig") is not None:
        health = read_message(_HealthCheckConfig, raw["healthCheckConfig"], "healthCheckConfig", notes)
    passed_on = read_passed_on(raw, notes)
    if notes.problems:
        return None
    return ServiceConfig(*choice, None if health is None else health.service_name, passed_on, tuple(notes.ignored))
