"""Caffe before February 2015: how v0.99 to rc read, built and said a net, held against their logs and rule by rule."""

from __future__ import annotations

import re
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from caffe_proto import caffe_pb2
from cli.main import main
from inspector import dialect, log, opening, translate, upgrade
from inspector.draft import Draft
from inspector.errors import InspectorError
from inspector.net import Net

from . import logs
from .conftest import ROOT

HELD = ("v0.99", "v0.999", "2014-05", "v0.9999", "2014-08", "rc", "rc-debug", "2014-10", "2015-02")

# Logs that are not met, and why
UNMET = {
    "caffe/v0.9999/mnist__lenet_train_test.TRAIN": "another process held the lock of its database",
    "wild/bvlcpr_imagenet_sqiu_*": "its convolutions speak for themselves, and its prototxts are of other runs",
    "wild/bvlc_nb_selective_search_demo_*": "v0.9, before the first dialect",
    "wild/daerduo_20150906-*": "a branch between rc and rc2 with a data layer of its own",
    "wild/amd_*": "AMD's fork",
    "wild/nvcaffe_*": "NVIDIA's fork",
}


def said(text: str, version: str, *, phase: str = "TEST", debug: bool = False, given: Any = None) -> list[str]:
    """The masked lines of a net given as text, read by that version."""
    words = dialect.load(version)
    opened = translate.read(opening.text(text), words)
    net = Net(opened, phase, given=given, edition=replace(words.edition, debug=debug))
    return "".join(line.masked() for line in log.of(net, words, file="small.prototxt", debug=debug)).splitlines()


def words_of(text: str, version: str, **how: Any) -> list[str]:
    """The same without severity and place."""
    return [line.split("] ", 1)[-1] for line in said(text, version, **how)]


# ---- against real Caffe


@pytest.fixture(scope="module")
def unmet(request: pytest.FixtureRequest) -> dict[str, str]:
    tallies = logs.measure(logs.cases(request.getfixturevalue("reference"), HELD))
    return {name: difference for tally in tallies.values() for name, difference in tally.differences.items()}


def test_every_log_is_met_or_excused(unmet: dict[str, str]) -> None:
    wrong = [f"{name}\n{text}" for name, text in unmet.items() if not any(fnmatchcase(name, glob) for glob in UNMET)]
    assert not wrong, "\n".join(wrong[:5])


def published(reference: Path, name: str) -> list[str]:
    return [
        re.sub(r"^([IWEF])\d{4} [\d:.]+ +\d+ ", r"\1 ", line)
        for line in logs.read(reference / "logs/published" / name).splitlines()
    ]


def test_the_published_training_log_of_v0_99(reference: Path) -> None:
    result = CliRunner().invoke(main, ["log", "caffenet/train_val_22", "--dialect", "v0.99", "--translate", "--phase", "TRAIN"])
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    first = next(i for i, line in enumerate(lines) if "Top shape" in line)
    assert lines[first:] == published(reference, "caffenet_train_22_classes.v0.99.log")


def test_the_published_deploy_log_of_a_debug_build(reference: Path) -> None:
    result = CliRunner().invoke(main, ["log", "caffenet", "--dialect", "rc", "--debug-build"])
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    theirs = published(reference, "caffenet_deploy.rc-debug.log")
    built = theirs[: next(i for i, line in enumerate(theirs) if "upgrade_proto" in line)]
    first = lines.index(built[0])
    assert lines[first:] == built
    loading = {line.split("] ")[0] for line in theirs[len(built) :]}
    later = dialect.load("2014-10")  # the lines about weights are those of a later master
    assert loading == {f"{s.level.replace('D', 'I')} {s.place}" for key in LOADING for s in [later.say[key]]}


LOADING = ("upgrade-transform", "upgrade-transform-done", "upgrade-transform-advice", "ignoring", "copying")

# ---- graphs

