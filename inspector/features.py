"""What `extract` does: rows of blobs for thousands of items into one file, in constant memory, and resumable after a kill.

Until everything is there, rows lie in a folder `OUT.part`: `N.f32` holds the rows of one blob one after the other, and `journal` a
line of JSON for each batch, written after its rows have reached the disk. A killed run leaves at most rows that no line speaks of,
which the next one cuts off before it goes on. Then the file is made of them, under its own name in one moment, and the folder is
removed.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from caffe_proto import caffe_pb2

from .errors import InspectorError, UnreadableError
from .files import replacing, trouble
from .layers import Shape, shape_text
from .lazy import np
from .sources import hdf5, lmdb

if TYPE_CHECKING:
    from .classify import Answers, Runner
    from .net import Net

JOURNAL = "journal"
PIECE = 1 << 22  # bytes that are in memory at a time when the file is made
NAMES = "names"


class Spool:
    """Rows of some blobs, each under the name of its item, in a folder that outlives the process.

    `about` says what the rows are, in plain data; a folder that was begun with something else is not continued.
    Raises InspectorError where the folder belongs to another run, or another process is at work on it.
    """

    def __init__(self, folder: Path, blobs: Sequence[str], about: Mapping[str, Any] = MappingProxyType({})) -> None:
        self.folder = folder
        self.blobs = list(blobs)
        self.shapes: list[Shape] = []  # of one row, known from the first batch on
        self.names: list[str] = []
        self.batches = 0
        self._head = {"blobs": self.blobs, **about}
        self._files: list[BinaryIO] = []
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._journal = (folder / JOURNAL).open("a+b")
        except OSError as error:
            raise trouble(folder, error, "write") from None
        try:
            self._lock()
            self._recover()
            self._files = [(folder / f"{i}.f32").open("ab") for i in range(len(self.blobs))]
            for file, shape in zip(self._files, self.shapes or [()] * len(self.blobs)):
                self._cut(file, len(self.names) * prod(shape) * 4 if self.shapes else 0)
        except OSError as error:
            self.close()
            raise trouble(folder, error, "write") from None
        except InspectorError:
            self.close()
            raise

    def _lock(self) -> None:
        if sys.platform == "win32":
            return
        import fcntl

        try:
            fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"another process is at work on '{self.folder}'"
            raise InspectorError(message, code="spool-busy", remedy="wait until it ends, or choose another name") from None

    def _recover(self) -> None:
        """Take up what an earlier run left; a last line without its end was being written when it was killed."""
        self._journal.seek(0)
        lines = self._journal.read().split(b"\n")
        self._journal.truncate(sum(len(line) + 1 for line in lines[:-1]))
        try:
            entries: list[dict[str, Any]] = [dict(json.loads(line)) for line in lines[:-1]]
            for entry in entries[1:]:
                self.names += entry["names"]
                self.batches += 1
                self.shapes = [tuple(map(int, shape)) for shape in entry["shapes"]] or self.shapes
        except (ValueError, KeyError, TypeError) as error:
            raise UnreadableError(f"'{self.folder}' is damaged: {error}", code="spool-damaged", remedy="remove it") from None
        if not entries:
            self._write(self._head)
        elif entries[0] != json.loads(json.dumps(self._head)):
            differ = sorted(key for key in {*entries[0], *self._head} if entries[0].get(key) != self._head.get(key))
            raise InspectorError(
                f"'{self.folder}' was begun with something else: {', '.join(differ)}",
                code="spool-other",
                remedy="finish it with what it was begun with, or remove it",
            )

    def _cut(self, file: BinaryIO, size: int) -> None:
        have = file.seek(0, os.SEEK_END)
        if have < size:
            message = f"'{file.name}' ends after {have} bytes, and {size} were written"
            raise UnreadableError(message, code="spool-damaged", remedy=f"remove '{self.folder}' and begin again")
        file.truncate(size)

    # ---- writing

    def add(self, names: Sequence[str], rows: Mapping[str, np.ndarray]) -> None:
        """Rows of a batch, one for each name. They are on the disk when this returns.

        Raises InspectorError if rows have another shape than before, or are not as many as the names.
        """
        try:
            shapes = [rows[blob].shape[1:] for blob in self.blobs]
            for blob, shape, before in zip(self.blobs, shapes, self.shapes or shapes):
                if shape != before:
                    message = f"'{blob}' was {shape_text(before)} for each item, and for '{names[0]}' it is {shape_text(shape)}"
                    raise InspectorError(message, code="mixed-sizes", remedy="bring all images to one size with --resize")
                if len(rows[blob]) != len(names):
                    message = f"'{blob}' is {shape_text(rows[blob].shape)} for {len(names)} items, and has no row for each"
                    raise InspectorError(message, code="no-rows", remedy="choose a blob whose first axis is the batch")
            for file, blob in zip(self._files, self.blobs):
                file.write(np.ascontiguousarray(rows[blob], "<f4").data)
                file.flush()
                os.fsync(file.fileno())
            self._write({"names": list(names), "shapes": shapes})
        except OSError as error:
            raise trouble(self.folder, error, "write") from None
        self.names += names
        self.batches += 1
        self.shapes = self.shapes or shapes

    def _write(self, entry: Mapping[str, Any]) -> None:
        self._journal.write(json.dumps(entry).encode() + b"\n")
        self._journal.flush()
        os.fsync(self._journal.fileno())

    # ---- reading

    def array(self, blob: str) -> np.ndarray:
        """All rows of a blob, mapped from the disk."""
        index = self.blobs.index(blob)
        shape = (len(self.names), *self.shapes[index])
        return np.memmap(self.folder / f"{index}.f32", "<f4", "r", shape=shape) if prod(shape) else np.zeros(shape, "<f4")

    def pieces(self, blob: str) -> Iterator[np.ndarray]:
        """The rows of a blob, some at a time."""
        rows = self.array(blob)
        step = max(1, PIECE // max(1, rows[:1].nbytes))
        for start in range(0, len(rows), step):
            yield rows[start : start + step]

    def close(self) -> None:
        """Let go of the files; the folder stays."""
        for file in (*self._files, self._journal):
            file.close()

    def remove(self) -> None:
        """Close, and remove the folder."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# ---- rows out of a net


