"""Layers that merge blobs, part them, or pass on some of their items."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from ..lazy import LazyModule, np
from .base import FOUR_AXES, MAX_AXES, Context, Costs, Layer, Shape, caffe_shape, count, int32, register, shape_text

if TYPE_CHECKING:
    from numpy import ndarray

    from ..kernels import combine as kernel
    from ..kernels import linear
else:
    kernel = LazyModule("inspector.kernels.combine")
    linear = LazyModule("inspector.kernels.linear")

PROD, SUM, MAX = 0, 1, 2  # EltwiseParameter.EltwiseOp


@register("Eltwise")
class Eltwise(Layer):
    """Elementwise product, sum (with a coefficient per bottom) or maximum of bottoms of one shape.

    layer { name: "res2a" type: "Eltwise" bottom: "branch1" bottom: "branch2c" top: "res2a" eltwise_param { operation: SUM } }

    Caffe: eltwise_layer.cpp. The gradient of a maximum goes to one bottom, of equal ones among the first two to the second.
    `stable_prod_grad: false` computes a product's gradient as the quotient of top and bottom.
    """

    rule = "that of the bottoms, which are all alike"
    bottoms = (2, None)

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        p = self.proto.eltwise_param
        if p.coeff and len(p.coeff) != len(bottoms):
            self.refuse(
                "eltwise-coeff-count",
                f"{len(p.coeff)} coefficients for {len(bottoms)} bottoms",
                remedy="give one coeff per bottom, or none",
            )
        if p.coeff and p.operation == PROD:
            self.refuse("eltwise-coeff-product", "a product takes no coefficients", remedy="remove coeff, or use operation: SUM")
        for i, shape in enumerate(bottoms):
            if not self.edition.nd_blobs:
                self.check_same_axes("eltwise", bottoms[0], shape, since=0)
            if shape != bottoms[0]:
                self.refuse(
                    "eltwise-shapes",
                    f"bottoms of different shapes: '{self.proto.bottom[0]}' is {shape_text(bottoms[0])}, "
                    f"'{self.proto.bottom[i]}' is {shape_text(shape)}",
                    remedy="make the shapes equal",
                    first=caffe_shape(bottoms[0]),
                    index=i,
                    other=caffe_shape(shape),
                )
        return [bottoms[0]]

    def _coefficients(self, bottoms: int) -> Sequence[float]:
        return list(self.proto.eltwise_param.coeff) or [1.0] * bottoms

    def costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Costs:
        """One operation less than there are bottoms for every element, and a multiplication per coefficient that is not 1."""
        pairs, elements = len(bottoms) - 1, count(tops[0])
        operation = self.proto.eltwise_param.operation
        if operation == PROD:
            return Costs(multiply=pairs * elements)
        if operation == MAX:
            return Costs(compare=pairs * elements)
        return Costs(add=pairs, multiply=sum(c != 1 for c in self._coefficients(len(bottoms)))) * elements

    def backward_costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape], wanted: Sequence[bool]) -> Costs:
        """For each wanted bottom and element. SUM: the coefficient where it is not 1; MAX: a comparison and a multiplication;
        PROD: a product of the others and a multiplication, or a quotient and a multiplication."""
        p, pairs = self.proto.eltwise_param, len(bottoms) - 1
        if p.operation == SUM:
            scaled = sum(c != 1 for c, want in zip(self._coefficients(len(bottoms)), wanted, strict=False) if want)
            return Costs(multiply=scaled * count(tops[0]))
        if p.operation == MAX:
            each = Costs(compare=1, multiply=1)
        else:
            each = Costs(multiply=pairs) if p.stable_prod_grad else Costs(divide=1, multiply=1)
        return each * (sum(wanted[: len(bottoms)]) * count(tops[0]))

    def settings(self) -> str:
        p = self.proto.eltwise_param
        return " ".join([("PROD", "SUM", "MAX")[p.operation], *(f"{c:g}" for c in p.coeff)])

    def forward(self, ctx: Context, *arrays: ndarray) -> Sequence[ndarray]:
        first, *rest = arrays
        operation = self.proto.eltwise_param.operation
        if operation == SUM:
            coefficients = self._coefficients(len(arrays))
            y = np.asarray(first * coefficients[0], first.dtype)
            for x, c in zip(rest, coefficients[1:], strict=True):
                y += x if c == 1 else x * c
        else:
            y = first.copy()
            for x in rest:
                (np.multiply if operation == PROD else np.maximum)(y, x, out=y)
        ctx.saved = len(arrays) if operation == SUM else (arrays, y)
        return [y]

    def backward(self, ctx: Context, *top_diffs: ndarray) -> Sequence[ndarray | None]:
        (dy,) = top_diffs
        p = self.proto.eltwise_param
        if p.operation == SUM:
            return [np.asarray(dy * c, dy.dtype) if ctx.wants(i) else None for i, c in enumerate(self._coefficients(ctx.saved))]
        xs, y = ctx.saved
        wanted = [ctx.wants(i) for i in range(len(xs))]
        if p.operation == MAX:
            winner = kernel.first_largest(xs)
            return [dy * (winner == i) if wanted[i] else None for i in range(len(xs))]
        if p.stable_prod_grad:
            return [dy * kernel.product_of_others(xs, i) if wanted[i] else None for i in range(len(xs))]
        with np.errstate(all="ignore"):
            return [dy * (y / x) if wanted[i] else None for i, x in enumerate(xs)]


class AlongAxis(Layer):
    """Base of Concat and Slice: the axis comes from `axis`, or from the older field, which takes no negative numbers."""

    field: str  # of LayerParameter
    older: str  # of that parameter

    def position(self, shape: Shape) -> int:
        """The axis as a position in `shape`, after the checks of Caffe's Reshape."""
        param = getattr(self.proto, self.field)
        if not param.HasField(self.older):
            return self.axis(param.axis, shape)
        axis = int32(getattr(param, self.older))
        kind = self.type.lower()
        if axis < 0:
            self.refuse(
                f"{kind}-dim-negative", f"{self.older} {getattr(param, self.older)} is not an axis", a=axis, b=0, limit=MAX_AXES
            )
        if axis > 1 and not self.edition.nd_blobs:
            self.refuse(f"{kind}-dim-above-1", f"works along num and channels only, and {self.older} is {axis}", a=axis, b=1)
        if axis >= len(shape):
            self.refuse(
                f"{kind}-dim-out-of-range",
                f"{self.older} {axis} is outside a blob of {len(shape)} axes ({shape_text(shape)})",
                remedy=f"use 0 to {len(shape) - 1}",
                a=axis,
                b=len(shape),
            )
        return axis

    def check_one_axis(self) -> None:
        """`axis` and the older field exclude each other."""
        param = getattr(self.proto, self.field)
        if param.HasField("axis") and param.HasField(self.older):
            self.refuse(f"{self.type.lower()}-two-axes", f"both axis and {self.older} are set", remedy=f"remove {self.older}")

    def settings(self) -> str:
        param = getattr(self.proto, self.field)
        return f"axis {getattr(param, self.older) if param.HasField(self.older) else param.axis}"


