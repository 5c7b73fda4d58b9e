"""Losses and accuracy: SoftmaxWithLoss, SigmoidCrossEntropyLoss, EuclideanLoss, HingeLoss, ContrastiveLoss, ..., Accuracy.

A loss's forward gives the plain value; its weight arrives as the gradient of the top, of which Caffe reads the first number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from caffe_proto import caffe_pb2

from ..editions import MASTER, Arity, Edition
from ..errors import UnreadableError
from ..files import head, read_bytes
from ..lazy import LazyModule, np
from .base import TEST, Context, Costs, Layer, Shape, count, register, shape_text

if TYPE_CHECKING:
    from ..kernels import loss as kernel
else:
    kernel = LazyModule("inspector.kernels.loss")

FULL, VALID, BATCH_SIZE, NONE = range(4)  # LossParameter.NormalizationMode
L1, L2 = 1, 2  # HingeLossParameter.Norm


class Loss(Layer):
    """A number from predictions and labels whose first axes agree (Caffe's LossLayer)."""

    rule = "a blob without axes: one number, the loss"
    bottoms: Arity = 2
    tops: Arity = 1
    loss = True

    def __init__(self, proto: Any, phase: int = TEST, edition: Edition = MASTER) -> None:
        super().__init__(proto, phase, edition)
        if not edition.automatic_tops:  # before, a loss could do without a top
            self.tops = (0, self.tops if isinstance(self.tops, int) else self.tops[1])

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        self.check_batch(*bottoms)
        return self.scalar_top()

    def scalar_top(self) -> list[Shape]:
        """A blob without axes, if the layer has a top."""
        return [()] if self.num_tops else []

    def check_batch(self, data: Shape, label: Shape, *_more: Shape) -> None:
        """Both bottoms must have the same first axis (LossLayer::Reshape)."""
        if self.edition.losses_by_num:
            a, b = self.legacy(data, 0), self.legacy(label, 0)
        else:
            a, b = data[self.axis(0, data)], label[self.axis(0, label)]
        if a != b and self.checks("loss-batch"):
            self.refuse(
                "loss-batch",
                f"predictions for {a} items ({shape_text(data)}) cannot be compared with labels for {b} ({shape_text(label)})",
                remedy="give both bottoms the same first axis",
                a=a,
                b=b,
            )

    def check_inner_weights(self) -> None:
        """Caffe builds a Softmax or Sigmoid inside from the same parameter, and that has one top however many this layer has."""
        weights = len(self.proto.loss_weight)
        if weights > 1 and self.edition.loss_weights:
            self.refuse(
                "loss-weight-count",
                f"has {weights} loss weights, and the layer that it contains has one top",
                remedy="give loss_weight once, and no second top",
                a=1,
                b=weights,
            )

    def check_one_label_each(self, label: Shape, code: str) -> None:
        """A label blob of one number per item: channels, height and width are 1."""
        for index, axis in enumerate(("channels", "height", "width"), start=1):
            size = self.legacy(label, index)
            if size != 1:
                self.refuse(
                    f"{code}-{axis}", f"takes one label per item, and the labels are {shape_text(label)}", axis=axis, a=size, b=1
                )

    # ---- settings that several losses share

    def normalization(self, default: int = VALID) -> int:
        """The mode: `normalization`, else what the older `normalize` means, else the layer's default."""
        param = self.proto.loss_param
        if param.HasField("normalization"):
            return int(param.normalization)
        if param.HasField("normalize"):
            return VALID if param.normalize else BATCH_SIZE
        return default

    def normalizer(self, mode: int, outer: int, inner: int, valid: int) -> float:
        """What the sum is divided by; at least 1, so that a batch without labels gives 0 and not NaN."""
        return max(1.0, float((outer * inner, valid, outer, 1)[mode]))

    def ignored(self) -> int | None:
        param = self.proto.loss_param
        return param.ignore_label if param.HasField("ignore_label") else None

    def settings(self) -> str:
        words = []
        param = self.proto.loss_param
        if param.HasField("ignore_label"):
            words.append(f"ignore {param.ignore_label}")
        if param.HasField("normalization") or param.HasField("normalize"):
            words.append(("full", "valid", "batch size", "no normalization")[self.normalization()])
        return " ".join(words)

    # ---- helpers for forward and backward

    def whole(self, label: np.ndarray, classes: int, ignore: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Labels as whole numbers, cut as C++ cuts them, and which of them count; ignored ones become class 0."""
        number = label.astype(np.int64)
        valid = np.ones(number.shape, bool) if ignore is None else number != ignore
        _check_labels(self, number, valid, classes)
        return np.where(valid, number, 0), valid

    def scalar(self, value: float, like: np.ndarray) -> np.ndarray:
        """A loss as Caffe's blob of no axes."""
        return np.asarray(value, like.dtype)


def _check_labels(layer: Layer, number: np.ndarray, valid: np.ndarray, classes: int) -> None:
    """Caffe checks labels in debug builds only and reads other memory otherwise; we always refuse."""
    wrong = valid & ((number < 0) | (number >= classes))
    if wrong.any():
        label = int(number[wrong][0])
        layer.refuse(
            "label-out-of-range",
            f"label {label} is none of {classes} classes",
            remedy=f"use 0 to {classes - 1}, or ignore_label",
            label=label,
            classes=classes,
        )


def _weight(top_diff: np.ndarray) -> float:
    """The loss weight: the first number of the top's gradient. A plain float, so that it never widens float32."""
    return float(top_diff.reshape(-1)[0])


def _mean(total: float, items: int) -> float:
    """`total` shared out among `items`; not a number where a Filter has left none."""
    return float(total) / items if items else math.nan


def _split(shape: Shape, axis: int) -> tuple[int, int, int]:
    """A shape as (outer, classes, inner) around `axis`."""
    return count(shape[:axis]), shape[axis], count(shape[axis + 1 :])


class _ClassLoss(Loss):
    """Softmax over one axis, then a loss from one label per position: SoftmaxWithLoss and InfogainLoss."""

    rule = "a blob without axes: one number, the loss; a second top is like the scores"
    tops = (1, 2)
    code = ""  # prefix of its codes

    @property
    def class_axis(self) -> int:
        raise NotImplementedError

    def check_labels_count(self, data: Shape, label: Shape) -> None:
        outer, _, inner = _split(data, self.axis(self.class_axis, data))
        if outer * inner != count(label):
            self.refuse(
                f"{self.code}-label-count",
                f"makes {outer * inner} predictions ({shape_text(data)}, classes on axis {self.class_axis}) and gets "
                f"{count(label)} labels ({shape_text(label)})",
                remedy="give one label per position: N x H x W for predictions of N x C x H x W",
                a=outer * inner,
                b=count(label),
            )

    def tops_like(self, data: Shape) -> list[Shape]:
        shapes: list[Shape] = [(), data]  # the second top is the softmax itself
        return shapes[: self.num_tops]

    def costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Costs:
        """Softmax over every element, and the logarithm of one of them per label."""
        n = count(bottoms[0])
        return Costs(compare=n, add=2 * n, exponential=n + count(bottoms[1]), divide=n)

    def backward_costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape], wanted: Sequence[bool]) -> Costs:
        """Probability less 1 at the label, and a multiplication by the loss weight for every element."""
        return Costs(add=count(bottoms[1]), multiply=count(bottoms[0])) * int(wanted[0])


