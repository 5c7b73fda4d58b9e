"""Sliding filters: Convolution, Deconvolution, Im2col. Any number of spatial axes, which are those behind `axis`.

Rules: Caffe's base_conv_layer.cpp, conv_layer.cpp, deconv_layer.cpp, im2col_layer.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, ClassVar

from ..lazy import LazyModule
from ..window import Window, quotient
from .base import Context, Costs, Layer, ParamShape, Shape, count, register

if TYPE_CHECKING:
    import numpy as np

    from ..kernels import conv as kernels
else:
    kernels = LazyModule("inspector.kernels.conv")


def signed(value: int) -> int:
    """An uint32 field as the int that Caffe keeps it in: from 2^31 on it turns negative."""
    return (value + 2**31) % 2**32 - 2**31


class Sliding(Layer):
    """What the three share: a window read from `convolution_param`, with the checks on it."""

    prefix: ClassVar[str] = "conv"  # of the refusal codes: Im2col words some checks differently, and from another file

    def window(self, shape: Shape) -> tuple[int, Window]:
        """The channel axis of a bottom, and the window over the axes behind it."""
        param = self.proto.convolution_param
        axis = self.axis(param.axis, shape)
        spatial = len(shape) - axis - 1
        if self.prefix == "im2col" and spatial < 1:
            self.refuse("im2col-no-spatial-axis", f"axis {axis} is the last of {len(shape)}: nothing to slide over", a=spatial, b=1)
        kernel = self._figures("kernel", spatial)
        self._positive("kernel", kernel)
        stride = self._figures("stride", spatial)
        if not self._named("stride"):  # Caffe does not look at stride_h and stride_w
            self._positive("stride", stride)
        pad = self._figures("pad", spatial)
        dilation = self._figures("dilation", spatial)
        return axis, Window(kernel, stride, pad, dilation)

    def _named(self, field: str) -> bool:
        """Whether FIELD_h or FIELD_w is given; dilation has no such form."""
        param = self.proto.convolution_param
        return field != "dilation" and (param.HasField(f"{field}_h") or param.HasField(f"{field}_w"))

    def _written(self, field: str) -> tuple[int, ...]:
        """The numbers as they stand: FIELD_h and FIELD_w, or the repeated FIELD."""
        param = self.proto.convolution_param
        if self._named(field):
            return signed(getattr(param, f"{field}_h")), signed(getattr(param, f"{field}_w"))
        return tuple(map(signed, getattr(param, "kernel_size" if field == "kernel" else field)))

    def _figures(self, field: str, spatial: int) -> tuple[int, ...]:
        """One number per spatial axis: FIELD_h and FIELD_w, or a FIELD given once, once per axis or (but for kernels) never."""
        name = "kernel_size" if field == "kernel" else field
        written = self._written(field)
        if self._named(field):
            repeated = getattr(self.proto.convolution_param, name)
            if spatial != 2:
                self.refuse(
                    f"{self.prefix}-{field}-2d",
                    f"{field}_h and {field}_w are for 2 spatial axes, and this input has {spatial}",
                    remedy=f"give {name} once per axis",
                    a=spatial,
                    b=2,
                )
            if repeated:
                self.refuse(
                    f"{self.prefix}-{field}-both",
                    f"{name} is given together with {field}_h or {field}_w",
                    remedy="keep one of the two forms",
                    a=0,
                    b=len(repeated),
                )
            return written
        if len(written) not in (1, spatial) and (written or field == "kernel"):
            self.refuse(
                f"{self.prefix}-{field}-count",
                f"{name} is given {len(written)} times, and there are {spatial} spatial axes",
                remedy=f"give it once, or {spatial} times",
                given=len(written),
                axes=spatial,
            )
        if not written:
            return (0 if field == "pad" else 1,) * spatial
        return written * spatial if len(written) == 1 else written

    def _positive(self, field: str, figures: tuple[int, ...]) -> None:
        for value in figures:
            if value <= 0:
                self.refuse(f"{self.prefix}-{field}-zero", f"{field} size {value} is not positive", a=value, b=0)

    def _slide(self, window: Window, sizes: Sequence[int]) -> tuple[int, ...]:
        """Output sizes, where Caffe does not die of a division by a stride of 0 (stride_h without stride_w)."""
        if 0 in window.stride:
            self.refuse(
                f"{self.prefix}-stride-division",
                "stride is 0 along an axis",
                remedy="give both stride_h and stride_w",
            )
        return window.convolved(sizes)

    def settings(self) -> str:
        def figures(field: str, default: int) -> tuple[int, ...]:
            written = self._written(field) or (default,)
            return written if len(written) > 1 else written * 2  # 2 axes unless it says otherwise

        return str(Window(figures("kernel", 0), figures("stride", 1), figures("pad", 0), figures("dilation", 1)))


class Filtering(Sliding):
    """What Convolution and Deconvolution share: filters, groups, biases, several bottoms of one shape."""

    bottoms = (1, None)
    tops = (1, None)
    one_top_per_bottom = True
    transposed: ClassVar[bool] = False

    def _outs(self, window: Window, sizes: Sequence[int]) -> tuple[int, ...]:
        return window.deconvolved(sizes) if self.transposed else self._slide(window, sizes)

    def _weight_shape(self, channels: int, window: Window) -> Shape:
        """Filters x channels that one filter sees x kernel..., in the direction of the convolution that runs or is transposed."""
        param = self.proto.convolution_param
        out, into = signed(param.num_output), channels
        if self.transposed:
            out, into = into, out
        return (out, quotient(into, signed(param.group)), *window.kernel)

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        param = self.proto.convolution_param
        shape = bottoms[0]
        axis, window = self.window(shape)
        channels, outputs, group = shape[axis], signed(param.num_output), signed(param.group)
        if outputs <= 0:
            self.refuse("conv-num-output", f"num_output {outputs} is not positive", a=outputs, b=0)
        if group == 0:
            self.refuse("conv-group-zero", "group is 0", remedy="use 1 for an ordinary convolution")
        if channels % abs(group):
            self.refuse(
                "conv-groups-input",
                f"{channels} input channels cannot be split into {group} groups",
                remedy=f"use a group that divides {channels}",
                a=channels % abs(group),
                b=0,
            )
        if outputs % abs(group):
            self.refuse(
                "conv-groups-output",
                f"{outputs} output channels cannot be split into {group} groups",
                remedy="make num_output a multiple of group",
                a=outputs % abs(group),
                b=0,
            )
        weight = self.check_blob(self._weight_shape(channels, window))
        for i, other in enumerate(bottoms):
            if other != shape:
                first, differing = (f"{''.join(f'{n} ' for n in s)}({count(s)})" for s in (shape, other))
                self.refuse(
                    "conv-shapes-differ",
                    f"bottom 0 is {first} and bottom {i} is {differing}: the same filters need inputs of the same shape",
                    first=first,
                    index=i,
                    other=differing,
                )
        outs = self._outs(window, shape[axis + 1 :])
        top = self.check_blob((*shape[:axis], outputs, *outs))
        # one image unrolled must fit into a blob too, whether Caffe will unroll it or not
        self.check_blob((count(weight[1:]) * group, *(shape[axis + 1 :] if self.transposed else outs)))
        return [top] * self.num_tops

    def params(self, *bottoms: Shape) -> Sequence[ParamShape]:
        param = self.proto.convolution_param
        axis, window = self.window(bottoms[0])
        weights = ParamShape("weights", self._weight_shape(bottoms[0][axis], window), param.weight_filler)
        return (weights, ParamShape("biases", (param.num_output,), param.bias_filler)) if param.bias_term else (weights,)

    def costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Costs:
        """Per output element one multiply-accumulate for each weight of its filter, padding included, and one bias.

        A Deconvolution does the same per input element: each is spread through one filter.
        """
        axis, window = self.window(bottoms[0])
        filtered = sum(map(count, bottoms if self.transposed else tops))
        weights = count(self._weight_shape(bottoms[0][axis], window)[1:])
        return Costs(mac=filtered * weights, bias=sum(map(count, tops)) if self.proto.convolution_param.bias_term else 0)

    def backward_costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape], wanted: Sequence[bool]) -> Costs:
        """As many multiply-accumulates as forward for the inputs' gradient and as many for the filters'; one addition per output
        for the biases'."""
        forward = self.costs(bottoms, tops)
        inputs, (weights, *biases) = wanted[: len(bottoms)], wanted[len(bottoms) :]
        mac = forward.mac * sum(inputs) // len(bottoms) + forward.mac * weights
        return Costs(mac=mac, bias=forward.bias if any(biases) else 0)

    def workspace(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        """One image unrolled: channels x kernel x places. Caffe does without where kernel and stride are 1 and pad is 0."""
        axis, window = self.window(bottoms[0])
        if {*window.kernel, *window.stride} == {1} and not any(window.pad):
            return 0
        weights = self._weight_shape(bottoms[0][axis], window)
        places = (bottoms if self.transposed else tops)[0][axis + 1 :]
        return count(weights[1:]) * abs(signed(self.proto.convolution_param.group)) * count(places)

    def settings(self) -> str:
        param = self.proto.convolution_param
        return f"{super().settings()} {param.num_output}" + (f" g{param.group}" if param.group != 1 else "")

    # ---- the two directions, over arrays N x C x spatial...

    def _apply(self, x: np.ndarray, weight: np.ndarray, window: Window, outs: Sequence[int]) -> np.ndarray:
        run = kernels.deconvolve if self.transposed else kernels.convolve
        return run(x, weight, window, self.proto.convolution_param.group, outs)

    def _unapply(self, dy: np.ndarray, weight: np.ndarray, window: Window, sizes: Sequence[int]) -> np.ndarray:
        run = kernels.convolve if self.transposed else kernels.deconvolve
        return run(dy, weight, window, self.proto.convolution_param.group, sizes)

    def _weight_gradient(self, x: np.ndarray, dy: np.ndarray, window: Window) -> np.ndarray:
        seen, made = (dy, x) if self.transposed else (x, dy)
        return kernels.weight_gradient(seen, made, window, self.proto.convolution_param.group)

    def forward(self, ctx: Context, *arrays: np.ndarray) -> Sequence[np.ndarray]:
        bottoms, (weight, *bias) = arrays[: ctx.bottoms], arrays[ctx.bottoms :]
        shape = bottoms[0].shape
        axis, window = self.window(shape)
        sizes = shape[axis + 1 :]
        self._slide(window, sizes)  # a Deconvolution with stride 0 gets through Caffe's set-up and dies here
        outs = self._outs(window, sizes)
        tops = []
        for x in bottoms:
            y = self._apply(x.reshape(count(shape[:axis]), *shape[axis:]), weight, window, outs)  # N x O x out
            if bias:
                y += bias[0].reshape(-1, *(1 for _ in outs))
            tops.append(y.reshape(*shape[:axis], *y.shape[1:]))
        ctx.saved = (bottoms, weight, axis, window)
        return tops

    def backward(self, ctx: Context, *top_diffs: np.ndarray) -> Sequence[np.ndarray | None]:
        bottoms, weight, axis, window = ctx.saved
        shape = bottoms[0].shape
        images = count(shape[:axis])
        diffs = [dy.reshape(images, *dy.shape[axis:]) for dy in top_diffs]  # N x O x out
        grads: list[np.ndarray | None] = [
            self._unapply(dy, weight, window, shape[axis + 1 :]).reshape(shape) if ctx.wants(i) else None
            for i, dy in enumerate(diffs)
        ]
        if ctx.wants(len(bottoms)):
            pairs = zip(bottoms, diffs, strict=True)
            grads.append(reduce(add, (self._weight_gradient(x.reshape(images, *shape[axis:]), dy, window) for x, dy in pairs)))
        else:
            grads.append(None)
        if self.proto.convolution_param.bias_term:
            wanted = ctx.wants(len(bottoms) + 1)
            grads.append(reduce(add, (dy.sum(axis=(0, *range(2, dy.ndim))) for dy in diffs)) if wanted else None)
        return grads


@register("Convolution")
class Convolution(Filtering):
    """Correlates each input with a bank of filters; every group of filters sees its own share of the channels.

    Example::

        layer {
          name: "conv2" type: "Convolution" bottom: "norm1" top: "conv2"
          convolution_param { num_output: 256 kernel_size: 5 pad: 2 group: 2 }
        }

    Caffe's ConvolutionLayer. Sizes: (n + 2 pad - (dilation (kernel - 1) + 1)) / stride + 1, rounded towards zero.
    """

    rule = "N x num_output x outs; along each axis out = (n + 2 pad - (dilation (kernel - 1) + 1)) / stride + 1, rounded down"


@register("Deconvolution")
class Deconvolution(Filtering):
    """The transposed convolution: spreads each input element through a filter, which makes small images larger.

    Example::

        layer {
          name: "up" type: "Deconvolution" bottom: "score" top: "up"
          convolution_param { num_output: 21 kernel_size: 64 stride: 32 bias_term: false }
        }

    Caffe's DeconvolutionLayer. Sizes: stride (n - 1) + dilation (kernel - 1) + 1 - 2 pad. Weights: input x output/group x kernel.
    """

    rule = "N x num_output x outs; along each axis out = stride (n - 1) + dilation (kernel - 1) + 1 - 2 pad"
    transposed = True


@register("Im2col")
class Im2col(Sliding):
    """Unrolls the image: one channel for each input channel and kernel element, one pixel for each place of the window.

    Example::

        layer { name: "cols" type: "Im2col" bottom: "data" top: "cols" convolution_param { kernel_size: 3 pad: 1 } }

    Caffe's Im2colLayer.
    """

    rule = "N x (channels * kernel elements) x outs; outs as those of a Convolution"
    prefix = "im2col"

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        (shape,) = bottoms
        axis, window = self.window(shape)
        outs = self._slide(window, shape[axis + 1 :])
        return [self.check_blob((*shape[:axis], shape[axis] * count(window.kernel), *outs))]

    def backward_costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape], wanted: Sequence[bool]) -> Costs:
        """Folding back adds every element of the top to its pixel."""
        return Costs(add=count(tops[0]) * wanted[0])

    def forward(self, ctx: Context, *arrays: np.ndarray) -> Sequence[np.ndarray]:
        (x,) = arrays
        axis, window = self.window(x.shape)
        (top,) = self.shapes(x.shape)
        ctx.saved = (x.shape, axis, window)
        return [kernels.im2col(x, window, top[axis + 1 :]).reshape(top)]  # ... C x K x out as ... C*K x out

    def backward(self, ctx: Context, *top_diffs: np.ndarray) -> Sequence[np.ndarray | None]:
        shape, axis, window = ctx.saved
        (dy,) = top_diffs
        cols = dy.reshape(*shape[: axis + 1], count(window.kernel), *dy.shape[axis + 1 :])
        return [kernels.col2im(cols, window, shape[axis + 1 :])]
