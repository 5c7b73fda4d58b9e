"""Costs: published totals worked out again from the papers' tables, sums that add up in every format, backward by hand."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import inspector
from cli.main import main
from inspector import cost, gradients, shelf
from inspector.errors import InspectorError
from inspector.layers import Costs, Layer, registry

ROOT = Path(__file__).resolve().parent.parent


def answer(*arguments: str, status: int = 0, stdin: str | None = None) -> str:
    result = CliRunner().invoke(main, arguments, input=stdin)
    assert result.exit_code == status, result.output
    return result.stdout


def per_image(model: str) -> int:
    report = cost.measure(inspector.load(model))
    macs = cost.per_image(report, report.total.forward.mac)
    assert isinstance(macs, int)
    return macs


# ---- the papers' nets, by their tables


def conv(size: int, kernel: int, channels: int, filters: int, groups: int = 1) -> int:
    return size * size * filters * kernel * kernel * channels // groups


# Krizhevsky et al., "ImageNet classification with deep convolutional neural networks", 2012, section 3.5, on images of 227 x 227:
# place, kernel, channels, filters, groups
ALEXNET = [(55, 11, 3, 96, 1), (27, 5, 96, 256, 2), (13, 3, 256, 384, 1), (13, 3, 384, 384, 2), (13, 3, 384, 256, 2)]
DENSE = 9216 * 4096 + 4096 * 4096 + 4096 * 1000


def test_alexnet() -> None:
    by_hand = sum(conv(*layer) for layer in ALEXNET) + DENSE
    assert by_hand == 724_406_816 == per_image("alexnet")


def test_groups_make_the_difference() -> None:
    """Who leaves groups out, as OpenCV's getFLOPS, finds 1.57 times the MACs; counting two FLOPs each, 3.1 times our MACs."""
    without = sum(conv(*layer[:4]) for layer in ALEXNET) + DENSE
    assert without == 1_135_256_096
    ungrouped = (shelf.folder() / "alexnet" / "deploy.prototxt").read_text().replace("group: 2", "group: 1")
    report = cost.measure(inspector.loads(ungrouped))
    assert report.total.forward.mac == 10 * without
    assert 2 * without / per_image("alexnet") == pytest.approx(3.13, abs=0.01)


# the CS231n notes' table of VGG-16 (cs231n.github.io/convolutional-networks): name, size, channels, weights without biases
VGG = [
    ("input", 224, 3, 0),
    ("conv1_1", 224, 64, 3 * 3 * 3 * 64),
    ("conv1_2", 224, 64, 3 * 3 * 64 * 64),
    ("pool1", 112, 64, 0),
    ("conv2_1", 112, 128, 3 * 3 * 64 * 128),
    ("conv2_2", 112, 128, 3 * 3 * 128 * 128),
    ("pool2", 56, 128, 0),
    ("conv3_1", 56, 256, 3 * 3 * 128 * 256),
    ("conv3_2", 56, 256, 3 * 3 * 256 * 256),
    ("conv3_3", 56, 256, 3 * 3 * 256 * 256),
    ("pool3", 28, 256, 0),
    ("conv4_1", 28, 512, 3 * 3 * 256 * 512),
    ("conv4_2", 28, 512, 3 * 3 * 512 * 512),
    ("conv4_3", 28, 512, 3 * 3 * 512 * 512),
    ("pool4", 14, 512, 0),
    ("conv5_1", 14, 512, 3 * 3 * 512 * 512),
    ("conv5_2", 14, 512, 3 * 3 * 512 * 512),
    ("conv5_3", 14, 512, 3 * 3 * 512 * 512),
    ("pool5", 7, 512, 0),
    ("fc6", 1, 4096, 7 * 7 * 512 * 4096),
    ("fc7", 1, 4096, 4096 * 4096),
    ("fc8", 1, 1000, 4096 * 1000),
]


