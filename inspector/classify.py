"""What `run` does: a net's answers to images, or to arrays, as plain data.

One item is one image. Its answer is every output blob without the batch axis; of ten crops the mean (pycaffe's Classifier).
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from . import batches
from .errors import InspectorError, UnreadableError
from .files import trouble
from .foreign import HEAD, recognise
from .graph import Blob
from .layers import Shape, shape_text
from .lazy import np

if TYPE_CHECKING:
    from .net import Net
    from .preprocess import Preprocessing
    from .recipe import Recipe

Arrays = dict[str, Any]  # of NumPy arrays by the names of blobs

# what np.load and zipfile raise on damaged files
DAMAGED = (zipfile.BadZipFile, zlib.error, ValueError, EOFError, MemoryError, TypeError, KeyError, NotImplementedError)

PROBABLE = ("Softmax", "Sigmoid")  # layers whose outputs are scores of classes whatever else the net puts out
SHOWN = 16  # an output with no more values than that is shown in full


# ---- inputs


def image_input(net: Net, name: str | None = None) -> Blob:
    """The input that takes images: the one of that name, or the only one of N x 3 x H x W or N x 1 x H x W.

    Raises InspectorError if there is none, or more than one.
    """
    if name is not None:
        if name not in net.inputs:
            raise InspectorError(f"the net has no input '{name}'", code="no-such-input", remedy=f"it has {_listed(net.inputs)}")
        return net.blob(name).root
    blobs = [net.blob(name).root for name in net.inputs]
    fitting = [blob for blob in blobs if blob.shape and len(blob.shape) == 4 and blob.shape[1] in (1, 3)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        several = f"the inputs {_listed(blob.name for blob in fitting)} all take images"
        raise InspectorError(several, code="image-input", remedy="choose one with --input, and feed the others with --npz")
    shapes = ", ".join(f"'{blob.name}' {shape_text(blob.shape or ())}" for blob in blobs) or "none"
    readers = [node for node in net.layers if node.layer.data and node.type not in ("Input", "DummyData")]
    raise InspectorError(
        f"no input takes images: the inputs are {shapes}",
        code="image-input",
        remedy="use a deploy net, or `alexinspect test`" if readers else "images need N x 3 x H x W or N x 1 x H x W; use --npz",
    )


def check_fed(net: Net, fed: Iterable[str]) -> None:
    """Raise InspectorError unless every blob that comes from outside the net is among those fed."""
    known = set(fed)
    for node in net.layers:
        lost = [top.name for top in node.tops if top.name not in known]
        if node.layer.data and node.type != "DummyData" and lost:
            raise InspectorError(
                f"nothing is given for '{lost[0]}'",
                code="input-not-given",
                layer=node.name,
                layer_type=node.type,
                remedy=f"put an array '{lost[0]}' into a file for --npz"
                + ("" if node.type == "Input" else ", or use a deploy net; `alexinspect test` reads data layers"),
            )


def read_arrays(path: str, net: Net) -> Arrays:
    """Arrays of an .npz by the names of the inputs that they are for. Pickles are not loaded.

    Raises UnreadableError if it cannot be read, InspectorError if an array is for no input.
    """
    names = [top.name for node in net.layers if node.layer.data for top in node.tops] or net.inputs
    arrays = read_npz(path)
    for name, array in arrays.items():
        if name not in names:
            message = f"'{path}' has an array '{name}', and the net has no such input"
            raise InspectorError(message, code="no-such-input", remedy=f"it has {_listed(names)}")
        if array.dtype.kind not in "fiub":
            raise InspectorError(f"'{path}': array '{name}' holds {array.dtype}, and a blob is numbers", code="fed-type")
    if not arrays:
        raise InspectorError(f"'{path}' holds no array", code="no-arrays", remedy=f"the inputs are {_listed(names)}")
    return arrays


def read_npz(path: str) -> Arrays:
    """The arrays of an .npz by name. Pickles are not loaded. Raises UnreadableError."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123  # np.load takes the file
            start = file.read(HEAD)
            if not start.startswith(b"PK"):  # NumPy would take it for a pickle, and say how to load one
                what = recognise(start, len(start)) or "it holds something else"
                raise UnreadableError(f"'{path}' is no .npz: {what}", code="corrupt-file")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
    except DAMAGED as error:
        raise UnreadableError(f"'{path}' is no .npz that can be read: {error}", code="corrupt-file") from None
    except OSError as error:
        raise trouble(path, error) from None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "none"


