"""Messages of protobuf as JSON has them, and back."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpclb_core.errors import ConfigError
from grpclb_core.proto_json import LONGEST_S, Notes, duration, duration_s, json_name, read_message, write_message

ARABIC_ONE = "\u0661"  # a digit to `str.isdigit`


class Part(msgspec.Struct, frozen=True):
    size: Annotated[int, msgspec.Meta(ge=1)]
    label: str = ""


class Whole(msgspec.Struct, frozen=True, kw_only=True):
    capped_in_json: ClassVar[tuple[str, ...]] = ("choice_count",)
    not_in_json: ClassVar[tuple[str, ...]] = ("cap",)

    choice_count: Annotated[int, msgspec.Meta(ge=2, le=10)] = 2
    wait_s: Annotated[float, msgspec.Meta(gt=0)] | None = None
    ratio: float = 0.5
    floor: bool = True
    parts: tuple[Part, ...] = ()
    part: Part | None = None
    names: tuple[str, ...] = ()
    cap: int = 3

    def __post_init__(self) -> None:
        if self.choice_count == 7:
            raise ConfigError("seven is unlucky")


def problems_of(raw: object) -> list[str]:
    notes = Notes()
    assert read_message(Whole, raw, "whole", notes) is None
    return notes.problems


def read(raw: object) -> Whole:
    notes = Notes()
    found = read_message(Whole, raw, "whole", notes)
    assert notes.problems == []
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("field", "name"),
    [("choice_count", "choiceCount"), ("decay_s", "decay"), ("oob_period_s", "oobPeriod"), ("name", "name")],
)
def test_names(field: str, name: str) -> None:
    assert json_name(field) == name


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0.0),
        ("1s", 1.0),
        ("1.5s", 1.5),
        ("0.000000001s", 1e-9),
        ("007s", 7.0),
        (f"{LONGEST_S}s", float(LONGEST_S)),
        (f"{LONGEST_S}.9s", float(LONGEST_S)),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize(
    "raw",
    [
        *("", "s", "1", "1 s", " 1s", "1S", "-1s", "+1s", ".5s", "1.s", "1e3s", "1.0000000001s", "infs", "1s\n"),
        *(f"{ARABIC_ONE}s", f"{LONGEST_S + 1}s", "9" * 1000 + "s", 1, 1.5, None, True, b"1s", ["1s"]),
    ],
)
def test_what_is_no_duration(raw: object) -> None:
    with pytest.raises(ValueError, match="is no duration; write seconds in quotes"):
        duration_s(raw)


@given(st.integers(0, LONGEST_S * 1000))
def test_a_duration_is_read_as_it_was_written(milliseconds: int) -> None:
    assert duration_s(duration(milliseconds / 1000)) == pytest.approx(milliseconds / 1000, abs=1e-9)


@pytest.mark.parametrize("seconds", [1e-10, -1.0, math.inf, math.nan, LONGEST_S + 1.0])
def test_a_duration_that_cannot_be_written(seconds: float) -> None:
    with pytest.raises(ConfigError, match=r"wait_s: .* cannot be written as a duration; use 0, or 1e-9 to"):
        write_message(Whole(wait_s=seconds))


def test_a_number_that_cannot_be_written() -> None:
    with pytest.raises(ConfigError, match="ratio: inf cannot be written as JSON"):
        write_message(Whole(ratio=math.inf))


class Paced(msgspec.Struct, frozen=True):
    probes_per_s: float = 2.0


def test_a_rate_is_no_duration() -> None:
    assert read_message(Paced, {"probesPerS": 3}, "x", Notes()) == Paced(3.0)
    assert write_message(Paced(4.0)) == {"probesPerS": 4.0}


@pytest.mark.parametrize(
    ("raw", "whole"),
    [
        ({}, Whole()),
        ({"choiceCount": None, "parts": None, "names": None}, Whole()),
        ({"choiceCount": 11}, Whole(choice_count=10)),
        ({"choiceCount": "3", "ratio": "1e-3", "wait": "2s"}, Whole(choice_count=3, ratio=0.001, wait_s=2.0)),
        ({"ratio": 3, "floor": False}, Whole(ratio=3.0, floor=False)),
        ({"parts": [{"size": 1}, {"size": "2", "label": "b"}]}, Whole(parts=(Part(1), Part(2, "b")))),
        ({"part": {"size": 1}, "names": ["a", "b"]}, Whole(part=Part(1), names=("a", "b"))),
    ],
)
def test_what_is_read_can_be_written(raw: object, whole: Whole) -> None:
    assert read(raw) == whole
    assert read(write_message(whole)) == whole


def test_what_nobody_knows_is_noted() -> None:
    notes = Notes()
    raw = {"cap": 4, "choice_count": 4, "parts": [{"size": 1, "x": 1}], "y" * 1000: 1}
    assert read_message(Whole, raw, "whole", notes) == Whole(parts=(Part(1),))
    assert notes.ignored[:3] == ["whole.cap", "whole.choice_count", "whole.parts[0].x"]
    assert len(notes.ignored[3]) < 250


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (3, "whole: expected an object, got a number"),
        ({"choiceCount": 1}, "whole.choiceCount: 1 is not usable: Expected `int` >= 2"),
        ({"choiceCount": 2.0}, "whole.choiceCount: 2.0 is no whole number of 64 bits"),
        ({"choiceCount": True}, "whole.choiceCount: True is no whole number of 64 bits"),
        ({"choiceCount": ARABIC_ONE}, f"whole.choiceCount: '{ARABIC_ONE}' is no whole number of 64 bits"),
        ({"choiceCount": 10**5000}, "whole.choiceCount: "),
        ({"choiceCount": -(2**64)}, "whole.choiceCount: -18446744073709551616 is no whole number of 64 bits"),
        ({"choiceCount": 7}, "whole: seven is unlucky"),
        ({"wait": "0s"}, "whole.wait: 0.0 is not usable: Expected `float` > 0.0"),
        ({"wait": 1}, "whole.wait: 1 is no duration"),
        ({"ratio": "x"}, "whole.ratio: 'x' is no number"),
        ({"ratio": True}, "whole.ratio: True is no number"),
        ({"ratio": math.nan}, "whole.ratio: nan is not finite"),
        ({"ratio": "1e999"}, "whole.ratio: inf is not finite"),
        ({"ratio": 10**400}, "whole.ratio: 1000"),
        ({"ratio": 10**5000}, "whole.ratio: "),
        ({"part": {"size": 10**5000}}, "whole.part.size: "),
        ({"floor": 0}, "whole.floor: 0 is not usable: Expected `bool`"),
        ({"parts": {}}, "whole.parts: expected an array, got an object"),
        ({"parts": [{}]}, "whole.parts[0].size: missing; it has no default"),
        ({"parts": [{"size": None}]}, "whole.parts[0].size: missing"),
        ({"parts": [None]}, "whole.parts[0]: expected an object, got null"),
        ({"part": {"size": 0}}, "whole.part.size: 0 is not usable"),
        ({"names": ["a", 1]}, "whole.names[1]: 1 is not usable"),
        ({"names": "a"}, "whole.names: expected an array, got a string"),
    ],
)
def test_what_cannot_be_read(raw: object, problem: str) -> None:
    (found,) = problems_of(raw)
    assert found.startswith(problem)
    assert len(found) < 300


def test_faults_beyond_a_hundred_are_told_as_such() -> None:
    problems = problems_of({"parts": [{"size": 0}] * 200, "choiceCount": 1})
    assert len(problems) == 101
    assert problems[-1] == "there are more; repair these first"
