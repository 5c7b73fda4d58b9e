"""Names of classes, one per line, as ImageNet's synset_words.txt has them."""

from __future__ import annotations

import os
import re

from .errors import UnreadableError
from .files import read_bytes

_SYNSET = re.compile(r"n\d{8}[ \t]+")


def read_labels(path: str | os.PathLike[str]) -> list[str]:
    """The names in a file, by class; a WordNet number such as n01440764 before a name is left out where every line has one.

    Raises UnreadableError if the file is no text or names nothing.
    """
    data = read_bytes(path)
    if b"\0" in data:
        raise UnreadableError(f"'{os.fspath(path)}' is no text", code="labels", remedy="name a file with one class per line")
    names = [line.strip() for line in data.decode("utf-8-sig", "replace").splitlines()]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise UnreadableError(f"'{os.fspath(path)}' names no class", code="labels", remedy="put one name on each line")
    if all(_SYNSET.match(name) for name in names):
        names = [_SYNSET.sub("", name) for name in names]
    return names
