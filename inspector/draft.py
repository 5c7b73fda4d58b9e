"""A net on its way from text to graph: the message, and where each of its layers was written.

The passes (`upgrade`, `phases`, `splits`) take a Draft and return another; they never touch the one they were given. What Caffe
would have said on the way is kept as events, in order; the first thing that it would have stopped at is `error`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from .errors import Position, Refusal

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that Caffe says before it builds the first layer: a kind, and the numbers that its sentence needs."""

    kind: str
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Draft:
    """`origins[i]` is the path of `proto.layer[i]` in the document that was read, None for a layer that a pass made."""

    proto: Any  # NetParameter
    origins: tuple[Path | None, ...] = ()
    events: tuple[Event, ...] = ()
    error: Refusal | None = None
    locate: Callable[[Path], Position | None] = lambda path: None

    def then(self, proto: Any, origins: tuple[Path | None, ...], events: list[Event], error: Refusal | None = None) -> Draft:
        """The draft after one more pass; an earlier error stays the first."""
        return replace(self, proto=proto, origins=origins, events=self.events + tuple(events), error=self.error or error)
