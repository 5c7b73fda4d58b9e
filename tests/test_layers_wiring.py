"""Merging and rearranging layers: against loops, central differences and real Caffe; and the refusals of all basic layers."""

from __future__ import annotations

import itertools
import tomllib

import numpy as np
import pytest
from google.protobuf import text_format

from caffe_proto import caffe_pb2
from inspector.editions import Edition
from inspector.errors import Refusal
from inspector.layers import base, combine, wiring

from . import oneshot
from .conftest import reference_folder
from .naive_window import arrays, context, gradient_error, layer

TYPES = [name for name, kind in base.registry.items() if kind.__module__ in (combine.__name__, wiring.__name__)]
CASES = oneshot.prototxts(reference_folder(), *TYPES) if reference_folder() else []
SHAPE = (2, 3, 5, 4)
NO_REFERENCE = "no reference folder: set ALEXINSPECT_REFERENCE to the answers of real Caffe"


@pytest.mark.skipif(not CASES, reason=NO_REFERENCE)
@pytest.mark.parametrize("path", [path for path in CASES if path.parent.name != "Filter"], ids=lambda path: path.stem)
def test_caffe(path):
    cases = oneshot.run_case(path)
    assert cases and not [str(case) for case in cases if not case.ok]


@pytest.mark.skipif(not CASES, reason=NO_REFERENCE)
@pytest.mark.parametrize("path", [path for path in CASES if path.parent.name == "Filter"], ids=lambda path: path.stem)
def test_caffe_filter(path):
    """By itself, as the tops of a run are smaller than those of the shape inference."""
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as recorded:
        x, selector, y = recorded["out:x_scaled"], recorded["in:sel"], recorded["out:y"]
        subject, ctx = layer("type: 'Filter' bottom: 'x' bottom: 's'"), context(2)
        assert list(subject.shapes(x.shape, selector.shape)) == [x.shape]
        assert np.array_equal(subject.forward(ctx, x, selector)[0], y)
        assert np.array_equal(subject.backward(ctx, recorded["dtop:y"])[0], recorded["dblob:x_scaled"])


def run(
    text: str, *values: np.ndarray, phase: int = base.TEST
) -> tuple[list[np.ndarray], list[np.ndarray | None], list[np.ndarray]]:
    """Tops, gradients and the top gradients they come from; the tops have the shapes that were announced."""
    subject, ctx = layer(text, phase), context(len(values), phase)
    tops = list(subject.forward(ctx, *values))
    assert [top.shape for top in tops] == list(subject.shapes(*(value.shape for value in values)))
    diffs = arrays(*(top.shape for top in tops), seed=2)
    return tops, list(subject.backward(ctx, *diffs)), diffs


# ---- merging


ELTWISE = [
    ("PROD", "", lambda a, b, c: a * b * c),
    ("PROD", "stable_prod_grad: false", lambda a, b, c: a * b * c),
    ("SUM", "", lambda a, b, c: a + b + c),
    ("SUM", "coeff: 1 coeff: -0.5 coeff: 2", lambda a, b, c: a - 0.5 * b + 2 * c),
    ("MAX", "", max),
]


@pytest.mark.parametrize(("operation", "more", "formula"), ELTWISE, ids=range(len(ELTWISE)))
def test_eltwise(operation, more, formula):
    text = f"type: 'Eltwise' bottom: 'a' bottom: 'b' bottom: 'c' eltwise_param {{ operation: {operation} {more} }}"
    values = arrays(SHAPE, SHAPE, SHAPE)
    (top,), _, _ = run(text, *values)
    np.testing.assert_allclose(top, np.vectorize(formula)(*values))
    assert gradient_error(layer(text), values, bottoms=3) < 1e-6
    (single,) = layer(text).forward(context(3), *(value.astype(np.float32) for value in values))
    assert single.dtype == np.float32


def test_of_equal_ones_a_maximum_blames_the_second_and_then_the_first_found():
    a, b, c = np.array([1.0, 0, 1, 2]), np.array([1.0, 0, 0, 2]), np.array([1.0, 3, 1, 2])
    _, grads, (dy,) = run("type: 'Eltwise' bottom: 'a' bottom: 'b' bottom: 'c' eltwise_param { operation: MAX }", a, b, c)
    blamed = [1, 2, 0, 1]
    assert [[g == d * (who == i) for g, d, who in zip(grad, dy, blamed, strict=True)] for i, grad in enumerate(grads)] == [
        [True] * 4
    ] * 3


