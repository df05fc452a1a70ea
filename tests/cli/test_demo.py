"""`grpclb demo`, run for real but short; what its numbers come to depends on the machine and is not tested."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import psutil
import pytest

from grpclb_core.cli import PACKAGE_HOME

COMMAND = [sys.executable, "-m", "grpclb_core.cli", "demo"]
SERVER_MODULE = "grpclb_core.cli.demo.server"
SHORT = ["--seconds", "4", "--rate", "40"]


def start(*options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *options], cwd=PACKAGE_HOME, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def servers_of(process: psutil.Process) -> list[psutil.Process]:
    return [child for child in process.children(recursive=True) if SERVER_MODULE in child.cmdline()]


def wait_for_servers(demo: subprocess.Popen[str], count: int = 6) -> list[psutil.Process]:
    parent = psutil.Process(demo.pid)
    ends_s = time.monotonic() + 10
    while len(found := servers_of(parent)) < count:
        assert time.monotonic() < ends_s, "the servers did not start"
        time.sleep(0.05)
    return found


def test_a_short_run(tmp_path: Path) -> None:
    picture = tmp_path / "demo.svg"
    demo = start(*SHORT, "--json", "--picture", str(picture))
    servers = wait_for_servers(demo)
    stdout, stderr = demo.communicate(timeout=30)
    assert demo.returncode == 0, stderr

    result = json.loads(stdout)
    for side in (result["round_robin"], result["grpclb"]):
        assert side["answered"] + sum(side["errors"].values()) == 160  # 4 s at 40 a second
        assert side["answered"] > 100
        assert side["p50_ms"] <= side["p99_ms"] <= side["p999_ms"]
        assert sum(side["shares"].values()) == pytest.approx(1, abs=0.001)
    assert result["grpclb"]["shares"]["F"] > 0
    assert 0 <= result["grpclb"]["new_server_after_s"] <= 3
    assert result["grpclb"]["dns_lookups"] > 1
    assert [event["what"] for event in result["events"][:2]] == ["added to DNS", "killed"]
    assert "F added to DNS" in stderr
    assert result["takeaway"] in stderr

    assert ElementTree.parse(picture).getroot().tag.endswith("svg")
    assert psutil.wait_procs(servers, timeout=2)[1] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_servers_end_with_their_parent(number: signal.Signals) -> None:
    demo = start(*SHORT, "--no-picture")
    servers = wait_for_servers(demo)
    demo.send_signal(number)
    demo.communicate(timeout=10)
    assert demo.returncode != 0
    assert psutil.wait_procs(servers, timeout=5)[1] == []


def test_every_bad_option_is_named_before_anything_starts(tmp_path: Path) -> None:
    options = ["--seconds=2", "--rate=0", "--seed=-1", "--policy=luck", f"--picture={tmp_path}/missing/demo.svg"]
    done = start(*options)
    stdout, stderr = done.communicate(timeout=10)
    assert done.returncode == 64
    assert stdout == ""
    for name in ("--seconds 2", "--rate 0", "--seed -1", "'luck' is unknown", "cannot be written"):
        assert name in stderr


@pytest.mark.parametrize("option", ["--rate=nan", "--rate=inf", "--rate=fast", "--picture=demo.gif"])
def test_a_bad_option_is_refused(option: str) -> None:
    done = start(option)
    assert done.communicate(timeout=10)[0] == ""
    assert done.returncode == 64