# ---- answers


@dataclass(slots=True)
class Answers:
    """What came out for a batch: `blobs` has an item for each name. `broken` are images before them that could not be read."""

    names: list[str]
    blobs: Arrays
    broken: list[tuple[str, InspectorError]]


class Runner:
    """A net that answers image after image: the preprocessing fitted to its input, the blobs to keep, a size of batches.

    `blobs` are kept instead of the net's outputs, if any are named; `others` are arrays for further inputs, the same for every
    batch. A batch has as many images as the net was written for, or `batch`. Raises InspectorError where something does not fit.
    """

    def __init__(
        self,
        net: Net,
        recipe: Recipe,
        blobs: Sequence[str] = (),
        *,
        input_name: str | None = None,
        others: Mapping[str, Any] | None = None,
        batch: int | None = None,
        check_numerics: bool = False,
    ) -> None:
        net.check()
        self.net = net
        self.others = dict(others or {})
        self.blobs = list(blobs) or net.outputs
        self.check_numerics = check_numerics
        blob = image_input(net, input_name)
        self.input = blob.name
        check_fed(net, [blob.name, *self.others])
        for name in self.blobs:
            net.blob(name)
        images = recipe.preprocessing.fitted(blob.shape or ())
        self.preprocessing = replace(images, size=None) if recipe.keep and images.crop is None else images
        self.batch = self._settle(batch)

    def _settle(self, batch: int | None) -> int:
        """How many images go together: only one where an output is not made of an item for each."""
        crops, shape = self.preprocessing.crops, self.shape
        images = batch or max(1, shape[0] // crops)
        self._reshape((images * crops, *shape[1:]))
        if images > 1 and any((self.net.blob(name).shape or ())[:1] != (images * crops,) for name in self.blobs):
            images = 1
        return images

    @property
    def shape(self) -> Shape:
        """Of the input at the moment."""
        return self.net.blob(self.input).root.shape or ()

    def _reshape(self, shape: Shape) -> None:
        shapes = {self.input: shape, **{name: np.shape(array) for name, array in self.others.items()}}
        if any(self.net.blob(name).root.shape != shape for name, shape in shapes.items()):
            self.net.reshape(**shapes)

    def __call__(self, paths: Sequence[str]) -> Iterator[Answers]:
        """The answers to image files, in their order; a few images are in memory at a time."""
        size = min(self.batch, max(1, len(paths)))
        with batches.ahead(batches.read(paths, self.preprocessing, size)) as read:
            for batch in read:
                yield Answers(batch.names, self._answer(batch) if batch.names else {}, batch.broken)

    def _answer(self, batch: batches.Batch) -> Arrays:
        rows, crops = batch.blob, self.preprocessing.crops
        self._reshape(rows.shape)
        fed: Arrays = {self.input: rows, **self.others}
        values = self.net.forward(self.blobs, check_numerics=self.check_numerics, **fed)
        return {name: _by_image(value, len(batch.names), crops) for name, value in values.items()}


def _by_image(value: np.ndarray, images: int, crops: int) -> np.ndarray:
    """A blob with one item for each image; what has no item for each row is one image's as a whole."""
    if value.shape[:1] != (images * crops,):
        return value[None]
    return value if crops == 1 else value.reshape(images, crops, *value.shape[1:]).mean(1, dtype=np.float32)


def answer_arrays(net: Net, arrays: Arrays, blobs: Sequence[str] = (), *, check_numerics: bool = False) -> Arrays:
    """The net's outputs, or `blobs`, on arrays for its inputs, to whose shapes it is brought. Raises InspectorError."""
    net.check()
    check_fed(net, arrays)
    shapes = {name: array.shape for name, array in arrays.items()}
    if any(net.blob(name).root.shape != shape for name, shape in shapes.items()):
        net.reshape(**shapes)
    return net.forward(list(blobs) or None, check_numerics=check_numerics, **arrays)


# ---- reports


@dataclass(frozen=True, slots=True)
class Class:
    """One of the best classes: its number, its name where there are labels, its score."""

    index: int
    label: str | None
    score: float


@dataclass(frozen=True, slots=True)
class Output:
    """What there is to say of one blob of one item: the best classes of scores; else its values if they are few."""

    blob: str
    shape: Shape
    least: float
    mean: float
    most: float
    best: list[Class] = field(default_factory=list)
    values: list[float] | None = None


class Reporter:
    """Says what an item's blobs mean: which are scores of classes, and what the classes are called.

    Scores are one value for each class, where a layer of probabilities made them, where the labels are as many, or where there is
    no other blob. `top` 0 ranks nothing. Raises InspectorError (`labels-count`) if the labels fit no blob and `insist`.
    """

    def __init__(self, net: Net, blobs: Sequence[str], top: int = 5, labels: Sequence[str] = (), *, insist: bool = True) -> None:
        self.top = top
        self.labels = labels
        self.ranked: set[str] = set()
        sizes = {}
        for name in blobs:
            blob = net.blob(name)
            shape = blob.shape or ()
            if len(shape) > 1 and math.prod(shape[2:]) == 1 and shape[1] > 1:
                sizes[name] = shape[1]
                probable = blob.maker is not None and blob.maker.type in PROBABLE
                if probable or shape[1] == len(labels) or len(blobs) == 1:
                    self.ranked.add(name)
        if labels and insist and len(labels) not in sizes.values():
            have = ", ".join(f"'{name}' has {size}" for name, size in sizes.items()) or "none has any"
            raise InspectorError(
                f"the labels name {len(labels)} classes, and of the outputs {have}",
                code="labels-count",
                remedy="name the file that belongs to this net",
            )

    def __call__(self, name: str, item: np.ndarray) -> Output:
        """Of the blob `name`, one item, without the batch axis."""
        flat = item.reshape(-1)
        best: list[Class] = []
        if self.top and name in self.ranked and item.shape[:1] == flat.shape:  # a larger image makes a map of what was one score
            labels = self.labels if len(self.labels) == len(flat) else ()
            order = np.argsort(-flat, kind="stable")[: self.top]
            best = [Class(int(i), labels[i] if labels else None, float(flat[i])) for i in order]
        values = [float(value) for value in flat] if not best and len(flat) <= SHOWN else None
        low, mean, high = (float(flat.min()), float(flat.mean()), float(flat.max())) if len(flat) else (math.nan,) * 3
        return Output(name, item.shape, low, mean, high, best, values)


def picture(value: np.ndarray, preprocessing: Preprocessing) -> np.ndarray | None:
    """One item of a blob, channels x height x width, as an image for `preprocess.save_image`; None where it is none.

    As many channels as the input has are an image like it, and preprocessing is undone; one channel else is a map, drawn from its
    least value, black, to its largest; more are scores of classes, and each pixel is the number of the best, spread from 0 to 255.
    """
    if value.ndim != 3 or value.shape[1] * value.shape[2] < 2:
        return None
    if value.shape[0] == preprocessing.channels:
        return preprocessing.undo(value[None])[0]
    if value.shape[0] == 1:
        span = value.max() - value.min()
        return ((value - value.min()) / (span or 1)).transpose(1, 2, 0)
    best = value.argmax(0)[:, :, None]
    return (best * (255 // (len(value) - 1))).astype(np.uint8) if len(value) <= 256 else None
