"""`alexinspect log`: what a version of Caffe would have logged while it built a net; `alexinspect dialects`: the versions."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from inspector.errors import InspectorError, PrototxtError
from inspector.tables import Column

from . import options, show
from .options import How

if TYPE_CHECKING:
    from inspector import Net
    from inspector.dialect import Dialect
    from inspector.log import Line, Log
    from inspector.opening import Opened

THREAD = 12345  # in five columns, as glog prints it


class DialectName(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.5 on
    """A Caffe version; completes names."""

    name = "dialect"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        from inspector import dialect

        return [CompletionItem(name) for name in dialect.names() if name.startswith(incomplete)]


@click.command()
@options.model
@click.option("--dialect", "version", type=DialectName(), default="master", help="Caffe version (see dialects).", show_default=True)
@options.net_options
@click.option("--debug-build", "debug", is_flag=True, help="Also what only debug builds of Caffe say.")
@click.option(
    "--prefix",
    type=click.Choice(["masked", "real"]),
    default="masked",
    help="Whether to fill in time and thread.",
    show_default=True,
)
@click.option("--cut/--no-cut", default=True, help="Cut long records as glog does.")
@click.option(
    "--translate/--no-translate",
    default=None,
    help="Write the net as that version would have had it, before it reads it; usual for models that ship.",
)
@click.option("--lenient", is_flag=True, help="Go on at fields and layer types of forks, where BVLC's Caffe stops.")
@click.option("--weights", type=click.Path(), help="Continue with what Caffe says while it loads this file of weights.")
def log(
    model: str,
    version: str,
    how: How,
    debug: bool,
    prefix: str,
    cut: bool,
    translate: bool | None,
    lenient: bool,
    weights: str | None,
) -> int:
    """Print what a version of Caffe would have logged while it built the net.

    Standard output carries the log, line for line, and nothing else; assumptions and notes go to standard error. Exit
    status 1: Caffe refuses the net, and its last line says why.
    """
    from inspector import dialect as dialects

    words = dialects.load(version)
    try:
        net = _open(model, how, words, debug=debug, translate=translate)
    except PrototxtError as error:
        from inspector.log import unparsed

        _print(unparsed(error, words, model), prefix, cut)
        show.error(error)
        return 1
    return _say(net, words, prefix, cut, debug=debug, lenient=lenient, weights=weights)


def _open(model: str, how: How, words: Dialect, *, debug: bool, translate: bool | None) -> Net:
    """The net as that version of Caffe would have built it."""
    net = how.open(model)
    edition = replace(words.edition, debug=debug)
    if net.edition == edition and not translate:
        return net
    from inspector import Net

    opened = _written(net, how, words, translate)
    return Net(opened, how.phase, how.level, how.stages, how.given, edition, allow_python=how.allow_python)


def _written(net: Net, how: How, words: Dialect, translate: bool | None) -> Opened:
    """The file as that version read it; models that ship belong to no version, and are written for it where that can be done."""
    from inspector import shelf
    from inspector.net import PHASES
    from inspector.translate import read, translated

    ships = net.opened.path is not None and net.opened.path.is_relative_to(shelf.folder())
    if translate or (translate is None and ships):
        try:
            return translated(net.opened, words, PHASES[how.phase], how.level, how.stages)
        except InspectorError:
            if translate:
                raise
    return read(net.opened, words)


def _say(net: Net, words: Dialect, prefix: str, cut: bool, *, debug: bool, lenient: bool, weights: str | None) -> int:
    from inspector import log as logs

    spoken = logs.of(net, words, file=net.opened.name, debug=debug, lenient=lenient)
    _print(spoken, prefix, cut)
    for finding in (*(f for f in net.findings if f.severity == "note"), *spoken.notes):
        show.say(finding, "note")
    if not spoken.refused and weights is not None:
        spoken = _loading(net, words, weights, debug=debug)
        _print(spoken, prefix, cut)
    if spoken.refused and net.error is not None:
        show.error(net.error)
    return int(spoken.refused)


def _loading(net: Net, words: Dialect, weights: str, *, debug: bool) -> Log:
    """The lines about a file of weights."""
    from inspector import log as logs
    from inspector.caffemodel import open_weights
    from inspector.weights import match

    stored = open_weights(weights)
    return logs.Loading(net.graph, words, match(net.graph, stored), stored, file=weights, debug=debug)


def _print(lines: Iterable[Line], prefix: str, cut: bool) -> None:
    for text in _texts(lines, prefix, cut):
        click.echo(text, nl=False)
    sys.stdout.flush()


def _texts(lines: Iterable[Line], prefix: str, cut: bool) -> Iterator[str]:
    for line in lines:
        yield line.real(datetime.now(), THREAD, cut=cut) if prefix == "real" else line.masked(cut=cut)


@click.command()
@options.form(*options.FORMATS)
@options.color
def dialects(form: str) -> None:
    """List the versions of Caffe whose words are known, with what sets them apart."""
    from inspector import dialect as known

    found = [known.load(name) for name in known.names()]
    if form == "json":
        show.json([known.described(words) for words in found])
        return
    names = ["name", "released", "layers", "about"]
    columns = [Column("dialect"), Column("released"), Column("layers"), Column("what sets it apart")]
    show.rows(form, names, columns, [[words.name, words.released, words.generation, words.about] for words in found])
