"""Channels to control planes, with the credentials that the bootstrap names."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import grpc
import grpc.aio

from ...errors import ConfigError
from ..http import CONNECT_TIMEOUT_S, MAX_ANSWER
from .bootstrap import ChannelCredentials, XdsServer, tls_files

# As gRPC's own xDS clients: a gRPC server takes more than a ping in 5 minutes without calls for abuse.
KEEPALIVE_TIME_S = 300
KEEPALIVE_TIMEOUT_S = 20

OPTIONS = (
    ("grpc.max_receive_message_length", MAX_ANSWER),
    ("grpc.keepalive_time_ms", KEEPALIVE_TIME_S * 1000),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_S * 1000),
    ("grpc.http2.ping_timeout_ms", KEEPALIVE_TIMEOUT_S * 1000),  # which C-core 1.85 looks at in its place
    ("grpc.use_local_subchannel_pool", 1),  # else channels share connections, and the waits between them
    ("grpc.min_reconnect_backoff_ms", int(CONNECT_TIMEOUT_S * 1000)),  # which C-core takes for the time to connect
    ("grpc.enable_retries", 0),
)


def open_channel(server: XdsServer) -> grpc.aio.Channel:
    """Open a channel to a server.

    Raises:
        ConfigError: its credentials cannot be used.
        OSError: a file of theirs cannot be read.
    """
    credentials = server.credentials
    if credentials.type == "insecure":
        return grpc.aio.insecure_channel(server.server_uri, OPTIONS)
    secured = _google_default() if credentials.type == "google_default" else _tls(credentials)
    return grpc.aio.secure_channel(server.server_uri, secured, OPTIONS)


def _tls(credentials: ChannelCredentials) -> grpc.ChannelCredentials:
    files = tls_files(credentials)
    roots, key, chain = (
        Path(path).read_bytes() if path else None
        for path in (files.ca_certificate_file, files.private_key_file, files.certificate_file)
    )
    return grpc.ssl_channel_credentials(roots, key, chain)


def _google_default() -> grpc.ChannelCredentials:
    """Make the application default credentials of Google Cloud (https://google.aip.dev/auth/4110)."""
    try:
        auth, exceptions, transport, requests = (
            import_module(f"google.auth{name}")
            for name in ("", ".exceptions", ".transport.grpc", ".transport.requests")
        )
    except ImportError as error:
        advice = "pip install google-auth requests"
        raise ConfigError(f"google_default credentials need google-auth ({error}); {advice}") from None
    try:
        found, _ = auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
    except exceptions.GoogleAuthError as error:
        raise ConfigError(f"google_default credentials: {error}") from error
    plugin = transport.AuthMetadataPlugin(found, requests.Request())
    return grpc.composite_channel_credentials(grpc.ssl_channel_credentials(), grpc.metadata_call_credentials(plugin))
