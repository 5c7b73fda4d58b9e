"""The net as one HTML file that needs no network: the graph to walk through, a table beside it, and everything known of a layer.

The page is a fixed template; all that comes from files goes into it as JSON, which the page puts on the screen as text and never as
markup. JSON cannot end the script element that holds it, because `<` is written as an escape.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import cost, receptive
from ..errors import MissingExtra
from ..graph import Blob, Node
from ..layers import Shape
from ..summary import Row, inserted
from ..tables import number
from .scene import Scene, scene
from .scene import path as edge_path
from .svg import COLOURS, labels

if TYPE_CHECKING:
    import numpy as np

    from ..net import Net

TEMPLATE = Path(__file__).with_name("page.html")
SOURCE_LINES = 40  # of a layer's text; what is longer is cut


@dataclass(frozen=True, slots=True)
class Extra:
    """A section of the opening panel: pairs of words, and pictures as (caption, PNG bytes)."""

    title: str
    pairs: Sequence[tuple[str, str]] = ()
    images: Sequence[tuple[str, bytes]] = field(default_factory=tuple)


def page(
    nets: Sequence[Net],
    *,
    weights: str | None = None,
    extras: Sequence[Extra] = (),
    fold: bool | None = None,
    only: Sequence[str] = (),
    sideways: bool = False,
) -> str:
    """One page for a net in one or more phases (the first is shown first). With `weights` also statistics and first filters.

    `fold`, `only` and `sideways` are as for a scene, but None folds nothing: a page has room.
    """
    stats = _stats(weights) if weights is not None else {}
    data = {
        "name": nets[0].name,
        "start": nets[0].phase,
        "colours": COLOURS,
        "phases": {net.phase: _phase(net, stats, scene(net, fold=bool(fold), only=only, sideways=sideways)) for net in nets},
        "extras": [
            {"title": extra.title, "pairs": list(extra.pairs), "images": [[caption, png(data)] for caption, data in extra.images]}
            for extra in extras
        ],
    }
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c").replace("\u2028", "\\u2028")
    return TEMPLATE.read_text(encoding="utf-8").replace("@DATA@", text.replace("\u2029", "\\u2029"))


def png(data: bytes) -> str:
    """A picture as a data URI."""
    return "data:image/png;base64," + base64.b64encode(data).decode()


def _phase(net: Net, stats: dict[str, tuple[list[Any], str]], drawn: Scene) -> dict[str, Any]:
    rows = [row for row in net.summary().rows if not row.inserted]
    places = {row.index: i for i, row in enumerate(rows)}
    boxes = [
        {
            "x": round(box.x, 1),
            "y": round(box.y, 1),
            "w": round(box.width, 1),
            "h": round(box.height, 1),
            "title": box.title,
            "lines": box.lines,
            "family": box.family,
            "rows": [places[row.index] for row in box.rows],
        }
        for box in drawn.boxes
    ]
    fields: dict[str, list[receptive.Field]] = {}
    for seen in receptive.measure(net).fields:
        fields.setdefault(seen.blob, []).append(seen)
    nodes = [node for node in net.layers if not inserted(node)]
    lines = cost.measure(net).lines[: len(nodes)]  # one more may stand for the splits
    return {
        "error": str(net.error) if net.error is not None else "",
        "width": round(drawn.width),
        "height": round(drawn.height),
        "boxes": boxes,
        "edges": [[edge_path(drawn, edge), edge.start, edge.end] for edge in drawn.edges],
        "labels": [[round(x, 1), round(y, 1), text] for x, y, text in labels(drawn)],
        "rows": [_row(net, row, node, line, fields, stats) for row, node, line in zip(rows, nodes, lines, strict=True)],
        "totals": _totals(net),
    }


def _totals(net: Net) -> list[tuple[str, str]]:
    totals = net.summary().totals
    return [
        ("phase", net.phase),
        ("layers", f"{totals.layers} as written, {totals.layers_size} as Caffe counts"),
        ("depth", f"{totals.depth} weighted layers on the longest way"),
        ("parameters", number(totals.parameters)),
        ("MACs", number(totals.macs)),
        ("memory", f"{number(net.memory_required)} bytes for data as Caffe counts"),
        ("inputs", ", ".join(net.inputs)),
        ("outputs", ", ".join(net.outputs)),
    ]


def _row(
    net: Net,
    row: Row,
    node: Node,
    line: cost.Line,
    fields: dict[str, list[receptive.Field]],
    stats: dict[str, tuple[list[Any], str]],
) -> dict[str, Any]:
    found, image = stats.get(row.name, ([], ""))
    where, source = _source(net, node)
    return {
        "index": row.index,
        "name": row.name,
        "type": row.type,
        "settings": row.settings,
        "backward": row.backward,
        "bottoms": [{"name": name, **_bottom(blob)} for name, blob in zip(row.reads, node.bottoms, strict=True)],
        "tops": [
            {"name": top.name, "shape": _words(top.shape), "in_place": top.in_place, "readers": [n.name for n in _readers(blob)]}
            for top, blob in zip(row.tops, node.tops, strict=True)
        ],
        "params": [
            (p.name, _words(p.shape) + (f", shared from {p.owner}" if p.owner else "") + ("" if p.lr_mult else ", frozen"))
            for p in row.weights
        ],
        "parameters": row.parameters,
        "macs": row.macs,
        "memory": row.memory,
        "costs": _costs(line),
        "field": [(f"of {f.blob} in {f.source}", _seen(f)) for top in row.tops for f in fields.get(top.name, ())],
        "stats": found,
        "image": image,
        "where": where,
        "source": source,
    }


def _words(shape: Shape | None) -> str:
    return "unknown" if shape is None else " × ".join(map(str, shape)) or "scalar"


def _bottom(blob: Blob) -> dict[str, str]:
    maker = blob.maker
    while maker is not None and inserted(maker) and maker.bottoms:  # a split only hands on
        maker = maker.bottoms[0].maker
    return {"shape": _words(blob.shape), "maker": maker.name if maker is not None else ""}


def _readers(blob: Blob) -> list[Node]:
    """The layers that read a blob, behind splits too."""
    found: list[Node] = []
    for node in blob.readers:
        if inserted(node):
            found += [reader for top in node.tops for reader in _readers(top)]
        else:
            found.append(node)
    return found


def _costs(line: cost.Line) -> list[tuple[str, str]]:
    if not line.known:
        return [("operations", "unknown")]
    counts = {"multiply-accumulates": line.forward.mac, **{name: n for name, n in asdict(line.forward).items() if name != "mac"}}
    return [(name, number(n)) for name, n in counts.items() if n] or [("operations", "none")]


def _seen(found: receptive.Field) -> str:
    if found.kind == "whole" or found.everything:
        return "all of it"
    if found.size is None or found.stride is None:
        return found.kind
    strides = " × ".join(str(int(s)) if s.denominator == 1 else f"{float(s):.3g}" for s in found.stride)
    return f"{' × '.join(map(str, found.size))}, stride {strides}"


def _source(net: Net, node: Node) -> tuple[str, str]:
    """Where a layer is written and its text: from its line to before the next layer's."""
    document = net.opened.document
    if node.origin is None or document is None:
        return "", ""
    start = document.position(node.origin)
    if start is None:
        return "", ""
    lines = document.text.split("\n")
    depth, end = 0, start.line - 1
    while end < len(lines):
        code = lines[end].split("#", 1)[0]
        depth += code.count("{") - code.count("}")
        end += 1
        if depth <= 0 and "{" in "".join(lines[start.line - 1 : end]):
            break
        if end - start.line >= SOURCE_LINES:
            lines[end - 1] += "\n..."
            break
    return str(start), "\n".join(lines[start.line - 1 : end])