@register("Concat")
class Concat(AlongAxis):
    """Joins its bottoms along one axis, axis 1 (channels) unless told otherwise; the other axes must agree.

    layer { name: "inception/output" type: "Concat" bottom: "1x1" bottom: "3x3" top: "inception/output" concat_param { axis: 1 } }

    `concat_dim` is the older name of `axis`. Caffe: concat_layer.cpp. The top of a single bottom shares its memory.
    """

    rule = "that of the bottoms, with the sum of their sizes on `axis`"
    bottoms = (1, None)
    field, older = "concat_param", "concat_dim"

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        self.check_one_axis()
        first = bottoms[0]
        axis = self.position(first)
        if not self.edition.nd_blobs:
            return [self._four_axes(bottoms, axis)]
        for i, shape in enumerate(bottoms):
            if len(shape) != len(first):
                self.refuse(
                    "concat-axes", self._differ(f"{len(first)} and {len(shape)} axes", i, bottoms), a=len(first), b=len(shape)
                )
            for j, (a, b) in enumerate(zip(first, shape, strict=True)):
                if j != axis and a != b:
                    self.refuse(
                        "concat-shapes",
                        self._differ(f"different size on axis {j}, not only on axis {axis}", i, bottoms),
                        remedy="make the other axes equal",
                        a=a,
                        b=b,
                    )
        return [self.check_blob((*first[:axis], sum(shape[axis] for shape in bottoms), *first[axis + 1 :]))]

    def _four_axes(self, bottoms: Sequence[Shape], axis: int) -> Shape:
        """Before rc3: only the elements were counted."""
        first, elements = bottoms[0], sum(count(shape) for shape in bottoms)
        joined = (*first[:axis], sum(shape[axis] for shape in bottoms), *first[axis + 1 :])
        if count(joined) != elements:
            self.refuse(
                "concat-count",
                f"has {elements} elements in its bottoms, and {shape_text(joined)} are {count(joined)}",
                remedy="make the other axes equal",
                a=elements,
                b=count(joined),
            )
        return self.check_blob(joined)

    def _differ(self, how: str, index: int, bottoms: Sequence[Shape]) -> str:
        names, shapes = self.proto.bottom, bottoms
        return f"bottoms of {how}: '{names[0]}' is {shape_text(shapes[0])}, '{names[index]}' is {shape_text(shapes[index])}"

    def forward(self, ctx: Context, *arrays: ndarray) -> Sequence[ndarray]:
        axis = self.position(arrays[0].shape)
        ctx.saved = axis, [0, *accumulate(x.shape[axis] for x in arrays)]
        return [np.concatenate(arrays, axis) if len(arrays) > 1 else arrays[0]]

    def backward(self, ctx: Context, *top_diffs: ndarray) -> Sequence[ndarray | None]:
        axis, ends = ctx.saved
        before = (slice(None),) * axis
        ranges = enumerate(pairwise(ends))
        return [top_diffs[0][(*before, slice(*ends))].copy() if ctx.wants(i) else None for i, ends in ranges]


