"""Convolution as matrix products over unrolled windows: arrays and a Window in, arrays out, any number of spatial axes.

Shapes: x is N x C x in..., y is N x O x out..., a weight is O x C/group x kernel... Large images are unrolled one at a
time, as in Caffe, and small ones together as far as they stay in the cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..window import Window

TOGETHER = 1 << 19  # elements of images that are unrolled together


def within(*trailing: int | slice) -> Any:
    """The index of a part of an array's last axes; all of the axes before them."""
    return (..., *trailing)


def im2col(x: np.ndarray, window: Window, outs: Sequence[int]) -> np.ndarray:
    """What each window sees: `lead x in...` becomes `lead x K x out...`, K elements in row-major order; 0 where it sees padding."""
    lead = x.ndim - len(outs)
    cols = np.zeros((*x.shape[:lead], math.prod(window.kernel), *outs), x.dtype)  # lead x K x out
    for number, served, read in window.taps(x.shape[lead:], outs):
        cols[within(number, *served)] = x[within(*read)]
    return cols


def col2im(cols: np.ndarray, window: Window, sizes: Sequence[int]) -> np.ndarray:
    """The transpose of `im2col`: adds every window's elements back to where they were read; `sizes` are those of the image."""
    lead = cols.ndim - len(sizes) - 1
    x = np.zeros((*cols.shape[:lead], *sizes), cols.dtype)  # lead x in
    for number, served, read in window.taps(sizes, cols.shape[lead + 1 :]):
        x[within(*read)] += cols[within(number, *served)]
    return x


def _few(images: int, unrolled: int) -> Iterator[slice]:
    """The images in pieces, each of which has at most TOGETHER elements when it is unrolled, or is a single image."""
    count = max(1, TOGETHER // max(unrolled, 1))
    return (slice(start, start + count) for start in range(0, images, count))


def _unrolled(x: np.ndarray, window: Window, outs: Sequence[int], group: int) -> np.ndarray:
    """M x C x in... as M x G x C/G*K x P: the right-hand side of a convolution's matrix product."""
    if all(k == s == 1 and p == 0 for k, s, p in zip(window.kernel, window.stride, window.pad, strict=True)):
        cols = x  # 1x1 windows see the image itself
    else:
        cols = im2col(x, window, outs)  # M x C x K x out
    return cols.reshape(x.shape[0], group, x.shape[1] // group * math.prod(window.kernel), math.prod(outs))


def convolve(x: np.ndarray, weight: np.ndarray, window: Window, group: int, outs: Sequence[int]) -> np.ndarray:
    """N x C x in... by O x C/G x kernel... gives N x O x out..."""
    matrix = weight.reshape(group, weight.shape[0] // group, math.prod(weight.shape[1:]))  # G x O/G x C/G*K
    y = np.empty((x.shape[0], group, matrix.shape[1], math.prod(outs)), x.dtype)  # N x G x O/G x P
    for few in _few(x.shape[0], x.shape[1] * math.prod(window.kernel) * math.prod(outs)):
        np.matmul(matrix, _unrolled(x[few], window, outs, group), out=y[few])
    return y.reshape(x.shape[0], weight.shape[0], *outs)


def deconvolve(y: np.ndarray, weight: np.ndarray, window: Window, group: int, sizes: Sequence[int]) -> np.ndarray:
    """The transpose of `convolve`: N x O x out... by O x C/G x kernel... gives N x C x in..., `sizes` being those of `in`."""
    outs = y.shape[2:]
    matrix = weight.reshape(group, weight.shape[0] // group, math.prod(weight.shape[1:]))  # G x O/G x C/G*K
    channels = weight.shape[1] * group
    x = np.empty((y.shape[0], channels, *sizes), y.dtype)
    y = y.reshape(y.shape[0], group, matrix.shape[1], math.prod(outs))
    for few in _few(y.shape[0], channels * math.prod(window.kernel) * math.prod(outs)):
        cols = np.matmul(matrix.transpose(0, 2, 1), y[few])  # M x G x C/G*K x P
        x[few] = col2im(cols.reshape(len(cols), channels, math.prod(window.kernel), *outs), window, sizes)
    return x


def weight_gradient(x: np.ndarray, dy: np.ndarray, window: Window, group: int) -> np.ndarray:
    """Gradient of `convolve` by its weight, O x C/G x kernel..., summed over the images."""
    outs, per_group = dy.shape[2:], dy.shape[1] // group
    dw = np.zeros((group, per_group, x.shape[1] // group * math.prod(window.kernel)), x.dtype)  # G x O/G x C/G*K
    dy = dy.reshape(dy.shape[0], group, per_group, math.prod(outs))
    for few in _few(x.shape[0], x.shape[1] * math.prod(window.kernel) * math.prod(outs)):
        dw += np.matmul(dy[few], _unrolled(x[few], window, outs, group).transpose(0, 1, 3, 2)).sum(axis=0)
    return dw.reshape(group * per_group, x.shape[1] // group, *window.kernel)
