"""Scenarios as data: those that ship, and what is said to those that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from grpclb_core.errors import ConfigError
from grpclb_core.quality import Scenario, load_scenario, parse_scenario, scenario_names

GOOD = {
    "about": "",
    "source": "",
    "seconds": 10,
    "servers": [{"count": 4, "service": {"type": "exponential", "mean_s": 0.01}}],
    "load": [{"calls_per_s": 100}],
}

# Those that a change must not lose.
EXPECTED = {
    "healthy",
    "one-of-four-slow",
    "two-of-four-slow",
    "one-of-four-fails",
    "one-of-four-hangs",
    "gc-pauses",
    "recovery-1-per-second",
    "recovery-100-per-second",
    "once-a-minute",
    "cold-newcomer",
    "even-idle",
    "even-busy",
    "all-fail",
    "single-server",
    "set-replaced",
    "removed-and-back",
    "streams-and-unary",
    "mixed-cost",
    "rolling-deploy",
    "churn",
    "clock-steps-back",
    "clock-stands-still",
    "clock-jumps-ahead",
    "finagle-cold-start",
    "finagle-slow-middle",
    "finagle-failing",
    "tower-mix",
    "brpc-one-slow",
    "brpc-two-slow",
    "prequal-ramp",
    "ten-thousand-servers",
}


def parse(**changed: object) -> Scenario:
    given = {name: value for name, value in (GOOD | changed).items() if value is not None}
    return parse_scenario(json.dumps(given).encode(), "mine")


class TestThoseThatShip:
    def test_all_are_there(self) -> None:
        assert set(scenario_names()) >= EXPECTED

    @pytest.mark.parametrize("name", scenario_names())
    def test_each_says_what_it_shows_and_whose_it_is(self, name: str) -> None:
        scenario = load_scenario(name)
        assert scenario.about.endswith(".")
        assert scenario.source.endswith((".", ")."))
        assert "\n" not in scenario.about

    def test_the_ramp_is_that_of_the_paper(self) -> None:
        ramp = load_scenario("prequal-ramp")
        allocation = 100 * 10 / 0.2  # servers x slots / work
        assert [round(rate / allocation, 2) for rate in ramp.rates] == [
            0.75,
            0.83,
            0.93,
            1.03,
            1.14,
            1.27,
            1.41,
            1.57,
            1.74,
        ]
        assert (ramp.clients, ramp.size, ramp.deadline_s) == (100, 100, 5)

    def test_one_may_be_in_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.json"
        path.write_text(json.dumps(GOOD))
        assert load_scenario(str(path)) == parse()


class TestValues:
    def test_capacity(self) -> None:
        groups = [
            {"count": 3, "slots": 2, "service": {"type": "constant", "mean_s": 0.1}, "speed": 2},
            {"joins_s": 5, "service": {"type": "constant", "mean_s": 0.1}},
        ]
        scenario = parse(servers=groups, load=[{"of_capacity": 0.5}])
        assert scenario.capacity == pytest.approx(3 * 2 / 0.1 * 2)
        assert scenario.rates == (pytest.approx(60),)

    def test_mean_of_a_mix(self) -> None:
        parts = [
            {"weight": 3, "service": {"type": "constant", "mean_s": 0.1}},
            {"weight": 1, "service": {"type": "constant", "mean_s": 0.5}},
        ]
        assert parse(servers=[{"service": {"type": "mix", "parts": parts}}]).servers[0].service.mean_s == pytest.approx(
            0.2
        )

    @pytest.mark.parametrize(
        ("which", "numbers"),
        [([2, 0], (2, 0)), (":", (0, 1, 2, 3)), ("1:3", (1, 2)), ("::2", (0, 2)), ("3:", (3,)), (":2", (0, 1))],
    )
    def test_servers_by_number_and_by_slice(self, which: object, numbers: tuple[int, ...]) -> None:
        scenario = parse(faults=[{"type": "hang", "servers": which, "from_s": 0}])
        assert scenario.numbers(scenario.faults[0].servers) == numbers

    def test_when_all_is_well_again(self) -> None:
        faults = [
            {"type": "hang", "servers": [0], "from_s": 3, "until_s": 4},
            {"type": "slow", "servers": [1], "from_s": 2, "until_s": 6},
        ]
        scenario = parse(faults=faults)
        assert (scenario.fault_s, scenario.healed_s, scenario.faulty) == (2, 6, {0, 1})
        assert parse(faults=[*faults, {"type": "hang", "servers": [3], "from_s": 5}]).healed_s is None
        assert scenario.healthy_twin() == parse()

    def test_where_all_are_faulty_nobody_is(self) -> None:
        assert parse(faults=[{"type": "hang", "servers": ":", "from_s": 0}]).faulty == frozenset()


def fault(**given: object) -> dict[str, object]:
    return {"faults": [{"type": "slow", "servers": [0], "from_s": 1} | given]}


EXPONENTIAL = {"type": "exponential", "mean_s": 0.01}


@pytest.mark.parametrize(
    ("changed", "path", "rule"),
    [
        ({"seconds": 0}, "$.seconds", ">= 0.001"),
        ({"seconds": "ten"}, "$.seconds", "Expected `float`"),
        ({"secconds": 1}, "", "unknown field `secconds`"),
        ({"servers": []}, "", "servers: give at least one group"),
        ({"servers": [{}]}, "$.servers[0]", "missing required field `service`"),
        ({"servers": [{"service": {"type": "gamma"}}]}, "$.servers[0].service.type", "gamma"),
        ({"servers": [{"service": {"type": "constant", "mean_s": 0}}]}, "$.servers[0].service.mean_s", ">="),
        ({"servers": [{"service": {"type": "mix", "parts": []}}]}, "$.servers[0].service", "at least one part"),
        ({"servers": [{"service": EXPONENTIAL, "slots": 0}]}, "$.servers[0].slots", ">= 1"),
        ({"servers": [{"service": EXPONENTIAL, "speed": 0}]}, "$.servers[0].speed", ">="),
        ({"servers": [{"service": EXPONENTIAL, "joins_s": 3}]}, "servers", "joins_s 0"),
        ({"load": None}, "", "either load or concurrency"),
        ({"concurrency": 3}, "", "either load or concurrency"),
        ({"load": [{}]}, "$.load[0]", "either calls_per_s or of_capacity"),
        ({"load": [{"calls_per_s": 1, "of_capacity": 1}]}, "$.load[0]", "either calls_per_s or of_capacity"),
        ({"load": [{"calls_per_s": -1}]}, "$.load[0].calls_per_s", "> 0"),
        ({"load": [{"from_s": 1, "calls_per_s": 1}]}, "load", "begin at 0"),
        ({"load": [{"calls_per_s": 1}, {"from_s": 10, "calls_per_s": 1}]}, "load", "below seconds 10"),
        ({"load": [{"calls_per_s": 1e7}]}, "load", "more than 20000000"),
        ({"clients": 1_000_000}, "clients", "more than 2000000"),
        (fault(servers=[4]), "faults[0].servers", "0 to 3"),
        (fault(servers=[-1]), "$.faults[0].servers", ">= 0"),
        (fault(servers="4:"), "faults[0].servers", "0 to 3"),
        (fault(servers="a:b"), "faults[0].servers", "no range"),
        (fault(servers="::0"), "faults[0].servers", "no range"),
        (fault(until_s=1), "faults[0].until_s", "not after from_s 1"),
        (fault(type="tired"), "$.faults[0].type", "tired"),
        (fault(type="fail", share=1.5), "$.faults[0].share", "<= 1"),
        (fault(type="fail", status="OK"), "$.faults[0].status", "OK"),
        ({"changes": [{"type": "change", "at_s": 1, "remove": [7]}]}, "changes[0].remove", "0 to 3"),
        ({"changes": [{"type": "deploy", "from_s": 1, "every_s": 0, "down_s": 1}]}, "$.changes[0].every_s", "> 0"),
        ({"changes": [{"type": "churn", "from_s": 1, "every_s": 1e-6, "down_s": 1}]}, "changes[0].every_s", "1000000"),
        (fault(type="pauses", every_s=1e-9, for_s=1e-9), "faults[0]", "1000000"),
        ({"servers": [{"service": EXPONENTIAL, "count": 200_000}]}, "servers", "more than 100000"),
        ({"warm_up_s": 10}, "measured_until_s", "after warm_up_s"),
        ({"measured_until_s": 11}, "measured_until_s", "no later than seconds"),
        ({"streams": {"share": 2, "lasts": EXPONENTIAL}}, "$.streams.share", "<= 1"),
        ({"clock": [{"at_s": 1, "by_s": 1e9}]}, "$.clock[0].by_s", "<="),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else None,
)  # fmt: skip
def test_bad_input(changed: dict[str, object], path: str, rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(**changed)
    assert str(caught.value).startswith("scenario mine: ")
    assert path in str(caught.value)
    assert rule in str(caught.value)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "Expected `object`"),
        (b'{"about": NaN}', "not JSON"),
    ],
)
def test_what_is_no_scenario(document: bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=f"scenario mine: .*{message}"):
        parse_scenario(document, "mine")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nobody", "unknown; see grpclb bench quality --list"),
        ("../healthy", "unknown"),
        ("nobody.json", "No such file"),
    ],
)
def test_what_there_is_not(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_scenario(name)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "x.json").mkdir()
    with pytest.raises(ConfigError, match="give a file that can be read"):
        load_scenario(str(tmp_path / "x.json"))
