"""Elementwise layers: one bottom, one top of the same shape, one number in and one number out.

In place, Caffe's bottom and top are one memory: a backward that reads its bottom then reads the *top*, and one that builds the
bottom's gradient step by step overwrites the top's gradient before it multiplies by it. In that case, too, gradients are Caffe's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..lazy import np
from .base import TRAIN, Context, Costs, Layer, ParamShape, Shape, count, described, filler_or, register

if TYPE_CHECKING:
    from numpy import ndarray


class Neuron(Layer):
    """Base: subclasses say `function(x)`, `slope(x, y, dy)` and what one element costs.

    `slope` returns the bottom's gradient; its `x` is what Caffe's bottom holds at backward: the top's values in an in-place layer.
    """

    def function(self, x: ndarray) -> ndarray:
        """The top of bottom `x`, any shape, in a new array."""
        raise NotImplementedError

    def slope(self, x: ndarray, y: ndarray, dy: ndarray) -> ndarray:
        """The gradient of the bottom, from bottom, top and the top's gradient, all of one shape."""
        raise NotImplementedError

    def per_element(self) -> Costs:
        """Operations for one element."""
        return Costs()

    def costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Costs:
        """Every element costs the same: what the formula needs, before any special case such as a scale of 1 is left out."""
        return self.per_element() * count(bottoms[0])

    def slope_per_element(self) -> Costs:
        """Operations of the gradient of one element; the base answer is one multiplication, with a factor that forward kept."""
        return Costs(multiply=1)

    def backward_costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape], wanted: Sequence[bool]) -> Costs:
        """What the formula of the derivative needs, from bottom and top as they lie there."""
        return self.slope_per_element() * (count(bottoms[0]) * wanted[0])

    def forward(self, ctx: Context, *arrays: ndarray) -> Sequence[ndarray]:
        (x,) = arrays
        with np.errstate(all="ignore"):  # as in C++, the logarithm of 0 is -inf and that of -1 not a number
            y = np.asarray(self.function(x), x.dtype)  # also where a scalar blob has made a NumPy scalar
        if ctx.wants(0):
            ctx.saved = (y if self.in_place else x), y
        return [y]

    def backward(self, ctx: Context, *top_diffs: ndarray) -> Sequence[ndarray | None]:
        (dy,) = top_diffs
        if not ctx.wants(0):
            return [None]
        x, y = ctx.saved
        with np.errstate(all="ignore"):
            return [np.asarray(self.slope(x, y, dy), dy.dtype)]


@register("ReLU")
class ReLU(Neuron):
    """Rectified linear unit: y = max(x, 0) + negative_slope * min(x, 0).

    layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" relu_param { negative_slope: 0.1 } }

    Caffe: relu_layer.cpp. Nair and Hinton, "Rectified linear units improve restricted Boltzmann machines", 2010.
    """

    def per_element(self) -> Costs:
        """One comparison; a multiplication where there is a negative slope."""
        return Costs(compare=1, multiply=int(self.proto.relu_param.negative_slope != 0))

    def slope_per_element(self) -> Costs:
        """One comparison and one multiplication."""
        return Costs(compare=1, multiply=1)

    def settings(self) -> str:
        return described(("slope", self.proto.relu_param.negative_slope, 0))

    def function(self, x: ndarray) -> ndarray:
        leak = self.proto.relu_param.negative_slope
        return np.maximum(x, 0) + leak * np.minimum(x, 0) if leak else np.maximum(x, 0)

    def slope(self, x: ndarray, y: ndarray, dy: ndarray) -> ndarray:
        leak = self.proto.relu_param.negative_slope
        return np.where(x > 0, dy, leak * dy) if leak else dy * (x > 0)


