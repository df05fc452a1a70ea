"""Certificate files that are replaced: noticed, checked, and used when they are whole."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import grpc
import pytest
import trustme

from grpclb_core.errors import ConfigError, IdentityError
from grpclb_core.identity import ReloadingCredentials, TlsMaterial, reload
from grpclb_core.identity.reload import MAX_BYTES, SETTLE_S
from support.certificates import THEN, Leaf, authority_pem, issue
from support.recorder import PATIENCE_S

pytestmark = pytest.mark.anyio

REFRESH_S = 3600.0


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest, asyncio_backend: Any) -> Any:
    return asyncio_backend if request.param == "asyncio" else request.param


class Files:
    """Three files, written in place."""

    def __init__(self, folder: Path, ca: trustme.CA, leaf: Leaf) -> None:
        self.ca, self.certificate, self.key = (folder / name for name in ("ca.crt", "tls.crt", "tls.key"))
        self.write(ca=authority_pem(ca), certificate=leaf.certificate, key=leaf.key)

    def write(self, **contents: bytes) -> None:
        for name, content in contents.items():
            getattr(self, name).write_bytes(content)

    def credentials(self) -> ReloadingCredentials:
        return ReloadingCredentials(
            ca_file=str(self.ca), cert_file=str(self.certificate), key_file=str(self.key), refresh_s=REFRESH_S
        )


@pytest.fixture
def files(tmp_path: Path, ca: trustme.CA) -> Files:
    return Files(tmp_path, ca, issue(ca))


class Sink:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.materials: list[TlsMaterial] = []
        self.errors: list[str] = []

    def update(self, credentials: grpc.ChannelCredentials, material: TlsMaterial) -> None:
        assert isinstance(credentials, grpc.ChannelCredentials)
        self.materials.append(material)

    def fail(self, error: IdentityError) -> None:
        self.errors.append(str(error))


class Pace:
    """Time that passes when told to; the moments that files are given to settle pass by themselves."""

    def __init__(self) -> None:
        self.on_settling: list[Callable[[], None]] = []
        self._idle = anyio.Event()
        self._next = anyio.Event()

    async def sleep(self, seconds: float) -> None:
        if seconds == SETTLE_S:
            if self.on_settling:
                self.on_settling.pop(0)()
            return await anyio.lowlevel.checkpoint()
        assert seconds == REFRESH_S
        self._idle.set()
        await self._next.wait()
        self._next = anyio.Event()
        return None

    async def settled(self) -> None:
        """Wait until the watcher has nothing to do for now."""
        with anyio.fail_after(PATIENCE_S):
            await self._idle.wait()

    async def turn(self) -> None:
        """Have the watcher look once more, and wait until it has."""
        self._idle = anyio.Event()
        self._next.set()
        await self.settled()


@contextlib.asynccontextmanager
async def watching(credentials: ReloadingCredentials) -> AsyncIterator[tuple[Sink, Pace]]:
    sink, pace = Sink(), Pace()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: credentials.watch(sink, sleep=pace.sleep))
        await pace.settled()
        yield sink, pace
        tasks.cancel_scope.cancel()


class TestDescription:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({}, "no file is named"),
            ({"cert_file": "a"}, "go together"),
            ({"ca_file": "a", "key_file": "a"}, "go together"),
            ({"ca_file": "a", "refresh_s": 9.9}, "use 10.0 to 86400"),
            ({"ca_file": "a", "refresh_s": 86_401.0}, "out of range"),
            ({"ca_file": "a", "refresh_s": float("nan")}, "out of range"),
            ({"ca_file": "a", "min_refresh_s": 0.0}, "out of range"),
            ({"ca_file": "a", "expected_spiffe_id": "example.org"}, "no SPIFFE id"),
        ],
    )
    async def test_what_cannot_be(self, options: dict[str, object], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            ReloadingCredentials(**options)  # type: ignore[arg-type]

    async def test_a_test_may_be_quicker(self) -> None:
        assert ReloadingCredentials(ca_file="a", refresh_s=0.1, min_refresh_s=0.1).refresh_s == 0.1


class TestRotation:
    async def test_a_new_leaf(self, files: Files, ca: trustme.CA) -> None:
        async with watching(files.credentials()) as (sink, pace):
            leaf = issue(ca)
            files.write(certificate=leaf.certificate, key=leaf.key)
            await pace.turn()
            assert [material.certificate for material in sink.materials[1:]] == [leaf.certificate]
            assert sink.errors == []

    async def test_a_new_authority(self, files: Files, ca: trustme.CA, other_ca: trustme.CA) -> None:
        async with watching(files.credentials()) as (sink, pace):
            both = authority_pem(ca) + authority_pem(other_ca)
            files.write(ca=both)
            await pace.turn()
            files.write(ca=authority_pem(other_ca))
            await pace.turn()
            assert [material.ca for material in sink.materials[1:]] == [both, authority_pem(other_ca)]

    async def test_the_same_again_is_no_change(self, files: Files) -> None:
        async with watching(files.credentials()) as (sink, pace):
            files.write(key=files.key.read_bytes())
            await pace.turn()
            assert len(sink.materials) == 1

    async def test_a_change_that_leaves_size_and_time_alone(self, files: Files, ca: trustme.CA) -> None:
        leaf = issue(ca)
        async with watching(files.credentials()) as (sink, pace):
            before = files.ca.stat()
            files.write(ca=files.ca.read_bytes()[:-1] + b" ")
            os.utime(files.ca, ns=(before.st_atime_ns, before.st_mtime_ns))
            files.write(certificate=leaf.certificate, key=leaf.key)
            await pace.turn()
            assert sink.materials[-1].ca == files.ca.read_bytes()

    async def test_kubernetes_swaps_a_link(self, tmp_path: Path, ca: trustme.CA, other_ca: trustme.CA) -> None:
        for name, authority in (("..1", ca), ("..2", other_ca)):
            (tmp_path / name).mkdir()
            Files(tmp_path / name, authority, issue(authority))
        (tmp_path / "..data").symlink_to("..1")
        for name in ("ca.crt", "tls.crt", "tls.key"):
            (tmp_path / name).symlink_to(f"..data/{name}")
        credentials = ReloadingCredentials(
            ca_file=str(tmp_path / "ca.crt"),
            cert_file=str(tmp_path / "tls.crt"),
            key_file=str(tmp_path / "tls.key"),
            refresh_s=REFRESH_S,
        )
        async with watching(credentials) as (sink, pace):
            (tmp_path / "..data_tmp").symlink_to("..2")
            (tmp_path / "..data_tmp").rename(tmp_path / "..data")
            await pace.turn()
            assert [material.ca for material in sink.materials] == [authority_pem(ca), authority_pem(other_ca)]
            assert sink.errors == []

    async def test_a_swap_between_two_reads_is_not_taken_for_a_set(
        self, files: Files, ca: trustme.CA, other_ca: trustme.CA, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The CA of the set before and the pair of the set after would both be in order, and not fit together."""
        old, new = files.ca.read_bytes(), issue(other_ca)
        read = reload._read

        def read_and_swap(path: str) -> bytes:
            content = read(path)
            if path == str(files.ca) and content == old:
                files.write(ca=authority_pem(other_ca), certificate=new.certificate, key=new.key)
            return content

        monkeypatch.setattr(reload, "_read", read_and_swap)
        assert files.credentials().load() == TlsMaterial(authority_pem(other_ca), *new)

    async def test_files_that_never_hold_still(self, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
        contents = iter(range(1000))
        monkeypatch.setattr(reload, "_read", lambda path: b"%d" % next(contents))
        with pytest.raises(IdentityError, match="they change faster than they can be read"):
            files.credentials().load()


class TestFaults:
    async def test_half_a_set_keeps_the_last_one_and_is_told_once(self, files: Files, ca: trustme.CA) -> None:
        leaf = issue(ca)
        async with watching(files.credentials()) as (sink, pace):
            files.write(certificate=leaf.certificate)
            await pace.turn()
            await pace.turn()
            assert len(sink.errors) == 1
            assert "the key is not that of the certificate" in sink.errors[0]
            assert len(sink.materials) == 1
            files.write(key=leaf.key)
            await pace.turn()
            assert sink.materials[-1].key == leaf.key
            assert len(sink.errors) == 1

    async def test_half_a_set_that_becomes_whole_in_a_moment_is_no_fault(self, files: Files, ca: trustme.CA) -> None:
        leaf = issue(ca)
        async with watching(files.credentials()) as (sink, pace):
            files.write(certificate=leaf.certificate)
            pace.on_settling = [lambda: None, lambda: files.write(key=leaf.key)]
            await pace.turn()
            assert sink.errors == []
            assert sink.materials[-1].key == leaf.key

    async def test_a_fault_that_comes_back_is_told_again(self, files: Files) -> None:
        good = files.key.read_bytes()
        async with watching(files.credentials()) as (sink, pace):
            for content in (b"", good, b""):
                files.write(key=content)
                await pace.turn()
            assert len(sink.errors) == 2
            assert len(sink.materials) == 1

    async def test_an_expired_certificate(self, files: Files, ca: trustme.CA) -> None:
        leaf = issue(ca, not_after=THEN)
        async with watching(files.credentials()) as (sink, pace):
            files.write(certificate=leaf.certificate, key=leaf.key)
            await pace.turn()
            assert sink.errors == [f"{files.certificate}: certificate has expired; replace it"]
            assert len(sink.materials) == 1

    async def test_no_good_set_to_begin_with(self, files: Files) -> None:
        good = files.key.read_bytes()
        files.key.unlink()
        async with watching(files.credentials()) as (sink, pace):
            assert sink.materials == []
            assert sink.errors == [
                f"{files.key}: cannot be read: No such file or directory; check path and permissions"
            ]
            files.write(key=good)
            await pace.turn()
            assert len(sink.materials) == 1

    @pytest.mark.parametrize("kind", ["folder", "pipe", "device", "large"])
    async def test_what_is_no_such_file(self, files: Files, kind: str) -> None:
        files.ca.unlink()
        if kind == "folder":
            files.ca.mkdir()
        elif kind == "pipe":
            os.mkfifo(files.ca)
        elif kind == "device":
            files.ca.symlink_to("/dev/zero")
        else:
            files.ca.write_bytes(b"#" * (MAX_BYTES + 1))
        with pytest.raises(IdentityError, match=f"^{files.ca}: "):
            files.credentials().load()  # and does not hang

    async def test_parts_that_are_not_named_are_not_used(self, files: Files) -> None:
        assert ReloadingCredentials(ca_file=str(files.ca)).load() == TlsMaterial(files.ca.read_bytes())
        pair = ReloadingCredentials(cert_file=str(files.certificate), key_file=str(files.key)).load()
        assert pair == TlsMaterial(None, files.certificate.read_bytes(), files.key.read_bytes())
