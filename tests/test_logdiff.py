"""Models held against their reference logs: the shipped ones are met byte for byte, and a change is named where it was made."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner

from cli.main import main
from inspector import logdiff, logmodel, logparse, logstrict, opening, references
from inspector.logdiff import Difference, Outcome
from inspector.net import PHASES, Net

from . import logs
from .conftest import ROOT

MODELS = ROOT / "models"
SHIPPED = sorted(MODELS.glob("*/reference/*.log"))


def run(*words: object) -> Any:
    return CliRunner().invoke(main, ["diff", *map(str, words)], standalone_mode=False)


def log_of(name: str) -> Path:
    """MODEL/STEM.PHASE.DIALECT -> the shipped log."""
    model, _, rest = name.partition("/")
    return MODELS / model / "reference" / f"{rest}.log"


def changed(name: str, *changes: tuple[str, str]) -> str:
    """The text of the model that a shipped log is of, with the first place of each pattern replaced."""
    pair = references.named(log_of(name))
    assert pair.model is not None
    text = pair.model.read_text(encoding="utf-8")
    for pattern, put in changes:
        text, count = re.subn(pattern, put, text, count=1, flags=re.S)
        assert count == 1, pattern
    return text


def held(name: str, *changes: tuple[str, str]) -> Outcome:
    log = log_of(name)
    phase = references.named(log).phase
    net = Net(opening.text(changed(name, *changes), "changed.prototxt", PHASES[phase]), phase)
    return logdiff.diff(net, logparse.read(log.read_text(encoding="utf-8")), 0)


def only(outcome: Outcome) -> Difference:
    assert len(outcome.differences) == 1, [str(difference) for difference in outcome.differences]
    return outcome.differences[0]


@pytest.mark.parametrize("log", SHIPPED, ids=lambda path: f"{path.parts[-3]}/{path.name}")
def test_shipped_models_meet_their_references(log: Path) -> None:
    """By meaning, and every line byte for byte."""
    pair = references.named(log)
    nets = logparse.read(log.read_text(encoding="utf-8"))
    outcome = logdiff.diff(logmodel.open_phase(str(pair.model), pair.phase), nets, 0)
    assert outcome.same, [str(difference) for difference in outcome.differences]
    assert logstrict.strict(outcome.reference, outcome.model, "reference", "model") == []


# ---- one change, one difference, where it was made

MASTER = "caffenet/deploy.TEST.master"
DEBUG = "caffenet/deploy.TEST.rc-debug"  # prints no net: what changed has to be guessed
TRAIN = "caffenet/train_val.TRAIN.master"
OLD = "caffenet/train_val_22.TRAIN.v0.99"
VGG = "vgg16/train_val.TRAIN.master"
GOOGLE = "googlenet/train_val.TRAIN.master"

LINE = r'layer \{ name: "%s"[^\n]*\}\n'

FC6 = "fc6: reference 10 4096, model 10 2048"
FC6_OLD = "fc6: reference 10 4096 1 1, model 10 2048 1 1"
DATA = "data: top 'data': reference 256 3 227 227, model "

CHANGES = {
    "pad": (MASTER, [("pad: 2", "pad: 1")], "conv2: reference 10 256 27 27, model 10 256 25 25 (pad 2 became 1?)"),
    "pad, guessed": (DEBUG, [("pad: 2", "pad: 1")], "conv2: reference 10 256 27 27, model 10 256 25 25 (pad 2 became 1?"),
    "pad, of old": (OLD, [("pad: 2", "pad: 1")], "conv2: reference 256 256 27 27, model 256 256 25 25 (pad 2 became 1?"),
    "kernel": (VGG, [("kernel_size: 3", "kernel_size: 5")], "conv1_1: reference 64 64 224 224, model 64 64 222 222"),
    "stride": (TRAIN, [("stride: 2", "stride: 3")], "pool1: reference 256 96 27 27, model 256 96 19 19 (stride 2 became 3?)"),
    "outputs": (MASTER, [("num_output: 4096", "num_output: 2048")], FC6 + " (num_output 4096 became 2048?)"),
    "outputs, guessed": (DEBUG, [("num_output: 4096", "num_output: 2048")], FC6_OLD + " (num_output 4096"),
    "group": (MASTER, [("group: 2", "group: 4")], "conv2: convolution_param.group: reference 2, model 4"),
    "batch": (TRAIN, [("batch_size: 256", "batch_size: 128")], DATA + "128 3 227 227 (batch_size 256 became 128?)"),
    "crop": (TRAIN, [("crop_size: 227", "crop_size: 224")], DATA + "256 3 224 224 (crop_size 227 became 224?)"),
    "input": (MASTER, [("dim: 10 ", "dim: 20 ")], "data: reference 10 3 227 227, model 20 3 227 227"),
    "layer gone": (MASTER, [(LINE % "relu1", "")], "relu1: the model has no such layer: it reads 'conv1', works in place"),
    "layer gone, of old": (OLD, [(LINE % "relu1", "")], "relu1: the model has no such layer"),
    "layer gone, cut": (VGG, [(LINE % "relu1_1", "")], "relu1_1: the model has no such layer"),
    "layer more": (
        TRAIN,
        [(r'(layer \{ name: "relu7"[^\n]*\n)', r'\1layer { name: "bn" type: "BatchNorm" bottom: "fc7" top: "fc7" }\n')],
        "bn: the reference has no such layer: it reads 'fc7', works in place, stands behind 'relu7'",
    ),
    "layer renamed": (MASTER, [('name: "norm1"', 'name: "lrn1"')], "lrn1: the reference calls it 'norm1'"),
    "blob renamed": (
        MASTER,
        [('top: "pool1"', 'top: "p1"'), ('bottom: "pool1"', 'bottom: "p1"')],
        "pool1: reference names its top 'pool1', model 'p1'",
    ),
    "not in place": (
        MASTER,
        [
            (r'(name: "relu6".*?)top: "fc6"', r'\1top: "relu6"'),
            (r'(name: "drop6".*?)bottom: "fc6"(.*?)top: "fc6"', r'\1bottom: "relu6"\2top: "relu6"'),
            (r'(name: "fc7".*?)bottom: "fc6"', r'\1bottom: "relu6"'),
        ],
        "relu6: reference works in place on 'fc6', model makes 'relu6'",
    ),
    "type": (MASTER, [('type: "ReLU"', 'type: "TanH"')], "relu1: type: reference ReLU, model TanH"),
    "frozen": (
        TRAIN,
        [("lr_mult: 1", "lr_mult: 0"), ("lr_mult: 2", "lr_mult: 0")],
        "conv1: reference needs backward computation, model does not: it would not learn (lr_mult 1 became 0",
    ),
    "loss weight": (GOOGLE, [("loss_weight: 0.3", "loss_weight: 0.4")], "loss1/loss: loss weight: reference 0.3, model 0.4"),
    "no loss": (GOOGLE, [("loss_weight: 0.3", "loss_weight: 0")], "loss1/loss: loss weight: reference 0.3, model 0"),
    "rewired": (
        GOOGLE,
        [(r'(name: "inception_3b/1x1".*?)bottom: "inception_3a/output"', r'\1bottom: "pool2/3x3_s2"')],
        "inception_3b/1x1: reference reads 'inception_3a/output', model 'pool2/3x3_s2'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_one_difference(change: str) -> None:
    name, changes, expected = CHANGES[change]
    assert str(only(held(name, *changes))).startswith(expected)


def test_what_follows_is_counted_and_not_repeated() -> None:
    difference = only(held(MASTER, ("pad: 2", "pad: 1")))
    assert difference.follows == 9  # relu2, pool2, norm2, conv3, relu3, conv4, relu4, conv5, relu5; pool5 is 6 x 6 again
    assert str(difference).endswith("; 9 later shapes follow from it")
    assert difference.line is not None
    assert "10 256 27 27" in log_of(MASTER).read_text(encoding="utf-8").splitlines()[difference.line - 1]


def test_two_changes_in_a_row_are_two_differences() -> None:
    """The second layer's shapes follow from the first, but not only."""
    outcome = held(MASTER, ("pad: 2", "pad: 1"), (r'(name: "conv3".*?)pad: 1', r"\1pad: 0"))
    assert [difference.layer for difference in outcome.differences] == ["conv2", "conv3"]


