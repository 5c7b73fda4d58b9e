"""A reference log against a model, by meaning: what differs, why that may be, and nothing that only follows from it.

Both sides are the same facts (`logparse`): the reference as it was read, the model as its own log in the reference's dialect.
Layers are aligned by name, so that one more or less stays a local affair; a connection is compared by which layer made the blob, so
that a renamed blob is one difference; a shape counts where it first goes wrong, and a memory total only where the shapes agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import Any

from . import compare, opening, recognise, whatif
from . import dialect as dialects
from .errors import Finding, Position
from .graph import Node
from .layers import Shape, Unknown
from .layers.python import Python
from .logmodel import Modelled, model, printed
from .logparse import LayerFacts, NetFacts, TopFacts, impersonal, is_split
from .net import Net

# refusals that speak of the machine, not of the net
_ENVIRONMENT = re.compile(
    r"Failed to open|File not found|Could not open|Unable to open|mdb_status|Cannot copy|out of memory|cuda|MDB_|fd != -1|db::",
    re.I,
)
# settings that name places on a machine: they say where a net was built, not what it is
_PLACES = ("source", "mean_file", "root_folder", "file_name", "backend", "prefetch", "cache_images", "shuffle", "rand_skip")


@dataclass(slots=True)
class Difference:
    """One thing in which a model differs from its reference. `code` says which kind: `log-shape`, `log-layer-missing`, ..."""

    code: str
    layer: str
    message: str
    hint: str = ""  # why, as a question
    line: int | None = None  # in the reference
    follows: int = 0  # later differences that this one explains
    what: str = "shape"  # what these are
    reference: Any = None
    model: Any = None
    where: Position | None = None  # in the model's text
    layer_type: str = ""
    order: float = 0.0  # its place among the reference's layers

    def sentence(self) -> str:
        """What differs, without the layer's name."""
        hint = f" ({self.hint})" if self.hint else ""
        plural = self.what if self.follows == 1 else f"{self.what}s"
        follows = f"; {self.follows} later {plural} follow{'s' * (self.follows == 1)} from it" if self.follows else ""
        return f"{self.message}{hint}{follows}"

    def __str__(self) -> str:
        return f"{self.layer}: {self.sentence()}" if self.layer else self.sentence()

    def finding(self) -> Finding:
        """The same as a finding about the model."""
        values = {"reference": self.reference, "model": self.model, "line": self.line, "follows": self.follows}
        return Finding(self.code, self.sentence(), "error", self.where, self.layer or None, self.layer_type or None, values=values)

    def data(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "code": self.code,
            "layer": self.layer or None,
            "message": self.message,
            "hint": self.hint or None,
            "line": self.line,
            "follows": self.follows,
            "reference": self.reference,
            "model": self.model,
        }


def shape_words(shape: Shape | None) -> str:
    """A shape as logs have it."""
    if shape is None:
        return "unknown"
    return " ".join(map(str, shape)) or "scalar"


# ---- the comparison

Maker = tuple[str, int, int]  # kind ("layer", "input", "nothing"), index of the layer, index of its top


class _Side:
    """One net's layers without its splits, and who made what each of them reads."""

    def __init__(self, net: NetFacts, names: Mapping[int, Sequence[str]] | None = None) -> None:
        """`names` has tops' names, by place among the layers, for those whose own are lost."""
        self.net = net
        self.layers: list[LayerFacts] = []
        self.index: list[int] = []  # in net.layers
        self.makers: list[list[Maker]] = []
        self.readers: dict[int, list[int]] = {}
        latest: dict[str, Maker] = {name: ("input", i, 0) for i, name in enumerate(net.inputs)}
        for i, layer in enumerate(net.layers):
            made = [latest.get(name, ("nothing", -1, 0)) for name in layer.bottoms]
            if is_split(layer):
                for top in layer.tops:
                    latest[top.name] = made[0] if made else ("nothing", -1, 0)
                continue
            at = len(self.layers)
            if names and at in names:
                tops = [replace(top, name=name) for top, name in zip(layer.tops, names[at], strict=False)]
                layer = replace(layer, tops=tops)
            self.layers.append(layer)
            self.index.append(i)
            self.makers.append(made)
            for kind, maker, _ in made:
                if kind == "layer":
                    self.readers.setdefault(maker, []).append(at)
            for k, top in enumerate(layer.tops):
                latest[top.name] = ("layer", at, k)

    def top(self, maker: Maker) -> TopFacts | None:
        kind, layer, top = maker
        return self.layers[layer].tops[top] if kind == "layer" else None

    def blob(self, maker: Maker, name: str) -> str:
        """The name of a blob without what splits made of it."""
        top = self.top(maker)
        return top.name if top is not None else name

    def bottom_shapes(self, at: int) -> list[Shape | None]:
        return [top.shape if (top := self.top(maker)) is not None else None for maker in self.makers[at]]