@register("Slice")
class Slice(AlongAxis):
    """Parts its bottom along one axis into its tops: at the given points, or evenly.

    layer { name: "slice" type: "Slice" bottom: "pair" top: "left" top: "right" slice_param { axis: 1 slice_point: 3 } }

    `slice_dim` is the older name of `axis`. Caffe: slice_layer.cpp. A single top shares the bottom's memory.
    """

    rule = "that of the bottom, with a part of its size on `axis` for each top"
    tops = (1, None)
    field, older = "slice_param", "slice_dim"

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        self.check_one_axis()
        axis = self.position(bottoms[0])
        sizes = self._sizes(bottoms[0][axis], FOUR_AXES[axis] if len(bottoms[0]) == len(FOUR_AXES) else None)
        return [self.check_blob((*bottoms[0][:axis], size, *bottoms[0][axis + 1 :])) for size in sizes]

    def _sizes(self, whole: int, which: str | None = None) -> Sequence[int]:
        """What each top takes of the axis, after the checks of Caffe's Reshape; the last may come out negative."""
        points = [int32(point) for point in self.proto.slice_param.slice_point]
        if not points:
            if whole % self.num_tops:
                self.refuse(
                    "slice-uneven",
                    f"{whole} cannot be divided evenly among {self.num_tops} tops",
                    remedy="give slice_point",
                    a=whole % self.num_tops,
                    b=0,
                    tops=self.num_tops,
                    size=whole,
                    which=which,
                )
            return [whole // self.num_tops] * self.num_tops
        if len(points) != self.num_tops - 1:
            self.refuse(
                "slice-points",
                f"{len(points)} slice points make {len(points) + 1} tops, and {self.num_tops} are named",
                remedy="give one slice_point less than there are tops",
                a=len(points),
                b=self.num_tops - 1,
            )
        if self.num_tops > whole:
            text = f"{whole} cannot be sliced into {self.num_tops} tops"
            self.refuse("slice-too-many", text, a=self.num_tops, b=whole, which=which)
        for before, point in pairwise([0, *points]):
            if point <= before:
                self.refuse(
                    "slice-points-order",
                    f"slice point {point} does not lie behind {before}",
                    remedy="order the points, and begin above 0",
                    a=point,
                    b=before,
                )
        return [end - start for start, end in pairwise([0, *points, whole])]

    def forward(self, ctx: Context, *arrays: ndarray) -> Sequence[ndarray]:
        (x,) = arrays
        ctx.saved = axis = self.position(x.shape)
        if self.num_tops == 1:
            return [x]
        ends = list(accumulate(self._sizes(x.shape[axis])))
        return [part.copy() for part in np.split(x, ends[:-1], axis)]

    def backward(self, ctx: Context, *top_diffs: ndarray) -> Sequence[ndarray | None]:
        return [np.concatenate(top_diffs, ctx.saved) if ctx.wants(0) else None]


@register("Split")
class Split(Layer):
    """Gives each of several readers a blob of its own; Caffe inserts it wherever a blob is read more than once.

    layer { name: "data_split" type: "Split" bottom: "data" top: "data_split_0" top: "data_split_1" }

    The tops share the bottom's memory, and the bottom's gradient is the sum of theirs. Caffe: split_layer.cpp.
    """

    rule = "that of the bottom, for every top"
    tops = (1, None)

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        for i, top in enumerate(self.proto.top):
            if top in self.proto.bottom and not (i == 0 and self.edition.split_keeps_name):
                self.refuse(
                    "split-in-place",
                    f"does not work in place, and its top '{top}' is its bottom",
                    remedy="give the top a name of its own",
                )
        return [bottoms[0]] * self.num_tops

    def backward_costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape], wanted: Sequence[bool]) -> Costs:
        """The gradients of the tops are added up."""
        return Costs(add=(len(tops) - 1) * count(bottoms[0]) * wanted[0])

    def forward(self, ctx: Context, *arrays: ndarray) -> Sequence[ndarray]:
        return [arrays[0]] * self.num_tops

    def backward(self, ctx: Context, *top_diffs: ndarray) -> Sequence[ndarray | None]:
        if not ctx.wants(0):
            return [None]
        dx = top_diffs[0].copy()
        for dy in top_diffs[1:]:
            dx += dy
        return [dx]


