"""What differs between two nets by meaning, between two files of weights, and where two nets first give different numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from caffe_proto import caffe_pb2

from .graph import Node
from .layers import Shape, shape_text
from .lazy import np

if TYPE_CHECKING:
    from .caffemodel import StoredBlob, StoredModel
    from .net import Net

# fields that say who a layer is and what it is connected to; all others are settings
_IDENTITY = frozenset({"name", "type", "bottom", "top", "blobs", "phase"})


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that differs between nets. `follows` is true for what an earlier one explains, such as shapes behind it."""

    kind: str  # added, removed, renamed, moved, type, settings, wiring, shape, params, outputs
    layer: str
    what: str  # which setting, blob or parameter
    a: Any
    b: Any
    follows: bool = False

    def __str__(self) -> str:
        if self.kind in ("added", "removed"):
            return f"{self.kind} {self.layer} ({self.b or self.a})"
        if self.kind == "renamed":
            return f"renamed {self.a} to {self.b}"
        who = f"{self.layer}: " if self.layer else ""
        return f"{who}{self.what}: {_words(self.a)} became {_words(self.b)}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def _words(value: Any) -> str:
    if isinstance(value, tuple):
        return shape_text(value)
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "nothing"
    if value is None:
        return "unknown"
    return f"{value:g}" if isinstance(value, float) else str(value)


# ---- two nets


def nets(a: Net, b: Net) -> list[Difference]:
    """Layers added, removed, renamed, moved, rewired, settings changed, and the shapes that differ, in b's order where it has them.

    Layers are matched by name, then by what they do and read. A setting counts by its value: one that states its default equals one
    that leaves it out. Splits are Caffe's own and not compared.
    """
    left, right = _written(a), _written(b)
    pairs, renamed = _matched(left, right)
    names = {old.name: new.name for old, new in renamed}
    blobs = dict(_renamed_blobs(pairs))
    found = [Difference("renamed", new.name, "name", old.name, new.name) for old, new in renamed]
    taken_left, taken_right = {id(old) for old, _ in pairs}, {id(new) for _, new in pairs}
    found += [Difference("removed", node.name, "layer", node.type, None) for node in left if id(node) not in taken_left]
    found += [Difference("added", node.name, "layer", None, node.type) for node in right if id(node) not in taken_right]
    found += _moved(pairs, names)
    changed: set[int] = set()  # layers of b that something explains
    for old, new in pairs:
        found += _layer(old, new, blobs, changed)
    if a.outputs != b.outputs and [blobs.get(name, name) for name in a.outputs] != b.outputs:
        found.append(Difference("outputs", "", "outputs of the net", a.outputs, b.outputs))
    return found


def _written(net: Net) -> list[Node]:
    return [node for node in net.layers if node.origin is not None]


def _matched(left: Sequence[Node], right: Sequence[Node]) -> tuple[list[tuple[Node, Node]], list[tuple[Node, Node]]]:
    """Pairs of layers that are the same one, in b's order; and those of them that have another name."""
    by_name: dict[str, list[Node]] = {}
    for node in left:
        by_name.setdefault(node.name, []).append(node)
    partner: dict[int, Node] = {}
    for node in right:
        if by_name.get(node.name):
            partner[id(node)] = by_name[node.name].pop(0)
    taken = {id(node) for node in partner.values()}
    free_left = [node for node in left if id(node) not in taken]
    free_right = [node for node in right if id(node) not in partner]
    matcher = SequenceMatcher(None, [_deed(node) for node in free_left], [_deed(node) for node in free_right], autojunk=False)
    renamed = []
    for i, j, size in matcher.get_matching_blocks():
        for k in range(size):
            partner[id(free_right[j + k])] = free_left[i + k]
            renamed.append((free_left[i + k], free_right[j + k]))
    return [(partner[id(node)], node) for node in right if id(node) in partner], renamed


def _deed(node: Node) -> bytes:
    """What a layer does, whoever it is: type, settings and how many blobs it takes and makes."""
    proto = node.layer.proto
    copy = type(proto)()
    copy.CopyFrom(proto)
    for name in ("name", "bottom", "top", "blobs"):
        copy.ClearField(name)
    return bytes(copy.SerializeToString(deterministic=True)) + bytes((len(proto.bottom) & 255, len(proto.top) & 255))


def _renamed_blobs(pairs: Sequence[tuple[Node, Node]]) -> Iterator[tuple[str, str]]:
    """Blobs of matched layers whose names differ: those are renamed, and their readers are not rewired."""
    for old, new in pairs:
        for before, after in zip(old.layer.proto.top, new.layer.proto.top, strict=False):
            if before != after:
                yield before, after


