"""The front door: `load` a net, ask it anything.

>>> import inspector
>>> net = inspector.load("caffenet")
>>> net.blobs["conv1"].shape
(10, 96, 55, 55)
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import memory, opening, phases, upgrade
from .build import build
from .draft import Draft
from .editions import MASTER, Edition
from .errors import Finding, InspectorError, Refusal
from .graph import Blob, Graph, Node, Param
from .layers import Shape

if TYPE_CHECKING:
    import numpy as np

    from .engine import Engine
    from .feed import Feed
    from .outputs import Outputs
    from .run import Executor
    from .sources import Look
    from .summary import Summary
    from .weights import Matching, Weights

PHASES = {"TRAIN": 0, "TEST": 1}
ENGINES = ("default", "reference", "fast")


def load(
    path_or_name: str | os.PathLike[str],
    phase: str = "TEST",
    level: int = 0,
    stages: Sequence[str] = (),
    given: Mapping[str, Shape] | None = None,
    weights: str | os.PathLike[str] | None = None,
    *,
    allow_python: bool = False,
    engine: str = "default",
    fast: bool = False,
    threads: int | None = None,
) -> Net:
    """A net from a prototxt, a binary NetParameter, a solver (followed to the net of `phase`), or the name of a model that ships.

    `given` maps blob names to shapes that the file does not settle, such as a data layer's tops. `weights` is a caffemodel, whose
    values are read when they are first used. `allow_python` runs the classes that Python layers name: for files that you trust.

    `engine` is how forward computes: "default" by a plan (see plan.py) that gives the specification's numbers to 1e-5, "reference"
    by the specification itself, layer by layer, "fast" (or `fast=True`) also by Winograd's transform, to 1e-4. `threads` is how
    many it uses, never more than the process may: all of them, if None.

    Raises InspectorError only where the file cannot be read as a net. One that Caffe would refuse still loads: see `Net.error`.
    """
    net = Net(opening.file(path_or_name, _phase(phase)), phase, level, stages, given, allow_python=allow_python)
    net.engine, net.threads = "fast" if fast else engine, threads
    if weights is not None:
        net.load_weights(weights)
    return net


def loads(
    text: str | bytes,
    phase: str = "TEST",
    level: int = 0,
    stages: Sequence[str] = (),
    given: Mapping[str, Shape] | None = None,
    weights: str | os.PathLike[str] | None = None,
    name: str = "<text>",
    *,
    allow_python: bool = False,
    engine: str = "default",
    fast: bool = False,
    threads: int | None = None,
) -> Net:
    """A net from prototxt text; everything else as `load`."""
    net = Net(opening.text(text, name, _phase(phase)), phase, level, stages, given, allow_python=allow_python)
    net.engine, net.threads = "fast" if fast else engine, threads
    if weights is not None:
        net.load_weights(weights)
    return net


def _phase(name: str) -> int:
    if name not in PHASES:
        raise InspectorError(f"phase is '{name}'", code="unknown-phase", remedy="use TRAIN or TEST")
    return PHASES[name]


class ParamView:
    """One parameter blob as pycaffe shows it: `shape`, `data` (writable, also by assignment) and `diff`, its gradient."""

    __slots__ = ("_net", "_param")

    def __init__(self, net: Net, param: Param) -> None:
        self._net = net
        self._param = param

    @property
    def shape(self) -> Shape:
        return self._param.shape

    @property
    def data(self) -> np.ndarray:
        return self._net.weights[self._param]

    @data.setter
    def data(self, values: Any) -> None:
        self._net.weights.set(self._param, values)

    @property
    def diff(self) -> np.ndarray:
        return self._net.executor.param_diff(self._param)

    def __repr__(self) -> str:
        return f"<param {self._param.name} {self._param.shape}>"


class Net:
    """A net as Caffe would build it: upgraded, filtered, splits inserted, every shape worked out."""

    def __init__(
        self,
        opened: opening.Opened,
        phase: str = "TEST",
        level: int = 0,
        stages: Sequence[str] = (),
        given: Mapping[str, Shape] | None = None,
        edition: Edition = MASTER,
        *,
        allow_python: bool = False,
    ) -> None:
        self.opened = opened
        self.phase = phase
        self.edition = edition
        self.allow_python = allow_python
        self.given = {name: tuple(int(size) for size in shape) for name, shape in (given or {}).items()}
        draft = upgrade.net(Draft(opened.proto, locate=opened.locate), edition)
        state = opened.state
        if state is not None:  # what the solver says of this net's state
            level, stages = level or state.level, [*state.stage, *stages]
        proto = phases.set_state(draft.proto, _phase(phase), level, stages, edition)
        if opened.solver is not None:
            draft = phases.write_state(draft, proto.state)
        self.draft = draft.then(proto, draft.origins, [])
        self._looks: dict[bytes, Look] = {}
        self.graph = self._build(self.given)
        self.threads: int | None = None
        self._engine = "default"
        self._weights: Weights | None = None
        self._executor: Executor | None = None
        self._planner: Engine | None = None
        self.outputs_open: Outputs | None = None

    def _build(self, given: Mapping[str, Shape]) -> Graph:
        def seen(node: Node) -> Mapping[str, Shape]:
            look = self.look(node)
            if look.error is not None:
                raise look.error
            return look.shapes

        return build(self.draft, given, self.edition, allow_python=self.allow_python, look=seen)

    def look(self, node: Node) -> Look:
        """What a data layer's source holds, from its first record: shapes of the tops, Caffe's log lines, or what is wrong with it.

        Nothing where the source is not there. It is opened once, also if the net is built again.
        """
        from .sources import Look, look

        paths = node.layer.sources() if node.layer.data else []
        if not paths or not all(map(self._find, paths)):
            return Look()
        key = node.layer.proto.SerializeToString()  # names may repeat
        if key not in self._looks:
            self._looks[key] = look(node.layer.proto, node.layer.phase, self.opened.folder)
        return self._looks[key]

    def _find(self, source: str) -> Path | None:
        """Where a path of the prototxt leads, if anywhere: from the current folder, as Caffe has it, else from the net's."""
        from .sources.base import resolve

        return resolve(source, self.opened.folder)

    # ---- structure

    @property
    def name(self) -> str:
        return self.graph.name

    @property
    def layers(self) -> list[Node]:
        """What Caffe would build, in order: each with name, type, bottoms, tops (blobs with name and shape)."""
        return self.graph.nodes

    @property
    def blobs(self) -> dict[str, Blob]:
        """The last blob of each name."""
        return self.graph.blobs

    @property
    def inputs(self) -> list[str]:
        return self.graph.inputs

    @property
    def outputs(self) -> list[str]:
        return self.graph.outputs

    @property
    def params(self) -> dict[str, list[ParamView]]:
        """Parameter blobs by layer name, for layers that have any."""
        return {node.name: [ParamView(self, param) for param in node.params] for node in self.graph.nodes if node.params}

    @property
    def memory_required(self) -> int:
        """Bytes that Caffe reports as "Memory required for data"; blobs of unknown shape count nothing."""
        return memory.required(self.graph)

    def blob(self, name: str) -> Blob:
        """A blob by name, or as `BLOB@LAYER` the value that LAYER left there. Raises InspectorError with a suggestion."""
        plain, at, layer = name.partition("@")
        found = None
        for node in self.graph.nodes:
            for top in node.tops:
                if top.name == name or (at and top.name == plain and node.name == layer):
                    found = top
        if found is None:
            from difflib import get_close_matches

            close = get_close_matches(plain, self.blobs, 1)
            remedy = f"did you mean '{close[0]}'?" if close else "see summary for the blobs"
            raise InspectorError(f"the net has no blob '{name}'", code="no-such-blob", remedy=remedy)
        return found

    # ---- trouble

    @property
    def error(self) -> Refusal | None:
        """The first thing that Caffe would stop at, None if it accepts the net."""
        return opening.parse_refusal(self.opened.findings) or self.graph.error

    def check(self) -> None:
        """Raise `error`, if there is one."""
        if self.error is not None:
            raise self.error

    @property
    def findings(self) -> list[Finding]:
        """Everything found: what Caffe would refuse (all of it, not only the first), assumptions, missing data sources."""
        return [
            *self.opened.findings,
            *(stop.refusal.finding for stop in self.graph.stops if not stop.repeats),
            *self.graph.notes,
            *self._missing_sources(),
        ]

    def _missing_sources(self) -> Iterator[Finding]:
        from .sources.base import missing

        for node in self.graph.all_nodes:
            for source in node.layer.sources():
                if self._find(source) is None:
                    where = self.graph.locate(node.origin) if node.origin else None
                    shape = node.tops[0].shape if node.tops else None
                    sizes = "x".join(map(str, shape)) if shape else "64x3x227x227 (batch x channels x height x width)"
                    remedy = f"give the shape instead, as in --shape {node.tops[0].name if node.tops else 'data'}={sizes}"
                    if not node.layer.data:  # an InfogainLoss, whose matrix it is
                        remedy = "the path is taken from the current folder"
                    message = missing(source, self.opened.folder)
                    yield Finding("missing-source", message, "warning", where, node.name, node.type, remedy)

    # ---- reports

    def summary(self) -> Summary:
        """The layer table with its totals, as plain data."""
        from .summary import summarise

        return summarise(self)

    # ---- numbers

    @property
    def weights(self) -> Weights:
        """The parameters' values; without a caffemodel what the fillers say, and zeros where there is none."""
        if self._weights is None:
            from .weights import Weights

            self._weights = Weights(self.graph)
        return self._weights

    def load_weights(self, path: str | os.PathLike[str]) -> Matching:
        """Take parameters from a caffemodel by layer name (Net::CopyTrainedLayersFrom); what it lacks stays as it is.

        Says what was taken, what was ignored, and which layers got nothing.

        Raises InspectorError listing every mismatch; then nothing is taken.
        """
        from .caffemodel import open_weights

        return self.weights.load(open_weights(path))

    @property
    def executor(self) -> Executor:
        if self._executor is None:
            self.check()
            from .run import Executor

            self._executor = Executor(self.graph, self.weights)
        return self._executor

    @property
    def engine(self) -> str:
        """How `forward` computes: "default", "fast" or "reference", see `load`."""
        return self._engine

    @engine.setter
    def engine(self, name: str) -> None:
        if name not in ENGINES:
            raise InspectorError(f"engine is '{name}'", code="unknown-engine", remedy=f"use {', '.join(ENGINES)}")
        self._engine, self._planner = name, None

    @property
    def planner(self) -> Engine | None:
        """What runs plans for this net; None where only the specification will do (see engine.plannable)."""
        if self._engine == "reference":
            return None
        if self._planner is None or not self._planner.serves(self.weights, self.threads):
            from .engine import RULES, Engine

            self.check()
            self._planner = Engine(self.graph, self.weights, RULES[self._engine], self.threads)
        return self._planner if self._planner.able else None

    def seed(self, value: int) -> None:
        """Start the net's one random generator again: dropout, stochastic pooling, random crops, fillers not yet used."""
        self.weights.seed(value)
        self.executor.seed(value)

    def open_sources(self, seed: int = 0) -> Feed:
        """The sources of the data layers, opened, for nets that bring their own data::

            with net.open_sources() as feed:
                answers = net.forward(**feed.next())

        `seed` is for what is random: shuffling, and in TRAIN crops and mirrors. Raises InspectorError for a source that is missing
        or broken.
        """
        from .feed import Feed

        return Feed(self, seed)

    def open_outputs(self) -> AbstractContextManager[list[str]]:
        """The files of the HDF5Output layers, which without this write nothing::

            with net.open_sources() as feed, net.open_outputs() as files:
                net.forward(**feed.next())

        Every whole forward adds its rows, and the files appear at the end of the block. Raises InspectorError.
        """
        from .outputs import writing

        return writing(self)

    def reshape(self, **inputs: Shape) -> None:
        """Run the same net, with the same parameters, on other input shapes.

        Raises InspectorError for a name that is no blob, and for shapes that do not go through the net or change a parameter's.
        """
        for name in inputs:
            self.blob(name)
        given = {**self.given, **{name: tuple(int(size) for size in shape) for name, shape in inputs.items()}}
        graph = self._build(given)
        if graph.error is not None:
            raise graph.error
        if self._weights is not None:
            self._weights = self._weights.moved_to(graph)
        self.given, self.graph, self._executor, self._planner = given, graph, None, None

    def forward(
        self,
        blobs: Sequence[str] | None = None,
        *,
        start: str | None = None,
        end: str | None = None,
        check_numerics: bool = False,
        **inputs: Any,
    ) -> dict[str, np.ndarray]:
        """Run the net on arrays named after its inputs; the net's outputs, or the blobs asked for, as float32.

        A blob may be named `BLOB@LAYER`, the value as LAYER left it before a later in-place layer changed it. `start` and `end` are
        layer names, both included; what `start` reads may be given like an input, and else keeps its value of the last run.
        """
        wanted = {name: self.blob(name) for name in (self.outputs if blobs is None else blobs)}
        feeds = {self.blob(name) if "@" in name else self._fed(name): value for name, value in inputs.items()}
        whole = start is None and end is None
        writer = self.outputs_open if whole else None
        values = None
        if whole and not check_numerics and self.planner is not None:
            written = writer.blobs() if writer is not None else []
            values = self.planner.instead(self.executor, feeds, [*wanted.values(), *written])
        if values is None:
            values = self.executor.forward(feeds, start=start, end=end, check_numerics=check_numerics)
        if writer is not None:
            writer.add(values)
        return {name: values[blob] for name, blob in wanted.items() if blob in values or blobs is not None}

    def _fed(self, name: str) -> Blob:
        """The first blob of that name: what an input layer made, before anything worked on it in place."""
        return self.blob(name).root

    def backward(self, blobs: Sequence[str] | None = None, **top_diffs: Any) -> dict[str, np.ndarray]:
        """Gradients of the net's inputs, or of the blobs asked for, after a `forward`.

        Losses start from their loss weight, other outputs from `top_diffs` (zero where not given). An in-place chain shares one
        piece of memory in Caffe, so a bare name is the gradient of its first blob; `BLOB@LAYER` is that of the value as LAYER left
        it.
        """
        names = self.inputs if blobs is None else blobs
        wanted = {name: self.blob(name) if "@" in name else self._fed(name) for name in names}
        diffs = {self.blob(name): value for name, value in top_diffs.items()}
        self.executor.backward(diffs)
        return {name: self.executor.diff(blob) for name, blob in wanted.items()}
