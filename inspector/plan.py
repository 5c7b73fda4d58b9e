"""What a run computes, as steps: at first one per layer, which is the specification; rules then make fewer and faster ones of them.

    Graph -> steps -> rules -> steps          here and in engine/rules.py: no array is touched
                               |
                               storage        engine/storage.py: where every value lies, and for how long
                               lowering       engine/lower.py: the NumPy calls of each step
                               engine         engine/__init__.py: runs them

A step says *what*; which kernel does it follows from the shapes. Layers never learn of the plan.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from .graph import Blob, Graph, Node
from .layers.data import DummyData


@dataclass(eq=False, slots=True)
class Op:
    """An elementwise operation on a product before it is left: `affine` (per channel), `activation`, or a join with another blob:
    `sum`, `product`, `maximum`."""

    kind: str
    node: Node
    blob: Blob | None = None


@dataclass(eq=False, slots=True)
class Head:
    """One output of a step: the layer that computes it, and what is done to it there."""

    node: Node
    output: Blob
    ops: list[Op] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Step:
    """One thing to do. Kind `layer` is the layer's own forward, the specification; the others have tuned kernels:
    `conv`, `deconv`, `fc`, `pool`, `lrn`, `elementwise` (nothing but a head's operations), `concat` (copies)."""

    kind: str
    node: Node
    inputs: list[Blob]
    heads: list[Head]
    absorbed: list[Node] = field(default_factory=list)  # layers that became views of this step's outputs

    @property
    def outputs(self) -> list[Blob]:
        return [head.output for head in self.heads]

    @property
    def reads(self) -> list[Blob]:
        return [*self.inputs, *(op.blob for head in self.heads for op in head.ops if op.blob is not None)]

    @property
    def nodes(self) -> list[Node]:
        """Every layer that the step stands for, its own first."""
        own = dict.fromkeys([self.node, *(head.node for head in self.heads)])
        fused = [op.node for head in self.heads for op in head.ops if op.node not in own]
        return [*own, *dict.fromkeys(fused), *self.absorbed]


@dataclass(frozen=True, slots=True)
class Home:
    """Where a blob without memory of its own lies: it is `of`, perhaps in another shape, or its channels from `start` on."""

    of: Blob
    start: int | None = None


@dataclass(eq=False, slots=True)
class Plan:
    """Steps in order. `given` are the blobs that the caller feeds, `keep` those that the caller wants and no rule may swallow."""

    graph: Graph
    given: frozenset[Blob]
    keep: frozenset[Blob]
    steps: list[Step]
    homes: dict[Blob, Home] = field(default_factory=dict)
    reuse: bool = False  # whether values that are not alive at the same time may share memory
    winograd: bool = False  # whether 3x3 convolutions may be computed with fewer, less exact multiplications

    def root(self, blob: Blob) -> Blob:
        """The blob in whose memory this one lies."""
        while blob in self.homes:
            blob = self.homes[blob].of
        return blob

    def kept(self) -> set[Blob]:
        """Roots of what the caller wants."""
        return {self.root(blob) for blob in self.keep}

    def readers(self) -> Counter[Blob]:
        """How often each root is read."""
        return Counter(self.root(blob) for step in self.steps for blob in step.reads)

    def makers(self) -> dict[Blob, Step]:
        """The step that makes each root; of a concatenation by slices the last one."""
        return {self.root(blob): step for step in self.steps for blob in step.outputs}


Rule = Callable[[Plan], None]


def unread_sources(graph: Graph, given: Iterable[Blob]) -> list[Blob]:
    """Blobs that a data layer or the net's inputs would have to bring and nobody gives."""
    fed = set(given)
    needed = [*graph.net_inputs, *(top for node in graph.nodes if _waits(node) for top in node.tops)]
    return [blob for blob in needed if blob not in fed]


def _waits(node: Node) -> bool:
    """Whether the layer only hands on what the caller gives."""
    return node.layer.data and not node.bottoms and not isinstance(node.layer, DummyData)


def plan(graph: Graph, given: Iterable[Blob], keep: Iterable[Blob], rules: Sequence[Rule] = ()) -> Plan:
    """The steps that compute `keep` from `given`: one for every layer, before the rules change the plan, one after the other."""
    fed = frozenset(given)
    steps = [
        Step("layer", node, list(node.bottoms), [Head(node, top) for top in node.tops])
        for node in graph.nodes
        if not _waits(node) and not (node.tops and all(top in fed for top in node.tops))
    ]
    made = {blob for step in steps for blob in step.outputs}
    result = Plan(graph, fed - made, frozenset(keep), steps)
    for rule in rules:
        rule(result)
    return result
