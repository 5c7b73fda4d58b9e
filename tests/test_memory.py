"""Memory: Caffe's figure, buffers and their lives by hand, the peak by brute force, and batches that fit exactly."""

from __future__ import annotations

import csv
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from click.testing import CliRunner

import inspector
from cli.main import main
from cli.memory import SOLVERS
from inspector import batch_size, memory, memory_report, shelf
from inspector.errors import InspectorError
from inspector.graph import Graph

BRANCHED = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 8 dim: 6 } } }
layer { name: "wide" type: "Convolution" bottom: "data" top: "wide" convolution_param { num_output: 7 kernel_size: 3 pad: 1 } }
layer { name: "relu" type: "ReLU" bottom: "wide" top: "wide" }
layer { name: "thin" type: "Convolution" bottom: "data" top: "thin" convolution_param { num_output: 2 kernel_size: 1 } }
layer { name: "both" type: "Concat" bottom: "wide" bottom: "thin" top: "both" }
layer { name: "flat" type: "Flatten" bottom: "both" top: "flat" }
layer { name: "fc" type: "InnerProduct" bottom: "flat" top: "fc" inner_product_param { num_output: 5 } }
layer { name: "side" type: "Pooling" bottom: "thin" top: "side" pooling_param { pool: AVE global_pooling: true } }
"""
PLACE = 4 * 2 * 8 * 6  # bytes of one channel


def answer(*arguments: str, status: int = 0, stdin: str | None = None) -> str:
    result = CliRunner().invoke(main, arguments, input=stdin)
    assert result.exit_code == status, result.output
    return result.stdout


def test_buffers_and_their_lives() -> None:
    report = memory_report.measure(inspector.loads(BRANCHED))
    rows = {row.name: row for row in report.rows if not row.split}
    data = {name: row.data for name, row in rows.items()}
    places = {"data": 3, "wide": 7, "relu": 0, "thin": 2, "both": 9, "flat": 0}
    assert data == {**{name: n * PLACE for name, n in places.items()}, "fc": 4 * 2 * 5, "side": 4 * 2 * 2}
    live = {name: row.live for name, row in rows.items()}
    assert live == {
        "data": 3 * PLACE,
        "wide": 10 * PLACE,
        "relu": 10 * PLACE,  # the image is still to be read by `thin`
        "thin": 12 * PLACE,
        "both": 18 * PLACE,
        "flat": 11 * PLACE,  # `thin` waits for `side`
        "fc": 11 * PLACE + 40,
        "side": 2 * PLACE + 40 + 16,  # `fc` is an output and stays
    }
    assert report.peak is not None
    assert report.peak.name == "both"
    assert report.data == sum(data.values())


def test_what_caffe_counts() -> None:
    """Every top: the two splits' and the in-place one's again."""
    report = memory_report.measure(inspector.loads(BRANCHED))
    assert report.caffe == (3 + 2 * 3 + 7 + 7 + 2 + 2 * 2 + 9 + 9) * PLACE + 40 + 16
    # as real Caffe logged it for these nets
    assert memory_report.measure(inspector.load("caffenet")).caffe == 68_681_400
    assert memory_report.measure(inspector.load("resnet152")).caffe == 506_392_384


def test_im2col() -> None:
    report = memory_report.measure(inspector.load("alexnet"))
    rows = {row.name: row.workspace for row in report.rows}
    assert rows["conv1"] == 4 * 3 * 11 * 11 * 55 * 55  # one image, whatever the batch
    assert rows["conv2"] == 4 * 96 * 5 * 5 * 27 * 27  # all groups
    assert rows["pool1"] == rows["fc6"] == 0
    assert report.largest_workspace == rows["conv2"]
    branched = {row.name: row.workspace for row in memory_report.measure(inspector.loads(BRANCHED)).rows}
    assert branched["wide"] == 4 * 3 * 9 * 8 * 6
    assert branched["thin"] == 0  # a 1x1 convolution needs no unrolling


def test_im2col_of_a_deconvolution_is_over_what_it_reads() -> None:
    text = """layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 6 dim: 5 dim: 4 } } }
    layer { name: "up" type: "Deconvolution" bottom: "x" top: "up"
            convolution_param { num_output: 8 kernel_size: 3 stride: 2 group: 2 } }"""
    [_, row] = memory_report.measure(inspector.loads(text)).rows
    assert row.workspace == 4 * 8 * 3 * 3 * 5 * 4


TRAINED = """
layer { name: "data" type: "Input" top: "data" top: "label" input_param { shape { dim: 4 dim: 9 } shape { dim: 4 } } }
layer { name: "one" type: "InnerProduct" bottom: "data" top: "one" inner_product_param { num_output: 7 } }
layer { name: "relu" type: "ReLU" bottom: "one" top: "one" }
layer { name: "two" type: "InnerProduct" bottom: "one" top: "two" param { lr_mult: 0 } param { lr_mult: 0 }
        inner_product_param { num_output: 5 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "two" bottom: "label" top: "loss" }
"""


def test_training() -> None:
    report = memory_report.measure(inspector.loads(TRAINED))
    gradients = {row.name: row.gradients for row in report.rows}
    assert gradients == {"data": 0, "one": 4 * 4 * 7, "relu": 0, "two": 4 * 4 * 5, "loss": 4}
    parameters = 4 * (9 * 7 + 7 + 7 * 5 + 5)  # Caffe keeps history for frozen ones, too
    assert report.total("parameters") == parameters
    assert {solver: report.history(solver) // parameters for solver in memory_report.HISTORY} == {
        "SGD": 1,
        "Nesterov": 1,
        "AdaGrad": 1,
        "RMSProp": 1,
        "AdaDelta": 2,
        "Adam": 2,
    }
    data = 4 * (4 * 9 + 4 + 4 * 7 + 4 * 5 + 1)
    assert report.training == data + 4 * (28 + 20 + 1) + 3 * parameters
    assert memory_report.measure(inspector.loads(TRAINED), "Adam").training == report.training + parameters
    assert not report.assumed


def test_each_top_of_a_split_has_a_gradient_of_its_own() -> None:
    text = """layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 3 dim: 8 } } }
    layer { name: "fc" type: "InnerProduct" bottom: "x" top: "fc" inner_product_param { num_output: 8 } }
    layer { name: "sum" type: "Eltwise" bottom: "fc" bottom: "fc" top: "sum" }"""
    report = memory_report.measure(inspector.loads(text))
    assert [(row.type, row.data, row.gradients) for row in report.rows] == [
        ("Input", 96, 0),
        ("InnerProduct", 96, 96),
        ("Split", 0, 192),
        ("Eltwise", 96, 96),
    ]
    assert report.assumed


@pytest.mark.parametrize("model", ["alexnet", "googlenet", "resnet50", "squeezenet"])
def test_the_peak_by_brute_force(model: str) -> None:
    """Walk through the net with a set of values, each dropped when no later layer reads it or anything that shares its memory."""
    graph = inspector.load(model).graph
    most = 0
    for i, node in enumerate(graph.nodes):
        made = [top for earlier in graph.nodes[: i + 1] for top in earlier.tops]
        read = {bottom for later in graph.nodes[i:] for bottom in later.bottoms}
        kept = {memory.buffer(blob) for blob in made if blob in read or blob in node.tops or blob.name in graph.outputs}
        most = max(most, sum(memory.bytes_of(blob) for blob in kept))
    report = memory_report.measure(inspector.load(model))
    assert report.peak is not None
    assert report.peak.live == most


# ---- forms


@pytest.mark.parametrize("model", ["lenet", "googlenet", "resnet50"])
def test_every_format_adds_up(model: str) -> None:
    columns = "name,caffe,parameters,gradients,im2col,data"
    table = list(csv.DictReader(answer("memory", model, "--format", "csv").splitlines()))
    lines = [line for line in answer("memory", model, "--columns", columns, "--format", "markdown").splitlines() if "|" in line]
    cells = [[cell.strip().replace(",", "") for cell in line.strip("|").split("|")] for line in lines]
    marked = [dict(zip(columns.split(","), row, strict=True)) for row in cells[2:]]
    data = json.loads(answer("memory", model, "--format", "json"))
    for rows in (table, marked):
        for name in columns.split(",")[1:]:
            assert sum(int(row[name]) for row in rows[:-1]) == int(rows[-1][name]) == data["totals"][name]
    assert data["totals"]["peak"]["bytes"] == max(row["live"] for row in data["layers"]) == int(table[-1]["live"])
    assert {"caffe", "live", "im2col", "training"} <= set(data["conventions"])


def test_the_drawing(tmp_path: Path) -> None:
    target = tmp_path / "live.svg"
    answer("memory", "-", "--svg", str(target), stdin=BRANCHED.replace('name: "both"', 'name: "a<b>&c"'))
    root = ET.parse(target).getroot()
    bars = [element for element in root.iter("{http://www.w3.org/2000/svg}rect") if len(element)]
    assert len(bars) == 8
    titles = [bar[0].text for bar in bars]
    assert titles[4] == f"a<b>&c (Concat): {18 * PLACE:,} bytes"
    heights = [float(bar.attrib["height"]) for bar in bars]
    assert heights[4] == max(heights)
    assert [bar.attrib["fill"] for bar in bars].count(bars[4].attrib["fill"]) == 1


# ---- batches


def test_other_batches() -> None:
    one, seven = (json.loads(answer("memory", "googlenet", "--batch", n, "--format", "json"))["totals"] for n in ("1", "7"))
    assert seven["data"] == 7 * one["data"]
    assert seven["im2col"] == one["im2col"]
    assert seven["parameters"] == one["parameters"]


@pytest.mark.parametrize("part", ["inference", "inference_in_caffe", "training"])
@pytest.mark.parametrize("model", ["lenet", "googlenet", "vgg16/train_val"])
def test_the_largest_batch_is_exact(model: str, part: str) -> None:
    net = inspector.load(
        model, phase="TRAIN" if "/" in model else "TEST", given={"data": (64, 1, 28, 28)} if model == "lenet" else {}
    )

    def needs(graph: Graph) -> int:
        return int(getattr(memory_report._of(graph, "TEST", "SGD"), part))

    room = 3 * 1024**3
    largest = getattr(memory_report.fits(net, room), part)
    assert largest > 1
    assert needs(batch_size.graph_of(net, largest)) <= room
    assert needs(batch_size.graph_of(net, largest + 1)) > room
    exact = needs(batch_size.graph_of(net, 5))
    builder = batch_size.Builder(net)
    assert [builder.largest(exact + more, needs) for more in (-1, 0, 1)] == [4, 5, 5]


def test_too_little_room_and_no_batch_at_all() -> None:
    assert memory_report.fits(inspector.load("alexnet"), 1000).training == 0
    text = 'layer { name: "x" type: "DummyData" top: "x" dummy_data_param { shape { dim: 3 dim: 4 } } }'
    fixed = text + 'layer { name: "r" type: "Reshape" bottom: "x" top: "r" reshape_param { shape { dim: 3 dim: 4 } } }'
    assert memory_report.fits(inspector.loads(fixed), 10**9).inference == 0  # Caffe would refuse a batch of 1
    with pytest.raises(InspectorError, match="batch of known size"):
        memory_report.fits(inspector.loads('layer { name: "x" type: "Input" top: "x" }'), 10**9)


def test_dummy_and_memory_data_take_another_batch() -> None:
    text = """layer { name: "d" type: "DummyData" top: "x" top: "y" dummy_data_param { num: 6 channels: 2 height: 5 width: 4 } }
    layer { name: "m" type: "MemoryData" top: "m" top: "l" memory_data_param { batch_size: 6 channels: 3 height: 2 width: 7 } }"""
    blobs = batch_size.graph_of(inspector.loads(text), 9).blobs
    assert [blobs[name].shape for name in "xyml"] == [(9, 2, 5, 4), (9, 2, 5, 4), (9, 3, 2, 7), (9,)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("12GiB", 12 * 1024**3), ("1.5 GB", 1_500_000_000), ("800 MiB", 800 * 1024**2), ("17", 17), ("2kB", 2000), ("3 KiB", 3072)],
)
def test_amounts_of_memory(text: str, expected: int) -> None:
    assert batch_size.bytes_in(text) == expected


@pytest.mark.parametrize("text", ["", "much", "12 parsecs", "-1GiB", "1e9", "9" * 40])
def test_what_is_no_amount_of_memory(text: str) -> None:
    with pytest.raises(InspectorError, match="no amount of memory"):
        batch_size.bytes_in(text)


def test_fits_on_the_command_line() -> None:
    text = " ".join(answer("memory", "alexnet", "--fits", "12GiB").split())
    assert "12,884,901,888 bytes (12.0 GiB)" in text
    data = json.loads(answer("memory", "alexnet", "--fits", "12GiB", "--solver", "adam", "--format", "json"))["fits"]
    assert data["solver"] == "Adam"
    assert data["training"] < data["inference_in_caffe"] < data["inference"]
    assert list(memory_report.HISTORY) == SOLVERS


def test_a_solver_says_who_trains(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(TRAINED)
    solver = tmp_path / "solver.prototxt"
    solver.write_text('net: "net.prototxt" type: "AdaDelta" base_lr: 1 lr_policy: "fixed" max_iter: 1')
    data = json.loads(answer("memory", str(solver), "--format", "json"))
    assert data["totals"]["training"]["solver"] == "AdaDelta"


@pytest.mark.parametrize("path", sorted(shelf.folder().glob("*/deploy.prototxt")), ids=lambda path: path.parent.name)
def test_every_net_that_ships(path: Path) -> None:
    net = inspector.load(path)
    report = memory_report.measure(net)
    assert report.caffe == net.memory_required
    assert report.peak is not None
    assert 0 < report.peak.live <= report.data <= report.caffe
    assert report.total("parameters") == net.summary().totals.weights_bytes
