"""A summary as text: which columns there are, the totals in words, and the two shapes that the table takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from .errors import Finding, InspectorError
from .tables import GAP, Column, Paint, clean, fold, listing, number, pad, plain, size, style_of, table, width_of, widths_of

if TYPE_CHECKING:
    from .layers import Shape
    from .summary import Row, Summary, Totals


def shape_cell(shape: Shape | None) -> str:
    """`10x96x55x55`, `scalar`, or `?` for unknown."""
    return "?" if shape is None else "x".join(map(str, shape)) or "scalar"


def shapes_cell(shapes: Iterable[Shape | None]) -> str:
    """Shapes with commas between them; `3 of 1x64x7x5` for neighbours that are alike."""
    runs = [(shape_cell(shape), len(list(run))) for shape, run in groupby(shapes)]
    return ", ".join(shape if n == 1 else f"{n} of {shape}" for shape, n in runs)


@dataclass(frozen=True, slots=True)
class Field:
    """One column: its head, the value of a row (a number, or text), and where its total comes from."""

    column: Column
    value: Callable[[Summary, Row], Any]
    total: Callable[[Totals], int] | None = None


def _names(names: Sequence[str]) -> str:
    return ", ".join(map(clean, names))


def _tops(row: Row) -> str:
    return ", ".join(clean(top.name) + "*" * top.in_place for top in row.tops)


def _number(name: str, title: str = "") -> Field:
    return Field(Column(title or name, right=True), lambda summary, row: getattr(row, name), lambda totals: getattr(totals, name))


def _text(title: str, value: Callable[[Summary, Row], Any], style: str = "") -> Field:
    return Field(Column(title, style=style), value)


FIELDS: dict[str, Field] = {
    "index": Field(Column("index", right=True), lambda summary, row: "" if row.index is None else row.index),
    "name": _text("layer", lambda summary, row: clean(row.name), "name"),
    "type": _text("type", lambda summary, row: clean(row.type), "type"),
    "settings": _text("settings", lambda summary, row: clean(row.settings)),
    "bottoms": _text("from", lambda summary, row: _names(row.reads)),
    "tops": _text("to", lambda summary, row: _tops(row)),
    "shape": _text("shape", lambda summary, row: shapes_cell(top.shape for top in row.tops), "shape"),
    "parameters": _number("parameters"),
    "learnable": _number("learnable"),
    "frozen": _number("frozen"),
    "shared": _number("shared"),
    "macs": _number("macs", "MACs"),
    "biases": _number("biases"),
    "memory": Field(
        Column("bytes", right=True), lambda summary, row: None if row.unknown_memory else row.memory, lambda totals: totals.memory
    ),
    "depth": Field(Column("depth", right=True), lambda summary, row: row.depth, lambda totals: totals.depth),
    "backward": _text("backward", lambda summary, row: "yes" if row.backward else "no"),
    "params": _text("params", lambda summary, row: ", ".join(f"{clean(p.name)} {shape_cell(p.shape)}" for p in row.weights)),
    "where": _text("where", lambda summary, row: str(summary.where(row) or "")),
}
USUAL = ("name", "type", "settings", "bottoms", "tops", "shape", "parameters", "macs", "memory")
NUMBERS = ("parameters", "macs", "memory")
LEAST_NAMES = 14  # columns that names should have beside the numbers


def chosen(names: Sequence[str], among: Mapping[str, Any] = FIELDS) -> tuple[str, ...]:
    """Names of columns, checked; `all` is all of them. Raises InspectorError (`unknown-column`)."""
    if [*names] == ["all"]:
        return tuple(among)
    for name in names:
        if name not in among:
            raise InspectorError(f"there is no column '{name}'", code="unknown-column", remedy=f"choose from {', '.join(among)}")
    return tuple(names)


def cells(summary: Summary, lines: Sequence[Row], names: Sequence[str]) -> list[list[Any]]:
    """Values by row and column: int, float, str, or None for unknown."""
    values = [FIELDS[name].value for name in names]
    return [[value(summary, row) for value in values] for row in lines]


def total_cells(summary: Summary, names: Sequence[str]) -> list[Any]:
    """The totals under those columns; the first column without one is the label."""
    found: list[Any] = [total(summary.totals) if (total := FIELDS[name].total) else "" for name in names]
    if "" in found:
        found[found.index("")] = "total"
    return found


def words(value: Any) -> str:
    """A cell as people read it."""
    return value if isinstance(value, str) else number(value)


def text(
    summary: Summary,
    columns: Sequence[str] = (),
    *,
    group: bool = False,
    splits: bool = False,
    more: Sequence[tuple[str, str]] = (),
    width: int | None = None,
    paint: Paint = plain,
    rule: str = "-",
) -> Iterator[str]:
    """The report: table, totals with `more` labelled text below them, warnings.

    Without `columns` the usual ones, in two lines per layer where `width` is too small for one.
    """
    lines = summary.lines(group=group, splits=splits)
    names = tuple(columns) or USUAL
    heads = [FIELDS[name].column for name in names]
    rows = [[words(value) for value in row] for row in cells(summary, lines, names)]
    total = [words(value) for value in total_cells(summary, names)]
    needed = (
        sum(max(map(width_of, column)) + GAP for column in zip([head.title for head in heads], total, *rows, strict=True)) - GAP
    )
    if columns or width is None or needed <= width:
        yield from table(heads, rows, totals=[total], width=width, paint=paint, rule=rule)
    else:
        yield from _two_lines(rows, total, width, paint, rule)
    if any(top.in_place for row in lines for top in row.tops) and "tops" in names:
        yield paint("* in place", "dim")
    yield ""
    yield from listing([*totals_words(summary), *more], width=width, paint=paint)
    notes = [finding for finding in summary.findings if finding.severity != "error"]
    if notes:
        yield ""
    for finding in notes:
        yield from said(finding, width, paint)


def said(finding: Finding, width: int | None = None, paint: Paint = plain) -> Iterator[str]:
    """A finding with its severity, wrapped with a hanging indent."""
    lines = [(clean(line), finding.severity) for line in str(finding).split("\n")]
    for i, (line, severity) in enumerate(lines):
        yield from listing(
            [(f"{severity}:" if i == 0 else " " * (len(severity) + 1), line)], width=width, paint=paint, style=severity
        )


def _two_lines(rows: Sequence[Sequence[str]], total: Sequence[str], width: int, paint: Paint, rule: str) -> Iterator[str]:
    """Name, type and settings with the numbers at the right; indented below them what is read and made, and its shape."""
    heads = [FIELDS[name].column for name in NUMBERS]
    widths = widths_of(heads, [row[-len(NUMBERS) :] for row in [*rows, total]])
    room = width - sum(widths) - GAP * len(widths)
    beside = room >= max([LEAST_NAMES, *(width_of(row[0]) for row in rows)])  # else the numbers stand below
    indent = " " * GAP

    def first(parts: Sequence[tuple[str, str]], figures: Sequence[str], style: str = "") -> Iterator[str]:
        left, *more = _flow(parts, room if beside else width, paint)
        shown = [pad(n, w, True, paint(n, style or style_of(n, head))) for n, w, head in zip(figures, widths, heads, strict=True)]
        yield indent.join([pad(left[0], room, False, left[1]), *shown]) if beside else left[1]
        for _, painted in more:
            yield painted
        if not beside:
            yield " " * room + indent + indent.join(shown)

    def second(bottoms: str, tops: str, shape: str, style: str = "") -> Iterator[str]:
        *more, (text, painted) = _flow([(part, style) for part in (bottoms, "->" * bool(bottoms), tops)], width - GAP, paint)
        for _, line in more:
            yield indent + line
        space = width - GAP - width_of(text) - width_of(shape)
        if space < GAP:  # the shapes take lines of their own
            yield indent + painted
            *more, (text, painted) = _flow([(shape, style or "shape")], width - GAP, paint)
            for _, line in more:
                yield indent + line
            yield indent + (painted if more else " " * (width - GAP - width_of(text)) + painted)
        else:
            yield indent + painted + " " * space + paint(shape, style or "shape")

    ruler = paint(rule * width, "rule")
    yield from first([(FIELDS["name"].column.title, "head")], [head.title for head in heads], "head")
    yield from second("from", "to", "shape", "head")
    yield ruler
    for name, kind, settings, bottoms, tops, shape, *figures in rows:
        yield from first([(name, "name"), (kind, "type"), (settings, "")], figures)
        if tops or bottoms:
            yield from second(bottoms, tops, shape)
    yield ruler
    yield from first([("total", "total")], total[-len(NUMBERS) :], "total")


def _flow(parts: Iterable[tuple[str, str]], width: int, paint: Paint) -> list[tuple[str, str]]:
    """Words one behind the other, as lines of (text, painted text); lines after the first are indented."""
    lines: list[tuple[str, str]] = []
    for part, style in parts:
        for word in part.split(" ") if part else ():
            text, painted = lines[-1] if lines else ("", "")
            if lines and width_of(text) + 1 + width_of(word) <= width:
                lines[-1] = (f"{text} {word}", f"{painted} {paint(word, style)}")
                continue
            for piece in fold(word, width - GAP if lines else width):
                space = " " * GAP if lines else ""
                lines.append((space + piece, space + paint(piece, style)))
    return lines or [("", "")]


def totals_words(summary: Summary) -> list[tuple[str, str]]:
    """The totals as labelled sentences."""
    totals = summary.totals
    per = totals.per_image
    splits = f", {totals.splits} of them splits" if totals.splits else ""
    layers = f"{number(totals.layers)} as written, {number(totals.layers_size)} as Caffe counts (layers_.size()){splits}"
    parameters = f"{number(totals.parameters)} ({number(totals.learnable)} learnable, {number(totals.frozen)} frozen)"
    parameters += f", {size(totals.weights_bytes)} as float32"
    if totals.shared:
        parameters += f"; {number(totals.shared)} more are shared, and counted where they belong"
    macs = f"{number(totals.macs)} multiply-accumulates, {number(totals.macs_with_biases)} with biases"
    data = f"{number(totals.memory)} bytes for data as Caffe counts"
    if totals.memory_without_inputs != totals.memory:
        data += f", {number(totals.memory_without_inputs)} without the inputs"
    lines = [
        ("net", f"{clean(summary.name) or '(no name)'}, {summary.phase}"),
        ("layers", layers),
        ("depth", f"{totals.depth} weighted layers on the longest way"),
        ("parameters", parameters),
        ("MACs", macs + (f" (batch of {totals.batch})" if totals.batch not in (None, 1) else "")),
        ("memory", data),
    ]
    if totals.batch not in (None, 0, 1):
        macs, biased, data = (number(per(total)) for total in (totals.macs, totals.macs_with_biases, totals.memory))
        lines.append(("per image", f"{macs} MACs, {biased} with biases; {data} bytes"))
    if summary.inputs:
        lines.append(("inputs", _names(summary.inputs)))
    if summary.outputs:
        lines.append(("outputs", _names(summary.outputs)))
    reasons: dict[str, list[str]] = {}
    for row, reason in summary.uncounted:
        reasons.setdefault(reason, []).append(
            f"{clean(row.name)} ({clean(row.type)})" if reason == "unknown type" else clean(row.name)
        )
    lines += [("not counted", f"{', '.join(found)}: {reason}") for reason, found in reasons.items()]
    return lines


# ---- several nets, one line each


@dataclass(frozen=True, slots=True)
class Entry:
    """One net in a comparison: how it was named, its totals, and the bytes of its weights' file, if there is one."""

    model: str
    summary: Summary
    stored: int | None = None


