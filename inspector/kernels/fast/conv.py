"""Convolution over pixels: a direct product where windows are 1x1, else columns copied tile by tile, and a product with them.

`x` is the padded input, n x H x W x C, cut so that the first window begins at its first pixel. Weights are (kernel height * width *
C / groups, O). Every product goes through the heads: channel ranges of it, each with its Finish.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from .base import Calls, Scratch, apply, copy, flat
from .finish import Finish

LEAST_PIXELS, LEAST_COLUMNS = 512, 1 << 19  # of a tile; below that, products are slow (columns counted in floats)
ENOUGH_PRODUCT = 1 << 18  # or floats of a tile's product, so that it is finished while it is in the cache
NARROW = 32  # outputs below which a product leaves most of a vector unit idle
MOST_COLUMNS = 1 << 22  # several images share a tile only up to here
REPACKED = 700_000  # floats of weights from which on a tile costs more than it saves: BLAS packs them again for every product


class Head(NamedTuple):
    """Channels [start, stop) of a product, and what becomes of them."""

    start: int
    stop: int
    finish: Finish


class Taps(NamedTuple):
    """A window: kernel, stride and dilation, height and width each. Its padding is in the input."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]

    def view(self, x: np.ndarray, outs: tuple[int, int]) -> np.ndarray:
        """What each window sees, without a copy: n x OH x OW x kh x kw x C."""
        n, h, w, c = x.strides
        (kh, kw), (sh, sw), (dh, dw) = self
        return np.lib.stride_tricks.as_strided(
            x, (len(x), *outs, kh, kw, x.shape[3]), (n, h * sh, w * sw, h * dh, w * dw, c), writeable=False
        )


