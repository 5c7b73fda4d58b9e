"""Models and the reference logs that lie beside them: which log belongs to which prototxt, and in which phase.

Two ways of laying them out are understood: `X.prototxt` with `X.log`, `X.PHASE.log` or `X.PHASE.DIALECT.log` beside it, and these
logs in a folder `reference` beside the prototxt, as in `models/`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from . import dialect as dialects
from . import logparse
from .errors import InspectorError
from .files import read_bytes

FOLDER = "reference"
_TRAINING = re.compile(r"\] +Iteration \d|\] Solving")


@dataclass(frozen=True, slots=True)
class Pair:
    """A reference log, the model that it is of (None where there is none), and what its name says."""

    log: Path
    model: Path | None
    phase: str = ""
    dialect: str = ""
    debug: bool = False


@cache
def _name() -> re.Pattern[str]:
    known = "|".join(re.escape(name) for name in (*dialects.names(), *dialects.ALIASES))
    return re.compile(rf"(?P<stem>.+?)(?:\.(?P<phase>TRAIN|TEST))?(?:\.(?P<dialect>{known})(?P<debug>-debug)?)?\.log")


def named(log: Path) -> Pair:
    """What a log's name says: its model where that is there, its phase, its dialect."""
    match = _name().fullmatch(log.name)
    if match is None:
        return Pair(log, None)
    folders = [log.parent.parent] if log.parent.name == FOLDER else [log.parent]
    stems = dict.fromkeys((log.name.removesuffix(".log"), match["stem"]))
    models = (folder / f"{stem}.prototxt" for folder in folders for stem in stems)
    model = next((path for path in models if path.is_file()), None)
    return Pair(log, model, match["phase"] or "", match["dialect"] or "", bool(match["debug"]))


def below(folder: str | os.PathLike[str]) -> list[Pair]:
    """Every reference log below a folder, sorted. Hidden folders are left out, and logs of other things: those that lie beside no
    model of their name and tell of no net, or of training.

    Raises InspectorError where there is no such folder.
    """
    top = Path(folder)
    if not top.is_dir():
        raise InspectorError(f"'{top}' is no folder", code="file", remedy="name one that has models and their logs")
    found = []
    for path in sorted(top.rglob("*.log")):
        if any(part.startswith(".") for part in path.relative_to(top).parts) or not path.is_file():
            continue
        pair = named(path)
        if pair.model is not None or path.parent.name == FOLDER or _is_reference(path):
            found.append(pair)
    return found


def _is_reference(log: Path) -> bool:
    """Whether a log beside no model of its name tells of nets and of nothing else."""
    text = logparse.decoded(read_bytes(log))
    return not _TRAINING.search(text) and bool(logparse.read(text))
