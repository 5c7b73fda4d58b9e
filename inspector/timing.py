"""What `time` does: how long a net takes, layer by layer and as a whole.

Both are measured in turns, so that a machine which slows down slows both. A layer's time is that of the step which computes it;
under a plan one step may compute several layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from statistics import fmean, median, pstdev
from time import perf_counter
from typing import TYPE_CHECKING, Any

from .errors import InspectorError
from .layers.data import DummyData
from .lazy import np

if TYPE_CHECKING:
    from .engine import Engine
    from .graph import Blob, Node
    from .net import Net

Walk = Callable[[], Iterator["Node"]]  # runs a step whenever it is asked for the next node, which is that step's


@dataclass(frozen=True, slots=True)
class Stats:
    """Seconds of each run. The spread is their standard deviation."""

    seconds: tuple[float, ...]

    @property
    def least(self) -> float:
        return min(self.seconds)

    @property
    def median(self) -> float:
        return median(self.seconds)

    @property
    def mean(self) -> float:
        return fmean(self.seconds)

    @property
    def spread(self) -> float:
        return pstdev(self.seconds)

    def line(self, what: str) -> str:
        """A sentence as benchmarks of Caffe's days print it; at least three digits that say something."""
        digits = 3
        while digits < 9 and self.mean < 10.0 ** (2 - digits):
            digits += 1
        return f"{what} across {len(self.seconds)} steps, {self.mean:.{digits}f} +/- {self.spread:.{digits}f} sec / batch"


@dataclass(frozen=True, slots=True)
class LayerTime:
    """One layer. None where nothing was run for it: `inside` is the layer in whose step it was done, if it was."""

    name: str
    type: str
    forward: Stats | None
    backward: Stats | None
    inside: str | None


@dataclass(frozen=True, slots=True)
class Timing:
    """Layers in the net's order, the net as a whole forward, and forward and backward where that was asked for."""

    layers: list[LayerTime]
    forward: Stats
    backward: Stats | None
    forward_backward: Stats | None
    warmup: int

    @property
    def layers_forward(self) -> float:
        """Sum of the layers' medians."""
        return sum(layer.forward.median for layer in self.layers if layer.forward)

    @property
    def layers_backward(self) -> float:
        return sum(layer.backward.median for layer in self.layers if layer.backward)


@dataclass(slots=True)
class _Laps:
    """Seconds by node, of every run that counts."""

    seconds: dict[Node, list[float]] = field(default_factory=dict)

    def run(self, walk: Iterator[Node], *, counts: bool) -> None:
        began = perf_counter()
        for node in walk:
            now = perf_counter()
            if counts:
                self.seconds.setdefault(node, []).append(now - began)
            began = perf_counter()

    def of(self, node: Node) -> Stats | None:
        return Stats(tuple(self.seconds[node])) if node in self.seconds else None


def measure(
    net: Net,
    iterations: int,
    *,
    warmup: int = 1,
    backward: bool = False,
    arrays: Mapping[str, Any] | None = None,
    after: Callable[[], None] = lambda: None,
) -> Timing:
    """Time the net; `after` is called after every run.

    What `arrays` does not name is fed with numbers from 0 to 1, drawn once; labels and indices among them count as 0. With
    `backward` the net runs layer by layer, because a plan keeps nothing for it. Raises InspectorError if the shape of an input is
    unknown.
    """
    net.check()
    feeds = _feeds(net, arrays or {})
    named: dict[str, Any] = {blob.name: array for blob, array in feeds.items()}
    if backward:
        net.engine = "reference"
    engine = net.planner
    inside, walk = _planned(net, engine, feeds) if engine else ({}, lambda: net.executor.walk(feeds, keep=backward))
    ahead, behind = _Laps(), _Laps()
    whole: list[float] = []
    back: list[float] = []
    for i in range(-warmup, iterations):
        began = perf_counter()
        net.forward(**named)
        middle = perf_counter()
        if backward:
            net.executor.backward({})
        end = perf_counter()
        if i >= 0:
            whole.append(middle - began)
            back.append(end - middle)
        ahead.run(walk(), counts=i >= 0)
        if backward:
            behind.run(net.executor.walk_back({}), counts=i >= 0)
        after()
    layers = [LayerTime(node.name, node.type, ahead.of(node), behind.of(node), inside.get(node)) for node in net.layers]
    both = Stats(tuple(map(sum, zip(whole, back)))) if backward else None
    return Timing(layers, Stats(tuple(whole)), Stats(tuple(back)) if backward else None, both, warmup)


def _feeds(net: Net, arrays: Mapping[str, Any]) -> dict[Blob, np.ndarray]:
    """An array for every blob that comes from outside the net."""
    shapes = {name: np.shape(array) for name, array in arrays.items()}
    if any(net.blob(name).root.shape != shape for name, shape in shapes.items()):
        net.reshape(**shapes)
    rng = np.random.default_rng(0)
    feeds: dict[Blob, np.ndarray] = {}
    for node in net.layers:
        for top in node.tops if node.layer.data and not isinstance(node.layer, DummyData) else ():
            if top.name in arrays:
                feeds[top] = np.asarray(arrays[top.name], np.float32)
            elif top.shape is None:
                raise InspectorError(
                    f"nobody knows the shape of '{top.name}'",
                    code="input-not-given",
                    layer=node.name,
                    layer_type=node.type,
                    remedy=f"give it: --shape {top.name}=64x3x227x227",
                )
            else:
                feeds[top] = rng.random(top.shape, np.float32)
    return feeds


def _planned(net: Net, engine: Engine, feeds: Mapping[Blob, np.ndarray]) -> tuple[dict[Node, str], Walk]:
    """Which layers are done within another's step, and a walk over the steps of the plan for the net's outputs.

    Every step stands alone: what segments would do to a part of the batch in one go is done to all of it, step after step.
    """
    from .engine import Program, Segment

    arranged = engine.plan(feeds, [net.blob(name) for name in net.outputs])
    segments = [Segment(i, i + 1, segment.split) for segment in arranged.segments for i in range(segment.start, segment.stop)]
    images = -(-arranged.batch // engine.workers.count)
    alone = replace(arranged, segments=segments, private=frozenset(), images=images)
    program = Program(alone, net.weights, engine.constants, engine.workers)
    steps = arranged.plan.steps
    inside = {node: step.node.name for step in steps for node in step.nodes if node is not step.node}

    def walk() -> Iterator[Node]:
        with np.errstate(all="ignore"), engine.workers:
            program.feed(feeds, net.executor.rng)
            yield from {blob.maker: None for blob in feeds if blob.maker is not None}
            for number in program.walk():
                yield steps[number].node

    return inside, walk
