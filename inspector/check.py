"""Everything that can be found wrong with a net, at once: what Caffe refuses, what it gets wrong, what is hardly meant.

An error is where Caffe stops or gives wrong numbers, a warning a likely mistake, a note worth knowing. Nothing here is a guess
about a part that could not be worked out: unknown shapes, types and blobs stay silent, so one mistake is one finding.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from . import in_place
from .errors import Finding, InspectorError, UnreadableError, closest
from .graph import AUTOMATIC, SETUP, Blob, Graph, Node
from .layers.base import TRAIN, Unknown, count

if TYPE_CHECKING:
    import os

    from .net import Net

SEVERITIES = ("error", "warning", "note")

# types whose tops are results: people read them
RESULTS = frozenset(("Accuracy", "ArgMax", "HDF5Output", "Python", "Sigmoid", "Silence", "Softmax"))
DOUBLED = {"SoftmaxWithLoss": "Softmax", "InfogainLoss": "Softmax", "SigmoidCrossEntropyLoss": "Sigmoid"}  # losses that contain one
POLICIES = {  # lr_policy -> the fields that it needs (SGDSolver::GetLearningRate)
    "fixed": (),
    "step": ("gamma", "stepsize"),
    "exp": ("gamma",),
    "inv": ("gamma", "power"),
    "multistep": ("gamma", "stepvalue"),
    "poly": ("power", "max_iter"),
    "sigmoid": ("gamma", "stepsize"),
}
SOLVERS = ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")
NO_MOMENTUM = ("AdaGrad", "RMSProp")  # they stop at one (sgd_solvers.hpp)


@dataclass(frozen=True, slots=True)
class Found:
    """A finding, and in which phases it was met."""

    finding: Finding
    phases: tuple[str, ...]


# ---- the front doors


def check(net: Net, weights: str | os.PathLike[str] | None = None) -> list[Finding]:
    """All findings of a net in its phase, in file order. `weights` is a file to hold against it; a binary net brings its own.

    Raises InspectorError only where the file of weights cannot be read.
    """
    found = [*_refined(net), *in_place.findings(net.graph)]
    for look in CHECKS:
        found += look(net)
    if weights is not None or net.opened.stored is not None:
        found += _weights(net, weights)
    return sorted(_unique(found), key=_place)


def unread(error: UnreadableError) -> list[Finding]:
    """A text that is not the format, as findings: what was found before, and where reading stopped.

    Raises the error itself where it speaks of no place in a text: then nothing could be checked.
    """
    last = error.finding
    if last.where is None:
        raise error
    message, _, caret = last.message.partition("\n")
    return [*last.values.get("findings", ()), replace(last, message=message, values={"caret": caret})]


def merged(by_phase: dict[str, list[Finding]]) -> list[Found]:
    """Findings of several phases, each once."""
    phases: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    first: dict[tuple[Any, ...], Finding] = {}
    for phase, findings in by_phase.items():
        for finding in findings:
            key = (finding.code, finding.where, finding.layer, finding.message)
            first.setdefault(key, finding)
            phases[key].append(phase)
    found = [Found(finding, tuple(phases[key])) for key, finding in first.items()]
    return sorted(found, key=lambda one: _place(one.finding))


def is_meant(net: Net) -> bool:
    """Whether the net has anything to start from in its phase: a source, or a layer that needs none."""
    return not net.draft.proto.layer or any(not node.layer.proto.bottom for node in net.graph.all_nodes)


def chosen(found: Iterable[Found], select: Iterable[str], ignore: Iterable[str]) -> list[Found]:
    """Those whose code matches one of `select` (all if there is none) and none of `ignore`; both are globs."""
    select, ignore = list(select), list(ignore)
    return [
        one
        for one in found
        if (not select or any(fnmatchcase(one.finding.code, glob) for glob in select))
        and not any(fnmatchcase(one.finding.code, glob) for glob in ignore)
    ]


def _place(finding: Finding) -> tuple[Any, ...]:
    where = finding.where
    rank = SEVERITIES.index(finding.severity)
    return (0, where.file, where.line, where.column, rank) if where else (1, "", 0, 0, rank)


def _unique(findings: Iterable[Finding]) -> list[Finding]:
    return list({(f.code, f.where, f.layer, f.message): f for f in findings}.values())


# ---- what the passes found


# A misspelt or misshapen field in one of these changes no shape
SHAPELESS = frozenset(
    f"caffe.{name}" for name in ("NetParameter", "LayerParameter", "V1LayerParameter", "ParamSpec", "FillerParameter")
)


def _refined(net: Net) -> Iterator[Finding]:
    """The net's own findings, without those that only follow from others.

    A blob may be missing because its layer is refused for its rules, and a shape may be wrong because a field of that layer, or of
    one above it, could not be read.
    """
    refused = {top for layer in net.draft.proto.layer if layer.include and layer.exclude for top in layer.top}
    doubtful = _doubtful(net)
    follow = {id(s.refusal.finding) for s in net.graph.stops if s.moment >= SETUP and net.graph.all_nodes[s.node] in doubtful}
    for finding in net.findings:
        if finding.code == "unknown-bottom" and finding.values.get("blob") in refused:
            continue
        if id(finding) not in follow:
            yield finding


def _doubtful(net: Net) -> set[Node]:
    """Layers whose shapes may be wrong, because they or one above them lack what somebody tried to write."""
    damaged = {
        finding.layer
        for finding in net.opened.findings
        if finding.severity == "error" and finding.layer is not None and finding.values.get("message_type") not in SHAPELESS
        if finding.code != "unknown-field" or finding.remedy  # a fork's own field resembles none
    }
    found: set[Node] = set()
    if damaged:
        for node in net.graph.all_nodes:
            if node.name in damaged or any(blob.maker in found for blob in node.bottoms):
                found.add(node)
    return found


# ---- looks


def _at(graph: Graph, node: Node, *path: str | int) -> dict[str, Any]:
    """The keywords of a Finding about a layer."""
    where = graph.locate((*node.origin, *path)) if node.origin else None
    return {"where": where, "layer": node.name, "layer_type": node.type}


def _is_trained(net: Net) -> bool:
    return any(_is_loss(node) for node in net.graph.all_nodes)


def _is_loss(node: Node) -> bool:
    return any(node.loss_weights) or (node.layer.loss and not node.loss_weights)


def _written(net: Net) -> list[Node]:
    """The layers that somebody wrote, in order: no splits."""
    return [node for node in net.graph.all_nodes if node.origin is not None]


def _source(blob: Blob) -> Node | None:
    """Who made the value, seen through splits."""
    maker = blob.maker
    while maker is not None and maker.type == "Split" and maker.bottoms:
        maker = maker.bottoms[0].maker
    return maker


def _unused_tops(net: Net) -> Iterator[Finding]:
    graph, trained = net.graph, _is_trained(net)
    broken = {stop.node for stop in graph.stops}
    for node in _written(net):
        if node.index in broken:
            continue
        for i, blob in enumerate(node.tops):
            lost = any(node.loss_weights[i : i + 1]) or (node.layer.loss and i == 0)
            if blob.readers or blob.name == AUTOMATIC or lost or isinstance(node.layer, Unknown):
                continue
            if node.layer.data and (trained or i):
                message, severity = f"nobody reads top '{blob.name}'", "warning"
                remedy = "remove it, or feed it to the layer that was meant to read it"
                if node.layer.tops == len(node.tops):
                    severity, remedy = (
                        "note",
                        f"{node.type} cannot do without it; a Silence layer may read it, to keep the log quiet",
                    )
                yield Finding("unused-top", message, severity, **_at(graph, node, "top", i), remedy=remedy)
            elif trained and graph.phase == TRAIN and not node.layer.data and not node.layer.loss and node.type not in RESULTS:
                message = f"nobody reads top '{blob.name}', and it is no loss: it is computed for nothing"
                remedy = "feed it to a layer, or leave the layer out in TRAIN; a Silence layer keeps it and the log quiet"
                yield Finding("unused-top", message, "warning", **_at(graph, node, "top", i), remedy=remedy)


def _names(net: Net) -> Iterator[Finding]:
    graph = net.graph
    layers: dict[str, Node] = {}
    blobs: dict[str, tuple[Node, int]] = {}
    for node in _written(net):
        if not node.name:
            message = "has no name, so no weights can be kept for it"
            yield Finding("unnamed-layer", message, "warning", **_at(graph, node), remedy="give it a name")
        elif node.name in layers:
            both = node.params != [] and layers[node.name].params != []
            why = "weights are loaded by name: only one can get its own" if both else "logs do not tell them apart"
            message, severity = f"bears the name of an earlier layer, and {why}", "warning" if both else "note"
            yield Finding("duplicate-layer-name", message, severity, **_at(graph, node, "name"), remedy="rename one of them")
        layers.setdefault(node.name, node)
        for i, blob in enumerate(node.tops):
            if i < len(node.layer.proto.top):
                blobs.setdefault(blob.name, (node, i))
    yield from _cases(graph, "its name", {name: (node, ("name",)) for name, node in layers.items()})
    yield from _cases(graph, "its top", {name: (node, ("top", i)) for name, (node, i) in blobs.items()})


def _cases(graph: Graph, what: str, names: dict[str, tuple[Node, tuple[str | int, ...]]]) -> Iterator[Finding]:
    first: dict[str, str] = {}
    for name, (node, path) in names.items():
        other = first.setdefault(name.lower(), name)
        if other != name:
            message = f"{what} '{name}' differs from '{other}' only in case"
            remedy = "spell them alike, or call one otherwise"
            yield Finding("names-differ-in-case", message, "warning", **_at(graph, node, *path), remedy=remedy)


def _normalisation(net: Net) -> Iterator[Finding]:
    """BatchNorm takes the batch's statistics in TRAIN and stored ones in TEST, unless use_global_stats says otherwise."""
    graph, trained = net.graph, _is_trained(net)
    bare: list[Node] = []
    for node in _written(net):
        if node.type != "BatchNorm":
            continue
        param = node.layer.proto.batch_norm_param
        path = ("batch_norm_param", "use_global_stats")
        if param.HasField("use_global_stats"):
            if param.use_global_stats and graph.phase == TRAIN and trained:
                message = "uses stored statistics in TRAIN and never updates them; without weights they are zero"
                remedy = "remove use_global_stats, unless you fine-tune with statistics kept as they are"
                yield Finding("batchnorm-stored-in-train", message, "warning", **_at(graph, node, *path), remedy=remedy)
            if not param.use_global_stats and graph.phase != TRAIN:
                message = "uses the statistics of the batch in TEST: what an image gives depends on its neighbours"
                remedy = "remove use_global_stats; Caffe chooses by phase"
                yield Finding("batchnorm-batch-in-test", message, "warning", **_at(graph, node, *path), remedy=remedy)
        own = graph.phase == TRAIN and not param.use_global_stats
        shape = node.bottoms[0].shape if node.bottoms else None
        if own and trained and shape and shape[0] == 1:
            rest = count(shape) // max(1, shape[1] if len(shape) > 1 else 1)
            what = "every output is 0" if rest == 1 else "the statistics are those of one image"
            message = f"normalises a batch of 1 in TRAIN: {what}"
            remedy = "use a larger batch, or use_global_stats with stored statistics"
            yield Finding("batchnorm-batch-of-one", message, "warning", **_at(graph, node), remedy=remedy)
        if node.tops and not any(reader.type in ("Scale", "Bias", "Split") for reader in node.tops[0].readers):
            bare.append(node)
    if bare:
        rest_of = f", nor are {len(bare) - 1} more" if len(bare) > 1 else ""
        message = f"is not followed by a Scale layer{rest_of}: Caffe's BatchNorm has no scale and shift of its own"
        remedy = "add a Scale layer with bias_term: true, if the net was meant as in the paper"
        yield Finding("batchnorm-without-scale", message, "note", **_at(graph, bare[0]), remedy=remedy)


