"""Arithmetic of inner products, embeddings, and of parameters that apply to some axes of a blob."""

from __future__ import annotations

import numpy as np


def inner_product(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, transpose: bool) -> np.ndarray:
    """Rows times weights: x (M, K), weight (N, K) or, transposed, (K, N), bias (N,) -> (M, N)."""
    y = x @ (weight if transpose else weight.T)  # M,N
    if bias is not None:
        y += bias
    return y


def scatter_rows(rows: np.ndarray, index: np.ndarray, size: int) -> np.ndarray:
    """Adds each row of `rows` (n, ...) to the row `index` (n,) of an array of zeros (size, ...); an index may occur often."""
    total = np.zeros((size, *rows.shape[1:]), rows.dtype)
    np.add.at(total, index, rows)
    return total


def spread(param: np.ndarray, axis: int, axes: int) -> np.ndarray:
    """`param` as a view that broadcasts over a blob of `axes` axes from `axis` on: (3, 4) at 1 of 4 -> (1, 3, 4, 1)."""
    return param.reshape((1,) * axis + param.shape + (1,) * (axes - axis - param.ndim))


def gather(x: np.ndarray, axis: int, axes: int) -> np.ndarray:
    """Sum of `x` over all axes but the `axes` ones from `axis` on: what `spread` is to values, for their gradients."""
    kept = range(axis, axis + axes)
    return np.asarray(x.sum(tuple(i for i in range(x.ndim) if i not in kept)))