def test_the_table_of_vgg16_in_the_cs231n_notes() -> None:
    """Layer by layer. The notes print 24M for the sum of the activations; their own rows add up to 15,237,608."""
    from inspector import memory_report

    net = inspector.load("vgg16", given={"data": (1, 3, 224, 224)})
    rows = {row.name: row for row in memory_report.measure(net).rows}
    macs = {line.name: line.forward.mac for line in cost.measure(net).lines}
    weights = {node.name: node.params[0].count if node.params else 0 for node in net.layers}
    for name, size, channels, parameters in VGG:
        assert rows[name].data == 4 * size * size * channels, name
        assert weights[name] == parameters, name
        assert macs[name] == parameters * (1 if name.startswith("fc") else size * size), name
    assert sum(rows[name].data for name, *_ in VGG) == 4 * 15_237_608
    assert sum(weights.values()) == sum(parameters for *_, parameters in VGG) == 138_344_128  # the notes: 138M


# Szegedy et al., "Going deeper with convolutions", 2014, table 1: size, channels, 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, projection
INCEPTIONS = [
    (28, 192, 64, 96, 128, 16, 32, 32),
    (28, 256, 128, 128, 192, 32, 96, 64),
    (14, 480, 192, 96, 208, 16, 48, 64),
    (14, 512, 160, 112, 224, 24, 64, 64),
    (14, 512, 128, 128, 256, 24, 64, 64),
    (14, 512, 112, 144, 288, 32, 64, 64),
    (14, 528, 256, 160, 320, 32, 128, 128),
    (7, 832, 256, 160, 320, 32, 128, 128),
    (7, 832, 384, 192, 384, 48, 128, 128),
]


def test_googlenet() -> None:
    total = conv(112, 7, 3, 64) + conv(56, 1, 64, 64) + conv(56, 3, 64, 192) + 1024 * 1000
    for size, channels, one, reduce3, three, reduce5, five, projection in INCEPTIONS:
        total += sum(conv(size, 1, channels, filters) for filters in (one, reduce3, reduce5, projection))
        total += conv(size, 3, reduce3, three) + conv(size, 5, reduce5, five)
    assert total == 1_582_671_872 == per_image("googlenet")


def test_resnet50() -> None:
    """He et al., "Deep residual learning for image recognition", 2015, table 1; the first 1x1 of a stage has its stride."""
    total = conv(112, 7, 3, 64) + 2048 * 1000
    channels = 64
    for size, width, blocks in ((56, 64, 3), (28, 128, 4), (14, 256, 6), (7, 512, 3)):
        for block in range(blocks):
            total += conv(size, 1, channels, width) + conv(size, 3, width, width) + conv(size, 1, width, 4 * width)
            total += conv(size, 1, channels, 4 * width) if block == 0 else 0
            channels = 4 * width
    assert total == 3_857_973_248 == per_image("resnet50")


def test_dilation_moves_no_more_weights() -> None:
    text = """layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 17 dim: 15 } } }
    layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
            convolution_param { num_output: 5 kernel_h: 3 kernel_w: 2 dilation: 4 bias_term: false } }"""
    [_, line] = cost.measure(inspector.loads(text)).lines
    assert line.forward == Costs(mac=2 * 5 * (17 - 8) * (15 - 4) * 3 * 2 * 3)


# ---- sums

SHIPPED = [
    (f"{path.parent.name}/{path.stem}", phase)
    for path in sorted(shelf.folder().glob("*/*.prototxt"))
    for phase in (("TEST",) if path.stem == "deploy" else ("TRAIN",))
]


def added(rows: list[dict[str, str]]) -> None:
    """The last row is the sum of the others in every column that can be summed."""
    *lines, total = rows
    for name in total:
        if name not in ("name", "type", "flops_per_byte", "percent", "bar"):
            figures = [int(row[name].replace(",", "")) for row in lines]
            assert sum(figures) == int(total[name].replace(",", "")), name
    assert sum(float(row["percent"]) for row in lines) == pytest.approx(100, abs=0.05 * len(lines))


@pytest.mark.parametrize(("model", "phase"), SHIPPED)
def test_totals_are_the_sums_of_the_rows(model: str, phase: str) -> None:
    net = inspector.load(model, phase=phase)
    totals = set()
    for by in ("layer", "type", "prefix"):
        report = cost.measure(net, backward=True, by=by)
        totals.add((report.total.forward, report.total.backward, report.total.moved, report.total.layers - len(net.layers)))
        assert not report.uncounted or not model.endswith("deploy")
    [(forward, *_)] = totals
    assert forward.mac == net.summary().totals.macs
    assert forward.bias == net.summary().totals.biases


