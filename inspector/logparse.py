"""A log that somebody kept, read into the facts of each net construction in it.

Logs reach us in every state: whole, cut at either end, without time stamps, with another thread's lines in between, copied from a
web page with its bullets, with training output around them. Statements are known by their words, which hardly changed in seven
years; their source lines only tell the version (`recognise`). The same reader takes the lines that `log` makes, so that a
reference and a model are compared as the same facts.
"""

from __future__ import annotations

import html
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .graph import AUTOMATIC
from .layers import Shape, count
from .log import PREFIX, RECORD_LIMIT

if TYPE_CHECKING:
    from .log import Line

# ---- records


@dataclass(slots=True)
class Record:
    """One message of a log. `file` and `at` are the source place; `text` spans lines where the message did."""

    line: int  # in the file, from 1
    level: str
    file: str
    at: int
    text: str
    thread: str = ""
    time: str = ""  # MMDD hh:mm:ss.uuuuuu
    size: int = 0  # bytes of prefix as it was in the log; 0 where the log is masked
    led: bool = False  # something stands before the prefix: a bullet, a line number, a quote mark

    @property
    def place(self) -> str:
        return f"{self.file}:{self.at}" if self.file else ""

    def masked(self) -> str:
        """The record with severity and place only, as `log.Line.masked` writes it."""
        return f"{self.level} {self.place}] {self.text}" + ("" if self.text.endswith("\n") else "\n")


_REAL = re.compile(
    r"(?P<level>[IWEF])(?:(?:19|20)\d\d)?(?P<day>[01]\d[0-3]\d)[ \t]+(?P<clock>\d\d:\d\d:\d\d(?:\.\d+)?)[ \t]+"
    r"(?P<thread>[0-9a-fx]+)[ \t]+(?P<file>[^\]\n]*?):(?P<at>\d+)\](?: |$)"
)
_HEADLESS = re.compile(r"(?P<level>)" + _REAL.pattern.replace("(?P<level>[IWEF])", "", 1))  # a log cut within its first letter
_LEAD = re.compile(r"[\s>|]*(?:[-*+•·–]\s+|\d{1,6}[.):]?\s+)?")  # indentation, quote marks, a bullet or a line number
_MASKED = re.compile(r"(?:(?P<level>[IWEF]) +)?(?P<file>(?:[A-Za-z]:)?[\w./\\+-]+\.(?:cpp|hpp|cc|cu|h|c)):(?P<at>\d+)\](?: |$)")
_TAG = re.compile(r"</?(?:a|b|br|code|div|em|font|i|li|ol|p|pre|span|strong|td|th|tr|tt|ul)\b[^>\n]*>", re.I)
_ENTITY = re.compile(r"&(?:[a-z]{2,6}|#\d{1,5}|#x[0-9a-f]{1,4});", re.I)
_STEERING = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_FOREIGN = re.compile(r"\[libprotobuf |\*\*\* |    @ |WARNING: |Log file created|Running on machine|Log line format")
_FIELD = re.compile(r"\s*(?:[A-Za-z_]\w*\s*(?::.*|\{\s*)|\}\s*)?$")
_POINTER = re.compile(r"0x[0-9a-f]+")
_TYPES = re.compile(r" ?\(known types: [^\n]*")
_PATH = re.compile(r"(Failed to parse NetParameter file: )[^\n]*")
_LONG = ("Initializing net from parameters", "Initializing solver from parameters", "Window data layer")  # messages of many lines


