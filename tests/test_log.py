"""The construction log: held at what `tests/logs.py` measures against real Caffe, and unit by unit without a reference."""

from __future__ import annotations

import re
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import inspector
from cli.main import main
from inspector import dialect, log
from inspector.dialect import Statement, shape_string
from inspector.log import Line
from inspector.net import Net

from . import logs
from .conftest import ROOT

# Logs that are not met, and why: globs over the names that `python -m tests.logs` prints. Everything else is exact and stays so.
UNMET = {
    "caffe/v0.9999/mnist__lenet_train_test.TRAIN": "a database that was locked by the net before it",
    "wild/bvlc_nb_selective_search_demo_*": "v0.9, before the first dialect",
    "wild/bvlcpr_imagenet_sqiu_*": "a branch that groups im2col; the public prototxt names another database",
    "wild/daerduo_20150906-*": "a fork with fields of its own among V1 layers",
    "wild/daerduo_CUB_googLeNet_*": "a GPU build: cuDNN declines padded pooling",
    "wild/ducha_MaxPool128_2048#*": "a GPU build: cuDNN allots workspace",
    "wild/ducha_caffenet128_drop_input_01#*": "a GPU build: cuDNN allots workspace",
    "wild/nvcaffe_*": "NVIDIA's fork has statements of its own",
    "wild/ssd_*": "SSD's data and loss layers speak for themselves",
}

NET = """
name: "small"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 5 dim: 7 } } }
layer {
  name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } }
}
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "prob" type: "Softmax" bottom: "conv" top: "prob" exclude { stage: "bare" } }
"""


@pytest.fixture(scope="module")
def tallies(request: pytest.FixtureRequest) -> dict[tuple[str, str], logs.Tally]:
    return logs.measure(logs.cases(request.getfixturevalue("reference")))


def test_every_log_is_met_or_excused(tallies: dict[tuple[str, str], logs.Tally]) -> None:
    unmet = {name: difference for tally in tallies.values() for name, difference in tally.differences.items()}
    wrong = [f"{name}\n{text}" for name, text in unmet.items() if not any(fnmatchcase(name, glob) for glob in UNMET)]
    assert not wrong, "\n".join(wrong[:5])
    idle = [glob for glob in UNMET if not any(fnmatchcase(name, glob) for name in unmet)]
    assert not idle, "met by now: take it off the list"


def said(text: str, version: str = "master", *, phase: str = "TEST", debug: bool = False, **state: object) -> list[str]:
    """The masked lines of a net given as text."""
    words = dialect.load(version)
    net = Net(inspector.opening.text(text), phase, edition=words.edition, **state)  # type: ignore[arg-type]
    return "".join(line.masked() for line in log.of(net, words, file="small.prototxt", debug=debug)).splitlines()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["log", *arguments])


# ---- lines


def test_a_record_is_cut_as_glog_does() -> None:
    line = Line("I", "net.cpp:53", "x" * 40_000)
    assert len(line.real(datetime(2017, 4, 18), 4242)) == 29_999  # the line break included
    masked = line.masked()
    assert masked.endswith("x\n")
    assert len(masked) == 29_999 - len("0418 00:00:00.000000 12345")
    assert len(line.masked(cut=False)) == len("I net.cpp:53] ") + 40_001


def test_a_cut_never_splits_a_character() -> None:
    text = Line("I", "net.cpp:53", "é" * 20_000).masked()
    assert text.encode().decode() == text
    assert len(text.encode()) <= 29_999


def test_the_prefix_is_that_of_glog() -> None:
    line = Line("W", "upgrade_proto.cpp:74", "Note")
    assert line.real(datetime(2016, 1, 29, 3, 4, 5, 6), 42) == "W0129 03:04:05.000006    42 upgrade_proto.cpp:74] Note\n"
    assert line.masked() == "W upgrade_proto.cpp:74] Note\n"


