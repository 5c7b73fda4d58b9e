"""The plan: any subset of the rules gives the specification's numbers, nothing that is asked for is swallowed, memory is reused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import inspector
from cli.main import main
from inspector.blas import cores
from inspector.caffemodel import write_model
from inspector.engine import RULES, Engine, layout
from inspector.engine.lower import kernel
from inspector.engine.rules import DEFAULT, FAST
from inspector.engine.storage import offsets
from inspector.net import Net
from inspector.plan import plan

from .conftest import ROOT, reference_folder
from .random_nets import random_net

FOLDER = reference_folder()


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference, relative to the largest magnitude."""
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max(initial=0) / max(1e-3, np.abs(theirs).max(initial=0)))


def given_values(net: Net, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Inputs, and parameters that are neither 0 nor all alike."""
    for views in net.params.values():
        for view in views:
            view.data = (
                rng.uniform(0.5, 1.5, view.shape) * rng.choice([-1, 1], view.shape) / np.sqrt(max(1, np.prod(view.shape[1:])))
            )
    for node in net.layers:
        if node.type == "BatchNorm":
            _, variance, factor = net.params[node.name]
            variance.data, factor.data = rng.uniform(0.5, 2, variance.shape), np.array([rng.uniform(0.5, 2)])
    return {name: rng.standard_normal(net.blobs[name].shape).astype(np.float32) for name in net.inputs}


@pytest.mark.parametrize("seed", range(30))
def test_any_subset_of_the_rules_gives_the_same_numbers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = inspector.loads(random_net(rng))
    net.check()
    inputs = given_values(net, rng)
    feeds = {net.blobs[name].root: array for name, array in inputs.items()}
    blobs = [top for node in net.layers for top in node.tops]
    net.engine = "reference"
    net.forward(**inputs)
    values = dict(net.executor.values)
    for trial in range(6):
        rules = DEFAULT if trial == 0 else tuple(rule for rule in FAST if rng.random() < 0.6)
        outputs = [net.blobs[name] for name in net.outputs]
        extra = [blob for blob in blobs if rng.random() < 0.15]
        engine = Engine(net.graph, net.weights, rules, int(rng.integers(1, 3)))
        found = engine.forward(feeds, [*outputs, *extra], rng)
        again = engine.forward(feeds, [*outputs, *extra], rng)  # memory that is used again starts dirty
        for blob, array in found.items():
            assert difference(array, values[blob]) <= 1e-5, (blob.name, [rule.__name__ for rule in rules])
            np.testing.assert_array_equal(again[blob], array)


def test_without_rules_there_is_a_step_for_every_layer() -> None:
    net = inspector.load("squeezenet")
    steps = plan(net.graph, [net.blobs["data"]], [net.blobs["prob"]]).steps
    assert [(step.kind, step.node) for step in steps] == [("layer", node) for node in net.layers if node.type != "Input"]


def described(net: Net, *keep: str) -> dict[str, tuple[str, str]]:
    """Per step of the default plan its kernel, and the types of all layers that it stands for."""
    wanted = [net.blob(name) for name in keep or net.outputs]
    arranged = layout(plan(net.graph, [net.blobs[name] for name in net.inputs], wanted, DEFAULT))
    return {
        step.node.name: (kernel(arranged.plan, arranged.values, step), " ".join(node.type for node in step.nodes))
        for step in arranged.plan.steps
    }


def test_the_steps_of_a_residual_block() -> None:
    steps = described(inspector.load("resnet50"))
    assert steps["conv1"] == ("plane columns", "Convolution BatchNorm Scale ReLU")
    merged = "Convolution Convolution BatchNorm Scale BatchNorm Scale ReLU"
    assert steps["res2a_branch1"] == ("direct product", merged)  # the projection and the first 1x1 are one product
    assert steps["res2a_branch2b"] == ("columns", "Convolution BatchNorm Scale ReLU")
    assert steps["res2a_branch2c"] == ("direct product", "Convolution BatchNorm Scale Eltwise ReLU Split")
    assert steps["fc1000"][0] == "vector product" or steps["fc1000"][0] == "product"
    assert not {"res2a", "bn2a_branch1", "scale2a_branch1", "res2a_relu"} & steps.keys()


def test_an_inception_module_has_no_concat() -> None:
    steps = described(inspector.load("googlenet"))
    reduced = steps["inception_3a/1x1"]
    assert reduced == ("direct product", "Convolution Convolution Convolution ReLU ReLU ReLU")
    assert not any("Concat" in name or "output" in name for name in steps)
    assert "inception_3a/3x3_reduce" not in steps


def test_what_is_kept_is_not_swallowed() -> None:
    net = inspector.load("resnet50")
    steps = described(net, "prob", "conv1@conv1")
    assert steps["conv1"][1] == "Convolution"
    assert steps["bn_conv1"][1] == "BatchNorm Scale ReLU"
    assert described(net, "res2a_branch1@res2a_branch1")["res2a_branch1"][1].count("Convolution") >= 1


def test_only_what_is_needed_is_computed() -> None:
    steps = described(inspector.load("caffenet"), "pool2")
    assert list(steps) == ["conv1", "pool1", "norm1", "conv2", "pool2"]


def told(*arguments: str) -> Any:
    result = CliRunner().invoke(main, ["plan", *arguments, "--format", "json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_command_tells_every_layer_its_step_and_every_value_its_memory() -> None:
    answer = told("googlenet", "--shape", "data=1x3x224x224")
    lines = answer["lines"]
    layers = {name for line in lines for name in [line["layer"], *line["fuses"]]}
    assert layers == {node.name for node in inspector.load("googlenet").layers} - {"data"}
    assert sum({line["step"]: 1 + len(line["fuses"]) for line in lines}.values()) >= answer["layers"] == len(layers)
    assert all(line["at"] + line["bytes"] <= answer["memory"] for line in lines if line["at"] is not None)
    assert answer["memory"] < answer["values"] / 3
    assert {line["within"] for line in lines} >= {"inception_3a/output", None}
    assert [line["until"] for line in lines if line["blob"] == "prob"] == [None]
    (first,) = [line for line in lines if line["blob"] == "pool1/3x3_s2"]
    assert (first["shape"], first["layout"], first["bytes"]) == ([1, 64, 56, 56], "pixels", 4 * 64 * 56 * 56)


def test_the_command_shows_the_specification_and_what_is_asked_for() -> None:
    lines = told("lenet", "--engine", "reference")["lines"]
    assert {line["kernel"] for line in lines} == {"specification"}
    assert len(lines) == len(inspector.load("lenet").layers) - 1
    assert [line["layer"] for line in told("lenet", "--blob", "pool1")["lines"]] == ["conv1", "pool1"]
    result = CliRunner().invoke(main, ["plan", "lenet"])
    assert "7 steps for 8 layers" in result.stdout
    assert "relu1" in result.stdout


@pytest.mark.parametrize("name", ["caffenet", "squeezenet", "googlenet", "resnet50", "mobilenet", "vgg16"])
def test_values_that_live_together_share_no_memory(name: str) -> None:
    net = inspector.load(name)
    wanted = [net.blobs[output] for output in net.outputs]
    arranged = layout(plan(net.graph, [net.blobs["data"]], wanted, DEFAULT))
    values = list(arranged.values.values())
    lives = [(value.bytes // 4, *value.lives) for value in values]
    places, total = offsets(lives, reuse=True)
    for i, (size, first, last) in enumerate(lives):
        assert places[i] >= 0 and places[i] + size <= total and places[i] % 16 == 0
        for j in range(i):
            together = lives[j][1] <= last and first <= lives[j][2]
            apart = places[i] + size <= places[j] or places[j] + lives[j][0] <= places[i]
            assert apart or not together
    assert total <= 0.7 * sum(size for size, _, _ in lives)
    at_once = max(sum(size for size, first, last in lives if first <= step <= last) for step in range(len(arranged.plan.steps)))
    assert total <= 1.3 * at_once


def small(name: str, size: int, batch: int) -> Net:
    """A model of the shelf on images so small that it runs quickly, with made-up weights."""
    path = Path(inspector.__file__).parent.parent / "models" / name / "deploy.prototxt"
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"(dim|input_dim): (224|227)\b", rf"\1: {size}", text)
    text = re.sub(r"kernel_size: 7(\s+stride: 1\s+)", r"global_pooling: true\1", text)  # googlenet ends in a fixed 7x7
    net = inspector.loads(text)
    net.reshape(**{net.inputs[0]: (batch, 3, size, size)})
    return net


@pytest.mark.parametrize(("name", "size"), [("squeezenet", 97), ("googlenet", 67), ("resnet50", 65), ("mobilenet", 65)])
@pytest.mark.parametrize(("engine", "batch"), [("default", 3), ("fast", 1)])
def test_engines_agree(name: str, size: int, engine: str, batch: int) -> None:
    rng = np.random.default_rng(batch)
    net = small(name, size, batch)
    inputs = given_values(net, rng)
    net.engine = "reference"
    (scores,) = [node.bottoms[0].name for node in net.layers if node.type == "Softmax"]
    expected = net.forward([scores, *net.outputs], **inputs)
    net.engine = engine
    found = net.forward([scores, *net.outputs], **inputs)
    for blob, array in expected.items():
        assert difference(found[blob], array) <= (1e-4 if engine == "fast" else 1e-5)


def test_the_number_of_threads_changes_only_rounding() -> None:
    net = small("squeezenet", 63, 5)
    inputs = given_values(net, np.random.default_rng(2))
    results = []
    for net.threads in (1, 2):
        results.append(net.forward(["conv10"], **inputs)["conv10"])
    assert difference(results[1], results[0]) <= 1e-6


NET = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 7 dim: 6 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "y"
        convolution_param { num_output: 5 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "bn" type: "BatchNorm" bottom: "y" top: "y" }
layer { name: "relu" type: "ReLU" bottom: "y" top: "y" }
layer { name: "ip" type: "InnerProduct" bottom: "y" top: "z" inner_product_param { num_output: 4 } }
"""


def test_a_parameter_that_somebody_holds_may_change_between_runs() -> None:
    net, rng = inspector.loads(NET), np.random.default_rng(0)
    inputs = given_values(net, rng)
    reference = inspector.loads(NET, engine="reference")
    held = {name: [view.data for view in views] for name, views in net.params.items()}

    def agree() -> None:
        for name, views in reference.params.items():
            for view, array in zip(views, held[name], strict=True):
                view.data = array
        assert difference(net.forward(**inputs)["z"], reference.forward(**inputs)["z"]) <= 1e-5

    agree()
    for name, index in (("conv", 0), ("conv", 1), ("bn", 1), ("ip", 0), ("ip", 1)):
        held[name][index][...] *= 1.5
        agree()
    net.params["conv"][0].data = rng.standard_normal((5, 3, 3, 3))
    agree()


def test_backward_after_a_planned_forward() -> None:
    text = "force_backward: true\n" + NET
    net, reference = inspector.loads(text), inspector.loads(text, engine="reference")
    inputs = given_values(net, np.random.default_rng(1))
    for name, views in net.params.items():
        for view, other in zip(views, reference.params[name], strict=True):
            other.data = view.data
    dz = np.random.default_rng(3).standard_normal((2, 4)).astype(np.float32)
    net.forward(**inputs)
    reference.forward(**inputs)
    np.testing.assert_array_equal(net.backward(z=dz)["x"], reference.backward(z=dz)["x"])
    np.testing.assert_array_equal(net.params["conv"][0].diff, reference.params["conv"][0].diff)


def test_random_layers_draw_the_same_numbers_in_every_engine() -> None:
    text = """
        layer { name: "r" type: "DummyData" top: "r" dummy_data_param { shape { dim: 2 dim: 3 dim: 8 dim: 9 }
                data_filler { type: "gaussian" } } }
        layer { name: "conv" type: "Convolution" bottom: "r" top: "y" convolution_param { num_output: 4 kernel_size: 3
                weight_filler { type: "xavier" } } }
        layer { name: "relu" type: "ReLU" bottom: "y" top: "y" }"""
    runs = {}
    for engine in ("default", "reference"):
        net = inspector.loads(text, engine=engine)
        net.seed(5)
        runs[engine] = [net.forward()["y"] for _ in range(2)]
        runs[engine].append(net.executor.rng.random())
    assert difference(runs["default"][0], runs["reference"][0]) <= 1e-5
    assert difference(runs["default"][1], runs["reference"][1]) <= 1e-5
    assert runs["default"][2] == runs["reference"][2]
    net = inspector.loads(text)
    net.seed(5)
    y = net.forward()["y"]
    net.backward(y=y)
    assert difference(net.executor.values[net.blobs["y"]], y) <= 1e-5  # made afterwards, from the same random numbers
    assert net.forward()["y"].shape == y.shape


def test_blobs_may_be_fed_in_the_middle() -> None:
    net = inspector.load("lenet")
    inputs = given_values(net, np.random.default_rng(4))
    pool2 = net.forward(["pool2", "prob"], **inputs)
    again = net.forward(["prob"], pool2=pool2["pool2"], data=0 * inputs["data"])
    assert difference(again["prob"], pool2["prob"]) <= 1e-6


def test_results_are_the_callers_own() -> None:
    net = inspector.load("lenet")
    inputs = given_values(net, np.random.default_rng(4))
    first = net.forward(["conv1", "prob"], **inputs)
    before = {name: array.copy() for name, array in first.items()}
    net.forward(["conv1", "prob"], data=inputs["data"] + 1)
    for name, array in first.items():
        np.testing.assert_array_equal(array, before[name])
        assert array.flags.c_contiguous and array.dtype == np.float32


def test_an_engine_nobody_knows() -> None:
    with pytest.raises(inspector.InspectorError, match="reference") as caught:
        inspector.load("lenet", engine="quick")
    assert caught.value.code == "unknown-engine"
    assert inspector.load("lenet", fast=True).engine == "fast"
    assert set(RULES) == {"default", "fast", "reference"}


@pytest.mark.skipif(FOLDER is None, reason="no reference folder: set ALEXINSPECT_REFERENCE")
def test_winograd_on_trained_weights() -> None:
    """Outputs of real models within 1e-4."""
    for oracle in sorted((FOLDER / "models").glob("*/caffe_oracle.npz")):  # type: ignore[operator]
        with np.load(oracle, allow_pickle=False) as archive:
            inputs = {key[3:]: archive[key] for key in archive if key.startswith("in:")}
            outputs = {key[4:]: archive[key] for key in archive if key.startswith("out:")}
        folder = oracle.parent
        if (folder / "weights.caffemodel").stat().st_size > 30e6:
            continue  # the small ones have all kinds of layers too
        deploy = next(path for path in (folder / "deploy.prototxt", folder / "deploy.derived.prototxt") if path.is_file())
        net = inspector.load(
            deploy, given={name: x.shape for name, x in inputs.items()}, weights=folder / "weights.caffemodel", fast=True, threads=1
        )
        found = net.forward(list(outputs), **inputs)
        for name, array in outputs.items():
            assert difference(found[name], array) <= 1e-4, (folder.name, name)


def test_threads_are_as_many_as_wanted_or_as_blas_was_told_and_never_more_than_cores() -> None:
    net = inspector.load("lenet", threads=1)
    assert net.planner is not None and net.planner.workers.count == 1
    net.threads = 1000
    assert net.planner.workers.count <= cores()
    threadpoolctl = pytest.importorskip("threadpoolctl")
    with threadpoolctl.threadpool_limits(1, "blas"):
        net.threads = None
        assert net.planner.workers.count == 1
        net.forward(data=np.zeros((64, 1, 28, 28)))
        assert {pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"} == {1}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_the_memory_of_a_run_is_that_of_its_weights_and_little_more(tmp_path: Path) -> None:
    """Weights are read once, straight to where they are used."""
    text = """
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 dim: 40 dim: 41 } } }
        layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 32 kernel_size: 3 } }
        layer { name: "d" type: "Convolution" bottom: "c" top: "d" convolution_param { num_output: 512 kernel_size: 5 stride: 3 } }
        layer { name: "e" type: "Convolution" bottom: "d" top: "e" convolution_param { num_output: 2000 kernel_size: 5 } }
        layer { name: "f" type: "InnerProduct" bottom: "e" top: "f" inner_product_param { num_output: 200 } }"""
    net = inspector.loads(text)
    (tmp_path / "net.prototxt").write_text(text, encoding="utf-8")
    arrays = {name: [np.full(view.shape, 0.01, np.float32) for view in views] for name, views in net.params.items()}
    write_model(tmp_path / "net.caffemodel", net.graph.proto, arrays)
    code = f"""if True:
        import re, inspector, numpy
        from pathlib import Path
        net = inspector.load(r"{tmp_path / "net.prototxt"}", weights=r"{tmp_path / "net.caffemodel"}", threads=1)
        net.forward(x=numpy.ones((1, 3, 40, 41)))
        print(1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]))"""
    child = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    stored = (tmp_path / "net.caffemodel").stat().st_size
    assert stored > 1e8
    # the largest of the weights, 102 MB, are there twice for a moment: as they are stored and as the kernel wants them
    assert int(child.stdout) < 2 * stored + 100e6