DEPLOYED = [(model.removesuffix("/deploy"), "layer") for model, _ in SHIPPED if model.endswith("/deploy")]


@pytest.mark.parametrize(("model", "by"), [*DEPLOYED, ("googlenet", "type"), ("googlenet", "prefix"), ("resnet50", "prefix")])
def test_every_format_adds_up(model: str, by: str) -> None:
    call = ("cost", model, "--by", by, "--backward")
    rows = list(csv.DictReader(answer(*call, "--format", "csv").splitlines()))
    added(rows)
    names = ["name", "macs", "backward_macs", "flops", "bytes", "percent"]
    lines = [line for line in answer(*call, "--columns", ",".join(names), "--format", "markdown").splitlines() if "|" in line]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    added([dict(zip(names, row, strict=True)) for row in cells[2:]])
    data = json.loads(answer(*call, "--format", "json"))
    for part in ("forward", "backward"):
        for kind, total in data["total"][part].items():
            assert sum(line[part][kind] for line in data["lines"]) == total, (part, kind)
    assert sum(line["bytes"] for line in data["lines"]) == data["total"]["bytes"]
    assert str(data["total"]["forward"]["macs"]) == rows[-1]["macs"]
    assert {"macs", "flops", "bytes", "batch", "backward"} <= set(data["conventions"])
    table = answer(*call)
    assert f"{data['total']['forward']['macs']:,} multiply-accumulates" in " ".join(table.split())


def test_flops_are_two_per_mac_and_one_for_the_rest() -> None:
    assert cost.flops(Costs(mac=100, bias=20, add=3, multiply=4, divide=5, compare=6, exponential=7)) == 245


def test_intensity_says_what_is_moved() -> None:
    """A fully connected layer of 3 inputs and 5 outputs on a batch of 7: reads 21 + 15 + 5 numbers, writes 35."""
    text = """layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 7 dim: 3 } } }
    layer { name: "fc" type: "InnerProduct" bottom: "x" top: "fc" inner_product_param { num_output: 5 } }"""
    line = cost.measure(inspector.loads(text)).lines[1]
    assert line.moved == 4 * (21 + 15 + 5 + 35)
    assert line.intensity == pytest.approx((2 * 105 + 35) / 304)


def test_a_batch_is_worked_out_anew() -> None:
    report = json.loads(answer("cost", "alexnet", "--batch", "3", "--format", "json"))
    assert report["batch"] == 3
    assert report["total"]["forward"]["macs"] == 3 * 724_406_816
    train = json.loads(answer("cost", "alexnet/train_val", "--phase", "TRAIN", "--batch", "2", "--format", "json"))
    assert train["total"]["forward"]["macs"] == 2 * 724_406_816


# ---- backward

FROZEN = """
layer { name: "data" type: "Input" top: "data" top: "label" input_param { shape { dim: 4 dim: 3 dim: 9 dim: 7 } shape { dim: 4 } } }
layer { name: "one" type: "Convolution" bottom: "data" top: "one" param { lr_mult: 0 } param { lr_mult: 0 }
        convolution_param { num_output: 5 kernel_size: 3 } }
layer { name: "two" type: "Convolution" bottom: "one" top: "two" param { lr_mult: 1 } param { lr_mult: 0 }
        convolution_param { num_output: 6 kernel_size: 2 } }
layer { name: "three" type: "InnerProduct" bottom: "two" top: "three" inner_product_param { num_output: 8 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "three" bottom: "label" top: "loss" }
"""


def test_backward_counts_only_what_is_wanted() -> None:
    lines = {line.name: line for line in cost.measure(inspector.loads(FROZEN), backward=True).lines}
    two, three = 4 * 6 * 6 * 4 * 5 * 4, 4 * 144 * 8
    assert lines["one"].backward == Costs()  # frozen, and nobody wants the gradient of data
    assert lines["two"].backward == Costs(mac=two)  # its weights; not its bias, nor what the frozen layer makes
    assert lines["three"].backward == Costs(mac=2 * three, bias=4 * 8)  # weights and bottom, and the bias
    assert lines["loss"].backward == Costs(add=4, multiply=32)


