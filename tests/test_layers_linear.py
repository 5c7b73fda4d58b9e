"""InnerProduct, Embed, Scale, Bias: against loops, central differences, and real Caffe. Refusals are in test_layers_wiring."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.errors import Refusal
from inspector.layers import base

from . import oneshot
from .conftest import reference_folder
from .naive_window import arrays, context, gradient_error, layer

CASES = oneshot.prototxts(reference_folder(), "InnerProduct", "Embed", "Scale", "Bias") if reference_folder() else []
SHAPE = (2, 3, 5, 4)


@pytest.mark.skipif(not CASES, reason="no reference folder: set ALEXINSPECT_REFERENCE to the answers of real Caffe")
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_caffe(path):
    cases = oneshot.run_case(path)
    assert cases and not [str(case) for case in cases if not case.ok]


def initial(subject: base.Layer, *shapes: base.Shape) -> list[np.ndarray]:
    """Arrays for the layer's bottoms and parameters."""
    return arrays(*shapes, *(param.shape for param in subject.params(*shapes)))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("transpose", [True, False])
@pytest.mark.parametrize(("axis", "rows", "inputs"), [(1, (2,), 60), (0, (), 120), (-1, (2, 3, 5), 4), (2, (2, 3), 20)])
def test_inner_product(axis, rows, inputs, transpose, bias):
    flags = f"axis: {axis} transpose: {transpose} bias_term: {bias}".lower()
    subject = layer(f"type: 'InnerProduct' inner_product_param {{ num_output: 7 {flags} }}")
    values = x, weight, *rest = initial(subject, SHAPE)
    assert weight.shape == ((inputs, 7) if transpose else (7, inputs))
    assert [array.shape for array in rest] == [(7,)] * bias
    (top,) = subject.forward(context(1), *values)
    assert list(subject.shapes(SHAPE)) == [(*rows, 7)] == [top.shape]
    for index in np.ndindex(*rows, 7):
        *row, o = index
        taken = x[tuple(row)].ravel()
        total = sum(taken[k] * (weight[k, o] if transpose else weight[o, k]) for k in range(inputs))
        assert top[index] == pytest.approx(total + (rest[0][o] if bias else 0))
    assert gradient_error(subject, values) < 1e-6
    assert subject.forward(context(1), *(v.astype(np.float32) for v in values))[0].dtype == np.float32
    m = int(np.prod(rows))
    assert subject.costs([SHAPE], [top.shape]) == base.Costs(mac=m * inputs * 7, bias=m * 7 * bias)


def test_inner_product_of_alexnet():
    subject = layer("type: 'InnerProduct' inner_product_param { num_output: 4096 weight_filler { type: 'gaussian' std: 0.005 } }")
    weight, bias = subject.params((10, 256, 6, 6))
    assert weight.shape == (4096, 9216) and (weight.filler.type, weight.filler.std) == ("gaussian", pytest.approx(0.005))
    assert bias.shape == (4096,) and (bias.filler.type, bias.filler.value) == ("constant", 0)
    assert subject.costs([(1, 256, 6, 6)], [(1, 4096)]) == base.Costs(mac=37_748_736, bias=4096)


def test_inner_product_computes_only_the_gradients_that_are_wanted():
    subject, ctx = layer("type: 'InnerProduct' inner_product_param { num_output: 7 }"), context(1)
    ctx.needs = (False, True, False)
    values = initial(subject, SHAPE)
    (top,) = subject.forward(ctx, *values)
    assert [grad is None for grad in subject.backward(ctx, top)] == [True, False, True]


@pytest.mark.parametrize("bias", [True, False])
def test_embed(bias):
    subject = layer(f"type: 'Embed' embed_param {{ input_dim: 6 num_output: 5 bias_term: {str(bias).lower()} }}")
    index = np.array([[4.0, 0.0, 2.9, 4.0], [5.0, 1.0, 4.0, -0.5]])  # cut towards 0: 2 and 0
    _, weight, *rest = values = [index, *initial(subject, index.shape)[1:]]
    assert weight.shape == (6, 5) and [array.shape for array in rest] == [(5,)] * bias
    ctx = context(1)
    (top,) = subject.forward(ctx, *values)
    assert list(subject.shapes(index.shape)) == [(2, 4, 5)] == [top.shape]
    for n, t in np.ndindex(index.shape):
        np.testing.assert_allclose(top[n, t], weight[int(index[n, t])] + (rest[0] if bias else 0))
    (dy,) = arrays(top.shape)
    dx, dweight, *dbias = subject.backward(ctx, dy)
    expected = np.zeros_like(weight)
    for n, t in np.ndindex(index.shape):
        expected[int(index[n, t])] += dy[n, t]
    assert dx is None
    np.testing.assert_allclose(dweight, expected)
    if bias:
        np.testing.assert_allclose(dbias[0], sum(dy[n, t] for n, t in np.ndindex(index.shape)))
    assert subject.costs([index.shape], [top.shape]) == base.Costs(bias=40 * bias)


@pytest.mark.parametrize("index", [-1, 6, np.nan, np.inf])
def test_embed_reads_no_row_that_is_not_there(index):
    subject = layer("type: 'Embed' embed_param { input_dim: 6 num_output: 5 bias_term: false }")
    with pytest.raises(Refusal) as caught:
        subject.forward(context(1), np.array([2.0, index]), *arrays((6, 5)))
    assert caught.value.code == ("embed-index-too-large" if index == 6 else "embed-index-negative")


