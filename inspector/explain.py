"""One layer as one would teach it: the formulas with this layer's numbers in them; and a walk through a whole net.

Sizes are Caffe's: conv_layer.cpp rounds down, pooling_layer.cpp rounds up and drops a last window that starts behind the image.
Beside them stands what TensorFlow's padding schemes would give: SAME pads so that a stride of s divides the size by s, rounded up;
VALID does not pad, and only whole windows count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil, prod
from typing import TYPE_CHECKING, Any

from . import cost, gradients, memory, receptive
from .errors import InspectorError, Refusal
from .graph import Blob, Graph, Node
from .layers import Layer, Shape, Unknown, count, create
from .layers.conv import Filtering, Sliding
from .layers.linear import InnerProduct
from .layers.pool import FLOOR, Pooling
from .sheet import Sheet
from .summary import forward_costs, written
from .tables import Column, Paint, clean, fold, number, plain, size
from .window import Window, quotient

if TYPE_CHECKING:
    from .net import Net

AXES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, the lines below it, and the same as data."""

    title: str
    lines: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Explanation:
    """What there is to say of a layer."""

    layer: str
    type: str
    sections: tuple[Section, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "layer": self.layer,
            "type": self.type,
            "sections": [{"title": s.title, "lines": list(s.lines), **s.facts} for s in self.sections],
        }

    def lines(self, *, width: int | None = None, paint: Paint = plain, rule: str = "-") -> Iterator[str]:
        """The text, each section under its heading."""
        yield paint(f"{clean(self.layer)} ({clean(self.type)})", "head")
        for section in self.sections:
            yield ""
            yield paint(section.title, "label")
            for line in section.lines:
                yield from (f"  {part}" for part in fold(clean(line), (width or 132) - 2))


def explain(net: Net, layer: str, *, tensorflow: bool = False) -> Explanation:
    """Explain one layer of a net. Raises InspectorError (`no-such-layer`)."""
    node = find(net, layer)
    parts: list[Callable[[], Section | None]] = [
        lambda: _what(node),
        lambda: _reads(node),
        lambda: _output(node),
        lambda: _parameters(node),
        lambda: _groups(node),
        lambda: _cost(net.graph, node),
        lambda: _memory(net.graph, node),
        lambda: _field(net, node),
        lambda: _feeds(net.graph, node),
    ]
    if tensorflow:
        parts.append(lambda: _tensorflow(node))
    return Explanation(node.name, node.type, tuple(section for part in parts if (section := part()) is not None))


def find(net: Net, layer: str) -> Node:
    """The layer of that name."""
    for node in net.graph.nodes:
        if node.name == layer:
            return node
    from difflib import get_close_matches

    close = get_close_matches(layer, [node.name for node in net.graph.nodes], 1)
    remedy = f"did you mean '{close[0]}'?" if close else "see summary for the names"
    raise InspectorError(f"the net has no layer '{layer}'", code="no-such-layer", remedy=remedy)


def text(shape: Shape | None) -> str:
    """A shape with x between its sizes; ? while it is unknown."""
    return "?" if shape is None else "x".join(map(str, shape)) or "scalar"


def image(shape: Shape | None) -> str:
    """One image's shape as people write it: height x width x channels, or just the count where there are no places."""
    if shape is None:
        return "?"
    return "x".join(map(str, (*shape[2:], shape[1]))) if len(shape) > 2 else str(prod(shape[1:]))


# ---- sections


def _what(node: Node) -> Section:
    from .layer_docs import sentence

    settings = node.layer.settings()
    return Section("What it does", (sentence(type(node.layer)), *([f"settings: {settings}"] if settings else [])))


def _reads(node: Node) -> Section | None:
    if not node.bottoms:
        return None
    lines, facts = [], []
    for blob in node.bottoms:
        own = written(blob)
        maker = f", made by layer {own.maker.name} ({own.maker.type})" if own.maker else ""
        lines.append(f"{own.name}: {text(blob.shape)}{maker}")
        facts.append({"blob": own.name, "shape": _listed(blob.shape), "layer": own.maker.name if own.maker else None})
    return Section("What it reads", tuple(lines), {"reads": facts})


def _listed(shape: Shape | None) -> list[int] | None:
    return None if shape is None else list(shape)


