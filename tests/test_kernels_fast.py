"""Every tuned kernel against the plain one of the same name, on shapes whose axes all differ."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from inspector.kernels import conv as plain_conv
from inspector.kernels import linear as plain_linear
from inspector.kernels import norm as plain_norm
from inspector.kernels import pool as plain_pool
from inspector.kernels.fast import conv, linear, norm, pool, winograd
from inspector.kernels.fast.base import Scratch, flat, run
from inspector.kernels.fast.finish import Finish, Op
from inspector.window import Window

RNG = np.random.default_rng(11)


def data(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def pixels(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def planes(x: np.ndarray) -> np.ndarray:
    return x.transpose(0, 3, 1, 2)


def close(ours: np.ndarray, plain: np.ndarray, tolerance: float = 1e-5) -> None:
    assert ours.shape == plain.shape
    assert np.abs(ours - plain).max() <= tolerance * np.abs(plain).max()


def place(n: int, h: int, w: int, c: int, kind: str) -> np.ndarray:
    """An output of its own, one with a border, or channels in the middle of a wider blob; NaN where nobody may write or read."""
    if kind == "own":
        return np.full((n, h, w, c), np.nan, np.float32)
    if kind == "bordered":
        return np.full((n, h + 3, w + 5, c), np.nan, np.float32)[:, 1 : 1 + h, 2 : 2 + w]
    return np.full((n, h, w, c + 9), np.nan, np.float32)[..., 4 : 4 + c]


def padded(x: np.ndarray, window: Window, extra: int = 0) -> np.ndarray:
    """Pixels with the window's border of zeros, and `extra` pixels behind it."""
    (top, left), rest = window.pad, [extra + pad for pad in window.pad]
    return np.pad(pixels(x), ((0, 0), (top, rest[0]), (left, rest[1]), (0, 0)))


