"""The public API: load and loads, names and shapes, forward and backward between blobs, parameters, reshape, seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import inspector

CHAIN = """
name: "chain" force_backward: true
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 6 dim: 5 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
        convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "gaussian" std: 0.5 } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "fc" type: "InnerProduct" bottom: "conv1" top: "fc"
        inner_product_param { num_output: 7 weight_filler { type: "xavier" } bias_filler { type: "constant" value: 0.25 } } }
"""

TIED = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 3 dim: 4 } } }
layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" param { name: "w" } param { lr_mult: 0 }
        inner_product_param { num_output: 4 weight_filler { type: "gaussian" } } }
layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" param { name: "w" } param { lr_mult: 0 }
        inner_product_param { num_output: 4 } }
layer { name: "t" type: "Input" top: "t" input_param { shape { dim: 3 dim: 4 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "b" bottom: "t" top: "loss" loss_weight: 0.5 }
"""

RNG = np.random.default_rng(7)


def data(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def test_structure() -> None:
    net = inspector.loads(CHAIN)
    assert [(node.name, node.type) for node in net.layers] == [
        ("data", "Input"),
        ("conv1", "Convolution"),
        ("relu1", "ReLU"),
        ("fc", "InnerProduct"),
    ]
    assert net.inputs == ["data"]
    assert net.outputs == ["fc"]
    assert net.blobs["conv1"].shape == (2, 4, 4, 3)
    assert [param.shape for param in net.params["fc"]] == [(7, 48), (7,)]
    # Caffe counts the in-place top again
    assert net.memory_required == 4 * (2 * 3 * 6 * 5 + 2 * 4 * 4 * 3 * 2 + 2 * 7)


def test_an_in_place_layer_hides_nothing() -> None:
    net = inspector.loads(CHAIN)
    values = net.forward(["conv1@conv1", "conv1@relu1", "conv1", "fc"], data=data(2, 3, 6, 5))
    assert (values["conv1@conv1"] < 0).any()
    np.testing.assert_array_equal(values["conv1@relu1"], np.maximum(values["conv1@conv1"], 0))
    np.testing.assert_array_equal(values["conv1"], values["conv1@relu1"])
    weights, bias = (param.data for param in net.params["fc"])
    np.testing.assert_allclose(values["fc"], values["conv1"].reshape(2, -1) @ weights.T + bias, rtol=1e-5)


def test_a_run_can_start_in_the_middle_and_stop_early() -> None:
    net = inspector.loads(CHAIN)
    x = data(2, 3, 6, 5)
    whole = net.forward(["conv1@conv1", "fc"], data=x)
    assert net.forward(["conv1@conv1"], end="conv1", data=x).keys() == {"conv1@conv1"}
    again = net.forward(["fc"], start="relu1", **{"conv1@conv1": 2 * whole["conv1@conv1"]})
    bias = net.params["fc"][1].data
    np.testing.assert_allclose(again["fc"] - bias, 2 * (whole["fc"] - bias), rtol=1e-5, atol=1e-6)
    with pytest.raises(inspector.InspectorError, match="no layer 'relu'"):
        net.forward(start="relu", data=x)
    with pytest.raises(inspector.InspectorError, match="'conv1' comes before layer 'relu1'"):
        net.forward(start="relu1", end="conv1", data=x)
    with pytest.raises(inspector.InspectorError, match=r"'data'.*no array of numbers"):
        net.forward(data=[[1, 2], [3]])


def test_parameters_are_writable_in_place_and_by_assignment() -> None:
    net = inspector.loads(CHAIN)
    x = data(2, 3, 6, 5)
    net.params["fc"][0].data[...] = 0
    np.testing.assert_array_equal(net.forward(data=x)["fc"], np.full((2, 7), 0.25, np.float32))
    net.params["fc"][1].data = np.arange(7)
    np.testing.assert_array_equal(net.forward(data=x)["fc"][1], np.arange(7, dtype=np.float32))
    with pytest.raises(inspector.InspectorError, match="7"):
        net.params["fc"][1].data = np.arange(6)


def test_another_batch_keeps_the_parameters() -> None:
    net = inspector.loads(CHAIN)
    x = data(2, 3, 6, 5)
    before = net.forward(data=x)["fc"]
    with pytest.raises(inspector.InspectorError, match="reshape"):
        net.forward(data=x[:1])
    net.reshape(data=(1, 3, 6, 5))
    assert net.blobs["fc"].shape == (1, 7)
    np.testing.assert_allclose(net.forward(data=x[:1])["fc"], before[:1], rtol=1e-5)
    with pytest.raises(inspector.InspectorError, match="fc"):
        net.reshape(data=(1, 3, 7, 5))  # fc's weights would not fit
    with pytest.raises(inspector.InspectorError, match=r"no blob 'date'.*'data'"):
        net.reshape(date=(1, 3, 6, 5))


def test_gradients_of_inputs_named_blobs_and_shared_parameters() -> None:
    net = inspector.loads(TIED)
    x, t = data(3, 4), data(3, 4)
    loss = net.forward(x=x, t=t)["loss"]
    w = net.params["a"][0].data.copy()
    y = x @ w.T @ w.T
    np.testing.assert_allclose(loss, ((y - t) ** 2).sum() / 6, rtol=1e-5)
    gradients = net.backward(["b", "a"])
    dy = 0.5 * (y - t) / 3
    np.testing.assert_allclose(gradients["b"], dy, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(gradients["a"], dy @ w, rtol=1e-4, atol=1e-6)
    # both layers use w: their gradients add up, whichever name asks
    whole = dy.T @ (x @ w.T) + (dy @ w).T @ x
    for layer in "ab":
        np.testing.assert_allclose(net.params[layer][0].diff, whole, rtol=1e-4, atol=1e-5)
    assert not net.params["a"][1].diff.any()  # lr_mult 0


def test_a_blob_read_twice_adds_its_gradients() -> None:
    net = inspector.loads("""
        force_backward: true
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
        layer { name: "p" type: "Power" bottom: "x" top: "p" power_param { scale: 3 } }
        layer { name: "q" type: "Power" bottom: "x" top: "q" power_param { scale: 5 } }""")
    net.forward(x=data(2, 3))
    dp, dq = data(2, 3), data(2, 3)
    np.testing.assert_allclose(net.backward(p=dp, q=dq)["x"], 3 * dp + 5 * dq, rtol=1e-5)


def test_the_generator_is_one_and_seeded() -> None:
    text = """
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 20 dim: 50 } } }
        layer { name: "d" type: "Dropout" bottom: "x" top: "d" dropout_param { dropout_ratio: 0.3 } }"""
    net = inspector.loads(text, "TRAIN")
    ones = np.ones((20, 50), np.float32)
    net.seed(3)
    first, second = net.forward(x=ones)["d"], net.forward(x=ones)["d"]
    net.seed(3)
    np.testing.assert_array_equal(net.forward(x=ones)["d"], first)
    assert (first != second).any()
    assert abs((first == 0).mean() - 0.3) < 0.05
    np.testing.assert_allclose(first[first != 0], 1 / 0.7, rtol=1e-6)
    np.testing.assert_array_equal(inspector.loads(text).forward(x=ones)["d"], ones)  # nothing is dropped in TEST


def test_the_first_layer_that_makes_a_nan_is_named() -> None:
    net = inspector.loads("""
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
        layer { name: "root" type: "Power" bottom: "x" top: "r" power_param { power: 0.5 } }
        layer { name: "twice" type: "Power" bottom: "r" top: "y" power_param { scale: 2 } }""")
    x = np.array([[1, 4, 9], [1, -4, 9]], np.float32)
    with np.errstate(invalid="ignore"):
        assert np.isnan(net.forward(x=x)["y"]).sum() == 1
        with pytest.raises(inspector.InspectorError, match=r"'root'.*NaN"):
            net.forward(x=x, check_numerics=True)


def test_what_caffe_would_refuse_still_loads_up_to_there() -> None:
    net = inspector.loads(CHAIN + 'layer { name: "bad" type: "Pooling" bottom: "fcc" top: "p" pooling_param { kernel_size: 2 } }')
    assert [node.name for node in net.layers] == ["data", "conv1", "relu1", "fc"]
    assert net.error is not None
    assert net.error.code == "unknown-bottom"
    assert "'fcc'" in str(net.error)
    assert "did you mean 'fc'" in str(net.error)
    with pytest.raises(inspector.InspectorError, match="fcc"):
        net.check()
    with pytest.raises(inspector.InspectorError, match="fcc"):
        net.forward(data=data(2, 3, 6, 5))


def test_an_unknown_type_stays_with_unknown_shapes_until_one_is_given() -> None:
    text = (
        CHAIN
        + """
        layer { name: "perm" type: "Permute" bottom: "fc" top: "perm" }
        layer { name: "relu2" type: "ReLU" bottom: "perm" top: "relu2" }"""
    )
    net = inspector.loads(text)
    assert [node.name for node in net.layers][-2:] == ["perm", "relu2"]
    assert net.blobs["perm"].shape is None
    assert net.blobs["relu2"].shape is None
    assert net.error is not None
    assert "Permute" in str(net.error)
    assert inspector.loads(text, given={"perm": (7, 2)}).blobs["relu2"].shape == (7, 2)


def test_a_missing_source_is_a_finding_and_no_error() -> None:
    text = """
        layer { name: "d" type: "Data" top: "data" top: "label" data_param { source: "nowhere_lmdb" batch_size: 5 backend: LMDB } }
        layer { name: "p" type: "Pooling" bottom: "data" top: "p" pooling_param { kernel_size: 2 stride: 2 } }"""
    net = inspector.loads(text)
    assert net.error is None
    assert any(finding.code == "missing-source" and "nowhere_lmdb" in finding.message for finding in net.findings)
    assert net.blobs["p"].shape is None
    net = inspector.loads(text, given={"data": (5, 3, 10, 12)})
    assert net.blobs["p"].shape == (5, 3, 5, 6)
    assert net.blobs["label"].shape == (5,)


def test_only_unreadable_files_raise(tmp_path: Path) -> None:
    with pytest.raises(inspector.InspectorError, match="no model of that name"):
        inspector.load("alexnett")
    page = tmp_path / "deploy.prototxt"
    page.write_text("<!DOCTYPE html><html><body>404</body></html>")
    with pytest.raises(inspector.InspectorError, match="HTML"):
        inspector.load(page)
    with pytest.raises(inspector.InspectorError, match="folder"):
        inspector.load(tmp_path)
    with pytest.raises(inspector.InspectorError, match="TRAIN or TEST"):
        inspector.load("lenet", phase="train")


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
def test_a_solver_leads_to_its_net(tmp_path: Path, phase: str) -> None:
    (tmp_path / "net.prototxt").write_text(CHAIN)
    solver = tmp_path / "solver.prototxt"
    solver.write_text('net: "net.prototxt" base_lr: 0.01 test_iter: 3 test_interval: 10 lr_policy: "fixed" max_iter: 5')
    net = inspector.load(solver, phase)
    assert net.name == "chain"
    assert net.phase == phase
    assert net.opened.solver.base_lr == pytest.approx(0.01)


def behind_a_filter(layers: str) -> inspector.Net:
    """x (4, 3) and t (4) filtered by s (4) into fx and ft, which `layers` read."""
    shapes = {"x": "dim: 4 dim: 3", "t": "dim: 4", "s": "dim: 4"}
    inputs = [
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ {dims} }} }} }}'
        for name, dims in shapes.items()
    ]
    chosen = 'layer { name: "f" type: "Filter" bottom: "x" bottom: "t" bottom: "s" top: "fx" top: "ft" }'
    return inspector.loads("\n".join(["force_backward: true", *inputs, chosen, layers]))