TWO_READERS = """
input: "x" input_dim: 2 input_dim: 3 input_dim: 4 input_dim: 5
layers { name: "r" type: RELU bottom: "x" top: "y" }
layers { name: "s" type: SIGMOID bottom: "y" top: "a" }
layers { name: "t" type: TANH bottom: "y" top: "b" }
"""


def test_the_first_split_top_kept_the_name() -> None:
    old = words_of(TWO_READERS, "v0.9999")
    assert "y_r_0_split -> y (in-place)" in old
    assert "y_r_0_split -> y_r_0_split_1" in old
    assert "t <- y_r_0_split_1" in old
    new = words_of(TWO_READERS, "rc")
    assert "y_r_0_split -> y_r_0_split_0" in new


def test_in_place_after_a_first_reader_is_a_duplicate() -> None:
    text = TWO_READERS.replace('bottom: "y" top: "b"', 'bottom: "y" top: "y"')
    assert said(text, "v0.999")[-1] == "F net.cpp:108] Duplicate blobs produced by multiple sources."


def test_what_memory_counted() -> None:
    inputs, elements = 2 * 3 * 4 * 5, 120
    figures = {name: words_of(TWO_READERS, name)[-1] for name in ("v0.99", "v0.999", "v0.9999", "2014-08", "rc")}
    v0 = re.sub(
        r"layers \{ name: (\S+) type: (\S+)", lambda m: f"layers {{ layer {{ name: {m[1]} type: '{m[2].lower()}' }}", TWO_READERS
    )
    figures["v0.99"] = words_of(v0, "v0.99")[-1]
    # v0.99: inputs, r, s, t; a split's first top works in place, so the whole split counts nothing
    assert figures["v0.99"] == figures["v0.999"] == f"Memory required for Data {4 * (inputs + 3 * elements)}"
    assert figures["v0.9999"] == figures["2014-08"] == f"Memory required for data: {4 * inputs}"
    assert figures["rc"] == f"Memory required for data: {4 * 5 * elements}"  # r, two of the split, s, t


LEARNS = """
input: "x" input_dim: 2 input_dim: 3 input_dim: 1 input_dim: 1
FORCE
layers { name: "r" type: RELU bottom: "x" top: "y" }
layers { name: "ip" type: INNER_PRODUCT bottom: "y" top: "z" inner_product_param { num_output: 7 } }
layers { name: "sig" type: SIGMOID bottom: "z" top: "p" }
"""


def test_backward_was_decided_layer_by_layer() -> None:
    lines = words_of(LEARNS.replace("FORCE", ""), "v0.9999")
    decisions = [line for line in lines if line.endswith("backward computation.")]
    assert [line.startswith(name) for line, name in zip(decisions, ("r does not", "ip needs", "sig needs"), strict=True)] == [
        True
    ] * 3
    assert lines.index(decisions[0]) < lines.index("Creating Layer ip")
    later = [line for line in words_of(LEARNS.replace("FORCE", ""), "rc") if line.endswith("backward computation.")]
    assert later == [f"{name} does not need backward computation." for name in ("sig", "ip", "r")]  # there is no loss


def test_force_backward_showed_up_to_v0_999() -> None:
    text = LEARNS.replace("FORCE", "force_backward: true")
    assert "r needs backward computation." in words_of(text, "v0.999")
    assert "r does not need backward computation." in words_of(text, "v0.9999")


def test_the_phase_of_the_file_won() -> None:
    text = """
    state { phase: TRAIN }
    input: "x" input_dim: 2 input_dim: 3 input_dim: 4 input_dim: 5
    layers { name: "train" type: RELU bottom: "x" top: "x" include { phase: TRAIN } }
    layers { name: "test" type: RELU bottom: "x" top: "x" include { phase: TEST } }
    """
    lines = said(text, "rc", phase="TEST")
    assert lines[0] == "I net.cpp:275] The NetState phase (0) differed from the phase (1) specified by a rule in layer test"
    assert lines[-1].endswith("Memory required for data: 480")
    dumped = lines[1 : next(i for i, line in enumerate(lines) if " Input 0 -> x" in line)]
    assert dumped[-3:] == ["state {", "  phase: TRAIN", "}"]