def _output(node: Node) -> Section:
    lines: list[str] = []
    shape = node.bottoms[0].shape if node.bottoms else None
    if shape is not None:
        lines += _arithmetic(node, shape)
    for i, blob in enumerate(node.tops):
        where = ", in place: it overwrites what it reads" if node.in_place(i) else ""
        lines.append(f"{blob.name}: {text(blob.shape)}{where}")
    return Section("What it makes", tuple(lines), {"makes": [{"blob": b.name, "shape": _listed(b.shape)} for b in node.tops]})


def _arithmetic(node: Node, shape: Shape) -> list[str]:
    """The sizes' formulas."""
    layer = node.layer
    if isinstance(layer, InnerProduct):
        axis = layer.axis(layer.proto.inner_product_param.axis, shape)
        inputs = "*".join(map(str, shape[axis:])) or "1"
        outputs = (node.tops[0].shape or (0,))[-1]
        each = f"{inputs} = {number(count(shape[axis:]))}" if len(shape) - axis > 1 else inputs
        return [f"all of {each} inputs reach each of {number(outputs)} outputs: the places in the image are gone"]
    if isinstance(layer, Sliding):
        axis, window = layer.window(shape)
        lines = _named(window, shape[axis + 1 :], deconvolution if getattr(layer, "transposed", False) else convolution)
        if isinstance(layer, Filtering):
            lines.append(f"channels: one for each of {number(layer.proto.convolution_param.num_output)} filters")
        return [*_dilated(window), *lines]
    if isinstance(layer, Pooling):
        up = layer.proto.pooling_param.round_mode != FLOOR

        def formula(window: Window, axis: int, n: int) -> str:
            return pooling(window, axis, n, up=up)

        return [*_named(layer.window(shape), shape[2:], formula), f"channels: {number(shape[1])}, each for itself"]
    if node.type == "Concat" and all(blob.shape for blob in node.bottoms):
        axis = layer.position(shape)  # type: ignore[attr-defined]  # of AlongAxis
        sizes = [blob.shape[axis] for blob in node.bottoms if blob.shape]
        return [f"axis {axis}: {' + '.join(map(str, sizes))} = {number(sum(sizes))}"]
    return [f"shape: {layer.rule}"]


def _dilated(window: Window) -> list[str]:
    found = dict.fromkeys((d, k, e) for d, k, e in zip(window.dilation, window.kernel, window.extent, strict=True) if d != 1)
    return [f"a kernel of {k} dilated by {d} reaches over {d}*({k} - 1) + 1 = {e}" for d, k, e in found]


def _named(window: Window, sizes: Sequence[int], formula: Callable[[Window, int, int], str]) -> list[str]:
    """One line per axis, or one for all where they are alike."""
    names = AXES.get(len(sizes), tuple(f"axis {i}" for i in range(len(sizes))))
    texts = [formula(window, axis, n) for axis, n in enumerate(sizes)]
    if len(texts) > 1 and len(set(texts)) == 1:
        return [f"{', '.join(names[:-1])} and {names[-1]}: {texts[0]}"]
    return [f"{name}: {line}" for name, line in zip(names, texts, strict=True)]


def convolution(window: Window, axis: int, n: int) -> str:
    """`(227 + 2*0 - 11)/4 + 1 = 55`, and what is rounded."""
    e, s, p = window.extent[axis], window.stride[axis], window.pad[axis]
    room = n + 2 * p - e
    out = quotient(room, s) + 1
    line = f"({n} + 2*{p} - {e})/{s} + 1 = {out}"
    if room % s:
        line += f", {room}/{s} = {room / s:g} being rounded down, as Caffe does in convolutions: {room % s} at the end are not seen"
    return line


def deconvolution(window: Window, axis: int, n: int) -> str:
    """`2*(14 - 1) + 4 - 2*1 = 28`."""
    e, s, p = window.extent[axis], window.stride[axis], window.pad[axis]
    return f"{s}*({n} - 1) + {e} - 2*{p} = {s * (n - 1) + e - 2 * p}"


