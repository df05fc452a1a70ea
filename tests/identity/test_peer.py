"""Who listens at an address: TLS servers with all kinds of certificates, and servers without any."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest
import trustme
from anyio.streams.tls import TLSStream

from grpclb_core.errors import IdentityError
from grpclb_core.identity import TlsMaterial, fetch_identity, parse_spiffe_id, verify_identity
from grpclb_core.types import Address
from support.certificates import THEN, Leaf, authority_pem, issue
from support.recorder import PATIENCE_S

pytestmark = pytest.mark.anyio

ID = "spiffe://example.org/ns/default/sa/greeter"


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest, asyncio_backend: Any) -> Any:
    return asyncio_backend if request.param == "asyncio" else request.param


def server_context(leaf: Leaf, client_ca: trustme.CA | None = None, protocol: str = "h2") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with trustme.Blob(leaf.certificate).tempfile() as certificate, trustme.Blob(leaf.key).tempfile() as key:
        context.load_cert_chain(certificate, key)
    context.set_alpn_protocols([protocol])
    if client_ca is not None:
        client_ca.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
        context.maximum_version = ssl.TLSVersion.TLSv1_2  # in TLS 1.3 a client is through before it is refused
    return context


@contextlib.asynccontextmanager
async def listening(context: ssl.SSLContext | None) -> AsyncIterator[Address]:
    """Shake hands with whoever comes; None: accept and say nothing."""

    async def handle(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            with contextlib.suppress(ssl.SSLError, anyio.BrokenResourceError, anyio.EndOfStream):
                if context is None:
                    await anyio.sleep_forever()
                tls = await TLSStream.wrap(stream, server_side=True, ssl_context=context)
                await tls.receive()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handle)
        yield Address("127.0.0.1", listener.extra(anyio.abc.SocketAttribute.local_port))
        tasks.cancel_scope.cancel()


async def test_the_uris_of_a_certificate(ca: trustme.CA) -> None:
    uris = (ID, "https://example.org/b")
    async with listening(server_context(issue(ca, uris=uris))) as address:
        assert await fetch_identity(address, TlsMaterial(authority_pem(ca))) == uris


async def test_a_server_that_is_who_it_should_be(ca: trustme.CA) -> None:
    async with listening(server_context(issue(ca, dns=(), uris=[ID]))) as address:
        for expected in (ID, "spiffe://example.org"):
            found = await verify_identity(address, TlsMaterial(authority_pem(ca)), parse_spiffe_id(expected))
            assert str(found) == ID


async def test_a_server_that_is_somebody_else(ca: trustme.CA) -> None:
    async with listening(server_context(issue(ca, uris=["spiffe://example.org/other"]))) as address:
        with pytest.raises(IdentityError, match=f"{address}: it is spiffe://example.org/other, and {ID} was expected"):
            await verify_identity(address, TlsMaterial(authority_pem(ca)), parse_spiffe_id(ID))


async def test_a_server_that_asks_who_we_are(ca: trustme.CA, other_ca: trustme.CA) -> None:
    async with listening(server_context(issue(ca, uris=[ID]), client_ca=other_ca)) as address:
        leaf = issue(other_ca)
        assert await fetch_identity(address, TlsMaterial(authority_pem(ca), *leaf)) == (ID,)
        with pytest.raises(IdentityError, match="no TLS handshake: .*; does it speak TLS, and want our certificate"):
            await fetch_identity(address, TlsMaterial(authority_pem(ca)))


class TestDistrust:
    async def test_another_authority(self, ca: trustme.CA, other_ca: trustme.CA) -> None:
        async with listening(server_context(issue(ca, uris=[ID]))) as address:
            with pytest.raises(IdentityError, match="not to be trusted: unable to get local issuer certificate"):
                await fetch_identity(address, TlsMaterial(authority_pem(other_ca)))

    async def test_an_expired_certificate(self, ca: trustme.CA) -> None:
        async with listening(server_context(issue(ca, uris=[ID], not_after=THEN))) as address:
            with pytest.raises(IdentityError, match="certificate has expired"):
                await fetch_identity(address, TlsMaterial(authority_pem(ca)))

    async def test_another_name_if_one_is_asked_for(self, ca: trustme.CA) -> None:
        async with listening(server_context(issue(ca, dns=["greeter"], uris=[ID]))) as address:
            material = TlsMaterial(authority_pem(ca))
            assert await fetch_identity(address, material, server_name="greeter") == (ID,)
            with pytest.raises(IdentityError, match="Hostname mismatch"):
                await fetch_identity(address, material, server_name="other")

    async def test_no_http2(self, ca: trustme.CA) -> None:
        async with listening(server_context(issue(ca, uris=[ID]), protocol="http/1.1")) as address:
            with pytest.raises(IdentityError, match="does not speak HTTP/2"):
                await fetch_identity(address, TlsMaterial(authority_pem(ca)))


class TestNoAnswer:
    async def test_nobody_listens(self, ca: trustme.CA) -> None:
        async with listening(None) as address:
            pass
        with pytest.raises(IdentityError, match=f"^{address}: cannot be reached: "):
            await fetch_identity(address, TlsMaterial(authority_pem(ca)))

    async def test_no_socket_there(self, ca: trustme.CA, tmp_path: Path) -> None:
        with pytest.raises(IdentityError, match="cannot be reached"):
            await fetch_identity(Address(str(tmp_path / "none")), TlsMaterial(authority_pem(ca)))

    async def test_silence(self, ca: trustme.CA) -> None:
        async with listening(None) as address:
            with anyio.fail_after(PATIENCE_S), pytest.raises(IdentityError, match="no TLS handshake within 0.2 s"):
                await fetch_identity(address, TlsMaterial(authority_pem(ca)), timeout_s=0.2)

    @pytest.mark.parametrize("says", [b"220 mail.example.org\r\n", b""])
    async def test_another_protocol(self, ca: trustme.CA, says: bytes) -> None:
        async def handle(stream: anyio.abc.SocketStream) -> None:
            async with stream:
                await stream.receive()
                await stream.send(says)

        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, handle)
            address = Address("127.0.0.1", listener.extra(anyio.abc.SocketAttribute.local_port))
            with pytest.raises(IdentityError, match="no TLS handshake: "):
                await fetch_identity(address, TlsMaterial(authority_pem(ca)))
            tasks.cancel_scope.cancel()