def _one_phase(net: Net) -> Iterator[Finding]:
    """Dropout and BatchNorm that a rule leaves out in one phase. Both know the phase themselves."""
    graph = net.graph
    proto, phase = net.draft.proto, net.graph.phase
    present = {node.origin for node in graph.all_nodes}
    kept_tops = {(node.type, top) for node in _written(net) for top in node.layer.proto.top}
    for layer, origin in zip(proto.layer, net.draft.origins, strict=True):
        if layer.type not in ("Dropout", "BatchNorm") or origin in present or origin is None:
            continue
        rules = [(kind, i) for kind in ("include", "exclude") for i, r in enumerate(getattr(layer, kind)) if r.HasField("phase")]
        if not rules or any((layer.type, top) in kept_tops for top in layer.top):
            continue  # left out for another reason, or another one stands in
        where = {"where": graph.locate((*origin, *rules[0])), "layer": layer.name, "layer_type": layer.type}
        name = "TRAIN" if phase == TRAIN else "TEST"
        if layer.type == "BatchNorm":
            message = f"is left out in {name}: what follows gets values that were not normalised"
            yield Finding(
                "batchnorm-in-one-phase", message, "warning", **where, remedy="remove the rule; BatchNorm knows the phase"
            )
        else:
            message = f"is left out in {name} by a rule that it does not need"
            if phase == TRAIN:
                message = "is left out in TRAIN, the only phase in which it does anything"
            severity = "warning" if phase == TRAIN else "note"
            yield Finding(
                "dropout-in-one-phase", message, severity, **where, remedy="remove the rule; Dropout does nothing in TEST"
            )