def test_statements_spell_like_a_stream() -> None:
    statement = Statement.parse("I net.cpp:131] {shape} {weight} {flag} {none}")
    assert statement.words({"shape": (2, 3), "weight": 0.1 + 0.2, "flag": True, "none": ()}) == "2 3 (6) 0.3 1 (1)"
    assert shape_string(()) == "(1)"


# ---- dialects


def test_dialects_are_sorted_by_date_and_build_on_each_other() -> None:
    names = dialect.names()
    wanted = ["v0.99", "v0.999", "v0.9999", "rc", "rc2", "rc3", "rc4", "1.0", "master"]
    assert [name for name in names if name in wanted] == wanted
    assert dialect.load("rc5").name == "1.0"
    with pytest.raises(inspector.InspectorError, match=r"there is no dialect 'rc9'.*v0\.99"):
        dialect.load("rc9")


def test_statements_move_with_their_file() -> None:
    master, one, four = (dialect.load(name).say for name in ("master", "1.0", "rc4"))
    lines = [int(say["create"].place.partition(":")[2]) for say in (master, one, four)]
    assert lines == [86, 84, 86]  # DIALECTS: the test header went with rc5
    assert dialect.load("rc3").say["input"].words({"index": 0, "blob": "data"}) == "Input 0 -> data"


@pytest.mark.parametrize("version", dialect.names())
def test_every_dialect_tells_a_net_from_beginning_to_end(version: str) -> None:
    words = dialect.load(version)
    net = inspector.load("lenet")
    lines = [line.masked() for line in log.of(Net(net.opened, edition=words.edition), words, lenient=True)]
    assert any("Creating Layer conv1" in line for line in lines)
    assert any("Network initialization done." in line for line in lines)
    assert all(re.fullmatch(r"[IWE] [\w.]+:\d+\] .*\n", line, re.DOTALL) for line in lines)


# ---- a net from beginning to end


def test_the_order_of_master() -> None:
    rule, banner, *dump = said(NET)
    assert rule == "I net.cpp:332] The NetState did not contain stage 'bare' specified by a rule in layer prob"
    assert banner == "I net.cpp:53] Initializing net from parameters: "
    assert dump[:5] == ['name: "small"', "state {", "  phase: TEST", "  level: 0", "}"]
    after = [line.partition("] ")[2] for line in dump if line.startswith("I ")]
    assert after == [
        "Creating layer data",
        "Creating Layer data",
        "data -> data",
        "Setting up data",
        "Top shape: 2 3 5 7 (210)",
        "Memory required for data: 840",
        "Creating layer conv",
        "Creating Layer conv",
        "conv <- data",
        "conv -> conv",
        "Setting up conv",
        "Top shape: 2 4 3 5 (120)",
        "Memory required for data: 1320",
        "Creating layer relu",
        "Creating Layer relu",
        "relu <- conv",
        "relu -> conv (in-place)",
        "Setting up relu",
        "Top shape: 2 4 3 5 (120)",
        "Memory required for data: 1800",
        "Creating layer prob",
        "Creating Layer prob",
        "prob <- conv",
        "prob -> prob",
        "Setting up prob",
        "Top shape: 2 4 3 5 (120)",
        "Memory required for data: 2280",
        "prob does not need backward computation.",
        "relu does not need backward computation.",
        "conv does not need backward computation.",
        "data does not need backward computation.",
        "This network produces output prob",
        "Network initialization done.",
    ]


def test_a_failed_exclude_rule_is_told_and_a_met_one_is_not() -> None:
    rule = "I net.cpp:332] The NetState did not contain stage 'bare' specified by a rule in layer prob"
    assert rule in said(NET)
    assert rule not in said(NET, stages=["bare"])
    assert "I net.cpp:244] This network produces output conv" in said(NET, stages=["bare"])


