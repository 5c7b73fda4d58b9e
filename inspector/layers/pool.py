"""Pooling over windows, and SPP, the pyramid of poolings. Rules: Caffe's pooling_layer.cpp, pooling_layer.cu, spp_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..editions import MASTER, Edition
from ..lazy import LazyModule, np
from ..window import Window
from .base import TEST, TRAIN, Context, Costs, Layer, Shape, count, register
from .conv import signed

if TYPE_CHECKING:
    from ..kernels import pool as kernels
else:
    kernels = LazyModule("inspector.kernels.pool")

MAX, AVE, STOCHASTIC = 0, 1, 2  # PoolingParameter.PoolMethod and SPPParameter.PoolMethod
METHODS = ("MAX", "AVE", "STOCHASTIC")
FLOOR = 1  # PoolingParameter.RoundMode


@register("Pooling")
class Pooling(Layer):
    """The largest element of each window, their average, or one drawn at random (when not training: what that gives on average).

    Example::

        layer {
          name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
          pooling_param { pool: MAX kernel_size: 3 stride: 2 }
        }

    Caffe's PoolingLayer. Sizes round up unless round_mode says FLOOR; with padding the last window must start inside the image or
    its leading pad. AVE divides by the window clipped to the padded image. A second top of MAX holds where each maximum was found.
    """

    rule = (
        "N x C x outs; along each axis out = (n + 2 pad - kernel) / stride + 1, rounded up; padded, a last window that would "
        "start behind the image is dropped"
    )

    def __init__(self, proto: Any, phase: int = TEST, edition: Edition = MASTER) -> None:
        super().__init__(proto, phase, edition)
        self.tops = (1, 2 if proto.pooling_param.pool == MAX else 1)

    def _pair(self, field: str) -> tuple[int, int]:
        """Height and width: from the one field for both where it is given, else from FIELD_h and FIELD_w, else the default."""
        param = self.proto.pooling_param
        name = "kernel_size" if field == "kernel" else field
        if param.HasField(f"{field}_h") and not param.HasField(name):
            return signed(getattr(param, f"{field}_h")), signed(getattr(param, f"{field}_w"))
        return (signed(getattr(param, name)),) * 2

    def window(self, shape: Shape) -> Window:
        """The window over a bottom of this shape, after every check of Caffe's LayerSetUp."""
        param = self.proto.pooling_param
        has = param.HasField
        size, both = has("kernel_size"), has("kernel_h") and has("kernel_w")
        if param.global_pooling:
            if size or has("kernel_h") or has("kernel_w"):
                self.refuse(
                    "pooling-global-kernel", "global_pooling takes the whole image, and a kernel is given", remedy="remove one"
                )
        elif size and both:
            self.refuse("pooling-kernel-both", "kernel_size is given together with kernel_h and kernel_w", remedy="keep one form")
        elif not (size or both):
            # Caffe means its second check for this case, but the first already fails: neither form is as wrong as both
            self.refuse("pooling-kernel-missing", "no kernel is given", remedy="give kernel_size, or both kernel_h and kernel_w")
        for field in ("pad", "stride"):
            h, w = has(f"{field}_h"), has(f"{field}_w")
            if (h or w) and (has(field) or not (h and w)):
                self.refuse(
                    f"pooling-{field}-forms",
                    f"{field} is given in two forms or by half",
                    remedy=f"give {field}, or both {field}_h and {field}_w",
                )
        kernel = (self.legacy(shape, 2), self.legacy(shape, 3)) if param.global_pooling else self._pair("kernel")
        for axis, k in zip("hw", kernel, strict=True):
            if k <= 0:
                self.refuse(f"pooling-kernel-zero-{axis}", f"kernel size {k} is not positive", a=k, b=0)
        pad, stride = self._pair("pad"), self._pair("stride")
        if param.global_pooling and (any(pad) or stride != (1, 1)):
            self.refuse("pooling-global-window", "global_pooling is given with a pad or a stride", remedy="remove pad and stride")
        if any(pad):
            if param.pool not in ((MAX, AVE) if self.edition.pooling_clips else (AVE,)):
                self.refuse(
                    "pooling-pad-method",
                    f"{METHODS[param.pool]} pooling has no padding",
                    remedy="use MAX or AVE, or no pad",
                    a=int(param.pool),
                    b=AVE,
                )
            for axis, p, k in zip("hw", pad, kernel, strict=True):
                if p >= k and self.edition.pooling_clips:
                    self.refuse(
                        f"pooling-pad-too-large-{axis}",
                        f"pad {p} is not smaller than the kernel {k}",
                        remedy="a window would see nothing but padding: reduce the pad",
                        a=p,
                        b=k,
                    )
        return Window(kernel, stride, pad, (1, 1))

    def _plan(self, shape: Shape) -> tuple[Window, tuple[int, ...]]:
        """Window and output sizes, after every check of Caffe's Reshape too."""
        window = self.window(shape)
        if len(shape) != 4:
            self.refuse(
                "pooling-axes",
                f"works on 4 axes (num, channels, height, width), and this blob has {len(shape)}",
                a=4,
                b=len(shape),
            )
        if min(window.stride) <= 0:
            self.refuse("pooling-stride-zero", f"stride {min(window.stride)} is not positive", remedy="use a stride of 1 or more")
        ceil = self.proto.pooling_param.round_mode != FLOOR
        return window, window.pooled(shape[2:], ceil=ceil, clip=self.edition.pooling_clips)

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        (shape,) = bottoms
        _, outs = self._plan(shape)
        return [self.check_blob((*shape[:2], *outs))] * self.num_tops

    def costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Costs:
        """Windows are counted whole, also where the image's edge clips them.

        Per window of K elements: MAX compares K times; AVE adds K times and divides once; STOCHASTIC adds 2 K times, compares K
        times and multiplies once when training, else adds 2 K times, multiplies K times and divides once.
        """
        window = self.window(bottoms[0])
        windows = count(tops[0])
        seen = windows * count(window.kernel)
        method = self.proto.pooling_param.pool
        if method == MAX:
            return Costs(compare=seen)
        if method == AVE:
            return Costs(add=seen, divide=windows)
        if self.phase == TRAIN:
            return Costs(add=2 * seen, compare=seen, multiply=windows)
        return Costs(add=2 * seen, multiply=seen, divide=windows)

    def backward_costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape], wanted: Sequence[bool]) -> Costs:
        """MAX, and STOCHASTIC when training, add each gradient at one place; AVE divides it and adds it over its window; STOCHASTIC
        in TEST weighs it over its window."""
        windows = count(tops[0]) * wanted[0]
        seen = windows * count(self.window(bottoms[0]).kernel)
        method = self.proto.pooling_param.pool
        if method == AVE:
            return Costs(divide=windows, add=seen)
        if method == STOCHASTIC and self.phase != TRAIN:
            return Costs(divide=windows, mac=seen)
        return Costs(add=windows)

    def settings(self) -> str:
        param = self.proto.pooling_param
        method = METHODS[param.pool]
        if param.global_pooling:
            return f"{method} global"
        window = Window(self._pair("kernel"), self._pair("stride"), self._pair("pad"), (1, 1))
        return f"{method} {window}" + (" floor" if param.round_mode == FLOOR else "")

    def forward(self, ctx: Context, *arrays: np.ndarray) -> Sequence[np.ndarray]:
        (x,) = arrays  # N x C x H x W
        window, outs = self._plan(x.shape)
        method = self.proto.pooling_param.pool
        if method == MAX:
            y = kernels.max_pool(x, window, outs)
            index = kernels.max_index(x, y, window) if self.num_tops > 1 else None
            ctx.saved = (x, window, y, index)
            return [y] if index is None else [y, index.astype(x.dtype)]
        if method == AVE:
            ctx.saved = (x, window)
            return [kernels.average_pool(x, window, outs)]
        if self.phase == TRAIN:
            y, index = kernels.sample_pool(x, window, outs, ctx.rng)
            ctx.saved = (x, window, y, index)
            return [y]
        y, inverse = kernels.weighted_pool(x, window, outs)
        ctx.saved = (x, window, y, inverse)
        return [y]

    def backward(self, ctx: Context, *top_diffs: np.ndarray) -> Sequence[np.ndarray | None]:
        if not ctx.wants(0):
            return [None]
        dy = top_diffs[0]  # what reaches the second top, indices, goes nowhere
        x, window, *kept = ctx.saved
        method = self.proto.pooling_param.pool
        if method == AVE:
            return [kernels.average_gradient(dy, window, x.shape[2:])]
        y, extra = kept
        if method == STOCHASTIC and self.phase != TRAIN:
            return [kernels.weighted_gradient(dy, x, y, extra, window)]
        index = kernels.max_index(x, y, window) if extra is None else extra
        return [kernels.index_gradient(dy, index, window, x.shape[2:])]


