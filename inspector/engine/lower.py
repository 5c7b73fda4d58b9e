"""From steps to NumPy calls: the one place that knows both layers and tuned kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..graph import Blob, Node, Param
from ..kernels.fast import conv, linear, norm, pool
from ..kernels.fast import winograd as fast_conv
from ..kernels.fast.base import Calls, Scratch, copy, flat
from ..kernels.fast.finish import Finish, Op
from ..layers import Shape, count
from ..layers.neuron import Clip, PReLU, ReLU
from ..layers.pool import MAX
from ..plan import Head, Home, Plan, Step
from .constants import Constants, affine_chain
from .storage import Value, filter_window

WINOGRAD_CHANNELS, WINOGRAD_SIZE = 32, 28  # from which the transform pays


def kernel(plan: Plan, values: Mapping[Blob, Value], step: Step) -> str:
    """The kernel that a step gets, by its name."""
    if step.kind == "conv":
        return _conv_kernel(plan, values, step)
    if step.kind == "fc":
        return _product(step)
    if step.kind == "pool":
        return "maximum" if step.node.layer.proto.pooling_param.pool == MAX else "average"
    return {"layer": "specification", "deconv": "spread", "lrn": "channel window"}.get(step.kind, step.kind)


def _product(step: Step) -> str:
    """What multiplies the stored weights: also of a convolution whose window is the whole image."""
    return "vector product" if (step.outputs[0].shape or ())[0] <= linear.ROWS_BY_VECTOR else "product"


def _conv_kernel(plan: Plan, values: Mapping[Blob, Value], step: Step) -> str:
    blob = step.inputs[0]
    window, group = filter_window(step), step.node.layer.proto.convolution_param.group
    channels, height, width = (blob.shape or ())[1:]
    value = values[plan.root(blob)]
    if value.layout == "planes":
        return "plane columns"
    if group > 1:
        return "depthwise" if group == channels == (step.outputs[0].shape or ())[1] else "grouped columns"
    if (step.outputs[0].shape or ())[2:] == (1, 1) and len(step.heads) == 1:
        return _product(step)
    once = window.stride == (1, 1)
    if window.kernel == (1, 1) and once and not any(window.pad) and not any(value.border):
        return "direct product"
    tiled = plan.winograd and once and window.kernel == (3, 3) and window.dilation == (1, 1)
    return "winograd" if tiled and channels >= WINOGRAD_CHANNELS and min(height, width) >= WINOGRAD_SIZE else "columns"


class Frame:
    """The arrays of some images: every root's memory, and views of blobs in it."""

    def __init__(self, plan: Plan, values: Mapping[Blob, Value], arrays: Mapping[Blob, np.ndarray]) -> None:
        self.plan = plan
        self.values = values
        self.arrays = arrays

    def nchw(self, blob: Blob) -> np.ndarray:
        """A blob as the API shows it, as a view."""
        home = self.plan.homes.get(blob)
        if home is not None:
            return lodged(self.nchw(home.of), home, blob.shape or ())
        value, array = self.values[blob], self.arrays[blob]
        if value.layout == "plain":
            return array
        if value.layout == "pixels":
            array = array.transpose(0, 3, 1, 2)
        (top, left, _, _), (h, w) = value.border, value.shape[2:]
        return array[:, :, top : top + h, left : left + w]

    def pixels(self, blob: Blob) -> np.ndarray:
        """A blob of 2 or 4 axes as n x H x W x C."""
        x = self.nchw(blob)
        return x.transpose(0, 2, 3, 1) if x.ndim == 4 else x[:, None, None, :]

    def padded(self, blob: Blob, pad: Sequence[int]) -> np.ndarray:
        """The same with the border that a window of this padding wants, and what lies behind it to the right and below."""
        root = self.plan.root(blob)
        value, array = self.values[root], self.arrays[root]
        top, left = value.border.top - pad[0], value.border.left - pad[1]
        if value.layout == "planes":
            return array[:, :, top:, left:]
        start, home = 0, blob
        while home in self.plan.homes:
            start, home = start + (self.plan.homes[home].start or 0), self.plan.homes[home].of
        return array[:, top:, left:, start : start + (blob.shape or ())[1]]


def lodged(array: np.ndarray, home: Home, shape: Shape) -> np.ndarray:
    """A blob of `shape` in the memory of another, some images of it."""
    if home.start is not None:
        return array[:, home.start : home.start + shape[1]]
    return array if array.shape[1:] == shape[1:] else array.reshape(-1, *shape[1:]) if shape else array.reshape(())


def params_of(nodes: Sequence[Node]) -> list[Param]:
    return [param for node in nodes for param in node.params or ()]


