"""`alexinspect plan`: what a run of the net will do, step by step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, fields
from typing import TYPE_CHECKING

import click

from inspector.errors import InspectorError
from inspector.tables import Column, number, size, table

from . import options, show
from .options import How

if TYPE_CHECKING:
    from inspector import Net
    from inspector.engine.report import Report

COLUMNS = (
    Column("step", right=True),
    Column("layer", style="name"),
    Column("kernel"),
    Column("fuses"),
    Column("makes", style="name"),
    Column("shape", style="shape"),
    Column("layout"),
    Column("at", right=True),
    Column("bytes", right=True),
    Column("until", right=True),
)


@click.command()
@options.model
@click.option("--blob", "blobs", multiple=True, metavar="BLOB[@LAYER]", help="Plan for this instead of the outputs (repeatable).")
@options.engine_options
@options.net_options
@options.form("table", "json", "csv")
@options.color
def plan(model: str, blobs: tuple[str, ...], engine: options.Engine, how: How, form: str) -> None:
    """Show the steps that a run takes: what each fuses, its kernel, and the memory of what it makes.

    A step of kernel "specification" is the layer's own forward; one that reads what is stored by pixels says so. "at" is where the
    memory of a value begins, "until" the last step that reads it.
    """
    from inspector.engine.report import Line

    net = how.open(model)
    net.check()
    engine.set(net)
    report = _report(net, blobs)
    if form == "json":
        show.json({**asdict(report), "engine": net.engine})
    elif form == "csv":
        names = [field.name for field in fields(Line)]
        show.csv(names, ([_plain(name, getattr(line, name)) for name in names] for line in report.lines))
    else:
        show.lines([*table(COLUMNS, _cells(report), **show.layout()), "", *_totals(report)])


def _report(net: Net, blobs: tuple[str, ...]) -> Report:
    from inspector.engine import RULES, Engine, plannable
    from inspector.engine.report import report
    from inspector.plan import unread_sources

    unknown = next((blob for node in net.layers for blob in node.tops if blob.shape is None), None)
    if unknown is not None:
        remedy = f"give it: --shape {unknown.name}=1x3x227x227"
        raise InspectorError(f"the shape of '{unknown.name}' is unknown", code="unknown-shape", remedy=remedy)
    rules = RULES[net.engine if plannable(net.graph) else "reference"]
    wanted = [net.blob(name) for name in blobs or net.outputs]
    made = Engine(net.graph, net.weights, rules, net.threads)
    return report(made.plan(unread_sources(net.graph, ()), wanted))


def _plain(name: str, cell: object) -> object:
    """A cell of the CSV: lists in one cell, shapes as 1x3x224x224."""
    if isinstance(cell, (list, tuple)):
        return ("x" if name == "shape" else " ").join(map(str, cell))
    return cell


def _cells(report: Report) -> list[list[str]]:
    cells: list[list[str]] = []
    last = -1
    for line in report.lines:
        kernel = f"{line.kernel}, from pixels" if line.converts else line.kernel
        step = [str(line.step), line.layer, kernel, ", ".join(line.fuses)] if line.step != last else [""] * 4
        place = "in " + line.within if line.within else "" if line.at is None else number(line.at)
        shape = "x".join(map(str, line.shape or ()))
        until = "end" if line.until is None else str(line.until)
        cells.append([*step, line.blob or "", shape, line.layout, place, number(line.bytes) if line.bytes else "", until])
        last = line.step
    return cells


def _totals(report: Report) -> Iterable[str]:
    steps = len({line.step for line in report.lines})
    yield f"{steps} steps for {report.layers} layers"
    shared = f"{size(report.memory)} for values of {size(report.values)}"
    yield shared + (f", {report.parts} parts of the batch one after the other" if report.parts > 1 else "")
