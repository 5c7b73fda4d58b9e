"""A model built as the Caffe of a reference log would have built it, with what only that log knows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from caffe_proto import caffe_pb2

from . import log, logparse, opening, prototxt, upgrade
from .dialect import Dialect
from .draft import Draft
from .errors import InspectorError, Position
from .graph import Graph, Node
from .layers import Shape, Unknown
from .layers.python import Python
from .log import Line
from .logparse import NetFacts, is_split
from .net import PHASES, Net
from .translate import read, translated
from .whatif import batch_size

_NAMES_FILE = re.compile(r"(?:Attempting to upgrade [\w ]+ using deprecated [\w ]+|.*Failed to parse NetParameter file): (.*)")


@dataclass(slots=True)
class Modelled:
    """A model as the reference's Caffe would have built it: its graph, its log and the facts of that."""

    net: Net
    words: Dialect
    lines: list[Line]
    facts: NetFacts
    assumptions: list[str] = field(default_factory=list)
    places: Mapping[str, Position] = field(default_factory=dict)  # of layers in the text that people wrote
    fork: str = ""  # whose log the reference is

    @property
    def nodes(self) -> list[Node]:
        graph = self.net.graph
        return [*graph.nodes, *([graph.broken] if graph.broken is not None else [])]


def model(
    net: Net,
    reference: NetFacts,
    words: Dialect,
    *,
    debug: bool = False,
    fork: str = "",
    level: int = 0,
    stages: Sequence[str] = (),
) -> Modelled:
    """Build a net as `words` did, translated where that version could not have read it, with what only the reference knows.

    `net` is opened in the phase of the reference and with the shapes that the user gives. The reference settles what the model
    cannot know: the images of data layers, tops of layers of unknown type, and where its text says so level and stages.

    Raises InspectorError where the version could not say the net.
    """
    opened = net.opened
    stated = _state(reference)
    if stated is not None and not level and not stages:
        level, stages = stated.level, _callers(stated.stage, opened.proto.state.stage)
    edition = replace(words.edition, debug=debug)
    if edition.state == "caller" and stated is not None and not stated.HasField("level"):
        edition = replace(edition, state="phase")  # as the test nets of solvers, which are given no level
    as_read = read(opened, words)
    if _needs_translation(opened, as_read, words, reference):
        opened = translated(opened, words, PHASES[net.phase], level, stages)
    else:
        opened = as_read

    def built(given: Mapping[str, Shape]) -> Net:
        return Net(opened, net.phase, level, stages, given, edition, allow_python=net.allow_python)

    given = dict(net.given)
    made = built(given)
    assumptions: list[str] = []
    for _ in range(2):  # a source may hide what is unknown behind it
        more = {name: shape for name, shape in _unsettled(made.graph, reference, assumptions).items() if name not in given}
        if not more:
            break
        given.update(more)
        made = built(given)
    spoken = log.of(
        made, words, file=_file(reference) or net.opened.name, debug=debug, rows=_rows(reference), lenient=not reference.fatal
    )
    lines = list(spoken)
    facts = logparse.of_lines(lines)
    facts.phase = facts.phase or net.phase
    places = {node.name: where for node in net.graph.all_nodes if node.origin and (where := net.graph.locate(node.origin))}
    return Modelled(made, words, lines, facts, list(dict.fromkeys(assumptions)), places, fork)


def _needs_translation(opened: opening.Opened, as_read: opening.Opened, words: Dialect, reference: NetFacts) -> bool:
    """Whether a version that wrote the reference could not have read this file, though today's could."""
    if opened.proto.layer:
        return words.generation != "V2" or (not words.edition.input_layers and any(x.type == "Input" for x in opened.proto.layer))
    if reference.fatal or opening.parse_refusal(opened.findings) is not None:
        return False
    return opening.parse_refusal(as_read.findings) is not None


def _state(reference: NetFacts) -> Any:
    """The state that the reference's text says, if it does."""
    found = re.search(r"^state \{\n(?:[^}\n]*\n)*\}", reference.text or "", re.M)
    if found is None:
        return None
    try:
        return prototxt.parse(found[0], caffe_pb2.NetParameter, "<reference>").message.state  # type: ignore[attr-defined]
    except InspectorError:
        return None


def _callers(stated: Sequence[str], own: Sequence[str]) -> list[str]:
    """The stages that a caller gave: those that the reference states without the file's own, which stand first."""
    return list(stated[len(own) :] if list(stated[: len(own)]) == list(own) else stated)


