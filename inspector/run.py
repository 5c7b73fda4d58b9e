"""The executor: a graph, its weights, arrays in, arrays out. This is the specification, one step per layer, in the net's order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from .errors import InspectorError
from .graph import Blob, Graph, Node, Param
from .layers import Context, Shape, shape_text
from .layers.data import DummyData
from .layers.recurrent import Recurrent
from .weights import Weights


class Executor:
    """Runs one graph. Keeps every value of the last forward, and every gradient of the last backward, keyed by blob."""

    def __init__(self, graph: Graph, weights: Weights, seed: int = 0) -> None:
        self.graph = graph
        self.weights = weights
        self.values: dict[Blob, np.ndarray] = {}
        self.diffs: dict[Blob, np.ndarray] = {}
        self.param_diffs: dict[Param, np.ndarray] = {}
        self.contexts: dict[Node, Context] = {}
        self.forced = bool(graph.proto.force_backward)
        _refuse_empty(graph)
        self._owed: Any = None  # feeds, layers' and generator's state of a forward that somebody else ran
        self.seed(seed)

    def seed(self, value: int) -> None:
        """Start the generator again, from which every random layer draws."""
        self.rng = np.random.default_rng(value)

    # ---- forward

    def forward(
        self, feeds: Mapping[Blob, Any], *, start: str | None = None, end: str | None = None, check_numerics: bool = False
    ) -> dict[Blob, np.ndarray]:
        """Values of all blobs after running the nodes from `start` to `end` (names, both included)."""
        nodes = self._span(start, end)
        if len(nodes) < len(self.graph.nodes):
            self.settle()  # the other nodes' values are those of the last run
        self._owed = None
        for blob, value in feeds.items():
            self.values[blob] = _fed(blob, value, blob.shape)
        for node in nodes:
            if not all(top in feeds for top in node.tops) or not node.tops:
                self._step(node)
            if check_numerics:
                self._check_numerics(node)
        return self.values

    def defer(self, feeds: Mapping[Blob, Any]) -> None:
        """Take the feeds of a forward that a plan runs instead. This executor's values are then out of date, until `settle`."""
        for blob, value in feeds.items():
            self.values[blob] = _fed(blob, value, blob.shape)
        carried = [(node.layer, node.layer.state) for node in self.graph.nodes if isinstance(node.layer, Recurrent)]
        self._owed = list(feeds), carried, self.rng.bit_generator.state

    def settle(self) -> None:
        """Run the forward that was deferred, from the same state and with the numbers that its random layers drew."""
        if self._owed is not None:
            feeds, carried, self.rng.bit_generator.state = self._owed
            for layer, state in carried:
                layer.state = state
            self.forward({blob: self.values[blob] for blob in feeds})

    def walk(self, feeds: Mapping[Blob, Any], *, keep: bool = False) -> Iterator[Node]:
        """Run node by node in little memory: a value is forgotten once its last reader has run and its maker was looked at.

        With `keep` nothing is, so that `walk_back` may follow.
        """
        self._owed = None
        self.values = {blob: _fed(blob, value, blob.shape) for blob, value in feeds.items()}
        left = {blob: len(blob.readers) for node in self.graph.nodes for blob in node.tops}
        for node in self.graph.nodes:
            if not all(top in feeds for top in node.tops) or not node.tops:
                self._step(node)
            yield node
            if keep:
                continue
            self.contexts.pop(node, None)
            for blob in node.bottoms:
                left[blob] -= 1
            for blob in (*node.bottoms, *node.tops):
                if not left[blob]:
                    self.values.pop(blob, None)

    def _span(self, start: str | None, end: str | None) -> list[Node]:
        names = [node.name for node in self.graph.nodes]
        for name in (start, end):
            if name is not None and name not in names:
                raise InspectorError(f"the net has no layer '{name}'", code="no-such-layer", remedy="see summary for the layers")
        first = names.index(start) if start is not None else 0
        last = names.index(end) if end is not None else len(names) - 1
        if last < first:
            raise InspectorError(
                f"layer '{end}' comes before layer '{start}'", code="no-such-layer", remedy="name the earlier first"
            )
        return self.graph.nodes[first : last + 1]

    def _step(self, node: Node) -> None:
        if node.layer.data and not node.bottoms and not isinstance(node.layer, DummyData):
            missing = [top.name for top in node.tops if top not in self.values]
            if not missing:
                return
            raise InspectorError(
                f"needs an array for '{missing[0]}'",
                code="input-not-given",
                layer=node.name,
                layer_type=node.type,
                remedy=f"pass {missing[0]}=... to forward",
            )
        arrays = [self._value(blob, node) for blob in node.bottoms]
        if any(array.shape != blob.shape for array, blob in zip(arrays, node.bottoms, strict=True)):
            _refit(node, [array.shape for array in arrays])
        held = self.weights.__getitem__ if node.layer.phase == 0 else self.weights.peek  # in TRAIN BatchNorm writes to its own
        arrays += [held(param) for param in node.params or ()]
        context = self.contexts.get(node)
        if context is None:
            context = Context(train=node.layer.phase == 0, rng=self.rng, bottoms=len(node.bottoms), needs=self._needs(node))
            self.contexts[node] = context
        context.rng = self.rng
        for blob, value in zip(node.tops, node.layer.forward(context, *arrays), strict=True):
            self.values[blob] = value

    def _value(self, blob: Blob, reader: Node) -> np.ndarray:
        if blob not in self.values:
            raise InspectorError(
                f"reads '{blob.name}', which has no value yet", code="input-not-given", layer=reader.name, layer_type=reader.type
            )
        return self.values[blob]

    def _needs(self, node: Node) -> list[bool]:
        bottoms = [needs or (self.forced and node.layer.can_force_backward(i)) for i, needs in enumerate(node.bottom_backward)]
        specs = node.layer.proto.param
        return bottoms + [self.forced or i >= len(specs) or specs[i].lr_mult != 0 for i in range(len(node.params or ()))]

    def _check_numerics(self, node: Node) -> None:
        for blob in node.tops:
            value = self.values.get(blob)
            if value is not None and not np.isfinite(value).all():
                kind = "NaN" if np.isnan(value).any() else "infinite"
                raise InspectorError(
                    f"makes a {kind} value in '{blob.name}', the first in the net",
                    code="not-finite",
                    layer=node.name,
                    layer_type=node.type,
                )

    # ---- backward

    def backward(self, top_diffs: Mapping[Blob, Any]) -> None:
        """Gradients of everything that needs one. Losses start from their weights; parameters' gradients start from zero."""
        for _ in self.walk_back(top_diffs):
            pass

    def walk_back(self, top_diffs: Mapping[Blob, Any]) -> Iterator[Node]:
        """Go backward node by node."""
        self.settle()
        self.diffs = {blob: _fed(blob, value, self._forward_shape(blob)) for blob, value in top_diffs.items()}
        self.param_diffs = {}
        for node in self.graph.nodes:
            for blob, weight in zip(node.tops, node.loss_weights, strict=True):
                if weight and blob in self.values and blob not in self.diffs:
                    self.diffs[blob] = np.full_like(self.values[blob], weight)
        for node in reversed(self.graph.nodes):
            if (node.backward or self.forced) and node in self.contexts:
                self._step_back(node)
                yield node

    def _step_back(self, node: Node) -> None:
        tops = [self.diff(blob) for blob in node.tops]
        context = self.contexts[node]
        gradients = node.layer.backward(context, *tops)
        targets: list[Blob | Param] = [*node.bottoms, *(node.params or ())]
        for index, (target, gradient) in enumerate(zip(targets, gradients, strict=True)):
            if gradient is None or not context.wants(index):
                continue
            if isinstance(target, Blob):
                self.diffs[target] = self.diffs[target] + gradient if target in self.diffs else gradient
            else:
                owner = target.owner
                if owner in self.param_diffs:
                    self.param_diffs[owner] = self.param_diffs[owner] + gradient.reshape(owner.shape)
                else:
                    self.param_diffs[owner] = gradient.reshape(owner.shape)

    def _forward_shape(self, blob: Blob) -> Shape:
        if blob not in self.values:
            raise InspectorError(f"'{blob.name}' has no gradient before a forward", code="no-forward", remedy="call forward first")
        return self.values[blob].shape

    def diff(self, blob: Blob) -> np.ndarray:
        """The gradient of a blob; zeros where backward did not reach it."""
        return self.diffs[blob] if blob in self.diffs else np.zeros(self._forward_shape(blob), np.float32)

    def param_diff(self, param: Param) -> np.ndarray:
        """The gradient of a parameter, added up over the layers that share it; zeros where backward did not reach it."""
        gradient = self.param_diffs.get(param.owner)
        return np.zeros(param.shape, np.float32) if gradient is None else gradient.reshape(param.shape)