def pooling(window: Window, axis: int, n: int, *, up: bool = True) -> str:
    """`(55 + 2*0 - 3)/2 + 1 = 27`, what is rounded, and whether the last window is dropped."""
    k, s, p = window.kernel[axis], window.stride[axis], window.pad[axis]
    room = n + 2 * p - k
    steps = ceil(room / s) if up else room // s
    line = f"({n} + 2*{p} - {k})/{s} + 1 = {steps + 1}"
    if room % s:
        why = "up, as Caffe does in pooling" if up else "down, as round_mode says"
        line += f", {room}/{s} = {room / s:g} being rounded {why}"
        line += ": the last window hangs over the edge" if up else ""
    if any(window.pad) and steps * s >= n + p:
        line += f"; window {steps + 1} would start at {steps}*{s} = {steps * s}, behind the image and its leading pad, "
        line += f"{n} + {p} = {n + p}, so it is dropped: {steps}"
    return line


def _parameters(node: Node) -> Section | None:
    if not node.params:
        return Section("Parameters", ("none",), {"parameters": 0}) if node.params is not None and not node.layer.data else None
    layer, total = node.layer, sum(param.count for param in node.params)
    lines = []
    if isinstance(layer, (Filtering, InnerProduct)):
        lines.append(f"{product(layer, [param.shape for param in node.params])} = {number(total)}")
    for param in node.params:
        notes = [f"lr_mult {param.lr_mult:g}"] if param.lr_mult != 1 else []
        if param.owner is not param:
            notes.append(f"shared: they are those of layer {param.owner.node.name}")
        lines.append(f"{param.name}: {text(param.shape)} = {number(param.count)}" + (f" ({', '.join(notes)})" if notes else ""))
    facts = [{"name": param.name, "shape": list(param.shape), "count": param.count} for param in node.params]
    return Section("Parameters", tuple(lines), {"parameters": total, "blobs": facts})


def product(layer: Layer, shapes: Sequence[Shape]) -> str:
    """Weights as a product and biases as a sum: `11*11*3*96 + 96`."""
    weight, *bias = shapes
    if isinstance(layer, Filtering):
        out, into, *kernel = weight
        factors: list[int] = [*kernel, out, into] if layer.transposed else [*kernel, into, out]
    else:
        factors = list(weight if layer.proto.inner_product_param.transpose else reversed(weight))
    return " + ".join(["*".join(map(str, factors)), *(str(count(shape)) for shape in bias)])


def _groups(node: Node) -> Section | None:
    layer = node.layer
    shape = node.bottoms[0].shape if node.bottoms else None
    if not isinstance(layer, Filtering) or shape is None or node.tops[0].shape is None:
        return None
    groups = layer.proto.convolution_param.group
    if groups < 2:
        return None
    axis, _ = layer.window(shape)
    inputs, outputs = shape[axis], node.tops[0].shape[axis]
    seen, made = inputs // groups, outputs // groups
    bottom = written(node.bottoms[0]).name
    lines = [f"{inputs} channels in {groups} groups: each filter sees {inputs}/{groups} = {seen} of them, not all"]
    if groups == inputs:
        lines.append("as many groups as channels: a depthwise convolution, every channel filtered for itself")
    shown = range(groups) if groups <= 4 else (0, 1, groups - 1)
    for group in shown:
        if groups > 4 and group == groups - 1:
            lines.append("...")
        channels, filters = _range(group * seen, seen), _range(group * made, made)
        lines.append(f"group {group + 1}: channels {channels} of {bottom} -> channels {filters} of {node.tops[0].name}")
    if groups == 2:
        lines.append(
            "the two halves never mix here; in AlexNet (2012) each lay on a GPU of its own, which is what groups were made for"
        )
    lines.append(f"without groups it would have {groups} times the weights and multiply-accumulates")
    return Section("What each group sees", tuple(lines), {"groups": groups, "channels_seen": seen, "channels_made": made})


def _range(start: int, length: int) -> str:
    return str(start) if length == 1 else f"{start} to {start + length - 1}"


