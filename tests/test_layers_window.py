"""Convolution, Deconvolution, Im2col, Pooling, SPP: against loops, central differences, and real Caffe."""

from __future__ import annotations

import tomllib

import numpy as np
import pytest

from inspector.errors import Refusal
from inspector.layers import base

from . import naive_window as naive
from . import oneshot
from .conftest import reference_folder
from .naive_window import arrays, context, gradient_error, layer

TYPES = ("Convolution", "Deconvolution", "Im2col", "Pooling", "SPP")
CASES = oneshot.prototxts(reference_folder(), *TYPES) if reference_folder() else []


@pytest.mark.skipif(not CASES, reason="no reference folder: set ALEXINSPECT_REFERENCE to the answers of real Caffe")
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_caffe(path):
    oneshot.hold(path)


# ---- filters

FILTERS = {
    # axes, settings in prototxt, (stride, pad, dilation, group)
    "plain": ((2, 3, 6, 5), "num_output: 4 kernel_h: 2 kernel_w: 3", (1, 1), (0, 0), (1, 1), 1),
    "all": (
        (2, 6, 7, 9),
        "num_output: 4 kernel_size: 3 kernel_size: 2 stride: 2 stride: 3 pad: 2 pad: 1 dilation: 2 dilation: 3 group: 2",
        (2, 3),
        (2, 1),
        (2, 3),
        2,
    ),
    "depthwise": ((2, 3, 6, 5), "num_output: 3 kernel_size: 3 pad: 1 group: 3", (1, 1), (1, 1), (1, 1), 3),
    "pointwise": ((2, 6, 4, 5), "num_output: 4 kernel_size: 1 group: 2", (1, 1), (0, 0), (1, 1), 2),
    "pointwise with stride": ((2, 3, 6, 5), "num_output: 2 kernel_size: 1 stride_h: 2 stride_w: 3", (2, 3), (0, 0), (1, 1), 1),
    "kernel larger than the image": (
        (2, 3, 4, 3),
        "num_output: 2 kernel_size: 5 pad_h: 1 pad_w: 2 stride: 3",
        (3, 3),
        (1, 2),
        (1, 1),
        1,
    ),
    "one axis": ((2, 3, 8), "num_output: 4 kernel_size: 3 stride: 2 pad: 1", (2,), (1,), (1,), 1),
    "three axes": (
        (2, 4, 3, 5, 4),
        "num_output: 6 kernel_size: 2 stride: 1 pad: 1 pad: 0 pad: 2 group: 2",
        (1,) * 3,
        (1, 0, 2),
        (1,) * 3,
        2,
    ),
    "no spatial axis": ((3, 5), "num_output: 4", (), (), (), 1),
    "forced": ((2, 3, 6, 5), "num_output: 4 kernel_size: 2 force_nd_im2col: true", (1, 1), (0, 0), (1, 1), 1),
}


def filter_layer(kind: str, case: str) -> tuple[base.Layer, list[np.ndarray]]:
    shape, settings, *_ = FILTERS[case]
    subject = layer(f"type: '{kind}' convolution_param {{ {settings} }}")
    subject.shapes(shape)
    return subject, arrays(shape, *(param.shape for param in subject.params(shape)))


@pytest.mark.parametrize("case", FILTERS)
@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution"])
def test_filters_equal_loops(kind, case):
    if (kind, case) == ("Deconvolution", "kernel larger than the image"):
        case = "all"
    subject, values = filter_layer(kind, case)
    shape, _, stride, pad, dilation, group = FILTERS[case]
    expected = (naive.convolution if kind == "Convolution" else naive.deconvolution)(*values, stride, pad, dilation, group)
    (top,) = subject.forward(context(1), *values)
    assert list(subject.shapes(shape)) == [expected.shape]
    np.testing.assert_allclose(top, expected, rtol=1e-12, atol=1e-12)
    (single,) = subject.forward(context(1), *(v.astype(np.float32) for v in values))
    assert single.dtype == np.float32


