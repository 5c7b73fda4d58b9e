"""Nets by meaning, weights by value, and the first layer whose numbers differ."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import inspector
from caffe_proto import caffe_pb2
from cli.main import main
from inspector import compare, shelf
from inspector.caffemodel import open_model, write_model

FORMS = ("table", "json", "csv", "markdown")
ALEXNET = (shelf.folder() / "alexnet" / "deploy.prototxt").read_text()


def differences(before: str, after: str) -> list[str]:
    return [str(d) for d in compare.nets(inspector.loads(before), inspector.loads(after)) if not d.follows]


def test_a_net_is_itself_also_when_it_states_its_defaults() -> None:
    assert differences(ALEXNET, ALEXNET) == []
    stated = ALEXNET.replace("num_output: 4096", "num_output: 4096 bias_term: true axis: 1")
    assert stated != ALEXNET
    assert differences(ALEXNET, stated) == []


def test_a_changed_setting_is_told_once_and_what_follows_apart() -> None:
    changed = ALEXNET.replace("pad: 2", "pad: 1")
    found = compare.nets(inspector.loads(ALEXNET), inspector.loads(changed))
    assert [str(d) for d in found if not d.follows] == ["conv2: convolution_param.pad: 2 became 1"]
    behind = [d.layer for d in found if d.follows]
    assert behind[0] == "conv2"
    assert "pool5" not in behind  # ceil((13 - 3) / 2) = ceil((12 - 3) / 2)


def test_a_renamed_layer_is_no_loss_and_no_gain() -> None:
    assert differences(ALEXNET, ALEXNET.replace('name: "fc7"', 'name: "fc7_new"')) == ["renamed fc7 to fc7_new"]
    # a renamed blob takes its readers along
    assert differences(ALEXNET, ALEXNET.replace('"norm1"', '"n1"')) == ["renamed norm1 to n1"]


def test_removed_added_and_rewired_layers() -> None:
    start = ALEXNET.index('name: "norm1"')
    layer = ALEXNET.rindex("layer", 0, start)
    end = ALEXNET.index("layer", start)
    without = (ALEXNET[:layer] + ALEXNET[end:]).replace('bottom: "norm1"', 'bottom: "conv1"')
    assert differences(ALEXNET, without) == ["removed norm1 (LRN)", "pool1: bottoms: norm1 became conv1"]
    assert differences(without, ALEXNET) == ["added norm1 (LRN)", "pool1: bottoms: conv1 became norm1"]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A small net, and two files of weights for it that differ from its second layer on."""
    net = tmp_path / "net.prototxt"
    net.write_text("""
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
        layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" inner_product_param { num_output: 4 bias_term: false } }
        layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" inner_product_param { num_output: 5 bias_term: false } }
        layer { name: "c" type: "ReLU" bottom: "b" top: "b" }""")
    rng = np.random.default_rng(2)
    one, two = rng.standard_normal((4, 3)).astype(np.float32), rng.standard_normal((5, 4)).astype(np.float32)
    proto = caffe_pb2.NetParameter()
    proto.layer.add(name="a", type="InnerProduct")
    proto.layer.add(name="b", type="InnerProduct")
    write_model(tmp_path / "1.caffemodel", proto, {"a": [one], "b": [two]})
    two[3, 1] += 0.5
    write_model(tmp_path / "2.caffemodel", proto, {"a": [one], "b": [two]})
    return net, tmp_path / "1.caffemodel", tmp_path / "2.caffemodel"


def test_weights_by_value(files: tuple[Path, Path, Path]) -> None:
    _, one, two = files
    assert [o.verdict for o in compare.weights(open_model(one), open_model(one))] == ["identical", "identical"]
    same, found = compare.weights(open_model(one), open_model(two))
    assert (same.layer, same.verdict, same.largest) == ("a", "identical", 0)
    assert (found.layer, found.index, found.a, found.verdict, found.apart) == ("b", 0, (5, 4), "differs", 1)
    assert found.largest == pytest.approx(0.5, rel=1e-6)
    largest = max(np.abs(blob.read()).max() for layer in open_model(two).layers if layer.name == "b" for blob in layer.blobs)
    assert found.relative == pytest.approx(0.5 / largest, rel=1e-6)
    close = compare.weights(open_model(one), open_model(two), atol=0.6)[1]
    assert (close.verdict, close.apart, close.same) == ("close", 0, True)