def about(net: Net, weights: str | None, **more: Any) -> dict[str, Any]:
    """What tells one run from another: the net's content, the file of weights, and whatever else decides the rows."""
    status = Path(weights).stat() if weights else None
    stored = [os.path.abspath(weights), status.st_size, status.st_mtime_ns] if weights and status else None  # noqa: PTH100
    return {"net": sha256(net.opened.proto.SerializeToString()).hexdigest(), "weights": stored, **more}


def from_images(runner: Runner, paths: Sequence[str], spool: Spool) -> Iterator[Answers]:
    """Add rows for the images that have none yet, batch by batch. Those that cannot be read are in the answers' `broken`."""
    done = set(spool.names)
    for answers in runner([path for path in paths if path not in done]):
        if answers.names:
            spool.add(answers.names, answers.blobs)
        yield answers


def from_sources(net: Net, iterations: int, spool: Spool) -> Iterator[int]:
    """Add rows for so many batches of the net's own data layers, as Caffe's extract_features does; gives the number of each.

    Batches that an earlier run has done are read and passed over. Items are named by their number. Raises InspectorError.
    """
    with net.open_sources() as feed:
        for i in range(iterations):
            fed = feed.next()
            if i < spool.batches:
                continue
            rows = net.forward(spool.blobs, **fed)
            first = len(spool.names)
            count = len(rows[spool.blobs[0]]) if rows[spool.blobs[0]].ndim else 0
            spool.add([str(first + k) for k in range(count)], rows)
            yield i


# ---- files


def names_key(spool: Spool) -> str:
    """What the names of the items are called among the blobs."""
    return NAMES if NAMES not in spool.blobs else f"{NAMES}_of_items"


