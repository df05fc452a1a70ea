"""Names that need no DNS: those of the hosts file, and localhost."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable

HOSTS_PATH = "/etc/hosts"
LOOPBACK = ("127.0.0.1", "::1")
"""What RFC 6761 6.3 gives `localhost` and every name below it, whatever a name server may say."""


class HostsFile:
    """The names of a hosts file, read again when the file changes."""

    def __init__(self, path: str | os.PathLike[str] = HOSTS_PATH) -> None:
        self._path = path
        self._version: tuple[int, int, int] | None = None
        self._names: dict[str, list[str]] = {}

    def look_up(self, name: str) -> tuple[str, ...]:
        """Give the addresses of a name, none when the file does not know it; a file that cannot be read is empty."""
        self._read_when_changed()
        found = (_canonical(address) for address in self._names.get(_key(name), ()))
        return tuple(address for address in found if address is not None)

    def _read_when_changed(self) -> None:
        try:
            status = os.stat(self._path)
            # A file replaced within one tick of the clock keeps its time; size and inode tell it apart.
            version = (status.st_mtime_ns, status.st_size, status.st_ino)
            if version == self._version:
                return
            with open(self._path, encoding="utf-8", errors="replace") as file:
                self._names = _parse(file)
            self._version = version
        except OSError:
            self._version, self._names = None, {}


def loopback(name: str) -> tuple[str, ...]:
    """Give the addresses of `localhost` and the names below it, none for any other name."""
    key = _key(name)
    return LOOPBACK if key == "localhost" or key.endswith(".localhost") else ()


def _parse(lines: Iterable[str]) -> dict[str, list[str]]:
    """Read hosts(5): an address and its names to a line, `#` begins a comment."""
    names: dict[str, list[str]] = {}
    for line in lines:
        address, *aliases = line.partition("#")[0].split() or [""]
        for alias in aliases:
            names.setdefault(_key(alias), []).append(address)
    return names


def _key(name: str) -> str:
    return name.lower().removesuffix(".")


def _canonical(address: str) -> str | None:
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return None
