"""The certificates of a client as bytes in memory, and whether they can be used.

Python's ssl module reads certificates from files only and tells whether one is expired only in a handshake. So the
bytes are put into a file of memory, and the check is a handshake of the pair with itself that nobody else sees.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import tempfile
from collections.abc import Iterator

import grpc
import msgspec

from ..errors import IdentityError

HANDSHAKE_STEPS = 8
"""A TLS handshake in memory takes three turns of both sides; it must never turn for ever."""

_WRONG_PURPOSE = 26  # X509_V_ERR_INVALID_PURPOSE of OpenSSL's x509_vfy.h


class TlsMaterial(msgspec.Struct, frozen=True):
    """What a TLS client needs, each part as PEM; a part that is None is not used."""

    ca: bytes | None = None
    """The authorities that may vouch for servers; None: gRPC's default ones."""
    certificate: bytes | None = None
    """Our own certificate, its intermediates after it; None: we do not show one."""
    key: bytes | None = None
    """The private key of that certificate."""

    def __repr__(self) -> str:
        return "TlsMaterial(...)"  # a key does not belong into a log

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Return these as gRPC's credentials."""
        return grpc.ssl_channel_credentials(self.ca, self.key, self.certificate)

    def client_context(self) -> ssl.SSLContext:
        """Return these as a context of Python's ssl, which verifies the chain but not yet the name of a server.

        Raises:
            ssl.SSLError, ValueError: a part cannot be parsed.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        if self.ca is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(cadata=_text(self.ca))
        if self.certificate is not None and self.key is not None:
            _load_pair(context, self.certificate, self.key)
        return context


def check_authorities(pem: bytes, where: str) -> None:
    """Check that every certificate of a CA file can be read.

    Raises:
        IdentityError: one cannot, or there is none; `where` names the file.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=_text(pem))
    except (ssl.SSLError, ValueError) as error:
        raise IdentityError(f"{where}: not a PEM file of certificates: {_reason(error)}; write it anew") from None


def check_pair(certificate: bytes, key: bytes, certificate_where: str, key_where: str) -> None:
    """Check that a key belongs to a certificate, and that the certificate is valid today.

    Raises:
        IdentityError: it is not so; `certificate_where` and `key_where` name the files.
    """
    try:
        for server_verifies in (True, False):  # a certificate that is for servers only may still satisfy a lax server
            try:
                return _shake_hands(certificate, key, server_verifies)
            except ssl.SSLCertVerificationError as error:
                if error.verify_code != _WRONG_PURPOSE or not server_verifies:
                    raise
    except ssl.SSLCertVerificationError as error:
        raise IdentityError(f"{certificate_where}: {error.verify_message}; replace it") from None
    except (ssl.SSLError, ValueError) as error:
        raise IdentityError(
            f"{certificate_where} with {key_where}: {_reason(error)}; replace both with a certificate and its own key"
        ) from None


def _shake_hands(certificate: bytes, key: bytes, server_verifies: bool) -> None:
    """Have the pair shake hands with itself; one side verifies the certificate, its issuer left aside."""
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    for context in (server, client):
        _load_pair(context, certificate, key)
    verifier = server if server_verifies else client
    verifier.verify_mode = ssl.CERT_REQUIRED
    verifier.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the certificate itself is what is trusted
    verifier.load_verify_locations(cadata=_text(certificate))
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (client.wrap_bio(back, there), server.wrap_bio(there, back, server_side=True))
    for _ in range(HANDSHAKE_STEPS):
        through = [_is_through(side) for side in sides]
        if all(through):
            return
    raise ValueError("the check of it came to no end")


def _is_through(side: ssl.SSLObject) -> bool:
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def _load_pair(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    with _as_file(certificate) as certificate_file, _as_file(key) as key_file:
        context.load_cert_chain(certificate_file, key_file, password=_no_password)


def _text(pem: bytes) -> str:
    # Bundles of authorities have their names beside them, in any language; ssl takes ASCII alone.
    return pem.decode("ascii", errors="ignore")


def _no_password() -> bytes:
    # Without this OpenSSL asks whoever sits at the terminal, and waits.
    raise ValueError("the key is encrypted, which gRPC cannot read; store it without a password")


@contextlib.contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """Offer bytes under the name of a file that no other user can read, and that is gone afterwards."""
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("pem"), "wb") as file:
            file.write(content)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        with tempfile.NamedTemporaryFile() as temporary:
            temporary.write(content)
            temporary.flush()
            yield temporary.name


def _reason(error: ssl.SSLError | ValueError) -> str:
    """Say in one clause what ssl found; its own messages name a line of its C source."""
    if not isinstance(error, ssl.SSLError):
        return str(error)
    if error.reason == "KEY_VALUES_MISMATCH":
        return "the key is not that of the certificate"
    return (error.reason or str(error.args[-1])).replace("_", " ").lower()
