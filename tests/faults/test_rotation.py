"""Certificates that change under load, and servers that are not who they should be."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import psutil
import pytest
import trustme

import grpclb_core as lb
from support.certificates import authority_pem, issue
from support.load import Load
from support.servers import CHANNEL_OPTIONS, UNARY_UNARY, EchoServer, eventually

pytestmark = pytest.mark.anyio

NAME = "greeter"
REFRESH_S = 0.1


class Side:
    """Certificate files, and who may have signed those of the other side."""

    def __init__(self, folder: Path, *uris: str) -> None:
        self._folder = folder
        self._uris = uris
        folder.mkdir()
        self.handshakes = 0

    def use(self, authority: trustme.CA, *trusted: trustme.CA) -> None:
        """Replace all three files."""
        leaf = issue(authority, dns=(NAME,), uris=self._uris)
        for name, pem in (
            ("tls.key", leaf.key),
            ("tls.crt", leaf.certificate),
            ("ca.crt", b"".join(map(authority_pem, trusted))),
        ):
            fresh = self._folder / f"{name}.new"
            fresh.write_bytes(pem)
            fresh.rename(self._folder / name)

    def read(self, name: str) -> bytes:
        return (self._folder / name).read_bytes()

    def of_client(self, **options: object) -> lb.ReloadingCredentials:
        return lb.ReloadingCredentials(
            ca_file=str(self._folder / "ca.crt"),
            cert_file=str(self._folder / "tls.crt"),
            key_file=str(self._folder / "tls.key"),
            refresh_s=REFRESH_S,
            min_refresh_s=REFRESH_S,
            **options,  # type: ignore[arg-type]
        )

    def of_server(self) -> grpc.ServerCredentials:
        """Credentials that are read again at each handshake."""

        def configuration() -> grpc.ServerCertificateConfiguration:
            self.handshakes += 1
            pair = [(self.read("tls.key"), self.read("tls.crt"))]
            return grpc.ssl_server_certificate_configuration(pair, root_certificates=self.read("ca.crt"))

        return grpc.dynamic_ssl_server_credentials(configuration(), configuration, require_client_authentication=True)


@contextlib.asynccontextmanager
async def tls_servers(*sides: Side) -> AsyncIterator[str]:
    servers = [EchoServer(chr(ord("a") + number), side.of_server()) for number, side in enumerate(sides)]
    for server in servers:
        await server.start()
    try:
        yield "ipv4:" + ",".join(server.address for server in servers)
    finally:
        for server in servers:
            await server.stop()


def options() -> list[tuple[str, object]]:
    return [*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", NAME), ("grpc.default_authority", NAME)]


async def test_a_new_authority_and_new_leaves_fail_no_call(tmp_path: Path) -> None:
    """In three steps, as everywhere: both sides trust both authorities, the leaves change, the old one goes."""
    old, new = trustme.CA(), trustme.CA()
    client, server = Side(tmp_path / "client"), Side(tmp_path / "server")
    for side in (client, server):
        side.use(old, old)
    async with tls_servers(server, server) as target:
        async with lb.secure_channel(target, client.of_client(), options=options()) as channel:
            await eventually(lambda: all(one.state == "ready" for one in channel.balancer.snapshot().endpoints))
            async with Load(channel, rate=100).running() as load:
                for authority, trusted in ((old, (old, new)), (new, (old, new)), (new, (new,))):
                    server.use(authority, *trusted)
                    seen = server.handshakes
                    client.use(authority, *trusted)
                    await eventually(lambda: server.handshakes >= seen + 2, within_s=10)  # noqa: B023
                    await asyncio.sleep(0.3)
            assert load.failures == []
            assert len(load.answered) == load.calls
            await asyncio.sleep(0.5)
            port = int(target.rpartition(":")[2])
            mine = [one for one in psutil.Process().net_connections("tcp") if one.raddr and one.raddr.port == port]
            assert len(mine) == 1, "the connections before are closed"


async def test_files_that_cannot_be_used_change_nothing(tmp_path: Path) -> None:
    authority = trustme.CA()
    client, server = Side(tmp_path / "client"), Side(tmp_path / "server")
    for side in (client, server):
        side.use(authority, authority)
    async with tls_servers(server) as target:
        async with lb.secure_channel(target, client.of_client(), options=options()) as channel:
            await channel.unary_unary(UNARY_UNARY)(b"x")
            (tmp_path / "client" / "tls.crt").write_bytes(b"half a certif")
            await asyncio.sleep(1)
            assert await channel.unary_unary(UNARY_UNARY)(b"x") == b"x"
            assert server.handshakes == 2, "one to begin with, one of the channel"


async def test_files_that_cannot_be_used_are_refused_where_the_channel_is_made(tmp_path: Path) -> None:
    client = Side(tmp_path / "client")
    with pytest.raises(lb.IdentityError, match=r"tls\.crt|ca\.crt"):
        lb.secure_channel("ipv4:127.0.0.1:1", client.of_client())


async def test_a_server_that_is_somebody_else_gets_no_calls(tmp_path: Path) -> None:
    authority = trustme.CA()
    client = Side(tmp_path / "client")
    right, wrong = (Side(tmp_path / name, f"spiffe://example.org/{name}") for name in ("right", "wrong"))
    for side in (client, right, wrong):
        side.use(authority, authority)
    async with tls_servers(right, wrong) as target:
        credentials = client.of_client(expected_spiffe_id="spiffe://example.org/right")
        async with lb.secure_channel(target, credentials, options=options(), policy="round_robin") as channel:
            names = {await channel.unary_unary(UNARY_UNARY)(b"name", timeout=10) for _ in range(20)}
            assert names == {b"a"}
            await eventually(lambda: any(one.connection_error for one in channel.balancer.snapshot().endpoints))
            (error,) = (one.connection_error for one in channel.balancer.snapshot().endpoints if one.connection_error)
            assert "spiffe://example.org/wrong" in error
