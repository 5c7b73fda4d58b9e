"""The engine: a plan's calls, made once, run often.

Steps of one batch form segments. What tuned kernels do to one image does not touch another, so a segment of them is cut into parts
of the batch, which workers run side by side, each with an arena of its own; fully connected layers and layers' own forwards take
the batch whole, between two segments.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..graph import Blob, Graph
from ..kernels.fast.base import Call, Scratch, run
from ..layers import Context, count
from ..plan import Plan, Rule, Step, plan, unread_sources
from ..run import Executor
from ..weights import Weights
from .constants import Constants
from .lower import Frame, Lowering, lodged
from .rules import DEFAULT, FAST
from .storage import Arena, Value, offsets, values, zero_border
from .threads import Workers

RULES: Mapping[str, Sequence[Rule]] = {"reference": (), "default": DEFAULT, "fast": FAST}
KEPT = 4  # programs of an engine
CACHED = 1 << 24  # bytes of values that the images of a part may take together


class Unplanned(Exception):
    """A layer made an array of another shape than the graph says: such a net runs layer by layer."""


@dataclass(eq=False, slots=True)
class Segment:
    """Steps [start, stop); `split` if parts of the batch may run apart."""

    start: int
    stop: int
    split: bool


@dataclass(eq=False, slots=True)
class Layout:
    """What an engine needs memory for, before it takes any: shown by `alexinspect plan`."""

    plan: Plan
    values: Mapping[Blob, Value]
    segments: Sequence[Segment]
    private: frozenset[Blob]  # roots that live within one split segment
    batch: int
    images: int  # of a part

    @property
    def bytes(self) -> int:
        return sum(value.bytes for value in self.values.values())


def layout(plan: Plan, threads: int = 1) -> Layout:
    """Segments, parts and values of a plan."""
    places = values(plan)
    batch, segments = _segments(plan)
    private: set[Blob] = set()
    images = batch
    if len(segments) > 1 or (segments and segments[0].split):
        for blob, value in places.items():
            inside = [s for s in segments if s.split and s.start <= value.first and value.last < s.stop]
            if inside and blob not in plan.given and value.shape[0] == batch:
                private.add(blob)
            else:  # parts of the batch pass through a segment one after the other: what they share lives through all of it
                touched = [s for s in segments if s.split and s.start <= value.last and value.first < s.stop]
                first = min([value.first, *(s.start for s in touched if s.start <= value.first)])
                last = max([value.last, *(s.stop - 1 for s in touched if s.start <= value.last < s.stop)])
                places[blob] = replace(value, lives=(first, last))
        one = [(count(places[blob].stored[1:]), *places[blob].lives) for blob in private]
        each = 4 * offsets(one, plan.reuse)[1]
        parts = max(min(threads, batch), -(-batch * each // CACHED))
        images = max(1, -(-batch // parts))
    return Layout(plan, places, segments, frozenset(private), batch, images)


def _segments(plan: Plan) -> tuple[int, list[Segment]]:
    """The batch, and runs of steps that can or cannot be cut along it. A batch of one is one segment, not cut."""
    batches = [(step.outputs[0].shape or (0,))[0] for step in plan.steps if step.kind == "conv"]
    batch = batches[0] if batches else 1
    if batch < 2:
        return 1, [Segment(0, len(plan.steps), split=False)]
    segments: list[Segment] = []
    for number, step in enumerate(plan.steps):
        split = step.kind not in ("layer", "fc") and all((b.shape or (0,))[0] == batch for b in (*step.reads, *step.outputs))
        if not segments or segments[-1].split != split:
            segments.append(Segment(number, number, split))
        segments[-1].stop = number + 1
    return batch, segments


class Program:
    """One plan, lowered: memory taken, every view made."""

    def __init__(self, arranged: Layout, weights: Weights, constants: Constants, workers: Workers) -> None:
        self.plan = plan = arranged.plan
        self.values = arranged.values
        self.weights = weights
        self.workers = workers
        self.live: dict[Blob, np.ndarray] = {}  # values that layers pass on
        self._contexts: dict[Step, Context] = {}
        common = [value for blob, value in self.values.items() if blob not in arranged.private]
        own = [value for blob, value in self.values.items() if blob in arranged.private]
        self._common = Arena(common, plan.reuse)
        self._whole = Frame(plan, self.values, self._common.arrays)
        self._lowering = Lowering(plan, self.values, constants)
        starts = range(0, arranged.batch, arranged.images)
        arenas = [(Arena(own, plan.reuse, arranged.images), Scratch()) for _ in range(min(len(starts), workers.count))]
        self.stages: list[tuple[Call, ...] | list[list[Call]]] = []  # calls in order, or such lists that may run side by side
        self._prelude = [
            call for value in common if value.first < 0 for call in zero_border(self._common.arrays[value.blob], value)
        ]
        for segment in arranged.segments:
            if not segment.split:
                self.stages.append(tuple(self._calls(segment, self._whole, arenas[0][1])))
                continue
            parts: list[list[Call]] = [[] for _ in arenas]
            for number, start in enumerate(starts):
                arena, scratch = arenas[number % len(arenas)]
                images = slice(start, min(arranged.batch, start + arranged.images))
                arrays = {blob: array[images] for blob, array in self._common.arrays.items()}
                arrays |= {blob: array[: images.stop - start] for blob, array in arena.arrays.items()}
                parts[number % len(arenas)] += self._calls(segment, Frame(plan, self.values, arrays), scratch)
            self.stages.append(parts)

    def _calls(self, segment: Segment, frame: Frame, scratch: Scratch) -> list[Call]:
        """The calls of a segment; borders are made zero before the first step that writes the value."""
        calls: list[Call] = []
        for number in range(segment.start, segment.stop):
            step = self.plan.steps[number]
            for value in self.values.values():
                if value.first == number:
                    calls += zero_border(frame.arrays[value.blob], value)
            if step.kind == "layer":
                calls.append(self._layer(step))
            else:
                calls += self._lowering.calls(step, frame, scratch)
        return calls

    # ---- the specification, among tuned steps

    def _layer(self, step: Step) -> Call:
        """A call of the layer's own forward: arrays as the API shows them in, and out to where tuned steps read them."""
        node = step.node

        def forward() -> None:
            context = self._contexts[step]
            arrays = [self.read(blob) for blob in step.inputs]
            arrays += [self.weights.peek(param) for param in node.params or ()]
            for blob, array in zip(step.outputs, node.layer.forward(context, *arrays), strict=True):
                self._leave(blob, array)
            context.saved = None  # nobody will go backward

        return forward

    def read(self, blob: Blob) -> np.ndarray:
        """A blob as the API shows it: a view where it has a place, else what its layer passed on."""
        root = self.plan.root(blob)
        if root in self.values:
            return self._whole.nchw(blob)
        home = self.plan.homes.get(blob)
        return self.live[blob] if home is None else lodged(self.read(home.of), home, blob.shape or ())

    def answer(self, blob: Blob, feeds: Mapping[Blob, np.ndarray]) -> np.ndarray:
        """A blob that the caller may keep: a copy of what lies in memory that the next run uses again."""
        if blob in self.plan.given:
            return feeds[blob]
        array = self.read(blob)
        return np.array(array, order="C") if self.plan.root(blob) in self.values else np.asarray(array, order="C")

    def _leave(self, blob: Blob, array: np.ndarray) -> None:
        if array.shape != blob.shape:
            raise Unplanned(f"'{blob.name}' is {array.shape}, not {blob.shape}")
        if self.plan.root(blob) in self.values:
            np.copyto(self._whole.nchw(blob), array)
        else:  # a view of memory that others will use again must not be passed on
            self.live[blob] = array.copy() if np.may_share_memory(array, self._common.block) else array

    # ---- running

    def forward(self, feeds: Mapping[Blob, np.ndarray], rng: np.random.Generator) -> None:
        """Compute everything from what is fed."""
        self.feed(feeds, rng)
        for _ in self.walk():
            pass

    def feed(self, feeds: Mapping[Blob, np.ndarray], rng: np.random.Generator) -> None:
        """Put what is fed where the steps read it."""
        for step in self.plan.steps:
            if step.kind == "layer":
                self._contexts[step] = Context(train=False, rng=rng, bottoms=len(step.inputs), needs=self._no_gradients(step))
        run(self._prelude)
        for blob in self.plan.given:
            if blob in self.values:
                np.copyto(self._whole.nchw(blob), feeds[blob])
            else:
                self.live[blob] = feeds[blob]

    def walk(self) -> Iterator[int]:
        """Run stage by stage; gives the number of each when it is done."""
        for number, stage in enumerate(self.stages):
            if isinstance(stage, tuple):
                run(stage)
            else:
                self.workers.run(stage)
            yield number

    def _no_gradients(self, step: Step) -> list[bool]:
        return [False] * (len(step.inputs) + len(step.node.params or ()))


