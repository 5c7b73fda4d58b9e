"""Layers explained: the arithmetic with its numbers, the two walks through AlexNet, and types that document themselves."""

from __future__ import annotations

import csv
import json

import pytest
from click.testing import CliRunner

import inspector
from caffe_proto import caffe_pb2
from cli.main import main
from inspector import explain, layer_docs, prototxt
from inspector.errors import InspectorError
from inspector.layers import registry
from inspector.window import Window


def answer(*arguments: str, status: int = 0, stdin: str | None = None) -> str:
    result = CliRunner().invoke(main, arguments, input=stdin)
    assert result.exit_code == status, result.output
    return result.stdout


def sections(model: str, layer: str, **options: bool) -> dict[str, str]:
    """What is said under each heading."""
    found = explain.explain(inspector.load(model), layer, **options)
    return {section.title: "\n".join(section.lines) for section in found.sections}


# ---- walks

CLASSIC = [
    "55x55x96",
    "27x27x96",
    "27x27x256",
    "13x13x256",
    "13x13x384",
    "13x13x384",
    "13x13x256",
    "6x6x256",
    "4096",
    "4096",
    "1000",
]
TENSORFLOW = [
    "56x56x96",
    "27x27x96",
    "27x27x256",
    "13x13x256",
    "13x13x384",
    "13x13x384",
    "13x13x256",
    "6x6x256",
    "4096",
    "4096",
    "1000",
]


def test_the_classic_walk_through_alexnet() -> None:
    """As in the paper and every course since: 227 x 227, no padding in conv1."""
    data = json.loads(answer("explain", "alexnet", "--walk", "--format", "json"))
    assert [layer["image"] for layer in data["layers"]] == ["227x227x3", *CLASSIC]
    assert [layer["tensorflow"] for layer in data["layers"]] == [None] * 12


def test_the_walk_with_tensorflows_padding() -> None:
    """224 x 224, convolutions SAME, poolings VALID, no groups: the numbers of a common TensorFlow port."""
    data = json.loads(answer("explain", "alexnet", "--tensorflow", "--input", "224", "--format", "json"))
    assert [layer["tensorflow"] for layer in data["layers"]] == ["224x224x3", *TENSORFLOW]
    parameters = {layer["layer"]: layer["tensorflow_parameters"] for layer in data["layers"]}
    assert parameters["conv2"] == 5 * 5 * 96 * 256 + 256  # twice what two groups have
    assert sum(parameters.values()) == 62_378_344  # of AlexNet without groups
    rows = list(csv.DictReader(answer("explain", "alexnet", "--tensorflow", "--input", "224", "--format", "csv").splitlines()))
    assert [row["tensorflow"] for row in rows[:-1]] == ["224x224x3", *TENSORFLOW]
    assert rows[0]["makes"] == "224x224x3"
    assert rows[1]["makes"] == "54x54x96"  # what Caffe makes of it
    table = answer("explain", "alexnet", "--tensorflow", "--input", "224")
    assert all(size in table for size in TENSORFLOW)


def test_branches_that_do_not_meet_in_tensorflow_are_unknown() -> None:
    text = """layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 dim: 12 dim: 12 } } }
    layer { name: "a" type: "Convolution" bottom: "x" top: "a" convolution_param { num_output: 2 kernel_size: 4 stride: 2 } }
    layer { name: "b" type: "Pooling" bottom: "x" top: "b" pooling_param { kernel_size: 4 stride: 2 } }
    layer { name: "c" type: "Concat" bottom: "a" bottom: "b" top: "c" }"""
    shapes = {blob.name: shape for blob, shape in explain.tensorflow(inspector.loads(text).graph).items()}
    assert shapes["a"] == (1, 2, 6, 6)
    assert shapes["b"] == (1, 3, 5, 5)
    assert shapes["c"] is None


def test_the_walk_says_which_parameters_it_leaves_out() -> None:
    assert "25,610,269 in the whole net" in answer("explain", "resnet50")
    assert "whole net" not in answer("explain", "alexnet")


# ---- one layer


