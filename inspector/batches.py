"""Image files in, batches of blobs out: found in folders, read ahead on a thread, a few in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from glob import glob, has_magic
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InspectorError, UnreadableError
from .lazy import np
from .sources.base import Ahead
from .sources.picture import SUFFIXES

if TYPE_CHECKING:
    from .preprocess import Preprocessing


def find_images(names: Iterable[str]) -> list[str]:
    """The image files that names mean: files, folders with all that is below them, patterns such as `photos/*.jpg`; each once.

    A file goes in as it is named, whatever it holds. Raises InspectorError for a folder without images and a pattern that nothing
    matches.
    """
    found: dict[str, None] = {}
    for name in names:
        path = Path(name)
        if path.is_dir():
            below = sorted(str(file) for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
            kind = "the folder"
        elif has_magic(name) and not path.exists():
            matches = glob(name, recursive=True)  # noqa: PTH207  # patterns may begin at the root
            below, kind = sorted(file for file in matches if Path(file).is_file()), "the pattern"
        else:
            below, kind = [name], ""
        if not below:
            what = "holds no image" if path.is_dir() else "matches no file"
            raise InspectorError(f"{kind} '{name}' {what}", code="no-images", remedy="name image files, or folders that hold some")
        found.update(dict.fromkeys(below))
    return list(found)


@dataclass(slots=True)
class Batch:
    """Images that were read, each as the rows of a blob (10 when oversampled), and what was wrong with those that were not."""

    names: list[str] = field(default_factory=list)
    items: list[np.ndarray] = field(default_factory=list)
    broken: list[tuple[str, InspectorError]] = field(default_factory=list)

    @property
    def blob(self) -> np.ndarray:
        """All rows: N x channels x height x width."""
        return np.concatenate(self.items)


def read(names: Iterable[str], preprocessing: Preprocessing, size: int) -> Iterator[Batch]:
    """Batches of up to `size` images of one shape. An image that cannot be read is put aside and the rest goes on.

    Raises InspectorError for what is wrong with the settings rather than with an image, MissingExtra without Pillow.
    """
    batch = Batch()
    for name in names:
        try:
            item = _item(name, preprocessing)
        except UnreadableError as error:
            batch.broken.append((name, error))
            continue
        if batch.items and (len(batch.items) == size or item.shape != batch.items[0].shape):
            yield batch
            batch = Batch()
        batch.names.append(name)
        batch.items.append(item)
    if batch.names or batch.broken:
        yield batch


def _item(name: str, preprocessing: Preprocessing) -> np.ndarray:
    from .preprocess import load_image

    image = load_image(name, gray=preprocessing.gray)
    try:
        return preprocessing.apply(image)
    except InspectorError as error:
        if error.code == "crop-size" and preprocessing.resize is None:  # this image is too small, others may not be
            raise UnreadableError(f"'{name}': {error.finding.message}", code=error.code, remedy=error.finding.remedy) from None
        raise


@contextmanager
def ahead(batches: Iterator[Batch]) -> Iterator[Iterator[Batch]]:
    """The same batches, read on a thread while the last one is worked on."""
    reader = Ahead(batches)
    try:
        yield iter(reader.next, None)  # ends where the batches end
    finally:
        reader.close()
