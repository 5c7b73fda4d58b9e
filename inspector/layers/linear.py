"""Layers that multiply and add parameters: fully connected, look-up, and per-axis scale and bias."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from ..editions import Arity
from ..lazy import LazyModule, np
from .base import Context, Costs, Layer, ParamShape, Shape, count, described, filler_or, int32, register, shape_text

if TYPE_CHECKING:
    from numpy import ndarray

    from ..kernels import linear as kernel
else:
    kernel = LazyModule("inspector.kernels.linear")


@register("InnerProduct")
class InnerProduct(Layer):
    """Fully connected: flattens the axes from `axis` on into one, multiplies by the weights and adds the bias.

    layer { name: "fc6" type: "InnerProduct" bottom: "pool5" top: "fc6" inner_product_param { num_output: 4096 } }

    Weights are num_output x inputs, with `transpose` inputs x num_output. Caffe: inner_product_layer.cpp.
    """

    rule = "the bottom's axes before `axis`, then num_output"

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        axis = self.axis(self.proto.inner_product_param.axis, bottoms[0])
        for param in self.params(*bottoms):
            self.check_blob(param.shape)
        return [(*bottoms[0][:axis], self._outputs())]

    def params(self, *bottoms: Shape) -> Sequence[ParamShape]:
        p = self.proto.inner_product_param
        inputs, outputs = count(bottoms[0][self.axis(p.axis, bottoms[0]) :]), self._outputs()
        weight = ParamShape("weight", (inputs, outputs) if p.transpose else (outputs, inputs), p.weight_filler)
        return [weight, ParamShape("bias", (outputs,), p.bias_filler)] if p.bias_term else [weight]

    def _outputs(self) -> int:
        return int32(self.proto.inner_product_param.num_output)

    def costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Costs:
        """One multiply-accumulate per weight and row, one bias addition per output."""
        p = self.proto.inner_product_param
        inputs = count(bottoms[0][self.axis(p.axis, bottoms[0]) :])
        return Costs(mac=count(tops[0]) * inputs, bias=count(tops[0]) if p.bias_term else 0)

    def backward_costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape], wanted: Sequence[bool]) -> Costs:
        """As many multiply-accumulates as forward for the input's gradient and as many for the weights'; the bias's adds rows."""
        forward = self.costs(bottoms, tops)
        return Costs(mac=forward.mac * sum(wanted[:2]), bias=forward.bias if any(wanted[2:]) else 0)

    def settings(self) -> str:
        p = self.proto.inner_product_param
        flags = [described(("axis", p.axis, 1)), "transposed" if p.transpose else "", "" if p.bias_term else "no bias"]
        return " ".join(filter(None, [str(p.num_output), *flags]))

    def forward(self, ctx: Context, *arrays: ndarray) -> Sequence[ndarray]:
        x, weight, *bias = arrays
        axis, transpose = self.axis(self.proto.inner_product_param.axis, x.shape), self.proto.inner_product_param.transpose
        outputs = weight.shape[1 if transpose else 0]
        rows = x.reshape(count(x.shape[:axis]), count(x.shape[axis:]))  # M,K
        ctx.saved = rows, weight, x.shape, bool(bias)
        y = kernel.inner_product(rows, weight, bias[0] if bias else None, transpose)
        return [y.reshape(*x.shape[:axis], outputs)]

    def backward(self, ctx: Context, *top_diffs: ndarray) -> Sequence[ndarray | None]:
        rows, weight, shape, has_bias = ctx.saved
        dy = top_diffs[0].reshape(len(rows), self._outputs())  # M,N
        dx = dweight = dbias = None
        transpose = self.proto.inner_product_param.transpose
        if ctx.wants(0):
            dx = (dy @ (weight.T if transpose else weight)).reshape(shape)
        if ctx.wants(1):
            dweight = rows.T @ dy if transpose else dy.T @ rows
        if has_bias and ctx.wants(2):
            dbias = dy.sum(0)
        return [dx, dweight, dbias] if has_bias else [dx, dweight]