@pytest.mark.parametrize(("axis", "older"), [(0, False), (1, False), (-1, False), (-2, False), (0, True), (2, True)])
def test_concat_and_slice(axis, older):
    sizes, at = [3, 1, 2], range(4)[axis]
    shapes = [(*SHAPE[:at], size, *SHAPE[at + 1 :]) for size in sizes]
    whole = (*SHAPE[:at], 6, *SHAPE[at + 1 :])
    field = "concat_dim" if older else "axis"
    text = f"type: 'Concat' bottom: 'a' bottom: 'b' bottom: 'c' concat_param {{ {field}: {axis} }}"
    parts = arrays(*shapes)
    (top,), _, _ = run(text, *parts)
    assert top.shape == whole
    for index in np.ndindex(whole):
        position, which = index[at], 0
        while position >= sizes[which]:
            position, which = position - sizes[which], which + 1
        assert top[index] == parts[which][(*index[:at], position, *index[at + 1 :])]
    assert gradient_error(layer(text), parts, bottoms=3) < 1e-6

    field = "slice_dim" if older else "axis"
    text = f"type: 'Slice' top: 'a' top: 'b' top: 'c' slice_param {{ {field}: {axis} slice_point: 3 slice_point: 4 }}"
    tops, _, _ = run(text, top)
    assert all(map(np.array_equal, tops, parts))
    assert gradient_error(layer(text), [top]) < 1e-6


def test_slice_evenly():
    (x,) = arrays((2, 6, 5))
    tops, (dx,), diffs = run("type: 'Slice' top: 'a' top: 'b' top: 'c'", x)
    assert all(np.array_equal(top, x[:, 2 * i : 2 * i + 2]) for i, top in enumerate(tops))
    assert np.array_equal(dx, np.concatenate(diffs, 1))


def test_one_part_is_the_whole():
    (x,) = arrays(SHAPE)
    for kind in ("Concat", "Slice"):
        (top,), (dx,), (dy,) = run(f"type: '{kind}'", x)
        assert np.array_equal(top, x) and np.array_equal(dx, dy)


def test_split_adds_up_its_gradients():
    (x,) = arrays(SHAPE)
    tops, (dx,), diffs = run("type: 'Split' top: 'a' top: 'b' top: 'c'", x)
    assert all(np.array_equal(top, x) for top in tops)
    np.testing.assert_allclose(dx, diffs[0] + diffs[1] + diffs[2])
    kept = [diff.copy() for diff in diffs]
    assert all(map(np.array_equal, diffs, kept))


def test_a_split_may_keep_the_name_where_the_edition_did():
    proto = text_format.Parse("type: 'Split' bottom: 'x' top: 'x' top: 'x_split_1'", caffe_pb2.LayerParameter(name="l"))
    assert list(base.create(proto, edition=Edition("old", split_keeps_name=True)).shapes(SHAPE)) == [SHAPE, SHAPE]
    with pytest.raises(Refusal):
        base.create(proto).shapes(SHAPE)


def test_silence():
    subject = base.create(caffe_pb2.LayerParameter(name="l", type="Silence", bottom=["a", "b"]))
    subject.check_counts(2)
    ctx, (a, b) = context(2), arrays(SHAPE, (7,))
    assert list(subject.shapes(SHAPE, (7,))) == [] == list(subject.forward(ctx, a, b))
    assert [grad.tolist() for grad in subject.backward(ctx)] == [np.zeros(SHAPE).tolist(), [0] * 7]


def test_filter():
    subject, ctx = layer("type: 'Filter' bottom: 'x' bottom: 'z' bottom: 's' top: 'y' top: 'u'"), context(3)
    x, z = arrays((5, 3, 2), (5, 4))
    assert list(subject.shapes(x.shape, z.shape, (5, 1))) == [x.shape, z.shape]  # all of them, until there are data
    tops = subject.forward(ctx, x, z, np.array([[0.0], [1], [0], [-2], [1]]))
    assert all(np.array_equal(top, blob[[1, 3, 4]]) for top, blob in zip(tops, (x, z), strict=True))
    dys = arrays(*(top.shape for top in tops))
    *grads, none = subject.backward(ctx, *dys)
    assert none is None
    for grad, dy in zip(grads, dys, strict=True):
        assert np.array_equal(grad[[1, 3, 4]], dy) and not grad[[0, 2]].any()
    empty, _ = subject.forward(ctx, x, z, np.zeros((5, 1)))
    assert empty.shape == (0, 3, 2)


def test_batch_reindex():
    x, index = *arrays((4, 3, 2)), np.array([2.0, 0, 2, 3, 2])
    (top,), (dx, none), (dy,) = run("type: 'BatchReindex' bottom: 'x' bottom: 'i'", x, index)
    assert all(np.array_equal(top[n], x[i]) for n, i in enumerate([2, 0, 2, 3, 2]))
    np.testing.assert_allclose(dx, [dy[1], np.zeros((3, 2)), dy[0] + dy[2] + dy[4], dy[3]])
    assert none is None


# ---- rearranging


