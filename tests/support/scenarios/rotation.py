"""Certificates that change under load."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import psutil
import trustme

import grpclb_core as lb
from support.certificates import authority_pem, issue
from support.load import Load
from support.servers import CHANNEL_OPTIONS, EchoServer, eventually

from . import PATIENCE_S, Report, all_ready, report_of

NAME = "greeter"
REFRESH_S = 0.1
SETTLED_S = 0.5  # connections that were replaced are closed by then

OPEN = "connections to a server afterwards"


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
    """Run a server for each side; yield their target."""
    servers = [EchoServer(chr(ord("a") + number), side.of_server()) for number, side in enumerate(sides)]
    for server in servers:
        await server.start()
    try:
        yield "ipv4:" + ",".join(server.address for server in servers)
    finally:
        for server in servers:
            await server.stop()


def tls_options() -> list[tuple[str, object]]:
    return [*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", NAME), ("grpc.default_authority", NAME)]


async def rotation(folder: Path) -> Report:
    """Replace authority and leaves in three steps: trust both authorities, change the leaves, drop the old one.

    `recovered_s` is the longest time from new files to a connection with each of two servers that was made with them.
    """
    clock = asyncio.get_running_loop().time
    old, new = trustme.CA(), trustme.CA()
    client, server = Side(folder / "client"), Side(folder / "server")
    for side in (client, server):
        side.use(old, old)
    async with tls_servers(server, server) as target:
        channel = lb.secure_channel(target, client.of_client(), options=tls_options())
        async with channel, Load(channel, rate=100).running() as load:
            await all_ready(channel)
            taken_s = []
            for authority, trusted in ((old, (old, new)), (new, (old, new)), (new, (new,))):
                server.use(authority, *trusted)
                seen, began_s = server.handshakes, clock()
                client.use(authority, *trusted)
                await eventually(lambda: server.handshakes >= seen + 2, PATIENCE_S)  # noqa: B023
                taken_s.append(clock() - began_s)
                await asyncio.sleep(0.3)
            await asyncio.sleep(SETTLED_S)
            port = int(target.rpartition(":")[2])
            mine = [one for one in psutil.Process().net_connections("tcp") if one.raddr and one.raddr.port == port]
    return report_of(load, max(taken_s), {OPEN: len(mine)})
