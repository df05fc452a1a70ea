"""The comparison with grpcio and Envoy, one second of one scenario: that it runs, not what it finds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

COMPARISON = Path(__file__).parent / "e2e"


def test_one_second_of_each(tmp_path: Path) -> None:
    result, drawn = tmp_path / "e2e.json", tmp_path / "e2e.svg"
    command = [sys.executable, COMPARISON, "--seconds", "1", "--rounds", "1", "--policies", "round_robin"]
    command += ["--scenarios", "newcomer", "--json", result, "--svg", drawn]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(result.read_text())
    assert [line["balancer"] for line in found["lines"]] == [
        "the work alone", "grpcio round_robin", "grpcio weighted_round_robin", "Envoy LEAST_REQUEST", "round_robin"
    ]  # fmt: skip
    assert all(reading["calls"] > 50 for reading in found["readings"])
    assert all(sum(reading["served"]) == reading["calls"] for reading in found["readings"][1:])
    assert drawn.read_text().startswith("<svg")
    assert done.stdout.count("| newcomer |") == 6
