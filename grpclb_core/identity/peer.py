"""Who listens at an address: a TLS handshake to look at a certificate, and no call.

A gRPC channel of Python's shows nobody the certificate of its peer. So it is looked at on a connection of its own, and
nothing ties that one to the one that calls travel on: docs/identity.md says what this is good for, and what not.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import cast

import anyio
import anyio.abc
from anyio.streams.tls import TLSAttribute, TLSStream

from ..errors import IdentityError
from ..types import Address
from .material import TlsMaterial
from .spiffe import SpiffeId, check_spiffe_id

TIMEOUT_S = 5.0
"""Longest time to connect and to shake hands; `resolve.http` gives a connection as long."""


async def fetch_identity(
    address: Address, material: TlsMaterial, *, server_name: str | None = None, timeout_s: float = TIMEOUT_S
) -> tuple[str, ...]:
    """Return the URIs among the alternative names of a server's certificate, its chain verified.

    Args:
        material: the authorities that may vouch for it, and what we show if it asks.
        server_name: the name that the certificate must be for; None accepts any, as SPIFFE does.

    Raises:
        IdentityError: nobody answers, the certificate is not to be trusted, or it does not speak HTTP/2 over TLS.
    """
    try:
        context = material.client_context()
        context.check_hostname = server_name is not None
        context.set_alpn_protocols(["h2"])
        with anyio.fail_after(timeout_s):
            return await _shake_hands(address, context, server_name)
    except TimeoutError:
        raise IdentityError(f"{address}: no TLS handshake within {timeout_s} s; does it speak TLS?") from None
    except ssl.SSLCertVerificationError as error:
        raise IdentityError(
            f"{address}: its certificate is not to be trusted: {error.verify_message}; "
            "does the CA file belong to this server?"
        ) from None
    except (ssl.SSLError, ValueError, anyio.EndOfStream, anyio.BrokenResourceError) as error:
        reason = getattr(error, "reason", None) or str(error) or "the connection ended"
        raise IdentityError(
            f"{address}: no TLS handshake: {reason}; does it speak TLS, and want our certificate?"
        ) from None
    except OSError as error:
        raise IdentityError(f"{address}: cannot be reached: {error}") from None


async def verify_identity(
    address: Address,
    material: TlsMaterial,
    expected: SpiffeId,
    *,
    server_name: str | None = None,
    timeout_s: float = TIMEOUT_S,
) -> SpiffeId:
    """Return who listens at an address, if it is who was expected: a workload, or any of a trust domain.

    Raises:
        IdentityError: it is somebody else, or see `fetch_identity`.
    """
    uris = await fetch_identity(address, material, server_name=server_name, timeout_s=timeout_s)
    return check_spiffe_id(uris, expected, str(address))


async def _shake_hands(address: Address, context: ssl.SSLContext, server_name: str | None) -> tuple[str, ...]:
    async with await _connect(address) as stream:
        # Not waiting for the server to say goodbye: nothing was said that could be cut short.
        tls = await TLSStream.wrap(
            stream, server_side=False, hostname=server_name, ssl_context=context, standard_compatible=False
        )
        if tls.extra(TLSAttribute.alpn_protocol) != "h2":
            raise IdentityError(f"{address}: it does not speak HTTP/2 over TLS (ALPN h2), so it is no gRPC server")
        certificate = tls.extra(TLSAttribute.peer_certificate)
    names = cast("Iterable[tuple[str, str]]", (certificate or {}).get("subjectAltName", ()))
    return tuple(value for kind, value in names if kind == "URI")


async def _connect(address: Address) -> anyio.abc.ByteStream:
    if not address.is_unix:
        return await anyio.connect_tcp(address.host, address.port)
    path = "\0" + address.host[1:] if address.host.startswith("@") else address.host
    return await anyio.connect_unix(path)
