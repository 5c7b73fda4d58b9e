"""`alexinspect compare`: what differs between two nets, two files of weights, or a net and a file of weights."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from inspector.errors import InspectorError
from inspector.tables import Column

from . import options, show
from .options import How

if TYPE_CHECKING:
    from inspector import Net
    from inspector.compare import BlobOutcome, Difference

NAME, APART, RELATIVE = Column("layer", style="name"), Column("apart", right=True), Column("relative", right=True)
DIFFERENCE = (Column("kind", style="type"), NAME, Column("what"), Column("A"), Column("B"), Column("follows"))
BLOB = (
    Column("blob", style="name"),
    Column("shape", style="shape"),
    Column("verdict"),
    Column("values apart", right=True),
    Column("largest", right=True),
    RELATIVE,
)
FIT = (NAME, Column("outcome"), Column("why"))
OUTCOME = (NAME, Column("type", style="type"), Column("top"), APART, RELATIVE)


@click.command()
@click.argument("a", type=options.Model())
@click.argument("b", type=options.Model())
@options.net_options
@click.option("--run", "image", type=click.Path(), metavar="IMAGE", help="Run both nets on an image, or on the arrays of a .npz.")
@click.option("--weights", "weights_a", type=click.Path(), help="Weights for --run: of both, or of A where --weights-b is given.")
@click.option("--weights-b", type=click.Path(), help="Weights of B for --run.")
@click.option("--rtol", type=float, default=None, help="Relative tolerance of values: 0 for weights, 1e-5 for --run.")
@click.option("--atol", type=float, default=None, help="Absolute tolerance of values: 0 for weights, 1e-6 for --run.")
@click.option("--all", "everything", is_flag=True, help="With --run, show every layer and not only the first that differs.")
@options.form("table", "json", "csv", "markdown")
@options.color
def compare(a: str, b: str, how: How, form: str, image: str | None, **rest: Any) -> int:
    """Say what differs between A and B: nets by meaning, files of weights by value, a net and weights by what fits.

    With --run both nets are run side by side and the first layer whose output differs is named.
    """
    binary = [options.is_weights(name) for name in (a, b)]
    if image is not None:
        return _run(how.open(a), how.open(b), image, form, **rest)
    if all(binary):
        from inspector.caffemodel import open_weights
        from inspector.compare import weights

        return _blobs(weights(open_weights(a), open_weights(b), rest["rtol"] or 0.0, rest["atol"] or 0.0), form)
    if any(binary):
        net, file = (b, a) if binary[0] else (a, b)
        return _fit(how.open(net), file, form)
    from inspector.compare import nets

    return _nets(nets(how.open(a), how.open(b)), form)


def _nets(differences: list[Difference], form: str) -> int:
    data = [difference.to_dict() for difference in differences]
    if form == "json":
        show.json({"same": not differences, "differences": data})
    elif form != "table":
        names = ("kind", "layer", "what", "a", "b", "follows")
        show.rows(form, names, DIFFERENCE, [[_cell(row[name]) for name in names] for row in data])
    else:
        lines = [str(difference) for difference in differences if not difference.follows]
        follow = [difference for difference in differences if difference.follows]
        if follow:
            lines.append(f"what follows from it: {len(follow)} shapes")
            lines += [f"  {difference}" for difference in follow]
        show.lines(lines or ["same"])
    return 1 if differences else 0


def _cell(value: Any) -> str:
    """A setting, name, shape or list of them as the text of a cell; nothing for what is not there."""
    if isinstance(value, (tuple, list)):
        return ("x" if isinstance(value, tuple) else ", ").join(map(str, value))
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _blobs(outcomes: list[BlobOutcome], form: str) -> int:
    from inspector.sheet import Sheet

    different = sum(not outcome.same for outcome in outcomes)
    data = {"same": not different, "blobs": [asdict(outcome) for outcome in outcomes]}
    names = ("blob", "shape", "verdict", "apart", "largest", "relative")
    cells = [[f"{o.layer}[{o.index}]", _shapes(o), o.verdict, o.apart, _figure(o.largest), _figure(o.relative)] for o in outcomes]
    verdict = f"{different} of {len(outcomes)} blobs" if different else f"all {len(outcomes)} blobs"
    show.sheet(form, data, Sheet(names, BLOB, cells, notes=[("differ" if different else "same", verdict)]))
    return 1 if different else 0


def _shapes(outcome: BlobOutcome) -> str:
    """The blob's shape; both where it is another one, and not only written with ones in front as old files do."""
    shapes = (outcome.a, outcome.b) if outcome.verdict == "reshaped" else (outcome.b or outcome.a,)
    return " -> ".join(map(_cell, shapes))


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _fit(net: Net, file: str, form: str) -> int:
    from inspector.caffemodel import open_weights
    from inspector.weights import match

    matching = match(net.graph, open_weights(file))
    differs = bool(matching.mismatches or matching.missing)
    cells = [[finding.layer, "mismatch", finding.message] for finding in matching.mismatches]
    cells += [[name, "missing", "gets nothing from the file"] for name in matching.missing]
    cells += [[name, "ignored", "in the file only"] for name in matching.ignored]
    cells += [[name, "copied", ""] for name in matching.copied]
    if form == "json":
        mismatches = [str(finding) for finding in matching.mismatches]
        found = {"copied": matching.copied, "ignored": matching.ignored, "missing": matching.missing, "mismatches": mismatches}
        show.json({"same": not differs, **found})
    elif form != "table":
        show.rows(form, ("layer", "outcome", "why"), FIT, cells)
    else:
        lines = [str(finding) for finding in matching.mismatches]
        lines += [f"{name}: gets nothing from the file" for name in matching.missing]
        lines += [f"{name}: in the file only, ignored" for name in matching.ignored]
        show.lines([*lines, f"{len(matching.copied)} layers fit" if differs else f"fits: {len(matching.copied)} layers"])
    return int(differs)


