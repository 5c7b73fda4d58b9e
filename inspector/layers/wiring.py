"""Layers that rearrange a blob, cut it, repeat it or sum it up, and softmax."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..lazy import LazyModule, np
from .base import Context, Costs, Layer, ParamShape, Shape, count, described, int32, register, shape_text

if TYPE_CHECKING:
    from numpy import ndarray

    from ..kernels import softmax
    from ..kernels import wiring as kernel
else:
    softmax = LazyModule("inspector.kernels.softmax")
    kernel = LazyModule("inspector.kernels.wiring")

SUM, ASUM, SUMSQ, MEAN = 1, 2, 3, 4  # ReductionParameter.ReductionOp


class Reordering(Layer):
    """Base of layers whose top is the bottom's memory under another shape; they refuse to work in place."""

    def check_names(self) -> None:
        code = f"{self.type.lower()}-in-place"
        if self.in_place and self.checks(code):
            self.refuse(
                code,
                f"does not work in place, and its top is its bottom '{self.proto.top[0]}'",
                remedy="give the top a name of its own",
            )

    def forward(self, ctx: Context, *arrays: ndarray) -> Sequence[ndarray]:
        (x,) = arrays
        ctx.saved = x.shape
        return [x.reshape(self.shapes(x.shape)[0])]

    def backward(self, ctx: Context, *top_diffs: ndarray) -> Sequence[ndarray | None]:
        return [top_diffs[0].reshape(ctx.saved) if ctx.wants(0) else None]


@register("Flatten")
class Flatten(Reordering):
    """Makes one axis of the axes from `axis` to `end_axis`.

    layer { name: "flat" type: "Flatten" bottom: "pool5" top: "flat" flatten_param { axis: 1 end_axis: -1 } }

    Caffe: flatten_layer.cpp. An `end_axis` just before `axis` inserts an axis of size 1.
    """

    rule = "the axes from `axis` to `end_axis` become one; the others stay"

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        self.check_names()
        (x,) = bottoms
        start, end = self.axis(self.proto.flatten_param.axis, x), self.axis(self.proto.flatten_param.end_axis, x) + 1
        if start > end:
            self.refuse(
                "axes-reversed", f"axis {start} lies behind end_axis {end - 1}", remedy="set end_axis behind axis", a=start, b=end
            )
        return [(*x[:start], count(x[start:end]), *x[end:])]

    def settings(self) -> str:
        p = self.proto.flatten_param
        return described(("axis", p.axis, 1), ("end_axis", p.end_axis, -1))


