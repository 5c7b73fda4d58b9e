"""What memory a net takes, and when.

* **Caffe's figure**, "Memory required for data", is four bytes for each element of every top: in-place tops and splits, which take
  no memory of their own, are in it; gradients, parameters and im2col buffers are not.
* **data** is what the blobs really take: each buffer once, at the layer that makes it, in-place layers and shared tops aside.
* **gradients** are the buffers that backward writes (Caffe's diff); Caffe keeps all of them, and all data, until the next pass.
* **live** is what must exist while a layer runs forward if each buffer is given up after the layer that reads it last. Net outputs
  are kept. The peak is the largest of these: the least with which a net can run forward, beside its parameters.
* **im2col** is the buffer in which Caffe's convolution unrolls one image; each such layer has its own. Freed with the rest, one
  buffer of the largest size does for all.
* **parameters** count once, where they belong. In training each has a gradient, and the solver a history: as many numbers again for
  SGD, Nesterov, AdaGrad and RMSProp, twice as many for AdaDelta and Adam. Caffe keeps these for parameters with lr_mult 0, too.

Masks and other small things that layers keep for themselves are not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from . import batch_size, gradients, memory, upgrade
from .graph import Graph
from .sheet import Sheet, bar
from .summary import batch, inserted
from .tables import Column, clean, number, size

if TYPE_CHECKING:
    from .net import Net

# solver type -> numbers of history for each parameter (Caffe's sgd_solver.cpp, adadelta_solver.cpp, adam_solver.cpp)
HISTORY = {"SGD": 1, "Nesterov": 1, "AdaGrad": 1, "RMSProp": 1, "AdaDelta": 2, "Adam": 2}


@dataclass(frozen=True, slots=True)
class Row:
    """One layer, in bytes."""

    name: str
    type: str
    counted: int  # in Caffe's figure
    data: int
    gradients: int
    parameters: int
    workspace: int
    live: int
    split: bool  # inserted by Caffe


SUMS = ("counted", "data", "gradients", "parameters", "workspace")


@dataclass(frozen=True)
class Memory:
    """The report, in bytes."""

    name: str
    phase: str
    batch: int | None
    solver: str
    assumed: bool  # whether gradients suppose a loss that the net has not
    inputs: int  # of inputs that are no layer's tops
    counted_inputs: int
    rows: tuple[Row, ...]
    unknown: tuple[str, ...]  # blobs of unknown shape, which count nothing

    def total(self, column: str) -> int:
        """The sum of a column."""
        return sum(getattr(row, column) for row in self.rows)

    @property
    def caffe(self) -> int:
        """Caffe's "Memory required for data"."""
        return self.total("counted") + self.counted_inputs

    @property
    def data(self) -> int:
        return self.total("data") + self.inputs

    @cached_property
    def peak(self) -> Row | None:
        """The layer during which most is alive: the first one, if several are equal."""
        return max(self.rows, key=lambda row: row.live, default=None)

    @property
    def largest_workspace(self) -> int:
        return max((row.workspace for row in self.rows), default=0)

    def history(self, solver: str) -> int:
        """What that type of solver keeps."""
        return HISTORY[solver] * self.total("parameters")

    @property
    def inference(self) -> int:
        """Parameters, and the most that is alive at once with the im2col buffer of that moment."""
        return self.total("parameters") + max((row.live + row.workspace for row in self.rows), default=0)

    @property
    def inference_in_caffe(self) -> int:
        """Parameters, every buffer and every im2col buffer: Caffe gives up nothing."""
        return self.total("parameters") + self.data + self.total("workspace")

    @property
    def training(self) -> int:
        """What Caffe keeps while it trains with this solver."""
        return self.inference_in_caffe + self.total("gradients") + self.total("parameters") + self.history(self.solver)

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        peak = self.peak
        return {
            "name": self.name,
            "phase": self.phase,
            "batch": self.batch,
            "unit": "bytes",
            "loss_assumed": self.assumed,
            "conventions": CONVENTIONS,
            "layers": [
                {
                    "name": row.name,
                    "type": row.type,
                    "caffe": row.counted,
                    "data": row.data,
                    "gradients": row.gradients,
                    "parameters": row.parameters,
                    "im2col": row.workspace,
                    "live": row.live,
                    "split": row.split,
                }
                for row in self.rows
            ],
            "net_inputs": self.inputs,
            "totals": {
                "caffe": self.caffe,
                "data": self.data,
                "gradients": self.total("gradients"),
                "parameters": self.total("parameters"),
                "im2col": self.total("workspace"),
                "im2col_largest": self.largest_workspace,
                "history": {solver: self.history(solver) for solver in HISTORY},
                "peak": {"layer": peak.name, "bytes": peak.live} if peak else None,
                "inference": self.inference,
                "inference_in_caffe": self.inference_in_caffe,
                "training": {"solver": self.solver, "bytes": self.training},
            },
            "unknown": list(self.unknown),
        }


