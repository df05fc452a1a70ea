"""Hosts that can vanish: a network namespace with one link to here, and a packet filter on it."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from types import TracebackType

TOOLS = ("ip", "nft")

DROP_ALL = """
table inet hole {
  chain in { type filter hook input priority 0; policy drop; }
  chain out { type filter hook output priority 0; policy drop; }
}
"""

_numbers = itertools.count(1)


def why_not() -> str | None:
    """Return why there can be no such host on this machine; None if there can."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"needs {' and '.join(missing)} (Debian: iproute2, nftables)"
    if os.geteuid() != 0:
        return "needs root, for a network namespace of its own"
    name = f"grpclb-try-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode != 0:
        return f"network namespaces are not allowed here: {made.stderr.strip()}"
    _run("ip", "netns", "del", name)
    return None


class Host:
    """A namespace that is reached over a link of its own; `prefix` runs a command in it."""

    def __init__(self) -> None:
        number = next(_numbers)
        process = os.getpid() % 200
        self._namespace = f"grpclb-{os.getpid()}-{number}"
        self._here, self._there = f"glb{os.getpid() % 100000}h{number}", f"glb{os.getpid() % 100000}t{number}"
        self._near = f"10.{process + 20}.{number}.1"
        self.address = f"10.{process + 20}.{number}.2"

    @property
    def prefix(self) -> list[str]:
        return ["ip", "netns", "exec", self._namespace]

    def __enter__(self) -> Host:
        _run("ip", "netns", "add", self._namespace)
        try:
            _run("ip", "link", "add", self._here, "type", "veth", "peer", "name", self._there)
            _run("ip", "link", "set", self._there, "netns", self._namespace)
            _run("ip", "address", "add", f"{self._near}/30", "dev", self._here)
            _run("ip", "link", "set", self._here, "up")
            _run(*self.prefix, "ip", "address", "add", f"{self.address}/30", "dev", self._there)
            _run(*self.prefix, "ip", "link", "set", self._there, "up")
            _run(*self.prefix, "ip", "link", "set", "lo", "up")
        except BaseException:
            _run("ip", "netns", "del", self._namespace)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        _run("ip", "netns", "del", self._namespace)  # the link goes with it

    def vanish(self) -> None:
        """Drop every packet, in both directions, without a word."""
        _run(*self.prefix, "nft", "-f", "-", text=DROP_ALL)

    def come_back(self) -> None:
        _run(*self.prefix, "nft", "delete", "table", "inet", "hole")


def _run(*command: str, text: str = "") -> None:
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
