"""The values of a graph's parameters: read from a file of weights or made by fillers, each when it is first touched.

Loading follows Net::CopyTrainedLayersFrom and CopyTrainedLayersFromHDF5 (net.cpp): stored layers are matched by name, in the file's
order; those that the net has not are ignored; number and shapes of the blobs must agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from .caffemodel import StoredBlob, StoredLayer, StoredModel, aligned
from .errors import Finding, InspectorError
from .fillers import fill
from .graph import Graph, Node, Param
from .layers import Unknown, shape_text

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class Matching:
    """What becomes of each stored layer, in the file's order: `outcomes` has (name, "copied" | "ignored" | "unknown" | "mismatch").

    "unknown" is a layer of a type that nobody registered, or of unknown shapes: nothing can be compared. `missing` are the
    net's layers that have parameters of their own and get none. `mismatches` say what does not fit, both sides in their `values`.
    """

    path: str
    outcomes: list[tuple[str, str]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    mismatches: list[Finding] = field(default_factory=list)
    pairs: list[tuple[Param, StoredBlob]] = field(default_factory=list)  # in the order in which Caffe copies

    @property
    def copied(self) -> list[str]:
        """Names that Caffe says it copies ("Copying source layer"), layers without parameters included."""
        return [name for name, outcome in self.outcomes if outcome == "copied"]

    @property
    def ignored(self) -> list[str]:
        """Names that the net has not ("Ignoring source layer")."""
        return [name for name, outcome in self.outcomes if outcome == "ignored"]

    def check(self) -> None:
        """Raise one InspectorError (code `weights-mismatch`) that lists every mismatch, if there is any."""
        if self.mismatches:
            lines = "".join(f"\n  {finding}" for finding in self.mismatches)
            raise InspectorError(
                f"'{self.path}' does not fit the net; give this net's weights, or rename layers that shall start afresh:{lines}",
                code="weights-mismatch",
                mismatches=self.mismatches,
            )


def match(graph: Graph, stored: StoredModel) -> Matching:
    """Compare a file of weights with a net; nothing is read but shapes."""
    matching = Matching(stored.path)
    targets: dict[str, Node] = {}
    for node in graph.nodes:
        if stored.layers and stored.layers[0].generation == "HDF5":
            targets[node.name] = node  # the map by name keeps the last of equal names, the search finds the first
        else:
            targets.setdefault(node.name, node)
    for layer in stored.layers:
        target = targets.get(layer.name)
        if target is None:
            outcome = "ignored"
        elif target.params is None or isinstance(target.layer, Unknown):
            outcome = "unknown"
        else:
            outcome = _match_layer(graph, target, layer, matching)
        matching.outcomes.append((layer.name, outcome))
    found = {name for name, outcome in matching.outcomes if outcome != "ignored"}
    filled = {param.owner for param, _ in matching.pairs}
    matching.missing = [
        node.name
        for node in graph.nodes
        if node.name not in found and any(param.owner not in filled for param in node.params or ())
    ]
    return matching


def _match_layer(graph: Graph, node: Node, layer: StoredLayer, matching: Matching) -> str:
    params = node.params or []
    stored = {blob.index: blob for blob in layer.blobs}
    # HDF5 leaves out parameters that another layer owns
    optional = {param.index for param in params if layer.generation == "HDF5" and param.shared_from is not None}
    findings: list[Finding] = []

    def mismatch(code: str, message: str, **values: object) -> None:
        where = graph.locate(node.origin) if node.origin else None
        findings.append(Finding(code, message, "error", where, node.name, node.type, values=values))

    if not set(range(len(params))) - optional <= stored.keys() <= set(range(len(params))):
        message = f"has {len(params)} parameter blob(s) in the net and {len(layer.blobs)} in the file"
        mismatch("weights-count", message, net=len(params), stored=len(layer.blobs))
    else:
        for param in params:
            blob = stored.get(param.index)
            if blob is None:
                continue
            what = f"parameter {param.index} ({param.name})"
            if not blob.fits(param.shape):
                message = f"{what} is {shape_text(param.shape)} in the net and {shape_text(blob.shape)} in the file"
                mismatch("weights-shape", message, index=param.index, net=param.shape, stored=blob.shape)
            elif blob.values != blob.count:
                message = f"{what} is {shape_text(param.shape)}, {blob.count} values, and the file holds {blob.values} of them"
                mismatch("weights-values", message, index=param.index, net=blob.count, stored=blob.values)
            else:
                matching.pairs.append((param, blob))
    matching.mismatches += findings
    return "mismatch" if findings else "copied"


class Weights:
    """A writable float32 array for every parameter of a graph, by Param; one array where several layers share it.

    Arrays are made at first touch: from the last file that was loaded, else by the parameter's filler, else zeros. What a filler
    draws depends on `seed` and on the parameter's place in the net, not on the order in which arrays are touched.
    """

    def __init__(self, graph: Graph, stored: StoredModel | None = None, seed: int = 0) -> None:
        self.graph = graph
        self._seed = seed
        self._arrays: dict[Param, np.ndarray] = {}
        self._stored: dict[Param, StoredBlob] = {}
        self.exposed: set[Param] = set()  # owners whose arrays somebody holds and may write to at any time
        self.version = 0  # counts what `set` and `load` have changed
        if stored is not None:
            self.load(stored)

    def __getitem__(self, param: Param) -> np.ndarray:
        """The array of `param.shape`, writable; of a shared parameter the owner's, or a view of it where its shape differs."""
        self.exposed.add(param.owner)
        return self.peek(param)

    def peek(self, param: Param) -> np.ndarray:
        """The same array for somebody who promises not to write to it."""
        owner = param.owner
        array = self._arrays.get(owner)
        if array is None:
            array = self._arrays[owner] = self._make(owner)
        return array if array.shape == param.shape else array.reshape(param.shape)

    def release(self, param: Param) -> None:
        """Forget an array that nobody else holds and that can be read from its file again; in memory it need not be twice."""
        if param.owner in self._stored and param.owner not in self.exposed:
            self._arrays.pop(param.owner, None)

    def set(self, param: Param, values: np.ndarray) -> None:
        """Copy values in. Raises InspectorError (`weights-shape`) unless they have exactly the parameter's shape."""
        values = np.asarray(values, np.float32)
        if values.shape != param.shape:
            message = (
                f"parameter {param.index} ({param.name}) is {shape_text(param.shape)}, and {shape_text(values.shape)} is given"
            )
            raise InspectorError(message, code="weights-shape", layer=param.node.name, layer_type=param.node.type)
        owner = param.owner
        if owner not in self._arrays:  # nothing to read or to draw for what is overwritten
            self._arrays[owner] = aligned(owner.shape)
        self._stored.pop(owner, None)  # what the file says holds no longer
        self.version += 1
        self.peek(param)[...] = values

    def load(self, stored: StoredModel) -> Matching:
        """Take the values of a file, as `caffe train -weights` does; several files may follow each other.

        Raises InspectorError (`weights-mismatch`) with everything that does not fit; then nothing is taken.
        """
        matching = match(self.graph, stored)
        matching.check()
        self.version += 1
        for param, blob in matching.pairs:
            owner = param.owner
            self._stored[owner] = blob
            if owner in self._arrays:
                blob.read(self._arrays[owner])
        return matching

    def seed(self, value: int) -> None:
        """The seed of fillers that have not been used yet."""
        self._seed = value

    def moved_to(self, graph: Graph) -> Weights:
        """The same arrays for the same net with other input shapes. Raises InspectorError where a parameter's shape changes."""
        weights = Weights(graph, seed=self._seed)
        places = {(param.node.index, param.index): param for param in graph.params()}
        weights._arrays = _moved(self._arrays, places)
        weights._stored = _moved(self._stored, places)
        weights.exposed = set(_moved(dict.fromkeys(self.exposed), places))
        return weights

    def by_layer(self, *, shared: bool = True) -> dict[str, list[np.ndarray | None]]:
        """All arrays by layer name, as `caffemodel.write_model` takes them; None for those of another layer unless `shared`."""
        return {
            node.name: [self[param] if shared or param.shared_from is None else None for param in node.params]
            for node in self.graph.nodes
            if node.params
        }

    def _make(self, owner: Param) -> np.ndarray:
        if owner in self._stored:
            return self._stored[owner].read(aligned(owner.shape))
        out = aligned(owner.shape)
        initial = owner.node.layer.initial(owner.index)
        if initial is not None:
            out[...] = initial
            return out
        out[...] = fill(owner.filler, owner.shape, np.random.default_rng([self._seed, owner.node.index, owner.index]))
        return out


def _moved(values: Mapping[Param, T], places: Mapping[tuple[int, int], Param]) -> dict[Param, T]:
    """What belongs to parameters, for those at the same places of another graph."""
    moved = {}
    for param, value in values.items():
        target = places[param.node.index, param.index]
        if target.shape != param.shape:
            message = f"parameter {param.index} ({param.name}) is {shape_text(param.shape)} and would be {shape_text(target.shape)}"
            remedy = "choose input shapes that leave the parameters as they are"
            raise InspectorError(message, code="weights-shape", layer=param.node.name, layer_type=param.node.type, remedy=remedy)
        moved[target] = value
    return moved