@pytest.mark.parametrize(
    ("text", "shape", "expected"),
    [
        ("type: 'Flatten'", SHAPE, (2, 60)),
        ("type: 'Flatten' flatten_param { axis: 0 }", SHAPE, (120,)),
        ("type: 'Flatten' flatten_param { axis: 1 end_axis: -2 }", SHAPE, (2, 15, 4)),
        ("type: 'Flatten' flatten_param { axis: -2 end_axis: 2 }", SHAPE, SHAPE),
        ("type: 'Flatten' flatten_param { axis: 2 end_axis: 1 }", SHAPE, (2, 3, 1, 5, 4)),
        ("type: 'Reshape' reshape_param { shape { dim: 0 dim: -1 } }", SHAPE, (2, 60)),
        ("type: 'Reshape' reshape_param { shape { dim: 0 dim: 0 dim: -1 dim: 2 } }", SHAPE, (2, 3, 10, 2)),
        ("type: 'Reshape' reshape_param { shape { dim: 10 dim: 12 } }", SHAPE, (10, 12)),
        ("type: 'Reshape' reshape_param { shape { dim: 15 } axis: 1 num_axes: 2 }", SHAPE, (2, 15, 4)),
        ("type: 'Reshape' reshape_param { shape { dim: -1 dim: 5 } axis: -3 num_axes: 2 }", SHAPE, (2, 3, 4, 5)),
        ("type: 'Reshape' reshape_param { shape { dim: 1 } axis: -1 num_axes: 0 }", SHAPE, (2, 3, 5, 4, 1)),
        ("type: 'Reshape' reshape_param { shape { dim: 1 } axis: 1 num_axes: 0 }", SHAPE, (2, 1, 3, 5, 4)),
        ("type: 'Reshape' reshape_param { shape { dim: 0 dim: -1 } axis: 2 }", SHAPE, (2, 3, 5, 4)),
        ("type: 'Reshape' reshape_param { }", (1, 1), ()),
    ],
)
def test_flatten_and_reshape(text, shape, expected):
    (x,) = arrays(shape)
    (top,), (dx,), (dy,) = run(text, x)
    assert top.shape == expected
    assert np.array_equal(top.ravel(), x.ravel())
    assert dx.shape == shape and np.array_equal(dx.ravel(), dy.ravel())


@pytest.mark.parametrize(
    ("settings", "like", "offsets"),
    [
        ("", (9, 9, 3, 2), (0, 0, 0, 0)),
        ("offset: 1", (2, 3, 3, 2), (0, 0, 1, 1)),
        ("offset: 2 offset: 1", (2, 3, 3, 2), (0, 0, 2, 1)),
        ("axis: 1 offset: 1 offset: 0 offset: 2", (2, 2, 5, 1), (0, 1, 0, 2)),
        ("axis: -1 offset: 3", (7, 8, 9, 1), (0, 0, 0, 3)),
    ],
)
def test_crop(settings, like, offsets):
    text = f"type: 'Crop' bottom: 'x' bottom: 'like' crop_param {{ {settings} }}"
    values = arrays(SHAPE, like)
    (top,), (dx, none), (dy,) = run(text, *values)
    assert none is None
    expected = np.zeros(SHAPE)
    for index in np.ndindex(top.shape):
        there = tuple(i + offset for i, offset in zip(index, offsets, strict=True))
        assert top[index] == values[0][there]
        expected[there] = dy[index]
    assert np.array_equal(dx, expected)


@pytest.mark.parametrize("axis", [0, 1, 3, -2])
def test_tile(axis):
    text = f"type: 'Tile' tile_param {{ axis: {axis} tiles: 3 }}"
    (x,) = arrays(SHAPE)
    (top,), _, _ = run(text, x)
    at = range(4)[axis]
    assert top.shape[at] == 3 * SHAPE[at]
    for index in np.ndindex(top.shape):
        assert top[index] == x[(*index[:at], index[at] % SHAPE[at], *index[at + 1 :])]
    assert gradient_error(layer(text), [x]) < 1e-6


REDUCTIONS = {
    "SUM": sum,
    "ASUM": lambda numbers: sum(abs(number) for number in numbers),
    "SUMSQ": lambda numbers: sum(number * number for number in numbers),
    "MEAN": lambda numbers: sum(numbers) / len(numbers),
}


@pytest.mark.parametrize("axis", [0, 1, -2, 3])
@pytest.mark.parametrize("operation", REDUCTIONS)
def test_reduction(operation, axis):
    text = f"type: 'Reduction' reduction_param {{ operation: {operation} axis: {axis} coeff: -0.5 }}"
    (x,) = arrays(SHAPE)
    (top,), _, _ = run(text, x)
    assert isinstance(top, np.ndarray) and top.shape == SHAPE[: range(4)[axis]]
    for index in np.ndindex(top.shape):
        assert top[index] == pytest.approx(-0.5 * REDUCTIONS[operation](list(x[index].ravel())))
    assert gradient_error(layer(text), [x]) < 1e-6
    assert layer(text).forward(context(1), x.astype(np.float32))[0].dtype == np.float32


def test_the_magnitude_of_0_has_gradient_0():
    _, (dx,), _ = run("type: 'Reduction' reduction_param { operation: ASUM }", np.zeros(3))
    assert dx.tolist() == [0, 0, 0]


def ranked(numbers: np.ndarray, k: int) -> list[int]:
    """The indices of the k largest numbers, of equal ones the later first."""
    return sorted(range(len(numbers)), key=lambda i: (numbers[i], i), reverse=True)[:k]


