"""Which single setting, changed, would explain a shape: the guess in a question such as `pad 2 became 1?`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from .editions import Edition
from .errors import InspectorError
from .graph import Node
from .layers import Shape, create

# what stands for a repeated setting of a convolution that is left out
USUAL = {"pad": 0, "stride": 1, "dilation": 1}
GEOMETRY = ("pad", "kernel_size", "stride", "dilation", "num_output", "group", "crop_size", "batch_size", "axis", "global_pooling")
_BATCHES = ("data_param", "image_data_param", "window_data_param", "hdf5_data_param")
_WINDOWS = ("Convolution", "Deconvolution", "Im2col")
_TRIED = {"pad": range(33), "stride": range(1, 33), "kernel_size": range(1, 65), "dilation": range(1, 33)}


class Guess(NamedTuple):
    """A setting, what it would have been in the reference, and what it is in the model."""

    name: str
    reference: Any
    model: Any

    def __str__(self) -> str:
        return f"{self.name} {self.reference} became {self.model}"


class _Knob(NamedTuple):
    """A setting that a shape depends on: message and field of the LayerParameter, its value, what it might have been.

    A repeated field is written `times` times; 0 stands for one that is not repeated.
    """

    message: str
    field: str
    value: int
    tried: Iterable[int]
    times: int = 0

    def put(self, proto: Any, value: int) -> None:
        settings = getattr(proto, self.message)
        if self.times:
            getattr(settings, self.field)[:] = [value] * self.times
        else:
            setattr(settings, self.field, value)


def shapes_of(layer: Any, reads: Sequence[Shape], edition: Edition) -> list[Shape] | None:
    """What a layer would make of bottoms of these shapes; None where it refuses them, or they are not all known."""
    if len(reads) != len(layer.proto.bottom):
        return None
    try:
        shapes = [tuple(shape) for shape in layer.shapes(*reads)]
    except (InspectorError, ArithmeticError, IndexError):
        return None
    return shapes if edition.nd_blobs else [shape + (1,) * (4 - len(shape)) for shape in shapes]


def batch_size(node: Node) -> int:
    """The batch size that a data layer's settings say; 0 where they say none."""
    for message, value in node.layer.proto.ListFields():
        if message.name in _BATCHES:
            return int(value.batch_size)
    return 0


def guesses(node: Node, reads: Sequence[Shape], wanted: Sequence[Shape], edition: Edition) -> list[Guess]:
    """Single settings with which this layer would make `wanted` of bottoms of shapes `reads`; the smallest change first."""
    if node.layer.data:
        return list(_of_source(node, wanted))
    found = []
    for rank, knob in enumerate(_knobs(node, {size for shape in wanted for size in shape})):
        for value in sorted(set(knob.tried) - {knob.value}, key=lambda value: abs(value - knob.value)):
            proto = type(node.layer.proto)()
            proto.CopyFrom(node.layer.proto)
            knob.put(proto, value)
            layer = create(proto, node.layer.phase, edition)
            layer.num_tops = node.layer.num_tops
            if shapes_of(layer, reads, edition) == list(wanted):
                found.append((abs(value - knob.value), rank, Guess(knob.field, value, knob.value)))
                break
    return [guess for _, _, guess in sorted(found)]


def _knobs(node: Node, sizes: set[int]) -> Iterator[_Knob]:
    """The settings of a layer that its shapes depend on. `sizes` are those of the wanted shapes: outputs can only be among them."""
    proto = node.layer.proto
    if node.type in _WINDOWS:
        yield from _convolution(proto.convolution_param)
        yield _Knob("convolution_param", "num_output", proto.convolution_param.num_output, sizes)
    elif node.type == "Pooling":
        for name in ("pad", "stride", "kernel_size"):
            for field in _fields(proto.pooling_param, name):
                yield _Knob("pooling_param", field, getattr(proto.pooling_param, field), _TRIED[name])
    elif node.type in ("InnerProduct", "Embed"):
        message = "inner_product_param" if node.type == "InnerProduct" else "embed_param"
        yield _Knob(message, "num_output", getattr(proto, message).num_output, sizes)
    elif node.type in ("Concat", "Slice", "Flatten"):
        message = f"{node.type.lower()}_param"
        yield _Knob(message, "axis", getattr(proto, message).axis, range(5))


def _fields(param: Any, name: str) -> tuple[str, ...]:
    """The fields that say a size per axis: one for both, or NAME_h and NAME_w where these are set."""
    stem = name.removesuffix("_size")
    return (f"{stem}_h", f"{stem}_w") if name != "dilation" and param.HasField(f"{stem}_h") else (name,)


def _convolution(param: Any) -> Iterator[_Knob]:
    for name, tried in _TRIED.items():
        for field in _fields(param, name):
            if field != name:
                yield _Knob("convolution_param", field, getattr(param, field), tried)
                continue
            values = list(getattr(param, name))
            if len(set(values)) <= 1:
                current = values[0] if values else USUAL.get(name, 0)
                yield _Knob("convolution_param", field, current, tried, max(1, len(values)))


def _of_source(node: Node, wanted: Sequence[Shape]) -> Iterator[Guess]:
    """Another batch, or another crop."""
    shapes = [top.shape for top in node.tops]
    first = shapes[0] if shapes else None
    if first is None or None in shapes or not wanted or not wanted[0]:
        return
    batch, crop = batch_size(node), node.layer.proto.transform_param.crop_size
    other = wanted[0][0]
    if batch and list(wanted) == [(other, *(shape or ())[1:]) for shape in shapes]:
        yield Guess("batch_size", other, batch)
    side = wanted[0][-1]
    if crop and len(first) == 4 and list(wanted) == [(*first[:2], side, side), *shapes[1:]]:
        yield Guess("crop_size", side, crop)