@pytest.mark.parametrize("case", ["all", "depthwise", "pointwise", "one axis", "no spatial axis"])
@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution"])
def test_filters_differentiate(kind, case):
    subject, values = filter_layer(kind, case)
    assert gradient_error(subject, values) < 1e-7


@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution"])
def test_filters_serve_several_bottoms_with_the_same_weights(kind):
    text = f"type: '{kind}' bottom: 'a' bottom: 'b' top: 'c' top: 'd' convolution_param {{ num_output: 2 kernel_size: 2 }}"
    subject = layer(text)
    shape = (2, 3, 4, 5)
    subject.check_counts(2)
    params = subject.params(shape, shape)
    a, b, *weights = arrays(shape, shape, *(p.shape for p in params))
    tops = subject.forward(context(2), a, b, *weights)
    assert [top.shape for top in tops] == list(subject.shapes(shape, shape))
    for x, top in zip((a, b), tops, strict=True):
        single = layer(f"type: '{kind}' convolution_param {{ num_output: 2 kernel_size: 2 }}")
        np.testing.assert_array_equal(top, single.forward(context(1), x, *weights)[0])
    assert gradient_error(subject, [a, b, *weights], bottoms=2) < 1e-7


def test_filters_slide_behind_their_axis():
    # axis 2: the two leading axes are a batch
    x, w, bias = arrays((2, 3, 4, 5), (6, 4, 2), (6,))
    subject = layer("type: 'Convolution' convolution_param { num_output: 6 kernel_size: 2 axis: -2 }")
    assert [p.shape for p in subject.params(x.shape)] == [w.shape, bias.shape]
    (top,) = subject.forward(context(1), x, w, bias)
    expected = naive.convolution(x.reshape(6, 4, 5), w, bias, (1,), (0,), (1,), 1).reshape(2, 3, 6, 4)
    np.testing.assert_allclose(top, expected, rtol=1e-12)


def test_filters_compute_only_the_gradients_that_are_wanted():
    subject, values = filter_layer("Convolution", "all")
    for wanted in range(3):
        ctx = context(1)
        ctx.needs = tuple(i == wanted for i in range(3))
        (top,) = subject.forward(ctx, *values)
        assert [grad is not None for grad in subject.backward(ctx, top)] == list(ctx.needs)


def test_parameters_and_their_fillers():
    text = "num_output: 6 group: 2 kernel_size: 3 weight_filler { type: 'xavier' } bias_filler { value: 0.5 }"
    shape = (2, 4, 8, 9)
    weights, biases = layer(f"type: 'Convolution' convolution_param {{ {text} }}").params(shape)
    assert (weights.shape, biases.shape) == ((6, 2, 3, 3), (6,))
    assert (weights.filler.type, biases.filler.value) == ("xavier", 0.5)
    (weights,) = layer(f"type: 'Deconvolution' convolution_param {{ {text} bias_term: false }}").params(shape)
    assert weights.shape == (4, 3, 3, 3)


def test_costs_of_filters():
    # AlexNet's first two convolutions, per image, as every text about it counts them
    conv1 = layer("type: 'Convolution' convolution_param { num_output: 96 kernel_size: 11 stride: 4 }")
    conv2 = layer("type: 'Convolution' convolution_param { num_output: 256 kernel_size: 5 pad: 2 group: 2 }")
    for subject, shape, mac, bias in [
        (conv1, (1, 3, 227, 227), 105_415_200, 290_400),
        (conv2, (1, 96, 27, 27), 223_948_800, 186_624),
    ]:
        assert subject.costs([shape], subject.shapes(shape)) == base.Costs(mac=mac, bias=bias)
    up = layer("type: 'Deconvolution' convolution_param { num_output: 6 kernel_size: 4 stride: 2 group: 2 bias_term: false }")
    # every one of 5 * 4 * 3 * 7 inputs is multiplied with 3 filters of 16 elements
    assert up.costs([(5, 4, 3, 7)], up.shapes((5, 4, 3, 7))) == base.Costs(mac=5 * 4 * 3 * 7 * 3 * 16)


