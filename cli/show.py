"""What reaches the terminal: colours, widths, and plain data as table, JSON, CSV or markdown."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

import click

from inspector.errors import Finding, InspectorError
from inspector.tables import Column, Paint, clean, fold, number, plain, table

if TYPE_CHECKING:
    from inspector import Net
    from inspector.sheet import Sheet

STYLES = {  # style name -> the parameters of the terminal's SGR sequence
    "head": "1",
    "label": "1",
    "name": "1",
    "total": "1",
    "type": "36",
    "shape": "32",
    "dim": "2",
    "rule": "2",
    "unknown": "33",
    "note": "36",
    "warning": "33",
    "error": "1;31",
    "good": "32",
}


def colours(*, err: bool = False) -> bool:
    """Whether to paint: as --color says, else on a terminal unless NO_COLOR is set (no-color.org) or the terminal is dumb."""
    context = click.get_current_context(silent=True)
    said = context.find_root().color if context else None
    if said is not None:
        return said
    return (sys.stderr if err else sys.stdout).isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def sgr(text: str, style: str) -> str:
    """The Paint of a terminal."""
    code = STYLES.get(style)
    return f"\x1b[{code}m{text}\x1b[0m" if code and text.strip(" ") else text


def width() -> int | None:
    """The terminal's columns (COLUMNS wins, as everywhere); None for a file or pipe, whose lines may be of any length."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdecimal():
        return terminal()
    return None


def terminal() -> int:
    """The terminal's columns, 80 where nobody knows; never so few that nothing can be laid out."""
    from shutil import get_terminal_size

    return max(get_terminal_size().columns, 40)


def layout() -> dict[str, Any]:
    """The keyword arguments with which inspector.tables writes for this output."""
    rule = "─" if sys.stdout.isatty() and (sys.stdout.encoding or "").lower().startswith("utf") else "-"
    paint: Paint = sgr if colours() else plain
    return {"width": width(), "paint": paint, "rule": rule}


def lines(text: Iterable[str]) -> None:
    """Print lines, all at once."""
    click.echo("\n".join(text), color=colours())


def error(trouble: InspectorError) -> None:
    """One message on stderr."""
    say(trouble.finding, "error")


def say(finding: Finding, severity: str) -> None:
    """A finding on stderr."""
    painted = sgr(f"{severity}:", severity) if colours(err=True) else f"{severity}:"
    first, *rest = (clean(line) for line in str(finding).split("\n"))  # the rest may be a source line with its caret
    if sys.stderr.isatty():
        first = "\n  ".join(fold(first, terminal() - len(f"alexinspect: {severity}: ")))
    click.echo("\n".join([f"alexinspect: {painted} {first}", *rest]), err=True, color=colours(err=True))


def remark(text: str) -> None:
    """Something that went well, on stderr."""
    click.echo(f"alexinspect: {text}", err=True)


# ---- plain data


def json(data: Any) -> None:
    """Data as JSON, indented; shapes and other lists of numbers on one line. What is not finite, which JSON lacks, is null."""
    click.echo(_json(data, "\n"))


def _json(data: Any, line: str) -> str:
    """JSON text; `line` begins a new line at the present indentation."""
    from json import dumps

    if isinstance(data, float) and not isfinite(data):
        return "null"
    deeper = line + "  "
    if isinstance(data, dict) and data:
        items = (f"{deeper}{dumps(str(key), ensure_ascii=False)}: {_json(value, deeper)}" for key, value in data.items())
        return f"{{{','.join(items)}{line}}}"
    if isinstance(data, (list, tuple)) and data:
        cells = [_json(value, deeper) for value in data]
        if all(value is None or isinstance(value, (int, float)) for value in data):
            return f"[{', '.join(cells)}]"
        return f"[{','.join(deeper + cell for cell in cells)}{line}]"
    return dumps(data, ensure_ascii=False)


def csv(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Rows as CSV: plain numbers, nothing for unknown."""
    from csv import writer

    out = sys.stdout
    sheet = writer(out, lineterminator="\n")
    sheet.writerow(names)
    sheet.writerows(rows)
    out.flush()


def markdown(columns: Sequence[Column], rows: Iterable[Sequence[Any]]) -> None:
    """Rows as a markdown table."""

    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cells)} |"

    text = [line(column.title for column in columns), line("---:" if column.right else "---" for column in columns)]
    text += [line(_escaped(words(cell)) for cell in row) for row in rows]
    lines(text)


def _escaped(text: str) -> str:
    """Text in which markdown sees no marks of its own."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*")


def sections(form: str, heading: str, parts: Iterable[tuple[str, Iterable[str]]]) -> None:
    """Lines under titles, as CSV with a row for each line or as markdown with a list for each title."""
    if form == "csv":
        csv(("section", "line"), [(title, line) for title, below in parts for line in below])
    else:
        text = [f"## {_escaped(heading)}"]
        for title, below in parts:
            text += ["", f"### {title}", "", *(f"- {_escaped(line).replace('#', '&#35;')}" for line in below)]
        lines(text)


def rows(form: str, names: Sequence[str], columns: Sequence[Column], cells: Sequence[Sequence[Any]]) -> None:
    """Cells in one of the forms; as JSON a list of objects by `names`."""
    if form == "json":
        json([dict(zip(names, row, strict=True)) for row in cells])
    elif form == "csv":
        csv(names, cells)
    elif form == "markdown":
        markdown(columns, cells)
    else:
        lines(table(columns, [[words(cell) for cell in row] for row in cells], **layout()))


def sheet(form: str, data: Any, sheet: Sheet) -> None:
    """A report in one of the forms: `data` as JSON, the sheet's table with its totals, and its sentences where people read them."""
    if form == "json":
        json(data)
    elif form == "csv":
        csv(sheet.names, sheet.lines)
    elif form == "markdown":
        if sheet.rows:
            markdown(sheet.columns, sheet.lines)
            lines([""])
        lines(f"- {label.removesuffix(':')}: {text}" for label, text in sheet.notes)
    else:
        lines(sheet.text(**layout()))


def broken(net: Net) -> int:
    """The exit status after a report on a net: 1, and the reason on stderr, where Caffe would refuse it and the report ends."""
    if net.error is None:
        return 0
    error(net.error)
    return 1


def words(cell: Any) -> str:
    """A cell for people."""
    if isinstance(cell, (list, tuple)):
        return ", ".join(map(str, cell))
    return cell if isinstance(cell, str) else number(cell)