class Comparison:
    """Everything in which `ours` differs from `theirs`, in the reference's order."""

    def __init__(self, theirs: NetFacts, ours: Modelled) -> None:
        self.ours = ours
        self.nodes = ours.nodes
        self.edition = ours.net.edition
        self.r, self.m = _Side(theirs), _Side(ours.facts)
        self.printed = printed(theirs)
        self.found: list[Difference] = []
        self.pairs: dict[int, int] = {}  # reference's layer -> ours
        self.back: dict[int, int] = {}
        self.cause: dict[int, Difference] = {}  # a reference's layer -> what made its shape differ
        self.lost: dict[int, Difference] = {}  # a reference's layer that we lack
        self.extra: dict[int, Difference] = {}
        self.touched: dict[int, Difference] = {}  # pairs by the reference's layer -> what may explain their backward flags
        self.settings: dict[int, list[tuple[str, Any, Any]]] = {}
        self.unknown_loss = False  # a layer of a type that nobody knows counts in the loss
        self.renamed: dict[str, str] = {}  # blobs: reference's name -> ours
        self._run()

    # ---- the order of events

    def _run(self) -> None:
        self._ends()
        self._align()
        self._inputs()
        self._settings()
        for r, m in sorted(self.pairs.items()):
            self._wiring(r, m)
        for r, m in sorted(self.pairs.items()):
            self._shapes(r, m)
            self._losses(r, m)
            self._sharing(r, m)
        self._leftover_settings()
        self._backward()
        self._inner()
        self._outputs()
        self._memory()
        self._splits()
        for difference in self.found:
            if difference.where is None and difference.layer:
                difference.where = self.ours.places.get(difference.layer)
        self.found.sort(key=lambda difference: difference.order)

    def _add(self, code: str, layer: str, message: str, r: float, **rest: Any) -> Difference:
        difference = Difference(code, layer, message, order=r, **rest)
        node = self.nodes_by_name().get(layer)
        if node is not None:
            difference.layer_type = node.type
        self.found.append(difference)
        return difference

    def nodes_by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    def _node(self, m: int) -> Node | None:
        at = self.m.index[m]
        return self.nodes[at] if at < len(self.nodes) else None

    # ---- refusals

    def _ends(self) -> None:
        """Where one of them is refused."""
        theirs, ours = self.r.net, self.m.net
        said, says = impersonal(theirs.fatal), impersonal(ours.fatal)
        unread = opening.parse_refusal(self.ours.net.opened.findings)
        if unread is not None and not said and not says and not self.ours.fork:
            word = str(unread.values.get("field") or unread.values.get("value") or "")
            if not word or word not in (theirs.text or ""):
                self._add("log-refused", "", f"Caffe would refuse the model: {unread}", -1.0, where=unread.finding.where)
        if said == says:
            return
        line = theirs.lines.get("fatal")
        if said and _ENVIRONMENT.search(said):  # it says nothing of the net: what is there of the log is compared
            return
        if said and says:
            message = f"Caffe stops with other words: reference '{theirs.fatal}', model '{ours.fatal}'"
        elif said:
            message = f"the reference ends with '{theirs.fatal}', and the model is accepted"
        elif theirs.done:
            error = self.ours.net.error
            message = f"Caffe would refuse the model: {error if error is not None else ours.fatal}"
        else:
            return
        self._add("log-refused", "", message, -1.0, line=line, reference=theirs.fatal or None, model=ours.fatal or None)

    # ---- which layer is which

    def _align(self) -> None:
        names_r = [layer.name for layer in self.r.layers]
        names_m = [layer.name for layer in self.m.layers]
        lost: list[int] = []
        extra: list[int] = []
        blocks = SequenceMatcher(None, names_r, names_m, autojunk=False).get_opcodes()
        first, last = self._extent(blocks)
        for tag, r0, r1, m0, m1 in blocks:
            if tag == "equal":
                self.pairs.update(zip(range(r0, r1), range(m0, m1), strict=True))
                continue
            lost += range(r0, r1)
            extra += (m for m in range(m0, m1) if first <= m < last)
        self._moved(lost, extra)
        self._same_under_other_names(lost, extra)
        self.back = {m: r for r, m in self.pairs.items()}
        nameless = {r: m for r, m in self.pairs.items() if not self.r.layers[r].wired}
        if nameless:
            self.r = _Side(self.r.net, {r: [top.name for top in self.m.layers[m].tops] for r, m in nameless.items()})
        if self.m.net.fatal and not self.r.net.fatal:  # what stands behind our refusal is not missing
            end = max(self.pairs, default=-1)
            lost = [r for r in lost if r < end]
        for r in lost:
            layer = self.r.layers[r]
            message = f"the model has no such layer{_about(self.r, r)}"
            self.lost[r] = self._add("log-layer-missing", layer.name, message, r, line=layer.line)
        for m in extra:
            message = f"the reference has no such layer{_about(self.m, m)}"
            self.extra[m] = self._add("log-layer-extra", self.m.layers[m].name, message, self._place(m) + 0.5)

    def _extent(self, blocks: Sequence[tuple[str, int, int, int, int]]) -> tuple[int, int]:
        """Our layers that the reference could have: from its first on where its beginning is lost, up to its last likewise."""
        equal = [block for block in blocks if block[0] == "equal"]
        first, last = 0, len(self.m.layers)
        theirs = self.r.net
        if equal and not theirs.begun:
            first = equal[0][3]
        if equal and not theirs.done:
            last = equal[-1][4]
        return first, last

    def _moved(self, lost: list[int], extra: list[int]) -> None:
        """Layers that both have, at another place."""
        by_name = {self.m.layers[m].name: m for m in reversed(extra)}
        for r in list(lost):
            layer = self.r.layers[r]
            m = by_name.pop(layer.name, None)
            if m is None:
                continue
            lost.remove(r)
            extra.remove(m)
            self.pairs[r] = m
            before = self.r.layers[r - 1].name if r else ""
            after = self.m.layers[m - 1].name if m else ""
            theirs = f"behind '{before}'" if before else "first"
            ours = f"behind '{after}'" if after else "first"
            self.touched[r] = self._add(
                "log-order",
                layer.name,
                f"reference has it {theirs}, model {ours}",
                r,
                line=layer.line,
                reference=before or None,
                model=after or None,
            )

    def _same_under_other_names(self, lost: list[int], extra: list[int]) -> None:
        """Layers that stand at the same place between the same neighbours and do the same: those were renamed."""
        for r in list(lost):
            theirs = self.r.layers[r]
            neighbour = self.pairs.get(r - 1, -1 if r == 0 else -2)
            m = neighbour + 1
            if neighbour == -2 or m not in extra:
                continue
            ours = self.m.layers[m]
            node = self._node(m)
            kind = theirs.type or getattr(self.printed.get(theirs.name), "type", "")
            alike = [top.shape for top in theirs.tops] == [top.shape for top in ours.tops]
            alike = alike and len(theirs.bottoms) == len(ours.bottoms) and theirs.wired
            if not alike or (kind and node is not None and kind != node.type):
                continue
            lost.remove(r)
            extra.remove(m)
            self.pairs[r] = m
            self._add(
                "log-layer-renamed",
                ours.name,
                f"the reference calls it '{theirs.name}'",
                r,
                line=theirs.line,
                reference=theirs.name,
                model=ours.name,
            )

    def _place(self, m: int) -> float:
        """Where one of our layers would stand among the reference's."""
        while m >= 0 and m not in self.back:
            m -= 1
        return float(self.back.get(m, -1))

    def _inputs(self) -> None:
        theirs, ours = self.r.net.inputs, self.m.net.inputs
        if self.r.net.begun and theirs != ours and ("input" in self.r.net.places or "input" in self.m.net.places):
            message = f"inputs of the net: reference {_listed(theirs)}, model {_listed(ours)}"
            self._add("log-inputs", "", message, -1.0, reference=theirs, model=ours)

    # ---- settings, where the reference prints its net

    def _settings(self) -> None:
        theirs = self.printed
        if not theirs:
            return
        ours = printed(self.m.net)
        for r, m in self.pairs.items():
            old, new = theirs.get(self.r.layers[r].name), ours.get(self.m.layers[m].name)
            if old is None or new is None:
                continue
            if old.type != new.type:
                self.settings[r] = [("type", old.type, new.type)]
                continue
            changed = [
                change for change in compare.settings(_settled(old), _settled(new)) if change[0].rpartition(".")[2] not in _PLACES
            ]
            if changed:
                self.settings[r] = changed

    def _take(self, r: int, *names: str) -> list[tuple[str, Any, Any]]:
        """Settings of a layer that explain a difference, which need no mention of their own then."""
        taken = [change for change in self.settings.get(r, ()) if _short(change[0]) in names]
        if taken:
            self.settings[r] = [change for change in self.settings[r] if change not in taken]
        return taken

    def _leftover_settings(self) -> None:
        for r, changes in self.settings.items():
            name = self.m.layers[self.pairs[r]].name
            others = [change for change in changes if _short(change[0]) not in ("lr_mult", "loss_weight", "propagate_down")]
            for path, before, after in others:
                message = f"{path}: reference {_plain(before)}, model {_plain(after)}"
                line = self.r.layers[r].line
                self._add("log-setting", name, message, r, line=line, reference=_plain(before), model=_plain(after))
            self.settings[r] = [change for change in changes if change not in others]

    # ---- connections

    def _wiring(self, r: int, m: int) -> None:
        theirs, ours = self.r.layers[r], self.m.layers[m]
        if not theirs.wired or not ours.wired:
            return
        if not self._is_whole(r):
            return
        self._tops(r, m)
        reads_r = self._reads(self.r, r)
        reads_m = self._reads(self.m, m)
        if len(reads_r) == len(reads_m) and all(self._same_blob(a, b) for a, b in zip(reads_r, reads_m, strict=True)):
            return
        missing = [a for a in reads_r if not any(self._same_blob(a, b) for b in reads_m)]
        added = [b for b in reads_m if not any(self._same_blob(a, b) for a in reads_r)]
        reasons = [self.lost[maker[1]] for _, maker in missing if maker[0] == "layer" and maker[1] in self.lost]
        reasons += [self.extra[maker[1]] for _, maker in added if maker[0] == "layer" and maker[1] in self.extra]
        if reasons and len(missing) <= max(1, len(reasons)):
            self.touched.setdefault(r, reasons[0])
            return
        names_r, names_m = [name for name, _ in reads_r], [name for name, _ in reads_m]
        message = f"reference reads {_listed(names_r)}, model {_listed(names_m)}"
        rest = {"line": theirs.line, "reference": names_r, "model": names_m}
        self.touched[r] = self._add("log-bottoms", ours.name, message, r, **rest)

    def _is_whole(self, r: int) -> bool:
        """Whether the log goes on behind this layer's wiring, so that it is all there."""
        layer = self.r.layers[r]
        return layer is not self.r.net.layers[-1] or self.r.net.done or bool(layer.shaped)

    def _reads(self, side: _Side, at: int) -> list[tuple[str, Maker]]:
        layer = side.layers[at]
        return [(side.blob(maker, name), maker) for maker, name in zip(side.makers[at], layer.bottoms, strict=True)]

    def _same_blob(self, a: tuple[str, Maker], b: tuple[str, Maker]) -> bool:
        """Whether a bottom of theirs and one of ours are the same blob: by who made it, or by name, the maker having been moved."""
        (name_a, maker_a), (name_b, maker_b) = a, b
        if maker_a[0] == maker_b[0] == "layer" and self.pairs.get(maker_a[1]) == maker_b[1] and maker_a[2] == maker_b[2]:
            return True
        if maker_a[0] == maker_b[0] == "input" and maker_a[1] == maker_b[1]:
            return True
        return self.renamed.get(name_a, name_a) == name_b

    def _tops(self, r: int, m: int) -> None:
        theirs, ours = self.r.layers[r], self.m.layers[m]
        if len(theirs.tops) != len(ours.tops):
            a, b = [top.name for top in theirs.tops], [top.name for top in ours.tops]
            message = f"reference makes {_listed(a)}, model {_listed(b)}"
            self.touched[r] = self._add("log-tops", ours.name, message, r, line=theirs.line, reference=a, model=b)
            return
        for old, new in zip(theirs.tops, ours.tops, strict=True):
            if old.in_place != new.in_place:
                does = [f"works in place on '{t.name}'" if t.in_place else f"makes '{t.name}'" for t in (old, new)]
                why = "takes memory of its own" if old.in_place else "overwrites what it reads"
                message = f"reference {does[0]}, model {does[1]}, which {why}"
                rest = {"line": theirs.line, "reference": old.in_place, "model": new.in_place}
                self.touched[r] = self._add("log-in-place", ours.name, message, r, **rest)
                if old.name != new.name:
                    self.renamed[old.name] = new.name if old.in_place else self.renamed.get(old.name, new.name)
            elif old.name != new.name and old.name:
                if old.in_place and self.renamed.get(old.name) == new.name:
                    continue
                if not old.in_place:
                    self.renamed[old.name] = new.name
                message = f"reference names its top '{old.name}', model '{new.name}'"
                self._add("log-top-renamed", ours.name, message, r, line=theirs.line, reference=old.name, model=new.name)

    # ---- shapes

    def _shapes(self, r: int, m: int) -> None:
        theirs, ours = self.r.layers[r], self.m.layers[m]
        wrong = [
            (i, old.shape, new.shape)
            for i, (old, new) in enumerate(zip(theirs.tops, ours.tops, strict=False))
            if old.shape is not None and new.shape is not None and not self._same_shape(old.shape, new.shape)
        ]
        if not wrong:
            return
        before = self._before(r)
        below = self._below(r, m)
        node = self._node(m)
        reads = [shape for shape in before if shape is not None]
        if below is not None:
            expected = self._would_give(node, reads) if len(reads) == len(before) else None
            if expected is None or self._agree(expected, theirs):
                below.follows += len(wrong)
                self.cause[r] = below
                return
        i, old, new = wrong[0]
        top = f"top '{ours.tops[i].name}': " if len(ours.tops) > 1 else ""
        message = f"{top}reference {shape_words(old)}, model {shape_words(new)}"
        difference = self._add(
            "log-shape",
            ours.name,
            message,
            r,
            hint=self._hint(r, node, reads, theirs),
            line=theirs.tops[i].line or theirs.line,
            follows=len(wrong) - 1,
            reference=list(old),
            model=list(new),
        )
        self.cause[r] = difference

    def _same_shape(self, theirs: Shape, ours: Shape) -> bool:
        if self.r.net.flat:  # channels, height and width only
            return theirs == ours[1:] or theirs == ours
        return theirs == ours

    def _before(self, r: int) -> list[Shape | None]:
        """What the reference's layer reads; a net's input, whose shape logs do not say, is taken to be ours."""
        shapes = self.r.bottom_shapes(r)
        m = self.pairs[r]
        nets = [blob.shape for blob in self.ours.net.graph.net_inputs]
        for j, maker in enumerate(self.r.makers[r]):
            if maker[0] == "input" and maker[1] < len(nets):
                shapes[j] = nets[maker[1]]
        node = self._node(m)
        if self.r.net.flat and node is not None:
            shapes = [
                (blob.shape[0], *shape) if shape is not None and blob.shape else shape
                for blob, shape in zip(node.bottoms, shapes, strict=False)
            ]
        return shapes

    def _below(self, r: int, m: int) -> Difference | None:
        """What made a bottom differ, if one does."""
        for maker in self.r.makers[r]:
            if maker[0] == "layer":
                if maker[1] in self.cause:
                    return self.cause[maker[1]]
                if maker[1] in self.lost:
                    return self.lost[maker[1]]
        for maker in self.m.makers[m]:
            if maker[0] == "layer" and maker[1] in self.extra:
                return self.extra[maker[1]]
        for j, old in enumerate(self._before(r)):
            ours = self.m.bottom_shapes(m)
            if j < len(ours) and old is not None and ours[j] is not None and not self._same_shape(old, ours[j] or ()):
                return self.touched.get(r) or next(iter(self.found), None)
        return self.touched.get(r) if len(self.r.makers[r]) != len(self.m.makers[m]) else None

    def _would_give(self, node: Node | None, reads: Sequence[Shape]) -> list[Shape] | None:
        """Our layer's tops on the reference's bottoms; None where nobody can tell."""
        if node is None or isinstance(node.layer, (Unknown, Python)) or node.layer.data:
            return None
        return whatif.shapes_of(node.layer, reads, self.edition)

    def _agree(self, shapes: Sequence[Shape], theirs: LayerFacts) -> bool:
        return all(top.shape is None or self._same_shape(top.shape, shape) for top, shape in zip(theirs.tops, shapes, strict=False))

    def _hint(self, r: int, node: Node | None, reads: Sequence[Shape], theirs: LayerFacts) -> str:
        """The setting whose change makes the difference, as a question; what the reference's text says of it goes first."""
        if node is None:
            return ""
        if node.type == "Input":
            self._take(r, "dim")
            return ""
        changes = self.settings.get(r, [])
        stated = {
            _short(path): (before, after) for path, before, after in changes if "filler" not in path
        }  # no shape depends on one
        if "type" in stated:
            self._take(r, "type")
            return f"type {stated['type'][0]} became {stated['type'][1]}?"
        wanted = [top.shape for top in theirs.tops if top.shape is not None]
        if self.r.net.flat:
            wanted = [(node.tops[i].shape or (0,))[:1] + shape for i, shape in enumerate(wanted)]
        found = whatif.guesses(node, reads, wanted, self.edition)
        known = [guess for guess in found if guess.name in stated]
        if not known:
            known = [whatif.Guess(name, *map(_plain, stated[name])) for name in stated if name in whatif.GEOMETRY]
        if known:
            self._take(r, *(guess.name for guess in known))
            return ", ".join(map(str, known)) + "?"
        return " or ".join(f"{guess}?" for guess in found[:2])

    # ---- the rest of a layer

    def _losses(self, r: int, m: int) -> None:
        theirs, ours = self.r.layers[r], self.m.layers[m]
        for old, new in zip(theirs.tops, ours.tops, strict=False):
            if old.shape is None or new.shape is None or old.loss_weight == new.loss_weight:
                continue
            node = self._node(m)
            if node is not None and isinstance(node.layer, Unknown) and not node.layer.proto.loss_weight:
                self.unknown_loss = True  # whether a type is a loss, only those know who have it
                self.ours.assumptions.append(
                    f"'{ours.name}' ({node.type}) is a loss, from the reference: which layers need backward is not compared"
                )
                continue
            name = f" of '{new.name}'" if len(ours.tops) > 1 else ""
            message = f"loss weight{name}: reference {old.loss_weight:g}, model {new.loss_weight:g}"
            self._take(r, "loss_weight")
            self.touched[r] = self._add(
                "log-loss-weight", ours.name, message, r, line=old.line, reference=old.loss_weight, model=new.loss_weight
            )

    def _sharing(self, r: int, m: int) -> None:
        theirs, ours = self.r.layers[r], self.m.layers[m]
        if sorted(theirs.shares) == sorted(ours.shares) or (not theirs.shares and not self.r.net.done):
            return

        def words(shares: Iterable[tuple[str, str, int]]) -> str:
            return ", ".join(f"'{param}' of '{owner}'" for param, owner, _ in shares) or "nothing"

        message = f"shares parameters: reference {words(theirs.shares)}, model {words(ours.shares)}"
        self._take(r, "name")
        self._add("log-sharing", ours.name, message, r, line=theirs.line)

    def _inner(self) -> None:
        """Nets that recurrent layers build: the first thing that differs in each says enough."""
        for r, m in self.pairs.items():
            theirs, ours = self.r.layers[r], self.m.layers[m]
            for old, new in zip(theirs.inner, ours.inner, strict=False):
                a, b = ([(layer.name, [top.shape for top in layer.tops]) for layer in net.layers] for net in (old, new))
                if a == b or r in self.cause or self._below(r, m) is not None:
                    continue
                at = next((i for i, pair in enumerate(zip(a, b, strict=False)) if pair[0] != pair[1]), min(len(a), len(b)))
                layer = (old.layers[at : at + 1] or new.layers[at : at + 1])[0]
                message = f"the net inside differs from layer '{layer.name}' on"
                self._add("log-inner", ours.name, message, r, line=layer.line)

    # ---- backward

    def _backward(self) -> None:
        """One difference for all layers that lose or win their gradient together."""
        if self.unknown_loss:
            return
        wrong = {
            r: m
            for r, m in self.pairs.items()
            if self.r.layers[r].backward is not None
            and self.m.layers[m].backward is not None
            and self.r.layers[r].backward != self.m.layers[m].backward
        }
        left = dict(sorted(wrong.items()))
        while left:
            group = self._group(next(iter(left)), wrong)
            reason = next((self.touched[r] for r in sorted(group) if r in self.touched), None) or self._beside(group)
            first = min(group)
            for r in group:
                left.pop(r, None)
            if reason is not None:
                continue
            root, changes = self._root(group, first)
            layer = self.r.layers[root]
            needs = "needs" if layer.backward else "does not need"
            ours = "does not" if layer.backward else "does"
            why = "it would not learn" if layer.backward else "it would learn, or pass on what learns"
            hint = ", ".join(f"{_short(path)} {_plain(a)} became {_plain(b)}" for path, a, b in changes)
            self._add(
                "log-backward",
                self.m.layers[wrong[root]].name,
                f"reference {needs} backward computation, model {ours}: {why}",
                root,
                hint=hint + "?" * bool(hint),
                line=layer.lines.get("backward", layer.line),
                follows=len(group) - 1,
                what="backward decision",
                reference=layer.backward,
                model=not layer.backward,
            )
        for r, changes in self.settings.items():
            name = self.m.layers[self.pairs[r]].name
            for path, before, after in changes:
                message = f"{path}: reference {_plain(before)}, model {_plain(after)}"
                self._add("log-setting", name, message, r, line=self.r.layers[r].line)

    def _root(self, group: set[int], first: int) -> tuple[int, list[tuple[str, Any, Any]]]:
        """The layer whose settings made the difference, failing these the first."""
        for r in sorted(group):
            changes = self._take(r, "lr_mult", "propagate_down", "loss_weight")
            if changes:
                return r, changes
        return first, []

    def _group(self, start: int, wrong: Mapping[int, int]) -> set[int]:
        group, todo = {start}, [start]
        while todo:
            r = todo.pop()
            near = [maker[1] for maker in self.r.makers[r] if maker[0] == "layer"] + self.r.readers.get(r, [])
            for other in near:
                if other in wrong and other not in group:
                    group.add(other)
                    todo.append(other)
        return group

    def _beside(self, group: set[int]) -> Difference | None:
        """A difference next to a group of layers: a layer that is missing, or one that reads or makes other blobs."""
        for r in sorted(group):
            near = [maker[1] for maker in self.r.makers[r] if maker[0] == "layer"] + self.r.readers.get(r, [])
            for other in near:
                if other in self.lost or other in self.touched:
                    return self.lost.get(other) or self.touched[other]
            m = self.pairs[r]
            for other in [maker[1] for maker in self.m.makers[m] if maker[0] == "layer"] + self.m.readers.get(m, []):
                if other in self.extra:
                    return self.extra[other]
        return None

    # ---- the whole net

    def _outputs(self) -> None:
        theirs, ours = self.r.net, self.m.net
        if not theirs.done or ours.fatal:
            return
        a = {self.renamed.get(name, name) for name in theirs.outputs}
        b = set(ours.outputs)
        structural = {"log-layer-missing", "log-layer-extra", "log-bottoms", "log-tops", "log-in-place"}
        if a == b or any(difference.code in structural for difference in self.found):
            return
        message = f"outputs: reference {_listed(theirs.outputs)}, model {_listed(ours.outputs)}"
        line = theirs.lines.get("output")
        self._add("log-outputs", "", message, 1e9, line=line, reference=theirs.outputs, model=ours.outputs)

    def _memory(self) -> None:
        """Figures, where all that they count agrees."""
        if any(d.code in _COUNTED for d in self.found) or self.r.net.flat:
            return
        deltas_r, deltas_m = _deltas(self.r.net), _deltas(self.m.net)
        wrong = []
        for r, m in sorted(self.pairs.items()):
            a, b = deltas_r.get(self.r.index[r]), deltas_m.get(self.m.index[m])
            if a is not None and b is not None and a != b:
                wrong.append((r, m, a, b))
        theirs, ours = self.r.net, self.m.net
        if not wrong:
            if theirs.memory is None or ours.memory is None or theirs.memory == ours.memory or not theirs.begun or not theirs.done:
                return
            self._total(theirs, ours)
            return
        units = {4 * a / b if b else 0 for _, _, a, b in wrong}
        if len(units) == 1 and (unit := units.pop()) in (2, 8) and len(wrong) > 1:
            message = f"memory: the reference counts {unit:g} bytes for each number, which Caffe with another type does"
            self._add("log-memory", "", message, 1e9, reference=theirs.memory, model=ours.memory)
            return
        r, m, a, b = wrong[0]
        self._add(
            "log-memory",
            self.m.layers[m].name,
            f"memory of its tops: reference {a} bytes, model {b}",
            r,
            line=self.r.layers[r].lines.get("memory"),
            follows=len(wrong) - 1,
            what="memory figure",
            reference=a,
            model=b,
        )

    def _total(self, theirs: NetFacts, ours: NetFacts) -> None:
        message = f"memory required for data: reference {theirs.memory}, model {ours.memory}"
        line = theirs.lines.get("memory")
        self._add("log-memory", "", message, 1e9, line=line, reference=theirs.memory, model=ours.memory)

    def _splits(self) -> None:
        """Splits follow from connections and losses; only where these agree they are worth a word."""
        if self.found or not self.r.net.begun or not self.r.net.done:
            return
        a, b = ([layer.name for layer in side.net.layers if is_split(layer)] for side in (self.r, self.m))
        if a != b:
            message = f"splits: reference {_listed(a)}, model {_listed(b)}"
            self._add("log-splits", "", message, 1e9, reference=a, model=b)


