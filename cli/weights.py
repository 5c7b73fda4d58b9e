"""`alexinspect weights`: what is inside a file of weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from inspector.errors import InspectorError
from inspector.files import file_name, made, replacing
from inspector.tables import Column, number, size

from . import options, show

COLUMNS = (
    ("blob", Column("blob", style="name")),
    ("type", Column("type", style="type")),
    ("shape", Column("shape", style="shape")),
    ("count", Column("values", right=True)),
    ("min", Column("min", right=True)),
    ("max", Column("max", right=True)),
    ("mean", Column("mean", right=True)),
    ("std", Column("std", right=True)),
    ("l1", Column("L1", right=True)),
    ("l2", Column("L2", right=True)),
    ("zeros", Column("zeros", right=True)),
    ("dead_filters", Column("dead", right=True)),
    ("histogram", Column("histogram")),
)


@click.command()
@click.argument("caffemodel", type=click.Path())
@click.argument("model", required=False, type=options.Model())
@click.option("--layer", "layers", multiple=True, metavar="GLOB", help="Only layers whose names match (repeatable).")
@click.option("--save-image", type=click.Path(dir_okay=False), help="Draw the filters of the first chosen blob with 4 axes.")
@click.option("--export", type=click.Path(file_okay=False), metavar="DIR", help="Write each chosen layer to DIR/LAYER.npz.")
@options.form(*options.FORMATS)
@options.color
def weights(
    caffemodel: str, model: str | None, layers: tuple[str, ...], save_image: str | None, export: str | None, form: str
) -> int:
    """Look into a file of weights: statistics, filters, arrays.

    With a MODEL it also says what of the file that net takes, and what not.
    """
    from inspector.caffemodel import open_weights

    stored = open_weights(caffemodel)
    chosen = _chosen(stored, layers)
    if save_image is not None:
        _draw(chosen, save_image)
    if export is not None:
        _export(chosen, Path(export))
    matching = _matching(stored, model)
    _table(stored, chosen, matching, form)
    return 1 if matching is not None and matching.mismatches else 0


def _chosen(stored: Any, globs: tuple[str, ...]) -> list[Any]:
    from fnmatch import fnmatchcase

    chosen = [layer for layer in stored.layers if not globs or any(fnmatchcase(layer.name, glob) for glob in globs)]
    if globs and not chosen:
        from difflib import get_close_matches

        close = get_close_matches(globs[0], [layer.name for layer in stored.layers], 1)
        remedy = f"did you mean '{close[0]}'?" if close else "without --layer all are shown"
        raise InspectorError(f"'{stored.path}' holds no layer '{globs[0]}'", code="no-such-layer", remedy=remedy)
    return chosen


def _matching(stored: Any, model: str | None) -> Any:
    if model is None:
        return None
    from inspector import load
    from inspector.weights import match

    return match(load(model).graph, stored)


def _table(stored: Any, chosen: list[Any], matching: Any, form: str) -> None:
    from inspector.weight_stats import stats

    found = [stats(layer, blob) for layer in chosen for blob in layer.blobs]
    if form == "json":
        show.json({**_about(stored, matching), "blobs": [row.to_dict() for row in found]})
        return
    if form == "csv":
        rows = [row.to_dict() for row in found]
        names = [name for name in (rows[0] if rows else {}) if name != "histogram"]
        show.csv(names, [["x".join(map(str, row[name])) if name == "shape" else row[name] for name in names] for row in rows])
        return
    cells = [
        [
            f"{row.layer}[{row.index}]",
            row.type,
            "x".join(map(str, row.shape)) or "scalar",
            row.count,
            *(f"{value:.4g}" for value in (row.least, row.most, row.mean, row.deviation, row.l1, row.l2)),
            f"{row.sparsity:.1%}" if row.zeros else "0",
            "" if row.dead is None else row.dead,
            row.sparkline(),
        ]
        for row in found
    ]
    show.rows(form, [name for name, _ in COLUMNS], [column for _, column in COLUMNS], cells)
    if form == "table":
        show.lines(["", *_words(stored, found, matching)])


def _about(stored: Any, matching: Any) -> dict[str, Any]:
    layers = stored.layers
    about: dict[str, Any] = {
        "file": stored.path,
        "bytes": Path(stored.path).stat().st_size,
        "net": stored.proto.name,
        "generations": sorted({layer.generation for layer in layers}),
        "layers": len(layers),
        "layers_with_blobs": sum(bool(layer.blobs) for layer in layers),
        "values": stored.count,
        "diffs_stored": any(blob.has_diff for layer in layers for blob in layer.blobs),
    }
    if matching is not None:
        about["model"] = {
            "copied": matching.copied,
            "ignored": matching.ignored,
            "missing": matching.missing,
            "mismatches": [str(finding) for finding in matching.mismatches],
        }
    return about


def _words(stored: Any, found: list[Any], matching: Any) -> list[str]:
    about = _about(stored, matching)
    lines = [
        f"file     {about['file']}, {size(about['bytes'])}" + (f", net '{about['net']}'" if about["net"] else ""),
        f"layers   {about['layers']} stored ({', '.join(about['generations'])}), {about['layers_with_blobs']} with blobs",
        f"values   {number(about['values'])}" + (", gradients stored beside them" if about["diffs_stored"] else ""),
        "figures  over finite values; histogram: 16 equal parts from min to max",
        "dead     filters whose largest weight is below 1e-8 of the blob's largest",
    ]
    bad = [f"{row.layer}[{row.index}]: {row.nans} NaN, {row.infinite} infinite" for row in found if row.nans or row.infinite]
    lines += [f"warning  {text}" for text in bad]
    if matching is not None:
        lines.append(f"model    takes {len(matching.copied)} layers, ignores {', '.join(matching.ignored) or 'none'}")
        lines += [f"model    gets nothing for '{name}'" for name in matching.missing]
        lines += [f"model    {finding}" for finding in matching.mismatches]
    return lines


def _draw(chosen: list[Any], path: str) -> None:
    from inspector.sources.picture import pillow
    from inspector.weight_stats import filter_grid

    blob = next((blob for layer in chosen for blob in layer.blobs if len(blob.shape) == 4 and not blob.legacy), None) or next(
        (blob for layer in chosen for blob in layer.blobs if len(blob.shape) == 4 and blob.shape[0] > 1), None
    )
    if blob is None:
        raise InspectorError("no chosen blob has filters (4 axes)", code="no-filters", remedy="choose a convolution with --layer")
    image = pillow()
    grid = filter_grid(blob.read())
    scale = max(1, 400 // max(grid.shape[:2]))  # small filters are drawn large enough to see
    picture = image.fromarray(grid.repeat(scale, 0).repeat(scale, 1))
    with replacing(path) as file:
        picture.save(file, format=image.registered_extensions().get(Path(path).suffix.lower(), "PNG"))
    show.remark(f"{blob.name} drawn to {path}, {picture.width} x {picture.height}")


def _export(chosen: list[Any], folder: Path) -> None:
    import numpy as np

    made(folder)
    names: set[str] = set()
    for layer in chosen:
        if not layer.blobs:
            continue
        name = file_name(layer.name)
        while name in names:  # two layers of one name, or names that differ in odd characters only
            name += "_"
        names.add(name)
        with replacing(folder / f"{name}.npz") as file:
            np.savez(file, **{str(blob.index): blob.read() for blob in layer.blobs})
    show.remark(f"{len(names)} layer(s) written to {folder}")
