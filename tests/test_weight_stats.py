"""Statistics of stored weights against NumPy on whole arrays; filters as a picture; the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from caffe_proto import caffe_pb2
from cli.main import main
from inspector import weight_stats
from inspector.caffemodel import open_model, write_model

RNG = np.random.default_rng(5)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    filters = RNG.standard_normal((6, 3, 5, 4)).astype(np.float32)
    filters[2] = 0  # a dead filter
    bias = np.array([1, np.nan, np.inf, -2, 0, 0], np.float32)
    large = RNG.standard_normal((1500, 1400)).astype(np.float32) + 3  # more than one block
    large[700] = 0
    proto = caffe_pb2.NetParameter(name="tiny")
    proto.layer.add(name="conv/1", type="Convolution")
    proto.layer.add(name="fc", type="InnerProduct")
    path = tmp_path / "tiny.caffemodel"
    write_model(path, proto, {"conv/1": [filters, bias], "fc": [large]})
    np.savez(tmp_path / "arrays.npz", filters=filters, bias=bias, large=large)
    return path


def loaded(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def test_figures_are_those_of_the_whole_array(model: Path) -> None:
    arrays = loaded(model.parent / "arrays.npz")
    found = {f"{row.layer}[{row.index}]": row for row in weight_stats.examine(open_model(model))}
    for name, key in (("conv/1[0]", "filters"), ("fc[0]", "large")):
        row, values = found[name], arrays[key].astype(np.float64)
        assert row.shape == values.shape
        assert (row.least, row.most) == (values.min(), values.max())
        np.testing.assert_allclose([row.mean, row.deviation], [values.mean(), values.std()], rtol=1e-9)
        np.testing.assert_allclose([row.l1, row.l2], [np.abs(values).sum(), np.sqrt((values**2).sum())], rtol=1e-9)
        assert row.zeros == (values == 0).sum()
        assert row.dead == 1
        assert row.histogram == np.histogram(values, weight_stats.BINS)[0].tolist()
    bias = found["conv/1[1]"]
    assert (bias.nans, bias.infinite, bias.zeros, bias.dead) == (1, 1, 2, None)
    assert (bias.least, bias.most) == (-2, 1)


def test_filters_lie_side_by_side_in_colour() -> None:
    filters = np.zeros((2, 3, 3, 2), np.float32)
    filters[0, 0] = 1  # blue, as Caffe counts
    filters[1, 2] = 1  # red
    grid = weight_stats.filter_grid(filters)
    assert grid.shape == (5, 7, 3)
    assert grid[1:4, 1:3].reshape(-1, 3).tolist() == [[0, 0, 255]] * 6
    assert grid[1:4, 4:6].reshape(-1, 3).tolist() == [[255, 0, 0]] * 6
    assert (grid[0] == 255).all()
    assert weight_stats.filter_grid(np.zeros((4, 5, 3, 2), np.float32)).shape == (4 * 4 + 1, 5 * 3 + 1, 3)


def test_the_command(model: Path) -> None:
    folder = model.parent / "out"
    result = CliRunner().invoke(main, ["weights", str(model), "--format", "json", "--export", str(folder), "--layer", "conv*"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["values"] == 6 * 3 * 5 * 4 + 6 + 1500 * 1400
    assert [blob["shape"] for blob in report["blobs"]] == [[6, 3, 5, 4], [6]]
    assert report["blobs"][1]["nan"] == 1
    arrays = loaded(model.parent / "arrays.npz")
    exported = loaded(folder / "conv_1.npz")
    np.testing.assert_array_equal(exported["0"], arrays["filters"])
    assert CliRunner().invoke(main, ["weights", str(model), "--layer", "conf"]).exit_code == 2
    assert CliRunner().invoke(main, ["weights", str(model.parent / "none")]).exit_code == 2
