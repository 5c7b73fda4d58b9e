"""Arrays made from the net's parameters: transposed, folded, repeated along a row. Made when used, and again when those change."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..graph import Node, Param
from ..kernels.fast.base import empty
from ..layers import Shape
from ..layers.linear import Scale
from ..layers.norm import BatchNorm
from ..weights import Weights

Fill = Callable[[np.ndarray], None]


@dataclass(eq=False, slots=True)
class Constant:
    """One array, what it is made of, and what that was when somebody might have changed it."""

    array: np.ndarray
    params: Sequence[Param]
    fill: Fill
    version: int = -1
    seen: dict[Param, np.ndarray] = field(default_factory=dict)


class Constants:
    """All constants of an engine, by key. The arrays stay the same objects, so that views of them may be kept."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self._made: dict[Hashable, Constant] = {}
        self._used: set[Param] = set()  # whose own arrays are in use

    def array(self, key: Hashable, shape: Shape, params: Sequence[Param], fill: Fill) -> np.ndarray:
        """An array that `fill(out)` makes from `params` before the next run; the same one for the same key."""
        constant = self._made.get(key)
        if constant is None:
            constant = self._made[key] = Constant(empty(shape), [param.owner for param in params], fill)
        return constant.array

    def stored(self, param: Param) -> np.ndarray:
        """A parameter's own array, which then stays the same object."""
        self._used.add(param.owner)
        return self.weights.peek(param)

    def refresh(self) -> None:
        """Make what is new or whose parameters have changed. Parameters that nobody else holds are let go of afterwards."""
        for constant in self._made.values():
            exposed = [param for param in constant.params if param in self.weights.exposed]
            if constant.version == self.weights.version and all(
                param in constant.seen and np.array_equal(constant.seen[param], self.weights.peek(param)) for param in exposed
            ):
                continue
            constant.fill(constant.array)
            constant.version = self.weights.version
            constant.seen = {param: self.weights.peek(param).copy() for param in exposed}
            for param in constant.params:
                if param not in self._used:
                    self.weights.release(param)


def affine(node: Node, weights: Weights) -> tuple[np.ndarray, np.ndarray]:
    """What a BatchNorm, Scale or Bias multiplies each channel by and then adds, in float64."""
    arrays = [weights.peek(param).astype(np.float64) for param in node.params or ()]
    if isinstance(node.layer, BatchNorm):
        means, variances, factor = arrays
        share = 0 if factor[0] == 0 else 1 / factor[0]
        multiply = 1 / np.sqrt(variances * share + node.layer.proto.batch_norm_param.eps)
        return multiply, -means * share * multiply
    if isinstance(node.layer, Scale):
        return arrays[0], arrays[1] if len(arrays) > 1 else np.zeros_like(arrays[0])
    return np.ones_like(arrays[0]), arrays[0]


def affine_chain(nodes: Sequence[Node], channels: int, weights: Weights) -> tuple[np.ndarray, np.ndarray]:
    """Several of them in a row, as one."""
    multiply, add = np.ones(channels), np.zeros(channels)
    for node in nodes:
        factor, term = affine(node, weights)
        multiply, add = multiply * factor, add * factor + term
    return multiply, add
