"""Whom to ask, and who asks: the bootstrap JSON of gRPC.

https://github.com/grpc/proposal/blob/master/A27-xds-global-load-balancing.md#xdsclient-and-bootstrap-file. Fields that
have no meaning here (`authorities`, `certificate_providers`, ...) are ignored, as gRPC ignores those it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from ...errors import ConfigError
from ...types import Locality

FILE_VARIABLE = "GRPC_XDS_BOOTSTRAP"
INLINE_VARIABLE = "GRPC_XDS_BOOTSTRAP_CONFIG"

SUPPORTED_CREDENTIALS = ("insecure", "tls", "google_default")
IGNORE_DELETION = "ignore_resource_deletion"
"""Feature of a server whose removals are not to be believed (gRFC A53)."""


class ChannelCredentials(msgspec.Struct, frozen=True):
    """A way to connect to a server; of several the first supported one counts."""

    type: str
    config: Mapping[str, object] = {}


class TlsFiles(msgspec.Struct, frozen=True):
    """The options of `tls` credentials (gRFC A65): PEM files, read again for every connection.

    Raises:
        ConfigError: one of certificate and key is given without the other.
    """

    ca_certificate_file: str = ""
    """Who is trusted; those that gRPC trusts if empty."""
    certificate_file: str = ""
    private_key_file: str = ""

    def __post_init__(self) -> None:
        if bool(self.certificate_file) != bool(self.private_key_file):
            raise ConfigError("certificate_file and private_key_file go together; give both or neither")


class XdsServer(msgspec.Struct, frozen=True):
    """A control plane."""

    server_uri: str
    """What gRPC may dial: `host:port` or any of its targets."""
    channel_creds: tuple[ChannelCredentials, ...]
    server_features: tuple[str, ...] = ()

    @property
    def credentials(self) -> ChannelCredentials:
        """The first supported ones.

        Raises:
            ConfigError: none is supported, or the options of `tls` cannot be used.
        """
        for credentials in self.channel_creds:
            if credentials.type in SUPPORTED_CREDENTIALS:
                if credentials.type == "tls":
                    tls_files(credentials)
                return credentials
        found = ", ".join(repr(credentials.type) for credentials in self.channel_creds) or "none"
        raise ConfigError(f"channel_creds: {found}; one of {', '.join(SUPPORTED_CREDENTIALS)} is needed")


class Node(msgspec.Struct, frozen=True):
    """How this client introduces itself."""

    id: str = ""
    cluster: str = ""
    locality: Locality = Locality()
    metadata: Mapping[str, object] = {}


class Bootstrap(msgspec.Struct, frozen=True):
    """The servers, most wanted first, and the node."""

    xds_servers: tuple[XdsServer, ...]
    node: Node = Node()


def read_bootstrap(given: Mapping[str, object] | None, environment: Mapping[str, str]) -> Bootstrap:
    """Read the bootstrap: what is given, else the file, else the text that the environment names, in gRPC's order.

    Raises:
        ConfigError: there is none, the file cannot be read, or a part of it cannot be used.
    """
    if given is not None:
        return parse_bootstrap(given, "config.xds.bootstrap")
    if path := environment.get(FILE_VARIABLE):
        try:
            text = Path(path).read_bytes()
        except OSError as error:
            raise ConfigError(f"{FILE_VARIABLE}: cannot read {path!r} ({error.strerror}); correct the path") from None
        return parse_bootstrap(text, f"{FILE_VARIABLE} ({path})")
    if inline := environment.get(INLINE_VARIABLE):
        return parse_bootstrap(inline.encode(errors="replace"), INLINE_VARIABLE)
    raise ConfigError(f"no xDS server is known; set {FILE_VARIABLE} to the path of a bootstrap file, or config.xds")


def parse_bootstrap(raw: bytes | Mapping[str, object], where: str) -> Bootstrap:
    """Parse a bootstrap, JSON or what JSON stands for.

    Raises:
        ConfigError: it is no JSON, of another shape, names no server, or a server without usable credentials.
    """
    try:
        bootstrap = (
            msgspec.json.decode(raw, type=Bootstrap) if isinstance(raw, bytes) else msgspec.convert(raw, Bootstrap)
        )
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{where}: {error}; write it as gRPC's bootstrap file") from None
    problems = [] if bootstrap.xds_servers else [f"{where}: xds_servers is empty; name at least one server"]
    for position, server in enumerate(bootstrap.xds_servers):
        at = f"{where}: xds_servers[{position}]"
        if not server.server_uri:
            problems.append(f"{at}: server_uri is empty; write host:port")
        try:
            _ = server.credentials
        except ConfigError as error:
            problems += [f"{at}: {problem}" for problem in error.problems]
    if problems:
        raise ConfigError(problems)
    return bootstrap


def tls_files(credentials: ChannelCredentials) -> TlsFiles:
    """Read the options of `tls` credentials.

    Raises:
        ConfigError: one has the wrong type, or is missing its other half.
    """
    try:
        return msgspec.convert(credentials.config, TlsFiles)
    except msgspec.ValidationError as error:
        raise ConfigError(f"channel_creds: config of 'tls': {error}; give paths of PEM files") from None