@register("SoftmaxWithLoss")
class SoftmaxWithLoss(_ClassLoss):
    """Softmax and the negative logarithm of the true class's probability (Caffe's SoftmaxWithLossLayer)::

        layer { type: "SoftmaxWithLoss" bottom: "fc8" bottom: "label" top: "loss" loss_param { ignore_label: 255 } }

    Labels are one per position. A second top, the softmax, cannot be had since rc: Caffe's own checks of loss weights exclude it.
    """

    code = "softmax-loss"

    @property
    def class_axis(self) -> int:
        return int(self.proto.softmax_param.axis)

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        data, label = bottoms
        self.axis(self.class_axis, data)
        self.check_inner_weights()
        self.check_batch(data, label)
        if self.checks("softmax-loss-label-count"):
            self.check_labels_count(data, label)
        return self.tops_like(data)

    def settings(self) -> str:
        axis = f"axis {self.class_axis} " if self.class_axis != 1 else ""
        return (axis + super().settings()).strip()

    def forward(self, ctx: Context, *arrays: np.ndarray) -> Sequence[np.ndarray]:
        x, label = arrays
        outer, classes, inner = _split(x.shape, self.axis(self.class_axis, x.shape))
        prob, log_prob = kernel.log_softmax_floor(x.reshape(outer, classes, inner), kernel.FLOAT_MIN)
        index, valid = self.whole(label.reshape(outer, inner), classes, self.ignored())
        normalizer = self.normalizer(self.normalization(), outer, inner, int(valid.sum()))
        ctx.saved = prob, index, valid, normalizer, x.shape
        picked = np.take_along_axis(log_prob, index[:, None], axis=1)[:, 0]  # outer, inner
        return [self.scalar(-picked[valid].sum() / normalizer, x), prob.reshape(x.shape)][: self.num_tops]

    def backward(self, ctx: Context, *top_diffs: np.ndarray) -> Sequence[np.ndarray | None]:
        prob, index, valid, normalizer, shape = ctx.saved
        dx = prob.copy()  # outer, classes, inner
        np.put_along_axis(dx, index[:, None], np.take_along_axis(dx, index[:, None], axis=1) - 1, axis=1)
        dx *= np.where(valid, _weight(top_diffs[0]) / normalizer, 0)[:, None].astype(dx.dtype)
        return [dx.reshape(shape), None]


