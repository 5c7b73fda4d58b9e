"""What works in place and should not: an overwritten value that somebody still needs, forwards or backwards.

Caffe checks nothing of this (AbsVal, Split, Flatten and Reshape aside): the net runs and its numbers are wrong. What each type
reads when is a fact of its `*_layer.cpp`; the tables below say it in one word per type.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from .errors import Finding
from .graph import Blob, Graph, Node
from .layers.base import TRAIN

# Forward in place gives wrong numbers: it writes elements that it still has to read, or its top has another shape.
UNABLE = {
    "Accuracy": "its top has another shape",
    "ArgMax": "its top has another shape",
    "BatchReindex": "it reads items that it has already replaced",
    "ContrastiveLoss": "its top has another shape",
    "Convolution": "every output is a sum over inputs that are already overwritten",
    "Crop": "its top has another shape",
    "Deconvolution": "every output is a sum over inputs that are already overwritten",
    "Embed": "its top has another shape",
    "EuclideanLoss": "its top has another shape",
    "HingeLoss": "its top has another shape",
    "Im2col": "its top has another shape",
    "InfogainLoss": "its top has another shape",
    "InnerProduct": "every output is a sum over inputs that are already overwritten",
    "LRN": "it multiplies by the input after it has written its scale over it",
    "MultinomialLogisticLoss": "its top has another shape",
    "Pooling": "its top has another shape",
    "Reduction": "its top has another shape",
    "SPP": "its top has another shape",
    "SigmoidCrossEntropyLoss": "its top has another shape",
    "SoftmaxWithLoss": "its top has another shape",
    "Tile": "its top has another shape",
}

# What Backward reads of the layer's own top and of its first bottom. A type that is not here reads neither, or keeps a copy.
NEEDS_TOP = frozenset(("ELU", "Exp", "LRN", "MVN", "Sigmoid", "Softmax", "Swish", "TanH"))
NEEDS_SIGN = frozenset(("ReLU",))  # of the bottom, which in place is as good in the top
NEEDS_BOTTOM = frozenset(("BNLL", "Clip", "Convolution", "Deconvolution", "InnerProduct", "LRN", "Log", "Power"))
LOSES_ITSELF = frozenset(("BNLL", "Clip", "Log", "MVN", "Power"))  # in place their own Backward finds the wrong values

CHANGES_SIGN = frozenset(("BatchNorm", "Bias", "BNLL", "Exp", "Log", "MVN", "Scale", "Sigmoid", "Softmax", "Threshold"))
SHARES_MEMORY = frozenset(("Flatten", "Reshape", "Split"))  # their tops are the bottom's memory under another name


ANY, HARMFUL, SIGN = range(3)  # who changes values at all; such that a gradient from the top is wrong; such that a sign is


class _Memory:
    """One piece of memory: who wrote to it, in order, and which of these writes are of a kind."""

    __slots__ = ("_kinds", "writers")

    def __init__(self) -> None:
        self.writers: list[Node] = []
        self._kinds: tuple[list[int], ...] = ([], [], [])

    def write(self, node: Node) -> None:
        place = len(self.writers)
        self.writers.append(node)
        self._kinds[ANY].append(place)
        if not _is_harmless(node):
            self._kinds[HARMFUL].append(place)
        if node.type in CHANGES_SIGN:
            self._kinds[SIGN].append(place)

    def next(self, kind: int, value: int) -> Node | None:
        """The first write of that kind after the value was there."""
        places = self._kinds[kind]
        at = bisect_left(places, value)
        return self.writers[places[at]] if at < len(places) else None


def findings(graph: Graph) -> Iterator[Finding]:
    """Everything that an in-place layer breaks: numbers (in any phase) and gradients (in TRAIN, where the layer runs backward)."""
    memories, values = _trace(graph.all_nodes)
    for node in graph.all_nodes:
        if any(blob.in_place_of is not None for blob in node.tops):
            yield from _unable(graph, node)
    yield from _overwritten(graph, memories, values)
    if graph.phase == TRAIN:
        yield from _gradients(graph, memories, values)


def _trace(nodes: list[Node]) -> tuple[dict[Blob, _Memory], dict[Blob, int]]:
    """The memory of each blob, and how many had written to it when the blob's value was there."""
    memories: dict[Blob, _Memory] = {}
    values: dict[Blob, int] = {}
    for node in nodes:
        for blob in node.bottoms:
            if blob not in memories:  # nobody makes it
                memories[blob], values[blob] = _Memory(), 0
        for i, blob in enumerate(node.tops):
            source = blob.in_place_of or (node.bottoms[0] if _shares(node) else None)
            if source is None:
                memories[blob] = _Memory()
                memories[blob].write(node)
            else:
                memories[blob] = memories[source]
                if blob.in_place_of is not None and i == 0:
                    memories[blob].write(node)
            values[blob] = len(memories[blob].writers)
    return memories, values


