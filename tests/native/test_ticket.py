"""A pick is a debt: it is settled exactly once, whichever way the call ends."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import sys
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import grpc
import grpc.aio
import pytest

from grpclb_core.native import P2cEwmaPicker, Slot, Ticket, View
from grpclb_core.types import Outcome
from support.calls import CoreAlone, FinishedCall, counts, follow
from support.fleet import SECOND, START, hold, new_slots, only
from support.servers import UNARY_UNARY, echo_servers

# Statuses that speak against the server. Each of the others is an answer to a request that could not be granted.
FAULTS = {
    grpc.StatusCode.UNKNOWN: Outcome.FAILURE,
    grpc.StatusCode.DEADLINE_EXCEEDED: Outcome.TIMED_OUT,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Outcome.RATE_LIMITED,
    grpc.StatusCode.INTERNAL: Outcome.FAILURE,
    grpc.StatusCode.UNAVAILABLE: Outcome.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS: Outcome.FAILURE,
}


class RunningCall(FinishedCall):
    """A call whose status is not known yet, so that asking for it waits."""

    def __init__(self) -> None:
        super().__init__(None)
        self.was_closed = False

    async def code(self) -> object:
        try:
            await asyncio.sleep(0)
        finally:
            self.was_closed = True
        raise AssertionError("nobody waits for this")


class BrokenCall(FinishedCall):
    """A call, of somebody's own making, that fails when it is asked how it ended."""

    def __init__(self, error: BaseException, broken: str) -> None:
        super().__init__(grpc.StatusCode.CANCELLED)
        self._error = error
        setattr(self, broken, self._fail)

    async def _fail(self) -> object:
        raise self._error


@pytest.fixture
def slot() -> Slot:
    return Slot()


@pytest.fixture
def ticket(slot: Slot) -> Ticket:
    """Opened on the real clock, which the done callback reads as well."""
    return only(slot).pick()


class TestFinish:
    def test_only_the_first_finish_counts(self, slot: Slot, ticket: Ticket) -> None:
        assert ticket.is_open
        assert ticket.finish(Outcome.SUCCESS) is True
        assert not ticket.is_open
        for outcome in Outcome:
            assert ticket.finish(outcome) is False
            assert ticket.finish_at(outcome, START) is False
        ticket(FinishedCall(grpc.StatusCode.UNAVAILABLE))
        del ticket
        assert counts(slot) == (0, 1, 0, 0)

    @pytest.mark.parametrize("outcome", [-1, len(Outcome), 2**31 - 1])
    def test_what_is_no_outcome_is_refused_and_the_ticket_stays_open(
        self, slot: Slot, ticket: Ticket, outcome: int
    ) -> None:
        for finish in (ticket.finish, lambda outcome: ticket.finish_at(outcome, START)):
            with pytest.raises(ValueError, match=rf"outcome {outcome} is unknown; .*Outcome"):
                finish(outcome)
        assert ticket.is_open
        assert counts(slot) == (1, 0, 0, 0)

    @pytest.mark.parametrize("outcome", [None, "SUCCESS", 2**31])
    def test_what_is_no_number_is_refused_and_the_ticket_stays_open(self, ticket: Ticket, outcome: object) -> None:
        with pytest.raises((TypeError, OverflowError)):
            ticket.finish(outcome)  # type: ignore[arg-type]
        assert ticket.is_open

    def test_numbers_of_the_outcomes_are_those_of_the_core(self, slot: Slot) -> None:
        for outcome in Outcome:
            only(slot).pick_at(START).finish_at(outcome, START + SECOND)
        assert counts(slot) == (0, 1, 4, 2)

    def test_it_knows_its_endpoint(self) -> None:
        slots = new_slots(3)
        picker = P2cEwmaPicker(View(slots), seed=1)
        for _ in range(20):
            ticket = picker.pick_at(START)
            assert ticket.slot.in_flight == 1
            assert sum(slot.in_flight for slot in slots) == 1
            ticket.finish_at(Outcome.DROPPED, START)
            assert ticket.slot in slots


