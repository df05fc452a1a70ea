"""SPIFFE ids: the name of a workload in a certificate.

https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md and X509-SVID.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from ..errors import ConfigError, IdentityError

SCHEME = "spiffe://"
MAX_LENGTH = 2048  # bytes; SPIFFE-ID 2.3
MAX_TRUST_DOMAIN = 255  # bytes; the same

_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]+")  # SPIFFE-ID 2.1
_SEGMENT = re.compile(r"[a-zA-Z0-9._-]+")  # SPIFFE-ID 2.2


class SpiffeId(msgspec.Struct, frozen=True):
    """The name of a workload, or, without a path, that of a whole trust domain."""

    trust_domain: str
    path: str = ""
    """Empty, or with a slash in front."""

    def __str__(self) -> str:
        return f"{SCHEME}{self.trust_domain}{self.path}"

    def includes(self, other: SpiffeId) -> bool:
        """Tell whether `other` is this workload, or belongs to this trust domain."""
        return self.trust_domain == other.trust_domain and self.path in ("", other.path)


def parse_spiffe_id(text: str) -> SpiffeId:
    """Read a SPIFFE id as strictly as SPIFFE's own libraries do.

    Example:
        >>> parse_spiffe_id("spiffe://example.org/ns/default/sa/greeter").trust_domain
        'example.org'

    Raises:
        ConfigError: it is none.
    """
    if not text.startswith(SCHEME):
        raise ConfigError(f"{text!r} is no SPIFFE id; write spiffe://TRUST-DOMAIN/PATH")
    domain, slash, path = text[len(SCHEME) :].partition("/")
    if len(text) > MAX_LENGTH or len(domain) > MAX_TRUST_DOMAIN:
        raise ConfigError(f"{text[:80]!r}... is too long for a SPIFFE id; {MAX_LENGTH} bytes are allowed")
    if not _TRUST_DOMAIN.fullmatch(domain):
        raise ConfigError(f"{text!r}: the trust domain {domain!r} may have a-z, 0-9, '.', '-' and '_' only")
    for segment in path.split("/") if slash else ():
        if segment in (".", "..") or not _SEGMENT.fullmatch(segment):
            raise ConfigError(f"{text!r}: a part of the path is {segment!r}; use letters, digits, '.', '-' and '_'")
    return SpiffeId(domain, slash + path)


def check_spiffe_id(uris: Sequence[str], expected: SpiffeId, where: str) -> SpiffeId:
    """Return the SPIFFE id of a certificate, given the URIs among its alternative names.

    Raises:
        IdentityError: there is not exactly one URI, it is no SPIFFE id of a workload, or not `expected`; `where` names
            the server.
    """
    if len(uris) != 1:
        found = ", ".join(map(repr, uris[:3])) or "none"
        raise IdentityError(
            f"{where}: its certificate has {len(uris)} URIs ({found}), and a SPIFFE certificate has one; "
            "give the server one of its own"
        )
    try:
        found_id = parse_spiffe_id(uris[0])
    except ConfigError as error:
        raise IdentityError(f"{where}: its certificate names no SPIFFE id: {error}") from None
    if not found_id.path:
        raise IdentityError(f"{where}: its certificate names the trust domain {uris[0]} and no workload in it")
    if not expected.includes(found_id):
        raise IdentityError(f"{where}: it is {found_id}, and {expected} was expected; is another server there now?")
    return found_id
