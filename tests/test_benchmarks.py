"""The benchmarks' conversions give the specification's numbers, and their pages are well formed. No test depends on a time."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import numpy as np
import pytest

import inspector
from benchmarks import chart, peers, report

SHAPE = (2, 3, 19, 23)


def layer(name, kind, bottoms, top, settings=""):
    wires = "".join(f' bottom: "{bottom}"' for bottom in bottoms.split())
    return f'layer {{ name: "{name}" type: "{kind}"{wires} top: "{top}" {settings} }}\n'


# every layer type of the six nets, with sizes at which windows do not end at the edge
NET = "".join(
    [
        layer("in", "Input", "", "data", "input_param { shape { dim: 2 dim: 3 dim: 19 dim: 23 } }"),
        layer(
            "conv1", "Convolution", "data", "conv1", "convolution_param { num_output: 8 kernel_h: 3 kernel_w: 5 pad: 1 stride: 2}"
        ),
        layer("bn1", "BatchNorm", "conv1", "conv1", "batch_norm_param { eps: 0.001 }"),
        layer("scale1", "Scale", "conv1", "conv1", "scale_param { bias_term: true }"),
        layer("relu1", "ReLU", "conv1", "conv1"),
        layer("norm1", "LRN", "conv1", "norm1", "lrn_param { local_size: 5 alpha: 0.3 beta: 0.75 k: 2 }"),
        layer("pool1", "Pooling", "norm1", "pool1", "pooling_param { kernel_size: 3 stride: 2 pad: 1 }"),
        layer("pool2", "Pooling", "norm1", "pool2", "pooling_param { kernel_size: 2 stride: 2 }"),
        layer(
            "left", "Convolution", "pool2", "left", "convolution_param { num_output: 8 kernel_size: 1 group: 4 bias_term: false}"
        ),
        layer("bn2", "BatchNorm", "left", "left"),
        layer("right", "Convolution", "pool2", "right", "convolution_param { num_output: 8 kernel_size: 3 pad: 2 dilation: 2 }"),
        layer("sum", "Eltwise", "left right", "sum"),
        layer("scale2", "Scale", "sum", "sum"),
        layer("relu2", "ReLU", "sum", "sum"),
        layer("both", "Concat", "sum pool2", "both"),
        layer("mean", "Pooling", "both", "mean", "pooling_param { pool: AVE kernel_size: 2 }"),
        layer("drop", "Dropout", "mean", "mean"),
        layer("all", "Pooling", "pool1", "all", "pooling_param { pool: AVE global_pooling: true }"),
        layer("fc1", "InnerProduct", "mean", "fc1", "inner_product_param { num_output: 6 bias_term: false }"),
        layer("fc2", "InnerProduct", "all", "fc2", "inner_product_param { num_output: 7 }"),
        layer("scores", "Concat", "fc1 fc2", "scores"),
        layer("prob", "Softmax", "scores", "prob"),
    ]
)


@pytest.fixture
def net():
    """With random weights; variances are positive, and the BatchNorms' factors are not 1."""
    made = inspector.loads(NET, engine="reference")
    rng = np.random.default_rng(3)
    for node in made.layers:
        for param in node.params or ():
            values = rng.normal(0, 0.5, param.shape)
            made.weights.set(param, np.abs(values) + 0.5 if param.name in ("variance", "factor") else values)
    return made


@pytest.mark.parametrize("name", peers.PEERS)
@pytest.mark.parametrize("batch", [2, 5])
def test_peers_agree_with_the_specification(name, batch, net, tmp_path):
    peer = peers.PEERS[name]
    if not peer.installed:
        pytest.skip(f"{peer.package} is not installed")
    x = np.random.default_rng(4).standard_normal((batch, *SHAPE[1:])).astype(np.float32)
    peer.write(net, tmp_path)
    found = np.array(peer.load(tmp_path, batch, 1)(x)).reshape(batch, -1)
    net.reshape(data=x.shape)
    expected = net.forward(data=x)["prob"]
    assert expected.std(axis=1).min() > 0.01  # the scores differ, so that agreeing means something
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_operations_leave_out_what_computes_nothing(net):
    made = list(peers.operations(net.graph))
    kinds = [op.node.type for op in made]
    assert not {"Input", "Split", "Dropout"} & set(kinds)
    assert [(op.node.name, op.scale.name if op.scale else None) for op in made if op.node.type == "BatchNorm"] == [
        ("bn1", "scale1"),
        ("bn2", None),
    ]
    known = {net.blobs["data"].root}
    for op in made:
        assert known.issuperset(op.bottoms)
        known.add(op.top)
    assert net.blobs["prob"] in known


@pytest.mark.parametrize("settings", ["pool: AVE kernel_size: 3 stride: 2", "pool: AVE kernel_size: 3 pad: 1"])
def test_averages_cut_by_an_edge_are_refused(settings):
    """The first's last window ends behind row 20, the second's lie partly on padding: programs divide by different numbers."""
    text = layer("in", "Input", "", "data", "input_param { shape { dim: 1 dim: 2 dim: 20 dim: 23 } }")
    made = inspector.loads(text + layer("mean", "Pooling", "data", "mean", f"pooling_param {{ {settings} }}"))
    (op,) = peers.operations(made.graph)
    with pytest.raises(peers.Unsupported):
        peers.pooled(op)


def figures():
    def result(net, batch, threads, runner, cpu):
        times = {"cpu": cpu, "low": cpu * 0.9, "high": cpu * 1.1, "wall": cpu * 0.6, "first": 9.0, "error": 1e-6}
        return {"net": net, "batch": batch, "threads": threads, "runner": runner, **times}

    results = [
        result(net, batch, threads, runner, cpu * batch)
        for net in ("squeezenet", "vgg16")
        for batch in (1, 10)
        for threads in (1, 2)
        for runner, cpu in (("reference", 90.0), ("default", 10.0), ("fast", 8.0), ("OpenCV", 20.0))
    ]
    machine = {
        "date": "2026-11-22",
        "processor": "A <fast> one",
        "avx512": False,
        "cores": 2,
        "memory": 8.0,
        "blas": "b",
        "kernels": "k",
        "versions": {"Python": "3"},
        "load": [0.5, 3.5],
    }
    return {"machine": machine, "results": results, "alone": [], "startup": [], "scaling": []}


def test_the_table_has_every_case_and_the_ratios_with_their_goals():
    page = report.markdown(figures())
    assert page.count("\n## Batch ") == 4
    assert "| default | 10.0 (9.0 to 11.0) | 10.0 (9.0 to 11.0) |" in page
    assert "| default | 10.0 / 6.0 (9.0 to 11.0) |" in page
    assert "| squeezenet | 0.50 / 0.40 (0.5) |" in page
    assert "| vgg16 | 0.50 / 0.40 (0.65 by fast) |" in page
    assert "other work was going on" in page


def test_the_picture_is_well_formed_and_tells_every_figure():
    made = figures()
    root = ET.fromstring(chart.svg(made["results"], report.about(made)))
    words = ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert any("A <fast> one" in text for text in words)
    assert words.count("9.00 » (90.0 ms)") == 2  # both nets: longer than the scale
    assert words.count("2.00 (20.0 ms)") == 2
