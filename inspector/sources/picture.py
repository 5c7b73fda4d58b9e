"""Image files as bytes, decoded by Pillow into what OpenCV gave Caffe: height x width x channels, blue first.

* **Colour** (imread's flag 1): three channels whatever the file has; grey is repeated, transparency dropped, 16 bits cut to 8.
* **Grey** (flag 0): one channel. A JPEG's luma is taken as it is stored; a PNG's is libpng's, 0.299 R + 0.587 G + 0.114 B in 15
  bits rounded down; others use OpenCV's, the same weights in 14 bits rounded to nearest.
* **As stored** (flag -1, what an encoded Datum gets unless the net forces a colour): 1, 3 or 4 channels.

EXIF orientation is not applied: OpenCV of Caffe's days did not know it, and the nets were trained on what it gave. JPEG decoders
may differ by a level or two. Formats that would start another program (PostScript) are not opened.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtra, UnreadableError
from ..files import read_bytes
from ..lazy import np

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("BMP", "DIB", "GIF", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "SUN", "TGA", "TIFF", "WEBP")
SUFFIXES = (
    ".bmp",
    ".dib",
    ".gif",
    ".jp2",
    ".jpe",
    ".jpeg",
    ".jpg",
    ".pbm",
    ".pgm",
    ".png",
    ".ppm",
    ".tga",
    ".tif",
    ".tiff",
    ".webp",
)
MAX_PIXELS = 1 << 28  # an image larger than that is taken for an attack


def pillow() -> Any:
    """The module PIL.Image. Raises MissingExtra."""
    try:
        import PIL.Image
    except ImportError:
        remedy = 'pip install "alexinspect[images]"'
        raise MissingExtra("image files need Pillow", code="missing-extra", remedy=remedy, extra="images") from None
    PIL.Image.init()  # until then only the commonest formats can be named
    return PIL.Image


@contextmanager
def opened(source: Path | str | bytes, name: str = "") -> Iterator[Image]:
    """An image file, or its content, as a Pillow image whose pixels may not be decoded yet.

    Raises UnreadableError for anything that is no image, also when it turns out inside the block, where it is decoded.
    """
    module = pillow()
    data = source if isinstance(source, bytes) else read_bytes(source)
    who = name or ("the image" if isinstance(source, bytes) else f"'{source}'")
    try:
        with module.open(io.BytesIO(data), formats=[known for known in FORMATS if known in module.OPEN]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UnreadableError(
                    f"{who} has {image.width} x {image.height} pixels, more than {MAX_PIXELS}", code="image-too-large"
                )
            yield image
    except module.DecompressionBombError:
        raise UnreadableError(f"{who} has far too many pixels", code="image-too-large") from None
    # what Pillow's decoders raise on damaged files
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, OverflowError, struct.error) as error:
        unknown = isinstance(error, module.UnidentifiedImageError)
        what = "is no image that can be read" if unknown else f"is a damaged image: {error}"
        raise UnreadableError(f"{who} {what}", code="broken-image", remedy="convert it to PNG or JPEG, or fetch it again") from None


def decode(source: Path | str | bytes, color: bool | None = True, name: str = "") -> np.ndarray:
    """An image as OpenCV reads it: uint8, height x width x channels, blue first; `color` None means as stored.

    Raises UnreadableError; MissingExtra without Pillow.
    """
    with opened(source, name) as image:
        if color is None:
            return _as_stored(image, name)
        return _color(image) if color else _grey(image)


def sixteen_bits(image: Image) -> bool:
    """Whether Pillow holds 16 bits of grey per pixel."""
    return image.mode.startswith("I")


def _as_stored(image: Image, name: str) -> np.ndarray:
    if sixteen_bits(image) or image.mode == "F":
        raise UnreadableError(
            f"{name or 'the image'} has more than 8 bits per channel, which Caffe refuses as it is stored",
            code="broken-image",
            remedy="set force_color or force_gray in transform_param",
        )
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))[:, :, None]
    if image.mode in ("LA", "RGBA", "PA") or (image.mode == "P" and "transparency" in image.info):
        return np.ascontiguousarray(np.asarray(image.convert("RGBA"))[:, :, (2, 1, 0, 3)])
    return _color(image)


def _color(image: Image) -> np.ndarray:
    if sixteen_bits(image):
        return np.repeat(_cut(image), 3, axis=2)
    return np.ascontiguousarray(np.asarray(image.convert("RGB"))[:, :, ::-1])


def _grey(image: Image) -> np.ndarray:
    if image.format in ("JPEG", "MPO"):
        image.draft("L", image.size)
    if sixteen_bits(image):
        return _cut(image)
    if image.mode in ("1", "L", "LA"):
        return np.asarray(image.convert("L"))[:, :, None]
    red, green, blue = np.moveaxis(np.asarray(image.convert("RGB")).astype(np.int32), 2, 0)
    if image.format == "PNG":
        grey = (9797 * red + 19234 * green + 3737 * blue) >> 15  # weights cut to 15 bits, blue takes the rest
        grey = np.where((red == green) & (red == blue), red, grey)
    else:
        grey = (4899 * red + 9617 * green + 1868 * blue + (1 << 13)) >> 14
    return grey.astype(np.uint8)[:, :, None]


def _cut(image: Image) -> np.ndarray:
    return (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)[:, :, None]


# ---- OpenCV's resize, INTER_LINEAR on bytes

UNIT = 2048  # weights have 11 bits


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize bytes (height x width x channels) as cv::resize does: bilinear, half-pixel centres, edges repeated, not smoothed.

    Fixed-point, as OpenCV computes it: weights of 11 bits; sums lose 4 bits after the rows, 16 after the columns, and the last 2
    are rounded.
    """
    if image.shape[:2] == (height, width):
        return image
    left, right, a, b = _taps(image.shape[1], width, stop_at_edges=True)
    upper, lower, c, d = _taps(image.shape[0], height, stop_at_edges=False)

    def row(index: np.ndarray) -> np.ndarray:
        rows = image[index].astype(np.int32)
        return (rows[:, left] * a[None, :, None] + rows[:, right] * b[None, :, None]) >> 4

    above, below = (row(upper) * c[:, None, None]) >> 16, (row(lower) * d[:, None, None]) >> 16
    return ((above + below + 2) >> 2).clip(0, 255).astype(np.uint8)


def _taps(old: int, new: int, *, stop_at_edges: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """For every pixel of one axis, the two that it is made of, and their weights.

    Outside the image OpenCV sets the second weight of a column to 0, while a row keeps both weights on the same edge.
    """
    centre = ((np.arange(new) + 0.5) * (1.0 / (new / old)) - 0.5).astype(np.float32)
    first = np.floor(centre).astype(np.int64)
    part = centre - first.astype(np.float32)
    if stop_at_edges:
        part[(first < 0) | (first >= old - 1)] = 0
    weights = [np.rint(share * np.float32(UNIT)).astype(np.int32) for share in (np.float32(1) - part, part)]
    return first.clip(0, old - 1), (first + 1).clip(0, old - 1), weights[0], weights[1]