@pytest.mark.parametrize("values", [False, True])
@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("axis", [None, 1, -1])
def test_argmax(axis, k, values):
    where = "" if axis is None else f"axis: {axis}"
    text = f"type: 'ArgMax' argmax_param {{ top_k: {k} out_max_val: {str(values).lower()} {where} }}"
    x = np.random.default_rng(1).integers(0, 4, SHAPE).astype(np.float32)  # many are equal
    (top,), grads, _ = run(text, x)
    assert grads == [None] and top.dtype == np.float32
    if axis is None:
        assert top.shape == (2, 2 if values else 1, k, 1)
        for n in range(2):
            best = ranked(x[n].ravel(), k)
            assert top[n, 0, :, 0].tolist() == best
            assert not values or top[n, 1, :, 0].tolist() == x[n].ravel()[best].tolist()
        return
    moved, found = np.moveaxis(x, axis, 0), np.moveaxis(top, axis, 0)
    for index in itertools.product(*map(range, moved.shape[1:])):
        line = moved[(slice(None), *index)]
        best = ranked(line, k)
        assert found[(slice(None), *index)].tolist() == (line[best].tolist() if values else best)


@pytest.mark.parametrize(("shape", "expected"), [((5,), None), ((4, 6), (4, 1, 2)), ((4, 3, 2, 2, 3), (4, 1, 2, 1, 1))])
def test_argmax_has_at_least_three_axes(shape, expected):
    subject = layer("type: 'ArgMax' argmax_param { top_k: 2 }")
    if expected is None:  # one number per item
        with pytest.raises(Refusal):
            subject.shapes(shape)
    else:
        assert list(subject.shapes(shape)) == [expected]


def test_parameter():
    subject = base.create(
        text_format.Parse("type: 'Parameter' top: 'y' parameter_param { shape { dim: 4 dim: 3 } }", caffe_pb2.LayerParameter())
    )
    subject.check_counts(0)
    (value,) = arrays((4, 3))
    assert list(subject.shapes()) == [(4, 3)]
    assert [(p.name, p.shape, p.filler) for p in subject.params()] == [("value", (4, 3), None)]
    ctx = context(0)
    assert np.array_equal(subject.forward(ctx, value)[0], value)
    assert np.array_equal(subject.backward(ctx, value)[0], value)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_softmax(axis):
    text = f"type: 'Softmax' softmax_param {{ axis: {axis} }}"
    x = 3 * arrays(SHAPE)[0]
    (top,), _, _ = run(text, x)
    for index in np.ndindex(SHAPE):
        at = range(4)[axis]
        line = x[(*index[:at], slice(None), *index[at + 1 :])]
        assert top[index] == pytest.approx(np.exp(x[index]) / sum(np.exp(v) for v in line))
    assert gradient_error(layer(text), [x]) < 1e-6
    (large,) = layer(text).forward(context(1), (1000 + x).astype(np.float32))  # stays finite
    assert large.dtype == np.float32 and np.allclose(large, top, atol=1e-4)


COSTS = [
    ("type: 'Eltwise'", 3, base.Costs(add=240)),
    ("type: 'Eltwise' eltwise_param { coeff: 1 coeff: -1 coeff: 2 }", 3, base.Costs(add=240, multiply=240)),
    ("type: 'Eltwise' eltwise_param { operation: PROD }", 2, base.Costs(multiply=120)),
    ("type: 'Eltwise' eltwise_param { operation: MAX }", 2, base.Costs(compare=120)),
    ("type: 'Concat'", 2, base.Costs()),
    ("type: 'Slice'", 1, base.Costs()),
    ("type: 'Softmax'", 1, base.Costs(compare=120, add=240, exponential=120, divide=120)),
    ("type: 'ArgMax'", 1, base.Costs(compare=120)),
    ("type: 'Reduction' reduction_param { axis: 1 }", 1, base.Costs(add=120)),
    ("type: 'Reduction' reduction_param { axis: 1 operation: MEAN }", 1, base.Costs(add=120, multiply=2)),
    ("type: 'Reduction' reduction_param { axis: 1 operation: SUMSQ coeff: 3 }", 1, base.Costs(mac=120, multiply=2)),
    ("type: 'Reduction' reduction_param { axis: 2 operation: ASUM }", 1, base.Costs(add=120, compare=120)),
]