# ---- layers


def test_padding_was_a_layer_and_then_was_folded() -> None:
    text = """
    input: "x" input_dim: 2 input_dim: 3 input_dim: 6 input_dim: 9
    layers { layer { name: "pad" type: "padding" pad: 2 } bottom: "x" top: "padded" }
    layers { layer { name: "conv" type: "conv" num_output: 4 kernelsize: 5 } bottom: "padded" top: "y" }
    """
    first = said(text, "v0.99")
    assert any(line.startswith("W padding_layer.cpp:15] Padding layers are deprecated") for line in first)
    assert "I net.cpp:125] Top shape: 2 3 10 13 (780)" in first
    assert "I net.cpp:125] Top shape: 2 4 6 9 (432)" in first
    second = said(text, "v0.999")
    assert second[0].startswith("E upgrade_proto.cpp:576] Attempting to upgrade")
    assert not any("padded" in line for line in second)
    assert "I net.cpp:126] Top shape: 2 4 6 9 (432)" in second


def test_accuracy_was_a_pair_and_a_loss_had_no_top() -> None:
    text = """
    input: "x" input_dim: 2 input_dim: 3 input_dim: 1 input_dim: 1
    input: "label" input_dim: 2 input_dim: 1 input_dim: 1 input_dim: 1
    layers { name: "acc" type: ACCURACY bottom: "x" bottom: "label" top: "acc" }
    layers { name: "loss" type: SOFTMAX_LOSS bottom: "x" bottom: "label" }
    """
    old, middle, new = (words_of(text, name) for name in ("v0.999", "v0.9999", "rc"))
    assert "Top shape: 1 2 1 1 (2)" in old
    assert "Top shape: 1 1 1 1 (1)" in middle
    assert not any(line.startswith("loss ->") for line in old + middle)
    assert "loss -> (automatic)" in new
    assert "    with loss weight 1" in new


def test_padded_windows_were_not_clipped_in_v0_999() -> None:
    text = """
    input: "x" input_dim: 2 input_dim: 3 input_dim: 5 input_dim: 8
    layers { name: "p" type: POOLING bottom: "x" top: "y" pooling_param { pool: AVE kernel_size: 2 stride: 3 pad: 1 } }
    """
    # rows: ceil((5 + 2 - 2) / 3) + 1 = 3, of which the last starts at 6 - 1, behind the 5 rows; columns: ceil(8 / 3) + 1 = 4
    assert "Top shape: 2 3 3 4 (72)" in words_of(text, "v0.999")
    assert "Top shape: 2 3 2 3 (36)" in words_of(text, "v0.9999")
    maximum = text.replace("AVE", "MAX")
    assert said(maximum, "v0.999")[-1].startswith("F pooling_layer.cpp:25]")


def test_a_mirror_in_test_stopped_v0_999() -> None:
    text = """
    layers { name: "d" type: DATA top: "x" top: "label" data_param { source: "db" batch_size: 2 crop_size: 5 mirror: true } }
    layers { name: "r" type: RELU bottom: "x" top: "y" }
    """
    assert said(text, "v0.999")[-1] == "F data_layer.cpp:254] Check failed: prefetch_rng_ "
    assert "Network initialization done." in words_of(text, "v0.999", phase="TRAIN")
    assert "Network initialization done." in words_of(text, "v0.9999")


def test_only_debug_builds_check_the_dropout_ratio() -> None:
    text = """
    input: "x" input_dim: 2 input_dim: 3 input_dim: 4 input_dim: 5
    layers { name: "d" type: DROPOUT bottom: "x" top: "x" dropout_param { dropout_ratio: 1 } }
    """
    assert said(text, "rc", debug=True)[-1] == "F dropout_layer.cpp:19] Check failed: threshold_ < 1. "
    assert "Network initialization done." in words_of(text, "rc")


# ---- checks of layers that were written anew for blobs of any number of axes


