"""The same net at another batch or image size, and the largest batch that fits into some memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .build import build
from .errors import InspectorError, Refusal
from .graph import Graph
from .layers import Shape
from .summary import batch as batch_of

if TYPE_CHECKING:
    from .net import Net

UNITS = {"": 1, "b": 1, "bytes": 1, **{f"{letter}ib": 1024**i for i, letter in enumerate("kmgt", 1)}}
UNITS.update({f"{letter}b": 1000**i for i, letter in enumerate("kmgt", 1)})
MOST = 2**31 - 1  # no axis of Caffe's is longer
OWN_SHAPES = ("MemoryData", "DummyData")  # sources that take no shape from outside


def graph_of(net: Net, size: int) -> Graph:
    """The net's graph with `size` as the leading axis of every source that has the batch there now.

    Raises the Refusal if Caffe would not build that.
    """
    now = batch_of(net.graph)
    if now is None:
        raise InspectorError("the net has no input with a batch of known size", code="no-batch", remedy="give --shape")
    return _rebuilt(net, lambda shape: (size, *shape[1:]) if shape[:1] == (now,) else shape)


def _rebuilt(net: Net, change: Callable[[Shape], Shape]) -> Graph:
    """The net's graph with the shapes of its sources changed; a crop follows the image."""
    proto = type(net.draft.proto)()
    proto.CopyFrom(net.draft.proto)
    layers = {layer.name: layer for layer in proto.layer}
    given = dict(net.given)
    for node in net.graph.nodes:
        if node.bottoms:
            continue
        shapes = [change(blob.shape) if blob.shape is not None else None for blob in node.tops]
        if node.type in OWN_SHAPES:
            _write(layers[node.name], shapes)
        else:
            given.update((blob.name, shape) for blob, shape in zip(node.tops, shapes, strict=True) if shape is not None)
        crop = layers[node.name].transform_param if node.name in layers else None
        if crop is not None and crop.crop_size and shapes and shapes[0] is not None and len(shapes[0]) == 4:
            crop.crop_size = shapes[0][2]
    graph = build(net.draft.then(proto, net.draft.origins, []), given, net.edition, allow_python=net.allow_python)
    if graph.error is not None and net.graph.error is None:
        raise graph.error
    return graph


def _write(layer: Any, shapes: Sequence[Shape | None]) -> None:
    """Shapes into the settings of a source that says them itself."""
    known = [shape for shape in shapes if shape is not None]
    if layer.type == "MemoryData":
        param = layer.memory_data_param
        param.batch_size, param.channels, param.height, param.width = known[0]
        return
    param = layer.dummy_data_param
    for name in ("num", "channels", "height", "width", "shape"):
        param.ClearField(name)
    for shape in known:
        param.shape.add(dim=shape)


def rebatched(net: Net, size: int) -> None:
    """Give the net that batch; for reports, which look at nothing but its graph."""
    net.graph = graph_of(net, size)


def resized(net: Net, size: int) -> None:
    """Give the net square images of that size, for reports: all four-axis sources change."""
    net.graph = _rebuilt(net, lambda shape: (*shape[:2], size, size) if len(shape) == 4 else shape)


def bytes_in(text: str) -> int:
    """`12GiB`, `11.5 GB`, `800 MiB` or a number of bytes, as bytes: KiB, MiB, ... are powers of 1024, kB, MB, ... of 1000.

    Raises InspectorError (`unknown-size`).
    """
    match = re.fullmatch(r"\s*([0-9]{1,18})(?:\.([0-9]{1,9}))?\s*([a-z]*)\s*", text.lower())
    if not match or match[3] not in UNITS:
        raise InspectorError(f"'{text}' is no amount of memory", code="unknown-size", remedy="write it like 12GiB or 500MB")
    part = match[2] or ""
    return int(match[1] + part) * UNITS[match[3]] // 10 ** len(part)


class Builder:
    """Builds one net at many batch sizes, each only once."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self._built: dict[int, Graph | None] = {}

    def graph(self, size: int) -> Graph | None:
        """The graph at that batch; None where Caffe would refuse it, as with a blob of 2^31 elements."""
        if size not in self._built:
            try:
                self._built[size] = graph_of(self.net, size)
            except Refusal:
                self._built[size] = None
        return self._built[size]

    def largest(self, room: int, needs: Callable[[Graph], int]) -> int | None:
        """The largest batch whose `needs` are at most `room` bytes, 0 if there is none; None if the batch does not matter.

        Exact: the net is built at that batch and at the next. The needs grow with the batch, for most nets by the same for each
        image, which is where the search begins.
        """

        def fits(size: int) -> bool:
            graph = self.graph(size) if size <= MOST else None
            return graph is not None and needs(graph) <= room

        if not fits(1):
            return 0
        if not fits(2):
            return 1
        one, two = (needs(graph) for graph in (self.graph(1), self.graph(2)) if graph is not None)
        if two == one:
            return None
        guess = min(MOST, (room - one) // (two - one) + 1)
        least, most = (guess, guess + 1) if fits(guess) else (1, guess)
        while fits(most):
            least, most = most, 2 * most
        while most - least > 1:
            middle = (least + most) // 2
            least, most = (middle, most) if fits(middle) else (least, middle)
        return least