@pytest.mark.parametrize(("version", "order"), [("rc2", ["loss", "inner"]), ("rc3", ["inner", "loss"])])
def test_setting_up_stands_before_what_a_layer_says_up_to_rc2(version: str, order: list[str]) -> None:
    net = """
    layer { name: "d" type: "DummyData" top: "d" top: "l" dummy_data_param { num: 6 channels: 2 channels: 1 height: 1 width: 1 } }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "d" bottom: "l" top: "loss" }
    """
    lines = [line.partition("] ")[2] for line in said(net, version)]
    last = len(lines) - 1 - lines[::-1].index("Creating layer loss")  # the Softmax inside
    assert sorted(["loss", "inner"], key=lambda who: last if who == "inner" else lines.index("Setting up loss")) == order


def test_the_state_of_the_file_in_each_version() -> None:
    net = NET.replace('name: "small"', 'name: "small" state { phase: TRAIN level: 3 stage: "x" }')
    state = {version: said(net, version)[3:8] for version in ("rc2", "rc3", "1.0", "master")}
    assert state["rc2"] == state["rc3"] == ["state {", "  phase: TEST", "  level: 3", '  stage: "x"', "}"]
    assert state["1.0"] == state["master"] == ["state {", "  phase: TEST", "  level: 0", '  stage: "x"', "}"]


def test_net_inputs_are_no_layers_up_to_rc3() -> None:
    net = 'input: "data" input_dim: 2 input_dim: 3 input_dim: 5 input_dim: 7 layer { name: "s" type: "Silence" bottom: "data" }'
    old, new = said(net, "rc3"), said(net, "rc4")
    assert "I net.cpp:413] Input 0 -> data" in old
    assert "I net.cpp:165] Memory required for data: 0" in old
    assert "I upgrade_proto.cpp:67] Attempting to upgrade input file specified using deprecated input fields: small.prototxt" in new
    assert "I net.cpp:139] Memory required for data: 840" in new


def test_blobs_have_four_axes_up_to_rc2() -> None:
    net = """
    layer { name: "d" type: "DummyData" top: "d" dummy_data_param { num: 6 channels: 2 height: 1 width: 1 } }
    layer { name: "fc" type: "InnerProduct" bottom: "d" top: "fc" inner_product_param { num_output: 5 } }
    """
    assert "I net.cpp:112] Top shape: 6 5 1 1 (30)" in said(net, "rc2")
    assert "I net.cpp:157] Top shape: 6 5 (30)" in said(net, "rc3")


def test_debug_builds_say_more() -> None:
    assert "I net.cpp:122] Memory required for data: 840" not in said(NET, "rc2")
    net = 'layer { name: "d" type: "DummyData" top: "d" dummy_data_param { num: 6 channels: 2 height: 1 width: 1 } }'
    assert "I net.cpp:122] Memory required for data: 48" in said(net, "rc2", debug=True)


# ---- refusals


def test_a_refused_net_ends_in_the_f_line() -> None:
    net = NET.replace("kernel_size: 3", "kernel_size: 3 group: 2")
    assert said(net)[-1] == "F base_conv_layer.cpp:121] Check failed: channels_ % group_ == 0 (1 vs. 0) "


def test_too_few_input_dims_are_refused_after_the_banner() -> None:
    net = 'input: "data" input_dim: 2 input_dim: 3 input_dim: 5 layer { name: "s" type: "Silence" bottom: "data" }'
    words = (
        "Check failed: param.input_size() * 4 == param.input_dim_size() (4 vs. 3) Incorrect input blob dimension specifications."
    )
    assert said(net, "rc2")[-1] == f"F net.cpp:51] {words}"
    assert said(net, "rc3")[-1] == f"F net.cpp:63] {words}"


def test_text_that_cannot_be_parsed_is_refused_as_by_protobuf() -> None:
    lines = said(NET.replace("kernel_size", "kernelsize"))
    assert lines[-2].startswith("[libprotobuf ERROR google/protobuf/text_format.cc:")
    assert lines[-2].endswith('Message type "caffe.ConvolutionParameter" has no field named "kernelsize".')
    assert lines[-1].endswith("Failed to parse NetParameter file: small.prototxt")