@register("Reshape")
class Reshape(Reordering):
    """Another shape for the same numbers: 0 copies the bottom's size at that place, -1 takes what is left.

    layer { name: "rows" type: "Reshape" bottom: "x" top: "rows" reshape_param { shape { dim: 0 dim: -1 } axis: 1 num_axes: 2 } }

    Only the `num_axes` axes from `axis` on are replaced (default: all); `axis: -1 num_axes: 0` appends. Caffe: reshape_layer.cpp.
    """

    rule = "what `shape` says, in place of `num_axes` axes from `axis` on: 0 copies a size, -1 takes what is left"

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        self.check_names()
        (x,) = bottoms
        p = self.proto.reshape_param
        wanted = [int32(size) for size in p.shape.dim]
        if wanted.count(-1) > 1:
            self.refuse(
                "reshape-two-inferred",
                f"-1 is given {wanted.count(-1)} times",
                remedy="leave at most one axis to be inferred",
                a=wanted.index(-1),
                b=-1,
            )
        start = p.axis if p.axis >= 0 else len(x) + p.axis + 1
        if not 0 <= start <= len(x):
            self.refuse(
                "reshape-axis-negative" if start < 0 else "reshape-axis",
                f"axis {p.axis} is outside a blob of {len(x)} axes ({shape_text(x)})",
                remedy=f"use {-len(x) - 1} to {len(x)}",
                a=start,
                b=0 if start < 0 else len(x),
                axis=p.axis,
            )
        if p.num_axes < -1:
            self.refuse("reshape-num-axes", f"num_axes {p.num_axes} is neither -1 nor a number of axes", a=p.num_axes, b=-1)
        end = len(x) if p.num_axes == -1 else start + p.num_axes
        if end > len(x):
            self.refuse(
                "reshape-end",
                f"{p.num_axes} axes from axis {start} on are more than the bottom has ({shape_text(x)})",
                remedy="reduce num_axes, or say -1 for all that follow",
                a=end,
                b=len(x),
            )
        for i, size in enumerate(wanted):
            if size == 0:
                if start + i >= len(x):
                    self.refuse(
                        "reshape-nothing-to-copy",
                        f"dim {i} is 0, and the bottom ({shape_text(x)}) has no axis {start + i} to copy",
                        remedy="say the size",
                        a=len(x),
                        b=start + i,
                    )
                wanted[i] = x[start + i]
        if -1 in wanted:
            known = int32(count(x[:start]) * count(x[end:]) * count(size for size in wanted if size != -1))
            if known == 0:
                self.refuse(
                    "reshape-by-zero", "the other sizes are 0, so that -1 has no value", remedy="say the size instead of -1"
                )
            if count(x) % known:
                self.refuse(
                    "reshape-indivisible",
                    f"{count(x)} elements ({shape_text(x)}) cannot be divided by the other sizes, {known}",
                    remedy="change the sizes so that their product divides the elements",
                    a=0,
                    b=count(x) % abs(known),
                    elements=count(x),
                    known=known,
                )
            wanted[wanted.index(-1)] = count(x) // known
        top = self.check_blob((*x[:start], *wanted, *x[end:]))
        if count(top) != count(x):
            self.refuse(
                "reshape-count",
                f"{shape_text(top)} has {count(top)} elements, the bottom ({shape_text(x)}) has {count(x)}",
                remedy="use -1 for one of the sizes",
                a=count(top),
                b=count(x),
            )
        return [top]

    def settings(self) -> str:
        p = self.proto.reshape_param
        return " ".join(filter(None, [*map(str, p.shape.dim), described(("axis", p.axis, 0), ("num_axes", p.num_axes, -1))]))


@register("Crop")
class Crop(Layer):
    """Cuts the first bottom, from `axis` on, to the second bottom's sizes, after `offset` elements (one for all axes, or one each).

    layer { name: "score" type: "Crop" bottom: "upscore" bottom: "data" top: "score" crop_param { axis: 2 offset: 19 } }

    The second bottom gives only its shape and has no gradient. Caffe: crop_layer.cpp.
    """

    rule = "the first bottom's axes before `axis`, the second bottom's from there on"
    bottoms = 2

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        x, like = bottoms
        start = self.axis(self.proto.crop_param.axis, x)
        offsets = [int32(offset) for offset in self.proto.crop_param.offset]
        if len(offsets) > 1 and start + len(offsets) != len(x):
            self.refuse(
                "crop-offsets",
                f"{len(offsets)} offsets for the {len(x) - start} axes from axis {start} on",
                remedy="give one offset, or one for each of these axes",
                a=start + len(offsets),
                b=len(x),
            )
        for i, offset in enumerate(self.offsets(x)[start:], start):
            size = like[self.axis(i, like)]
            if x[i] - offset < size:
                self.refuse(
                    "crop-out-of-bounds",
                    f"axis {i} has {x[i]} elements, too few for {size} after an offset of {offset}",
                    remedy="reduce the offset or the second bottom",
                    a=x[i] - offset,
                    b=size,
                    axis=i,
                    offset=offset,
                )
        return [(*x[:start], *like[start : len(x)])]

    def offsets(self, x: Shape) -> Sequence[int]:
        """One offset for every axis of the first bottom."""
        start = self.axis(self.proto.crop_param.axis, x)
        given = [int32(offset) for offset in self.proto.crop_param.offset] or [0]
        return [0] * start + (given * (len(x) - start) if len(given) == 1 else given)

    def settings(self) -> str:
        p = self.proto.crop_param
        return " ".join([f"axis {p.axis}", *(["offset", *map(str, p.offset)] if p.offset else [])])

    def forward(self, ctx: Context, *arrays: ndarray) -> Sequence[ndarray]:
        x, like = arrays
        (top,) = self.shapes(x.shape, like.shape)
        window = tuple(slice(offset, offset + size) for offset, size in zip(self.offsets(x.shape), top, strict=True))
        ctx.saved = x.shape, window
        return [x[window].copy()]

    def backward(self, ctx: Context, *top_diffs: ndarray) -> Sequence[ndarray | None]:
        if not ctx.wants(0):
            return [None, None]
        shape, window = ctx.saved
        dx = np.zeros(shape, top_diffs[0].dtype)
        dx[window] = top_diffs[0]
        return [dx, None]


