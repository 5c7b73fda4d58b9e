"""A reference log and a model line by line: what `diff --strict` prints."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher, unified_diff

from .log import Line
from .logmodel import Modelled
from .logparse import NetFacts, Record, impersonal, is_cut

_NOISE = re.compile(r"Prefetch batch|\s+Read time|Transform time|Waiting for data|Restarting data|Cannot create Cu")
_OPENED = re.compile(r"Opened l(?:mdb|eveldb) ")
_PARSER = "[libprotobuf "  # a line of protobuf's own, which no log of Caffe has
_BANNER = "Initializing net from parameters"


def strict(theirs: NetFacts, ours: Modelled, name: str, model_name: str) -> list[str]:
    """A unified diff of the reference's lines, prefix masked, and the model's; empty where they are the same byte for byte.

    Of a log whose beginning or end is lost, what is left is compared. From rc3 on another thread opened databases, at any moment:
    where the reference has that line does not matter, nor that it has none.
    """
    records = [record for record in (*theirs.before, *theirs.records) if not _NOISE.match(record.text)]
    lines = [line for line in ours.lines if not line.masked().startswith(_PARSER)]
    if ours.words.order.database == "setup":
        opened = {record.text for record in records if _OPENED.match(record.text)}
        if opened <= {line.text for line in lines}:
            records = [record for record in records if record.text not in opened]
            lines = [line for line in lines if not _OPENED.match(line.text)]
    old = list(_pieces(record.masked() for record in records))
    new = list(_pieces(_cut_alike(line, records) for line in lines))
    if old == new:
        return []
    return list(unified_diff(old, _trimmed(theirs, old, new), name, model_name))


def _pieces(texts: Iterable[str]) -> Iterator[str]:
    """Single lines, without what nobody can repeat."""
    for text in texts:
        yield from (impersonal(text) if "0x" in text or "known types" in text else text).splitlines(keepends=True)


def _cut_alike(line: Line, records: Sequence[Record]) -> str:
    """Our line; the net's text is cut where the reference's is, because the place moves with the width of the prefix."""
    if not line.text.startswith(_BANNER):
        return line.masked()
    whole = line.masked(cut=False)
    for record in records:
        if record.text.startswith(_BANNER) and is_cut(record):
            theirs = record.masked().rstrip("\n")
            if whole.startswith(theirs):
                return theirs + "\n"
    return whole


def _trimmed(theirs: NetFacts, old: Sequence[str], new: Sequence[str]) -> Sequence[str]:
    """Our lines without those before and behind what is left of a log whose ends are lost."""
    blocks = [block for block in SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks() if block.size]
    if not blocks:
        return new
    first, last = blocks[0], blocks[-1]
    start, end = 0, len(new)
    if first.a == 0 and (not theirs.begun or (not theirs.before and theirs.line == 1)):
        start = first.b
    if last.a + last.size == len(old) and not theirs.done and not theirs.fatal:
        end = last.b + last.size
    return new[start:end]
