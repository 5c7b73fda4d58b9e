"""The summary: totals that Caffe and the papers state, columns that add up, and what is said where something is unknown."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

import inspector
from cli.main import main
from inspector import shelf
from inspector.errors import InspectorError
from inspector.summary import SUMS, Summary, prefix
from inspector.summary_table import text
from inspector.tables import fold, size, width_of

# Parameters: the published files, every blob of a BatchNorm counted. Depth: the papers; SqueezeNet's is 1 + 8 x 2 + 1 convolutions,
# MobileNet's 28 is the paper's count with depthwise and pointwise apart. Memory and layers_.size(): what BVLC Caffe logs.
TOTALS = [
    ("lenet", "TEST", {"parameters": 431_080, "depth": 4}),
    ("alexnet", "TEST", {"parameters": 60_965_224, "depth": 8, "macs_per_image": 724_406_816, "batch": 10}),
    ("alexnet", "TEST", {"macs_with_biases_per_image": 725_066_088}),
    ("alexnet/train_val", "TRAIN", {"layers_size": 24, "layers": 24, "memory": 2_129_727_492, "batch": 256}),
    ("caffenet", "TEST", {"parameters": 60_965_224, "memory": 68_681_400, "memory_without_inputs": 62_497_920}),
    ("vgg16", "TEST", {"parameters": 138_357_544, "depth": 16}),
    ("vgg16/train_val", "TRAIN", {"layers_size": 40, "memory": 7_372_956_932, "batch": 64}),
    ("vgg19", "TEST", {"parameters": 143_667_240, "depth": 19}),
    ("vgg19/train_val", "TRAIN", {"layers_size": 46, "memory": 8_040_899_844}),
    ("googlenet", "TEST", {"parameters": 6_998_552, "depth": 22}),
    ("resnet50", "TEST", {"parameters": 25_610_269, "depth": 50}),
    ("resnet101", "TEST", {"parameters": 44_654_608, "depth": 101}),
    ("resnet152", "TEST", {"parameters": 60_344_387, "layers_size": 721, "memory": 506_392_384, "depth": 152}),
    ("squeezenet", "TEST", {"parameters": 1_235_496, "depth": 18}),
    ("mobilenet", "TEST", {"parameters": 4_253_891, "depth": 28}),
]


def answer(*arguments: str, status: int = 0) -> str:
    """What the command prints."""
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == status, result.output
    return result.stdout


@pytest.mark.parametrize(("model", "phase", "totals"), TOTALS, ids=lambda value: value if isinstance(value, str) else None)
def test_totals(model: str, phase: str, totals: dict[str, int]) -> None:
    summary = inspector.load(model, phase=phase).summary()
    found = summary.to_dict()["totals"]
    assert {name: found[name] for name in totals} == totals
    assert json.loads(answer("summary", model, "--phase", phase, "--format", "json"))["totals"] == found
    assert summary.totals.memory == inspector.load(model, phase=phase).memory_required


# ---- columns add up

SHIPPED = [
    (f"{path.parent.name}/{path.stem}", phase)
    for path in sorted(shelf.folder().glob("*/*.prototxt"))
    for phase in (("TEST",) if path.stem == "deploy" else ("TRAIN", "TEST"))
]
ADDED = ("parameters", "macs", "memory")


def value(cell: str) -> int:
    """A cell's number; what is unknown counts nothing."""
    return 0 if cell in ("?", "") else int(cell.replace(",", ""))


def from_table(lines: list[str]) -> Iterator[list[int]]:
    """The three numbers at the end of every line between the rules, and of the total."""
    rules = [i for i, line in enumerate(lines) if set(line) <= set("- ") and "-" in line]
    for line in [*lines[rules[0] + 1 : rules[1]], lines[rules[1] + 1]]:
        match = re.search(r"([\d,]+|\?) +([\d,]+|\?) +([\d,]+|\?)$", line)
        if match:
            yield [value(cell) for cell in match.groups()]


def from_csv(output: str) -> list[list[int]]:
    return [[value(row[name]) for name in ADDED] for row in csv.DictReader(output.splitlines())]


def from_markdown(output: str) -> list[list[int]]:
    return [[value(cell) for cell in re.split(r" *(?<!\\)\| *", line)[-4:-1]] for line in output.splitlines()[2:]]


