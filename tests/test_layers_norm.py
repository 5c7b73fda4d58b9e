"""LRN, BatchNorm, MVN: against loops, central differences, and real Caffe. Their refusals are in test_layers_window."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.layers import base

from . import naive_window as naive
from . import oneshot
from .conftest import reference_folder
from .naive_window import arrays, context, gradient_error, layer

CASES = oneshot.prototxts(reference_folder(), "LRN", "BatchNorm", "MVN") if reference_folder() else []
SHAPE = (2, 7, 5, 4)


@pytest.mark.skipif(not CASES, reason="no reference folder: set ALEXINSPECT_REFERENCE to the answers of real Caffe")
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_caffe(path):
    oneshot.hold(path)


@pytest.mark.parametrize("size", [1, 3, 5, 15])  # 15: more than there are channels or pixels
@pytest.mark.parametrize("region", ["ACROSS_CHANNELS", "WITHIN_CHANNEL"])
def test_lrn_equals_loops_and_differentiates(region, size):
    (x,) = arrays(SHAPE)
    subject = layer(f"type: 'LRN' lrn_param {{ local_size: {size} alpha: 0.5 beta: 0.75 k: 2 norm_region: {region} }}")
    (top,) = subject.forward(context(1), x)
    expected = naive.lrn_within(x, size, 0.5, 0.75) if "WITHIN" in region else naive.lrn_across(x, size, 0.5, 0.75, 2)
    assert list(subject.shapes(SHAPE)) == [SHAPE]
    np.testing.assert_allclose(top, expected, rtol=1e-12)
    assert gradient_error(subject, [x]) < 1e-7
    assert subject.forward(context(1), x.astype(np.float32))[0].dtype == np.float32


def test_lrn_does_not_walk_through_neighbours_that_do_not_exist():
    (x,) = arrays(SHAPE)
    (top,) = layer("type: 'LRN' lrn_param { local_size: 2147483647 }").forward(context(1), x)
    np.testing.assert_allclose(top, x, rtol=1e-6)  # the average over so many is nothing


def statistics(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and biased variance of every channel."""
    channels = [x[:, c].ravel() for c in range(x.shape[1])]
    means = np.array([sum(values) / len(values) for values in channels])
    return means, np.array([sum((values - m) ** 2) / len(values) for values, m in zip(channels, means, strict=True)])


@pytest.mark.parametrize("shape", [SHAPE, (5, 3), (2, 3, 4, 2, 3)])
def test_batchnorm_by_the_batch(shape):
    (x,) = arrays(shape)
    x += np.arange(shape[1]).reshape(-1, *(1,) * (len(shape) - 2))
    subject = layer("type: 'BatchNorm' batch_norm_param { moving_average_fraction: 0.75 eps: 0.125 }", base.TRAIN)
    params = [np.full(p.shape, 0.5) for p in subject.params(shape)]
    assert [p.shape for p in params] == [(shape[1],), (shape[1],), (1,)]
    (top,) = subject.forward(context(1, base.TRAIN), x, *params)
    means, variances = statistics(x)
    for c in range(shape[1]):
        np.testing.assert_allclose(top[:, c], (x[:, c] - means[c]) / np.sqrt(variances[c] + 0.125), rtol=1e-10, atol=1e-12)
    m = x.size // shape[1]
    np.testing.assert_allclose(params[0], 0.375 + means)
    np.testing.assert_allclose(params[1], 0.375 + variances * m / (m - 1))  # unbiased
    np.testing.assert_allclose(params[2], 1.375)
    assert gradient_error(subject, [x, *params], count=1) < 1e-7


def test_batchnorm_by_stored_statistics():
    (x,) = arrays(SHAPE)
    subject = layer("type: 'BatchNorm' batch_norm_param { eps: 0.25 }")
    params = [np.arange(1.0, 8.0), np.arange(2.0, 9.0), np.array([4.0])]
    kept = [p.copy() for p in params]
    (top,) = subject.forward(context(1), x, *params)
    for c in range(SHAPE[1]):
        np.testing.assert_allclose(top[:, c], (x[:, c] - (c + 1) / 4) / np.sqrt((c + 2) / 4 + 0.25), rtol=1e-12)
    for before, after in zip(kept, params, strict=True):
        np.testing.assert_array_equal(before, after)
    ctx = context(1)
    subject.forward(ctx, x, *params)
    assert subject.backward(ctx, top)[1:] == [None] * 3  # statistics have no gradient
    assert gradient_error(subject, [x, *params], count=1) < 1e-7
    (top,) = subject.forward(
        context(1), x, np.ones(7), np.ones(7), np.zeros(1)
    )  # never trained: a factor of 0 counts as 0, not 1/0
    np.testing.assert_allclose(top, x / 0.5)