@pytest.mark.parametrize(
    ("version", "layer", "words"),
    [
        (
            "rc",
            "type: SLICE top: 'a' top: 'b' slice_param { slice_dim: 2 }",
            "slice_layer.cpp:16] Check failed: slice_dim_ <= 1 (2 ",
        ),
        ("rc", "type: SLICE top: 'a' top: 'b'", "slice_layer.cpp:65] Check failed: channels_ % top->size() == 0 (1 vs. 0) "),
        ("rc2", "type: SLICE top: 'a' top: 'b'", "slice_layer.cpp:65] Check failed: channels_ % top.size() == 0 (1 vs. 0) "),
        (
            "rc2",
            "type: SLICE top: 'a' top: 'b' top: 'c' slice_param { slice_dim: 0 slice_point: 1 slice_point: 2 }",
            "slice_layer.cpp:34] Check failed: top.size() <= num_ (3 vs. 2) ",
        ),
        ("rc", "type: POOLING top: 'a' pooling_param { kernel_size: 9 }", "blob.cpp:13] Check failed: height >= 0 (-4 vs. 0) "),
        ("v0.999", "type: POOLING top: 'a' pooling_param { kernel_size: 9 }", "blob.cpp:18] Check failed: height >= 0 (-4 vs. 0) "),
        (
            "rc",
            "type: ABSVAL top: 'x'",
            "absval_layer.cpp:13] Check failed: (*top)[0] != bottom[0] (0x…) ABSVAL Layer does not allow in-place computation.",
        ),
    ],
)
def test_layers_before_rc3_checked_in_their_own_words(version: str, layer: str, words: str) -> None:
    text = f"input: 'x' input_dim: 2 input_dim: 3 input_dim: 4 input_dim: 5 layers {{ name: 'l' bottom: 'x' {layer} }}"
    assert said(text, version)[-1].replace("0x0 vs. 0x0", "0x…").startswith("F " + words)


@pytest.mark.parametrize(
    ("version", "line"), [("v0.999", 89), ("rc", 86), ("rc2", 94), ("rc3", 173), ("1.0", 175), ("master", 177)]
)
def test_padding_is_folded_into_windows_only(version: str, line: int) -> None:
    text = """
    input: "x" input_dim: 2 input_dim: 3 input_dim: 4 input_dim: 5
    layers { layer { name: "p" type: "padding" pad: 2 } bottom: "x" top: "p" }
    layers { layer { name: "r" type: "relu" } bottom: "p" top: "r" }
    """
    assert said(text, version)[-1] == (
        f'F upgrade_proto.cpp:{line}] Check failed: (layer_param.type() == "conv") || (layer_param.type() == "pool") '
        "Padding layer input to non-convolutional / non-pooling layer type relu"
    )


def test_dummy_data_without_sizes_lacked_a_num() -> None:
    (*_, last) = said("layers { name: 'd' type: DUMMY_DATA top: 'a' }", "rc2")
    assert last.startswith("F dummy_data_layer.cpp:19] Check failed: param.num_size() == 1 ")
    assert last.endswith("for each top blob (1); you specified 0.")


def test_flatten_worked_in_place() -> None:
    text = "input: 'x' input_dim: 2 input_dim: 3 input_dim: 4 input_dim: 5 layers { name: 'f' type: FLATTEN bottom: 'x' top: 'x' }"
    assert "Top shape: 2 60 1 1 (120)" in words_of(text, "rc")
    assert "does not allow in-place" in words_of(text, "rc3")[-1]


@pytest.mark.parametrize("sizes", ["input_dim: 2 input_dim: 3", "input_shape { dim: 2 dim: 3 }"])
def test_inputs_without_sizes_have_no_words_of_caffe(sizes: str) -> None:
    """Its upgrade read past the end of what was given: nothing that it printed then is certain."""
    lines = said(f"input: 'x' input: 'y' {sizes}", "master")
    assert [line.split("]")[0] for line in lines] == ["I upgrade_proto.cpp:69"]