class TestDrop:
    """A call object may vanish without ever running its callbacks; the debt may not."""

    @pytest.mark.parametrize("stream", [False, True])
    def test_a_dropped_ticket_gives_back(self, slot: Slot, stream: bool) -> None:
        ticket = only(slot).pick_at(START, stream)
        assert slot.in_flight == 1
        del ticket
        assert counts(slot) == (0, 0, 0, 1)
        assert slot.streams == 0

    def test_it_says_nothing_of_the_server(self, slot: Slot) -> None:
        ticket = only(slot).pick()
        del ticket
        assert slot.is_newcomer
        assert slot.latency_ns_at(START, 10.0) == 0.0

    def test_it_gives_back_from_within_a_cycle_too(self, slot: Slot) -> None:
        cycle: list[object] = [only(slot).pick_at(START)]
        cycle.append(cycle)
        del cycle
        gc.collect()
        assert counts(slot) == (0, 0, 0, 1)

    def test_it_gives_back_when_an_exception_flies_past(self, slot: Slot) -> None:
        def caller() -> None:
            ticket = only(slot).pick_at(START)
            raise RuntimeError(f"the serializer failed with {ticket.is_open=}")

        with pytest.raises(RuntimeError, match="is_open=True"):
            caller()
        gc.collect()
        assert counts(slot) == (0, 0, 0, 1)


class TestDoneCallback:
    @pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.CANCELLED])
    def test_the_status_decides(self, slot: Slot, ticket: Ticket, code: grpc.StatusCode) -> None:
        ticket(FinishedCall(code))
        assert counts(slot) == ((0, 0, 1, 0) if code in FAULTS else (0, 1, 0, 0))
        assert slot.is_newcomer is (code in FAULTS)

    @pytest.mark.parametrize("code", FAULTS)
    def test_a_failure_is_of_the_class_of_its_status(self, slot: Slot, code: grpc.StatusCode) -> None:
        # Classes differ in the penalty that a picker may set for each; a timeout is no sign of life besides.
        seconds = {Outcome.FAILURE: 2, Outcome.TIMED_OUT: 2, Outcome.UNAVAILABLE: 3, Outcome.RATE_LIMITED: 4}
        P2cEwmaPicker(View([slot]), failure_s=2.0, unavailable_s=3.0, rate_limited_s=4.0).pick()(FinishedCall(code))
        assert slot.latency_ns_at(0, 10.0) == seconds[FAULTS[code]] * SECOND
        assert slot.timed_out == (code is grpc.StatusCode.DEADLINE_EXCEEDED)
        assert (slot.last_answer_ns == 0) is (code is grpc.StatusCode.DEADLINE_EXCEEDED)

    def test_a_call_the_application_cancelled_is_a_lower_bound(self, slot: Slot, ticket: Ticket) -> None:
        ticket(FinishedCall(grpc.StatusCode.CANCELLED, "Locally cancelled by application!"))
        assert counts(slot) == (0, 0, 0, 1)
        assert slot.latency_ns_at(0, 10.0) > 0.0

    @pytest.mark.parametrize("details", ["Cancelled upon garbage collection!", "the server gave up", "", None])
    def test_a_call_cancelled_otherwise_says_nothing(self, slot: Slot, ticket: Ticket, details: str | None) -> None:
        ticket(FinishedCall(grpc.StatusCode.CANCELLED, details))
        assert counts(slot) == (0, 0, 0, 1)
        assert slot.latency_ns_at(0, 10.0) == 0.0

    def test_a_call_without_a_status_says_nothing(self, slot: Slot, ticket: Ticket) -> None:
        ticket(FinishedCall(None))
        assert counts(slot) == (0, 0, 0, 1)
        assert slot.latency_ns_at(0, 10.0) == 0.0

    def test_a_status_gRPC_does_not_know_is_an_answer(self, slot: Slot, ticket: Ticket) -> None:  # noqa: N802
        ticket(FinishedCall(299))
        assert counts(slot) == (0, 1, 0, 0)

    def test_nobody_waits_for_a_status(self, slot: Slot, ticket: Ticket) -> None:
        call = RunningCall()
        ticket(call)
        assert call.was_closed  # the coroutine was not left behind, to be warned of by the garbage collector
        assert counts(slot) == (0, 0, 0, 1)

    @pytest.mark.parametrize("broken", ["code", "details"])
    @pytest.mark.parametrize("error", [RuntimeError("broken"), asyncio.CancelledError(), KeyboardInterrupt()])
    def test_a_call_that_cannot_tell_its_status_is_settled_all_the_same(
        self, slot: Slot, ticket: Ticket, broken: str, error: BaseException
    ) -> None:
        with pytest.raises(type(error)):
            ticket(BrokenCall(error, broken))
        assert not ticket.is_open
        assert counts(slot) == (0, 0, 0, 1)

    @pytest.mark.parametrize("call", [object(), type("Call", (), {"code": lambda self: grpc.StatusCode.OK})()])
    def test_what_is_no_call_of_grpc_aio_is_settled_all_the_same(
        self, slot: Slot, ticket: Ticket, call: object
    ) -> None:
        with pytest.raises(AttributeError):
            ticket(call)
        assert counts(slot) == (0, 0, 0, 1)

    def test_without_a_call_there_is_no_status_to_read(self, slot: Slot, ticket: Ticket) -> None:
        for arguments in ((), (None,)):
            with pytest.raises(TypeError, match="needs the call that is done"):
                ticket(*arguments)
        assert counts(slot) == (1, 0, 0, 0)
        assert ticket.is_open

    def test_a_settled_ticket_does_not_ask_again(self, slot: Slot, ticket: Ticket) -> None:
        ticket.finish(Outcome.SUCCESS)
        ticket(BrokenCall(RuntimeError("asked"), "code"))
        assert counts(slot) == (0, 1, 0, 0)

    def test_a_stream_is_counted_and_not_timed(self, slot: Slot) -> None:
        only(slot).pick_stream()(FinishedCall(grpc.StatusCode.OK))
        assert counts(slot) == (0, 1, 0, 0)
        assert slot.is_newcomer

    def test_grpc_aio_says_so_when_the_application_cancelled(self, slot: Slot) -> None:
        """The words are grpc.aio's own: this fails with a release that changes them."""

        async def cancel_one() -> None:
            # Nobody listens there, so the call waits for a connection until it is cancelled.
            async with grpc.aio.insecure_channel("unix:///nonexistent/grpclb.sock") as channel:
                call = channel.unary_unary("/service/Method")(b"", wait_for_ready=True)
                call.add_done_callback(only(slot).pick())
                call.cancel()
                assert await call.code() is grpc.StatusCode.CANCELLED

        asyncio.run(cancel_one())
        assert counts(slot) == (0, 0, 0, 1)
        assert slot.latency_ns_at(0, 10.0) > 0.0


