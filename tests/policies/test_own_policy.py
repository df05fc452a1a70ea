"""The example of a policy of one's own."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_policy" / "run.py"


def test_calls_go_where_workers_are_free() -> None:
    done = subprocess.run([sys.executable, EXAMPLE], capture_output=True, text=True, timeout=60, cwd=EXAMPLE.parent)
    assert done.returncode == 0, done.stderr
    first, *later = [ast.literal_eval(line) for line in done.stdout.splitlines()]
    assert all(95 <= share <= 105 for share in first.values())  # nothing is known yet
    for shares in later:  # of 300 calls, as 2 to 6 to 12
        assert 20 <= shares["small"] <= 40
        assert 75 <= shares["medium"] <= 105
        assert 165 <= shares["large"] <= 195