def _run(
    net_a: Net,
    net_b: Net,
    image: str,
    form: str,
    *,
    weights_a: str | None,
    weights_b: str | None,
    rtol: float | None,
    atol: float | None,
    everything: bool,
) -> int:
    from inspector.compare import run

    for net, file in ((net_a, weights_a), (net_b, weights_b or weights_a)):
        if file is not None:
            net.load_weights(file)
    inputs = _inputs(net_a, net_b, image)
    found, compared, first = [], 0, None
    for outcome in run(net_a, net_b, inputs, 1e-5 if rtol is None else rtol, 1e-6 if atol is None else atol):
        compared += 1
        if outcome.differs and first is None:
            first = outcome
        if everything or outcome is first:
            found.append(outcome)
        if first is not None and not everything:
            break
    if not compared:
        raise InspectorError("the two nets have no layer name in common", code="nothing-in-common")
    names = ("layer", "type", "top", "largest", "relative")
    if form == "json":
        rows = [{name: getattr(outcome, name) for name in names} for outcome in found]
        show.json({"same": first is None, "first": first.layer if first else None, "compared": compared, "outcomes": rows})
        return 1 if first else 0
    if found or form != "table":
        cells = [[o.layer, o.type, o.top, _figure(o.largest), _figure(o.relative)] for o in found]
        show.rows(form, names, OUTCOME, cells)
    if form == "table":
        show.lines([f"first difference in layer '{first.layer}'" if first else f"same: {compared} tops agree"])
    return 1 if first else 0


def _inputs(net_a: Net, net_b: Net, image: str) -> dict[str, Any]:
    """Arrays for the inputs: those of a .npz, or one image for the first input; both nets are reshaped to what they get."""
    if image.endswith(".npz"):
        from inspector.classify import read_npz

        inputs = read_npz(image)
    else:
        from inspector.preprocess import Preprocessing, load_image

        name = net_a.inputs[0] if net_a.inputs else ""
        shape = net_a.blobs[name].shape if name else None
        if shape is None:
            raise InspectorError(
                "the net has no input for an image", code="no-input", remedy="give a .npz with arrays by blob name"
            )
        how = Preprocessing().fitted(shape)
        inputs = {name: how.apply(load_image(image, gray=how.gray))}
    for net in (net_a, net_b):
        wanted = {
            name: array.shape for name, array in inputs.items() if name in net.blobs and net.blob(name).root.shape != array.shape
        }
        if wanted:
            net.reshape(**wanted)
    return inputs