def records(text: str) -> Iterator[Record]:
    """The messages of a log, and of a text without any prefix each line that could be one."""
    lines = text.split("\n")
    prefixed = False
    last: Record | None = None
    rest: list[str] = []
    for number, raw in enumerate(lines, 1):
        line = raw.rstrip("\r")
        if not line:
            continue
        if "\x1b" in line:
            line = _STEERING.sub("", line)
        if "<" in line or "&" in line or "\xa0" in line:
            line = _readable(line)
        match = _REAL.match(line) or (_HEADLESS.match(line) if not prefixed else None)
        if match is None and "]" in line:
            match = _REAL.search(line) or _MASKED.match(line, _lead(line))
        if match is None:
            if last is not None and last.text.startswith(_LONG) and not _FOREIGN.match(line):
                rest.append(line)
            continue
        if last is not None:
            if match.start() and match.re is _REAL and last.text.startswith(_LONG) and _FIELD.match(line[: match.start()]):
                rest.append(line[: match.start()])  # the cut of a record that swallowed its line break
            yield _closed(last, rest)
        prefixed = True
        last, rest = _record(number, line, match), []
    if last is not None:
        yield _closed(last, rest)
    if not prefixed:
        for number, raw in enumerate(lines, 1):
            line = _readable(raw.rstrip("\r"))
            stripped = line[_lead(line) :]
            if stripped and _statement(stripped, "")[0]:
                yield Record(number, "I", "", 0, stripped)


def _record(number: int, line: str, match: re.Match[str]) -> Record:
    parts = match.groupdict()
    file = re.split(r"[\\/]", parts["file"])[-1]
    clock = f"{parts['day']} {parts['clock']}" if "clock" in parts else ""
    size = match.end() - match.start() if clock else 0
    led = 0 < match.start() == _lead(line)
    text = line[match.end() :]
    return Record(number, parts["level"] or "I", file, int(parts["at"]), text, parts.get("thread") or "", clock, size, led)


def _lead(line: str) -> int:
    match = _LEAD.match(line)
    return match.end() if match else 0


def _readable(line: str) -> str:
    """A line without a web page's marks."""
    if "<" in line and ">" in line:
        line = _TAG.sub("", line)
    if "&" in line and _ENTITY.search(line):
        line = html.unescape(line)
    return line.replace("\xa0", " ") if "\xa0" in line else line


def _closed(record: Record, rest: list[str]) -> Record:
    """The record with the lines that belong to it: bullets taken off, and what is plainly no part of it."""
    if rest:
        depth = 0
        kept: list[str] = []
        for line in rest:
            if record.led:
                line = line[_lead(line) :]
            if depth <= 0 and not _FIELD.match(line) and not record.text.startswith("Window") and len(kept) < len(rest) - 1:
                continue
            depth += line.count("{") - line.count("}")
            kept.append(line)
        record.text = "\n".join([record.text, *kept])
        if not record.text.startswith("Window") and not is_cut(record):
            record.text += "\n"
    return record


def is_cut(record: Record) -> bool:
    """Whether the net's text in this record ends early: at glog's limit, or in the middle of something."""
    head = record.size or PREFIX + len(record.place) + 2
    body = record.text.encode("utf-8", "surrogateescape")
    if head + len(body.rstrip(b"\n")) >= RECORD_LIMIT - 1:
        return True
    text = record.text.partition("\n")[2]
    return not (_FIELD.match(text.rstrip("\n").rpartition("\n")[2]) and _depth(text) == 0)


def _depth(text: str) -> int:
    """Open braces, those in strings not counted."""
    plain = re.sub(r'"(?:[^"\\\n]|\\.)*"', "", text)
    return plain.count("{") - plain.count("}")


def impersonal(text: str) -> str:
    """Words without what nobody can repeat: pointers, the list of known types, the path that Caffe was given."""
    text = _TYPES.sub("", _POINTER.sub("0x", text))
    return _PATH.sub(r"\1", text)


# ---- facts


@dataclass(slots=True)
class TopFacts:
    """One top as the log has it. A name is empty where the log's beginning is lost."""

    name: str
    in_place: bool = False
    shape: Shape | None = None
    loss_weight: float = 0.0
    line: int = 0  # of its shape

    @property
    def automatic(self) -> bool:
        return self.name == AUTOMATIC