@pytest.mark.parametrize(("text", "bottoms", "expected"), COSTS, ids=range(len(COSTS)))
def test_costs(text, bottoms, expected):
    subject = layer(text)
    assert subject.costs([SHAPE] * bottoms, subject.shapes(*[SHAPE] * bottoms)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("type: 'Eltwise'", "SUM"),
        ("type: 'Eltwise' eltwise_param { coeff: 1 coeff: -0.5 }", "SUM 1 -0.5"),
        ("type: 'Concat'", "axis 1"),
        ("type: 'Concat' concat_param { concat_dim: 0 }", "axis 0"),
        ("type: 'Slice' slice_param { axis: -1 }", "axis -1"),
        ("type: 'Flatten' flatten_param { end_axis: 2 }", "end_axis 2"),
        ("type: 'Reshape' reshape_param { shape { dim: 0 dim: -1 } axis: 1 }", "0 -1 axis 1"),
        ("type: 'Crop' crop_param { offset: 3 offset: 4 }", "axis 2 offset 3 4"),
        ("type: 'Tile' tile_param { tiles: 3 }", "axis 1 x3"),
        ("type: 'Reduction' reduction_param { operation: MEAN axis: 1 }", "MEAN axis 1"),
        ("type: 'ArgMax' argmax_param { top_k: 5 axis: 1 out_max_val: true }", "top 5 axis 1 values"),
        ("type: 'Softmax' softmax_param { axis: -1 }", "axis -1"),
        ("type: 'Softmax'", ""),
    ],
)
def test_settings(text, expected):
    assert layer(text).settings() == expected


# ---- refusals: the code, a layer, its bottoms' shapes, and what Caffe's words must contain

