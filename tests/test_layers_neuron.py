"""Elementwise layers: against formulas per number, central differences, and real Caffe. Refusals are in test_layers_wiring."""

from __future__ import annotations

import math

import numpy as np
import pytest

from inspector.errors import Refusal
from inspector.layers import base, neuron

from . import oneshot
from .conftest import reference_folder
from .naive_window import arrays, context, gradient_error, layer

TYPES = [name for name, kind in base.registry.items() if kind.__module__ == neuron.__name__]
CASES = oneshot.prototxts(reference_folder(), *TYPES) if reference_folder() else []
SHAPE = (2, 3, 5, 4)

FORMULAS = [  # settings, what they make of one number, and whether that number must be positive
    ("type: 'ReLU'", lambda x: x if x > 0 else 0.0),
    ("type: 'ReLU' relu_param { negative_slope: 0.25 }", lambda x: x if x > 0 else 0.25 * x),
    ("type: 'ReLU' relu_param { negative_slope: -0.5 }", lambda x: x if x > 0 else -0.5 * x),
    ("type: 'ELU'", lambda x: x if x > 0 else math.exp(x) - 1),
    ("type: 'ELU' elu_param { alpha: 0.5 }", lambda x: x if x > 0 else 0.5 * (math.exp(x) - 1)),
    ("type: 'Sigmoid'", lambda x: 1 / (1 + math.exp(-x))),
    ("type: 'TanH'", lambda x: (math.exp(2 * x) - 1) / (math.exp(2 * x) + 1)),
    ("type: 'AbsVal'", lambda x: x if x > 0 else -x),
    ("type: 'BNLL'", lambda x: math.log(1 + math.exp(x))),
    ("type: 'Exp'", math.exp),
    ("type: 'Exp' exp_param { shift: 0.5 }", lambda x: math.exp(x + 0.5)),
    ("type: 'Exp' exp_param { base: 2 scale: 0.5 shift: 3 }", lambda x: 2 ** (3 + 0.5 * x)),
    ("type: 'Log' log_param { shift: 5 }", lambda x: math.log(x + 5)),
    ("type: 'Log' log_param { base: 2 scale: 0.5 shift: 4 }", lambda x: math.log(0.5 * x + 4) / math.log(2)),
    ("type: 'Power'", lambda x: x),
    ("type: 'Power' power_param { scale: -3 shift: 2 }", lambda x: 2 - 3 * x),
    ("type: 'Power' power_param { power: 2 scale: 0.5 shift: 1 }", lambda x: (1 + 0.5 * x) ** 2),
    ("type: 'Power' power_param { power: 3 scale: 0.5 }", lambda x: (0.5 * x) ** 3),
    ("type: 'Power' power_param { power: -1.5 scale: 0.5 shift: 4 }", lambda x: (4 + 0.5 * x) ** -1.5),
    ("type: 'Power' power_param { power: 0 }", lambda x: 1.0),
    ("type: 'Power' power_param { power: 3 scale: 0 shift: 2 }", lambda x: 8.0),
    ("type: 'Swish'", lambda x: x / (1 + math.exp(-x))),
    ("type: 'Swish' swish_param { beta: 1.5 }", lambda x: x / (1 + math.exp(-1.5 * x))),
    ("type: 'Clip' clip_param { min: -0.5 max: 0.75 }", lambda x: min(max(x, -0.5), 0.75)),
]


@pytest.mark.skipif(not CASES, reason="no reference folder: set ALEXINSPECT_REFERENCE to the answers of real Caffe")
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_caffe(path, monkeypatch):
    words = oneshot.refused_line(path)
    if words is not None:
        monkeypatch.setattr(oneshot, "phase_of", lambda _: base.TEST)  # what was refused says no phase
        with pytest.raises(Refusal) as caught:
            oneshot.shapes_of(path)
        assert oneshot.caffe_words(caught.value) == words
        return
    cases = oneshot.run_case(path)
    assert cases and not [str(case) for case in cases if not case.ok]


@pytest.mark.parametrize(("text", "formula"), FORMULAS, ids=range(len(FORMULAS)))
def test_equals_its_formula_and_differentiates(text, formula):
    (x,) = arrays(SHAPE)
    subject = layer(text)
    (top,) = subject.forward(context(1), x)
    assert list(subject.shapes(SHAPE)) == [SHAPE] and not subject.params(SHAPE)
    np.testing.assert_allclose(top, np.vectorize(formula, otypes=[float])(x), rtol=1e-7, atol=1e-12)
    assert gradient_error(subject, [x]) < 1e-6