@pytest.mark.parametrize("case", ["all", "one axis", "three axes"])
def test_im2col_equals_loops_and_differentiates(case):
    shape, settings, stride, pad, dilation, _ = FILTERS[case]
    subject = layer(f"type: 'Im2col' convolution_param {{ {settings} }}")
    (x,) = arrays(shape)
    (top,) = subject.forward(context(1), x)
    assert [top.shape] == list(subject.shapes(shape)) and subject.costs([shape], [top.shape]) == base.Costs()
    # a filter that is 1 in one place sees one row of the unrolled image
    kernel = tuple(subject.window(shape)[1].kernel)
    rows = shape[1] * int(np.prod(kernel))
    filters = np.eye(rows).reshape(rows, shape[1], *kernel)
    np.testing.assert_allclose(top, naive.convolution(x, filters, np.zeros(rows), stride, pad, dilation, 1))
    assert gradient_error(subject, [x]) < 1e-7


# ---- pooling

POOLINGS = {
    "plain": ("kernel_size: 2", (2, 2), (1, 1), (0, 0)),
    "stride": ("kernel_h: 3 kernel_w: 2 stride: 2", (3, 2), (2, 2), (0, 0)),
    "pad": ("kernel_h: 3 kernel_w: 4 stride_h: 2 stride_w: 3 pad_h: 1 pad_w: 2", (3, 4), (2, 3), (1, 2)),
    "clipped": ("kernel_size: 2 stride: 2 pad: 1", (2, 2), (2, 2), (1, 1)),
    "floor": ("kernel_size: 3 stride: 2 round_mode: FLOOR", (3, 3), (2, 2), (0, 0)),
    "global": ("global_pooling: true", (7, 6), (1, 1), (0, 0)),
}


@pytest.mark.parametrize("case", POOLINGS)
@pytest.mark.parametrize("method", ["MAX", "AVE", "STOCHASTIC"])
def test_poolings_equal_loops_and_differentiate(method, case):
    settings, kernel, stride, pad = POOLINGS[case]
    if method == "STOCHASTIC" and any(pad):
        return  # it has no padding
    (x,) = arrays((2, 3, 7, 6))
    if method == "STOCHASTIC":
        x = np.abs(x)
    subject = layer(f"type: 'Pooling' pooling_param {{ pool: {method} {settings} }}")
    expected, _ = naive.pooling(x, method, kernel, stride, pad, ceil="FLOOR" not in settings)
    (top,) = subject.forward(context(1), x)
    assert list(subject.shapes(x.shape)) == [expected.shape]
    np.testing.assert_allclose(top, expected, rtol=1e-12, atol=1e-12)
    assert gradient_error(subject, [x]) < 1e-6
    assert subject.forward(context(1), x.astype(np.float32))[0].dtype == np.float32


@pytest.mark.parametrize("case", ["pad", "clipped", "global"])
def test_max_pooling_says_where_it_found_the_first_maximum(case):
    settings, *figures = POOLINGS[case]
    x = np.random.default_rng(3).integers(0, 3, (2, 3, 7, 6)).astype(np.float64)  # many ties
    subject = layer(f"type: 'Pooling' top: 'y' top: 'mask' pooling_param {{ {settings} }}")
    expected, where = naive.pooling(x, "MAX", *figures)
    ctx = context(1)
    top, mask = subject.forward(ctx, x)
    np.testing.assert_array_equal(top, expected)
    np.testing.assert_array_equal(mask, where)
    dy = arrays(top.shape)[0]
    dx = np.zeros_like(x)
    for n, c, h, w in np.ndindex(top.shape):
        dx[n, c].flat[int(where[n, c, h, w])] += dy[n, c, h, w]
    for seconds in (np.zeros_like(dy), dy):  # what arrives at the mask goes nowhere
        np.testing.assert_allclose(subject.backward(ctx, dy, seconds)[0], dx)
    without = layer(f"type: 'Pooling' pooling_param {{ {settings} }}")
    ctx = context(1)
    without.forward(ctx, x)
    np.testing.assert_allclose(without.backward(ctx, dy)[0], dx)