@dataclass(slots=True)
class LayerFacts:
    """One layer of a construction, splits and inputs' layers included, in the log's order."""

    name: str
    line: int
    wired: bool = False  # its bottoms and tops were said, at least the beginning of them
    bottoms: list[str] = field(default_factory=list)
    tops: list[TopFacts] = field(default_factory=list)
    shaped: int = 0  # tops whose shape was said
    memory: int | None = None  # running total in bytes
    shares: list[tuple[str, str, int]] = field(default_factory=list)  # parameter's name, its owner, index there
    backward: bool | None = None
    says: list[str] = field(default_factory=list)  # what else was said while it was set up
    inner: list[NetFacts] = field(default_factory=list)  # nets that a recurrent layer builds
    type: str = ""  # from the net's text, or from forks that say it
    lines: dict[str, int] = field(default_factory=dict)  # statement -> where it stands


@dataclass(slots=True)
class NetFacts:
    """One net construction: what the log says of it, in the log's words and order."""

    line: int  # first and last in the file
    end: int
    name: str = ""
    phase: str = ""  # TRAIN, TEST, or empty where nothing tells
    begun: bool = True  # the beginning is there
    done: bool = False  # so is the end
    text: str | None = None  # the net as it was printed, as far as it goes
    text_complete: bool = False
    inputs: list[str] = field(default_factory=list)
    layers: list[LayerFacts] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    memory: int | None = None  # the total, in bytes
    before: list[Record] = field(default_factory=list)  # upgrades and rules, said before the net was printed
    fatal: str = ""  # the words at which Caffe stopped
    dropped: list[str] = field(default_factory=list)  # layers that a fork's compiler took out
    program: str = ""  # a fork that names itself
    flat: bool = False  # shapes lack the batch and the count, as before March 2014
    places: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  # statement -> source places
    records: list[Record] = field(default_factory=list)
    lines: dict[str, int] = field(default_factory=dict)

    def layer(self, name: str) -> LayerFacts | None:
        """The first layer of that name."""
        return next((layer for layer in self.layers if layer.name == name), None)


def is_split(layer: LayerFacts) -> bool:
    """Whether Caffe inserted this layer so that several can read a blob."""
    return len(layer.bottoms) <= 1 and _SPLIT.search(layer.name) is not None


# ---- statements

_SPLIT = re.compile(r"_\d+_split$")
_RULES = ("The NetState ",)
_BUILDERS = ("net.cpp", "upgrade_proto.cpp", "insert_splits.cpp", "layer_factory.hpp", "layer_factory.cpp")
_NET_FILES = ("net.cpp", "net.cu", "")
_SHAPE = re.compile(r"Top shape: ?((?:\d+ )*\d*|\?) ?(?:\((\d+)\))?\s*$")
_FORK_SHAPE = re.compile(r"(TRAIN|TEST) Top shape for layer \d+ '(.*)' ((?:\d+ )*)\(\d+\)\s*$")
_FORK_CREATED = re.compile(r"Created Layer (.*) \(\d+\)\s*$")
_FORK_FACTORY = re.compile(r"Creating layer '(.*)' of type '(.*)'\s*$")
_SHARING = re.compile(r"Sharing parameters '(.*)' owned by layer '(.*)', param index (\d+)\s*$")
_INPUT = re.compile(r"Input \d+ -> (.*)$")
_MEMORY = re.compile(r"Memory +required for [dD]ata:? ?(\d+)\s*$")
_WEIGHT = re.compile(r"\s*with loss weight ([-+.\deinfa]+)\s*$")
_ARROW = re.compile(r"(.*?) (<-|->) (.*)$")
_PHASE = re.compile(r"The NetState phase \((\d)\)")
_PROGRAM = re.compile(r"This is (NVCaffe [\d.]+)")
_SETTLED = "Network initialization done."


