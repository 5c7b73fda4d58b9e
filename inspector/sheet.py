"""A report that is one table with sentences below it: what `table`, `csv` and `markdown` print, beside the data for `json`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from .tables import Column, Paint, clean, listing, number, plain, table


@dataclass(frozen=True, slots=True)
class Sheet:
    """`names` are the columns' stable names, `columns` their heads. Cells are text, numbers, or None for unknown."""

    names: Sequence[str]
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    totals: Sequence[Any] | None = None
    notes: Sequence[tuple[str, str]] = field(default_factory=tuple)  # labelled sentences

    def text(self, *, width: int | None = None, paint: Paint = plain, rule: str = "-") -> Iterator[str]:
        """The table, then the notes."""
        if self.rows:
            totals = [[words(cell) for cell in self.totals]] if self.totals is not None else ()
            rows = [[words(cell) for cell in row] for row in self.rows]
            yield from table(self.columns, rows, totals=totals, width=width, paint=paint, rule=rule)
            yield ""
        yield from listing(self.notes, width=width, paint=paint)

    @property
    def lines(self) -> list[Sequence[Any]]:
        """Rows, and the totals as the last one."""
        return [*self.rows, *([self.totals] if self.totals is not None else [])]


def words(cell: Any) -> str:
    """A cell for people."""
    return clean(cell) if isinstance(cell, str) else number(cell)


def bar(share: float, width: int = 10) -> str:
    """A share of the whole as a bar of up to `width` marks."""
    return "#" * round(share * width)
