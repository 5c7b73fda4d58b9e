"""Pooling over any number of spatial axes: arrays and a Window in, arrays out.

Shapes: x is N x C x in..., y is N x C x out... Windows are clipped to the image, never padded with values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..window import Window
from .conv import col2im, im2col, within

LOWEST = float(np.finfo(np.float32).min)  # what Caffe starts a maximum from, and so what an empty window gives


def _fold(x: np.ndarray, window: Window, outs: Sequence[int], combine: np.ufunc, start: float) -> np.ndarray:
    """Combine what each window holds, one axis after the other: kernel height + width steps instead of height * width."""
    for axis, out in enumerate(outs):
        place = x.ndim - len(outs) + axis
        before = (slice(None),) * place
        y = np.full((*x.shape[:place], out, *x.shape[place + 1 :]), start, x.dtype)
        for _, served, read in window.reach(axis, x.shape[place], out):
            part = y[(*before, served)]
            combine(part, x[(*before, read)], out=part)
        x = y
    return x


def max_pool(x: np.ndarray, window: Window, outs: Sequence[int]) -> np.ndarray:
    """Largest element of each window; a NaN never wins, as no comparison with it holds."""
    return _fold(x, window, outs, np.fmax, LOWEST)


def _positions(sizes: Sequence[int]) -> np.ndarray:
    """in...: the index of each element within its own channel."""
    return np.arange(math.prod(sizes)).reshape(sizes)


def max_index(x: np.ndarray, y: np.ndarray, window: Window) -> np.ndarray:
    """Where `max_pool` found y: index within the channel, N x C x out...; of equals the first in row-major order, -1 for none."""
    sizes, outs = x.shape[2:], y.shape[2:]
    positions = _positions(sizes)
    index = np.full(y.shape, -1, np.int64)
    for _, served, read in window.taps(sizes, outs):
        known = index[within(*served)]
        found = (known < 0) & (x[within(*read)] == y[within(*served)])
        np.copyto(known, positions[read], where=found)
    return index


def index_gradient(dy: np.ndarray, index: np.ndarray, window: Window, sizes: Sequence[int]) -> np.ndarray:
    """Gradient of a pooling that picks one element of each window: N x C x in..."""
    positions = _positions(sizes)
    dx = np.zeros((*dy.shape[:2], *sizes), dy.dtype)
    for _, served, read in window.taps(sizes, dy.shape[2:]):
        dx[within(*read)] += np.where(index[within(*served)] == positions[read], dy[within(*served)], 0)
    return dx


def _divisors(window: Window, sizes: Sequence[int], outs: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """out...: elements of each window clipped to the padded image."""
    result = np.ones((), dtype)
    for spans in window.spans(sizes, outs):
        result = result[..., None] * np.asarray(spans, dtype)
    return result


def average_pool(x: np.ndarray, window: Window, outs: Sequence[int]) -> np.ndarray:
    """Sum over what each window sees, divided by its size within the padded image."""
    with np.errstate(divide="ignore", invalid="ignore"):  # a window that starts just behind the image is 0/0, in Caffe too
        return _fold(x, window, outs, np.add, 0.0) / _divisors(window, x.shape[2:], outs, x.dtype)


def average_gradient(dy: np.ndarray, window: Window, sizes: Sequence[int]) -> np.ndarray:
    """Gradient of `average_pool`: N x C x in..."""
    with np.errstate(divide="ignore", invalid="ignore"):
        dx = dy / _divisors(window, sizes, dy.shape[2:], dy.dtype)
    for axis, size in enumerate(sizes):
        before = (slice(None),) * (2 + axis)
        spread = np.zeros((*dx.shape[: 2 + axis], size, *dx.shape[3 + axis :]), dy.dtype)
        for _, served, read in window.reach(axis, size, dy.shape[2 + axis]):
            spread[(*before, read)] += dx[(*before, served)]
        dx = spread
    return dx


def sample_pool(x: np.ndarray, window: Window, outs: Sequence[int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One element of each window, drawn with a probability proportional to its value; and its index in the channel, -1 for none."""
    cols = im2col(x, window, outs)  # N x C x K x out
    sums = np.cumsum(cols, axis=2)
    threshold = (1 - rng.random(sums[:, :, -1].shape)).astype(x.dtype) * sums[:, :, -1]  # N x C x out; never 0 of a positive sum
    choice = np.argmax(sums >= threshold[:, :, None], axis=2)[:, :, None]  # N x C x 1 x out
    positions = im2col(_positions(x.shape[2:]) + 1, window, outs) - 1  # K x out, -1 outside the image
    index = np.take_along_axis(np.broadcast_to(positions, cols.shape), choice, axis=2)
    return np.take_along_axis(cols, choice, axis=2)[:, :, 0], index[:, :, 0]


def weighted_pool(x: np.ndarray, window: Window, outs: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Each window's average weighted by its values, the mean of `sample_pool`; and 1 / its sum, 0 where that is not positive."""
    sums = _fold(x, window, outs, np.add, 0.0)
    inverse = np.divide(1, sums, out=np.zeros_like(sums), where=sums > 0)
    return _fold(x * x, window, outs, np.add, 0.0) * inverse, inverse


def weighted_gradient(dy: np.ndarray, x: np.ndarray, y: np.ndarray, inverse: np.ndarray, window: Window) -> np.ndarray:
    """Gradient of `weighted_pool` by the quotient rule: (2 x - y) / sum from every window that holds x."""
    shape = (*dy.shape[:2], math.prod(window.kernel), *dy.shape[2:])  # N x C x K x out

    def spread(values: np.ndarray) -> np.ndarray:
        return col2im(np.broadcast_to(values[:, :, None], shape), window, x.shape[2:])

    return 2 * x * spread(dy * inverse) - spread(dy * y * inverse)
