"""What every reader has in common: where a path leads, whom an error names, and batches read ahead on a thread."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, Self, TypeVar

from ..errors import InspectorError, MissingExtra, UnreadableError
from ..layers import Shape, count, shape_text
from ..layers.base import INT_MAX
from ..lazy import np

if TYPE_CHECKING:
    Batch = list[np.ndarray]

T = TypeVar("T")

AHEAD = 2  # batches: one in hand and one in the making; Caffe's default of 4 costs memory and gains nothing on a CPU


def resolve(written: str, folder: Path) -> Path | None:
    """Where a path of a prototxt leads: as written from the current folder, as Caffe has it, else from `folder`, else nowhere."""
    try:
        return next((path for path in (Path(written), folder / written) if path.exists()), None)
    except (OSError, ValueError):  # a name that is too long, or holds a NUL
        return None


def missing(written: str, folder: Path) -> str:
    """That a path leads nowhere, and where it was looked for."""
    places = dict.fromkeys(f"'{absolute(place / written)}'" for place in (Path(), folder))
    return f"reads '{written}', and there is no {' and no '.join(places)}"


def absolute(path: Path) -> str:
    """A path from the root on, with links as they are."""
    return os.path.abspath(path)  # noqa: PTH100  # resolve() would follow links and hide what was named


class Ahead(Generic[T]):
    """Runs an iterator on one thread, `depth` items ahead. What it raises, `next` raises, then and ever after."""

    def __init__(self, items: Iterator[T], depth: int = AHEAD) -> None:
        self._items = items
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._waiting: deque[Future[T]] = deque(self._pool.submit(next, items) for _ in range(depth))

    def next(self) -> T:
        batch = self._waiting[0].result()
        self._waiting.popleft()
        self._waiting.append(self._pool.submit(next, self._items))
        return batch

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        close = getattr(self._items, "close", None)
        if close is not None:
            close()  # a generator gives back what it holds


class Source:
    """The batches of one data layer. `next` gives the arrays of its tops, without end: after the last record comes the first.

    `lines` are the facts that Caffe logs while it opens the source, as (code, values), under the codes of the dialects. `rng`
    should belong to the source alone: it is used on the thread that reads ahead.
    """

    type: ClassVar[str] = ""

    def __init__(self, proto: Any, phase: int, folder: Path, rng: np.random.Generator) -> None:
        self.proto = proto
        self.phase = phase
        self.folder = folder
        self.rng = rng
        self.lines: list[tuple[str, dict[str, Any]]] = []
        self._ahead: Ahead[Batch] | None = None

    # ---- what a reader answers

    @property
    def batch_size(self) -> int:
        raise NotImplementedError

    def first(self) -> list[Shape]:
        """Shapes of the tops, from the first record."""
        raise NotImplementedError

    def batches(self) -> Iterator[Batch]:
        """Batches without end."""
        raise NotImplementedError

    def records(self) -> int | None:
        """Records until the source repeats itself; None where it does not, or nobody knows."""
        return None

    # ---- what the caller asks

    def shapes(self) -> dict[int, Shape]:
        """Shape of every top by its index; only the first record is read.

        An image smaller than the crop keeps its size here, so that the layer can refuse it in Caffe's words.
        """
        if not 0 < self.batch_size <= INT_MAX:
            self.fail(f"a batch_size of {self.batch_size} is no batch", code="batch-size", remedy="use at least 1")
        shapes = dict(enumerate(self.first()))
        for shape in shapes.values():
            if count(shape) > INT_MAX:
                self.fail(f"a batch of {shape_text(shape)} has more than {INT_MAX} elements", remedy="use a smaller batch_size")
        return shapes

    def next(self) -> Batch:
        """The next batch: one float32 array per top. The first call starts the thread that reads ahead."""
        if self._ahead is None:
            self.shapes()
            self._ahead = Ahead(self.batches())
        return self._ahead.next()

    def skip(self, batches: int) -> None:
        """Pass over batches; rounds that would end where they began are not read."""
        records = self.records()
        around = records // math.gcd(records, self.batch_size) if records else 0  # batches until the first record leads one again
        for _ in range(batches % around if around else batches):
            self.next()

    def close(self) -> None:
        """Stop reading ahead and let go of files."""
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- for readers

    def find(self, written: str, *, prefix: str = "") -> Path:
        """Where a path of the prototxt leads. Raises UnreadableError if nowhere; an empty path is none at all."""
        path = resolve(prefix + written, self.folder) if prefix + written else None
        if path is not None:
            return path
        if not written:
            raise self.error("names no source", code="missing-source")
        raise self.error(missing(prefix + written, self.folder), code="missing-source")

    @contextmanager
    def blame(self, written: str = "", path: Path | None = None) -> Iterator[None]:
        """Errors of what is read inside become this layer's, with the path as written and where it led."""
        try:
            yield
        except MissingExtra:
            raise
        except InspectorError as error:
            inner = error.finding
            if inner.layer is not None:
                raise
            message = inner.message
            if path is not None:
                place = "" if absolute(path) == written else f" ('{absolute(path)}')"
                said = message.removeprefix(f"'{path}': ").removeprefix(f"'{path}' ")
                message = f"reads '{written}'{place}: {said}"
            remedy = f"{inner.remedy}, or {self.shape_remedy()}" if inner.remedy else ""
            self.fail(message, code="broken-source" if inner.code == "invalid-input" else inner.code, remedy=remedy)

    def error(self, message: str, *, code: str = "broken-source", remedy: str = "") -> UnreadableError:
        """An error that names the layer, and how to do without the source."""
        who = {"layer": self.proto.name, "layer_type": self.type}
        return UnreadableError(message, code=code, remedy=remedy or self.shape_remedy(), **who)

    def fail(self, message: str, *, code: str = "broken-source", remedy: str = "") -> NoReturn:
        raise self.error(message, code=code, remedy=remedy) from None

    def shape_remedy(self) -> str:
        """How to do without the source."""
        top = self.proto.top[0] if self.proto.top else "data"
        return f"give a shape instead: --shape {top}={self._batch_text()}x3x227x227"

    def _batch_text(self) -> str:
        try:
            return str(max(1, self.batch_size))
        except NotImplementedError:
            return "1"


def filled(images: Iterator[tuple[np.ndarray, float]], size: int) -> Batch:
    """A batch of `size` images and their labels; the first decides the shape, and the others must have it too (as in Caffe)."""
    data: np.ndarray | None = None
    labels = np.empty(size, np.float32)
    for i in range(size):
        image, labels[i] = next(images)
        if data is None:
            data = np.empty((size, *image.shape), np.float32)
        if image.shape != data.shape[1:]:
            raise InspectorError(
                f"item {i} of a batch is {shape_text(image.shape)}, and the first is {shape_text(data.shape[1:])}",
                code="mixed-sizes",
                remedy="use batch_size 1, a resize, or a crop_size",
            )
        data[i] = image
    return [data, labels] if data is not None else [labels]
