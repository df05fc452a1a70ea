"""What holds whatever happens: some endpoint stays, and no more are out than may be."""

from __future__ import annotations

import random
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from grpclb_core.config import FailurePercentageEjection, OutlierConfig, OutlierDetection, SuccessRateEjection
from grpclb_core.health import Standing, choose
from grpclb_core.health.outlier import Change, Reason, Seen, State, Step, sweep
from grpclb_core.health.outlier.room import Room
from grpclb_core.health.outlier.window import SLICES, Calls, Window, slice_at, slide, total
from grpclb_core.types import Address

ADDRESSES = [Address("10.0.0.1", port) for port in range(1, 9)]
OWN_REASONS = {Reason.CONSECUTIVE_FAILURES, Reason.SUCCESS_RATIO, Reason.CONNECTION_FAILURES, Reason.FAILED_TRIAL}

MOSTLY_USABLE = st.sampled_from([*[Standing.USABLE] * 12, *Standing, None])
CALLS = st.tuples(st.integers(0, 3), st.sampled_from([0, 0, 0, 1, 5, 30]))
A50 = st.builds(
    OutlierDetection,
    interval_s=st.sampled_from([0.0, 0.3, 2.0]),
    base_ejection_time_s=st.sampled_from([0.0, 1.0]),
    max_ejection_percent=st.integers(0, 100),
    success_rate_ejection=st.none()
    | st.builds(SuccessRateEjection, stdev_factor=st.integers(0, 1900), request_volume=st.integers(0, 5)),
    failure_percentage_ejection=st.none()
    | st.builds(FailurePercentageEjection, minimum_hosts=st.integers(0, 3), request_volume=st.integers(0, 5)),
)
CONFIGS = st.builds(
    OutlierConfig,
    consecutive_failures=st.integers(0, 9),
    success_ratio=st.floats(0, 1),
    min_requests=st.integers(1, 20),
    connection_failures=st.integers(0, 3),
    max_ejected_share=st.floats(0, 1),
    first_pause_s=st.just(0.5),
    a50=A50,
)
ENDPOINTS = st.dictionaries(
    st.sampled_from(ADDRESSES), st.tuples(CALLS, MOSTLY_USABLE, st.integers(0, 4)), max_size=len(ADDRESSES)
)
SWEEPS = st.lists(st.tuples(st.sampled_from([0.1, 0.1, 0.5, 3.0, 0.0, -5.0]), ENDPOINTS), max_size=25)


def run(
    config: OutlierConfig,
    threshold: float,
    sweeps: list[tuple[float, dict[Address, tuple[tuple[int, int], Standing | None, int]]]],
) -> Iterator[tuple[Step, dict[Address, Seen]]]:
    """Follow a set through its sweeps, with slots that behave as those of the compiled core do."""
    state, now_s, rng = State(), 100.0, random.Random(0)
    streaks: dict[Address, int] = {}
    trials: set[Address] = set()
    for passed_s, endpoints in sweeps:
        now_s += passed_s
        fleet = {}
        for address, ((successes, failures), standing, connection_failures) in endpoints.items():
            streaks[address] = failures if successes else streaks.get(address, 0) + failures
            if successes:
                trials.discard(address)
            fleet[address] = Seen(
                successes, failures, streaks[address], connection_failures, address in trials, 0, standing
            )
        step = sweep(state, config, fleet, now_s, rng, threshold)
        state = step.state
        for event in step.events:
            (trials.add if event.change is Change.ON_TRIAL else trials.discard)(event.address)
        yield step, fleet


@settings(max_examples=150, deadline=None)
@given(CONFIGS, st.floats(0, 1), SWEEPS)
def test_some_stay_and_the_caps_hold(config, threshold, sweeps) -> None:  # type: ignore[no-untyped-def]
    for step, fleet in run(config, threshold, sweeps):
        connected = [address for address, seen in fleet.items() if seen.standing is not None]
        out = step.state.ejected() | step.state.on_trial()
        there = [address for address in connected if address in out]
        assert len(there) < len(connected) or not connected
        own = [address for address in there if out[address] in OWN_REASONS]
        share = int(config.max_ejected_share * len(connected))
        assert len(own) <= (max(1, share) if config.max_ejected_share else 0)
        assert set(out) <= set(fleet)