def test_shapes_behind_a_filter_are_those_of_the_data() -> None:
    fc = 'layer { name: "fc" type: "InnerProduct" bottom: "fx" top: "fc" inner_product_param { num_output: 2 } }'
    net = behind_a_filter(fc + 'layer { name: "quiet" type: "Silence" bottom: "ft" }')
    weights = net.params["fc"][0].data = data(2, 3)
    x, s = data(4, 3), np.array([0, 1, 0, 1])
    np.testing.assert_allclose(net.forward(x=x, t=x[:, 0], s=s)["fc"], x[[1, 3]] @ weights.T, rtol=1e-5, atol=1e-6)
    assert net.forward(x=x, t=x[:, 0], s=0 * s)["fc"].shape == (0, 2)
    assert not net.backward(["x"])["x"].any()

    columns = fc.replace("num_output: 2", "num_output: 2 axis: 0") + 'layer { name: "quiet" type: "Silence" bottom: "ft" }'
    with pytest.raises(inspector.InspectorError, match=r"'fc'.*2 x 12, .* 2 x 3, needs 2 x 6"):
        behind_a_filter(columns).forward(x=x, t=x[:, 0], s=s)
    reshaped = 'layer { name: "r" type: "Reshape" bottom: "fx" top: "r" reshape_param { shape { dim: 4 dim: -1 } } }'
    with pytest.raises(inspector.InspectorError, match=r"'r'.*cannot be divided"):
        behind_a_filter(reshaped).forward(x=x, t=x[:, 0], s=[1, 1, 1, 0])


