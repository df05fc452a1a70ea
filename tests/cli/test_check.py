"""`grpclb check`: every fault of a file, and an exit status for scripts."""

from __future__ import annotations

from pathlib import Path

import pytest

from grpclb_core.cli.__main__ import main

GOOD = [
    ("config.json", '{"dns": {"max_ttl_s": 10}, "seed": 1}', "a config"),
    ("config.toml", "seed = 1\n[connection]\nkeepalive_time_s = 20", "a config"),
    ("none.toml", "", "a config"),
    ("endpoints.json", '{"endpoints": ["10.0.0.1:1", "10.0.0.2:2"]}', "2 endpoints"),
    ("list.json", '["10.0.0.1:1"]', "1 endpoint"),
    ("service.json", '{"loadBalancingConfig": [{"cds": {}}, {"random": {}}]}', "a service config of policy random"),
    ("service.json", '{"methodConfig": [{"name": [{}]}]}', "a service config without a policy"),
    ("service.toml", 'loadBalancingPolicy = "ROUND_ROBIN"', "a service config of policy round_robin"),
    (
        "service.json",
        '{"methodConfig": [], "loadbalancingConfig": 1, "\\u001b": 2}',
        "a service config without a policy, with fields that nobody knows (loadbalancingConfig, \\x1b)",
    ),
    ("endpoints.toml", '[[endpoints]]\naddress = "10.0.0.1:1"', "1 endpoint"),
]


@pytest.mark.parametrize(("name", "text", "kind"), GOOD)
def test_a_good_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, kind: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert main(["check", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: {kind}, no fault found\n"


BAD = [
    (
        "config.json",
        '{"dns": {"max_ttl_s": -1, "x": 1}, "fil": {}}',
        ["config.dns.max_ttl_s: -1 is not usable", "config.dns.x: unknown option", "config.fil: unknown option"],
    ),
    ("config.toml", "[dns]\nmin_ttl_s = 40", ["config.dns: min_ttl_s 40.0 is above max_ttl_s 30.0"]),
    ("config.toml", "[dns\n", ["line 1"]),
    ("config.json", "3", ["config: expected a mapping of options, got int"]),
    ("deep.json", '{"dns": ' + "[" * 900 + "]" * 900 + "}", ["config"]),
    ("steering.json", '{"\\u001b[2J": 1}', ["config.\\x1b[2J: unknown option"]),
    (
        "endpoints.json",
        '{"endpoints": [{"address": "greeter:1", "weight": 0}]}',
        ["endpoints[0].weight: 0 is not usable", "endpoints[0].address: 'greeter:1' is not one address"],
    ),
    (
        "service.json",
        '{"loadBalancingConfig": [{"least_request": {"choiceCount": 1}}], "methodConfig": 3}',
        ["loadBalancingConfig[0].least_request.choiceCount: 1 is not usable", "methodConfig: expected an array"],
    ),
    ("service.json", '{"methodConfig": ' + "[" * 900 + "]" * 900 + "}", ["methodConfig[0]: expected an object"]),
    ("endpoints.yaml", "endpoints: []", ["call it .json or .toml"]),
]


@pytest.mark.parametrize(("name", "text", "problems"), BAD)
def test_every_fault_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, problems: list[str]
) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert main(["check", str(path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    for line, problem in zip(lines, problems, strict=True):
        assert line.startswith(f"{path}: ")
        assert problem in line


def test_several_files_are_all_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = tmp_path / "good.json"
    good.write_text("[]")
    missing = tmp_path / "missing.json"
    assert main(["check", str(missing), str(tmp_path), str(good)]) == 1
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == f"{missing}: it cannot be read (No such file or directory)"
    assert second.startswith(f"{tmp_path}: it ")
    assert third == f"{good}: 0 endpoints, no fault found"


def test_the_kind_may_be_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "endpoints.json"
    path.write_text('{"endpoint": []}')
    assert main(["check", str(path), "--kind", "endpoints"]) == 1
    assert "endpoints: missing" in capsys.readouterr().out
    path.write_text('{"endpoints": []}')
    assert main(["check", str(path), "--kind", "config"]) == 1
    assert "config.endpoints: unknown option" in capsys.readouterr().out
    path.write_text("[]")
    assert main(["check", str(path), "--kind", "service-config"]) == 1
    assert "service config: expected an object, got an array" in capsys.readouterr().out
