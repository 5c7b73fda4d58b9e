"""Databases out of images, and their mean: what Caffe's convert_imageset and compute_image_mean do.

Keys are eight digits, an underscore and the image's name, so that records keep their order. Images are decoded and resized as in
ImageData. `encoded` stores image files: the very bytes where nothing has to be done to them, else written anew.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caffe_proto import caffe_pb2

from .. import files
from ..errors import InspectorError, UnreadableError
from ..files import read_bytes
from ..lazy import np
from . import datum, picture
from .images import read_list
from .lmdb import replacing

if TYPE_CHECKING:
    from .data import Database

ENCODINGS = {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG", "bmp": "BMP"}  # what a Datum may hold -> Pillow's name
QUALITY = {"JPEG": {"quality": 95}}  # OpenCV's default


@dataclass(slots=True)
class Listing:
    """Images and labels; where they come from a folder of folders, those are the `classes`, by label."""

    root: Path
    items: list[tuple[str, int]]
    classes: list[str] = field(default_factory=list)


def listing(source: Path, root: Path | None = None) -> Listing:
    """What there is to store: the lines of a list, or the images of a folder.

    In a folder of folders each is a class, numbered in the order of their names; a folder of images alone is class 0. The paths of
    a list are relative to `root`, by default the folder that the list is in. Raises InspectorError if there is no image.
    """
    if not source.is_dir():
        try:
            return Listing(root or source.parent, read_list(source))
        except UnreadableError as error:
            if error.code == "empty-source":
                remedy = "write a path and a label on each line"
                raise UnreadableError(f"'{source}' lists nothing", code="empty-source", remedy=remedy) from None
            raise
    classes = sorted(path.name for path in source.iterdir() if path.is_dir() and any(_images(path)))
    loose = list(_images(source, deep=False))
    if classes and loose:
        raise InspectorError(
            f"'{source}' holds both images, such as '{loose[0].name}', and folders of images, such as '{classes[0]}'",
            code="mixed-folder",
            remedy="put each image into the folder of its class, or write a list",
        )
    items = [
        (f"{name}/{path.relative_to(source / name)}", label)
        for label, name in enumerate(classes)
        for path in _images(source / name)
    ]
    items += [(path.name, 0) for path in loose]
    if not items:
        raise InspectorError(f"'{source}' holds no images", code="empty-source", remedy=f"known are {', '.join(picture.SUFFIXES)}")
    return Listing(source, items, classes)


def _images(folder: Path, *, deep: bool = True) -> Iterator[Path]:
    found = folder.rglob("*") if deep else folder.glob("*")
    return (path for path in sorted(found) if path.suffix.lower() in picture.SUFFIXES and path.is_file())


@dataclass(slots=True)
class Made:
    """What became of a listing: how many records, which images could not be read, and the shapes of the stored ones."""

    records: int = 0
    skipped: list[tuple[str, InspectorError]] = field(default_factory=list)
    shapes: dict[tuple[int, ...], int] = field(default_factory=dict)


def make_database(
    source: Listing,
    target: str | os.PathLike[str],
    *,
    size: tuple[int, int] | None = None,
    gray: bool = False,
    encoded: bool = False,
    encode_type: str = "",
    check_size: bool = False,
    progress: Callable[[], None] = lambda: None,
) -> Made:
    """Write an LMDB of the images, resized to `size` (height, width) if given; it appears under its name when it is complete.

    An image that cannot be read is left out and told, as Caffe does. `check_size` stops at the first image whose size differs.
    `progress` is called after each image. Raises InspectorError; MissingExtra without lmdb or Pillow.
    """
    if encode_type and encode_type.lower() not in ENCODINGS:
        raise InspectorError(f"there is no encoding '{encode_type}'", code="encoding", remedy=f"use {', '.join(ENCODINGS)}")
    made = Made()
    picture.pillow()
    with replacing(target) as writer:
        for number, (name, label) in enumerate(source.items):
            progress()
            try:
                record, shape = _record(source.root / name, label, size, gray=gray, encoded=encoded, encode_type=encode_type)
            except UnreadableError as error:
                made.skipped.append((name, error))
                continue
            if check_size and made.shapes and shape not in made.shapes:
                was = " x ".join(map(str, next(iter(made.shapes))))
                message = f"'{name}' is {' x '.join(map(str, shape))}, and those before it are {was}"
                raise InspectorError(message, code="mixed-sizes", remedy="resize them, or leave the check out")
            made.shapes[shape] = made.shapes.get(shape, 0) + 1
            writer.put(f"{number:08}_{name}".encode("utf-8", "surrogateescape"), record.SerializeToString())
        if not writer.records:
            first = f": {made.skipped[0][1].finding.message}" if made.skipped else ""
            raise InspectorError(f"none of {len(source.items)} images can be read{first}", code="empty-source")
        made.records = writer.records
    return made


def _record(
    path: Path, label: int, size: tuple[int, int] | None, *, gray: bool, encoded: bool, encode_type: str
) -> tuple[Any, tuple[int, ...]]:
    """A Datum, and channels, height and width of its image."""
    data = read_bytes(path)
    suffix = path.suffix.lower().removeprefix(".")
    kind = ENCODINGS.get((encode_type or suffix).lower(), "PNG") if encoded or encode_type else ""
    as_it_is = bool(kind) and size is None and ENCODINGS.get(suffix) == kind
    image = picture.decode(data, None if as_it_is else not gray, f"'{path}'")
    if as_it_is and gray and image.shape[2] != 1:  # Caffe would store the colours
        as_it_is, image = False, picture.decode(data, False, f"'{path}'")
    if size is not None:
        image = picture.resize(image, *size)
    if kind:
        record = caffe_pb2.Datum(data=data if as_it_is else _encode(image, kind), label=label, encoded=True)
    else:
        record = datum.from_image(image, label)
    return record, (image.shape[2], *image.shape[:2])


def _encode(image: np.ndarray, kind: str) -> bytes:
    out = io.BytesIO()
    pixels = image[:, :, 0] if image.shape[2] == 1 else np.ascontiguousarray(image[:, :, ::-1])
    picture.pillow().fromarray(pixels).save(out, kind, **QUALITY.get(kind, {}))
    return out.getvalue()


def mean_image(database: Database, progress: Callable[[], None] = lambda: None) -> tuple[np.ndarray, int]:
    """The mean of all images of a database, channels x height x width in float32, and their number.

    Summed in float32 and in order, as Caffe does. Raises InspectorError if there are none, or if their sizes differ.
    """
    total: np.ndarray | None = None
    count = 0
    for key, _, image in datum.decoded(database):
        if total is None:
            total = np.zeros(image.shape, np.float32)
        if image.shape != total.shape:
            sizes = [" x ".join(map(str, shape)) for shape in (image.shape, total.shape)]
            message = f"record '{key}' is {sizes[0]}, and those before it are {sizes[1]}"
            raise InspectorError(
                message, code="mixed-sizes", remedy="a mean needs images of one size: make the database with a resize"
            )
        total += image
        count += 1
        progress()
    if total is None:
        raise UnreadableError(f"'{database.path}' holds no records", code="empty-source")
    return total / np.float32(count), count


def write_mean(path: str | os.PathLike[str], mean: np.ndarray) -> None:
    """Write channels x height x width as a BlobProto with the four axes that mean files have."""
    channels, height, width = mean.shape
    blob = caffe_pb2.BlobProto(num=1, channels=channels, height=height, width=width, data=mean.ravel())
    with files.replacing(path) as file:
        file.write(blob.SerializeToString())


# ---- looking


@dataclass(frozen=True, slots=True)
class Record:
    """One item of a source: its key or path, the shape and kind of its image, its label."""

    key: str
    shape: tuple[int, ...]
    kind: str  # "bytes" | "floats" | "jpeg" | "png" | ...
    label: int
    image: np.ndarray  # channels x height x width, blue first


def records(database: Iterable[tuple[bytes, bytes]]) -> Iterator[Record]:
    """The records of a database, decoded as they are stored."""
    for key, item, image in datum.decoded(database):
        kind = "bytes" if item.data else "floats"
        if item.encoded:
            with picture.opened(item.data) as file:
                kind = str(file.format).lower()
        yield Record(key, image.shape, kind, item.label, image)


def listed(source: Listing) -> Iterator[Record]:
    """The images of a list, decoded in colour as ImageData does."""
    for name, label in source.items:
        path = source.root / name
        image = picture.decode(path).transpose(2, 0, 1)
        yield Record(name, image.shape, path.suffix.lower().removeprefix("."), label, image)


def drawn(image: np.ndarray) -> np.ndarray:
    """An image of a source, channels x height x width, as bytes to be saved: height x width x 3 (RGB) or x 1.

    Floats outside 0 to 255 are stretched to it. Of 2, or of more than 4 channels, the first is drawn.
    """
    if image.dtype != np.uint8:
        values = np.nan_to_num(image)
        low, high = float(values.min()), float(values.max())
        if low < 0 or high > 255 or high <= 1:
            values = (values - low) * (255 / (high - low) if high > low else 1)
        image = np.rint(values).astype(np.uint8)
    chosen = image[2::-1] if len(image) in (3, 4) else image[:1]
    return np.ascontiguousarray(chosen.transpose(1, 2, 0))