def test_conv1() -> None:
    found = sections("alexnet", "conv1")
    assert "height and width: (227 + 2*0 - 11)/4 + 1 = 55\n" in found["What it makes"]
    assert found["Parameters"].startswith("11*11*3*96 + 96 = 34,944\n")
    assert "10*96*55*55 outputs x 11*11*3 weights each = 1,054,152,000 multiply-accumulates" in found["Cost of one forward pass"]
    assert "conv1: 10*96*55*55*4 = 11,616,000 bytes" in found["Memory"]
    assert "im2col: 4,392,300 bytes" in found["Memory"]
    assert found["What it reads"] == "data: 10x3x227x227, made by layer data (Input)"
    assert found["What it feeds"] == "conv1: read by relu1 (ReLU)"
    assert found["What it sees"] == "a cell of conv1 sees 11x11 of data, 4 further for each cell"
    assert "What each group sees" not in found


def test_the_two_halves_of_conv2() -> None:
    found = sections("alexnet", "conv2")
    assert found["Parameters"].startswith("5*5*48*256 + 256 = 307,456\n")
    groups = found["What each group sees"].splitlines()
    assert groups[1:3] == [
        "group 1: channels 0 to 47 of pool1 -> channels 0 to 127 of conv2",
        "group 2: channels 48 to 95 of pool1 -> channels 128 to 255 of conv2",
    ]
    assert "GPU" in found["What each group sees"]
    depthwise = sections("mobilenet", "conv2_1/dw")["What each group sees"]
    assert "every channel filtered for itself" in depthwise
    assert "group 32: channels 31 of conv1 -> channels 31 of conv2_1/dw" in depthwise


def test_fully_connected() -> None:
    found = sections("alexnet", "fc6")
    assert "all of 256*6*6 = 9,216 inputs reach each of 4,096 outputs" in found["What it makes"]
    assert found["Parameters"].startswith("9216*4096 + 4096 = 37,752,832\n")
    assert "10 x 37,748,736 weights = 377,487,360 multiply-accumulates" in found["Cost of one forward pass"]


def test_others() -> None:
    assert "axis 1: 64 + 128 + 32 + 32 = 256" in sections("googlenet", "inception_3a/output")["What it makes"]
    assert "in place" in sections("alexnet", "relu1")["What it makes"]
    assert "in place: nothing of its own" in sections("alexnet", "relu1")["Memory"]
    assert "prob: an output of the net" in sections("alexnet", "prob")["What it feeds"]
    readers = sections("googlenet", "pool2/3x3_s2")["What it feeds"]
    assert all(f"inception_3a/{name}" in readers for name in ("1x1", "3x3_reduce", "5x5_reduce", "pool"))  # behind the split


