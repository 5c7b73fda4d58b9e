"""The window layers as plain loops over every index, written from the formulas; and the means to hold a layer against them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from google.protobuf import text_format

from caffe_proto import caffe_pb2
from inspector.layers import base, conv, norm, pool  # noqa: F401  (importing them registers their types)


def layer(text: str, phase: int = base.TEST, **more: Any) -> base.Layer:
    """The layer of a LayerParameter in text; one bottom and one top where it names none."""
    proto = text_format.Parse(text, caffe_pb2.LayerParameter(name="l", **more))
    if not proto.bottom:
        proto.bottom.append("x")
    if not proto.top:
        proto.top.append("y")
    return base.create(proto, phase)


def context(bottoms: int, phase: int = base.TEST, seed: int = 0) -> base.Context:
    return base.Context(train=phase == base.TRAIN, rng=np.random.default_rng(seed), bottoms=bottoms)


def arrays(*shapes: base.Shape, seed: int = 1) -> list[np.ndarray]:
    """Normally distributed float64 arrays."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in shapes]


def gradient_error(
    subject: base.Layer, values: Sequence[np.ndarray], bottoms: int = 1, count: int | None = None, step: float = 1e-6
) -> float:
    """Largest difference between backward and central differences, over the first `count` arrays (all by default), in float64."""
    ctx = context(bottoms, subject.phase)
    tops = subject.forward(ctx, *[v.copy() for v in values])
    weights = [np.random.default_rng(7).standard_normal(top.shape) for top in tops]
    grads = subject.backward(ctx, *weights)
    assert len(grads) == len(values)
    worst = 0.0
    for i, value in enumerate(values[:count]):
        expected = np.zeros_like(value)
        for index in np.ndindex(value.shape):
            sides = []
            for sign in (1, -1):
                moved = [v.copy() for v in values]
                moved[i][index] += sign * step
                tops = subject.forward(context(bottoms, subject.phase), *moved)
                sides.append(sum(float((top * weight).sum()) for top, weight in zip(tops, weights, strict=True)))
            expected[index] = (sides[0] - sides[1]) / (2 * step)
        assert grads[i] is not None and grads[i].shape == value.shape
        worst = max(worst, float(np.abs(grads[i] - expected).max()))
    return worst


def _places(*sizes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    return itertools.product(*(range(n) for group in sizes for n in group))


def convolution(x, w, bias, stride, pad, dilation, group):
    """N x C x in... and O x C/group x kernel... -> N x O x out..., one product at a time."""
    kernel = w.shape[2:]
    outs = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(x.shape[2:], kernel, stride, pad, dilation, strict=True)
    ]
    y = np.zeros((x.shape[0], w.shape[0], *outs))
    for n, o in _places((x.shape[0], w.shape[0])):
        first = o // (w.shape[0] // group) * w.shape[1]  # channel that this filter's group starts with
        for out in _places(outs):
            total = bias[o]
            for c, *element in _places((w.shape[1],), kernel):
                at = [q * s - p + k * d for q, s, p, k, d in zip(out, stride, pad, element, dilation, strict=True)]
                if all(0 <= a < size for a, size in zip(at, x.shape[2:], strict=True)):
                    total += x[(n, first + c, *at)] * w[(o, c, *element)]
            y[(n, o, *out)] = total
    return y


def deconvolution(x, w, bias, stride, pad, dilation, group):
    """N x C x in... and C x O/group x kernel... -> N x O x out..., each input element spread out."""
    kernel = w.shape[2:]
    outs = [s * (n - 1) + d * (k - 1) + 1 - 2 * p for n, k, s, p, d in zip(x.shape[2:], kernel, stride, pad, dilation, strict=True)]
    y = np.zeros((x.shape[0], w.shape[1] * group, *outs)) + np.reshape(bias, (-1, *(1,) * len(outs)))
    for n, c, *at in np.ndindex(x.shape):
        first = c // (x.shape[1] // group) * w.shape[1]
        for o, *element in _places((w.shape[1],), kernel):
            out = [a * s - p + k * d for a, s, p, k, d in zip(at, stride, pad, element, dilation, strict=True)]
            if all(0 <= q < size for q, size in zip(out, outs, strict=True)):
                y[(n, first + o, *out)] += x[(n, c, *at)] * w[(c, o, *element)]
    return y


def pooling(x, method, kernel, stride, pad, ceil=True):
    """The pooled image, and where each maximum was found (MAX)."""
    sizes, outs = x.shape[2:], []
    for n, k, s, p in zip(sizes, kernel, stride, pad, strict=True):
        steps = (n + 2 * p - k) / s
        out = (math.ceil(steps) if ceil else math.floor(steps)) + 1
        outs.append(out - 1 if any(pad) and (out - 1) * s >= n + p else out)
    y, where = np.zeros((*x.shape[:2], *outs)), np.full((*x.shape[:2], *outs), -1.0)
    for n, c, *out in np.ndindex(y.shape):
        starts = [o * s - p for o, s, p in zip(out, stride, pad, strict=True)]
        ends = [min(a + k, size + p) for a, k, size, p in zip(starts, kernel, sizes, pad, strict=True)]
        area = math.prod(e - a for a, e in zip(starts, ends, strict=True))
        inside = itertools.product(*(range(max(a, 0), min(e, size)) for a, e, size in zip(starts, ends, sizes, strict=True)))
        seen = [(x[(n, c, *at)], np.ravel_multi_index(at, sizes)) for at in inside]
        if method == "MAX":
            y[(n, c, *out)], where[(n, c, *out)] = max(seen, key=lambda pair: pair[0])  # the first of equals
        elif method == "AVE":
            y[(n, c, *out)] = sum(value for value, _ in seen) / area
        else:
            y[(n, c, *out)] = sum(value**2 for value, _ in seen) / sum(value for value, _ in seen)
    return y, where


def lrn_across(x, size, alpha, beta, k):
    y = np.zeros_like(x)
    for n, c, *at in np.ndindex(x.shape):
        squares = sum(x[(n, i, *at)] ** 2 for i in range(c - size // 2, c + size // 2 + 1) if 0 <= i < x.shape[1])
        y[(n, c, *at)] = x[(n, c, *at)] / (k + alpha * squares / size) ** beta
    return y


def lrn_within(x, size, alpha, beta):
    y = np.zeros_like(x)
    half = size // 2
    for n, c, h, w in np.ndindex(x.shape):
        squares = (x[n, c, max(h - half, 0) : h + half + 1, max(w - half, 0) : w + half + 1] ** 2).sum()
        y[n, c, h, w] = x[n, c, h, w] / (1 + alpha * squares / size**2) ** beta
    return y