class FollowedCall(FinishedCall):
    """A call as an interceptor may make it, which keeps whoever wants to hear of its end."""

    def __init__(self, code: object = grpc.StatusCode.OK, details: object = "") -> None:
        super().__init__(code, details)
        self.followers: list[Callable[[object], object]] = []

    def add_done_callback(self, follower: Callable[[object], object]) -> None:
        self.followers.append(follower)


class LooksLikeCore:
    """What another grpcio might keep where ours keeps C-core's side of a call."""

    def add_done_callback(self, follower: object) -> None:
        raise AssertionError("of this nothing is known")

    def is_ok(self) -> bool:
        raise AssertionError("of this nothing is known")


class TestFollowing:
    """A started call is followed on C-core's side of it where that is known, else in the documented way."""

    @pytest.mark.parametrize("core", ["missing", None, LooksLikeCore()])
    @pytest.mark.parametrize("code", [grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND])
    def test_a_call_without_the_core_we_know_is_asked_for_its_code(
        self, slot: Slot, ticket: Ticket, code: grpc.StatusCode, core: object
    ) -> None:
        call = FollowedCall(code)
        if core != "missing":
            call._cython_call = core  # type: ignore[attr-defined]
        follow(ticket, call)
        assert call.followers == [ticket]
        assert counts(slot) == (1, 0, 0, 0)
        call.followers[0](call)
        assert counts(slot) == ((0, 0, 1, 0) if code in FAULTS else (0, 1, 0, 0))

    @pytest.mark.parametrize(
        ("request_", "expected"),
        [
            (b"x", (0, 1, 0, 0)),
            (b"fail:NOT_FOUND", (0, 1, 0, 0)),
            (b"fail:UNAVAILABLE", (0, 0, 1, 0)),
            (b"fail:CANCELLED", (0, 0, 0, 1)),
        ],
    )
    @pytest.mark.parametrize("how", [lambda call: call, CoreAlone, lambda call: FollowedReal(call)])
    def test_both_ways_tell_the_same_of_a_real_call(
        self, slot: Slot, ticket: Ticket, how: Callable[[Any], Any], request_: bytes, expected: tuple[int, ...]
    ) -> None:
        async def call_one() -> None:
            async with echo_servers(1) as (server,), grpc.aio.insecure_channel(server.address) as channel:
                call = channel.unary_unary(UNARY_UNARY)(request_)
                follow(ticket, how(call))
                assert counts(slot) == (1, 0, 0, 0)
                await call.code()
                await asyncio.sleep(0)  # done callbacks may have a turn of their own

        asyncio.run(call_one())
        assert counts(slot) == expected
        assert slot.is_newcomer is (expected != (0, 1, 0, 0))

    def test_a_call_that_is_over_settles_at_once(self, slot: Slot, ticket: Ticket) -> None:
        async def call_one() -> None:
            async with echo_servers(1) as (server,), grpc.aio.insecure_channel(server.address) as channel:
                call = channel.unary_unary(UNARY_UNARY)(b"x")
                await call
                follow(ticket, CoreAlone(call))
                await asyncio.sleep(0)

        asyncio.run(call_one())
        assert counts(slot) == (0, 1, 0, 0)

    @pytest.mark.parametrize("how", [lambda call: call, CoreAlone])
    def test_a_followed_call_the_application_cancelled_is_a_lower_bound(
        self, slot: Slot, ticket: Ticket, how: Callable[[Any], Any]
    ) -> None:
        async def cancel_one() -> None:
            async with grpc.aio.insecure_channel("unix:///nonexistent/grpclb.sock") as channel:
                call = channel.unary_unary("/service/Method")(b"", wait_for_ready=True)
                follow(ticket, how(call))
                call.cancel()
                assert await call.code() is grpc.StatusCode.CANCELLED

        asyncio.run(cancel_one())
        assert counts(slot) == (0, 0, 0, 1)
        assert slot.latency_ns_at(0, 10.0) > 0.0

    def test_following_keeps_no_call_alive(self, slot: Slot, ticket: Ticket) -> None:
        async def call_one() -> weakref.ref[object]:
            async with echo_servers(1) as (server,), grpc.aio.insecure_channel(server.address) as channel:
                call = channel.unary_unary(UNARY_UNARY)(b"x")
                follow(ticket, call)
                await call
                return weakref.ref(call)

        call = asyncio.run(call_one())
        gc.collect()
        assert call() is None
        assert counts(slot) == (0, 1, 0, 0)