REFUSALS = [
    ("axes-reversed", "type: 'Flatten' flatten_param { axis: 3 end_axis: 1 }", [SHAPE], "start_axis <= end_axis (3 vs. 2) "),
    ("axes-reversed", "type: 'ArgMax'", [()], "(1 vs. 0)"),
    (
        "axis-out-of-range",
        "type: 'Softmax' softmax_param { axis: 4 }",
        [SHAPE],
        "axis_index < num_axes() (4 vs. 4) axis 4 out of range for 4-D Blob with shape 2 3 5 4 (120)",
    ),
    (
        "axis-out-of-range-negative",
        "type: 'InnerProduct' inner_product_param { axis: -5 }",
        [SHAPE],
        "axis_index >= -num_axes() (-5 vs. -4) axis -5 out of range for 4-D Blob with shape 2 3 5 4 (120)",
    ),
    (
        "axis-out-of-range",
        "type: 'Crop' bottom: 'x' bottom: 'like'",
        [SHAPE, (2, 3, 4)],
        "(3 vs. 3) axis 3 out of range for 3-D Blob",
    ),
    ("axis-out-of-range", "type: 'Reduction'", [()], "(0 vs. 0) axis 0 out of range for 0-D Blob with shape (1)"),
    ("axis-out-of-range", "type: 'Filter' bottom: 'x' bottom: 's'", [(), (2,)], "(0 vs. 0)"),
    ("legacy-axes", "type: 'PReLU'", [(2, 3, 4, 5, 6)], "(5 vs. 4) Cannot use legacy accessors on Blobs with > 4 axes."),
    ("negative-size", "type: 'Slice' top: 'a' top: 'b' slice_param { slice_point: 5 }", [SHAPE], "shape[i] >= 0 (-2 vs. 0) "),
    ("negative-size", "type: 'InnerProduct' inner_product_param { num_output: 4294967295 }", [SHAPE], "(-1 vs. 0)"),
    ("negative-size", "type: 'Reshape' reshape_param { shape { dim: -3 dim: -1 } }", [(6,)], "(-3 vs. 0)"),
    (
        "blob-too-large",
        "type: 'Tile' tile_param { tiles: 100000000 }",
        [SHAPE],
        "(5 vs. 3) blob size exceeds INT_MAX",
    ),
    ("blob-too-large", "type: 'Embed' embed_param { input_dim: 70000 num_output: 40000 }", [(2,)], "(40000 vs. 30678)"),
    ("absval-in-place", "type: 'AbsVal' bottom: 'x' top: 'x'", [SHAPE], "AbsVal Layer does not allow in-place computation."),
    ("prelu-axes", "type: 'PReLU'", [(7,)], "(1 vs. 2) Number of axes of bottom blob must be >=2."),
    ("exp-base-positive", "type: 'Exp' exp_param { base: -0.5 }", [SHAPE], "base > 0 (-0.5 vs. 0) base must be strictly positive."),
    ("exp-base-positive", "type: 'Exp' exp_param { base: nan }", [SHAPE], "(nan vs. 0)"),
    ("exp-base-infinite", "type: 'Exp' exp_param { base: inf }", [SHAPE], "Inf result: log(base) = log(inf) = inf"),
    ("log-base-positive", "type: 'Log' log_param { base: 0 }", [SHAPE], "base > 0 (0 vs. 0) base must be strictly positive."),
    ("log-base-infinite", "type: 'Log' log_param { base: inf }", [SHAPE], "Inf result: log(base) = log(inf) = inf"),
    ("log-base-one", "type: 'Log' log_param { base: 1 }", [SHAPE], "Inf result: 1/log(base) = 1/log(1) = inf"),
    ("embed-num-output", "type: 'Embed' embed_param { input_dim: 3 }", [SHAPE], "N_ > 0 (0 vs. 0)"),
    ("embed-input-dim", "type: 'Embed' embed_param { num_output: 3 }", [SHAPE], "K_ > 0 (0 vs. 0)"),
    ("scale-num-axes", "type: 'Scale' scale_param { num_axes: -2 }", [SHAPE], "num_axes >= -1 (-2 vs. -1)"),
    (
        "scale-param-extends-past",
        "type: 'Scale' scale_param { axis: -1 num_axes: 2 }",
        [SHAPE],
        "(4 vs. 5) scale blob's shape extends past bottom[0]'s shape when applied starting with bottom[0] axis = 3",
    ),
    (
        "scale-extends-past",
        "type: 'Scale' bottom: 'x' bottom: 's' scale_param { axis: 2 }",
        [SHAPE, (5, 4, 3)],
        "(4 vs. 5) scale blob's",
    ),
    (
        "scale-mismatch",
        "type: 'Scale' bottom: 'x' bottom: 's'",
        [SHAPE, (3, 4)],
        "(5 vs. 4) dimension mismatch between bottom[0]->shape(2) and scale->shape(1)",
    ),
    ("bias-num-axes", "type: 'Bias' bias_param { num_axes: -3 }", [SHAPE], "num_axes >= -1 (-3 vs. -1)"),
    ("bias-param-extends-past", "type: 'Bias' bias_param { num_axes: 4 }", [SHAPE], "(4 vs. 5) bias blob's shape extends past"),
    # the Bias inside a Scale looks before the Scale does
    (
        "bias-param-extends-past",
        "type: 'Scale' bottom: 'x' bottom: 's' scale_param { axis: 2 bias_term: true }",
        [SHAPE, (5, 4, 3)],
        "(4 vs. 5) bias blob's shape",
    ),
    ("bias-extends-past", "type: 'Bias' bottom: 'x' bottom: 's'", [SHAPE, SHAPE], "(4 vs. 5) bias blob's shape extends past"),
    (
        "bias-mismatch",
        "type: 'Bias' bottom: 'x' bottom: 's'",
        [SHAPE, (4,)],
        "(3 vs. 4) dimension mismatch between bottom[0]->shape(1)",
    ),
    (
        "eltwise-coeff-count",
        "type: 'Eltwise' bottom: 'a' bottom: 'b' eltwise_param { coeff: 1 }",
        [SHAPE] * 2,
        "one coefficient per",
    ),
    (
        "eltwise-coeff-product",
        "type: 'Eltwise' bottom: 'a' bottom: 'b' eltwise_param { operation: PROD coeff: 1 coeff: 2 }",
        [SHAPE] * 2,
        "only takes coefficients for summation.",
    ),
    (
        "eltwise-shapes",
        "type: 'Eltwise' bottom: 'a' bottom: 'b' bottom: 'c'",
        [SHAPE, SHAPE, (2, 3)],
        "bottom[0]: 2 3 5 4 (120), bottom[2]: 2 3 (6)",
    ),
    ("concat-two-axes", "type: 'Concat' concat_param { axis: 1 concat_dim: 1 }", [SHAPE], "Either axis or concat_dim should"),
    ("concat-dim-negative", "type: 'Concat' concat_param { concat_dim: 4294967295 }", [SHAPE], "(-1 vs. 0) casting concat_dim"),
    ("concat-dim-out-of-range", "type: 'Concat' concat_param { concat_dim: 4 }", [SHAPE], "(4 vs. 4) concat_dim out of range."),
    ("concat-axes", "type: 'Concat' bottom: 'a' bottom: 'b'", [SHAPE, (2, 3)], "(4 vs. 2) All inputs must have the same #axes."),
    (
        "concat-shapes",
        "type: 'Concat' bottom: 'a' bottom: 'b'",
        [SHAPE, (2, 7, 6, 4)],
        "(5 vs. 6) All inputs must have the same shape",
    ),
    ("slice-two-axes", "type: 'Slice' slice_param { axis: 1 slice_dim: 1 }", [SHAPE], "Either axis or slice_dim should"),
    ("slice-dim-negative", "type: 'Slice' slice_param { slice_dim: 4294967294 }", [SHAPE], "(-2 vs. 0) casting slice_dim"),
    ("slice-dim-out-of-range", "type: 'Slice' slice_param { slice_dim: 5 }", [SHAPE], "(5 vs. 4) slice_dim out of range."),
    ("slice-points", "type: 'Slice' top: 'a' top: 'b' slice_param { slice_point: 1 slice_point: 2 }", [SHAPE], "(2 vs. 1) "),
    (
        "slice-too-many",
        f"type: 'Slice' {' '.join(f'''top: '{i}' ''' for i in range(4))} slice_param {{ {'slice_point: 1 ' * 3} }}",
        [SHAPE],
        "(4 vs. 3)",
    ),
    (
        "slice-points-order",
        "type: 'Slice' top: 'a' top: 'b' top: 'c' slice_param { slice_point: 2 slice_point: 2 }",
        [SHAPE],
        "(2 vs. 2)",
    ),
    ("slice-points-order", "type: 'Slice' top: 'a' top: 'b' slice_param { slice_point: 0 }", [SHAPE], "(0 vs. 0)"),
    (
        "slice-uneven",
        "type: 'Slice' top: 'a' top: 'b'",
        [SHAPE],
        "(1 vs. 0) Number of top blobs (2) should evenly divide input slice axis (3)",
    ),
    ("split-in-place", "type: 'Split' bottom: 'x' top: 'x' top: 'y'", [SHAPE], "Split Layer does not allow in-place computation."),
    ("filter-tops", "type: 'Filter' bottom: 'x' bottom: 'z' bottom: 's'", [SHAPE, SHAPE, (2,)], "(1 vs. 2) "),
    ("filter-selector", "type: 'Filter' bottom: 'x' bottom: 's'", [SHAPE, (2, 3)], "(3 vs. 1) Selector blob dimensions must be"),
    ("filter-items", "type: 'Filter' bottom: 'x' bottom: 's'", [SHAPE, (3, 1)], "(3 vs. 2) Each bottom should have the same 0th"),
    ("axis-out-of-range", "type: 'BatchReindex' bottom: 'x' bottom: 'i'", [(), (3,)], "(0 vs. 0)"),
    ("reindex-axes", "type: 'BatchReindex' bottom: 'x' bottom: 'i'", [SHAPE, (3, 1)], "1 == bottom[1]->num_axes() (1 vs. 2) "),
    ("flatten-in-place", "type: 'Flatten' bottom: 'x' top: 'x'", [SHAPE], "Flatten Layer does not allow in-place computation."),
    ("reshape-in-place", "type: 'Reshape' bottom: 'x' top: 'x'", [SHAPE], "Reshape Layer does not allow in-place computation."),
    ("reshape-two-inferred", "type: 'Reshape' reshape_param { shape { dim: 2 dim: -1 dim: -1 } }", [SHAPE], "(1 vs. -1) new shape"),
    ("reshape-axis-negative", "type: 'Reshape' reshape_param { axis: -6 }", [SHAPE], "(-1 vs. 0) axis -6 out of range"),
    ("reshape-axis", "type: 'Reshape' reshape_param { axis: 5 }", [SHAPE], "(5 vs. 4) axis 5 out of range for 4-D input blob"),
    (
        "reshape-num-axes",
        "type: 'Reshape' reshape_param { num_axes: -2 }",
        [SHAPE],
        "(-2 vs. -1) num_axes must be >= 0, or -1 for all",
    ),
    (
        "reshape-end",
        "type: 'Reshape' reshape_param { axis: 2 num_axes: 3 }",
        [SHAPE],
        "(5 vs. 4) end_axis = axis + num_axes is out of",
    ),
    (
        "reshape-nothing-to-copy",
        "type: 'Reshape' reshape_param { shape { dim: 1 dim: 0 } axis: 3 }",
        [SHAPE],
        "(4 vs. 4) new shape contains a 0, but there was no corresponding bottom axis to copy",
    ),
    ("reshape-by-zero", "type: 'Reshape' reshape_param { shape { dim: 0 dim: -1 } }", [(0, 3)], ""),
    (
        "reshape-indivisible",
        "type: 'Reshape' reshape_param { shape { dim: 7 dim: -1 } }",
        [SHAPE],
        "(0 vs. 1) bottom count (120) must be divisible by the product of the specified dimensions (7)",
    ),
    ("reshape-count", "type: 'Reshape' reshape_param { shape { dim: 7 dim: 0 } }", [SHAPE], "(21 vs. 120) output count must match"),
    (
        "crop-offsets",
        "type: 'Crop' bottom: 'x' bottom: 'l' crop_param { axis: 1 offset: 0 offset: 1 }",
        [SHAPE] * 2,
        "(3 vs. 4) number of",
    ),
    (
        "crop-out-of-bounds",
        "type: 'Crop' bottom: 'x' bottom: 'like' crop_param { offset: 1 offset: 2 }",
        [SHAPE, (2, 3, 4, 3)],
        "(2 vs. 3) the crop for dimension 3 is out-of-bounds with size 3 and offset 2",
    ),
    ("tile-missing", "type: 'Tile'", [SHAPE], "tile_param.has_tiles() Number of tiles must be specified"),
    ("tile-positive", "type: 'Tile' tile_param { tiles: -1 }", [SHAPE], "tiles_ > 0 (-1 vs. 0) Number of tiles must be positive."),
    ("argmax-top-k", "type: 'ArgMax' argmax_param { top_k: 0 }", [SHAPE], "(0 vs. 1) top k must not be less than 1."),
    (
        "argmax-top-k-axis",
        "type: 'ArgMax' argmax_param { top_k: 6 axis: 2 }",
        [SHAPE],
        "(6 vs. 5) top_k must be less than or equal to",
    ),
    (
        "argmax-top-k-item",
        "type: 'ArgMax' argmax_param { top_k: 61 }",
        [SHAPE],
        "(61 vs. 60) top_k must be less than or equal to the",
    ),
]