@pytest.mark.parametrize(("model", "phase"), SHIPPED)
def test_columns_add_up_in_every_format(model: str, phase: str) -> None:
    summary = inspector.load(model, phase=phase).summary()
    expected = [getattr(summary.totals, name) for name in ADDED]
    call = ("summary", model, "--phase", phase)
    tables = {
        "wide": list(from_table(list(text(summary)))),
        "narrow": list(from_table(list(text(summary, width=80)))),
        "grouped": list(from_table(list(text(summary, group=True)))),
        "with splits": list(from_table(list(text(summary, splits=True)))),
        "csv": from_csv(answer(*call, "--format", "csv")),
        "csv of groups": from_csv(answer(*call, "--format", "csv", "--group")),
        "markdown": from_markdown(answer(*call, "--format", "markdown")),
    }
    for name, (*rows, total) in tables.items():
        assert total == expected, name
        assert [sum(column) for column in zip(*rows, strict=True)] == expected, name
    data = json.loads(answer(*call, "--format", "json", "--group"))
    for part in ("layers", "groups"):
        assert [sum(row[name] or 0 for row in data[part]) for name in ADDED] == expected
    assert len(data["layers"]) == data["totals"]["layers_size"]
    assert sum(row["layers"] for row in data["groups"]) == data["totals"]["layers_size"]


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("model", ["lenet", "googlenet", "resnet152"])
def test_tables_keep_within_the_width_and_cut_no_name(model: str, width: int) -> None:
    summary = inspector.load(model).summary()
    for group in (False, True):
        assert max(map(width_of, text(summary, width=width, group=group))) <= width
    words = " ".join(text(summary, width=width)).split()
    assert {row.name for row in summary.rows if not row.inserted} <= set(words)


# ---- rows

SHARED = """
name: "pair"
layer { name: "data" type: "Input" top: "left" top: "right" input_param { shape { dim: 6 dim: 5 } shape { dim: 6 dim: 5 } } }
layer { name: "one" type: "InnerProduct" bottom: "left" top: "a" param { name: "w" } param { name: "b" lr_mult: 0 }
        inner_product_param { num_output: 3 } }
layer { name: "two" type: "InnerProduct" bottom: "right" top: "b" param { name: "w" } param { name: "b" }
        inner_product_param { num_output: 3 } }
layer { name: "relu" type: "ReLU" bottom: "b" top: "b" }
layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "sum" }
layer { name: "odd" type: "Odd" bottom: "sum" top: "odd" }
layer { name: "after" type: "Sigmoid" bottom: "odd" top: "after" }
layer { name: "again" type: "Sigmoid" bottom: "sum" top: "again" }
"""


@pytest.fixture
def pair() -> Summary:
    return inspector.loads(SHARED).summary()


def test_shared_parameters_count_once(pair: Summary) -> None:
    rows = {row.name: row for row in pair.rows}
    assert (rows["one"].parameters, rows["one"].learnable, rows["one"].frozen, rows["one"].shared) == (18, 15, 3, 0)
    assert (rows["two"].parameters, rows["two"].shared) == (0, 18)
    assert [weight.owner for weight in rows["two"].weights] == ["one", "one"]
    assert (pair.totals.parameters, pair.totals.frozen, pair.totals.shared) == (18, 3, 18)
    assert (pair.totals.macs, pair.totals.biases) == (2 * 6 * 5 * 3, 2 * 6 * 3)  # the work is done twice all the same
    assert pair.totals.per_image(pair.totals.macs) == 2 * 5 * 3


def test_what_is_unknown_is_listed_and_not_counted(pair: Summary) -> None:
    assert [(row.name, reason) for row, reason in pair.uncounted] == [("odd", "unknown type"), ("after", "unknown shapes")]
    data = {row["name"]: row for row in pair.to_dict()["layers"]}
    assert data["odd"]["parameters"] is data["odd"]["macs"] is data["odd"]["tops"][0]["shape"] is None
    assert pair.totals.memory == 4 * (2 * 30 + 4 * 18 + 2 * 18 + 18)  # inputs; a, b, b in place, sum; its split; again
    words = "\n".join(text(pair))
    assert re.search(r"not counted +odd \(Odd\): unknown type", words)
    assert re.search(r"after: unknown shapes", words)


