"""Local response normalisation over pixels: the channels of one pixel lie side by side, and their window is a matrix product."""

from __future__ import annotations

import numpy as np

from .base import Calls, Scratch, apply, copy
from .finish import Finish

BANDED = 128  # channels up to which a product with a banded matrix is faster than adding shifted copies
PIXELS = 1 << 16  # floats of a tile


def lrn(x: np.ndarray, size: int, alpha: float, beta: float, k: float, finish: Finish, scratch: Scratch) -> Calls:
    """x / (k + alpha/size * sum over `size` channels of x^2)^beta, n x H x W x C."""
    n, rows, width, channels = x.shape
    height = max(1, min(rows, PIXELS // (width * channels)))
    half = (size - 1) // 2
    band = np.zeros((0, 0), np.float32)
    if channels <= BANDED:
        index = np.arange(channels)
        band = np.where(np.abs(index[:, None] - index) <= half, np.float32(alpha / size), np.float32(0))
    for image in range(n):
        for row in range(0, rows, height):
            scratch.reset()
            images, part = slice(image, image + 1), slice(row, min(rows, row + height))
            seen = x[images, part]
            scale = scratch.take(*seen.shape)
            if band.size:
                square = scratch.take(*seen.shape)
                yield apply(np.multiply, seen, seen, out=square)
                yield apply(np.matmul, square.reshape(-1, channels), band, out=scale.reshape(-1, channels))
            else:
                wide = scratch.take(*seen.shape[:3], channels + 2 * half)
                square = wide[..., half : half + channels]
                for edge in (wide[..., :half], wide[..., half + channels :]):
                    yield copy(edge, np.zeros((1, 1), np.float32))
                yield apply(np.multiply, seen, seen, out=square)
                shifted = [wide[..., i : i + channels] for i in range(size)]
                if size == 1:
                    yield copy(scale, shifted[0])
                else:
                    yield apply(np.add, shifted[0], shifted[1], out=scale)
                for other in shifted[2:]:
                    yield apply(np.add, scale, other, out=scale)
                yield apply(np.multiply, scale, np.float32(alpha / size), out=scale)
            yield apply(np.add, scale, np.float32(k), out=scale)
            yield from _divide(seen, scale, beta, finish, images, part, scratch)


def _divide(x: np.ndarray, scale: np.ndarray, beta: float, finish: Finish, images: slice, rows: slice, scratch: Scratch) -> Calls:
    """x / scale^beta; two roots where beta is 3/4, because a power takes ten times as long."""
    out = scale if finish.ops else finish.out[images, rows]
    if beta == 0.75:
        root = scratch.take(*scale.shape)
        yield apply(np.sqrt, scale, out=root)
        yield apply(np.sqrt, root, out=scale)
        yield apply(np.multiply, root, scale, out=scale)
        yield apply(np.divide, x, scale, out=out)
    else:
        yield apply(np.power, scale, np.float32(-beta), out=scale)
        yield apply(np.multiply, x, scale, out=out)
    if finish.ops:
        yield from finish(scale, images, rows)
