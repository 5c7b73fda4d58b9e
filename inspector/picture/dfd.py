"""The data-flow picture of one stage, as in the classic figures of AlexNet: what comes in, each operation with its settings, what
becomes of the blob.

A stage runs from one weighted layer (Convolution, Deconvolution, InnerProduct) to the next ones. Blobs are solids, as high and
deep as the map is large and as long as it has channels (logarithms of both); operations are boxes between them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from ..errors import InspectorError
from ..layers import Shape
from ..summary import Row
from ..tables import clean
from .layout import layered
from .scene import CHARACTER, LINE, family
from .svg import document

if TYPE_CHECKING:
    from ..net import Net

WEIGHTED = ("Convolution", "Deconvolution", "InnerProduct")
CSS = (
    ".f{fill:#dbe7f7;stroke:#3f6fb5}.f2{fill:#c5d8f1;stroke:#3f6fb5}"
    "@media(prefers-color-scheme:dark){.f{fill:#1b2c47;stroke:#7fa9e6}.f2{fill:#24395c;stroke:#7fa9e6}}"
)
MARGIN, LABEL = 24.0, 34.0  # around the picture; under a solid, for its two lines of text


@dataclass(frozen=True, slots=True)
class Solid:
    """A blob as it is drawn: what it is called, its size in words, and the front face and depth of its solid in pixels."""

    name: str
    size: str
    width: float
    height: float
    depth: float

    @property
    def room(self) -> tuple[float, float]:
        label = max(len(self.name), len(self.size)) * CHARACTER
        return max(self.width + self.depth, label) + 8, self.height + self.depth + LABEL


@dataclass(frozen=True, slots=True)
class Operation:
    """A layer as it is drawn."""

    name: str
    deed: str
    family: str

    @property
    def room(self) -> tuple[float, float]:
        return max(len(self.name), len(self.deed)) * CHARACTER + 24, 2 * LINE + 14


def stages(net: Net) -> list[list[Row]]:
    """The rows of each stage, in the net's order; a stage is named by its first row."""
    rows = [row for row in net.summary().rows if not row.inserted]
    found: list[list[Row]] = []
    for i, start in enumerate(rows):
        if start.type not in WEIGHTED:
            continue
        stage, alive = [start], {top.name for top in start.tops}
        for row in rows[i + 1 :]:
            if not alive.intersection(row.reads):
                alive -= {top.name for top in row.tops}  # another value of that name
            elif row.type in WEIGHTED:
                alive -= {top.name for top in row.tops}
            else:
                stage.append(row)
                alive.update(top.name for top in row.tops)
        found.append(stage)
    return found


def stage(net: Net, layer: str) -> list[Row]:
    """The stage that a layer belongs to. Raises InspectorError where it belongs to none."""
    found = [rows for rows in stages(net) if any(row.name == layer for row in rows)]
    if not found:
        from difflib import get_close_matches

        names = [row.name for rows in stages(net) for row in rows]
        close = get_close_matches(layer, names, 1)
        remedy = f"did you mean '{close[0]}'?" if close else f"name one of type {', '.join(WEIGHTED)}, or what follows it"
        raise InspectorError(f"no stage of this net holds a layer '{layer}'", code="no-such-stage", remedy=remedy)
    return next((rows for rows in found if rows[0].name == layer), found[0])


def solid(name: str, shape: Shape | None) -> Solid:
    """A blob's solid; height x width x channels in words, without the batch."""
    if shape is None:
        return Solid(clean(name), "?", 40, 40, 10)
    sizes = shape[1:] if len(shape) > 1 else shape
    words = "×".join(map(str, (*sizes[1:], sizes[0]))) if sizes else "scalar"
    channels = sizes[0] if sizes else 1
    height, depth = (sizes[-2], sizes[-1]) if len(sizes) > 2 else (1, 1)

    def pixels(value: int, scale: float) -> float:
        return 8 + scale * math.log2(max(1, value))

    return Solid(clean(name), words, pixels(channels, 7), pixels(height, 11), pixels(depth, 4))


