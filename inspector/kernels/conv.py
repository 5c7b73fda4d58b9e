"""Convolution as matrix products over unrolled windows: arrays and a Window in, arrays out, any number of spatial axes.

Shapes: x is N x C x in..., y is N x O x out..., a weight is O x C/group x kernel... Only one image is unrolled at a
time, as in Caffe.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..window import Window


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


def _unrolled(image: np.ndarray, window: Window, outs: Sequence[int], group: int) -> np.ndarray:
    """C x in... as G x C/G*K x P: the right-hand side of a convolution's matrix product."""
    if all(k == s == 1 and p == 0 for k, s, p in zip(window.kernel, window.stride, window.pad, strict=True)):
        cols = image  # 1x1 windows see the image itself
    else:
        cols = im2col(image, window, outs)  # C x K x out
    return cols.reshape(group, image.shape[0] // group * math.prod(window.kernel), math.prod(outs))


def convolve(x: np.ndarray, weight: np.ndarray, window: Window, group: int, outs: Sequence[int]) -> np.ndarray:
    """N x C x in... by O x C/G x kernel... gives N x O x out..."""
    matrix = weight.reshape(group, weight.shape[0] // group, math.prod(weight.shape[1:]))  # G x O/G x C/G*K
    y = np.empty((x.shape[0], group, matrix.shape[1], math.prod(outs)), x.dtype)  # N x G x O/G x P
    for image, result in zip(x, y, strict=True):
        np.matmul(matrix, _unrolled(image, window, outs, group), out=result)
    return y.reshape(x.shape[0], weight.shape[0], *outs)


def deconvolve(y: np.ndarray, weight: np.ndarray, window: Window, group: int, sizes: Sequence[int]) -> np.ndarray:
    """The transpose of `convolve`: N x O x out... by O x C/G x kernel... gives N x C x in..., `sizes` being those of `in`."""
    outs = y.shape[2:]
    matrix = weight.reshape(group, weight.shape[0] // group, math.prod(weight.shape[1:]))  # G x O/G x C/G*K
    channels = weight.shape[1] * group
    x = np.empty((y.shape[0], channels, *sizes), y.dtype)
    for image, result in zip(y.reshape(y.shape[0], group, matrix.shape[1], math.prod(outs)), x, strict=True):
        cols = np.matmul(matrix.transpose(0, 2, 1), image)  # G x C/G*K x P
        result[...] = col2im(cols.reshape(channels, math.prod(window.kernel), *outs), window, sizes)
    return x


def weight_gradient(x: np.ndarray, dy: np.ndarray, window: Window, group: int) -> np.ndarray:
    """Gradient of `convolve` by its weight, O x C/G x kernel..., summed over the images."""
    outs, per_group = dy.shape[2:], dy.shape[1] // group
    dw = np.zeros((group, per_group, x.shape[1] // group * math.prod(window.kernel)), x.dtype)  # G x O/G x C/G*K
    for image, diff in zip(x, dy.reshape(dy.shape[0], group, per_group, math.prod(outs)), strict=True):
        dw += np.matmul(diff, _unrolled(image, window, outs, group).transpose(0, 2, 1))
    return dw.reshape(dy.shape[1], x.shape[1] // group, *window.kernel)
