"""Text for terminals."""

from __future__ import annotations

from collections.abc import Sequence


def plain(text: str) -> str:
    """Return a text in one line that cannot steer a terminal, whoever wrote it: what is no print is escaped."""
    return text if text.isprintable() else "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def columns(rows: Sequence[Sequence[str]], gap: str = "  ") -> list[str]:
    """Return the lines of a table, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [gap.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
