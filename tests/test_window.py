"""Window geometry against walking through every place of a window."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.window import Window, quotient

sizes = st.integers(1, 12)
axis = st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(0, 4), st.integers(1, 3))  # kernel, stride, pad, dilation


def one(kernel: int, stride: int, pad: int, dilation: int = 1) -> Window:
    return Window((kernel,), (stride,), (pad,), (dilation,))


@given(sizes, axis)
def test_convolved_counts_the_places_where_the_window_fits(n, figures):
    kernel, stride, pad, dilation = figures
    extent = dilation * (kernel - 1) + 1
    fitting = [start for start in range(-pad, n + pad, stride) if start + extent <= n + pad]
    (out,) = one(*figures).convolved([n])
    if fitting:
        assert out == len(fitting)
    else:  # C++ rounds towards zero, and so lets a kernel pass that is larger than the padded image by less than a stride
        assert out == (1 if extent - (n + 2 * pad) < stride else 1 - (extent - (n + 2 * pad)) // stride)


@given(sizes, axis)
def test_deconvolved_is_the_smallest_size_that_convolves_back(n, figures):
    window = one(*figures)
    (out,) = window.deconvolved([n])
    if out > 0:
        assert window.convolved([out]) == (n,)
        assert n == 1 or window.convolved([out - 1]) == (n - 1,)


@given(sizes, axis, st.booleans())
def test_pooled_windows_cover_and_start_inside(n, figures, ceil):
    kernel, stride, pad, _ = figures
    if pad >= kernel or n + 2 * pad < kernel:
        return
    window = one(kernel, stride, pad)
    (out,) = window.pooled([n], ceil=ceil)
    last = (out - 1) * stride - pad
    if pad:
        assert last < n  # never starts behind the image
    whole = (n + 2 * pad - kernel) // stride + 1  # windows that fit completely
    assert out == whole or (ceil and out == whole + 1 and last + kernel > n + pad)
    if not ceil:
        assert out == whole or pad


@given(sizes, axis, st.integers(1, 8))
def test_reach_lists_every_pair_of_output_and_element_that_meets_the_input(n, figures, out):
    kernel, stride, pad, dilation = figures
    expected = {
        (k, o, o * stride - pad + k * dilation)
        for k in range(kernel)
        for o in range(out)
        if 0 <= o * stride - pad + k * dilation < n
    }
    found = [
        (k, o, i)
        for k, served, read in one(*figures).reach(0, n, out)
        for o, i in zip(range(out)[served], range(n)[read], strict=True)
    ]
    assert set(found) == expected and len(found) == len(expected)


def test_reach_does_not_walk_through_a_kernel_much_longer_than_the_image():
    window = one(2**30, 1, 2**29)
    assert [k for k, _, _ in window.reach(0, 3, 2)] == [2**29 - 1, 2**29, 2**29 + 1, 2**29 + 2]


def test_taps_number_the_kernel_in_row_major_order():
    window = Window((2, 3), (1, 2), (0, 1), (1, 1))
    numbers = [number for number, _, _ in window.taps((4, 5), window.convolved((4, 5)))]
    assert numbers == list(range(6))


@given(st.tuples(sizes, sizes), st.tuples(axis, axis))
def test_spans_are_the_windows_clipped_to_the_padded_image(n, figures):
    window = Window(*(tuple(column) for column in zip(*figures, strict=True)))
    outs = (3, 2)
    for size, out, (kernel, stride, pad, _), spans in zip(n, outs, figures, window.spans(n, outs), strict=True):
        for o, span in zip(range(out), spans, strict=True):
            places = [i for i in range(o * stride - pad, o * stride - pad + kernel) if i < size + pad]
            assert max(span, 0) == len(places)


@given(st.integers(-50, 50), st.integers(-9, 9).filter(bool))
def test_quotient_rounds_towards_zero(a, b):
    assert quotient(a, b) == math.trunc(a / b)


@pytest.mark.parametrize(
    ("n", "kernel", "stride", "pad", "out"),
    [
        (227, 11, 4, 0, 55),  # AlexNet conv1
        (27, 5, 1, 2, 27),  # conv2
        (224, 7, 2, 3, 112),  # ResNet conv1
    ],
)
def test_published_convolutions(n, kernel, stride, pad, out):
    assert one(kernel, stride, pad).convolved([n]) == (out,)


@pytest.mark.parametrize(
    ("n", "kernel", "stride", "pad", "ceil", "out"),
    [
        (55, 3, 2, 0, True, 27),  # AlexNet pool1
        (112, 3, 2, 0, True, 56),  # GoogLeNet pool1: rounded up
        (112, 3, 2, 0, False, 55),
        (32, 3, 2, 0, True, 16),  # CIFAR-10 quick
        (28, 3, 1, 1, True, 28),  # inception's pool
        (5, 2, 2, 1, True, 3),  # 4 by rounding up, but the last would start at 5
    ],
)
def test_published_poolings(n, kernel, stride, pad, ceil, out):
    assert one(kernel, stride, pad).pooled([n], ceil=ceil) == (out,)


def test_the_clip_looks_at_both_axes_as_soon_as_one_is_padded():
    # along the second axis the third window starts behind the image: dropped only if something is padded
    assert Window((2, 1), (1, 4), (0, 0), (1, 1)).pooled((5, 8)) == (4, 3)
    assert Window((2, 1), (1, 4), (1, 0), (1, 1)).pooled((5, 8)) == (6, 2)


@pytest.mark.parametrize(
    ("window", "text"),
    [
        (Window((11, 11), (4, 4), (0, 0), (1, 1)), "11x11/4"),
        (Window((3, 3), (1, 1), (1, 1), (1, 1)), "3x3+1"),
        (Window((3, 3), (1, 1), (2, 2), (2, 2)), "3x3+2d2"),
        (Window((1, 7), (1, 2), (0, 3), (1, 1)), "1x7/1x2+0x3"),
    ],
)
def test_short_form(window, text):
    assert str(window) == text
