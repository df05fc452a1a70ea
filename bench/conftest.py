"""What the benchmarks share: the scaffolding, and tables of ratios at the end of the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from grpclb_core.cli.measure.machine import describe_machine
from grpclb_core.cli.measure.report import Report, Section, to_text
from grpclb_core.cli.measure.scaffold import Scaffold, load_scaffold

SOURCE = Path(__file__).parent / "native" / "scaffold.pyx"
SECTIONS = pytest.StashKey[list[Section]]()


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run in one process, whatever the tests do: what is measured has the machine to itself."""
    config.option.numprocesses = 0


@pytest.fixture(scope="session")
def scaffold() -> Scaffold:
    """Return the compiled scaffolding, whose source is here, wherever the package was installed."""
    loaded = load_scaffold(SOURCE)
    assert loaded is not None, "a source that is named is built, or it is an error"
    return loaded


@pytest.fixture
def sections(request: pytest.FixtureRequest) -> list[Section]:
    """Return a list whose sections are printed at the end."""
    return request.config.stash.setdefault(SECTIONS, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    sections = config.stash.get(SECTIONS, [])
    if sections:
        terminalreporter.section("ratios, interleaved in one run")
        terminalreporter.write_line(to_text(Report(describe_machine("pytest bench/"), sections, [])))
