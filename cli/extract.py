"""`alexinspect extract`: features of thousands of images into one file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inspector.errors import InspectorError

from . import images, options, show
from .options import How

if TYPE_CHECKING:
    from inspector import Net
    from inspector.features import Spool
    from inspector.recipe import Recipe


@click.command()
@click.argument("model", type=options.Model())
@click.argument("rest", nargs=-1, metavar="[WEIGHTS] [IMAGE]...")
@click.option("--weights", type=click.Path(), help="The weights, where the first file behind MODEL is an image already.")
@click.option("--blob", "blobs", multiple=True, required=True, metavar="BLOB[@LAYER]", help="What to extract (repeatable).")
@click.option("--out", required=True, type=click.Path(), metavar="FILE", help="Where to: a name in .npz, .h5 or .lmdb.")
@click.option("--to", "kind", type=click.Choice(["npz", "hdf5", "lmdb"]), help="The format, where the name does not say.")
@click.option("--iterations", type=click.IntRange(1), help="How many batches of the net's own data layers, without IMAGE.")
@images.image_options
@click.option("--batch", type=click.IntRange(1), help="Images at a time, instead of as many as the net was written for.")
@click.option("--input", "input_name", metavar="BLOB", help="The input that takes the images, where several could.")
@options.engine_options
@options.net_options
@options.color
def extract(model: str, rest: tuple[str, ...], weights: str | None, how: How, out: str, kind: str | None, **wishes: Any) -> int:
    """Save blobs for a folder of images, or for a net's own data, as .npz, HDF5 or LMDB.

    Memory stays the same for any number of images. If the command is stopped or killed, the same command goes on where it was:
    until all is done the rows wait in a folder FILE.part. What is done to images is as in `alexinspect run`.
    """
    from inspector import features

    path = Path(out)
    write = features.WRITERS[kind or features.kind_of(path)]
    features.check_free(path)
    features.check_blobs(wishes["blobs"])
    recipe, weights, names = images.split(model, rest, weights)
    net = how.open(model)
    net.check()
    wishes["engine"].set(net)
    images.load_weights(net, weights)
    work = _images(net, recipe, names, **wishes) if names else _sources(net, **wishes)
    with features.Spool(features.spool_folder(path), wishes["blobs"], features.about(net, weights, **work.about)) as spool:
        if spool.names:
            show.remark(f"goes on after {len(spool.names)} items of '{spool.folder}'")
        broken = _filled(work, spool)
        if spool.names:
            write(path, spool)
        spool.remove()
    if not spool.names:
        raise images.no_images()
    shapes = (f"{blob} {'x'.join(map(str, (len(spool.names), *shape)))}" for blob, shape in zip(spool.blobs, spool.shapes))
    show.remark(f"wrote '{out}': {', '.join(shapes)}")
    return 1 if broken else 0


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be done, as a generator of how much was done and what was broken; `about` tells it from other work."""

    about: dict[str, Any]
    unit: str
    total: int
    done: Callable[[Spool], int]
    steps: Callable[[Spool], Iterator[tuple[int, list[InspectorError]]]]


def _filled(work: Work, spool: Spool) -> int:
    """Do what is left to do; how many items were broken."""
    from .progress import Progress

    broken = 0
    try:
        with Progress(work.unit, work.total, work.done(spool)) as progress:
            for count, errors in work.steps(spool):
                for error in errors:
                    progress.clear()
                    show.error(error)
                broken += len(errors)
                progress.step(count + len(errors))
    except KeyboardInterrupt:
        show.remark(f"stopped after {len(spool.names)} items; the same command goes on from there")
        raise
    return broken


def _images(net: Net, recipe: Recipe, names: list[str], **wishes: Any) -> Work:
    from inspector.batches import find_images
    from inspector.classify import Runner
    from inspector.features import from_images

    if wishes["iterations"]:
        raise InspectorError("--iterations is for data layers", code="iterations", remedy="leave it out, or name no images")
    recipe = recipe.with_settings(wishes["settings"])
    runner = Runner(net, recipe, wishes["blobs"], input_name=wishes["input_name"], batch=wishes["batch"])
    paths = find_images(names)

    def steps(spool: Spool) -> Iterator[tuple[int, list[InspectorError]]]:
        for answers in from_images(runner, paths, spool):
            yield len(answers.names), [error for _, error in answers.broken]

    about = {"input": runner.input, "preprocessing": runner.preprocessing.to_dict()}
    return Work(about, "images", len(paths), lambda spool: len(spool.names), steps)


def _sources(net: Net, **wishes: Any) -> Work:
    from inspector.classify import check_fed
    from inspector.features import from_sources
    from inspector.sources import READERS

    read = [top.name for node in net.layers if node.type in READERS for top in node.tops]
    if not read:
        raise InspectorError("names no image", code="no-images", remedy="name images, folders or patterns")
    check_fed(net, read)
    iterations = wishes["iterations"]
    if iterations is None:
        raise InspectorError("the net reads its own data, without end", code="iterations", remedy="say how many --iterations")
    if any(value is not None for value in wishes["settings"].values()) or wishes["batch"]:
        raise InspectorError("the net reads its own data", code="no-images", remedy="leave out the options for images")

    def steps(spool: Spool) -> Iterator[tuple[int, list[InspectorError]]]:
        for _ in from_sources(net, iterations, spool):
            yield 1, []

    return Work({"images": None}, "batches", iterations, lambda spool: spool.batches, steps)
