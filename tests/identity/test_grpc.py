"""What gRPC makes of the credentials: mutual TLS across a rotation, and what Python's client cannot check."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import grpc
import grpc.aio
import pytest
import trustme

from grpclb_core.errors import IdentityError
from grpclb_core.identity import ReloadingCredentials, TlsMaterial, fetch_identity
from grpclb_core.types import Address
from support.certificates import Leaf, authority_pem, issue
from support.recorder import PATIENCE_S
from support.servers import UNARY_UNARY, EchoServer

pytestmark = pytest.mark.anyio

ID = "spiffe://example.org/ns/default/sa/greeter"


@contextlib.asynccontextmanager
async def serving(leaf: Leaf, client_ca: bytes | None = None) -> AsyncIterator[EchoServer]:
    credentials = grpc.ssl_server_credentials([(leaf.key, leaf.certificate)], client_ca, client_ca is not None)
    server = await EchoServer(credentials=credentials).start()
    try:
        yield server
    finally:
        await server.stop()


async def call(server: EchoServer, credentials: grpc.ChannelCredentials, name: str = "greeter") -> bytes:
    options = (("grpc.ssl_target_name_override", name), ("grpc.use_local_subchannel_pool", 1))
    async with grpc.aio.secure_channel(server.address, credentials, options=options) as channel:
        answer: bytes = await channel.unary_unary(UNARY_UNARY)(b"hello", timeout=PATIENCE_S)
        return answer


class Latest:
    """Keeps the credentials of the moment."""

    def __init__(self) -> None:
        self.credentials: list[grpc.ChannelCredentials] = []

    def update(self, credentials: grpc.ChannelCredentials, material: TlsMaterial) -> None:
        self.credentials.append(credentials)

    def fail(self, error: IdentityError) -> None:
        raise AssertionError(error)

    async def until(self, count: int) -> grpc.ChannelCredentials:
        with anyio.fail_after(PATIENCE_S):
            while len(self.credentials) < count:  # noqa: ASYNC110 - files are polled, and so is what came of them
                await anyio.sleep(0.01)
        return self.credentials[-1]


async def test_mutual_tls_across_a_rotation_of_leaf_and_authority(
    tmp_path: Path, ca: trustme.CA, other_ca: trustme.CA
) -> None:
    ca_file, cert_file, key_file = (tmp_path / name for name in ("ca.crt", "tls.crt", "tls.key"))

    def write(authority: bytes, leaf: Leaf) -> None:
        for path, content in ((ca_file, authority), (cert_file, leaf.certificate), (key_file, leaf.key)):
            path.write_bytes(content)

    write(authority_pem(ca), issue(ca))
    credentials = ReloadingCredentials(
        ca_file=str(ca_file), cert_file=str(cert_file), key_file=str(key_file), refresh_s=0.05, min_refresh_s=0.05
    )
    latest = Latest()
    async with (
        serving(issue(ca), authority_pem(ca)) as old,
        serving(issue(other_ca), authority_pem(other_ca)) as new,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(credentials.watch, latest)
        before = await latest.until(1)
        assert await call(old, before) == b"hello"
        write(authority_pem(other_ca), issue(other_ca))
        # The authority may be seen a moment before the pair, as the files are written one by one.
        seen = 1
        answer = b""
        while not answer:
            after = await latest.until(seen + 1)
            seen = len(latest.credentials)
            with contextlib.suppress(grpc.aio.AioRpcError):
                answer = await call(new, after)
        assert answer == b"hello"
        assert seen <= 3
        tasks.cancel_scope.cancel()


async def test_the_identity_of_a_grpc_server(ca: trustme.CA) -> None:
    async with serving(issue(ca, uris=[ID]), authority_pem(ca)) as server:
        address = Address(server.host, server.port)
        assert await fetch_identity(address, TlsMaterial(authority_pem(ca), *issue(ca))) == (ID,)


class TestLimitsOfGrpc:
    """As docs/identity.md tells them; should one of these fail, gRPC has learnt something."""

    async def test_a_certificate_without_a_dns_name_is_refused(self, ca: trustme.CA) -> None:
        credentials = TlsMaterial(authority_pem(ca)).channel_credentials()
        async with serving(issue(ca, dns=(), uris=[ID])) as server:
            for name in ("greeter", ID):
                with pytest.raises(
                    grpc.aio.AioRpcError, match="Hostname Verification Check failed|is not in peer certificate"
                ):
                    await call(server, credentials, name)

    async def test_a_call_does_not_tell_who_answered(self, ca: trustme.CA) -> None:
        async with serving(issue(ca, uris=[ID])) as server:
            options = (("grpc.ssl_target_name_override", "greeter"),)
            credentials = TlsMaterial(authority_pem(ca)).channel_credentials()
            async with grpc.aio.secure_channel(server.address, credentials, options=options) as channel:
                answer = channel.unary_unary(UNARY_UNARY)(b"hello", timeout=PATIENCE_S)
                await answer
                assert not [name for name in dir(answer) if "peer" in name or "auth" in name]
