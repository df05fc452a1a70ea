"""A file in a folder of its own, replaced by renaming."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from grpclb_core.config import FileConfig
from grpclb_core.resolve.file.resolver import FileResolver

FAST = FileConfig(poll_s=0.2, settle_s=0.01)


class FileWorld:
    def __init__(self, folder: Path) -> None:
        self._path = folder / "endpoints.json"
        self._hidden = folder / "hidden.json"
        self._failing = False
        self.resolver = FileResolver(str(self._path), FAST)

    async def publish(self, *addresses: str) -> None:
        path = self._hidden if self._failing else self._path
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps({"endpoints": addresses}))
        os.replace(draft, path)

    async def fail(self) -> None:
        self._failing = True
        if self._path.exists():
            os.replace(self._path, self._hidden)

    async def heal(self) -> None:
        self._failing = False
        os.replace(self._hidden, self._path)


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[FileWorld]:
    yield FileWorld(folder)
