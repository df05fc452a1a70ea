"""Slow start: a server that just came gets its full share little by little, while its caches and compilers warm up."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ..config import SlowStartConfig

WARMING_STEPS = 20
"""Steps in which a server that came gets its full share: each moves no more of the load than the noise of the draws."""

LEAST_STEP_S = 0.05
"""A shorter step is one that nobody notices, and works out all weights anew; as long as two looks at connections."""

# The start is kept from ending for many endpoints at once, which would move the load in one step.
JITTER = 0.1


def ramp(age_s: float, jitter: float, config: SlowStartConfig) -> float:
    """Return the part of its weight that an endpoint has `age_s` after it came up, from the least up to 1.

    Envoy's formula: max(least, (age / window) ^ (1 / aggression)). `jitter`, from 0 to 1, is the endpoint's own and
    makes its window up to a tenth shorter or longer.
    """
    window_s = config.window_s * (1 - JITTER + 2 * JITTER * jitter)
    if age_s >= window_s:
        return 1.0
    return max(config.least_part, math.pow(max(age_s, 0.0) / window_s, 1 / config.aggression))


def ramps(ages_s: Iterable[tuple[float, float]], config: SlowStartConfig) -> list[float]:
    """Return the part of its weight that each endpoint has, of pairs of age and jitter.

    Where more than half of a set is new there is nobody to spare it, and nobody is ramped.
    """
    parts = [ramp(age_s, jitter, config) for age_s, jitter in ages_s]
    new = sum(part < 1 for part in parts)
    return parts if 2 * new <= len(parts) else [1.0] * len(parts)


def step_s(ages_s: Iterable[float], config: SlowStartConfig) -> float:
    """Return how long the parts of a set are good for, given the ages of those that are up; infinity if for good."""
    longest_s = config.window_s * (1 + JITTER)
    if not any(age_s < longest_s for age_s in ages_s):
        return math.inf
    return max(config.window_s / WARMING_STEPS, LEAST_STEP_S)
