"""Receptive fields: published figures, what gradients really reach in random nets, and branches that disagree."""

from __future__ import annotations

import itertools
import json
import random
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import inspector
from cli.main import main
from inspector import receptive
from inspector.errors import InspectorError
from inspector.receptive import Field


def answer(*arguments: str, status: int = 0, stdin: str | None = None) -> str:
    result = CliRunner().invoke(main, arguments, input=stdin)
    assert result.exit_code == status, result.output
    return result.stdout


def field(net: inspector.Net, blob: str) -> Field:
    [row] = [row for row in receptive.measure(net).fields if row.blob == blob]
    return row


# Araujo, Norris, Sim, "Computing receptive fields of convolutional neural networks", Distill 2019: size, stride, padding of the
# last feature map. MobileNet's padding there is TensorFlow's. For conv5 of AlexNet and fc6 of FCN: the common 163 and 404.
@pytest.mark.parametrize(
    ("model", "blob", "size", "stride", "start"),
    [
        ("alexnet", "conv1", 11, 4, 0),
        ("alexnet", "conv5", 163, 16, -64),
        ("alexnet", "pool5", 195, 32, -64),
        ("vgg16", "pool5", 212, 32, -90),
        ("resnet50", "res5c", 483, 32, -239),
        ("resnet101", "res5c", 1027, 32, -511),
        ("resnet152", "res5c", 1507, 32, -751),
        ("mobilenet", "conv6/sep", 315, 32, -157),
    ],
)
def test_published_figures(model: str, blob: str, size: int, stride: int, start: int) -> None:
    row = field(inspector.load(model), blob)
    assert (row.size, row.stride, row.start) == ((size,) * 2, (stride,) * 2, (start,) * 2)
    assert row.centre == (start + Fraction(size - 1, 2),) * 2


def test_a_fully_convolutional_net_comes_back_to_every_pixel(reference: Path) -> None:
    """Long et al., 2015: pad 100, upsampling and crop leave the score of each pixel centred on that pixel."""
    [path] = (reference / "prototxts").glob("shelhamer*fcn16s_train.prototxt")
    net = inspector.load(path, phase="TRAIN", given={"data": (1, 3, 500, 400)})
    row = field(net, "score")
    assert row.stride == (1, 1)
    assert row.centre == (0, 0)
    assert field(net, "fc6").size == (404, 404)


# ---- against gradients

SIZES = (17, 14)


def layers(rng: random.Random) -> str:
    """A random net of everything that keeps places; weights are 1, so that whatever is seen has a gradient above 0."""
    text = f"""force_backward: true
    layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: 1 dim: 2 dim: {SIZES[0]} dim: {SIZES[1]} }} }} }}"""
    ones = 'weight_filler { type: "constant" value: 1 } bias_term: false'
    last = "x"
    for i in range(rng.randint(2, 4)):
        kind = rng.choice(["conv", "conv", "pool", "deconv", "branch", "lrn", "crop"])
        k, s, p, d = rng.randint(1, 4), rng.randint(1, 3), rng.randint(0, 2), rng.randint(1, 2)
        top = f"b{i}"
        if kind == "conv":
            param = f"num_output: 2 kernel_h: {k} kernel_w: {k + 1} stride: {s} pad: {p} dilation: {d} {ones}"
            text += f'layer {{ name: "{top}" type: "Convolution" bottom: "{last}" top: "{top}" convolution_param {{ {param} }} }}'
        elif kind == "deconv":
            k = max(k, s)
            param = f"num_output: 2 kernel_size: {k} stride: {s} pad: {min(p, 1)} {ones}"
            text += f'layer {{ name: "{top}" type: "Deconvolution" bottom: "{last}" top: "{top}" convolution_param {{ {param} }} }}'
        elif kind == "pool":
            param = f"pool: AVE kernel_size: {k + 1} stride: {s} pad: {min(p, k)}"
            text += f'layer {{ name: "{top}" type: "Pooling" bottom: "{last}" top: "{top}" pooling_param {{ {param} }} }}'
        elif kind == "lrn":
            param = "norm_region: WITHIN_CHANNEL local_size: 3 alpha: 0.5 beta: 0.25"
            text += f'layer {{ name: "{top}" type: "LRN" bottom: "{last}" top: "{top}" lrn_param {{ {param} }} }}'
        elif kind == "branch":
            text += f"""layer {{ name: "{top}l" type: "Convolution" bottom: "{last}" top: "{top}l"
                convolution_param {{ num_output: 3 kernel_size: 3 pad: 1 {ones} }} }}
            layer {{ name: "{top}r" type: "Pooling" bottom: "{last}" top: "{top}r" pooling_param {{ pool: AVE kernel_size: 1 }} }}
            layer {{ name: "{top}" type: "Concat" bottom: "{top}l" bottom: "{top}r" top: "{top}" }}"""
        else:
            text += f"""layer {{ name: "{top}s" type: "Pooling" bottom: "{last}" top: "{top}s"
                pooling_param {{ pool: AVE kernel_size: 2 }} }}
            layer {{ name: "{top}" type: "Crop" bottom: "{last}" bottom: "{top}s" top: "{top}"
                crop_param {{ offset: {rng.randint(0, 1)} }} }}"""
        last = top
    return text + f'layer {{ name: "last" type: "Power" bottom: "{last}" top: "last" }}'


