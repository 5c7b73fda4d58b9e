"""LevelDB, through a maintained binding, without a trace in the database's own folder.

Opening a LevelDB takes a lock, replays its log and writes a new manifest. So it is opened in a temporary folder, where the tables,
which never change, are links to the real ones, and the few small files that may change are copies.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from ..errors import MissingExtra, UnreadableError
from ..files import trouble

TABLES = (".ldb", ".sst")


def looks_like(path: Path) -> bool:
    """Whether a LevelDB lies there: a folder with the file CURRENT."""
    return (path / "CURRENT").is_file()


def binding() -> Any:
    """plyvel, or plyvel_next where plyvel has no wheels. Raises MissingExtra."""
    try:
        import plyvel
    except ImportError:
        try:
            import plyvel_next as plyvel
        except ImportError:
            remedy = 'pip install "alexinspect[data]"'
            raise MissingExtra("LevelDB needs plyvel or plyvel-next", code="missing-extra", remedy=remedy, extra="data") from None
    return plyvel


class Reader:
    """The records of a LevelDB in the order of their keys. Iterating gives (key, value); it may be done again and again."""

    kind = "leveldb"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._plyvel = binding()
        self._database: Any = None
        self._folder = tempfile.TemporaryDirectory(prefix="leveldb-")
        try:
            for file in path.iterdir():
                copy = Path(self._folder.name, file.name)
                if file.suffix in TABLES:
                    copy.symlink_to(file.resolve())
                elif file.is_file() and file.name not in ("LOCK", "LOG", "LOG.old"):
                    shutil.copyfile(file, copy)
            with_checks = {"paranoid_checks": True, "create_if_missing": False}
            self._database = self._plyvel.DB(self._folder.name, **with_checks)
        except OSError as error:
            self.close()
            if isinstance(error, self._plyvel.Error):
                raise self._damaged(error) from None
            raise trouble(path, error) from None
        except self._plyvel.Error as error:
            self.close()
            raise self._damaged(error) from None

    def __len__(self) -> int:
        return sum(1 for _ in self._records(include_value=False))

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return self._records()

    def _records(self, **options: bool) -> Iterator[Any]:
        try:
            with self._database.iterator(verify_checksums=True, fill_cache=False, **options) as records:
                yield from records
        except self._plyvel.Error as error:
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> UnreadableError:
        said = error.args[0] if error.args else type(error).__name__
        reason = (said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)).replace(
            self._folder.name, str(self.path)
        )
        return UnreadableError(
            f"'{self.path}' is a damaged LevelDB database: {reason}", code="corrupt-file", remedy="make it again"
        )

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