def _losses(net: Net) -> Iterator[Finding]:
    graph = net.graph
    nodes = _written(net)
    sources = [node for node in nodes if node.layer.data]
    is_deploy = bool(sources) and all(node.type == "Input" for node in sources)
    for node in nodes:
        if is_deploy and graph.phase != TRAIN and (node.layer.loss or node.type == "Accuracy"):
            message = "needs labels, and this net is fed by hand, as a deploy file is"
            remedy = "put Softmax in its place" if node.type == "SoftmaxWithLoss" else "leave it out of the deploy file"
            yield Finding("loss-in-deploy", message, "warning", **_at(graph, node), remedy=remedy)
        inner = DOUBLED.get(node.type)
        maker = _source(node.bottoms[0]) if inner and node.bottoms else None
        if maker is not None and maker.type == inner:
            message = f"contains a {inner} of its own, and its bottom already comes from one ('{maker.name}')"
            remedy = f"feed it what '{maker.name}' reads"
            yield Finding("activation-twice", message, "warning", **_at(graph, node, "bottom", 0), remedy=remedy)


def _zero_start(net: Net) -> Iterator[Finding]:
    """Filters that nobody fills start from zeros and pass no gradient on."""
    if net.graph.phase != TRAIN or not _is_trained(net) or net.opened.stored is not None:
        return
    bare = [
        node
        for node in net.graph.nodes
        if node.type in ("Convolution", "Deconvolution", "InnerProduct") and node.backward and node.params
        if node.params[0].owner is node.params[0] and node.params[0].lr_mult and _is_zero(node.params[0].filler)
    ]
    if bare:
        rest = f", and so do {len(bare) - 1} more" if len(bare) > 1 else ""
        message = f"starts from weights that are all 0{rest}: such a layer learns only if weights are loaded"
        remedy = 'give it a weight_filler, such as { type: "msra" }'
        yield Finding("weights-start-at-zero", message, "note", **_at(net.graph, bare[0]), remedy=remedy)


