"""What Caffe would have logged while it built this net: the facts of construction, in a dialect's order and words.

The order is that of Net::Init and what it calls; where versions differ it is the dialect's `Order` that says so. The generator
walks the graph once and knows no version by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from . import dump, memory
from .build import build
from .dialect import Dialect, Statement
from .draft import FILTERED, REFUSED, Draft, Event
from .errors import Refusal
from .graph import BOTTOM, CREATE, PARAMS, SETUP, TOP, WIRING, Graph, Node, Stop
from .layers import registry

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
        head = f"{self.level} {self.place}] "
        text = self.text
        if cut:
            room = RECORD_LIMIT - PREFIX - len(self.place) - 2
            data = text.encode("utf-8", "surrogateescape")
            if len(data) > room:
                text = data[:room].decode("utf-8", "ignore")
        return head + text + ("" if text.endswith("\n") else "\n")


class Halt(Exception):  # not an error: the F line has been said, and nothing follows
    """Caffe stops here."""


class Log:
    """The construction log of one graph in one dialect, as an iterator of Lines.

    `refused` tells afterwards whether it ended in an F line.
    """

    def __init__(self, graph: Graph, dialect: Dialect, *, file: str = "", debug: bool = False) -> None:
        self.graph = graph
        self.dialect = dialect
        self.file = file
        self.debug = debug
        self.refused = False

    def __iter__(self) -> Iterator[Line]:
        try:
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
        statement = self.dialect.refusals.get(key or refusal.code)
        values = {"layer": refusal.finding.layer, "type": refusal.finding.layer_type, "file": self.file, **refusal.values}
        if refusal.code == "unknown-layer-type":
            values["types"] = ", ".join(sorted(known_types(self.dialect)))
        if statement is not None:
            yield self._line(statement, values)
        else:  # no words of Caffe are known for it: ours, marked as such by the place
            yield Line("F", f"{refusal.code}:0", str(refusal))
        raise Halt

    # ---- construction

    def _construction(self) -> Iterator[Line]:
        yield from self._before_layers()
        first = self.graph.stops[0] if self.graph.stops else None
        yield from self._inputs()
        running = memory.of_inputs(self.graph)
        for node in self._nodes(first):
            stop = first if first is not None and first.node == node.index else None
            yield from self._begin(node, stop)
            yield from self._set_up(node, stop)
            running += memory.counted(self.graph, node)
            yield from self._finish(node, stop, running)
        yield from self._end(running)

    def _nodes(self, first: Stop | None) -> Iterable[Node]:
        """The nodes that Caffe gets to, the one at which it stops included."""
        if first is None:
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
                yield from self.say("init", net=dump.text(self.graph.proto))
                said = True
            else:
                yield from self._event(event)
        if not said:
            yield from self.say("init", net=dump.text(self.graph.proto))

    def _event(self, event: Event) -> Iterator[Line]:
        yield from self.say(event.kind, file=self.file, **event.values)

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

    def _end(self, running: int) -> Iterator[Line]:
        if self.dialect.order.backward == "reverse":
            for node in reversed(self.graph.nodes):
                yield from self.say("needs" if node.backward else "needs-not", layer=node.name)
        for blob in self.graph.outputs:
            yield from self.say("output", blob=blob)
        yield from self.say("collecting")
        yield from self.say("done")
        if self.dialect.order.memory == "end":
            yield from self.say("memory", bytes=running)

    # ---- what layers say of themselves

    def _own(self, node: Node) -> Iterator[Line]:
        kind = node.type
        if kind in self.dialect.order.inner and (kind != "Scale" or node.layer.proto.scale_param.bias_term):
            yield from self.say("factory", layer=node.name)
        if kind in ("LSTM", "RNN"):
            yield from self._recurrent(node)
        elif kind == "Data":
            yield from self._data(node)

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
        if self.dialect.order.database == "setup":
            yield from self._database(node)
        mean_file = node.layer.proto.transform_param.mean_file
        if mean_file and self.dialect.order.mean_file == "first":
            yield from self.say("mean-file", mean_file=mean_file)
        shape = node.tops[0].shape
        if shape is not None:
            yield from self.say("data-size", size=",".join(map(str, shape)))
        if mean_file and self.dialect.order.mean_file == "last":
            yield from self.say("mean-file", mean_file=mean_file)
        yield from self.say("prefetch")
        yield from self.say("prefetched")


def known_types(dialect: Dialect) -> list[str]:
    """The layer types that a version had."""
    return [name for name, cls in registry.items() if cls.in_caffe and name not in dialect.types]
