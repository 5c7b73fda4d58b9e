"""The layer table with its totals, as plain data.

Every total is the sum of a column of the rows (depth, which is their maximum, aside), so a selection of rows has true totals too.

* **Depth** counts weighted layers, those with a parameter of two or more axes (Convolution, InnerProduct, LSTM, Embed, ... but not
  BatchNorm, Scale or PReLU), on the longest way from an input: AlexNet 8, GoogLeNet 22, ResNet-152 152.
* **Parameters** count once, at the layer that owns them; what other layers use of them by name is `shared`. Those with a learning
  rate of 0 are `frozen`: BatchNorm's running statistics always are.
* **MACs** are multiply-accumulates of one forward pass over the batch. Additions of a bias stand apart.
* **Memory** is Caffe's "Memory required for data" (net.cpp): four bytes for each element of every top, in-place ones again.
* **Per image** means divided by the leading axis of the net's first input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from string import ascii_letters
from typing import TYPE_CHECKING, Any

from . import memory
from .draft import Path
from .errors import Finding, InspectorError, Position
from .graph import Blob, Graph, Node
from .layers import Costs, Shape, Unknown

if TYPE_CHECKING:
    from .net import Net

ELEMENTWISE = ("Scale", "Bias")  # the shape of their parameter is that of their bottom, however many axes that has


@dataclass(frozen=True, slots=True)
class Top:
    """What a layer makes: a blob, its shape (None while unknown), and whether it overwrites the bottom of the same position."""

    name: str
    shape: Shape | None
    in_place: bool = False


@dataclass(frozen=True, slots=True)
class Weight:
    """One parameter blob. `owner` names the layer whose values are used, where it is another."""

    name: str
    shape: Shape
    lr_mult: float
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One layer. Counts are None where nobody can know them: the type is unknown, or a shape is."""

    name: str
    type: str
    settings: str
    bottoms: tuple[str, ...]  # as Caffe builds it
    reads: tuple[str, ...]  # the same with inserted splits looked through: as it was written
    tops: tuple[Top, ...]
    parameters: int | None = None
    learnable: int | None = None
    frozen: int | None = None
    shared: int | None = None
    macs: int | None = None
    biases: int | None = None
    memory: int = 0  # bytes; tops of unknown shape count nothing
    depth: int = 0  # weighted layers on the longest way up to and including this one
    index: int | None = None  # among what Caffe builds
    inserted: bool = False  # a Split that nobody wrote
    backward: bool = False
    weights: tuple[Weight, ...] = ()
    origin: Path | None = None
    layers: int = 1  # more in a row that stands for several

    @property
    def unknown_memory(self) -> bool:
        """Whether none of its tops has a shape, so that its `memory` says nothing."""
        return bool(self.tops) and all(top.shape is None for top in self.tops)


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over rows; see the module's head for what each means. Memory is in bytes."""

    layers: int  # as written
    layers_size: int  # as Caffe builds them, its layers_.size(): splits included
    splits: int
    depth: int
    parameters: int
    learnable: int
    frozen: int
    shared: int
    macs: int
    biases: int
    memory: int
    memory_without_inputs: int  # without the tops of Input layers
    batch: int | None

    @property
    def macs_with_biases(self) -> int:
        return self.macs + self.biases

    @property
    def weights_bytes(self) -> int:
        """The parameters as float32."""
        return memory.FLOAT * self.parameters

    def per_image(self, total: int) -> int | float | None:
        """A total divided by the batch: whole where it divides, None where the batch is unknown."""
        if not self.batch:
            return None
        return total / self.batch if total % self.batch else total // self.batch


SUMS = ("layers", "parameters", "learnable", "frozen", "shared", "macs", "biases", "memory")