def _moved(pairs: Sequence[tuple[Node, Node]], names: Mapping[str, str]) -> Iterator[Difference]:
    """Layers whose place among the common ones changed: those outside the longest run that kept its order."""
    before = [names.get(old.name, old.name) for old, _ in sorted(pairs, key=lambda pair: pair[0].index)]
    after = [new.name for _, new in pairs]
    if before == after:
        return
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    kept = {after[j + k] for _, j, size in matcher.get_matching_blocks() for k in range(size)}
    for place, name in enumerate(after):
        if name not in kept:
            yield Difference("moved", name, "place among the common layers", before.index(name), place)


def _layer(old: Node, new: Node, blobs: Mapping[str, str], changed: set[int]) -> Iterator[Difference]:
    name = new.name
    own = False
    if old.type != new.type:
        own = True
        yield Difference("type", name, "type", old.type, new.type)
    for path, before, after in settings(old.layer.proto, new.layer.proto):
        own = True
        yield Difference("settings", name, path, before, after)
    for what in ("bottom", "top"):
        before = [blobs.get(blob, blob) for blob in getattr(old.layer.proto, what)]
        after = list(getattr(new.layer.proto, what))
        if before != after:
            own = True
            yield Difference("wiring", name, what + "s", before, after)
    follows = not own and any(id(blob.maker) in changed for blob in new.bottoms)
    shapes = [(f"shape of {top.name}", was.shape, top.shape) for was, top in zip(old.tops, new.tops, strict=False)]
    params = zip(old.params or (), new.params or (), strict=False)
    shapes += [(f"shape of {now.name}", was.shape, now.shape) for was, now in params]
    for i, (what, before, after) in enumerate(shapes):
        if before != after:
            changed.add(id(new))
            kind = "shape" if i < min(len(old.tops), len(new.tops)) else "params"
            yield Difference(kind, name, what, before, after, follows or own)
    # a split hands on what its blob is
    for blob in new.tops:
        if id(new) in changed:
            changed.update(id(reader) for reader in blob.readers if reader.origin is None)


