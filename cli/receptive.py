"""`alexinspect receptive`: what part of the input each blob sees."""

from __future__ import annotations

import re

import click

from inspector.sheet import Sheet

from . import options, show
from .options import How


class Cell(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.5 on
    """3,5: row and column."""

    name = "cell"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if not re.fullmatch(r"[0-9]{1,9}(,[0-9]{1,9})*", value):
            self.fail(f"'{value}' is no cell; write row and column, such as 3,5", param, ctx)
        return tuple(map(int, value.split(",")))


@click.command()
@options.model
@options.net_options
@options.form(*options.FORMATS)
@click.option("--blob", metavar="BLOB", help="Only this blob.")
@click.option("--cell", type=Cell(), metavar="ROW,COLUMN", help="Where this cell of --blob looks.")
@options.color
def receptive(model: str, how: How, form: str, blob: str | None, cell: tuple[int, ...] | None) -> int:
    """Show what part of the input each blob sees.

    That is its receptive field, stride and offset; with --blob and --cell the rectangle of the input that one cell sees.
    """
    from inspector import receptive as fields

    net = how.open(model)
    if blob is not None:
        net.blob(blob)  # or says what there is
    report = fields.measure(net)
    sheet, data = fields.sheet(report, blob), report.to_dict()
    if blob is not None:
        data["blobs"] = [row for row in data["blobs"] if row["blob"] == blob]
    if cell is not None:
        if blob is None:
            raise click.UsageError("--cell needs the --blob that it is a cell of")
        views = fields.look(net, blob, cell)
        data["cell"] = {"blob": blob, "cell": list(cell), "sees": [view.to_dict() for view in views]}
        sizes = {view.source: (net.blob(view.source).root.shape or ())[2:] for view in views}
        said = fields.where(blob, cell, views, sizes)
        sheet = Sheet(sheet.names, sheet.columns, sheet.rows, None, [*sheet.notes, *said])
    show.sheet(form, data, sheet)
    return show.broken(net)
