"""The counters of an endpoint, and the age of its open calls."""

from __future__ import annotations

import re
import weakref
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grpclb_core.native import Slot, Ticket
from grpclb_core.types import Outcome
from support.fleet import MILLISECOND, SECOND, START, answer, hold, only

# Ages are kept in units of 1.024 us; each call's start and the reading are cut to whole units.
UNIT_NS = 1_024

# Start times are kept in 44 bits of those units: after so long, 208 days, they start anew.
WRAP_NS = 2**44 * UNIT_NS

# The counter in which each outcome ends.
COUNTERS = {
    Outcome.SUCCESS: "successes",
    Outcome.FAILURE: "failures",
    Outcome.TIMED_OUT: "failures",
    Outcome.UNAVAILABLE: "failures",
    Outcome.RATE_LIMITED: "failures",
    Outcome.CANCELLED: "unjudged",
    Outcome.DROPPED: "unjudged",
}

FAILURES = [outcome for outcome, counter in COUNTERS.items() if counter == "failures"]
OTHERS = [Outcome.CANCELLED, Outcome.DROPPED]


def counters(slot: Slot) -> dict[str, int]:
    return {name: getattr(slot, name) for name in ("in_flight", "streams", "successes", "failures", "unjudged")}


def test_a_new_slot_has_counted_nothing() -> None:
    slot = Slot()
    assert set(counters(slot).values()) == {0}
    assert slot.picks == 0
    assert slot.age_ns_at(START) == 0.0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("outcome", Outcome)
def test_a_call_is_counted_while_it_runs_and_when_it_is_over(outcome: Outcome, stream: bool) -> None:
    slot = Slot()
    ticket = only(slot).pick_at(START, stream)
    none = dict.fromkeys(counters(slot), 0)
    assert counters(slot) == none | {"in_flight": 1, "streams": int(stream)}
    assert slot.picks == 1
    ticket.finish_at(outcome, START + SECOND)
    assert counters(slot) == none | {COUNTERS[outcome]: 1}
    assert slot.picks == 1


@pytest.mark.parametrize("outcome", Outcome)
def test_a_stream_is_never_timed(outcome: Outcome) -> None:
    slot = Slot()
    ticket = only(slot).pick_at(START, True)
    assert slot.age_ns_at(START + SECOND) == 0.0
    ticket.finish_at(outcome, START + SECOND)
    assert slot.is_newcomer
    assert slot.latency_ns_at(START + SECOND, 10.0) == 0.0


def test_a_stream_does_not_touch_the_latency_that_calls_have_told() -> None:
    slot = Slot()
    answer(slot, MILLISECOND)
    only(slot).pick_at(START, True).finish_at(Outcome.SUCCESS, START + SECOND)
    assert slot.latency_ns_at(START, 10.0) == MILLISECOND


def test_streams_are_in_flight_beside_the_others() -> None:
    slot = Slot()
    picker = only(slot)
    calls = [picker.pick_at(START, stream) for stream in (True, False, True, True)]
    assert (slot.in_flight, slot.streams) == (4, 3)
    calls[0].finish_at(Outcome.SUCCESS, START)
    calls[1].finish_at(Outcome.SUCCESS, START)
    assert (slot.in_flight, slot.streams) == (2, 2)


@settings(derandomize=True, database=None, deadline=None, max_examples=200)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("pick"), st.booleans()),
            st.tuples(st.sampled_from(Outcome), st.integers(0, 30)),
            st.tuples(st.just("drop"), st.integers(0, 30)),
        ),
        max_size=60,
    )
)
def test_the_counters_are_those_of_a_model(steps: list[tuple[object, int]]) -> None:
    """Whatever the order of picks, ends, second ends and drops, nothing is counted twice, below zero or not at all."""
    slot = Slot()
    picker = only(slot)
    tickets: list[Ticket | None] = []
    running: dict[int, bool] = {}  # whether it is a stream, by the ticket's position
    ended = dict.fromkeys(("successes", "failures", "unjudged"), 0)
    for now_ns, (step, argument) in enumerate(steps, START):
        if step == "pick":
            running[len(tickets)] = bool(argument)
            tickets.append(picker.pick_at(now_ns, bool(argument)))
        elif argument < len(tickets):
            outcome = Outcome.DROPPED
            if step == "drop":
                tickets[argument] = None  # it was the only reference
            elif (ticket := tickets[argument]) is not None:
                outcome = Outcome(step)
                assert ticket.finish_at(outcome, now_ns) is (argument in running)
                del ticket
            if running.pop(argument, None) is not None:
                ended[COUNTERS[outcome]] += 1
        assert counters(slot) == ended | {"in_flight": len(running), "streams": sum(running.values())}
        assert slot.picks == len(tickets)