def picture(rows: Sequence[Row], shapes: dict[str, Shape | None]) -> str:
    """A stage as SVG; `shapes` are those of the blobs that come from outside."""
    items: list[Solid | Operation] = []
    edges: list[tuple[int, int]] = []
    latest: dict[str, int] = {}
    for row in rows:
        for blob in row.reads:
            if blob not in latest:
                latest[blob] = len(items)
                items.append(solid(blob, shapes.get(blob)))
        here = len(items)
        items.append(Operation(clean(row.name), clean(f"{row.type} {row.settings}".strip()), family(row.type)))
        edges += [(latest[blob], here) for blob in dict.fromkeys(row.reads)]
        for top in row.tops:
            latest[top.name] = len(items)
            edges.append((here, len(items)))
            items.append(solid(top.name, top.shape))
    layout = layered([(height, width) for width, height in (item.room for item in items)], edges, gap=18, rank_gap=30)
    places = [(y + MARGIN, x + MARGIN) for x, y in layout.places]
    lines: list[str] = []
    for (start, end), bends in zip(edges, layout.bends, strict=True):
        middle = [(y + MARGIN, x + MARGIN) for x, y in bends]
        points = [_side(items[start], places[start], 1), *middle, _side(items[end], places[end], -1)]
        path = "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points)
        lines.append(f'<path class="e" d="{path}" marker-end="url(#a)"/>')
    for item, (x, y) in zip(items, places, strict=True):
        lines += _solid(item, x, y) if isinstance(item, Solid) else _operation(item, x, y)
    width, height = layout.height + 2 * MARGIN, layout.width + 2 * MARGIN
    return document(f"stage {rows[0].name}", width, height, lines, CSS)


def _side(item: Solid | Operation, place: tuple[float, float], side: int) -> tuple[float, float]:
    """Where an arrow meets an item: the middle of its left (-1) or right (1) side."""
    x, y = place
    wide = item.room[0] if isinstance(item, Operation) else item.width + item.depth
    return x + side * wide / 2, y - LABEL / 2


def _solid(item: Solid, x: float, y: float) -> list[str]:
    left = x - (item.width + item.depth) / 2
    top = y - item.room[1] / 2 + item.depth
    w, h, d = item.width, item.height, item.depth
    faces = [
        ("f2", [(left, top), (left + d, top - d), (left + d + w, top - d), (left + w, top)]),
        ("f2", [(left + w, top), (left + w + d, top - d), (left + w + d, top + h - d), (left + w, top + h)]),
        ("f", [(left, top), (left + w, top), (left + w, top + h), (left, top + h)]),
    ]
    drawn = [f'<polygon class="{kind}" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in points)}"/>' for kind, points in faces]
    under = top + h + 14
    return [
        *drawn,
        f'<text x="{x:.1f}" y="{under:.1f}" text-anchor="middle" class="t">{escape(item.size)}</text>',
        f'<text x="{x:.1f}" y="{under + 14:.1f}" text-anchor="middle">{escape(item.name)}</text>',
    ]


def _operation(item: Operation, x: float, y: float) -> list[str]:
    width, height = item.room
    y -= LABEL / 2  # level with the solids, which have their labels underneath
    rect = f'<rect x="{x - width / 2:.1f}" y="{y - height / 2:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
    return [
        f'<g class="{item.family}">{rect}',
        f'<text x="{x:.1f}" y="{y - 3:.1f}" text-anchor="middle" class="t">{escape(item.name)}</text>',
        f'<text x="{x:.1f}" y="{y + 14:.1f}" text-anchor="middle">{escape(item.deed)}</text></g>',
    ]


def index(name: str, pictures: Sequence[tuple[str, str]]) -> str:
    """A page that shows the pictures (title, file name) one under the other."""
    figures = "\n".join(
        f"<figure><figcaption>{escape(title)}</figcaption><img src={quoteattr(file)} alt={quoteattr('stage ' + title)}></figure>"
        for title, file in pictures
    )
    css = (
        "body{font:15px/1.5 system-ui,sans-serif;margin:2rem;background:#fff;color:#1c1c1c}figure{margin:0 0 2rem;overflow-x:auto}"
        "figcaption{font-weight:600;margin-bottom:.4rem}"
        "@media(prefers-color-scheme:dark){body{background:#161616;color:#eee}}"
    )
    title = escape(name or "net")
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}: stages</title><style>{css}</style>\n<h1>{title}</h1>\n{figures}\n</html>\n"
    )
