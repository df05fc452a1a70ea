"""Certificates for the tests: trustme's authorities, and leaves that trustme does not make."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import NamedTuple

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

PAST = datetime.datetime(2001, 1, 1, tzinfo=datetime.timezone.utc)
THEN = datetime.datetime(2002, 1, 1, tzinfo=datetime.timezone.utc)
FUTURE = datetime.datetime(2999, 1, 1, tzinfo=datetime.timezone.utc)


class Leaf(NamedTuple):
    """A certificate and its key, both PEM."""

    certificate: bytes
    key: bytes


def authority_pem(ca: trustme.CA) -> bytes:
    return ca.cert_pem.bytes()


def issue(
    ca: trustme.CA,
    dns: Sequence[str] = ("greeter",),
    uris: Sequence[str] = (),
    not_before: datetime.datetime = PAST,
    not_after: datetime.datetime = FUTURE,
    purposes: Sequence[x509.ObjectIdentifier] = (),
    password: bytes | None = None,
) -> Leaf:
    """Issue a certificate with these alternative names; `purposes` are those it is restricted to."""
    issuer_key = serialization.load_pem_private_key(ca.private_key_pem.bytes(), None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    issuer = x509.load_pem_x509_certificate(authority_pem(ca))
    key = ec.generate_private_key(ec.SECP256R1())
    names = [*map(x509.DNSName, dns), *map(x509.UniformResourceIdentifier, uris)]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(list(purposes)), critical=False)
    return Leaf(
        builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption(),
        ),
    )