# ---- multipliers


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("blobs_lr: 1 blobs_lr: -2", "net.cpp:475] Check failed: local_lr >= 0. (-2 vs. 0) "),
        ("weight_decay: 1 weight_decay: -1", "net.cpp:489] Check failed: local_decay >= 0. (-1 vs. 0) "),
        (
            "weight_decay: 1",
            "net.cpp:485] Check failed: layers_[i]->layer_param().weight_decay_size() == layer_blobs.size() (1 vs. 2) ",
        ),
        (
            "blobs_lr: 1",
            "net.cpp:116] Check failed: blobs_lr_size == num_param_blobs || blobs_lr_size == 0 Incorrect blobs lr size",
        ),
    ],
)
def test_multipliers_come_once_for_each_blob(settings: str, words: str) -> None:
    text = LEARNS.replace("FORCE", "").replace('top: "z"', f'top: "z" {settings}')
    lines = said(text, "rc")
    assert lines[-1].startswith("F " + words)
    assert ("Collecting Learning Rate" in lines[-2]) == ("blobs lr" not in words)


# ---- schemas


def test_todays_net_is_no_net_for_v0_99() -> None:
    text = 'name: "n"\nlayer  # one\n  { name: "r" type: "ReLU" bottom: "x" top: "x" }'
    lines = said(text, "v0.99")
    assert lines[0].endswith('3:3: Message type "caffe.NetParameter" has no field named "layer".')
    assert lines[-1].endswith("] Check failed: google::protobuf::TextFormat::Parse(input, proto) ")  # it had no upgrade to ask


def test_fields_and_types_of_later_versions_are_unknown() -> None:
    layer = (
        'layers { name: "c" type: CONVOLUTION bottom: "x" top: "y" convolution_param { num_output: 4 kernel_h: 3 kernel_w: 5 } }'
    )
    column = layer.index("kernel_h:") + len("kernel_h") + 1
    words = f'1:{column}: Message type "caffe.ConvolutionParameter" has no field named "kernel_h".'
    assert said(layer, "v0.999")[0].endswith(" " + words)
    silence = 'layers { name: "s" type: SILENCE bottom: "x" }'
    words = f'1:{silence.index("bottom") + 1}: Unknown enumeration value of "SILENCE" for field "type".'
    assert said(silence, "v0.9999")[0].endswith(" " + words)
    rule = 'layers { name: "s" type: RELU bottom: "x" top: "y" include { not_stage: "a" } }'
    assert said(rule, "v0.9999")[0].endswith('Message type "caffe.NetStateRule" has no field named "not_stage".')


def test_a_type_that_the_factory_forgot() -> None:
    text = """
    input: "x" input_dim: 2 input_dim: 3 input_dim: 4 input_dim: 5
    layers { name: "t" type: THRESHOLD bottom: "x" top: "y" }
    """
    assert said(text, "v0.9999")[-1] == "F layer_factory.cpp:87] Layer t has unknown type 31"
    assert said(text.replace("type: THRESHOLD", ""), "rc")[-1] == "F layer_factory.cpp:255] Layer t has unspecified type."


def test_a_name_that_v0_999_alone_had() -> None:
    text = """
    input: "x" input_dim: 2 input_dim: 3 input_dim: 4 input_dim: 5
    input: "y" input_dim: 2 input_dim: 3 input_dim: 4 input_dim: 5
    layers { name: "e" type: ELTWISE_PRODUCT bottom: "x" bottom: "y" top: "z" }
    """
    assert "Top shape: 2 3 4 5 (120)" in words_of(text, "v0.999")
    assert "Failed to parse" in said(text, "v0.9999")[-1]
    assert "Failed to parse" in said(text.replace("ELTWISE_PRODUCT", "ELTWISE"), "v0.999")[-1]


# ---- translation


SHIPPED = ("alexnet", "caffenet", "vgg16", "lenet", "cifar10_quick", "cifar10_full")
VERSIONS = ("v0.99", "v0.999", "v0.9999", "rc", "rc2", "rc3")