@register("Tile")
class Tile(Layer):
    """Repeats its bottom `tiles` times along one axis.

    layer { name: "copies" type: "Tile" bottom: "x" top: "copies" tile_param { axis: 1 tiles: 3 } }

    Caffe: tile_layer.cpp.
    """

    rule = "that of the bottom, with `axis` `tiles` times as long"

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        (x,) = bottoms
        p = self.proto.tile_param
        axis = self.axis(p.axis, x)
        if not p.HasField("tiles"):
            self.refuse("tile-missing", "says not how many tiles", remedy="set tile_param { tiles }")
        if p.tiles <= 0:
            self.refuse("tile-positive", f"tiles {p.tiles} is not positive", remedy="set a number above 0", a=p.tiles, b=0)
        return [self.check_blob((*x[:axis], x[axis] * p.tiles, *x[axis + 1 :]))]

    def backward_costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape], wanted: Sequence[bool]) -> Costs:
        """The gradients of the copies are added up."""
        return Costs(add=(count(tops[0]) - count(bottoms[0])) * wanted[0])

    def settings(self) -> str:
        return f"axis {self.proto.tile_param.axis} x{self.proto.tile_param.tiles}"

    def forward(self, ctx: Context, *arrays: ndarray) -> Sequence[ndarray]:
        (x,) = arrays
        ctx.saved = x.shape
        return [np.concatenate([x] * self.proto.tile_param.tiles, self.axis(self.proto.tile_param.axis, x.shape))]

    def backward(self, ctx: Context, *top_diffs: ndarray) -> Sequence[ndarray | None]:
        if not ctx.wants(0):
            return [None]
        axis = self.axis(self.proto.tile_param.axis, ctx.saved)
        copies = top_diffs[0].reshape(*ctx.saved[:axis], self.proto.tile_param.tiles, *ctx.saved[axis:])
        return [copies.sum(axis)]