def test_a_position_in_the_model() -> None:
    difference = only(held(MASTER, ("pad: 2", "pad: 1")))
    assert difference.where is not None and difference.where.file == "changed.prototxt"
    line = changed(MASTER).splitlines()[difference.where.line - 1 : difference.where.line + 2]
    assert 'name: "conv2"' in "".join(line)


def test_a_refused_model() -> None:
    difference = only(held(MASTER, ('bottom: "pool1"', 'bottom: "pool9"')))
    assert difference.code == "log-refused" and "pool9" in difference.message


def test_a_reference_that_ends_in_a_refusal() -> None:
    reference = logparse.read(
        'I net.cpp:53] Initializing net from parameters: \nname: "n"\nI layer_factory.hpp:77] Creating layer data\n'
        "I net.cpp:86] Creating Layer data\nF net.cpp:377] Top blob 'data' produced by multiple sources.\n"
    )
    text = changed(MASTER)
    outcome = logdiff.diff(Net(opening.text(text, "m", 1), "TEST"), reference, 0)
    assert only(outcome).message.startswith("the reference ends with 'Top blob 'data' produced by multiple sources.'")


def test_half_precision_is_said_and_not_taken_for_other_shapes() -> None:
    """A fork that counts two bytes a number: every figure halved."""
    text = re.sub(
        r"(Memory required for data: )(\d+)", lambda m: f"{m[1]}{int(m[2]) // 2}", log_of(MASTER).read_text(encoding="utf-8")
    )
    outcome = logdiff.diff(Net(opening.text(changed(MASTER), "m", 1), "TEST"), logparse.read(text), 0)
    assert "2 bytes for each number" in only(outcome).message


