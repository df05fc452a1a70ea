"""gRPC's connection backoff, which everything that tries again here follows.

https://github.com/grpc/grpc/blob/master/doc/connection-backoff.md
"""

from __future__ import annotations

MULTIPLIER = 1.6
JITTER = 0.2
_MAX_ATTEMPT = 100  # 1.6 ** 100 s is beyond every ceiling, and no overflow


def backoff_s(attempt: int, initial_s: float, ceiling_s: float, random: float) -> float:
    """Seconds to wait after failure number `attempt` in a row, counted from 0; `random` is drawn from [0, 1).

    The ceiling holds for the jittered wait: it is lowered beforehand, so that clients spread there too.
    """
    grown_s = initial_s * MULTIPLIER ** min(attempt, _MAX_ATTEMPT)
    return min(grown_s, ceiling_s / (1 + JITTER)) * (1 + JITTER * (2 * random - 1))


def pause_s(failures: int, lasted_s: float, initial_s: float, ceiling_s: float, random: float) -> float:
    """Seconds to wait after a stream that ended before the next is opened; `random` is drawn from [0, 1).

    Args:
        failures: streams in a row that ended without an answer, this one included; 0 if this one was answered.
        lasted_s: how long this one was open. After an answer the next one follows at once, yet no two begin within the
            first backoff of each other.
    """
    wait_s = backoff_s(max(failures - 1, 0), initial_s, ceiling_s, random)
    return wait_s if failures else max(0.0, wait_s - lasted_s)