@register("Embed")
class Embed(Layer):
    """Look-up: each number of the bottom, an index, becomes that row of the weights, plus a bias: an inner product of one-hot rows.

    layer { name: "words" type: "Embed" bottom: "index" top: "words" embed_param { input_dim: 8801 num_output: 1000 } }

    Weights are input_dim x num_output. Caffe: embed_layer.cpp, which has no gradient for the indices.
    """

    rule = "the bottom's axes, then num_output"

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        for code, value in (("num_output", self._outputs()), ("input_dim", self._inputs())):
            if value <= 0:
                self.refuse(
                    "embed-num-output" if code == "num_output" else "embed-input-dim",
                    f"{code} {value} is not positive",
                    remedy=f"set embed_param {{ {code} }}",
                    a=value,
                    b=0,
                )
        for param in self.params(*bottoms):
            self.check_blob(param.shape)
        return [(*bottoms[0], self._outputs())]

    def params(self, *bottoms: Shape) -> Sequence[ParamShape]:
        p = self.proto.embed_param
        weight = ParamShape("weight", (self._inputs(), self._outputs()), p.weight_filler)
        return [weight, ParamShape("bias", (self._outputs(),), p.bias_filler)] if p.bias_term else [weight]

    def _outputs(self) -> int:
        return int32(self.proto.embed_param.num_output)

    def _inputs(self) -> int:
        return int32(self.proto.embed_param.input_dim)

    def costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Costs:
        """Looking up is moving data; one bias addition per output."""
        return Costs(bias=count(tops[0]) if self.proto.embed_param.bias_term else 0)

    def backward_costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape], wanted: Sequence[bool]) -> Costs:
        """Each output's gradient is added to a row of the weights', and to the bias's."""
        return Costs(add=count(tops[0]) * wanted[1], bias=count(tops[0]) * any(wanted[2:]))

    def settings(self) -> str:
        p = self.proto.embed_param
        return f"{p.input_dim} to {p.num_output}{'' if p.bias_term else ' no bias'}"

    def forward(self, ctx: Context, *arrays: ndarray) -> Sequence[ndarray]:
        x, weight, *bias = arrays
        with np.errstate(invalid="ignore"):  # not a number becomes an index far outside
            index = x.astype(np.int64).ravel()  # cut towards 0, as C++ does
        outside = index[(index < 0) | (index >= len(weight))]
        if outside.size:
            self.refuse(
                "embed-index-negative" if outside[0] < 0 else "embed-index-too-large",
                f"index {outside[0]} is not a row of a table of {len(weight)} rows",
                remedy="feed indices from 0 to input_dim - 1",
                a=int(outside[0]),
                b=0 if outside[0] < 0 else len(weight),
            )
        ctx.saved = index, len(weight), bool(bias)
        y = weight[index]  # M,N
        if bias:
            y += bias[0]
        return [y.reshape(*x.shape, weight.shape[1])]

    def backward(self, ctx: Context, *top_diffs: ndarray) -> Sequence[ndarray | None]:
        index, rows, has_bias = ctx.saved
        dy = top_diffs[0].reshape(len(index), self._outputs())  # M,N
        dweight = kernel.scatter_rows(dy, index, rows) if ctx.wants(1) else None
        if not has_bias:
            return [None, dweight]
        return [None, dweight, dy.sum(0) if ctx.wants(2) else None]


class PerAxis(Layer):
    """Base of Scale and Bias: a blob, learned or the second bottom, that applies to some axes of the first bottom.

    The prototxt's `axis` is the first of them; a learned blob spans `num_axes` of the bottom's axes (-1: all that follow).
    """

    bottoms: Arity = (1, 2)
    noun: ClassVar[str]  # "scale" or "bias", in messages and codes

    def extent(self, x: Shape, axis: int, axes: int) -> Shape:
        """The shape of the learned blob, after LayerSetUp's checks."""
        start = self.axis(axis, x)
        if axes < -1:
            self.refuse(f"{self.noun}-num-axes", f"num_axes {axes} is neither -1 nor a number of axes", a=axes, b=-1)
        if start + axes > len(x):
            self.refuse(
                f"{self.noun}-param-extends-past",
                f"{axes} axes from axis {start} on do not fit a bottom of {len(x)} axes ({shape_text(x)})",
                remedy="reduce num_axes, or say -1 for all that follow",
                a=len(x),
                b=start + axes,
                axis=start,
            )
        return x[start:] if axes == -1 else x[start : start + axes]

    def check_fit(self, x: Shape, blob: Shape, axis: int) -> int:
        """The axis of `x` at which `blob` applies, 0 for a scalar, after Reshape's checks."""
        start = self.axis(axis, x) if blob else 0
        if start + len(blob) > len(x):
            self.refuse(
                f"{self.noun}-extends-past",
                f"a {self.noun} of {len(blob)} axes does not fit a bottom of {len(x)} axes from axis {start} on",
                remedy="set axis to where the two shapes agree",
                a=len(x),
                b=start + len(blob),
                axis=start,
            )
        for i, size in enumerate(blob):
            if x[start + i] != size:
                self.refuse(
                    f"{self.noun}-mismatch",
                    f"axis {start + i} of the bottom has {x[start + i]} elements, axis {i} of the {self.noun} has {size}",
                    remedy="set axis to where the two shapes agree",
                    a=x[start + i],
                    b=size,
                    axis=start + i,
                    index=i,
                )
        return start


