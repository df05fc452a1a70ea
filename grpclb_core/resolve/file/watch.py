"""Tells that something happened around a file, where the kernel can (inotify). What happened, the file itself says.

Directories are watched, not the file: a file is replaced by renaming another one over it, and a Kubernetes ConfigMap
by renaming a symbolic link to a directory, in a directory further up. A watch may miss things (network file systems
tell nothing, the number of watches is limited), so its owner looks at the file from time to time as well.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterable
from types import TracebackType

import anyio

MAX_LINKS = 40  # path_resolution(7): beyond, the kernel calls it a loop
_READ_SIZE = 65_536  # bytes of events taken at once; what they say is not looked at

# inotify(7), linux/inotify.h
IN_ATTRIB = 0x004
IN_CLOSE_WRITE = 0x008
IN_MOVED_FROM = 0x040
IN_MOVED_TO = 0x080
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_DELETE_SELF = 0x400
IN_MOVE_SELF = 0x800
IN_ONLYDIR = 0x0100_0000

# IN_MODIFY is left out: a file in the middle of being written is not worth a look.
EVENTS = (
    IN_ATTRIB
    | IN_CLOSE_WRITE
    | IN_MOVED_FROM
    | IN_MOVED_TO
    | IN_CREATE
    | IN_DELETE
    | IN_DELETE_SELF
    | IN_MOVE_SELF
    | IN_ONLYDIR
)


def directories_of(path: str) -> list[str]:
    """Return the directories in which a change of an entry changes where an absolute path leads.

    They are those of the links on the way and that of the file, or the one in which the way ends for now.
    """
    found: dict[str, None] = {}
    here, links = "/", 0
    parts = path.split("/")[::-1]
    while parts:
        name = parts.pop()
        step = os.path.join(here, name)
        if name in ("", ".", ".."):
            here = os.path.dirname(here) if name == ".." else here
        elif os.path.islink(step) and links < MAX_LINKS:
            found[here] = None
            links += 1
            link = _read_link(step)
            here = "/" if link.startswith("/") else here
            parts += link.split("/")[::-1]
        elif parts and os.path.isdir(step):
            here = step
        else:
            found[here] = None  # the file, what is in its place, or what is missing
            break
    return list(found)


def _read_link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:  # it went this moment
        return "."


class Watch:
    """Watches directories for changes of their entries; used as a context manager.

    Where the kernel offers no inotify, or no more of it, nothing is ever told.
    """

    def __init__(self) -> None:
        self._libc = _load_libc()
        self._file = -1
        self._watched: set[int] = set()

    def aim(self, directories: Iterable[str]) -> None:
        """Watch these directories from now on, and forget what was told of any so far."""
        if self._libc is None:
            return
        if self._file < 0:
            self._file = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
            if self._file < 0:  # no more instances for this user
                return
        # Adding a directory that is watched changes nothing. One that was removed and made again may have the inode it
        # had, so only the kernel can tell that it is another.
        added = {self._libc.inotify_add_watch(self._file, os.fsencode(path), EVENTS) for path in directories}
        for left in self._watched - added:
            self._libc.inotify_rm_watch(self._file, left)
        self._watched = added - {-1}  # not there, not allowed, or no more watches for this user
        with contextlib.suppress(BlockingIOError):
            os.read(self._file, _READ_SIZE)  # what is left wakes `wait` once more, and that does no harm

    async def wait(self) -> None:
        """Return once something happened since the last `aim`."""
        if self._file < 0:
            await anyio.sleep_forever()
        await anyio.wait_readable(self._file)

    def close(self) -> None:
        """Watch nothing."""
        if self._file >= 0:
            os.close(self._file)
        self._file, self._watched = -1, set()

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _load_libc() -> ctypes.CDLL | None:
    """Return the C library if it has inotify."""
    try:
        libc = ctypes.CDLL(None)
    except OSError:
        return None
    return libc if hasattr(libc, "inotify_init1") else None
