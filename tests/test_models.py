"""Real trained models: outputs, and a digest of every blob, against what real Caffe computed from the same input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import inspector

from .conftest import reference_folder

FOLDER = reference_folder()
ORACLES = sorted((FOLDER / "models").glob("*/caffe_oracle.npz")) if FOLDER else []


def deploy(folder: Path) -> Path:
    plain = folder / "deploy.prototxt"
    return plain if plain.is_file() else folder / "deploy.derived.prototxt"


@pytest.mark.parametrize("oracle", ORACLES, ids=lambda path: path.parent.name)
def test_a_trained_model_gives_caffes_numbers(oracle: Path) -> None:
    with np.load(oracle, allow_pickle=False) as archive:
        recorded = dict(archive)
    inputs = {key[3:]: array for key, array in recorded.items() if key.startswith("in:")}
    folder = oracle.parent
    net = inspector.load(
        deploy(folder), given={name: array.shape for name, array in inputs.items()}, weights=folder / "weights.caffemodel"
    )
    net.check()
    assert sum(param.owner is param and param.count for param in net.graph.params()) == recorded["param_count"]

    outputs = {key[4:]: array for key, array in recorded.items() if key.startswith("out:")}
    names = [str(name) for name in recorded["blob_names"]]
    values = net.forward([*outputs, *names], **inputs)
    for name, caffe in outputs.items():
        assert values[name].shape == caffe.shape
        assert np.abs(values[name] - caffe).max() <= 1e-5 * max(1e-3, np.abs(caffe).max()), name
    for name, (size, mean, deviation, largest) in zip(names, recorded["blob_digest"], strict=True):
        ours = values[name].astype(np.float64)
        scale = max(1e-3, largest)
        assert ours.size == size, name
        assert abs(ours.mean() - mean) <= 1e-5 * scale, name
        assert abs(ours.std() - deviation) <= 1e-5 * scale, name
        assert abs(np.abs(ours).max() - largest) <= 1e-5 * scale, name
