"""The table of docs/reliability.md: every fault is in it, and every test that it names exists."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "reliability.md").read_text()

FAULTS = [*range(1, 15), 17, 22, 24]


def test_every_fault_is_in_it() -> None:
    assert [number for number in FAULTS if f"| F{number} " not in PAGE] == []


def test_every_test_that_it_names_exists() -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)[^`]*`", PAGE)
    assert len(named) > len(FAULTS)
    assert [(path, name) for path, name in named if f"def {name}(" not in (TESTS / path).read_text()] == []
