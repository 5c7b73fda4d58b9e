"""Training as `caffe train` does it, on one machine: the loop, its tests, displays and snapshots.

`Training.run` yields what Caffe would say as events, one by one as they happen, and `lines` puts them into a version's words.
Events know no version; their kinds are keys of the dialects.

Rules: Solver::Init, InitTrainNet, InitTestNets, Step, Solve, Test and Snapshot (solver.cpp); `train` in tools/caffe.cpp.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from caffe_proto import caffe_pb2

from . import dump, log, opening, prototxt, solver, upgrade
from .caffemodel import open_state, open_weights, write_model, write_state
from .dialect import Dialect
from .draft import Draft, Event
from .editions import MASTER
from .errors import InspectorError, UnreadableError
from .feed import Feed
from .files import read_bytes
from .graph import Node, Param
from .layers import shape_text
from .layers.data import DummyData
from .net import Net
from .run import Executor
from .sources import READERS

f32 = np.float32

GO_ON, SNAPSHOT, STOP = range(3)  # what the outside may ask for between two iterations (SolverAction)

# ---------------------------------------------------------------------------------------------------------------- settings


def read_solver(path: str | os.PathLike[str], changes: Sequence[str] = ()) -> tuple[Any, prototxt.Document]:
    """A SolverParameter as it stands in a file, with fields set anew by `changes` such as "max_iter=100", and its text.

    Raises InspectorError for what is no solver, and for fields that Caffe does not know.
    """
    name = os.fspath(path)
    document = prototxt.parse(read_bytes(path), caffe_pb2.SolverParameter, name)
    if not opening.is_solver(prototxt.parse(document.text, caffe_pb2.NetParameter, name)):
        raise UnreadableError(f"'{name}' is no solver", code="not-a-solver", remedy="name the file that says base_lr and max_iter")
    _refuse_unknown(document)
    proto = document.message
    for change in changes:
        field, equals, value = change.partition("=")
        known = caffe_pb2.SolverParameter.DESCRIPTOR.fields_by_name
        if not equals or field not in known:
            remedy = "write it as max_iter=100" if not equals else "see the fields of a solver"
            raise InspectorError(f"'{change}' sets no field of a solver", code="solver-field", remedy=remedy)
        text = dump.quoted(value) if known[field].type == known[field].TYPE_STRING else value
        parsed = prototxt.parse(f"{field}: {text}", caffe_pb2.SolverParameter, f"--set {field}")
        _refuse_unknown(parsed)
        proto.ClearField(field)
        proto.MergeFrom(parsed.message)
    return proto, document


def _refuse_unknown(document: prototxt.Document) -> None:
    faults = [finding for finding in document.findings if finding.severity == "error"]
    if faults:
        raise InspectorError("\n".join(map(str, faults)), code=faults[0].code)


# ---------------------------------------------------------------------------------------------------------------- a net at work


class Runner:
    """A net that reads its own data. `opened` is what it was before the solver had its say about the state."""

    def __init__(self, net: Net, opened: opening.Opened, seed: int) -> None:
        self.net = net
        self.opened = opened
        self.rng = np.random.default_rng(seed)
        for node in net.layers:
            if node.layer.data and not node.bottoms and node.type not in READERS and not isinstance(node.layer, DummyData):
                raise InspectorError(
                    "reads nothing that training could go on",
                    code="no-reader",
                    layer=node.name,
                    layer_type=node.type,
                    remedy="use Data, HDF5Data, ImageData or DummyData",
                )
        self.feed = Feed(net, seed)
        self._executor: Executor | None = None

    @property
    def executor(self) -> Executor:
        """The specification's executor; a new one after each change of shape, drawing from the same generator."""
        if self._executor is None or self._executor.graph is not self.net.graph:
            self._executor = Executor(self.net.graph, self.net.weights)
            self._executor.rng = self.rng
        return self._executor

    def forward(self) -> np.float32:
        """Run the next batch; the weighted sum of all losses."""
        batch = self.feed.next()
        graph, executor = self.net.graph, self.executor
        first = {top.name: top for node in graph.nodes if not node.bottoms for top in node.tops}
        values = executor.forward({first[name]: array for name, array in batch.items()})
        loss = f32(0)
        for node in graph.nodes:
            for top, weight in zip(node.tops, node.loss_weights, strict=True):
                if weight:
                    loss += f32(weight) * values[top].sum(dtype=f32)
        return loss

    def outputs(self) -> list[tuple[str, float, float]]:
        """Every number that the net gives: name of its blob, value, loss weight."""
        found = []
        for name in self.net.outputs:
            blob = self.net.graph.blobs[name]
            made = blob.maker
            weight = made.loss_weights[made.tops.index(blob)] if made is not None else 0.0
            found += [(name, float(value), weight) for value in self.executor.values[blob].reshape(-1)]
        return found

    def learned(self) -> list[Param]:
        """Parameters that the net owns, in order, those with a learning rate of 0 too (Net::learnable_params)."""
        return [param for param in self.net.graph.params() if param.shared_from is None]


