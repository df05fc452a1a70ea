"""The `grpclb` command: one module a verb, each with `add_parser` and the function it runs."""

from pathlib import Path

PACKAGE_HOME = Path(__file__).parents[2]
"""The folder that holds this package. Child processes start there, so that `python -m` finds this very package, and
not a source tree without compiled modules that the user happens to stand in."""
