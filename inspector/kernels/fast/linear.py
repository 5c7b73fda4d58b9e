"""Fully connected: the weights are used as they are stored, whatever the batch, because copying them costs more than using them."""

from __future__ import annotations

import numpy as np

from .base import Calls, Scratch, apply, copy
from .finish import Finish

ROWS_BY_VECTOR = 3  # up to here a product per row reads the weights faster than one product of all rows
LANES = 16  # BLAS is fastest where the rows that share a product fill its vectors


def inner_product(x: np.ndarray, weight: np.ndarray, transpose: bool, finish: Finish, scratch: Scratch) -> Calls:
    """x (M, ...), its axes behind the first taken as one, K, times weight (N, K), or (K, N) with `transpose`.

    The output of `finish` is (M, 1, 1, N).
    """
    scratch.reset()
    rows = len(x)
    if not x.flags.c_contiguous:
        held = scratch.take(*x.shape)
        yield copy(held, x)
        x = held
    x = x.reshape(rows, -1)
    outputs = weight.shape[1 if transpose else 0]
    if rows <= ROWS_BY_VECTOR:
        tile = scratch.take(rows, outputs)
        matrix = weight.T if transpose else weight
        for row in range(rows):
            yield apply(np.matmul, matrix, x[row], out=tile[row])
    elif transpose:
        tile = scratch.take(rows, outputs)
        yield apply(np.matmul, x, weight, out=tile)
    else:
        padded = rows + -rows % LANES
        lanes = scratch.take(x.shape[1], padded)
        product = scratch.take(outputs, padded)
        if padded > rows:
            yield copy(lanes[:, rows:], np.zeros((1, 1), np.float32))
        yield copy(lanes[:, :rows], x.T)
        yield apply(np.matmul, weight, lanes, out=product)
        tile = scratch.take(rows, outputs)
        yield copy(tile, product[:, :rows].T)
    yield from finish(tile.reshape(rows, 1, 1, outputs))