def test_only_max_pooling_has_a_second_top():
    for method, allowed in (("MAX", True), ("AVE", False), ("STOCHASTIC", False)):
        subject = layer(f"type: 'Pooling' top: 'y' top: 'mask' pooling_param {{ pool: {method} kernel_size: 2 }}")
        if allowed:
            subject.check_counts(1)
        else:
            with pytest.raises(Refusal):
                subject.check_counts(1)


def test_windows_behind_the_image():
    # rounding up without padding: starts at 0, 4, 8, where 8 is just behind the image
    x = np.arange(1.0, 17.0).reshape(1, 1, 2, 8)
    text = "type: 'Pooling' pooling_param {{ pool: {} kernel_h: 2 kernel_w: 1 stride_h: 1 stride_w: 4 }}"
    assert layer(text.format("MAX")).forward(context(1), x)[0].tolist() == [[[[9, 13, -np.finfo(np.float32).max]]]]
    ctx = context(1)
    (average,) = layer(text.format("AVE")).forward(ctx, x)
    assert average[0, 0, 0, :2].tolist() == [5, 9] and np.isnan(average[0, 0, 0, 2])  # 0 / 0, as in Caffe
    (dx,) = layer(text.format("AVE")).backward(ctx, np.ones((1, 1, 1, 3)))
    assert dx[0, 0].tolist() == [[0.5, 0, 0, 0, 0.5, 0, 0, 0]] * 2


def test_a_maximum_ignores_what_is_not_a_number():
    x = np.array([[[[np.nan, 2.0, 1.0]]]])
    assert layer("type: 'Pooling' pooling_param { kernel_h: 1 kernel_w: 3 }").forward(context(1), x)[0].item() == 2


def test_stochastic_pooling_draws_in_proportion():
    values = np.array([1.0, 0.0, 3.0, 4.0])
    x = np.broadcast_to(values.reshape(2, 2), (4000, 2, 2, 2)).copy()
    subject = layer("type: 'Pooling' pooling_param { pool: STOCHASTIC kernel_size: 2 }", base.TRAIN)
    ctx = context(1, base.TRAIN)
    (top,) = subject.forward(ctx, x)
    assert top.shape == (4000, 2, 1, 1)
    for value in values:
        share = (top == value).mean()
        assert share == pytest.approx(value / 8, abs=5 * np.sqrt(0.25 / 8000))  # five standard errors
    dy = arrays(top.shape)[0]
    (dx,) = subject.backward(ctx, dy)
    np.testing.assert_allclose(dx, np.where(x == top, dy, 0))  # to the chosen element and nowhere else
    (again,) = subject.forward(context(1, base.TRAIN), x)
    np.testing.assert_array_equal(top, again)  # the same seed
    (other,) = subject.forward(context(1, base.TRAIN, seed=5), x)
    assert (top != other).any()


def test_stochastic_pooling_of_nothing_is_nothing():
    x = np.zeros((1, 2, 3, 3))
    for phase in (base.TRAIN, base.TEST):
        subject = layer("type: 'Pooling' pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }", phase)
        ctx = context(1, phase)
        (top,) = subject.forward(ctx, x)
        assert not top.any() and np.isfinite(subject.backward(ctx, top + 1)[0]).all()


def test_costs_of_pooling():
    shape = (2, 3, 7, 6)
    for method, phase, expected in [
        ("MAX", base.TEST, base.Costs(compare=2 * 3 * 3 * 3 * 9)),
        ("AVE", base.TEST, base.Costs(add=2 * 3 * 3 * 3 * 9, divide=2 * 3 * 3 * 3)),
        ("STOCHASTIC", base.TRAIN, base.Costs(add=2 * 486, compare=486, multiply=54)),
        ("STOCHASTIC", base.TEST, base.Costs(add=2 * 486, multiply=486, divide=54)),
    ]:
        subject = layer(f"type: 'Pooling' pooling_param {{ pool: {method} kernel_size: 3 stride: 2 }}", phase)
        assert subject.costs([shape], subject.shapes(shape)) == expected  # 3 x 3 windows of 9


# ---- the pyramid