@pytest.mark.parametrize("model", ["lenet", "googlenet", "mobilenet", "resnet50"])
def test_every_layer_has_something_to_say(model: str) -> None:
    net = inspector.load(model)
    for node in net.layers[:: max(1, len(net.layers) // 12)]:
        found = explain.explain(net, node.name, tensorflow=True)
        assert len(found.sections) >= 4
        json.dumps(found.to_dict())
        assert max(map(len, found.lines(width=80))) <= 80


def test_a_layer_that_is_not_there() -> None:
    with pytest.raises(InspectorError, match=r"no layer 'conv9'; did you mean 'conv"):
        explain.explain(inspector.load("alexnet"), "conv9")


# ---- formulas: every one computes what it says


def evaluated(line: str) -> tuple[float, int]:
    """The left side of a formula worked out by Python, and the right side."""
    formula, _, rest = line.partition(" = ")
    return eval(formula, {"__builtins__": {}}), int(rest.partition(",")[0].partition(";")[0])  # our own text


@pytest.mark.parametrize("n", [7, 12, 28])
@pytest.mark.parametrize("kernel", [2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("pad", [0, 1])
def test_formulas(n: int, kernel: int, stride: int, pad: int) -> None:
    window = Window((kernel,), (stride,), (pad,), (1,))
    line = explain.convolution(window, 0, n)
    left, right = evaluated(line)
    assert right == window.convolved([n])[0] == int(left)
    assert ("rounded down" in line) == (left != right)
    line = explain.pooling(window, 0, n)
    left, right = evaluated(line)
    out = window.pooled([n])[0]
    assert 0 <= right - left < 1
    assert ("rounded up" in line) == (left != right)
    assert ("dropped" in line) == (out != right)
    assert out == right or line.endswith(f"dropped: {out}")
    assert evaluated(explain.deconvolution(window, 0, n)) == (window.deconvolved([n])[0],) * 2


def test_tensorflows_formulas() -> None:
    """What TensorFlow's documentation says of its two schemes."""
    assert [explain.same(n, s) for n, s in ((224, 4), (227, 4), (13, 1), (7, 2))] == [56, 57, 13, 4]
    assert [explain.valid(n, e, s) for n, e, s in ((56, 3, 2), (55, 3, 2), (224, 11, 4), (3, 5, 1))] == [27, 27, 54, 0]
    found = sections("alexnet", "pool2", tensorflow=True)["In TensorFlow"]
    assert "SAME: ceil(27/2) = 14, padded by 1 before and 1 behind" in found
    assert "VALID: ceil((27 - 3 + 1)/2) = 13" in found
    assert "here, in Caffe: 13x13" in found


def test_the_command() -> None:
    data = json.loads(answer("explain", "alexnet", "conv2", "--format", "json"))
    facts = {key: value for section in data["sections"] for key, value in section.items()}
    assert facts["parameters"] == 307_456
    assert facts["groups"] == 2
    assert facts["macs"] == 2_239_488_000
    assert facts["im2col_bytes"] == 4 * 96 * 5 * 5 * 27 * 27
    assert "conv2 (Convolution)" in answer("explain", "alexnet", "conv2")
    rows = list(csv.DictReader(answer("explain", "alexnet", "conv2", "--format", "csv").splitlines()))
    assert {"section": "Parameters", "line": "5*5*48*256 + 256 = 307,456"} in rows
    marked = answer("explain", "alexnet", "conv2", "--format", "markdown")
    assert "### Parameters\n\n- 5\\*5\\*48\\*256 + 256 = 307,456\n" in marked
    assert marked.count("\n- ") == len(rows)
    assert answer("explain", "alexnet", "conv2", "--format", "table") == answer("explain", "alexnet", "conv2")
    odd = answer("explain", "alexnet", "conv1", "--input", "101")
    assert "(101 + 2*0 - 11)/4 + 1 = 23, 90/4 = 22.5 being rounded down" in " ".join(odd.split())


# ---- types


def test_every_type_documents_itself() -> None:
    pages = layer_docs.pages()
    assert [page.type for page in pages] == sorted(registry)
    for page in pages:
        assert len(page.sentence) > 10, page.type
        assert page.rule, page.type
        assert not page.sentence.endswith(":"), page.type
        assert not any("layer {" in paragraph for paragraph in (page.sentence, *page.rest)), page.type


@pytest.mark.parametrize("kind", sorted(registry))
def test_every_example_is_a_layer_of_its_type(kind: str) -> None:
    example = layer_docs.page(kind).example
    document = prototxt.parse(example, caffe_pb2.NetParameter, "example")
    assert not document.findings
    layers = list(document.message.layer) or list(document.message.layers)
    assert all(layer.type == kind for layer in layers if layer.type or kind != "Input")
    assert layers


def test_settings_are_the_schemas() -> None:
    page = layer_docs.page("pooling")
    settings = {setting.name: setting for setting in page.settings}
    assert settings["pool"].type == "MAX | AVE | STOCHASTIC"
    assert settings["pool"].default == "MAX"
    assert settings["stride"].default == "1"
    assert settings["kernel_size"].default == ""
    assert settings["global_pooling"].default == "false"
    messages = {kind: {setting.message for setting in layer_docs.page(kind).settings} for kind in registry}
    assert messages["Deconvolution"] == {"convolution_param"}
    assert messages["SoftmaxWithLoss"] == {"softmax_param", "loss_param"}
    assert messages["LSTM"] == {"recurrent_param"}
    assert messages["LRN"] == {"lrn_param"}
    assert messages["Data"] == {"data_param", "transform_param"}
    assert layer_docs.page("Convolution").settings[2].type == "repeated uint32"


def test_versions() -> None:
    assert "1.0" not in layer_docs.versions("Swish")
    assert layer_docs.versions("Swish") == ("master",)
    assert layer_docs.versions("Convolution")[0] == "v0.99"
    assert "v0.99" not in layer_docs.versions("Eltwise")


def test_layers_on_the_command_line() -> None:
    text = answer("layers", "Pooling")
    assert "rounded up" in " ".join(text.split())
    assert 'type: "Pooling"' in text
    data = json.loads(answer("layers", "--format", "json"))
    assert {page["type"] for page in data} == set(registry)
    assert json.loads(answer("layers", "elu", "--format", "json"))["settings"][0]["default"] == "1"
    assert len(answer("layers", "--format", "csv").splitlines()) == len(registry) + 1
    result = CliRunner().invoke(main, ["layers", "Poling"])
    assert result.exit_code == 2
    assert "did you mean 'Pooling'?" in result.stderr
