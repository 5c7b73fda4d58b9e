"""Convolution 3x3 by Winograd's transform F(4x4, 3x3): 36 multiplications for what takes 144, and an error some ten times larger.

Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016. With d a 6x6 patch of the input, g a filter, the 4x4
outputs are A' [(G g G') * (B' d B)] A; the products of all patches and channels are 36 matrix products.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .base import Calls, Scratch, apply
from .conv import Head, finished

TILE, PATCH = 4, 6
FLOATS = 1 << 19  # of the patches that are transformed together, so that they stay in the cache

G = np.array(
    [[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6], [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]]
)


def transformed_weights(weight: np.ndarray, out: np.ndarray) -> None:
    """Filters O x C x 3 x 3 into `out`, (36, C, O)."""
    o, c = weight.shape[:2]
    twice = np.kron(G, G).astype(np.float32)  # 36 x 9
    product = twice @ weight.transpose(2, 3, 1, 0).reshape(9, c * o)
    out[...] = product.reshape(out.shape)


def convolve(x: np.ndarray, weights: np.ndarray, heads: Sequence[Head], scratch: Scratch) -> Calls:
    """3x3 windows with stride 1; x is padded, n x H x W x C, at least up to a whole number of tiles in both directions."""
    n, rows, width, outputs = (*heads[0].finish.out.shape[:3], weights.shape[2])
    channels = x.shape[3]
    down, across = -(-rows // TILE), -(-width // TILE)
    band = max(1, min(down, FLOATS // (across * PATCH * PATCH * max(channels, outputs))))
    band = -(-down // -(-down // band))
    _, sy, sx, sc = x.strides
    for image in range(n):
        for first in range(0, down, band):
            scratch.reset()
            high = min(band, down - first)
            shape = (PATCH, PATCH, high, across, channels)
            patches = np.lib.stride_tricks.as_strided(
                x[image, first * TILE :], shape, (sy, sx, sy * TILE, sx * TILE, sc), writeable=False
            )
            spectrum = scratch.take(PATCH, PATCH, high, across, channels)
            half = scratch.take(PATCH, PATCH, high, across, channels)
            spare = [scratch.take(PATCH, high, across, channels) for _ in range(2)]
            yield from _into(patches, half, spare)
            yield from _into(half.swapaxes(0, 1), spectrum.swapaxes(0, 1), spare)
            products = scratch.take(PATCH * PATCH, high * across, outputs)
            yield apply(np.matmul, spectrum.reshape(PATCH * PATCH, -1, channels), weights, out=products)
            product = products.reshape(PATCH, PATCH, high, across, outputs)
            rest = scratch.take(TILE, PATCH, high, across, outputs)
            spare = [scratch.take(PATCH, high, across, outputs) for _ in range(2)]
            yield from _back(product, rest, spare)
            pixels = scratch.take(high, TILE, across, TILE, outputs)
            spare = [scratch.take(TILE, high, across, outputs) for _ in range(2)]
            yield from _back(rest.swapaxes(0, 1), pixels.transpose(3, 1, 0, 2, 4), spare)
            part = slice(first * TILE, min(rows, (first + high) * TILE))
            tile = pixels.reshape(1, high * TILE, across * TILE, outputs)[:, : part.stop - part.start, :width]
            yield from finished(tile, heads, slice(image, image + 1), part)


def _into(d: np.ndarray, out: np.ndarray, spare: Sequence[np.ndarray]) -> Calls:
    """out = B' d along the first axis: B' = [[4,0,-5,0,1,0], [0,-4,-4,1,1,0], [0,4,-4,-1,1,0], [0,-2,-1,2,1,0], [0,2,-1,-2,1,0],
    [0,4,0,-5,0,1]]."""
    one, two = spare
    four, five = np.float32(4), np.float32(5)
    for at in (0, 1):  # 4 d0 - 5 d2 + d4, and 4 d1 - 5 d3 + d5
        target = out[5 * at]
        yield apply(np.multiply, d[at], four, out=target)
        yield apply(np.multiply, d[at + 2], five, out=one)
        yield apply(np.subtract, target, one, out=target)
        yield apply(np.add, target, d[at + 4], out=target)
    yield apply(np.multiply, d[2], four, out=one)
    yield apply(np.subtract, d[4], one, out=one)  # d4 - 4 d2
    yield apply(np.multiply, d[1], four, out=two)
    yield apply(np.subtract, d[3], two, out=two)  # d3 - 4 d1
    yield apply(np.add, one, two, out=out[1])
    yield apply(np.subtract, one, two, out=out[2])
    yield apply(np.subtract, d[4], d[2], out=one)
    yield apply(np.subtract, d[3], d[1], out=two)
    yield apply(np.add, two, two, out=two)
    yield apply(np.add, one, two, out=out[3])
    yield apply(np.subtract, one, two, out=out[4])


def _back(m: np.ndarray, out: np.ndarray, spare: Sequence[np.ndarray]) -> Calls:
    """out = A' m along the first axis: A' = [[1,1,1,1,1,0], [0,1,-1,2,-2,0], [0,1,1,4,4,0], [0,1,-1,8,-8,1]]."""
    one, two = spare
    yield apply(np.add, m[1], m[2], out=one)
    yield apply(np.add, m[3], m[4], out=two)
    yield apply(np.add, m[0], one, out=out[0])
    yield apply(np.add, out[0], two, out=out[0])
    yield apply(np.multiply, two, np.float32(4), out=two)
    yield apply(np.add, one, two, out=out[2])
    yield apply(np.subtract, m[1], m[2], out=one)
    yield apply(np.subtract, m[3], m[4], out=two)
    yield apply(np.add, two, two, out=two)
    yield apply(np.add, one, two, out=out[1])
    yield apply(np.multiply, two, np.float32(4), out=two)
    yield apply(np.add, one, two, out=out[3])
    yield apply(np.add, out[3], m[5], out=out[3])
