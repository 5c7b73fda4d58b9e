"""`alexinspect time`: how long a net takes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from inspector.tables import Column, clean, table

from . import images, options, show
from .options import How

if TYPE_CHECKING:
    from inspector.timing import LayerTime, Stats, Timing

BAR = 20  # characters of the largest share
CELLS = ("layer", "type", "inside", "forward_min", "forward_median", "forward_spread", "share")
BACK = ("backward_min", "backward_median", "backward_spread")


@click.command()
@click.argument("model", type=options.Model())
@click.argument("weights", required=False, type=click.Path())
@click.option("--iterations", type=click.IntRange(1), default=20, help="Runs that count.", show_default=True)
@click.option("--warmup", type=click.IntRange(0), default=1, help="Runs before them that do not.", show_default=True)
@click.option("--backward", is_flag=True, help="Time the gradients too; the net then runs layer by layer, without a plan.")
@click.option("--npz", type=click.Path(), help="Arrays for the inputs, instead of random numbers.")
@options.engine_options
@options.net_options
@options.form("table", "json", "csv")
@options.color
def time(model: str, weights: str | None, iterations: int, warmup: int, backward: bool, how: How, form: str, **wishes: Any) -> None:
    """Time a net, layer by layer and as a whole.

    Each run times the whole net and then its layers one after the other, on random input. A layer that is done within another's
    step, such as a ReLU, shows the name of that layer. Times are in milliseconds: the least, the median, and the standard
    deviation.
    """
    from inspector.classify import read_arrays
    from inspector.timing import measure

    from .progress import Progress

    _, weights, _ = images.split(model, [weights] if weights else [], None)
    net = how.open(model)
    net.check()
    wishes["engine"].set(net)
    if weights is not None:
        images.load_weights(net, weights)
    arrays = read_arrays(wishes["npz"], net) if wishes["npz"] else {}
    with Progress("runs", iterations + warmup) as progress:
        timing = measure(net, iterations, warmup=warmup, backward=backward, arrays=arrays, after=progress.step)
    about = {"model": model, "weights": weights, "phase": net.phase, "engine": net.engine if net.planner else "reference"}
    _PRINT[form](timing, about)


def _table(timing: Timing, about: dict[str, Any]) -> None:
    layout = show.layout()
    back = timing.backward is not None
    columns = [Column("layer", style="name"), Column("type", style="type")]
    columns += [Column(title, right=True) for title in ("min", "median", "spread")]
    columns += [Column(title, right=True) for title in ("back", "spread") if back]
    columns += [Column("share", right=True), Column("", style="dim")]
    most = max((_share(timing, layer) for layer in timing.layers), default=0)
    full = "█" if sys.stdout.isatty() and (sys.stdout.encoding or "").lower().startswith("utf") else "#"
    rows = []
    for layer in timing.layers:
        share = _share(timing, layer)
        forward = [_ms(value) for value in _three(layer.forward)] if layer.forward else ["", "", ""]
        backward = [_ms(value) for value in _three(layer.backward)[1:]] if layer.backward else ["", ""]
        bar = full * round(BAR * share / most) if most and layer.forward else f"in {clean(layer.inside)}" if layer.inside else ""
        cells = [clean(layer.name), layer.type, *forward, *(backward if back else ()), f"{share:.1%}" if layer.forward else "", bar]
        rows.append(cells)
    blank = [""] * (2 if back else 0)
    both = [_ms(timing.layers_backward), ""] if back else []
    totals = [["sum of layers", "", "", _ms(timing.layers_forward), "", *both, "", ""]]
    backs = [_ms(timing.backward.median), _ms(timing.backward.spread)] if timing.backward else blank
    totals += [["whole net", "", *(_ms(value) for value in _three(timing.forward)), *backs, "", ""]]
    show.lines([*table(columns, rows, totals=totals, **layout), "", *_lines(timing, about)])


def _lines(timing: Timing, about: dict[str, Any]) -> Iterator[str]:
    yield f"milliseconds; engine {about['engine']}, phase {about['phase']}, {timing.warmup} run(s) before those that count"
    yield timing.forward.line("Forward")
    if timing.forward_backward is not None:
        yield timing.forward_backward.line("Forward_backward")


def _csv(timing: Timing, about: dict[str, Any]) -> None:
    names = CELLS + (BACK if timing.backward is not None else ())
    show.csv(names, ([row[name] for name in names] for row in _rows(timing)))


def _json(timing: Timing, about: dict[str, Any]) -> None:
    whole = {name: _stats(stats) for name, stats in _wholes(timing).items() if stats is not None}
    sums = {"layers_forward": timing.layers_forward, "layers_backward": timing.layers_backward}
    lines = list(_lines(timing, about))[1:]
    show.json({**about, "unit": "seconds", "warmup": timing.warmup, **whole, **sums, "lines": lines, "layers": list(_rows(timing))})


_PRINT = {"table": _table, "csv": _csv, "json": _json}


def _wholes(timing: Timing) -> dict[str, Stats | None]:
    return {"forward": timing.forward, "backward": timing.backward, "forward_backward": timing.forward_backward}


def _rows(timing: Timing) -> Iterator[dict[str, Any]]:
    """Every layer in seconds, by the names of the columns."""
    for layer in timing.layers:
        row: dict[str, Any] = {"layer": layer.name, "type": layer.type, "inside": layer.inside}
        for direction, stats in (("forward", layer.forward), ("backward", layer.backward)):
            values = _three(stats) if stats else (None, None, None)
            row |= {f"{direction}_{name}": value for name, value in zip(("min", "median", "spread"), values)}
        yield {**row, "share": _share(timing, layer) if layer.forward else None}


def _share(timing: Timing, layer: LayerTime) -> float:
    """Of the sum of all layers, both ways."""
    total = timing.layers_forward + timing.layers_backward
    own = sum(stats.median for stats in (layer.forward, layer.backward) if stats)
    return own / total if total else 0.0


def _three(stats: Stats) -> tuple[float, float, float]:
    return stats.least, stats.median, stats.spread


def _stats(stats: Stats) -> dict[str, Any]:
    least, middle, spread = _three(stats)
    return {"min": least, "median": middle, "mean": stats.mean, "spread": spread, "steps": len(stats.seconds)}


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:,.3f}"
