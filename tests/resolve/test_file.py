"""Following a file of endpoints, however it is written."""

# ruff: noqa: ASYNC230, ASYNC240 - files of a line are written in no time, and nothing else runs meanwhile

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from grpclb_core.config import Config, FileConfig
from grpclb_core.errors import TargetError
from grpclb_core.resolve import parse_target, resolver_for
from grpclb_core.resolve.file import watch as file_watch
from grpclb_core.resolve.file.resolver import FileResolver, path_of
from support.recorder import Recorder

pytestmark = pytest.mark.anyio

A, B, C = "10.0.0.1:50051", "10.0.0.2:50051", "10.0.0.3:50051"

# Polling is as good as off, so that what these tests see is what the kernel told.
WATCHED = FileConfig(poll_s=60.0, settle_s=0.01)
POLLED = FileConfig(poll_s=0.05, settle_s=0.01)
QUIET_S = 0.2
WITHIN_S = 1.0  # of an event, a change is to be known


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "endpoints.json"


def text_of(*addresses: str, **fields: object) -> str:
    return json.dumps({"endpoints": [{"address": address, **fields} for address in addresses]})


def replace(path: Path, text: str) -> None:
    draft = path.with_suffix(".draft")
    draft.write_text(text)
    os.replace(draft, path)


def listed(sink: Recorder) -> list[str]:
    return [str(endpoint.address) for endpoint in sink.updates[-1].endpoints] if sink.updates else []


@asynccontextmanager
async def following(
    path: Path, sink: Recorder, config: FileConfig = WATCHED, clock: Clock | None = None
) -> AsyncIterator[FileResolver]:
    resolver = FileResolver(str(path), config, clock=clock or Clock())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(resolver.run, sink)
        yield resolver
        tasks.cancel_scope.cancel()


class TestTarget:
    @pytest.mark.parametrize(
        ("text", "path"),
        [
            ("file:///etc/greeter.json", "/etc/greeter.json"),
            ("FILE:///etc/greeter.json", "/etc/greeter.json"),
            ("file://localhost/etc/greeter.json", "/etc/greeter.json"),
            ("file:///a%20b/%C3%A4.toml", "/a b/ä.toml"),
        ],
    )
    def test_it_names_a_path(self, text: str, path: str) -> None:
        assert path_of(parse_target(text).rest) == path
        assert isinstance(resolver_for(parse_target(text), Config()), FileResolver)

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("file://etc/greeter.json", "with three slashes"),
            ("file://./greeter.json", "with three slashes"),
            ("file://", "with three slashes"),
            ("file://greeter.json", "with three slashes"),
            ("file:///etc/greeter%00.json", "holds a NUL"),
            ("file:///etc/greeter.yaml", "ends in '.yaml'; call it .json or .toml"),
            ("file:///etc/", "ends in ''"),
        ],
    )
    def test_what_names_none_is_refused(self, text: str, problem: str) -> None:
        with pytest.raises(TargetError, match=problem):
            resolver_for(parse_target(text), Config())


