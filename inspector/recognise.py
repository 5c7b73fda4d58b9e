"""Which Caffe a log is from, seen from the log itself: the source lines of its statements, and where these fail its words.

`signatures.tsv` has the source line of each statement of net.cpp after every change on BVLC's master from 2014 to 2017, and of the
forks that people published logs of. A log is compared by one of our dialects, which is the version itself or the one that
behaved alike nearest to it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from . import dialect as dialects
from .dialect import Dialect
from .logparse import NetFacts

FILE = Path(__file__).with_name("signatures.tsv")
MOST = 0.75  # of the statements at a version's lines: the log is of a relative that changed a few, or was damaged
_SSD = re.compile(r'type: "(?:PriorBox|MultiBoxLoss|DetectionOutput|AnnotatedData|DetectionEvaluate)"')


@dataclass(frozen=True, slots=True)
class Recognised:
    """The version of a log. `dialect` names the one of ours to compare by; `version` says it for people."""

    dialect: str
    version: str
    confidence: str  # "exact": its source lines | "near": those of no version of ours | "words": there are no source lines
    also: tuple[str, ...] = ()  # dialects that said all this at the same lines
    debug: bool = False  # a debug build
    fork: str = ""

    def sentence(self, what: str = "the reference") -> str:
        """What was recognised, and how surely."""
        build = ", a debug build" if self.debug else ""
        also = f" (or {', '.join(self.also)}, whose words and lines are the same)" if self.also else ""
        if self.confidence == "exact":
            return f"{what} is of {self.version}{build}{also}, by its source lines"
        by = "by its source lines" if self.confidence == "near" else "by its words only, for it has no source lines"
        return f"{what} is of {self.version}{build}, {by}; it is compared as {self.dialect}"


@dataclass(frozen=True, slots=True)
class Signature:
    """One row of the table: when net.cpp was so, or which fork's it is; statement -> printed line."""

    since: str
    until: str
    name: str
    lines: Mapping[str, int]


@cache
def signatures() -> tuple[Signature, ...]:
    """The table."""
    head, *rows = FILE.read_text(encoding="utf-8").splitlines()
    names = head.split("\t")[3:]
    found = []
    for row in rows:
        since, until, name, *cells = row.split("\t")
        found.append(Signature(since, until, name, {key: int(cell) for key, cell in zip(names, cells) if cell}))
    return tuple(found)


def recognise(net: NetFacts) -> Recognised:
    """The version that wrote a net's log. A log says too little only where nothing of a net's construction is in it."""
    seen = dict(_seen(net))
    known = [dialects.load(name) for name in dialects.names()]
    scores = {words.name: (_share(seen, words), *_alike(net, words)) for words in known}
    # of equals the newest release, and one between releases only where no release fits
    best = max(known, key=lambda words: (scores[words.name], not words.name[:4].isdigit(), words.released))
    share = scores[best.name][0]
    debug = _is_debug(net, best)
    fork = _fork(net)
    if not seen:
        return Recognised(best.name, fork or f"the age of {best.name}", "words", (), debug, fork)
    signature = _signature(seen) if share < MOST or fork else None
    if fork and not fork.startswith("SSD"):
        version = signature.name if signature and signature.name.startswith(fork.split()[0]) else fork
        return Recognised(best.name, version, "near", (), debug, version)
    if share == 1:
        also = tuple(words.name for words in known if words is not best and scores[words.name] == scores[best.name])
        version = f"{fork}, built on {best.name}" if fork else f"BVLC Caffe {best.name}"
        return Recognised(best.name, version, "exact", also, debug, fork)
    if signature is not None and not signature.since:
        return Recognised(_nearest(net, known, "").name, signature.name, "near", (), debug, signature.name)
    if signature is not None:
        best = _nearest(net, known, signature.until)
        version = "BVLC Caffe of " + " to ".join(dict.fromkeys((signature.since, signature.until)))
        return Recognised(best.name, version, "near", (), _is_debug(net, best), "")
    best = best if share >= MOST else _nearest(net, known, "")
    return Recognised(best.name, f"a relative of BVLC Caffe {best.name}", "near", (), debug, "")


def _nearest(net: NetFacts, known: list[Dialect], date: str) -> Dialect:
    """The dialect that behaves as this log shows, and of several the one nearest in time."""
    alike = {words.name: _alike(net, words)[0] for words in known}
    most = max(alike.values())
    equals = [words for words in known if alike[words.name] == most]
    later = [words for words in equals if date and words.released >= date[: len(words.released)]]
    return later[0] if later else equals[-1]


def _seen(net: NetFacts) -> Iterator[tuple[str, set[str]]]:
    """Statement -> the places where it was said, of net.cpp and the layer factory; failing these, those of the `other` words."""
    nothing = True
    for kind, places in net.places.items():
        found = {place for place in places if place.startswith(("net.cpp:", "layer_factory.hpp:"))}
        if found:
            nothing = False
            yield kind, found
    rules = {record.place for record in net.before if record.file == "net.cpp"}
    if rules:
        nothing = False
        yield "rule", rules
    others = {f"{record.level} {record.place}" for record in (*net.before, *net.records) if record.file}
    if nothing and others:
        yield "other", others