def _cost(graph: Graph, node: Node) -> Section | None:
    costs = forward_costs(node)
    if costs is None:
        return Section("Cost", ("nobody knows what this layer computes",))
    layer, lines = node.layer, []
    top, bottom = (blobs[0].shape if blobs else None for blobs in (node.tops, node.bottoms))
    if isinstance(layer, Filtering) and top is not None and bottom is not None and node.params:
        spread = bottom if layer.transposed else top
        weight = node.params[0].shape
        what = "inputs" if layer.transposed else "outputs"
        each = f"{'*'.join(map(str, (*weight[2:], weight[1])))} weights each" if weight[1:] else "1 weight each"
        lines.append(f"{'*'.join(map(str, spread))} {what} x {each} = {number(costs.mac)} multiply-accumulates")
    elif isinstance(layer, InnerProduct) and node.params:
        rows = count(top or ()) // max(1, (top or (1,))[-1])
        lines.append(f"{number(rows)} x {number(node.params[0].count)} weights = {number(costs.mac)} multiply-accumulates")
    elif costs.mac:
        lines.append(f"{number(costs.mac)} multiply-accumulates")
    others = [f"{number(getattr(costs, kind))} {title}" for kind, title in cost.TITLES.items() if kind != "mac"]
    shown = [words for words in others if not words.startswith("0 ")]
    if shown:
        lines.append(", ".join(shown))
    lines.append(f"{number(cost.flops(costs))} FLOPs: 2 for each multiply-accumulate, 1 for every other operation")
    total = sum(found.mac for other in graph.nodes if (found := forward_costs(other)) is not None)
    if costs.mac:
        lines.append(f"{100 * costs.mac / total:.1f}% of the net's multiply-accumulates")
    lines[0] += " for the batch" if (bottom or top or (1,))[:1] != (1,) else ""
    facts = {**{title: getattr(costs, kind) for kind, title in cost.TITLES.items()}, "flops": cost.flops(costs)}
    return Section("Cost of one forward pass", tuple(lines), facts)


def _memory(graph: Graph, node: Node) -> Section:
    lines = []
    for i, blob in enumerate(node.tops):
        if blob.shape is None:
            continue
        shares = memory.aliased(node, i)
        own = "in place: nothing of its own" if node.in_place(i) else f"shared with {shares.name}" if shares else ""
        sum_of = "*".join(map(str, (*blob.shape, memory.FLOAT)))
        lines.append(f"{blob.name}: {sum_of} = {_bytes(memory.bytes_of(blob))}" + (f", {own}" if own else ""))
    params = memory.FLOAT * sum(param.count for param in node.params or () if param.owner is param)
    if params:
        lines.append(f"parameters: {_bytes(params)}, and as much again for their gradients in training")
    workspace = memory.workspace(node)
    if workspace:
        lines.append(f"im2col: {_bytes(workspace)} in which Caffe unrolls one image")
    use = memory.uses(graph, gradients.of(graph))[graph.nodes.index(node)]
    lines.append(f"while it runs, {_bytes(use.live)} of data are alive, if blobs are freed after their last use")
    facts = {
        "bytes": sum(map(memory.bytes_of, node.tops)),
        "parameter_bytes": params,
        "im2col_bytes": workspace,
        "live_bytes": use.live,
    }
    return Section("Memory", tuple(lines), facts)


def _bytes(found: int) -> str:
    return f"{number(found)} bytes" + (f" ({size(found)})" if found >= 1024 else "")


def _field(net: Net, node: Node) -> Section | None:
    rows = [row for row in receptive.measure(net, node).fields if row.size is not None]
    if not rows:
        return None
    lines = []
    for row in rows:
        if row.size is None or row.stride is None or row.start is None:
            continue
        seen = "x".join(map(str, row.size))
        step = receptive.figures(row.stride)
        lines.append(f"a cell of {row.blob} sees {seen} of {row.source}, {step} further for each cell")
        if row.everything:
            lines[-1] += "; that is all of it"
    return Section("What it sees", tuple(lines), {"receptive": [row.to_dict() for row in rows]})


def _feeds(graph: Graph, node: Node) -> Section:
    lines, facts = [], []
    for blob in node.tops:
        readers = [reader for other in _copies(blob) for reader in other.readers if not _split(reader)]
        names = ", ".join(f"{reader.name} ({reader.type})" for reader in readers)
        lines.append(f"{blob.name}: read by {names}" if readers else f"{blob.name}: an output of the net")
        facts.append({"blob": blob.name, "layers": [reader.name for reader in readers]})
    return Section("What it feeds", tuple(lines or ["nothing"]), {"feeds": facts})


def _split(node: Node) -> bool:
    return node.type == "Split" and node.origin is None


def _copies(blob: Blob) -> Iterator[Blob]:
    """The blob, and what inserted splits make of it."""
    yield blob
    for reader in blob.readers:
        if _split(reader):
            for top in reader.tops:
                yield from _copies(top)


# ---- TensorFlow


