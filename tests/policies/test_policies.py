"""What a user may give as `policy=`, and which picker it makes."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import msgspec
import pytest

from grpclb_core.errors import ConfigError
from grpclb_core.native import (
    LeastRequestPicker,
    P2cEwmaPicker,
    Picker,
    RandomPicker,
    RoundRobinPicker,
    Slot,
    View,
)
from grpclb_core.policies import (
    POLICIES,
    LeastRequest,
    P2cEwma,
    Policy,
    Random,
    RoundRobin,
    parse_policy,
    rebuild_s,
    takes_reports,
)
from grpclb_core.types import LoadReport, Outcome
from support.fleet import (
    CHI_SQUARE_999,
    MILLISECOND,
    SECOND,
    START,
    answer,
    chi_square,
    dropped_picks,
    hold,
    is_share,
    measured_fleet,
    new_slots,
)

# Names as in gRPC's service config where it has the policy; `p2c_ewma` is not in it. Policies with tests of their own
# are not here.
NAMES = {
    "p2c_ewma": (P2cEwma, P2cEwmaPicker),
    "least_request": (LeastRequest, LeastRequestPicker),
    "round_robin": (RoundRobin, RoundRobinPicker),
    "random": (Random, RandomPicker),
}


class Foreign:
    """A policy of somebody else's, known by its shape alone."""

    name: ClassVar[str] = "foreign"
    decay_s = 3.0

    def build(self, view: View, seed: int, now_ns: int) -> Picker:
        return RandomPicker(view, decay_s=self.decay_s, seed=seed)


