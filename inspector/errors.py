"""What can be wrong, as data: positions, findings, and the one family of exceptions.

Everything raised for bad input derives from `InspectorError`; anything else that escapes is a bug. A message says who, which
relation fails, both values and the remedy, in lower case and without a period::

    models/x/deploy.prototxt:41:3: layer 'conv2' (Convolution): 8 input channels cannot be split into 3 groups

Every kind of trouble has a stable `code` in kebab-case. The same code is what `explain` describes, what `check --select` names,
and what a dialect's table uses to find the words in which a Caffe version said it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

SUGGESTIONS = 100  # findings of a net for which "did you mean" is worked out
_LONGEST, _MOST = 100, 1000  # characters of a name, and names, among which is looked


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a text file; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(slots=True)
class Finding:
    """One thing worth saying about a net: an error Caffe would stop at, a warning, or an assumption that we made."""

    code: str
    message: str
    severity: str = "error"  # "error" | "warning" | "note"
    where: Position | None = None
    layer: str | None = None  # the layer's name
    layer_type: str | None = None
    remedy: str = ""
    values: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        who = f"layer '{self.layer}'" if self.layer is not None else ""
        if who and self.layer_type:
            who += f" ({self.layer_type})"
        parts = [str(self.where) if self.where else "", who, self.message]
        text = ": ".join(part for part in parts if part)
        return f"{text}; {self.remedy}" if self.remedy else text


def closest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The known name that is most like `name`, "" if none is; the time is bounded, whatever the names."""
    from difflib import get_close_matches

    if len(name) > _LONGEST:
        return ""
    close = get_close_matches(name, [other for other in islice(known, _MOST) if len(other) <= _LONGEST], 1, cutoff)
    return close[0] if close else ""


class InspectorError(Exception):
    """Base of everything raised for bad input. `finding` holds the same facts as data."""

    def __init__(
        self,
        message: str,
        *,
        code: str = "invalid-input",
        where: Position | None = None,
        layer: str | None = None,
        layer_type: str | None = None,
        remedy: str = "",
        **values: Any,
    ) -> None:
        super().__init__(message)
        self.finding = Finding(code, message, "error", where, layer, layer_type, remedy, values)

    @property
    def code(self) -> str:
        return self.finding.code

    @property
    def values(self) -> dict[str, Any]:
        return self.finding.values

    def __str__(self) -> str:
        return str(self.finding)


class UnreadableError(InspectorError):
    """A file that cannot be read as what it should be: missing, truncated, foreign, corrupt."""


class PrototxtError(UnreadableError):
    """Text that is not protobuf text format; the message's last lines are the source line and a caret."""


class Refusal(InspectorError):
    """What Caffe would stop at while it builds the net: one failed CHECK, with the numbers in it as `values`."""


class MissingExtra(InspectorError):
    """An optional library is not installed; the message names the extra that brings it."""
