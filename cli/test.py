"""`alexinspect test`: the scores of a net on its own data."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from . import images, options, show
from .options import How

if TYPE_CHECKING:
    from inspector.testing import Result

CAFFES = 50  # batches that `caffe test` takes


@click.command()
@click.argument("model", type=options.Model())
@click.argument("weights", required=False, type=click.Path())
@click.option("--iterations", type=click.IntRange(1), help="How many batches; 50 as in Caffe, or as a solver says.")
@click.option("--check-numerics", is_flag=True, help="Stop at the first layer that makes a NaN or an infinite value.")
@options.engine_options
@options.net_options
@options.form("table", "json", "csv")
@options.color
def test(
    model: str, weights: str | None, iterations: int | None, check_numerics: bool, engine: options.Engine, how: How, form: str
) -> int:
    """Average a net's outputs over its own data, as `caffe test` does.

    The data layers of the MODEL's TEST phase read their sources; after the last record comes the first again. The scores of each
    batch are printed as Caffe prints them, then their means and the whole net's loss.
    """
    from inspector.errors import InspectorError
    from inspector.testing import Result, batches

    from .progress import Progress

    _, weights, _ = images.split(model, [weights] if weights else [], None)
    net = how.open(model)
    net.check()
    engine.set(net)
    images.load_weights(net, weights)
    solver = net.opened.solver
    iterations = iterations or (solver.test_iter[0] if solver is not None and solver.test_iter else CAFFES)
    result = Result()
    try:
        with images.outputs(net), Progress("batches", iterations) as progress:
            for i in batches(net, iterations, result, check_numerics=check_numerics):
                if form == "table":
                    progress.clear(sys.stdout)
                    show.lines(f"Batch {i}, {score.blob} = {score.values[i]:g}" for score in result.scores)
                progress.step()
    except InspectorError as error:
        if error.code != "not-finite":
            raise
        show.error(error)
        return 1
    _print(result, form, {"model": model, "weights": weights, "phase": net.phase, "iterations": iterations})
    return 0


def _print(result: Result, form: str, about: dict[str, Any]) -> None:
    if form == "table":
        show.lines(_totals(result))
    elif form == "csv":
        names = [f"{score.blob}[{score.index}]" if _several(result, score.blob) else score.blob for score in result.scores]
        rows = zip(*(score.values for score in result.scores), result.losses, strict=True)
        show.csv(["batch", *names, "loss (total)"], ([i, *row] for i, row in enumerate(rows)))
    else:
        scores = [
            {
                "output": score.blob,
                "index": score.index,
                "mean": _finite([score.mean])[0],
                "loss_weight": score.weight,
                "batches": _finite(score.values),
            }
            for score in result.scores
        ]
        show.json({**about, "loss": _finite([result.loss])[0], "scores": scores, "losses": _finite(result.losses)})


def _totals(result: Result) -> Iterable[str]:
    """The end, in Caffe's words."""
    yield f"Loss: {result.loss:g}"
    for score in result.scores:
        weighted = f" (* {score.weight:g} = {score.weight * score.mean:g} loss)" if score.weight else ""
        yield f"{score.blob} = {score.mean:g}{weighted}"


def _several(result: Result, blob: str) -> bool:
    return sum(score.blob == blob for score in result.scores) > 1


def _finite(values: Iterable[float]) -> list[float | None]:
    """For JSON, which knows no NaN."""
    return [value if math.isfinite(value) else None for value in values]