class TestChanges:
    """Each way to change a file is noticed at once, without polling."""

    async def test_renamed_over(self, path: Path, sink: Recorder) -> None:
        path.write_text(text_of(A))
        async with following(path, sink):
            await sink.until(lambda: listed(sink) == [A])
            for addresses in ([A, B], [B], [C, B]):
                began_s = anyio.current_time()
                replace(path, text_of(*addresses))
                await sink.until(lambda addresses=addresses: listed(sink) == sorted(addresses))
                assert anyio.current_time() - began_s < WITHIN_S
        assert sink.errors == []

    async def test_written_in_place(self, path: Path, sink: Recorder) -> None:
        path.write_text(text_of(A))
        async with following(path, sink):
            await sink.until(lambda: listed(sink) == [A])
            path.write_text(text_of(B))
            await sink.until(lambda: listed(sink) == [B])

    async def test_written_as_soon_as_it_was_read_and_of_the_same_size(self, path: Path, sink: Recorder) -> None:
        path.write_text(text_of(A))
        async with following(path, sink, POLLED):
            await sink.until(lambda: listed(sink) == [A])
            path.write_text(text_of(B))
            await sink.until(lambda: listed(sink) == [B])

    async def test_a_config_map_that_is_swapped(self, tmp_path: Path, sink: Recorder) -> None:
        def publish(version: str, *addresses: str) -> None:
            (tmp_path / version).mkdir()
            (tmp_path / version / "endpoints.json").write_text(text_of(*addresses))
            (tmp_path / "..data_tmp").symlink_to(version)
            os.replace(tmp_path / "..data_tmp", tmp_path / "..data")

        publish("..2026_01", A)
        path = tmp_path / "endpoints.json"
        path.symlink_to("..data/endpoints.json")
        async with following(path, sink):
            await sink.until(lambda: listed(sink) == [A])
            publish("..2026_02", B)
            await sink.until(lambda: listed(sink) == [B])
            publish("..2026_03", C)
            await sink.until(lambda: listed(sink) == [C])
        assert sink.errors == []

    async def test_the_file_behind_a_link(self, tmp_path: Path, sink: Recorder) -> None:
        (tmp_path / "far").mkdir()
        real = tmp_path / "far" / "real.json"
        real.write_text(text_of(A))
        path = tmp_path / "endpoints.json"
        path.symlink_to(real)
        async with following(path, sink):
            await sink.until(lambda: listed(sink) == [A])
            replace(real, text_of(B))
            await sink.until(lambda: listed(sink) == [B])

    async def test_removed_and_made_again(self, path: Path, sink: Recorder) -> None:
        path.write_text(text_of(A))
        async with following(path, sink):
            await sink.until(lambda: listed(sink) == [A])
            path.unlink()
            await sink.until(lambda: sink.errors)
            path.write_text(text_of(B))
            await sink.until(lambda: listed(sink) == [B])
        assert "No such file or directory); the endpoints known before stay in use" in str(sink.errors[0])

    async def test_moved_away_and_back_is_pushed_again(self, path: Path, sink: Recorder) -> None:
        path.write_text(text_of(A))
        async with following(path, sink):
            await sink.until(lambda: listed(sink) == [A])
            os.replace(path, path.with_suffix(".away"))
            await sink.until(lambda: sink.errors)
            os.replace(path.with_suffix(".away"), path)
            await sink.until(lambda: len(sink.updates) == 2)
        assert sink.updates[0] == sink.updates[1]

    async def test_a_folder_that_comes_goes_and_comes_back(self, tmp_path: Path, sink: Recorder) -> None:
        folder = tmp_path / "a" / "b"
        path = folder / "endpoints.json"
        async with following(path, sink):
            await sink.until(lambda: sink.errors)
            assert "no endpoints are known" in str(sink.errors[0])
            folder.mkdir(parents=True)
            path.write_text(text_of(A))
            await sink.until(lambda: listed(sink) == [A])
            os.rename(tmp_path / "a", tmp_path / "old")
            folder.mkdir(parents=True)
            path.write_text(text_of(B))
            (tmp_path / "old" / "b" / "endpoints.json").write_text(text_of(C))  # wakes the watch, as polling would
            await sink.until(lambda: listed(sink) == [B])

    async def test_all_of_it_by_polling_alone(
        self, path: Path, sink: Recorder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(file_watch, "_load_libc", lambda: None)
        async with following(path, sink, POLLED):
            await sink.until(lambda: sink.errors)
            for addresses in ([A], [A, B], [C]):
                replace(path, text_of(*addresses))
                await sink.until(lambda addresses=addresses: listed(sink) == addresses)
            path.unlink()
            await sink.until(lambda: len(sink.errors) == 2)
            path.write_text(text_of(A))
            await sink.until(lambda: listed(sink) == [A])

    async def test_refresh_looks_at_once(self, path: Path, sink: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(file_watch, "_load_libc", lambda: None)
        path.write_text(text_of(A))
        async with following(path, sink) as resolver:
            await sink.until(lambda: listed(sink) == [A])
            replace(path, text_of(B))
            resolver.refresh()
            await sink.until(lambda: listed(sink) == [B])


class TestWhatCounts:
    async def test_every_field_is_a_change_and_has_a_version(self, path: Path, sink: Recorder) -> None:
        path.write_text(text_of(A))
        async with following(path, sink):
            await sink.until(lambda: sink.updates)
            kinds: list[dict[str, object]] = [
                {"weight": 2},
                {"zone": "a"},
                {"priority": 1},
                {"health": "unhealthy"},
                {"metadata": {"a": "b"}},
            ]
            for fields in kinds:
                count = len(sink.updates)
                replace(path, text_of(A, **fields))
                await sink.until(lambda count=count: len(sink.updates) > count)
        assert len({update.version for update in sink.updates}) == len(sink.updates) == len(kinds) + 1

    async def test_neither_order_nor_layout_nor_neighbours_are(self, path: Path, sink: Recorder) -> None:
        path.write_text(text_of(A, B))
        async with following(path, sink):
            await sink.until(lambda: sink.updates)
            replace(path, text_of(B, A))
            replace(path, json.dumps([A, B], indent=4))
            os.utime(path)
            (path.parent / "other.json").write_text(text_of(C))
            await anyio.sleep(QUIET_S)
        assert len(sink.updates) == 1
        assert sink.errors == []

    async def test_toml(self, tmp_path: Path, sink: Recorder) -> None:
        path = tmp_path / "endpoints.toml"
        path.write_text(f'[[endpoints]]\naddress = "{A}"\n')
        async with following(path, sink):
            await sink.until(lambda: listed(sink) == [A])


class TestFaults:
    async def test_a_half_written_file_keeps_the_last_set_and_says_where(self, path: Path, sink: Recorder) -> None:
        path.write_text(text_of(A))
        async with following(path, sink):
            await sink.until(lambda: listed(sink) == [A])
            whole = text_of(A, B)
            with open(path, "w") as file:
                file.write(whole[:30])
            await sink.until(lambda: sink.errors)
            assert listed(sink) == [A]
            with open(path, "a") as file:
                file.write(whole[30:])
            await sink.until(lambda: listed(sink) == [A, B])
        (error,) = sink.errors
        assert str(error).startswith(f"{path}: line 1 column ")
        assert str(error).endswith("the endpoints known before stay in use")

    async def test_a_file_in_the_middle_of_being_written_is_waited_for(self, tmp_path: Path, sink: Recorder) -> None:
        path = tmp_path / "endpoints.toml"  # half of it is a whole TOML file of half the endpoints
        path.write_text(f'[[endpoints]]\naddress = "{A}"\n')
        config = FileConfig(poll_s=60.0, settle_s=0.5)
        async with following(path, sink, config):
            await sink.until(lambda: listed(sink) == [A])
            with open(path, "w") as file:
                for address in (A, B, C):
                    file.write(f'[[endpoints]]\naddress = "{address}"\n')
                    file.flush()
                    await anyio.sleep(0.1)
            await sink.until(lambda: listed(sink) == [A, B, C])
        assert [len(update.endpoints) for update in sink.updates] == [1, 3]
        assert sink.errors == []

    async def test_every_fault_of_a_file_is_reported_together_and_once(self, path: Path, sink: Recorder) -> None:
        path.write_text(text_of(A))
        async with following(path, sink, POLLED):
            await sink.until(lambda: sink.updates)
            replace(path, json.dumps([{"address": A, "weight": -1}, {"address": B, "health": "up"}]))
            await sink.until(lambda: sink.errors)
            os.utime(path)
            await anyio.sleep(QUIET_S)
        (error,) = sink.errors
        assert "endpoints[0].weight: -1 is not usable" in str(error)
        assert "endpoints[1].health: 'up' is not usable" in str(error)
        assert len(sink.updates) == 1

    async def test_another_fault_is_reported_and_the_same_set_after_it_is_pushed(
        self, path: Path, sink: Recorder
    ) -> None:
        path.write_text(text_of(A))
        async with following(path, sink):
            await sink.until(lambda: sink.updates)
            path.write_text("[")
            await sink.until(lambda: len(sink.errors) == 1)
            path.write_text("[1]")
            await sink.until(lambda: len(sink.errors) == 2)
            path.write_text(text_of(A))
            await sink.until(lambda: len(sink.updates) == 2)

    @pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
    async def test_what_is_no_file_is_not_read(self, path: Path, sink: Recorder, make: Callable[[Path], None]) -> None:
        make(path)
        async with following(path, sink):
            await sink.until(lambda: sink.errors)
            assert "not a regular file" in str(sink.errors[0]) or "Is a directory" in str(sink.errors[0])
            os.rename(path, path.with_suffix(".away"))
            path.write_text(text_of(A))
            await sink.until(lambda: listed(sink) == [A])

    async def test_a_file_that_is_too_long_is_not_read(self, path: Path, sink: Recorder) -> None:
        path.write_text(text_of(A) + " " * 100)
        async with following(path, sink, FileConfig(max_bytes=100)):
            await sink.until(lambda: sink.errors)
            path.write_text(text_of(A))
            await sink.until(lambda: listed(sink) == [A])
        assert "longer than 100 bytes; raise file.max_bytes" in str(sink.errors[0])

    async def test_a_file_that_may_not_be_read_and_then_may(self, path: Path, sink: Recorder) -> None:
        if os.geteuid() == 0:
            pytest.skip("root may read everything")
        path.write_text(text_of(A))
        path.chmod(0)
        async with following(path, sink):
            await sink.until(lambda: "Permission denied" in str(sink.errors[-1:]))
            path.chmod(0o600)
            await sink.until(lambda: listed(sink) == [A])


class TestEmptyList:
    async def test_it_is_believed_after_a_while(self, path: Path, sink: Recorder) -> None:
        clock = Clock()
        path.write_text(text_of(A))
        async with following(path, sink, POLLED, clock):
            await sink.until(lambda: listed(sink) == [A])
            path.write_text("[]")
            await sink.until(lambda: sink.errors)
            clock.now_s = POLLED.empty_hold_s - 1
            await anyio.sleep(QUIET_S)
            assert listed(sink) == [A]
            clock.now_s = POLLED.empty_hold_s
            await sink.until(lambda: len(sink.updates) == 2)
            assert listed(sink) == []
            path.write_text(text_of(B))
            await sink.until(lambda: listed(sink) == [B])
        assert sink.order == ["update", "fail", "update", "fail", "update"]
        assert "lists no endpoints, which is believed after 30 s" in str(sink.errors[0])

    async def test_what_interrupts_it_starts_the_time_again(self, path: Path, sink: Recorder) -> None:
        clock = Clock()
        path.write_text(text_of(A))
        async with following(path, sink, POLLED, clock):
            await sink.until(lambda: listed(sink) == [A])
            path.write_text("[]")
            await sink.until(lambda: len(sink.errors) == 1)
            path.write_text("[")
            await sink.until(lambda: len(sink.errors) == 2)
            clock.now_s = POLLED.empty_hold_s
            path.write_text("[]")
            await sink.until(lambda: len(sink.errors) == 3)
            await anyio.sleep(QUIET_S)
        assert len(sink.updates) == 1

    async def test_with_nothing_known_it_is_a_fault(self, path: Path, sink: Recorder) -> None:
        path.write_text("[]")
        async with following(path, sink):
            await sink.until(lambda: sink.errors)
        assert "lists no endpoints" in str(sink.errors[0])
        assert sink.updates == []
