"""How near our logs are to real Caffe's: every reference log of every version, line by line.

    python -m tests.logs [VERSION ...] [--show N]

prints the rate per version and source and, for each log that is not met, the first lines that differ; `tests/test_log.py` holds
the rates. Only what no replay can know is masked: time, thread, pointers, the list of known layer types, protobuf's own lines.
"""

from __future__ import annotations

import argparse
import csv
import difflib
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from inspector import dialect as dialects
from inspector import log, opening, translate
from inspector.errors import InspectorError
from inspector.layers import Shape, Unknown
from inspector.net import PHASES, Net

from .conftest import reference_folder

VERSIONS = (*dialects.names(), "rc-debug")
SOURCES = ("caffe", "nets", "layers", "zoo", "wild")

_PREFIX = re.compile(r"^([IWEF])\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ (\S+?:\d+\] )")
_THREADS = "Prefetch batch|     Read time|Transform time|Waiting for data|Restarting data"  # what others say meanwhile
_NOISE = re.compile(rf"WARNING: Logging before|. common\.cpp:|\*\*\* |    @ |$|.*(?:{_THREADS})")
_OPENED = re.compile(r"I \S+ Opened l\w+ ")
_CREATING = re.compile(r"I net\.cpp:\d+\] Creating Layer (.*)")
_SHAPE = re.compile(r"I net\.cpp:\d+\] Top shape: ([\d ]*?) ?\(\d+\)")


@dataclass(frozen=True)
class Case:
    """One net construction in a reference log. `net` counts constructions in the file; `banner`: compare from the banner on."""

    source: str
    version: str
    dialect: str
    log: Path
    prototxt: Path
    phase: str
    debug: bool = False
    net: int = 0
    banner: bool = False
    words_only: bool = False  # the version lies between two dialects: compare the texts, not the source lines

    @property
    def name(self) -> str:
        where = f"{self.source}/{self.version}/" if self.source in ("caffe", "nets") else f"{self.source}/"
        return where + self.log.stem + (f"#{self.net}" if self.source == "wild" else "")


@dataclass
class Tally:
    """What was compared: logs, those met exactly, lines, lines met, and the first difference of each log not met."""

    logs: int = 0
    exact: int = 0
    lines: int = 0
    met: int = 0
    differences: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, theirs: list[str], ours: list[str]) -> None:
        self.logs += 1
        self.lines += len(theirs)
        if theirs == ours:
            self.exact += 1
            self.met += len(theirs)
            return
        same = difflib.SequenceMatcher(None, theirs, ours, autojunk=False).get_matching_blocks()
        self.met += sum(block.size for block in same)
        shown = list(difflib.unified_diff(theirs, ours, "caffe", "ours", lineterm="", n=0))[2:12]
        self.differences[name] = "\n".join(line[:300] for line in shown)


# ---- the cases


def cases(folder: Path, versions: Iterable[str] = VERSIONS, sources: Iterable[str] = SOURCES) -> Iterator[Case]:
    """Every net construction of the reference logs, by version."""
    for version in versions:
        name = version.removesuffix("-debug")
        for source in ("caffe", "nets"):
            if source in sources:
                for path in sorted((folder / "logs" / source / version).glob("*.log")):
                    stem, phase, _ = path.name.rsplit(".", 2)
                    yield Case(source, version, name, path, path.with_name(f"{stem}.prototxt"), phase, version != name)
    if "master" in versions and "zoo" in sources:
        for path in sorted((folder / "logs" / "zoo").glob("*.log")):
            stem, phase, _ = path.name.rsplit(".", 2)
            yield Case("zoo", "master", "master", path, path.with_name(f"{stem}.prototxt"), phase)
    if "master" in versions and "layers" in sources:
        for path in sorted((folder / "layers").glob("*/*.log")):
            phase = path.with_suffix(".phase").read_text().strip()
            yield Case("layers", "master", "master", path, path.with_suffix(".prototxt"), phase)
    if "wild" in sources:
        yield from (case for case in _wild(folder / "logs" / "wild") if case.version in versions)


