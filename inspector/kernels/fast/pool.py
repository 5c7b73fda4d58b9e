"""Pooling over pixels: first whole rows are combined, then the pixels of the combined rows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from ...window import Window
from .base import Call, Calls, Scratch, apply, copy
from .finish import Finish

LOWEST = float(np.finfo(np.float32).min)  # what Caffe starts a maximum from
TOGETHER = 1 << 17  # floats of an image from which on images are pooled one by one, each while it is in the cache


def _images(x: np.ndarray) -> Sequence[slice]:
    if x[0].size < TOGETHER:
        return [slice(0, len(x))]
    return [slice(image, image + 1) for image in range(len(x))]


def _fold(
    combine: np.ufunc, start: float, reach: Sequence[tuple[int, slice, slice]], x: np.ndarray, out: np.ndarray, axis: int
) -> Calls:
    """Combine along one axis what each window holds: for every kernel element, the outputs that it serves."""
    before = (slice(None),) * axis
    whole = [read for _, served, read in reach if served == slice(0, out.shape[axis])]
    rest = [(served, read) for _, served, read in reach if served != slice(0, out.shape[axis])]
    if len(whole) > 1:
        yield apply(combine, x[(*before, whole[0])], x[(*before, whole[1])], out=out)
    elif whole:
        yield copy(out, x[(*before, whole[0])])
    else:
        yield partial(out.fill, start)
    everywhere = [(slice(None), read) for read in whole[2:]]
    for served, read in everywhere + rest:
        part = out[(*before, served)]
        yield apply(combine, part, x[(*before, read)], out=part)


def max_pool(x: np.ndarray, window: Window, finish: Finish, scratch: Scratch) -> Calls:
    """Largest element of each window, n x H x W x C to n x OH x OW x C; NaN never wins."""
    rows = list(window.reach(0, x.shape[1], finish.out.shape[1]))
    columns = list(window.reach(1, x.shape[2], finish.out.shape[2]))
    floor = np.full(finish.out.shape[2:], LOWEST, np.float32)  # of what no number has beaten; a row of it, for vectors
    for images in _images(x):
        scratch.reset()
        out = finish.out[images]
        combined = scratch.take(*out.shape[:2], *x.shape[2:])
        yield from _fold(np.fmax, LOWEST, rows, x[images], combined, 1)
        tile = scratch.take(*out.shape)
        yield from _fold(np.fmax, LOWEST, columns, combined, tile, 2)
        yield apply(np.fmax, tile, floor, out=tile if finish.ops else out)
        if finish.ops:
            yield from finish(tile, images)


def average_pool(x: np.ndarray, window: Window, finish: Finish, scratch: Scratch) -> Calls:
    """Sum of what each window sees, divided by its size within the padded image."""
    out = finish.out
    sizes, outs = x.shape[1:3], out.shape[1:3]
    down, across = (np.asarray(spans, np.float32) for spans in window.spans(sizes, outs))
    share = np.repeat(1 / (down[:, None] * across)[:, :, None], out.shape[3], axis=2)  # OH OW C, so that rows are long
    whole = outs == (1, 1) and window.kernel == sizes and not any(window.pad)
    rows = list(window.reach(0, sizes[0], outs[0]))
    columns = list(window.reach(1, sizes[1], outs[1]))
    for images in _images(x):
        scratch.reset()
        target = out[images]
        tile = scratch.take(*target.shape)
        if whole:
            yield _sum_of_pixels(x[images], tile)
        else:
            combined = scratch.take(*target.shape[:2], *x.shape[2:])
            yield from _fold(np.add, 0, rows, x[images], combined, 1)
            yield from _fold(np.add, 0, columns, combined, tile, 2)
        yield apply(np.multiply, tile, share, out=tile if finish.ops else target)
        if finish.ops:
            yield from finish(tile, images)


def _sum_of_pixels(x: np.ndarray, out: np.ndarray) -> Call:
    return partial(np.add.reduce, x, axis=(1, 2), keepdims=True, out=out)
