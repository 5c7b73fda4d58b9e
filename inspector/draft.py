"""A net on its way from text to graph: the message, and where each of its layers was written.

The passes (`upgrade`, `phases`, `splits`) take a Draft and return another; they never touch the one they were given. What Caffe
would have said on the way is kept as events, in order, and so is what it would have stopped at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .errors import Position, Refusal

Path = tuple[str | int, ...]

REFUSED = "refused"  # kind of the event at which Caffe stops; its value is the Refusal
FILTERED = "filtered"  # kind of the event at which the filtered net is final, and is printed


@dataclass(frozen=True, slots=True)
class Event:
    """Something that Caffe says before it builds the first layer: a kind, and the numbers that its sentence needs."""

    kind: str
    values: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def refused(cls, refusal: Refusal) -> Event:
        return cls(REFUSED, {"refusal": refusal})


@dataclass(frozen=True, slots=True)
class Draft:
    """`origins[i]` is the path of `proto.layer[i]` in the document that was read, None for a layer that a pass made.

    Where an edition builds from an older generation of messages, `written` is the net in these, layer for layer as `proto`: passes
    work on today's generation, and the log prints what the version had.
    """

    proto: Any  # NetParameter
    origins: tuple[Path | None, ...] = ()
    events: tuple[Event, ...] = ()
    locate: Callable[[Path], Position | None] = lambda path: None
    written: Any = None  # NetParameter of V1 layers
    left_out: Mapping[str, str] = field(default_factory=dict)  # blob -> the layer that would make it in another phase

    def then(self, proto: Any, origins: tuple[Path | None, ...], events: list[Event]) -> Draft:
        """The draft after one more pass."""
        return replace(self, proto=proto, origins=origins, events=self.events + tuple(events))

    @property
    def refusals(self) -> list[Refusal]:
        """What Caffe would have stopped at so far, in its order."""
        return [event.values["refusal"] for event in self.events if event.kind == REFUSED]