_COUNTED = {
    "log-shape",
    "log-bottoms",
    "log-layer-missing",
    "log-layer-extra",
    "log-tops",
    "log-in-place",
    "log-refused",
    "log-inner",
}


def _deltas(net: NetFacts) -> dict[int, int]:
    """Bytes that each layer added to the running figure, where it and the one before it are known."""
    found, before = {}, 0 if net.begun else None
    if net.begun and net.places.get("memory-inputs"):
        inputs = next((r for r in net.records if r.text.startswith("Memory")), None)
        before = int(re.sub(r"\D", "", inputs.text) or 0) if inputs is not None else 0
    for i, layer in enumerate(net.layers):
        if before is not None and layer.memory is not None:
            found[i] = layer.memory - before
        before = layer.memory
    return found


def _about(side: _Side, at: int) -> str:
    """Where a layer stands that only one of them has, and what it works on."""
    layer = side.layers[at]
    reads = [side.blob(maker, name) for maker, name in zip(side.makers[at], layer.bottoms, strict=True)]
    parts = [f"reads {_listed(reads)}"] if reads else []
    if any(top.in_place for top in layer.tops):
        parts.append("works in place")
    elif layer.tops and layer.tops[0].name:
        parts.append(f"makes {_listed([top.name for top in layer.tops])}")
    if at:
        parts.append(f"stands behind '{side.layers[at - 1].name}'")
    return f": it {', '.join(parts)}" if parts else ""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "nothing"