@register("PReLU")
class PReLU(Layer):
    """ReLU whose negative slope is learned, one per channel (axis 1) or one for all: y = max(x, 0) + a * min(x, 0).

    layer { name: "relu1" type: "PReLU" bottom: "conv1" top: "conv1" prelu_param { channel_shared: false } }

    Caffe: prelu_layer.cpp; without a filler the slopes start at 0.25. He et al., "Delving deep into rectifiers", 2015.
    """

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        if len(bottoms[0]) < 2:
            self.refuse(
                "prelu-axes",
                f"needs a channel axis, and its bottom has {len(bottoms[0])} axes",
                remedy="reshape the bottom to at least 2 axes",
                a=len(bottoms[0]),
                b=2,
            )
        self.legacy(bottoms[0], 1)
        return [bottoms[0]]

    def params(self, *bottoms: Shape) -> Sequence[ParamShape]:
        param = self.proto.prelu_param
        return [ParamShape("slope", () if param.channel_shared else (bottoms[0][1],), filler_or(param, 0.25))]

    def costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Costs:
        """One comparison and one multiplication for every element."""
        return Costs(compare=1, multiply=1) * count(bottoms[0])

    def backward_costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape], wanted: Sequence[bool]) -> Costs:
        """Per element a comparison and a multiplication for the bottom's gradient, with an accumulation for the slope's."""
        bottom, slope = wanted[:2]
        return Costs(compare=bottom + slope, multiply=int(bottom), mac=int(slope)) * count(bottoms[0])

    def settings(self) -> str:
        return "shared" if self.proto.prelu_param.channel_shared else ""

    def forward(self, ctx: Context, *arrays: ndarray) -> Sequence[ndarray]:
        x, slope = arrays
        per_channel = slope.reshape(-1, *[1] * (x.ndim - 2))  # C or 1, then 1 for every axis after the channels
        ctx.saved = x, per_channel, slope.shape
        return [np.maximum(x, 0) + per_channel * np.minimum(x, 0)]

    def backward(self, ctx: Context, *top_diffs: ndarray) -> Sequence[ndarray | None]:
        (dy,) = top_diffs
        x, per_channel, shape = ctx.saved  # not the top, even in place: Caffe keeps a copy
        dx = dslope = None
        if ctx.wants(1):
            axes = tuple(axis for axis in range(x.ndim) if axis != 1 or shape == ())
            dslope = np.asarray((dy * np.minimum(x, 0)).sum(axes))
        if ctx.wants(0):
            dx = np.where(x > 0, dy, dy * per_channel)
        return [dx, dslope]


@register("ELU")
class ELU(Neuron):
    """Exponential linear unit: y = x where x > 0, alpha * (exp(x) - 1) elsewhere.

    layer { name: "elu1" type: "ELU" bottom: "conv1" top: "conv1" elu_param { alpha: 0.5 } }

    Caffe: elu_layer.cpp. Clevert et al., "Fast and accurate deep network learning by exponential linear units", 2015.
    """

    def per_element(self) -> Costs:
        """Comparison, exponential, subtraction and multiplication, as Caffe computes both branches for every element."""
        return Costs(compare=1, exponential=1, add=1, multiply=1)

    def slope_per_element(self) -> Costs:
        """One comparison, one addition, one multiplication."""
        return Costs(compare=1, add=1, multiply=1)

    def settings(self) -> str:
        return described(("alpha", self.proto.elu_param.alpha, 1))

    def function(self, x: ndarray) -> ndarray:
        return np.maximum(x, 0) + self.proto.elu_param.alpha * (np.exp(np.minimum(x, 0)) - 1)

    def slope(self, x: ndarray, y: ndarray, dy: ndarray) -> ndarray:
        return np.where(x > 0, dy, dy * (self.proto.elu_param.alpha + y))


@register("Sigmoid")
class Sigmoid(Neuron):
    """Logistic function: y = 1 / (1 + exp(-x)).

    layer { name: "gate" type: "Sigmoid" bottom: "fc1" top: "gate" }

    Caffe: sigmoid_layer.cpp, which computes it as tanh(x / 2) / 2 + 1 / 2.
    """

    def per_element(self) -> Costs:
        """As the formula says: one exponential, one addition, one division."""
        return Costs(exponential=1, add=1, divide=1)

    def slope_per_element(self) -> Costs:
        """dy * y * (1 - y)."""
        return Costs(multiply=2, add=1)

    def function(self, x: ndarray) -> ndarray:
        return 0.5 * np.tanh(0.5 * x) + 0.5

    def slope(self, x: ndarray, y: ndarray, dy: ndarray) -> ndarray:
        return dy * y * (1 - y)


@register("TanH")
class TanH(Neuron):
    """Hyperbolic tangent: y = tanh(x).

    layer { name: "act" type: "TanH" bottom: "fc1" top: "fc1" }

    Caffe: tanh_layer.cpp.
    """

    def per_element(self) -> Costs:
        """One exponential-like function."""
        return Costs(exponential=1)

    def slope_per_element(self) -> Costs:
        """dy * (1 - y * y)."""
        return Costs(multiply=2, add=1)

    def function(self, x: ndarray) -> ndarray:
        return np.tanh(x)

    def slope(self, x: ndarray, y: ndarray, dy: ndarray) -> ndarray:
        return dy * (1 - y * y)


