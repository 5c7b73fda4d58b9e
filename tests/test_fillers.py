"""Fillers: exact where they are exact, by their statistics where they are random."""

from __future__ import annotations

import math

import numpy as np
import pytest
from google.protobuf import text_format

from caffe_proto import caffe_pb2
from inspector import fillers
from inspector.errors import Refusal

from . import oneshot

SHAPE = (40, 30, 5, 6)  # fan in 900, fan out 1200


def filler(text: str):
    return text_format.Parse(text, caffe_pb2.FillerParameter())


def fill(text: str, shape=SHAPE, seed: int = 3, dtype="float32") -> np.ndarray:
    return fillers.fill(filler(text), shape, np.random.default_rng(seed), dtype)


def test_nothing_fills_with_zeros():
    values = fillers.fill(None, (2, 3), np.random.default_rng(0))
    assert values.tolist() == [[0, 0, 0]] * 2 and values.dtype == np.float32


def test_constant():
    assert fill("value: 2.5", (2, 3)).tolist() == [[2.5] * 3] * 2
    assert fill("", ()).tolist() == 0
    assert fill("value: 1", (2,), dtype="float64").dtype == np.float64


def test_uniform():
    values = fill("type: 'uniform' min: -1 max: 3")
    assert -1 <= values.min() < -0.99 and 2.99 < values.max() <= 3
    assert values.mean() == pytest.approx(1, abs=0.05)
    assert values.std() == pytest.approx(4 / math.sqrt(12), rel=0.02)
    assert fill("type: 'uniform' min: 2 max: 2", (3,)).tolist() == [2, 2, 2]


def test_gaussian():
    values = fill("type: 'gaussian' mean: 4 std: 0.5")
    assert values.mean() == pytest.approx(4, abs=0.02) and values.std() == pytest.approx(0.5, rel=0.02)
    assert values.dtype == np.float32 and values.shape == SHAPE


def test_sparse_gaussian():
    values = fill("type: 'gaussian' std: 1 sparse: 10")
    assert np.count_nonzero(values) / values.size == pytest.approx(10 / 40, rel=0.05)
    assert values[values != 0].std() == pytest.approx(1, rel=0.03)
    assert not fill("type: 'gaussian' sparse: 0").any()


def test_positive_unitball():
    values = fill("type: 'positive_unitball'", (4, 3, 5))
    assert (values > 0).all()
    np.testing.assert_allclose(values.reshape(4, -1).sum(axis=1), np.ones(4), rtol=1e-6)


@pytest.mark.parametrize(("norm", "n"), [("FAN_IN", 900), ("FAN_OUT", 1200), ("AVERAGE", 1050)])
def test_variance_norm(norm, n):
    xavier = fill(f"type: 'xavier' variance_norm: {norm}")
    limit = math.sqrt(3 / n)
    assert np.abs(xavier).max() <= limit * (1 + 1e-6) and np.abs(xavier).max() > 0.99 * limit
    assert xavier.var() == pytest.approx(1 / n, rel=0.03)
    msra = fill(f"type: 'msra' variance_norm: {norm}")
    assert msra.std() == pytest.approx(math.sqrt(2 / n), rel=0.02) and abs(msra.mean()) < 0.001


def test_one_axis_has_itself_as_fan_out():
    values = fill("type: 'xavier' variance_norm: FAN_OUT", (4000,))
    assert values.var() == pytest.approx(1 / 4000, rel=0.05)
    assert fill("type: 'xavier'", (4000,)).var() == pytest.approx(1, rel=0.05)  # a bias has one input


def test_bilinear_enlarges_by_interpolation():
    kernel = fill("type: 'bilinear'", (2, 3, 4, 4))
    assert kernel[0, 0, 0].tolist() == [0.0625, 0.1875, 0.1875, 0.0625]
    assert (kernel == kernel[0, 0]).all()
    odd = fill("type: 'bilinear'", (1, 1, 3, 3))[0, 0]
    assert odd.tolist() == [[0.25, 0.5, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 0.25]]


def test_the_same_seed_gives_the_same_numbers():
    for kind in fillers.NAMES:
        shape = (2, 3, 4, 4)
        np.testing.assert_array_equal(fill(f"type: '{kind}'", shape), fill(f"type: '{kind}'", shape))


SPARSE = "Check failed: this->filler_param_.sparse() == -1 (2 vs. -1) Sparsity not supported by this Filler."
FATAL = [
    ("filler-unknown", "type: 'gausian'", (2,), "Check failed: false Unknown filler name: gausian"),
    ("filler-uniform-range", "type: 'uniform' min: 0.5 max: -1", (2,), "Check failed: a <= b (0.5 vs. -1)"),
    ("filler-gaussian-std", "type: 'gaussian' std: 0", (2,), "Check failed: sigma > 0 (0 vs. 0)"),
    ("filler-gaussian-sparse", "type: 'gaussian' sparse: -2", (2,), "Check failed: sparse >= -1 (-2 vs. -1)"),
    ("filler-gaussian-axes", "type: 'gaussian' sparse: 1", (), "Check failed: blob->num_axes() >= 1 (0 vs. 1)"),
    ("filler-gaussian-probability", "type: 'gaussian' sparse: 3", (2, 5), "Check failed: p <= 1 (1.5 vs. 1)"),
    ("filler-bilinear-axes", "type: 'bilinear'", (2, 4), "Check failed: blob->num_axes() == 4 (2 vs. 4) Blob must be 4 dim."),
    ("filler-bilinear-square", "type: 'bilinear'", (2, 3, 4, 5), "Check failed: blob->width() == blob->height() (5 vs. 4) Filter"),
    ("filler-empty-constant", "", (2, 0), "filler.hpp:39] Check failed: count"),
    ("filler-empty-positive_unitball", "type: 'positive_unitball'", (2, 0), "filler.hpp:112] Check failed: dim"),
    *(
        (f"filler-empty-{kind}", f"type: '{kind}'", (2, 0), "] Check failed: blob->count()")
        for kind in ("uniform", "gaussian", "xavier", "msra")
    ),
    *(
        (f"filler-sparse-{kind}", f"type: '{kind}' sparse: 2", (2, 3, 4, 4), SPARSE)
        for kind in ("constant", "uniform", "positive_unitball", "xavier", "msra", "bilinear")
    ),
]


@pytest.mark.parametrize(("code", "text", "shape", "words"), FATAL, ids=[row[0] for row in FATAL])
def test_refusals_say_what_caffe_says(code, text, shape, words):
    with pytest.raises(Refusal) as caught:
        fill(text, shape)
    assert caught.value.code == code
    assert words in oneshot.caffe_words(caught.value)


def test_a_scalar_on_the_unit_ball_is_one() -> None:
    assert fill("type: 'positive_unitball'", ()) == 1