@register("InfogainLoss")
class InfogainLoss(_ClassLoss):
    """Softmax, then -sum over classes of H[label, class] * log(probability), with an information gain matrix H::

        layer { type: "InfogainLoss" bottom: "fc8" bottom: "label" top: "loss" infogain_loss_param { source: "H.binaryproto" } }

    H comes from the file or from a third bottom. With the unit matrix this is SoftmaxWithLoss. (Caffe's InfogainLossLayer)
    """

    bottoms = (2, 3)
    code = "infogain"

    @property
    def class_axis(self) -> int:
        return int(self.proto.infogain_loss_param.axis)

    def sources(self) -> list[str]:
        """The file of the matrix, if one is named."""
        return [self.proto.infogain_loss_param.source] if self.proto.infogain_loss_param.HasField("source") else []

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        data, label = bottoms[:2]
        self.axis(self.class_axis, data)
        if self.proto.loss_param.HasField("normalize"):
            self.refuse("infogain-normalize", "does not know the old setting `normalize`", remedy="use `normalization`")
        if len(bottoms) < 3 and not self.sources():
            self.refuse(
                "infogain-source",
                "needs its matrix, and neither infogain_loss_param.source nor a third bottom is given",
                remedy="name a binaryproto file or add a third bottom",
            )
        self.check_batch(data, label)
        self.check_labels_count(data, label)
        classes = data[self.axis(self.class_axis, data)]
        size = count(bottoms[2]) if len(bottoms) == 3 else self._file_size()
        if size is not None and size != classes * classes:
            self.refuse(
                "infogain-size",
                f"its matrix has {size} elements, and {classes} classes need {classes * classes}",
                a=size,
                b=classes * classes,
            )
        return self.tops_like(data)

    def _file_size(self) -> int | None:
        """Elements of the matrix in the file; None where the file is not at hand, which is a finding but no reason to stop."""
        _, size = head(self.sources()[0], 1)
        return len(self._values()) if size else None

    def _values(self) -> Sequence[float]:
        blob = caffe_pb2.BlobProto()
        try:
            blob.ParseFromString(read_bytes(self.sources()[0]))
        except (UnreadableError, DecodeError) as error:
            self.refuse("unreadable-source", f"cannot read its matrix from '{self.sources()[0]}': {error}")
        values: Any = blob.double_data or blob.data
        return list(values)

    def costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Costs:
        """Softmax, the logarithm of every probability, and its product with an entry of the matrix, summed."""
        n = count(bottoms[0])
        return Costs(compare=n, add=2 * n, exponential=2 * n, divide=n, mac=n)

    def backward_costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape], wanted: Sequence[bool]) -> Costs:
        """Per element the row's sum times its probability, less its own entry, times the loss weight; the rows are summed once."""
        n, classes = count(bottoms[0]), bottoms[0][self.axis(self.class_axis, bottoms[0])]
        return Costs(multiply=2 * n, add=n + classes * classes) * int(wanted[0])

    def forward(self, ctx: Context, *arrays: np.ndarray) -> Sequence[np.ndarray]:
        x, label = arrays[:2]
        outer, classes, inner = _split(x.shape, self.axis(self.class_axis, x.shape))
        matrix = (arrays[2] if len(arrays) == 3 else np.array(self._values())).astype(x.dtype).reshape(classes, classes)
        prob, log_prob = kernel.log_softmax_floor(x.reshape(outer, classes, inner), kernel.LOG_THRESHOLD)
        index, valid = self.whole(label.reshape(outer, inner), classes, self.ignored())
        normalizer = self.normalizer(self.normalization(), outer, inner, int(valid.sum()))
        ctx.saved = prob, index, valid, matrix, normalizer, x.shape
        loss = kernel.infogain(log_prob, index, valid, matrix) / normalizer
        return [self.scalar(loss, x), prob.reshape(x.shape)][: self.num_tops]

    def backward(self, ctx: Context, *top_diffs: np.ndarray) -> Sequence[np.ndarray | None]:
        prob, index, valid, matrix, normalizer, shape = ctx.saved
        dx = kernel.infogain_gradient(prob, index, valid, matrix) * (_weight(top_diffs[0]) / normalizer)
        return [dx.reshape(shape), *[None] * (ctx.bottoms - 1)]