@dataclass(frozen=True, slots=True)
class Measure:
    """One column of a comparison."""

    column: Column
    value: Callable[[Entry], Any]


def _measure(title: str, value: Callable[[Totals], Any]) -> Measure:
    return Measure(Column(title, right=True), lambda entry: value(entry.summary.totals))


MEASURES: dict[str, Measure] = {
    "model": Measure(Column("model", style="name"), lambda entry: clean(entry.model)),
    "layers": _measure("layers", lambda totals: totals.layers),
    "layers_size": _measure("layers_.size()", lambda totals: totals.layers_size),
    "depth": _measure("depth", lambda totals: totals.depth),
    "parameters": _measure("parameters", lambda totals: totals.parameters),
    "macs_per_image": _measure("MACs/image", lambda totals: totals.per_image(totals.macs)),
    "memory": _measure("memory", lambda totals: totals.memory),
    "memory_per_image": _measure("memory/image", lambda totals: totals.per_image(totals.memory)),
    "batch": _measure("batch", lambda totals: totals.batch),
    "weights": Measure(Column("weights", right=True), lambda entry: entry.stored or entry.summary.totals.weights_bytes),
}
COMPARED = ("model", "layers", "layers_size", "depth", "parameters", "macs_per_image", "memory", "weights")


def compared(entries: Sequence[Entry], sort: str | None = None) -> list[Entry]:
    """Entries in the order of a measure, the largest first (names from a to z); a `-` before it turns that round."""
    if sort is None:
        return list(entries)
    name = sort.removeprefix("-")
    [name] = chosen([name], MEASURES)
    value = MEASURES[name].value
    if name == "model":
        return sorted(entries, key=value, reverse=sort.startswith("-"))
    return sorted(entries, key=lambda entry: value(entry) or 0, reverse=not sort.startswith("-"))
