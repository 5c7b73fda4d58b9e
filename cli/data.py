"""`alexinspect data`: databases out of images, what is in a source, and mean images."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inspector.errors import UnreadableError
from inspector.tables import Column

from . import options, show

if TYPE_CHECKING:
    from inspector.sources.making import Record

FILE = click.Path(path_type=Path)


class Size(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.5 on
    """HEIGHTxWIDTH, or one number for both."""

    name = "HEIGHTxWIDTH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        sizes = str(value).split("x")
        if len(sizes) > 2 or not all(size.isdecimal() and 0 < int(size) < 1 << 15 for size in sizes):
            self.fail(f"'{value}' is no size; write it as 256x256", param, ctx)
        return int(sizes[0]), int(sizes[-1])


@click.group()
def data() -> None:
    """Make databases out of images, look into data sources, compute mean images."""


@data.command("make-db")
@click.argument("source", metavar="LIST_OR_FOLDER", type=FILE)
@click.argument("target", metavar="OUT.lmdb", type=FILE)
@click.option("--root", type=FILE, help="What the paths of a list are relative to; usually the list's own folder.")
@click.option("--resize", "size", type=Size(), help="Resize all images, not keeping proportions.")
@click.option("--gray", is_flag=True, help="One channel.")
@click.option("--shuffle", is_flag=True, help="Mix the images.")
@click.option("--seed", type=int, help="Seed of --shuffle.")
@click.option("--encoded", is_flag=True, help="Store image files instead of pixels.")
@click.option("--encode-type", default="", metavar="jpg|png|bmp", help="Format of stored image files, if not their own.")
@click.option("--check-size", is_flag=True, help="Stop if images differ in size.")
@options.form("table", "json")
@options.color
def make_db(
    source: Path,
    target: Path,
    root: Path | None,
    shuffle: bool,
    seed: int | None,
    form: str,
    size: tuple[int, int] | None,
    **how: Any,
) -> int:
    """Write an LMDB of labelled images, as Caffe's convert_imageset does.

    LIST has a path and a label on each line. In a FOLDER each folder is a class, numbered in the order of their names. Exit status
    1 means that some images could not be read and were left out.
    """
    from inspector.sources import making

    listing = making.listing(source, root)
    if shuffle:
        from random import Random

        Random(seed).shuffle(listing.items)
    with progress(len(listing.items), "images") as step:
        made = making.make_database(listing, target, size=size, progress=step, **how)
    for _, error in made.skipped:
        show.say(error.finding, "warning")
    shapes = [{"shape": list(shape), "images": count} for shape, count in made.shapes.items()]
    if form == "json":
        skipped = [{"image": name, "error": error.finding.message} for name, error in made.skipped]
        counts = {"records": made.records, "shapes": shapes, "classes": listing.classes, "skipped": skipped}
        show.json({"database": str(target), **counts})
    else:
        stored = [f"  {' x '.join(map(str, shape))}: {count:,}" for shape, count in made.shapes.items()]
        labels = [f"  label {label}: {name}" for label, name in enumerate(listing.classes)]
        show.lines([f"{made.records:,} records in {target}", *stored, *labels])
    return 1 if made.skipped else 0


@data.command("show")
@click.argument("source", type=FILE)
@click.option("--limit", type=click.IntRange(min=0), default=20, help="How many records; 0 for all.", show_default=True)
@click.option("--save-image", "folder", type=FILE, metavar="FOLDER", help="Draw the records that are shown as PNG files.")
@options.form(*options.FORMATS)
@options.color
def show_source(source: Path, limit: int, folder: Path | None, form: str) -> None:
    """List the records of an LMDB, a LevelDB, an HDF5 file, or a list or folder of images."""
    from inspector.sources.hdf5 import contents, looks_like

    if looks_like(source):
        columns = [Column("data set", style="name"), Column("shape", style="shape"), Column("type", style="type")]
        rows = [[name, sizes(shape, form), kind] for name, shape, kind in contents(source)]
        show.rows(form, ["dataset", "shape", "type"], columns, rows)
        return
    count, records = opened(source)
    cells = []
    for number, record in enumerate(islice(records, limit or None)):
        cells.append([record.key, sizes(record.shape, form), record.kind, record.label])
        if folder is not None:
            draw(folder / f"{number:06}_label{record.label}.png", record)
    columns = [
        Column("key", style="name"),
        Column("shape", style="shape"),
        Column("kind", style="type"),
        Column("label", right=True),
    ]
    show.rows(form, ["key", "shape", "kind", "label"], columns, cells)
    if len(cells) < count:
        show.remark(f"{len(cells)} of {count:,} records; --limit 0 shows all")


@data.command("mean")
@click.argument("source", metavar="DATABASE", type=FILE)
@click.argument("target", metavar="OUT.binaryproto", type=FILE)
@options.form("table", "json")
@options.color
def mean(source: Path, target: Path, form: str) -> None:
    """Write the mean image of a database, as Caffe's compute_image_mean does."""
    from inspector.sources import making
    from inspector.sources.data import open_database

    with open_database(source) as database, progress(len(database), "records") as step:
        image, count = making.mean_image(database, step)
    making.write_mean(target, image)
    values = [float(value) for value in image.mean((1, 2), "float64")]
    if form == "json":
        show.json({"mean_file": str(target), "records": count, "shape": list(image.shape), "channels": values})
    else:
        size = " x ".join(map(str, image.shape))
        show.lines(
            [f"mean of {count:,} records, {size}, in {target}", f"  per channel: {', '.join(f'{value:.6g}' for value in values)}"]
        )


# ---- helpers


@contextmanager
def progress(length: int, what: str) -> Iterator[Callable[[], None]]:
    """A bar on stderr, if that is a terminal; what is given is called after each item."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    with click.progressbar(length=length, label=what, file=sys.stderr) as bar:
        yield lambda: bar.update(1)


def opened(source: Path) -> tuple[int, Iterator[Record]]:
    """How many records there are, and the records."""
    from inspector.sources import leveldb, lmdb, making
    from inspector.sources.data import open_database

    if lmdb.looks_like(source) or leveldb.looks_like(source):
        database = open_database(source)
        click.get_current_context().call_on_close(database.close)
        return len(database), making.records(database)
    if not source.exists():
        raise UnreadableError(f"there is no '{source}'", code="missing-source", remedy="check the path")
    listing = making.listing(source)
    return len(listing.items), making.listed(listing)


def sizes(shape: tuple[int, ...], form: str) -> list[int] | str:
    """A shape as JSON has it, or in short."""
    return list(shape) if form == "json" else "x".join(map(str, shape))


def draw(path: Path, record: Record) -> None:
    from inspector.files import made
    from inspector.preprocess import save_image
    from inspector.sources.making import drawn

    made(path.parent)
    save_image(path, drawn(record.image))