def test_part_of_a_log_is_enough() -> None:
    lines = log_of(TRAIN).read_text(encoding="utf-8").splitlines(keepends=True)
    start = next(i for i, line in enumerate(lines) if "Creating Layer pool2" in line)
    end = next(i for i, line in enumerate(lines) if "Setting up fc7" in line)
    whole = Net(opening.text(changed(TRAIN), "m", 0), "TRAIN")
    other = Net(opening.text(changed(TRAIN, (r'(name: "conv4".*?)pad: 1', r"\1pad: 0")), "m", 0), "TRAIN")
    for piece in (lines[start:], lines[:end], lines[start:end]):
        nets = logparse.read("".join(piece))
        outcome = logdiff.diff(whole, nets, 0)
        assert outcome.same, [str(difference) for difference in outcome.differences]
        assert logstrict.strict(outcome.reference, outcome.model, "a", "b") == []
        assert only(logdiff.diff(other, nets, 0)).layer == "conv4"


# ---- the command


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.prototxt"
    path.write_text(changed(MASTER, ("pad: 2", "pad: 1")))
    return path


def test_exit_statuses(broken: Path, tmp_path: Path) -> None:
    assert run("caffenet", log_of(MASTER)).return_value == 0
    different = run(broken, log_of(MASTER))
    assert different.return_value == 1
    assert "conv2: reference 10 256 27 27, model 10 256 25 25 (pad 2 became 1?)" in different.stdout
    assert "BVLC Caffe master" in different.stderr
    (tmp_path / "empty.log").write_text("nothing of the kind\n")
    assert run(broken, tmp_path / "empty.log").return_value == 2
    assert run(broken, tmp_path / "absent.log").return_value == 2
    assert run(tmp_path / "absent.prototxt", log_of(MASTER)).return_value == 2


def test_the_net_that_fits(tmp_path: Path) -> None:
    """A solver's log: each phase finds its net, and --net chooses."""
    train, test = (log_of(f"lenet/train_val.{phase}.master").read_text(encoding="utf-8") for phase in ("TRAIN", "TEST"))
    log = tmp_path / "solver.log"
    log.write_text(train + test + train)
    for words in ((), ("--phase", "TRAIN"), ("--phase", "TEST"), ("--net", "2"), ("--net", "3")):
        result = run("lenet/train_val", log, *words)
        assert result.return_value == 0, words
    assert "net 2 of 3, TEST" in run("lenet/train_val", log, "--phase", "TEST").stdout
    assert "net 3 of 3, TRAIN" in run("lenet/train_val", log, "--net", "3").stdout
    assert run("lenet/train_val", log, "--net", "4").return_value == 2


