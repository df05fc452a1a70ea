"""Endpoints from a file of JSON or TOML, read again as soon as it changes.

What a look at the file means:

    endpoints             the set; it is pushed when it changed, or when the look before failed
    no file, no access,   reported, once; the last set stays
      or a broken file
    an empty list         reported; believed, so that an empty set is pushed, once it stood there for `empty_hold_s`

The file is looked at when the kernel tells of a change around it (`file_watch.py`), every `poll_s` in any case, and
read when it is not the one read before. What it may say is in `file_format.py`.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Awaitable, Callable
from pathlib import PurePath
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

import anyio

from ...config import Config, FileConfig
from ...errors import ConfigError, ResolutionError, TargetError
from ...types import Endpoint, Resolution
from ..target import Target
from .format import parse_document, read_endpoints, require_format
from .watch import Watch, directories_of

if TYPE_CHECKING:
    from .. import Resolver, Sink

MAX_SETTLE = 10  # times `settle_s`: a file that is written to without pause is read all the same
_VERSION_DIGITS = 12  # of SHA-256, to be read by people; 48 bits tell the states of one file apart

State = tuple[int, int, int, int, int]
"""What tells one state of a file from another: device, inode, size, and the times of its content and its inode (ns)."""


def make_resolver(target: Target, config: Config) -> Resolver:
    """Make the resolver of a `file` target.

    Raises:
        ConfigError: the target names no file, or one of a format that cannot be read.
    """
    path = path_of(target.rest)
    require_format(PurePath(path).suffix)
    return FileResolver(path, config.file)


def path_of(rest: str) -> str:
    """Return the absolute path that a target names after its colon (RFC 8089).

    Raises:
        TargetError: it names none.
    """
    host, slash, path = rest.removeprefix("//").partition("/")
    if not slash or host not in ("", "localhost"):
        raise TargetError("a file is named by its absolute path; write file:///path/of.json, with three slashes")
    path = slash + os.fsdecode(unquote_to_bytes(path))
    if "\0" in path:
        raise TargetError("the path holds a NUL; remove it")
    return path


class FileResolver:
    """Follows one file of endpoints, named by its absolute path.

    `clock` (seconds, monotonic) measures how long an empty list has been held.
    """

    authority: str | None = None

    def __init__(self, path: str, config: FileConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._config = config
        self._clock = clock
        self._forget()

    def _forget(self) -> None:
        self._asked = anyio.Event()
        self._seen: State | None = None  # the state that was read last, be it good or not
        self._pushed: tuple[Endpoint, ...] = ()
        self._fault = ""  # what was reported and still holds
        self._empty_since: float | None = None

    async def run(self, sink: Sink) -> None:
        """Follow the file and report until cancelled."""
        self._forget()
        with Watch() as watch:
            watch.aim(directories_of(self._path))  # before the look, so that no change falls between the two
            self._look(sink)
            # A file written twice within a tick of the clock looks the same. This look alone may come between two such
            # writes, those to come wait for `settle_s`: it is done again.
            self._seen = None
            while True:
                await self._pause(watch)
                watch.aim(directories_of(self._path))
                self._look(sink)

    def refresh(self) -> None:
        """Look at the file at once. To be called in the thread of the event loop."""
        self._asked.set()

    async def _pause(self, watch: Watch) -> None:
        """Wait for a reason to look, and then for the file to be left alone."""
        with anyio.move_on_after(self._config.poll_s):
            await _first(watch.wait, self._asked.wait)
        self._asked = anyio.Event()
        after = state_of(self._path)
        for _ in range(MAX_SETTLE):
            await anyio.sleep(self._config.settle_s)
            before, after = after, state_of(self._path)
            if before == after:
                break

    def _look(self, sink: Sink) -> None:
        state = state_of(self._path)
        if state is None or state != self._seen:
            self._read(sink)
        elif self._empty_since is not None:
            self._empty(sink)

    def _read(self, sink: Sink) -> None:
        self._seen = None
        try:
            self._seen, data = read_bounded(self._path, self._config.max_bytes)
            endpoints = read_endpoints(parse_document(data, self._path))
        except (ConfigError, ResolutionError) as error:
            self._empty_since = None
            return self._failed(sink, str(error))
        if not endpoints:
            return self._empty(sink)
        if endpoints != self._pushed or self._fault:
            sink.update(Resolution(endpoints, hashlib.sha256(data).hexdigest()[:_VERSION_DIGITS]))
        self._pushed, self._fault, self._empty_since = endpoints, "", None
        return None

    def _empty(self, sink: Sink) -> None:
        now_s, hold_s = self._clock(), self._config.empty_hold_s
        if self._empty_since is None:
            self._empty_since = now_s
        if self._pushed and now_s - self._empty_since >= hold_s:
            self._pushed = ()
            sink.update(Resolution(()))
        self._failed(sink, f"it lists no endpoints, which is believed after {hold_s:g} s")

    def _failed(self, sink: Sink, reason: str) -> None:
        advice = "the endpoints known before stay in use" if self._pushed else "no endpoints are known"
        fault = f"{self._path}: {reason}; {advice}"
        if fault != self._fault:
            sink.fail(ResolutionError(fault))
        self._fault = fault


def state_of(path: str) -> State | None:
    """Return the state of the file that a path leads to, None if it leads to none."""
    try:
        return _state(os.stat(path))
    except OSError:
        return None


def read_bounded(path: str, max_bytes: int) -> tuple[State, bytes]:
    """Read a whole file; return the state in which it was found as well.

    Raises:
        ResolutionError: it cannot be read, is no regular file, or is longer than `max_bytes`.
    """
    try:
        # A named pipe without a writer would keep an ordinary `open` waiting.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ResolutionError("it is not a regular file; name one of JSON or TOML")
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise ResolutionError(f"it cannot be read ({error.strerror})") from error
    if len(data) > max_bytes:
        raise ResolutionError(f"it is longer than {max_bytes} bytes; raise file.max_bytes if that is meant to be")
    return _state(status), data


def _state(status: os.stat_result) -> State:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


async def _first(*waits: Callable[[], Awaitable[None]]) -> None:
    """Return once one of these has returned; the others are cancelled."""

    async def run(wait: Callable[[], Awaitable[None]]) -> None:
        await wait()
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        for wait in waits:
            tasks.start_soon(run, wait)