def problems_of(raw: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_policy(raw)
    return list(caught.value.problems)


class TestParsing:
    def test_nothing_given_means_the_default(self) -> None:
        assert parse_policy(None) == P2cEwma()

    def test_every_policy_has_a_name(self) -> None:
        assert {name: kind.name for name, kind in POLICIES.items()} == {name: name for name in POLICIES}
        assert {name: POLICIES[name] for name in NAMES} == {name: kind for name, (kind, _) in NAMES.items()}

    @pytest.mark.parametrize("name", POLICIES)
    def test_a_name_means_its_defaults(self, name: str) -> None:
        assert parse_policy(name) == POLICIES[name]()

    @pytest.mark.parametrize(
        "given",
        [
            P2cEwma(decay_s=1),
            LeastRequest(choice_count=10, decay_s=0.5),
            LeastRequest(choice_count=2),
            RoundRobin(decay_s=1e-9),
            Random(decay_s=1e9),
        ],
    )
    def test_an_object_keeps_its_options(self, given: Policy) -> None:
        parsed = parse_policy(given)
        assert parsed == given
        assert type(parsed) is type(given)

    def test_a_policy_of_somebody_else_is_taken_as_it_is(self) -> None:
        foreign = Foreign()
        assert parse_policy(foreign) is foreign

    @pytest.mark.parametrize("name", ["", "P2C_EWMA", "p2c", "pick_last", " round_robin"])
    def test_an_unknown_name_is_told_with_the_known_ones(self, name: str) -> None:
        assert problems_of(name) == [f"policy: {name!r} is unknown; known are {', '.join(sorted(POLICIES))}"]

    @pytest.mark.parametrize(
        "raw",
        [RoundRobin, Foreign, 1, b"random", {}, {"name": "random"}, ["random"], object(), RandomPicker, True],
    )
    def test_what_is_no_policy_is_refused(self, raw: object) -> None:
        (problem,) = problems_of(raw)
        assert problem.startswith("policy: ")
        assert "is no policy; give a name or an object such as RoundRobin()" in problem

    @pytest.mark.parametrize("missing", ["name", "decay_s", "build"])
    def test_half_a_policy_is_none(self, missing: str) -> None:
        members = {name: value for name, value in vars(Foreign).items() if name in {"name", "decay_s", "build"}}
        del members[missing]
        (problem,) = problems_of(type("Half", (), members)())
        assert "is no policy" in problem

    @pytest.mark.parametrize(
        ("policy", "path"),
        [
            (LeastRequest(choice_count=1), "policy least_request.choice_count"),
            (LeastRequest(choice_count=11), "policy least_request.choice_count"),
            (LeastRequest(choice_count=2.0), "policy least_request.choice_count"),  # type: ignore[arg-type]
            (LeastRequest(choice_count=True), "policy least_request.choice_count"),
            (LeastRequest(choice_count="3"), "policy least_request.choice_count"),  # type: ignore[arg-type]
            (LeastRequest(choice_count=object()), "policy least_request.choice_count"),  # type: ignore[arg-type]
            *(
                (kind(decay_s=decay_s), f"policy {name}.decay_s")
                for name, kind in POLICIES.items()
                for decay_s in (0, -1.0, math.nan, "10", None, object())
            ),
        ],
    )
    def test_an_option_out_of_range_is_told_with_its_path(self, policy: Policy, path: str) -> None:
        (problem,) = problems_of(policy)
        assert problem.startswith(f"{path}: ")
        assert "is not usable" in problem

    def test_all_faults_are_told_together(self) -> None:
        problems = problems_of(LeastRequest(choice_count=1, decay_s=0))
        assert [problem.partition(": ")[0] for problem in problems] == [
            "policy least_request.choice_count",
            "policy least_request.decay_s",
        ]

    @pytest.mark.parametrize("kind", POLICIES.values())
    def test_an_option_nobody_knows_is_refused(self, kind: type[Any]) -> None:
        with pytest.raises(TypeError, match="decay"):
            kind(decay=1)
        with pytest.raises(msgspec.ValidationError, match="decay"):
            msgspec.convert({"decay": 1}, kind)


@pytest.mark.parametrize("name", NAMES)
class TestBuilding:
    def test_it_makes_its_picker_of_the_view(self, name: str) -> None:
        view = View(new_slots(3))
        picker = parse_policy(name).build(view, 1, 0)
        assert type(picker) is NAMES[name][1]
        assert picker.view is view

    def test_the_seed_reaches_the_picker(self, name: str) -> None:
        slots = new_slots(50)

        def choices(seed: int) -> list[Slot]:
            picker = parse_policy(name).build(View(slots), seed, 0)
            return [picker.pick_at(START).slot for _ in range(10)]

        assert choices(1) == choices(1)
        assert choices(1) != choices(2)

    def test_the_decay_time_reaches_the_picker(self, name: str) -> None:
        kind = POLICIES[name]
        kept = []
        for decay_s in (0.1, 10.0):
            slot = Slot()
            answer(slot, SECOND)
            picker = kind(decay_s=decay_s).build(View([slot]), 1, 0)
            picker.pick_at(START + SECOND).finish_at(Outcome.SUCCESS, START + SECOND + MILLISECOND)
            kept.append(slot.latency_ns_at(START + SECOND + MILLISECOND, 10.0) / SECOND)
        assert kept == pytest.approx([0.001, 0.905], abs=0.001)  # e^-10 and e^-0.1 of the second are left


def test_the_number_of_choices_reaches_the_picker() -> None:
    slots = new_slots(10)
    held = [hold(slot, 1) for slot in slots[1:]]
    for choices in (2, 5, 10):
        picker = LeastRequest(choice_count=choices).build(View(slots), 1, 0)
        assert is_share(dropped_picks(picker, 10_000)[0], 10_000, choices / 10)
    assert len(held) == 9


@pytest.mark.parametrize("name", ["p2c_ewma", "least_request", "random"])
def test_weights_reach_the_choice(name: str) -> None:
    picks = dropped_picks(parse_policy(name).build(View(new_slots(3), [1, 2, 4]), 1, START), 20_000)
    assert chi_square(picks, [1, 2, 4]) < CHI_SQUARE_999[2]


@pytest.mark.parametrize("name", POLICIES)
def test_whatever_the_policy_one_on_trial_has_one_call(name: str) -> None:
    slots = measured_fleet(5)
    slots[2].start_trial_at(START)
    picker = parse_policy(name).build(View(slots), 1, START)
    calls = [picker.pick_at(START) for _ in range(200)]
    assert slots[2].in_flight <= 1
    assert sum(slot.in_flight for slot in slots) == len(calls)


class TestWhatAPolicyMayHave:
    @pytest.mark.parametrize("policy", [P2cEwma(), LeastRequest(), RoundRobin(), Random(), Foreign()])
    def test_without_it_is_left_alone(self, policy: Policy) -> None:
        assert not takes_reports(policy)
        assert rebuild_s(policy) is None

    def test_it_may_take_reports_in_and_be_built_anew(self) -> None:
        class Keen(Foreign):
            rebuild_s = 0.5
            oob_period_s = None

            def observe(self, report: LoadReport, slot: Slot, now_ns: int) -> None:
                raise AssertionError("nobody asks for it here")

        assert takes_reports(Keen())
        assert rebuild_s(Keen()) == 0.5
        assert parse_policy(Keen()).name == "foreign"


def test_a_policy_can_be_a_key_and_does_not_change() -> None:
    assert {RoundRobin(): 1}[RoundRobin()] == 1
    with pytest.raises(AttributeError):
        P2cEwma().decay_s = 1.0  # type: ignore[misc]
