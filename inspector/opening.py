"""What was opened: a net's message out of whatever a person names, recognised by content and never by file name."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, NoReturn

from caffe_proto import caffe_pb2

from . import prototxt, shelf
from .draft import Path
from .errors import Finding, Position, Refusal, UnreadableError
from .files import head, read_bytes

TRAIN = 0


@dataclass(slots=True)
class Opened:
    """A NetParameter as it was written, and where. `folder` is what relative paths inside it may be relative to."""

    proto: Any
    name: str  # as the person named it
    path: FilePath | None = None
    document: prototxt.Document | None = None
    locate: Callable[[Path], Position | None] = lambda path: None
    findings: list[Finding] = field(default_factory=list)
    solver: Any = None  # the SolverParameter that led here
    solver_document: prototxt.Document | None = None  # and its text
    state: Any = None  # the NetState that the solver sets for this net
    stored: Any = None  # caffemodel.StoredModel of a binary net, whose layers may hold weights

    @property
    def folder(self) -> FilePath:
        return self.path.parent if self.path else FilePath()


def text(source: str | bytes, name: str = "<text>", phase: int = 1) -> Opened:
    """A net from prototxt text; a solver's text leads to the net of that phase."""
    _refuse_giant(source, name)
    document = prototxt.parse(source, caffe_pb2.NetParameter, name)
    if is_solver(document):
        return _follow(prototxt.parse(source, caffe_pb2.SolverParameter, name), None, phase)
    _refuse_tangle(document.message, name)
    return Opened(document.message, name, None, document, document.position, list(document.findings))


def file(name: str | os.PathLike[str], phase: int = 1, *, follow: bool = True) -> Opened:
    """A net from a prototxt, a binary NetParameter, a solver (if that may be followed), or the name of a model that ships.

    Raises UnreadableError with what the file is instead, where that can be told.
    """
    path = FilePath(name)
    if not os.path.lexists(path):
        path = shelf.resolve(os.fspath(name))
    start, size = head(path, TEXT_SAMPLE)
    if looks_binary(start):
        return _binary(path, os.fspath(name), start, size)
    data = read_bytes(path)
    if not start and looks_binary(data):
        raise UnreadableError(f"'{name}' is binary and comes through a pipe", code="file", remedy="save it to a file first")
    _refuse_giant(data, os.fspath(name))
    try:
        document = prototxt.parse(data, caffe_pb2.NetParameter, os.fspath(name))
    except UnreadableError:
        refuse_foreign(data, os.fspath(name))  # an HTML page is text too
        raise
    if is_solver(document):
        if not follow:
            raise UnreadableError(f"'{name}', which a solver names as its net, is a solver itself", code="solver-without-net")
        return _follow(prototxt.parse(data, caffe_pb2.SolverParameter, os.fspath(name)), path, phase)
    _refuse_tangle(document.message, os.fspath(name))
    if not document.message.ListFields():
        refuse_foreign(data, os.fspath(name))
    return Opened(document.message, os.fspath(name), path, document, document.position, list(document.findings))


TEXT_SAMPLE = 1 << 16  # bytes by which text and binary are told apart
# Far above any net that was ever written, and low enough that a hostile text ends in an error within a second or two
MAX_LAYERS = 20_000
MAX_MESSAGES = 250_000
MAX_WIRES = 100_000
_LAYER = re.compile(rb"\blayers?[ \t\r\n]*:?[ \t\r\n]*[{<]")


def _refuse_giant(source: str | bytes, name: str) -> None:
    """Raise UnreadableError for a text with more layers than any net has, before time is spent on reading it."""
    data = source.encode("utf-8", "replace") if isinstance(source, str) else source
    if data.count(b"layer") > MAX_LAYERS and sum(1 for _ in _LAYER.finditer(data)) > MAX_LAYERS:
        _too_large(name, MAX_LAYERS, "layers")
    if data.count(b"{") + data.count(b"<") > MAX_MESSAGES:  # a list of layers, for one
        _too_large(name, MAX_MESSAGES, "messages")


def _refuse_tangle(message: Any, name: str) -> None:
    """Raise UnreadableError for more layers (written as a [list]), or more bottoms and tops, than any net has."""
    if len(message.layer) + len(message.layers) > MAX_LAYERS:
        _too_large(name, MAX_LAYERS, "layers")
    wires = sum(len(layer.bottom) + len(layer.top) for layers in (message.layer, message.layers) for layer in layers)
    if wires + len(message.input) > MAX_WIRES:
        _too_large(name, MAX_WIRES, "bottoms and tops")


