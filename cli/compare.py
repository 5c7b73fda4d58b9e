"""`alexinspect compare`: what differs between two nets, two files of weights, or a net and a file of weights."""

from __future__ import annotations

from typing import Any

import click

from inspector.errors import InspectorError
from inspector.tables import Column

from . import options, show
from .options import How

OUTCOME = (
    Column("layer", style="name"),
    Column("type", style="type"),
    Column("top"),
    Column("apart", right=True),
    Column("relative", right=True),
)


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
@options.form("table", "json")
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

        return _show(weights(open_weights(a), open_weights(b), rest["rtol"] or 0.0, rest["atol"] or 0.0), form)
    if any(binary):
        net, file = (b, a) if binary[0] else (a, b)
        return _fit(how.open(net), file, form)
    from inspector.compare import nets

    return _show(nets(how.open(a), how.open(b)), form)


def _show(differences: list[Any], form: str) -> int:
    if form == "json":
        show.json({"same": not differences, "differences": [difference.to_dict() for difference in differences]})
        return 1 if differences else 0
    causes = [difference for difference in differences if not difference.follows]
    lines = [str(difference) for difference in causes]
    follow = [difference for difference in differences if difference.follows]
    if follow:
        lines.append(f"what follows from it: {len(follow)} shapes")
        lines += [f"  {difference}" for difference in follow]
    show.lines(lines or ["same"])
    return 1 if differences else 0


def _fit(net: Any, file: str, form: str) -> int:
    from inspector.caffemodel import open_weights
    from inspector.weights import match

    matching = match(net.graph, open_weights(file))
    differs = bool(matching.mismatches or matching.missing)
    if form == "json":
        mismatches = [str(finding) for finding in matching.mismatches]
        show.json(
            {
                "same": not differs,
                "copied": matching.copied,
                "ignored": matching.ignored,
                "missing": matching.missing,
                "mismatches": mismatches,
            }
        )
        return int(differs)
    lines = [str(finding) for finding in matching.mismatches]
    lines += [f"{name}: gets nothing from the file" for name in matching.missing]
    lines += [f"{name}: in the file only, ignored" for name in matching.ignored]
    show.lines([*lines, f"{len(matching.copied)} layers fit" if differs else f"fits: {len(matching.copied)} layers"])
    return int(differs)


def _run(
    net_a: Any,
    net_b: Any,
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
    cells = [[o.layer, o.type, o.top, f"{o.largest:.3g}", f"{o.relative:.3g}"] for o in found]
    if form == "json":
        rows = [dict(zip(("layer", "type", "top", "largest", "relative"), row, strict=True)) for row in cells]
        show.json({"same": first is None, "first": first.layer if first else None, "compared": compared, "outcomes": rows})
    else:
        if cells:
            show.rows("table", [], OUTCOME, cells)
        show.lines([f"first difference in layer '{first.layer}'" if first else f"same: {compared} tops agree"])
    return 1 if first else 0


def _inputs(net_a: Any, net_b: Any, image: str) -> dict[str, Any]:
    """Arrays for the inputs: those of a .npz, or one image for the first input; both nets are reshaped to what they get."""
    import numpy as np

    if image.endswith(".npz"):
        try:
            with np.load(image, allow_pickle=False) as archive:
                inputs = dict(archive)
        except (OSError, ValueError) as error:
            raise InspectorError(f"cannot read '{image}': {error}", code="file") from None
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