@register("SigmoidCrossEntropyLoss")
class SigmoidCrossEntropyLoss(Loss):
    """Cross entropy of targets between 0 and 1 and the sigmoid of the scores, element by element::

        layer { type: "SigmoidCrossEntropyLoss" bottom: "scores" bottom: "targets" top: "loss" }

    The sum is divided by the batch size unless `loss_param` says otherwise. (Caffe's SigmoidCrossEntropyLossLayer)
    """

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        data, target = bottoms
        self.check_inner_weights()
        self.check_batch(data, target)
        if count(data) != count(target):
            self.refuse(
                "sigmoid-loss-count",
                f"{count(data)} scores ({shape_text(data)}) cannot be compared with {count(target)} targets ({shape_text(target)})",
                remedy="give one target per score",
                a=count(data),
                b=count(target),
            )
        return self.scalar_top()

    def normalization(self, default: int = BATCH_SIZE) -> int:
        return super().normalization(default)

    def costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Costs:
        n = count(bottoms[0])
        return Costs(exponential=2 * n, compare=n, multiply=n, add=4 * n)

    def backward_costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape], wanted: Sequence[bool]) -> Costs:
        """A sigmoid, a subtraction and a multiplication for every element."""
        return Costs(exponential=1, divide=1, add=2, multiply=1) * (count(bottoms[0]) * wanted[0])

    def forward(self, ctx: Context, *arrays: np.ndarray) -> Sequence[np.ndarray]:
        x, target = arrays[0], arrays[1].reshape(arrays[0].shape)
        ignore = self.ignored()
        valid = np.ones(x.shape, bool) if ignore is None else target.astype(np.int64) != ignore
        normalizer = self.normalizer(self.normalization(), len(x), count(x.shape[1:]), int(valid.sum()))
        ctx.saved = x, target, valid, normalizer
        return [self.scalar(kernel.sigmoid_cross_entropy(x, target)[valid].sum() / normalizer, x)]

    def backward(self, ctx: Context, *top_diffs: np.ndarray) -> Sequence[np.ndarray | None]:
        x, target, valid, normalizer = ctx.saved
        dx = np.where(valid, kernel.sigmoid(x) - target, 0) * (_weight(top_diffs[0]) / normalizer)
        return [dx.astype(x.dtype, copy=False), None]


