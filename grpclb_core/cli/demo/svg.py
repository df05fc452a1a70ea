"""A sheet to draw on: the few SVG elements that the picture needs."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

INK, MUTED, GRID, PAPER = "#1f2937", "#6b7280", "#e5e7eb", "#ffffff"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
GLYPH = 0.55  # mean width of a letter, of the font size; text cannot be measured without its font


class Sheet:
    """Collects elements; the origin is at the top left, all lengths are pixels."""

    def __init__(self, width: int, height: int, title: str, description: str) -> None:
        self._head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'role="img" font-family="{FONT}">'
            f"<title>{html.escape(title)}</title><desc>{html.escape(description)}</desc>"
        )
        self._elements: list[str] = []
        self.box(0, 0, width, height, PAPER)

    def render(self) -> str:
        """Return the document."""
        return "\n".join([self._head, *self._elements, "</svg>", ""])

    def box(self, x: float, y: float, width: float, height: float, fill: str, radius: float = 0) -> None:
        self._elements.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{radius:g}" fill="{fill}"/>'
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, stroke: str = GRID, dashes: str = "none") -> None:
        self._elements.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}" '
            f'stroke-dasharray="{dashes}"/>'
        )

    def curve(self, points: Sequence[tuple[float, float]], stroke: str) -> None:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._elements.append(
            f'<polyline points="{path}" fill="none" stroke="{stroke}" stroke-width="2.25" stroke-linejoin="round"/>'
        )

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: float = 12,
        fill: str = INK,
        anchor: str = "start",
        weight: int = 400,
    ) -> None:
        self._elements.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" fill="{fill}" text-anchor="{anchor}" '
            f'font-weight="{weight}">{html.escape(words)}</text>'
        )


def text_width(words: str, size: float) -> float:
    """Estimate how wide a text will be."""
    return len(words) * size * GLYPH


def ticks(highest: float, about: int = 5) -> list[float]:
    """Return round numbers from 0 to the first one at or above `highest`, about so many steps apart."""
    rough = max(highest, 1e-9) / about
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor for factor in (1, 2, 5, 10) if factor * magnitude >= rough) * magnitude
    return [number * step for number in range(math.ceil(highest / step - 1e-9) + 1)]
