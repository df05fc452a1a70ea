"""Which service config counts: the resolver's, or the one that the user gave as a channel option (gRFC A21).

    `policy=` of the user          decides on the policy, whatever a service config says
    the resolver's                 else, unless the user disabled it
    `grpc.service_config`          else; the default of the channel, as gRPC has it
    `grpc.lb_policy_name`          else, for the policy alone
    nothing                        else: the policies' own default

One that cannot be used is refused whole, and the one before stays. gRPC has the channel fail where there is none
before; here the default of the channel stands in, as a typing error in DNS is no reason to have no service at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from msgspec.structs import replace

from ..config import ChannelOption, Config, OutlierDetection
from ..errors import ConfigError
from ..policies import Policy, parse_policy
from ..proto_json import Notes
from .choice import read_name
from .parse import ServiceConfig, parse_service_config, service_config_json

DEFAULT = "grpc.service_config"
DISABLED = "grpc.service_config_disable_resolution"
POLICY_NAME = "grpc.lb_policy_name"
"""Channel options of gRPC (grpc/impl/channel_arg_names.h)."""

_SHOWN = 3  # problems that are told of a config; the first ones say enough


class ServiceConfigs:
    """Holds what the user said, takes what the resolver says, and tells what counts.

    Raises:
        ConfigError: what the user gave cannot be used.
    """

    def __init__(self, policy: Policy | str | None = None, options: Sequence[ChannelOption] = ()) -> None:
        named = [(_name(option), option) for option in options]
        given = {name: option[1] for name, option in named if name is not None}
        self.options = tuple(option for name, option in named if name not in (DEFAULT, DISABLED, POLICY_NAME))
        """The options that are left for the connections."""
        disabled = given.get(DISABLED)
        self.is_wanted = None if disabled is None else not disabled
        """Whether the user wants the resolver to look for a service config; None if nothing was said."""
        self._own_policy = None if policy is None else parse_policy(policy)
        self._named_policy = _named(given.get(POLICY_NAME))
        self._default = _parsed(given.get(DEFAULT))
        self._text: str | None = None
        self.current = self._default
        self.fault: str | None = None
        """Why the last one of the resolver is not in use; None if it is."""

    @property
    def policy(self) -> Policy:
        """The policy that counts."""
        return self._own_policy or self.current.policy or self._named_policy or parse_policy(None)

    @property
    def for_connections(self) -> str | None:
        """The service config of the connections, as JSON; None where there is nothing that they need to know."""
        return service_config_json(ServiceConfig(passed_on=self.current.passed_on)) if self.current.passed_on else None

    def applied_to(self, own: Config) -> Config:
        """Return the user's own options, and where they are silent, what the service config says."""
        dns, health, outliers, said = own.dns, own.health, own.outliers, self.current
        if self.is_wanted is not None:
            dns = replace(dns, service_config=self.is_wanted)
        if health.service is None and said.health_service is not None:
            health = replace(health, service=said.health_service)
        if outliers.a50 == OutlierDetection() and said.outlier_detection is not None:
            outliers = replace(outliers, a50=said.outlier_detection)
        return replace(own, dns=dns, health=health, outliers=outliers)

    def take(self, text: str | None) -> bool:
        """Take what the resolver says now, None for nothing; return whether it is another than the last time."""
        if self.is_wanted is False:
            text = None
        if text == self._text:
            return False
        self._text, self.fault = text, None
        try:
            self.current = self._default if text is None else parse_service_config(text)
        except ConfigError as error:
            self.fault = _in_short(error.problems)
        return True


def _name(option: ChannelOption) -> str | None:
    """Return the name of an option; None if it has none, which whoever uses the options will find."""
    name: object = option[0]
    if isinstance(name, bytes):
        return name.decode(errors="replace")
    return name if isinstance(name, str) else None


def _parsed(raw: object) -> ServiceConfig:
    if raw is None:
        return ServiceConfig()
    with _problems_of(DEFAULT):
        if not isinstance(raw, (str, bytes)):
            raise ConfigError(f"expected JSON text, got {type(raw).__name__}")
        return parse_service_config(raw)


def _named(raw: object) -> Policy | None:
    with _problems_of(POLICY_NAME):
        name = raw.decode(errors="replace") if isinstance(raw, bytes) else raw
        notes = Notes()
        policy = read_name(name, "policy", notes)
        if notes.problems:
            raise ConfigError(notes.problems)
        return policy


@contextmanager
def _problems_of(option: str) -> Iterator[None]:
    """Put the channel option in front of every problem that is found with it."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError([f"options: {option}: {problem}" for problem in error.problems]) from None


def _in_short(problems: Sequence[str]) -> str:
    more = len(problems) - _SHOWN
    return "; ".join(problems[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
