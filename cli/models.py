"""`alexinspect models`: what ships."""

from __future__ import annotations

import click

from inspector.tables import Column

from . import options, show


@click.command()
@options.form(*options.FORMATS)
@options.color
def models(form: str) -> None:
    """List the nets that ship.

    NAME means its deploy file, NAME/FILE another one, as in `alexinspect summary caffenet/train_val --phase TRAIN`.
    """
    from inspector import load, shelf
    from inspector.summary_table import shape_cell

    rows = []
    for name in shelf.names():
        others = sorted(path.stem for path in (shelf.folder() / name).glob("*.prototxt") if path.stem != "deploy")
        net = load(name)
        inputs = [f"{blob} {shape_cell(net.blobs[blob].shape)}" for blob in net.inputs]
        rows.append([name, ["deploy", *others], inputs, net.summary().totals.parameters])
    columns = [Column("name", style="name"), Column("files"), Column("input", style="shape"), Column("parameters", right=True)]
    show.rows(form, ["name", "files", "inputs", "parameters"], columns, rows)