@pytest.mark.parametrize(
    ("name", "version"),
    [(name, version) for name in SHIPPED for version in VERSIONS if (name, version) != ("cifar10_full", "v0.99")],  # WITHIN_CHANNEL
)
def test_a_translated_net_has_the_same_shapes(name: str, version: str) -> None:
    words = dialect.load(version)
    opened = opening.file(ROOT / "models" / name / "deploy.prototxt")
    net = Net(translate.translated(opened, words), "TEST", edition=words.edition)
    assert net.error is None
    today = Net(opened, "TEST").blobs
    for blob, found in net.blobs.items():
        shape = today[blob].shape or ()
        assert found.shape == (shape if words.edition.nd_blobs else shape + (1,) * (4 - len(shape)))


@pytest.mark.parametrize("name", SHIPPED)
def test_what_was_translated_for_rc_upgrades_to_the_same_net(name: str) -> None:
    proto = opening.file(ROOT / "models" / name / "train_val.prototxt").proto
    back = upgrade.net(Draft(translate.to_version(proto, dialect.load("rc")))).proto
    today = upgrade.net(Draft(proto)).proto
    assert [layer.name for layer in back.layer] == [layer.name for layer in today.layer]
    for ours, theirs in zip(back.layer, today.layer, strict=True):
        assert ours == theirs


def test_a_loss_lost_its_top_for_the_first_versions() -> None:
    text = """
    layer { name: "x" type: "Input" top: "x" top: "label" input_param { shape { dim: 2 dim: 3 } shape { dim: 2 } } }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "x" bottom: "label" top: "loss" }
    """
    proto = opening.text(text).proto
    for version, tops in (("v0.99", []), ("v0.999", []), ("v0.9999", ["loss"]), ("rc", ["loss"])):
        net = translate.to_version(proto, dialect.load(version))
        assert list(net.layers[0].top) == tops
        assert list(net.input_dim) == [2, 3, 1, 1, 2, 1, 1, 1]
    assert translate.to_version(proto, dialect.load("v0.99")).layers[0].layer.type == "softmax_loss"


@pytest.mark.parametrize(
    ("version", "layer", "lacked"),
    [
        ("rc", 'type: "BatchNorm" bottom: "x" top: "y"', "no layer of this type"),
        (
            "rc",
            'type: "Convolution" bottom: "x" top: "y" convolution_param { num_output: 4 kernel_size: 3 dilation: 2 }',
            "no dilation",
        ),
        ("rc", 'type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 4 axis: 2 }', "no axis"),
        ("rc", 'type: "Concat" bottom: "x" bottom: "x" top: "y" concat_param { axis: -1 }', "along num and channels only"),
        ("rc", 'type: "ReLU" bottom: "x" top: "y" propagate_down: false', "propagate_down"),
        ("v0.9999", 'type: "MVN" bottom: "x" top: "y"', "no layer of this type"),
        ("v0.9999", 'type: "EuclideanLoss" bottom: "x" bottom: "x" top: "y" loss_weight: 0.3', "no weights"),
        ("v0.999", 'type: "ReLU" bottom: "x" top: "y" relu_param { negative_slope: 0.1 }', "relu_param"),
        (
            "v0.999",
            'type: "Convolution" bottom: "x" top: "y" convolution_param { num_output: 4 kernel_h: 3 kernel_w: 5 }',
            "one number for height and width",
        ),
        ("v0.999", 'type: "Eltwise" bottom: "x" bottom: "x" top: "y" eltwise_param { operation: SUM }', "only multiplied"),
        ("v0.99", 'type: "Power" bottom: "x" top: "y" power_param { scale: 2 }', "no layer of this type"),
        ("v0.99", 'type: "LRN" bottom: "x" top: "y" lrn_param { norm_region: WITHIN_CHANNEL }', "no norm_region"),
        ("v0.99", 'type: "Pooling" bottom: "x" top: "y" pooling_param { kernel_size: 3 pad: 1 }', "no pad"),
        (
            "v0.999",
            'type: "InnerProduct" bottom: "x" top: "y" param { name: "w" } inner_product_param { num_output: 4 }',
            "could not share",
        ),
        (
            "rc",
            'type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 4 weight_filler { type: "msra" } }',
            "no filler 'msra'",
        ),
    ],
)
def test_what_a_version_could_not_say_is_refused(version: str, layer: str, lacked: str) -> None:
    proto = opening.text(f'layer {{ name: "n" {layer} }}').proto
    with pytest.raises(InspectorError, match=f"layer 'n'.*cannot be said in Caffe {re.escape(version)}.*{re.escape(lacked)}"):
        translate.to_version(proto, dialect.load(version))


