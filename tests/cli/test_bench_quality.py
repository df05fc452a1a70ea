"""`grpclb bench quality`: the table, the JSON, the picture, and what it says to wrong use."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from grpclb_core.cli.__main__ import EXIT_USAGE, main

SCENARIO = {
    "about": "One of four servers is ten times slower, while the load doubles.",
    "source": "",
    "seconds": 4,
    "servers": [{"count": 4, "service": {"type": "exponential", "mean_s": 0.01}}],
    "load": [{"calls_per_s": 100}, {"from_s": 2, "calls_per_s": 200}],
    "faults": [{"type": "slow", "servers": [0], "from_s": 1, "factor": 10}],
}


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(SCENARIO))
    return str(file)


def run(*words: str) -> int:
    return main(["bench", "quality", "--jobs", "1", *words])


def test_table(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(path, "--policy", "round_robin", "--policy", "p2c_ewma:decay_s=5", "--seeds", "3") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == path
    assert lines[1] == "  " + SCENARIO["about"]
    assert lines[2].split()[:4] == ["p50", "ms", "p99", "ms"]
    assert "p99/healthy" in lines[2]
    assert "errors %" not in lines[2]  # nothing failed
    assert [line.split()[0] for line in lines[3:5]] == ["round_robin", "p2c_ewma:decay_s=5"]
    assert "+-" in lines[3]
    assert [line.split()[:2] for line in lines[6:8]] == [["round_robin", "100"], ["round_robin", "200"]]
    assert lines[-1] == "means over 3 seeds, +- half the 95 % confidence interval (Student's t)"


def test_one_seed_has_no_interval(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(path, "--policy", "random", "--seeds", "1") == 0
    printed = capsys.readouterr().out
    assert "+-" not in printed
    assert printed.endswith("one seed\n")


def test_json(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(path, "--policy", "random", "--seeds", "2", "--json") == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert (result["policy"], result["seeds"]) == ("random", [1, 2])
    assert result["figures"]["p99_ms"]["mean"] > 10
    assert result["figures"]["return_s"]["mean"] is None
    assert len(result["runs"]) == len(result["steps"]) == 2


def test_in_several_processes(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "quality", path, "--policy", "random", "--seeds", "2"]
    assert main([*words, "--jobs", "2"]) == 0
    apart = capsys.readouterr().out
    assert main([*words, "--jobs", "1"]) == 0
    assert capsys.readouterr().out == apart


def test_picture(path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "result.svg"
    assert run(path, "--policy", "random", "--policy", "round_robin", "--seeds", "2", "--plot", str(picture)) == 0
    root = ET.fromstring(picture.read_text())
    words = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"random", "round_robin", "p99 in ms", "errors in %", "100/s", "200/s"} <= words
    assert len(list(root.iter("{http://www.w3.org/2000/svg}polyline"))) == 2


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--list") == 0
    assert "two-of-four-slow" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nobody"], "scenario 'nobody' is unknown"),
        (["--policy", "nobody"], "policy 'nobody' is unknown"),
        (["healthy", "--seeds", "0"], "--seeds 0 is out of range; use 1 to 1000"),
        (["healthy", "--seeds", "1", "--jobs", "0"], "--jobs 0 is out of range"),
        (["healthy", "--plot", "x.png"], "ends in .svg"),
        (["healthy", "--plot", "/nowhere/x.svg"], "in a folder that there is"),
    ],
)
def test_wrong_use(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words) == EXIT_USAGE
    assert message in capsys.readouterr().err