CONVENTIONS = {
    "caffe": "4 bytes for each element of every top, in-place tops and splits counted again; no gradients, no parameters",
    "data": "each buffer once; in-place layers, splits and reshapes take none of their own",
    "gradients": "the buffers that backward writes",
    "live": "all data that somebody still has to read while the layer runs forward, its own tops among them",
    "im2col": "one image unrolled; each convolution of Caffe's has its own buffer",
    "inference": "parameters, and the largest sum of live data and the im2col buffer in use",
    "inference_in_caffe": "parameters, all data and all im2col buffers: Caffe gives up nothing",
    "training": "all that, and gradients of data and parameters, and the solver's history",
}


def solver_of(net: Net) -> str:
    """The type of the solver through which the net was opened, if it was one of those; else SGD."""
    if net.opened.solver is None:
        return "SGD"
    kind = upgrade.solver(net.opened.solver).type
    return kind if kind in HISTORY else "SGD"


def measure(net: Net, solver: str = "SGD") -> Memory:
    """The memory of a net. `solver` is one of HISTORY."""
    return _of(net.graph, net.phase, solver)


def _of(graph: Graph, phase: str, solver: str) -> Memory:
    wanted = gradients.of(graph)
    rows = [
        Row(
            node.name,
            node.type,
            memory.counted(graph, node),
            use.data,
            use.diff,
            memory.FLOAT * sum(param.count for param in node.params or () if param.owner is param),
            use.workspace,
            use.live,
            inserted(node),
        )
        for node, use in zip(graph.nodes, memory.uses(graph, wanted), strict=True)
    ]
    return Memory(
        graph.name,
        phase,
        batch(graph),
        solver,
        wanted.assumed,
        sum(map(memory.bytes_of, graph.net_inputs)),
        memory.of_inputs(graph),
        tuple(rows),
        tuple(dict.fromkeys(blob.name for node in graph.nodes for blob in node.tops if blob.shape is None)),
    )


@dataclass(frozen=True, slots=True)
class Fits:
    """The largest batch for each purpose; None where the batch does not matter."""

    room: int
    solver: str
    inference: int | None
    inference_in_caffe: int | None
    training: int | None

    def to_dict(self) -> dict[str, Any]:
        return {
            "room": self.room,
            "solver": self.solver,
            "inference": self.inference,
            "inference_in_caffe": self.inference_in_caffe,
            "training": self.training,
        }


def fits(net: Net, room: int, solver: str = "SGD") -> Fits:
    """The largest batch that fits into `room` bytes. Exact, with every shape worked out for that batch."""
    seen: dict[Graph, Memory] = {}

    def of(part: str) -> Callable[[Graph], int]:
        def needs(graph: Graph) -> int:
            if graph not in seen:
                seen[graph] = _of(graph, net.phase, solver)
            return int(getattr(seen[graph], part))

        return needs

    build = batch_size.Builder(net)
    found = {part: build.largest(room, of(part)) for part in ("inference", "inference_in_caffe", "training")}
    return Fits(room, solver, **found)


# ---- as a table

COLUMNS: dict[str, tuple[Column, Callable[[Memory, Row], Any], Callable[[Memory], Any]]] = {
    "name": (Column("layer", style="name"), lambda report, row: row.name, lambda report: "total"),
    "type": (Column("type", style="type"), lambda report, row: row.type, lambda report: ""),
    "caffe": (Column("Caffe's", right=True), lambda report, row: row.counted, lambda report: report.caffe),
    "parameters": (
        Column("parameters", right=True),
        lambda report, row: row.parameters,
        lambda report: report.total("parameters"),
    ),
    "gradients": (Column("gradients", right=True), lambda report, row: row.gradients, lambda report: report.total("gradients")),
    "im2col": (Column("im2col", right=True), lambda report, row: row.workspace, lambda report: report.total("workspace")),
    "data": (Column("data", right=True), lambda report, row: row.data, lambda report: report.data),
    "live": (Column("live", right=True), lambda report, row: row.live, lambda report: report.peak.live if report.peak else 0),
    "timeline": (
        Column("live over time", style="shape"),
        lambda report, row: bar(row.live / report.peak.live, 14) if report.peak and report.peak.live else "",
        lambda report: "",
    ),
}
USUAL = ("name", "type", "im2col", "data", "live", "timeline")


def sheet(report: Memory, names: Sequence[str] = (), answer: Fits | None = None) -> Sheet:
    """The table, in bytes: sums below the columns, and the peak below `live`. Raises InspectorError (`unknown-column`)."""
    from .summary_table import chosen

    names = chosen(names, COLUMNS) or USUAL
    shown = [row for row in report.rows if not row.split]
    splits = [row for row in report.rows if row.split]
    if splits:
        sums = {name: sum(getattr(row, name) for row in splits) for name in SUMS}
        text = f"({len(splits)} split{'s' if len(splits) > 1 else ''})"
        shown.append(Row(text, "Split", **sums, live=max(row.live for row in splits), split=True))
    if report.inputs or report.counted_inputs:
        shown.insert(0, Row("(inputs)", "", report.counted_inputs, report.inputs, 0, 0, 0, report.inputs, split=False))
    cells = [[COLUMNS[name][1](report, row) for name in names] for row in shown]
    totals = [COLUMNS[name][2](report) for name in names]
    return Sheet(names, [COLUMNS[name][0] for name in names], cells, totals, notes(report, answer))


