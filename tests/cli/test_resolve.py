"""`grpclb resolve`: what a target resolves to, for people and for machines."""

from __future__ import annotations

import contextlib
import contextvars
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import anyio
import pytest

import grpclb_core
from grpclb_core.cli.__main__ import EXIT_USAGE, main
from grpclb_core.cli.resolutions import JsonPrinter, TextPrinter
from grpclb_core.cli.resolve import follow
from grpclb_core.errors import ResolutionError
from grpclb_core.resolve import Sink
from grpclb_core.types import Address, Drop, Endpoint, Health, Locality, Resolution

SITE = Path(grpclb_core.__file__).parents[1]
PATIENCE_S = 20.0

A = Endpoint(Address("10.0.0.1", 50051), 2.0, Locality("eu", "eu-1a"), 1, Health.HEALTHY, {"pod": "a"})
B = Endpoint(Address("::1", 50051))
B_HEAVY = Endpoint(Address("::1", 50051), 3.0, health=Health.DRAINING)


class Scripted:
    """A resolver that says what it was told to say, and returns or crashes."""

    authority: str | None = None

    def __init__(self, *said: Resolution | ResolutionError | Exception | float) -> None:
        self._said = said

    async def run(self, sink: Sink) -> None:
        for said in self._said:
            if isinstance(said, Resolution):
                sink.update(said)
            elif isinstance(said, ResolutionError):
                sink.fail(said)
            elif isinstance(said, Exception):
                raise said
            else:
                await anyio.sleep(said)

    def refresh(self) -> None:
        pass