def test_splits_are_flagged_and_looked_through(pair: Summary) -> None:
    [split] = [row for row in pair.rows if row.inserted]
    assert split.type == "Split"
    assert pair.where(split) is None
    again = pair.rows[-1]
    assert again.bottoms == ("sum_sum_0_split_1",)
    assert again.reads == ("sum",)
    assert (pair.totals.layers, pair.totals.layers_size, pair.totals.splits) == (8, 9, 1)
    assert [row.name for row in pair.lines()][-1] == "(1 split)"
    assert split.name in [row.name for row in pair.lines(splits=True)]
    assert split.name not in "\n".join(text(pair))


def test_in_place_is_marked(pair: Summary) -> None:
    assert [[top.in_place for top in row.tops] for row in pair.rows if row.name in ("two", "relu")] == [[False], [True]]
    assert re.search(r"^relu +ReLU +b +b\* ", "\n".join(text(pair)), re.MULTILINE)


def test_a_written_split_is_a_layer_as_written() -> None:
    source = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 7 dim: 2 } } }'
    summary = inspector.loads(source + 'layer { name: "s" type: "Split" bottom: "x" top: "y" top: "z" }').summary()
    assert (summary.totals.layers, summary.totals.splits) == (2, 0)


def test_a_selection_has_its_own_totals() -> None:
    whole = inspector.load("alexnet").summary()
    part = whole.select("conv*")
    assert [row.name for row in part.rows] == ["conv1", "conv2", "conv3", "conv4", "conv5"]
    assert part.totals.parameters == sum(row.parameters or 0 for row in whole.rows if row.type == "Convolution")
    assert [row.name for row in whole.select("fc6", "prob").rows] == ["fc6", "prob"]
    with pytest.raises(InspectorError, match="did you mean 'conv1'") as caught:
        whole.select("cnov1")
    assert caught.value.code == "no-such-layer"


def test_a_refused_net_is_shown_up_to_the_refusal() -> None:
    source = SHARED.replace('type: "Odd"', 'type: "ReLU"').replace('bottom: "odd"', 'bottom: "add"')
    summary = inspector.loads(source).summary()
    assert summary.error is not None
    assert summary.error.code == "unknown-bottom"
    assert [row.name for row in summary.rows if not row.inserted] == ["data", "one", "two", "relu", "sum", "odd"]
    assert summary.to_dict()["error"]["layer"] == "after"


def test_rows_know_where_they_were_written(pair: Summary) -> None:
    where = {row.name: pair.where(row) for row in pair.rows}
    assert str(where["relu"]) == "<text>:8:1"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("inception_3a/relu_1x1", "inception_3a"),
        ("res2a_branch1", "res2a"),
        ("conv1", ""),
        ("/x", ""),
        ("conv2_1/dw/bn", "conv2_1"),
    ],
)
def test_prefix(name: str, expected: str) -> None:
    assert prefix(name) == expected


def test_groups_are_the_blocks_of_the_paper() -> None:
    names = [row.name for row in inspector.load("googlenet").summary().lines(group=True)]
    blocks = [name for name in names if name.startswith("inception")]
    assert blocks == [f"inception_{block}" for block in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")]
    lines = inspector.load("resnet50").summary().lines(group=True)
    blocks = [row.name for row in lines if row.name.startswith("res")]
    assert len(blocks) == 3 + 4 + 6 + 3  # units per stage
    assert [(row.reads, row.tops[0].name) for row in lines if row.name.startswith("res2b")] == [(("res2a",), "res2b")]


def test_every_sum_is_a_column_of_every_row(pair: Summary) -> None:
    for row in pair.rows:
        assert all(isinstance(getattr(row, name), int | None) for name in SUMS)


def test_it_prints() -> None:
    printed = str(inspector.load("lenet").summary())
    assert re.search(r"^conv2 +Convolution +.*25,050", printed, re.MULTILINE)
    assert "431,080" in printed


# ---- text


@pytest.mark.parametrize("width", [6, 9, 20])
@pytest.mark.parametrize(
    "words", ["inception_3a/relu_3x3_reduce", "a b  c", "x" * 50, "網路/層 一二三四五六", "", "one two three four"]
)
def test_fold_loses_nothing(words: str, width: int) -> None:
    lines = fold(words, width)
    assert all(width_of(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(words.split())


def test_size() -> None:
    assert [size(n) for n in (0, 1023, 1024, 2_129_727_492, 3 << 50)] == [
        "0 bytes",
        "1023 bytes",
        "1.0 KiB",
        "2.0 GiB",
        "3072.0 TiB",
    ]
