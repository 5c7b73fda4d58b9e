"""`alexinspect memory`: what a net takes, and when."""

from __future__ import annotations

import click

from . import options, show
from .options import How

SOLVERS = ["SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam"]


@click.command()
@options.model
@options.net_options
@options.form(*options.FORMATS)
@click.option("--batch", type=click.IntRange(min=1), help="Count for this batch, shapes worked out anew.")
@click.option("--fits", metavar="SIZE", help="Find the largest batch that fits into SIZE, such as 12GiB.")
@click.option(
    "--solver",
    type=click.Choice(SOLVERS, case_sensitive=False),
    help="Who trains; by default the type of a MODEL that is a solver, or SGD.",
)
@click.option("--svg", type=click.Path(dir_okay=False), help="Draw the timeline into this file.")
@click.option("--columns", default="", metavar="NAME,...", help="Columns of the table, or all.")
@options.color
def memory(
    model: str, how: How, form: str, batch: int | None, fits: str | None, solver: str | None, svg: str | None, columns: str
) -> int:
    """Tell what memory a net takes, when, and the largest batch that fits.

    The table is a timeline of the forward pass: what has to exist while each layer runs, if blobs are freed after their last use.
    """
    from inspector import memory_report as memories
    from inspector.batch_size import bytes_in, rebatched

    room = bytes_in(fits) if fits is not None else None
    net = how.open(model)
    if batch is not None:
        rebatched(net, batch)
    solver = solver or memories.solver_of(net)
    report = memories.measure(net, solver)
    answer = memories.fits(net, room, solver) if room is not None else None
    if svg is not None:
        from inspector.files import replacing

        with replacing(svg) as file:
            file.write(memories.svg(report).encode())
    names = options.listed(columns) or ([name for name in memories.COLUMNS if name != "timeline"] if form == "csv" else [])
    data = {**report.to_dict(), **({"fits": answer.to_dict()} if answer else {})}
    show.sheet(form, data, memories.sheet(report, names, answer))
    return show.broken(net)