def _file(reference: NetFacts) -> str:
    """The path by which the reference names its net; empty where nothing that names it was printed."""
    named = (_NAMES_FILE.fullmatch(record.text.rstrip("\n")) for record in (*reference.before, *reference.records))
    return next((match[1] for match in named if match), "")


def _unsettled(graph: Graph, reference: NetFacts, assumptions: list[str]) -> dict[str, Shape]:
    """Shapes that only the reference knows: of data sources beyond their batch and crop, and of layers of unknown type."""
    found: dict[str, Shape] = {}
    for node in graph.all_nodes or graph.nodes:
        theirs = reference.layer(node.name)
        if theirs is None or not (node.layer.data or isinstance(node.layer, (Unknown, Python))):
            continue
        loose = [top.shape is None for top in node.tops]
        supposed = bool(getattr(node.layer, "assumptions", ()))
        if not supposed and not any(loose):
            continue
        batch = batch_size(node)
        for i, (top, their_top) in enumerate(zip(node.tops, theirs.tops, strict=False)):
            shape = their_top.shape
            if shape is None or not (loose[i] or (supposed and i == 0)):
                continue
            known = node.layer.data and not isinstance(node.layer, Python)
            found[top.name] = (batch, *shape[1:]) if batch and shape and known else shape
            of = "source" if known else "type"
            assumptions.append(
                f"'{top.name}' is {' '.join(map(str, found[top.name]))}, from the reference: the {of} is not at hand"
            )
    return found


def _rows(reference: NetFacts) -> dict[str, int]:
    """How many lines the list files had that the reference's data layers read."""
    rows: dict[str, int] = {}
    source = ""
    for record in reference.records:
        if match := re.match(r"(?:Opening file|Loading list of HDF5 filenames from:|Loading filename from) (.*)", record.text):
            source = match[1]
        elif match := re.match(r"(?:A total of|Number of HDF5 files:|Number of files:) (\d{1,9})\b", record.text):
            rows[source] = int(match[1])
    return rows


# ---- which net of a log


def fitting(nets: Sequence[NetFacts], names: Mapping[str, Sequence[str]]) -> tuple[int, str]:
    """The net of a log that a model fits best, and in which phase: index and phase. `names` has the model's layers by phase."""
    best, score = (0, next(iter(names))), (-1.0, 0)
    for i, net in enumerate(nets):
        theirs = [layer.name for layer in net.layers if not is_split(layer)] or list(printed(net))
        for phase, ours in names.items():
            if net.phase and net.phase != phase and len({one.phase for one in nets} & names.keys()):
                continue
            common = len(set(theirs) & set(ours))
            share = 2 * common / max(1, len(set(theirs)) + len(set(ours)))
            if (share, net.phase == phase) > score:
                best, score = (i, phase), (share, int(net.phase == phase))
    return best


# ---- what a net's text says of its layers


def printed(net: NetFacts) -> dict[str, Any]:
    """The layers of the net's text as LayerParameters of today, by name; of a text that was cut, the layers before the cut."""
    text = net.text or ""
    if not net.text_complete:
        text = text[: text.rfind("\n}\n") + 3] if "\n}\n" in text else ""
    if not text:
        return {}
    try:
        message = prototxt.parse(text, caffe_pb2.NetParameter, "<reference>").message
        draft = upgrade.net(Draft(message))
    except InspectorError:
        return {}
    return {layer.name: layer for layer in draft.proto.layer}


def typed(net: NetFacts) -> None:
    """Fill in the layers' types, which only the net's text says; splits have no place in it."""
    layers = printed(net)
    for layer in net.layers:
        if not layer.type and (is_split(layer) or layer.name in layers):
            layer.type = "Split" if is_split(layer) and layer.name not in layers else layers[layer.name].type


def recovered(net: NetFacts) -> str:
    """The net's text as it was printed. Raises InspectorError where there is none or it was cut."""
    if net.text is None:
        remedy = "Caffe prints it from v0.9999 on, before the first layer"
        raise InspectorError("the log does not print the net", code="file", remedy=remedy)
    return net.text if net.text.endswith("\n") else net.text + "\n"


def layer_names(net: Net) -> list[str]:
    """The layers that a model has in its phase, without splits: what `fitting` goes by."""
    return [node.name for node in net.graph.all_nodes or net.graph.nodes if node.origin is not None]


def open_phase(name: str, phase: str) -> Net:
    """A model in a phase, as BVLC master builds it."""
    return Net(opening.file(name, PHASES[phase]), phase)
