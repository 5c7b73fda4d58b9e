"""What is inside a file of weights: statistics of every blob, filters as pictures, arrays as .npz.

Works on the file alone and looks at it block by block, so that a file larger than memory is no trouble.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .caffemodel import StoredBlob, StoredLayer, StoredModel
from .layers import Shape

BINS = 16
SPARKS = "▁▂▃▄▅▆▇█"
DEAD = 1e-8  # a filter is dead when its largest weight is below this part of the blob's largest


@dataclass(slots=True)
class BlobStats:
    """Figures of one stored blob, over its finite values; `dead` counts filters, None where a blob has none."""

    layer: str
    type: str
    index: int
    shape: Shape
    count: int  # values in the file
    dtype: str
    has_diff: bool
    least: float = math.nan
    most: float = math.nan
    mean: float = math.nan
    deviation: float = math.nan
    l1: float = 0.0
    l2: float = 0.0
    zeros: int = 0
    nans: int = 0
    infinite: int = 0
    dead: int | None = None
    histogram: list[int] = field(default_factory=list)  # BINS equal parts from `least` to `most`

    @property
    def sparsity(self) -> float:
        """Part of the values that is exactly zero."""
        return self.zeros / self.count if self.count else 0.0

    def sparkline(self) -> str:
        """The histogram as one character per bin; a bin with anything in it is never empty."""
        top = max(self.histogram, default=0)
        return "".join(" " if not n else SPARKS[min(len(SPARKS) - 1, n * len(SPARKS) // top)] for n in self.histogram)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; figures that do not exist are None."""

        def figure(value: float) -> float | None:
            return value if math.isfinite(value) else None

        return {
            "layer": self.layer,
            "type": self.type,
            "index": self.index,
            "shape": list(self.shape),
            "count": self.count,
            "dtype": self.dtype,
            "min": figure(self.least),
            "max": figure(self.most),
            "mean": figure(self.mean),
            "std": figure(self.deviation),
            "l1": self.l1,
            "l2": self.l2,
            "zeros": self.zeros,
            "sparsity": self.sparsity,
            "nan": self.nans,
            "inf": self.infinite,
            "dead_filters": self.dead,
            "diff_stored": self.has_diff,
            "histogram": self.histogram,
        }


def examine(model: StoredModel) -> Iterator[BlobStats]:
    """Statistics of every blob in the file's order. Reads each blob twice; needs memory for one block."""
    for layer in model.layers:
        for blob in layer.blobs:
            yield stats(layer, blob)


def stats(layer: StoredLayer, blob: StoredBlob) -> BlobStats:
    """Statistics of one blob: moments in float64, merged block by block (Chan, Golub and LeVeque 1979)."""
    found = BlobStats(layer.name, layer.type, blob.index, blob.shape, blob.values, blob.dtype, blob.has_diff)
    filters = _filters(blob)
    largest = np.zeros(filters) if filters else None
    seen, mean, spread = 0, 0.0, 0.0
    squares = 0.0
    at = 0
    for block in blob.blocks():
        values = block.astype(np.float64)
        finite = np.isfinite(values)
        if not finite.all():
            found.nans += int(np.isnan(values).sum())
            found.infinite += int(np.isinf(values).sum())
        if largest is not None:
            _largest_by_filter(largest, np.nan_to_num(np.abs(values)), at, blob.values // filters)
        at += len(values)
        values = values[finite]
        if not values.size:
            continue
        found.zeros += int((values == 0).sum())
        found.l1 += float(np.abs(values).sum())
        squares += float((values * values).sum())
        found.least = float(np.fmin(found.least, values.min()))
        found.most = float(np.fmax(found.most, values.max()))
        own = float(values.mean())
        total = seen + values.size
        spread += float(((values - own) ** 2).sum()) + (own - mean) ** 2 * seen * values.size / total
        mean += (own - mean) * values.size / total
        seen = total
    found.l2 = math.sqrt(squares)
    if seen:
        found.mean, found.deviation = mean, math.sqrt(spread / seen)
        found.histogram = _histogram(blob, found.least, found.most)
    if largest is not None:
        found.dead = int((largest <= DEAD * largest.max(initial=0.0)).sum())
    return found


def _filters(blob: StoredBlob) -> int:
    """How many filters a blob holds: its first axis, where there are more behind it. Ones in front are an old layout."""
    shape = list(blob.shape)
    while blob.legacy and len(shape) > 1 and shape[0] == 1:
        shape.pop(0)
    return shape[0] if len(shape) > 1 and shape[0] > 0 and blob.values == blob.count else 0


def _largest_by_filter(largest: np.ndarray, magnitudes: np.ndarray, at: int, row: int) -> None:
    """Take a block that begins at value `at` into the largest magnitude of each filter of `row` values."""
    if not row:
        return
    first = at // row
    starts = np.arange(first, (at + len(magnitudes) - 1) // row + 1) * row - at
    starts[0] = 0
    part = np.maximum.reduceat(magnitudes, starts)
    largest[first : first + len(part)] = np.maximum(largest[first : first + len(part)], part)


def _histogram(blob: StoredBlob, least: float, most: float) -> list[int]:
    if least == most:
        return [0] * (BINS // 2) + [blob.values] + [0] * (BINS - BINS // 2 - 1)
    total = np.zeros(BINS, np.int64)
    for block in blob.blocks():
        total += np.histogram(block[np.isfinite(block)], BINS, (least, most))[0]
    return total.tolist()


def filter_grid(weights: np.ndarray, gap: int = 1) -> np.ndarray:
    """Filters as the classic grid: (filters, channels, h, w) to uint8 (height, width, 3).

    Three channels are blue, green, red as Caffe has them, and make one coloured tile; otherwise every channel of every filter is a
    grey tile, a row of tiles per filter where they fit. All tiles share one scale, from the smallest weight (black) to the largest.
    """
    if weights.ndim != 4:
        raise ValueError(f"filters have 4 axes, not {weights.ndim}")
    low, high = float(weights.min()), float(weights.max())
    scaled = (weights.astype(np.float64) - low) / (high - low or 1.0)  # (n, c, h, w)
    n, c, h, w = scaled.shape
    if c == 3:
        tiles = scaled[:, ::-1].transpose(0, 2, 3, 1)  # (n, h, w, rgb)
        columns = math.ceil(math.sqrt(n))
    else:
        tiles = np.repeat(scaled.reshape(n * c, h, w, 1), 3, axis=3)
        columns = c if 1 < c <= 64 else math.ceil(math.sqrt(n * c))
    rows = math.ceil(len(tiles) / columns)
    picture = np.ones((rows * (h + gap) + gap, columns * (w + gap) + gap, 3))
    for i, tile in enumerate(tiles):
        y, x = gap + (i // columns) * (h + gap), gap + (i % columns) * (w + gap)
        picture[y : y + h, x : x + w] = tile
    return np.round(picture * 255).astype(np.uint8)