def _is_zero(filler: Any) -> bool:
    return filler is None or (filler.type == "constant" and filler.value == 0)


def _emptiness(net: Net) -> Iterator[Finding]:
    if not net.draft.proto.layer and not net.opened.findings:
        yield Finding("no-layers", "the net has no layers", "warning", net.graph.locate(()), remedy="is it the right file?")


# ---- weights


def _weights(net: Net, path: str | os.PathLike[str] | None) -> Iterator[Finding]:
    from .caffemodel import open_weights
    from .weights import match

    stored = open_weights(path) if path is not None else net.opened.stored
    if path is None and not any(layer.blobs for layer in stored.layers):
        return
    graph = replace(net.graph, nodes=net.graph.all_nodes)
    matching = match(graph, stored)
    yield from matching.mismatches
    nodes = {node.name: node for node in reversed(_written(net))}
    with_blobs = {layer.name: layer for layer in stored.layers if layer.blobs}
    free = [name for name in matching.ignored if name in with_blobs]
    for name in matching.missing:
        close = closest(name, free, 0.8)
        message = f"gets no weights from '{stored.path}', which has no layer of that name"
        remedy = f"did you mean '{close}'?" if close else "it keeps what its fillers give it; without one, zeros"
        yield Finding("weights-missing", message, "warning", **_at(graph, nodes[name], "name"), remedy=remedy)
    if path is None:
        return  # layers of the other phase are no news in a file that is the net itself
    for name in free:
        shapes = ", ".join(" x ".join(map(str, blob.shape)) or "scalar" for blob in with_blobs[name].blobs)
        message = f"layer '{name}' of '{stored.path}' ({shapes}) is not in the net, and Caffe ignores it"
        close = closest(name, matching.missing, 0.8)
        remedy = f"did you mean '{close}'?" if close else ""
        yield Finding("weights-unused", message, "warning", remedy=remedy, values={"layer": name})
    rest = [name for name in matching.ignored if name not in with_blobs]
    if rest:
        message = f"{len(rest)} stored layer(s) without weights are not in the net, and Caffe ignores them: {_some(rest)}"
        yield Finding("weights-ignored", message, "note", values={"layers": rest})


