"""Losses and Accuracy: against plain loops, central differences, and real Caffe."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest

from caffe_proto import caffe_pb2
from inspector.editions import Edition
from inspector.errors import Refusal
from inspector.layers import base

from . import oneshot
from .conftest import reference_folder
from .naive_window import context, layer

TYPES = (
    "SoftmaxWithLoss",
    "SigmoidCrossEntropyLoss",
    "EuclideanLoss",
    "HingeLoss",
    "ContrastiveLoss",
    "MultinomialLogisticLoss",
    "InfogainLoss",
    "Accuracy",
)
CASES = oneshot.prototxts(reference_folder(), *TYPES) if reference_folder() else []
RNG = np.random.default_rng(20)


@pytest.mark.skipif(not CASES, reason="no reference folder: set ALEXINSPECT_REFERENCE to the answers of real Caffe")
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_caffe(path):
    cases = oneshot.run_case(path)
    assert cases and not [str(case) for case in cases if not case.ok]


def named(kind: str, bottoms: int, settings: str = "", tops: int = 1) -> base.Layer:
    blobs = "".join(f"bottom: 'b{i}' " for i in range(bottoms)) + "".join(f"top: 't{i}' " for i in range(tops))
    return layer(f"type: '{kind}' {blobs} {settings}")


def run(subject: base.Layer, *arrays: np.ndarray) -> tuple[base.Context, list[np.ndarray]]:
    """Forward, with shapes() and the dtype held against what comes out."""
    ctx = context(len(arrays))
    tops = list(subject.forward(ctx, *arrays))
    assert [top.shape for top in tops] == list(subject.shapes(*(array.shape for array in arrays)))
    assert {top.dtype for top in tops} == {arrays[0].dtype}
    return ctx, tops


def central(value, array: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """The gradient of `value()` with respect to `array`, which it reads, by central differences."""
    result = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        kept = array[index]
        sides = []
        for sign in (1, -1):
            array[index] = kept + sign * step
            sides.append(float(value()))
        array[index] = kept
        result[index] = (sides[0] - sides[1]) / (2 * step)
    return result


def check_loss(
    subject: base.Layer, arrays: list[np.ndarray], expected: float, wanted: Sequence[int] = (0,), atol: float = 1e-7
) -> None:
    """The value, and the gradients of the `wanted` bottoms under a loss weight of -1.75; all others have none."""
    ctx, tops = run(subject, *arrays)
    assert math.isclose(tops[0], expected, rel_tol=1e-12, abs_tol=1e-12)
    grads = subject.backward(ctx, np.asarray(-1.75), *(np.zeros_like(top) for top in tops[1:]))
    assert len(grads) == len(arrays)
    for i, grad in enumerate(grads):
        if i not in wanted:
            assert grad is None
            continue
        numeric = central(lambda: subject.forward(context(len(arrays)), *arrays)[0], arrays[i])
        np.testing.assert_allclose(grad, -1.75 * numeric, atol=atol)
    single = [array.astype(np.float32) for array in arrays]
    ctx, tops = run(subject, *single)
    assert all(grad is None or grad.dtype == np.float32 for grad in subject.backward(ctx, *(np.ones_like(top) for top in tops)))


# ---- losses over classes

NORMALIZATIONS = {
    "": "valid",
    "normalization: FULL": "full",
    "normalization: VALID": "valid",
    "normalization: BATCH_SIZE": "batch",
    "normalization: NONE": "none",
    "normalize: true": "valid",
    "normalize: false": "batch",
    "normalize: false normalization: NONE": "none",
}


def class_loss(x, label, axis, ignore, mode, matrix=None):
    """Sum over positions of -sum over classes of H[label, c] * log softmax(x)[c], divided as `mode` says; by loops."""
    outer, inner = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
    scores, labels = x.reshape(outer, x.shape[axis], inner), label.reshape(outer, inner)
    total, valid = 0.0, 0
    for i, j in itertools.product(range(outer), range(inner)):
        if labels[i, j] == ignore:
            continue
        valid += 1
        exps = [math.exp(s) for s in scores[i, :, j]]
        for c, e in enumerate(exps):
            h = float(c == labels[i, j]) if matrix is None else matrix[int(labels[i, j]), c]
            total -= h * math.log(e / sum(exps))
    return total / max(1, {"full": outer * inner, "valid": valid, "batch": outer, "none": 1}[mode])


@pytest.mark.parametrize("setting", NORMALIZATIONS)
@pytest.mark.parametrize(("shape", "axis"), [((2, 4, 3, 5), 1), ((3, 2, 4), 2), ((3, 4, 5), -2), ((3, 5), 1)])
def test_softmax_loss(setting, shape, axis):
    x = RNG.standard_normal(shape)
    classes = shape[axis]
    label = RNG.integers(0, classes, np.delete(shape, axis)).astype(float)
    for ignore in (None, 1):
        loss = f"{setting} ignore_label: {ignore}" if ignore is not None else setting
        subject = named("SoftmaxWithLoss", 2, f"softmax_param {{ axis: {axis} }} loss_param {{ {loss} }}")
        check_loss(subject, [x, label], class_loss(x, label, axis % len(shape), ignore, NORMALIZATIONS[setting]))


def test_a_batch_without_labels_has_no_loss():
    x = RNG.standard_normal((3, 4))
    for kind in ("SoftmaxWithLoss", "InfogainLoss"):
        arrays = [x, np.full(3, 255.0), np.eye(4)][: 2 + (kind == "InfogainLoss")]
        subject = named(kind, len(arrays), "loss_param { ignore_label: 255 }")
        ctx, (loss,) = run(subject, *arrays)
        assert loss == 0 and not subject.backward(ctx, np.ones(()))[0].any()


def test_softmax_loss_of_a_hopeless_score_stays_finite():
    subject = named("SoftmaxWithLoss", 2)
    _, (loss,) = run(subject, np.array([[0, 1000]], np.float32), np.array([0], np.float32))
    assert loss == pytest.approx(-math.log(np.finfo(np.float32).tiny))


@pytest.mark.parametrize("kind", ["SoftmaxWithLoss", "InfogainLoss"])
def test_second_top_is_the_softmax(kind):
    edition = Edition("before loss weights", loss_weights=False)
    arrays = [RNG.standard_normal((2, 3, 4)), RNG.integers(0, 3, (2, 4)).astype(float), np.eye(3)][: 2 + (kind == "InfogainLoss")]
    proto = named(kind, len(arrays), "loss_weight: 1 loss_weight: 0", tops=2).proto
    _, (_, prob) = run(base.create(proto, base.TEST, edition), *arrays)
    np.testing.assert_allclose(prob.sum(axis=1), np.ones((2, 4)))
    np.testing.assert_allclose(prob, np.exp(arrays[0]) / np.exp(arrays[0]).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("setting", [s for s in NORMALIZATIONS if "normalize" not in s])
@pytest.mark.parametrize(("shape", "axis"), [((2, 4, 3, 5), 1), ((3, 2, 4), -1)])
def test_infogain_loss(setting, shape, axis):
    x, classes = RNG.standard_normal(shape), shape[axis]
    label = RNG.integers(0, classes, np.delete(shape, axis)).astype(float)
    matrix = RNG.random((classes, classes))
    subject = named("InfogainLoss", 3, f"infogain_loss_param {{ axis: {axis} }} loss_param {{ {setting} ignore_label: 2 }}")
    check_loss(subject, [x, label, matrix], class_loss(x, label, axis % len(shape), 2, NORMALIZATIONS[setting], matrix))


def test_infogain_matrix_from_a_file(tmp_path):
    matrix = RNG.random((3, 3)).astype(np.float32)
    path = tmp_path / "H.binaryproto"
    subject = named("InfogainLoss", 2, f"infogain_loss_param {{ source: '{path}' }}")
    assert subject.sources() == [str(path)]
    assert list(subject.shapes((2, 3), (2,))) == [()]  # a file that is not at hand is no reason to refuse
    x, label = RNG.standard_normal((2, 3)), np.array([2.0, 0.0])
    with pytest.raises(Refusal) as caught:
        subject.forward(context(2), x, label)
    assert caught.value.code == "unreadable-source"
    path.write_bytes(b"no binaryproto")
    with pytest.raises(Refusal, match=r"cannot read its matrix"):
        subject.shapes((2, 3), (2,))
    path.write_bytes(caffe_pb2.BlobProto(num=1, channels=1, height=3, width=3, data=matrix.ravel()).SerializeToString())
    check_loss(subject, [x, label], class_loss(x, label, 1, None, "valid", matrix.astype(float)))
    with pytest.raises(Refusal) as caught:
        subject.shapes((2, 4), (2,))
    assert caught.value.code == "infogain-size"


@pytest.mark.parametrize("kind", ["SoftmaxWithLoss", "HingeLoss", "MultinomialLogisticLoss", "Accuracy"])
@pytest.mark.parametrize("wrong", [-1, 4])
def test_labels_that_are_no_class(kind, wrong):
    with pytest.raises(Refusal) as caught:
        named(kind, 2).forward(context(2), RNG.random((2, 4)), np.array([1.0, wrong]))
    assert caught.value.code == "label-out-of-range" and (caught.value.values["label"], caught.value.values["classes"]) == (
        wrong,
        4,
    )


# ---- losses over numbers

BINARY = {**NORMALIZATIONS, "": "batch"}


@pytest.mark.parametrize("setting", BINARY)
@pytest.mark.parametrize("ignore", [None, 1])
def test_sigmoid_cross_entropy(setting, ignore):
    x, target = RNG.standard_normal((3, 2, 4)) * 3, RNG.choice([0, 0.25, 1], (3, 8))
    total, valid = 0.0, 0
    for s, t in zip(x.flat, target.flat, strict=True):
        if ignore is None or int(t) != ignore:
            p = 1 / (1 + math.exp(-s))
            total -= t * math.log(p) + (1 - t) * math.log(1 - p)
            valid += 1
    loss = f"{setting} ignore_label: {ignore}" if ignore is not None else setting
    subject = named("SigmoidCrossEntropyLoss", 2, f"loss_param {{ {loss} }}")
    divisor = {"full": 24, "valid": valid, "batch": 3, "none": 1}[BINARY[setting]]
    check_loss(subject, [x, target], total / divisor)


def test_sigmoid_cross_entropy_of_large_scores_does_not_overflow():
    subject = named("SigmoidCrossEntropyLoss", 2)
    x = np.array([[800, -800]], np.float32)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        ctx, (loss,) = run(subject, x, np.array([[0, 1]], np.float32))
        (dx, _) = subject.backward(ctx, np.ones((), np.float32))
    assert loss == 1600 and dx.tolist() == [[1, -1]]


def test_euclidean_loss():
    a, b = RNG.standard_normal((3, 2, 4)), RNG.standard_normal((3, 8))
    expected = sum((p - q) ** 2 for p, q in zip(a.flat, b.flat, strict=True)) / 3 / 2
    subject = named("EuclideanLoss", 2)
    check_loss(subject, [a, b], expected, wanted=(0, 1))
    assert subject.can_force_backward(0) and subject.can_force_backward(1)
    ctx, _ = run(subject, a, b)
    ctx.needs = (False, True)
    first, second = subject.backward(ctx, np.ones(()))
    assert first is None and second.shape == b.shape


@pytest.mark.parametrize("norm", ["L1", "L2"])
def test_hinge_loss(norm):
    x, label = RNG.standard_normal((3, 4, 2)) * 2, np.array([5.0, 0.0, 7.0])
    total = 0.0
    for n in range(3):
        for c, s in enumerate(x[n].flat):
            margin = max(0, 1 + (-s if c == label[n] else s))
            total += margin if norm == "L1" else margin**2
    check_loss(named("HingeLoss", 2, f"hinge_loss_param {{ norm: {norm} }}"), [x, label], total / 3)


def test_multinomial_logistic_loss():
    prob, label = RNG.random((3, 2, 2)) + 0.1, np.array([3.0, 1.0, 0.0]).reshape(3, 1)
    expected = -sum(math.log(prob[n].flat[int(label[n, 0])]) for n in range(3)) / 3
    check_loss(named("MultinomialLogisticLoss", 2), [prob, label], expected)
    _, (loss,) = run(named("MultinomialLogisticLoss", 2), np.zeros((1, 2)), np.zeros(1))
    assert loss == pytest.approx(-math.log(1e-20))


@pytest.mark.parametrize("legacy", [False, True])
def test_contrastive_loss(legacy):
    a, b = RNG.standard_normal((6, 3)), RNG.standard_normal((6, 3, 1))
    b[:2, :, 0] = a[:2] + 3  # two pairs far apart
    similar = np.array([1, 0, 0, 1, 0, 0.0])
    total = 0.0
    for n in range(6):
        squared = sum((p - q) ** 2 for p, q in zip(a[n].flat, b[n].flat, strict=True))
        apart = max(0, 4 - squared) if legacy else max(0, 4 - math.sqrt(squared)) ** 2
        total += squared if similar[n] else apart
    subject = named("ContrastiveLoss", 3, f"contrastive_loss_param {{ margin: 4 legacy_version: {str(legacy).lower()} }}")
    # Caffe divides by the distance plus 1e-4, so its gradient is off by that much where it divides
    check_loss(subject, [a, b, similar], total / 12, wanted=(0, 1), atol=1e-7 if legacy else 1e-3)
    assert [subject.can_force_backward(i) for i in range(3)] == [True, True, False]


# ---- accuracy


@pytest.mark.parametrize(("shape", "axis"), [((5, 4, 2, 3), 1), ((3, 6, 4), -1)])
@pytest.mark.parametrize("top_k", [1, 3])
@pytest.mark.parametrize("ignore", [None, 2])
def test_accuracy(shape, axis, top_k, ignore):
    x = RNG.integers(0, 6, shape).astype(float)  # with ties
    label = RNG.integers(0, shape[axis], np.delete(shape, axis)).astype(float)
    right, seen = np.zeros(shape[axis]), np.zeros(shape[axis])
    for scores, true in zip(np.moveaxis(x, axis, -1).reshape(-1, shape[axis]), label.flat, strict=True):
        if true == ignore:
            continue
        better = sum(s >= scores[int(true)] for s in scores) - 1
        right[int(true)] += better < top_k
        seen[int(true)] += 1
    extra = "" if ignore is None else f"ignore_label: {ignore}"
    subject = named("Accuracy", 2, f"accuracy_param {{ top_k: {top_k} axis: {axis} {extra} }}", tops=2)
    ctx, (overall, per_class) = run(subject, x, label)
    assert overall == pytest.approx(right.sum() / seen.sum())
    np.testing.assert_allclose(per_class, right / np.maximum(seen, 1))
    assert list(subject.backward(ctx, overall, per_class)) == [None, None]
    assert not subject.loss


# ---- what Caffe refuses, and in which words

FATAL = [
    ("loss-batch", "EuclideanLoss", "", [(3, 2), (4, 2)], "shape(0) (3 vs. 4) The data and label should have the same first"),
    (
        "softmax-loss-label-count",
        "SoftmaxWithLoss",
        "",
        [(3, 5, 2, 4), (3, 2)],
        "47] Check failed: outer_num_ * inner_num_ == bottom[1]",
    ),
    ("infogain-normalize", "InfogainLoss", "loss_param { normalize: true }", [(3, 2), (3,), (2, 2)], 'use "normalization"'),
    ("infogain-source", "InfogainLoss", "", [(3, 2), (3,)], "Infogain matrix source must be specified."),
    ("infogain-label-count", "InfogainLoss", "", [(3, 2, 4), (3,), (2, 2)], "(12 vs. 3) Number of labels must match"),
    ("infogain-size", "InfogainLoss", "", [(3, 2), (3,), (2, 3)], "infogain->count() == num_labels_ * num_labels_ (6 vs. 4)"),
    ("sigmoid-loss-count", "SigmoidCrossEntropyLoss", "", [(3, 2), (3, 4)], "(6 vs. 12) SIGMOID_CROSS_ENTROPY_LOSS layer inputs"),
    ("euclidean-dimension", "EuclideanLoss", "", [(3, 2), (3, 4)], "(2 vs. 4) Inputs must have the same dimension."),
    ("multinomial-label-channels", "MultinomialLogisticLoss", "", [(3, 4), (3, 2)], "bottom[1]->channels() == 1 (2 vs. 1)"),
    ("multinomial-label-height", "MultinomialLogisticLoss", "", [(3, 4), (3, 1, 5)], "bottom[1]->height() == 1 (5 vs. 1)"),
    ("multinomial-label-width", "MultinomialLogisticLoss", "", [(3, 4), (3, 1, 1, 6)], "bottom[1]->width() == 1 (6 vs. 1)"),
    ("contrastive-channels", "ContrastiveLoss", "", [(3, 4), (3, 5), (2,)], "13] Check failed: bottom[0]->channels() == bottom[1]"),
    ("contrastive-height-0", "ContrastiveLoss", "", [(3, 4, 2), (3, 4), (3,)], "bottom[0]->height() == 1 (2 vs. 1)"),
    ("contrastive-width-0", "ContrastiveLoss", "", [(3, 4, 1, 2), (3, 4), (3,)], "bottom[0]->width() == 1 (2 vs. 1)"),
    ("contrastive-height-1", "ContrastiveLoss", "", [(3, 4), (3, 4, 2), (3,)], "bottom[1]->height() == 1 (2 vs. 1)"),
    ("contrastive-width-1", "ContrastiveLoss", "", [(3, 4), (3, 4, 1, 2), (3,)], "bottom[1]->width() == 1 (2 vs. 1)"),
    ("contrastive-channels-2", "ContrastiveLoss", "", [(3, 4), (3, 4), (3, 2)], "bottom[2]->channels() == 1 (2 vs. 1)"),
    ("contrastive-height-2", "ContrastiveLoss", "", [(3, 4), (3, 4), (3, 1, 2)], "bottom[2]->height() == 1 (2 vs. 1)"),
    ("contrastive-width-2", "ContrastiveLoss", "", [(3, 4), (3, 4), (3, 1, 1, 2)], "bottom[2]->width() == 1 (2 vs. 1)"),
    ("accuracy-top-k", "Accuracy", "accuracy_param { top_k: 6 }", [(3, 5), (3,)], "(6 vs. 5) top_k must be less than or equal"),
    (
        "accuracy-label-count",
        "Accuracy",
        "",
        [(3, 5, 2), (3,)],
        "31] Check failed: outer_num_ * inner_num_ == bottom[1]->count() (6",
    ),
]


@pytest.mark.parametrize(("code", "kind", "settings", "shapes", "words"), FATAL, ids=[row[0] for row in FATAL])
def test_refusals_say_what_caffe_says(code, kind, settings, shapes, words):
    with pytest.raises(Refusal) as caught:
        named(kind, len(shapes), settings).shapes(*shapes)
    assert caught.value.code == code and caught.value.finding.layer == "l"
    line = oneshot.caffe_words(caught.value)
    assert words in line


@pytest.mark.parametrize("kind", ["EuclideanLoss", "HingeLoss", "MultinomialLogisticLoss"])
def test_losses_that_ask_for_num_build_with_five_axes_and_do_not_run(kind):
    shapes = [(2, 3, 4, 5, 6), (2, 3, 4, 5, 6) if kind == "EuclideanLoss" else (2,)]
    subject = named(kind, 2)
    assert subject.shapes(*shapes) == [()]
    with pytest.raises(Refusal) as caught:
        subject.forward(context(2), *map(np.ones, shapes))
    assert "Cannot use legacy accessors on Blobs with > 4 axes" in oneshot.caffe_words(caught.value)


def test_two_loss_weights_fail_in_the_layer_inside():
    for edition, refused in ((Edition("now"), True), (Edition("before loss weights", loss_weights=False), False)):
        proto = named("SoftmaxWithLoss", 2, "loss_weight: 1 loss_weight: 0", tops=2).proto
        subject = base.create(proto, base.TEST, edition)
        if refused:
            with pytest.raises(Refusal) as caught:
                subject.shapes((3, 2), (3,))
            assert caught.value.code == "loss-weight-count" and (caught.value.values["a"], caught.value.values["b"]) == (1, 2)
        else:
            assert list(subject.shapes((3, 2), (3,))) == [(), (3, 2)]


def test_before_automatic_tops_a_loss_could_do_without_one():
    old = Edition("old", automatic_tops=False)
    for tops in (0, 1):
        proto = named("EuclideanLoss", 2).proto
        del proto.top[tops:]
        subject = base.create(proto, base.TEST, old)
        subject.check_counts(2)
        assert list(subject.shapes((3, 2), (3, 2))) == [()] * tops
    with pytest.raises(Refusal) as caught:
        named("SoftmaxWithLoss", 2, tops=3).check_counts(2)
    assert caught.value.code == "top-count-most"


def test_an_axis_outside_the_blob():
    for kind, settings in (
        ("SoftmaxWithLoss", "softmax_param { axis: 2 }"),
        ("InfogainLoss", "infogain_loss_param { axis: 2 source: 'x' }"),
        ("Accuracy", "accuracy_param { axis: -3 }"),
    ):
        with pytest.raises(Refusal) as caught:
            named(kind, 2, settings).shapes((3, 2), (3,))
        assert caught.value.code.startswith("axis-out-of-range")


@pytest.mark.parametrize("kind", TYPES)
def test_costs_and_settings(kind):
    bottoms = 3 if kind == "ContrastiveLoss" else 2
    subject = named(kind, bottoms)
    costs = subject.costs([(3, 4), (3, 4), (3,)][:bottoms], [()])
    assert sum(getattr(costs, name) for name in costs.__slots__) > 0
    assert isinstance(subject.settings(), str)
    assert subject.can_force_backward(0)


def test_settings_say_what_differs():
    settings = "softmax_param { axis: 2 } loss_param { ignore_label: 255 normalize: false }"
    assert named("SoftmaxWithLoss", 2, settings).settings() == "axis 2 ignore 255 batch size"
    assert named("Accuracy", 2, "accuracy_param { top_k: 5 ignore_label: 0 }").settings() == "top 5 ignore 0"
    assert named("HingeLoss", 2, "hinge_loss_param { norm: L2 }").settings() == "L2"
    assert (
        named("ContrastiveLoss", 3, "contrastive_loss_param { margin: 0.5 legacy_version: true }").settings() == "margin 0.5 legacy"
    )