@register("AbsVal")
class AbsVal(Neuron):
    """Absolute value: y = |x|. Refuses to work in place.

    layer { name: "magnitude" type: "AbsVal" bottom: "diff" top: "magnitude" }

    Caffe: absval_layer.cpp; the gradient at 0 is 0.
    """

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        if self.in_place:
            self.refuse(
                "absval-in-place",
                f"does not work in place, and its top is its bottom '{self.proto.top[0]}'",
                remedy="give the top a name of its own",
            )
        return [bottoms[0]]

    def per_element(self) -> Costs:
        """One comparison with 0."""
        return Costs(compare=1)

    def slope_per_element(self) -> Costs:
        """The sign, and one multiplication."""
        return Costs(compare=1, multiply=1)

    def function(self, x: ndarray) -> ndarray:
        return np.abs(x)

    def slope(self, x: ndarray, y: ndarray, dy: ndarray) -> ndarray:
        return dy * np.sign(x)


@register("BNLL")
class BNLL(Neuron):
    """Binomial normal log likelihood, also called softplus: y = log(1 + exp(x)).

    layer { name: "soft" type: "BNLL" bottom: "fc1" top: "soft" }

    Caffe: bnll_layer.cpp; its gradient takes x as at most 50.
    """

    def per_element(self) -> Costs:
        """The comparison that keeps it stable, two exponential-like functions, two additions."""
        return Costs(compare=1, exponential=2, add=2)

    def slope_per_element(self) -> Costs:
        """One comparison, one exponential, one addition, one multiplication, one division."""
        return Costs(compare=1, exponential=1, add=1, multiply=1, divide=1)

    def function(self, x: ndarray) -> ndarray:
        return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))

    def slope(self, x: ndarray, y: ndarray, dy: ndarray) -> ndarray:
        grown = np.exp(np.minimum(x, 50))
        return dy * grown / (grown + 1)


@register("Exp")
class Exp(Neuron):
    """Exponential: y = base ^ (shift + scale * x); base -1, the default, means e.

    layer { name: "grow" type: "Exp" bottom: "x" top: "y" exp_param { base: 2 scale: 0.5 shift: 1 } }

    Caffe: exp_layer.cpp.
    """

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        log_of_base(self, "exp", self.proto.exp_param.base)
        return [bottoms[0]]

    def per_element(self) -> Costs:
        """One exponential and two multiplications: the scale, and base ^ shift."""
        return Costs(exponential=1, multiply=2)

    def slope_per_element(self) -> Costs:
        """dy * y * (log(base) * scale)."""
        return Costs(multiply=2)

    def settings(self) -> str:
        p = self.proto.exp_param
        return described(("base", p.base, -1), ("scale", p.scale, 1), ("shift", p.shift, 0))

    def _inner(self) -> float:
        """What x is multiplied by before exp: log(base) * scale."""
        return log_of_base(self, "exp", self.proto.exp_param.base) * self.proto.exp_param.scale

    def function(self, x: ndarray) -> ndarray:
        base, shift = self.proto.exp_param.base, self.proto.exp_param.shift
        outer = np.power(np.float64(math.e if base == -1 else base), shift)
        return np.exp(self._inner() * x) * float(outer)

    def slope(self, x: ndarray, y: ndarray, dy: ndarray) -> ndarray:
        return y * dy * self._inner()


@register("Log")
class Log(Neuron):
    """Logarithm: y = log_base(shift + scale * x); base -1, the default, means e.

    layer { name: "shrink" type: "Log" bottom: "x" top: "y" log_param { base: 10 shift: 1 } }

    Caffe: log_layer.cpp. In place its gradient is of no use in training: see the top of this file.
    """

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        base = self.proto.log_param.base
        if log_of_base(self, "log", base) == 0:  # the base's logarithm is the divisor
            self.refuse("log-base-one", "there is no logarithm to base 1", remedy="set another base, or none for e", a=base)
        return [bottoms[0]]

    def per_element(self) -> Costs:
        """One logarithm, two multiplications (scale and 1 / log(base)), one addition (shift)."""
        return Costs(exponential=1, multiply=2, add=1)

    def slope_per_element(self) -> Costs:
        """dy * rate / (shift + scale * x)."""
        return Costs(multiply=2, add=1, divide=1)

    def settings(self) -> str:
        p = self.proto.log_param
        return described(("base", p.base, -1), ("scale", p.scale, 1), ("shift", p.shift, 0))

    def function(self, x: ndarray) -> ndarray:
        p = self.proto.log_param
        return np.log(p.scale * x + p.shift) * (1 / log_of_base(self, "log", p.base))

    def slope(self, x: ndarray, y: ndarray, dy: ndarray) -> ndarray:
        p = self.proto.log_param
        rate = p.scale / log_of_base(self, "log", p.base) / (p.scale * x + p.shift)
        return rate * (rate if self.in_place else dy)