@pytest.mark.parametrize("text", [text for text, _ in FORMULAS], ids=range(len(FORMULAS)))
@pytest.mark.parametrize("shape", [(), (7,)])
def test_keeps_dtype_and_scalars(text, shape):
    (x,) = arrays(shape)
    ctx, subject = context(1), layer(text)
    (top,) = subject.forward(ctx, np.asarray(x, np.float32))
    (dx,) = subject.backward(ctx, np.ones(shape, np.float32))
    assert all(isinstance(a, np.ndarray) and a.shape == shape and a.dtype == np.float32 for a in (top, dx))


def test_every_type_has_a_formula():
    assert {text.split("'")[1] for text, _ in FORMULAS} | {"PReLU", "Dropout", "Threshold"} == set(TYPES)


def test_infinities_and_not_numbers_pass_without_a_word():
    x = np.array([-1.0, 0.0, 1000.0])
    assert np.array_equal(layer("type: 'Log'").forward(context(1), x)[0], [np.nan, -np.inf, math.log(1000)], equal_nan=True)
    assert np.isinf(layer("type: 'Exp'").forward(context(1), x)[0][2])
    assert layer("type: 'BNLL'").forward(context(1), x)[0][2] == 1000


def test_threshold_has_no_gradient():
    ctx, subject = context(1), layer("type: 'Threshold' threshold_param { threshold: 0.5 }")
    (top,) = subject.forward(ctx, np.array([[0.4, 0.5, 0.6]], np.float32))
    assert top.tolist() == [[0, 0, 1]] and top.dtype == np.float32
    assert subject.backward(ctx, top) == [None]


@pytest.mark.parametrize(("settings", "slopes"), [("", (3,)), ("prelu_param { channel_shared: true }", ())])
@pytest.mark.parametrize("shape", [SHAPE, (4, 3)])
def test_prelu(settings, slopes, shape):
    subject = layer(f"type: 'PReLU' {settings}")
    x, slope = arrays(shape, slopes)
    (top,) = subject.forward(context(1), x, slope)
    for index in np.ndindex(shape):
        a = slope[index[1]] if slopes else slope
        assert top[index] == pytest.approx(x[index] if x[index] > 0 else a * x[index])
    assert gradient_error(subject, [x, slope]) < 1e-7
    (param,) = subject.params(shape)
    assert (param.name, param.shape, param.filler.type, param.filler.value) == ("slope", slopes, "constant", 0.25)


def test_prelu_starts_where_its_filler_says():
    (param,) = layer("type: 'PReLU' prelu_param { filler { value: 0.5 } }").params(SHAPE)
    assert param.filler.value == 0.5


@pytest.mark.parametrize("ratio", [0, 0.25, 0.9])
def test_dropout_in_training(ratio):
    subject = layer(f"type: 'Dropout' dropout_param {{ dropout_ratio: {ratio} }}", base.TRAIN)
    x = np.full((100, 30, 10), 2.0)
    ctx = context(1, base.TRAIN)
    (top,) = subject.forward(ctx, x)
    kept = top != 0
    assert kept.mean() == pytest.approx(1 - ratio, abs=0.01)
    np.testing.assert_allclose(top[kept], 2 / (1 - ratio), rtol=1e-6)
    (dy,) = arrays(x.shape)
    np.testing.assert_allclose(subject.backward(ctx, dy)[0], np.where(kept, dy / (1 - ratio), 0), rtol=1e-6)
    assert gradient_error(subject, arrays((2, 3))) < 1e-7


def test_dropout_in_testing_passes_on():
    (x,) = arrays(SHAPE)
    ctx, subject = context(1), layer("type: 'Dropout'")
    assert np.array_equal(subject.forward(ctx, x)[0], x)
    assert np.array_equal(subject.backward(ctx, x)[0], x)