def test_older_places_of_settings() -> None:
    text = """
    layer { name: "d" type: "Data" top: "x" top: "label"
      transform_param { crop_size: 5 scale: 0.5 } data_param { source: "db" batch_size: 2 backend: LMDB prefetch: 8 } }
    layer { name: "c" type: "Convolution" bottom: "x" top: "y" param { lr_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
      convolution_param { num_output: 4 kernel_size: 3 kernel_size: 5 engine: CAFFE } }
    layer { name: "s" type: "Slice" bottom: "y" top: "a" top: "b" slice_param { axis: 0 } }
    """
    proto = opening.text(text).proto
    data, conv, cut = translate.to_version(proto, dialect.load("rc")).layers
    assert data.transform_param.crop_size == 5
    assert data.data_param.backend == caffe_pb2.DataParameter.LMDB
    assert not data.data_param.HasField("prefetch")
    assert list(conv.blobs_lr) == [1, 2]
    assert list(conv.weight_decay) == [1, 0]
    assert (conv.convolution_param.kernel_h, conv.convolution_param.kernel_w) == (3, 5)
    assert not conv.convolution_param.kernel_size
    assert cut.slice_param.slice_dim == 0 and cut.slice_param.HasField("slice_dim")
    data, conv, _ = translate.to_version(proto, dialect.load("v0.9999")).layers
    assert (data.data_param.crop_size, data.data_param.scale) == (5, 0.5)
    assert not data.HasField("transform_param")
    assert not conv.convolution_param.HasField("engine")


def test_a_net_that_the_version_can_read_stays_as_it_is() -> None:
    proto = opening.text(TWO_READERS).proto
    assert translate.to_version(proto, dialect.load("rc")) == proto
    assert translate.to_version(proto, dialect.load("v0.99")).layers[0].layer.type == "relu"


def test_layers_of_the_other_phase_go_where_there_were_no_rules() -> None:
    text = """
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 5 } } }
    layer { name: "a" type: "ReLU" bottom: "x" top: "a" include { phase: TRAIN } }
    layer { name: "b" type: "ReLU" bottom: "x" top: "b" include { phase: TEST } }
    """
    proto = opening.text(text).proto
    assert [layer.name for layer in translate.to_version(proto, dialect.load("rc")).layers] == ["a", "b"]
    assert [layer.name for layer in translate.to_version(proto, dialect.load("v0.999"), phase=0).layers] == ["a"]


def test_todays_nets_are_refused_as_that_parser_did_unless_translated(tmp_path: Path) -> None:
    modern = tmp_path / "deploy.prototxt"
    modern.write_text((ROOT / "models" / "caffenet" / "deploy.prototxt").read_text())
    result = CliRunner().invoke(main, ["log", str(modern), "--dialect", "rc"])
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1].startswith("F upgrade_proto.cpp:571] Check failed: ReadProtoFromTextFile")
    assert CliRunner().invoke(main, ["log", str(modern), "--dialect", "rc", "--translate"]).exit_code == 0
    result = CliRunner().invoke(main, ["log", "resnet50", "--dialect", "rc"])
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1].startswith("F upgrade_proto.cpp:571] Check failed: ReadProtoFromTextFile")
    result = CliRunner().invoke(main, ["log", "resnet50", "--dialect", "rc", "--translate"])
    assert result.exit_code == 2
    assert "layer 'bn_conv1' (BatchNorm): cannot be said in Caffe rc: it had no layer of this type" in result.stderr
