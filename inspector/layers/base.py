"""What a layer is: arity, shapes, parameters, costs, forward and backward, as functions of shapes and of arrays.

A layer holds its LayerParameter and nothing else. Adding a type is one class, registered under its prototxt name::

    @register("ReLU")
    class ReLU(Neuron):
        def forward(self, ctx, x): ...
        def backward(self, ctx, dy): ...

Rules common to all layers are those of Caffe's layer.hpp (blob counts) and blob.hpp/blob.cpp (axes, limits).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar

from ..editions import MASTER, Arity, Edition
from ..errors import Refusal

if TYPE_CHECKING:
    import numpy as np

Shape = tuple[int, ...]

TRAIN, TEST = 0, 1
MAX_AXES = 32
FOUR_AXES = ("num", "channels", "height", "width")  # what blobs had before rc3
INT_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class ParamShape:
    """One parameter blob that a layer owns: what it is called in prose, its shape, and its FillerParameter (None: zeros).

    A `fixed` one is a running statistic, which no solver touches: its lr_mult is 0 whatever the net says.
    """

    name: str
    shape: Shape
    filler: Any = None
    fixed: bool = False


@dataclass(frozen=True, slots=True)
class Costs:
    """Operations of one forward pass over the whole batch, by kind. A multiply-accumulate is one `mac`, not two operations."""

    mac: int = 0
    bias: int = 0  # additions of a bias, apart so that totals can be stated with and without
    add: int = 0  # additions and subtractions
    multiply: int = 0
    divide: int = 0
    compare: int = 0
    exponential: int = 0  # exp, log, power, square root, tanh, ...

    def __add__(self, other: Costs) -> Costs:
        return Costs(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Costs)))

    def __mul__(self, times: int) -> Costs:
        return Costs(*(getattr(self, f.name) * times for f in fields(Costs)))


class Context:
    """What one layer's forward leaves for its backward, and what both may ask of the executor.

    `train` is the phase, `rng` the net's one seeded generator, `bottoms` how many of the arrays are bottoms (parameters follow),
    `needs` says for each array whether its gradient is wanted, `saved` belongs to the layer.
    """

    __slots__ = ("bottoms", "needs", "rng", "saved", "train")

    def __init__(self, *, train: bool, rng: np.random.Generator, bottoms: int, needs: Sequence[bool] = ()) -> None:
        self.train = train
        self.rng = rng
        self.bottoms = bottoms
        self.needs = tuple(needs)
        self.saved: Any = None

    def wants(self, index: int) -> bool:
        """Whether the gradient of array `index` is wanted; all are where nobody said otherwise."""
        return not self.needs or self.needs[index]


def count(shape: Iterable[int]) -> int:
    """Elements of a blob; 1 for a scalar, whose shape is ()."""
    return math.prod(shape)


def shape_text(shape: Sequence[int]) -> str:
    """A shape in words, as messages print it: `10 x 96 x 55 x 55`, `scalar`."""
    return " x ".join(map(str, shape)) or "scalar"


def caffe_shape(shape: Sequence[int]) -> str:
    """A shape as Caffe prints it in messages, sizes and count (Blob::shape_string): `10 96 55 55 (2904000)`, `(1)` for a scalar."""
    return " ".join([*map(str, shape), f"({count(shape)})"])


def int32(value: int) -> int:
    """A number of the prototxt as Caffe's int holds it: uint32 fields from 2^31 on turn negative."""
    return (value + 2**31) % 2**32 - 2**31


def described(*parts: tuple[str, float, float]) -> str:
    """`name value` of every (name, value, default) that is not at its default, for `Layer.settings`."""
    return " ".join(f"{name} {value:g}" for name, value, default in parts if value != default)


def filler_or(param: Any, constant: float) -> Any:
    """The FillerParameter of a layer's parameter message; where it sets none, one that fills with `constant`."""
    return param.filler if param.HasField("filler") else type(param.filler)(type="constant", value=constant)


