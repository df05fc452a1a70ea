"""The saved corpus, read by every decoder without a fuzzer."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.targets import CORPUS, DECODERS, check

LARGEST_CORPUS = 300_000  # bytes; what is read on every run of the tests stays small

INPUTS = sorted(path for path in CORPUS.rglob("*") if path.is_file())


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: str(path.relative_to(CORPUS)))
def test_an_input_is_read_or_refused(path: Path) -> None:
    check(DECODERS[path.parent.name], path.read_bytes())


def test_every_decoder_has_a_corpus() -> None:
    assert {path.parent.name for path in INPUTS} == set(DECODERS)


@pytest.mark.parametrize("name", DECODERS)
def test_the_usual_is_read(name: str) -> None:
    """Else all the rest might be refused for a reason of no interest."""
    DECODERS[name].read((CORPUS / name / "usual").read_bytes())


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in INPUTS) < LARGEST_CORPUS