EXTENTS = [  # axis, num_axes, shape of the learned blob, and axis of SHAPE where it begins
    (1, 1, (3,), 1),
    (0, 1, (2,), 0),
    (-1, 1, (4,), 3),
    (1, 2, (3, 5), 1),
    (2, -1, (5, 4), 2),
    (0, -1, SHAPE, 0),
    (1, 0, (), 0),
]


def spread(blob: np.ndarray, start: int, index: tuple[int, ...]) -> float:
    """The blob's number that applies at `index` of the bottom."""
    return blob[index[start : start + blob.ndim]]


@pytest.mark.parametrize(("axis", "num_axes", "shape", "start"), EXTENTS)
def test_scale_and_bias_learned(axis, num_axes, shape, start):
    for kind in ("scale", "bias"):
        subject = layer(f"type: '{kind.title()}' {kind}_param {{ axis: {axis} num_axes: {num_axes} }}")
        values = x, blob = initial(subject, SHAPE)
        assert blob.shape == shape
        (top,) = subject.forward(context(1), *values)
        assert list(subject.shapes(SHAPE)) == [SHAPE] == [top.shape]
        for index in np.ndindex(SHAPE):
            own = spread(blob, start, index)
            assert top[index] == pytest.approx(x[index] * own if kind == "scale" else x[index] + own)
        assert gradient_error(subject, values) < 1e-6


@pytest.mark.parametrize(("axis", "num_axes", "shape", "start"), EXTENTS)
def test_scale_with_a_bias_inside(axis, num_axes, shape, start):
    for given in (False, True):  # the scale as a second bottom
        bottoms = "bottom: 'x' bottom: 's'" if given else ""
        subject = layer(f"type: 'Scale' {bottoms} scale_param {{ axis: {axis} num_axes: {num_axes} bias_term: true }}")
        shapes = [SHAPE, shape] if given else [SHAPE]
        assert [(p.name, p.shape) for p in subject.params(*shapes)] == ([] if given else [("scale", shape)]) + [("bias", shape)]
        values = x, scale, bias = initial(subject, *shapes)
        (top,) = subject.forward(context(len(shapes)), *values)
        assert list(subject.shapes(*shapes)) == [SHAPE] == [top.shape]
        for index in np.ndindex(SHAPE):
            assert top[index] == pytest.approx(x[index] * spread(scale, start, index) + spread(bias, start, index))
        assert gradient_error(subject, values, bottoms=len(shapes)) < 1e-6
        assert subject.costs(shapes, [SHAPE]) == base.Costs(multiply=120, bias=120)


@pytest.mark.parametrize("kind", ["Scale", "Bias"])
def test_scale_and_bias_from_a_bottom(kind):
    subject = layer(f"type: '{kind}' bottom: 'x' bottom: 's' {kind.lower()}_param {{ axis: 1 }}")
    values = arrays(SHAPE, (3, 5))
    assert list(subject.shapes(SHAPE, (3, 5))) == [SHAPE] and not subject.params(SHAPE, (3, 5))
    (top,) = subject.forward(context(2), *values)
    other = values[1][None, :, :, None]
    np.testing.assert_allclose(top, values[0] * other if kind == "Scale" else values[0] + other)
    assert gradient_error(subject, values, bottoms=2) < 1e-6


@pytest.mark.parametrize("kind", ["Scale", "Bias"])
def test_scale_and_bias_of_a_scalar(kind):
    subject = layer(f"type: '{kind}' bottom: 'x' bottom: 's'")
    values = [array.astype(np.float32) for array in arrays((), ())]
    (top,) = subject.forward(context(2), *values)
    assert isinstance(top, np.ndarray) and top.shape == () and top.dtype == np.float32


def test_fillers_of_scale_and_bias():
    scale, bias = layer("type: 'Scale' scale_param { bias_term: true bias_filler { value: 3 } }").params(SHAPE)
    assert (scale.filler.type, scale.filler.value, bias.filler.type, bias.filler.value) == ("constant", 1, "constant", 3)
    (scale,) = layer("type: 'Scale' scale_param { filler { type: 'gaussian' } }").params(SHAPE)
    assert scale.filler.type == "gaussian"
    (bias,) = layer("type: 'Bias'").params(SHAPE)
    assert (bias.filler.type, bias.filler.value) == ("constant", 0)


def test_costs_of_scale_and_bias():
    assert layer("type: 'Scale'").costs([SHAPE], [SHAPE]) == base.Costs(multiply=120)
    assert layer("type: 'Bias'").costs([SHAPE], [SHAPE]) == base.Costs(bias=120)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("type: 'InnerProduct' inner_product_param { num_output: 4096 }", "4096"),
        (
            "type: 'InnerProduct' inner_product_param { num_output: 9 axis: 2 transpose: true bias_term: false }",
            "9 axis 2 transposed no bias",
        ),
        ("type: 'Embed' embed_param { input_dim: 8801 num_output: 1000 }", "8801 to 1000"),
        ("type: 'Embed' embed_param { input_dim: 8 num_output: 5 bias_term: false }", "8 to 5 no bias"),
        ("type: 'Scale'", ""),
        ("type: 'Scale' scale_param { axis: 2 num_axes: -1 bias_term: true }", "axis 2 num_axes -1 bias"),
        ("type: 'Bias' bias_param { axis: 0 }", "axis 0"),
    ],
)
def test_settings(text, expected):
    assert layer(text).settings() == expected