def _statement(text: str, file: str) -> tuple[str, Any]:
    """The kind of a statement, named as in the dialects, and what it says; ('', None) for everything else."""
    if text.endswith(("backward computation.", "backward computation")):
        name, negated, found = text.partition(" does not need backward computation")
        if found or negated:
            return "needs-not", name
        return "needs", text.partition(" needs backward computation")[0]
    begins = text.startswith
    if begins("Top shape:"):
        match = _SHAPE.match(text)
        return ("top-shape", (match[1], match[2])) if match else ("", None)
    if begins("Creating Layer "):
        return "create", text[15:]
    if begins("Creating layer "):
        fork = _FORK_FACTORY.match(text)
        return ("fork-factory", (fork[1], fork[2])) if fork else ("factory", text[15:])
    if begins("Setting up ") and file in _NET_FILES:
        return "setting-up", text[11:]
    if begins("Memory ") and (match := _MEMORY.match(text)):
        return "memory", int(match[1]) if len(match[1]) < 30 else 0
    if begins("This network produces output "):
        return "output", text[29:]
    if begins(("    with loss", "with loss")) and (match := _WEIGHT.match(text)):
        return "loss-weight", match[1]
    if begins("Sharing parameters ") and (match := _SHARING.match(text)):
        return "sharing", (match[1], match[2], int(match[3][:9]))
    if begins("Initializing net from parameters"):
        return "init", text
    if begins(_SETTLED[:-1]):
        return "done", None
    if begins("Collecting Learning Rate"):
        return "collecting", None
    if begins(_RULES):
        return "rule", text
    if begins(("TRAIN Top shape", "TEST Top shape")) and (match := _FORK_SHAPE.match(text)):
        return "fork-shape", (match[1], match[2], match[3])
    if begins("Created Layer ") and (match := _FORK_CREATED.match(text)):
        return "fork-create", match[1]
    if begins("Input ") and file in _NET_FILES and (match := _INPUT.match(text)):
        return "input", match[1]
    if begins("Dropped layer: "):
        return "dropped", text[15:].strip()
    if file in _NET_FILES and (" <- " in text or " -> " in text) and (match := _ARROW.match(text)):
        return ("bottom" if match[2] == "<-" else "top"), (match[1], match[3])
    return "", None


class Reader:
    """Takes records one by one; `nets` are the constructions so far. Each thread builds nets of its own."""

    def __init__(self) -> None:
        self.nets: list[NetFacts] = []
        self._builders: dict[str, _Builder] = {}
        self._program = ""

    def take(self, record: Record) -> None:
        builder = self._builders.get(record.thread)
        if builder is None:
            builder = self._builders[record.thread] = _Builder(self.nets)
        had = len(self.nets)
        builder.take(record)
        if match := _PROGRAM.match(record.text):
            self._program = match[1]
        for net in self.nets[had:]:
            net.program = self._program


