"""From an image file to what a net's input takes, as pycaffe's users got it. (python/caffe/io.py, classifier.py)

The rules, in their order:

1. **Load**: RGB as float32 from 0 to 1. Grey images are repeated to three channels, transparency is dropped, a palette is looked
   up. `gray` makes one channel, 0.2125 R + 0.7154 G + 0.0721 B. EXIF orientation is not applied, as it was not in Caffe's days.
2. **Resize** to `resize`, or to the net's input where nothing is cropped: bilinear with half-pixel centres, without smoothing
   before shrinking, and without regard to proportions. Where an enlarged image reaches over its edge, it fades to its darkest
   value, as in the scikit-image of Caffe's days.
3. **Crop** to the net's input: the centre, or `oversample`: four corners, centre, and the mirror images of the five.
4. **Channel order**: BGR, which Caffe's nets are trained on, or RGB.
5. **Scale and mean**: value = (pixel * raw_scale - mean) * input_scale. Means are in the net's channel order, in the
   units of raw_scale.
6. **Mirror**: left and right change places, after the mean as in Caffe's DataTransformer.

A mean **image** of the size of the resized image is subtracted before the crop, as Caffe did in training; one of the net's input
size, after it; one of any other size counts by its mean per channel, as in Caffe's examples. pycaffe itself refuses the first and
the last.

OpenCV's `blobFromImage` differs: `scalefactor` multiplies after the mean as input_scale does, but pixels are 0..255 without
raw_scale; `crop=True` resizes with the proportions kept, so that the shorter side fits, and cuts the rest off; its resize is
INTER_LINEAR on bytes, which repeats edges and rounds to whole levels; `swapRB` False is BGR, and the mean is in the order after
the swap.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from .caffemodel import read_blob
from .errors import InspectorError, UnreadableError
from .files import read_bytes, replacing
from .sources import picture

Size = tuple[int, int]  # height, width

CROPS = ("center", "oversample")
ORDERS = ("BGR", "RGB")
LUMA = (0.2125, 0.7154, 0.0721)  # scikit-image's rgb2gray


# ---- loading and saving


def load_image(source: str | os.PathLike[str] | bytes, *, gray: bool = False) -> np.ndarray:
    """An image file, or its content, as float32 height x width x 3 (RGB) or x 1, from 0 to 1 (caffe.io.load_image).

    Raises UnreadableError if it is no image that can be read, MissingExtra without Pillow.
    """
    with picture.opened(source if isinstance(source, bytes) else Path(source)) as image:
        if picture.sixteen_bits(image):
            values = np.asarray(image).astype(np.float64)[:, :, None] / 65535
        elif image.mode == "F":
            values = np.asarray(image).astype(np.float64)[:, :, None]
        elif image.mode in ("1", "L", "LA"):
            values = np.asarray(image.convert("L"))[:, :, None] / 255.0
        else:
            values = np.asarray(image.convert("RGB")) / 255.0
    if gray:
        return (values if values.shape[2] == 1 else values @ np.array(LUMA)[:, None]).astype(np.float32)
    return np.repeat(values, 3 // values.shape[2], axis=2).astype(np.float32)


def save_image(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Write an image, height x width x 3 (RGB) or x 1, of bytes or of floats from 0 to 1, in the format that its name asks for."""
    module = picture.pillow()
    if image.dtype != np.uint8:
        image = np.rint(np.nan_to_num(image).clip(0, 1) * 255).astype(np.uint8)
    kind = module.registered_extensions().get(Path(path).suffix.lower())
    if kind not in module.SAVE:
        raise InspectorError(
            f"cannot tell the format of '{os.fspath(path)}'", code="file", remedy="let its name end in .png or .jpg"
        )
    with replacing(path) as file:
        module.fromarray(image[:, :, 0] if image.shape[2] == 1 else np.ascontiguousarray(image)).save(file, format=kind)


# ---- pycaffe's functions on arrays


def resize_image(image: np.ndarray, size: Size) -> np.ndarray:
    """Resize height x width x channels to `size`, as caffe.io.resize_image does for 1 and 3 channels; float32.

    Bilinear with half-pixel centres, not smoothed; outside the image lies its smallest value. Computed in float64.
    """
    if tuple(image.shape[:2]) == tuple(size):
        return image.astype(np.float32, copy=False)
    outside = float(image.min())
    for axis in (0, 1) if size[0] * image.shape[1] <= size[1] * image.shape[0] else (1, 0):
        image = _stretched(image, size[axis], axis, outside)
    return image.astype(np.float32)