@pytest.mark.parametrize("loss", ["SoftmaxWithLoss", "HingeLoss", "MultinomialLogisticLoss"])
def test_a_loss_of_nothing_is_no_traceback(loss: str) -> None:
    net = behind_a_filter(
        f'layer {{ name: "l" type: "{loss}" bottom: "fx" bottom: "ft" top: "l" propagate_down: true propagate_down: false }}'
    )
    value = net.forward(x=data(4, 3), t=[0, 1, 2, 0], s=[0, 0, 0, 0])["l"]
    assert value == 0 if loss == "SoftmaxWithLoss" else np.isnan(value)  # 0 / max(1, 0), and 0 / 0
    assert not net.backward(["x"])["x"].any()


def test_a_net_with_an_empty_blob_does_not_run() -> None:
    net = inspector.loads('layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 0 dim: 3 } } }', given={"x": (2, 3)})
    assert net.forward(x=data(2, 3))["x"].shape == (2, 3)
    net.reshape(x=(0, 3))
    with pytest.raises(inspector.InspectorError, match=r"'x'.*0 x 3"):
        net.forward(x=np.zeros((0, 3)))


def test_an_unknown_shape_is_asked_for() -> None:
    net = inspector.loads("""
        layer { name: "d" type: "HDF5Data" top: "x" hdf5_data_param { source: "nowhere.txt" batch_size: 2 } }
        layer { name: "r" type: "ReLU" bottom: "x" top: "r" }
        layer { name: "fc" type: "InnerProduct" bottom: "r" top: "fc" inner_product_param { num_output: 2 } }""")
    with pytest.raises(inspector.InspectorError, match=r"'fc'.*2 x 3.*net\.reshape"):
        net.forward(x=data(2, 3))
    net.reshape(x=(2, 3))
    assert net.forward(x=data(2, 3))["fc"].shape == (2, 2)


def test_a_scalar_can_be_given() -> None:
    text = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }'
    assert inspector.loads(text, given={"x": ()}).blobs["x"].shape == ()