@register("EuclideanLoss")
class EuclideanLoss(Loss):
    """Half the squared distance of two blobs, divided by the batch size; propagates to both::

        layer { type: "EuclideanLoss" bottom: "pred" bottom: "target" top: "loss" }

    (Caffe's EuclideanLossLayer)
    """

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        self.check_batch(*bottoms)
        if not self.edition.nd_blobs:
            self.check_same_axes("euclidean", *bottoms)
        a, b = count(bottoms[0][1:]), count(bottoms[1][1:])
        if a != b:
            self.refuse(
                "euclidean-dimension",
                f"items of {a} numbers ({shape_text(bottoms[0])}) cannot be compared with items of {b} ({shape_text(bottoms[1])})",
                a=a,
                b=b,
            )
        return self.scalar_top()

    def can_force_backward(self, bottom: int) -> bool:
        return True

    def costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Costs:
        return Costs(add=count(bottoms[0]), mac=count(bottoms[0]))

    def backward_costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape], wanted: Sequence[bool]) -> Costs:
        """One multiplication per element and wanted bottom."""
        return Costs(multiply=count(bottoms[0])) * sum(wanted[:2])

    def forward(self, ctx: Context, *arrays: np.ndarray) -> Sequence[np.ndarray]:
        x, target = arrays
        diff = x - target.reshape(x.shape)
        ctx.saved = diff, target.shape
        return [self.scalar(_mean(np.vdot(diff, diff), self.legacy(x.shape, 0)) / 2, x)]

    def backward(self, ctx: Context, *top_diffs: np.ndarray) -> Sequence[np.ndarray | None]:
        diff, target_shape = ctx.saved
        dx = diff * _mean(_weight(top_diffs[0]), len(diff))
        return [dx if ctx.wants(0) else None, -dx.reshape(target_shape) if ctx.wants(1) else None]


@register("HingeLoss")
class HingeLoss(Loss):
    """One-versus-all hinge loss, plain (L1) or squared (L2), divided by the batch size::

        layer { type: "HingeLoss" bottom: "scores" bottom: "label" top: "loss" hinge_loss_param { norm: L2 } }

    (Caffe's HingeLossLayer)
    """

    def settings(self) -> str:
        return "L2" if self.proto.hinge_loss_param.norm == L2 else "L1"

    def costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Costs:
        n = count(bottoms[0])
        squares = n if self.proto.hinge_loss_param.norm == L2 else 0
        return Costs(compare=n, add=2 * n - squares, multiply=bottoms[0][0], mac=squares)

    def backward_costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape], wanted: Sequence[bool]) -> Costs:
        """The sign (L1) or nothing (L2), and one multiplication for every element."""
        squared = self.proto.hinge_loss_param.norm == L2
        return Costs(compare=int(not squared), multiply=1) * (count(bottoms[0]) * wanted[0])

    def forward(self, ctx: Context, *arrays: np.ndarray) -> Sequence[np.ndarray]:
        x, label = arrays
        rows = x.reshape(self.legacy(x.shape, 0), count(x.shape[1:]))  # items, classes
        index, _ = self.whole(label.reshape(-1)[: len(x)], rows.shape[1])
        margin = kernel.hinge(rows, index)
        ctx.saved = margin, index, x.shape
        loss = np.vdot(margin, margin) if self.proto.hinge_loss_param.norm == L2 else margin.sum()
        return [self.scalar(_mean(loss, len(x)), x)]

    def backward(self, ctx: Context, *top_diffs: np.ndarray) -> Sequence[np.ndarray | None]:
        margin, index, shape = ctx.saved
        dx = kernel.hinge_gradient(margin, index, squared=self.proto.hinge_loss_param.norm == L2)
        return [(dx * _mean(_weight(top_diffs[0]), len(dx))).reshape(shape), None]


