"""When to look again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpclb_core.config import DnsConfig
from grpclb_core.resolve.schedule import backoff_s, next_wait_s

DEFAULTS = DnsConfig()
RANDOM = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(("ttl_s", "wait_s"), [(0, 1), (1, 1), (7, 7), (30, 30), (3600, 30)])
def test_the_ttl_between_floor_and_ceiling(ttl_s: float, wait_s: float) -> None:
    assert next_wait_s(ttl_s, DEFAULTS, 0.0) == wait_s


def test_jitter_is_a_tenth_of_short_waits_and_bounded_for_long_ones() -> None:
    assert next_wait_s(1, DEFAULTS, 0.5) == pytest.approx(1.05)
    assert next_wait_s(30, DEFAULTS, 0.5) == pytest.approx(30.25)
    assert next_wait_s(30, DnsConfig(jitter_s=0), 0.9) == 30


@given(st.floats(0, 1e9), RANDOM)
def test_wait_bounds(ttl_s: float, random: float) -> None:
    assert 1.0 <= next_wait_s(ttl_s, DEFAULTS, random) <= 30.5


def test_backoff_grows_as_grpc_says() -> None:
    assert [backoff_s(attempt, 0.1, 30, 0.5) for attempt in range(4)] == pytest.approx([1, 1.6, 2.56, 4.096])
    assert backoff_s(1, 0.1, 30, 0.0) == pytest.approx(1.6 * 0.8)
    assert backoff_s(1, 0.1, 30, 0.75) == pytest.approx(1.6 * 1.1)


@given(st.integers(0, 10**9), RANDOM)
def test_backoff_bounds(attempt: int, random: float) -> None:
    assert 1.0 <= backoff_s(attempt, 1, 30, random) <= 30.0


def test_backoff_spreads_at_its_ceiling() -> None:
    assert backoff_s(1000, 1, 30, 0.0) == pytest.approx(20)
    assert backoff_s(1000, 1, 30, 1.0) == pytest.approx(30)


def test_backoff_never_undercuts_the_floor() -> None:
    assert backoff_s(0, 5, 30, 0.5) == 5