@pytest.mark.parametrize(
    ("phase", "setting", "expected"),
    [
        (base.TRAIN, "", "batch"),
        (base.TEST, "", "global"),
        (base.TRAIN, "use_global_stats: true", "global"),
        (base.TEST, "use_global_stats: false", "batch"),
    ],
)
def test_batchnorm_chooses_its_statistics_by_phase_unless_told(phase, setting, expected):
    assert layer(f"type: 'BatchNorm' batch_norm_param {{ {setting} }}", phase).settings() == expected


def test_batchnorm_of_one_element_has_no_unbiased_variance():
    params = [np.zeros(3), np.zeros(3), np.zeros(1)]
    (top,) = layer("type: 'BatchNorm'", base.TRAIN).forward(context(1, base.TRAIN), np.array([[1.0, 2.0, 3.0]]), *params)
    assert not top.any() and params[0].tolist() == [1, 2, 3] and not params[1].any()


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("variance", [False, True])
def test_mvn(across, variance):
    (x,) = arrays(SHAPE)
    text = f"across_channels: {across} normalize_variance: {variance}".lower()
    subject = layer(f"type: 'MVN' mvn_param {{ {text} }}")
    (top,) = subject.forward(context(1), x)
    for n, c in np.ndindex(SHAPE[:2]):
        values = x[n] if across else x[n, c]
        expected = x[n, c] - values.mean()
        np.testing.assert_allclose(top[n, c], expected / (values.std() + 1e-9) if variance else expected, rtol=1e-10, atol=1e-12)
    assert gradient_error(subject, [x]) < 1e-7
    assert subject.forward(context(1), x.astype(np.float32))[0].dtype == np.float32


def test_mvn_divides_by_the_deviation_plus_eps():
    x = np.array([[[[1.0, 3.0]]]])
    assert layer("type: 'MVN' mvn_param { eps: 0.5 }").forward(context(1), x)[0].ravel().tolist() == pytest.approx(
        [-1 / 1.5, 1 / 1.5]
    )


def test_mvn_always_makes_four_axes():
    (x,) = arrays((5, 4, 3))
    subject = layer("type: 'MVN'")
    ctx = context(1)
    (top,) = subject.forward(ctx, x)
    assert list(subject.shapes(x.shape)) == [top.shape] == [(5, 4, 3, 1)]
    assert subject.backward(ctx, top)[0].shape == x.shape


@pytest.mark.parametrize(
    ("text", "phase", "expected"),
    [
        ("type: 'LRN' lrn_param { local_size: 5 }", base.TEST, base.Costs(add=5 * 280, multiply=3 * 280, exponential=280)),
        (
            "type: 'LRN' lrn_param { local_size: 3 norm_region: WITHIN_CHANNEL }",
            base.TEST,
            base.Costs(add=10 * 280, multiply=3 * 280, divide=280, exponential=280),
        ),
        ("type: 'BatchNorm'", base.TEST, base.Costs(add=280, multiply=14, divide=280, exponential=7)),
        ("type: 'BatchNorm'", base.TRAIN, base.Costs(add=3 * 280, multiply=280, divide=280, exponential=7)),
        ("type: 'MVN'", base.TEST, base.Costs(add=3 * 280 + 14, multiply=280, divide=280, exponential=14)),
        ("type: 'MVN' mvn_param { normalize_variance: false }", base.TEST, base.Costs(add=2 * 280)),
    ],
)
def test_costs(text, phase, expected):
    subject = layer(text, phase)
    assert subject.costs([SHAPE], subject.shapes(SHAPE)) == expected  # 280 elements in 2 images of 7 channels


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("type: 'LRN'", "5 across"),
        ("type: 'LRN' lrn_param { local_size: 3 norm_region: WITHIN_CHANNEL }", "3 within"),
        ("type: 'MVN'", "channel mean, variance"),
        ("type: 'MVN' mvn_param { across_channels: true normalize_variance: false }", "image mean"),
    ],
)
def test_settings(text, expected):
    assert layer(text).settings() == expected
