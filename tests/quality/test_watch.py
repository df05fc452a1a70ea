"""Outlier detection for a simulated client."""

from __future__ import annotations

import random

from grpclb_core.config import Config, OutlierConfig
from grpclb_core.quality.watch import Watch
from grpclb_core.types import Outcome
from support.fleet import MILLISECOND, SECOND, START, answer, new_slots


def test_it_ends_the_trials_that_it_began_and_no_others() -> None:
    slots = dict(enumerate(new_slots(4)))
    watch = Watch(Config(outliers=OutlierConfig(jitter=0.0)), random.Random(1))
    slots[0].start_trial()  # as a simulated balancer does after a silence
    watch.look(slots, START)
    for _ in range(7):
        answer(slots[1], MILLISECOND, START, Outcome.FAILURE)
    assert watch.look(slots, START + SECOND) == {1}
    assert watch.look(slots, START + 3 * SECOND) == frozenset()
    assert [slot.is_on_trial for slot in slots.values()] == [True, True, False, False]
    del slots[1]  # it left while it was on trial
    left = watch._trials.copy()
    watch.look(slots, START + 4 * SECOND)
    assert [slot.is_on_trial for slot in left] == [False]
    assert slots[0].is_on_trial