class _Builder:
    """The nets that one thread builds, one after the other; recurrent layers build one within another."""

    def __init__(self, nets: list[NetFacts]) -> None:
        self.nets = nets
        self.stack: list[NetFacts] = []
        self.before: list[Record] = []
        self.finished: NetFacts | None = None  # whose memory line may follow
        self.recurrent = False  # the last thing said announces a nested net
        self.type = ""
        self.told = ""  # the phase that the solver announced

    def take(self, record: Record) -> None:
        kind, said = _statement(record.text, record.file)
        if kind in ("bottom", "top") and self.stack and self.stack[-1].layers:
            name = self.stack[-1].layers[-1].name  # it may have an arrow in it
            if record.text.startswith((f"{name} <- ", f"{name} -> ")):
                kind = "bottom" if record.text.startswith(" <-", len(name)) else "top"
        finished, self.finished = self.finished, None
        if kind == "memory" and finished is not None:
            finished.memory = said
            finished.lines["memory"] = record.line
            self._note(finished, "memory-end", record)
            return
        if record.level == "F" and not kind:
            self._fatal(record)
        elif kind == "rule" or record.file.startswith("upgrade_proto"):
            self.before.append(record)
        elif kind == "init":
            self._begin(record, nested=self.recurrent)
            self._banner(record)
        elif kind:
            if not self.stack:
                if kind in ("needs", "needs-not", "output", "collecting", "done", "memory") and not self._plausible(record):
                    return
                self._begin(record, begun=kind in ("create", "factory", "input", "fork-factory"))
            getattr(self, "_" + kind.replace("-", "_"))(self.stack[-1], said, record)
        else:
            self._other(record)
            return
        self.recurrent = False

    def _plausible(self, record: Record) -> bool:
        """Whether a tail statement without a net before it may be the rest of a log whose beginning is lost."""
        return not self.nets

    # ---- nets

    def _begin(self, record: Record, *, nested: bool = False, begun: bool = True) -> None:
        net = NetFacts(record.line, record.line, begun=begun)
        if nested and self.stack:
            self._current(self.stack[-1], record).inner.append(net)
        else:
            self.stack.clear()
            self.nets.append(net)
            net.before, self.before = self.before, []
            if net.before:
                net.line = net.before[0].line
            net.phase = next((("TRAIN", "TEST")[match[1] != "0"] for r in net.before if (match := _PHASE.match(r.text))), self.told)
        self.stack.append(net)

    def _banner(self, record: Record) -> None:
        net = self.stack[-1]
        text = record.text.partition("\n")[2]
        if text:
            net.text, net.text_complete = text, not is_cut(record)
            name = re.match(r'name: "((?:[^"\\\n]|\\.)*)"', text)
            net.name = name[1] if name else ""
            state = re.search(r"^state \{\s*phase: (TRAIN|TEST)\b", text, re.M)
            net.phase = state[1] if state else net.phase
        self._note(net, "init", record)

    def _note(self, net: NetFacts, kind: str, record: Record) -> None:
        net.places[kind].add(record.place)
        self._keep(net, record)

    def _keep(self, net: NetFacts, record: Record) -> None:
        """The record among those of its net, and of the net around it."""
        for around in {id(one): one for one in (net, *self.stack)}.values():
            around.records.append(record)
            around.end = max(around.end, record.line)

    def _fatal(self, record: Record) -> None:
        text = record.text.partition("\n")[0]
        if not self.stack and (self.before or record.file in _BUILDERS):
            self._begin(record)
        for net in self.stack:
            net.fatal = text
            net.lines["fatal"] = record.line
        if self.stack:
            self._keep(self.stack[0], record)
        self.stack.clear()
        self.before.clear()

    def _other(self, record: Record) -> None:
        self.before.clear()
        text = record.text
        if text.startswith("Creating train"):
            self.told = "TRAIN"
        elif text.startswith("Creating test"):
            self.told = "TEST"
        if not self.stack:
            return
        if record.file.startswith(("solver", "caffe.", "sgd_solver", "parallel")):  # past the net, whose end is lost
            self.stack.clear()
            return
        self.recurrent = text.startswith("Initializing recurrent layer")
        net = self.stack[-1]
        self._keep(net, record)
        if net.layers:
            net.layers[-1].says.append(text)

    # ---- statements, each by its kind

    def _current(self, net: NetFacts, record: Record) -> LayerFacts:
        if not net.layers:
            net.layers.append(LayerFacts("", record.line))
        return net.layers[-1]

    def _named(self, net: NetFacts, name: str, record: Record) -> LayerFacts:
        """The layer that is being built, if it is the one named; else it begins here, what was before being lost."""
        if net.layers and net.layers[-1].name == name:
            return net.layers[-1]
        if net.layers and not net.layers[-1].name:
            net.layers[-1].name = name
            return net.layers[-1]
        net.layers.append(LayerFacts(name, record.line))
        return net.layers[-1]

    def _factory(self, net: NetFacts, name: str, record: Record) -> None:
        self._note(net, "factory", record)

    def _fork_factory(self, net: NetFacts, said: tuple[str, str], record: Record) -> None:
        self.type = said[1]
        self._note(net, "fork-factory", record)

    def _create(self, net: NetFacts, name: str, record: Record) -> None:
        net.layers.append(LayerFacts(name, record.line, wired=True))
        self._note(net, "create", record)

    def _fork_create(self, net: NetFacts, name: str, record: Record) -> None:
        net.layers.append(LayerFacts(name, record.line, wired=True, type=self.type))
        self._note(net, "fork-create", record)

    def _input(self, net: NetFacts, blob: str, record: Record) -> None:
        net.inputs.append(blob)
        self._note(net, "input", record)

    def _arrow(self, net: NetFacts, said: tuple[str, str], record: Record, arrow: str) -> tuple[LayerFacts, str]:
        """The layer that an arrow belongs to, and its blob; a name with an arrow in it is known from its layer."""
        if net.layers and record.text.startswith(f"{net.layers[-1].name} {arrow} "):
            layer = net.layers[-1]
            return layer, record.text[len(layer.name) + 4 :].rstrip("\r")
        layer = self._named(net, said[0], record)
        return layer, said[1]

    def _bottom(self, net: NetFacts, said: tuple[str, str], record: Record) -> None:
        layer, blob = self._arrow(net, said, record, "<-")
        layer.bottoms.append(blob)
        self._note(net, "bottom", record)

    def _top(self, net: NetFacts, said: tuple[str, str], record: Record) -> None:
        layer, blob = self._arrow(net, said, record, "->")
        in_place = blob.endswith(" (in-place)")
        layer.tops.append(TopFacts(blob.removesuffix(" (in-place)"), in_place, line=record.line))
        self._note(net, "top-in-place" if in_place else "top", record)

    def _setting_up(self, net: NetFacts, name: str, record: Record) -> None:
        self._named(net, name, record).lines["setting-up"] = record.line
        self._note(net, "setting-up", record)

    def _top_shape(self, net: NetFacts, said: tuple[str, str | None], record: Record) -> None:
        layer = self._current(net, record)
        if said[1] is None and said[0] != "?":
            net.flat = True
        self._shape(layer, said[0], record)
        self._note(net, "top-shape", record)

    def _fork_shape(self, net: NetFacts, said: tuple[str, str, str], record: Record) -> None:
        net.phase = net.phase or said[0]
        self._shape(self._named(net, said[1], record), said[2], record)
        self._note(net, "fork-shape", record)

    def _shape(self, layer: LayerFacts, sizes: str, record: Record) -> None:
        if layer.shaped == len(layer.tops):
            layer.tops.append(TopFacts(""))
        top = layer.tops[layer.shaped]
        top.shape = None if sizes == "?" else tuple(int(size[:18]) for size in sizes.split())
        top.line = record.line
        layer.shaped += 1

    def _loss_weight(self, net: NetFacts, said: str, record: Record) -> None:
        layer = self._current(net, record)
        if layer.shaped:
            try:
                layer.tops[layer.shaped - 1].loss_weight = float(said)
            except ValueError:
                pass
        self._note(net, "loss-weight", record)

    def _memory(self, net: NetFacts, figure: int, record: Record) -> None:
        if net.layers:
            net.layers[-1].memory = net.memory = figure
            net.layers[-1].lines["memory"] = record.line
            self._note(net, "memory-layer", record)
        else:
            self._note(net, "memory-inputs", record)

    def _sharing(self, net: NetFacts, said: tuple[str, str, int], record: Record) -> None:
        self._current(net, record).shares.append(said)
        self._note(net, "sharing", record)

    def _needs(self, net: NetFacts, name: str, record: Record) -> None:
        self._backward(net, name, record, needs=True)

    def _needs_not(self, net: NetFacts, name: str, record: Record) -> None:
        self._backward(net, name, record, needs=False)

    def _backward(self, net: NetFacts, name: str, record: Record, *, needs: bool) -> None:
        """Said with each layer, or of all in reverse order; names may repeat."""
        layer = next((layer for layer in reversed(net.layers) if layer.backward is None and layer.name == name), None)
        if layer is None:
            layer = LayerFacts(name, record.line)
            if net.layers and not net.layers[-1].name and net.layers[-1].backward is None:
                layer = net.layers[-1]
                layer.name = name
            else:  # all that is left of a log are its last lines, which go backwards
                net.layers.insert(0, layer)
        layer.backward = needs
        layer.lines["backward"] = record.line
        self._note(net, "needs" if needs else "needs-not", record)

    def _output(self, net: NetFacts, blob: str, record: Record) -> None:
        net.outputs.append(blob)
        net.lines.setdefault("output", record.line)
        self._note(net, "output", record)

    def _collecting(self, net: NetFacts, _: None, record: Record) -> None:
        self._note(net, "collecting", record)

    def _dropped(self, net: NetFacts, name: str, record: Record) -> None:
        net.dropped.append(name)
        self._note(net, "dropped", record)

    def _done(self, net: NetFacts, _: None, record: Record) -> None:
        net.done = True
        self._note(net, "done", record)
        self.stack.pop()
        if not self.stack:
            self.finished = net