COUNTS = [  # code, bottoms and tops of a layer, and Caffe's words
    (
        "bottom-count-exact",
        "Softmax",
        2,
        1,
        "layer.hpp:349] Check failed: ExactNumBottomBlobs() == bottom.size() (1 vs. 2) Softmax Layer takes 1 bottom blob(s)",
    ),
    (
        "bottom-count-least",
        "Eltwise",
        1,
        1,
        "MinBottomBlobs() <= bottom.size() (2 vs. 1) Eltwise Layer takes at least 2 bottom blob(s) as input.",
    ),
    (
        "bottom-count-most",
        "Scale",
        3,
        1,
        "MaxBottomBlobs() >= bottom.size() (2 vs. 3) Scale Layer takes at most 2 bottom blob(s) as input.",
    ),
    (
        "top-count-exact",
        "Softmax",
        1,
        2,
        "ExactNumTopBlobs() == top.size() (1 vs. 2) Softmax Layer produces 1 top blob(s) as output.",
    ),
    (
        "top-count-least",
        "Slice",
        1,
        0,
        "MinTopBlobs() <= top.size() (1 vs. 0) Slice Layer produces at least 1 top blob(s) as output.",
    ),
    (
        "top-count-most",
        "Accuracy",
        2,
        3,
        "MaxTopBlobs() >= top.size() (2 vs. 3) Accuracy Layer produces at most 2 top blob(s) as output.",
    ),
    (
        "count-equal",
        "Convolution",
        2,
        1,
        "bottom.size() == top.size() (2 vs. 1) Convolution Layer produces one top blob as output for each bottom blob input.",
    ),
]