def _stretched(image: np.ndarray, new: int, axis: int, outside: float) -> np.ndarray:
    old = image.shape[axis]
    centre = (np.arange(new) + 0.5) * (old / new) - 0.5
    first = np.floor(centre).astype(np.int64)
    along = tuple(new if i == axis else 1 for i in range(3))
    part = (centre - first).reshape(along)

    def pixels(index: np.ndarray) -> np.ndarray:
        inside = ((index >= 0) & (index < old)).reshape(along)
        return np.where(inside, image.take(index.clip(0, old - 1), axis), outside)

    return pixels(first) * (1 - part) + pixels(first + 1) * part


def center_crop(image: np.ndarray, size: Size) -> np.ndarray:
    """The centre of height x width x channels; of an odd rest the smaller half is above and left (Classifier.predict)."""
    top, left = (image.shape[0] - size[0]) // 2, (image.shape[1] - size[1]) // 2
    return image[top : top + size[0], left : left + size[1]]


def oversample(image: np.ndarray, size: Size) -> np.ndarray:
    """Ten crops of height x width x channels: upper left, upper right, lower left, lower right, centre, and their mirror images
    (caffe.io.oversample)."""
    rows, columns = (0, image.shape[0] - size[0]), (0, image.shape[1] - size[1])
    crops = [image[top : top + size[0], left : left + size[1]] for top in rows for left in columns]
    crops.append(center_crop(image, size))
    return np.stack(crops + [crop[:, ::-1] for crop in crops])


