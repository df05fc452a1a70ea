"""Prequal as a policy: its options, whom it wants asked, and what it makes of simulated fleets."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import pytest

from grpclb_core.balancer.probing import IDLE_S, MOST_AT_ONCE, MOST_PER_S, TICK_S, Turns
from grpclb_core.errors import ConfigError
from grpclb_core.native import PrequalPicker, RoundRobinPicker, Slot, View
from grpclb_core.policies import (
    POLICIES,
    Prequal,
    RoundRobin,
    parse_policy,
    rebuild_s,
    takes_reports,
    wants_probes,
    wants_report,
)
from grpclb_core.quality import Figures, figures_of, load_scenario, parse_variant, simulate
from grpclb_core.service_config import parse_service_config
from grpclb_core.types import LoadReport, Outcome
from support.fleet import MILLISECOND, SECOND, START, new_slots

TICK_NS = int(TICK_S * SECOND)


class TestOptions:
    def test_it_has_a_name(self) -> None:
        assert parse_policy("prequal") == Prequal()
        assert POLICIES["prequal"] is Prequal

    def test_it_builds_its_picker(self) -> None:
        picker = Prequal(probe_rate=1.0, remove_rate=0.25).build(View(new_slots(100)), 1, START)
        assert isinstance(picker, PrequalPicker)
        # Reports come with answers besides: two for each call.
        assert picker.reuse_budget == pytest.approx(2 / (0.84 * 2 - 0.25))

    @pytest.mark.parametrize(
        "options",
        [
            {"q_rif": 1.5}, {"pool_size": 1}, {"pool_size": 65}, {"max_age_s": 0}, {"probe_rate": -1.0},
            {"probe_rate": float("inf")}, {"delta": float("nan")}, {"sync_probes": 17}, {"explore_s": 0},
            {"least_hot": -1.0}, {"aversion_s": -1.0},
        ],
    )  # fmt: skip
    def test_what_is_out_of_range_is_refused(self, options: dict[str, Any]) -> None:
        with pytest.raises(ConfigError, match=next(iter(options))):
            parse_policy(Prequal(**options))

    def test_a_service_config_can_ask_for_it(self) -> None:
        text = json.dumps({"loadBalancingConfig": [{"prequal": {"qRif": 0.6, "maxAge": "2s", "poolSize": 8}}]})
        assert parse_service_config(text).policy == Prequal(q_rif=0.6, max_age_s=2.0, pool_size=8)

    def test_what_it_wants(self) -> None:
        assert takes_reports(Prequal())
        assert wants_probes(Prequal())
        assert Prequal().oob_period_s is None
        assert rebuild_s(Prequal()) is None
        assert not wants_probes(RoundRobin())

    def test_reports_that_come_too_often_are_not_read(self) -> None:
        slot = Slot()
        assert wants_report(Prequal(), slot, START)
        slot.report_load_at(1, MILLISECOND, START)
        Prequal().observe(LoadReport(), slot, START)
        assert not wants_report(Prequal(), slot, START + 9 * MILLISECOND)
        assert wants_report(Prequal(), slot, START + 10 * MILLISECOND)
        assert wants_report(Prequal(), slot, START - MILLISECOND)  # the clock stepped back


class Asking:
    """Turns on a manual clock: every tick some calls are made, and whoever is asked answers at once."""

    def __init__(self, count: int, policy: Prequal) -> None:
        self.policy = policy
        self.slots = new_slots(count)
        self.picker = policy.build(View(self.slots), 1, START)
        self.turns = Turns(random.Random(1))
        self.now_ns = START
        self.asked: list[Slot] = []
        self.ticks(1, calls=0)

    def ticks(self, count: int, calls: int, *, answers: bool = True) -> list[Slot]:
        """Let so many ticks pass; return who was asked in them."""
        before = len(self.asked)
        for _ in range(count):
            for _ in range(calls):
                self.picker.pick_at(self.now_ns).finish_at(Outcome.DROPPED, self.now_ns)
            self.now_ns += TICK_NS
            for slot in self.turns.due(self.policy, self.picker, self.now_ns, lambda slot: True):
                self.asked.append(slot)
                if answers:
                    slot.report_load_at(1, MILLISECOND, self.now_ns)
                    self.picker.reported(slot)
        return self.asked[before:]


class TestTurns:
    def test_as_many_are_asked_as_calls_are_made(self) -> None:
        asking = Asking(1_000, Prequal(probe_rate=2.0, idle_probes_per_s=0.0))
        assert len(asking.ticks(20, calls=2)) == pytest.approx(80, abs=2)

    def test_a_part_of_one_for_each_call(self) -> None:
        asking = Asking(1_000, Prequal(probe_rate=0.25, idle_probes_per_s=0.0))
        assert len(asking.ticks(20, calls=2)) == pytest.approx(10, abs=1)

    def test_no_more_than_there_may_be(self) -> None:
        asking = Asking(10_000, Prequal(idle_probes_per_s=0.0))
        assert len(asking.ticks(40, calls=100)) == pytest.approx(2 * MOST_PER_S + MOST_AT_ONCE, abs=5)

    def test_a_little_without_calls(self) -> None:
        asking = Asking(100, Prequal())
        assert len(asking.ticks(200, calls=0)) == pytest.approx(20, abs=2)

    def test_nobody_who_was_heard_of(self) -> None:
        asking = Asking(10, Prequal())
        assert len(asking.ticks(19, calls=10)) == 10
        assert set(asking.asked) == set(asking.slots)
        assert len(asking.ticks(20, calls=10)) == 10  # a second later, once more

    def test_each_once_before_anyone_twice(self) -> None:
        asking = Asking(30, Prequal(probe_after_s=0.0, idle_probes_per_s=0.0))
        drawn = asking.ticks(15, calls=1)
        assert len(drawn) == len(set(drawn)) == 30
        drawn = asking.ticks(15, calls=1)
        assert len(set(drawn)) == 30

    def test_what_was_not_used_is_not_saved(self) -> None:
        asking = Asking(100, Prequal())
        for slot in asking.slots:
            slot.report_load_at(1, MILLISECOND, asking.now_ns + 100 * SECOND)  # nobody is due for long
        asking.now_ns += 100 * SECOND
        assert not asking.ticks(10, calls=50)
        asking.now_ns += 2 * SECOND
        assert len(asking.ticks(1, calls=0)) == MOST_AT_ONCE

    @pytest.mark.parametrize("by_s", [-500, 0, 500])
    def test_a_clock_that_jumps_or_stands(self, by_s: int) -> None:
        asking = Asking(100, Prequal())
        asking.ticks(20, calls=2)
        asking.now_ns += by_s * SECOND
        assert len(asking.ticks(1, calls=2)) <= MOST_AT_ONCE

    def test_it_is_looked_less_often_without_calls(self) -> None:
        asking = Asking(3, Prequal())
        asking.ticks(1, calls=1)
        assert asking.turns.pause_s == TICK_S
        asking.ticks(25, calls=0)
        assert asking.turns.pause_s == IDLE_S

    def test_those_who_may_not_be_asked_are_passed_over(self) -> None:
        turns, slots = Turns(random.Random(1)), new_slots(5)
        assert set(turns.draw(slots, 9, lambda slot: slot is not slots[2])) == {*slots} - {slots[2]}
        assert turns.draw(slots, 2, lambda slot: False) == []
        assert turns.draw([], 2, lambda slot: True) == []
        assert len(turns.draw(slots, 2, lambda slot: True)) == 2

    def test_a_picker_that_does_not_count_is_one_without_calls(self) -> None:
        turns, slots = Turns(random.Random(1)), new_slots(5)
        picker = RoundRobinPicker(View(slots))
        assert turns.due(Prequal(), picker, START, lambda slot: True) == []
        assert len(turns.due(Prequal(), picker, START + SECOND, lambda slot: True)) == 2


def outcome(name: str, policy: str, **changes: Any) -> Figures:
    scenario = msgspec.structs.replace(load_scenario(name), **changes)
    return figures_of(simulate(scenario, parse_variant(policy), 1), scenario)


class TestSimulated:
    def test_one_of_four_that_fails(self) -> None:
        assert outcome("one-of-four-fails", "prequal").late_error_share < 0.01

    def test_one_of_four_that_is_slow(self) -> None:
        figures = outcome("one-of-four-slow", "prequal")
        assert figures.faulty_share < 0.02
        assert figures.p99_ms < 60  # 45 while all is well

    def test_at_nine_tenths_of_the_load_its_tail_is_shorter(self) -> None:
        ours, theirs = (
            outcome("ninety-percent", policy, seconds=12, warm_up_s=4) for policy in ("prequal", "p2c_ewma")
        )
        assert ours.p99_ms < 0.95 * theirs.p99_ms
