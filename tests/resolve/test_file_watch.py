"""Being told that something happened around a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from grpclb_core.resolve.file import watch as file_watch
from grpclb_core.resolve.file.watch import Watch, directories_of

pytestmark = pytest.mark.anyio

QUIET_S = 0.1


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path.resolve()


@pytest.fixture
def watch() -> Iterator[Watch]:
    with Watch() as opened:
        yield opened


def told(path: Path) -> list[str]:
    return directories_of(str(path))


def test_a_plain_file(home: Path) -> None:
    assert told(home / "a.json") == [str(home)]
    (home / "a.json").touch()
    assert told(home / "a.json") == [str(home)]
    assert told(home / "." / "b" / ".." / "a.json") == [str(home)], "a way ends where it cannot go on"


def test_a_folder_that_is_not_there_yet(home: Path) -> None:
    assert told(home / "b" / "c" / "a.json") == [str(home)]


def test_a_config_map(home: Path) -> None:
    (home / "..2026_01").mkdir()
    (home / "..2026_01" / "a.json").touch()
    (home / "..data").symlink_to("..2026_01")
    (home / "a.json").symlink_to("..data/a.json")
    assert told(home / "a.json") == [str(home), str(home / "..2026_01")]


def test_links_to_elsewhere(home: Path) -> None:
    for name in ("here", "there", "far"):
        (home / name).mkdir()
    (home / "here" / "a.json").symlink_to(home / "there" / "b.json")
    (home / "there" / "b.json").symlink_to("../far/c.json")
    assert told(home / "here" / "a.json") == [str(home / name) for name in ("here", "there", "far")]


def test_a_loop_of_links_ends(home: Path) -> None:
    (home / "a.json").symlink_to("b.json")
    (home / "b.json").symlink_to("a.json")
    assert told(home / "a.json") == [str(home)]


async def is_told(watch: Watch) -> bool:
    with anyio.move_on_after(QUIET_S):
        await watch.wait()
        return True
    return False


async def test_it_tells_of_what_happens(home: Path, watch: Watch) -> None:
    watch.aim([str(home)])
    assert not await is_told(watch)
    path = home / "a.json"
    for act in (
        lambda: path.write_text("1"),
        lambda: path.write_text("2"),
        lambda: path.chmod(0o600),
        lambda: os.replace(path, home / "b.json"),
        lambda: path.symlink_to("b.json"),
        path.unlink,
    ):
        act()
        assert await is_told(watch)
        watch.aim([str(home)])
        assert not await is_told(watch), "what was told once is told again"


async def test_it_tells_when_a_directory_went_and_can_watch_the_next_of_its_name(home: Path, watch: Watch) -> None:
    folder = home / "a"
    folder.mkdir()
    watch.aim([str(folder)])
    folder.rmdir()
    assert await is_told(watch)
    folder.mkdir()
    watch.aim([str(folder)])
    assert not await is_told(watch)
    (folder / "b").touch()
    assert await is_told(watch)


async def test_thousands_of_events_are_one(home: Path, watch: Watch) -> None:
    watch.aim([str(home)])
    for number in range(5000):
        (home / f"a{number % 10}").touch()
    assert await is_told(watch)
    for _ in range(20):
        watch.aim([str(home)])
    assert not await is_told(watch)


async def test_directories_that_are_not_there_are_left_out(home: Path, watch: Watch) -> None:
    watch.aim([str(home / "none"), str(home)])
    (home / "a").touch()
    assert await is_told(watch)


class NoMore:
    """A C library whose user has no inotify instances left."""

    def inotify_init1(self, flags: int) -> int:
        return -1


@pytest.mark.parametrize("library", [None, NoMore()])
async def test_without_inotify_it_tells_nothing(home: Path, library: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_watch, "_load_libc", lambda: library)
    with Watch() as watch:
        watch.aim([str(home)])
        (home / "a").touch()
        assert not await is_told(watch)


def test_it_holds_one_descriptor_and_gives_it_back(home: Path) -> None:
    before = os.listdir("/proc/self/fd")
    (home / "a").mkdir()
    with Watch() as watch:
        for _ in range(3):
            watch.aim([str(home)])
            watch.aim([str(home), str(home / "a")])
        assert len(os.listdir("/proc/self/fd")) == len(before) + 1
    assert os.listdir("/proc/self/fd") == before