def test_formats(broken: Path) -> None:
    data = json.loads(run(broken, log_of(MASTER), "--format", "json").stdout)
    [reference] = data["references"]
    assert not data["same"] and reference["dialect"] == "master"
    [difference] = reference["differences"]
    assert (difference["layer"], difference["reference"], difference["hint"]) == ("conv2", [10, 256, 27, 27], "pad 2 became 1?")
    github = run(broken, log_of(MASTER), "--format", "github").stdout
    assert re.search(rf"^::error file={re.escape(str(broken))},line=\d+,col=\d+,title=log-shape::.*pad 2 became 1", github, re.M)
    suite = ET.fromstring(run(broken, log_of(MASTER), "--format", "junit").stdout)
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("1", "1", "0")
    assert "pad 2 became 1" in (suite.find(".//failure").text or "")  # type: ignore[union-attr]
    sarif = json.loads(run(broken, log_of(MASTER), "--format", "sarif").stdout)
    [result] = sarif["runs"][0]["results"]
    assert result["ruleId"] == "log-shape"
    for form in ("json", "github", "junit", "sarif"):
        assert run("caffenet", log_of(MASTER), "--format", form).return_value == 0


def test_strict_prints_a_unified_diff(broken: Path) -> None:
    result = run(broken, log_of(MASTER), "--strict")
    assert result.return_value == 1
    lines = result.stdout.splitlines()
    assert "-I net.cpp:131] Top shape: 10 256 27 27 (1866240)" in lines
    assert "+I net.cpp:131] Top shape: 10 256 25 25 (1600000)" in lines
    assert run("caffenet", log_of(MASTER), "--strict").return_value == 0


def test_accept_writes_the_reference_anew(broken: Path, tmp_path: Path) -> None:
    log = tmp_path / "broken.TEST.master.log"
    shutil.copy(log_of(MASTER), log)
    assert run(broken, log).return_value == 1
    assert run(broken, log, "--accept").return_value == 0
    assert run(broken, log, "--strict").return_value == 0
    assert log.read_text() == CliRunner().invoke(main, ["log", str(broken)], standalone_mode=False).stdout
    new = tmp_path / "new.TEST.rc2.log"  # its name says the version
    assert run("caffenet", new, "--accept").return_value == 0
    assert new.read_text().startswith("I net.cpp:42] Initializing net from parameters:")
    two = tmp_path / "two.log"
    two.write_text(log.read_text() * 2)
    before = two.read_bytes()
    assert run(broken, two, "--accept").return_value == 2 and two.read_bytes() == before


def test_check_all(broken: Path, tmp_path: Path) -> None:
    shipped = run("--check-all", MODELS)
    assert shipped.return_value == 0, shipped.stdout
    assert f"{len(SHIPPED)} of {len(SHIPPED)} references are met" in shipped.stdout
    folder = tmp_path / "all"
    (folder / "net" / "reference").mkdir(parents=True)
    shutil.copy(log_of(MASTER), folder / "net" / "reference" / "deploy.TEST.master.log")
    shutil.copy(MODELS / "caffenet" / "deploy.prototxt", folder / "net")
    shutil.copy(log_of(TRAIN), folder / "tv.log")
    shutil.copy(MODELS / "caffenet" / "train_val.prototxt", folder / "tv.prototxt")
    (folder / "notes.log").write_text("nothing of the kind\n")
    assert run("--check-all", folder).return_value == 0
    shutil.copy(log_of(MASTER), folder / "orphan.log")
    result = run("--check-all", folder)
    assert result.return_value == 1 and "without a model" in result.stdout and "2 of 3 references are met" in result.stdout
    (folder / "orphan.log").unlink()
    shutil.copy(broken, folder / "net" / "deploy.prototxt")
    result = run("--check-all", folder, "--format", "github")
    assert result.return_value == 1 and "::error file=" in result.stdout
    (folder / "net" / "deploy.prototxt").write_text("layer {")
    assert run("--check-all", folder).return_value == 2
    assert run("--check-all", tmp_path / "absent").return_value == 2


