"""Caffe's DataTransformer: crop, mirror, mean and scale of one image, at random in TRAIN and from the centre in TEST.

Value = (pixel - mean) * scale, in float32. A mean image has the size of the uncropped image and is cropped with it, and it is not
mirrored: the image is turned after the mean was subtracted. (data_transformer.cpp)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..caffemodel import read_blob
from ..errors import InspectorError
from ..layers import Shape, shape_text
from ..layers.base import TRAIN
from ..lazy import np

if TYPE_CHECKING:
    from .base import Source


class Transform:
    """What one TransformationParameter does to images. `mean` is the content of its mean_file: channels x height x width."""

    def __init__(self, param: Any, phase: int, rng: np.random.Generator, mean: np.ndarray | None = None) -> None:
        if mean is not None and len(param.mean_value):
            raise InspectorError("has a mean_file and mean_values", code="transform-mean", remedy="remove one of them")
        if mean is not None and (mean.ndim not in (3, 4) or (mean.ndim == 4 and mean.shape[0] != 1)):
            message = f"the mean file holds {shape_text(mean.shape)}, not one image"
            raise InspectorError(message, code="mean-shape")
        self.crop = param.crop_size
        self.mirror = param.mirror
        self.scale = np.float32(param.scale)
        self.values = np.array(param.mean_value, np.float32)
        self.mean = None if mean is None else mean.reshape(mean.shape[-3:])
        self.train = phase == TRAIN
        self.rng = rng

    def shape(self, image: Shape) -> Shape:
        """Of the result, from channels x height x width; what is smaller than the crop stays as it is."""
        if self.crop and min(image[1:]) >= self.crop:
            return (image[0], self.crop, self.crop)
        return image

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """One image, channels x height x width, of bytes or floats, as float32. Raises InspectorError where Caffe would stop."""
        _, height, width = image.shape
        mirror = self.mirror and bool(self.rng.integers(2))
        mean = self._mean(image.shape)
        if self.crop:
            if min(height, width) < self.crop:
                raise InspectorError(
                    f"crops {self.crop} x {self.crop} from an image of {height} x {width}",
                    code="crop-size",
                    remedy="use larger images or a smaller crop_size",
                )
            rows, columns = height - self.crop, width - self.crop
            if self.train:
                top, left = int(self.rng.integers(rows + 1)), int(self.rng.integers(columns + 1))
            else:
                top, left = rows // 2, columns // 2
            window = np.s_[:, top : top + self.crop, left : left + self.crop]
            image = image[window]
            if mean is not None and mean.shape[1:] == (height, width):
                mean = mean[window]
        result = image.astype(np.float32)
        if mean is not None:
            result -= mean
        if self.scale != 1:
            result *= self.scale
        return result[:, :, ::-1] if mirror else result

    def _mean(self, image: Shape) -> np.ndarray | None:
        if self.mean is not None:
            if self.mean.shape != image:
                message = f"the mean image is {shape_text(self.mean.shape)}, and the image is {shape_text(image)}"
                raise InspectorError(message, code="mean-shape", remedy="both must have the same size, before the crop")
            return self.mean
        if not len(self.values):
            return None
        if len(self.values) not in (1, image[0]):
            message = f"has {len(self.values)} mean_values for {image[0]} channels"
            raise InspectorError(message, code="mean-values", remedy="give one, or one per channel")
        return self.values.reshape(-1, 1, 1)


def mean_of(source: Source) -> np.ndarray | None:
    """The mean image that a source's transform_param names, None if it names none. Raises UnreadableError."""
    written = source.proto.transform_param.mean_file
    if not written:
        return None
    path = source.find(written)
    source.lines.append(("mean-file", {"mean_file": written}))
    with source.blame(written, path):
        return read_blob(path)
