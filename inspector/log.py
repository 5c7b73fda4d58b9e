"""What Caffe would have logged while it built this net: the facts of construction, in a dialect's order and words.

The order is that of Net::Init and what it calls; where versions differ it is the dialect's `Order` that says so. The generator
walks the graph once and knows no version by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from caffe_proto import caffe_pb2

from . import dump, memory, opening, upgrade
from .build import build
from .dialect import Dialect, Statement
from .draft import FILTERED, REFUSED, Draft, Event, Path
from .errors import Finding, InspectorError, Refusal
from .files import read_bytes
from .graph import BOTTOM, COLLECT, CREATE, PARAMS, SETUP, TOP, WIRING, Graph, Node, Stop
from .layers import registry
from .upgrade import V1_NAMES

if TYPE_CHECKING:
    from .caffemodel import StoredModel
    from .net import Net
    from .weights import Matching

V1_TYPES = {name: v1 for v1, name in V1_NAMES.items()}  # today's name of a layer type -> the one that V1's enum had
LEVELS = "IWEF"  # glog's severities
RECORD_LIMIT = 29_998  # glog cuts a record, prefix included, to this many bytes and adds a line break
PREFIX = len("I0101 00:00:00.000000 12345 ")  # date, time with microseconds, a thread id in five columns


@dataclass(frozen=True, slots=True)
class Line:
    """One record of the log; `text` may span lines (the net's dump)."""

    level: str
    place: str
    text: str

    def masked(self, *, cut: bool = True) -> str:
        """The record with severity and place only, ending in a line break: `I net.cpp:131] Top shape: ...`."""
        return f"{self.level} {self._text(cut)}"

    def real(self, moment: datetime, thread: int, *, cut: bool = True) -> str:
        """The record as glog prints it: `I0131 12:34:56.789012 12345 net.cpp:131] Top shape: ...`."""
        if self.level not in LEVELS:  # protobuf's own, which is none of glog's
            return self.masked(cut=cut)
        return f"{self.level}{moment:%m%d %H:%M:%S.%f} {thread:5} {self._text(cut)}"

    def _text(self, cut: bool) -> str:
        text = self.text
        room = RECORD_LIMIT - PREFIX - len(self.place) - 2
        if cut and len(text) * 4 > room:
            data = text.encode("utf-8", "surrogateescape")
            if len(data) > room:
                text = data[:room].decode("utf-8", "ignore")
        return f"{self.place}] {text}" + ("" if text.endswith("\n") else "\n")


class Halt(Exception):  # not an error: the F line has been said, and nothing follows
    """Caffe stops here."""


class Log:
    """The construction log of one graph in one dialect, as an iterator of Lines.

    `refused` tells afterwards whether it ended in an F line.
    """

    def __init__(
        self,
        graph: Graph,
        dialect: Dialect,
        *,
        file: str = "",
        debug: bool = False,
        folder: FilePath = FilePath(),  # the current one, and never changed
        rows: Mapping[str, int] | None = None,
        unparsed: InspectorError | None = None,
        foreign: Sequence[tuple[Path, str, str]] | None = None,
    ) -> None:
        self.graph = graph
        self.dialect = dialect
        self.file = file
        self.debug = debug
        self.folder = folder  # of the model: where sources are looked for, beside the current one
        self.rows = rows or {}  # lines of list files that are not at hand, by the path in the prototxt
        self.foreign = foreign  # path, name and text of fields that BVLC lacks, for a log that goes on where a fork does
        self.unparsed = unparsed  # where Caffe's parser gave up
        self.refused = False
        self.notes: list[Finding] = []  # lines that nobody can know without the data

    def __iter__(self) -> Iterator[Line]:
        self.notes.clear()
        try:
            if self.unparsed is not None:
                yield from unparsed(self.unparsed, self.dialect, self.file)
                raise Halt
            yield from self._construction()
        except Halt:
            self.refused = True

    # ---- statements

    def say(self, key: str, **values: Any) -> Iterator[Line]:
        """The line of one statement, if this dialect has it and this build prints it."""
        statement = self.dialect.say.get(key)
        if statement is None or (statement.level == "D" and not self.debug):
            return
        yield self._line(statement, values)

    def _line(self, statement: Statement, values: Mapping[str, Any]) -> Line:
        level = "I" if statement.level == "D" else statement.level
        place = statement.place.format_map(values) if "{" in statement.place else statement.place
        return Line(level, place, statement.words(values))

    def stop(self, refusal: Refusal, key: str | None = None) -> Iterator[Line]:
        """The F line of a refusal; nothing follows."""
        code, kind, said = key or refusal.code, refusal.finding.layer_type, self.dialect.refusals
        statement = said.get(f"{code}:{kind}") or said.get(f"{code}:{refusal.values.get('which')}") or said.get(code)
        older = V1_TYPES.get(kind or "", "NONE")
        values: dict[str, Any] = {"layer": refusal.finding.layer, "type": kind, "v1_type": older, "file": self.file}
        values["v1_number"] = caffe_pb2.V1LayerParameter.LayerType.Value(older)
        values.update(refusal.values)
        if refusal.code == "unknown-layer-type":
            values["types"] = ", ".join(sorted(known_types(self.dialect)))
        if statement is not None:
            if statement.template:  # none: it died without words, by a signal
                yield self._line(statement, values)
        else:  # no words of Caffe are known for it: ours, marked as such by the place
            yield Line("F", f"{refusal.code}:0", str(refusal))
        raise Halt

    # ---- construction

    def _construction(self) -> Iterator[Line]:
        yield from self._before_layers()
        first = next((stop for stop in self.graph.stops if stop.cuts or self.foreign is None), None)
        yield from self._inputs()
        running = memory.of_inputs(self.graph)
        for node in self._nodes(first):
            stop = first if first is not None and first.node == node.index and first.moment != COLLECT else None
            yield from self._begin(node, stop)
            yield from self._set_up(node, stop)
            running += memory.counted(self.graph, node)
            yield from self._finish(node, stop, running)
        yield from self._end(first, running)

    def _nodes(self, first: Stop | None) -> Iterable[Node]:
        """The nodes that Caffe gets to, the one at which it stops included."""
        if first is None or first.moment == COLLECT:
            return self.graph.nodes
        nodes = self.graph.nodes[: first.node + 1]
        if self.graph.broken is not None and self.graph.broken.index == first.node:
            nodes = [*nodes, self.graph.broken]
        return nodes

    def _before_layers(self) -> Iterator[Line]:
        said = False
        for event in self.graph.events:
            if event.kind == REFUSED:
                refusal = event.values["refusal"]
                yield from self.stop(refusal, "unknown-bottom-split" if refusal.code == "unknown-bottom" else None)
            elif event.kind == FILTERED:
                yield from self._banner()
                said = True
            else:
                yield from self._event(event)
        if not said:
            yield from self._banner()

    def _banner(self) -> Iterator[Line]:
        yield from self.say("init", net=dump.text(self.graph.proto, foreign=self._foreign() if self.foreign else None))

    def _foreign(self) -> dump.Foreign:
        """Fields of forks, by their place in the net that is printed."""
        field = "layers" if self.graph.proto.layers else "layer"
        kept = [*self.graph.nodes, *([self.graph.broken] if self.graph.broken else [])]
        places = {origin: (field, i) for i, origin in enumerate(node.origin for node in kept if node.origin is not None)}
        found: dict[tuple[str | int, ...], list[tuple[str, str]]] = {}
        for path, name, value in self.foreign or ():
            if not path or path[:2] in places:
                found.setdefault((*places.get(path[:2], ()), *path[2:]), []).append((name, value))
        return found

    def _event(self, event: Event) -> Iterator[Line]:
        kind = event.kind
        if kind == "v0-unknown-parameter":  # each field has its own statement
            kind = f"v0-unknown-{event.values['field']}"
        yield from self.say(kind, file=self.file, **event.values)

    def _inputs(self) -> Iterator[Line]:
        for i, blob in enumerate(self.graph.net_inputs):
            yield from self.say("input", index=i, blob=blob.name)
        yield from self.say("memory-inputs", bytes=memory.of_inputs(self.graph))

    def _begin(self, node: Node, stop: Stop | None) -> Iterator[Line]:
        moment = stop.moment if stop else PARAMS + 1
        if moment == WIRING and stop:
            yield from self.stop(stop.refusal)
        name = node.name
        yield from self.say("factory", layer=name)
        if moment == CREATE and stop:
            yield from self.stop(stop.refusal)
        if self.dialect.order.database == "factory":
            yield from self._database(node)
        yield from self.say("create", layer=name)
        for j, blob in enumerate(node.bottoms):
            if moment == BOTTOM and stop and stop.refusal.values["bottom"] == j:
                yield from self.stop(stop.refusal)
            yield from self.say("bottom", layer=name, blob=blob.name)
        for j, blob in enumerate(node.tops):
            if moment == TOP and stop and stop.refusal.values["top"] == j:
                yield from self.stop(stop.refusal)
            yield from self.say("top-in-place" if node.in_place(j) else "top", layer=name, blob=blob.name)

    def _set_up(self, node: Node, stop: Stop | None) -> Iterator[Line]:
        """What the layer's own set-up says, and `Setting up` before or after it."""
        name = node.name
        if self.dialect.order.setting_up == "before":
            yield from self.say("setting-up", layer=name)
        if stop and stop.moment == SETUP:
            yield from self.stop(stop.refusal)
        yield from self._own(node)
        if self.dialect.order.setting_up == "after":
            yield from self.say("setting-up", layer=name)

    def _finish(self, node: Node, stop: Stop | None, running: int) -> Iterator[Line]:
        name = node.name
        for blob, weight in zip(node.tops, node.loss_weights, strict=True):
            yield from self.say("top-shape", shape=blob.shape if blob.shape is not None else "?")
            if weight:
                yield from self.say("loss-weight", weight=weight)
        yield from self.say("memory" if self.dialect.order.memory == "layer" else "memory-debug", bytes=running)
        for param in node.params or ():
            if param.shared_from is not None:
                owner = param.shared_from
                yield from self.say("sharing", param=param.shared_name, owner=owner.node.name, index=owner.index)
        if stop and stop.moment == PARAMS:
            yield from self.stop(stop.refusal)
        if self.dialect.order.backward == "inline":
            yield from self.say("needs" if node.backward else "needs-not", layer=name)

    def _end(self, stop: Stop | None, running: int) -> Iterator[Line]:
        if self.dialect.order.backward == "reverse":
            for node in reversed(self.graph.nodes):
                yield from self.say("needs" if node.backward else "needs-not", layer=node.name)
        for blob in self.graph.outputs:
            yield from self.say("output", blob=blob)
        yield from self.say("collecting")
        if stop is not None and stop.moment == COLLECT:
            yield from self.stop(stop.refusal)
        yield from self.say("done")
        if self.dialect.order.memory == "end":
            yield from self.say("memory", bytes=running)

    # ---- what layers say of themselves

    def _own(self, node: Node) -> Iterator[Line]:
        kind = node.type
        if kind in OWN_WORDS:
            yield from OWN_WORDS[kind](self, node)
        if node.layer.proto.blobs:
            yield from self.say(f"skipping-{kind}")
        if kind in self.dialect.order.inner and (kind != "Scale" or node.layer.proto.scale_param.bias_term):
            yield from self.say("factory", layer=node.name)

    def _recurrent(self, node: Node) -> Iterator[Line]:
        shapes = [blob.shape for blob in node.bottoms]
        steps, streams = shapes[0][:2]  # type: ignore[index]  # set-up has accepted them
        yield from self.say("recurrent", steps=steps, streams=streams)
        inner = node.layer.unrolled(*shapes)  # type: ignore[attr-defined]
        graph = build(Draft(inner, (None,) * len(inner.layer)), edition=self.graph.edition)
        yield from Log(graph, self.dialect, debug=self.debug)._construction()
        for i, param in enumerate(graph.params()):
            if param.shared_from is None:
                yield from self.say("recurrent-param", index=i, param=param.shared_name or str(param.index))

    def _database(self, node: Node) -> Iterator[Line]:
        if node.type == "Data":
            settings = node.layer.proto.data_param
            yield from self.say("open-lmdb" if settings.backend == settings.LMDB else "open-leveldb", source=settings.source)

    def _data(self, node: Node) -> Iterator[Line]:
        database = self._database(node) if self.dialect.order.database == "setup" else ()
        yield from self._loading(node, database, self._size(node, "data-size"))

    def _images(self, node: Node) -> Iterator[Line]:
        yield from self._loading(node, self._image_list(node), self._size(node, "images-size"))

    def _windows(self, node: Node) -> Iterator[Line]:
        settings = node.layer.proto.window_data_param

        def about() -> Iterator[Line]:
            yield from self.say(
                "windows",
                foreground=settings.fg_threshold,
                background=settings.bg_threshold,
                fraction=settings.fg_fraction,
                cached=settings.cache_images,
                root=settings.root_folder,
            )
            self._unsaid(node, settings.source, "what the window file holds")
            yield from self.say("windows-context", pixels=settings.context_pad)
            yield from self.say("windows-crop", mode=settings.crop_mode)

        mean_file = node.layer.proto.transform_param.mean_file
        own_mean = self.say("windows-mean-file", mean_file=mean_file) if mean_file else ()
        yield from self._loading(node, about(), chain(self._size(node, "windows-size"), own_mean))

    def _loading(self, node: Node, opening: Iterable[Line], sizes: Iterable[Line]) -> Iterator[Line]:
        """What every layer says that reads images in the background: the mean file, the source, the size of a batch."""
        mean_file = node.layer.proto.transform_param.mean_file
        if mean_file and self.dialect.order.mean_file == "first":
            yield from self.say("mean-file", mean_file=mean_file)
        yield from opening
        yield from sizes
        if mean_file and self.dialect.order.mean_file == "last":
            yield from self.say(self._own_key("mean-file", node), mean_file=mean_file)
        yield from self.say(self._own_key("prefetch", node))
        yield from self.say(self._own_key("prefetched", node))

    def _own_key(self, key: str, node: Node) -> str:
        """The statement of this layer type, where it had one of its own."""
        own = f"{key}:{node.type}"
        return own if own in self.dialect.say else key

    def _size(self, node: Node, key: str) -> Iterator[Line]:
        shape = node.tops[0].shape
        if shape is None:
            self._unsaid(node, "", "the size of a batch")
        else:
            yield from self.say(key, size=",".join(map(str, shape)))

    def _image_list(self, node: Node) -> Iterator[Line]:
        settings = node.layer.proto.image_data_param
        yield from self.say("images-open", source=settings.source)
        if settings.shuffle:
            yield from self.say("images-shuffle")
        images = self._rows(settings.source)
        if images is None:
            self._unsaid(node, settings.source, "the number of images")
        else:
            yield from self.say("images-total", images=images)
        if settings.rand_skip:
            self._unsaid(node, "", "how many images are skipped, which is random,")

    def _hdf5(self, node: Node) -> Iterator[Line]:
        source = node.layer.proto.hdf5_data_param.source
        yield from self.say("hdf5-list", source=source)
        files = self._rows(source)
        if files is None:
            self._unsaid(node, source, "the number of files")
        else:
            yield from self.say("hdf5-files", files=files)
        self._unsaid(node, "", "what the HDF5 files hold")
        if "hdf5-size" in self.dialect.say:
            yield from self._size(node, "hdf5-size")

    def _rows(self, source: str) -> int | None:
        """Lines of a list file, where it can be read."""
        if source in self.rows:
            return self.rows[source]
        for folder in (FilePath(), self.folder):
            try:
                return len(read_bytes(folder / source).splitlines())
            except InspectorError:
                continue
        return None

    def _unsaid(self, node: Node, source: str, what: str) -> None:
        where = f" (of '{source}')" if source else ""
        sentence = f"the line that tells {what}{where} is left out"
        self.notes.append(Finding("unsaid", sentence, "note", None, node.name, node.type))


class Loading(Log):
    """What is said while a file of weights is loaded into a net (Net::CopyTrainedLayersFrom): its upgrades, then layer by layer."""

    def __init__(self, graph: Graph, dialect: Dialect, matching: Matching, stored: StoredModel, *, file: str, debug: bool) -> None:
        super().__init__(graph, dialect, file=file, debug=debug)
        self.matching = matching
        self.stored = stored

    def _construction(self) -> Iterator[Line]:
        hdf5 = bool(self.stored.layers) and self.stored.layers[0].generation == "HDF5"
        if not hdf5:
            for event in upgrade.net(Draft(self.stored.proto), self.graph.edition).events:
                if event.kind == REFUSED:
                    yield from self.stop(event.values["refusal"])
                yield from self._event(event)
        for name, outcome in self.matching.outcomes:
            yield from self.say(("ignoring" if outcome == "ignored" else "copying") + "-hdf5" * hdf5, layer=name)
            if outcome == "mismatch":
                yield from self._mismatch(next(found for found in self.matching.mismatches if found.layer == name))

    def _mismatch(self, finding: Finding) -> Iterator[Line]:
        refusal = Refusal(finding.message, code=finding.code)
        refusal.finding = finding
        yield from self.stop(refusal)


OWN_WORDS: dict[str, Callable[[Log, Node], Iterator[Line]]] = {
    "Padding": lambda log, node: log.say("padding"),
    "LSTM": Log._recurrent,
    "RNN": Log._recurrent,
    "Data": Log._data,
    "ImageData": Log._images,
    "WindowData": Log._windows,
    "HDF5Data": Log._hdf5,
}


def of(
    net: Net, dialect: Dialect, *, file: str = "", debug: bool = False, rows: Mapping[str, int] | None = None, lenient: bool = False
) -> Log:
    """The log of a net as one Caffe version would have built it: a net made with `edition=dialect.edition`.

    `file` is the path that Caffe was given, which the upgrade lines repeat; `rows` how many lines those list files have
    that are not at hand. A `lenient` log goes on where BVLC's parser stops at fields that it does not know, as the fork does for
    which the net was written.
    """
    unparsed = None if lenient else opening.parse_refusal(net.opened.findings)
    unknown = net.opened.document.unknown if net.opened.document is not None else ()
    foreign = [(field.path, field.name, field.value) for field in unknown] if lenient else None
    return Log(net.graph, dialect, file=file, debug=debug, folder=net.opened.folder, rows=rows, unparsed=unparsed, foreign=foreign)


def unparsed(error: InspectorError, dialect: Dialect, file: str) -> Iterator[Line]:
    """What is said of a text that the version's parser could not read: protobuf's words, then Caffe's."""
    statement = dialect.say["unparsed"]
    if "caffe" in error.values:
        yield Line(statement.level, statement.place, statement.words({"words": error.values["caffe"]}))
    statement = dialect.refusals["parse"]
    yield Line("F", statement.place, statement.words({"file": file}))


def known_types(dialect: Dialect) -> list[str]:
    """The layer types that a version had."""
    return [name for name, cls in registry.items() if cls.in_caffe and name not in dialect.edition.absent_types]