@register("Reduction")
class Reduction(Layer):
    """Sums up all axes from `axis` on: the numbers, their magnitudes or squares, or their mean; times `coeff`.

    layer { name: "total" type: "Reduction" bottom: "x" top: "total" reduction_param { operation: SUMSQ axis: 1 coeff: 0.5 } }

    Operations are SUM, ASUM, SUMSQ and MEAN. Caffe: reduction_layer.cpp.
    """

    rule = "the bottom's axes before `axis`"

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        return [bottoms[0][: self.axis(self.proto.reduction_param.axis, bottoms[0])]]

    def costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Costs:
        """Per element one addition (SUMSQ: one multiply-accumulate; ASUM: a comparison, too); per sum one multiplication."""
        p = self.proto.reduction_param
        each = {ASUM: Costs(add=1, compare=1), SUMSQ: Costs(mac=1)}.get(p.operation, Costs(add=1))
        scaled = p.operation == MEAN or p.coeff != 1
        return each * count(bottoms[0]) + Costs(multiply=count(tops[0]) if scaled else 0)

    def backward_costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape], wanted: Sequence[bool]) -> Costs:
        """One multiplication per sum for `coeff`, and for ASUM and SUMSQ one per element (ASUM: with a comparison)."""
        each = {ASUM: Costs(multiply=1, compare=1), SUMSQ: Costs(multiply=1)}.get(self.proto.reduction_param.operation, Costs())
        return (each * count(bottoms[0]) + Costs(multiply=count(tops[0]))) * wanted[0]

    def settings(self) -> str:
        p = self.proto.reduction_param
        name = {SUM: "SUM", ASUM: "ASUM", SUMSQ: "SUMSQ", MEAN: "MEAN"}[p.operation]
        return " ".join(filter(None, [name, described(("axis", p.axis, 0), ("coeff", p.coeff, 1))]))

    def forward(self, ctx: Context, *arrays: ndarray) -> Sequence[ndarray]:
        (x,) = arrays
        p = self.proto.reduction_param
        (top,) = self.shapes(x.shape)
        rows = x.reshape(count(top), count(x.shape[len(top) :]))  # outer, reduced
        coefficient = p.coeff / max(1, rows.shape[1]) if p.operation == MEAN else p.coeff
        ctx.saved = rows, x.shape, coefficient
        if p.operation == ASUM:
            rows = np.abs(rows)
        total = np.einsum("nd,nd->n", rows, rows) if p.operation == SUMSQ else rows.sum(1)
        return [(total * coefficient).reshape(top)]

    def backward(self, ctx: Context, *top_diffs: ndarray) -> Sequence[ndarray | None]:
        if not ctx.wants(0):
            return [None]
        rows, shape, coefficient = ctx.saved
        each = top_diffs[0].reshape(-1, 1) * coefficient  # outer, 1
        operation = self.proto.reduction_param.operation
        if operation == ASUM:
            dx = each * np.sign(rows)
        elif operation == SUMSQ:
            dx = 2 * each * rows
        else:
            dx = np.repeat(each, rows.shape[1], 1)
        return [dx.reshape(shape)]


@register("ArgMax")
class ArgMax(Layer):
    """Indices of the `top_k` largest numbers, largest first, of equal ones the later: along `axis`, or of each item flattened.

    layer { name: "class" type: "ArgMax" bottom: "prob" top: "class" argmax_param { top_k: 5 axis: 1 } }

    With `out_max_val` the numbers themselves: instead of the indices where `axis` is set, else after them in an N x 2 x top_k top.
    Without gradient: Caffe's backward stops the program. Caffe: argmax_layer.cpp.
    """

    rule = "that of the bottom, with top_k on `axis`; without `axis` N x 1 x top_k, and N x 2 x top_k with out_max_val"

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        (x,) = bottoms
        p = self.proto.argmax_param
        if p.top_k < 1:
            self.refuse("argmax-top-k", f"top_k {p.top_k} is below 1", remedy="set 1 or more", a=p.top_k, b=1)
        if p.HasField("axis"):
            axis = self.axis(p.axis, x)
            choice, code, where = x[axis], "argmax-top-k-axis", f"axis {axis}"
        else:
            if not x:
                self.refuse(
                    "axes-reversed", "works on items, and its bottom is a scalar", remedy="give the bottom an axis", a=1, b=0
                )
            choice, code, where = count(x[1:]), "argmax-top-k-item", "each item"
        if p.top_k > choice:
            self.refuse(
                code, f"top_k {p.top_k} of {choice} numbers on {where}", remedy=f"set at most {choice}", a=p.top_k, b=choice
            )
        if p.HasField("axis"):
            return [(*x[:axis], p.top_k, *x[axis + 1 :])]
        return [(x[0], 2 if p.out_max_val else 1, p.top_k, *[1] * (len(x) - 3))]

    def costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Costs:
        """One comparison per element, as finding one maximum takes; the k-fold search is not counted more."""
        return Costs(compare=count(bottoms[0]))

    def backward_costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape], wanted: Sequence[bool]) -> Costs:
        """It has no gradient."""
        return Costs()

    def settings(self) -> str:
        p = self.proto.argmax_param
        parts = [described(("top", p.top_k, 1)), f"axis {p.axis}" if p.HasField("axis") else "", "values" if p.out_max_val else ""]
        return " ".join(filter(None, parts))

    def forward(self, ctx: Context, *arrays: ndarray) -> Sequence[ndarray]:
        (x,) = arrays
        p = self.proto.argmax_param
        (top,) = self.shapes(x.shape)
        if p.HasField("axis"):
            axis = self.axis(p.axis, x.shape)
            lines = x.reshape(count(x.shape[:axis]), x.shape[axis], count(x.shape[axis + 1 :]))  # outer, D, inner
        else:
            lines = x.reshape(len(x), count(x.shape[1:]), 1)  # N, D, 1
        index = kernel.largest(lines, p.top_k)  # outer, k, inner
        if not p.out_max_val:
            found = index.astype(x.dtype)
        else:
            found = np.take_along_axis(lines, index, 1)
            if not p.HasField("axis"):
                found = np.stack([index.astype(x.dtype), found], 1)
        return [found.reshape(top)]

    def backward(self, ctx: Context, *top_diffs: ndarray) -> Sequence[ndarray | None]:
        return [None]


