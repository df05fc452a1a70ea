"""Who is used: every pair of opinions, and every mixture of standings."""

from __future__ import annotations

import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpclb_core.health import Standing, choose, combine, standing
from grpclb_core.types import Health, Verdict

USABLE, PENDING, LEAVING, UNUSABLE, LEFT = Standing
STANDINGS = st.lists(st.sampled_from([*Standing, None]), max_size=12)
THRESHOLDS = st.floats(0, 1)


class TestStanding:
    @pytest.mark.parametrize(("source", "check"), list(product(Health, Verdict)))
    def test_every_pair_has_one_and_the_docstring_tells_it(self, source: Health, check: Verdict) -> None:
        lines = [line.strip() for line in (combine.__doc__ or "").splitlines()]
        columns = next(line for line in lines if line.startswith("source \\ check")).split()[3:]
        row = next(
            line
            for line in lines
            if re.match(rf"(\w+, )?{source.name}\b.*[A-Z]+ +[A-Z]+", line) or re.match(rf"{source.name}, ", line)
        )
        cells = re.sub(r"^[A-Z]+(, [A-Z]+)?", "", row).split()
        assert standing(source, check).name == cells[columns.index(check.name)]

    @pytest.mark.parametrize("source", Health)
    def test_a_check_can_only_make_it_worse(self, source: Health) -> None:
        assert standing(source, Verdict.SERVING) is standing(source, Verdict.UNKNOWN)
        assert standing(source, Verdict.NOT_SERVING) not in (USABLE, LEAVING)


class TestChoice:
    @given(STANDINGS, THRESHOLDS)
    def test_no_one_is_chosen_only_if_no_one_is_there_or_somebody_is_about_to_answer(
        self, standings: list[Standing | None], threshold: float
    ) -> None:
        choice = choose(standings, threshold)
        present = set(standings) - {None}
        if not any(choice.chosen):
            assert present <= {PENDING} or (PENDING in present and not present & {USABLE, LEAVING})
        assert len(choice.chosen) == len(standings)

    @given(STANDINGS, THRESHOLDS)
    def test_who_is_unwell_is_chosen_in_panic_alone(self, standings: list[Standing | None], threshold: float) -> None:
        choice = choose(standings, threshold)
        chosen = {one for one, is_chosen in zip(standings, choice.chosen, strict=True) if is_chosen}
        assert not chosen & {None, PENDING}
        assert choice.in_panic == (UNUSABLE in chosen)
        if choice.in_panic:
            for one, is_chosen in zip(standings, choice.chosen, strict=True):
                assert is_chosen == (one in (USABLE, LEAVING, UNUSABLE))

    @given(STANDINGS, THRESHOLDS)
    def test_without_panic_all_of_the_best_and_only_they_are_chosen(
        self, standings: list[Standing | None], threshold: float
    ) -> None:
        choice = choose(standings, threshold)
        chosen = {one for one, is_chosen in zip(standings, choice.chosen, strict=True) if is_chosen}
        if not choice.in_panic and chosen:
            assert len(chosen) == 1
            (best,) = chosen
            assert all(is_chosen == (one is best) for one, is_chosen in zip(standings, choice.chosen, strict=True))
            assert best is USABLE or USABLE not in standings
            assert best is not LEFT or not {USABLE, LEAVING, UNUSABLE, PENDING} & set(standings)

    @given(st.integers(0, 50), st.integers(0, 50), st.floats(0, 1))
    def test_panic_begins_below_the_threshold(self, good: int, bad: int, threshold: float) -> None:
        in_panic = choose([USABLE] * good + [UNUSABLE] * bad, threshold).in_panic
        if good:
            assert in_panic == (good / (good + bad) < threshold)
        else:
            assert in_panic == bool(bad)  # the unwell are better than no one, even with a threshold of 0

    @given(STANDINGS, THRESHOLDS)
    def test_order_does_not_matter(self, standings: list[Standing | None], threshold: float) -> None:
        there, back = choose(standings, threshold), choose(standings[::-1], threshold)
        assert there.chosen == back.chosen[::-1]
        assert there.in_panic == back.in_panic

    @given(STANDINGS, THRESHOLDS, st.integers(0, 5), st.integers(0, 5))
    def test_the_unreachable_and_those_who_left_are_no_reason_to_panic(
        self, standings: list[Standing | None], threshold: float, gone: int, left: int
    ) -> None:
        more = choose([*standings, *[None] * gone, *[LEFT] * left], threshold)
        fewer = choose(standings, threshold)
        assert more.in_panic == fewer.in_panic
        if any(fewer.chosen):
            assert more.chosen[: len(standings)] == fewer.chosen

    @pytest.mark.parametrize(
        ("standings", "chosen", "in_panic"),
        [
            ([], [], False),
            ([USABLE, USABLE, UNUSABLE], [0, 1], False),
            ([USABLE, UNUSABLE], [0], False),  # exactly half
            ([USABLE, UNUSABLE, UNUSABLE], [0, 1, 2], True),
            ([UNUSABLE, UNUSABLE], [0, 1], True),
            ([UNUSABLE, PENDING], [], False),  # the other may be well: it is a matter of a round trip
            ([USABLE, PENDING, UNUSABLE, UNUSABLE], [0], False),  # a set that is starting
            ([USABLE, LEAVING, LEAVING, LEAVING], [0], False),  # a rolling restart is no illness
            ([USABLE, LEFT, LEFT, LEFT], [0], False),
            ([LEAVING, LEFT, PENDING], [0], False),  # the old ones serve until the new ones have answered
            ([LEAVING, UNUSABLE, UNUSABLE], [0, 1, 2], True),
            ([LEFT, LEFT, None], [0, 1], False),
            ([LEFT, UNUSABLE], [1], True),
        ],
    )
    def test_cases(self, standings: list[Standing | None], chosen: list[int], in_panic: bool) -> None:
        choice = choose(standings, 0.5)
        assert [index for index, is_chosen in enumerate(choice.chosen) if is_chosen] == chosen
        assert choice.in_panic is in_panic

    @given(STANDINGS)
    def test_a_threshold_of_zero_never_panics_while_anyone_serves(self, standings: list[Standing | None]) -> None:
        assert not (choose(standings, 0).in_panic and {USABLE, LEAVING} & set(standings))
