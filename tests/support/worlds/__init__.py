"""Sources of endpoints under a test's control, one module a kind of resolver; tests/resolve/test_contract.py uses them.

Each module offers `world(folder)`, an async context manager; `BACKENDS` where it does not run on both event loops.
"""

from __future__ import annotations

import pkgutil
from pathlib import Path
from typing import Protocol

from grpclb_core.resolve import Resolver


class World(Protocol):
    """A resolver and its source."""

    resolver: Resolver

    async def publish(self, *addresses: str) -> None:
        """Have the source list these addresses, each `host:port`, and nothing else."""

    async def fail(self) -> None:
        """Have the source vanish, or answer with errors only."""

    async def heal(self) -> None:
        """Have the source answer again, with what was published last."""


WORLDS = sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