def _wild(folder: Path) -> Iterator[Case]:
    """Logs that people published, those of BVLC's versions; each with the prototxts that belong to its nets."""
    with (folder / "MANIFEST.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    for row in rows:
        path = folder / f"{row['name']}.log"
        spans = list(_constructions(lines_of(path)))
        for prototxt in filter(None, row["prototxt_files"].split(",")):
            number = re.search(r"__net(\d+)_", prototxt)
            net = int(number[1]) - 1 if number else 0
            if ".truncated." in prototxt or net >= len(spans):
                continue
            name, exact = _fingerprint(spans[net])
            if name:
                phase = "TEST" if "_TEST." in prototxt or row["phases"] == "TEST" else "TRAIN"
                debug = any("Initializing prefetch" in line for line in spans[net])
                yield Case("wild", name, name, path, folder / prototxt, phase, debug, net, True, not exact)


def _fingerprint(lines: list[str]) -> tuple[str, bool]:
    """The dialect of a construction, by the source lines of its statements, and whether those of net.cpp are exactly its own."""
    said = {line.split("] ")[0] for line in lines if re.match(r"[IWE] \w+\.[ch]pp:\d+\] ", line)}
    best, score, exact = "", 0.0, False
    for name in dialects.names():
        places = {f"{s.level.replace('D', 'I')} {s.place}" for s in dialects.load(name).say.values()}
        share = len(said & places) / len(said)
        if share > score:
            best, score, exact = name, share, all(place in places for place in said if "net.cpp" in place)
    return best, exact


# ---- a log's lines


@lru_cache(8)
def lines_of(path: Path) -> list[str]:
    """The masked lines of a log file."""
    return masked(read(path))


def read(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "surrogateescape").replace("\r\n", "\n")


def masked(text: str) -> list[str]:
    """The lines of a log without what differs from run to run."""
    lines: list[str] = []
    for line in text.split("*** Check failure")[0].split("\n"):
        if line.startswith("[libprotobuf"):
            line = re.sub(r"text_format\.cc:\d+", "text_format.cc:", line)
        line = _PREFIX.sub(r"\1 \2", line)
        if "0x" in line:
            line = re.sub(r"0x[0-9a-f]+", "0x", line)
        if "known types: " in line:
            line = line[: line.index("known types: ")]
        lines.append(line)
    return lines


def settled(lines: list[str]) -> list[str]:
    """Lines without noise, and databases' "Opened" lines after the tops: rc3 says them from another thread, at any moment."""
    lines = [line for line in lines if not _NOISE.match(line)]
    result: list[str] = []
    opened: list[str] = []
    for line in lines:
        if _OPENED.match(line):
            opened.append(line)
            continue
        if opened and "output data size" in line:
            result += opened
            opened = []
        result.append(line)
    return result + opened


def _constructions(lines: list[str]) -> Iterator[list[str]]:
    """The lines of each net construction in a log: from the banner (before there was one, the first layer) to the end."""
    start, depth = None, 0
    for i, line in enumerate(lines):
        if "Initializing net from parameters" in line or (start is None and " Creating Layer " in line):
            if start is None:
                start = i
            depth += 1
        elif start is not None and "Network initialization done." in line:
            depth -= 1
            if depth == 0:
                end = i + 1 + ("Memory required for " in "".join(lines[i + 1 : i + 2]))
                yield lines[start:end]
                start = None


def theirs(case: Case) -> list[str]:
    """What real Caffe said."""
    lines = lines_of(case.log)
    if case.banner:
        lines = list(_constructions(lines))[case.net]
    return settled(_plain(lines) if case.words_only else lines)


def ours(case: Case, said: list[str]) -> list[str]:
    """What we say; data layers are given the shapes that Caffe read from its source."""
    words = dialects.load(case.dialect)
    edition = replace(words.edition, debug=case.debug)
    if case.source == "wild" and edition.state == "caller" and "  level: 0" not in said[:8]:
        edition = replace(edition, state="phase")  # the test net of a solver, which is given no level
    try:
        opened = translate.read(opening.file(case.prototxt, PHASES[case.phase]), words)
        net = Net(opened, case.phase, edition=edition)
        shapes = given(net, said)
        if shapes:
            net = Net(net.opened, case.phase, given=shapes, edition=edition)
        spoken = log.of(net, words, file=_named(case, said), debug=case.debug, rows=_rows(said), lenient=case.banner)
        text = "".join(line.masked() for line in spoken)
    except InspectorError as error:
        return [f"{type(error).__name__}: {error}"]
    lines = masked(text)
    if case.banner:
        start = next((i for i, line in enumerate(lines) if "Initializing net" in line or " Creating Layer " in line), 0)
        lines = lines[start:]
    return settled(_plain(lines) if case.words_only else lines)


def _named(case: Case, said: list[str]) -> str:
    """The path of the prototxt as it was given to Caffe, where the log tells it."""
    named = (re.search(r"(?:parameters|V\dLayerParameter|input fields|params|NetParameter file): (\S+)$", line) for line in said)
    return next((match[1] for match in named if match), case.prototxt.name)


def _plain(lines: list[str]) -> list[str]:
    return [re.sub(r"^[IWEF] \S+?:\d+\] ", "", line) for line in lines]


def given(net: Net, said: list[str]) -> dict[str, Shape]:
    shapes: dict[str, list[Shape]] = defaultdict(list)
    layer = ""
    for line in said:
        if match := re.match(r"(?:I \S+\] )?Creating Layer (.*)", line):
            layer = match[1]
        elif match := re.match(r"(?:I \S+\] )?Top shape: ([\d ]*?) ?\(\d+\)", line):
            shapes[layer].append(tuple(map(int, match[1].split())))
    nodes = [*net.graph.nodes, *([net.graph.broken] if net.graph.broken else [])]
    return {
        top.name: shape
        for node in nodes
        if isinstance(node.layer, Unknown) or (node.layer.data and node.type not in ("Input", "DummyData", "MemoryData"))
        for top, shape in zip(node.tops, shapes[node.name], strict=False)
    }


def _rows(said: list[str]) -> dict[str, int]:
    """How many lines the list files had that Caffe read."""
    rows: dict[str, int] = {}
    source = ""
    for line in said:
        if match := re.search(r"(?:Opening file|Loading list of HDF5 filenames from:|Loading filename from) (.*)", line):
            source = match[1]
        elif match := re.search(r"(?:A total of|Number of HDF5 files:|Number of files:) (\d+)", line):
            rows[source] = int(match[1])
    return rows


def measure(found: Iterable[Case]) -> dict[tuple[str, str], Tally]:
    """Tallies by version and source."""
    tallies: dict[tuple[str, str], Tally] = {}
    for case in found:
        said = theirs(case)
        source = case.source + (" (words)" if case.words_only else "")
        tallies.setdefault((case.version, source), Tally()).add(case.name, said, ours(case, said))
    return tallies


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.logs", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("versions", nargs="*", default=VERSIONS, metavar="VERSION")
    parser.add_argument("--source", action="append", choices=SOURCES)
    parser.add_argument("--show", type=int, default=1000, metavar="N", help="how many logs that are not met to show")
    options = parser.parse_args(arguments)
    folder = reference_folder()
    if folder is None:
        parser.error("no reference folder: set ALEXINSPECT_REFERENCE to the answers of real Caffe")
    tallies = measure(cases(folder, options.versions, options.source or SOURCES))
    shown = 0
    for tally in tallies.values():
        for name, difference in tally.differences.items():
            shown += 1
            if shown <= options.show:
                print(f"--- {name}\n{difference}")
    for (version, source), tally in tallies.items():
        rate = f"{tally.met}/{tally.lines} lines ({tally.met / max(1, tally.lines):.3%})"
        print(f"{version:9} {source:14} {tally.exact}/{tally.logs} logs exact, {rate}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