def tiles(images: int, rows: int, width: int, inside: int, outputs: int) -> Iterator[tuple[slice, slice]]:
    """(images, rows) of each tile of `rows` rows of `width` windows, each of `inside` floats in and `outputs` out."""
    row_columns = width * inside
    enough = max(-(-LEAST_PIXELS // width), min(-(-LEAST_COLUMNS // row_columns), -(-ENOUGH_PRODUCT // (width * outputs))))
    if inside * outputs > REPACKED:
        enough = rows
    if 2 * enough > rows:  # whole images, as many as fit
        together = max(1, min(images, MOST_COLUMNS // (rows * row_columns)))
        together = -(-images // -(-images // together))  # of equal size
        for image in range(0, images, together):
            yield slice(image, min(images, image + together)), slice(0, rows)
        return
    height = -(-rows // (rows // enough))
    for image in range(images):
        for row in range(0, rows, height):
            yield slice(image, image + 1), slice(row, min(rows, row + height))


def together(groups: int, outputs: int) -> int:
    """How many groups of so few outputs are best multiplied as one, with zeros where they do not see each other."""
    return next((n for n in range(1, groups) if groups % n == 0 and n * outputs >= NARROW), groups) if outputs < NARROW else 1


def finished(product: np.ndarray, heads: Sequence[Head], images: slice, rows: slice) -> Calls:
    """Every head's share of a tile, images x rows x W x O."""
    for head in heads:
        yield from head.finish(product[..., head.start : head.stop], images, rows)


def product_tile(
    heads: Sequence[Head], outputs: int, images: slice, rows: slice, scratch: Scratch
) -> tuple[np.ndarray, np.ndarray]:
    """Where the product of a tile goes, as images x rows x W x O and as a matrix: its destination if BLAS can write there."""
    finish = heads[0].finish
    target = finish.out[images, rows]
    matrix = flat(target) if len(heads) == 1 and not (finish.narrow and finish.ops) else None
    if matrix is None:
        target = scratch.take(*target.shape[:3], outputs)
        matrix = target.reshape(-1, outputs)
    return target, matrix


def direct(x: np.ndarray, weights: np.ndarray, heads: Sequence[Head], scratch: Scratch) -> Calls:
    """1x1 windows with stride 1 on an input whose pixels form a matrix (`flat`)."""
    n, rows, width, _ = x.shape
    outputs = weights.shape[1]
    height = rows
    if weights.size <= REPACKED:
        height = max(-(-LEAST_PIXELS // width), ENOUGH_PRODUCT // (width * outputs), 1)
    spans = [(slice(i, i + 1), slice(r, min(rows, r + height))) for i in range(n) for r in range(0, rows, height)]
    if 2 * height > rows:
        spans = [(slice(0, n), slice(0, rows))]
    for images, part in spans:
        scratch.reset()
        tile, matrix = product_tile(heads, outputs, images, part, scratch)
        pixels = flat(x[images, part])
        if pixels is None:
            raise ValueError("the input's pixels are no matrix")
        yield apply(np.matmul, pixels, weights, out=matrix)
        yield from finished(tile, heads, images, part)


def columns(x: np.ndarray, weights: np.ndarray, taps: Taps, groups: int, heads: Sequence[Head], scratch: Scratch) -> Calls:
    """Any window, any groups: one copy from the window view into scratch, then one product per group."""
    n, rows, width, _ = heads[0].finish.out.shape
    inside, outputs = weights.shape[0], weights.shape[1]
    channels = x.shape[3] // groups
    each = outputs // groups
    windows = [taps.view(x[..., g * channels : (g + 1) * channels], (rows, width)) for g in range(groups)]
    for images, part in tiles(n, rows, width, inside, each):
        scratch.reset()
        tile, matrix = product_tile(heads, outputs, images, part, scratch)
        cols = scratch.take(len(matrix), inside)
        for group, window in enumerate(windows):
            seen = window[images, part]
            yield copy(cols.reshape(seen.shape), seen)
            share = slice(group * each, (group + 1) * each)
            yield apply(np.matmul, cols, weights[:, share], out=matrix[:, share])
        yield from finished(tile, heads, images, part)


def planes(x: np.ndarray, weights: np.ndarray, taps: Taps, heads: Sequence[Head], scratch: Scratch) -> Calls:
    """Few channels, as planes: x is n x C x H x W, padded. Columns are (C * kernel, pixels), weights (C * kernel, O)."""
    n, rows, width, outputs = heads[0].finish.out.shape[:3] + weights.shape[1:]
    inside = len(weights)
    (kh, kw), (sh, sw), (dh, dw) = taps
    sn, sc, sy, sx = x.strides
    window = np.lib.stride_tricks.as_strided(
        x, (n, x.shape[1], kh, kw, rows, width), (sn, sc, sy * dh, sx * dw, sy * sh, sx * sw), writeable=False
    )
    for images, part in tiles(n, rows, width, inside, outputs):
        for image in range(images.start, images.stop):
            scratch.reset()
            one = slice(image, image + 1)
            tile, matrix = product_tile(heads, outputs, one, part, scratch)
            cols = scratch.take(inside, len(matrix))
            seen = window[image, ..., part, :]
            yield copy(cols.reshape(seen.shape), seen)
            yield apply(np.matmul, cols.T, weights, out=matrix)
            yield from finished(tile, heads, one, part)


def depthwise(x: np.ndarray, weights: np.ndarray, taps: Taps, heads: Sequence[Head], scratch: Scratch) -> Calls:
    """One filter per channel; weights are (kh, kw, W, C), the same for every pixel of a row."""
    n, rows, width, channels = heads[0].finish.out.shape
    height = max(1, min(rows, ENOUGH_PRODUCT // (width * channels)))
    window = taps.view(x, (rows, width))  # n OH OW kh kw C
    whole = taps.stride[1] == 1 and x.strides[2] == 4 * channels
    kh, kw = taps.kernel
    for image in range(n):
        for row in range(0, rows, height):
            scratch.reset()
            images, part = slice(image, image + 1), slice(row, min(rows, row + height))
            seen = window[image, part].transpose(0, 2, 3, 1, 4)  # rows kh kw W C
            tile = scratch.take(len(seen), width, channels)
            if whole:  # the pixels of a row follow each other: one long run
                shape = (len(seen), kh, kw, width * channels)
                run = np.lib.stride_tricks.as_strided(seen, shape, (*seen.strides[:3], 4), writeable=False)
                flat_weights = weights.reshape(kh, kw, width * channels)
                yield partial(np.einsum, "rijl,ijl->rl", run, flat_weights, out=tile.reshape(len(seen), -1))
            else:
                yield partial(np.einsum, "rijwc,ijc->rwc", seen, weights[:, :, 0], out=tile)
            yield from finished(tile[None], heads, images, part)


Reach = Sequence[tuple[int, tuple[slice, ...], tuple[slice, ...]]]  # Window.taps: element, inputs that it serves, where they go


def spread(x: np.ndarray, weights: np.ndarray, stride: Sequence[int], reach: Reach, head: Head, scratch: Scratch) -> Calls:
    """The transposed convolution: every pixel times all filters, and each element of the result added where it belongs.

    x is n x h x w x C, weights (kernel elements, C, O); or (kernel elements, 1, w, C) with one filter per channel. Pixels that lie
    a stride apart are added up side by side, in long runs, and take their places at the end.
    """
    n, rows, width, outputs = head.finish.out.shape
    (down, across), shape = stride, x.shape[1:3]
    high, wide = -(-rows // down), -(-width // across)
    for image in range(n):
        scratch.reset()
        phases = scratch.take(down, across, high, wide, outputs)
        yield partial(phases.fill, 0)
        if weights.ndim == 4:
            products = [scratch.take(*shape, outputs)] * len(weights)
        else:
            pixels = flat(x[image : image + 1])
            if pixels is None:
                pixels = scratch.take(shape[0] * shape[1], x.shape[3])
                yield copy(pixels.reshape(x.shape[1:]), x[image])
            product = scratch.take(len(weights), *shape, outputs)
            yield apply(np.matmul, pixels, weights, out=product.reshape(len(weights), -1, outputs))
            products = list(product)
        for number, served, (ys, xs) in reach:
            if weights.ndim == 4:
                yield apply(np.multiply, x[image], weights[number], out=products[number])
            begin, left = ys.start // down, xs.start // across
            part = products[number][served]
            target = phases[ys.start % down, xs.start % across, begin : begin + part.shape[0], left : left + part.shape[1]]
            yield apply(np.add, target, part, out=target)
        tile = scratch.take(1, rows, width, outputs)
        for a in range(min(down, rows)):
            for b in range(min(across, width)):
                places = tile[0, a::down, b::across]
                yield copy(places, phases[a, b, : places.shape[0], : places.shape[1]])
        yield from head.finish(tile, slice(image, image + 1))
