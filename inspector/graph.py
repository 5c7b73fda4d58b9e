"""The net as objects: blobs, parameters, nodes; and `connect`, which makes them from a draft (the wiring half of Net::Init).

All four classes compare by identity, so that shapes, values, gradients and weights are dicts keyed by them. An in-place layer makes
a *new* Blob of the same name: in-place is a fact of naming that the log and the memory count use, and that nothing else worries
about.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .draft import Draft, Event, Path
from .editions import MASTER, Edition
from .errors import SUGGESTIONS, Finding, Position, Refusal, closest
from .layers import Layer, Shape, Unknown, count, create
from .layers.python import Python
from .splits import unknown_bottom

AUTOMATIC = "(automatic)"  # Caffe's name for a loss layer's top that the prototxt does not name


@dataclass(eq=False, slots=True)
class Blob:
    """One value that flows through the net. `shape` is () for a scalar and None while nobody knows it."""

    name: str
    maker: Node | None = field(repr=False)
    shape: Shape | None = None
    in_place_of: Blob | None = field(default=None, repr=False)
    readers: list[Node] = field(default_factory=list, repr=False)

    @property
    def root(self) -> Blob:
        """The first blob of an in-place chain: the piece of memory that Caffe has."""
        blob = self
        while blob.in_place_of is not None:
            blob = blob.in_place_of
        return blob

    @property
    def count(self) -> int | None:
        """Elements; None while the shape is unknown."""
        return None if self.shape is None else count(self.shape)


@dataclass(eq=False, slots=True)
class Param:
    """One parameter blob of one layer. `shared_from` is the owner's Param where several layers use one by name."""

    name: str  # what the layer calls it: weights, bias, ...
    shape: Shape
    node: Node = field(repr=False)
    index: int
    lr_mult: float = 1.0
    decay_mult: float = 1.0
    shared_name: str = ""  # the name under which the prototxt shares it
    shared_from: Param | None = field(default=None, repr=False)
    filler: Any = field(default=None, repr=False)
    stated: set[str] = field(default_factory=set, repr=False)  # multipliers that a sharing layer settled for the owner

    @property
    def owner(self) -> Param:
        """The Param that holds the values: itself unless shared."""
        return self.shared_from or self

    @property
    def count(self) -> int:
        return count(self.shape)


@dataclass(eq=False, slots=True)
class Node:
    """One layer of the net as Caffe builds it, splits included."""

    layer: Layer
    index: int
    origin: Path | None = None  # where it was written; None for a layer that Caffe inserts
    bottoms: list[Blob] = field(default_factory=list)
    tops: list[Blob] = field(default_factory=list)
    params: list[Param] | None = field(default_factory=list)  # None while the bottoms' shapes are unknown
    loss_weights: list[float] = field(default_factory=list)  # one per top
    backward: bool = False
    bottom_backward: list[bool] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.layer.proto.name

    @property
    def type(self) -> str:
        return self.layer.type

    def in_place(self, top: int) -> bool:
        """Whether this top overwrites the bottom of the same position."""
        return self.tops[top].in_place_of is not None

    def __repr__(self) -> str:
        return f"<{self.type} '{self.name}'>"


# the moments of a layer's construction at which Caffe can stop, in its order
WIRING, CREATE, BOTTOM, TOP, SETUP, PARAMS, COLLECT = range(7)  # the last when all layers are made


@dataclass(slots=True)
class Stop:
    """A Refusal, and when Caffe would have met it: before the first layer (node -1), or at a moment of a layer."""

    refusal: Refusal
    node: int = -1
    moment: int = WIRING
    cuts: bool = True  # an unknown layer type does not cut the graph: what follows is still shown
    repeats: bool = False  # an earlier pass has said it