class Lowering:
    """Makes the calls of a plan's steps. Constants are shared by all frames; scratch belongs to the worker."""

    def __init__(self, plan: Plan, values: Mapping[Blob, Value], constants: Constants) -> None:
        self.plan = plan
        self.values = values
        self.constants = constants
        self._kinds: dict[str, Callable[[Step, Frame, Scratch], Calls]] = {
            "conv": self._conv,
            "deconv": self._deconv,
            "fc": self._fc,
            "pool": self._pool,
            "lrn": self._lrn,
            "elementwise": self._elementwise,
            "concat": self._concat,
        }

    def calls(self, step: Step, frame: Frame, scratch: Scratch) -> Calls:
        """The calls of a step that has a tuned kernel."""
        return self._kinds[step.kind](step, frame, scratch)

    # ---- what follows a product

    def _finish(self, head: Head, frame: Frame, scratch: Scratch, before: Sequence[Op] = (), skip: int = 0) -> Finish:
        """The head's operations from number `skip` on, after the kernel's own, on the head's place."""
        out = frame.pixels(head.output)
        ops = list(before)
        for op in head.ops[skip:]:
            ops += self._ops(op.kind, op.node, op.blob, out, frame)
        return Finish(out, ops, scratch)

    def _ops(self, kind: str, node: Node, blob: Blob | None, out: np.ndarray, frame: Frame) -> Sequence[Op]:
        layer = node.layer
        if blob is not None:
            return [Op(kind, frame.pixels(blob))]
        if kind == "affine":
            chain = partial(self._affine_row, [node])
            return [Op("multiply", chain(0, out)), Op("add", chain(1, out))]
        if isinstance(layer, ReLU):
            return [Op("relu", layer.proto.relu_param.negative_slope)]
        if isinstance(layer, Clip):
            return [Op("clip", (layer.proto.clip_param.min, layer.proto.clip_param.max))]
        if isinstance(layer, PReLU):
            param = params_of([node])[0]
            weights = self.constants.weights
            return [Op("prelu", self._row(("slopes", node), out, [param], lambda: weights.peek(param)))]
        return [Op("function", layer.function)]  # type: ignore[attr-defined]

    def _row(
        self, key: tuple[Any, ...], out: np.ndarray, params: Sequence[Param], channels: Callable[[], np.ndarray]
    ) -> np.ndarray:
        """A number per channel, repeated for every pixel of a row: (W, C). Long rows are what makes a ufunc fast."""

        def fill(row: np.ndarray) -> None:
            row[...] = channels()

        return self.constants.array((*key, out.shape[2:]), out.shape[2:], params, fill)

    def _affine_row(self, nodes: Sequence[Node], which: int, out: np.ndarray) -> np.ndarray:
        def channels() -> np.ndarray:
            return affine_chain(nodes, out.shape[3], self.constants.weights)[which]

        return self._row(("affine", which, *nodes), out, params_of(nodes), channels)

    # ---- products

    def _conv_head(self, head: Head, frame: Frame, scratch: Scratch) -> tuple[Finish, list[Node]]:
        """A convolution's Finish, bias and folded layers included; and the layers that are folded into its weights."""
        folded = []
        for op in head.ops:
            if op.kind != "affine":
                break
            folded.append(op.node)
        out = frame.pixels(head.output)
        biases = params_of([head.node])[1:]
        before = []
        if biases or folded:

            def channels() -> np.ndarray:
                multiply, add = affine_chain(folded, out.shape[3], self.constants.weights)
                return add + multiply * self.constants.weights.peek(biases[0]) if biases else add

            before = [Op("add", self._row(("bias", head.node, *folded), out, [*biases, *params_of(folded)], channels))]
        return self._finish(head, frame, scratch, before, skip=len(folded)), folded

    def _filters(
        self, name: str, heads: Sequence[tuple[Head, list[Node]]], shape: Shape, arrange: Callable[..., None]
    ) -> np.ndarray:
        """The weights of all heads, folded, as a kernel wants them: `arrange(weight, out, head number)` puts each into place."""

        def fill(out: np.ndarray) -> None:
            for number, (head, folded) in enumerate(heads):
                weight = self.constants.weights.peek(params_of([head.node])[0])
                if folded:
                    multiply, _ = affine_chain(folded, len(weight), self.constants.weights)
                    weight = (weight * multiply.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.float32)
                arrange(weight, out, number)

        nodes = [node for head, folded in heads for node in (head.node, *folded)]
        return self.constants.array((name, *nodes), shape, params_of(nodes), fill)

    def _conv(self, step: Step, frame: Frame, scratch: Scratch) -> Calls:
        window, group = filter_window(step), step.node.layer.proto.convolution_param.group
        name = kernel(self.plan, self.values, step)
        taps = conv.Taps(*((a, b) for a, b in (window.kernel, window.stride, window.dilation)))
        x = frame.padded(step.inputs[0], window.pad)
        if name.endswith("product") and name != "direct product":
            seen = taps.view(x, (1, 1))[:, 0, 0].transpose(0, 3, 1, 2)  # n C kh kw, as the weights are stored
            stored = self.constants.stored(params_of([step.node])[0]).reshape(-1, count(seen.shape[1:]))
            return linear.inner_product(seen, stored, False, self._conv_bias(step.heads[0], frame, scratch), scratch)
        made = [self._conv_head(head, frame, scratch) for head in step.heads]
        folds = [(head, folded) for head, (_, folded) in zip(step.heads, made, strict=True)]
        heads, stop = [], 0
        for finish, _ in made:
            start, stop = stop, stop + finish.out.shape[3]
            heads.append(conv.Head(start, stop, finish))
        starts = [head.start for head in heads]
        inside = (step.inputs[0].shape or ())[1] // group * count(window.kernel)
        if name == "plane columns":

            def by_planes(weight: np.ndarray, out: np.ndarray, number: int) -> None:
                out[:, starts[number] : starts[number] + len(weight)] = weight.reshape(len(weight), inside).T

            return conv.planes(x, self._filters(name, folds, (inside, stop), by_planes), taps, heads, scratch)
        if name == "depthwise":
            row = (*window.kernel, *heads[0].finish.out.shape[2:])

            def along_row(weight: np.ndarray, out: np.ndarray, number: int) -> None:
                out[...] = weight[:, 0].transpose(1, 2, 0)[:, :, None]

            return conv.depthwise(x, self._filters(name, folds, row, along_row), taps, heads, scratch)
        if name == "winograd":

            def transform(weight: np.ndarray, out: np.ndarray, number: int) -> None:
                fast_conv.transformed_weights(weight, out)

            weights = self._filters(name, folds, (fast_conv.PATCH**2, x.shape[3], stop), transform)
            return fast_conv.convolve(x, weights, heads, scratch)
        together = conv.together(group, stop // group)

        def by_pixels(weight: np.ndarray, out: np.ndarray, number: int) -> None:
            columns = out.reshape(*window.kernel, together, -1, out.shape[1])[..., starts[number] : starts[number] + len(weight)]
            each = len(weight) // group
            if together > 1:
                columns.fill(0)
            for first in range(0, len(weight), each):
                share = slice(first, first + each)
                columns[:, :, first // each % together, :, share] = weight[share].transpose(2, 3, 1, 0)

        weights = self._filters(f"columns by {together}", folds, (inside * together, stop), by_pixels)
        if name == "direct product" and flat(x) is not None:
            return conv.direct(x, weights, heads, scratch)
        return conv.columns(x, weights, taps, group // together, heads, scratch)

    def _deconv(self, step: Step, frame: Frame, scratch: Scratch) -> Calls:
        head = step.heads[0]
        window, group = filter_window(step), step.node.layer.proto.convolution_param.group
        finish = self._conv_bias(head, frame, scratch)
        x = frame.pixels(step.inputs[0])
        reach = list(window.taps(finish.out.shape[1:3], x.shape[1:3]))
        elements, channels = count(window.kernel), x.shape[3]

        def arrange(weight: np.ndarray, out: np.ndarray, number: int) -> None:
            if group > 1:
                out[...] = weight.reshape(channels, elements).T[:, None, None]
            else:
                out[...] = weight.reshape(channels, -1, elements).transpose(2, 0, 1)

        shape = (elements, 1, *x.shape[2:]) if group > 1 else (elements, channels, finish.out.shape[3])
        weights = self._filters("spread", [(head, [])], shape, arrange)
        return conv.spread(x, weights, window.stride, reach, conv.Head(0, finish.out.shape[3], finish), scratch)

    def _conv_bias(self, head: Head, frame: Frame, scratch: Scratch) -> Finish:
        """A Finish that begins with the layer's own bias, nothing being folded."""
        out = frame.pixels(head.output)
        biases = params_of([head.node])[1:]
        weights = self.constants.weights
        before = [Op("add", self._row(("bias", head.node), out, biases, lambda: weights.peek(biases[0])))] if biases else []
        return self._finish(head, frame, scratch, before)

    def _fc(self, step: Step, frame: Frame, scratch: Scratch) -> Calls:
        head = step.heads[0]
        finish = self._conv_bias(head, frame, scratch)
        transpose = head.node.layer.proto.inner_product_param.transpose
        weight = self.constants.stored(params_of([head.node])[0])
        return linear.inner_product(frame.nchw(step.inputs[0]), weight, transpose, finish, scratch)

    # ---- the others

    def _pool(self, step: Step, frame: Frame, scratch: Scratch) -> Calls:
        run = pool.max_pool if step.node.layer.proto.pooling_param.pool == MAX else pool.average_pool
        return run(frame.pixels(step.inputs[0]), filter_window(step), self._finish(step.heads[0], frame, scratch), scratch)

    def _lrn(self, step: Step, frame: Frame, scratch: Scratch) -> Calls:
        p = step.node.layer.proto.lrn_param
        finish = self._finish(step.heads[0], frame, scratch)
        return norm.lrn(frame.pixels(step.inputs[0]), p.local_size, p.alpha, p.beta, p.k, finish, scratch)

    def _elementwise(self, step: Step, frame: Frame, scratch: Scratch) -> Calls:
        scratch.reset()
        finish = self._finish(step.heads[0], frame, scratch)
        return finish(frame.pixels(step.inputs[0]), keep=True)

    def _concat(self, step: Step, frame: Frame, scratch: Scratch) -> Calls:
        start = 0
        for blob in step.node.bottoms:
            channels = (blob.shape or ())[1]
            if blob in step.inputs:
                yield copy(frame.nchw(step.outputs[0])[:, start : start + channels], frame.nchw(blob))
            start += channels