def _some(names: list[str], most: int = 5) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


# ---- solvers


def _solver(net: Net) -> Iterator[Finding]:
    """What Solver::Init, SGDSolver::GetLearningRate and the constructors of the update rules stop at, and what people forget."""
    solver, document = net.opened.solver, net.opened.solver_document
    if solver is None or document is None:
        return

    def found(code: str, message: str, severity: str, field: str, remedy: str) -> Finding:
        return Finding(code, message, severity, document.position((field,)), remedy=remedy)

    given = {field.name for field, _ in solver.ListFields()}
    nets = given & {"net", "net_param", "train_net", "train_net_param"}
    if len(nets) > 1:
        message = f"names the train net {len(nets)} times: {', '.join(sorted(nets))}"
        yield found("solver-train-net", message, "error", sorted(nets)[1], "keep one of them")
    yield from _solver_tests(solver, given, found)
    kind = _solver_kind(solver)
    if kind not in SOLVERS:
        remedy = f"use one of {', '.join(SOLVERS)}"
        yield found("solver-type", f"there is no solver '{kind}'", "error", "type", remedy)
    if kind in NO_MOMENTUM and solver.momentum:
        message = f"{kind} takes no momentum, and it is {solver.momentum:g}"
        yield found("solver-momentum", message, "error", "momentum", "remove it, or use SGD")
    policy = solver.lr_policy
    if policy not in POLICIES:
        message = f"there is no lr_policy '{policy}'" if policy else "has no lr_policy"
        yield found("solver-policy", message, "error", "lr_policy", f"use one of {', '.join(POLICIES)}")
    for field in POLICIES.get(policy, ()):
        if field not in given:
            message = f"lr_policy '{policy}' needs {field}, which is not given and counts as 0"
            severity = "error" if field in ("stepsize", "max_iter") else "warning"  # others only spoil the rate
            yield found("solver-policy-field", message, severity, "lr_policy", f"give {field}, or use another lr_policy")
    if solver.iter_size < 1:
        message = f"iter_size is {solver.iter_size}, and an update needs at least one batch"
        yield found("solver-iter-size", message, "error", "iter_size", "use at least 1")
    if solver.average_loss < 1:
        message = f"average_loss is {solver.average_loss}, and an average needs at least one loss"
        yield found("solver-average-loss", message, "error", "average_loss", "use at least 1")
    if solver.regularization_type not in ("L1", "L2"):
        message = f"there is no regularization_type '{solver.regularization_type}'"
        yield found("solver-regularization", message, "error", "regularization_type", "use L1 or L2")
    if not solver.base_lr:
        message = "base_lr is 0 or not given: nothing is learnt"
        yield found("solver-base-lr", message, "warning", "base_lr", "give base_lr, such as 0.01")
    if not solver.max_iter:
        message = "max_iter is 0 or not given: training ends before it begins"
        yield found("solver-max-iter", message, "warning", "max_iter", "give max_iter")
    steps = list(solver.stepvalue)
    if policy == "multistep" and steps != sorted(steps):
        message = f"the values of stepvalue do not ascend ({', '.join(map(str, steps))}): a smaller one never has its turn"
        yield found("solver-steps", message, "warning", "stepvalue", "write them in ascending order")
    beyond = [step for step in steps if solver.max_iter and step >= solver.max_iter]
    if policy == "multistep" and beyond:
        message = f"stepvalue {beyond[0]} is not reached before max_iter {solver.max_iter}"
        yield found("solver-steps", message, "note", "stepvalue", "lower it, or raise max_iter")