@register("SPP")
class SPP(Layer):
    """Spatial pyramid pooling: level i pools over 2^i x 2^i bins that cover the image; all bins end in one vector of fixed length.

    Example::

        layer { name: "spp" type: "SPP" bottom: "conv5" top: "spp" spp_param { pyramid_height: 3 pool: MAX } }

    Caffe's SPPLayer, which is built of inner Pooling layers. A pyramid of one level keeps its 4 axes. On some image sizes the
    padding that makes the bins fit is not smaller than a bin, and Caffe refuses.
    """

    rule = "N x (C * all bins), 4^level bins for each level; a pyramid of one level keeps its 4 axes, N x C x 1 x 1"

    def _levels(self, shape: Shape) -> list[Pooling]:
        """The inner layers for a bottom of this shape."""
        param = self.proto.spp_param
        sizes = self.legacy(shape, 2), self.legacy(shape, 3)
        for axis, size in zip("hw", sizes, strict=True):
            if size <= 0:
                self.refuse(f"spp-empty-{axis}", f"the image is {sizes[0]} x {sizes[1]}", a=size, b=0)
        if param.pyramid_height == 0:
            self.refuse("spp-no-level", "pyramid_height is 0", remedy="use 1 or more", a=1, b=0)
        levels = []
        for level in range(param.pyramid_height):
            bins = 2**level
            kernel = [-(-size // bins) for size in sizes]
            pad = [(k * bins - size + 1) // 2 for k, size in zip(kernel, sizes, strict=True)]
            inner = type(self.proto)(name=self.proto.name, type="Pooling", top=["y"])
            pooling = inner.pooling_param
            pooling.pool = param.pool
            pooling.kernel_h, pooling.kernel_w = pooling.stride_h, pooling.stride_w = kernel
            pooling.pad_h, pooling.pad_w = pad
            levels.append(Pooling(inner, self.phase, self.edition))
            levels[-1].shapes(shape)  # a level too fine for the image is refused before the next is made
        return levels

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        (shape,) = bottoms
        pooled = [inner.shapes(shape)[0] for inner in self._levels(shape)]
        return [pooled[0] if len(pooled) == 1 else self.check_blob((shape[0], sum(count(top[1:]) for top in pooled)))]

    def costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Costs:
        """Those of the inner Pooling layers."""
        return sum((inner.costs(bottoms, inner.shapes(bottoms[0])) for inner in self._levels(bottoms[0])), Costs())

    def backward_costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape], wanted: Sequence[bool]) -> Costs:
        """Those of the inner Pooling layers."""
        levels = ((inner, inner.shapes(bottoms[0])) for inner in self._levels(bottoms[0]))
        return sum((inner.backward_costs(bottoms, made, wanted) for inner, made in levels), Costs())

    def settings(self) -> str:
        param = self.proto.spp_param
        return f"{METHODS[param.pool]} {param.pyramid_height} level" + ("s" if param.pyramid_height != 1 else "")

    def forward(self, ctx: Context, *arrays: np.ndarray) -> Sequence[np.ndarray]:
        (x,) = arrays
        levels = self._levels(x.shape)
        contexts = [Context(train=ctx.train, rng=ctx.rng, bottoms=1) for _ in levels]
        pooled = [inner.forward(own, x)[0] for inner, own in zip(levels, contexts, strict=True)]
        ctx.saved = [(inner, own, y.shape) for inner, own, y in zip(levels, contexts, pooled, strict=True)]
        if len(pooled) == 1:
            return pooled
        return [np.concatenate([y.reshape(len(y), count(y.shape[1:])) for y in pooled], axis=1)]  # N x all bins of all channels

    def backward(self, ctx: Context, *top_diffs: np.ndarray) -> Sequence[np.ndarray | None]:
        if not ctx.wants(0):
            return [None]
        (dy,) = top_diffs
        flat = dy.reshape(len(dy), count(dy.shape[1:]))
        dx: np.ndarray | None = None
        start = 0
        for inner, own, shape in ctx.saved:
            stop = start + count(shape[1:])
            (part,) = inner.backward(own, flat[:, start:stop].reshape(shape))
            dx = part if dx is None else dx + part
            start = stop
        return [dx]
