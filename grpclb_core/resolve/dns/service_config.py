"""A service config in DNS (gRFC A2): the TXT record `_grpc_config.<host>` whose text begins with `grpc_config=`.

    grpc_config=[{"clientLanguage": ["python"], "percentage": 10, "serviceConfig": {...}}, {"serviceConfig": {...}}]

The first choice counts whose every criterion fits this client. The pure part is `choose`; what the service config says
is for others to read.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Annotated, TypeVar

import anyio
import msgspec

from ...config import DnsConfig
from ...errors import ConfigError, ResolutionError
from ...proto_json import Notes, read_message, type_of
from ...types import Address
from .lookup import SECOND_ANSWER_S, look_up
from .resolvconf import read_settings

PREFIX = "_grpc_config."
ATTRIBUTE = "grpc_config="
LANGUAGE = "python"
"""What this client is to `clientLanguage`, in any case. grpcio's own channels are "c++" to it, as their core is."""

FoundT = TypeVar("FoundT")


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """A service config, and the clients that it is for: those that fit all that is said."""

    service_config: Mapping[str, object]
    client_language: tuple[str, ...] = ()
    percentage: Annotated[int, msgspec.Meta(ge=0, le=100)] | None = None
    client_hostname: tuple[str, ...] = ()

    def fits(self, percentile: int, hostname: str) -> bool:
        """Tell whether it is for a client that drew `percentile` from 0 to 99."""
        return (
            (not self.client_language or LANGUAGE in {language.lower() for language in self.client_language})
            and (self.percentage is None or percentile < self.percentage)
            and (not self.client_hostname or hostname in self.client_hostname)
        )


class Said(msgspec.Struct, frozen=True):
    """What DNS says of the service config."""

    text: str | None = None
    """Its JSON; None if there is none for this client."""
    ttl_s: float | None = None
    """How long that is good for, where there is a record."""
    fault: str = ""
    """Why nobody knows what it says; empty if somebody does."""


class ServiceConfigRecord:
    """The record of one host.

    Which share of the clients this one belongs to is drawn once, as `rng` (from [0, 1)) has it: one that drew anew at
    each look would go to and fro between two configs.
    """

    def __init__(
        self,
        host: str,
        server: Address | None,
        config: DnsConfig,
        *,
        rng: Callable[[], float],
        resolv_conf: str,
        hostname: str | None = None,
    ) -> None:
        self.name = PREFIX + host
        self._shown = self.name.removesuffix(".")
        self._server = server
        self._config = config
        self._percentile = int(rng() * 100)
        self._resolv_conf = resolv_conf
        self._hostname = socket.gethostname() if hostname is None else hostname

    async def look(self) -> Said:
        """Ask for the record; whatever goes wrong is a fault, and never raised."""
        try:
            settings = read_settings(self._resolv_conf, self._server)
        except ResolutionError as error:
            return Said(fault=str(error))
        lookup = await look_up(self.name, ("TXT",), settings, self._config)
        answer = lookup.answers.get("TXT")
        if answer is None:
            return Said(fault=f"{self._shown}: {lookup.reason}")
        try:
            return Said(choose(answer.texts, self._percentile, self._hostname), answer.ttl_s if answer.texts else None)
        except ConfigError as error:
            return Said(fault=f"{self._shown}: {error.problems[0]}")

    async def beside(self, look: Callable[[], Awaitable[FoundT]]) -> tuple[FoundT, Said]:
        """Ask for the record while `look` looks for endpoints, and keep those waiting for a second at most.

        Raises:
            ResolutionError: `look` did.
        """
        said = [Said(fault=f"{self._shown}: no answer within {SECOND_ANSWER_S:g} s of the addresses")]
        found: list[FoundT] = []
        failure: list[ResolutionError] = []

        async def ask() -> None:
            said[0] = await self.look()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            try:
                found.append(await look())
                tasks.cancel_scope.deadline = anyio.current_time() + SECOND_ANSWER_S
            except ResolutionError as error:  # a task group would wrap it
                failure.append(error)
                tasks.cancel_scope.cancel()
        if failure:
            raise failure[0]
        return found[0], said[0]


def choose(texts: Iterable[str], percentile: int, hostname: str) -> str | None:
    """Return the service config, as JSON, that some TXT records have for a client; None if they have none.

    Of several records the first that can be read counts.

    Raises:
        ConfigError: none of them can be read, with the faults of each.
    """
    problems: list[str] = []
    for text in texts:
        if text.startswith(ATTRIBUTE):
            try:
                choices = _choices(text.removeprefix(ATTRIBUTE))
            except ConfigError as error:
                problems += error.problems
                continue
            fitting = (choice.service_config for choice in choices if choice.fits(percentile, hostname))
            config = next(fitting, None)
            return None if config is None else msgspec.json.encode(config).decode()
    if problems:
        raise ConfigError(problems)
    return None


def _choices(text: str) -> list[Choice]:
    """Read all the choices of a record, which A2 has discarded as a whole when one of them is faulty."""
    notes = Notes()
    choices: list[Choice | None] = []
    try:
        raw = msgspec.json.decode(text)
        if not isinstance(raw, list):
            raise ConfigError(f"expected an array of choices, got {type_of(raw)}")
        choices = [read_message(Choice, item, f"choice[{position}]", notes) for position, item in enumerate(raw)]
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ConfigError(f"this is no JSON: {error}") from None
    except RecursionError:
        raise ConfigError("nested too deeply") from None
    for path in notes.ignored:
        notes.wrong(path, "unknown field; a choice has none but those of gRFC A2")
    if notes.problems:
        raise ConfigError(notes.problems)
    return [choice for choice in choices if choice is not None]