def _solver_tests(solver: Any, given: set[str], found: Callable[..., Finding]) -> Iterator[Finding]:
    named = len(solver.test_net) + len(solver.test_net_param)
    generic = bool(given & {"net", "net_param"})
    iters = len(solver.test_iter)
    if iters < named or (iters > named and not generic):
        message = f"gives test_iter {iters} times for {named} test net(s)"
        yield found("solver-test-iter", message, "error", "test_iter" if iters else "test_net", "give it once for each test net")
    elif iters and solver.test_interval <= 0:
        message = "gives test_iter and no test_interval"
        yield found("solver-test-interval", message, "error", "test_iter", "give test_interval, or remove test_iter")
    elif solver.test_interval and not iters:
        message = "gives test_interval and no test_iter: it never tests"
        yield found("solver-test-interval", message, "warning", "test_interval", "give test_iter")
    tests = max(iters, named)
    if len(solver.test_state) not in (0, tests):
        message = f"gives test_state {len(solver.test_state)} times for {tests} test net(s)"
        yield found("solver-test-state", message, "error", "test_state", "give it once for each test net, or not at all")


def _solver_kind(solver: Any) -> str:
    """The update rule's name, also from the old enum; both together is a finding of its own."""
    from . import upgrade

    try:
        return upgrade.solver(solver).type
    except InspectorError:
        return solver.type


def _solver_type_twice(net: Net) -> Iterator[Finding]:
    from . import upgrade

    if net.opened.solver is not None and net.opened.solver_document is not None:
        try:
            upgrade.solver(net.opened.solver)
        except InspectorError as error:
            yield replace(error.finding, where=net.opened.solver_document.position(("solver_type",)))


CHECKS: tuple[Callable[[Net], Iterator[Finding]], ...] = (
    _unused_tops,
    _names,
    _normalisation,
    _one_phase,
    _losses,
    _zero_start,
    _emptiness,
    _solver,
    _solver_type_twice,
)
