"""What a net computes: operations by kind, for each layer and in total, forward and backward.

* A **MAC** is one multiply-accumulate, counted once. **FLOPs** are two for each MAC and one for each operation of the other kinds:
  additions of a bias, other additions, multiplications, divisions, comparisons, exponentials (and roots, logarithms, tanh).
* Windows are counted whole, padding included; every group of a convolution sees its own share of the channels.
* **Backward** counts the gradients that Caffe computes for this net: a product of weights and inputs costs its MACs once more for
  the gradient of the weights and once more for that of the inputs, where either is wanted. A net without a loss is taken as if one
  stood on every output. The solver's update is not counted.
* **Bytes** are what has to be moved if nothing stays in a cache: each bottom and parameter read once and each top written once as
  float32; backward reads them and the tops' gradients and writes the wanted gradients. **Intensity** is FLOPs per byte.
* All figures are for the whole batch. What nobody can count is listed, never taken for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

from . import gradients, memory
from .graph import Graph, Node
from .layers import Costs
from .sheet import Sheet, bar
from .summary import batch, forward_costs, inserted, prefix, summarise
from .tables import Column, clean, number

if TYPE_CHECKING:
    from .net import Net

KINDS = tuple(field.name for field in fields(Costs))
# what the kinds are called in the columns of a report
TITLES = {
    "mac": "macs",
    "bias": "biases",
    "add": "additions",
    "multiply": "multiplications",
    "divide": "divisions",
    "compare": "comparisons",
    "exponential": "exponentials",
}


def flops(costs: Costs) -> int:
    """Two for each multiply-accumulate, one for everything else."""
    return costs.mac + sum(getattr(costs, kind) for kind in KINDS)


@dataclass(frozen=True, slots=True)
class Line:
    """One layer, or several that are shown as one. `backward` and its bytes are nothing unless they were asked for."""

    name: str
    type: str
    forward: Costs
    backward: Costs
    moved: int  # bytes
    layers: int = 1
    uncounted: int = 0  # layers of it that nobody can count

    @property
    def flops(self) -> int:
        """Of both passes."""
        return flops(self.forward) + flops(self.backward)

    @property
    def intensity(self) -> float | None:
        """FLOPs per byte; None where nothing is moved."""
        return self.flops / self.moved if self.moved else None

    @property
    def known(self) -> bool:
        return self.uncounted < self.layers


@dataclass(frozen=True)
class Cost:
    """The report. `lines` are layers, types or prefixes of names, as asked; their sums are the totals."""

    name: str
    phase: str
    batch: int | None
    by: str
    passes: tuple[str, ...]  # forward, or both
    assumed: bool  # whether backward supposes a loss that the net has not
    lines: tuple[Line, ...]
    uncounted: tuple[tuple[str, str, str], ...]  # layer, its type, why

    @cached_property
    def total(self) -> Line:
        return _sum("total", "", self.lines)

    def share(self, line: Line) -> float:
        """Its part of all FLOPs, from 0 to 1."""
        return line.flops / self.total.flops if self.total.flops else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "name": self.name,
            "phase": self.phase,
            "batch": self.batch,
            "by": self.by,
            "passes": list(self.passes),
            "loss_assumed": self.assumed,
            "conventions": conventions(self),
            "lines": [self._line(line) for line in self.lines],
            "total": self._line(self.total),
            "uncounted": [{"layer": name, "type": kind, "reason": reason} for name, kind, reason in self.uncounted],
        }

    def _line(self, line: Line) -> dict[str, Any]:
        def part(costs: Costs) -> dict[str, int] | None:
            return {**{TITLES[kind]: getattr(costs, kind) for kind in KINDS}, "flops": flops(costs)} if line.known else None

        return {
            "name": line.name,
            "type": line.type,
            "layers": line.layers,
            **{name: part(getattr(line, name)) for name in self.passes},
            "flops": line.flops if line.known else None,
            "bytes": line.moved if line.known else None,
            "flops_per_byte": line.intensity,
            "share": self.share(line) if line.known else None,
        }


def measure(net: Net, *, backward: bool = False, by: str = "layer") -> Cost:
    """The costs of a net; `by` is "layer", "type" or "prefix" (of the names: what stands before the first `/`, else `_`)."""
    graph = net.graph
    wanted = gradients.of(graph) if backward else gradients.Gradients({}, assumed=False)
    lines = [_line(node, wanted.wanted.get(node, ())) for node in graph.nodes]
    return Cost(
        graph.name,
        net.phase,
        batch(graph),
        by,
        ("forward", "backward") if backward else ("forward",),
        wanted.assumed,
        tuple(_gathered(graph, lines, by)),
        tuple((row.name, row.type, reason) for row, reason in summarise(net).uncounted),
    )


def _line(node: Node, wanted: Sequence[bool]) -> Line:
    forward = forward_costs(node)
    if forward is None:
        return Line(node.name, node.type, Costs(), Costs(), 0, uncounted=1)
    backward, moved = Costs(), _moved(node)
    if wanted:
        bottoms, tops = ([blob.shape or () for blob in blobs] for blobs in (node.bottoms, node.tops))
        backward = node.layer.backward_costs(bottoms, tops, wanted)
        blobs = [*node.bottoms, *(node.params or ())]
        moved += _moved(node) + memory.FLOAT * sum(blob.count or 0 for blob, want in zip(blobs, wanted, strict=True) if want)
    return Line(node.name, node.type, forward, backward, moved)


def _moved(node: Node) -> int:
    """Bytes read and written; nothing where a top is its bottom under another name."""
    if node.layer.data or (node.tops and all(memory.aliased(node, i) for i in range(len(node.tops)))):
        return 0
    params = sum(param.count for param in node.params or ())
    return sum(map(memory.bytes_of, (*node.bottoms, *node.tops))) + memory.FLOAT * params


def _gathered(graph: Graph, lines: Sequence[Line], by: str) -> list[Line]:
    """Lines as asked for. Splits that nobody wrote are one line, which stands last, if they compute anything."""
    pairs = list(zip(graph.nodes, lines, strict=True))
    if by == "layer":
        shown = [line for node, line in pairs if not inserted(node)]
        splits = [line for node, line in pairs if inserted(node)]
        if any(line.flops for line in splits):
            shown.append(_sum(f"({len(splits)} split{'s' if len(splits) > 1 else ''})", "Split", splits))
        return shown
    key: Callable[[Line], str] = (lambda line: line.type) if by == "type" else (lambda line: prefix(line.name) or line.name)
    groups: dict[str, list[Line]] = {}
    for _, line in pairs:
        groups.setdefault(key(line), []).append(line)
    found = [_sum(name, name if by == "type" else "", group) for name, group in groups.items()]
    return sorted(found, key=lambda line: -line.flops) if by == "type" else found


def _sum(name: str, kind: str, lines: Sequence[Line]) -> Line:
    return Line(
        name,
        kind,
        sum((line.forward for line in lines), Costs()),
        sum((line.backward for line in lines), Costs()),
        sum(line.moved for line in lines),
        sum(line.layers for line in lines),
        sum(line.uncounted for line in lines),
    )


def conventions(cost: Cost) -> dict[str, str]:
    """What the numbers mean, in words."""
    words = {
        "macs": "a multiply-accumulate is one MAC; additions of a bias are not in it",
        "flops": "2 x MACs + every other operation, comparisons among them",
        "bytes": "bottoms and parameters read once, tops written once, as float32",
        "batch": "all figures are for the whole batch",
    }
    if "backward" in cost.passes:
        words["backward"] = "the gradients that Caffe would compute, without the solver's update"
        if cost.assumed:
            words["backward"] += "; the net has no loss, so one is supposed on every output"
    return words


# ---- as a table

USUAL = ("name", "type", "macs", "flops", "flops_per_byte", "percent", "bar")
BOTH = ("name", "type", "macs", "backward_macs", "percent", "bar")


def columns(cost: Cost) -> dict[str, tuple[Column, Callable[[Line], Any]]]:
    """Every column by its name: head, and the value of a line."""

    def kind(part: str, name: str) -> Callable[[Line], Any]:
        return lambda line: getattr(getattr(line, part), name) if line.known else None

    def total(part: str) -> Callable[[Line], Any]:
        return lambda line: flops(getattr(line, part)) if line.known else None

    what = {"layer": "layer", "type": "type", "prefix": "prefix"}[cost.by]
    found: dict[str, tuple[Column, Callable[[Line], Any]]] = {
        "name": (Column(what, style="name"), lambda line: line.name),
        "type": (Column("type", style="type"), lambda line: line.type),
        "layers": (Column("layers", right=True), lambda line: line.layers),
    }
    for part in cost.passes:
        before = "backward " if part == "backward" else ""
        for name, title in TITLES.items():
            head = before + ("MACs" if name == "mac" else title)
            found[f"{before}{title}".replace(" ", "_")] = (Column(head, right=True), kind(part, name))
        found[f"{before}flops".replace(" ", "_")] = (Column(f"{before}FLOPs", right=True), total(part))
    found["bytes"] = (Column("bytes", right=True), lambda line: line.moved if line.known else None)
    found["flops_per_byte"] = (Column("FLOPs/byte", right=True), lambda line: _rounded(line.intensity))
    found["percent"] = (Column("%", right=True), lambda line: round(100 * cost.share(line), 1) if line.known else None)
    found["bar"] = (Column("share", style="shape"), lambda line: bar(cost.share(line)))
    return found


def _rounded(value: float | None) -> float | str:
    return "" if value is None else round(value, 2)


def sheet(cost: Cost, names: Sequence[str] = ()) -> Sheet:
    """The table of a report, by default with its usual columns; `all` is every one. Raises InspectorError (`unknown-column`)."""
    from .summary_table import chosen

    available = columns(cost)
    names = chosen(names, available) or tuple(
        name for name in (BOTH if "backward" in cost.passes else USUAL) if name != "type" or cost.by == "layer"
    )
    values = [available[name][1] for name in names]
    rows = [[value(line) for value in values] for line in cost.lines]
    totals = [value(cost.total) if name != "bar" else "" for name, value in zip(names, values, strict=True)]
    return Sheet(names, [available[name][0] for name in names], rows, totals, notes(cost))


def notes(cost: Cost) -> list[tuple[str, str]]:
    """The totals in words, each with its convention."""
    total, said = cost.total, conventions(cost)
    batched = f" (batch of {cost.batch})" if cost.batch not in (None, 1) else ""
    found = [("net", f"{cost.name or '(no name)'}, {cost.phase}{batched}")]
    for part in cost.passes:
        costs = getattr(total, part)
        label = "" if part == "forward" else "backward "
        macs = f"{number(costs.mac)} multiply-accumulates, {number(costs.mac + costs.bias)} with the additions of biases"
        kinds = ", ".join(f"{number(getattr(costs, name))} {title}" for name, title in TITLES.items() if name not in ("mac",))
        found += [
            (f"{label}MACs", macs),
            (f"{label}others", kinds),
            (f"{label}FLOPs", f"{number(flops(costs))}: {said['flops']}"),
        ]
        if cost.batch not in (None, 0, 1):
            each = [per_image(cost, value) for value in (costs.mac, costs.mac + costs.bias, flops(costs))]
            macs, biased, ops = map(number, each)
            found.append((f"{label}per image", f"{macs} MACs, {biased} with biases, {ops} FLOPs"))
    if "backward" in said:
        found.append(("convention", f"backward is {said['backward']}"))
    found.append(("bytes", f"{number(total.moved)}: {said['bytes']}"))
    if total.intensity is not None:
        found.append(("intensity", f"{number(round(total.intensity, 2))} FLOPs per byte"))
    reasons: dict[str, list[str]] = {}
    for name, kind, reason in cost.uncounted:
        reasons.setdefault(reason, []).append(f"{name} ({kind})")
    found += [("not counted", f"{', '.join(layers)}: {reason}") for reason, layers in reasons.items()]
    return [(label, clean(text)) for label, text in found]


def per_image(cost: Cost, value: int) -> int | float | None:
    """A figure of the batch divided by its size."""
    if not cost.batch:
        return None
    return value / cost.batch if value % cost.batch else value // cost.batch