@dataclass(frozen=True)
class Summary:
    """What a net consists of. `rows` are its layers in the order in which Caffe builds them."""

    name: str
    phase: str
    rows: tuple[Row, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    batch: int | None
    findings: tuple[Finding, ...]
    error: InspectorError | None
    locate: Callable[[Path], Position | None]

    @cached_property
    def totals(self) -> Totals:
        sums = {name: sum(getattr(row, name) or 0 for row in self.rows) for name in SUMS}
        splits = sum(row.inserted for row in self.rows)
        return Totals(
            **{**sums, "layers": sums["layers"] - splits},
            layers_size=sums["layers"],
            splits=splits,
            depth=max((row.depth for row in self.rows), default=0),
            memory_without_inputs=sums["memory"] - sum(row.memory for row in self.rows if row.type == "Input"),
            batch=self.batch,
        )

    def __str__(self) -> str:
        from .summary_table import text

        return "\n".join(text(self))

    @property
    def uncounted(self) -> list[tuple[Row, str]]:
        """Layers of which the totals hold nothing or only a part, and why."""
        reasons = []
        for row in self.rows:
            if row.parameters is None and row.macs is None and not _registered(row.type):
                reasons.append((row, "unknown type"))
            elif row.macs is None and row.parameters is not None and all(top.shape is not None for top in row.tops):
                reasons.append((row, "operations unknown"))
            elif row.macs is None or row.parameters is None or any(top.shape is None for top in row.tops):
                reasons.append((row, "unknown shapes"))
        return reasons

    def where(self, row: Row) -> Position | None:
        """Where a layer was written; None for an inserted one."""
        return self.locate(row.origin) if row.origin is not None else None

    def select(self, *patterns: str) -> Summary:
        """The layers whose names match a glob such as `conv*`, with their totals.

        Raises InspectorError (`no-such-layer`) where none does.
        """
        from fnmatch import fnmatchcase

        rows = tuple(row for row in self.rows if any(fnmatchcase(row.name, pattern) for pattern in patterns))
        if not rows:
            from difflib import get_close_matches

            close = get_close_matches(patterns[0], [row.name for row in self.rows], 1)
            remedy = f"did you mean '{close[0]}'?" if close else "see summary for the names"
            raise InspectorError(f"no layer's name matches {' or '.join(map(repr, patterns))}", code="no-such-layer", remedy=remedy)
        return replace(self, rows=rows)

    def lines(self, *, group: bool = False, splits: bool = False) -> list[Row]:
        """The rows as a table shows them: with `group` one for each run of layers with a common prefix, without `splits` one last
        row for all of these. Their columns have the same sums as those of `rows`."""
        shown = [row for row in self.rows if splits or not row.inserted]
        hidden = [row for row in self.rows if row.inserted and not splits]
        lines = [_merge(rows) for rows in grouped(shown)] if group else shown
        if hidden:
            name = f"({len(hidden)} split{'s' if len(hidden) > 1 else ''})"
            lines.append(replace(_merge(hidden), name=name, type="Split", reads=(), tops=(), bottoms=(), settings=""))
        return lines

    def to_dict(self, *, group: bool = False) -> dict[str, Any]:
        """Everything, for JSON: stable keys, shapes as lists, null for unknown; with `group` the groups' subtotals as well."""
        totals = self.totals
        result: dict[str, Any] = {
            "name": self.name,
            "phase": self.phase,
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "layers": [self._row_dict(row) for row in self.rows],
            "totals": totals_dict(totals),
            "uncounted": [{"layer": row.name, "type": row.type, "reason": reason} for row, reason in self.uncounted],
            "error": finding_dict(self.error.finding) if self.error else None,
            "findings": [finding_dict(finding) for finding in self.findings],
        }
        if group:
            lines = self.lines(group=True)
            result["groups"] = [
                {"name": row.name, "type": row.type, **{name: getattr(row, name) for name in SUMS}} for row in lines
            ]
        return result

    def _row_dict(self, row: Row) -> dict[str, Any]:
        where = self.where(row)
        return {
            "index": row.index,
            "name": row.name,
            "type": row.type,
            "settings": row.settings,
            "bottoms": list(row.bottoms),
            "reads": list(row.reads),
            "tops": [{"name": top.name, "shape": _list(top.shape), "in_place": top.in_place} for top in row.tops],
            "parameters": row.parameters,
            "learnable": row.learnable,
            "frozen": row.frozen,
            "shared": row.shared,
            "macs": row.macs,
            "biases": row.biases,
            "memory": row.memory,
            "depth": row.depth,
            "backward": row.backward,
            "split": row.inserted,
            "params": [{"name": p.name, "shape": _list(p.shape), "lr_mult": p.lr_mult, "owner": p.owner} for p in row.weights],
            "where": str(where) if where else None,
        }


def _list(shape: Shape | None) -> list[int] | None:
    return None if shape is None else list(shape)


def totals_dict(totals: Totals) -> dict[str, Any]:
    """Totals for JSON, with what follows from them."""
    return {
        "layers": totals.layers,
        "layers_size": totals.layers_size,
        "splits": totals.splits,
        "depth": totals.depth,
        "parameters": totals.parameters,
        "learnable": totals.learnable,
        "frozen": totals.frozen,
        "shared": totals.shared,
        "weights_bytes": totals.weights_bytes,
        "macs": totals.macs,
        "biases": totals.biases,
        "macs_with_biases": totals.macs_with_biases,
        "memory": totals.memory,
        "memory_without_inputs": totals.memory_without_inputs,
        "batch": totals.batch,
        "macs_per_image": totals.per_image(totals.macs),
        "macs_with_biases_per_image": totals.per_image(totals.macs_with_biases),
        "memory_per_image": totals.per_image(totals.memory),
    }


def finding_dict(finding: Finding) -> dict[str, Any]:
    """A finding for JSON."""
    where = finding.where
    return {
        "code": finding.code,
        "severity": finding.severity,
        "message": finding.message,
        "remedy": finding.remedy or None,
        "layer": finding.layer,
        "type": finding.layer_type,
        "where": {"file": where.file, "line": where.line, "column": where.column} if where else None,
    }


# ---- from the graph


def summarise(net: Net) -> Summary:
    """The summary of a net; of one that Caffe would refuse, as far as Caffe would come."""
    graph = net.graph
    return Summary(
        graph.name,
        net.phase,
        tuple(rows(graph)),
        tuple(graph.inputs),
        tuple(graph.outputs),
        batch(graph),
        tuple(net.findings),
        net.error,
        graph.locate,
    )


def batch(graph: Graph) -> int | None:
    """The leading axis of the first blob that comes from outside and has two axes or more."""
    sources = (blob for node in graph.nodes if not node.bottoms for blob in node.tops)
    return next((blob.shape[0] for blob in sources if blob.shape is not None and len(blob.shape) > 1), None)


def rows(graph: Graph) -> Iterator[Row]:
    """One row per layer, in order."""
    depths: dict[Node | None, int] = {None: 0}
    for node in graph.nodes:
        depth = max((depths[blob.maker] for blob in node.bottoms), default=0) + _weighted(node)
        depths[node] = depth
        costs = forward_costs(node)
        own = None if _mystery(node) else [param for param in node.params or () if param.owner is param]
        frozen = None if own is None else sum(param.count for param in own if param.lr_mult == 0)
        parameters = None if own is None else sum(param.count for param in own)
        yield Row(
            name=node.name,
            type=node.type,
            settings=node.layer.settings(),
            bottoms=tuple(blob.name for blob in node.bottoms),
            reads=tuple(written(blob).name for blob in node.bottoms),
            tops=tuple(Top(blob.name, blob.shape, blob.in_place_of is not None) for blob in node.tops),
            parameters=parameters,
            learnable=None if parameters is None or frozen is None else parameters - frozen,
            frozen=frozen,
            shared=None if own is None else sum(param.count for param in node.params or () if param.owner is not param),
            macs=costs.mac if costs else None,
            biases=costs.bias if costs else None,
            memory=memory.counted(graph, node),
            depth=depth,
            index=node.index,
            inserted=inserted(node),
            backward=node.backward,
            weights=tuple(
                Weight(param.name, param.shape, param.lr_mult, param.owner.node.name if param.owner is not param else None)
                for param in node.params or ()
            ),
            origin=node.origin,
        )


def inserted(node: Node | None) -> bool:
    """Whether this is a Split that nobody wrote."""
    return node is not None and node.origin is None and node.type == "Split"


def written(blob: Blob) -> Blob:
    """The blob that the prototxt names, behind a split that was inserted."""
    while blob.maker is not None and inserted(blob.maker):
        blob = blob.maker.bottoms[0]
    return blob


def _mystery(node: Node) -> bool:
    """Whether nobody knows the node's parameters: its type is not registered, or its bottoms have no shape."""
    return node.params is None or isinstance(node.layer, Unknown)


def _weighted(node: Node) -> bool:
    return node.type not in ELEMENTWISE and any(len(param.shape) > 1 for param in node.params or ())


def forward_costs(node: Node) -> Costs | None:
    """What one forward pass of the node takes; None where nobody can say."""
    bottoms = [blob.shape for blob in node.bottoms if blob.shape is not None]
    tops = [blob.shape for blob in node.tops if blob.shape is not None]
    if not node.layer.counted or _mystery(node) or len(bottoms) < len(node.bottoms) or len(tops) < len(node.tops):
        return None
    return node.layer.costs(bottoms, tops)


def _registered(kind: str) -> bool:
    from .layers import registry

    return kind in registry


# ---- groups


def prefix(name: str) -> str:
    """What a layer's name begins with, up to the first `/`, else up to the first `_`; empty where it has neither."""
    start, separator, _ = name.partition("/" if "/" in name else "_")
    return start if separator else ""


def grouped(rows: Iterable[Row]) -> list[list[Row]]:
    """Runs of neighbours with a common prefix, and those between them that are named like the prefix itself.

    Prefixes that differ only in the letters before their number are one, as in ResNet's res2a_..., bn2a_..., scale2a_...
    """
    runs: list[list[Row]] = []
    prefixes: set[str] = set()  # those of the last run
    last = ""
    for row in rows:
        start = prefix(row.name)
        key = start.lstrip(ascii_letters) or start
        if runs and ((key and key == last) or (not key and row.name in prefixes)):
            runs[-1].append(row)
            prefixes.add(start)
        else:
            runs.append([row])
            prefixes, last = {start}, key
    return runs


def _merge(rows: Sequence[Row]) -> Row:
    """One row for several: sums, what they read from outside and what they leave."""
    if len(rows) == 1:
        return rows[0]
    outside: dict[str, None] = {}
    made: set[str] = set()
    left: dict[str, Top] = {}
    for row in rows:
        outside.update((name, None) for name in row.reads if name not in made)
        for name in row.reads:
            left.pop(name, None)
        left.update((top.name, replace(top, in_place=False)) for top in row.tops)
        made.update(top.name for top in row.tops)
    sums: dict[str, Any] = {}
    for name in SUMS:
        known = [value for row in rows if (value := getattr(row, name)) is not None]
        sums[name] = sum(known) if known else None
    starts = dict.fromkeys(start for row in rows if (start := prefix(row.name)))
    return Row(
        name=", ".join(starts),
        type=f"{len(rows)} layers",
        settings="",
        bottoms=tuple(outside),
        reads=tuple(outside),
        tops=tuple(left.values()),
        depth=max(row.depth for row in rows),
        backward=any(row.backward for row in rows),
        **sums,
    )
