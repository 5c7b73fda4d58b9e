"""Layer types that Caffe once had, for the editions that had them; they are no part of the registry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..lazy import np
from .base import Context, Layer, Shape, retired

if TYPE_CHECKING:
    from numpy import ndarray


class Padding(Layer):
    """A border of zeros around height and width: what convolutions read before they had a `pad` of their own::

        layers { layer { name: "pad2" type: "padding" pad: 2 } bottom: "norm1" top: "pad2" }

    Its width stands in `convolution_param.pad`, since no later generation has a place for it. (PaddingLayer of Caffe v0.99)
    """

    type = "Padding"

    @property
    def pad(self) -> int:
        return int(self.proto.convolution_param.pad[0])

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        n, c, h, w = bottoms[0]
        return [(n, c, h + 2 * self.pad, w + 2 * self.pad)]

    def forward(self, ctx: Context, *arrays: ndarray) -> Sequence[ndarray]:
        return [np.pad(arrays[0], ((0, 0), (0, 0), (self.pad, self.pad), (self.pad, self.pad)))]

    def backward(self, ctx: Context, *top_diffs: ndarray) -> Sequence[ndarray | None]:
        (dy,) = top_diffs
        return [dy[:, :, self.pad : dy.shape[2] - self.pad, self.pad : dy.shape[3] - self.pad]]


retired["Padding"] = Padding