def _refuse_empty(graph: Graph) -> None:
    """Raise InspectorError for a blob that is empty from the start: Caffe has no memory for it and stops where it is touched."""
    for node in graph.nodes:
        for blob in node.tops:
            if blob.count == 0:
                raise InspectorError(
                    f"has an empty top '{blob.name}' ({shape_text(blob.shape or ())}), and Caffe has no memory for one",
                    code="empty-blob",
                    layer=node.name,
                    layer_type=node.type,
                    remedy="give every axis at least one element, as with net.reshape",
                )


def _refit(node: Node, shapes: list[Shape]) -> None:
    """The checks of a layer once more, for bottoms of other shapes than when the net was built: what a Filter left over.

    Caffe makes them before every forward. Raises InspectorError where they fail, or the parameters would have other shapes.
    """
    node.layer.shapes(*shapes)
    declared = node.layer.params(*shapes)
    if declared and node.params is None:
        raise InspectorError(
            f"was built without knowing the shapes of its bottoms, now {', '.join(map(shape_text, shapes))}",
            code="fed-shape",
            layer=node.name,
            layer_type=node.type,
            remedy="call net.reshape with the shapes of the net's inputs first",
        )
    for param, needed in zip(node.params or (), declared, strict=True):
        if param.shape != needed.shape:
            raise InspectorError(
                f"parameter {param.index} ({param.name}) is {shape_text(param.shape)}, and its bottom, now "
                f"{shape_text(shapes[0])}, needs {shape_text(needed.shape)}",
                code="weights-shape",
                layer=node.name,
                layer_type=node.type,
            )


def _fed(blob: Blob, value: Any, shape: Shape | None) -> np.ndarray:
    """An array that the caller gives for a blob, as float32; its shape must be the blob's."""
    try:
        array = np.asarray(value, dtype=np.float32, order="C")
    except (TypeError, ValueError) as error:
        raise InspectorError(f"what is given for blob '{blob.name}' is no array of numbers: {error}", code="fed-type") from error
    if shape is not None and array.shape != shape:
        settled = blob.maker is not None and not blob.maker.layer.data
        raise InspectorError(
            f"blob '{blob.name}' is {shape_text(shape)}, and the array given is {shape_text(array.shape)}",
            code="fed-shape",
            remedy="" if settled else f"call net.reshape({blob.name}={array.shape}) first",
        )
    return array