@pytest.mark.parametrize("method", ["MAX", "AVE"])
def test_spp_pools_over_every_level_and_differentiates(method):
    (x,) = arrays((2, 3, 8, 7))
    subject = layer(f"type: 'SPP' spp_param {{ pool: {method} pyramid_height: 3 }}")
    (top,) = subject.forward(context(1), x)
    assert top.shape == (2, 3 * (1 + 4 + 16)) and list(subject.shapes(x.shape)) == [top.shape]
    # 8 x 7 in 1, 2 and 4 bins: the width is padded by 1 where 7 does not divide
    levels = [((8, 7), (0, 0)), ((4, 4), (0, 1)), ((2, 2), (0, 1))]
    expected = [naive.pooling(x, method, kernel, kernel, pad)[0].reshape(2, -1) for kernel, pad in levels]
    np.testing.assert_allclose(top, np.concatenate(expected, axis=1), rtol=1e-12)
    assert gradient_error(subject, [x]) < 1e-6
    inner = sum(3 * 2 * bins**2 * kernel[0] * kernel[1] for bins, (kernel, _) in zip((1, 2, 4), levels, strict=True))
    costs = subject.costs([x.shape], [top.shape])
    assert (costs.compare if method == "MAX" else costs.add) == inner


def test_spp_of_one_level_keeps_its_axes():
    (x,) = arrays((2, 3, 5, 4))
    subject = layer("type: 'SPP' spp_param { pyramid_height: 1 }")
    (top,) = subject.forward(context(1), x)
    assert list(subject.shapes(x.shape)) == [(2, 3, 1, 1)]
    np.testing.assert_array_equal(top, x.max(axis=(2, 3), keepdims=True))


# ---- what tables show


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("type: 'Convolution' convolution_param { num_output: 96 kernel_size: 11 stride: 4 group: 2 }", "11x11/4 96 g2"),
        ("type: 'Convolution' convolution_param { num_output: 64 kernel_size: 3 pad: 1 }", "3x3+1 64"),
        ("type: 'Convolution' convolution_param { num_output: 64 kernel_h: 1 kernel_w: 7 pad_h: 0 pad_w: 3 }", "1x7+0x3 64"),
        ("type: 'Convolution' convolution_param { num_output: 8 kernel_size: 3 pad: 2 dilation: 2 }", "3x3+2d2 8"),
        ("type: 'Convolution' convolution_param { num_output: 8 kernel_size: 3 kernel_size: 5 kernel_size: 2 }", "3x5x2 8"),
        ("type: 'Deconvolution' convolution_param { num_output: 21 kernel_size: 64 stride: 32 group: 21 }", "64x64/32 21 g21"),
        ("type: 'Im2col' convolution_param { kernel_size: 3 }", "3x3"),
        ("type: 'Pooling' pooling_param { kernel_size: 3 stride: 2 }", "MAX 3x3/2"),
        ("type: 'Pooling' pooling_param { pool: AVE kernel_h: 2 kernel_w: 3 pad_h: 1 pad_w: 0 }", "AVE 2x3+1x0"),
        ("type: 'Pooling' pooling_param { pool: AVE global_pooling: true }", "AVE global"),
        ("type: 'Pooling' pooling_param { kernel_size: 2 round_mode: FLOOR }", "MAX 2x2 floor"),
        ("type: 'SPP' spp_param { pyramid_height: 3 }", "MAX 3 levels"),
    ],
)
def test_settings(text, expected):
    assert layer(text).settings() == expected


# ---- refusals