def notes(report: Memory, answer: Fits | None = None) -> list[tuple[str, str]]:
    """The totals in words, with what each counts."""

    def told(count: int) -> str:
        return f"{number(count)} bytes" + (f" ({size(count)})" if count >= 1024 else "")

    batched = f" (batch of {report.batch})" if report.batch is not None else ""
    parameters = report.total("parameters")
    history: dict[int, list[str]] = {}
    for solver in HISTORY:
        history.setdefault(report.history(solver), []).append(solver)
    found = [
        ("net", f"{report.name or '(no name)'}, {report.phase}{batched}"),
        ("Caffe's figure", f'{told(report.caffe)}, its "Memory required for data": {CONVENTIONS["caffe"]}'),
        ("parameters", told(parameters)),
        ("data", f"{told(report.data)}: {CONVENTIONS['data']}"),
        ("im2col", f"{told(report.total('workspace'))}, the largest {told(report.largest_workspace)}: {CONVENTIONS['im2col']}"),
    ]
    if report.peak:
        found.append(("peak", f"{told(report.peak.live)} of live data in layer {report.peak.name}: {CONVENTIONS['live']}"))
    supposed = "; the net has no loss, so one is supposed on every output" if report.assumed else ""
    found += [
        ("gradients", f"{told(report.total('gradients'))} of data{supposed}; {told(parameters)} of parameters"),
        ("history", "; ".join(f"{told(count)} for {', '.join(solvers)}" for count, solvers in history.items())),
        ("inference", f"{told(report.inference)}: {CONVENTIONS['inference']}"),
        ("in Caffe", f"{told(report.inference_in_caffe)}: {CONVENTIONS['inference_in_caffe']}"),
        ("training", f"{told(report.training)} with {report.solver}: {CONVENTIONS['training']}"),
    ]
    if report.batch not in (None, 0, 1) and report.batch is not None:
        each = ", ".join(
            f"{number(round(total / report.batch, 1) if total % report.batch else total // report.batch)} bytes {what}"
            for what, total in (("of data", report.data), ("in Caffe's figure", report.caffe))
        )
        found.append(("per image", f"{each}: the batch's divided by {report.batch}"))
    if report.unknown:
        found.append(("not counted", f"{', '.join(report.unknown)}: unknown shapes"))
    if answer is not None:
        found += [("fits", text) for text in fitting(answer)]
    return [(label, clean(text)) for label, text in found]


def fitting(answer: Fits) -> list[str]:
    """The answer in sentences."""

    def largest(count: int | None) -> str:
        if count is None:
            return "any batch"
        return f"a batch of {number(count)}" if count else "not even one image"

    return [
        f"into {number(answer.room)} bytes ({size(answer.room)}): {largest(answer.inference)} at inference, freed as it goes",
        f"{largest(answer.inference_in_caffe)} at inference in Caffe, which gives up nothing",
        f"{largest(answer.training)} in training with {answer.solver}",
    ]


# ---- as a picture


def svg(report: Memory) -> str:
    """The timeline of live data as an SVG drawing: one bar per layer, the peak marked; a bar says its figure when pointed at."""
    from html import escape

    rows = [row for row in report.rows if not row.split]
    step, height, left, top, bottom = 14, 260, 70, 40, 150
    most = max((row.live for row in rows), default=0) or 1
    width = max(left + step * len(rows) + 20, 480)  # room for the title
    words = escape(clean(report.name or "net"))
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top + height + bottom}" width="{width}" font-size="10">',
        "<style>text { font-family: sans-serif }</style>",
        f"<title>Live memory of {words}, batch of {report.batch}</title>",
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{left}" y="18" font-size="13">{words}: live data while each layer runs, batch of {report.batch}</text>',
    ]
    for i in range(5):
        y = top + height - height * i / 4
        lines.append(f'<line x1="{left}" x2="{width - 20}" y1="{y:g}" y2="{y:g}" stroke="#ddd"/>')
        lines.append(f'<text x="{left - 6}" y="{y + 3:g}" text-anchor="end">{size(round(most * i / 4))}</text>')
    peak = next((row for row in rows if row.live == most), None)
    for i, row in enumerate(rows):
        tall = height * row.live / most
        x, name = left + step * i, escape(clean(row.name))
        colour = "#c0392b" if row is peak else "#4a78a8"
        lines.append(
            f'<rect x="{x + 1}" y="{top + height - tall:.1f}" width="{step - 3}" height="{tall:.1f}" fill="{colour}">'
            f"<title>{name} ({escape(clean(row.type))}): {number(row.live)} bytes</title></rect>"
        )
        x, y = x + step // 2 + 3, top + height + 8
        lines.append(f'<text x="{x}" y="{y}" text-anchor="end" transform="rotate(-60 {x} {y})" fill="{colour}">{name}</text>')
    return "\n".join([*lines, "</svg>", ""])