@register("MultinomialLogisticLoss")
class MultinomialLogisticLoss(Loss):
    """Negative logarithm of the true class's probability, divided by the batch size; the bottom holds probabilities::

        layer { type: "MultinomialLogisticLoss" bottom: "prob" bottom: "label" top: "loss" }

    (Caffe's MultinomialLogisticLossLayer)
    """

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        self.check_batch(*bottoms)
        self.check_one_label_each(bottoms[1], "multinomial-label")
        return self.scalar_top()

    def costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Costs:
        items = bottoms[0][0]
        return Costs(exponential=items, compare=items, add=items)

    def backward_costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape], wanted: Sequence[bool]) -> Costs:
        """One comparison and one division per item."""
        return Costs(compare=1, divide=1) * (bottoms[0][0] * wanted[0])

    def forward(self, ctx: Context, *arrays: np.ndarray) -> Sequence[np.ndarray]:
        x, label = arrays
        rows = x.reshape(self.legacy(x.shape, 0), count(x.shape[1:]))  # items, classes
        index, _ = self.whole(label.reshape(-1), rows.shape[1])
        prob = np.maximum(rows[np.arange(len(x)), index], kernel.LOG_THRESHOLD)
        ctx.saved = prob, index, x.shape
        return [self.scalar(_mean(-np.log(prob).sum(), len(x)), x)]

    def backward(self, ctx: Context, *top_diffs: np.ndarray) -> Sequence[np.ndarray | None]:
        prob, index, shape = ctx.saved
        dx = np.zeros((shape[0], count(shape[1:])), prob.dtype)
        dx[np.arange(len(dx)), index] = -_mean(_weight(top_diffs[0]), len(dx)) / prob
        return [dx.reshape(shape), None]


@register("ContrastiveLoss")
class ContrastiveLoss(Loss):
    """Draws pairs marked similar together and pushes others apart up to a margin; propagates to both of the pair::

        layer { type: "ContrastiveLoss" bottom: "a" bottom: "b" bottom: "sim" top: "loss" contrastive_loss_param { margin: 1 } }

    (Caffe's ContrastiveLossLayer; Hadsell, Chopra, LeCun, 2006)
    """

    bottoms = 3

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        first, second, _ = bottoms
        a, b = self.legacy(first, 1), self.legacy(second, 1)
        if a != b:
            self.refuse(
                "contrastive-channels",
                f"features of {a} channels ({shape_text(first)}) cannot be compared with features of {b} ({shape_text(second)})",
                a=a,
                b=b,
            )
        for index, wanted in ((0, (2, 3)), (1, (2, 3)), (2, (1, 2, 3))):
            for axis in wanted:
                size = self.legacy(bottoms[index], axis)
                if size != 1:
                    name = ("num", "channels", "height", "width")[axis]
                    what = "label" if index == 2 else "vector"
                    self.refuse(
                        f"contrastive-{name}-{index}",
                        f"takes one {what} per item, and bottom {index} is {shape_text(bottoms[index])}",
                        remedy="flatten it first",
                        a=size,
                        b=1,
                    )
        self.check_batch(*bottoms)
        return self.scalar_top()

    def can_force_backward(self, bottom: int) -> bool:
        return bottom != 2

    def settings(self) -> str:
        param = self.proto.contrastive_loss_param
        return f"margin {param.margin:g}" + (" legacy" if param.legacy_version else "")

    def costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Costs:
        n, items = count(bottoms[0]), bottoms[0][0]
        roots = 0 if self.proto.contrastive_loss_param.legacy_version else items
        return Costs(add=n + 2 * items, mac=n, compare=items, exponential=roots)

    def backward_costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape], wanted: Sequence[bool]) -> Costs:
        """One multiplication per element and wanted bottom; a comparison and a subtraction per item."""
        return Costs(multiply=count(bottoms[0]), compare=bottoms[0][0], add=bottoms[0][0]) * sum(wanted[:2])

    def forward(self, ctx: Context, *arrays: np.ndarray) -> Sequence[np.ndarray]:
        first, second, label = arrays
        items, channels = len(first), count(first.shape[1:])
        diff = first.reshape(items, channels) - second.reshape(items, channels)
        similar = label.reshape(-1)[: len(first)].astype(np.int64) != 0
        ctx.saved = diff, similar, first.shape, second.shape
        param = self.proto.contrastive_loss_param
        loss = kernel.contrastive(diff, similar, param.margin, legacy=param.legacy_version).sum()
        return [self.scalar(_mean(loss, len(first)) / 2, first)]

    def backward(self, ctx: Context, *top_diffs: np.ndarray) -> Sequence[np.ndarray | None]:
        diff, similar, first, second = ctx.saved
        param = self.proto.contrastive_loss_param
        dx = kernel.contrastive_gradient(diff, similar, param.margin, legacy=param.legacy_version)
        dx = dx * _mean(_weight(top_diffs[0]), len(diff))
        return [dx.reshape(first) if ctx.wants(0) else None, -dx.reshape(second) if ctx.wants(1) else None, None]


