"""Where every value of a plan lies: layout, border, and for how long it needs its bytes.

A blob of four axes that a tuned step touches is stored pixel by pixel (n, H, W, C), with the border built in that its readers pad
with; an image of few channels that only convolutions read stays in planes (n, C, H, W), with a border too; everything else lies as
the API shows it. A value that only layers' own forwards touch has no place here: it is passed on as the array that the layer made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from ..graph import Blob
from ..kernels.fast.base import Call, empty
from ..kernels.fast.winograd import TILE
from ..layers import Shape, count
from ..layers.conv import Filtering
from ..plan import Plan, Step
from ..window import Window

FEW_CHANNELS = 4
LINE = 16  # floats between which arrays begin: 64 bytes


class Border(NamedTuple):
    """Zeros around every image, in pixels."""

    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0


@dataclass(frozen=True, slots=True)
class Value:
    """One piece of memory: of this root, in this layout (`pixels`, `planes`, `plain`), made in step `first`, read up to `last`.

    `lives`: the steps during which nobody else may have the bytes.
    """

    blob: Blob
    shape: Shape
    layout: str
    border: Border
    first: int
    last: int
    lives: tuple[int, int]

    @property
    def stored(self) -> Shape:
        """The shape of the memory, border included, for all images."""
        if self.layout == "plain":
            return self.shape
        n, c, h, w = self.shape
        h, w = h + self.border.top + self.border.bottom, w + self.border.left + self.border.right
        return (n, h, w, c) if self.layout == "pixels" else (n, c, h, w)

    @property
    def bytes(self) -> int:
        return 4 * count(self.stored)


def filter_window(step: Step) -> Window:
    """The window of a convolution, transposed or not, or of a pooling."""
    return window_of(step.node.layer, step.inputs[0].shape or ())


def window_of(layer: object, shape: Shape) -> Window:
    found = layer.window(shape)  # type: ignore[attr-defined]
    return found[1] if isinstance(found, tuple) else found


def values(plan: Plan) -> dict[Blob, Value]:
    """The values that have a place, by root. What is missing is passed on by layers."""
    lives = _lives(plan)
    pixels, planes, placed = _layouts(plan)
    borders = _borders(plan)
    result = {}
    for blob, (first, last) in lives.items():
        if blob not in placed or blob.shape is None:
            continue
        layout = "plain" if len(blob.shape) != 4 or blob not in pixels else "planes" if blob in planes else "pixels"
        border = borders.get(blob, Border()) if layout != "plain" else Border()
        result[blob] = Value(blob, blob.shape, layout, border, first, last, (first, last))
    return result


def _lives(plan: Plan) -> dict[Blob, tuple[int, int]]:
    """First and last step of every root; -1 before, and the number of steps after the run."""
    lives: dict[Blob, tuple[int, int]] = {}

    def alive(blob: Blob, at: int) -> None:
        root = plan.root(blob)
        first, last = lives.get(root, (at, at))
        lives[root] = min(first, at), max(last, at)

    for blob in plan.given:
        alive(blob, -1)
    for number, step in enumerate(plan.steps):
        for blob in (*step.reads, *step.outputs):
            alive(blob, number)
    for blob in plan.keep:
        alive(blob, len(plan.steps))
    return lives


def _layouts(plan: Plan) -> tuple[set[Blob], set[Blob], set[Blob]]:
    """Roots that are stored by pixels or planes, those of them that are planes, and all that have a place."""
    tuned = [step for step in plan.steps if step.kind != "layer"]
    placed = {plan.root(blob) for step in tuned for blob in (*step.reads, *step.outputs)}
    pixels = {plan.root(blob) for step in tuned for blob in (*step.reads, *step.outputs) if len(blob.shape or ()) == 4}
    readers: dict[Blob, list[Step]] = {}
    for step in plan.steps:
        for blob in step.reads:
            readers.setdefault(plan.root(blob), []).append(step)
    planes = {
        blob
        for blob in pixels & plan.given
        if (blob.shape or ())[1] <= FEW_CHANNELS and all(_takes_planes(step, plan) for step in readers.get(blob, ()))
    }
    only_products = {blob for blob in pixels & plan.given if all(step.kind == "fc" for step in readers.get(blob, ()))}
    return pixels - only_products, planes, placed


def _takes_planes(step: Step, plan: Plan) -> bool:
    """Whether the step has a kernel for planes of this blob: an ordinary convolution, and no other reader of the blob."""
    layer = step.node.layer
    if step.kind != "conv" or not isinstance(layer, Filtering):
        return False
    return layer.proto.convolution_param.group == 1 and plan.root(step.inputs[0]).shape == step.inputs[0].shape


def _borders(plan: Plan) -> dict[Blob, Border]:
    """The widest border that any convolution wants around each root."""
    borders: dict[Blob, Border] = {}
    for step in plan.steps:
        if step.kind != "conv":
            continue
        root = plan.root(step.inputs[0])
        outs = (step.outputs[0].shape or ())[2:]
        window = filter_window(step)
        sizes = (step.inputs[0].shape or ())[2:]
        ends = []
        for n, out, stride, pad, extent in zip(sizes, outs, window.stride, window.pad, window.extent, strict=True):
            whole = -(-out // TILE) * TILE if plan.winograd and window.kernel == (3, 3) else out
            ends.append(max(0, (whole - 1) * stride + extent - pad - n))
        wanted = Border(*window.pad, *ends)
        borders[root] = Border(*map(max, zip(borders.get(root, Border()), wanted, strict=True)))
    return borders


def zero_border(array: np.ndarray, value: Value) -> Iterator[Call]:
    """Make the border 0: what the array's memory held before was another value's."""
    if not any(value.border):
        return
    (top, left, bottom, right), (h, w) = value.border, value.shape[2:]
    rows = array if value.layout == "pixels" else array.transpose(0, 2, 3, 1)
    sides = (rows[:, :top], rows[:, top + h :], rows[:, top : top + h, :left], rows[:, top : top + h, left + w :])
    for side, thick in zip(sides, (top, bottom, left, right), strict=True):
        if thick:
            yield partial(side.fill, 0)


# ---- the arena


def offsets(lives: Sequence[tuple[int, int, int]], reuse: bool) -> tuple[list[int], int]:
    """Places of (size, first, last) in one block, so that none shares memory with another alive at the same time; and its size.

    The largest first, each as low as it can be.
    """
    placed: list[int] = []
    result = [0] * len(lives)
    total = 0
    for index in sorted(range(len(lives)), key=lambda i: -lives[i][0]):
        size, first, last = lives[index]
        size += -size % LINE
        at = 0
        rivals = [i for i in placed if not reuse or (lives[i][1] <= last and first <= lives[i][2])]
        for start, stop in sorted((result[i], result[i] + lives[i][0] + -lives[i][0] % LINE) for i in rivals):
            if start - at >= size:
                break
            at = max(at, stop)
        result[index] = at
        placed.append(index)
        total = max(total, at + size)
    return result, total


class Arena:
    """Memory for some values, for `images` of them at once; None: for all of each."""

    def __init__(self, values: Sequence[Value], reuse: bool, images: int | None = None) -> None:
        shapes = [value.stored if images is None else (images, *value.stored[1:]) for value in values]
        places, self.floats = offsets([(count(s), *v.lives) for s, v in zip(shapes, values, strict=True)], reuse)
        self.block = block = empty((self.floats,))
        self.arrays: Mapping[Blob, np.ndarray] = {
            value.blob: block[at : at + count(shape)].reshape(shape)
            for value, shape, at in zip(values, shapes, places, strict=True)
        }
