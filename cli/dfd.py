"""`alexinspect dfd`: the data-flow picture of a stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from inspector.errors import InspectorError
from inspector.files import file_name, made, replacing

from . import options, show
from .options import How


@click.command()
@options.model
@click.argument("layer", required=False)
@options.net_options
@click.option("-o", "--output", type=click.Path(), metavar="PATH", help="FILE.svg, or a folder with --all.")
@click.option("--all", "everything", is_flag=True, help="One picture for every stage, and a page that shows them.")
@options.color
def dfd(model: str, layer: str | None, how: How, output: str | None, everything: bool) -> int:
    """Draw what one stage does to its data: blobs with their sizes, each operation with its settings.

    A stage runs from one convolution or fully connected layer to the next. LAYER is any layer of it.
    """
    from inspector.picture import dfd as pictures

    net = how.open(model)
    if everything == (layer is not None):
        raise InspectorError("name a LAYER, or say --all", code="which-stage", remedy="alexinspect dfd alexnet conv2")
    if layer is not None:
        target = Path(output or f"{file_name(layer)}.svg")
        _write(target, pictures.picture(pictures.stage(net, layer), _shapes(net)))
        show.remark(f"stage of '{layer}' drawn to {target}")
        return 0
    folder = Path(output or f"{file_name(net.name or 'net')}-stages")
    _all(net, folder)
    return 0


def _all(net: Any, folder: Path) -> None:
    from inspector.picture import dfd as pictures

    made(folder)
    drawn = []
    for number, rows in enumerate(pictures.stages(net), 1):
        name = f"{number:03d}-{file_name(rows[0].name)}.svg"
        _write(folder / name, pictures.picture(rows, _shapes(net)))
        drawn.append((rows[0].name, name))
    if not drawn:
        raise InspectorError("the net has no stage", code="no-such-stage", remedy="stages begin at weighted layers")
    _write(folder / "index.html", pictures.index(net.name, drawn))
    show.remark(f"{len(drawn)} stages drawn to {folder}, shown by {folder / 'index.html'}")


def _shapes(net: Any) -> dict[str, Any]:
    return {name: blob.shape for name, blob in net.blobs.items()}


def _write(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write(text.encode())