def _expected(words: Dialect, kind: str) -> set[str]:
    if kind == "other":
        return {f"{one.level} {one.place}" for one in (*words.say.values(), *words.refusals.values())}
    keys = {
        "memory-layer": ["memory" if words.order.memory == "layer" else "memory-debug"],
        "memory-end": ["memory"] if words.order.memory == "end" else [],
        "rule": ["rule-phase", "rule-min-level", "rule-max-level", "rule-stage", "rule-not-stage"],
    }.get(kind, [kind])
    return {words.say[key].place for key in keys if key in words.say}


def _share(seen: Mapping[str, set[str]], words: Dialect) -> float:
    """How many of the statements stand where the dialect has them."""
    met = 0.0
    for kind, places in seen.items():
        expected = _expected(words, kind)
        met += len(places & expected) / len(places) if kind == "other" else places <= expected
    return met / max(1, len(seen))


def _signature(seen: Mapping[str, set[str]]) -> Signature | None:
    """The row with most statements at their lines: at least three, and three quarters of what it knows."""
    lines = {kind: {int(place.rpartition(":")[2]) for place in places if "net.cpp" in place} for kind, places in seen.items()}

    def met(row: Signature) -> tuple[bool, float, int]:
        known = [kind for kind in lines if kind in row.lines and lines[kind]]
        hits = sum(row.lines[kind] in lines[kind] for kind in known)
        return hits >= 3, hits / max(1, len(known)), hits

    best = max(signatures(), key=met)
    enough, share, _ = met(best)
    return best if enough and share >= MOST else None


def _alike(net: NetFacts, words: Dialect) -> tuple[int, int]:
    """Points for behaviour that this log shows, then for other statements at the lines of the dialect."""
    shown: Counter[bool] = Counter()
    kinds = net.places.keys()
    if net.begun and net.layers:
        shown[("init" in kinds) == ("init" in words.say)] += 1
    if "create" in kinds:
        shown[("factory" in kinds) == ("factory" in words.say)] += 1
    if "top-shape" in kinds and net.begun:
        shown[("setting-up" in kinds) == ("setting-up" in words.say)] += 1
    if "input" in kinds:
        shown["input" in words.say] += 1
    if net.done:
        shown[("collecting" in kinds) == ("collecting" in words.say)] += 1
        shown[("memory-end" in kinds) == (words.order.memory == "end")] += 2
    if "needs" in kinds or "needs-not" in kinds:
        shown[_inline(net) == (words.order.backward == "inline")] += 1
    shapes = [top.shape for layer in net.layers for top in layer.tops if top.shape is not None]
    if shapes:
        shown[any(len(shape) != 4 for shape in shapes) == words.edition.nd_blobs] += 2
    before = _setting_up_first(net)
    if before is not None:
        shown[before == (words.order.setting_up == "before")] += 1
    places = {statement.place for statement in words.say.values()}
    others = {record.place for record in (*net.before, *net.records) if record.file != "net.cpp"}
    wording = any(record.text.startswith(("Memory required for Data", "Memory  required")) for record in net.records)
    if wording or "memory-end" in kinds:
        told = words.say.get("memory")
        shown[wording == (told is not None and " Data" in told.template)] += 1
    return shown[True] - shown[False], len(others & places)


def _inline(net: NetFacts) -> bool:
    """Whether backward decisions stand with their layers."""
    lines = [layer.lines["backward"] for layer in net.layers if "backward" in layer.lines]
    return lines == sorted(lines) and (len(lines) > 1 or not _is_after(net))


def _is_after(net: NetFacts) -> bool:
    """Of a net of one layer: whether the decision stands behind its memory figure, and so behind the loop over layers."""
    layer = net.layers[-1]
    return layer.lines.get("memory", 0) > 0 or "factory" in net.places or "setting-up" in net.places


def _setting_up_first(net: NetFacts) -> bool | None:
    """Whether layers are set up after the line that says so; only a layer that says something then can tell."""
    own = ("output data size", "Initializing prefetch", "Loading mean file", "Number of HDF5", "A total of")
    at = {record.text: i for i, record in enumerate(net.records) if record.text.startswith("Setting up ")}
    for i, record in enumerate(net.records):
        if record.text.startswith(own):
            layer = next((layer for layer in net.layers if record.text in layer.says), None)
            if layer is not None and f"Setting up {layer.name}" in at:
                return at[f"Setting up {layer.name}"] < i
    return None


def _is_debug(net: NetFacts, words: Dialect) -> bool:
    """Whether lines are there that only debug builds print."""
    if net.places.get("memory-layer") and words.order.memory == "end":
        return True
    debug = {statement.place for statement in words.say.values() if statement.level == "D"}
    return any(record.place in debug for record in net.records)


def _fork(net: NetFacts) -> str:
    """The fork that words alone give away."""
    kinds = net.places.keys()
    if net.program:
        return net.program
    if "fork-shape" in kinds or "fork-create" in kinds:
        return "NVCaffe 0.16 or 0.17"
    if net.dropped or "layer_factory.hpp:114" in net.places.get("factory", ()):
        return "Intel Caffe"
    if (net.text and _SSD.search(net.text)) or any("mbox_loss_softmax_conf" in place for place in _factories(net)):
        return "SSD fork of Caffe"
    return ""


def _factories(net: NetFacts) -> Iterator[str]:
    return (record.text for record in net.records if record.text.startswith("Creating layer "))