@register("Scale")
class Scale(PerAxis):
    """y = x * scale, or x * scale + bias with `bias_term`; the scale is learned, or the second bottom.

    layer { name: "scale1" type: "Scale" bottom: "bn1" top: "bn1" scale_param { axis: 1 num_axes: 1 bias_term: true } }

    Without a filler the scale starts at 1. Caffe: scale_layer.cpp, whose bias is a Bias layer inside.
    """

    noun = "scale"

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        x, *given = bottoms
        p = self.proto.scale_param
        scale = given[0] if given else self.extent(x, p.axis, p.num_axes)
        if p.bias_term:
            self._bias(len(scale) if given else p.num_axes).shapes(x)
        self.check_fit(x, scale, p.axis)
        return [x]

    def params(self, *bottoms: Shape) -> Sequence[ParamShape]:
        x, *given = bottoms
        p = self.proto.scale_param
        own = [] if given else [ParamShape("scale", self.extent(x, p.axis, p.num_axes), filler_or(p, 1))]
        return [*own, *self._bias(len(given[0]) if given else p.num_axes).params(x)] if p.bias_term else own

    def _bias(self, num_axes: int) -> Bias:
        """The Bias layer inside, over the same axes as the scale."""
        proto = type(self.proto)()
        proto.CopyFrom(self.proto)
        p = proto.scale_param
        proto.bias_param.CopyFrom(type(proto.bias_param)(axis=p.axis, num_axes=num_axes, filler=p.bias_filler))
        return Bias(proto, self.phase, self.edition)

    def costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Costs:
        """One multiplication per element, and one bias addition where there is a bias."""
        return Costs(multiply=1, bias=int(self.proto.scale_param.bias_term)) * count(bottoms[0])

    def backward_costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape], wanted: Sequence[bool]) -> Costs:
        """One multiplication per element for the bottom's gradient, one multiply-accumulate for the scale's; the bias adds."""
        return Costs(multiply=int(wanted[0]), mac=int(wanted[1]), bias=int(any(wanted[2:]))) * count(bottoms[0])

    def settings(self) -> str:
        p = self.proto.scale_param
        return " ".join(filter(None, [described(("axis", p.axis, 1), ("num_axes", p.num_axes, 1)), "bias" if p.bias_term else ""]))

    def forward(self, ctx: Context, *arrays: ndarray) -> Sequence[ndarray]:
        x, scale, *bias = arrays
        axis = self.check_fit(x.shape, scale.shape, self.proto.scale_param.axis)
        ctx.saved = x, scale, axis, bool(bias)  # not the top, even in place: Caffe keeps a copy
        y = np.asarray(x * kernel.spread(scale, axis, x.ndim))
        if bias:
            y += kernel.spread(bias[0], axis, x.ndim)
        return [y]

    def backward(self, ctx: Context, *top_diffs: ndarray) -> Sequence[ndarray | None]:
        (dy,) = top_diffs
        x, scale, axis, has_bias = ctx.saved
        dx = dscale = dbias = None
        if ctx.wants(0):
            dx = np.asarray(dy * kernel.spread(scale, axis, x.ndim))
        if ctx.wants(1):
            dscale = kernel.gather(dy * x, axis, scale.ndim)
        if has_bias and ctx.wants(2):
            dbias = kernel.gather(dy, axis, scale.ndim)
        return [dx, dscale, dbias] if has_bias else [dx, dscale]


@register("Bias")
class Bias(PerAxis):
    """y = x + bias; the bias is learned, or the second bottom.

    layer { name: "shift1" type: "Bias" bottom: "bn1" top: "bn1" bias_param { axis: 1 num_axes: 1 } }

    Caffe: bias_layer.cpp.
    """

    noun = "bias"

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        x, *given = bottoms
        p = self.proto.bias_param
        self.check_fit(x, given[0] if given else self.extent(x, p.axis, p.num_axes), p.axis)
        return [x]

    def params(self, *bottoms: Shape) -> Sequence[ParamShape]:
        x, *given = bottoms
        p = self.proto.bias_param
        return [] if given else [ParamShape("bias", self.extent(x, p.axis, p.num_axes), p.filler)]

    def costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Costs:
        """One bias addition per element."""
        return Costs(bias=count(bottoms[0]))

    def backward_costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape], wanted: Sequence[bool]) -> Costs:
        """The bottom's gradient is the top's; the bias's adds it up."""
        return Costs(bias=count(bottoms[0]) * wanted[1])

    def settings(self) -> str:
        p = self.proto.bias_param
        return described(("axis", p.axis, 1), ("num_axes", p.num_axes, 1))

    def forward(self, ctx: Context, *arrays: ndarray) -> Sequence[ndarray]:
        x, bias = arrays
        axis = self.check_fit(x.shape, bias.shape, self.proto.bias_param.axis)
        ctx.saved = axis, bias.ndim
        return [np.asarray(x + kernel.spread(bias, axis, x.ndim))]

    def backward(self, ctx: Context, *top_diffs: ndarray) -> Sequence[ndarray | None]:
        (dy,) = top_diffs
        axis, axes = ctx.saved
        return [dy if ctx.wants(0) else None, kernel.gather(dy, axis, axes) if ctx.wants(1) else None]