class TestAge:
    """How long the open calls have been open, on average: what tells of a hang before any answer."""

    @pytest.mark.parametrize("start_ns", [0, START, 2**53 + 1, WRAP_NS - SECOND, 3 * WRAP_NS // 2, 2**63 - 10 * SECOND])
    def test_it_grows_with_the_clock_whatever_the_clock_reads(self, start_ns: int) -> None:
        slot = Slot()
        calls = hold(slot, 1, start_ns)
        for age_ns in (0, MILLISECOND, SECOND, 5 * SECOND):
            assert slot.age_ns_at(start_ns + age_ns) == pytest.approx(age_ns, abs=UNIT_NS)
        calls.clear()
        assert slot.age_ns_at(start_ns + SECOND) == 0.0

    def test_it_is_the_mean_of_all_open_calls(self) -> None:
        slot = Slot()
        calls = [*hold(slot, 3, START), *hold(slot, 1, START + 8 * SECOND)]
        now_ns = START + 10 * SECOND
        assert slot.age_ns_at(now_ns) == pytest.approx((3 * 10 + 2) / 4 * SECOND, abs=UNIT_NS)
        calls[0].finish_at(Outcome.SUCCESS, now_ns)
        assert slot.age_ns_at(now_ns) == pytest.approx((2 * 10 + 2) / 3 * SECOND, abs=UNIT_NS)
        calls[3].finish_at(Outcome.FAILURE, now_ns)
        assert slot.age_ns_at(now_ns) == pytest.approx(10 * SECOND, abs=UNIT_NS)

    def test_it_survives_a_sum_of_start_times_past_its_bits(self) -> None:
        # A thousand starts near the end of the 44 bits add up to a thousand times what fits.
        slot = Slot()
        calls = hold(slot, 1_000, WRAP_NS - SECOND)
        assert slot.in_flight == 1_000
        assert slot.age_ns_at(WRAP_NS + SECOND) == pytest.approx(2 * SECOND, abs=UNIT_NS)
        del calls[1:]
        assert slot.in_flight == 1
        assert slot.age_ns_at(WRAP_NS + 2 * SECOND) == pytest.approx(3 * SECOND, abs=UNIT_NS)

    def test_a_hundred_thousand_calls_can_be_open_for_a_minute(self) -> None:
        slot = Slot()
        calls = hold(slot, 100_000)
        assert slot.in_flight == 100_000
        assert slot.age_ns_at(START + 60 * SECOND) == pytest.approx(60 * SECOND, abs=UNIT_NS)
        calls.clear()
        assert slot.in_flight == 0

    def test_a_clock_that_stepped_back_is_no_age(self) -> None:
        slot = Slot()
        calls = hold(slot, 2)
        assert slot.age_ns_at(START - SECOND) == 0.0
        assert [ticket.is_open for ticket in calls] == [True, True]

    def test_a_clock_below_zero_works_as_any_other(self) -> None:
        slot = Slot()
        calls = hold(slot, 2, -5 * SECOND)
        assert slot.age_ns_at(SECOND) == pytest.approx(6 * SECOND, abs=UNIT_NS)
        assert len(calls) == slot.in_flight

    @settings(derandomize=True, database=None, deadline=None, max_examples=100)
    @given(
        base_ns=st.integers(0, 2**62),
        ages_ns=st.lists(st.integers(0, 3_600 * SECOND), min_size=1, max_size=50),
        closed=st.integers(0, 49),
    )
    def test_it_is_what_a_list_of_start_times_would_tell(self, base_ns: int, ages_ns: list[int], closed: int) -> None:
        slot = Slot()
        now_ns = base_ns + 3_600 * SECOND
        calls = [only(slot).pick_at(now_ns - age_ns) for age_ns in ages_ns]
        for ticket in calls[:closed]:
            ticket.finish_at(Outcome.SUCCESS, now_ns)
        left = ages_ns[closed:]
        expected = sum(left) / len(left) if left else 0.0
        assert slot.age_ns_at(now_ns) == pytest.approx(expected, abs=2 * UNIT_NS)


class TestLanes:
    """Those who hold the GIL count in one word, those who do not in another; what counts is the sum."""

    @pytest.mark.parametrize("closed_held", [False, True])
    @pytest.mark.parametrize("opened_held", [False, True])
    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("outcome", Outcome)
    def test_a_call_may_end_in_another_lane_than_it_began(
        self, probe: ModuleType, outcome: Outcome, stream: bool, opened_held: bool, closed_held: bool
    ) -> None:
        slot = Slot()
        none = dict.fromkeys(counters(slot), 0)
        probe.open_on(slot, START, stream, opened_held)
        assert counters(slot) == none | {"in_flight": 1, "streams": int(stream)}
        assert slot.age_ns_at(START + SECOND) == (0.0 if stream else pytest.approx(SECOND, abs=UNIT_NS))
        probe.close_on(slot, outcome, START, START + SECOND, stream, closed_held)
        assert counters(slot) == none | {COUNTERS[outcome]: 1}
        assert slot.picks == 1
        assert slot.age_ns_at(START + 2 * SECOND) == 0.0
        assert slot.is_newcomer is (stream or outcome is not Outcome.SUCCESS)

    def test_each_lane_has_words_of_its_own(self, probe: ModuleType) -> None:
        slot = Slot()
        only(slot).pick_at(START).finish_at(Outcome.SUCCESS, START)
        ticket = only(slot).pick_at(START)
        assert probe.lanes(slot) == {"timed": 1, "timed_free": 0, "successes": 1, "successes_free": 0}
        probe.open_on(slot, START, False, False)
        probe.open_on(slot, START, False, False)
        probe.close_on(slot, Outcome.SUCCESS, START, START, False, False)
        assert probe.lanes(slot) == {"timed": 1, "timed_free": 1, "successes": 1, "successes_free": 1}
        assert (slot.in_flight, slot.successes, slot.picks) == (2, 2, 4)
        assert ticket.is_open

    @pytest.mark.parametrize("opened_held", [False, True])
    def test_one_lane_may_go_below_zero(self, probe: ModuleType, opened_held: bool) -> None:
        slot = Slot()
        for number in range(1_000):
            probe.open_on(slot, START + number * SECOND, False, opened_held)
        for number in range(999):
            probe.close_on(slot, Outcome.DROPPED, START + number * SECOND, START, False, not opened_held)
        assert slot.in_flight == 1
        assert slot.age_ns_at(START + 1_000 * SECOND) == pytest.approx(SECOND, abs=UNIT_NS)
        probe.close_on(slot, Outcome.DROPPED, START + 999 * SECOND, START, False, not opened_held)
        assert counters(slot) == dict.fromkeys(counters(slot), 0) | {"unjudged": 1_000}
        assert slot.age_ns_at(START + 1_000 * SECOND) == 0.0

    def test_tickets_and_calls_without_the_gil_share_a_mean_age(self, probe: ModuleType) -> None:
        slot = Slot()
        calls = hold(slot, 3, START)
        probe.open_on(slot, START + 8 * SECOND, False, False)
        now_ns = START + 10 * SECOND
        assert slot.in_flight == 4
        assert slot.age_ns_at(now_ns) == pytest.approx((3 * 10 + 2) / 4 * SECOND, abs=UNIT_NS)
        calls[0].finish_at(Outcome.SUCCESS, now_ns)
        assert slot.age_ns_at(now_ns) == pytest.approx((2 * 10 + 2) / 3 * SECOND, abs=UNIT_NS)
        probe.close_on(slot, Outcome.SUCCESS, START + 8 * SECOND, now_ns, False, False)
        assert slot.age_ns_at(now_ns) == pytest.approx(10 * SECOND, abs=UNIT_NS)

    @settings(derandomize=True, database=None, deadline=None, max_examples=100)
    @given(
        base_ns=st.integers(0, 2**62),
        calls=st.lists(
            st.tuples(st.integers(0, 3_600 * SECOND), st.booleans(), st.booleans()), min_size=1, max_size=50
        ),
        closed=st.integers(0, 49),
    )
    def test_the_mean_age_is_that_of_a_list(
        self, probe: ModuleType, base_ns: int, calls: list[tuple[int, bool, bool]], closed: int
    ) -> None:
        slot = Slot()
        now_ns = base_ns + 3_600 * SECOND
        for age_ns, opened_held, _ in calls:
            probe.open_on(slot, now_ns - age_ns, False, opened_held)
        for age_ns, _, closed_held in calls[:closed]:
            probe.close_on(slot, Outcome.SUCCESS, now_ns - age_ns, now_ns, False, closed_held)
        left = [age_ns for age_ns, _, _ in calls[closed:]]
        assert slot.in_flight == len(left)
        assert slot.successes == len(calls) - len(left)
        assert slot.age_ns_at(now_ns) == pytest.approx(sum(left) / len(left) if left else 0.0, abs=2 * UNIT_NS)

    def test_a_slot_has_its_cache_lines_to_itself(self, probe: ModuleType) -> None:
        for slot in [Slot() for _ in range(100)]:
            offset, size, second_line = probe.placement(slot)
            assert offset == 0
            assert size <= 256
            assert second_line == 64


class TestForgetting:
    """A new connection may lead to another server: what is known of the old one's speed goes, the counters stay."""

    def test_it_makes_a_newcomer(self) -> None:
        slot = Slot()
        answer(slot, SECOND)
        slot.forget_latency_at(START)
        assert slot.is_newcomer
        assert slot.latency_ns_at(START, 10.0) == 0.0

    def test_the_next_answer_is_believed_at_once(self) -> None:
        slot = Slot()
        answer(slot, SECOND)
        slot.forget_latency_at(START)
        answer(slot, MILLISECOND, START + 1)
        assert not slot.is_newcomer
        assert slot.latency_ns_at(START + 1, 10.0) == MILLISECOND

    @pytest.mark.parametrize("outcome", [Outcome.CANCELLED, *FAILURES])
    def test_bounds_are_forgotten_too(self, outcome: Outcome) -> None:
        slot = Slot()
        answer(slot, SECOND, START, outcome)
        assert slot.latency_ns_at(START, 10.0) == SECOND
        slot.forget_latency_at(START)
        assert slot.latency_ns_at(START, 10.0) == 0.0
        answer(slot, MILLISECOND, START, outcome)  # news again
        assert slot.is_newcomer
        assert slot.latency_ns_at(START, 10.0) == MILLISECOND

    def test_it_counts_what_it_counted(self) -> None:
        slot = Slot()
        for outcome in Outcome:
            answer(slot, SECOND, START, outcome)
        calls = [*hold(slot, 2), only(slot).pick_at(START, True)]
        before = counters(slot)
        slot.forget_latency_at(START)
        assert counters(slot) == before
        assert slot.picks == len(Outcome) + 3
        assert slot.age_ns_at(START + SECOND) == pytest.approx(SECOND, abs=UNIT_NS)
        calls[0].finish_at(Outcome.SUCCESS, START + SECOND)
        assert slot.latency_ns_at(START + SECOND, 10.0) == SECOND

    def test_a_newcomer_has_nothing_to_forget(self) -> None:
        slot = Slot()
        slot.forget_latency_at(START)
        slot.forget_latency_at(START)
        assert slot.is_newcomer
        assert set(counters(slot).values()) == {0}


class TestSurelyAlive:
    """Whether an endpoint answered within the last 5 ms, so that its connection need not be looked at."""

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("held", [False, True])
    def test_a_success_says_so_for_five_milliseconds(self, probe: ModuleType, held: bool, stream: bool) -> None:
        slot = Slot()
        assert not probe.is_alive(slot, START)
        probe.open_on(slot, START - SECOND, stream, held)
        assert not probe.is_alive(slot, START)
        probe.close_on(slot, Outcome.SUCCESS, START - SECOND, START, stream, held)
        assert probe.is_alive(slot, START)
        assert probe.is_alive(slot, START + 5 * MILLISECOND - 1)
        assert not probe.is_alive(slot, START + 5 * MILLISECOND)

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("outcome", FAILURES)
    def test_a_failure_ends_it_at_once(self, probe: ModuleType, outcome: Outcome, stream: bool) -> None:
        slot = Slot()
        answer(slot, MILLISECOND)
        only(slot).pick_at(START, stream).finish_at(outcome, START + 1)
        assert not probe.is_alive(slot, START + 1)

    @pytest.mark.parametrize("outcome", OTHERS)
    def test_other_ends_do_not_change_it(self, probe: ModuleType, outcome: Outcome) -> None:
        slot = Slot()
        answer(slot, MILLISECOND, START, outcome)
        assert not probe.is_alive(slot, START)
        answer(slot, MILLISECOND)
        answer(slot, MILLISECOND, START + 1, outcome)
        assert probe.is_alive(slot, START + 1)


def test_a_slot_cannot_be_written_to() -> None:
    slot = Slot()
    for name in (*counters(slot), "picks", "is_newcomer", "failure_streak", "is_on_trial", "reported_weight"):
        with pytest.raises(AttributeError):
            setattr(slot, name, 1)


def test_slots_are_keys_by_identity() -> None:
    one, other = Slot(), Slot()
    assert {one: 1, other: 2}[one] == 1
    assert one != other


def test_a_slot_lives_as_long_as_a_ticket_on_it() -> None:
    slot = Slot()
    gone = weakref.ref(slot)
    (ticket,) = hold(slot, 1)
    del slot
    assert gone() is ticket.slot
    ticket.finish_at(Outcome.SUCCESS, START)
    del ticket
    assert gone() is None


class TestLastAnswer:
    """When the server last gave a sign of life, as far as its calls tell."""

    def test_a_slot_begins_without(self) -> None:
        assert Slot().last_answer_ns == 0

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("outcome", [Outcome.SUCCESS, Outcome.FAILURE, Outcome.UNAVAILABLE, Outcome.RATE_LIMITED])
    def test_good_or_bad_it_is_one(self, outcome: Outcome, stream: bool) -> None:
        slot = Slot()
        only(slot).pick_at(START, stream).finish_at(outcome, START + SECOND)
        assert slot.last_answer_ns == START + SECOND

    @pytest.mark.parametrize("outcome", [Outcome.TIMED_OUT, Outcome.CANCELLED, Outcome.DROPPED])
    @pytest.mark.parametrize("before", [None, Outcome.SUCCESS, Outcome.FAILURE])
    def test_what_the_caller_gave_up_is_none(self, outcome: Outcome, before: Outcome | None) -> None:
        slot = Slot()
        if before is not None:
            only(slot).pick_at(START).finish_at(before, START + 1)
        for second in range(1, 4):
            only(slot).pick_at(START).finish_at(outcome, START + second * SECOND)
        assert slot.last_answer_ns == (0 if before is None else START + 1)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("outcome", Outcome)
def test_a_timed_call_whose_deadline_passed_is_counted_once_more(outcome: Outcome, stream: bool) -> None:
    slot = Slot()
    only(slot).pick_at(START, stream).finish_at(outcome, START + SECOND)
    assert slot.timed_out == (not stream and outcome is Outcome.TIMED_OUT)


class TestFailureStreak:
    """Failures since the last success."""

    def test_it_counts_failures_of_every_kind(self) -> None:
        slot = Slot()
        for length, outcome in enumerate(FAILURES, 1):
            answer(slot, MILLISECOND, START, outcome)
            assert slot.failure_streak == length

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("held", [False, True])
    def test_a_success_ends_it(self, probe: ModuleType, held: bool, stream: bool) -> None:
        slot = Slot()
        for _ in range(2):  # it begins anew the second time
            for length in range(1, 4):
                probe.open_on(slot, START, stream, held)
                probe.close_on(slot, Outcome.FAILURE, START, START + 1, stream, held)
                assert slot.failure_streak == length
            probe.open_on(slot, START, stream, held)
            probe.close_on(slot, Outcome.SUCCESS, START, START + 1, stream, held)
            assert slot.failure_streak == 0

    @pytest.mark.parametrize("outcome", OTHERS)
    def test_what_says_nothing_of_the_server_neither_adds_nor_ends(self, outcome: Outcome) -> None:
        slot = Slot()
        answer(slot, MILLISECOND, START, outcome)
        assert slot.failure_streak == 0
        answer(slot, MILLISECOND, START, Outcome.UNAVAILABLE)
        answer(slot, MILLISECOND, START, outcome)
        assert slot.failure_streak == 1

    def test_a_forgotten_latency_is_no_success(self) -> None:
        slot = Slot()
        answer(slot, MILLISECOND, START, Outcome.FAILURE)
        slot.forget_latency_at(START)
        assert slot.failure_streak == 1


class TestReports:
    """What the load reports of a server say; words that nobody but their writer touches."""

    def test_a_slot_begins_without(self) -> None:
        slot = Slot()
        assert (slot.reported_weight, slot.weighed_ns, slot.weighed_since_ns) == (0.0, 0, 0)
        assert (slot.reported_in_flight, slot.reported_latency_ns, slot.reported_ns) == (0, 0.0, 0)
        assert slot.ignored_reports == 0

    def test_a_weight_is_kept_with_its_time_and_that_of_the_first(self) -> None:
        slot = Slot()
        for second, weight in enumerate((2.5, 1e-9, 1e12)):
            slot.report_weight_at(weight, START + second)
            assert (slot.reported_weight, slot.weighed_ns) == (weight, START + second)
            assert slot.weighed_since_ns == START

    def test_a_weight_that_was_forgotten_starts_anew(self) -> None:
        slot = Slot()
        slot.report_weight_at(2.0, START)
        slot.forget_weight()
        assert (slot.reported_weight, slot.weighed_since_ns) == (0.0, 0)
        slot.forget_weight()
        slot.report_weight_at(3.0, START + SECOND)
        assert (slot.reported_weight, slot.weighed_since_ns) == (3.0, START + SECOND)

    def test_a_load_is_kept_with_its_time(self) -> None:
        slot = Slot()
        slot.report_load_at(17, 2.5e6, START)
        assert (slot.reported_in_flight, slot.reported_latency_ns, slot.reported_ns) == (17, 2.5e6, START)
        slot.report_load_at(0, 0.0, START + 1)
        assert (slot.reported_in_flight, slot.reported_latency_ns, slot.reported_ns) == (0, 0.0, START + 1)

    @pytest.mark.parametrize("now_ns", [0, -SECOND])
    def test_on_a_clock_at_zero_or_below_there_was_a_report_all_the_same(self, now_ns: int) -> None:
        slot = Slot()
        slot.report_weight_at(2.0, now_ns)
        slot.report_load_at(1, 1.0, now_ns)
        assert slot.weighed_since_ns > 0
        assert slot.reported_ns > 0

    def test_ignored_reports_are_counted(self) -> None:
        slot = Slot()
        for number in range(1, 4):
            slot.ignore_report()
            assert slot.ignored_reports == number

    def test_they_leave_the_rest_alone(self) -> None:
        slot = Slot()
        answer(slot, MILLISECOND)
        before = counters(slot)
        slot.report_weight_at(2.0, START + 1)
        slot.report_load_at(17, 1e9, START + 1)
        slot.ignore_report()
        assert counters(slot) == before
        assert slot.latency_ns_at(START, 10.0) == MILLISECOND
        assert slot.last_answer_ns == START

    def test_a_forgotten_latency_leaves_them_alone(self) -> None:
        slot = Slot()
        slot.report_weight_at(2.0, START)
        slot.report_load_at(17, 1e9, START)
        slot.forget_latency_at(START)
        assert (slot.reported_weight, slot.reported_in_flight) == (2.0, 17)


def test_every_word_is_told_of_in_the_memory_model() -> None:
    root = Path(__file__).parents[2]
    (struct,) = re.findall(
        r"cdef struct SlotWords:\n((?: .*\n)+)", (root / "ext/grpclb_core/native/slot.pxd").read_text()
    )
    words = re.findall(r"^    (?:word|void\*) (\w+)", struct, re.MULTILINE)
    assert len(words) > 10
    page = (root / "docs/memory-model.md").read_text()
    assert [word for word in words if f"`{word}`" not in page] == []