@register("Silence")
class Silence(Layer):
    """Swallows its bottoms, so that they are no outputs of the net; their gradient is 0.

    layer { name: "quiet" type: "Silence" bottom: "unused" }

    Caffe: silence_layer.cpp.
    """

    rule = "no tops"
    bottoms = (1, None)
    tops = 0

    def forward(self, ctx: Context, *arrays: ndarray) -> Sequence[ndarray]:
        ctx.saved = arrays
        return []

    def backward(self, ctx: Context, *top_diffs: ndarray) -> Sequence[ndarray | None]:
        return [np.zeros_like(x) if ctx.wants(i) else None for i, x in enumerate(ctx.saved)]


@register("Filter")
class Filter(Layer):
    """Passes on those items (along axis 0) of its bottoms for which the last bottom, the selector, is not 0.

    layer { name: "keep" type: "Filter" bottom: "data" bottom: "selector" top: "kept" }

    How many items the tops have depends on the data; when the net is built they are taken to be all. Caffe: filter_layer.cpp.
    """

    rule = "those of the bottoms but the last, with as many items as are chosen"
    bottoms = (2, None)
    tops = (1, None)

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        *blobs, selector = bottoms
        if self.num_tops != len(blobs):
            self.refuse(
                "filter-tops",
                f"{len(blobs)} blobs to filter, and {self.num_tops} tops are named",
                remedy="name one top for each bottom but the last, the selector",
                a=self.num_tops,
                b=len(blobs),
            )
        for size in selector[1:]:
            if size != 1:
                self.refuse(
                    "filter-selector",
                    f"the selector ({shape_text(selector)}) has more than one number per item",
                    remedy="make every axis of the selector 1 but the first",
                    a=size,
                    b=1,
                )
        for i, shape in enumerate(blobs):
            items = selector[self.axis(0, selector)]
            if shape[self.axis(0, shape)] != items:
                self.refuse(
                    "filter-items",
                    f"the selector has {items} items, '{self.proto.bottom[i]}' has {shape[0]}",
                    a=items,
                    b=shape[0],
                )
        return blobs

    def forward(self, ctx: Context, *arrays: ndarray) -> Sequence[ndarray]:
        *blobs, selector = arrays
        chosen = np.flatnonzero(selector)
        ctx.saved = chosen, len(selector)
        return [x[chosen] for x in blobs]

    def backward(self, ctx: Context, *top_diffs: ndarray) -> Sequence[ndarray | None]:
        chosen, items = ctx.saved
        return [*(linear.scatter_rows(dy, chosen, items) if ctx.wants(i) else None for i, dy in enumerate(top_diffs)), None]


@register("BatchReindex")
class BatchReindex(Layer):
    """Picks items (along axis 0) of the first bottom by the indices in the second: repeats, reorders, drops.

    layer { name: "pick" type: "BatchReindex" bottom: "data" bottom: "index" top: "picked" }

    Caffe: batch_reindex_layer.cpp; the indices have no gradient.
    """

    rule = "that of the first bottom, with as many items as there are indices"
    bottoms = 2

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        x, index = bottoms
        if len(index) != 1:
            self.refuse(
                "reindex-axes",
                f"the indices have {len(index)} axes ({shape_text(index)})",
                remedy="give them one axis",
                a=1,
                b=len(index),
            )
        self.axis(0, x)
        return [self.check_blob((index[0], *x[1:]))]

    def backward_costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape], wanted: Sequence[bool]) -> Costs:
        """Each item's gradient is added to that of the item it came from."""
        return Costs(add=count(tops[0]) * wanted[0])

    def forward(self, ctx: Context, *arrays: ndarray) -> Sequence[ndarray]:
        x, index = arrays
        for value in index[~((index >= 0) & (index < len(x)))][:1]:
            self.refuse(
                "reindex-too-large" if value >= len(x) else "reindex-negative",
                f"index {value:g} is not an item of a batch of {len(x)}",
                a=float(value),
                b=len(x) if value >= len(x) else 0,
            )
        rows = index.astype(np.int64)
        ctx.saved = rows, len(x)
        return [x[rows]]

    def backward(self, ctx: Context, *top_diffs: ndarray) -> Sequence[ndarray | None]:
        rows, items = ctx.saved
        return [linear.scatter_rows(top_diffs[0], rows, items) if ctx.wants(0) else None, None]
