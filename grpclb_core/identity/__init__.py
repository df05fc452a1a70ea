"""Who are we, and who is at the other end?

Entry points: `ReloadingCredentials`, which describes certificate files and tells when they were replaced; and
`verify_identity`, which looks at the certificate of a server before it gets calls. Read `material.py` first: what
certificates have to be like before they are used. Nothing here opens a gRPC channel.
"""

from .material import TlsMaterial
from .peer import fetch_identity, verify_identity
from .reload import CredentialsSink, ReloadingCredentials
from .spiffe import SpiffeId, check_spiffe_id, parse_spiffe_id

__all__ = [
    "CredentialsSink",
    "ReloadingCredentials",
    "SpiffeId",
    "TlsMaterial",
    "check_spiffe_id",
    "fetch_identity",
    "parse_spiffe_id",
    "verify_identity",
]
