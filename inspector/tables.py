"""Text in columns: aligned, wrapped where a width is given and never cut, painted by whoever can paint.

Plain data in, lines out, no terminal in sight: a `Paint` turns a piece of text and the name of a style into what is printed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

Paint = Callable[[str, str], str]  # text, style name -> text

GAP = 2  # spaces between columns
LEAST = 6  # a column of text is never made narrower
_PIECE = re.compile(r"[^ /_,.:-]*[ /_,.:-]?")  # text breaks after these


def plain(text: str, style: str) -> str:
    """The Paint that paints nothing."""
    return text


@dataclass(frozen=True, slots=True)
class Column:
    """A column's head; `right` is for numbers, which are never wrapped. `style` names the style of its cells."""

    title: str
    right: bool = False
    style: str = ""


def number(value: float | None) -> str:
    """A count for people: thousands apart, `?` for unknown."""
    if value is None:
        return "?"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def size(count: float) -> str:
    """Bytes in the unit that leaves at most four digits before the point."""
    units = iter(("bytes", "KiB", "MiB", "GiB", "TiB"))
    unit = next(units)
    while count >= 1024 and unit != "TiB":
        count, unit = count / 1024, next(units)
    return f"{count} bytes" if unit == "bytes" else f"{count:.1f} {unit}"


def width_of(text: str) -> int:
    """Columns that a text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def clean(text: str) -> str:
    """A name from a file as one printable line: what would steer a terminal is escaped."""
    return text if text.isprintable() else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def fold(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns that together are the text; broken after a space or separator, inside a word if need be."""
    if width_of(text) <= width:
        return [text]
    lines, line, used = [], "", 0
    for piece in _PIECE.findall(text):
        room = width_of(piece.rstrip(" "))
        if line and used + room > width:
            lines.append(line.rstrip(" "))
            line, used = "", 0
        while width_of(piece) > width and not piece.endswith(" "):
            cut = next(i for i in range(len(piece), 0, -1) if i == 1 or width_of(piece[:i]) <= width)
            lines.append(piece[:cut])
            piece = piece[cut:]
        line += piece
        used += width_of(piece)
    return [*lines, line.rstrip(" ")] if line.strip() else lines


def pad(text: str, width: int, right: bool, shown: str) -> str:
    """`shown`, which is `text` painted, filled up to `width` columns."""
    space = " " * (width - width_of(text))
    return space + shown if right else shown + space


def widths_of(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> list[int]:
    """What each column needs to show its cells and its title unwrapped."""
    measure = len if all("".join(row).isascii() for row in rows) else width_of
    return [max(map(measure, cells)) for cells in zip([column.title for column in columns], *rows, strict=True)]


def table(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    *,
    totals: Sequence[Sequence[str]] = (),
    width: int | None = None,
    paint: Paint = plain,
    rule: str = "-",
) -> Iterator[str]:
    """The lines of a table; `totals` are rows behind a second rule. With a `width`, columns of text wrap to keep within it."""
    widths = widths_of(columns, [*rows, *totals])
    if width is not None:
        widths = _shrink(widths, columns, width - GAP * (len(columns) - 1))
    ruler = paint((" " * GAP).join(rule * w for w in widths), "rule")
    yield from _lines([column.title for column in columns], columns, widths, paint, "head")
    yield ruler
    for row in rows:
        yield from _lines(row, columns, widths, paint, "")
    if totals:
        yield ruler
    for row in totals:
        yield from _lines(row, columns, widths, paint, "total")


def _lines(row: Sequence[str], columns: Sequence[Column], widths: Sequence[int], paint: Paint, style: str) -> Iterator[str]:
    folded = [[cell] if column.right else fold(cell, w) for cell, column, w in zip(row, columns, widths, strict=True)]
    for i in range(max(map(len, folded))):
        cells = []
        for lines, column, w in zip(folded, columns, widths, strict=True):
            cell = lines[i] if i < len(lines) else ""
            cells.append(pad(cell, w, column.right, paint(cell, style or style_of(cell, column))))
        yield (" " * GAP).join(cells).rstrip(" ")


def style_of(cell: str, column: Column) -> str:
    """Numbers that say nothing step back, unknown ones step forward."""
    return "dim" if column.right and cell == "0" else "unknown" if cell == "?" else column.style


def _shrink(widths: Sequence[int], columns: Sequence[Column], room: int) -> list[int]:
    """Widths that fit into `room` if they can: the widest column of text gives way first."""
    widths = list(widths)
    flexible = [i for i, column in enumerate(columns) if not column.right and widths[i] > LEAST]
    while sum(widths) > room and flexible:
        widest = max(flexible, key=widths.__getitem__)
        widths[widest] -= 1
        if widths[widest] <= LEAST:
            flexible.remove(widest)
    return widths


def listing(
    pairs: Iterable[tuple[str, str]], *, width: int | None = None, paint: Paint = plain, style: str = "label"
) -> Iterator[str]:
    """Labels on the left, text on the right, wrapped with a hanging indent."""
    pairs = list(pairs)
    indent = max((width_of(label) for label, _ in pairs), default=0) + GAP
    for label, text in pairs:
        for i, line in enumerate([text] if width is None else fold(text, max(width - indent, 2 * LEAST))):
            yield (paint(label, style) + " " * (indent - width_of(label)) if i == 0 else " " * indent) + line
