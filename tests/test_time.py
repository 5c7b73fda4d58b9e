"""`alexinspect time`: whose time is whose, and the words in which it is said. No test waits for a certain speed."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

import inspector
from inspector import timing
from inspector.errors import InspectorError
from inspector.timing import Stats

from .little import run

NET = """
layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 9 dim: 8 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 4 kernel_size: 3
        weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip" inner_product_param { num_output: 5
        weight_filler { type: "xavier" } } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
"""
LABELS = """
layer { name: "d" type: "Data" top: "x" top: "l" data_param { source: "nowhere" batch_size: 3 } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 5
        weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "l" top: "loss" }
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "net.prototxt"
    path.write_text(NET)
    return path


def test_the_owners_sentence() -> None:
    steps = (1.139 - 0.344, 1.139 + 0.344) * 50
    assert Stats(steps).line("Forward") == "Forward across 100 steps, 1.139 +/- 0.344 sec / batch"
    assert (
        Stats((0.0012341, 0.0012341)).line("Forward_backward") == "Forward_backward across 2 steps, 0.00123 +/- 0.00000 sec / batch"
    )


def test_stats() -> None:
    stats = Stats((3.0, 1.0, 8.0))
    assert (stats.least, stats.median, stats.mean) == (1, 3, 4)
    assert stats.spread == pytest.approx(np.std([3, 1, 8]))


def test_every_layer_is_timed_or_says_where_it_is_done(model: Path) -> None:
    calls: list[int] = []
    found = timing.measure(inspector.load(model), 3, warmup=2, after=lambda: calls.append(1))
    assert len(calls) == 5
    assert [layer.name for layer in found.layers] == ["in", "conv", "relu", "ip", "prob"]
    assert all((layer.forward is None) == (layer.name == "relu") for layer in found.layers)
    assert found.layers[2].inside == "conv"
    assert all(len(layer.forward.seconds) == 3 for layer in found.layers if layer.forward)
    assert len(found.forward.seconds) == 3 and found.backward is None
    assert found.layers_forward == sum(layer.forward.median for layer in found.layers if layer.forward)


def test_layers_one_by_one_without_a_plan(model: Path) -> None:
    net = inspector.load(model, engine="reference")
    found = timing.measure(net, 2)
    assert all(layer.forward is not None and layer.inside is None for layer in found.layers)


def test_slow_layers_are_the_ones_that_look_slow(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is ours: the softmax takes 5 s, everything else nothing."""
    clock = [0.0]
    monkeypatch.setattr(timing, "perf_counter", lambda: clock[0])
    net = inspector.load(model)
    softmax = net.layers[-1].layer
    forward = softmax.forward

    def slow(*arguments: object) -> object:
        clock[0] += 5
        return forward(*arguments)

    monkeypatch.setattr(softmax, "forward", slow)
    found = timing.measure(net, 4)
    assert {layer.name: layer.forward.median for layer in found.layers if layer.forward} == {"in": 0, "conv": 0, "ip": 0, "prob": 5}
    assert found.forward.seconds == (5, 5, 5, 5)


def test_backward(model: Path) -> None:
    net = inspector.loads(LABELS, phase="TRAIN", given={"x": (3, 4, 2, 5)})
    found = timing.measure(net, 2, backward=True)
    assert {layer.name for layer in found.layers if layer.backward} == {"ip", "loss"}
    assert found.backward is not None and found.forward_backward is not None
    assert found.forward_backward.seconds == tuple(map(sum, zip(found.forward.seconds, found.backward.seconds)))
    assert net.params["ip"][0].diff.any()  # it did compute


def test_unknown_shapes_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(InspectorError) as caught:
        timing.measure(inspector.loads(LABELS), 1)
    assert caught.value.code == "input-not-given" and "--shape x=" in str(caught.value)


def test_forms(model: Path, tmp_path: Path) -> None:
    text = run("time", model, "--iterations", "3")
    assert text.exit_code == 0, text.stderr
    lines = text.stdout.splitlines()
    assert re.fullmatch(r"Forward across 3 steps, \d\.\d{3,9} \+/- \d\.\d{3,9} sec / batch", lines[-1])
    assert any(line.startswith("sum of layers") for line in lines) and any(line.startswith("whole net") for line in lines)
    assert re.search(r"^relu +ReLU +in conv$", text.stdout, re.MULTILINE)
    data = json.loads(run("time", model, "--iterations", "3", "--backward", "--format", "json").stdout)
    assert data["engine"] == "reference" and data["forward"]["steps"] == 3
    assert data["lines"][1].startswith("Forward_backward across 3 steps, ")
    assert sum(layer["share"] for layer in data["layers"] if layer["share"]) == pytest.approx(1)
    rows = list(csv.DictReader(run("time", model, "--iterations", "2", "--format", "csv").stdout.splitlines()))
    assert [row["layer"] for row in rows] == ["in", "conv", "relu", "ip", "prob"]
    assert rows[2]["inside"] == "conv" and rows[2]["forward_min"] == ""
    assert float(rows[1]["forward_min"]) <= float(rows[1]["forward_median"])


def test_arrays_instead_of_random_numbers(model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", data=np.zeros((5, 3, 9, 8), np.float32))
    assert run("time", model, "--iterations", "1", "--npz", tmp_path / "in.npz").exit_code == 0
    assert run("time", model, "--npz", tmp_path / "none.npz").exit_code == 2
    assert run("time", tmp_path / "none.prototxt").exit_code == 2