def settings(a: Any, b: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Settings of two messages that differ in value: (path, a's, b's). What is not set counts as its default."""
    for field in a.DESCRIPTOR.fields:
        name = field.name
        if not path and name in _IDENTITY:
            continue
        before, after = getattr(a, name), getattr(b, name)
        repeated = hasattr(before, "append") or hasattr(before, "add")
        if not repeated and field.message_type is None:
            if before != after and not (before != before and after != after):  # NaN is NaN
                yield path + name, _enum(field, before), _enum(field, after)
        elif field.message_type is None:
            if list(before) != list(after):
                yield path + name, list(before), list(after)
        elif not repeated:
            if a.HasField(name) or b.HasField(name):
                yield from settings(before, after, f"{path}{name}.")
        elif len(before) != len(after) and name != "param":
            yield path + name, f"{len(before)} given", f"{len(after)} given"
        else:
            default = caffe_pb2.ParamSpec()  # what a parameter without a param field gets
            for i, (one, other) in enumerate(zip_longest(before, after, fillvalue=default)):
                yield from settings(one, other, f"{path}{name}[{i}].")


def _enum(field: Any, value: Any) -> Any:
    if field.enum_type is None:
        return value
    known = field.enum_type.values_by_number.get(value)
    return known.name if known else value


# ---- files of weights


@dataclass(frozen=True, slots=True)
class BlobOutcome:
    """One parameter blob of two files: its shape in each, None where it is missing, and how far apart the values are.

    `verdict` is identical, close (within the tolerance), differs, reshaped, removed (in a only) or added (in b only). `apart`
    counts the values beyond the tolerance; `largest` is infinite where a value of one file is not finite.
    """

    layer: str
    index: int
    a: Shape | None
    b: Shape | None
    verdict: str
    apart: int | None = None
    largest: float | None = None
    relative: float | None = None  # to the largest magnitude in b

    @property
    def same(self) -> bool:
        return self.verdict in ("identical", "close")


def weights(a: StoredModel, b: StoredModel, rtol: float = 0.0, atol: float = 0.0) -> list[BlobOutcome]:
    """Every blob of both, matched by layer name and index. Values are apart where |a - b| > atol + rtol * |b|."""
    left, right = _stored(a), _stored(b)
    return [_blob(key, left.get(key), right.get(key), rtol, atol) for key in {**right, **left}]


def _blob(key: tuple[str, int], old: StoredBlob | None, new: StoredBlob | None, rtol: float, atol: float) -> BlobOutcome:
    if old is None or new is None:
        verdict = "added" if old is None else "removed"
        return BlobOutcome(*key, old.shape if old else None, new.shape if new else None, verdict)
    if _plain(old) != _plain(new):
        return BlobOutcome(*key, old.shape, new.shape, "reshaped")
    largest, relative, apart = _gap(old, new, rtol, atol)
    verdict = "differs" if apart else "close" if largest else "identical"
    return BlobOutcome(*key, old.shape, new.shape, verdict, apart, largest, relative)


def _stored(model: StoredModel) -> dict[tuple[str, int], StoredBlob]:
    return {(layer.name, blob.index): blob for layer in model.layers for blob in layer.blobs}


def _plain(blob: StoredBlob) -> Shape:
    """A shape without the ones that old files put in front."""
    shape = blob.shape
    while blob.legacy and len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return shape


def _gap(old: StoredBlob, new: StoredBlob, rtol: float, atol: float) -> tuple[float, float, int]:
    """Largest difference, the same relative to the largest magnitude, and how many values are apart."""
    largest = magnitude = 0.0
    count = 0
    for one, other in _together(old.blocks(), new.blocks()):
        with np.errstate(invalid="ignore"):  # infinite less infinite
            apart = np.abs(one.astype(np.float64) - other)
        equal = (one == other) | (np.isnan(one) & np.isnan(other))
        count += int((~equal & ~(apart <= atol + rtol * np.abs(other))).sum())
        largest = max(largest, float(np.nan_to_num(apart, nan=np.inf, posinf=np.inf)[~equal].max(initial=0)))
        magnitude = max(magnitude, float(np.nan_to_num(np.abs(other)).max(initial=0)))
    return largest, largest / (magnitude or 1.0), count


def _together(left: Iterator[np.ndarray], right: Iterator[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Two streams of blocks in parts of equal length."""
    one = other = np.empty(0, np.float32)
    while True:
        if not len(one):
            one = next(left, one)
        if not len(other):
            other = next(right, other)
        size = min(len(one), len(other))
        if not size:
            return
        yield one[:size], other[:size]
        one, other = one[size:], other[size:]


# ---- numbers


@dataclass(frozen=True, slots=True)
class Outcome:
    """One layer that both nets have, run on the same input: how far its tops are apart."""

    layer: str
    type: str
    top: str
    largest: float
    relative: float  # to the largest magnitude of b's value
    differs: bool


def run(a: Net, b: Net, inputs: Mapping[str, Any], rtol: float = 1e-5, atol: float = 1e-6) -> Iterator[Outcome]:
    """Run two nets side by side; an Outcome for every top of every layer that both have, in order, in the memory of a few blobs.

    A layer counts as the same if its name is; values differ where max |a - b| > atol + rtol * max |b|, or the shapes do.
    """
    steps_a, steps_b = _steps(a, inputs), _steps(b, inputs)
    waiting_a: dict[str, list[tuple[str, np.ndarray]]] = {}
    waiting_b: dict[str, list[tuple[str, np.ndarray]]] = {}
    names_a, names_b = {node.name for node in a.layers}, {node.name for node in b.layers}
    types = {node.name: node.type for node in b.layers}
    for step_a, step_b in zip_longest(steps_a, steps_b):
        for step, waiting, other, theirs in ((step_a, waiting_a, waiting_b, names_b), (step_b, waiting_b, waiting_a, names_a)):
            if step is None or step[0] not in theirs:
                continue
            name, tops = step
            if name not in other:
                waiting[name] = tops
                continue
            partner = other.pop(name)
            one, two = (tops, partner) if waiting is waiting_a else (partner, tops)
            yield from _outcomes(name, types[name], one, two, rtol, atol)


def _steps(net: Net, inputs: Mapping[str, Any]) -> Iterator[tuple[str, list[tuple[str, np.ndarray]]]]:
    executor = net.executor
    feeds = {net.blob(name).root: value for name, value in inputs.items() if name in net.blobs}
    for node in executor.walk(feeds):
        if node.origin is not None:
            yield node.name, [(blob.name, executor.values[blob]) for blob in node.tops]


def _outcomes(
    name: str, kind: str, a: list[tuple[str, np.ndarray]], b: list[tuple[str, np.ndarray]], rtol: float, atol: float
) -> Iterator[Outcome]:
    for (_, one), (top, other) in zip(a, b, strict=False):
        if one.shape != other.shape:
            yield Outcome(name, kind, top, float("inf"), float("inf"), True)
            continue
        apart = float(np.abs(one - other).max(initial=0))
        magnitude = float(np.abs(other).max(initial=0))
        differs = not apart <= atol + rtol * magnitude  # NaN differs
        yield Outcome(name, kind, top, apart, apart / (magnitude or 1.0), differs)