def log_of_base(layer: Layer, kind: str, base: float) -> float:
    """The natural logarithm of an Exp's or Log's base (-1: e), after the checks that both make of it."""
    if base == -1:
        return 1.0
    if not base > 0:  # also where it is not a number
        layer.refuse(f"{kind}-base-positive", f"base {base:g} is not positive", remedy="set a base above 0, or none for e", a=base)
    if math.isinf(base):
        layer.refuse(f"{kind}-base-infinite", "the base is infinite", remedy="set a finite base, or none for e", a=base)
    return math.log(base)


@register("Power")
class Power(Neuron):
    """Affine map and power: y = (shift + scale * x) ^ power.

    layer { name: "square" type: "Power" bottom: "x" top: "y" power_param { power: 2 scale: 0.5 shift: 1 } }

    Caffe: power_layer.cpp. In place its gradient is of no use in training: see the top of this file.
    """

    def per_element(self) -> Costs:
        """One multiplication, one addition, and the power where it is not 1; nothing where power or scale are 0."""
        p = self.proto.power_param
        if p.power * p.scale == 0:
            return Costs()
        return Costs(multiply=1, add=1, exponential=int(p.power != 1))

    def slope_per_element(self) -> Costs:
        """By the shortest of Caffe's ways: a constant, a straight line for squares, else the quotient of top and inner value."""
        p = self.proto.power_param
        if p.power * p.scale == 0:
            return Costs()
        if p.power == 1:
            return Costs(multiply=1)
        if p.power == 2:
            return Costs(multiply=3, add=1)
        return Costs(divide=1, multiply=2) if p.shift == 0 else Costs(divide=1, multiply=3, add=1)

    def settings(self) -> str:
        p = self.proto.power_param
        return described(("power", p.power, 1), ("scale", p.scale, 1), ("shift", p.shift, 0))

    def function(self, x: ndarray) -> ndarray:
        p = self.proto.power_param
        if p.power * p.scale == 0:  # whatever the input, even where it is not a number
            return np.full_like(x, 1 if p.power == 0 else np.power(np.float64(p.shift), p.power))
        inner = p.scale * x + p.shift
        return inner if p.power == 1 else inner**p.power

    def slope(self, x: ndarray, y: ndarray, dy: ndarray) -> ndarray:
        """By way of the quotient power * scale * y / (shift + scale * x), as Caffe: not a number where both are 0."""
        p = self.proto.power_param
        product = p.power * p.scale
        if product == 0:
            return np.zeros_like(dy)
        if p.power == 1:
            rate = np.full_like(dy, product)
        elif p.power == 2:
            rate = product * (p.scale * x + p.shift)
        elif p.shift == 0:
            rate = p.power * (y / x)
        else:
            rate = product * (y / (p.scale * x + p.shift))
        return rate * (rate if self.in_place else dy)


@register("Swish")
class Swish(Neuron):
    """y = x / (1 + exp(-beta * x)).

    layer { name: "swish1" type: "Swish" bottom: "conv1" top: "conv1" swish_param { beta: 1 } }

    Caffe: swish_layer.cpp. Ramachandran et al., "Searching for activation functions", 2017.
    """

    def per_element(self) -> Costs:
        """A sigmoid (exponential, addition, division) and two multiplications."""
        return Costs(exponential=1, add=1, divide=1, multiply=2)

    def slope_per_element(self) -> Costs:
        """dy * (beta * y + sigmoid * (1 - beta * y)), the sigmoid being kept from forward."""
        return Costs(multiply=3, add=2)

    def settings(self) -> str:
        return described(("beta", self.proto.swish_param.beta, 1))

    def _gate(self, x: ndarray) -> ndarray:
        return 0.5 * np.tanh(0.5 * self.proto.swish_param.beta * x) + 0.5

    def function(self, x: ndarray) -> ndarray:
        return x * self._gate(x)

    def forward(self, ctx: Context, *arrays: ndarray) -> Sequence[ndarray]:
        (x,) = arrays
        tops = super().forward(ctx, x)
        if ctx.wants(0):
            ctx.saved = x, *tops  # in place, too: Caffe keeps the sigmoid of the bottom
        return tops

    def slope(self, x: ndarray, y: ndarray, dy: ndarray) -> ndarray:
        scaled = self.proto.swish_param.beta * y
        return dy * (scaled + self._gate(x) * (1 - scaled))


