"""Certificate files that are replaced while the process runs: noticed, checked, and only then used.

Files come in many ways: renamed one by one, written in place, or, as Kubernetes does, all at once behind a symbolic
link. So all are read, until two readings in a row agree; a set that does not fit together is given a moment to become
whole, and the last good one stays in use meanwhile.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Awaitable, Callable
from typing import Protocol

import anyio
import anyio.to_thread
import grpc
import msgspec

from ..errors import ConfigError, IdentityError
from .material import TlsMaterial, check_authorities, check_pair
from .spiffe import SpiffeId, parse_spiffe_id

MAX_REFRESH_S = 86_400.0
"""A day, at which linkerd's identity client stops too: what is looked at less often may as well not be."""
MAX_BYTES = 1024 * 1024
"""Of one file; the bundle of all public authorities is a quarter of that."""
READINGS = 10
"""A set that differs between this many readings in a row is being written all the time."""
SETTLE_TRIES = 5
SETTLE_S = 0.2
"""A set that is replaced file by file is whole within a second, as a rule; so long nobody is told."""


class CredentialsSink(Protocol):
    """What a watcher of files reports to."""

    def update(self, credentials: grpc.ChannelCredentials, material: TlsMaterial) -> None:
        """Use these from now on, for new connections; the two are the same thing in two forms."""

    def fail(self, error: IdentityError) -> None:
        """Take note that the files cannot be used; the credentials before stay."""


class ReloadingCredentials(msgspec.Struct, frozen=True, kw_only=True):
    """TLS credentials of files that may be replaced at any time.

    Example:
        >>> ReloadingCredentials(ca_file="/tls/ca.crt", cert_file="/tls/tls.crt", key_file="/tls/tls.key").refresh_s
        10.0

    Raises:
        ConfigError: no file is named, one of certificate and key without the other, `refresh_s` is out of range, or
            `expected_spiffe_id` is no SPIFFE id.
    """

    ca_file: str | None = None
    """PEM file of the authorities that may vouch for servers; None: gRPC's default ones."""
    cert_file: str | None = None
    """PEM file of our own certificate, its intermediates after it; None: we do not show one (no mTLS)."""
    key_file: str | None = None
    """PEM file of its private key, without a password."""
    refresh_s: float = 10.0
    """How often the files are read. The least that linkerd's identity client allows; three small files cost nothing."""
    min_refresh_s: float = 10.0
    """Floor of `refresh_s`, to be lowered by tests alone."""
    expected_spiffe_id: str | None = None
    """Who servers must be: `spiffe://TRUST-DOMAIN/PATH`, or `spiffe://TRUST-DOMAIN` for any of a trust domain."""

    def __post_init__(self) -> None:
        problems = []
        if self.ca_file is None and self.cert_file is None and self.key_file is None:
            problems.append("no file is named; give ca_file, or cert_file and key_file, or all three")
        if (self.cert_file is None) != (self.key_file is None):
            problems.append("cert_file and key_file go together; give both or neither")
        if not 0 < self.min_refresh_s <= self.refresh_s <= MAX_REFRESH_S:
            problems.append(
                f"refresh_s {self.refresh_s} is out of range; use {self.min_refresh_s} to {MAX_REFRESH_S:.0f}"
            )
        try:
            _ = self.expected_server
        except ConfigError as error:
            problems.append(f"expected_spiffe_id: {error}")
        if problems:
            raise ConfigError(problems)

    @property
    def expected_server(self) -> SpiffeId | None:
        """Who servers must be, parsed."""
        return None if self.expected_spiffe_id is None else parse_spiffe_id(self.expected_spiffe_id)

    def load(self) -> TlsMaterial:
        """Read the files and check them. This blocks, for milliseconds.

        Raises:
            IdentityError: a file cannot be read, or the set cannot be used.
        """
        material = TlsMaterial(*self._read_stable())
        if material.ca is not None:
            check_authorities(material.ca, str(self.ca_file))
        if material.certificate is not None and material.key is not None:
            check_pair(material.certificate, material.key, str(self.cert_file), str(self.key_file))
        return material

    async def watch(self, sink: CredentialsSink, *, sleep: Callable[[float], Awaitable[None]] = anyio.sleep) -> None:
        """Report the credentials, and each new set of them, until cancelled.

        What cannot be used is reported once, for as long as it stays the same fault. That includes a certificate in use
        that expires. `sleep` is how time passes between two readings.
        """
        used: TlsMaterial | None = None
        fault = ""
        while True:
            try:
                material = await self._load_settled(sleep)
            except IdentityError as error:
                if str(error) != fault:
                    fault = str(error)
                    sink.fail(error)
            else:
                fault = ""
                if material != used:
                    used = material
                    sink.update(material.channel_credentials(), material)
            await sleep(self.refresh_s)

    async def _load_settled(self, sleep: Callable[[float], Awaitable[None]]) -> TlsMaterial:
        """Load the files; if they cannot be used, look a few times more whether that was only a moment.

        Raises:
            IdentityError: it was not.
        """
        for _ in range(SETTLE_TRIES - 1):
            try:
                return await self._load_in_thread()
            except IdentityError:
                await sleep(SETTLE_S)
        return await self._load_in_thread()

    async def _load_in_thread(self) -> TlsMaterial:
        # A file system that hangs must not hold up whoever cancels us: the thread is left behind then.
        return await anyio.to_thread.run_sync(self.load, abandon_on_cancel=True)

    def _read_stable(self) -> tuple[bytes | None, ...]:
        """Read all files until two readings in a row agree.

        One reading alone can catch the CA of the set before and the pair of the set after it.
        """
        paths = (self.ca_file, self.cert_file, self.key_file)
        before = _read_all(paths)
        for _ in range(READINGS):
            after = _read_all(paths)
            if after == before:
                return after
            before = after
        names = ", ".join(path for path in paths if path is not None)
        raise IdentityError(f"{names}: they change faster than they can be read; is something writing them in a loop?")


def _read_all(paths: tuple[str | None, ...]) -> tuple[bytes | None, ...]:
    return tuple(None if path is None else _read(path) for path in paths)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise IdentityError(f"{path}: not a regular file; give the path of a PEM file")
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise IdentityError(f"{path}: cannot be read: {error.strerror or error}; check path and permissions") from None
    if len(content) > MAX_BYTES:
        raise IdentityError(f"{path}: longer than {MAX_BYTES} bytes, so no PEM file of certificates")
    return content


def _open_at_once(path: str, flags: int) -> int:
    # A pipe in place of a file would have us wait for somebody who writes into it.
    return os.open(path, flags | os.O_NONBLOCK)
