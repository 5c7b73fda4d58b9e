"""Softmax along one axis, stable for any input: also what the softmax losses compute inside."""

from __future__ import annotations

import numpy as np


def forward(x: np.ndarray, axis: int) -> np.ndarray:
    """exp(x) / sum(exp(x)) along `axis`, after subtraction of the maximum there; any shape, in a new array."""
    with np.errstate(invalid="ignore"):  # where infinity is the largest, not a number, as in C++
        y = x - x.max(axis, keepdims=True, initial=-np.inf)
        np.exp(y, out=y)
        y /= y.sum(axis, keepdims=True)
    return y


def backward(y: np.ndarray, dy: np.ndarray, axis: int) -> np.ndarray:
    """The gradient of softmax's input, from its output `y` and the output's gradient `dy`: y * (dy - sum(y * dy))."""
    return y * (dy - (y * dy).sum(axis, keepdims=True))
