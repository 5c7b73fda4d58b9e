"""What is done to a product, element by element, before it is left where its reader wants it: bias, residual, activation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .base import Calls, Scratch, apply, copy


class Op(NamedTuple):
    """One elementwise operation, x -> x'.

    Kinds and their operand: `add`, `multiply`: an array that broadcasts over a row of pixels, (W, C). `sum`, `product`, `maximum`:
    an array like the output. `relu`: the negative slope. `prelu`: slopes (W, C). `clip`: (least, most). `function`: array -> array.
    """

    kind: str
    operand: Any


JOIN = {"sum": np.add, "product": np.multiply, "maximum": np.maximum}
ROW = {"add": np.add, "multiply": np.multiply}


def _function(x: np.ndarray, function: Callable[[np.ndarray], np.ndarray], out: np.ndarray) -> None:
    with np.errstate(all="ignore"):
        np.copyto(out, function(x))


class Finish:
    """The operations behind one product, and its destination `out`, n x H x W x C (any strides)."""

    def __init__(self, out: np.ndarray, ops: Sequence[Op], scratch: Scratch) -> None:
        self.out = out
        self.ops = ops
        self.scratch = scratch
        # in the middle of wider pixels every run is one pixel long: only a copy is quick there
        self.narrow = out.strides[2] != 4 * out.shape[3] and out.shape[2] > 1
        # a maximum with a whole row of zeros has a vector path, with one zero it has none
        self._zeros = np.zeros(out.shape[2:], np.float32) if any(op.kind == "relu" and not op.operand for op in ops) else None

    def __call__(self, tile: np.ndarray, images: slice = slice(None), rows: slice = slice(None), *, keep: bool = False) -> Calls:
        """Finish `tile`, the part (images, rows) of the product, into that part of the output. `keep`: the tile must not change."""
        target = self.out[images, rows]
        ops = self.ops
        if not ops:
            if not _same(tile, target):
                yield copy(target, tile)
            return
        if keep and self.narrow:
            held = self.scratch.take(*tile.shape)
        for number, op in enumerate(ops):
            last = number == len(ops) - 1
            into = (held if keep else tile) if self.narrow else target if last or keep else tile
            yield from self._operation(op, tile, into, images, rows)
            tile, keep = into, False
        if self.narrow:
            yield copy(target, tile)

    def _operation(self, op: Op, x: np.ndarray, into: np.ndarray, images: slice, rows: slice) -> Calls:
        kind, operand = op
        if kind in ROW:
            yield apply(ROW[kind], x, operand, out=into)
        elif kind in JOIN:
            yield apply(JOIN[kind], x, operand[images, rows], out=into)
        elif kind == "relu" and not operand:
            yield apply(np.maximum, x, self._zeros, out=into)
        elif kind in ("relu", "prelu"):
            below = self.scratch.take(*x.shape)
            yield apply(np.minimum, x, np.float32(0), out=below)
            yield apply(np.multiply, below, np.float32(operand) if kind == "relu" else operand, out=below)
            yield apply(np.maximum, x, np.float32(0), out=into)
            yield apply(np.add, into, below, out=into)
        elif kind == "clip":
            least, most = operand
            yield apply(np.minimum, x, np.float32(most), out=into)
            yield apply(np.maximum, into, np.float32(least), out=into)
        else:
            yield partial(_function, x, operand, into)


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays are one view of one memory."""
    return a.__array_interface__["data"] == b.__array_interface__["data"] and a.shape == b.shape and a.strides == b.strides