@dataclass(eq=False, slots=True)
class Graph:
    """A net. `nodes` ends before the layer at which Caffe would stop; `broken` is that layer, as far as it was connected.

    `stops` holds every refusal that was found, also behind the first, in Caffe's order.
    """

    name: str
    phase: int
    proto: Any  # the filtered NetParameter, before splits
    edition: Edition
    nodes: list[Node]
    events: tuple[Event, ...]
    locate: Callable[[Path], Position | None]
    stops: list[Stop] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)  # assumptions and warnings
    broken: Node | None = None
    all_nodes: list[Node] = field(default_factory=list)  # with those behind the first refusal, for `check`
    outputs: list[str] = field(default_factory=list)  # in Caffe's order: by the bytes of their names
    net_inputs: list[Blob] = field(default_factory=list)  # inputs that are no layer's tops: `input` fields before rc4

    @property
    def error(self) -> Refusal | None:
        """The first thing that Caffe would stop at."""
        return self.stops[0].refusal if self.stops else None

    def refuse(self, refusal: Refusal, node: Node, moment: int, *, cuts: bool = True, repeats: bool = False) -> None:
        """Record a refusal at a moment of a node, with the place where the layer was written."""
        finding = refusal.finding
        if finding.layer is None:
            finding.layer, finding.layer_type = node.name, node.type
        if finding.where is None and node.origin is not None:
            finding.where = self.locate(node.origin)
        insort(
            self.stops,
            Stop(refusal, node.index, moment, cuts, repeats),
            key=lambda stop: (stop.moment == COLLECT, stop.node, stop.moment),
        )

    def cut(self) -> None:
        """Drop the nodes from the first that Caffe would not have finished, and find the outputs of the rest."""
        self.all_nodes = list(self.nodes)
        end = min((stop.node for stop in self.stops if stop.cuts and stop.node >= 0), default=None)
        if end is not None:
            self.broken = self.nodes[end]
            del self.nodes[end:]
        free = {blob.name for blob in self.net_inputs}
        for node in self.nodes:
            free.difference_update(blob.name for blob in node.bottoms)
            free.update(blob.name for blob in node.tops if blob.name != AUTOMATIC)
        self.outputs = sorted(free, key=lambda name: name.encode())

    @property
    def blobs(self) -> dict[str, Blob]:
        """The last blob of each name, in order of first appearance."""
        return {blob.name: blob for node in self.nodes for blob in node.tops}

    @property
    def inputs(self) -> list[str]:
        """Blobs that the caller provides: the tops of Input layers, and before rc4 the net's own."""
        return [blob.name for blob in self.net_inputs] + [
            blob.name for node in self.nodes if node.type == "Input" for blob in node.tops
        ]

    def params(self) -> Iterator[Param]:
        """Every parameter blob, shared ones at each layer that uses them."""
        for node in self.nodes:
            yield from node.params or ()


def connect(draft: Draft, filtered: Any, edition: Edition = MASTER, *, allow_python: bool = False) -> Graph:
    """Nodes and blobs of a draft whose splits are in place. Collects what Caffe would refuse and goes on with what it can.

    `allow_python` lets Python layers run the user's code, already when their shapes are worked out.
    """
    proto = draft.proto
    graph = Graph(proto.name, proto.state.phase, filtered, edition, [], draft.events, draft.locate)
    graph.stops.extend(Stop(refusal, cuts=False) for refusal in draft.refusals)
    unmade = {(r.finding.layer, r.values["bottom"]) for r in draft.refusals if r.code == "unknown-bottom"}
    latest: dict[str, Blob] = {}
    free: set[str] = set()
    _net_inputs(graph, proto, latest)
    free.update(latest)
    for i, layer_proto in enumerate(proto.layer):
        phase = layer_proto.phase if layer_proto.HasField("phase") else graph.phase
        node = Node(create(layer_proto, phase, edition), i, draft.origins[i])
        graph.nodes.append(node)
        if allow_python and isinstance(node.layer, Python):
            node.layer.allow_python = True
        _check_wiring(graph, node)
        for j, name in enumerate(layer_proto.bottom):
            if name not in free:
                known = (layer_proto.name, j) in unmade  # splitting said it already
                names = () if known or len(graph.stops) >= SUGGESTIONS else latest
                graph.refuse(unknown_bottom(draft, i, j, names), node, BOTTOM, repeats=known)
                latest.setdefault(name, Blob(name, None))
            blob = latest[name]
            blob.readers.append(node)
            node.bottoms.append(blob)
            free.discard(name)
        if node.layer.loss and edition.automatic_tops:
            least = node.layer.tops if isinstance(node.layer.tops, int) else node.layer.tops[0]
            node.layer.num_tops = max(len(layer_proto.top), least)
        for j in range(node.layer.num_tops):
            name = layer_proto.top[j] if j < len(layer_proto.top) else AUTOMATIC
            blob = Blob(name, node)
            if j < len(layer_proto.bottom) and name == layer_proto.bottom[j]:
                blob.in_place_of = node.bottoms[j]
            elif name in latest and name != AUTOMATIC and (latest[name].maker is not None or latest[name] in graph.net_inputs):
                graph.refuse(_duplicate(graph, node, j, latest[name]), node, TOP)
            node.tops.append(blob)
            if name != AUTOMATIC:
                latest[name] = blob
                free.add(name)
    return graph