# ---- the whole way


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What happens to an image on its way into the net; the module's docstring has the rules.

    `size` is the height and width of the net's input, which `fitted` takes from its shape. `mean` has one value per channel, or
    one for all; `mean_image` is channels x height x width instead, and `mean_file` where it came from.
    """

    resize: Size | None = None
    crop: str | None = None  # "center" | "oversample"
    mean: tuple[float, ...] = ()
    raw_scale: float = 255.0
    input_scale: float = 1.0
    mirror: bool = False
    channel_order: str = "BGR"
    gray: bool = False
    size: Size | None = None
    mean_image: np.ndarray | None = field(default=None, compare=False, repr=False)
    mean_file: str = ""

    def __post_init__(self) -> None:
        if self.crop not in (None, *CROPS):
            raise InspectorError(f"there is no crop '{self.crop}'", code="crop", remedy=f"use {' or '.join(CROPS)}")
        if self.channel_order not in ORDERS:
            raise InspectorError(f"there is no channel order '{self.channel_order}'", code="channel-order", remedy="use BGR or RGB")
        for name, size in (("resize", self.resize), ("size", self.size)):
            if size is not None and (min(size) < 1 or size[0] * size[1] > picture.MAX_PIXELS):
                raise InspectorError(f"{name} takes a height and a width, not {size}", code="image-size")
        if not np.isfinite([*self.mean, self.raw_scale, self.input_scale]).all():
            raise InspectorError("mean and scales must be finite numbers", code="scale")
        if self.mean and self.mean_image is not None:
            raise InspectorError("takes a mean per channel or a mean image, not both", code="mean")

    @property
    def channels(self) -> int:
        return 1 if self.gray else 3

    @property
    def crops(self) -> int:
        """How many items one image becomes."""
        return 10 if self.crop == "oversample" else 1

    def fitted(self, shape: tuple[int, ...]) -> Preprocessing:
        """The same for an input blob of N x channels x height x width: its size, and grey where it has one channel.

        Raises InspectorError for blobs that no image fits into, and for a mean of other channels.
        """
        if len(shape) != 4 or shape[1] not in (1, 3) or min(shape[2:]) < 1:
            text = " x ".join(map(str, shape))
            raise InspectorError(
                f"an input of {text} takes no image",
                code="no-image-input",
                remedy="images need N x 3 x H x W or N x 1 x H x W; feed other arrays from an .npz",
            )
        if self.gray and shape[1] == 3:
            raise InspectorError("the input has 3 channels, and gray makes 1", code="channels", remedy="leave gray out")
        fitted = replace(self, size=(shape[2], shape[3]), gray=shape[1] == 1)
        if self.mean or self.mean_image is not None:
            fitted._mean((*shape[2:], shape[1]))
        return fitted

    def with_mean(self, text: str) -> Preprocessing:
        """The same with a mean from a .npy or .binaryproto file, or from numbers such as `104,117,123`, one per channel.

        Raises InspectorError; UnreadableError if the file holds something else.
        """
        try:
            values = tuple(float(value) for value in text.split(","))
        except ValueError:
            return replace(self, mean=(), mean_image=read_mean(text), mean_file=text)
        return replace(self, mean=values, mean_image=None, mean_file="")

    def apply(self, image: np.ndarray) -> np.ndarray:
        """An image of `load_image`, height x width x channels from 0 to 1, as a blob: float32 N x channels x height x width.

        N is 10 with oversample, else 1. Raises InspectorError if the crop or the mean does not fit.
        """
        if image.ndim != 3 or image.shape[2] != self.channels:
            shape = " x ".join(map(str, image.shape))
            raise InspectorError(f"takes height x width x {self.channels}, not {shape}", code="channels")
        target = self.resize or (None if self.crop else self.size)
        if target is not None:
            image = resize_image(image, target)
        image = image[:, :, self._order] * np.float32(self.raw_scale)
        early = self.mean_image is not None and self.mean_image.shape[1:] == image.shape[:2]
        if early:
            image = image - self._mean(image.shape)
        crops = self._cropped(image)
        if not early and (self.mean or self.mean_image is not None):
            crops = crops - self._mean(crops.shape[1:])
        if self.input_scale != 1:
            crops = crops * np.float32(self.input_scale)
        if self.mirror:
            crops = crops[:, :, ::-1]
        return np.ascontiguousarray(crops.transpose(0, 3, 1, 2), np.float32)

    def undo(self, blob: np.ndarray) -> np.ndarray:
        """Images out of a blob, N x channels x height x width: N x height x width x channels, RGB, from 0 to 1 where the net kept
        to it (Transformer.deprocess). Crops stay crops."""
        images = blob.transpose(0, 2, 3, 1)
        if self.mirror:
            images = images[:, :, ::-1]
        images = images / np.float32(self.input_scale)
        if self.mean or self.mean_image is not None:
            images = images + self._mean(images.shape[1:])
        order = self._order if images.shape[3] == 3 else slice(None)
        return (images / np.float32(self.raw_scale))[..., order]

    @property
    def _order(self) -> slice:
        return slice(None, None, -1 if self.channel_order == "BGR" and not self.gray else 1)

    def _cropped(self, image: np.ndarray) -> np.ndarray:
        if self.crop is None:
            return image[None]
        have = image.shape[:2]
        if self.size is None or self.size[0] > have[0] or self.size[1] > have[1]:
            wanted = "nobody knows how much" if self.size is None else by(self.size)
            raise InspectorError(
                f"crops {wanted} from an image of {by(have)}", code="crop-size", remedy="resize to more, or do not crop"
            )
        return oversample(image, self.size) if self.crop == "oversample" else center_crop(image, self.size)[None]

    def _mean(self, shape: tuple[int, ...]) -> np.ndarray:
        """The mean for height x width x channels, in a form that broadcasts over it."""
        *size, channels = shape
        if self.mean_image is None:
            mean = np.array(self.mean, np.float32)
            have = len(mean)
        else:
            same = self.mean_image.shape[1:] == tuple(size)
            mean = self.mean_image.transpose(1, 2, 0) if same else self.mean_image.mean((1, 2), np.float64).astype(np.float32)
            have = len(self.mean_image)
        if have not in (1, channels):
            raise InspectorError(f"the mean has {have} channels, and the input has {channels}", code="mean-channels")
        return mean

    # ---- what was applied, for people and for programs

    def describe(self) -> list[str]:
        """The steps in words and in order."""
        kind = "grey 0..1" if self.gray else "RGB 0..1"
        steps = [f"load as {kind}, without transparency, orientation as stored"]
        target = self.resize or (None if self.crop else self.size)
        if target is not None:
            steps.append(f"resize to {by(target)}, bilinear, not smoothed, proportions not kept")
        if not self.gray:
            steps.append(f"channels in {self.channel_order} order")
        if self.raw_scale != 1:
            steps.append(f"multiply by {self.raw_scale:g}, so that pixels go from 0 to {self.raw_scale:g}")
        mean = self._describe_mean(target)
        crop = {None: [], "center": ["crop the centre"], "oversample": ["ten crops: corners, centre, and their mirror images"]}[
            self.crop
        ]
        crop = [f"{text}, {by(self.size)}" if self.size else text for text in crop]
        early = self.mean_image is not None and self.mean_image.shape[1:] == target
        steps += mean + crop if early else crop + mean
        if self.input_scale != 1:
            steps.append(f"multiply by {self.input_scale:g}")
        if self.mirror:
            steps.append("mirror left and right")
        return steps

    def _describe_mean(self, target: Size | None) -> list[str]:
        if self.mean:
            return ["subtract the mean " + ", ".join(f"{value:g}" for value in self.mean)]
        if self.mean_image is None:
            return []
        size = self.mean_image.shape[1:]
        if size in (target, self.size):
            return [f"subtract the mean image '{self.mean_file}'"]
        values = ", ".join(f"{value:g}" for value in self.mean_image.mean((1, 2), np.float64))
        return [f"subtract {values}, the mean per channel of '{self.mean_file}', which is {by(size)}"]

    def to_dict(self) -> dict[str, Any]:
        """Everything that was applied, for JSON."""
        return {
            "gray": self.gray,
            "resize": list(self.resize) if self.resize else None,
            "crop": self.crop,
            "size": list(self.size) if self.size else None,
            "channel_order": None if self.gray else self.channel_order,
            "raw_scale": self.raw_scale,
            "mean": list(self.mean) or None,
            "mean_file": self.mean_file or None,
            "mean_shape": None if self.mean_image is None else list(self.mean_image.shape),
            "input_scale": self.input_scale,
            "mirror": self.mirror,
            "steps": self.describe(),
        }


def by(size: Size) -> str:
    """A height and a width in words: `227 x 227`."""
    return f"{size[0]} x {size[1]}"


def read_mean(path: str | os.PathLike[str]) -> np.ndarray:
    """A mean from a file: .npy or BlobProto, told apart by content; float32, channels x height x width.

    A .npy of one axis counts as channels, of two as height x width. Pickles are not loaded. Raises UnreadableError.
    """
    data = read_bytes(path)
    if data.startswith(b"\x93NUMPY"):
        try:
            mean = np.load(io.BytesIO(data), allow_pickle=False)
        except (ValueError, EOFError, OSError, MemoryError) as error:
            raise UnreadableError(f"'{os.fspath(path)}' is no array that can be read: {error}", code="corrupt-file") from None
    else:
        mean = read_blob(path)
    if mean.dtype.kind not in "fiu":
        raise UnreadableError(f"'{os.fspath(path)}' holds {mean.dtype}, and a mean is numbers", code="mean-shape")
    if mean.ndim == 4 and len(mean) == 1:
        mean = mean[0]
    shapes = {1: (-1, 1, 1), 2: (1, *mean.shape), 3: mean.shape}
    if mean.ndim not in shapes or 0 in mean.shape or len(mean.reshape(shapes[mean.ndim])) not in (1, 3):
        text = " x ".join(map(str, mean.shape))
        raise UnreadableError(
            f"'{os.fspath(path)}' holds {text}, which is no mean", code="mean-shape", remedy="a mean is channels x height x width"
        )
    return mean.reshape(shapes[mean.ndim]).astype(np.float32)


_IMAGENET = (256, 256)
_MEAN = (104.0, 117.0, 123.0)

# How each family of nets was trained, as its authors or Caffe's examples say.
PRESETS: Mapping[str, Preprocessing] = MappingProxyType(
    {
        "caffenet": Preprocessing(resize=_IMAGENET, crop="center", mean=(104.00699, 116.66877, 122.67892)),  # of ILSVRC 2012
        "googlenet": Preprocessing(resize=_IMAGENET, crop="center", mean=_MEAN),
        "vgg": Preprocessing(resize=_IMAGENET, crop="center", mean=(103.939, 116.779, 123.68)),
        "resnet": Preprocessing(resize=_IMAGENET, crop="center", mean=(103.0626, 115.9029, 123.1516)),  # of ResNet_mean.binaryproto
        "mobilenet": Preprocessing(resize=_IMAGENET, crop="center", mean=(103.94, 116.78, 123.68), input_scale=0.017),
        "squeezenet": Preprocessing(resize=_IMAGENET, crop="center", mean=_MEAN),
        "lenet": Preprocessing(gray=True, input_scale=1 / 256),
        "none": Preprocessing(),  # what a data layer without transform_param gives: BGR from 0 to 255
    }
)
