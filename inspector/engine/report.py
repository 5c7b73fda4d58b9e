"""A plan as plain data: every step with what it stands for, its kernel, and the memory of what it makes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from ..graph import Blob
from ..layers import Shape, count
from . import Layout
from .lower import kernel
from .storage import Value, offsets


@dataclass(frozen=True, slots=True)
class Line:
    """One output of one step. `blob` and what follows is None for a step that makes nothing.

    `at`: where its memory begins, in bytes; None for an array that a layer makes anew for each run. `bytes` counts the border, and
    nothing for a slice of another blob, whose name is `within`. Steps are counted from 0; `until` is the last one that reads it.
    """

    step: int
    layer: str
    type: str
    kernel: str
    fuses: list[str]
    converts: list[str]
    blob: str | None = None
    shape: Shape | None = None
    layout: str = ""
    within: str | None = None
    at: int | None = None
    bytes: int = 0
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """The lines; bytes of all values if each had its own memory, and of the memory that they share."""

    lines: list[Line]
    layers: int
    values: int
    memory: int
    parts: int


def report(arranged: Layout) -> Report:
    """What `alexinspect plan` shows; nothing is computed."""
    plan = arranged.plan
    places, memory = _places(arranged)
    lines = []
    for number, step in enumerate(plan.steps):
        converts = list(_converted(arranged, step.reads)) if step.kind == "layer" else []
        fuses = [node.name for node in step.nodes[1:]]
        line = Line(number, step.node.name, step.node.type, kernel(plan, arranged.values, step), fuses, converts)
        if not step.outputs:
            lines.append(line)
        for blob in step.outputs:
            root = plan.root(blob)
            value = arranged.values.get(root)
            inside = None if root is blob else root.name
            size = value.bytes if value is not None and inside is None else 0
            until = value.last if value is not None and value.last < len(plan.steps) else None
            made = replace(line, blob=blob.name, shape=blob.shape, layout=_layout(value), within=inside)
            lines.append(replace(made, at=places.get(root), bytes=size, until=until))
    layers = sum(node.type != "Input" for node in plan.graph.nodes)
    return Report(lines, layers, arranged.bytes, memory, -(-arranged.batch // arranged.images))


def _layout(value: Value | None) -> str:
    """Layout and border in a word or two: `pixels +1`, `planes +3`, `plain`; `passed on` for what has no place of its own."""
    if value is None:
        return "passed on"
    sides = sorted(set(value.border))
    return value.layout if sides == [0] else f"{value.layout} +{sides[-1]}"


def _converted(arranged: Layout, blobs: list[Blob]) -> Iterator[str]:
    """What a layer's own forward reads as planes although it is stored by pixels."""
    for blob in blobs:
        value = arranged.values.get(arranged.plan.root(blob))
        if value is not None and value.layout == "pixels" and count(value.shape[2:]) > 1:
            yield blob.name


def _places(arranged: Layout) -> tuple[Mapping[Blob, int], int]:
    """Where each value begins, in bytes: shared ones first, then those of one worker's part of the batch; and the end."""
    result: dict[Blob, int] = {}
    end = 0
    for private in (False, True):
        values = [value for blob, value in arranged.values.items() if (blob in arranged.private) is private]
        images = arranged.images if private else None
        shapes = [value.stored if images is None else (images, *value.stored[1:]) for value in values]
        places, total = offsets([(count(s), *v.lives) for s, v in zip(shapes, values, strict=True)], arranged.plan.reuse)
        result |= {value.blob: end + 4 * place for value, place in zip(values, places, strict=True)}
        end += 4 * total
    return result, end
