"""`alexinspect parse-log`: what is in a Caffe log, its nets as tables or JSON, its net's text, its training as CSV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inspector.errors import Finding, InspectorError
from inspector.tables import Column, clean, number

from . import options, show

if TYPE_CHECKING:
    from inspector.logparse import LayerFacts, NetFacts
    from inspector.training_log import Row, Training

COLUMNS = (
    Column("line", right=True),
    Column("layer", style="name"),
    Column("type", style="type"),
    Column("bottoms"),
    Column("tops"),
    Column("shape", style="shape"),
    Column("loss", right=True),
    Column("backward"),
    Column("memory", right=True),
)
NAMES = ("net", *(column.title for column in COLUMNS))


@click.command("parse-log")
@click.argument("log", type=click.Path())
@click.option("--net", "wanted", type=click.IntRange(min=1), help="Only this net of the log.")
@click.option("--prototxt", is_flag=True, help="Print the net's text as it stands in the log.")
@click.option("--training", is_flag=True, help="The training lines: iterations, seconds, learning rate, loss, outputs, speed.")
@click.option("--csv", "prefix", metavar="PREFIX", help="Write the training lines to PREFIX.train.csv and PREFIX.test.csv.")
@options.form(*options.FORMATS)
@options.color
def parse_log(log: str, wanted: int | None, prototxt: bool, training: bool, prefix: str | None, form: str) -> int:
    """Read a Caffe log: nets as tables or JSON, the net's text, training curves as CSV.

    The log may be of any version, real or masked, cut at either end, with other output in between, of several nets; - is stdin.

    Exit status: 0 all well, 1 the net's text or the log is not whole (with --prototxt), 2 trouble.
    """
    from inspector import logmodel, logparse

    if sum((prototxt, training, prefix is not None)) > 1 + (training and prefix is not None):
        raise click.UsageError("--prototxt and --training answer different questions")
    text = logparse.decoded(options.content(log))
    if training or prefix is not None:
        return _training(log, text, form, prefix)
    nets = logparse.read(text)
    if not nets:
        remedy = "a log has lines such as 'Creating Layer conv1'; --training reads the others"
        raise InspectorError(f"'{log}' tells of no net that was built", code="file", remedy=remedy)
    if wanted is not None and wanted > len(nets):
        raise InspectorError(f"'{log}' has {len(nets)} net(s), and --net is {wanted}", code="file")
    chosen = [(i, net) for i, net in enumerate(nets, 1) if wanted in (None, i)]
    if prototxt:
        return _prototxt(log, chosen)
    for _, net in chosen:
        logmodel.typed(net)
    _facts(log, chosen, form)
    return 0


def _facts(log: str, nets: Sequence[tuple[int, NetFacts]], form: str) -> None:
    if form == "json":
        show.json({"log": log, "nets": [{"net": i, **_data(net)} for i, net in nets]})
    elif form == "table":
        show.lines(_tables(nets))
    else:
        rows = [[i, *row] for i, net in nets for layer in net.layers for row in _rows(layer)]
        show.rows(form, NAMES, (Column("net", right=True), *COLUMNS), rows)


def _data(net: NetFacts) -> dict[str, Any]:
    from inspector import logparse, recognise

    known = recognise.recognise(net)
    version = {"version": known.version, "dialect": known.dialect, "confidence": known.confidence, "debug_build": known.debug}
    return {"recognised": {**version, "also": list(known.also)}, **logparse.data(net)}


def _tables(nets: Sequence[tuple[int, NetFacts]]) -> Iterator[str]:
    """Each net with its facts in sentences and its layers in a table."""
    from inspector import recognise
    from inspector.tables import listing, table

    layout = show.layout()
    for i, net in nets:
        if i != nets[0][0]:
            yield ""
        title = f"net {i}: {net.name or 'without a name'}{f' in {net.phase}' if net.phase else ''}"
        yield layout["paint"](clean(title), "head")
        facts = _sentences(net, recognise.recognise(net).sentence("the log"))
        yield from listing(facts, width=layout["width"], paint=layout["paint"])
        if net.layers:
            yield ""
            rows = [[clean(_words(cell)) for cell in row] for layer in net.layers for row in _rows(layer)]
            yield from table(COLUMNS, rows, **layout)


def _sentences(net: NetFacts, version: str) -> Iterator[tuple[str, str]]:
    yield "version", version
    missing = [what for what, there in (("beginning", net.begun), ("end", net.done or bool(net.fatal))) if not there]
    cut = f", its {' and '.join(missing)} missing" if missing else ""
    yield "lines", f"{net.line} to {net.end}{cut}"
    if net.text is not None:
        yield "text", "whole" if net.text_complete else "cut, as Caffe does with long ones"
    filtered = [record.text for record in net.before if record.text.startswith("The NetState")]
    if filtered:
        yield "rules", f"{len(filtered)} not met"
    if net.inputs:
        yield "inputs", clean(", ".join(net.inputs))
    if net.outputs:
        yield "outputs", clean(", ".join(net.outputs))
    if net.memory is not None:
        yield "memory", f"{number(net.memory)} bytes"
    if net.fatal:
        yield "stopped", clean(net.fatal)


def _rows(layer: LayerFacts) -> Iterator[list[Any]]:
    """One row per top; a layer without tops has one too."""
    from inspector.logdiff import shape_words

    backward = {True: "yes", False: "no", None: ""}[layer.backward]
    for i, top in enumerate(layer.tops or [None]):
        first = i == 0
        name = "" if top is None else top.name + (" (in-place)" if top.in_place else "")
        yield [
            layer.line if first else "",
            layer.name if first else "",
            layer.type if first else "",
            ", ".join(layer.bottoms) if first else "",
            name,
            shape_words(top.shape) if top is not None and top.shape is not None else "",
            f"{top.loss_weight:g}" if top is not None and top.loss_weight else "",
            backward if first else "",
            layer.memory if first and layer.memory is not None else "",
        ]


def _words(cell: Any) -> str:
    return number(cell) if isinstance(cell, int) else str(cell)


def _prototxt(log: str, nets: Sequence[tuple[int, NetFacts]]) -> int:
    """The text of the only net that has one, or of the one asked for."""
    from inspector import logmodel

    printed = [(i, net) for i, net in nets if net.text is not None]
    if len(printed) > 1:
        which = ", ".join(f"{i} ({net.name or 'without a name'}, {net.phase or 'phase unknown'})" for i, net in printed)
        raise InspectorError(f"'{log}' prints {len(printed)} nets", code="file", remedy=f"choose one with --net: {which}")
    net = printed[0][1] if printed else nets[0][1]
    click.echo(logmodel.recovered(net), nl=False)
    if net.text_complete:
        return 0
    show.say(Finding("cut-text", "the net's text is cut in the log: its last layers are not all there", "warning"), "warning")
    return 1


# ---- training


def _training(log: str, text: str, form: str, prefix: str | None) -> int:
    from inspector import logparse, training_log

    found = training_log.read(logparse.records(text))
    if not found.train and not found.test:
        remedy = "a log of training has lines such as 'Iteration 20, loss = 0.3'"
        raise InspectorError(f"'{log}' tells of no training", code="file", remedy=remedy)
    tables = {"train": found.train, "test": found.test}
    if prefix is not None:
        for name, rows in tables.items():
            _write(f"{prefix}.{name}.csv", rows)
        return 0
    if form == "json":
        show.json({"log": log, **tables})
        return 0
    for name, rows in tables.items():
        if rows:
            _curve(name.upper(), rows, form, found, first=name == "train" or not found.train)
    return 0


def _curve(name: str, rows: Sequence[Row], form: str, found: Training, *, first: bool) -> None:
    """One table; both stand on stdout, an empty line between them."""
    columns = found.columns(rows)
    cells = [[_value(row.get(column)) for column in columns] for row in rows]
    if not first:
        show.lines([""])
    if form in ("table", "markdown"):
        show.lines([name, ""] if form == "markdown" else [show.layout()["paint"](name, "head")])
    show.rows(form, columns, [Column(column, right=True) for column in columns], cells)


def _value(value: float | int | None) -> str:
    return "" if value is None else repr(value)


def _write(path: str, rows: Sequence[Row]) -> None:
    """A table as a CSV file, which takes the place of an older one at once."""
    import io
    from csv import writer

    from inspector.files import replacing
    from inspector.training_log import Training

    columns = Training.columns(rows)
    out = io.StringIO()
    sheet = writer(out, lineterminator="\n")
    sheet.writerow(columns)
    sheet.writerows([_value(row.get(column)) for column in columns] for row in rows)
    with replacing(Path(path)) as file:
        file.write(out.getvalue().encode())
    show.remark(f"wrote {path}: {len(rows)} row{'s' * (len(rows) != 1)}")
