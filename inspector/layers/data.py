"""Where data enters the net or leaves it: Input, DummyData, MemoryData, Data, ImageData, WindowData, HDF5Data, HDF5Output.

What a source holds is not known from the prototxt. `given` names the shapes of tops that the user or the source has settled;
without it a shape follows from the settings as far as they go, and is None from there on. What has to be supposed is said in
`assumptions`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .. import fillers
from ..editions import MASTER, Edition
from .base import TEST, Context, Layer, Shape, int32, register, shape_text

if TYPE_CHECKING:
    import numpy as np


class Source(Layer):
    """A layer without bottoms."""

    bottoms = 0
    data = True

    def __init__(self, proto: Any, phase: int = TEST, edition: Edition = MASTER) -> None:
        super().__init__(proto, phase, edition)
        self.given: dict[str, Shape] = {}
        self.assumptions: list[str] = []

    def shapes(self, *bottoms: Shape) -> Sequence[Shape | None]:  # type: ignore[override]  # only sources may not know
        raise NotImplementedError

    def sources(self) -> list[str]:
        """Paths that the layer would read, as the prototxt names them."""
        return []

    def given_top(self, index: int) -> Shape | None:
        """The shape given for a top, if one is."""
        return self.given.get(self.proto.top[index]) if index < len(self.proto.top) else None

    def forward(self, ctx: Context, *arrays: np.ndarray) -> Sequence[np.ndarray]:
        raise NotImplementedError(f"{self.type} has no forward: feed its tops")

    def backward(self, ctx: Context, *top_diffs: np.ndarray) -> Sequence[np.ndarray | None]:
        return []


@register("Input")
class Input(Source):
    """A blob that the caller fills; `shape` once, once per top, or not at all::

        layer { type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 227 dim: 227 } } }

    (Caffe's InputLayer)
    """

    rule = "what `shape` says, or what the caller gives"
    tops = (1, None)

    def shapes(self, *bottoms: Shape) -> Sequence[Shape | None]:  # type: ignore[override]
        shapes = self.proto.input_param.shape
        if len(shapes) not in (0, 1, self.num_tops):
            self.refuse(
                "input-shape-count",
                f"has {self.num_tops} tops and {len(shapes)} shapes",
                remedy="give `shape` once, once per top, or not at all",
                tops=self.num_tops,
                shapes=len(shapes),
            )
        found: list[Shape | None] = []
        for i in range(self.num_tops):
            own = tuple(shapes[0 if len(shapes) == 1 else i].dim) if shapes else None
            given = self.given_top(i)  # may be (), the shape of a scalar
            found.append(own if given is None else given)
        return found

    def forward(self, ctx: Context, *arrays: np.ndarray) -> Sequence[np.ndarray]:
        return []  # its tops are what the caller put there


@register("DummyData")
class DummyData(Source):
    """Blobs made by fillers; constant ones stay as they are, others are filled anew in every forward::

        layer { type: "DummyData" top: "x" dummy_data_param { shape { dim: 10 dim: 3 } data_filler { type: "gaussian" } } }

    (Caffe's DummyDataLayer)
    """

    rule = "what `shape` says, or num x channels x height x width"
    tops = (1, None)

    def shapes(self, *bottoms: Shape) -> Sequence[Shape | None]:  # type: ignore[override]
        param, tops = self.proto.dummy_data_param, self.num_tops
        if len(param.data_filler) not in (0, 1, tops):
            self.refuse(
                "dummy-filler-count",
                f"has {tops} tops and {len(param.data_filler)} data fillers",
                remedy="give data_filler once, once per top, or not at all",
                tops=tops,
                have=len(param.data_filler),
            )
        old = [name for name in ("num", "channels", "height", "width") if len(getattr(param, name))]
        if old and len(param.shape):
            self.refuse(
                "dummy-shape-and-legacy",
                f"gives `shape` and `{old[0]}`, which say the same in two ways",
                remedy=f"remove {', '.join(old)}",
                a=0,
                b=len(param.shape),
            )
        for name in ("num", "channels", "height", "width") if old else ("shape",):
            have = len(getattr(param, name))
            if have not in (1, tops):
                self.refuse(
                    f"dummy-{name}-count",
                    f"has {tops} tops and gives `{name}` {have} times",
                    remedy=f"give {name} once, or once per top",
                    tops=tops,
                    have=have,
                )
        for filler in param.data_filler:
            fillers.check_name(filler, self.edition)
        found = [self._shape(i, old=bool(old)) for i in range(tops)]
        for i, shape in enumerate(found):
            filler = self._filler(i)
            if filler is not None and filler.type == "constant":  # others are first filled in a forward
                fillers.check(filler, self.check_blob(shape))
        return found

    def _shape(self, top: int, *, old: bool) -> Shape:
        param = self.proto.dummy_data_param

        def pick(values: Sequence[Any]) -> Any:
            return values[0 if len(values) == 1 else top]

        if old:
            return tuple(int32(pick(values)) for values in (param.num, param.channels, param.height, param.width))
        return tuple(pick(param.shape).dim)

    def _filler(self, top: int) -> Any | None:
        given = self.proto.dummy_data_param.data_filler
        return given[top if len(given) > 1 else 0] if given else None

    def forward(self, ctx: Context, *arrays: np.ndarray) -> Sequence[np.ndarray]:
        return [fillers.fill(self._filler(i), shape, ctx.rng) for i, shape in enumerate(self.shapes()) if shape is not None]


@register("MemoryData")
class MemoryData(Source):
    """A batch that a program hands over, with labels::

        layer { type: "MemoryData" top: "data" top: "label" memory_data_param { batch_size: 10 channels: 3 height: 32 width: 48 } }

    (Caffe's MemoryDataLayer)
    """

    rule = "batch_size x channels x height x width, and batch_size labels"
    tops = 2

    def shapes(self, *bottoms: Shape) -> Sequence[Shape | None]:  # type: ignore[override]
        _check_mean(self)
        param = self.proto.memory_data_param
        batch = int32(param.batch_size)
        shape = (batch, int32(param.channels), int32(param.height), int32(param.width))
        size = int32(batch * shape[1] * shape[2] * shape[3])
        if size <= 0:
            self.refuse(
                "memory-data-size",
                f"has a blob of {shape_text(shape)}",
                remedy="give batch_size, channels, height and width, each at least 1",
                a=size,
                b=0,
            )
        return [shape, (batch,)]

    def sources(self) -> list[str]:
        return _mean_file(self)


@register("Data")
class Data(Source):
    """Images and labels from an LMDB or LevelDB database::

        layer { type: "Data" top: "data" top: "label" data_param { source: "train_lmdb" batch_size: 256 } }

    (Caffe's DataLayer)
    """

    rule = "batch_size x the images' shape, cut to crop_size, and batch_size labels"
    tops = (1, 2)

    def shapes(self, *bottoms: Shape) -> Sequence[Shape | None]:  # type: ignore[override]
        _check_mean(self)
        transform = self.proto.transform_param
        data = self.given_top(0)
        if data is not None:
            data = _cropped(self, data, "datum")
        elif transform.crop_size:
            channels = 1 if transform.force_gray else 3
            data = (self.proto.data_param.batch_size, channels, transform.crop_size, transform.crop_size)
            self.assumptions = [
                f"'{self.proto.top[0]}' is supposed to have {channels} channel(s); its height and width are the crop size"
            ]
        batch = data[0] if data else self.proto.data_param.batch_size
        return [data, self.given_top(1) or (batch,)][: self.num_tops]

    def sources(self) -> list[str]:
        return _named(self.proto.data_param.source) + _mean_file(self)

    def settings(self) -> str:
        return _crop_text(self)


@register("ImageData")
class ImageData(Source):
    """Images and labels from a list of files::

        layer { type: "ImageData" top: "data" top: "label" image_data_param { source: "list.txt" batch_size: 8 } }

    (Caffe's ImageDataLayer)
    """

    rule = (
        "batch_size x channels x height x width of the images, resized to new_height x new_width, cut to crop_size; batch_size "
        "labels"
    )
    tops = 2

    def shapes(self, *bottoms: Shape) -> Sequence[Shape | None]:  # type: ignore[override]
        _check_mean(self)
        param, crop = self.proto.image_data_param, self.proto.transform_param.crop_size
        new = (param.new_height, param.new_width)
        if bool(new[0]) != bool(new[1]):
            self.refuse(
                "image-new-size",
                f"has new_height {new[0]} and new_width {new[1]}",
                remedy="set both or none",
                new_height=new[0],
                new_width=new[1],
            )
        data, batch = self.given_top(0), int32(param.batch_size)
        channels = 3 if param.is_color else 1
        if data is not None:
            data = _cropped(self, data, "img")
        elif new[0]:
            data = _cropped(self, (batch, channels, *new), "img")
        elif crop:
            data = (batch, channels, crop, crop)
        if batch <= 0:
            self.refuse("image-batch", f"has batch_size {batch}", remedy="use at least 1", a=batch, b=0)
        return [data, self.given_top(1) or (data[0] if data else batch,)]

    def sources(self) -> list[str]:
        param = self.proto.image_data_param
        return _named(param.source, param.root_folder) + _mean_file(self)

    def settings(self) -> str:
        param = self.proto.image_data_param
        new = f"{param.new_height}x{param.new_width}" if param.new_height else ""
        return " ".join(word for word in (new, _crop_text(self)) if word)


@register("WindowData")
class WindowData(Source):
    """Windows of images, warped to the crop size, after a list of boxes (R-CNN)::

        layer { type: "WindowData" top: "data" top: "label" window_data_param { source: "windows.txt" } }

    (Caffe's WindowDataLayer)
    """

    rule = "batch_size x channels x crop_size x crop_size, and batch_size labels"
    tops = 2

    def shapes(self, *bottoms: Shape) -> Sequence[Shape | None]:  # type: ignore[override]
        _check_mean(self)
        crop, batch = int32(self.proto.transform_param.crop_size), self.proto.window_data_param.batch_size
        if crop <= 0:
            self.refuse("window-crop", "needs a crop size and has none", remedy="set transform_param.crop_size", a=crop, b=0)
        data = self.given_top(0)
        if data is None:
            data = (batch, 3, crop, crop)
            self.assumptions = [f"'{self.proto.top[0]}' is supposed to have 3 channels; the window file says how many"]
        return [data, self.given_top(1) or (data[0],)]

    def sources(self) -> list[str]:
        param = self.proto.window_data_param
        return _named(param.source, param.root_folder) + _mean_file(self)

    def settings(self) -> str:
        return _crop_text(self)


@register("HDF5Data")
class HDF5Data(Source):
    """Blobs of any shape from HDF5 files that a list names; each top is the data set of its name::

        layer { type: "HDF5Data" top: "data" top: "label" hdf5_data_param { source: "files.txt" batch_size: 10 } }

    Only the batch size is known without the files. (Caffe's HDF5DataLayer)
    """

    rule = "batch_size x the shape of one row of each data set"
    tops = (1, None)

    def shapes(self, *bottoms: Shape) -> Sequence[Shape | None]:  # type: ignore[override]
        if self.proto.HasField("transform_param"):
            self.refuse("hdf5-transform", "does not transform data", remedy="remove transform_param")
        return [self.given_top(i) for i in range(self.num_tops)]

    def sources(self) -> list[str]:
        return _named(self.proto.hdf5_data_param.source)


@register("HDF5Output")
class HDF5Output(Layer):
    """Writes two blobs to an HDF5 file, as `data` and `label`::

        layer { type: "HDF5Output" bottom: "fc7" bottom: "label" hdf5_output_param { file_name: "features.h5" } }

    `alexinspect run` and `test` write it, and so does `Net.open_outputs`; a forward alone writes nothing. (Caffe's HDF5OutputLayer)
    """

    rule = "no tops"
    bottoms = 2
    tops = 0

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        return []

    def forward(self, ctx: Context, *arrays: np.ndarray) -> Sequence[np.ndarray]:
        return []

    def backward(self, ctx: Context, *top_diffs: np.ndarray) -> Sequence[np.ndarray | None]:
        return [None, None]


# ---- what DataTransformer does for all of them


def _check_mean(layer: Source) -> None:
    transform = layer.proto.transform_param
    if transform.HasField("mean_file") and len(transform.mean_value):
        layer.refuse(
            "transform-mean",
            f"has a mean_file and {len(transform.mean_value)} mean_value(s)",
            remedy="remove one of them",
            a=len(transform.mean_value),
            b=0,
        )


def _cropped(layer: Source, shape: Shape, what: str) -> Shape:
    """The top from the shape of the images in the source: cut to the crop size, which they must reach (InferBlobShape)."""
    crop = int32(layer.proto.transform_param.crop_size)
    if not crop or len(shape) != 4:
        return shape
    for axis, name in ((2, "height"), (3, "width")):
        if shape[axis] < crop:
            layer.refuse(
                f"crop-{what}-{name}",
                f"crops {crop} x {crop} from images of {shape[2]} x {shape[3]}",
                remedy="use larger images or a smaller crop_size",
                a=shape[axis],
                b=crop,
            )
    return (*shape[:2], crop, crop)


def _named(*paths: str) -> list[str]:
    return [path for path in paths if path]


def _mean_file(layer: Source) -> list[str]:
    return _named(layer.proto.transform_param.mean_file)


def _crop_text(layer: Source) -> str:
    crop = layer.proto.transform_param.crop_size
    return f"crop {crop}" if crop else ""