def _shares(node: Node) -> bool:
    single = (node.type == "Concat" and len(node.bottoms) == 1) or (node.type == "Slice" and len(node.tops) == 1)
    return bool(node.bottoms) and (node.type in SHARES_MEMORY or single)


def _unable(graph: Graph, node: Node) -> Iterator[Finding]:
    why = UNABLE.get(node.type)
    if (
        node.type == "LRN" and node.layer.proto.lrn_param.norm_region == 1
    ):  # WITHIN_CHANNEL is made of layers with blobs of their own
        why = None
    if node.type == "Eltwise" and node.layer.proto.eltwise_param.operation == 1:
        why = "a SUM begins with zeros in its top"
    if why:
        remedy = f"give its top a name of its own instead of '{node.tops[0].name}'"
        yield _finding(graph, node, "in-place-unable", f"cannot work in place: {why}", remedy)


def _overwritten(graph: Graph, memories: dict[Blob, _Memory], values: dict[Blob, int]) -> Iterator[Finding]:
    """Readers whose bottom was changed through another name of the same memory, before they ran."""
    for node in graph.all_nodes:
        if node.type == "Split" and node.origin is None:
            continue  # it passes on a name, not a value
        for i, blob in enumerate(node.bottoms):
            writer = memories[blob].next(ANY, values[blob])
            if writer is not None and writer.index < node.index:
                yield _finding(
                    graph,
                    node,
                    "in-place-overwritten",
                    f"bottom {i} ('{node.layer.proto.bottom[i]}') was overwritten by layer '{writer.name}' ({writer.type}), "
                    "which works in place on the same memory under another name",
                    f"give the top of layer '{writer.name}' a name of its own",
                    i,
                )


def _gradients(graph: Graph, memories: dict[Blob, _Memory], values: dict[Blob, int]) -> Iterator[Finding]:
    for node in graph.nodes:
        if not node.backward or not node.tops or not node.bottoms:
            continue
        top, bottom, kind = node.tops[0], node.bottoms[0], node.type
        if kind in ("MVN", "Power") and not _reads_values(node):
            continue
        if top.in_place_of is not None and kind in LOSES_ITSELF:
            message = "works in place, and its gradient needs the values that it has overwritten"
            yield _finding(graph, node, "in-place-gradient", message, "give its top a name of its own")
            continue
        spoiler: Node | None = None
        if kind in NEEDS_TOP:
            spoiler = memories[top].next(HARMFUL, values[top])
        elif kind in NEEDS_SIGN and top.in_place_of is not None:
            spoiler = memories[top].next(SIGN, values[top])
        elif kind in NEEDS_BOTTOM and top.in_place_of is None:
            spoiler = memories[bottom].next(ANY, values[bottom])
        if spoiler is not None:
            message = f"overwrites values from which layer '{node.name}' ({kind}) works out its gradient"
            yield _finding(graph, spoiler, "in-place-gradient", message, "give its top a name of its own")


def _reads_values(node: Node) -> bool:
    """Whether Backward reads values at all, where that depends on the settings."""
    proto = node.layer.proto
    if node.type == "MVN":
        return bool(proto.mvn_param.normalize_variance)
    return proto.power_param.power not in (0.0, 1.0) and proto.power_param.scale != 0


def _is_harmless(writer: Node) -> bool:
    """A plain ReLU changes only what then gets no gradient anyway."""
    return writer.type == "ReLU" and writer.layer.proto.relu_param.negative_slope == 0


def _finding(graph: Graph, node: Node, code: str, message: str, remedy: str, bottom: int | None = None) -> Finding:
    path = node.origin and (*node.origin, *(("top", 0) if bottom is None else ("bottom", bottom)))
    return Finding(code, message, "error", graph.locate(path) if path else None, node.name, node.type, remedy)
