"""What is drawn: boxes of layers and the blobs that run between them, as a person thinks of the net.

In-place layers stand stacked on the layer whose blob they change, splits are just lines that part, and blocks with a common prefix
can be folded into one box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import TYPE_CHECKING

from ..layers import registry
from ..summary import Row, grouped, prefix
from ..tables import clean
from .layout import Layout, layered

if TYPE_CHECKING:
    from ..net import Net

FAMILIES = ("data", "conv", "pool", "norm", "neuron", "linear", "combine", "wiring", "recurrent", "loss")  # others are forks'
CHARACTER, BOLD, LINE = 6.7, 7.3, 16.0  # pixels: an average character of the two weights, and a line of text
MARGIN = 20.0
FOLD_FROM = 60  # layers from which blocks are folded unless the caller says otherwise


@dataclass(slots=True)
class Box:
    """One box: a layer with what works on its blob in place, a folded block, or a blob from outside of what is drawn."""

    title: str
    family: str
    rows: list[Row] = field(default_factory=list)
    folded: bool = False
    x: float = 0.0  # centre
    y: float = 0.0

    @property
    def lines(self) -> list[str]:
        """Text under the title."""
        if self.folded:
            kinds: dict[str, int] = {}
            for row in self.rows:
                kinds[row.type] = kinds.get(row.type, 0) + 1
            most = sorted(kinds.items(), key=lambda item: -item[1])[:3]
            return [f"{len(self.rows)} layers", *(f"{n} {kind}" for kind, n in most)]
        if not self.rows:
            return []
        first, *stacked = self.rows
        return [_deed(first), *(clean(f"{row.name}: {_deed(row)}") for row in stacked)]

    @property
    def width(self) -> float:
        return max([len(self.title) * BOLD, *(len(line) * CHARACTER for line in self.lines)]) + 20

    @property
    def height(self) -> float:
        return (1 + len(self.lines)) * LINE + 12


def _deed(row: Row) -> str:
    return clean(f"{row.type} {row.settings}".strip())


@dataclass(frozen=True, slots=True)
class Edge:
    """A blob on its way from box to box, with its shape for people and the points at which its line bends."""

    start: int
    end: int
    blob: str
    shape: str
    bends: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Scene:
    """Boxes and edges in their places; `sideways` runs from left to right."""

    name: str
    phase: str
    boxes: list[Box]
    edges: list[Edge]
    width: float
    height: float
    sideways: bool = False


def scene(net: Net, *, fold: bool | None = None, only: Sequence[str] = (), sideways: bool = False) -> Scene:
    """The picture of a net. `fold` draws each block of a common prefix as one box (None: from 60 layers on); `only` are globs."""
    rows = [row for row in net.summary().rows if not row.inserted]
    if only:
        rows = [row for row in rows if any(fnmatchcase(row.name, glob) for glob in only)]
    blocks = grouped(rows) if (len(rows) >= FOLD_FROM if fold is None else fold) else [[row] for row in rows]
    boxes, edges = _boxes(blocks)
    sizes = [(box.height, box.width) if sideways else (box.width, box.height) for box in boxes]
    labels = max((len(edge.shape) for edge in edges), default=0) * CHARACTER
    layout = layered(sizes, [(edge.start, edge.end) for edge in edges], rank_gap=labels + 24 if sideways else 40)
    return _placed(net, boxes, edges, layout, sideways)


def _boxes(blocks: Sequence[Sequence[Row]]) -> tuple[list[Box], list[Edge]]:
    boxes: list[Box] = []
    edges: dict[tuple[int, int, str], Edge] = {}
    maker: dict[str, int] = {}  # blob -> box
    shapes: dict[str, str] = {}
    for block in blocks:
        block = list(block)
        first = block[0]
        in_place = len(block) == 1 and bool(first.tops) and all(top.in_place for top in first.tops)
        # what reads from elsewhere too stands alone: the rest may come from behind the maker
        stack = in_place and len({maker.get(blob) for blob in first.reads}) == 1 and first.reads[0] in maker
        if stack and not boxes[maker[first.reads[0]]].folded and boxes[maker[first.reads[0]]].rows:
            here = maker[first.reads[0]]
            boxes[here].rows.append(first)
        else:
            here = len(boxes)
            folded = len(block) > 1
            starts = dict.fromkeys(start for row in block if (start := prefix(row.name))) if folded else {}
            title = clean(", ".join(starts) if starts else first.name)
            boxes.append(Box(title, family(first.type) if not folded else _main_family(block), block, folded))
        for row in block:
            for blob in row.reads:
                source = maker.get(blob)
                if source is None:
                    source = maker[blob] = len(boxes)
                    boxes.append(Box(clean(blob), "outside"))
                if source != here:
                    edges.setdefault((source, here, blob), Edge(source, here, blob, shapes.get(blob, "")))
            for top in row.tops:
                maker[top.name] = here
                shapes[top.name] = "?" if top.shape is None else "×".join(map(str, top.shape)) or "scalar"
    return boxes, list(edges.values())


def family(kind: str) -> str:
    """The family of a layer type: the file in which it is written, which is what boxes are coloured by."""
    cls = registry.get(kind)
    if cls is None:
        return "unknown"
    name = cls.__module__.rpartition(".")[2]
    return name if name in FAMILIES else "fork"


def _main_family(block: Sequence[Row]) -> str:
    families = [family(row.type) for row in block]
    return max(dict.fromkeys(families), key=families.count)


def _placed(net: Net, boxes: list[Box], edges: list[Edge], layout: Layout, sideways: bool) -> Scene:
    def turned(point: tuple[float, float]) -> tuple[float, float]:
        x, y = (point[1], point[0]) if sideways else point
        return x + MARGIN, y + MARGIN

    for box, place in zip(boxes, layout.places, strict=True):
        box.x, box.y = turned(place)
    placed = [
        Edge(edge.start, edge.end, edge.blob, edge.shape, tuple(map(turned, bends)))
        for edge, bends in zip(edges, layout.bends, strict=True)
    ]
    width, height = (layout.height, layout.width) if sideways else (layout.width, layout.height)
    width, height = width + 2 * MARGIN, height + 2 * MARGIN
    for edge in placed if not sideways else ():  # labels stand right of the line that leaves a box
        width = max(width, boxes[edge.start].x + len(edge.shape) * CHARACTER + MARGIN)
    return Scene(net.name, net.phase, boxes, placed, width, height, sideways)


def path(scene: Scene, edge: Edge) -> str:
    """An edge as an SVG path: from side to side of its boxes through its bends, in curves that leave and arrive along the flow."""
    start, end = scene.boxes[edge.start], scene.boxes[edge.end]
    if scene.sideways:
        points = [(start.x + start.width / 2, start.y), *edge.bends, (end.x - end.width / 2, end.y)]
    else:
        points = [(start.x, start.y + start.height / 2), *edge.bends, (end.x, end.y - end.height / 2)]
    text = f"M{points[0][0]:.1f},{points[0][1]:.1f}"
    for (x0, y0), (x1, y1) in pairwise(points):
        if scene.sideways:
            middle = (x0 + x1) / 2
            text += f"C{middle:.1f},{y0:.1f} {middle:.1f},{y1:.1f} {x1:.1f},{y1:.1f}"
        else:
            middle = (y0 + y1) / 2
            text += f"C{x0:.1f},{middle:.1f} {x1:.1f},{middle:.1f} {x1:.1f},{y1:.1f}"
    return text
