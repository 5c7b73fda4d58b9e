"""`alexinspect demo`: the tour for newcomers, and a test of the whole installation."""

from __future__ import annotations

import shlex
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from inspector.errors import InspectorError
from inspector.files import made

from . import show

SHADES = " .:*#@"
FILE_WIDTH = 120  # columns where no terminal says how many there are


@click.command()
@click.option("--out", type=click.Path(file_okay=False), metavar="FOLDER", help="Keep the picture of the filters there.")
@click.pass_context
def demo(context: click.Context, out: str | None) -> None:
    """Show what alexinspect does, in four commands and under five seconds.

    A famous net as a table, its construction log against that of real Caffe, a handwritten digit read by the net that ships with
    its weights, and the filters of that net drawn. Each step shows the command that did it. Exit status 0: all of it worked.
    """
    with nullcontext(out) if out else TemporaryDirectory(prefix="alexinspect-demo-") as folder:
        failed = _tour(context, made(Path(folder)) / "filters.png")
    if failed:
        raise InspectorError(
            f"the tour did not get through: {', '.join(failed)}", code="demo-failed", remedy="see alexinspect doctor"
        )
    show.lines(["", _painted("All of it worked. Next: alexinspect --help, or alexinspect summary YOUR.prototxt", "good")])


def _tour(context: click.Context, picture: Path) -> list[str]:
    """Take all steps; the commands that did not do what they should."""
    from inspector import shelf

    models = shelf.folder()
    digits = models / "lenet_digits"
    weights = digits / "weights.caffemodel"
    steps = (
        ("CaffeNet, the net of Caffe's first years, layer by layer", ["summary", "caffenet"]),
        (
            "What Caffe would have logged while it built that net, against what real Caffe did log",
            ["diff", "caffenet", str(models / "caffenet" / "reference" / "deploy.TEST.master.log")],
        ),
        (
            "A handwritten digit, read by a net that ships with its weights",
            ["run", "lenet_digits", str(digits / "samples" / "7.png"), "--top", "3"],
        ),
        (
            "The filters of that net's first layer, drawn",
            ["weights", str(weights), "--layer", "conv1", "--save-image", str(picture)],
        ),
    )
    failed = [command[0] for number, (title, command) in enumerate(steps, 1) if not _step(context, number, title, command)]
    if not picture.is_file():
        failed.append("the picture of the filters")
    show.lines(["", *_sketch(weights)])
    return failed


def _step(context: click.Context, number: int, title: str, command: list[str]) -> bool:
    """Say a command and run it, in this process; whether it went well. What it complains of goes to stderr as always."""
    show.lines([*([""] if number > 1 else []), _painted(f"{number}. {title}", "head")])
    show.lines([f"$ {shlex.join(['alexinspect', *command])}", ""])
    root = context.find_root().command
    with root.make_context("alexinspect", command, color=context.color) as inner:
        return not root.invoke(inner)


def _sketch(weights: Path) -> list[str]:
    """The filters of the first layer side by side in letters, each from its smallest value to its largest; as many as fit."""
    from inspector.caffemodel import open_weights

    blob = next(blob for layer in open_weights(weights).layers for blob in layer.blobs if len(blob.shape) == 4)
    filters = blob.read()[:, 0]  # N x height x width
    across = 2 * filters.shape[2]
    filters = filters[: ((show.width() or FILE_WIDTH) + 2) // (across + 2)]
    low, high = (pick(axis=(1, 2), keepdims=True) for pick in (filters.min, filters.max))
    shades = ((filters - low) / (high - low + 1e-12) * (len(SHADES) - 1)).round().astype(int)
    return ["  ".join("".join(2 * SHADES[shade] for shade in row[y]) for row in shades) for y in range(filters.shape[1])]


def _painted(text: str, style: str) -> str:
    return show.sgr(text, style) if show.colours() else text
