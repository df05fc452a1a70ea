"""Certificates that change under load, and servers that are not who they should be."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import trustme

import grpclb_core as lb
from support.scenarios.rotation import OPEN, Side, rotation, tls_options, tls_servers
from support.servers import UNARY_UNARY, eventually

pytestmark = pytest.mark.anyio


async def test_a_new_authority_and_new_leaves_fail_no_call(tmp_path: Path) -> None:
    """In three steps, as everywhere: both sides trust both authorities, the leaves change, the old one goes."""
    report = await rotation(tmp_path)
    assert report.failed == 0
    assert report.calls > 50
    assert report.figures[OPEN] == 1, "the connections before are closed"


async def test_files_that_cannot_be_used_change_nothing(tmp_path: Path) -> None:
    authority = trustme.CA()
    client, server = Side(tmp_path / "client"), Side(tmp_path / "server")
    for side in (client, server):
        side.use(authority, authority)
    async with tls_servers(server) as target:
        async with lb.secure_channel(target, client.of_client(), options=tls_options()) as channel:
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
        async with lb.secure_channel(target, credentials, options=tls_options(), policy="round_robin") as channel:
            names = {await channel.unary_unary(UNARY_UNARY)(b"name", timeout=10) for _ in range(20)}
            assert names == {b"a"}
            await eventually(lambda: any(one.connection_error for one in channel.balancer.snapshot().endpoints))
            (error,) = (one.connection_error for one in channel.balancer.snapshot().endpoints if one.connection_error)
            assert "spiffe://example.org/wrong" in error
