"""`grpclb bench` in runs too short to measure anything: the verb works, whatever the numbers."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

import pytest

from grpclb_core.cli import bench
from grpclb_core.cli.measure import budgets, report, rounds, scaffold, twin
from grpclb_core.cli.measure.fleets import TwinFleet
from grpclb_core.errors import ConfigError

SHORT_PICK = ("pick", "--rounds", "2", "--slow-rounds", "1", "--sizes", "2", "16", "--threads", "1", "2")
SHORT_CALL = ("call", "--rounds", "2", "--calls", "10", "--concurrency", "2")


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    bench.add_parser(parser.add_subparsers())
    options = parser.parse_args(["bench", *words])
    status: int = options.run(options)
    return status


@pytest.fixture
def no_scaffold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no scaffolding, as in an installation without a compiler; building it would take most of a test's time."""
    monkeypatch.setattr(scaffold, "load_scaffold", lambda source=None: None)


@pytest.mark.usefixtures("no_scaffold")
def test_pick_prints_ratios_to_the_twin(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*SHORT_PICK) == 0
    printed = capsys.readouterr()
    assert "plain Python 16" in printed.out
    assert "p2c_ewma 2 " in printed.out
    assert "from Python, 2 threads" in printed.out
    assert "taking up the change" in printed.out
    assert "x  " in printed.out
    assert "need" in printed.err, "what is left out without the scaffolding is said"


@pytest.mark.usefixtures("no_scaffold")
def test_pick_prints_json_that_describes_the_machine_and_not_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*SHORT_PICK, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["machine"]["command"].startswith("grpclb bench pick --rounds 2")
    assert set(found["machine"]) == {
        "command", "date", "cpu", "cores", "kernel", "python", "grpcio", "grpclb_core", "clock", "load",
    }  # fmt: skip
    row = found["sections"][0]["rows"][0]
    assert row["ratio"]["rounds"] == 2
    assert row["ratio"]["least"] <= row["ratio"]["median"] <= row["ratio"]["most"]
    kept = {budgets.TWIN.name, budgets.RULES.name, budgets.REBUILD.name}
    assert {check["budget"]["name"] for check in found["checks"]} == kept


def test_call_compares_the_channel_with_round_robin(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*SHORT_CALL, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    compared = [(row["name"], row["to"]) for row in found["sections"][0]["rows"]]
    assert ("this channel", "grpc.aio round_robin") in compared
    assert ("balancer.interceptors()", "one empty interceptor") in compared
    assert all(row["cost"]["median"] > 0 for row in found["sections"][0]["rows"])


def test_check_fails_when_a_budget_is_missed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from grpclb_core.cli.measure import call

    results = iter([1.5, 1.0])
    monkeypatch.setattr(
        call,
        "measure_calls",
        lambda *_: (report.Section("calls", []), [report.check(budgets.CHANNEL, next(results))]),
    )
    assert run("call", "--check") == bench.EXIT_MISSED
    assert "MISSED" in capsys.readouterr().out
    assert run("call", "--check") == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("pick", "--rounds", "0"), "--rounds 0 is out of range"),
        (("pick", "--sizes", "16", "-1"), "--sizes -1 is out of range"),
        (("pick", "--threads", "1000"), "--threads 1000 is out of range; use 1 to 64"),
        (("call", "--concurrency", "0"), "--concurrency 0 is out of range"),
    ],
)
def test_options_out_of_range_are_refused(words: Sequence[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(*words)


@pytest.mark.parametrize("words", [(), ("frob",), ("pick", "--rounds", "many")])
def test_words_that_mean_nothing_end_the_command(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        run(*words)
    assert exit_.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_a_scaffold_that_is_not_there_is_an_error_when_it_was_asked_for() -> None:
    with pytest.raises(ConfigError, match="cannot be built"):
        run("pick", "--scaffold", "nowhere.pyx")


def test_spread_of_one_reading_is_that_reading() -> None:
    assert rounds.spread([3.0]) == rounds.Spread(3.0, 3.0, 3.0, 3.0, 3.0, 1)


def test_ratios_are_taken_within_rounds() -> None:
    # A machine that becomes twice as slow halfway changes no ratio.
    assert rounds.ratio([2.0, 4.0, 4.0], [1.0, 2.0, 2.0]).most == 2.0


def test_interleave_runs_every_variant_once_a_round() -> None:
    seen: list[tuple[str, int]] = []

    def variant(name: str, turn: int) -> float:
        seen.append((name, turn))
        return float(turn)

    readings = rounds.interleave({name: lambda turn, name=name: variant(name, turn) for name in "ab"}, 3)
    assert readings == {"a": [0.0, 1.0, 2.0], "b": [0.0, 1.0, 2.0]}
    assert sorted(seen) == [(name, turn) for name in "ab" for turn in range(3)]


class TestTwin:
    """The yardstick has to do what the core does, or the comparison is worth nothing."""

    def test_settles_once(self) -> None:
        ticket = TwinFleet(4, seed=1).picker.pick()
        assert ticket.finish(twin.SUCCESS)
        assert not ticket.finish(twin.FAILURE)

    def test_gives_back_what_is_dropped(self) -> None:
        slot = twin.TwinSlot()
        ticket = twin.TwinPicker([slot]).pick()
        assert slot.timed == 1
        del ticket
        assert (slot.timed, slot.started_ns, slot.unjudged) == (0, 0, 1)

    def test_prefers_the_faster_of_two(self) -> None:
        slow, fast = twin.TwinSlot(), twin.TwinSlot()
        for slot, elapsed_ns in ((slow, 2_000), (fast, 1_000)):
            twin.TwinPicker([slot]).pick_at(1).finish_at(twin.SUCCESS, 1 + elapsed_ns)
        picker = twin.TwinPicker([slow, fast])
        for _ in range(20):
            picker.pick_at(3_000).finish_at(twin.CANCELLED, 3_001)
        assert fast.unjudged == 20

    def test_prefers_the_heavier_of_two_alike(self) -> None:
        light, heavy = twin.TwinSlot(), twin.TwinSlot()
        picker = twin.TwinPicker([light, heavy], [1.0, 2.0])
        tickets = [picker.pick_at(1, True) for _ in range(6)]
        assert (light.streams, heavy.streams) == (2, 4)
        assert len(tickets) == 6

    def test_refuses_an_unknown_outcome(self) -> None:
        with pytest.raises(ValueError, match="outcome 4"):
            TwinFleet(2, seed=1).picker.pick().finish(4)