def same(n: int, stride: int) -> int:
    """Size along an axis with SAME padding."""
    return -(-n // stride)


def valid(n: int, extent: int, stride: int) -> int:
    """Size along an axis without padding."""
    return max(0, -(-(n - extent + 1) // stride))


def _tensorflow(node: Node) -> Section | None:
    shape = node.bottoms[0].shape if node.bottoms else None
    window = _window(node, shape) if shape is not None else None
    if shape is None or window is None:
        return None
    sizes = shape[len(shape) - len(window.kernel) :]
    names = AXES.get(len(sizes), tuple(f"axis {i}" for i in range(len(sizes))))
    lines: dict[str, list[str]] = {}
    for name, n, e, s in zip(names, sizes, window.extent, window.stride, strict=True):
        out = same(n, s)
        pad = max(0, (out - 1) * s + e - n)
        told = f"SAME: ceil({n}/{s}) = {out}, padded by {pad // 2} before and {pad - pad // 2} behind"
        lines.setdefault(told, []).append(name)
    for name, n, e, s in zip(names, sizes, window.extent, window.stride, strict=True):
        told = f"VALID: ceil(({n} - {e} + 1)/{s}) = {valid(n, e, s)}, no padding, whole windows only"
        lines.setdefault(told, []).append(name)
    caffe = text((node.tops[0].shape or ())[2:])
    shown = [line if len(where) == len(names) else f"{', '.join(where)}: {line}" for line, where in lines.items()]
    facts = {
        "same": [same(n, s) for n, s in zip(sizes, window.stride, strict=True)],
        "valid": [valid(*figures) for figures in zip(sizes, window.extent, window.stride, strict=True)],
    }
    return Section("In TensorFlow", (*shown, f"here, in Caffe: {caffe}"), facts)


def _window(node: Node, shape: Shape) -> Window | None:
    """The window of a convolution or pooling; that of a Deconvolution does not slide over what it reads."""
    if isinstance(node.layer, Sliding) and not getattr(node.layer, "transposed", False):
        return node.layer.window(shape)[1]
    return node.layer.window(shape) if isinstance(node.layer, Pooling) else None


def tensorflow(graph: Graph) -> dict[Blob, Shape | None]:
    """Every blob's shape if convolutions padded SAME and poolings VALID, as TensorFlow nets commonly do; axes in Caffe's order.

    A pooling that is padded in Caffe, as in GoogLeNet's branches, is taken as SAME, too. Everything else keeps its own rule. None
    where a layer cannot take what it would get, such as an Eltwise of two sizes.
    """
    found: dict[Blob, Shape | None] = {blob: blob.shape for blob in graph.net_inputs}
    for node in graph.nodes:
        if not node.bottoms:
            found.update((top, top.shape) for top in node.tops)
            continue
        bottoms = [shape for blob in node.bottoms if (shape := found.get(blob)) is not None]
        tops: Sequence[Shape | None] = [None] * len(node.tops)
        if len(bottoms) == len(node.bottoms):
            try:
                tops = _remade(node, bottoms)
            except Refusal:
                pass
        found.update(zip(node.tops, tops, strict=True))
    return found


def _remade(node: Node, bottoms: Sequence[Shape]) -> Sequence[Shape | None]:
    first = bottoms[0]
    window = _window(node, first)
    if window is None:
        return [None] * len(node.tops) if isinstance(node.layer, Unknown) else node.layer.shapes(*bottoms)
    ahead, sizes = (node.layer.shapes(*bottoms)[0])[: len(first) - len(window.kernel)], first[len(first) - len(window.kernel) :]
    if isinstance(node.layer, Pooling) and not any(window.pad):
        outs = [valid(*figures) for figures in zip(sizes, window.extent, window.stride, strict=True)]
    else:
        outs = [same(n, s) for n, s in zip(sizes, window.stride, strict=True)]
    return [(*ahead, *outs) if all(outs) else None] * len(node.tops)


# ---- a walk through the net

WALKED = ("Input", "Data", "Pooling", "SPP", "Concat", "LSTM", "RNN")


@dataclass(frozen=True, slots=True)
class Step:
    """One layer of the walk: what it makes of one image, how, and its parameters; the same in TensorFlow, without groups."""

    layer: str
    type: str
    settings: str
    shape: Shape | None
    how: str
    parameters: int
    tensorflow: Shape | None = None
    tensorflow_parameters: int | None = None


def walk(net: Net, *, other: bool = False) -> list[Step]:
    """The layers with weights or windows, in order; with `other` what TensorFlow's conventions make of them, too."""
    shapes = tensorflow(net.graph) if other else {}
    steps = []
    for node in net.graph.nodes:
        if not node.tops or not (isinstance(node.layer, (Filtering, InnerProduct)) or node.layer.data or node.type in WALKED):
            continue
        bottom = node.bottoms[0].shape if node.bottoms else None
        steps.append(
            Step(
                node.name,
                node.type,
                node.layer.settings(),
                node.tops[0].shape,
                _how(node, bottom) if bottom is not None else "",
                sum(param.count for param in node.params or ()),
                shapes.get(node.tops[0]),
                _ungrouped(node, shapes.get(node.bottoms[0]) if node.bottoms else None) if other else None,
            )
        )
    return steps


def _how(node: Node, bottom: Shape) -> str:
    """The formula of the first axis, or the weights of a fully connected layer."""
    window = _window(node, bottom)
    if isinstance(node.layer, InnerProduct):
        return product(node.layer, [param.shape for param in node.params or ()])
    if window is None:
        return ""
    n = bottom[len(bottom) - len(window.kernel)]
    if isinstance(node.layer, Pooling):
        line = pooling(window, 0, n, up=node.layer.proto.pooling_param.round_mode != FLOOR)
    else:
        line = convolution(window, 0, n)
    formula, _, more = line.partition(",")
    kinds = [word for word in ("up", "down") if f"rounded {word}" in more]
    return f"{formula} {kinds[0]}" if kinds else formula


def _ungrouped(node: Node, bottom: Shape | None) -> int | None:
    """Parameters on a bottom of that shape, every filter seeing every channel."""
    if bottom is None:
        return 0 if not node.bottoms else None
    proto = type(node.layer.proto)()
    proto.CopyFrom(node.layer.proto)
    if isinstance(node.layer, Filtering):
        proto.convolution_param.group = 1
    return sum(count(param.shape) for param in create(proto, node.layer.phase, node.layer.edition).params(bottom))


def walk_dict(net: Net, steps: Sequence[Step]) -> dict[str, Any]:
    """The walk for JSON."""
    return {
        "name": net.name,
        "order": "height x width x channels of one image",
        "layers": [
            {
                "layer": step.layer,
                "type": step.type,
                "settings": step.settings,
                "shape": _listed(step.shape),
                "image": image(step.shape),
                "parameters": step.parameters,
                "tensorflow": None if step.tensorflow is None else image(step.tensorflow),
                "tensorflow_parameters": step.tensorflow_parameters,
            }
            for step in steps
        ],
    }


def walk_sheet(net: Net, steps: Sequence[Step], *, other: bool = False) -> Sheet:
    """The walk as a table."""
    names = ["layer", "settings", "makes", "how", "parameters"]
    columns = [
        Column("layer", style="name"),
        Column("settings"),
        Column("makes", style="shape"),
        Column("how"),
        Column("parameters", right=True),
    ]
    rows: list[list[Any]] = [[s.layer, s.settings or s.type, image(s.shape), s.how, s.parameters] for s in steps]
    totals: list[Any] = ["total", "", "", "", sum(s.parameters for s in steps)]
    notes = [("net", net.name or "(no name)"), ("makes", "of one image: height x width x channels")]
    if other:
        names[3:] = ["parameters", "tensorflow", "tensorflow_parameters"]
        columns[3:] = [Column("parameters", right=True), Column("TensorFlow", style="shape"), Column("parameters", right=True)]
        rows = [[*row[:3], row[4], image(s.tensorflow), s.tensorflow_parameters] for row, s in zip(rows, steps, strict=True)]
        totals = ["total", "", "", totals[4], "", sum(s.tensorflow_parameters or 0 for s in steps)]
        notes.append(("TensorFlow", "convolutions padded SAME, poolings VALID (SAME where Caffe pads them), no groups"))
    if (whole := sum(param.count for param in net.graph.params() if param.owner is param)) != totals[names.index("parameters")]:
        notes.append(("parameters", f"of these layers; {number(whole)} in the whole net"))
    return Sheet(names, columns, rows, totals, [(label, clean(line)) for label, line in notes])
