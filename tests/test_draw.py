"""Pictures: nothing overlaps, what belongs together stands together, and nothing that a file says becomes markup."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import inspector
from cli.main import main
from inspector.picture import dfd
from inspector.picture.layout import layered
from inspector.picture.scene import Box, Scene, scene
from inspector.picture.svg import dot, svg

SVG = "{http://www.w3.org/2000/svg}"


def overlapping(boxes: list[Box]) -> list[tuple[str, str]]:
    return [
        (a.title, b.title)
        for a, b in combinations(boxes, 2)
        if abs(a.x - b.x) < (a.width + b.width) / 2 and abs(a.y - b.y) < (a.height + b.height) / 2
    ]


@pytest.mark.parametrize("sideways", [False, True])
@pytest.mark.parametrize("name", ["lenet", "googlenet", "googlenet/train_val", "squeezenet", "resnet50"])
def test_boxes_stand_apart_inside_the_picture_and_edges_run_forward(name: str, sideways: bool) -> None:
    drawn = scene(inspector.load(name), fold=False, sideways=sideways)
    assert not overlapping(drawn.boxes)
    for box in drawn.boxes:
        assert box.x - box.width / 2 >= 0
        assert box.x + box.width / 2 <= drawn.width
        assert box.y - box.height / 2 >= 0
        assert box.y + box.height / 2 <= drawn.height
    along = "x" if sideways else "y"
    assert all(getattr(drawn.boxes[e.start], along) < getattr(drawn.boxes[e.end], along) for e in drawn.edges)


def test_an_in_place_layer_that_reads_from_behind_its_maker_stands_alone() -> None:
    net = inspector.loads("""
        layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 6 dim: 8 dim: 9 } } }
        layer { name: "slice" type: "Slice" bottom: "data" top: "a" top: "b" }
        layer { name: "conv" type: "Convolution" bottom: "a" top: "s" convolution_param { num_output: 3 kernel_size: 1 } }
        layer { name: "relu" type: "ReLU" bottom: "s" top: "s" }
        layer { name: "add" type: "Eltwise" bottom: "b" bottom: "s" top: "b" }
    """)
    drawn = scene(net)
    assert [[row.name for row in box.rows] for box in drawn.boxes] == [["data"], ["slice"], ["conv", "relu"], ["add"]]
    assert all(drawn.boxes[edge.start].y < drawn.boxes[edge.end].y for edge in drawn.edges)


@pytest.mark.parametrize("name", [r"\001\033[31m", r"\357\277\276", "]]>", "</title><script>"])
def test_any_name_of_a_net_makes_a_well_formed_picture(name: str) -> None:
    layer = f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ dim: 2 }} }} }}'
    drawn = scene(inspector.loads(f'name: "{name}" {layer}'))
    assert not ET.fromstring(svg(drawn)).findall(f".//{SVG}script")
    assert dot(drawn).isprintable() or set(filter(lambda c: not c.isprintable(), dot(drawn))) == {"\n"}


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[tuple[float, float]], list[tuple[int, int]]]:
    count = draw(st.integers(1, 25))
    sizes = draw(st.lists(st.tuples(st.floats(5, 200), st.floats(5, 60)), min_size=count, max_size=count))
    pairs = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)).filter(lambda pair: pair[0] < pair[1])
    return sizes, draw(st.lists(pairs, max_size=40)) if count > 1 else []


@given(graphs())
def test_any_graph_is_laid_out_without_overlap(graph: tuple[list[tuple[float, float]], list[tuple[int, int]]]) -> None:
    sizes, edges = graph
    layout = layered(sizes, edges)
    for (i, (x, y)), (j, (u, v)) in combinations(enumerate(layout.places), 2):
        apart = abs(x - u) >= (sizes[i][0] + sizes[j][0]) / 2 - 1e-6 or abs(y - v) >= (sizes[i][1] + sizes[j][1]) / 2 - 1e-6
        assert apart
    assert all(layout.places[start][1] < layout.places[end][1] for start, end in edges)


def titles(drawn: Scene) -> list[str]:
    return [box.title for box in drawn.boxes]


def test_in_place_layers_stand_on_their_maker_and_shapes_on_the_edges() -> None:
    drawn = scene(inspector.load("alexnet"))
    assert " ".join(titles(drawn)) == "data conv1 norm1 pool1 conv2 norm2 pool2 conv3 conv4 conv5 pool5 fc6 fc7 fc8 prob"
    assert drawn.boxes[1].lines == ["Convolution 11x11/4 96", "relu1: ReLU"]
    assert [edge.shape for edge in drawn.edges[:2]] == ["10×3×227×227", "10×96×55×55"]


def test_splits_are_lines_that_part_and_blocks_fold() -> None:
    net = inspector.load("googlenet")
    whole = scene(net, fold=False)
    assert not any("split" in title for title in titles(whole))
    start = titles(whole).index("pool2/3x3_s2")
    assert sorted(whole.boxes[e.end].title for e in whole.edges if e.start == start) == [
        "inception_3a/1x1",
        "inception_3a/3x3_reduce",
        "inception_3a/5x5_reduce",
        "inception_3a/pool",
    ]
    folded = scene(net, fold=True)
    assert "inception_3a" in titles(folded)
    assert sum(len(box.rows) for box in folded.boxes) == sum(len(box.rows) for box in whole.boxes) == len(net.opened.proto.layer)


def test_a_selection_shows_what_it_reads_from_outside() -> None:
    drawn = scene(inspector.load("alexnet"), only=["fc*"])
    assert titles(drawn) == ["fc6", "pool5", "fc7", "fc8"]
    assert drawn.boxes[1].family == "outside"


def test_a_hostile_name_is_only_text() -> None:
    name = '<script>alert(1)</script>&\\"]}'
    text = name.replace("\\", "\\\\").replace('"', '\\"')
    layers = f'layer {{ name: "{text}" type: "Input" top: "a&<b" }} layer {{ name: "r" type: "ReLU" bottom: "a&<b" top: "c" }}'
    drawn = scene(inspector.loads(f'name: "{text}" {layers}'))
    root = ET.fromstring(svg(drawn))
    assert name in {element.text for element in root.iter(f"{SVG}text")}
    assert not list(root.iter(f"{SVG}script"))
    assert "<script>" not in svg(drawn)
    assert '\\\\\\"]}' in dot(drawn)


def test_the_command_writes_what_the_suffix_says(tmp_path: Path) -> None:
    out = tmp_path / "net.svg"
    assert CliRunner().invoke(main, ["draw", "lenet", "-o", str(out)]).exit_code == 0
    assert ET.parse(out).getroot().tag == f"{SVG}svg"
    result = CliRunner().invoke(main, ["draw", "lenet"])
    assert result.stdout.startswith('digraph "LeNet" {')
    assert CliRunner().invoke(main, ["draw", "lenet", "-o", str(tmp_path / "net.gif")]).exit_code == 2
    assert CliRunner().invoke(main, ["draw", "lenet", "--only", "nothing"]).exit_code == 2


def test_a_stage_runs_from_one_weighted_layer_to_the_next(tmp_path: Path) -> None:
    net = inspector.load("alexnet")
    assert [[row.name for row in rows] for rows in dfd.stages(net)][1:3] == [
        ["conv2", "relu2", "norm2", "pool2"],
        ["conv3", "relu3"],
    ]
    assert dfd.stage(net, "norm2")[0].name == "conv2"
    drawn = dfd.picture(dfd.stage(net, "conv2"), {name: blob.shape for name, blob in net.blobs.items()})
    words = [element.text for element in ET.fromstring(drawn).iter(f"{SVG}text")]
    # what Krizhevsky's figure says of the second stage: 27x27x96 in, 256 maps, pooled to 13x13
    assert [word for word in words if "×" in (word or "")] == ["27×27×96", "27×27×256", "27×27×256", "27×27×256", "13×13×256"]
    assert "Convolution 5x5+2 256 g2" in words
    with pytest.raises(inspector.InspectorError, match="did you mean 'conv2'"):
        dfd.stage(net, "conv22")
    folder = tmp_path / "stages"
    assert CliRunner().invoke(main, ["dfd", "googlenet", "--all", "-o", str(folder)]).exit_code == 0
    pictures = sorted(folder.glob("*.svg"))
    assert len(pictures) == 58  # 57 convolutions and a classifier
    assert all(picture.name in (folder / "index.html").read_text() for picture in pictures)
    assert CliRunner().invoke(main, ["dfd", "alexnet"]).exit_code == 2


@pytest.mark.parametrize("words", [["dfd", "lenet", "--all", "-o"], ["demo", "--out"]])
def test_a_folder_that_cannot_be_made_is_one_message(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "taken").write_text("a file, where a folder should be")
    result = CliRunner().invoke(main, [*words, str(tmp_path / "taken" / "out")])
    assert result.exit_code == 2
    assert "cannot make" in result.stderr