class FollowedReal:
    """A real call seen through its documented side only."""

    def __init__(self, call: Any) -> None:
        self.add_done_callback = call.add_done_callback


class TestMaking:
    def test_only_a_picker_makes_one(self) -> None:
        with pytest.raises(TypeError, match=r"opened by a picker: call its pick\(\)"):
            Ticket()

    def test_an_empty_shell_owes_nothing(self) -> None:
        shell = Ticket.__new__(Ticket)
        assert not shell.is_open
        assert shell.finish(Outcome.SUCCESS) is False

    @pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
    def test_a_debt_cannot_be_doubled(self, slot: Slot, ticket: Ticket, duplicate: object) -> None:
        with pytest.raises(TypeError):
            duplicate(ticket)  # type: ignore[operator]
        assert counts(slot) == (1, 0, 0, 0)

    def test_memory_used_before_makes_a_clean_ticket(self) -> None:
        """Tickets are made of the memory of dead ones; more of them than are kept for that, and every kind."""
        one, other = new_slots(2)
        for _ in range(5):
            first = [only(one).pick_at(START, stream=True) for _ in range(300)]
            for ticket in first[::2]:
                ticket.finish_at(Outcome.FAILURE, START)
            del first, ticket
            second = hold(other, 300, START + SECOND)
            assert all(ticket.is_open and ticket.slot is other for ticket in second)
            assert (other.in_flight, other.streams) == (300, 0)
            assert other.age_ns_at(START + 2 * SECOND) == pytest.approx(SECOND, abs=1_024)
            for ticket in second:
                ticket.finish_at(Outcome.SUCCESS, START + SECOND)
            del second, ticket
        assert counts(one) == (0, 0, 750, 750)
        assert counts(other) == (0, 1_500, 0, 0)

    def test_dead_tickets_hold_on_to_nothing(self, slot: Slot) -> None:
        before = sys.getrefcount(slot)
        for _ in range(3):
            assert len(hold(slot, 300)) == 300
        assert sys.getrefcount(slot) == before


def test_reading_a_status_leaves_no_coroutine_behind(ticket: Ticket) -> None:
    asked: list[weakref.ref[object]] = []

    class Watched(FinishedCall):
        def code(self) -> Coroutine[object, object, object]:  # type: ignore[override]
            coroutine = super().code()
            asked.append(weakref.ref(coroutine))
            return coroutine

    ticket(Watched(grpc.StatusCode.OK))
    assert [coroutine() for coroutine in asked] == [None]