@register("Accuracy")
class Accuracy(Layer):
    """Fraction of labels among the `top_k` best classes; a second top gives it per class::

        layer { type: "Accuracy" bottom: "fc8" bottom: "label" top: "accuracy" accuracy_param { top_k: 5 } }

    A class ties with the true one at its cost: equal scores count as better. (Caffe's AccuracyLayer)
    """

    rule = "a blob without axes: one number; a second top has one per class"
    bottoms = 2
    tops = (1, 2)

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        data, label = bottoms
        if not self.edition.nd_blobs:
            return self._four_axes(data, label)
        param = self.proto.accuracy_param
        classes = count(data) // max(1, count(label))
        if param.top_k > classes:
            self.refuse(
                "accuracy-top-k",
                f"top_k {param.top_k} is more than the {classes} scores per label ({shape_text(data)} for {shape_text(label)})",
                a=param.top_k,
                b=classes,
            )
        outer, size, inner = _split(data, self.axis(param.axis, data))
        if outer * inner != count(label):
            self.refuse(
                "accuracy-label-count",
                f"makes {outer * inner} predictions ({shape_text(data)}, classes on axis {param.axis}) and gets "
                f"{count(label)} labels ({shape_text(label)})",
                remedy="give one label per position: N x H x W for predictions of N x C x H x W",
                a=outer * inner,
                b=count(label),
            )
        shapes: list[Shape] = [(), (size,)]
        return shapes[: self.num_tops]

    def _four_axes(self, data: Shape, label: Shape) -> list[Shape]:
        """Before rc3: one label for each item, whose other axes are all classes."""
        if data[0] != label[0]:
            self.refuse("loss-batch", f"scores {data[0]} items and gets labels for {label[0]}", a=data[0], b=label[0])
        classes = count(data) // max(1, data[0])
        if self.proto.accuracy_param.top_k > classes:
            top_k = self.proto.accuracy_param.top_k
            self.refuse("accuracy-top-k", f"top_k {top_k} is more than the {classes} scores per item", a=top_k, b=classes)
        for size, axis in zip(label[1:], ("channels", "height", "width"), strict=True):
            if size != 1:
                self.refuse(
                    f"accuracy-label-{axis}", f"takes one label per item, and the labels are {shape_text(label)}", a=size, b=1
                )
        return [(1, 2, 1, 1) if self.edition.accuracy_pair else ()]

    def settings(self) -> str:
        param = self.proto.accuracy_param
        words = [f"top {param.top_k}"]
        if param.axis != 1:
            words.append(f"axis {param.axis}")
        if param.HasField("ignore_label"):
            words.append(f"ignore {param.ignore_label}")
        return " ".join(words)

    def costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Costs:
        return Costs(compare=count(bottoms[0]))

    def backward_costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape], wanted: Sequence[bool]) -> Costs:
        """It has no gradient."""
        return Costs()

    def forward(self, ctx: Context, *arrays: np.ndarray) -> Sequence[np.ndarray]:
        x, label = arrays
        param = self.proto.accuracy_param
        outer, classes, inner = _split(x.shape, self.axis(param.axis, x.shape))
        number = label.reshape(outer, inner).astype(np.int64)
        valid = number != param.ignore_label if param.HasField("ignore_label") else np.ones(number.shape, bool)
        _check_labels(self, number, valid, classes)
        index = np.where(valid, number, 0)
        hit = kernel.hits(x.reshape(outer, classes, inner), index, param.top_k) & valid
        overall = hit.sum() / max(1, valid.sum())
        per_class = np.bincount(index[hit], minlength=classes) / np.maximum(1, np.bincount(index[valid], minlength=classes))
        return [np.asarray(overall, x.dtype), per_class.astype(x.dtype)][: self.num_tops]

    def backward(self, ctx: Context, *top_diffs: np.ndarray) -> Sequence[np.ndarray | None]:
        return [None, None]  # Caffe refuses to propagate through it