PLACES = ("own", "bordered", "slice")
WINDOWS = (
    Window((3, 3), (1, 1), (1, 1), (1, 1)),
    Window((5, 2), (2, 3), (0, 1), (1, 1)),
    Window((3, 2), (1, 2), (2, 1), (2, 3)),
    Window((1, 1), (2, 2), (0, 0), (1, 1)),
)


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("where", PLACES)
def test_columns(window: Window, groups: int, where: str) -> None:
    x, weight = data(3, 6, 13, 11), data(8, 6 // groups, *window.kernel)
    outs = window.convolved(x.shape[2:])
    plain = plain_conv.convolve(x, weight, window, groups, outs)
    out = place(3, *outs, 8, where)
    head = conv.Head(0, 8, Finish(out, [], Scratch(1)))
    matrix = np.ascontiguousarray(weight.transpose(2, 3, 1, 0).reshape(-1, 8))
    taps = conv.Taps(window.kernel, window.stride, window.dilation)  # type: ignore[arg-type]
    run(conv.columns(padded(x, window), matrix, taps, groups, [head], Scratch(1)))
    close(planes(out), plain)


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_planes(window: Window) -> None:
    x, weight = data(2, 3, 14, 12), data(7, 3, *window.kernel)
    outs = window.convolved(x.shape[2:])
    out = place(2, *outs, 7, "bordered")
    head = conv.Head(0, 7, Finish(out, [], Scratch(1)))
    wide = np.pad(x, ((0, 0), (0, 0), *((pad, pad) for pad in window.pad)))
    taps = conv.Taps(window.kernel, window.stride, window.dilation)  # type: ignore[arg-type]
    run(conv.planes(wide, np.ascontiguousarray(weight.reshape(7, -1).T), taps, [head], Scratch(1)))
    close(planes(out), plain_conv.convolve(x, weight, window, 1, outs))


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("where", PLACES)
def test_depthwise(window: Window, where: str) -> None:
    x, weight = data(2, 9, 13, 12), data(9, 1, *window.kernel)
    outs = window.convolved(x.shape[2:])
    out = place(2, *outs, 9, where)
    head = conv.Head(0, 9, Finish(out, [], Scratch(1)))
    row = np.repeat(weight[:, 0].transpose(1, 2, 0)[:, :, None], outs[1], axis=2)
    taps = conv.Taps(window.kernel, window.stride, window.dilation)  # type: ignore[arg-type]
    run(conv.depthwise(padded(x, window), row, taps, [head], Scratch(1)))
    close(planes(out), plain_conv.convolve(x, weight, window, 9, outs))


@pytest.mark.parametrize("where", PLACES)
def test_direct_product_with_two_heads(where: str) -> None:
    """Two convolutions of one blob as one product; the input may be channels of a wider one."""
    x, weight = data(3, 5, 7, 6), data(9, 5, 1, 1)
    window = Window((1, 1), (1, 1), (0, 0), (1, 1))
    plain = plain_conv.convolve(x, weight, window, 1, (7, 6))
    source = np.zeros((3, 7, 6, 11), np.float32)[..., 3:8]
    source[...] = pixels(x)
    outs = place(3, 7, 6, 4, where), place(3, 7, 6, 5, "bordered")
    heads = [conv.Head(0, 4, Finish(outs[0], [], Scratch(1))), conv.Head(4, 9, Finish(outs[1], [], Scratch(1)))]
    run(conv.direct(source, np.ascontiguousarray(weight.reshape(9, 5).T), heads, Scratch(1)))
    close(np.concatenate([planes(out) for out in outs], 1), plain)


@pytest.mark.parametrize("window", [*WINDOWS, Window((4, 4), (2, 2), (1, 1), (1, 1))], ids=str)
@pytest.mark.parametrize("groups", [1, 6])
def test_spread(window: Window, groups: int) -> None:
    x, weight = data(2, 6, 5, 7), data(6, 4 if groups == 1 else 1, *window.kernel)
    sizes = window.deconvolved(x.shape[2:])
    plain = plain_conv.deconvolve(x, weight, window, groups, sizes)
    out = place(2, *sizes, plain.shape[1], "bordered")
    head = conv.Head(0, plain.shape[1], Finish(out, [], Scratch(1)))
    if groups == 1:
        arranged = np.ascontiguousarray(weight.reshape(6, 4, -1).transpose(2, 0, 1))
    else:
        arranged = np.repeat(weight.reshape(6, -1).T[:, None, None], 7, axis=2)
    reach = list(window.taps(sizes, x.shape[2:]))
    run(conv.spread(pixels(x), arranged, window.stride, reach, head, Scratch(1)))
    close(planes(out), plain)


@pytest.mark.parametrize("sizes", [(12, 8), (13, 31), (6, 5)])
@pytest.mark.parametrize("where", PLACES)
def test_winograd(sizes: tuple[int, int], where: str) -> None:
    window = Window((3, 3), (1, 1), (1, 1), (1, 1))
    x, weight = data(2, 5, *sizes), data(7, 5, 3, 3)
    out = place(2, *sizes, 7, where)
    transformed = np.empty((36, 5, 7), np.float32)
    winograd.transformed_weights(weight, transformed)
    head = conv.Head(0, 7, Finish(out, [], Scratch(1)))
    run(winograd.convolve(padded(x, window, extra=3), transformed, [head], Scratch(1)))
    close(planes(out), plain_conv.convolve(x, weight, window, 1, sizes), 1e-4)


def test_winograd_on_many_channels_and_several_bands() -> None:
    window = Window((3, 3), (1, 1), (1, 1), (1, 1))
    x, weight = data(1, 160, 57, 43), data(33, 160, 3, 3)
    out = place(1, 57, 43, 33, "own")
    transformed = np.empty((36, 160, 33), np.float32)
    winograd.transformed_weights(weight, transformed)
    run(winograd.convolve(padded(x, window, extra=3), transformed, [conv.Head(0, 33, Finish(out, [], Scratch(1)))], Scratch(1)))
    close(planes(out), plain_conv.convolve(x, weight, window, 1, (57, 43)), 1e-3)


@pytest.mark.parametrize("rows", [1, 3, 4, 17])
@pytest.mark.parametrize("transpose", [False, True])
def test_inner_product(rows: int, transpose: bool) -> None:
    x, weight = data(rows, 5, 3, 2), data(30, 11) if transpose else data(11, 30)
    out = place(rows, 1, 1, 11, "own")
    run(linear.inner_product(planes(pixels(x)), weight, transpose, Finish(out, [], Scratch(1)), Scratch(1)))
    close(out[:, 0, 0], plain_linear.inner_product(x.reshape(rows, 30), weight, None, transpose))


POOLS = (
    Window((3, 3), (2, 2), (0, 0), (1, 1)),
    Window((2, 3), (1, 2), (1, 1), (1, 1)),
    Window((5, 4), (3, 2), (2, 3), (1, 1)),
    Window((14, 13), (1, 1), (0, 0), (1, 1)),
)


@pytest.mark.parametrize("window", POOLS, ids=str)
@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize(("tuned", "plain"), [(pool.max_pool, plain_pool.max_pool), (pool.average_pool, plain_pool.average_pool)])
@pytest.mark.parametrize("channels", [6, 750])
def test_pooling(window: Window, where: str, tuned: Callable, plain: Callable, channels: int) -> None:
    x = data(3, channels, 14, 13)
    outs = window.pooled((14, 13))
    out = place(3, *outs, channels, where)
    run(tuned(pixels(x), window, Finish(out, [], Scratch(1)), Scratch(1)))
    close(planes(out), plain(x, window, outs))


def test_maximum_of_what_is_not_a_number() -> None:
    window = POOLS[0]
    x = data(1, 2, 9, 7)
    x[0, 0, 1, 1], x[0, 1, :5, :5] = np.nan, -np.inf
    out = place(1, *window.pooled((9, 7)), 2, "own")
    run(pool.max_pool(pixels(x), window, Finish(out, [], Scratch(1)), Scratch(1)))
    np.testing.assert_array_equal(planes(out), plain_pool.max_pool(x, window, out.shape[1:3]))


@pytest.mark.parametrize("channels", [7, 150])
@pytest.mark.parametrize(("size", "beta"), [(5, 0.75), (3, 0.6), (1, 0.75), (9, 0.75)])
def test_lrn(channels: int, size: int, beta: float) -> None:
    x = data(2, channels, 5, 6)
    out = place(2, 5, 6, channels, "bordered")
    run(norm.lrn(pixels(x), size, 0.4, beta, 1.5, Finish(out, [], Scratch(1)), Scratch(1)))
    close(planes(out), plain_norm.lrn(x, size, 0.4, beta, 1.5)[0])


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("keep", [False, True])
def test_operations_follow_each_other(where: str, keep: bool) -> None:
    x, other, row = data(2, 4, 3, 5), data(2, 4, 3, 5), data(3, 5)
    ops = [
        Op("multiply", row),
        Op("add", row),
        Op("sum", other),
        Op("relu", 0.25),
        Op("product", other),
        Op("prelu", row),
        Op("clip", (-0.6, 0.7)),
        Op("maximum", other),
        Op("function", np.tanh),
        Op("relu", 0),
    ]
    y = x * row + row + other
    y = np.where(y > 0, y, 0.25 * y) * other
    y = np.maximum(np.clip(np.where(y > 0, y, row * y), -0.6, 0.7), other)
    out, source = place(2, 4, 3, 5, where), x.copy()
    run(Finish(out, ops, Scratch(1))(source, keep=keep))
    close(out, np.maximum(np.tanh(y), 0))
    if keep:
        np.testing.assert_array_equal(source, x)


def test_groups_that_are_multiplied_together() -> None:
    assert [conv.together(*pair) for pair in ((1, 5), (2, 128), (4, 8), (32, 4), (32, 8), (3, 2), (6, 16))] == [1, 1, 4, 8, 4, 3, 2]


def test_tiles_cover_everything_once() -> None:
    for images, rows, width, inside, outputs in (
        (3, 55, 55, 363, 96),
        (10, 14, 14, 2304, 256),
        (2, 224, 224, 576, 64),
        (5, 1, 1, 3, 2),
    ):
        seen = np.zeros((images, rows), int)
        for batch, part in conv.tiles(images, rows, width, inside, outputs):
            seen[batch, part] += 1
        assert (seen == 1).all()


def test_pixels_as_a_matrix() -> None:
    x = data(2, 3, 4, 6)
    for view, possible in ((x, True), (x[..., 1:4], True), (x[:, :2], False), (x[:, :, 1:3], False), (x[:1, :, :], True)):
        matrix = flat(view)
        assert (matrix is not None) == possible
        if matrix is not None:
            np.testing.assert_array_equal(matrix, view.reshape(-1, view.shape[3]))
    for shape in ((1, 1, 1, 5), (3, 1, 1, 5), (1, 4, 1, 5), (2, 4, 1, 5)):
        for view in (data(*shape), np.zeros((*shape[:3], 9), np.float32)[..., 2:7]):
            matrix = flat(view)
            assert matrix is not None
            np.testing.assert_array_equal(matrix, view.reshape(-1, 5))


def test_scratch_outgrown_leaves_earlier_arrays_alone() -> None:
    scratch = Scratch(64)
    first = scratch.take(4, 8)
    first[...] = 3
    second = scratch.take(100, 7)
    second[...] = 5
    assert (first == 3).all() and (second == 5).all()
    assert first.ctypes.data % 64 == second.ctypes.data % 64 == 0
    scratch.reset()
    assert np.shares_memory(scratch.take(5), second)