@register("Parameter")
class Parameter(Layer):
    """A parameter blob as a top, without bottoms: what other layers read is learned.

    layer { name: "anchor" type: "Parameter" top: "anchor" parameter_param { shape { dim: 4 dim: 3 } } }

    The top shares the parameter's memory. It has no filler: it starts at 0. Caffe: parameter_layer.hpp.
    """

    rule = "what `shape` says"
    bottoms = 0

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        return [self.check_blob(tuple(int32(size) for size in self.proto.parameter_param.shape.dim))]

    def params(self, *bottoms: Shape) -> Sequence[ParamShape]:
        return [ParamShape("value", self.shapes()[0])]

    def forward(self, ctx: Context, *arrays: ndarray) -> Sequence[ndarray]:
        return arrays

    def backward(self, ctx: Context, *top_diffs: ndarray) -> Sequence[ndarray | None]:
        return [top_diffs[0] if ctx.wants(0) else None]


@register("Softmax")
class Softmax(Layer):
    """exp(x) / sum(exp(x)) along one axis, axis 1 unless told otherwise: scores become probabilities.

    layer { name: "prob" type: "Softmax" bottom: "fc8" top: "prob" softmax_param { axis: 1 } }

    Caffe: softmax_layer.cpp.
    """

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        self.axis(self.proto.softmax_param.axis, bottoms[0])
        return [bottoms[0]]

    def costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Costs:
        """Per element: a comparison (maximum), a subtraction, an exponential, an addition (sum) and a division."""
        return Costs(compare=1, add=2, exponential=1, divide=1) * count(bottoms[0])

    def backward_costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape], wanted: Sequence[bool]) -> Costs:
        """Per element: its part of a dot product, a subtraction and a multiplication."""
        return Costs(mac=1, add=1, multiply=1) * (count(bottoms[0]) * wanted[0])

    def settings(self) -> str:
        return described(("axis", self.proto.softmax_param.axis, 1))

    def forward(self, ctx: Context, *arrays: ndarray) -> Sequence[ndarray]:
        axis = self.axis(self.proto.softmax_param.axis, arrays[0].shape)
        ctx.saved = y, _ = softmax.forward(arrays[0], axis), axis
        return [y]

    def backward(self, ctx: Context, *top_diffs: ndarray) -> Sequence[ndarray | None]:
        y, axis = ctx.saved
        return [softmax.backward(y, top_diffs[0], axis) if ctx.wants(0) else None]
