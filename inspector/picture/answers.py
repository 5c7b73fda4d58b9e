"""What a run said of an image, as a section of the page: the image, its best classes, and blobs as tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..sources.picture import opened
from ..weight_stats import filter_grid
from .page import Extra, encoded

if TYPE_CHECKING:
    from ..classify import Output

MOST = 12  # images on one page
CHANNELS = 64  # of a blob; the first ones are drawn
WIDE = 320  # pixels of a photo on the page


def answer(path: str, outputs: Sequence[Output], item: Mapping[str, np.ndarray]) -> Extra:
    """The section of one image. `item` are its blobs, (channels, height, width) or flat. Raises MissingExtra without Pillow."""
    pairs: list[tuple[str, str]] = []
    for output in outputs:
        pairs += [(best.label or f"class {best.index}", f"{best.score:.4f}") for best in output.best]
        if not output.best:
            shape = " × ".join(map(str, output.shape)) or "scalar"
            pairs.append((output.blob, f"{shape}, {output.least:.4g} to {output.most:.4g}, mean {output.mean:.4g}"))
    images = [(path, _photo(path))]
    images += [(_caption(name, value), _tiles(value)) for name, value in item.items() if value.ndim == 3 and value[0].size > 1]
    return Extra(path, pairs, images)


def _caption(name: str, value: np.ndarray) -> str:
    shown = f", the first {CHANNELS} of {len(value)} channels" if len(value) > CHANNELS else f", {len(value)} channel(s)"
    return f"{name}{shown}; black {value[:CHANNELS].min():.3g}, white {value[:CHANNELS].max():.3g}"


def _tiles(value: np.ndarray) -> bytes:
    grid = filter_grid(np.nan_to_num(value[:CHANNELS, None]))
    scale = max(1, WIDE // grid.shape[1])
    return encoded(grid.repeat(scale, 0).repeat(scale, 1))


def _photo(path: str) -> bytes:
    """The image file, made small."""
    with opened(Path(path)) as image:
        small = image.convert("RGB")
    small.thumbnail((WIDE, WIDE))
    return encoded(np.asarray(small))