def read(text: str) -> list[NetFacts]:
    """The net constructions in a log, in order; nets that recurrent layers build are facts of these layers.

    Empty where the text tells of none.
    """
    reader = Reader()
    for record in records(text):
        reader.take(record)
    return [net for net in reader.nets if net.layers or net.text is not None or net.fatal]


def decoded(data: bytes) -> str:
    """A log's bytes as text: UTF-8 with whatever else kept, or UTF-16 as Windows' shells write it."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    return data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape").replace("\r\n", "\n").replace("\r", "\n")


def of_lines(lines: Iterable[Line]) -> NetFacts:
    """The facts of the lines that `log` makes of a model."""
    reader = Reader()
    for number, line in enumerate(lines, 1):
        file, _, at = line.place.rpartition(":")
        reader.take(Record(number, line.level, file, int(at) if at.isdigit() else 0, line.text))
    for net in reader.nets:
        return net
    return NetFacts(1, 1)


# ---- reports


def total(net: NetFacts) -> int:
    """Bytes of all tops as the shapes say, four a number and in-place ones again: Caffe's figure from rc on."""
    return 4 * sum(count(top.shape) for layer in net.layers for top in layer.tops if top.shape is not None)


def data(net: NetFacts) -> dict[str, Any]:
    """A net's facts as plain data."""
    return {
        "name": net.name,
        "phase": net.phase or None,
        "lines": [net.line, net.end],
        "complete": net.begun and net.done,
        "text": None if net.text is None else "complete" if net.text_complete else "cut",
        "inputs": net.inputs,
        "layers": [_layer(layer) for layer in net.layers],
        "outputs": net.outputs,
        "memory": net.memory,
        "filtered": [record.text for record in net.before if record.text.startswith(_RULES)],
        "upgrades": [record.text for record in net.before if not record.text.startswith(_RULES)],
        "fatal": net.fatal or None,
    }


def _layer(layer: LayerFacts) -> dict[str, Any]:
    return {
        "name": layer.name,
        "type": layer.type or None,
        "line": layer.line,
        "bottoms": layer.bottoms,
        "tops": [
            {
                "name": top.name or None,
                "in_place": top.in_place,
                "automatic": top.automatic,
                "shape": None if top.shape is None else list(top.shape),
                "loss_weight": top.loss_weight,
            }
            for top in layer.tops
        ],
        "memory": layer.memory,
        "shares": [{"param": param, "owner": owner, "index": index} for param, owner, index in layer.shares],
        "backward": layer.backward,
        "says": layer.says,
        "inner": [data(net) for net in layer.inner],
    }