def _stats(weights: str) -> dict[str, tuple[list[Any], str]]:
    """Statistics of a file of weights by layer, and the filters of its first convolution as a picture where Pillow can draw."""
    from ..caffemodel import open_weights
    from ..weight_stats import stats

    found: dict[str, tuple[list[Any], str]] = {}
    filters = ""
    for layer in open_weights(weights).layers:
        pairs = []
        for blob in layer.blobs:
            row = stats(layer, blob)
            values = [f"{value:.4g}" for value in (row.least, row.most, row.mean, row.deviation)]
            pairs.append(
                [("blob", f"{blob.index}: {_words(blob.shape)}"), *zip(("min", "max", "mean", "std"), values, strict=True)]
            )
            pairs[-1] += [("zeros", f"{row.sparsity:.1%}"), ("histogram", row.sparkline())]
            if row.dead:
                pairs[-1].append(("dead filters", str(row.dead)))
        image = ""
        if not filters and layer.blobs and len(layer.blobs[0].shape) == 4 and layer.blobs[0].shape[2] > 1:
            image = filters = _filters(layer.blobs[0])
        found[layer.name] = (pairs, image)
    return found


def _filters(blob: Any) -> str:
    from ..weight_stats import filter_grid

    try:
        return png(encoded(filter_grid(blob.read())))
    except MissingExtra:  # the page is whole without the picture
        return ""


def encoded(pixels: np.ndarray) -> bytes:
    """Pixels, (height, width, 3) of bytes, as a PNG. Raises MissingExtra without Pillow."""
    from ..sources.picture import pillow

    out = BytesIO()
    pillow().fromarray(pixels).save(out, "PNG")
    return out.getvalue()
