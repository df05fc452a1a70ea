"""What certificates have to be like before they are used."""

from __future__ import annotations

import datetime

import pytest
import trustme
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from grpclb_core.errors import IdentityError
from grpclb_core.identity.material import TlsMaterial, check_authorities, check_pair
from support.certificates import THEN, Leaf, authority_pem, issue

LATER = datetime.datetime(2998, 1, 1, tzinfo=datetime.timezone.utc)

WHOLE: dict[trustme.CA, Leaf] = {}  # made once, cut in many ways


def check(certificate: bytes, key: bytes) -> None:
    check_pair(certificate, key, "tls.crt", "tls.key")


class TestPair:
    @pytest.mark.parametrize(
        "purposes",
        [(), (ExtendedKeyUsageOID.CLIENT_AUTH,), (ExtendedKeyUsageOID.SERVER_AUTH,)],
        ids=["any", "client", "server"],
    )
    def test_a_good_one(self, ca: trustme.CA, purposes: tuple[object, ...]) -> None:
        check(*issue(ca, uris=["spiffe://example.org/a"], purposes=purposes))  # type: ignore[arg-type]

    def test_with_intermediates(self, ca: trustme.CA) -> None:
        between = ca.create_child_ca()
        leaf = between.issue_cert("greeter")
        check(b"".join(part.bytes() for part in leaf.cert_chain_pems), leaf.private_key_pem.bytes())

    def test_one_of_rsa(self, ca: trustme.CA) -> None:
        leaf = ca.issue_cert("greeter", key_type=trustme.KeyType.RSA)
        check(leaf.cert_chain_pems[0].bytes(), leaf.private_key_pem.bytes())

    @pytest.mark.parametrize("purposes", [(), (ExtendedKeyUsageOID.SERVER_AUTH,)], ids=["any", "server"])
    def test_an_expired_one(self, ca: trustme.CA, purposes: tuple[object, ...]) -> None:
        leaf = issue(ca, not_after=THEN, purposes=purposes)  # type: ignore[arg-type]
        with pytest.raises(IdentityError, match=r"^tls\.crt: certificate has expired; replace it$"):
            check(*leaf)

    def test_one_for_later(self, ca: trustme.CA) -> None:
        with pytest.raises(IdentityError, match="not yet valid"):
            check(*issue(ca, not_before=LATER))

    def test_the_key_of_another(self, ca: trustme.CA) -> None:
        with pytest.raises(IdentityError, match=r"^tls\.crt with tls\.key: the key is not that of the certificate;"):
            check(issue(ca).certificate, issue(ca).key)

    def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_a_password(self, ca: trustme.CA) -> None:
        with pytest.raises(IdentityError, match="the key is encrypted"):
            check(*issue(ca, password=b"secret"))

    @given(st.integers(0, 1), st.floats(0, 1, exclude_max=True))
    def test_half_of_one(self, ca: trustme.CA, part: int, share: float) -> None:
        halved = list(WHOLE.setdefault(ca, issue(ca)))
        # Without its last line a PEM block has no end.
        halved[part] = halved[part][: int(len(halved[part].rpartition(b"-----END")[0]) * share)]
        with pytest.raises(IdentityError, match="replace both"):
            check(*halved)

    @given(st.binary(max_size=200), st.binary(max_size=200))
    def test_any_bytes(self, certificate: bytes, key: bytes) -> None:
        with pytest.raises(IdentityError):
            check(certificate, key)


class TestAuthorities:
    def test_good_ones(self, ca: trustme.CA, other_ca: trustme.CA) -> None:
        both = authority_pem(ca) + "# Főtanúsítvány\n".encode() + authority_pem(other_ca)
        check_authorities(both, "ca.crt")
        assert len(TlsMaterial(ca=both).client_context().get_ca_certs()) == 2

    @pytest.mark.parametrize("content", [b"", b"nothing of this kind", b"\xff\xfe"])
    def test_none(self, content: bytes) -> None:
        with pytest.raises(IdentityError, match=r"^ca\.crt: not a PEM file of certificates"):
            check_authorities(content, "ca.crt")

    def test_half_of_the_second(self, ca: trustme.CA, other_ca: trustme.CA) -> None:
        with pytest.raises(IdentityError):
            check_authorities(authority_pem(ca) + authority_pem(other_ca)[:-40], "ca.crt")


def test_a_key_does_not_show_itself(ca: trustme.CA) -> None:
    leaf = issue(ca)
    assert "KEY" not in repr(TlsMaterial(authority_pem(ca), leaf.certificate, leaf.key))
