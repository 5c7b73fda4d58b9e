"""`alexinspect cost`: operations by kind."""

from __future__ import annotations

import click

from . import options, show
from .options import How


@click.command()
@options.model
@options.net_options
@options.form(*options.FORMATS)
@click.option("--backward", is_flag=True, help="Count the backward pass too.")
@click.option(
    "--by", type=click.Choice(["layer", "type", "prefix"]), default="layer", help="What a line stands for.", show_default=True
)
@click.option("--batch", type=click.IntRange(min=1), help="Count for this batch, shapes worked out anew.")
@click.option("--columns", default="", metavar="NAME,...", help="Columns of the table, or all.")
@options.color
def cost(model: str, how: How, form: str, backward: bool, by: str, batch: int | None, columns: str) -> int:
    """Count the operations of a net, by kind: multiply-accumulates, additions, comparisons and so on."""
    from inspector import cost as costs
    from inspector.batch_size import rebatched

    net = how.open(model)
    if batch is not None:
        rebatched(net, batch)
    found = costs.measure(net, backward=backward, by=by)
    names = options.listed(columns) or ([name for name in costs.columns(found) if name != "bar"] if form == "csv" else [])
    show.sheet(form, found.to_dict(), costs.sheet(found, names))
    return show.broken(net)
