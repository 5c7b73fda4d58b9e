"""Where a net's data comes from: readers with Caffe's semantics for Data, ImageData, HDF5Data and MemoryData.

    open_source(layer, phase, folder, rng)      a Source: shapes(), lines, next(), close()
        data        LMDB and LevelDB: lmdb, leveldb, datum
        images      a list of image files: picture
        hdf5        rows of HDF5 files
        memory      arrays that a program holds
    transform       what Caffe's DataTransformer does to the images of the first two

`look` is what shape inference asks: shapes and log lines of a source if it is there, and what is wrong with it if it is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InspectorError
from ..layers import Shape
from ..lazy import np

if TYPE_CHECKING:
    from .base import Source

READERS = {"Data": ".data", "HDF5Data": ".hdf5", "ImageData": ".images", "MemoryData": ".memory"}


def open_source(
    layer: Any,
    phase: int,
    folder: Path | str = ".",
    rng: np.random.Generator | None = None,
    arrays: Sequence[np.ndarray] | None = None,
) -> Source:
    """The source of a data layer, given as its LayerParameter.

    Paths are taken from the current folder as Caffe does, else from `folder`, which should be that of the prototxt. `rng` seeds
    what is random: shuffling, and in TRAIN crops and mirrors. `arrays` are the content of a MemoryData.
    Raises InspectorError, naming the layer, if the type has no reader or the source is missing or broken; MissingExtra where a
    library is not installed.
    """
    if layer.type not in READERS:
        raise InspectorError(
            "has no source that can be read",
            code="no-reader",
            layer=layer.name,
            layer_type=layer.type,
            remedy=f"feed its tops; sources are read for {', '.join(READERS)}",
        )
    if arrays is not None and layer.type != "MemoryData":
        message = "takes no arrays; only MemoryData does"
        raise InspectorError(message, code="no-arrays", layer=layer.name, layer_type=layer.type)
    reader: Callable[..., Any] = getattr(import_module(READERS[layer.type], __name__), layer.type)
    own = np.random.default_rng() if rng is None else rng.spawn(1)[0]
    source = reader(layer, phase, Path(folder), own)
    if arrays is not None:
        source.hold(arrays)
    return source


@dataclass(slots=True)
class Look:
    """What a first look at a source gave: shapes of the tops by name, and Caffe's log lines; or the error that it ended in."""

    shapes: dict[str, Shape] = field(default_factory=dict)
    lines: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    error: InspectorError | None = None


def look(layer: Any, phase: int, folder: Path | str = ".") -> Look:
    """Shapes and lines of a layer's source, from its first record; nothing for layers without a source."""
    if layer.type not in READERS or layer.type == "MemoryData":
        return Look()
    try:
        with open_source(layer, phase, folder) as source:
            shapes = source.shapes()
            return Look({layer.top[i]: shape for i, shape in shapes.items() if i < len(layer.top)}, source.lines)
    except InspectorError as error:
        return Look(error=error)
