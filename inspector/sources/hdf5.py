"""HDF5Data and HDF5Output: rows of data sets, one per top, from the files of a list. (hdf5_data_layer.cpp, hdf5_output_layer.cpp)

After the last row of a file comes the first of the next, also within a batch, and after the last file the first. `shuffle` mixes
the files each time round, and the rows of each file when it is opened. Rows are read as they are needed, so a file may be larger
than memory; Caffe reads whole files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..caffemodel import h5py_module, hdf5_errors, numeric_dataset, replacing_hdf5
from ..errors import InspectorError, UnreadableError
from ..files import read_bytes
from ..foreign import HDF5_SIGNATURE
from ..layers import Shape, shape_text
from ..lazy import np
from .base import Source

if TYPE_CHECKING:
    import os

    from .base import Batch


class HDF5Data(Source):
    type = "HDF5Data"

    def __init__(self, proto: Any, phase: int, folder: Path, rng: np.random.Generator) -> None:
        super().__init__(proto, phase, folder, rng)
        source = proto.hdf5_data_param.source
        self.path = self.find(source)
        with self.blame(source, self.path):
            self.files = read_bytes(self.path).decode("utf-8", "surrogateescape").split()
        self.lines += [("hdf5-list", {"source": source}), ("hdf5-files", {"files": len(self.files)})]
        if not self.files:
            self.fail(f"the list '{source}' names no HDF5 file", code="empty-source", remedy="put one path on each line")
        if self._shuffles:
            self._shuffle()
        self._tops: list[Shape] = []

    @property
    def batch_size(self) -> int:
        return int(self.proto.hdf5_data_param.batch_size)

    @property
    def _shuffles(self) -> bool:
        return bool(self.proto.hdf5_data_param.shuffle)

    def _shuffle(self) -> None:
        self.files = [self.files[i] for i in self.rng.permutation(len(self.files))]

    def first(self) -> list[Shape]:
        if not self._tops:
            with self._opened(self.files[0]) as datasets:
                self._tops = [tuple(map(int, dataset.shape[1:])) for dataset in datasets]
                self.lines.append(("hdf5-class" if datasets[0].dtype.kind == "f" else "hdf5-class-integer", {}))
        return [(self.batch_size, *top) for top in self._tops]

    def records(self) -> int | None:
        return None if self._shuffles else sum(self._rows(name) for name in self.files)

    def _rows(self, name: str) -> int:
        with self._opened(name) as datasets:
            return len(datasets[0])

    def batches(self) -> Iterator[Batch]:
        batch, have = self._empty(), 0
        while True:
            seen = 0
            for name in self.files:
                with self._opened(name) as datasets:
                    rows = len(datasets[0])
                    seen += rows
                    order = self.rng.permutation(rows) if self._shuffles else None
                    row = 0
                    while row < rows:
                        taken = min(rows - row, self.batch_size - have)
                        for top, dataset in zip(batch, datasets, strict=True):
                            self._copy(dataset, top[have : have + taken], row, order)
                        row, have = row + taken, have + taken
                        if have == self.batch_size:
                            yield batch
                            batch, have = self._empty(), 0
            if not seen:
                self.fail(f"the files of '{self.proto.hdf5_data_param.source}' hold no rows", code="empty-source")
            if self._shuffles:
                self._shuffle()

    def _empty(self) -> Batch:
        return [np.empty(shape, np.float32) for shape in self.first()]

    def _copy(self, dataset: Any, out: np.ndarray, row: int, order: np.ndarray | None) -> None:
        """Rows of a data set from `row` on, in the order of the file or in the given one."""
        floats = dataset.astype(np.float32)
        if order is None:
            out[...] = floats[row : row + len(out)]
        else:
            for i, source in enumerate(order[row : row + len(out)]):
                out[i] = floats[int(source)]

    @contextmanager
    def _opened(self, name: str) -> Iterator[list[Any]]:
        """The data sets of one file, one per top, checked against each other and against those of the first file."""
        path = self.find(name)
        with self.blame(name, path), hdf5_errors(path), h5py_module().File(path, "r") as file:
            lost = [top for top in self.proto.top if top not in file]
            if lost:
                message = f"holds no data set '{lost[0]}'; it has {', '.join(sorted(file)) or 'none'}"
                raise UnreadableError(message, code="hdf5-dataset", remedy="each top is the data set of its name")
            datasets = [numeric_dataset(file, top, str(path)) for top in self.proto.top]
            rows = datasets[0].shape[:1]
            for i, (top, dataset) in enumerate(zip(self.proto.top, datasets, strict=True)):
                if not dataset.shape:
                    raise UnreadableError(f"data set '{top}' is a single number, without rows", code="hdf5-rows")
                if dataset.shape[:1] != rows:
                    message = f"'{self.proto.top[0]}' has {rows[0]} rows, and '{top}' has {dataset.shape[0]}"
                    raise UnreadableError(message, code="hdf5-rows", remedy="each top needs a row for each item")
                if self._tops and dataset.shape[1:] != self._tops[i]:
                    message = (
                        f"rows of '{top}' are {shape_text(dataset.shape[1:])}, and in the first file {shape_text(self._tops[i])}"
                    )
                    raise UnreadableError(message, code="mixed-sizes", remedy="all files need rows of one shape")
            yield datasets


class Rows:
    """What HDF5Output writes: data sets that grow by a batch at a time. (Caffe's own layer can write only one batch)"""

    def __init__(self, file: Any) -> None:
        self._file = file

    def append(self, **batches: np.ndarray) -> None:
        """Add rows to the data sets of these names. Raises InspectorError if the rows change their shape or differ in number."""
        counts = {len(batch) for batch in batches.values()}
        if len(counts) != 1:
            raise InspectorError(
                f"the blobs have different numbers of rows: {', '.join(map(str, sorted(counts)))}", code="hdf5-rows"
            )
        for name, batch in batches.items():
            if name not in self._file:
                self._file.create_dataset(name, data=batch, dtype="<f4", maxshape=(None, *batch.shape[1:]), chunks=True)
                continue
            dataset = self._file[name]
            if dataset.shape[1:] != batch.shape[1:]:
                message = f"rows of '{name}' were {shape_text(dataset.shape[1:])}, and now they are {shape_text(batch.shape[1:])}"
                raise InspectorError(message, code="mixed-sizes")
            dataset.resize(len(dataset) + len(batch), axis=0)
            dataset[-len(batch) :] = batch

    def strings(self, name: str, values: Sequence[str]) -> None:
        """A data set of text."""
        self._file.create_dataset(name, data=list(values), shape=(len(values),), dtype=h5py_module().string_dtype())


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[Rows]:
    """An HDF5 file of growing data sets, which appears under its name when the block ends well.

    Raises MissingExtra without h5py.
    """
    with replacing_hdf5(path) as file:
        yield Rows(file)


# ---- looking


def looks_like(path: Path) -> bool:
    """Whether a file is HDF5."""
    try:
        with path.open("rb") as file:
            return path.is_file() and file.read(8) == HDF5_SIGNATURE
    except OSError:
        return False


def contents(path: Path) -> list[tuple[str, Shape, str]]:
    """Name, shape and type of every data set of a file, in its groups too. Raises UnreadableError; MissingExtra without h5py."""
    found: list[tuple[str, Shape, str]] = []

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py_module().Dataset):
            kind = "text" if h5py_module().check_string_dtype(item.dtype) else str(item.dtype)
            found.append((name, tuple(item.shape or ()), kind))

    with hdf5_errors(path), h5py_module().File(path, "r") as file:
        file.visititems(note)
    return found