def test_a_lenient_log_goes_on_where_a_fork_would() -> None:
    words = dialect.load("master")
    text = NET.replace('type: "ReLU"', 'type: "MyReLU" my_param { x: 1 }')
    net = Net(inspector.opening.text(text), given={"conv": (2, 4, 3, 5)})
    lines = [line.masked() for line in log.of(net, words, lenient=True)]
    assert lines[-1] == "I net.cpp:257] Network initialization done.\n"
    assert "I net.cpp:131] Top shape: 2 4 3 5 (120)\n" in lines


# ---- sources


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "list.txt").write_text("a.png 0\nb.png 1\nc.png 2\n")
    path = tmp_path / "images.prototxt"
    path.write_text(
        'layer { name: "d" type: "ImageData" top: "d" top: "l" transform_param { mean_file: "m.binaryproto" }'
        ' image_data_param { source: "list.txt" batch_size: 2 new_height: 5 new_width: 7 shuffle: true } }'
    )
    return path


def test_image_lists_are_counted_where_they_can_be_read(images: Path) -> None:
    lines = run(str(images)).stdout.splitlines()
    place = lines.index("I data_transformer.cpp:25] Loading mean file from: m.binaryproto")
    assert lines[place + 1 : place + 5] == [
        "I image_data_layer.cpp:38] Opening file list.txt",
        "I image_data_layer.cpp:53] Shuffling data",
        "I image_data_layer.cpp:63] A total of 3 images.",
        "I image_data_layer.cpp:90] output data size: 2,3,5,7",
    ]


def test_what_cannot_be_known_is_left_out_and_said_on_stderr(images: Path) -> None:
    (images.parent / "list.txt").unlink()
    result = run(str(images))
    assert result.exit_code == 0
    assert "A total of" not in result.stdout
    assert "the number of images (of 'list.txt') is left out" in " ".join(result.stderr.split())


# ---- the command


def test_stdout_is_the_log_and_nothing_else() -> None:
    result = run("lenet", "--dialect", "rc5")
    assert result.exit_code == 0
    assert result.stdout.startswith("I net.cpp:51] Initializing net from parameters: \n")
    assert result.stdout.endswith("I net.cpp:255] Network initialization done.\n")


def test_a_refusal_gives_status_1_and_its_remedy_on_stderr(tmp_path: Path) -> None:
    path = tmp_path / "n.prototxt"
    path.write_text(NET.replace("kernel_size: 3", "kernel_size: 3 group: 2"))
    result = run(str(path), "--prefix", "real")
    assert result.exit_code == 1
    assert re.fullmatch(r"F\d{4} \d\d:\d\d:\d\d\.\d{6} 12345 base_conv_layer\.cpp:121\] .*", result.stdout.splitlines()[-1])
    assert "'conv' (Convolution)" in result.stderr


def test_broken_text_gives_protobufs_words_and_status_1(tmp_path: Path) -> None:
    path = tmp_path / "n.prototxt"
    path.write_text('name: "x" layer { name: "a" ')
    result = run(str(path))
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == (
        f"F upgrade_proto.cpp:90] Check failed: ReadProtoFromTextFile(param_file, param) Failed to parse NetParameter file: {path}"
    )


def test_an_unknown_dialect_is_trouble() -> None:
    result = run("lenet", "--dialect", "caffe3")
    assert result.exit_code == 2
    assert result.stdout == ""


def test_models_that_ship_are_written_for_the_version_and_other_files_are_not(tmp_path: Path) -> None:
    path = tmp_path / "deploy.prototxt"
    path.write_text((ROOT / "models" / "caffenet" / "deploy.prototxt").read_text())
    shipped = run("caffenet", "--dialect", "rc3")
    assert shipped.exit_code == 0
    assert "I net.cpp:413] Input 0 -> data" in shipped.stdout
    refused = run(str(path), "--dialect", "rc3")
    assert refused.exit_code == 1
    assert 'has no field named "input_param".' in refused.stdout
    assert run(str(path), "--dialect", "rc3", "--translate").stdout == shipped.stdout
    assert run("caffenet", "--dialect", "rc3", "--no-translate").exit_code == 1