IMAGE = (2, 3, 6, 5)
SETTINGS = dict.fromkeys(("Convolution", "Deconvolution", "Im2col"), "convolution_param")
SETTINGS |= {"Pooling": "pooling_param", "SPP": "spp_param", "LRN": "lrn_param", "MVN": "mvn_param"}
FOUR_AXES = "4 == bottom[0]->num_axes() (4 vs. 2) Input must have 4 axes, corresponding to (num, channels, height, width)"
SPATIAL = [  # code without its prefix, settings, axes, what Caffe prints behind the check
    ("kernel-2d", "kernel_h: 2 kernel_w: 2", (2, 3, 6), "(1 vs. 2) kernel_h & kernel_w can only be used for 2D convolution."),
    (
        "kernel-both",
        "kernel_h: 2 kernel_w: 2 kernel_size: 2",
        IMAGE,
        "(0 vs. 1) Either kernel_size or kernel_h/w should be specified; not both.",
    ),
    ("kernel-count", "kernel_size: 2 kernel_size: 2 kernel_size: 2", IMAGE, "(kernel_size specified 3 times; 2 spatial dims)"),
    ("kernel-count", "stride: 2", IMAGE, "(kernel_size specified 0 times; 2 spatial dims)"),
    ("kernel-zero", "kernel_h: 2", IMAGE, "kernel_shape_data[i] > 0 (0 vs. 0) Filter dimensions must be nonzero."),
    ("kernel-zero", "kernel_size: 4294967295", IMAGE, "kernel_shape_data[i] > 0 (-1 vs. 0) Filter dimensions must be nonzero."),
    ("stride-2d", "kernel_size: 2 stride_h: 2", (2, 3, 6), "(1 vs. 2) stride_h & stride_w can only be used for 2D convolution."),
    (
        "stride-both",
        "kernel_size: 2 stride_h: 2 stride: 1 stride: 1",
        IMAGE,
        "(0 vs. 2) Either stride or stride_h/w should be specified; not both.",
    ),
    ("stride-count", "kernel_size: 2 stride: 2 stride: 2 stride: 2", IMAGE, "(stride specified 3 times; 2 spatial dims)"),
    ("stride-zero", "kernel_size: 2 stride: 0", IMAGE, "stride_data[i] > 0 (0 vs. 0) Stride dimensions must be nonzero."),
    ("stride-division", "kernel_size: 2 stride_h: 2", IMAGE, ""),
    ("pad-2d", "kernel_size: 2 pad_w: 2", (2, 3, 6), "(1 vs. 2) pad_h & pad_w can only be used for 2D convolution."),
    ("pad-both", "kernel_size: 2 pad_h: 2 pad: 1", IMAGE, "(0 vs. 1) Either pad or pad_h/w should be specified; not both."),
    ("pad-count", "kernel_size: 2 pad: 2 pad: 1 pad: 2", IMAGE, "(pad specified 3 times; 2 spatial dims)"),
    (
        "dilation-count",
        "kernel_size: 2 dilation: 1 dilation: 2 dilation: 1",
        IMAGE,
        "(dilation specified 3 times; 2 spatial dims).",
    ),
]
# code, type, settings, bottoms, a part of Caffe's line: "" where it dies without a word, None where another table has the code
FATAL = [
    (
        "conv-num-output",
        "Convolution",
        "kernel_size: 2",
        [IMAGE],
        "base_conv_layer.cpp:119] Check failed: num_output_ > 0 (0 vs. 0) ",
    ),
    ("conv-group-zero", "Convolution", "num_output: 4 kernel_size: 2 group: 0", [IMAGE], ""),
    (
        "conv-groups-input",
        "Convolution",
        "num_output: 4 kernel_size: 2 group: 2",
        [IMAGE],
        "base_conv_layer.cpp:121] Check failed: channels_ % group_ == 0 (1 vs. 0) ",
    ),
    (
        "conv-groups-output",
        "Convolution",
        "num_output: 4 kernel_size: 2 group: 3",
        [IMAGE],
        "base_conv_layer.cpp:122] Check failed: num_output_ % group_ == 0 (1 vs. 0) Number of output should be multiples of group.",
    ),
    (
        "conv-shapes-differ",
        "Convolution",
        "num_output: 4 kernel_size: 2",
        [IMAGE, (1, 3, 6, 5)],
        "shape mismatch - bottom[0]: 2 3 6 5 (180) vs. bottom[1]: 1 3 6 5 (90)",
    ),
    (
        "im2col-no-spatial-axis",
        "Im2col",
        "kernel_size: 1",
        [(2, 3)],
        "im2col_layer.cpp:17] Check failed: num_spatial_axes_ >= 1 (0 vs. 1) ",
    ),
    (
        "pooling-global-kernel",
        "Pooling",
        "global_pooling: true kernel_h: 2",
        [IMAGE],
        "With Global_pooling: true Filter size cannot specified",
    ),
    (
        "pooling-kernel-both",
        "Pooling",
        "kernel_size: 2 kernel_h: 2 kernel_w: 2",
        [IMAGE],
        "Filter size is kernel_size OR kernel_h and kernel_w; not both",
    ),
    ("pooling-kernel-missing", "Pooling", "kernel_h: 2", [IMAGE], "Filter size is kernel_size OR kernel_h and kernel_w; not both"),
    ("pooling-pad-forms", "Pooling", "kernel_size: 2 pad_h: 1", [IMAGE], "pad is pad OR pad_h and pad_w are required."),
    (
        "pooling-pad-forms",
        "Pooling",
        "kernel_size: 2 pad: 1 pad_h: 1 pad_w: 1",
        [IMAGE],
        "pad is pad OR pad_h and pad_w are required.",
    ),
    (
        "pooling-stride-forms",
        "Pooling",
        "kernel_size: 2 stride_w: 1",
        [IMAGE],
        "Stride is stride OR stride_h and stride_w are required.",
    ),
    (
        "pooling-kernel-zero-h",
        "Pooling",
        "kernel_size: 0",
        [IMAGE],
        "Check failed: kernel_h_ > 0 (0 vs. 0) Filter dimensions cannot be zero.",
    ),
    (
        "pooling-kernel-zero-w",
        "Pooling",
        "kernel_h: 1 kernel_w: 0",
        [IMAGE],
        "Check failed: kernel_w_ > 0 (0 vs. 0) Filter dimensions cannot be zero.",
    ),
    (
        "pooling-global-window",
        "Pooling",
        "global_pooling: true stride: 2",
        [IMAGE],
        "With Global_pooling: true; only pad = 0 and stride = 1",
    ),
    (
        "pooling-pad-method",
        "Pooling",
        "pool: STOCHASTIC kernel_size: 2 pad: 1",
        [IMAGE],
        "Padding implemented only for average and max pooling.",
    ),
    ("pooling-pad-too-large-h", "Pooling", "kernel_size: 2 pad: 2", [IMAGE], "Check failed: pad_h_ < kernel_h_ (2 vs. 2) "),
    (
        "pooling-pad-too-large-w",
        "Pooling",
        "kernel_size: 2 pad_h: 1 pad_w: 3",
        [IMAGE],
        "Check failed: pad_w_ < kernel_w_ (3 vs. 2) ",
    ),
    (
        "pooling-axes",
        "Pooling",
        "kernel_size: 2",
        [(2, 3)],
        f"Check failed: {FOUR_AXES}",
    ),
    (
        "pooling-stride-zero",
        "Pooling",
        "kernel_size: 2 stride: 0",
        [IMAGE],
        "blob.cpp:32] Check failed: shape[i] >= 0 (-2147483647 vs. 0) ",
    ),
    ("spp-empty-h", "SPP", "pyramid_height: 1", [(2, 3, 0, 5)], "(0 vs. 0) Input dimensions cannot be zero."),
    ("spp-empty-w", "SPP", "pyramid_height: 1", [(2, 3, 5, 0)], "(0 vs. 0) Input dimensions cannot be zero."),
    ("spp-no-level", "SPP", "", [IMAGE], "(1 vs. 0) Split Layer produces at least 1 top blob(s) as output."),
    (
        "lrn-even-size",
        "LRN",
        "local_size: 4",
        [IMAGE],
        "lrn_layer.cpp:12] Check failed: size_ % 2 == 1 (0 vs. 1) LRN only supports odd values for local_size",
    ),
    ("lrn-even-size", "LRN", "local_size: 4294967295", [IMAGE], "(-1 vs. 1) LRN only supports odd values for local_size"),
    (
        "lrn-axes",
        "LRN",
        "",
        [(2, 3)],
        f"lrn_layer.cpp:71] Check failed: {FOUR_AXES}",
    ),
    (
        "pooling-axes",
        "LRN",
        "norm_region: WITHIN_CHANNEL",
        [(2, 3)],
        f"pooling_layer.cpp:82] Check failed: {FOUR_AXES}",
    ),
    (
        "batchnorm-learning-rate",
        "BatchNorm",
        "param { lr_mult: 0 } param { lr_mult: 0.1 }",
        [IMAGE],
        "(0.1 vs. 0) Cannot configure batch normalization statistics as layer parameters.",
    ),
    (
        "batchnorm-learning-rate",
        "BatchNorm",
        "param { }",
        [IMAGE],
        "(1 vs. 0) Cannot configure batch normalization statistics as layer parameters.",
    ),
    ("batchnorm-empty", "BatchNorm", "", [(0, 3, 6, 5)], ""),
    ("axis-out-of-range", "BatchNorm", "", [(5,)], None),  # its set-up forgives one axis, its Reshape does not
    ("axis-out-of-range", "Convolution", "num_output: 1 kernel_size: 1 axis: 4", [IMAGE], None),
    ("legacy-axes", "MVN", "", [(2, 3, 4, 5, 6)], None),
    ("legacy-axes", "SPP", "pyramid_height: 1", [(2, 3, 4, 5, 6)], None),
    ("negative-size", "Convolution", "num_output: 1 kernel_size: 9", [IMAGE], None),
    ("negative-size", "Deconvolution", "num_output: 1 kernel_size: 1 pad: 4", [IMAGE], None),
    ("negative-size", "Pooling", "kernel_size: 9", [IMAGE], None),
    ("blob-too-large", "Convolution", "num_output: 2000000000 kernel_size: 1", [IMAGE], None),
    # 13 x 2^27 windows of 9 elements do not fit into a blob, though input and output do
    ("blob-too-large", "Convolution", "num_output: 1 kernel_size: 3 pad: 1", [(1, 1, 13, 2**27)], None),
    # 5 pixels in 4 bins: bins of 2, and 2 pixels of padding
    (
        "pooling-pad-too-large-h",
        "SPP",
        "pyramid_height: 3",
        [(2, 3, 5, 8)],
        "pooling_layer.cpp:74] Check failed: pad_h_ < kernel_h_ (2 vs. 2) ",
    ),
    ("pooling-pad-too-large-h", "SPP", "pyramid_height: 4000000000", [(2, 3, 8, 8)], None),
]
FATAL += [
    (f"{prefix}-{code}", kind, f"num_output: 4 {settings}", [shape], words)
    for prefix, kind in (("conv", "Convolution"), ("im2col", "Im2col"))
    for code, settings, shape, words in SPATIAL
]


