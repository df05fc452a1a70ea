"""What outlier detection looks at, and what it finds."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple, TypeAlias

from ...types import Address
from ..combine import Standing


class Reason(Enum):
    """Why an endpoint is out, or has to prove itself; the values are the words of logs and snapshots."""

    CONSECUTIVE_FAILURES = "consecutive failures"
    SUCCESS_RATIO = "success ratio"
    CONNECTION_FAILURES = "connection failures"
    FAILED_TRIAL = "failed trial"
    A50_SUCCESS_RATE = "success rate (A50)"
    A50_FAILURE_PERCENTAGE = "failure percentage (A50)"


class Seen(NamedTuple):
    """One endpoint as it stands at a sweep."""

    successes: int = 0
    """Calls answered well since the sweep before."""
    failures: int = 0
    """Calls that failed since the sweep before."""
    failure_streak: int = 0
    """Failures since the last success, whenever that was."""
    connection_failures: int = 0
    """Connections lost or not made since the last success."""
    is_on_trial: bool = False
    """Whether it has to answer a call well yet, before it may have two at a time."""
    is_waited_for: bool = False
    """Whether a call is open that a trial waits for: a stream, or one that began since one was last answered."""
    standing: Standing | None = Standing.USABLE
    """What all others say of it; None while it is not connected."""
    picks: int = 0
    """Calls that were begun, ever."""


class Change(Enum):
    """What can happen to an endpoint."""

    EJECTED = "ejected"
    ON_TRIAL = "on trial"
    READMITTED = "readmitted"


class Event(NamedTuple):
    """One thing that happened at a sweep."""

    address: Address
    change: Change
    reason: Reason
    """Why it was ejected or put on trial; of one that is readmitted, why it had been."""
    detail: str
    """In one clause, the figures that led to it."""


Fleet: TypeAlias = Mapping[Address, Seen]
"""Every endpoint that is listed, in the order of the list."""
