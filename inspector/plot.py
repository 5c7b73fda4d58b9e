"""Curves as SVG, with nothing but text: panels one above the other, each with its own scale."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from .tables import clean

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 760, 280  # of a panel, in pixels
LEFT, RIGHT, TOP, BOTTOM = 64, 168, 28, 36  # around its curves; the legend stands at the right
COLOURS = ("#1f6fb4", "#d4572a", "#2e8b57", "#8a4fbe", "#b8860b", "#c2427a", "#4a4a4a", "#1aa3a3")  # told apart in grey, too


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves that share their axes: x is the same for all panels, y is the panel's own."""

    title: str
    series: Mapping[str, Points]


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from `low` to `high`: multiples of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def svg(panels: Sequence[Panel], title: str, x_title: str = "iteration") -> str:
    """The panels as one SVG image. Points that are no finite numbers are left out."""
    drawn = [Panel(panel.title, {name: _finite(points) for name, points in panel.series.items()}) for panel in panels]
    drawn = [panel for panel in drawn if any(panel.series.values())]
    xs = [x for panel in drawn for points in panel.series.values() for x, _ in points] or [0.0]
    height = 36 + HEIGHT * len(drawn)
    size = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12" fill="#222">',
        f'<title>{_words(title)}</title><rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="{LEFT}" y="24" font-size="15" font-weight="bold">{_words(title)}</text>',
    ]
    for i, panel in enumerate(drawn):
        lines += _panel(panel, 36 + i * HEIGHT, (min(xs), max(xs)), x_title if i == len(drawn) - 1 else "")
    return "\n".join([*lines, "</svg>", ""])


def _finite(points: Points) -> Points:
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def _panel(panel: Panel, top: float, span: tuple[float, float], x_title: str) -> Iterator[str]:
    ys = [y for points in panel.series.values() for _, y in points]
    low, high = min(ys), max(ys)
    if low == high:
        low, high = low - 0.5, high + 0.5
    margin = (high - low) * 0.04
    low, high = low - margin, high + margin
    first, last = span if span[1] > span[0] else (span[0], span[0] + 1)
    right, bottom = WIDTH - RIGHT, top + HEIGHT - BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (x - first) / (last - first) * (right - LEFT),
            bottom - (y - low) / (high - low) * (bottom - top - TOP),
        )

    yield f'<text x="{LEFT}" y="{top + 18:.1f}" fill="#555">{_words(panel.title)}</text>'
    for value in ticks(low, high):
        y = place(first, value)[1]
        yield f'<line x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'
    for value in ticks(first, last, 8):
        x = place(value, low)[0]
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{bottom:.1f}" y2="{bottom + 4:.1f}" stroke="#222"/>'
        yield f'<text x="{x:.1f}" y="{bottom + 17:.1f}" text-anchor="middle">{value:g}</text>'
    yield f'<line x1="{LEFT}" x2="{right}" y1="{bottom:.1f}" y2="{bottom:.1f}" stroke="#222"/>'
    if x_title:
        yield f'<text x="{right}" y="{bottom + 31:.1f}" text-anchor="end" fill="#555">{_words(x_title)}</text>'
    for i, (name, points) in enumerate(panel.series.items()):
        colour = COLOURS[i % len(COLOURS)]
        at = [place(x, y) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5" stroke-linejoin="round"/>'
        if len(at) <= 40:
            yield "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.2" fill="{colour}"/>' for x, y in at)
        y = top + TOP + 10 + 18 * i
        yield f'<line x1="{right + 12}" x2="{right + 30}" y1="{y - 4:.1f}" y2="{y - 4:.1f}" stroke="{colour}" stroke-width="2.5"/>'
        yield f'<text x="{right + 36}" y="{y:.1f}">{_words(name)}</text>'


def _words(text: str) -> str:
    """What a file says, as text of the picture."""
    return escape(clean(text))