def table() -> dict[str, dict[str, str]]:
    return tomllib.loads((oneshot.DIALECTS / "refusals_window.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("code", "kind", "settings", "shapes", "words"), FATAL, ids=range(len(FATAL)))
def test_refusals_say_what_caffe_says(code, kind, settings, shapes, words):
    text = f"{SETTINGS[kind]} {{ {settings} }}" if kind in SETTINGS else settings
    with pytest.raises(Refusal) as caught:
        layer(f"type: '{kind}' {text}").shapes(*shapes)
    refusal = caught.value
    assert refusal.code == code
    assert refusal.finding.layer == "l"
    if words is not None:
        line = oneshot.caffe_words(refusal)
        assert words in line and "{" not in line
        assert bool(words) != ("signal" in table()[code])


def test_every_entry_of_the_table_is_reached():
    assert set(table()) == {code for code, *_, words in FATAL if words is not None}


def test_a_deconvolution_with_stride_0_is_built_but_never_runs():
    subject = layer("type: 'Deconvolution' convolution_param { num_output: 1 kernel_size: 2 stride_h: 1 bias_term: false }")
    assert list(subject.shapes(IMAGE)) == [(2, 1, 7, 2)]
    with pytest.raises(Refusal):
        subject.forward(context(1), *arrays(IMAGE, (3, 1, 2, 2)))
