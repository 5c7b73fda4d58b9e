"""What a run said of an image, as a section of the page: the image, its best classes, and blobs as tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InspectorError, MissingExtra
from ..weight_stats import filter_grid
from .page import Extra

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
    return _png(grid.repeat(scale, 0).repeat(scale, 1))


def _photo(path: str) -> bytes:
    """The image file, made small."""
    image_module = _pillow()
    try:
        with image_module.open(path) as image:
            small = image.convert("RGB")
    except (OSError, ValueError) as error:
        raise InspectorError(f"cannot draw '{path}': {error}", code="file") from None
    small.thumbnail((WIDE, WIDE))
    return _png(np.asarray(small))


def _png(pixels: np.ndarray) -> bytes:
    out = BytesIO()
    _pillow().fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        message = "pictures on the page need Pillow"
        raise MissingExtra(message, code="missing-extra", remedy="pip install 'alexinspect[images]'") from None
    return Image
