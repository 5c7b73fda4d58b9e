"""`alexinspect summary`: one net as a layer table, several as one line each."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from inspector.errors import InspectorError, UnreadableError
from inspector.tables import size

from . import options, show
from .options import How


@click.command()
@options.models
@click.option("--weights", type=click.Path(), help="Weights of the last MODEL, for a file that could also be a MODEL itself.")
@options.net_options
@options.form(*options.FORMATS)
@click.option("--columns", default="", metavar="NAME,...", help="Columns of the table, or all.")
@click.option("--only", multiple=True, metavar="GLOB", help="Layers whose names match, with their totals (repeatable).")
@click.option("--group/--no-group", default=False, help="One line for neighbours with a common prefix, such as inception_3a/.")
@click.option("--splits/--no-splits", default=False, help="Show the splits that Caffe inserts each on its own line.")
@click.option("--sort", metavar="COLUMN", help="Order of several MODELs: the largest first, with a - before it the smallest.")
@options.color
def summary(models: tuple[str, ...], weights: str | None, how: How, form: str, **table: Any) -> int:
    """Show the layers of a net, with shapes, parameters, operations and memory.

    A file of weights belongs to the MODEL before it. Several MODELs are compared, one line each.
    """
    pairs = options.pairs(models)
    if weights is not None:
        pairs[-1] = (pairs[-1][0], weights)
    nets = [(model, how.open(model), weights) for model, weights in pairs]
    troubles = [trouble for _, net, weights in nets for trouble in (net.error, _loaded(net, weights)) if trouble]
    (_one if len(nets) == 1 else _several)(nets, form, **table)
    _say_assumptions([net for _, net, _ in nets], form)
    for trouble in troubles:
        show.error(trouble)
    return 1 if troubles else 0


def _loaded(net: Any, weights: str | None) -> InspectorError | None:
    """Load weights; the error, if they do not fit. One that cannot be read at all is trouble."""
    try:
        if weights is not None:
            net.load_weights(weights)
    except UnreadableError:
        raise
    except InspectorError as error:
        return error
    return None


def _one(nets: list[Any], form: str, *, columns: str, only: tuple[str, ...], group: bool, splits: bool, sort: str | None) -> None:
    from inspector import summary_table as tables

    [(_, net, weights)] = nets
    summary = net.summary().select(*only) if only else net.summary()
    names = tables.chosen(options.listed(columns))
    if form == "json":
        stored = {"file": weights, "bytes": Path(weights).stat().st_size} if weights else None
        show.json({**summary.to_dict(group=group), "weights": stored})
    elif form == "table":
        more = [("weights", f"{weights}, {size(Path(weights).stat().st_size)}")] if weights else []
        show.lines(tables.text(summary, names, group=group, splits=splits, more=more, **show.layout()))
    else:
        names = names or tables.USUAL
        lines = summary.lines(group=group, splits=splits or form == "csv")
        cells = [*tables.cells(summary, lines, names), tables.total_cells(summary, names)]
        show.rows(form, names, [tables.FIELDS[name].column for name in names], cells)


def _several(nets: list[Any], form: str, *, columns: str, only: tuple[str, ...], sort: str | None, **_: bool) -> None:
    from inspector import summary_table as tables

    names = tables.chosen(options.listed(columns), tables.MEASURES) or tables.COMPARED
    entries = []
    for model, net, weights in nets:
        summary = net.summary().select(*only) if only else net.summary()
        entries.append(tables.Entry(model, summary, Path(weights).stat().st_size if weights else None))
    columns_of = [tables.MEASURES[name].column for name in names]
    cells = [[tables.MEASURES[name].value(entry) for name in names] for entry in tables.compared(entries, sort)]
    show.rows(form, names, columns_of, cells)


def _say_assumptions(nets: list[Any], form: str) -> None:
    """Assumptions go to stderr too, unless the table has just said them on the same screen."""
    if form == "table" and len(nets) == 1 and sys.stdout.isatty() and sys.stderr.isatty():
        return
    for net in nets:
        for finding in net.findings:
            if finding.severity == "note":
                show.say(finding, "note")