@pytest.mark.parametrize(
    ("file", "options", "begin", "end"),
    [
        ("caffenet_deploy.rc-debug.log", "caffenet --dialect rc --debug-build", "Input 0", "E upgrade_proto"),
        ("caffenet_train_22_classes.v0.99.log", "caffenet/train_val_22 --dialect v0.99 --phase TRAIN", "Top shape", None),
    ],
)
def test_the_published_logs(reference: Path, file: str, options: str, begin: str, end: str | None) -> None:
    theirs = logs.settled(logs.lines_of(reference / "logs" / "published" / file))
    if end:  # what follows tells of weights that do not ship
        theirs = theirs[: next(i for i, line in enumerate(theirs) if line.startswith(end))]
    ours = logs.settled(logs.masked(run(*options.split()).stdout))
    assert ours[next(i for i, line in enumerate(ours) if begin in line) :] == theirs


def test_dialects_are_listed() -> None:
    import json

    result = CliRunner().invoke(main, ["dialects", "--format", "json"])
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    assert list(rows) == dialect.names()
    assert rows["master"]["behaviour"] == {}
    assert rows["rc2"]["behaviour"]["nd_blobs"] is False
    assert (rows["v0.99"]["layers"], rows["rc"]["layers"], rows["rc2"]["layers"]) == ("V0", "V1", "V2")


# ---- weights


def test_loading_weights_is_told_layer_by_layer(reference: Path) -> None:
    folder = reference / "models" / "lenet_v1_2014"
    stored = str(folder / "weights.caffemodel")
    result = run(str(folder / "deploy.prototxt"), "--weights", stored, "--debug-build")
    lines = result.stdout.splitlines()
    end = lines.index("I net.cpp:257] Network initialization done.")
    assert (
        lines[end + 1]
        == f"I upgrade_proto.cpp:55] Attempting to upgrade input file specified using deprecated V1LayerParameter: {stored}"
    )
    assert lines[end + 3] == "I net.cpp:746] Ignoring source layer mnist"
    assert lines[end + 4] == "I net.cpp:749] Copying source layer conv1"
    assert lines[-1] == "I net.cpp:746] Ignoring source layer loss"
    quiet = run(str(folder / "deploy.prototxt"), "--weights", stored).stdout.splitlines()
    assert [line for line in lines if "Copying" not in line] == quiet


def test_weights_of_another_shape_end_the_log(reference: Path, tmp_path: Path) -> None:
    folder = reference / "models" / "lenet_v1_2014"
    path = tmp_path / "wide.prototxt"
    path.write_text((folder / "deploy.prototxt").read_text().replace("num_output: 500", "num_output: 400"))
    result = run(str(path), "--weights", str(folder / "weights.caffemodel"))
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == (
        "F net.cpp:759] Cannot copy param 0 weights from layer 'ip1'; shape mismatch.  Source param shape is 1 1 500 800 (400000); "
        "target param shape is 400 800 (320000). To learn this layer's parameters from scratch rather than copying from a saved "
        "net, rename the layer."
    )


SHIPPED = sorted((ROOT / "models").glob("*/reference/*.master.log"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_models_that_ship_have_caffes_log(path: Path) -> None:
    file, phase, _ = path.stem.split(".")
    theirs = path.read_text().splitlines()
    text = (path.parent.parent / f"{file}.prototxt").read_text()
    given = logs.given(inspector.loads(text, phase), theirs)
    ours = "".join(line.masked() for line in log.of(inspector.loads(text, phase, given=given), dialect.load("master"))).splitlines()
    ours, theirs = ([line for line in lines if line.startswith("I net.cpp")] for lines in (ours, theirs))
    assert ours[-len(theirs) :] == theirs  # some begin after the net