RUNNING = [  # what only a run can find
    (
        "embed-index-negative",
        "type: 'Embed' embed_param { input_dim: 3 num_output: 2 }",
        [[-1.0], np.ones((3, 2)), np.ones(2)],
        "(-1 vs. 0)",
    ),
    (
        "embed-index-too-large",
        "type: 'Embed' embed_param { input_dim: 3 num_output: 2 }",
        [[3.0], np.ones((3, 2)), np.ones(2)],
        "(3 vs. 3)",
    ),
    (
        "reindex-negative",
        "type: 'BatchReindex'",
        [np.ones((4, 2)), [-0.5]],
        "(-0.5 vs. 0) Index specified for reindex layer was negative.",
    ),
    (
        "reindex-too-large",
        "type: 'BatchReindex'",
        [np.ones((4, 2)), [0.0, 4]],
        "(4 vs. 4) Index specified for reindex layer was greater",
    ),
    ("dropout-ratio-high", "type: 'Dropout' dropout_param { dropout_ratio: 1.5 }", [[1.0]], "p >= 0 (-0.5 vs. 0)"),
    ("dropout-ratio-low", "type: 'Dropout' dropout_param { dropout_ratio: -0.5 }", [[1.0]], "p <= 1 (1.5 vs. 1)"),
]


def holds(refusal: Refusal, code: str, words: str) -> None:
    """The refusal has this code, a message of its own, and Caffe's words contain these."""
    line = oneshot.caffe_words(refusal)
    assert refusal.code == code
    assert words in line and "{" not in line
    assert str(refusal).startswith("layer 'l' (") and not refusal.finding.message[0].isupper()


@pytest.mark.parametrize(("code", "text", "shapes", "words"), REFUSALS, ids=range(len(REFUSALS)))
def test_refusals_say_what_caffe_says(code, text, shapes, words):
    with pytest.raises(Refusal) as caught:
        layer(text).shapes(*shapes)
    holds(caught.value, code, words)


@pytest.mark.parametrize(("code", "kind", "bottoms", "tops", "words"), COUNTS, ids=[code for code, *_ in COUNTS])
def test_counts_say_what_caffe_says(code, kind, bottoms, tops, words):
    proto = caffe_pb2.LayerParameter(name="l", type=kind, bottom=map(str, range(bottoms)), top=map(str, range(tops)))
    with pytest.raises(Refusal) as caught:
        base.create(proto).check_counts(bottoms)
    holds(caught.value, code, words)


@pytest.mark.parametrize(("code", "text", "values", "words"), RUNNING, ids=[code for code, *_ in RUNNING])
def test_runs_say_what_caffe_says(code, text, values, words):
    with pytest.raises(Refusal) as caught:
        layer(text, base.TRAIN).forward(context(1, base.TRAIN), *map(np.asarray, values))
    holds(caught.value, code, words)


def test_a_blob_has_at_most_32_axes():
    with pytest.raises(Refusal) as caught:
        layer("type: 'ReLU'").check_blob((1,) * 33)
    holds(caught.value, "too-many-axes", "shape.size() <= kMaxBlobAxes (33 vs. 32) ")


def test_every_entry_of_the_table_is_reached():
    table = tomllib.loads((oneshot.DIALECTS / "refusals_basic.toml").read_text(encoding="utf-8"))
    assert set(table) == {"too-many-axes"} | {code for code, *_ in [*REFUSALS, *COUNTS, *RUNNING]}
