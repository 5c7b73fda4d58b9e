"""A scene as SVG, and as Graphviz's DOT. Everything that comes from a file is escaped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape, quoteattr

from ..tables import clean
from .scene import LINE, Box, Scene, path

# fill and edge of each family, in light and in dark
COLOURS = {
    "data": ("#e8f1e4", "#5d8a4a", "#24361d", "#8fc07a"),
    "conv": ("#e3ecfa", "#3f6fb5", "#1b2c47", "#7fa9e6"),
    "pool": ("#fdeee0", "#c77f2f", "#452d12", "#e5a860"),
    "norm": ("#efe6f7", "#8457b3", "#33224a", "#b892e0"),
    "neuron": ("#fbe7e6", "#b9534d", "#481f1d", "#e38b86"),
    "linear": ("#dff3f4", "#2f8a92", "#123a3e", "#6cc4cc"),
    "combine": ("#f6f3d8", "#94872a", "#3a3510", "#cfc06a"),
    "wiring": ("#ececec", "#777777", "#333333", "#aaaaaa"),
    "recurrent": ("#fde3f0", "#b54688", "#481a36", "#e683bd"),
    "loss": ("#fadcdc", "#c02f2f", "#4a1414", "#f07070"),
    "fork": ("#e9e4da", "#7d6a45", "#37301f", "#b9a477"),
    "unknown": ("#ffffff", "#c02f2f", "#1b1b1b", "#f07070"),
    "outside": ("#ffffff", "#999999", "#1b1b1b", "#888888"),
}
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


HALO = "paint-order:stroke;stroke:#fff;stroke-width:3px"  # under the text of labels that stand on lines


def style() -> str:
    """CSS for boxes and edges, light and dark by the reader's preference."""
    light = "".join(f".{name} rect{{fill:{c[0]};stroke:{c[1]}}}" for name, c in COLOURS.items())
    dark = "".join(f".{name} rect{{fill:{c[2]};stroke:{c[3]}}}" for name, c in COLOURS.items())
    return (
        f"text{{font:12px {FONT};fill:#1c1c1c}}.t{{font-weight:600}}"
        f".s{{fill:#555;font-size:11px;{HALO}}}"
        f"rect{{rx:6px}}.e{{fill:none;stroke:#8a8a8a;stroke-width:1.4px}}.outside rect,.unknown rect{{stroke-dasharray:4 3}}"
        f".folded rect{{stroke-width:2.5px}}.bg{{fill:#fff}}{light}"
        f"@media(prefers-color-scheme:dark){{text{{fill:#eee}}.s{{fill:#bbb;stroke:#161616}}.e{{stroke:#888}}.bg{{fill:#161616}}{dark}}}"
    )


def svg(scene: Scene) -> str:
    """The picture as one SVG document that needs nothing else."""
    return document(f"{scene.name or 'net'}, {scene.phase}", scene.width, scene.height, body(scene))


def document(title: str, width: float, height: float, lines: Sequence[str], css: str = "") -> str:
    """Drawn lines as a whole document, with the style, the arrow head (`#a`) and a background."""
    title = clean(title)
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    arrow = 'viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label={quoteattr(title)}>',
        f"<title>{escape(title)}</title><style>{style()}{css}</style>",
        f'<defs><marker id="a" {arrow}><path d="M0,0L8,4L0,8z" fill="#8a8a8a"/></marker></defs>',
        '<rect class="bg" width="100%" height="100%" rx="0"/>',
        *lines,
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def body(scene: Scene) -> list[str]:
    """Edges, boxes, and the edges' labels on top of both; boxes carry their number as `data-box`."""
    lines = [f'<path class="e" d="{path(scene, edge)}" marker-end="url(#a)"/>' for edge in scene.edges]
    lines += [_box(box, i) for i, box in enumerate(scene.boxes)]
    lines += [_text(x, y, text, "s", "") for x, y, text in labels(scene)]
    return lines


def labels(scene: Scene) -> Iterator[tuple[float, float, str]]:
    """Shapes beside the edges, once for each blob that leaves a box: place of the text's beginning, and the text."""
    labelled: set[tuple[int, str]] = set()
    for edge in scene.edges:
        if not edge.shape or (edge.start, edge.blob) in labelled:
            continue
        labelled.add((edge.start, edge.blob))
        start = scene.boxes[edge.start]
        if scene.sideways:
            yield start.x + start.width / 2 + 8, start.y - 5, edge.shape
        else:
            yield start.x + 6, start.y + start.height / 2 + 13, edge.shape


def _box(box: Box, number: int) -> str:
    left, top = box.x - box.width / 2, box.y - box.height / 2
    texts = [_text(box.x, top + LINE, box.title, "t", "middle")]
    texts += [_text(box.x, top + (i + 2) * LINE, line, "", "middle") for i, line in enumerate(box.lines)]
    rect = f'<rect x="{left:.1f}" y="{top:.1f}" width="{box.width:.1f}" height="{box.height:.1f}"/>'
    kind = box.family + (" folded" if box.folded else "")
    return f'<g class="{kind}" data-box="{number}">{rect}{"".join(texts)}</g>'


def _text(x: float, y: float, text: str, kind: str, anchor: str) -> str:
    more = (f' class="{kind}"' if kind else "") + (f' text-anchor="{anchor}"' if anchor else "")
    return f'<text x="{x:.1f}" y="{y:.1f}"{more}>{escape(text)}</text>'


def dot(scene: Scene) -> str:
    """The same graph for Graphviz, which lays it out itself."""
    lines = [
        f"digraph {_quoted(clean(scene.name) or 'net')} {{",
        f"  rankdir={'LR' if scene.sideways else 'TB'};",
        '  node [shape=box style="rounded,filled" fontname="Helvetica" fontsize=11];',
        '  edge [fontname="Helvetica" fontsize=10 color="#777777"];',
    ]
    for i, box in enumerate(scene.boxes):
        fill, stroke, *_ = COLOURS[box.family]
        dashed = ' style="rounded,filled,dashed"' if box.family in ("outside", "unknown") else ""
        lines.append(
            f'  b{i} [label={_quoted(chr(10).join([box.title, *box.lines]))} fillcolor="{fill}" color="{stroke}"{dashed}];'
        )
    lines += [f"  b{edge.start} -> b{edge.end} [label={_quoted(edge.shape)}];" for edge in scene.edges]
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