def apart(function: Callable[..., int], *arguments: object) -> int:
    """Call what runs an event loop, in a thread of its own: the loop of other tests may be open in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(contextvars.Context().run, function, *arguments).result()


def run_text(
    *said: Resolution | ResolutionError | Exception | float, watch: bool = False, timeout_s: float | None = None
) -> int:
    return apart(anyio.run, follow, Scripted(*said), TextPrinter("test:///a"), watch, timeout_s)


def run_json(*said: Resolution | ResolutionError | Exception | float, watch: bool = False) -> int:
    return apart(anyio.run, follow, Scripted(*said), JsonPrinter("test:///a"), watch, None)


Captured = pytest.CaptureFixture[str]


def json_lines(capsys: Captured) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for line in lines:
        assert line.pop("target") == "test:///a"
        assert line.pop("time")
    return lines


class TestOnce:
    def test_a_table(self, capsys: Captured) -> None:
        assert run_text(Resolution((A, B), version="7", ttl_s=5.0)) == 0
        assert capsys.readouterr().out == (
            "test:///a: 2 endpoints, version 7, good for 5 s\n"
            "ADDRESS         WEIGHT  PRIORITY  LOCALITY  HEALTH   METADATA\n"
            "10.0.0.1:50051  2       1         eu/eu-1a  healthy  pod=a\n"
            "[::1]:50051     1       0         -         unknown\n"
        )

    def test_what_a_control_plane_adds(self, capsys: Captured) -> None:
        weights = {Locality("eu", "eu-1a"): 3.0, Locality(): 1.0}
        assert run_text(Resolution((B,), locality_weights=weights, drops=(Drop("lb", 0.25),))) == 0
        first = capsys.readouterr().out.splitlines()[0]
        assert first == "test:///a: 1 endpoint, locality - weighs 1, locality eu/eu-1a weighs 3, drops 25 % as lb"

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("{}", "a service config"),
            ('{"loadBalancingConfig": [{"random": {}}]}', "a service config of policy random"),
            ("{", "a service config that is refused (service config: this is no JSON: Input data was truncated)"),
        ],
    )
    def test_a_service_config(self, capsys: Captured, text: str, said: str) -> None:
        assert run_text(Resolution((B,), service_config=text)) == 0
        assert capsys.readouterr().out.splitlines()[0] == f"test:///a: 1 endpoint, {said}"
        assert run_json(Resolution((B,), service_config=text)) == 0
        assert json_lines(capsys)[0]["service_config"] == text

    def test_the_first_answer_counts(self, capsys: Captured) -> None:
        assert run_text(ResolutionError("no luck"), Resolution((B,))) == 1
        output = capsys.readouterr()
        assert output.out == ""
        assert output.err.endswith(" ! test:///a: no luck\n")

    def test_with_a_timeout_it_is_tried_again(self, capsys: Captured) -> None:
        assert run_text(ResolutionError("no luck"), Resolution(()), Resolution((B,)), timeout_s=60.0) == 0
        output = capsys.readouterr()
        assert output.out.startswith("test:///a: 1 endpoint\n")
        assert "no luck" in output.err

    def test_silence_is_a_failure(self, capsys: Captured) -> None:
        assert run_text(3600.0, timeout_s=0.05) == 1
        assert "no endpoints within 0.05 s" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("said", "reason"),
        [
            ((), "the resolver ended without endpoints"),
            ((RuntimeError("boom"),), "the resolver crashed with RuntimeError: boom"),
            ((Resolution(()),), "the set is empty"),
        ],
    )
    def test_every_way_to_fail(
        self, capsys: Captured, said: tuple[Resolution | ResolutionError | Exception | float, ...], reason: str
    ) -> None:
        assert run_text(*said) == 1
        assert reason in capsys.readouterr().err

    def test_what_others_wrote_does_not_steer_the_terminal(self, capsys: Captured) -> None:
        endpoint = Endpoint(Address("10.0.0.1", 1), locality=Locality(zone="\x1b[2J"), metadata={"a": "b\nc"})
        assert run_text(Resolution((endpoint,), version="\x07")) == 0
        output = capsys.readouterr().out
        assert len(output.splitlines()) == 3
        assert all(line.isprintable() for line in output.splitlines())

    def test_json(self, capsys: Captured) -> None:
        assert (
            run_json(Resolution((A,), version="7", drops=(Drop("lb", 0.25),), locality_weights={A.locality: 3.0})) == 0
        )
        locality = {"region": "eu", "zone": "eu-1a", "sub_zone": ""}
        assert json_lines(capsys) == [
            {
                "event": "set",
                "count": 1,
                "version": "7",
                "ttl_s": None,
                "locality_weights": [{"locality": locality, "weight": 3.0}],
                "drops": [{"category": "lb", "fraction": 0.25}],
                "service_config": None,
                "endpoints": [
                    {
                        "address": "10.0.0.1:50051",
                        "weight": 2.0,
                        "priority": 1,
                        "locality": locality,
                        "health": "healthy",
                        "metadata": {"pod": "a"},
                    }
                ],
            }
        ]

    def test_json_of_a_failure(self, capsys: Captured) -> None:
        assert run_json(ResolutionError("no luck")) == 1
        assert json_lines(capsys) == [{"event": "failed", "reason": "no luck"}]


class TestWatch:
    SAID = (Resolution(()), Resolution((A, B)), ResolutionError("no luck"), Resolution((B_HEAVY,), version="8"))

    def test_every_change(self, capsys: Captured) -> None:
        assert run_text(*self.SAID, watch=True) == 0
        output = capsys.readouterr()
        assert [line.partition(" ")[2] for line in output.out.splitlines()[2:]] == [
            "+ 10.0.0.1:50051  weight 2, priority 1, locality eu/eu-1a, health healthy, metadata pod=a",
            "+ [::1]:50051  weight 1, priority 0, health unknown",
            "= 2 endpoints",
            "- 10.0.0.1:50051",
            "~ [::1]:50051  weight 1 -> 3, health unknown -> draining",
            "= 1 endpoint, version 8",
        ]
        assert "no luck" in output.err

    def test_every_change_in_json(self, capsys: Captured) -> None:
        assert run_json(*self.SAID, watch=True) == 0
        lines = json_lines(capsys)
        assert [line["event"] for line in lines] == [
            *("set", "added", "added", "state", "failed", "removed", "changed", "state")
        ]
        changed = lines[-2]
        assert isinstance(changed["before"], dict)
        assert isinstance(changed["endpoint"], dict)
        assert (changed["before"]["weight"], changed["endpoint"]["weight"]) == (1.0, 3.0)
        assert lines[-1]["version"] == "8"

    def test_it_ends_when_no_set_comes_in_time(self, capsys: Captured) -> None:
        assert run_text(ResolutionError("no luck"), 3600.0, watch=True, timeout_s=0.05) == 1
        assert "no endpoints within 0.05 s" in capsys.readouterr().err


def run(arguments: list[str]) -> int:
    return apart(main, arguments)


class TestCommand:
    def test_a_list(self, capsys: Captured) -> None:
        assert run(["resolve", "ipv4:10.0.0.1:1,10.0.0.2:2"]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 4

    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [
            (["nope:///x"], "unknown scheme 'nope'"),
            (["file:///x.yaml"], "call it .json or .toml"),
            (["localhost:1", "--timeout", "0"], "--timeout 0.0 is out of range"),
            (["localhost:1", "--timeout", "nan"], "--timeout nan is out of range"),
            (["localhost:1", "--config", "/none.json"], "/none.json: it cannot be read"),
        ],
    )
    def test_wrong_use(self, capsys: Captured, arguments: list[str], problem: str) -> None:
        assert run(["resolve", *arguments]) == EXIT_USAGE
        assert problem in capsys.readouterr().err

    def test_options_of_the_resolver(self, tmp_path: Path, capsys: Captured) -> None:
        config, endpoints = tmp_path / "config.toml", tmp_path / "endpoints.json"
        config.write_text("[file]\nmax_bytes = 5\n")
        endpoints.write_text('["10.0.0.1:1"]')
        assert run(["resolve", f"file://{endpoints}"]) == 0
        assert run(["resolve", f"file://{endpoints}", "--config", str(config)]) == 1
        assert "longer than 5 bytes" in capsys.readouterr().err


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    program = "import sys; from grpclb_core.cli.__main__ import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "resolve", *arguments],
        cwd=SITE,
        env=os.environ | {"PYTHONPATH": str(SITE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,  # for `select` to see all there is
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def line_with(stream: IO[bytes] | None, part: str) -> str:
    assert stream is not None
    while select.select([stream], [], [], PATIENCE_S)[0]:
        line = stream.readline().decode()
        if part in line:
            return line
        assert line, "it ended"
    pytest.fail("nothing came")


class TestProcess:
    def test_a_file_is_watched_until_interrupted(self, tmp_path: Path) -> None:
        path = tmp_path / "endpoints.json"
        path.write_text('["10.0.0.1:1"]')
        with running(f"file://{path}", "--watch", "--json") as process:
            assert line_with(process.stdout, '"set"')
            path.write_text('["10.0.0.2:2"]')
            assert json.loads(line_with(process.stdout, '"removed"'))["endpoint"]["address"] == "10.0.0.1:1"
            assert json.loads(line_with(process.stdout, '"added"'))["endpoint"]["address"] == "10.0.0.2:2"
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 130
        assert errors == b""

    def test_a_reader_that_has_enough_ends_it_quietly(self, tmp_path: Path) -> None:
        path = tmp_path / "endpoints.json"
        path.write_text('["10.0.0.1:1"]')
        with running(f"file://{path}", "--watch") as process:
            assert line_with(process.stdout, "10.0.0.1:1")
            assert process.stdout is not None
            process.stdout.close()
            path.write_text('["10.0.0.2:2"]')
            assert process.stderr is not None
            assert process.stderr.read() == b""
            assert process.wait(PATIENCE_S) == 0