def _too_large(name: str, most: int, what: str) -> NoReturn:
    raise UnreadableError(f"'{name}' has more than {most} {what}, which no net has", code="too-large")


_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x19\x1b-\x1f]")  # no prototxt has them; 0x1a ends old DOS files


def looks_binary(data: bytes) -> bool:
    """Whether this is no text: a control character that no prototxt has is among the first bytes."""
    return _CONTROL.search(data, 0, TEXT_SAMPLE) is not None


def refuse_foreign(data: bytes, name: str, size: int | None = None) -> None:
    """Raise UnreadableError for content of a known kind that is none of Caffe's; `size` is the file's where `data` is its start."""
    from .foreign import HEAD, recognise

    verdict = recognise(data[:HEAD], len(data) if size is None else size)
    if verdict:
        raise UnreadableError(f"'{name}': {verdict}", code="foreign-file")


def _binary(path: FilePath, name: str, start: bytes, size: int) -> Opened:
    refuse_foreign(start, name, size)
    from .caffemodel import open_model

    stored = open_model(path)
    return Opened(stored.proto, name, path, stored=stored)


# ---- solvers

_SOLVER_FIELDS = frozenset(field.name for field in caffe_pb2.SolverParameter.DESCRIPTOR.fields)
_NET_FIELDS = ("layer", "layers", "input")


def is_solver(document: prototxt.Document) -> bool:
    """A text whose top-level fields mean more to a solver than to a net."""
    message = document.message
    if any(len(getattr(message, name)) for name in _NET_FIELDS):
        return False
    return any(not unknown.path and unknown.name in _SOLVER_FIELDS for unknown in document.unknown)


def _follow(document: prototxt.Document, path: FilePath | None, phase: int) -> Opened:
    """The net that a solver names for a phase (Solver::InitTrainNet, InitTestNets): the first test net for TEST."""
    solver: Any = document.message
    name = document.name
    inline, file_name, where = _net_of(solver, phase)
    state = solver.train_state if phase == TRAIN else (solver.test_state[0] if solver.test_state else None)
    if inline is not None:
        _refuse_tangle(inline, name)
        result = Opened(inline, name, path, document, lambda inner: document.position((*where, *inner)), list(document.findings))
    elif file_name:
        target = beside(file_name, path)
        if target is None:
            raise UnreadableError(
                f"the solver names the net '{file_name}', which is neither below the current folder nor beside the solver",
                code="solver-net-missing",
                where=document.position(where),
                remedy="start where the path leads, or name the net itself",
            )
        result = file(target, phase, follow=False)
        result.findings = [*document.findings, *result.findings]
    else:
        raise UnreadableError(
            "the solver names no net for this phase",
            code="solver-without-net",
            where=document.position(()),
            remedy="give it a net, train_net or test_net",
        )
    result.solver, result.solver_document, result.state = solver, document, state
    return result


def _net_of(solver: Any, phase: int) -> tuple[Any, str, Path]:
    if phase == TRAIN:
        if solver.HasField("train_net_param"):
            return solver.train_net_param, "", ("train_net_param",)
        if solver.train_net:
            return None, solver.train_net, ("train_net",)
    else:
        if solver.test_net_param:
            return solver.test_net_param[0], "", ("test_net_param", 0)
        if solver.test_net:
            return None, solver.test_net[0], ("test_net", 0)
    if solver.HasField("net_param"):
        return solver.net_param, "", ("net_param",)
    return None, solver.net or (solver.train_net if phase != TRAIN else ""), ("net",)


def beside(name: str, solver: FilePath | None) -> FilePath | None:
    """Caffe takes the path from the current folder; people also start elsewhere, so the solver's folder and those above it
    count."""
    folders = [FilePath(), *(solver.resolve().parents if solver else ())]
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def parse_refusal(findings: list[Finding]) -> Refusal | None:
    """The first finding at which Caffe's own parser would have stopped, as a Refusal."""
    for finding in findings:
        if finding.severity == "error":
            refusal = Refusal(finding.message, code=finding.code)
            refusal.finding = finding
            return refusal
    return None
