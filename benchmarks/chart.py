"""The figures as a picture: how long every runner takes next to our default engine, as an SVG that needs nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

OURS = "default"
COLOURS = {
    "reference": "#b9c6d8",
    "default": "#1f5fa8",
    "fast": "#5b9bd9",
    "OpenCV": "#8a6d3b",
    "onnxruntime": "#c77d2a",
    "torch": "#d9534f",
    "Caffe": "#7b4f9d",
}
NAMES = {"reference": "specification (--engine reference)", "default": "alexinspect", "fast": "alexinspect --fast"}
BAR, GAP, PANEL, LEFT, TOP = 14, 16, 400, 92, 96  # pixels: of a bar, between nets, a panel's width, margins
HALO = 'stroke="#fff" stroke-width="3" paint-order="stroke"'  # keeps figures readable where a rule runs through them
MOST = 4.0  # times our default engine: longer bars are cut, and their figure tells


def svg(results: Sequence[dict[str, Any]], about: str) -> str:
    """Bars of `results` (engine.Result as dicts) on one thread: a panel per batch, a group per net, a bar per runner."""
    chosen = [r for r in results if r["threads"] == 1]
    nets = list(dict.fromkeys(r["net"] for r in chosen))
    batches = sorted({r["batch"] for r in chosen})
    runners = [name for name in COLOURS if any(r["runner"] == name for r in chosen)]
    group = BAR * len(runners) + GAP
    width, height = LEFT + (PANEL + 20) * len(batches), TOP + group * len(nets) + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        '<g font-family="Helvetica, Arial, sans-serif" font-size="11" fill="#222">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        '<text x="12" y="22" font-size="15" font-weight="bold">CPU time of one forward, alexinspect = 1 (shorter is faster)</text>',
        f'<text x="12" y="40" fill="#555">{escape(about)}; thin lines are quartiles</text>',
        *_legend(runners, width),
    ]
    for panel, batch in enumerate(batches):
        left = LEFT + panel * (PANEL + 20)
        parts.append(f'<text x="{left}" y="{TOP - 8}" font-weight="bold">batch {batch}, one thread</text>')
        parts += _rules(left, height - 34)
        for row, net in enumerate(nets):
            top = TOP + row * group
            if panel == 0:
                middle = top + (group - GAP) / 2 + 4
                parts.append(f'<text x="{LEFT - 8}" y="{middle:g}" text-anchor="end" font-weight="bold">{escape(net)}</text>')
            times = {r["runner"]: r for r in chosen if r["net"] == net and r["batch"] == batch}
            parts += _bars(times, runners, left, top)
    return "\n".join([*parts, "</g></svg>"]) + "\n"


def _scale(ratio: float) -> float:
    return min(ratio, MOST) / MOST * (PANEL - 96)


def _legend(runners: Sequence[str], width: int) -> Iterator[str]:
    x = 12.0
    for name in runners:
        words = NAMES.get(name, name)
        yield f'<rect x="{x:g}" y="53" width="11" height="11" fill="{COLOURS[name]}"/>'
        yield f'<text x="{x + 16:g}" y="63">{escape(words)}</text>'
        x += 34 + 5.4 * len(words)


def _rules(left: int, bottom: int) -> Iterator[str]:
    for ratio in range(int(MOST) + 1):
        x = left + _scale(ratio)
        style = 'stroke="#1f5fa8" stroke-dasharray="4 3"' if ratio == 1 else 'stroke="#e3e3e3"'
        yield f'<line x1="{x:g}" x2="{x:g}" y1="{TOP - 2}" y2="{bottom}" {style}/>'
        yield f'<text x="{x:g}" y="{bottom + 14}" text-anchor="middle" fill="#555">{ratio}</text>'


def _bars(times: dict[str, dict[str, Any]], runners: Sequence[str], left: int, top: int) -> Iterator[str]:
    base = times[OURS]["cpu"] if OURS in times else 0
    for number, name in enumerate(runners):
        if name not in times or not base:
            continue
        r, y = times[name], top + number * BAR
        ratio, low, high = (r[key] / base for key in ("cpu", "low", "high"))
        length = _scale(ratio)
        cut = " »" if ratio > MOST else ""
        yield (
            f'<rect x="{left}" y="{y + 1}" width="{length:.1f}" height="{BAR - 3}" fill="{COLOURS[name]}">'
            f"<title>{escape(name)}: {r['cpu']:.1f} ms, quartiles {r['low']:.1f} to {r['high']:.1f}</title></rect>"
        )
        end = max(length, _scale(high)) if not cut else length
        if not cut and high > low:
            middle = y + (BAR - 1) / 2
            x1, x2 = left + _scale(low), left + _scale(high)
            yield f'<line x1="{x1:.1f}" x2="{x2:.1f}" y1="{middle:g}" y2="{middle:g}" stroke="#000" stroke-opacity=".55"/>'
        yield f'<text x="{left + end + 5:.1f}" y="{y + BAR - 3}" fill="#333" {HALO}>{ratio:.2f}{cut} ({r["cpu"]:.1f} ms)</text>'
