"""What part of the input each blob sees: receptive field, stride and offset, exact for every cell.

Along one axis, cell i of a blob reads the cells `first(i)` to `last(i)` of an input. Both repeat: a convolution or pooling moves by
its stride for each cell, and a Deconvolution of stride s by one bottom cell for every s. So a `Span` is a table of one period and
what it moves by from period to period: no rounding, no special case for fractions.

* The **field** is the most that any cell of a blob sees, padding included; the **stride** is what the input moves by per cell, on
  average where cells differ. The **centre** is the middle of what cell 0 sees; it and `start` count input cells from 0.
* Where branches join, a blob sees the union of what its branches see. Where they disagree in stride or centre, that is said; of
  different strides there is no union with one stride, and the figures are those of the branch that sees more.
* Dilated windows count from their first to their last element. What a normalisation takes from the whole image (BatchNorm in TRAIN,
  MVN) is not followed.
* A blob whose cells see the whole input (after a fully connected layer, or a window larger than the image) has no place in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import gcd, lcm
from typing import TYPE_CHECKING, Any

from .errors import InspectorError
from .graph import Blob, Node
from .layers import Shape
from .layers.conv import Sliding
from .layers.neuron import Neuron
from .layers.norm import LRN
from .layers.pool import Pooling
from .sheet import Sheet
from .summary import inserted
from .tables import Column, clean
from .window import Window

if TYPE_CHECKING:
    from .net import Net

LARGEST_PERIOD = 4096  # cells; behind more upsampling than any net has, positions count as lost


@dataclass(frozen=True, slots=True)
class Span:
    """What the cells of one axis see: first and last for one period of cells, and the move from period to period."""

    first: tuple[int, ...]
    last: tuple[int, ...]
    move: int

    @property
    def stride(self) -> Fraction:
        return Fraction(self.move, len(self.first))

    @property
    def size(self) -> int:
        """The most cells that any cell sees."""
        return max(last - first + 1 for first, last in zip(self.first, self.last, strict=True))

    @property
    def centre(self) -> Fraction:
        """The middle of what cell 0 sees, on average over a period: (first + last) / 2 less the way of the mean cell."""
        cells = len(self.first)
        return Fraction(sum(self.first) + sum(self.last), 2 * cells) - self.stride * Fraction(cells - 1, 2)

    def at(self, first: int, last: int) -> tuple[int, int]:
        """What the cells from `first` to `last` see together."""
        cells = len(self.first)
        return (
            self.first[first % cells] + first // cells * self.move,
            self.last[last % cells] + last // cells * self.move,
        )

    def through(self, reads: Callable[[int], tuple[int, int]], cells: int, steps: int) -> Span:
        """The span of a blob whose cell i reads `reads(i)` of this one's blob, which repeats: `cells` on, `steps` further."""
        periods = len(self.first) // gcd(len(self.first), steps)  # until both repeat
        found = [self.at(*reads(i)) for i in range(cells * periods)]
        return Span(tuple(a for a, _ in found), tuple(b for _, b in found), self.move * (steps * periods // len(self.first)))

    def union(self, other: Span) -> Span:
        """What both see together; of different strides, what the one that sees more sees."""
        if other.stride != self.stride:
            return self if self.size >= other.size else Span(other.first, other.last, other.move)
        cells = lcm(len(self.first), len(other.first))
        ours, theirs = ([span.at(i, i) for i in range(cells)] for span in (self, other))
        pairs = list(zip(ours, theirs, strict=True))
        return Span(tuple(min(a[0], b[0]) for a, b in pairs), tuple(max(a[1], b[1]) for a, b in pairs), int(self.stride * cells))


ITSELF = Span((0,), (0,), 1)


@dataclass(frozen=True, slots=True)
class Reads:
    """How one axis of a top reads that axis of a bottom: cell i reads from `low(i)` to `high(i)`; `cells` on, `steps` further."""

    low: Callable[[int], int]
    high: Callable[[int], int]
    cells: int = 1
    steps: int = 1

    def __call__(self, cell: int) -> tuple[int, int]:
        return self.low(cell), self.high(cell)


def same(shift: int = 0) -> Reads:
    """The cell of the same place, or `shift` further on."""
    return Reads(lambda i: i + shift, lambda i: i + shift)


def sliding(kernel: int, stride: int, pad: int) -> Reads:
    """A window of `kernel` cells, dilation counted in."""
    return Reads(lambda i: i * stride - pad, lambda i: i * stride - pad + kernel - 1, 1, stride)


def spreading(kernel: int, stride: int, pad: int) -> Reads:
    """A Deconvolution: bottom cell j reaches the tops from j * stride - pad on, `kernel` of them."""
    return Reads(lambda i: -((kernel - 1 - i - pad) // stride), lambda i: (i + pad) // stride, stride, 1)


WHOLE, LOST, UNKNOWN = "whole", "lost", "unknown"  # everything that the bottom sees; not of that form; who knows
Along = tuple[Reads, ...] | str


def along(node: Node, index: int) -> Along:
    """How the spatial axes (those from axis 2 on) of a node's tops read its bottom `index`."""
    shape = node.bottoms[index].shape
    if shape is None or any(top.shape is None for top in node.tops):
        return UNKNOWN
    axes, layer, kind = len(shape) - 2, node.layer, node.type
    other = WHOLE if layer.in_caffe else UNKNOWN  # of a fork's layer nobody has said where it looks
    if axes < 1:
        return LOST if isinstance(layer, Neuron) or kind in (*POINTWISE, "Concat", "Slice", "Flatten", "Reshape") else other
    kept: Along = (same(),) * axes
    if isinstance(layer, Sliding):
        axis, window = layer.window(shape)
        return _slid(window, kind) if axis == 1 else LOST
    if isinstance(layer, Pooling):
        return _slid(layer.window(shape), kind)
    if isinstance(layer, LRN) and layer.proto.lrn_param.norm_region == 1:  # WITHIN_CHANNEL
        size = layer.proto.lrn_param.local_size
        return (sliding(size, 1, (size - 1) // 2),) * axes
    if kind == "Crop":
        if index == 1:
            return ()  # gives only its shape
        return tuple(same(offset) for offset in layer.offsets(shape)[2:])  # type: ignore[attr-defined]  # of Crop
    if kind in ("Concat", "Slice"):
        return kept if layer.position(shape) < 2 else LOST  # type: ignore[attr-defined]  # of AlongAxis
    if kind in ("Scale", "Bias") and index == 1:
        return kept if len(shape) == len(node.bottoms[0].shape or ()) else WHOLE
    if kind in ("Tile", "Softmax", "ArgMax"):
        param = getattr(layer.proto, f"{kind.lower()}_param")
        keyed = kind != "ArgMax" or param.HasField("axis")
        return kept if keyed and layer.axis(param.axis, shape) < 2 else LOST
    if kind in ("Filter", "BatchReindex"):
        return kept if index < len(node.bottoms) - 1 else WHOLE
    if isinstance(layer, Neuron) or kind in POINTWISE:
        return kept
    return LOST if kind in ("Flatten", "Reshape") else other


POINTWISE = ("PReLU", "Dropout", "BatchNorm", "MVN", "LRN", "Scale", "Bias", "Eltwise", "Split")


def _slid(window: Window, kind: str) -> Along:
    if kind == "Deconvolution":
        how = zip(window.extent, window.stride, window.pad, strict=True)
        return tuple(spreading(*figures) for figures in how)
    return tuple(sliding(*figures) for figures in zip(window.extent, window.stride, window.pad, strict=True))


# ---- forward: every blob


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Two branches that meet in a layer and do not look at the same places."""

    layer: str
    source: str
    what: str  # "stride" or "centre"
    bottoms: tuple[str, str]
    values: tuple[str, str]

    def __str__(self) -> str:
        (one, other), (a, b) = self.bottoms, self.values
        return f"layer {self.layer}: of {self.source}, '{one}' has {self.what} {a} and '{other}' has {b}"


@dataclass(slots=True)
class Seen:
    """What a blob sees of each source: a span per axis, or WHOLE, LOST or UNKNOWN."""

    of: dict[Blob, tuple[Span, ...] | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Field:
    """A row of the report: one blob and one source. The figures are per axis; None where the blob has no place in the source."""

    blob: str
    layer: str
    shape: Shape | None
    source: str
    kind: str  # "spatial", "whole", "lost" or "unknown"
    size: tuple[int, ...] | None = None
    stride: tuple[Fraction, ...] | None = None
    start: tuple[int, ...] | None = None
    centre: tuple[Fraction, ...] | None = None
    everything: bool = False  # every cell sees the whole source

    def to_dict(self) -> dict[str, Any]:
        def plain(values: Sequence[Fraction] | None) -> list[int | float] | None:
            return None if values is None else [int(v) if v.denominator == 1 else float(v) for v in values]

        return {
            "blob": self.blob,
            "layer": self.layer,
            "shape": None if self.shape is None else list(self.shape),
            "source": self.source,
            "kind": self.kind,
            "field": None if self.size is None else list(self.size),
            "stride": plain(self.stride),
            "start": None if self.start is None else list(self.start),
            "centre": plain(self.centre),
            "sees_everything": self.everything,
        }


@dataclass(frozen=True)
class Report:
    """All blobs in order, in-place values once, at the last layer that made them."""

    name: str
    fields: tuple[Field, ...]
    disagreements: tuple[Disagreement, ...]
    apart: tuple[str, ...]  # blobs that see no spatial source

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "conventions": CONVENTIONS,
            "blobs": [row.to_dict() for row in self.fields],
            "disagreements": [
                {"layer": d.layer, "source": d.source, "what": d.what, "bottoms": list(d.bottoms), "values": list(d.values)}
                for d in self.disagreements
            ],
            "see_no_image": list(self.apart),
        }


CONVENTIONS = {
    "field": "input cells that one cell sees, padding included, dilated windows from end to end; the most of any cell",
    "stride": "input cells from one cell to the next",
    "start": "the first input cell that cell 0 sees; below 0 in the padding",
    "centre": "the middle of what cell 0 sees",
}


def measure(net: Net, node: Node | None = None) -> Report:
    """What every blob of the net sees, or what the tops of one node see."""
    seen, disagreements = _follow(net)
    rows, apart = [], []
    for blob in net.graph.blobs.values() if node is None else node.tops:
        if node is None and inserted(blob.maker):
            continue
        views = seen[blob].of
        if not views:
            apart.append(blob.name)
        rows += [_field(blob, source, view) for source, view in views.items()]
    return Report(net.name, tuple(rows), tuple(disagreements), tuple(apart))


def _follow(net: Net) -> tuple[dict[Blob, Seen], list[Disagreement]]:
    seen: dict[Blob, Seen] = {}
    found: list[Disagreement] = []
    sources = list(net.graph.net_inputs)
    for node in net.graph.nodes:
        if not node.bottoms:
            sources += node.tops
            seen.update((top, Seen(_source(top))) for top in node.tops)
            continue
        joined = Seen()
        by: dict[Blob, Blob] = {}  # source -> the first bottom that saw it
        for i, bottom in enumerate(node.bottoms):
            how = along(node, i)
            if how == ():
                continue
            for source, view in seen.get(bottom, Seen(_source(bottom))).of.items():
                new = _through(view, how)
                if source in joined.of:
                    found += _disagree(node, source, (by[source], bottom), (joined.of[source], new))
                    new = _union(joined.of[source], new)
                joined.of[source] = new
                by.setdefault(source, bottom)
        seen.update((top, joined) for top in node.tops)
    return seen, found


def _source(blob: Blob) -> dict[Blob, tuple[Span, ...] | str]:
    """A source sees itself, if it has places: three axes or more."""
    return {blob: (ITSELF,) * (len(blob.shape) - 2)} if blob.shape is not None and len(blob.shape) > 2 else {}


def _through(view: tuple[Span, ...] | str, how: Along) -> tuple[Span, ...] | str:
    if UNKNOWN in (view, how):
        return UNKNOWN
    if isinstance(view, str) or isinstance(how, str):
        return WHOLE if WHOLE in (view, how) else LOST
    if len(view) != len(how):
        return LOST
    if any(len(span.first) * reads.cells > LARGEST_PERIOD for span, reads in zip(view, how, strict=True)):
        return LOST
    return tuple(span.through(reads, reads.cells, reads.steps) for span, reads in zip(view, how, strict=True))


def _union(one: tuple[Span, ...] | str, other: tuple[Span, ...] | str) -> tuple[Span, ...] | str:
    if isinstance(one, str) or isinstance(other, str):
        return next(word for word in (UNKNOWN, WHOLE, LOST) if word in (one, other))
    return tuple(a.union(b) for a, b in zip(one, other, strict=True))


def _disagree(
    node: Node, source: Blob, bottoms: tuple[Blob, Blob], views: tuple[tuple[Span, ...] | str, tuple[Span, ...] | str]
) -> list[Disagreement]:
    one, other = views
    if isinstance(one, str) or isinstance(other, str):
        return []
    for what in ("stride", "centre"):
        values = [tuple(getattr(span, what) for span in view) for view in (one, other)]
        if values[0] != values[1]:
            texts = (figures(values[0]), figures(values[1]))
            return [Disagreement(node.name, source.name, what, (bottoms[0].name, bottoms[1].name), texts)]
    return []


def _field(blob: Blob, source: Blob, view: tuple[Span, ...] | str) -> Field:
    maker = blob.maker.name if blob.maker else ""
    if isinstance(view, str):
        return Field(blob.name, maker, blob.shape, source.name, view, everything=view == WHOLE)
    cells, sizes = (blob.shape or ())[2:], (source.shape or ())[2:]
    return Field(
        blob.name,
        maker,
        blob.shape,
        source.name,
        "spatial",
        tuple(span.size for span in view),
        tuple(span.stride for span in view),
        tuple(span.first[0] for span in view),
        tuple(span.centre for span in view),
        all(_covers(span, n, size) for span, n, size in zip(view, cells, sizes, strict=False)),
    )


def _covers(span: Span, cells: int, size: int) -> bool:
    """Whether every one of the cells sees all of an axis."""
    return all(first <= 0 and last >= size - 1 for first, last in (span.at(i, i) for i in range(min(cells, size + 1))))


# ---- backward: one cell

Box = tuple[tuple[int, int], ...]  # first and last cell per axis


@dataclass(frozen=True, slots=True)
class View:
    """Where one cell looks: per axis the first and last cell of a source, with padding and as far as there is an image."""

    source: str
    unclipped: Box | None
    clipped: Box | None  # None where it sees nothing of the image

    def to_dict(self) -> dict[str, Any]:
        def plain(box: Box | None) -> list[list[int]] | None:
            return None if box is None else [list(pair) for pair in box]

        return {"source": self.source, "unclipped": plain(self.unclipped), "clipped": plain(self.clipped)}


def look(net: Net, name: str, cell: Sequence[int]) -> list[View]:
    """Where the cell `cell` (one index per spatial axis) of blob `name` looks, exactly, back through every layer and branch.

    Clipped means that at every layer only cells that exist are followed. Raises InspectorError (`no-such-blob`, `no-such-cell`,
    `no-place`).
    """
    blob = net.blob(name)
    sizes = (blob.shape or ())[2:]
    if len(sizes) != len(cell) or not sizes:
        raise InspectorError(
            f"blob '{name}' has {len(sizes)} spatial axes, and the cell has {len(cell)} figures",
            code="no-such-cell",
            remedy="give one figure per axis behind the channels, such as 3,5",
        )
    if any(not 0 <= i < n for i, n in zip(cell, sizes, strict=True)):
        raise InspectorError(
            f"blob '{name}' has no cell {','.join(map(str, cell))}",
            code="no-such-cell",
            remedy=f"its cells go from {','.join('0' for _ in sizes)} to {','.join(str(n - 1) for n in sizes)}",
        )
    box = tuple((i, i) for i in cell)
    open_, clipped = _back(net, blob, box, clip=False), _back(net, blob, box, clip=True)
    return [View(source.name, open_.get(source), clipped.get(source)) for source in open_]


def _back(net: Net, blob: Blob, box: Box, *, clip: bool) -> dict[Blob, Box | None]:
    """The boxes of the sources; None for one of which nothing that exists is seen."""
    boxes: dict[Blob, Box | None] = {blob: box}
    found: dict[Blob, Box | None] = {}
    for node in reversed(net.graph.nodes):
        wanted = [boxes[top] for top in node.tops if top in boxes]
        if not wanted:
            continue
        if not node.bottoms:
            found.update((top, boxes[top]) for top in node.tops if top in boxes)
            continue
        joined = _joined(wanted)
        for i, bottom in enumerate(node.bottoms):
            if bottom.shape is None or len(bottom.shape) < 3:
                continue
            how = along(node, i)
            if how == ():
                continue
            if how == UNKNOWN:
                raise InspectorError(
                    f"nobody knows where layer '{node.name}' ({node.type}) looks", code="no-place", layer=node.name
                )
            sizes = bottom.shape[2:]
            reached: Box | None = None
            if isinstance(how, str) or (joined is not None and len(how) != len(joined)):
                reached = tuple((0, n - 1) for n in sizes)
            elif joined is not None:
                reached = tuple((reads.low(a), reads.high(b)) for reads, (a, b) in zip(how, joined, strict=True))
                if clip:
                    reached = tuple((max(0, a), min(n - 1, b)) for (a, b), n in zip(reached, sizes, strict=True))
                if any(a > b for a, b in reached):
                    reached = None
            boxes[bottom] = _joined([boxes.get(bottom), reached])
    found.update((source, boxes[source]) for source in net.graph.net_inputs if source in boxes)
    return found


def _joined(boxes: Sequence[Box | None]) -> Box | None:
    """The smallest box around all."""
    some = [box for box in boxes if box is not None]
    if not some:
        return None
    return tuple((min(a for a, _ in pairs), max(b for _, b in pairs)) for pairs in zip(*some, strict=True))


# ---- as a table


def figures(values: Sequence[Any]) -> str:
    """One figure where all axes agree, else one each."""
    texts = [str(int(v)) if Fraction(v).denominator == 1 else f"{float(v):.4g}" for v in values]
    return texts[0] if len(set(texts)) == 1 else "x".join(texts)


def sheet(report: Report, blob: str | None = None) -> Sheet:
    """The table, of all blobs or of one. Several sources are told apart in a column of their own."""
    rows = [row for row in report.fields if blob is None or row.blob == blob]
    several = len({row.source for row in rows}) > 1
    names = ["blob", "layer", *(["source"] if several else []), "shape", "field", "stride", "start", "centre", "sees"]
    titles = {"blob": "name", "shape": "shape"}
    columns = [Column(name, name in ("field", "stride", "start", "centre"), titles.get(name, "")) for name in names]
    cells = []
    for row in rows:
        shape = "?" if row.shape is None else "x".join(map(str, row.shape))
        marks = [figures(values) if values is not None else "-" for values in (row.size, row.stride, row.start, row.centre)]
        sees = {"whole": "everything", "lost": "order lost", "unknown": "?"}.get(row.kind, "everything" if row.everything else "")
        cells.append([row.blob, row.layer, *([row.source] if several else []), shape, *marks, sees])
    sources = ", ".join(dict.fromkeys(row.source for row in rows))
    notes = [("net", report.name or "(no name)"), *([("of", sources)] if sources else [])]
    notes += list(CONVENTIONS.items())
    if any(row.kind == "lost" for row in rows):
        notes.append(("order lost", "the layer moves cells to other places, such as Flatten, so that no window describes them"))
    notes += [("disagree", str(found)) for found in report.disagreements if blob is None or _above(found, rows)]
    if report.apart and blob is None:
        notes.append(("no image", f"{', '.join(report.apart)}: see no source with places"))
    return Sheet(names, columns, cells, None, [(label, clean(text)) for label, text in notes])


def _above(found: Disagreement, rows: Sequence[Field]) -> bool:
    return any(row.layer == found.layer for row in rows)


def where(name: str, cell: Sequence[int], views: Sequence[View], sizes: Mapping[str, Sequence[int]]) -> list[tuple[str, str]]:
    """The answer for one cell in sentences."""

    def box(found: Box | None) -> str:
        if found is None:
            return "nothing"
        return " x ".join(f"{a}..{b}" for a, b in found) + f" ({' x '.join(str(b - a + 1) for a, b in found)})"

    lines = [("cell", f"{','.join(map(str, cell))} of {name}; rows x columns, both ends counted")]
    for view in views:
        whole = " x ".join(map(str, sizes[view.source]))
        lines += [
            (view.source, f"sees {box(view.clipped)} of {whole}"),
            ("", f"with padding {box(view.unclipped)}"),
        ]
    return [(label, clean(text)) for label, text in lines]