def nets() -> list[inspector.Net]:
    found: list[inspector.Net] = []
    for seed in itertools.count():
        net = inspector.loads(layers(random.Random(seed)))
        shape = net.blobs["last"].shape if net.error is None else None
        if shape and min(shape) > 0 and shape[2] * shape[3] < 400:
            found.append(net)
        if len(found) == 25:
            return found
    raise AssertionError


@pytest.mark.parametrize("net", nets())
def test_what_gradients_reach(net: inspector.Net) -> None:
    """A cell sees a pixel if its gradient there is not 0; the box around those pixels is what `look` says, for every cell tried."""
    shape = net.blobs["last"].shape
    assert shape is not None
    x = np.random.default_rng(5).uniform(0.5, 1.0, (1, 2, *SIZES))
    net.forward(x=x)
    rng = random.Random(7)
    sizes = shape[2:]
    cells = {(0, 0), (sizes[0] - 1, sizes[1] - 1), *((rng.randrange(sizes[0]), rng.randrange(sizes[1])) for _ in range(4))}
    for cell in cells:
        dy = np.zeros(shape, np.float32)
        dy[0, :, cell[0], cell[1]] = 1
        reached = np.abs(net.backward(last=dy)["x"]).sum(axis=(0, 1)) > 0
        [view] = receptive.look(net, "last", cell)
        if view.clipped is None:
            assert not reached.any()
            continue
        # gradients of a normalisation may be 0, and a dilated window over a border has holes: there never more than said
        exact = "LRN" not in {node.type for node in net.layers} and "dilation: 2" not in str(net.graph.proto)
        assert reached.any() or not exact
        if reached.any():
            rows, columns = np.nonzero(reached)
            box = ((rows.min(), rows.max()), (columns.min(), columns.max()))
            assert box == view.clipped or not exact
            assert all(a >= c and b <= d for (a, b), (c, d) in zip(box, view.clipped, strict=True))
        # and the figures of the table say the same without the borders
        assert view.unclipped is not None
        row = field(net, "last")
        assert row.size is not None
        if row.start is not None and cell == (0, 0) and not receptive.measure(net).disagreements:
            assert row.start == tuple(a for a, _ in view.unclipped)
        assert all(b - a + 1 <= size for (a, b), size in zip(view.unclipped, row.size, strict=True))


# ---- branches, sources, ends

