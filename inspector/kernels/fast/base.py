"""Calls, and the scratch memory that all steps of one worker share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

Call = Callable[[], Any]
Calls = Iterator[Call]


def run(calls: Iterable[Call]) -> None:
    """Compute."""
    for call in calls:
        call()


def copy(target: np.ndarray, source: np.ndarray) -> Call:
    """target[...] = source."""
    return partial(np.copyto, target, source)


def apply(ufunc: Callable[..., Any], *arrays: Any, out: np.ndarray) -> Call:
    """out[...] = ufunc(*arrays)."""
    return partial(ufunc, *arrays, out=out)


def empty(shape: Iterable[int]) -> np.ndarray:
    """An uninitialised float32 array on a 64-byte boundary. Pages that nobody touches cost nothing."""
    shape = tuple(shape)
    raw = np.empty(4 * math.prod(shape) + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + 4 * math.prod(shape)].view(np.float32).reshape(shape)


class Scratch:
    """Memory for what lives only within a step: columns, tiles. Steps follow each other, so all of them use the same bytes.

    A step calls `take` for each array and `reset` when it is through. The block is reserved, not touched: what no step reaches
    is never given by the system.
    """

    def __init__(self, reserve: int = 1 << 24) -> None:
        self._block = empty((reserve,))
        self._used = 0

    def reset(self) -> None:
        self._used = 0

    def take(self, *shape: int) -> np.ndarray:
        """An uninitialised array, C-contiguous and aligned, valid until the step ends."""
        size = math.prod(shape)
        start, stop = self._used, self._used + size
        if stop > self._block.size:  # a block of its own; earlier arrays keep theirs alive
            self._block = empty((max(2 * self._block.size, size),))
            start, stop = 0, size
        self._used = stop + -stop % 16
        return self._block[start:stop].reshape(shape)


def flat(x: np.ndarray) -> np.ndarray | None:
    """n x H x W x C as a matrix of pixels (n*H*W, C), a view, whose rows may be further apart than C; None where there is none."""
    n, h, w, c = x.shape
    pixel = x.strides[2]
    if x.strides[3] != 4 and c > 1:
        return None
    if (h > 1 and x.strides[1] != w * pixel) or (n > 1 and x.strides[0] != h * w * pixel):
        return None
    if w == 1:  # the stride along an axis of one pixel says nothing
        pixel = x.strides[1] if h > 1 else x.strides[0]
        if h > 1 and n > 1 and x.strides[0] != h * pixel:
            return None
    if pixel % 4 or pixel < 4 * c:
        pixel = 4 * c
        if n * h * w > 1:
            return None
    return np.lib.stride_tricks.as_strided(x, (n * h * w, c), (pixel, 4))
