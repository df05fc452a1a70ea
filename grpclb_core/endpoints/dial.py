"""How a connection is opened: one grpc.aio channel to one address, carrying the target's name."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
import grpc.aio

from ..config import ChannelOption, ConnectionConfig
from ..errors import ConfigError
from ..types import Address

DEFAULT_AUTHORITY = "grpc.default_authority"
TLS_NAME = "grpc.ssl_target_name_override"
SERVICE_CONFIG = "grpc.service_config"
NUMBER = "grpclb.connection"  # unknown to C-core, which tells connections apart by every option


class Dialer:
    """Opens the sub-channels of one balanced channel, all with the same credentials and options.

    Args:
        credentials: channel credentials, or None for plaintext.
        options: channel options of the user; they win over everything this class would set.
        compression: passed through.
        authority: what calls carry as `:authority`, and whose name a TLS certificate must show, although the
            sub-channel dials an address; None lets each address speak for itself.
        config: keepalive and reconnect times.
    """

    def __init__(
        self,
        credentials: grpc.ChannelCredentials | None,
        options: Sequence[ChannelOption] | None,
        compression: grpc.Compression | None,
        authority: str | None,
        config: ConnectionConfig,
    ) -> None:
        self.credentials = credentials
        self.service_config: str | None = None
        """What the connections to come have as their service config, as JSON; it goes for what they apply alone."""
        self._compression = compression
        chosen = tuple(options or ())
        _check(credentials, chosen, compression)
        taken = {name for name, _ in chosen}
        added = _defaults(config)
        # The two go together: C-core refuses a call whose authority is not the name the certificate was checked for.
        if authority is not None and not taken & {DEFAULT_AUTHORITY, TLS_NAME}:
            added[DEFAULT_AUTHORITY] = authority
            if credentials is not None:
                added[TLS_NAME] = _without_port(authority)
        self._options = chosen + tuple((name, value) for name, value in added.items() if name not in taken)

    def dial(self, address: Address, number: int = 0) -> grpc.aio.Channel:
        """Make the channel; it connects when told to.

        Channels to one address share a connection when they are made alike; another `number` makes another connection.
        """
        options = self._options if number == 0 else (*self._options, (NUMBER, number))
        if self.service_config is not None:
            options = (*options, (SERVICE_CONFIG, self.service_config))
        # The factories are looked up on the module each time, because instrumentation replaces them there.
        if self.credentials is None:
            return grpc.aio.insecure_channel(address.uri, options=options, compression=self._compression)
        return grpc.aio.secure_channel(address.uri, self.credentials, options=options, compression=self._compression)


def _check(
    credentials: grpc.ChannelCredentials | None,
    options: Sequence[ChannelOption],
    compression: grpc.Compression | None,
) -> None:
    """Find at once what grpc.aio would refuse when the first endpoint is dialled, in a background task.

    Raises:
        ConfigError: naming every part that cannot be used.
    """
    problems = []
    if credentials is not None and not isinstance(credentials, grpc.ChannelCredentials):
        problems.append(f"credentials: expected grpc.ChannelCredentials, got {type(credentials).__name__}")
    for option in options:
        name, value = option
        if not isinstance(name, (str, bytes)):
            problems.append(f"options: {option!r}: the name is no string")
        elif isinstance(value, int):
            if not -(2**31) <= value < 2**31:
                problems.append(f"options: {option!r}: the number does not fit 32 bits")
        elif not isinstance(value, (str, bytes)) and not hasattr(value, "__int__"):
            problems.append(f"options: {option!r}: the value is neither a number nor a string")
    if compression is not None and not isinstance(compression, int):
        problems.append(f"compression: expected grpc.Compression, got {compression!r}")
    if problems:
        raise ConfigError(problems)


def _defaults(config: ConnectionConfig) -> dict[str, object]:
    return {
        "grpc.keepalive_time_ms": _ms(config.keepalive_time_s),
        "grpc.keepalive_timeout_ms": _ms(config.keepalive_timeout_s),
        # C-core 1.85 waits for the answer to any ping, keepalive's too, for this long: 60 s if nothing is said.
        "grpc.http2.ping_timeout_ms": _ms(config.keepalive_timeout_s),
        "grpc.initial_reconnect_backoff_ms": _ms(config.initial_backoff_s),
        "grpc.max_reconnect_backoff_ms": _ms(config.max_backoff_s),
        "grpc.min_reconnect_backoff_ms": _ms(config.connect_timeout_s),  # what C-core calls it
    }


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))  # at 0 C-core takes a default of its own


def _without_port(authority: str) -> str:
    host, separator, _ = authority.rpartition(":")
    return (host if separator and not host.endswith(":") else authority).strip("[]")