def _net_inputs(graph: Graph, proto: Any, latest: dict[str, Blob]) -> None:
    """Blobs of `input` fields, in editions that have no Input layer."""
    inputs, dims, shapes = len(proto.input), len(proto.input_dim), len(proto.input_shape)
    if graph.edition.nd_blobs and dims and shapes:
        _refuse_inputs(
            graph, "input-both", f"gives {shapes} input_shape and {dims} input_dim, which say the same in two ways", a=0, b=0
        )
    elif dims or not graph.edition.nd_blobs:
        if dims != 4 * inputs:
            _refuse_inputs(graph, "input-dim-count", f"needs 4 input_dim for each input and has {dims}", a=4 * inputs, b=dims)
    elif shapes != inputs:
        _refuse_inputs(graph, "net-input-shape-count", f"needs an input_shape for each input and has {shapes}", a=inputs, b=shapes)
    for i, name in enumerate(proto.input):
        sizes = tuple(proto.input_shape[i].dim if i < shapes else proto.input_dim[4 * i : 4 * i + 4])
        if not graph.edition.nd_blobs:  # a version without input_shape, gone on with all the same
            sizes += (1,) * (4 - len(sizes))
        latest[name] = Blob(name, None, sizes)
        graph.net_inputs.append(latest[name])


def _refuse_inputs(graph: Graph, code: str, relation: str, **values: Any) -> None:
    """What Net::Init says before the first layer, after the net has been printed."""
    inputs = len(graph.proto.input)
    remedy = "give each input one input_shape, or four values of input_dim"
    refusal = Refusal(f"the net has {inputs} input(s), {relation}", code=code, remedy=remedy, **values)
    refusal.finding.where = graph.locate(("input", 0))
    graph.events += (Event.refused(refusal),)
    graph.stops.append(Stop(refusal, cuts=False))


def _check_wiring(graph: Graph, node: Node) -> None:
    proto = node.layer.proto
    stated = len(proto.propagate_down)
    if stated and stated != len(proto.bottom) and node.layer.checks("propagate-down-count"):
        refusal = Refusal(
            f"propagate_down is given {stated} times for {len(proto.bottom)} bottoms",
            code="propagate-down-count",
            remedy="give it once for each bottom, or not at all",
            a=stated,
            b=len(proto.bottom),
        )
        graph.refuse(refusal, node, WIRING)
    if isinstance(node.layer, Unknown):
        from .layers import registry

        known = {name.lower(): name for name in registry}  # Relu, CONVOLUTION and INNER_PRODUCT are near enough
        close = closest(proto.type.lower().replace("_", ""), known if len(graph.stops) < SUGGESTIONS else (), 0.8)
        refusal = Refusal(
            f"'{proto.type}' is no layer type of BVLC Caffe" if proto.type else "has no type",
            code="unknown-layer-type",
            remedy=f"did you mean '{known[close]}'?" if close else "its shapes stay unknown unless they are given",
            type=proto.type,
        )
        if node.origin:
            refusal.finding.where = graph.locate((*node.origin, "type"))
        graph.refuse(refusal, node, CREATE, cuts=False)


def _duplicate(graph: Graph, node: Node, top: int, first: Blob) -> Refusal:
    name = node.layer.proto.top[top]
    return Refusal(
        f"top '{name}' is already made by " + (f"layer '{first.maker.name}'" if first.maker else "the net's input"),
        code="duplicate-top",
        where=graph.locate((*node.origin, "top", top)) if node.origin else None,
        remedy="rename one of them; in place it must be the bottom of the same position, and nobody else may read that",
        blob=name,
        top=top,
    )