DISAGREE = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 9 dim: 11 } } }
layer { name: "coarse" type: "Convolution" bottom: "x" top: "coarse" convolution_param { num_output: 4 kernel_size: 1 stride: 2 } }
layer { name: "fine" type: "Crop" bottom: "x" bottom: "coarse" top: "fine" crop_param { offset: 2 } }
layer { name: "both" type: "Concat" bottom: "coarse" bottom: "fine" top: "both" }
"""


def test_branches_that_disagree_are_reported() -> None:
    report = receptive.measure(inspector.loads(DISAGREE))
    [found] = report.disagreements
    assert (found.layer, found.what, found.values) == ("both", "stride", ("2", "1"))
    assert "disagree" in answer("receptive", "-", stdin=DISAGREE)
    shifted = DISAGREE.replace("stride: 2", "kernel_size: 3").replace("kernel_size: 1 kernel_size: 3", "kernel_size: 3")
    [found] = receptive.measure(inspector.loads(shifted)).disagreements
    assert (found.what, found.values) == ("centre", ("1", "2"))
    assert not receptive.measure(inspector.load("googlenet")).disagreements
    assert not receptive.measure(inspector.load("resnet50")).disagreements


def test_the_crop_reads_only_the_shape_of_its_second_bottom() -> None:
    [view] = receptive.look(inspector.loads(DISAGREE), "fine", (1, 3))
    assert view.clipped == view.unclipped == ((3, 3), (5, 5))
    [view] = receptive.look(inspector.loads(DISAGREE), "both", (1, 3))  # its two branches look at (2, 6) and (3, 5)
    assert view.clipped == ((2, 3), (5, 6))


def test_two_inputs() -> None:
    text = """layer { name: "in" type: "Input" top: "a" top: "b" input_param { shape { dim: 1 dim: 2 dim: 8 dim: 6 } } }
    layer { name: "conv" type: "Convolution" bottom: "a" top: "c" convolution_param { num_output: 2 kernel_size: 3 pad: 1 } }
    layer { name: "sum" type: "Eltwise" bottom: "c" bottom: "b" top: "sum" }"""
    net = inspector.loads(text)
    rows = {row.source: row.size for row in receptive.measure(net).fields if row.blob == "sum"}
    assert rows == {"a": (3, 3), "b": (1, 1)}
    views = {view.source: view.clipped for view in receptive.look(net, "sum", (0, 5))}
    assert views == {"a": ((0, 1), (4, 5)), "b": ((0, 0), (5, 5))}


def test_ends_that_have_no_place() -> None:
    net = inspector.load("alexnet/train_val", phase="TRAIN")
    report = receptive.measure(net)
    kinds = {row.blob: row.kind for row in report.fields}
    assert kinds["fc6"] == kinds["fc8"] == kinds["loss"] == "whole"
    assert kinds["pool5"] == "spatial"
    assert report.apart == ("label",)
    flat = """layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 5 dim: 4 } } }
    layer { name: "flat" type: "Flatten" bottom: "x" top: "flat" } layer { name: "relu" type: "ReLU" bottom: "flat" top: "relu" }
    layer { name: "fc" type: "InnerProduct" bottom: "relu" top: "fc" inner_product_param { num_output: 7 } }
    layer { name: "odd" type: "Odd" bottom: "x" top: "odd" }"""
    kinds = {row.blob: row.kind for row in receptive.measure(inspector.loads(flat)).fields}
    assert kinds == {"x": "spatial", "flat": "lost", "relu": "lost", "fc": "whole", "odd": "unknown"}


def test_global_pooling_sees_everything() -> None:
    row = field(inspector.load("squeezenet"), "pool10")
    assert row.everything
    assert not field(inspector.load("squeezenet"), "conv1").everything


def test_the_command() -> None:
    data = json.loads(answer("receptive", "alexnet", "--blob", "pool5", "--cell", "0,5", "--format", "json"))
    assert [row["blob"] for row in data["blobs"]] == ["pool5"]
    assert data["cell"]["sees"] == [{"source": "data", "unclipped": [[-64, 130], [96, 290]], "clipped": [[0, 130], [96, 226]]}]
    text = " ".join(answer("receptive", "alexnet", "--blob", "pool5", "--cell", "0,5").split())
    assert "sees 0..130 x 96..226 (131 x 131) of 227 x 227" in text
    assert "with padding -64..130 x 96..290 (195 x 195)" in text
    assert answer("receptive", "lenet", "--format", "csv").splitlines()[0].startswith("blob,layer,shape,field,stride,start,centre")


@pytest.mark.parametrize(
    ("blob", "cell", "words"),
    [
        ("pool5", (6, 0), "no cell 6,0; its cells go from 0,0 to 5,5"),
        ("pool5", (1,), "2 spatial axes, and the cell has 1 figures"),
        ("fc6", (1, 1), "0 spatial axes"),
        ("pool9", (1, 1), "no blob 'pool9'"),
    ],
)
def test_cells_that_are_not_there(blob: str, cell: tuple[int, ...], words: str) -> None:
    with pytest.raises(InspectorError, match=words):
        receptive.look(inspector.load("alexnet"), blob, cell)