def _plain(value: Any) -> Any:
    """A setting's value in a sentence: the one of a list of one, truth as the prototxt has it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ", ".join(map(str, value)) if value else "none"
    if isinstance(value, float):
        return f"{value:g}"
    return value


def _short(path: str) -> str:
    return re.sub(r"\[\d+\]", "", path.rpartition(".")[2])


def _settled(layer: Any) -> Any:
    """A LayerParameter with repeated settings at their usual value where they are left out, so that both ways compare equal."""
    copy = type(layer)()
    copy.CopyFrom(layer)
    for name in ("include", "exclude", "blobs"):
        copy.ClearField(name)
    if copy.HasField("convolution_param"):
        for name, usual in whatif.USUAL.items():
            values = getattr(copy.convolution_param, name)
            if not values and not (name != "dilation" and copy.convolution_param.HasField(f"{name}_h")):
                values.append(usual)
    return copy


# ---- the front door


@dataclass(slots=True)
class Outcome:
    """What came of holding a model against a reference."""

    net: int  # which net of the log, from 0
    reference: NetFacts
    recognised: recognise.Recognised
    model: Modelled
    differences: list[Difference]

    @property
    def same(self) -> bool:
        return not self.differences


def diff(
    net: Net,
    nets: Sequence[NetFacts],
    number: int,
    *,
    dialect: str | None = None,
    debug: bool | None = None,
    level: int = 0,
    stages: Sequence[str] = (),
) -> Outcome:
    """Hold a model, opened in the right phase, against one net of a log. `dialect` overrules what is recognised.

    Raises InspectorError where the version could not say the net.
    """
    reference = nets[number]
    known = recognise.recognise(reference)
    words = dialects.load(dialect or known.dialect)
    if "init" in words.say and "init" not in reference.places:  # it would have printed the net first
        reference = replace(reference, begun=False)
    made = model(
        net,
        reference,
        words,
        debug=known.debug if debug is None else debug,
        fork=known.fork,
        level=level,
        stages=stages,
    )
    return Outcome(number, reference, known, made, Comparison(reference, made).found)
