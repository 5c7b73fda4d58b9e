"""Normalisations: LRN, BatchNorm, MVN. Rules: Caffe's lrn_layer.cpp, batch_norm_layer.cpp, mvn_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..lazy import LazyModule, np
from .base import TEST, Context, Costs, Layer, ParamShape, Shape, count, register
from .conv import signed
from .pool import AVE, Pooling

if TYPE_CHECKING:
    from ..kernels import norm as kernels
else:
    kernels = LazyModule("inspector.kernels.norm")

WITHIN_CHANNEL = 1  # LRNParameter.NormRegion


@register("LRN")
class LRN(Layer):
    """Local response normalisation: divides each element by a power of the squares around it.

    Example::

        layer { name: "norm1" type: "LRN" bottom: "pool1" top: "norm1" lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 } }

    Caffe's LRNLayer. ACROSS_CHANNELS: x / (k + alpha/n * sum over n channels of x^2)^beta. WITHIN_CHANNEL: x / (1 + alpha * average
    over n x n pixels of x^2)^beta, the average being that of an inner Pooling layer, and k being ignored.
    """

    @property
    def _within(self) -> bool:
        return self.proto.lrn_param.norm_region == WITHIN_CHANNEL

    def _inner(self) -> Pooling:
        """The average over local_size x local_size pixels."""
        size = self.proto.lrn_param.local_size
        inner = type(self.proto)(name=self.proto.name, type="Pooling", top=["y"])
        inner.pooling_param.pool = AVE
        inner.pooling_param.kernel_size = size
        inner.pooling_param.pad = (size - 1) // 2
        return Pooling(inner, self.phase, self.edition)

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        (shape,) = bottoms
        size = signed(self.proto.lrn_param.local_size)
        remainder = size % 2 if size >= 0 else -(size % 2)  # C++'s sign
        if remainder != 1 and self.checks("lrn-even-size"):
            self.refuse(
                "lrn-even-size", f"local_size {size} is not an odd number of neighbours", remedy="use 3, 5, ...", a=remainder, b=1
            )
        if self._within:
            self._inner().shapes(shape)
        if len(shape) != 4:
            self.refuse(
                "lrn-axes", f"works on 4 axes (num, channels, height, width), and this blob has {len(shape)}", a=4, b=len(shape)
            )
        return [shape]

    def costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Costs:
        """Per element: its square, one addition for every neighbour (also beyond the edge), scaling, a power, and the product.

        WITHIN_CHANNEL also divides by the window and adds 1.
        """
        elements, size = count(tops[0]), self.proto.lrn_param.local_size
        if self._within:
            return Costs(add=elements * (size * size + 1), multiply=3 * elements, divide=elements, exponential=elements)
        return Costs(add=elements * size, multiply=3 * elements, exponential=elements)

    def backward_costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape], wanted: Sequence[bool]) -> Costs:
        """Per element: the ratio (a product and a quotient), its sum over the neighbours, a power, three multiplications and the
        final subtraction."""
        size = self.proto.lrn_param.local_size
        neighbours = size * size if self._within else size
        return Costs(add=neighbours + 1, multiply=4, divide=1, exponential=1) * (count(tops[0]) * wanted[0])

    def settings(self) -> str:
        return f"{self.proto.lrn_param.local_size} {'within' if self._within else 'across'}"

    def forward(self, ctx: Context, *arrays: np.ndarray) -> Sequence[np.ndarray]:
        (x,) = arrays
        param = self.proto.lrn_param
        if not self._within:
            y, scale = kernels.lrn(x, param.local_size, param.alpha, param.beta, param.k)
            ctx.saved = (x, y, scale)
            return [y]
        own = Context(train=ctx.train, rng=ctx.rng, bottoms=1)
        inner = self._inner()
        (average,) = inner.forward(own, x * x)
        base = 1 + param.alpha * average
        power = base**-param.beta
        ctx.saved = (x, base, power, inner, own)
        return [x * power]

    def backward(self, ctx: Context, *top_diffs: np.ndarray) -> Sequence[np.ndarray | None]:
        if not ctx.wants(0):
            return [None]
        (dy,) = top_diffs
        param = self.proto.lrn_param
        if not self._within:
            x, y, scale = ctx.saved
            return [kernels.lrn_gradient(dy, x, y, scale, param.local_size, param.alpha, param.beta)]
        x, base, power, inner, own = ctx.saved
        (spread,) = inner.backward(own, dy * x * power / base)
        return [dy * power - 2 * param.alpha * param.beta * x * spread]


@register("BatchNorm")
class BatchNorm(Layer):
    """Brings each channel to mean 0 and variance 1: by the stored statistics in TEST, by those of the batch in TRAIN.

    Example::

        layer { name: "bn1" type: "BatchNorm" bottom: "conv1" top: "conv1" batch_norm_param { use_global_stats: true } }

    Caffe's BatchNormLayer. Three parameters: sums of means and of variances, and the factor by which both are divided. A forward by
    batch statistics updates them in place. A Scale layer usually follows.
    """

    @property
    def stored(self) -> bool:
        """Whether it uses the stored statistics."""
        param = self.proto.batch_norm_param
        return param.use_global_stats if param.HasField("use_global_stats") else self.phase == TEST

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        (shape,) = bottoms
        if len(shape) != 1:  # Caffe's setup forgives a single axis, but its Reshape does not
            self.axis(1, shape)
        for i, spec in enumerate(self.proto.param[:3]):
            if spec.lr_mult != 0:
                self.refuse(
                    "batchnorm-learning-rate",
                    f"param {i} has lr_mult {spec.lr_mult:g}, and statistics are not learnt",
                    remedy="set lr_mult: 0, or remove the param",
                    a=spec.lr_mult,
                    b=0,
                )
        self.axis(1, shape)
        if 0 in shape[:2]:
            self.refuse("batchnorm-empty", f"there is nothing to normalise in {shape[0]} images of {shape[1]} channels")
        return [shape]

    def params(self, *bottoms: Shape) -> Sequence[ParamShape]:
        channels = bottoms[0][1]
        statistics = (("mean", channels), ("variance", channels), ("factor", 1))
        return tuple(ParamShape(name, (size,), fixed=True) for name, size in statistics)

    def costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Costs:
        """Per element a subtraction and a division; by batch statistics also a square and two additions. Per channel one root."""
        elements, channels = count(bottoms[0]), bottoms[0][1]
        if self.stored:
            return Costs(add=elements, divide=elements, multiply=2 * channels, exponential=channels)
        return Costs(add=3 * elements, multiply=elements, divide=elements, exponential=channels)

    def backward_costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape], wanted: Sequence[bool]) -> Costs:
        """Per element a division; by batch statistics also the two sums (one of products), two subtractions and a product."""
        each = Costs(divide=1) if self.stored else Costs(mac=1, add=3, multiply=1, divide=1)
        return each * (count(bottoms[0]) * wanted[0])

    def settings(self) -> str:
        return "global" if self.stored else "batch"

    def forward(self, ctx: Context, *arrays: np.ndarray) -> Sequence[np.ndarray]:
        x, means, variances, factor = arrays
        param = self.proto.batch_norm_param
        axes = (0, *range(2, x.ndim))
        if self.stored:
            scale = 0 if factor[0] == 0 else 1 / factor[0]
            mean, variance = ((sums * scale).reshape(-1, *(1,) * (x.ndim - 2)) for sums in (means, variances))
        else:
            mean, variance = kernels.moments(x, axes)
            keep, elements = param.moving_average_fraction, x.size // x.shape[1]
            unbiased = elements / (elements - 1) if elements > 1 else 1
            factor[...] = factor * keep + 1
            means[...] = means * keep + mean.reshape(-1)
            variances[...] = variances * keep + variance.reshape(-1) * unbiased
        deviation = np.sqrt(variance + param.eps)  # C x 1 x 1, or 1 x C x 1 x 1
        y = (x - mean) / deviation
        ctx.saved = (y, deviation, axes)
        return [y]

    def backward(self, ctx: Context, *top_diffs: np.ndarray) -> Sequence[np.ndarray | None]:
        if not ctx.wants(0):
            return [None] * 4
        (dy,) = top_diffs
        y, deviation, axes = ctx.saved
        dx = dy / deviation if self.stored else kernels.standardised_gradient(dy, y, deviation, axes)
        return [dx, None, None, None]


@register("MVN")
class MVN(Layer):
    """Mean-variance normalisation: brings each channel of each image (or each image) to mean 0 and, unless told not to, variance 1.

    Example::

        layer { name: "norm" type: "MVN" bottom: "data" top: "norm" mvn_param { across_channels: true } }

    Caffe's MVNLayer: divides by the standard deviation plus eps. Its top always has 4 axes.
    """

    rule = "that of the bottom, filled up with ones to 4 axes"

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        return [self.check_blob(tuple(self.legacy(bottoms[0], i) for i in range(4)))]

    def costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Costs:
        """Per element two additions; with the variance also a square, an addition and a division. Per mean one root."""
        param = self.proto.mvn_param
        elements, means = count(tops[0]), count(tops[0][: 1 if param.across_channels else 2])
        if not param.normalize_variance:
            return Costs(add=2 * elements)
        return Costs(add=3 * elements + means, multiply=elements, divide=elements, exponential=means)

    def backward_costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape], wanted: Sequence[bool]) -> Costs:
        """Per element the sum and a subtraction; with the variance also a sum of products, a product, a subtraction, a division."""
        each = Costs(mac=1, add=3, multiply=1, divide=1) if self.proto.mvn_param.normalize_variance else Costs(add=2)
        return each * (count(tops[0]) * wanted[0])

    def settings(self) -> str:
        param = self.proto.mvn_param
        return f"{'image' if param.across_channels else 'channel'} {'mean, variance' if param.normalize_variance else 'mean'}"

    def forward(self, ctx: Context, *arrays: np.ndarray) -> Sequence[np.ndarray]:
        param = self.proto.mvn_param
        x = arrays[0].reshape(self.shapes(arrays[0].shape)[0])  # N x C x H x W
        axes = (1, 2, 3) if param.across_channels else (2, 3)
        mean, variance = kernels.moments(x, axes)
        y, deviation = x - mean, None
        if param.normalize_variance:
            deviation = np.sqrt(variance) + param.eps
            y /= deviation
        ctx.saved = (arrays[0].shape, y, deviation, axes)
        return [y]

    def backward(self, ctx: Context, *top_diffs: np.ndarray) -> Sequence[np.ndarray | None]:
        if not ctx.wants(0):
            return [None]
        (dy,) = top_diffs
        shape, y, deviation, axes = ctx.saved
        if deviation is None:
            dx = dy - dy.mean(axis=axes, keepdims=True)
        else:
            dx = kernels.standardised_gradient(dy, y, deviation, axes)
        return [dx.reshape(shape)]
