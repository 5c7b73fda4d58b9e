"""LMDB: read page by page, with every offset held against the page it must lie in; written through the binding.

The binding maps the file into memory and trusts what it finds there, so that a truncated or damaged file kills the whole process
with a bus error. This reader takes pages with ordinary reads and ends in an error. It needs no lock, writes nothing, and works
where nothing may be written. The format is that of LMDB 0.9 on 64-bit little-endian machines, data version 1, which Caffe's
databases have (lmdb.h and mdb.c: MDB_page, MDB_node, MDB_meta).
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, Self

from ..errors import InspectorError, MissingExtra, UnreadableError
from ..files import trouble

MAGIC = 0xBEEFC0DE
HEADER = 16  # bytes before a page's content
BRANCH, LEAF, OVERFLOW, META = 1, 2, 4, 8  # kinds of pages
BIG, SUBDATABASE, DUPLICATES = 1, 2, 4  # kinds of nodes
NOWHERE = (1 << 64) - 1  # the root of an empty database
_META = struct.Struct("<II16x48xI H H 3Q QQ QQ")  # magic, version, ..., the main database, the last page, the transaction


def data_file(path: Path) -> Path:
    """The file itself: LMDB is named by its folder."""
    return path / "data.mdb" if path.is_dir() else path


def looks_like(path: Path) -> bool:
    """Whether an LMDB lies there: a folder with data.mdb, or that file under any name."""
    if path.is_dir():
        return (path / "data.mdb").is_file()
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return file.read(20)[16:20] == MAGIC.to_bytes(4, "little")
    except OSError:
        return False


class Reader:
    """The records of an LMDB in the order of their keys. Iterating gives (key, value); it may be done again and again."""

    kind = "lmdb"

    def __init__(self, path: Path) -> None:
        self.path = data_file(path)
        try:
            self._file = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise trouble(self.path, error) from None
        try:
            self._size = os.fstat(self._file).st_size
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        head = os.pread(self._file, HEADER + _META.size, 0)
        if len(head) < HEADER + _META.size or int.from_bytes(head[16:20], "little") != MAGIC:
            raise UnreadableError(f"'{self.path}' is no LMDB database", code="no-database")
        # mm_dbs[0].md_pad holds the size of a page
        self._page = int.from_bytes(head[HEADER + 24 : HEADER + 28], "little")
        if self._page not in (1 << n for n in range(9, 17)):
            self._damaged(f"it has pages of {self._page} bytes")
        metas = [meta for meta in map(self._meta, (0, 1)) if meta is not None]
        if not metas:
            self._damaged("it has no readable meta page")
        _, self.depth, self.entries, self._root, self._last = max(metas)
        if self.entries * 10 > self._size:  # the least that a record takes
            self._damaged(f"it says that it has {self.entries} records")
        if (self._last + 1) * self._page > self._size:
            self._damaged(f"it ends after {self._size} bytes, and its pages need {(self._last + 1) * self._page}; it was cut short")

    def _meta(self, number: int) -> tuple[int, int, int, int, int] | None:
        """Transaction, depth, entries, root and last page of a meta page."""
        raw = os.pread(self._file, _META.size, number * self._page + HEADER)
        if len(raw) < _META.size:
            return None
        magic, version, _, flags, depth, _, _, _, entries, root, last, transaction = _META.unpack(raw)
        if magic != MAGIC:
            return None
        if version & 0xFFFF != 1:
            self._damaged(f"its format has version {version & 0xFFFF}, and Caffe's LMDB has 1")
        if flags & DUPLICATES:
            self._damaged("its keys may repeat, which Caffe does not write")
        return transaction, depth, entries, root, last

    def __len__(self) -> int:
        return self.entries

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        if self._root != NOWHERE:
            # each page of a tree is met once, so that one which bites its own tail comes to an end
            yield from self._walk(self._root, 1, iter(range(self._last)))

    def _walk(self, number: int, level: int, budget: Iterator[int]) -> Iterator[tuple[bytes, bytes]]:
        if next(budget, None) is None or level > self.depth:
            self._damaged("its pages form no tree")
        page = self._read(number, self._page)
        flags, lower = struct.unpack_from("<HH", page, 10)
        if flags & (BRANCH | LEAF) not in (BRANCH, LEAF) or not HEADER <= lower <= self._page:
            self._damaged(f"page {number} is neither branch nor leaf")
        for (offset,) in struct.iter_unpack("<H", page[HEADER : lower - (lower - HEADER) % 2]):
            if not HEADER <= offset <= self._page - 8:
                self._damaged(f"page {number} points outside itself")
            low, high, kind, key_size = struct.unpack_from("<HHHH", page, offset)
            if flags & BRANCH:
                yield from self._walk(low | high << 16 | kind << 32, level + 1, budget)
                continue
            start = offset + 8 + key_size
            size = low | high << 16
            if kind & ~BIG or start + (8 if kind & BIG else size) > self._page:
                self._damaged(f"page {number} holds a record that is no plain one")
            key = page[offset + 8 : start]
            yield key, self._overflow(page, start, size) if kind & BIG else page[start : start + size]

    def _overflow(self, page: bytes, start: int, size: int) -> bytes:
        (number,) = struct.unpack_from("<Q", page, start)
        return self._read(number, HEADER + size)[HEADER:]

    def _read(self, number: int, size: int) -> bytes:
        if not 2 <= number <= self._last or number * self._page + size > self._size:
            self._damaged(f"it points to page {number} of {self._last + 1}")
        data = os.pread(self._file, size, number * self._page)
        if len(data) != size or int.from_bytes(data[:8], "little") != number:
            self._damaged(f"page {number} is not what it should be")
        return data

    def _damaged(self, why: str) -> NoReturn:
        raise UnreadableError(f"'{self.path}' is a damaged LMDB database: {why}", code="corrupt-file", remedy="make it again")

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def binding() -> Any:
    """The module lmdb. Raises MissingExtra."""
    try:
        import lmdb
    except ImportError:
        remedy = 'pip install "alexinspect[data]"'
        raise MissingExtra("writing LMDB needs lmdb", code="missing-extra", remedy=remedy, extra="data") from None
    return lmdb


class Writer:
    """Puts records into a new LMDB, in transactions of 1000, as convert_imageset does."""

    COMMIT = 1000
    KEY_LIMIT = 511

    def __init__(self, folder: Path) -> None:
        self._lmdb = binding()
        self._size = 1 << 26
        self._environment = self._lmdb.open(str(folder), map_size=self._size, lock=False, readahead=False, meminit=False)
        self._waiting: list[tuple[bytes, bytes]] = []
        self.records = 0

    def put(self, key: bytes, value: bytes) -> None:
        """Add a record; later ones of the same key take its place. A key has at most 511 bytes, or is cut to them."""
        self._waiting.append((key[: self.KEY_LIMIT], value))
        self.records += 1
        if len(self._waiting) >= self.COMMIT:
            self._commit()

    def _commit(self) -> None:
        while True:
            try:
                with self._environment.begin(write=True) as transaction:
                    for key, value in self._waiting:
                        transaction.put(key, value)
            except self._lmdb.MapFullError:
                self._size *= 2
                self._environment.set_mapsize(self._size)
            else:
                self._waiting.clear()
                return

    def close(self) -> None:
        try:
            self._commit()
        finally:
            self._environment.close()


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Writer]:
    """A new LMDB that appears under its name when the block ends well. Raises InspectorError if something is there already."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        if os.path.lexists(target):
            raise InspectorError(f"'{target}' is there already", code="file", remedy="remove it, or choose another name")
        temporary.mkdir()
        writer = Writer(temporary)
        try:
            yield writer
        finally:
            writer.close()
        temporary.rename(target)
    except OSError as error:
        raise trouble(path, error, "write") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
