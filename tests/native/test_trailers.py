"""What a server sends with the end of a call: who reads it, and what it may ask for."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterable
from typing import Any

import grpc
import grpc.aio
import pytest

from grpclb_core.native import LeastRequestPicker, P2cEwmaPicker, Picker, RandomPicker, RoundRobinPicker, Slot, View
from grpclb_core.types import Outcome
from support.calls import CoreAlone, FinishedCall, counts, follow
from support.fleet import SECOND, START
from support.servers import UNARY_UNARY, echo_servers

PICKERS = [P2cEwmaPicker, LeastRequestPicker, RoundRobinPicker, RandomPicker]
FAULTS = ["UNKNOWN", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"]
PUSHBACK = "grpc-retry-pushback-ms"


@pytest.fixture
def slot() -> Slot:
    return Slot()


@pytest.fixture
def picker(slot: Slot) -> Picker:
    return P2cEwmaPicker(View([slot]), pushback_s=300.0)


def bound(slot: Slot) -> float:
    return slot.latency_ns_at(0, 10.0)  # at a time before, so that nothing has faded


async def call_real(
    picker: Picker, request: bytes, how: Callable[[Any], Any], trailing: Iterable[tuple[str, str]]
) -> None:
    """Call a server that sends `trailing`, with a ticket of `picker` on the call."""
    async with echo_servers(1) as (server,), grpc.aio.insecure_channel(server.address) as channel:

        async def begin(context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
            context.set_trailing_metadata(tuple(trailing))

        server._begin = begin  # type: ignore[method-assign]
        call = channel.unary_unary(UNARY_UNARY)(request)
        follow(picker.pick(), how(call))
        await call.code()
        await asyncio.sleep(0)  # done callbacks may have a turn of their own


class Documented:
    """A real call seen through its documented side only."""

    def __init__(self, call: Any) -> None:
        self.add_done_callback = call.add_done_callback


HOW = [lambda call: call, CoreAlone, Documented]


class TestPushback:
    """gRFC A6: a server may say in milliseconds how long to leave it alone."""

    @pytest.mark.parametrize("code", FAULTS)
    def test_a_failure_with_one_raises_the_latency(self, slot: Slot, picker: Picker, code: str) -> None:
        picker.pick()(FinishedCall(grpc.StatusCode[code], trailing=(("x", "y"), (PUSHBACK, "7000"))))
        assert bound(slot) == 7 * SECOND
        assert slot.is_newcomer
        assert counts(slot) == (0, 0, 1, 0)

    @pytest.mark.parametrize(
        ("value", "granted_s"),
        [("7000", 7), ("7000.5", 7.0005), ("300000", 300), ("300001", 300), ("9" * 400, 300), ("inf", 300)],
    )
    def test_it_is_granted_up_to_a_ceiling(self, slot: Slot, picker: Picker, value: str, granted_s: float) -> None:
        picker.pick()(FinishedCall(grpc.StatusCode.UNAVAILABLE, trailing=((PUSHBACK, value),)))
        assert bound(slot) == pytest.approx(granted_s * SECOND)

    @pytest.mark.parametrize("value", ["0", "-1", "-inf", "nan", "", "soon", "0x10", "7 s", b"", b"\xff"])
    def test_what_asks_for_nothing_is_passed_over(self, slot: Slot, picker: Picker, value: str | bytes) -> None:
        picker.pick()(FinishedCall(grpc.StatusCode.UNAVAILABLE, trailing=((PUSHBACK, value),)))
        assert bound(slot) < SECOND  # what the call took
        assert counts(slot) == (0, 0, 1, 0)

    @pytest.mark.parametrize("trailing", [None, (), grpc.aio.Metadata(), (("grpc-retry-pushback", "7000"),)])
    def test_most_failures_come_without(self, slot: Slot, picker: Picker, trailing: object) -> None:
        picker.pick()(FinishedCall(grpc.StatusCode.UNAVAILABLE, trailing=trailing))
        assert bound(slot) < SECOND

    @pytest.mark.parametrize("code", ["OK", "NOT_FOUND"])
    def test_an_answer_with_one_is_taken_for_what_it_took(self, slot: Slot, picker: Picker, code: str) -> None:
        picker.pick()(FinishedCall(grpc.StatusCode[code], trailing=((PUSHBACK, "7000"),)))
        assert bound(slot) < SECOND
        assert counts(slot) == (0, 1, 0, 0)

    @pytest.mark.parametrize("kind", PICKERS)
    def test_who_grants_none_takes_no_notice(self, slot: Slot, kind: type[Picker]) -> None:
        call = FinishedCall(grpc.StatusCode.UNAVAILABLE, trailing=((PUSHBACK, "7000"),))
        kind(View([slot])).pick()(call)
        assert bound(slot) < SECOND

    def test_a_failed_stream_with_one_is_left_alone_too(self, slot: Slot, picker: Picker) -> None:
        picker.pick_stream()(FinishedCall(grpc.StatusCode.UNAVAILABLE, trailing=((PUSHBACK, "7000"),)))
        assert bound(slot) == 7 * SECOND

    @pytest.mark.parametrize("how", HOW)
    def test_a_real_server_is_heard(self, slot: Slot, picker: Picker, how: Callable[[Any], Any]) -> None:
        asyncio.run(call_real(picker, b"fail:RESOURCE_EXHAUSTED", how, [(PUSHBACK, "7000")]))
        assert bound(slot) == 7 * SECOND

    def test_a_call_that_cannot_tell_its_trailers_is_settled_by_its_status(self, slot: Slot, picker: Picker) -> None:
        class Broken(FinishedCall):
            async def trailing_metadata(self) -> object:
                raise RuntimeError("broken")

        with pytest.raises(RuntimeError, match="broken"):
            picker.pick()(Broken(grpc.StatusCode.UNAVAILABLE))
        assert counts(slot) == (0, 0, 1, 0)

    @pytest.mark.parametrize("trailing", [7, ("x",), ((PUSHBACK,),), ((PUSHBACK, None),)])
    def test_trailers_that_are_none_settle_all_the_same(self, slot: Slot, picker: Picker, trailing: object) -> None:
        with pytest.raises((TypeError, ValueError)):
            picker.pick()(FinishedCall(grpc.StatusCode.UNAVAILABLE, trailing=trailing))
        assert counts(slot) == (0, 0, 1, 0)


class TestReporter:
    """Whoever reads load reports is handed the trailers of every call that ended."""

    @pytest.fixture
    def heard(self, picker: Picker) -> list[tuple[Slot, Any]]:
        heard: list[tuple[Slot, Any]] = []
        picker.reporter = lambda slot, trailing: heard.append((slot, trailing))
        return heard

    @pytest.mark.parametrize("kind", PICKERS)
    def test_there_is_none_at_first(self, slot: Slot, kind: type[Picker]) -> None:
        assert kind(View([slot])).reporter is None

    @pytest.mark.parametrize("code", ["OK", "NOT_FOUND", *FAULTS, "CANCELLED"])
    def test_it_hears_of_every_status(
        self, slot: Slot, picker: Picker, heard: list[tuple[Slot, Any]], code: str
    ) -> None:
        trailing = (("endpoint-load-metrics-bin", b"\x00"),)
        picker.pick()(FinishedCall(grpc.StatusCode[code], trailing=trailing))
        assert heard == [(slot, trailing)]
        assert heard[0][1] is trailing

    @pytest.mark.parametrize("stream", [False, True])
    def test_it_hears_of_streams_too(
        self, slot: Slot, picker: Picker, heard: list[tuple[Slot, Any]], stream: bool
    ) -> None:
        (picker.pick_stream() if stream else picker.pick())(FinishedCall(grpc.StatusCode.OK, trailing=()))
        assert heard == [(slot, ())]

    @pytest.mark.parametrize("how", HOW)
    @pytest.mark.parametrize("request_", [b"x", b"fail:NOT_FOUND", b"fail:UNAVAILABLE"])
    def test_it_hears_of_real_calls(
        self, slot: Slot, picker: Picker, heard: list[tuple[Slot, Any]], request_: bytes, how: Callable[[Any], Any]
    ) -> None:
        asyncio.run(call_real(picker, request_, how, [("x-load", "0.5")]))
        ((of, trailing),) = heard
        assert of is slot
        assert ("x-load", "0.5") in list(trailing)

    def test_the_debt_is_settled_by_then(self, slot: Slot, picker: Picker) -> None:
        seen = []
        picker.reporter = lambda slot, _: seen.append(counts(slot))
        picker.pick()(FinishedCall(grpc.StatusCode.OK, trailing=()))
        assert seen == [(0, 1, 0, 0)]

    def test_one_that_fails_loses_no_debt(self, slot: Slot, picker: Picker) -> None:
        def fail(_: Slot, trailing: Any) -> None:
            raise RuntimeError(f"cannot read {trailing}")

        picker.reporter = fail
        with pytest.raises(RuntimeError, match="cannot read"):
            picker.pick()(FinishedCall(grpc.StatusCode.OK, trailing=()))
        assert counts(slot) == (0, 1, 0, 0)

    def test_what_ended_otherwise_has_no_trailers(
        self, slot: Slot, picker: Picker, heard: list[tuple[Slot, Any]]
    ) -> None:
        picker.pick().finish(Outcome.SUCCESS)
        picker.pick_at(START).finish_at(Outcome.UNAVAILABLE, START)
        picker.pick()  # dropped
        picker.pick()(FinishedCall(grpc.StatusCode.OK, trailing=None))
        assert heard == []
        assert counts(slot) == (0, 2, 1, 1)

    def test_a_ticket_that_was_settled_is_not_heard_of(self, picker: Picker, heard: list[tuple[Slot, Any]]) -> None:
        ticket = picker.pick()
        ticket.finish(Outcome.CANCELLED)
        ticket(FinishedCall(grpc.StatusCode.OK, trailing=()))
        assert heard == []

    def test_whoever_is_there_at_the_end_hears_of_it(self, slot: Slot, picker: Picker) -> None:
        ticket, other = picker.pick(), picker.pick()
        heard: list[Slot] = []
        picker.reporter = lambda slot, _: heard.append(slot)
        ticket(FinishedCall(grpc.StatusCode.OK, trailing=()))
        picker.reporter = None
        other(FinishedCall(grpc.StatusCode.OK, trailing=()))
        assert heard == [slot]

    def test_it_may_pick_and_finish_itself(self, slot: Slot, picker: Picker) -> None:
        picker.reporter = lambda *_: picker.pick().finish(Outcome.SUCCESS)
        picker.pick()(FinishedCall(grpc.StatusCode.OK, trailing=()))
        assert counts(slot) == (0, 2, 0, 0)

    def test_a_picker_that_reports_to_itself_is_collected(self) -> None:
        slot = Slot()
        gone = []

        class Told:
            def __init__(self, picker: Picker) -> None:
                self.picker = picker

            def __call__(self, slot: Slot, trailing: object) -> None:
                self.picker.reported(slot)

            def __del__(self) -> None:
                gone.append(True)

        picker: Picker = P2cEwmaPicker(View([slot]))
        picker.reporter = Told(picker)
        picker.pick()(FinishedCall(grpc.StatusCode.OK, trailing=()))
        del picker
        gc.collect()
        assert gone == [True]


@pytest.mark.parametrize("kind", PICKERS)
def test_a_picker_takes_no_notice_of_reports_by_itself(slot: Slot, kind: type[Picker]) -> None:
    picker = kind(View([slot]), seed=1)
    picker.reported(slot)
    assert picker.pick().slot is slot
    with pytest.raises(TypeError):
        picker.reported(None)  # type: ignore[arg-type]