def test_a_solvers_log_beside_its_net(tmp_path: Path) -> None:
    """Both nets of the log are held against their phase."""
    train, test = (log_of(f"lenet/train_val.{phase}.master").read_text(encoding="utf-8") for phase in ("TRAIN", "TEST"))
    (tmp_path / "net.log").write_text(train + test)
    text = (MODELS / "lenet" / "train_val.prototxt").read_text(encoding="utf-8")
    (tmp_path / "net.prototxt").write_text(text)
    assert "2 of 2 references are met" in run("--check-all", tmp_path).stdout
    (tmp_path / "net.prototxt").write_text(text.replace("batch_size: 100", "batch_size: 50"))
    result = run("--check-all", tmp_path)
    assert result.return_value == 1 and "1 of 2 references are met" in result.stdout


# ---- real Caffe's logs of every version


def test_reference_nets_are_met_in_every_version(reference: Path) -> None:
    """Every seventh log of Caffe's own nets and of the random ones, the broken among them; all of the zoo."""
    cases = [
        case for i, case in enumerate(logs.cases(reference, sources=("caffe", "nets", "zoo"))) if i % 7 == 0 or case.source == "zoo"
    ]
    for case in cases:
        nets = logparse.read(logparse.decoded(case.log.read_bytes()))
        outcome = logdiff.diff(logmodel.open_phase(str(case.prototxt), case.phase), nets, 0)
        assert outcome.same, f"{case.name}: {[str(difference) for difference in outcome.differences]}"


def test_published_nets_are_met(reference: Path) -> None:
    """Every fifth net of the logs that people published; one repository's own field is all that is refused."""
    for case in list(logs.cases(reference, sources=("wild",)))[::5]:
        nets = logparse.read(logparse.decoded(case.log.read_bytes()))
        outcome = logdiff.diff(logmodel.open_phase(str(case.prototxt), case.phase), nets, case.net)
        left = [difference for difference in outcome.differences if "mem_group_size" not in str(difference)]
        assert not left, f"{case.name}: {[str(difference) for difference in left]}"


def test_strict_takes_the_stages_and_the_path_of_the_reference_as_its_own(tmp_path: Path) -> None:
    """The file's own stages are not given twice, and a reference made in another folder names the same net."""
    (tmp_path / "there").mkdir()
    model = tmp_path / "there" / "staged.prototxt"
    model.write_text("""
        state { stage: "deploy" }
        input: "x" input_dim: 2 input_dim: 3 input_dim: 4 input_dim: 5
        layers { name: "r" type: RELU bottom: "x" top: "y" include { stage: "deploy" stage: "more" } }
    """)
    made = CliRunner().invoke(main, ["log", str(model), "--stage", "more"])
    reference = tmp_path / "reference.log"
    reference.write_text(made.stdout.replace(str(model), "elsewhere/staged.prototxt"))
    assert made.stdout.count('stage: "deploy"') == 2 and "elsewhere" in reference.read_text()
    assert run(model, reference, "--strict").return_value == 0


def test_strict_leaves_out_what_protobuf_said(tmp_path: Path) -> None:
    model = tmp_path / "unread.prototxt"
    model.write_text('layer { name: "r" typo: "ReLU" }')
    made = CliRunner().invoke(main, ["log", str(model)]).stdout.splitlines(keepends=True)
    assert made[0].startswith("[libprotobuf ERROR")
    reference = tmp_path / "reference.log"
    for lines in (made, made[1:]):
        reference.write_text("".join(lines))
        assert run(model, reference, "--strict").return_value == 0


def test_a_reference_may_come_through_stdin() -> None:
    reference = (ROOT / "models" / "caffenet" / "reference" / "deploy.TEST.master.log").read_bytes()
    assert CliRunner().invoke(main, ["diff", "caffenet", "-"], input=reference).exit_code == 0
    assert CliRunner().invoke(main, ["diff", "caffenet", "-", "--accept"], input=reference).exit_code == 2


def test_a_filler_is_no_cause_of_a_shape() -> None:
    outcome = held("lenet/deploy.TEST.master", ("kernel_size: 5", "kernel_size: 4"), ('type: "xavier"', 'type: "constant"'))
    [shape] = [difference for difference in outcome.differences if "20 24 24" in difference.message]
    assert shape.hint == "kernel_size 5 became 4?"