class Engine:
    """Runs the plans of one graph, one for each set of blobs that is asked for."""

    def __init__(self, graph: Graph, weights: Weights, rules: Sequence[Rule], threads: int | None = None) -> None:
        self.graph = graph
        self.weights = weights
        self.rules = rules
        self.threads = threads
        self.workers = Workers(threads)
        self.constants = Constants(weights)
        self.able = plannable(graph)
        self._sources = unread_sources(graph, ())
        self._programs: dict[tuple[frozenset[Blob], frozenset[Blob]], Program] = {}

    def serves(self, weights: Weights, threads: int | None) -> bool:
        """Whether this is the engine for these weights and threads."""
        return self.weights is weights and self.threads == threads

    def plan(self, given: Iterable[Blob], keep: Iterable[Blob]) -> Layout:
        """The plan for these blobs."""
        return layout(plan(self.graph, given, keep, self.rules), self.workers.count)

    def forward(self, feeds: Mapping[Blob, np.ndarray], wanted: Iterable[Blob], rng: np.random.Generator) -> dict[Blob, np.ndarray]:
        """The wanted blobs, as arrays of their own. Raises Unplanned where a plan cannot hold."""
        keep = frozenset(wanted)
        program = self._program(frozenset(feeds), keep)
        with np.errstate(all="ignore"), self.workers:  # numbers are as in C, which says nothing
            self.constants.refresh()
            program.forward(feeds, rng)
        return {blob: program.answer(blob, feeds) for blob in keep}

    def _program(self, given: frozenset[Blob], keep: frozenset[Blob]) -> Program:
        """The program of a plan; the last few are kept."""
        program = self._programs.get((given, keep))
        if program is None:
            if len(self._programs) >= KEPT:
                self._programs.pop(next(iter(self._programs)))
            program = Program(self.plan(given, keep), self.weights, self.constants, self.workers)
            self._programs[given, keep] = program
        return program

    def instead(self, executor: Executor, feeds: Mapping[Blob, Any], wanted: Iterable[Blob]) -> dict[Blob, np.ndarray] | None:
        """The wanted blobs, in place of the executor's forward, which is deferred until somebody asks for more (`Executor.defer`).

        None where the executor must do it itself: an input is missing, a layer's top has not the shape that the graph says; or
        might as well, as no step has a tuned kernel.
        """
        given = [*feeds, *(blob for blob in self._sources if blob not in feeds)]
        keep = frozenset(wanted)
        if not self.able or not all(blob in feeds or blob in executor.values for blob in given):
            return None
        if all(step.kind == "layer" for step in self._program(frozenset(given), keep).plan.steps):
            return None
        executor.defer(feeds)
        try:
            return self.forward({blob: executor.values[blob] for blob in given}, keep, executor.rng)
        except Unplanned:
            self.able = False
            executor.settle()
            return None


def plannable(graph: Graph) -> bool:
    """Whether a plan can stand for every layer: nothing trains, nothing runs the user's code, all shapes are known."""
    return all(
        node.layer.phase != 0 and node.type != "Python" and all(blob.shape is not None for blob in (*node.bottoms, *node.tops))
        for node in graph.nodes
    )


__all__ = ["RULES", "Engine", "Layout", "Program", "Unplanned", "layout", "plannable"]