def write_npz(path: Path, spool: Spool) -> None:
    """An .npz of every blob, N x its shape, and of the items' names."""
    with replacing(path) as file, zipfile.ZipFile(file, "w", allowZip64=True) as archive:
        for blob in spool.blobs:
            with archive.open(f"{blob}.npy", "w", force_zip64=True) as member:
                _header(member, "<f4", spool.array(blob).shape)
                for piece in spool.pieces(blob):
                    member.write(np.ascontiguousarray(piece).data)
        kind = f"<U{max(map(len, spool.names), default=1) or 1}"
        with archive.open(f"{names_key(spool)}.npy", "w", force_zip64=True) as member:
            _header(member, kind, (len(spool.names),))
            step = max(1, PIECE // np.dtype(kind).itemsize)
            for start in range(0, len(spool.names), step):
                member.write(np.array(spool.names[start : start + step], kind).tobytes())


def _header(file: Any, kind: str, shape: Shape) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})


def write_hdf5(path: Path, spool: Spool) -> None:
    """An HDF5 file with a data set for every blob, N x its shape, and the items' names. Raises MissingExtra without h5py."""
    with hdf5.writing(path) as file:
        for blob in spool.blobs:
            for piece in spool.pieces(blob):
                file.append(**{blob: piece})
        file.strings(names_key(spool), [_plain(name) for name in spool.names])


def write_lmdb(path: Path, spool: Spool) -> None:
    """An LMDB of Datums with float_data, as Caffe's extract_features writes it; of several blobs one for each, in a folder.

    Keys are the item's number in eight digits and its name. A row has channels x height x width, missing axes being 1. Raises
    InspectorError if something of that name is there, MissingExtra without the binding.
    """
    if len(spool.blobs) == 1:
        _write_database(path, spool, spool.blobs[0])
        return
    temporary = spool.folder / "databases"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        for blob in spool.blobs:
            _write_database(temporary / _file_name(blob), spool, blob)
        if os.path.lexists(path):
            raise _there(path)
        temporary.rename(path)
    except OSError as error:
        raise trouble(path, error, "write") from None


def _write_database(path: Path, spool: Spool, blob: str) -> None:
    shape = spool.shapes[spool.blobs.index(blob)] if spool.shapes else ()
    sizes = (*shape, 1, 1, 1)[:3] if len(shape) <= 3 else (prod(shape), 1, 1)
    i = 0
    with lmdb.replacing(path) as writer:
        for piece in spool.pieces(blob) if spool.shapes else ():
            for row in piece:
                datum = caffe_pb2.Datum(channels=sizes[0], height=sizes[1], width=sizes[2], label=0)
                datum.float_data.extend(row.reshape(-1).tolist())
                writer.put(f"{i:08}_{_plain(spool.names[i])}".encode(), datum.SerializeToString())
                i += 1


def _plain(name: str) -> str:
    """A file name that may not be UTF-8, as text."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _file_name(blob: str) -> str:
    """A blob's name as that of a file: Caffe's names hold slashes."""
    return blob.replace("/", "_").lstrip(".") or "_"


def _there(path: Path) -> InspectorError:
    return InspectorError(f"'{path}' is there already", code="file", remedy="remove it, or choose another name")


WRITERS: Mapping[str, Callable[[Path, Spool], None]] = MappingProxyType({"npz": write_npz, "hdf5": write_hdf5, "lmdb": write_lmdb})
SUFFIXES = MappingProxyType({".npz": "npz", ".h5": "hdf5", ".hdf5": "hdf5", ".lmdb": "lmdb"})


def kind_of(path: Path) -> str:
    """The kind of file that a name asks for; raises InspectorError where it does not say."""
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is None:
        known = ", ".join(SUFFIXES)
        raise InspectorError(f"cannot tell the format of '{path}'", code="file", remedy=f"let its name end in {known}, or say --to")
    return kind


def spool_folder(path: Path) -> Path:
    """Where rows wait until `path` can be made."""
    return path.with_name(f"{path.name}.part")


def check_free(path: Path) -> None:
    """Raise InspectorError if `path` is there: hours of work are not replaced."""
    if os.path.lexists(path):
        raise _there(path)


def check_blobs(blobs: Iterable[str]) -> None:
    """Raise InspectorError if two blobs would have one name in a file."""
    names = list(blobs)
    if len(set(map(_file_name, names))) != len(names):
        raise InspectorError(f"two of {', '.join(names)} would have one name", code="same-name", remedy="extract them one by one")
