"""How much work a call is: the service-time distributions of a scenario."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Annotated, TypeAlias

import msgspec

from ..errors import ConfigError

NS_PER_S = 1_000_000_000

Draw: TypeAlias = Callable[[], float]
"""Returns the work of the next call in ns, on a server of ordinary speed."""

Work = Annotated[float, msgspec.Meta(ge=0.000_001, le=3600)]


class Constant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="constant"):
    """Every call is the same work."""

    mean_s: Work

    def draw(self, rng: random.Random) -> Draw:
        work_ns = self.mean_s * NS_PER_S
        return lambda: work_ns


class Exponential(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="exponential"):
    """The work has no memory: the M of the queues M/M/c."""

    mean_s: Work

    def draw(self, rng: random.Random) -> Draw:
        scale_ns, chance, log = -self.mean_s * NS_PER_S, rng.random, math.log
        return lambda: scale_ns * log(1.0 - chance())


class Uniform(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="uniform"):
    """Anything from nothing to twice the mean, as the services of tower's balancer example."""

    mean_s: Work

    def draw(self, rng: random.Random) -> Draw:
        most_ns, chance = 2 * self.mean_s * NS_PER_S, rng.random
        return lambda: most_ns * chance()


class LogNormal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="lognormal"):
    """Mostly alike with a long tail, as measured latencies are; `sigma` is the deviation of the logarithm."""

    mean_s: Work
    sigma: Annotated[float, msgspec.Meta(gt=0, le=3)]

    def draw(self, rng: random.Random) -> Draw:
        # The mean of a lognormal is exp(mu + sigma^2 / 2).
        mu, sigma, gauss, exp = math.log(self.mean_s * NS_PER_S) - self.sigma**2 / 2, self.sigma, rng.gauss, math.exp
        return lambda: exp(gauss(mu, sigma))


class Normal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="normal"):
    """A normal distribution as wide as its `mean_s`, with what is below nothing cut to nothing.

    The work of a query on the testbed of the Prequal paper (section 5.1). The cut lifts the mean by 8.3 %.
    """

    mean_s: Work

    def draw(self, rng: random.Random) -> Draw:
        scale_ns, gauss = self.mean_s * NS_PER_S / NORMAL_LIFT, rng.gauss
        return lambda: max(0.0, gauss(scale_ns, scale_ns))


NORMAL_LIFT = 1.0833
"""Mean of max(0, X) for X normal with mean and deviation 1: Phi(1) + phi(1)."""


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One kind of call of a mix: how common it is against the others, and its work."""

    weight: Annotated[float, msgspec.Meta(gt=0)]
    service: Constant | Exponential | Uniform | LogNormal | Normal


class Mix(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="mix"):
    """Calls of several kinds, such as one heavy in a hundred.

    Raises:
        ConfigError: there is no part at all.
    """

    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ConfigError("a mix needs at least one part")

    @property
    def mean_s(self) -> float:
        total = sum(part.weight for part in self.parts)
        return sum(part.service.mean_s * part.weight for part in self.parts) / total

    def draw(self, rng: random.Random) -> Draw:
        draws: Sequence[Draw] = [part.service.draw(rng) for part in self.parts]
        bounds = list(accumulate(part.weight for part in self.parts))
        choices = rng.choices
        return lambda: choices(draws, cum_weights=bounds)[0]()


Service: TypeAlias = Constant | Exponential | Uniform | LogNormal | Normal | Mix