class Layer:
    """Base of every layer: the common answers. Subclasses override what differs."""

    type: ClassVar[str] = ""
    bottoms: Arity = 1
    tops: Arity = 1
    one_top_per_bottom: ClassVar[bool] = False  # Caffe's EqualNumBottomTopBlobs
    loss: ClassVar[bool] = False  # derives from LossLayer: automatic top, whose default loss weight is 1
    data: ClassVar[bool] = False  # makes its tops from a source outside the net
    in_caffe: ClassVar[bool] = True  # one of BVLC master's types
    rule: ClassVar[str] = "that of the bottom"  # the shapes of the tops, in words
    messages: ClassVar[tuple[str, ...]] = ()  # of LayerParameter, with its settings; () where the code that reads them tells
    moves: ClassVar[bool] = False  # a type of a fork that computes nothing, so that a cost of 0 is its cost

    def __init__(self, proto: Any, phase: int = TEST, edition: Edition = MASTER) -> None:
        self.proto = proto
        self.phase = phase
        self.edition = edition
        self.num_tops = len(proto.top)  # connect() raises it where Caffe adds automatic tops

    # ---- what the graph asks

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        """Shapes of the tops, after every check that Caffe's LayerSetUp and Reshape make, in Caffe's order.

        Raises Refusal where Caffe stops. The base answer: each top is like the first bottom.
        """
        return [bottoms[0]] * self.num_tops

    def params(self, *bottoms: Shape) -> Sequence[ParamShape]:
        """The parameter blobs that the layer creates, in Caffe's order. Called only after `shapes` has accepted the bottoms."""
        return ()

    def initial(self, index: int) -> np.ndarray | None:
        """What parameter `index` holds at first, where the layer itself says so and no filler."""
        return None

    def costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Costs:
        """Operations of one forward pass. A layer that only moves data costs nothing."""
        return Costs()

    @property
    def counted(self) -> bool:
        """Whether `costs` says what the layer does. A fork's type that never says is not taken to cost nothing."""
        return self.in_caffe or self.moves or type(self).costs is not Layer.costs

    def backward_costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape], wanted: Sequence[bool]) -> Costs:
        """Operations of one backward pass; `wanted` says of each bottom, then of each parameter, whether its gradient is.

        The base answer: each wanted gradient of a bottom takes what forward takes, shared out evenly among the bottoms.
        """
        forward, bottom = self.costs(bottoms, tops), sum(wanted[: len(bottoms)])
        return Costs(*(getattr(forward, f.name) * bottom // max(1, len(bottoms)) for f in fields(Costs)))

    def workspace(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        """Elements of the buffer into which Caffe's layer unrolls images; only convolutions have one."""
        return 0

    def settings(self) -> str:
        """The settings that matter, in the short form of the summary table, such as `11x11/4 96 g2`."""
        return ""

    def sources(self) -> Sequence[str]:
        """Paths that the layer would read, as written; only data layers have any."""
        return ()

    def can_force_backward(self, bottom: int) -> bool:
        """Whether `force_backward` reaches this bottom (Caffe's AllowForceBackward): not through a loss's labels."""
        return bottom != 1 if self.loss else True

    # ---- what the executor asks

    def forward(self, ctx: Context, *arrays: np.ndarray) -> Sequence[np.ndarray]:
        """Top arrays from bottom arrays followed by parameter arrays. Never writes to a bottom; keeps the dtype it is given."""
        raise NotImplementedError(f"{self.type} has no forward")

    def backward(self, ctx: Context, *top_diffs: np.ndarray) -> Sequence[np.ndarray | None]:
        """One gradient per array that `forward` took, in the same order; None where there is none or `ctx.wants` it not."""
        raise NotImplementedError(f"{self.type} has no backward")

    # ---- helpers for subclasses

    @property
    def in_place(self) -> bool:
        """Whether the first top bears the first bottom's name: in Caffe both are one memory, and some gradients show it."""
        return bool(self.proto.bottom) and self.proto.top[:1] == self.proto.bottom[:1]

    def refuse(self, code: str, message: str, *, remedy: str = "", **values: Any) -> NoReturn:
        """Raise the Refusal of this layer: `values` are the numbers that Caffe's own message would print."""
        values = {"type": self.type, **values}
        raise Refusal(message, code=code, layer=self.proto.name, layer_type=self.type, remedy=remedy, **values)

    def checks(self, code: str) -> bool:
        """Whether this edition made a check that Caffe's last version makes."""
        return code not in self.edition.unchecked and f"{code}:{self.type}" not in self.edition.unchecked

    def axis(self, index: int, shape: Shape) -> int:
        """A possibly negative axis as a position in `shape` (Blob::CanonicalAxisIndex)."""
        if not -len(shape) <= index < len(shape):
            self.refuse(
                "axis-out-of-range" if index >= len(shape) else "axis-out-of-range-negative",
                f"axis {index} is outside a blob of {len(shape)} axes ({shape_text(shape)})",
                remedy=f"use {-len(shape)} to {len(shape) - 1}" if shape else "a scalar has no axes",
                axis=index,
                axes=len(shape),
                least=-len(shape),
                shape=caffe_shape(shape),
            )
        return index % len(shape)

    def check_same_axes(self, code: str, first: Shape, other: Shape, *, since: int = 1) -> None:
        """Before rc3, axis by axis: two blobs whose channels, height and width agree; with `since` 0 their num too."""
        for axis, a, b in list(zip(("num", "channels", "height", "width"), first, other, strict=False))[since:]:
            if a != b:
                relation = f"takes blobs of one {axis}, and these have {a} and {b}"
                self.refuse(f"{code}-{axis}", relation, remedy="make the shapes equal", a=a, b=b)

    def legacy(self, shape: Shape, index: int) -> int:
        """num, channels, height or width (0 to 3) of a blob of up to 4 axes; 1 for a missing axis (Blob::LegacyShape)."""
        if len(shape) > 4:
            self.refuse(
                "legacy-axes",
                f"works on at most 4 axes, and this blob has {len(shape)} ({shape_text(shape)})",
                remedy="reshape it to num x channels x height x width before this layer",
                axes=len(shape),
            )
        return shape[index] if index < len(shape) else 1

    def check_counts(self, bottoms: int) -> None:
        """Blob counts against the arity, in Caffe's order and relations (Layer::CheckBlobCounts)."""
        arities = self.edition.bottoms.get(self.type, self.bottoms), self.edition.tops.get(self.type, self.tops)
        for kind, have, arity in (("bottom", bottoms, arities[0]), ("top", self.num_tops, arities[1])):
            least, most = (arity, arity) if isinstance(arity, int) else arity
            verb = "takes" if kind == "bottom" else "produces"
            if isinstance(arity, int):
                if have != arity:
                    self.refuse(
                        f"{kind}-count-exact", f"{verb} exactly {arity} {kind} blob(s), and {have} are named", need=arity, have=have
                    )
            elif have < (least or 0):
                self.refuse(
                    f"{kind}-count-least", f"{verb} at least {least} {kind} blob(s), and {have} are named", need=least, have=have
                )
            elif most is not None and have > most:
                self.refuse(
                    f"{kind}-count-most", f"{verb} at most {most} {kind} blob(s), and {have} are named", need=most, have=have
                )
        if self.one_top_per_bottom and bottoms != self.num_tops:
            self.refuse(
                "count-equal",
                f"makes one top for each bottom, and {bottoms} bottoms and {self.num_tops} tops are named",
                bottoms=bottoms,
                tops=self.num_tops,
            )

    def check_blob(self, shape: Shape) -> Shape:
        """`shape`, if Caffe could hold it: at most 32 axes, no negative size, fewer than 2^31 elements (Blob::Reshape)."""
        if len(shape) > MAX_AXES:
            self.refuse("too-many-axes", f"a blob has at most {MAX_AXES} axes, not {len(shape)}", axes=len(shape))
        total = 1
        for size in shape:
            if size < 0:
                which = FOUR_AXES[shape.index(size)] if len(shape) == len(FOUR_AXES) else None
                text = f"makes a blob of negative size {size} ({shape_text(shape)})"
                self.refuse("negative-size", text, size=size, shape=shape, which=which)
            if total and size > INT_MAX // total:
                self.refuse(
                    "blob-too-large",
                    f"makes a blob of {shape_text(shape)}, more than {INT_MAX} elements",
                    remedy="reduce the batch or the sizes",
                    size=size,
                    limit=INT_MAX // total,
                )
            total *= size
        return shape


class Unknown(Layer):
    """A type that nobody registered: it stays in the graph with shapes unknown until somebody says more."""

    bottoms = (0, None)
    tops = (0, None)
    in_caffe = False

    def __init__(self, proto: Any, phase: int = TEST, edition: Edition = MASTER) -> None:
        super().__init__(proto, phase, edition)
        self.type = proto.type  # type: ignore[misc]  # a class fact for all others, an instance's own here


registry: dict[str, type[Layer]] = {}
retired: dict[str, type[Layer]] = {}  # types that master no longer has

L = TypeVar("L", bound=type[Layer])


def register(name: str) -> Callable[[L], L]:
    """Class decorator: make a layer known under its prototxt name."""

    def enter(cls: L) -> L:
        if name in registry:
            raise ValueError(f"layer type {name} is registered twice")
        cls.type = name
        registry[name] = cls
        return cls

    return enter


def create(proto: Any, phase: int = TEST, edition: Edition = MASTER) -> Layer:
    """The layer of a LayerParameter; `Unknown` where its type is not registered."""
    if proto.type in edition.retired_types:
        return retired[proto.type](proto, phase, edition)
    cls = Unknown if proto.type in edition.absent_types else registry.get(proto.type, Unknown)
    return cls(proto, phase, edition)
