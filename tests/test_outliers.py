"""Outlier detection on the members of a set: slots of the compiled core, connections and time set by hand."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import cast

import anyio
import anyio.lowlevel
import grpc
import pytest

from grpclb_core.balancer import outliers as module
from grpclb_core.balancer.outliers import Outliers
from grpclb_core.balancer.selection import is_plain, select
from grpclb_core.config import Config, OutlierConfig, OutlierDetection, SuccessRateEjection, parse_config
from grpclb_core.endpoints import Connection, EndpointSet, Member
from grpclb_core.errors import ConfigError
from grpclb_core.types import Address, Endpoint, Health, Outcome, Resolution, Verdict
from support.fleet import MILLISECOND, answer
from support.servers import eventually

READY, FAILING = grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE
CONNECTING, IDLE = grpc.ChannelConnectivity.CONNECTING, grpc.ChannelConnectivity.IDLE
EXACT = OutlierConfig(jitter=0.0)


class StandIn:
    """A channel whose state is set by hand."""

    def __init__(self) -> None:
        self.state = READY

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self.state


class World:
    """Endpoints a, b, c... that are up, and what watches them."""

    def __init__(
        self,
        count: int = 4,
        config: Config | None = None,
        connections: int = 1,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.channels: dict[tuple[Address, int], StandIn] = {}
        self.endpoints = EndpointSet(self._connect, 60.0, drain_s=60.0, linger_s=60.0, connections_each=connections)
        self.listed = [Endpoint(Address("10.0.0.1", 1 + place)) for place in range(count)]
        self.now_s = 100.0
        self.changes = 0
        self.config = config or Config(outliers=EXACT)
        self.outliers = Outliers(
            self.endpoints, self.config, random.Random(0), self._changed, clock or (lambda: self.now_s)
        )
        self.update()
        self.outliers.sweep()

    def _connect(self, address: Address, number: int) -> Connection:
        self.channels[address, number] = StandIn()
        return Connection(cast("object", self.channels[address, number]))  # type: ignore[arg-type]

    def _changed(self) -> None:
        self.changes += 1

    def update(self) -> None:
        self.endpoints.update(self.listed, self.now_s)
        self.poll()

    def poll(self) -> None:
        for member in self.endpoints.members():
            if member.poll(self.now_s) and member.is_new:
                self.outliers.greet(member)
        self.outliers.catch_up()

    def members(self, name: str) -> list[Member]:
        address = Address("10.0.0.1", 1 + ord(name) - ord("a"))
        return [member for member in self.endpoints.members() if member.endpoint.address == address]

    def member(self, name: str) -> Member:
        (member,) = self.members(name)
        return member

    def set_state(self, name: str, state: grpc.ChannelConnectivity) -> None:
        self.channels[self.member(name).endpoint.address, 0].state = state
        self.poll()

    def fail(self, name: str, count: int = 7) -> None:
        for member in self.members(name):
            for _ in range(count):
                answer(member.slot, MILLISECOND, outcome=Outcome.FAILURE)

    def succeed(self, name: str, count: int = 1) -> None:
        for _ in range(count):
            answer(self.members(name)[0].slot, MILLISECOND)

    def sweep(self, after_s: float = 0.1) -> bool:
        self.now_s += after_s
        return self.outliers.sweep()

    @property
    def selected(self) -> str:
        resolution = Resolution(tuple(self.listed))
        plain = is_plain(resolution, self.config) and not self.outliers.any_ejected
        slots = select(self.endpoints, resolution, self.config, plain, self.now_s).slots
        return "".join(chr(ord("a") + self.endpoints.owner_of(slot).endpoint.address.port - 1) for slot in slots)


def test_one_that_fails_is_taken_out_and_comes_back_on_trial() -> None:
    world = World()
    world.fail("a")
    assert world.sweep()
    bad = world.member("a")
    assert (bad.is_ejected, bad.outlier_reason) == (True, "consecutive failures")
    assert world.selected == "bcd"
    assert not world.sweep()
    assert world.sweep(1.0)
    assert (bad.is_ejected, bad.outlier_reason) == (False, "consecutive failures")
    assert bad.slot.is_on_trial
    assert bad.slot.is_newcomer  # nothing of what its failures took is held against it
    assert world.selected == "abcd"
    world.succeed("a")
    assert not world.sweep()  # the same set gets calls
    assert (bad.outlier_reason, bad.slot.is_on_trial) == (None, False)
    assert (world.outliers.ejections, world.outliers.readmissions) == (1, 1)


def test_a_failed_trial_is_another_ejection() -> None:
    world = World()
    world.fail("a")
    world.sweep()
    world.sweep(1.1)
    world.fail("a", 1)
    assert world.sweep()
    assert (world.member("a").outlier_reason, world.outliers.ejections) == ("failed trial", 2)
    assert not world.member("a").slot.is_on_trial  # in panic it would get calls like any other


def test_what_was_counted_before_is_left_out() -> None:
    world = World()
    world.fail("a", 6)
    world.sweep()
    world.listed = world.listed[1:]
    world.update()
    world.sweep()
    world.listed = [Endpoint(Address("10.0.0.1", 1)), *world.listed]
    world.update()
    world.sweep()
    assert not world.member("a").is_ejected
    world.fail("a", 1)
    world.sweep()
    assert world.member("a").is_ejected  # its streak is its own, and outlives that it was gone for a while


def test_one_that_left_while_it_was_out_or_on_trial_is_in_when_it_returns() -> None:
    for later_s in (0.1, 1.1):
        world = World()
        world.fail("a")
        world.sweep()
        world.sweep(later_s)
        left = world.listed.pop(0)
        world.update()
        world.sweep()
        world.listed.append(left)
        world.update()
        world.sweep()
        member = world.member("a")
        assert (member.is_ejected, member.outlier_reason, member.slot.is_on_trial) == (False, None, False)


def test_what_was_found_is_forgotten_as_it_leaves_though_nobody_looks_again() -> None:
    world = World()
    world.fail("a")
    world.sweep()
    bad, left = world.member("a"), world.listed.pop(0)
    world.update()
    assert (bad.is_ejected, bad.outlier_reason) == (False, None)
    world.listed.append(left)
    world.update()
    assert world.member("a") is bad
    assert world.selected == "bcda"


def test_a_trial_ends_with_the_rules_though_its_endpoint_left_before() -> None:
    world = World()
    world.fail("a")
    world.sweep()
    world.sweep(1.1)
    slot = world.member("a").slot
    assert slot.is_on_trial
    world.listed.pop(0)
    world.update()
    world.sweep()
    assert not slot.is_on_trial


def test_a_connection_that_answers_speaks_for_its_endpoint() -> None:
    world = World(3, connections=2)
    bad, good = world.members("a")
    for _ in range(10):
        answer(bad.slot, MILLISECOND, outcome=Outcome.FAILURE)
        for _ in range(99):
            answer(good.slot, MILLISECOND)
    world.sweep()
    assert not bad.is_ejected
    world.channels[Address("10.0.0.1", 1), 1].state = FAILING  # the good one; now there is only the other
    world.poll()
    answer(bad.slot, MILLISECOND, outcome=Outcome.FAILURE)
    world.sweep()
    assert bad.is_ejected


def test_a_trial_for_another_reason_is_left_to_whoever_began_it() -> None:
    world = World()
    world.member("a").slot.start_trial()
    world.fail("b")
    world.sweep()
    world.sweep(1.1)
    world.succeed("b")
    world.sweep()
    assert [world.member(name).slot.is_on_trial for name in "ab"] == [True, False]


def test_several_connections_are_one_endpoint() -> None:
    world = World(3, connections=2)
    world.fail("a", 7)
    world.sweep()
    assert [member.is_ejected for member in world.members("a")] == [True, True]
    assert world.outliers.ejections == 1
    world.sweep(1.1)
    assert [member.slot.is_on_trial for member in world.members("a")] == [True, True]
    world.succeed("a")
    world.sweep()
    assert [member.slot.is_on_trial for member in world.members("a")] == [False, False]


def test_the_best_of_several_connections_counts() -> None:
    world = World(2, connections=2)
    world.channels[Address("10.0.0.1", 2), 0].state = FAILING
    world.poll()
    world.fail("a")
    world.sweep()
    assert world.members("a")[0].is_ejected


def test_other_opinions_are_heard() -> None:
    world = World()
    world.member("c").verdict = Verdict.NOT_SERVING
    world.member("d").endpoint = Endpoint(Address("10.0.0.1", 4), health=Health.UNHEALTHY)
    world.fail("a")
    world.sweep()
    assert not world.member("a").is_ejected  # two of four are usable


def test_an_ejected_one_gets_calls_in_panic() -> None:
    world = World()
    world.fail("a")
    world.sweep()
    assert world.selected == "bcd"
    for name in "bc":
        world.member(name).verdict = Verdict.NOT_SERVING
    assert world.selected == "abcd"


def test_an_ejected_one_is_not_worth_waiting_for() -> None:
    world = World(2)
    world.fail("a")
    world.sweep()
    world.set_state("a", CONNECTING)
    world.member("b").verdict = Verdict.NOT_SERVING
    assert world.selected == "b"


class TestConnections:
    def test_losses_and_failed_attempts_are_counted_until_a_call_succeeds(self) -> None:
        world = World()
        for state in (IDLE, CONNECTING, FAILING, CONNECTING, FAILING, FAILING, CONNECTING, READY):
            world.set_state("a", state)
        assert world.member("a").connection_failures == 3
        world.succeed("a")
        world.sweep()
        assert world.member("a").connection_failures == 0

    def test_after_five_it_is_on_trial_before_any_call_comes(self) -> None:
        world = World()
        for _ in range(5):
            world.set_state("a", FAILING)
            world.set_state("a", CONNECTING)
        world.sweep()
        assert world.member("a").outlier_reason is None
        world.set_state("a", READY)  # and no sweep
        assert world.member("a").slot.is_on_trial
        assert world.member("a").outlier_reason == "connection failures"

    def test_after_fewer_it_is_not(self) -> None:
        world = World()
        for _ in range(4):
            world.set_state("a", FAILING)
            world.set_state("a", CONNECTING)
        world.sweep()
        world.set_state("a", READY)
        world.sweep()
        assert not world.member("a").slot.is_on_trial

    def test_calls_that_broke_with_the_connection(self) -> None:
        world = World()
        world.fail("a", 20)
        world.set_state("a", FAILING)
        world.sweep()
        assert not world.member("a").is_ejected
        world.set_state("a", READY)
        assert world.member("a").slot.is_on_trial


class TestWhenItLooks:
    def test_nothing_is_due_while_nothing_fails_and_windows_need_not_slide(self) -> None:
        world = World()
        assert not world.outliers.is_due
        world.succeed("a", 100)
        assert not world.outliers.is_due
        world.fail("a", 1)
        assert world.outliers.is_due
        world.sweep()
        assert not world.outliers.is_due
        world.now_s += 1.0
        assert world.outliers.is_due

    def test_always_while_somebody_is_out(self) -> None:
        world = World()
        world.fail("a")
        world.sweep()
        assert world.outliers.is_due

    def test_a_new_member_is_looked_at(self) -> None:
        world = World()
        world.listed.append(Endpoint(Address("10.0.0.1", 9)))
        world.update()
        assert world.outliers.is_due

    def test_successes_between_two_sweeps_count(self) -> None:
        world = World()
        world.succeed("a", 100)
        world.fail("a", 6)
        world.sweep()
        assert not world.member("a").is_ejected
        world.sweep(1.0)
        world.fail("a", 1)
        world.sweep()
        assert world.member("a").is_ejected


@pytest.mark.anyio
class TestTask:
    async def test_it_sweeps_and_tells(self) -> None:
        world = World(clock=anyio.current_time)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.outliers.run)
            await anyio.lowlevel.checkpoint()
            world.fail("a")
            await eventually(lambda: world.changes == 1)
            assert world.member("a").is_ejected
            tasks.cancel_scope.cancel()

    async def test_rules_can_be_turned_on_and_off_while_it_runs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "IDLE_S", 0.01)
        off = Config(outliers=OutlierConfig(max_ejected_share=0.0))
        world = World(config=off, clock=anyio.current_time)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.outliers.run)
            world.fail("a")
            await anyio.sleep(0.1)
            assert not world.member("a").is_ejected
            world.outliers.config = Config(outliers=OutlierConfig(first_pause_s=50.0))

            def is_ejected() -> bool:
                world.fail("a", 1)
                return world.member("a").is_ejected

            await eventually(is_ejected)
            world.outliers.config = off
            await eventually(lambda: not world.member("a").is_ejected)
            tasks.cancel_scope.cancel()


class TestOptions:
    """What is refused, and how it is said; `tests/service_config` does the same for the JSON of gRPC."""

    @pytest.mark.parametrize(
        ("options", "path", "says"),
        [
            ({"first_pause_s": math.nan}, ".first_pause_s", "nan is not usable"),
            ({"first_pause_s": -1}, ".first_pause_s", "-1 is not usable"),
            ({"first_pause_s": 0}, ".first_pause_s", "0 is not usable"),
            ({"first_pause_s": 61}, "", "first_pause_s 61.0 is above max_pause_s 60.0; lower it"),
            ({"first_pause_s": math.inf}, "", "first_pause_s inf is above max_pause_s 60.0"),
            ({"window_s": 0}, ".window_s", "0 is not usable"),
            ({"window_s": 1e-308}, ".window_s", "1e-308 is not usable"),
            ({"jitter": 1.1}, ".jitter", "1.1 is not usable"),
            ({"success_ratio": 80}, ".success_ratio", "80 is not usable"),
            ({"success_ratio": math.nan}, ".success_ratio", "nan is not usable"),
            ({"max_ejected_share": 1.5}, ".max_ejected_share", "1.5 is not usable"),
            ({"consecutive_failures": -7}, ".consecutive_failures", "-7 is not usable"),
            ({"consecutive_failures": 2.5}, ".consecutive_failures", "2.5 is not usable"),
            ({"min_requests": 0}, ".min_requests", "0 is not usable"),
            ({"consecutive": 5}, ".consecutive", "unknown option; known are a50, connection_failures"),
            ({"a50": {"interval_s": -10}}, ".a50.interval_s", "-10 is not usable"),
            ({"a50": {"base_ejection_time_s": math.nan}}, ".a50.base_ejection_time_s", "nan is not usable"),
            ({"a50": {"interval": "10s"}}, ".a50.interval", "unknown option; known are base_ejection_time_s"),
            ({"a50": {"max_ejection_percent": 101}}, ".a50.max_ejection_percent", "101 is not usable"),
            ({"a50": {"success_rate_ejection": True}}, ".a50.success_rate_ejection", "expected a mapping"),
            (
                {"a50": {"success_rate_ejection": {"enforcement_percentage": 150}}},
                ".a50.success_rate_ejection.enforcement_percentage",
                "150 is not usable",
            ),
            (
                {"a50": {"failure_percentage_ejection": {"threshold": 150}}},
                ".a50.failure_percentage_ejection.threshold",
                "150 is not usable",
            ),
            (
                {"a50": {"failure_percentage_ejection": {"request_volume": 2**32}}},
                ".a50.failure_percentage_ejection.request_volume",
                "4294967296 is not usable",
            ),
        ],
    )
    def test_one_fault(self, options: dict[str, object], path: str, says: str) -> None:
        with pytest.raises(ConfigError) as caught:
            parse_config({"outliers": options})
        (problem,) = caught.value.problems
        assert problem.startswith(f"config.outliers{path}: ")
        assert says in problem

    def test_all_faults_are_told_together(self) -> None:
        a50 = {"interval_s": -1, "success_rate_ejection": {"stdev_factor": -1, "hosts": 3}}
        with pytest.raises(ConfigError) as caught:
            parse_config({"outliers": {"window_s": 0, "a50": a50}})
        assert len(caught.value.problems) == 4

    def test_structs_made_by_hand_are_looked_at_too(self) -> None:
        made = OutlierConfig(a50=OutlierDetection(success_rate_ejection=SuccessRateEjection(stdev_factor=-1)))
        with pytest.raises(ConfigError, match="success_rate_ejection.stdev_factor: -1 is not usable"):
            parse_config(Config(outliers=made))

    def test_defaults(self) -> None:
        config = parse_config({"outliers": {"a50": {"success_rate_ejection": {}, "failure_percentage_ejection": None}}})
        assert config.outliers == OutlierConfig(a50=OutlierDetection(success_rate_ejection=SuccessRateEjection()))
        assert config.outliers.accrues
        assert config.outliers.a50.detects
        assert not OutlierConfig().a50.detects
        assert not OutlierConfig(consecutive_failures=0, success_ratio=0.0, connection_failures=0).accrues
        assert not OutlierConfig(max_ejected_share=0.0).accrues
