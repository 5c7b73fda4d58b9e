"""Arithmetic of layers that combine several blobs of one shape."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def first_largest(xs: Sequence[np.ndarray]) -> np.ndarray:
    """Which of `xs` gives Caffe's maximum, per element: of equal ones among the first two the second, later only a larger one."""
    top = np.maximum(xs[0], xs[1])
    winner = np.where(xs[0] > xs[1], 0, 1)
    for i, x in enumerate(xs[2:], start=2):
        winner[x > top] = i
        top = np.maximum(top, x)
    return winner


def product_of_others(xs: Sequence[np.ndarray], index: int) -> np.ndarray:
    """The product of all of `xs` but number `index`, in their order: a product's gradient that does not divide."""
    first, *rest = (x for i, x in enumerate(xs) if i != index)
    product = first.copy()
    for x in rest:
        product *= x
    return product