# ---------------------------------------------------------------------------------------------------------------- training


class Training:
    """One run of `caffe train`. Nets are built and `proto` is final when it exists; `run` does the work.

    `weights` are files to finetune from, later ones over earlier ones; `snapshot` is a solverstate to go on from, with the
    caffemodel that it names. Then the data goes on where it stood, so that an interrupted training learns what one in a single run
    does, unless `rewind` starts it again, as Caffe has it; what is shuffled is shuffled anew. `asked` is called between iterations
    and answers GO_ON, SNAPSHOT or STOP.
    Raises InspectorError for whatever Caffe would stop at.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        weights: Sequence[str] = (),
        snapshot: str | None = None,
        rewind: bool = False,
        changes: Sequence[str] = (),
        asked: Callable[[], int] = lambda: GO_ON,
        allow_python: bool = False,
    ) -> None:
        self.path = Path(path)
        self.asked = asked
        self.allow_python = allow_python
        self.snapshot = snapshot
        written, self.document = read_solver(path, changes)
        self._said = list(_upgraded(written, os.fspath(path)))
        self.proto = upgrade.solver(written)
        self._name_snapshots()
        if weights or snapshot:
            del self.proto.weights[:]
            self.proto.weights.extend(weights if not snapshot else ())
        self._check()
        entropy = np.random.SeedSequence().entropy if self.proto.random_seed < 0 else self.proto.random_seed
        self._seed = int(entropy)  # type: ignore[arg-type]  # one number when none was given
        # by file what all nets together said of it: some versions load weights net by net, some when all are built
        self._weights: dict[str, list[Event]] = {name.strip(): [] for names in self.proto.weights for name in names.split(",")}
        stated = self.proto.HasField("train_state")
        self.proto.train_state.level = self.proto.train_state.level  # as the tool does with what its flags say: nothing
        if not self.proto.train_state.stage:
            self.proto.train_state.stage.append("")
        self._said += [Event("train-cpu"), Event("train-solver", {"solver": self.proto, "stated": stated})]
        self.train, source = self._train_net()
        self._said += [source, *self._built(self.train)]
        self.tests: list[Runner] = []
        for source, runner in self._test_nets():
            self.tests.append(runner)
            self._said += [source, *self._built(runner)]
        self._said += [
            Event("train-ready"),
            Event("train-start-first"),
            *(Event("train-tool-weights", {"file": name, "said": said}) for name, said in self._weights.items()),
        ]
        self.solver = solver.create(self.proto, [param.shape for param in self.train.learned()])
        self._losses: list[np.float32] = []
        self._smoothed = f32(0)
        self._updates: dict[Param, np.ndarray] = {}  # by which the last iteration changed them, with snapshot_diff
        self.stopped = False
        if snapshot is not None:
            self._said.append(Event("train-resume", {"file": snapshot}))
            self._restore(snapshot)
            if not rewind:
                self._forward_data()

    # ---- set-up

    def _name_snapshots(self) -> None:
        """A prefix where there is none, or only a folder (UpgradeSnapshotPrefixProperty)."""
        stem = os.fspath(self.path.with_suffix(""))
        if not self.proto.HasField("snapshot_prefix"):
            self.proto.snapshot_prefix = stem
            self._said.append(Event("train-prefix-unset", {"prefix": stem}))
        elif Path(self.proto.snapshot_prefix).is_dir():
            self.proto.snapshot_prefix = os.fspath(Path(self.proto.snapshot_prefix) / self.path.stem)
            self._said.append(Event("train-prefix-folder", {"prefix": self.proto.snapshot_prefix}))

    def _check(self) -> None:
        proto = self.proto
        if proto.average_loss < 1:
            solver.refuse(f"average_loss is {proto.average_loss}", "solver-average-loss", "use at least 1")
        if proto.max_iter < 0:
            solver.refuse(f"max_iter is {proto.max_iter}", "solver-max-iter", "use at least 0")
        named = [name for name in ("net", "net_param", "train_net", "train_net_param") if proto.HasField(name)]
        if len(named) != 1:
            have = f"more than one of them: {', '.join(named)}" if named else "none"
            solver.refuse(f"one field names the training net, and there is {have}", "solver-train-net", "give net, or train_net")
        tests = len(proto.test_net_param) + len(proto.test_net)
        generic = proto.HasField("net") or proto.HasField("net_param")
        if len(proto.test_iter) < tests if generic else len(proto.test_iter) != tests:
            message = f"there are {tests} test nets and {len(proto.test_iter)} test_iter"
            solver.refuse(message, "solver-test-iter", "give test_iter once for each test net")
        if proto.test_state and len(proto.test_state) != len(proto.test_iter):
            message = f"there are {len(proto.test_iter)} test nets and {len(proto.test_state)} test_state"
            solver.refuse(message, "solver-test-state", "give test_state once for each test net, or not at all")
        if proto.test_iter and proto.test_interval <= 0:
            message = f"test_interval is {proto.test_interval}, and there is a test net"
            solver.refuse(message, "solver-test-interval", "set test_interval")
        if any(count < 1 for count in proto.test_iter):
            solver.refuse(f"test_iter is {min(proto.test_iter)}", "solver-test-iter", "use at least 1")
        folder = Path(proto.snapshot_prefix).parent
        if (proto.snapshot or proto.snapshot_after_train) and not os.access(folder, os.W_OK):
            why = "nothing can be written there" if folder.is_dir() else "there is no such folder"
            remedy = "change snapshot_prefix, or make the folder"
            solver.refuse(f"snapshots go to '{folder}', and {why}", "solver-snapshot-prefix", remedy)

    def _train_net(self) -> tuple[Runner, Event]:
        proto = self.proto
        for name, kind in (("train_net_param", "train-net-own-inline"), ("net_param", "train-net-inline")):
            if proto.HasField(name):
                opened, event = self._inline(getattr(proto, name), (name,)), Event(kind)
                break
        else:
            name, kind = ("train_net", "train-net-own") if proto.HasField("train_net") else ("net", "train-net")
            file = getattr(proto, name)
            opened, event = self._open(file), Event(kind, {"file": file})
        return self._runner(opened, "TRAIN", proto.train_state), event

    def _test_nets(self) -> Iterator[tuple[Event, Runner]]:
        """Nets to test on: those named for that, then the training net's file as often as test_iter asks for more."""
        proto = self.proto
        found = [("test_net_param", self._inline(net, ("test_net_param", i))) for i, net in enumerate(proto.test_net_param)]
        found += [(f"test_net file: {file}", self._open(file)) for file in proto.test_net]
        for _ in range(len(proto.test_iter) - len(found)):
            if proto.HasField("net_param"):
                found.append(("net_param", self._inline(proto.net_param, ("net_param",))))
            else:
                found.append((f"net file: {proto.net}", self._open(proto.net)))
        for i, (source, opened) in enumerate(found):
            state = proto.test_state[i] if proto.test_state else None
            yield Event("test-net", {"test": i, "source": source}), self._runner(opened, "TEST", state)

    def _inline(self, proto: Any, where: tuple[str | int, ...]) -> opening.Opened:
        document = self.document
        return opening.Opened(proto, document.name, self.path, document, lambda inner: document.position((*where, *inner)))

    def _open(self, file: str) -> opening.Opened:
        target = opening.beside(file, self.path)
        if target is None:
            raise UnreadableError(
                f"the solver names the net '{file}', which is neither below the current folder nor beside the solver",
                code="solver-net-missing",
                remedy="start where the path leads",
            )
        return opening.file(target)

    def _runner(self, opened: opening.Opened, phase: str, state: Any) -> Runner:
        """A net whose state is the phase, then what its file says, then what the solver says."""
        merged = caffe_pb2.NetState(phase=phase)
        merged.MergeFrom(opened.proto.state)
        if state is not None:
            merged.MergeFrom(state)
        proto = caffe_pb2.NetParameter()
        proto.CopyFrom(opened.proto)
        proto.state.CopyFrom(merged)
        net = Net(replace(opened, proto=proto), phase, edition=AS_STATED, allow_python=self.allow_python)
        net.check()
        return Runner(net, replace(opened, state=state), self._seed)

    def _built(self, runner: Runner) -> Iterator[Event]:
        """The net's own log, and what its weights say; values that nothing else fills are drawn by the seed."""
        yield Event("net", {"net": runner.net, "opened": runner.opened})
        runner.net.weights.seed(self._seed)
        for name in self._weights:
            said = list(_load(runner.net, opening.beside(name, self.path) or name, name))
            self._weights[name] += said
            yield Event("train-weights", {"file": name, "said": said})

    # ---- snapshots

    def _file(self, ending: str) -> str:
        return f"{self.proto.snapshot_prefix}_iter_{self.solver.iteration}{ending}"

    def _snapshot(self) -> Iterator[Event]:
        """Weights, then state; each appears under its name when it is whole (Solver::Snapshot)."""
        hdf5 = self.proto.snapshot_format == caffe_pb2.SolverParameter.HDF5
        form, ending = ("HDF5", ".h5") if hdf5 else ("binary proto", "")
        model, state = self._file(".caffemodel" + ending), self._file(".solverstate" + ending)
        yield Event("train-snapshot-hdf5" if hdf5 else "train-snapshot", {"file": model, "form": form})
        net = self.train.net
        write_model(model, built_proto(net), net.weights.by_layer(shared=not hdf5), self._diffs())
        yield Event("train-snapshot-state-hdf5" if hdf5 else "train-snapshot-state", {"file": state, "form": form})
        own = self.solver
        write_state(state, iteration=own.iteration, learned_net=model, current_step=own.step, history=own.history)

    def _diffs(self) -> dict[str, list[np.ndarray]] | None:
        """The last update by layer, where the solver wants it kept; before the first it is 0."""
        if not self.proto.snapshot_diff:
            return None
        last = self._updates or {param: np.zeros(param.shape, f32) for param in self.train.learned()}
        nodes = self.train.net.graph.nodes
        return {node.name: [last[param.owner].reshape(param.shape) for param in node.params] for node in nodes if node.params}

    def _restore(self, path: str) -> None:
        """Iteration, step, history and the weights that a solverstate names (SGDSolver::RestoreSolverState...)."""
        state, own = open_state(path), self.solver
        if state.learned_net:
            model = opening.beside(state.learned_net, Path(path)) or opening.beside(Path(state.learned_net).name, Path(path))
            if model is None:
                raise UnreadableError(
                    f"'{path}' goes with the weights '{state.learned_net}', which are neither there nor beside it",
                    code="snapshot-weights",
                    remedy="put both into one folder",
                )
            self._said += _load(self.train.net, model, state.learned_net)
        if len(state.history) != len(own.history):
            message = f"'{path}' holds {len(state.history)} history blobs, and {own.name} keeps {len(own.history)} for this net"
            raise InspectorError(message, code="snapshot-history", remedy="go on with the solver and net that it was made with")
        self._said.append(Event("train-history"))
        for i, (stored, array) in enumerate(zip(state.history, own.history, strict=True)):
            if not stored.fits(array.shape) or stored.values != stored.count:
                have = f"is {shape_text(stored.shape)} with {stored.values} values"
                message = f"history blob {i} of '{path}' {have}, and the net needs {shape_text(array.shape)}"
                raise InspectorError(message, code="snapshot-history", remedy="go on with the net that it was made with")
            array[...] = stored.read().reshape(array.shape)
        own.iteration, own.step = state.iter, state.current_step

    def _forward_data(self) -> None:
        """Leave out of the data what the iterations and tests before the snapshot used."""
        proto, done = self.proto, self.solver.iteration
        self.train.feed.skip(done * proto.iter_size)
        if proto.test_interval:
            tests = -(-done // proto.test_interval) - (not proto.test_initialization and done > 0)
            for runner, batches in zip(self.tests, proto.test_iter, strict=True):
                runner.feed.skip(tests * batches)

    # ---- the loop

    def run(self) -> Iterator[Event]:
        """Train to max_iter (`train` in caffe.cpp, Solver::Solve); everything that is said, from the first line on."""
        yield from self._said
        proto, own = self.proto, self.solver
        yield Event("train-start")
        yield Event("train-solving", {"net": self.train.net.name})
        yield Event("train-policy", {"policy": proto.lr_policy})
        start = own.iteration
        yield from self._steps(start)
        if proto.snapshot_after_train and (not proto.snapshot or own.iteration % proto.snapshot):
            yield from self._snapshot()
        if self.stopped:
            yield Event("train-stopped", {"iteration": own.iteration})
        else:
            if proto.display and own.iteration % proto.display == 0:
                self._smooth(self.train.forward(), start)
                yield Event("train-last", {"iteration": own.iteration, "loss": float(self._smoothed)})
            if proto.test_interval and own.iteration % proto.test_interval == 0:
                yield from self._test_all()
            yield Event("train-optimized")
        yield Event("train-done")

    def _steps(self, start: int) -> Iterator[Event]:
        proto, own = self.proto, self.solver
        clock, shown = time.perf_counter(), start
        while own.iteration < proto.max_iter:
            due = proto.test_interval and own.iteration % proto.test_interval == 0
            if due and (own.iteration > 0 or proto.test_initialization):
                yield from self._test_all()
                if self.stopped:
                    return
            loss, diffs = self._gradients()
            self._smooth(loss, start)
            if proto.display and own.iteration % proto.display == 0:
                now = time.perf_counter()
                yield Event(
                    "train-iteration",
                    {
                        "iteration": own.iteration,
                        "loss": float(self._smoothed),
                        "speed": (own.iteration - shown) / (now - clock),
                        "seconds": now - clock,
                        "display": proto.display,
                    },
                )
                yield from _scores("train-output", self.train.outputs())
                clock, shown = time.perf_counter(), own.iteration
            weights = self.train.net.weights
            if proto.snapshot_diff:
                self._updates = dict(zip(self.train.learned(), diffs, strict=True))
            yield from own.apply(
                [
                    solver.Learned(weights[param], diff, param.lr_mult, param.decay_mult)
                    for param, diff in zip(self.train.learned(), diffs, strict=True)
                ]
            )
            own.iteration += 1
            yield Event("train-step", {"iteration": own.iteration, "loss": float(loss)})
            wish = self.asked()
            if (proto.snapshot and own.iteration % proto.snapshot == 0) or wish == SNAPSHOT:
                yield from self._snapshot()
            if wish == STOP:
                self.stopped = True
                return

    def _gradients(self) -> tuple[np.float32, list[np.ndarray]]:
        """Loss and gradients of iter_size batches: the loss as their mean, gradients as their sum."""
        loss, diffs = f32(0), []
        for i in range(self.proto.iter_size):
            loss += self.train.forward()
            executor = self.train.executor
            executor.backward({})
            found = [executor.param_diff(param) for param in self.train.learned()]
            if i == 0:
                diffs = [np.array(diff, f32) for diff in found]
            else:
                for diff, more in zip(diffs, found, strict=True):
                    diff += more
        return f32(loss / f32(self.proto.iter_size)), diffs

    def _smooth(self, loss: np.float32, start: int) -> None:
        """The mean of the last average_loss losses (Solver::UpdateSmoothedLoss)."""
        window, losses = self.proto.average_loss, self._losses
        if len(losses) < window:
            losses.append(loss)
            self._smoothed = (self._smoothed * f32(len(losses) - 1) + loss) / f32(len(losses))
        else:
            place = (self.solver.iteration - start) % window
            self._smoothed += (loss - losses[place]) / f32(window)
            losses[place] = loss

    def _test_all(self) -> Iterator[Event]:
        for number, runner in enumerate(self.tests):
            if not self.stopped:
                yield from self._test(number, runner)

    def _test(self, number: int, runner: Runner) -> Iterator[Event]:
        """Mean outputs over test_iter batches, with the weights of now (Solver::Test)."""
        yield Event("test-iteration", {"iteration": self.solver.iteration, "test": number})
        yield from self._lend(runner.net)
        batches = self.proto.test_iter[number]
        scores: list[np.float32] = []
        outputs: list[tuple[str, float, float]] = []
        total = f32(0)
        for i in range(batches):
            wish = self.asked()
            if wish == SNAPSHOT:
                yield from self._snapshot()
            elif wish == STOP:
                self.stopped = True
                yield Event("test-interrupted")
                return
            total += runner.forward()
            outputs = runner.outputs()
            values = [f32(value) for _, value, _ in outputs]
            scores = values if i == 0 else [score + value for score, value in zip(scores, values, strict=True)]
        if self.proto.test_compute_loss:
            yield Event("test-loss", {"loss": float(total / f32(batches))})
        means = [float(score / f32(batches)) for score in scores]
        yield from _scores(
            "test-output", [(name, mean, weight) for (name, _, weight), mean in zip(outputs, means, strict=True)], test=number
        )

    def _lend(self, net: Net) -> Iterator[Event]:
        """The training net's parameters for the layers of the same names (Net::ShareTrainedLayersWith)."""
        targets: dict[str, Node] = {}
        for node in net.layers:
            targets.setdefault(node.name, node)
        ours = self.train.net
        for node in ours.layers:
            target = targets.get(node.name)
            if target is None:
                yield Event("sharing-ignored", {"layer": node.name})
                continue
            theirs = target.params or []
            if len(theirs) != len(node.params or []):
                message = f"has {len(node.params or [])} parameters in the training net and {len(theirs)} in the test net"
                raise InspectorError(message, code="test-net-params", layer=node.name, layer_type=node.type)
            for param, taker in zip(node.params or (), theirs, strict=True):
                net.weights.set(taker, ours.weights[param])

    def close(self) -> None:
        """Let go of the data."""
        for runner in (self.train, *self.tests):
            runner.feed.close()


AS_STATED = replace(MASTER, state="file")  # a solver merges the states itself


def _upgraded(proto: Any, file: str) -> Iterator[Event]:
    if proto.HasField("solver_type"):
        yield Event("upgrade-solver", {"file": file})
        yield Event("upgrade-solver-done")
        yield Event("upgrade-solver-advice")


def _load(net: Net, path: str | os.PathLike[str], written: str) -> Iterator[Event]:
    """Weights into a net; what is said of their generation, and of layers that the net has not."""
    stored = open_weights(path)
    if stored.proto is not None:
        for event in upgrade.net(Draft(stored.proto)).events:
            yield Event(event.kind, {**event.values, "file": written})
    for name, outcome in net.weights.load(stored).outcomes:
        if outcome == "ignored":
            yield Event("ignoring", {"layer": name})


def _scores(kind: str, outputs: Sequence[tuple[str, float, float]], **more: Any) -> Iterator[Event]:
    for i, (name, value, weight) in enumerate(outputs):
        yield Event(kind, {"index": i, "output": name, "value": value, "weight": weight, **more})


def built_proto(net: Net) -> Any:
    """The net as Caffe keeps it in memory and in a caffemodel: splits, phases, and what layers add to themselves (Net::ToProto)."""
    proto = caffe_pb2.NetParameter(name=net.name)
    for node in net.layers:
        layer: Any = proto.layer.add()
        layer.CopyFrom(node.layer.proto)
        layer.ClearField("blobs")
        layer.phase = node.layer.phase
        if node.layer.loss and not layer.loss_weight:
            layer.loss_weight.append(1)
        if node.type == "BatchNorm":
            for _ in range(len(layer.param), len(node.params or ())):
                layer.param.add(lr_mult=0)
    return proto


# ---------------------------------------------------------------------------------------------------------------- in Caffe's words


def lines(events: Iterator[Event], dialect: Dialect) -> Iterator[log.Line]:
    """What a version's `caffe train` would have printed; what it did not mention is passed over."""
    classed = False  # the class of the numbers in HDF5 files is said once per process
    for event in events:
        if event.kind != "net":
            yield from _line(event, dialect)
            continue
        for line in log.of(_told(event, dialect), dialect, file=event.values["net"].opened.name):
            if line.place == _place(dialect, "hdf5-class") and classed:
                continue
            yield line
            if line.place == _place(dialect, "hdf5-files") and not classed:
                classed = True
                yield from _line(_hdf5_class(event.values["net"]), dialect)


def _line(event: Event, dialect: Dialect) -> Iterator[log.Line]:
    statement, values = dialect.say.get(event.kind), dict(event.values)
    if statement is None or statement.level == "D":
        return
    if event.kind == "train-solver":
        values["solver"] = dump.text(_as_printed(dialect=dialect, **event.values))
    elif "weight" in values:
        weighted = float(f32(values["weight"]) * f32(values["value"]))
        values["share"] = f" (* {values['weight']:g} = {weighted:g} loss)" if values["weight"] else ""
    yield log.Line(statement.level, statement.place, statement.words(values))
    for inner in event.values.get("said", ()):
        yield from _line(inner, dialect)


def _place(dialect: Dialect, key: str) -> str | None:
    return dialect.say[key].place if key in dialect.say else None


def _as_printed(solver: Any, stated: bool, dialect: Dialect) -> Any:
    """The solver as the version printed it: before rc4 no tool filled in the state, and the weights came last."""
    out = caffe_pb2.SolverParameter()
    out.CopyFrom(solver)
    if dialect.edition.state != "caller" and not stated:
        out.ClearField("train_state")
    if "train-weights" not in dialect.say:
        out.ClearField("weights")
    return out


def _told(event: Event, dialect: Dialect) -> Net:
    """The net as the version would have built it."""
    net = event.values["net"]
    if dialect.edition == MASTER:
        return net
    caller = dialect.edition.state == "caller"
    edition = replace(dialect.edition, state="file") if caller else dialect.edition
    opened = net.opened if caller else event.values["opened"]
    return Net(opened, net.phase, given=net.given, edition=edition, allow_python=net.allow_python)


def _hdf5_class(net: Net) -> Event:
    node = next(node for node in net.layers if node.type == "HDF5Data")
    return Event(*next(line for line in net.look(node).lines if line[0].startswith("hdf5-class")))


# ---------------------------------------------------------------------------------------------------------------- in numbers


class Curves:
    """The numbers that a training showed: a row per iteration, the columns in the order in which they were met.

    `groups` says of each column what a plot needs: "loss" or "score" (an output that is no loss), or nothing.
    """

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, float]] = {}
        self.groups: dict[str, str] = {}
        self._began = time.perf_counter()
        self._iteration = 0

    def add(self, event: Event) -> None:
        """Take note of an event, if it has numbers."""
        values = event.values
        if event.kind in ("train-iteration", "train-last", "test-iteration"):
            self._iteration = values["iteration"]
        if event.kind in ("train-iteration", "train-last"):
            self._note("loss", values["loss"], "loss")
        elif event.kind == "train-rate":
            self._note("learning_rate", values["rate"])
        elif event.kind in ("train-output", "test-output"):
            which = "train" if event.kind == "train-output" else "test" if not values["test"] else f"test #{values['test']}"
            name = f"{which} {values['output']}"
            if name in self.rows.get(self._iteration, {}):  # an output of several numbers
                name += f" #{values['index']}"
            self._note(name, values["value"], "loss" if values["weight"] else "score")

    def _note(self, column: str, value: float, group: str = "") -> None:
        row = self.rows.setdefault(self._iteration, {"seconds": round(time.perf_counter() - self._began, 3)})
        row[column] = value
        self.groups.setdefault(column, group)

    def table(self) -> tuple[list[str], list[list[float | None]]]:
        """Names of the columns, and the rows."""
        names = ["seconds", *self.groups]
        return ["iteration", *names], [[at, *(row.get(name) for name in names)] for at, row in sorted(self.rows.items())]

    def series(self, group: str) -> dict[str, list[tuple[float, float]]]:
        """The curves of one group."""
        return {
            name: [(at, row[name]) for at, row in sorted(self.rows.items()) if name in row]
            for name, own in self.groups.items()
            if own == group
        }
