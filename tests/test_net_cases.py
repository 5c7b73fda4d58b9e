"""The one-layer nets that real Caffe ran, through the public API: load, set parameters, forward, backward."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import inspector

from .conftest import reference_folder
from .oneshot import LONG_SUM, NORMALISING, prototxts

FOLDER = reference_folder()
RANDOM = {"Dropout"}
ACCEPTED = [path for path in prototxts(FOLDER) if path.with_suffix(".npz").is_file()] if FOLDER else []


def error(ours: np.ndarray, caffe: np.ndarray) -> float:
    """Largest difference relative to Caffe's largest magnitude, at least 1e-3."""
    if ours.shape != caffe.shape:
        return float("inf")
    finite = np.isfinite(caffe)
    if not np.array_equal(finite, np.isfinite(ours)):
        return float("inf")
    return float(np.abs(ours[finite] - caffe[finite]).max(initial=0) / max(1e-3, np.abs(caffe[finite]).max(initial=0)))


@pytest.mark.parametrize("path", ACCEPTED, ids=lambda path: path.stem)
def test_a_net_answers_as_caffe_did(path: Path) -> None:
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as archive:
        recorded = dict(archive)
    net = inspector.load(path, path.with_suffix(".phase").read_text().strip())
    assert net.error is None
    if any(node.type in RANDOM and net.phase == "TRAIN" for node in net.layers):
        pytest.skip("draws at random; its own tests look at rates and masks")
    for key, array in recorded.items():
        if key.startswith("param:"):
            _, layer, index = key.split(":")
            net.params[layer][int(index)].data = array
    inputs = {key[3:]: array for key, array in recorded.items() if key.startswith("in:")}
    blobs = [key[4:] for key in recorded if key.startswith("out:")]
    kind = path.parent.name

    def tolerance(key: str) -> float:
        terms = max(array.size for array in recorded.values()) / max(1, recorded[key].size)
        return 1e-4 if terms > LONG_SUM or (kind in NORMALISING and key.startswith("d")) else 1e-5

    for name, array in net.forward(blobs, **inputs).items():
        assert error(array, recorded[f"out:{name}"]) <= tolerance(f"out:{name}"), name
    for key in recorded:
        if key.startswith("param_after:"):
            _, layer, index = key.split(":")
            assert error(net.params[layer][int(index)].data, recorded[key]) <= tolerance(key), key

    if not any(key.startswith("dblob:") for key in recorded):
        return
    top_diffs = {key[5:]: array for key, array in recorded.items() if key.startswith("dtop:")}
    net.backward(**top_diffs)
    wanted = sorted({blob.name for blob in net.executor.diffs})  # the others hold scratch numbers of Caffe's
    gradients = net.backward(wanted, **top_diffs)
    for name in wanted:
        assert error(gradients[name], recorded[f"dblob:{name}"]) <= tolerance(f"dblob:{name}"), name
    for key in recorded:
        if key.startswith("dparam:"):
            _, layer, index = key.split(":")
            assert error(net.params[layer][int(index)].diff, recorded[key]) <= tolerance(key), key