@register("Clip")
class Clip(Neuron):
    """Limits: y = max(min, min(x, max)).

    layer { name: "relu6" type: "Clip" bottom: "conv1" top: "conv1" clip_param { min: 0 max: 6 } }

    Caffe: clip_layer.cpp; the gradient passes where min <= x <= max. In place it passes everywhere, as the top is always within.
    """

    def per_element(self) -> Costs:
        """Two comparisons."""
        return Costs(compare=2)

    def slope_per_element(self) -> Costs:
        """Two comparisons and one multiplication."""
        return Costs(compare=2, multiply=1)

    def settings(self) -> str:
        return f"{self.proto.clip_param.min:g}..{self.proto.clip_param.max:g}"

    def function(self, x: ndarray) -> ndarray:
        return np.maximum(self.proto.clip_param.min, np.minimum(x, self.proto.clip_param.max))

    def slope(self, x: ndarray, y: ndarray, dy: ndarray) -> ndarray:
        return dy * ((x >= self.proto.clip_param.min) & (x <= self.proto.clip_param.max))


@register("Threshold")
class Threshold(Neuron):
    """y = 1 where x > threshold, 0 elsewhere. Without gradient: Caffe's backward stops the program.

    layer { name: "mask" type: "Threshold" bottom: "score" top: "mask" threshold_param { threshold: 0.5 } }

    Caffe: threshold_layer.cpp.
    """

    def per_element(self) -> Costs:
        """One comparison."""
        return Costs(compare=1)

    def slope_per_element(self) -> Costs:
        """It has no gradient."""
        return Costs()

    def settings(self) -> str:
        return f"{self.proto.threshold_param.threshold:g}"

    def function(self, x: ndarray) -> ndarray:
        return x > self.proto.threshold_param.threshold

    def backward(self, ctx: Context, *top_diffs: ndarray) -> Sequence[ndarray | None]:
        return [None]


@register("Dropout")
class Dropout(Layer):
    """In TRAIN sets elements to 0 with probability dropout_ratio and divides the others by 1 - ratio; in TEST passes its bottom on.

    layer { name: "drop6" type: "Dropout" bottom: "fc6" top: "fc6" dropout_param { dropout_ratio: 0.5 } }

    Caffe: dropout_layer.cpp; only debug builds check the ratio at set-up. Srivastava et al., "Dropout", 2014.
    """

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        ratio = self.proto.dropout_param.dropout_ratio
        if self.edition.debug and not 0 < ratio < 1:
            self.refuse(
                "dropout-ratio-zero" if ratio <= 0 else "dropout-ratio-one",
                f"dropout_ratio {ratio:g} is not between 0 and 1, as debug builds want it",
            )
        return super().shapes(*bottoms)

    def costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Costs:
        """In TRAIN one multiplication for every element (random numbers are not counted), in TEST nothing."""
        return Costs(multiply=count(bottoms[0]) if self.phase == TRAIN else 0)

    def backward_costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape], wanted: Sequence[bool]) -> Costs:
        """In TRAIN one multiplication for every element."""
        return Costs(multiply=count(bottoms[0]) if self.phase == TRAIN and wanted[0] else 0)

    def settings(self) -> str:
        return f"{self.proto.dropout_param.dropout_ratio:g}"

    def forward(self, ctx: Context, *arrays: ndarray) -> Sequence[ndarray]:
        (x,) = arrays
        ratio = self.proto.dropout_param.dropout_ratio
        if not ctx.train:
            return [x]
        if not 0 <= ratio <= 1:
            self.refuse(
                "dropout-ratio-high" if ratio > 1 else "dropout-ratio-low",
                f"dropout_ratio {ratio:g} is not a probability",
                remedy="use 0 to 1",
                a=1 - ratio,
                b=0 if ratio > 1 else 1,
            )
        with np.errstate(all="ignore"):  # ratio 1 makes 0 * inf, not a number, in Caffe too
            kept = (ctx.rng.random(x.shape) < 1 - ratio) * np.divide(1.0, 1 - ratio)
            ctx.saved = kept.astype(x.dtype)
            return [np.asarray(x * ctx.saved)]

    def backward(self, ctx: Context, *top_diffs: ndarray) -> Sequence[ndarray | None]:
        (dy,) = top_diffs
        if not ctx.wants(0):
            return [None]
        return [np.asarray(dy * ctx.saved) if ctx.train else dy]