def test_blobs_that_one_file_lacks_or_has_in_another_shape(tmp_path: Path) -> None:
    proto = caffe_pb2.NetParameter()
    for name in "abc":
        proto.layer.add(name=name, type="InnerProduct")
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    bad = np.array([[np.nan, 1, np.inf], [2, 3, 4]], np.float32)
    write_model(tmp_path / "1.caffemodel", proto, {"a": [values], "b": [values], "c": [bad]})
    write_model(tmp_path / "2.caffemodel", proto, {"a": [values, values[0]], "b": [values.T], "c": [values]})
    found = compare.weights(open_model(tmp_path / "1.caffemodel"), open_model(tmp_path / "2.caffemodel"))
    verdicts = {(o.layer, o.index): o.verdict for o in found}
    assert verdicts == {("a", 0): "identical", ("a", 1): "added", ("b", 0): "reshaped", ("c", 0): "differs"}
    result = CliRunner().invoke(
        main, ["compare", *(str(tmp_path / f"{i}.caffemodel") for i in (2, 1)), "--format", "json"], catch_exceptions=False
    )
    data = json.loads(result.stdout)
    assert (result.exit_code, data["same"]) == (1, False)
    rows = {(row["layer"], row["index"]): row for row in data["blobs"]}
    assert rows["a", 1]["verdict"] == "removed"
    assert rows["c", 0]["largest"] is None  # infinitely far apart, which JSON cannot say


def test_every_form_says_the_same(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    net, one, two = map(str, files)
    np.savez(tmp_path / "in.npz", x=np.arange(6, dtype=np.float32).reshape(2, 3) + 1)
    ran = ["--run", str(tmp_path / "in.npz"), "--weights", one, "--weights-b", two]
    for arguments, named in (
        (["alexnet", "caffenet"], "norm1"),
        ([one, two], "b[0]"),
        ([net, one], "a"),
        ([net, net, *ran], "b"),
    ):
        results = {form: CliRunner().invoke(main, ["compare", *arguments, "--format", form]) for form in FORMS}
        assert len({result.exit_code for result in results.values()}) == 1
        rows = list(csv.DictReader(results["csv"].stdout.splitlines()))
        assert any(named in row.values() for row in rows)
        table = [line for line in results["markdown"].stdout.splitlines() if line.startswith("| ")]
        assert len(table) == len(rows) + 2
        assert json.loads(results["json"].stdout)["same"] is (results["table"].exit_code == 0)


def test_the_first_layer_whose_numbers_differ(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    net, one, two = files
    np.savez(tmp_path / "in.npz", x=np.arange(6, dtype=np.float32).reshape(2, 3) + 1)
    line = ["compare", str(net), str(net), "--run", str(tmp_path / "in.npz"), "--weights", str(one), "--format", "json"]
    result = CliRunner().invoke(main, [*line, "--weights-b", str(two)])
    assert result.exit_code == 1, result.output
    data = json.loads(result.stdout)
    assert data["first"] == "b"
    assert data["outcomes"][0]["largest"] == pytest.approx(
        0.5 * abs(inspector.load(net, weights=one).forward(["a"], x=np.arange(6).reshape(2, 3) + 1)["a"][:, 1]).max(), rel=1e-5
    )
    result = CliRunner().invoke(main, line)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"same": True, "first": None, "compared": 4, "outcomes": []}


def test_walking_forgets_what_nobody_reads_any_more(files: tuple[Path, Path, Path]) -> None:
    net = inspector.load(files[0], weights=files[1])
    held = [len(net.executor.values) for _ in net.executor.walk({net.blob("x"): np.ones((2, 3), np.float32)})]
    assert held == [1, 2, 2, 2]


def test_exit_statuses(files: tuple[Path, Path, Path]) -> None:
    net, one, two = map(str, files)
    run = CliRunner().invoke
    assert run(main, ["compare", "lenet", "lenet"]).exit_code == 0
    assert run(main, ["compare", "alexnet", "caffenet"]).exit_code == 1
    assert run(main, ["compare", one, two]).exit_code == 1
    assert run(main, ["compare", net, one]).exit_code == 0
    assert run(main, ["compare", "lenet", one]).exit_code == 1
    assert run(main, ["compare", "lenet", "nowhere.prototxt"]).exit_code == 2
