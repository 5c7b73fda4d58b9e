"""`alexinspect train`: what `caffe train` does, on one machine."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inspector.errors import InspectorError

from . import show
from .log import DialectName

if TYPE_CHECKING:
    from inspector.draft import Event
    from inspector.train import Curves, Training


@click.command()
@click.argument("solver", type=click.Path())
@click.option("--weights", multiple=True, type=click.Path(), metavar="W", help="Finetune from these weights (repeatable).")
@click.option("--snapshot", type=click.Path(), metavar="S", help="Go on from a .solverstate, and the weights that it names.")
@click.option("--rewind", is_flag=True, help="With --snapshot: start the data again, as Caffe does, instead of where it stood.")
@click.option(
    "--set", "changes", multiple=True, metavar="FIELD=VALUE", help="Set a field of the solver, as max_iter=100 (repeatable)."
)
@click.option("--dialect", "version", type=DialectName(), default="master", help="Caffe version (see dialects).", show_default=True)
@click.option(
    "--prefix",
    type=click.Choice(["real", "masked"]),
    default="real",
    help="Whether lines have time and process.",
    show_default=True,
)
@click.option("--csv", type=click.Path(), metavar="FILE", help="Write what was displayed as a table.")
@click.option("--plot", type=click.Path(), metavar="FILE.svg", help="Draw losses and scores.")
@click.option("--progress", is_flag=True, help="Show how far it is; on a terminal instead of the log.")
@click.option("--allow-python", is_flag=True, help="Run the classes that Python layers name: for files that you trust.")
def train(
    solver: str,
    weights: tuple[str, ...],
    snapshot: str | None,
    rewind: bool,
    changes: tuple[str, ...],
    version: str,
    prefix: str,
    csv: str | None,
    plot: str | None,
    progress: bool,
    allow_python: bool,
) -> None:
    """Train the net of a solver, and print what caffe train prints.

    Ctrl-C, or SIGTERM, takes a snapshot and stops; SIGHUP takes one and goes on. A second Ctrl-C stops at once. Snapshots appear
    under their names when they are whole, and real Caffe reads them.
    """
    if weights and snapshot:
        raise click.UsageError("give --weights to finetune, or --snapshot to go on, not both")
    from inspector import dialect
    from inspector.train import Curves, Training, lines

    for path in filter(None, (csv, plot)):
        _check_folder(path)
    words = dialect.load(version)
    curves = Curves()
    with _asking() as asked:
        training = Training(
            solver, weights=weights, snapshot=snapshot, rewind=rewind, changes=changes, asked=asked, allow_python=allow_python
        )
        quiet = progress and sys.stdout.isatty()
        try:
            with _progress(training) if progress else nullcontext(_nothing) as shown:
                for line in lines(_noted(training, curves, shown), words):
                    if not quiet:
                        click.echo(line.real(datetime.now(), os.getpid()) if prefix == "real" else line.masked(), nl=False)
        finally:
            training.close()
            _write(curves, solver, csv, plot)
    if training.proto.debug_info:
        show.remark("the solver's debug_info has no effect here")
    if training.stopped:
        show.remark(f"stopped after {training.solver.iteration} iterations")


def _check_folder(path: str) -> None:
    """Raise InspectorError where a file could not be written in the end, after hours of work."""
    folder = Path(path).parent
    if not os.access(folder, os.W_OK):
        raise InspectorError(f"cannot write '{path}': nothing can be written to '{folder}'", code="file", remedy="check the path")


def _noted(training: Training, curves: Curves, shown: Callable[[Event], Any]) -> Iterator[Event]:
    """The training's events, noted on their way."""
    for event in training.run():
        curves.add(event)
        shown(event)
        yield event


def _nothing(event: Event) -> None:
    """Shows nothing."""


@contextmanager
def _asking() -> Iterator[Callable[[], int]]:
    """What the signals that came since the last time ask for. A second one of a kind has its usual effect."""
    from inspector.train import GO_ON, SNAPSHOT, STOP

    wishes: list[int] = []
    effects = {signal.SIGINT: STOP, signal.SIGTERM: STOP}
    if hasattr(signal, "SIGHUP"):
        effects[signal.SIGHUP] = SNAPSHOT
    usual = {number: signal.getsignal(number) for number in effects}

    def come(number: int, frame: Any) -> None:
        wishes.append(effects[signal.Signals(number)])
        if effects[signal.Signals(number)] == STOP:
            signal.signal(number, usual[signal.Signals(number)])

    for number in effects:
        signal.signal(number, come)
    try:
        yield lambda: wishes.pop(0) if wishes else GO_ON
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


@contextmanager
def _progress(training: Training) -> Iterator[Callable[[Event], Any]]:
    """A bar on stderr with the last loss and scores; nothing where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[said]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("training", total=training.proto.max_iter, completed=training.solver.iteration, said="")
        said: dict[str, str] = {}

        def shown(event: Event) -> None:
            values = event.values
            if event.kind == "test-output":
                said[f"test {values['output']}"] = f"{values['value']:.4g}"
            elif event.kind == "train-step":
                said["loss"] = f"{values['loss']:.4g}"
                bar.update(task, completed=values["iteration"], said="  ".join(f"{name} {value}" for name, value in said.items()))

        yield shown


def _write(curves: Curves, solver: str, csv: str | None, plot: str | None) -> None:
    """The table and the picture of what was displayed, if they are wanted."""
    from inspector.files import replacing

    if csv is not None:
        from csv import writer
        from io import StringIO

        names, rows = curves.table()
        text = StringIO()
        sheet = writer(text, lineterminator="\n")
        sheet.writerow(names)
        sheet.writerows(rows)
        with replacing(csv) as file:
            file.write(text.getvalue().encode())
    if plot is not None:
        from inspector.plot import Panel, svg

        panels = [Panel("loss", curves.series("loss")), Panel("scores", curves.series("score"))]
        with replacing(plot) as file:
            file.write(svg(panels, solver).encode())
