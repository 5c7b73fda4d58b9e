"""Geometry of sliding windows: the one place that knows kernel, stride, pad, dilation and both directions of output size.

Rules: Caffe's conv_layer.cpp, deconv_layer.cpp, im2col.cpp (dilated extent) and pooling_layer.cpp (rounding, and the clip that
drops a last window that would start outside the image padded on one side).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


def quotient(dividend: int, divisor: int) -> int:
    """Integer division as C++ does it: towards zero, so that (2 - 5) / 2 is -1 and not -2."""
    magnitude = abs(dividend) // abs(divisor)
    return magnitude if (dividend < 0) == (divisor < 0) else -magnitude


@dataclass(frozen=True, slots=True)
class Window:
    """A window per spatial axis; all four tuples have one entry per axis, outermost first."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    pad: tuple[int, ...]
    dilation: tuple[int, ...]

    @property
    def extent(self) -> tuple[int, ...]:
        """Size of the dilated kernel per axis: dilation * (kernel - 1) + 1."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    def convolved(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Output size per axis of a convolution over inputs of `sizes`."""
        return tuple(quotient(n + 2 * p - e, s) + 1 for n, p, e, s in zip(sizes, self.pad, self.extent, self.stride, strict=True))

    def deconvolved(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Output size per axis of the transposed convolution over inputs of `sizes`."""
        return tuple(s * (n - 1) + e - 2 * p for n, p, e, s in zip(sizes, self.pad, self.extent, self.stride, strict=True))

    def pooled(self, sizes: Sequence[int], *, ceil: bool = True, clip: bool = True) -> tuple[int, ...]:
        """Output size per axis of a pooling; with padding, the last window must start inside the image or its leading pad.

        Caffe applies the clip to both axes as soon as either is padded; `clip` says whether it does at all.
        """
        clip = clip and any(self.pad)
        result = []
        for n, k, s, p in zip(sizes, self.kernel, self.stride, self.pad, strict=True):
            # Caffe divides as float32 before it rounds; that is exact up to 2^24 and so for every size that it can hold
            steps = math.ceil((n + 2 * p - k) / s) if ceil else math.floor((n + 2 * p - k) / s)
            out = steps + 1
            if clip and (out - 1) * s >= n + p:
                out -= 1
            result.append(out)
        return tuple(result)

    def spans(self, sizes: Sequence[int], outs: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """Length of every pooling window per axis, clipped to the padded image: what AVE divides by (their product).

        Without padding Caffe's rounding up can start a window behind the image; its span is then 0 or negative, as in Caffe.
        """
        return tuple(
            tuple(min(o * s - p + k, n + p) - (o * s - p) for o in range(out))
            for n, out, k, s, p in zip(sizes, outs, self.kernel, self.stride, self.pad, strict=True)
        )

    def reach(self, axis: int, size: int, out: int) -> Iterator[tuple[int, slice, slice]]:
        """Along one axis, for each kernel element that ever meets the input: its index, which outputs it serves, what they read.

        Padding is never stored: an output whose element lies outside the input is simply not among those served.
        """
        k, s, p, d = self.kernel[axis], self.stride[axis], self.pad[axis], self.dilation[axis]
        least, most = 0, k - 1
        if d > 0:  # keeps a kernel much longer than the image from being walked through
            least, most = max(least, -(((out - 1) * s - p) // d)), min(most, (size - 1 + p) // d)
        for element in range(least, most + 1):
            offset = element * d - p
            first, stop = max(0, -(offset // s)), min(out, (size - 1 - offset) // s + 1)
            if first < stop:
                yield element, slice(first, stop), slice(first * s + offset, (stop - 1) * s + offset + 1, s)

    def taps(self, sizes: Sequence[int], outs: Sequence[int]) -> Iterator[tuple[int, tuple[slice, ...], tuple[slice, ...]]]:
        """`reach` over all axes: number of the kernel element in row-major order, slices of the outputs, slices of the inputs."""
        axes = [list(self.reach(axis, n, out)) for axis, (n, out) in enumerate(zip(sizes, outs, strict=True))]
        for elements in itertools.product(*axes):
            number = 0
            for (element, _, _), k in zip(elements, self.kernel, strict=True):
                number = number * k + element
            yield number, tuple(served for _, served, _ in elements), tuple(read for _, _, read in elements)

    def __str__(self) -> str:
        """Short form for tables: `11x11/4`, `3x3+1`, `3x3+2d2`; one figure per axis only where they differ."""

        def figure(values: Sequence[int]) -> str:
            return str(values[0]) if len(set(values)) == 1 else "x".join(map(str, values))

        text = "x".join(map(str, self.kernel))
        if any(s != 1 for s in self.stride):
            text += "/" + figure(self.stride)
        if any(self.pad):
            text += "+" + figure(self.pad)
        if any(d != 1 for d in self.dilation):
            text += "d" + figure(self.dilation)
        return text