@settings(max_examples=150, deadline=None)
@given(CONFIGS, st.floats(0, 1), SWEEPS)
def test_an_ejection_never_begins_a_panic(config, threshold, sweeps) -> None:  # type: ignore[no-untyped-def]
    for step, fleet in run(config, threshold, sweeps):
        ejected = step.state.ejected()
        fresh = [event.address for event in step.events if event.change is Change.EJECTED]
        if any(fleet[address].standing is not None and address in ejected for address in fresh):
            standings = [Standing.UNUSABLE if address in ejected else seen.standing for address, seen in fleet.items()]
            standings = [standing for standing, seen in zip(standings, fleet.values(), strict=True) if seen.standing]
            choice = choose(standings, threshold)
            assert not choice.in_panic
            assert any(choice.chosen)


@settings(max_examples=100, deadline=None)
@given(CONFIGS, st.floats(0, 1), SWEEPS)
def test_events_tell_the_whole_story(config, threshold, sweeps) -> None:  # type: ignore[no-untyped-def]
    ejected: set[Address] = set()
    on_trial: set[Address] = set()
    for step, fleet in run(config, threshold, sweeps):
        gone = (ejected | on_trial) - set(fleet)
        ejected -= gone
        on_trial -= gone
        for event in step.events:
            assert event.detail
            by_a50 = event.reason not in OWN_REASONS
            if event.change is Change.EJECTED:
                ejected.add(event.address)
                on_trial.discard(event.address)
            elif event.change is Change.ON_TRIAL:
                assert not by_a50
                ejected.discard(event.address)
                on_trial.add(event.address)
            else:
                ejected.discard(event.address)
                on_trial.discard(event.address)
        assert ejected == set(step.state.ejected())
        assert on_trial == set(step.state.on_trial())


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.floats(0, 5)), max_size=60), st.floats(0.1, 20))
def test_a_window_counts_the_calls_of_its_time_exactly(calls, window_s) -> None:  # type: ignore[no-untyped-def]
    window: Window = ()
    now_s, told = 50.0, []
    for successes, failures, passed_s in calls:
        now_s += passed_s
        told.append((now_s, successes, failures))
        window = slide(window, successes, failures, slice_at(now_s, window_s))
        width_s = window_s / SLICES
        least = [one for one in told if one[0] > now_s - window_s + width_s * 1.001]
        most = [one for one in told if one[0] >= now_s - window_s - width_s * 0.001]
        found = total(window)
        assert sum(one[1] for one in least) <= found.successes <= sum(one[1] for one in most)
        assert sum(one[2] for one in least) <= found.failures <= sum(one[2] for one in most)
        assert len(window) <= SLICES


def test_a_window_takes_no_harm_from_a_clock_that_steps_back() -> None:
    window = slide((), 1, 0, 100)
    window = slide(window, 0, 1, 90)
    assert total(window) == Calls(1, 1)
    assert slide(window, 0, 0, 95) is window
    assert slide(window, 0, 0, 110) == ()


@given(st.lists(MOSTLY_USABLE, min_size=1, max_size=8), st.data(), st.floats(0, 1), st.floats(0, 1))
def test_room_is_given_back_as_it_was_taken(standings, data, threshold, share) -> None:  # type: ignore[no-untyped-def]
    fleet = {address: Seen(standing=standing) for address, standing in zip(ADDRESSES, standings, strict=False)}
    out = data.draw(st.sets(st.sampled_from(list(fleet))))
    room = Room(fleet, out, threshold)
    for address in set(fleet) - out:
        if room.take(address, share):
            room.give_back(address)
            assert room.take(address, share)
            room.give_back(address)
