"""Data: records of an LMDB or LevelDB. (data_layer.cpp, db_lmdb.cpp, db_leveldb.cpp)

Records come in the order of their keys, and after the last comes the first, also within a batch. The first image of each batch
decides its size. BVLC master reads neither `rand_skip` nor `force_encoded_color` here, and neither do we.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UnreadableError
from ..layers import Shape
from ..lazy import np
from . import datum, leveldb, lmdb
from .base import Source, filled
from .transform import Transform, mean_of

if TYPE_CHECKING:
    from .base import Batch

Database = lmdb.Reader | leveldb.Reader


def open_database(path: Path) -> Database:
    """The database at a path, recognised by what lies there. Raises UnreadableError; MissingExtra for a LevelDB without binding."""
    if lmdb.looks_like(path):
        return lmdb.Reader(path)
    if leveldb.looks_like(path):
        return leveldb.Reader(path)
    what = "is there" if path.exists() else "is not there"
    raise UnreadableError(
        f"'{path}' {what} but is no database" if path.exists() else f"'{path}' {what}",
        code="no-database",
        remedy="name the folder that holds data.mdb (LMDB) or CURRENT (LevelDB)",
    )


class Data(Source):
    type = "Data"

    def __init__(self, proto: Any, phase: int, folder: Path, rng: np.random.Generator) -> None:
        super().__init__(proto, phase, folder, rng)
        param = proto.data_param
        self.path = self.find(param.source)
        with self.blame():
            self.transform = Transform(proto.transform_param, phase, rng, mean_of(self))
            self.color = forced(proto.transform_param)
        with self.blame(param.source, self.path):
            self.database = open_database(self.path)
            wanted = type(param).DB.Name(param.backend)
            if self.database.kind != wanted.lower():
                self.database.close()
                said = "says" if param.HasField("backend") else "is not set, which means"
                self.fail(
                    f"source '{param.source}' is a {self.database.kind.upper()}, and backend {said} {wanted}",
                    code="backend",
                    remedy=f"write backend: {self.database.kind.upper()}",
                )
        self.lines.insert(0, (f"open-{self.database.kind}", {"source": param.source}))

    @property
    def batch_size(self) -> int:
        return int(self.proto.data_param.batch_size)

    def first(self) -> list[Shape]:
        with self.blame(self.proto.data_param.source, self.path), closing(self._images()) as images:
            _, _, image = next(images)
        return [(self.batch_size, *self.transform.shape(image.shape)), (self.batch_size,)][: len(self.proto.top)]

    def records(self) -> int | None:
        return len(self.database) if isinstance(self.database, lmdb.Reader) else None

    def batches(self) -> Iterator[Batch]:
        with self.blame(self.proto.data_param.source, self.path):
            images = ((self.transform(image), item.label) for _, item, image in self._images())
            while True:
                yield filled(images, self.batch_size)[: len(self.proto.top)]

    def _images(self) -> Generator[tuple[str, Any, np.ndarray], None, None]:
        """Records without end."""
        while True:
            record = None
            for record in datum.decoded(self.database, self.color):
                yield record
            if record is None:
                raise UnreadableError("the database holds no records", code="empty-source")

    def close(self) -> None:
        super().close()
        self.database.close()


def forced(param: Any) -> bool | None:
    """How a TransformationParameter wants encoded images decoded: True in colour, False in grey, None as they are."""
    if param.force_color and param.force_gray:
        raise UnreadableError("cannot force both colour and grey", code="force-both", remedy="remove force_color or force_gray")
    return True if param.force_color else False if param.force_gray else None
