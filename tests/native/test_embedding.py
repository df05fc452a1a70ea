"""The example builds against what a wheel ships, and drives the core without the GIL."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.compiled import load, run_python

LINE = re.compile(r"endpoint \d: (\d+) picks, (\d+) answered, (\d+) failed, (\d+) in flight")


@pytest.mark.parametrize(("threads", "calls"), [(1, 100), (4, 50_000)])
def test_the_example_counts_every_call(example: Path, staged: Path, threads: int, calls: int) -> None:
    printed = run_python("run.py", str(threads), str(calls), cwd=example, site=staged / "site")
    picks, answered, failed, in_flight = (sum(map(int, column)) for column in zip(*LINE.findall(printed), strict=True))
    assert picks == threads * calls
    assert answered == threads * calls * 9 // 10
    assert failed == threads * calls // 10
    assert in_flight == 0


def test_the_example_refuses_what_is_no_picker(example: Path) -> None:
    driver = load("driver", example)
    for argument in (None, object()):
        with pytest.raises(TypeError, match="picker"):
            driver.drive(argument, 1)
