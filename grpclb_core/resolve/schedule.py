"""When to look again, or to try again: pure functions of an answer, the options and one random number."""

from __future__ import annotations

from .. import backoff
from ..config import DnsConfig

INITIAL_BACKOFF_S = 1.0  # gRPC connection backoff

LARGEST_JITTER = 0.1  # of the wait, as `DnsConfig.jitter_s` promises: a TTL of 1 s is honoured to a tenth


def next_wait_s(ttl_s: float, config: DnsConfig, random: float) -> float:
    """Seconds to wait after an answer that is good for `ttl_s`; `random` is drawn from [0, 1)."""
    wait_s = min(max(ttl_s, config.min_ttl_s), config.max_ttl_s)
    return wait_s + random * min(config.jitter_s, LARGEST_JITTER * wait_s)


def backoff_s(attempt: int, floor_s: float, ceiling_s: float, random: float) -> float:
    """Seconds to wait after failure number `attempt` in a row, counted from 0; `random` is drawn from [0, 1).

    The ceiling holds for the jittered wait: it is lowered beforehand, so that clients spread there too.
    """
    return max(floor_s, backoff.backoff_s(attempt, INITIAL_BACKOFF_S, ceiling_s, random))