@pytest.mark.parametrize(
    ("text", "x", "dy", "expected"),
    [
        # what Caffe's backward reads in place is the top: 1 / (1 + exp(-y)) with y = log(1 + exp(x))
        ("type: 'BNLL'", 0.0, 3.0, 3 * 2 / (2 + 1)),
        ("type: 'Clip' clip_param { min: 0 max: 1 }", 5.0, 3.0, 3.0),
        ("type: 'ReLU' relu_param { negative_slope: -1 }", -2.0, 3.0, 3.0),
        # and where it multiplies by the top's gradient last, that has been overwritten: the local rate squared
        ("type: 'Power' power_param { scale: 4 shift: 1 }", 7.0, 3.0, 16.0),
        ("type: 'Power' power_param { power: 3 }", 7.0, 100.0, 9.0),
        ("type: 'Log' log_param { scale: 2 shift: 1 }", 0.0, 100.0, 4.0),
        # these read only the top, or keep what they need
        ("type: 'Exp'", 0.0, 3.0, 3.0),
        ("type: 'Swish'", 0.0, 3.0, 1.5),
    ],
)
def test_gradients_in_place_are_caffes(text, x, dy, expected):
    ctx, subject = context(1), layer(f"bottom: 'x' top: 'x' {text}")
    subject.forward(ctx, np.array([x]))
    (dx,) = subject.backward(ctx, np.array([dy]))
    assert dx[0] == pytest.approx(expected)


@pytest.mark.parametrize("text", [text for text, _ in FORMULAS] + ["type: 'Dropout'"], ids=range(len(FORMULAS) + 1))
def test_gives_no_gradient_that_nobody_wants(text):
    subject, ctx = layer(text), context(1)
    ctx.needs = (False,)
    (top,) = subject.forward(ctx, *arrays((5,)))
    assert subject.backward(ctx, top) == [None]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("type: 'ReLU'", base.Costs(compare=120)),
        ("type: 'ReLU' relu_param { negative_slope: 0.1 }", base.Costs(compare=120, multiply=120)),
        ("type: 'PReLU'", base.Costs(compare=120, multiply=120)),
        ("type: 'ELU'", base.Costs(compare=120, exponential=120, add=120, multiply=120)),
        ("type: 'Sigmoid'", base.Costs(exponential=120, add=120, divide=120)),
        ("type: 'TanH'", base.Costs(exponential=120)),
        ("type: 'AbsVal'", base.Costs(compare=120)),
        ("type: 'BNLL'", base.Costs(compare=120, exponential=240, add=240)),
        ("type: 'Exp'", base.Costs(exponential=120, multiply=240)),
        ("type: 'Log'", base.Costs(exponential=120, multiply=240, add=120)),
        ("type: 'Power'", base.Costs(multiply=120, add=120)),
        ("type: 'Power' power_param { power: 2 }", base.Costs(multiply=120, add=120, exponential=120)),
        ("type: 'Power' power_param { scale: 0 }", base.Costs()),
        ("type: 'Swish'", base.Costs(exponential=120, add=120, divide=120, multiply=240)),
        ("type: 'Clip' clip_param { min: 0 max: 6 }", base.Costs(compare=240)),
        ("type: 'Threshold'", base.Costs(compare=120)),
        ("type: 'Dropout'", base.Costs()),
    ],
)
def test_costs(text, expected):
    assert layer(text).costs([SHAPE], [SHAPE]) == expected


def test_dropout_costs_in_training():
    assert layer("type: 'Dropout'", base.TRAIN).costs([SHAPE], [SHAPE]) == base.Costs(multiply=120)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("type: 'ReLU'", ""),
        ("type: 'ReLU' relu_param { negative_slope: 0.1 }", "slope 0.1"),
        ("type: 'PReLU' prelu_param { channel_shared: true }", "shared"),
        ("type: 'ELU' elu_param { alpha: 0.5 }", "alpha 0.5"),
        ("type: 'Exp' exp_param { base: 2 shift: 1 }", "base 2 shift 1"),
        ("type: 'Log' log_param { scale: 3 }", "scale 3"),
        ("type: 'Power' power_param { power: 2 scale: 0.5 }", "power 2 scale 0.5"),
        ("type: 'Swish' swish_param { beta: 1.5 }", "beta 1.5"),
        ("type: 'Clip' clip_param { min: 0 max: 6 }", "0..6"),
        ("type: 'Threshold'", "0"),
        ("type: 'Dropout'", "0.5"),
    ],
)
def test_settings(text, expected):
    assert layer(text).settings() == expected