def test_a_net_without_a_loss_is_taken_as_if_it_had_one() -> None:
    report = cost.measure(inspector.load("alexnet"), backward=True)
    lines = {line.name: line for line in report.lines}
    assert report.assumed
    assert "no loss" in cost.conventions(report)["backward"]
    assert lines["conv1"].backward.mac == lines["conv1"].forward.mac  # the weights' only
    learned = [line for line in report.lines if line.type in ("Convolution", "InnerProduct")]
    assert all(line.backward.mac == 2 * line.forward.mac for line in learned[1:])
    assert not cost.measure(inspector.loads(FROZEN), backward=True).assumed


def test_every_type_says_what_backward_costs() -> None:
    """Types that compute something have an answer of their own, or the base class's, which is forward's count."""
    silent = {name for name, cls in registry.items() if cls.backward_costs is Layer.backward_costs and cls.costs is not Layer.costs}
    assert silent == {"LSTMUnit"}


def test_every_case_of_real_caffe_can_be_counted(reference: Path) -> None:
    paths = sorted((reference / "layers").glob("*/*.prototxt"))
    assert paths
    for path in paths:
        net = inspector.load(path)
        if net.error is not None:
            continue
        report = cost.measure(net, backward=True)
        unknown = {name for name, _, _ in report.uncounted}
        assert unknown <= {node.name for node in net.layers if node.type == "Python" or any(b.shape is None for b in node.tops)}
        for part in (report.total.forward, report.total.backward):
            assert min(getattr(part, kind) for kind in cost.KINDS) >= 0, path


# ---- what cannot be counted

ODD = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 5 dim: 4 } } }
layer { name: "odd" type: "Odd" bottom: "data" top: "odd" }
layer { name: "mine" type: "Python" bottom: "data" top: "mine" python_param { module: "m" layer: "L" } }
layer { name: "after" type: "ReLU" bottom: "odd" top: "after" }
layer { name: "fine" type: "ReLU" bottom: "data" top: "fine" }
"""


def test_what_cannot_be_counted_is_listed_and_never_zero() -> None:
    data = json.loads(answer("cost", "-", "--format", "json", stdin=ODD, status=1))
    assert [entry["layer"] for entry in data["uncounted"]] == ["odd", "mine", "after"]
    lines = {line["name"]: line for line in data["lines"]}
    assert lines["odd"]["forward"] is lines["mine"]["forward"] is lines["after"]["bytes"] is None
    assert lines["fine"]["forward"]["comparisons"] == 120 == data["total"]["forward"]["comparisons"]
    table = answer("cost", "-", stdin=ODD, status=1)
    assert "?" in table
    assert "odd (Odd): unknown type" in table


def test_a_python_layer_whose_shapes_are_known_is_not_counted_either() -> None:
    net = inspector.loads(ODD, given={"mine": (2, 3, 5, 4), "odd": (2, 3, 5, 4)})
    assert {name for name, _, _ in cost.measure(net).uncounted} == {"odd", "mine"}


def test_unknown_columns_are_refused() -> None:
    with pytest.raises(InspectorError, match="no column 'nonsense'"):
        cost.sheet(cost.measure(inspector.load("lenet")), ["nonsense"])


def test_the_usual_columns_fit_80() -> None:
    for arguments in (["cost", "googlenet"], ["cost", "vgg16", "--backward"], ["memory", "googlenet"], ["receptive", "googlenet"]):
        result = CliRunner().invoke(main, arguments, env={"COLUMNS": "80"})
        assert max(map(len, result.stdout.splitlines())) <= 80, arguments


def test_reports_do_without_numpy() -> None:
    calls = [
        ["cost", "lenet", "--backward"],
        ["memory", "lenet", "--fits", "1GB"],
        ["receptive", "lenet"],
        ["explain", "lenet"],
        ["layers"],
    ]
    code = f"""
import sys
from click.testing import CliRunner
from cli.main import main
for call in {calls!r}:
    result = CliRunner().invoke(main, call)
    assert result.exit_code == 0, result.output
assert not {{"numpy", "rich", "PIL"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_gradients_follow_the_net() -> None:
    net = inspector.loads(FROZEN)
    wanted = {node.name: flags for node, flags in gradients.of(net.graph).wanted.items()}
    assert wanted == {"two": (False, True, False), "three": (True, True, True), "loss": (True, False)}
