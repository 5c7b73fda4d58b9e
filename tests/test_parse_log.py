"""Logs in every state in which they reach us: the same facts come out, and training curves as people plot them."""

from __future__ import annotations

import csv
import html
import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cli.main import main
from inspector import logmodel, logparse, recognise, training_log
from inspector.logparse import NetFacts

from .conftest import ROOT

MODELS = ROOT / "models"
LENET = MODELS / "lenet" / "reference" / "train_val.TRAIN.master.log"
CAFFENET = MODELS / "caffenet" / "reference" / "deploy.TEST.master.log"
V099 = MODELS / "caffenet" / "reference" / "train_val_22.TRAIN.v0.99.log"
GOOGLENET = MODELS / "googlenet" / "reference" / "deploy.TEST.master.log"


def run(*words: object) -> Any:
    return CliRunner().invoke(main, ["parse-log", *map(str, words)], standalone_mode=False)


def facts(text: str) -> list[dict[str, Any]]:
    """Nets as plain data, without the lines where they stand."""

    def bare(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: bare(item) for key, item in value.items() if key not in ("line", "lines")}
        return [bare(item) for item in value] if isinstance(value, list) else value

    return [bare(logparse.data(net)) for net in logparse.read(text)]


def prefixed(text: str, prefix: Callable[[str], str]) -> str:
    """A masked log with real prefixes: `prefix` is given the severity."""
    return re.sub(r"^([IWEF]) (?=[\w.]+:\d+\] )", lambda match: prefix(match[1]), text, flags=re.M)


def plain(text: str) -> str:
    return prefixed(text, lambda level: f"{level}1122 05:29:26.175989 12175 ")


def page(text: str) -> str:
    return "<pre><code>" + html.escape(plain(text), quote=False) + "</code></pre>"


def bulleted(text: str) -> str:
    return "".join(f"   - {line}" for line in plain(text).splitlines(keepends=True))


def quoted(text: str) -> str:
    return "".join(f"> {line}" for line in plain(text).splitlines(keepends=True))


def stripped(text: str) -> str:
    return "".join(line.strip() + "\n" for line in plain(text).splitlines())


def noisy(text: str) -> str:
    """Another thread in between, whole lines and a progress bar without its line break."""
    lines = plain(text).splitlines(keepends=True)
    noise = "I1122 05:29:26.175990 12180 data_transformer.cpp:25] Loading mean file from: mean.binaryproto\n"
    for place in range(len(lines) - 1, 0, -17):
        if re.match(r"I1122", lines[place]):
            lines.insert(place, noise)
    last = len(lines) - 1
    lines[last] = "libdc1394 error: Failed to initialize libdc1394" + lines[last]
    return "".join(lines)


def surrounded(text: str) -> str:
    lines = [
        "WARNING: Logging before InitGoogleLogging() is written to STDERR",
        "I1122 05:29:26.1 12175 caffe.cpp:204] Using GPUs 0",
        plain(text).rstrip("\n"),
        "I1122 05:29:26.9 12175 solver.cpp:57] Solver scaffolding done.",
        "I1122 05:29:27.0 12175 solver.cpp:347] Iteration 0, loss = 2",
    ]
    return "\n".join(lines) + "\n"


STATES = {
    "real": plain,
    "with a year": lambda text: prefixed(text, lambda level: f"{level}20201122 05:29:26.175989 12175 "),
    "wide thread": lambda text: prefixed(text, lambda level: f"{level}1122 05:29:26.175989 2079114000 "),
    "CRLF": lambda text: plain(text).replace("\n", "\r\n"),
    "Windows paths": lambda text: re.sub(r"(?<=12175 )(\w+\.[ch]pp:\d+\])", r"..\\src\\caffe\\\1", plain(text)),
    "a drive": lambda text: re.sub(r"(?<=12175 )(\w+\.[ch]pp:\d+\])", r"C:\\Program Files\\caffe\\\1", plain(text)),
    "web page": page,
    "bullets": bulleted,
    "quoted": quoted,
    "stripped": stripped,
    "numbered": lambda text: "".join(f"{i:6}  {line}" for i, line in enumerate(text.splitlines(keepends=True), 1)),
    "coloured": lambda text: re.sub(r"\] (Setting up.*)", "] \x1b[32m\\1\x1b[0m", plain(text)),
    "surrounded": surrounded,
    "UTF-16": lambda text: logparse.decoded(text.encode("utf-16")),
}


@pytest.mark.parametrize("log", [LENET, CAFFENET, V099], ids=lambda path: path.name)
@pytest.mark.parametrize("state", STATES)
def test_the_same_facts_from_any_state(log: Path, state: str) -> None:
    text = log.read_text(encoding="utf-8")
    assert facts(logparse.decoded(STATES[state](text).encode("utf-8", "surrogateescape"))) == facts(text)


def test_another_thread_does_not_matter() -> None:
    text = LENET.read_text(encoding="utf-8")
    [net], [calm] = facts(noisy(text)), facts(plain(text))
    for layer in (*net["layers"], *calm["layers"]):
        del layer["says"]
    assert net == calm


def test_facts_of_a_real_log() -> None:
    """CaffeNet's deploy net as BVLC master built it; figures from the paper's layer sizes."""
    [net] = logparse.read(CAFFENET.read_text(encoding="utf-8"))
    assert (net.name, net.phase, net.begun, net.done, net.text_complete) == ("CaffeNet", "TEST", True, True, True)
    assert [layer.name for layer in net.layers[:4]] == ["data", "conv1", "relu1", "pool1"]
    relu = net.layers[2]
    assert (relu.bottoms, relu.tops[0].name, relu.tops[0].in_place) == (["conv1"], "conv1", True)
    assert net.layers[1].tops[0].shape == (10, 96, 55, 55)
    assert net.outputs == ["prob"]
    assert net.memory == logparse.total(net)
    assert not any(layer.backward for layer in net.layers)
    assert logmodel.printed(net)["conv2"].convolution_param.group == 2


def test_several_nets_in_one_file() -> None:
    train, test = (LENET.with_name(f"train_val.{phase}.master.log").read_text(encoding="utf-8") for phase in ("TRAIN", "TEST"))
    solver = "I1122 05:29:26.0 12175 solver.cpp:102] Creating training net from net file: x.prototxt\n"
    nets = logparse.read(solver + plain(train) + plain(test) + solver + plain(train))
    assert [net.phase for net in nets] == ["TRAIN", "TEST", "TRAIN"]
    assert [len(net.layers) for net in nets] == [9, 12, 9]
    assert all(net.done and net.memory == logparse.total(net) for net in nets)


def test_a_lost_end_and_a_lost_beginning() -> None:
    lines = LENET.read_text(encoding="utf-8").splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if "] conv2 -> conv2" in line)
    [head] = logparse.read("".join(lines[: at + 1]))
    assert head.begun and not head.done
    assert [layer.name for layer in head.layers][-1] == "conv2" and head.layers[-1].tops[0].shape is None
    [tail] = logparse.read("".join(lines[at:]))
    assert tail.done and not tail.begun
    conv2 = tail.layer("conv2")
    assert conv2 is not None and conv2.tops[0].shape == (64, 50, 8, 8) and conv2.backward
    assert [layer.name for layer in tail.layers][:4] == ["mnist", "conv1", "pool1", "conv2"]  # known from what is said last
    [end] = logparse.read("".join(line for line in lines if "backward computation" in line or "initialization done" in line))
    assert [layer.name for layer in end.layers] == [layer.name for layer in logparse.read("".join(lines))[0].layers]


def test_nets_within_nets_belong_to_their_layer() -> None:
    inner = (
        "I net.cpp:53] Initializing net from parameters: \nI net.cpp:86] Creating Layer x_slice\nI net.cpp:382] x_slice -> x_0\n"
        "I net.cpp:257] Network initialization done.\n"
    )
    text = (
        "I net.cpp:53] Initializing net from parameters: \nI net.cpp:86] Creating Layer lstm1\n"
        "I recurrent_layer.cpp:20] Initializing recurrent layer: assuming input batch contains 5 timesteps of 3 streams.\n"
        f"{inner}I recurrent_layer.cpp:150] Adding parameter 0: W_xc\nI net.cpp:124] Setting up lstm1\n"
        "I net.cpp:131] Top shape: 5 3 7 (105)\nI net.cpp:257] Network initialization done.\n"
    )
    [net] = logparse.read(text)
    [lstm] = net.layers
    assert lstm.tops[0].shape == (5, 3, 7)
    assert [layer.name for layer in lstm.inner[0].layers] == ["x_slice"]


def test_names_with_arrows_in_them() -> None:
    name = "a -> b <- c"
    text = f"I net.cpp:86] Creating Layer {name}\nI net.cpp:408] {name} <- data\nI net.cpp:382] {name} -> {name}\n"
    [net] = logparse.read(text)
    assert (net.layers[0].name, net.layers[0].bottoms, net.layers[0].tops[0].name) == (name, ["data"], name)


def test_a_cut_text_is_known_as_such() -> None:
    [net] = logparse.read(GOOGLENET.read_text(encoding="utf-8"))
    assert net.text is not None and not net.text_complete
    layers = logmodel.printed(net)  # those before the cut
    assert "conv1/7x7_s2" in layers and "prob" not in layers
    result = run(GOOGLENET, "--prototxt")
    assert result.return_value == 1 and result.stdout.startswith('name: "')
    assert "cut" in result.stderr


def test_the_text_comes_back_as_it_was_printed(tmp_path: Path) -> None:
    result = run(CAFFENET, "--prototxt")
    assert result.return_value == 0
    path = tmp_path / "net.prototxt"
    path.write_text(result.stdout)
    again = CliRunner().invoke(main, ["log", str(path)], standalone_mode=False).stdout
    assert again == CAFFENET.read_text(encoding="utf-8")


# ---- the version


@pytest.mark.parametrize("log", sorted(MODELS.glob("*/reference/*.log")), ids=lambda path: f"{path.parts[-3]}/{path.name}")
def test_the_version_of_shipped_logs(log: Path) -> None:
    version = log.name.removesuffix(".log").split(".", 2)[2]
    known = recognise.recognise(logparse.read(log.read_text(encoding="utf-8"))[0])
    assert version.removesuffix("-debug") in (known.dialect, *known.also)
    assert known.confidence == "exact" and known.debug == version.endswith("-debug")


def test_without_source_lines_the_words_tell() -> None:
    text = re.sub(r"^[IWEF] [\w.]+:\d+\] ", "", V099.read_text(encoding="utf-8"), flags=re.M)
    [net] = logparse.read(text)
    known = recognise.recognise(net)
    assert known.confidence == "words" and known.dialect in ("v0.99", "v0.999")
    assert len(net.layers) == 24 and net.memory == 1073760256


def test_every_version_of_the_reference_is_recognised(reference: Path) -> None:
    for folder in sorted(path for kind in ("caffe", "nets") for path in (reference / "logs" / kind).iterdir()):
        for log in sorted(folder.glob("*.log"))[::3]:
            [net] = logparse.read(logparse.decoded(log.read_bytes()))
            known = recognise.recognise(net)
            assert folder.name.removesuffix("-debug") in (known.dialect, *known.also), log
            assert known.confidence == "exact", log


def wild(reference: Path) -> Iterator[tuple[dict[str, str], list[NetFacts]]]:
    folder = reference / "logs" / "wild"
    with (folder / "MANIFEST.tsv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            yield row, logparse.read(logparse.decoded((folder / f"{row['name']}.log").read_bytes()))


def test_published_logs_are_whole(reference: Path) -> None:
    """As many nets as the manifest counts, every shape there, and Caffe's own total where the version counts all tops."""
    for row, nets in wild(reference):
        whole = [net for net in nets if net.done]
        assert len(whole) == int(row["nets_complete"]) or "preview" in row["name"] or "technical" in row["name"], row["name"]
        for net in whole:
            assert all(top.shape is not None for layer in net.layers for top in layer.tops), row["name"]
            assert all(layer.backward is not None for layer in net.layers if not layer.name.startswith("x_")), row["name"]
        shapes = [sum(len(layer.tops) for layer in net.layers) for net in whole]
        expected = [int(count) for count in row["top_shape_lines"].split(",") if count]
        if len(expected) == len(shapes):
            assert shapes == expected, row["name"]


def test_published_logs_are_of_their_version(reference: Path) -> None:
    forks = 0
    for row, nets in wild(reference):
        known = recognise.recognise(nets[0])
        if match := re.fullmatch(r"BVLC =(\S+?)(?:/.*)?", row["version"]):
            months = {"rc": "2014-10", "rc3": "2015-11"}  # of the same net.cpp, and of other data layers
            assert known.dialect in ({"rc5": "1.0"}.get(match[1], match[1]), months.get(match[1])), row["name"]
        forks += bool(known.fork)
        if "NVCaffe" in row["version"]:
            assert known.version.startswith("NVCaffe 0.1"), row["name"]
    assert forks >= 6  # three of NVCaffe, SSD, Intel, AMD


# ---- training

TRAINING = """\
I0101 23:59:58.000000  4242 solver.cpp:289] Solving LeNet
I0101 23:59:58.500000  4242 solver.cpp:347] Iteration 0, Testing net (#0)
I0101 23:59:59.000000  4242 solver.cpp:414]     Test net output #0: accuracy = 0.1009
I0101 23:59:59.000000  4242 solver.cpp:414]     Test net output #1: loss = 2.37 (* 1 = 2.37 loss)
I0101 23:59:59.500000  4242 solver.cpp:239] Iteration 0 (-7.1e-43 iter/s, 0.1s/100 iters), loss = 2.4
I0101 23:59:59.500000  4242 solver.cpp:258]     Train net output #0: loss = 2.5 (* 1 = 2.5 loss)
I0101 23:59:59.500000  4242 sgd_solver.cpp:112] Iteration 0, lr = 0.01
I0102 00:00:02.000000  4242 solver.cpp:239] Iteration 100 (40 iter/s, 2.5s/100 iters), loss = nan
I0102 00:00:02.000000  4242 solver.cpp:258]     Train net output #0: loss = nan (* 1 = nan loss)
I0102 00:00:02.000000  4242 sgd_solver.cpp:112] Iteration 100, lr = 0.00992565
I0102 00:00:03.000000  4242 solver.cpp:347] Iteration 200, Testing net (#0)
I0102 00:00:03.500000  4242 solver.cpp:414]     Test net output #0: accuracy = 0.9
I0102 00:00:03.500000  4242 solver.cpp:414]     Test net output #1: loss = 0.3 (* 1 = 0.3 loss)
I0102 00:00:04.000000  4242 solver.cpp:327] Iteration 200, loss = 0.25
"""


def test_training_lines() -> None:
    found = training_log.read(logparse.records(TRAINING))
    assert [row["NumIters"] for row in found.train] == [0, 100, 200]
    assert [row["loss"] for row in found.train][::2] == [2.5, 0.25]
    assert found.train[0]["AverageLoss"] == 2.4
    assert [row["LearningRate"] for row in found.train] == [0.01, 0.00992565, 0.00992565]
    assert [row["Seconds"] for row in found.train] == [1.5, 4.0, 6.0]  # over midnight
    assert "IterationsPerSecond" not in found.train[0] and found.train[1]["IterationsPerSecond"] == 40
    assert [(row["NumIters"], row["accuracy"], row["loss"]) for row in found.test] == [(0, 0.1009, 2.37), (200, 0.9, 0.3)]


def test_training_lines_of_old_versions_and_forks() -> None:
    old = (
        "I0728 16:29:03.5 4393 solver.cpp:237] Iteration 40, lr = 0.01\n"
        "I0728 16:29:03.6 4393 solver.cpp:87] Iteration 40, loss = 6.9\n"
        "I0728 16:29:04.5 4393 solver.cpp:105] Iteration 40, Testing net\n"
        "I0728 16:29:05.5 4393 solver.cpp:141] Test score #0: 0.57\n"
    )
    found = training_log.read(logparse.records(old))
    assert [(row["NumIters"], row["LearningRate"], row["loss"]) for row in found.train] == [(40, 0.01, 6.9)]
    assert found.test[0]["score 0"] == 0.57
    fork = (
        "I0706 19:56:37.3 10017 solver.cpp:337]     [0.0] Iteration 100 (103.9 iter/s, 0.94s/98 iter), 1.1/10.7ep, loss = 0.28\n"
        "I0706 19:56:37.4 10017 sgd_solver.cpp:180] [0.0] Iteration 100, lr = 0.0099, m = 0.9, lrm = 0.09, wd = 0.0005, gs = 1\n"
    )
    [row] = training_log.read(logparse.records(fork)).train
    assert (row["loss"], row["LearningRate"], row["IterationsPerSecond"]) == (0.28, 0.0099, 103.9)


def test_a_blob_of_several_values_and_several_test_nets() -> None:
    text = "I0101 23:59:58.5 1 solver.cpp:347] Iteration 0, Testing net (#1)\n" + "".join(
        f"I0101 23:59:59.0 1 solver.cpp:414]     Test net output #{i}: prob = {i / 8}\n" for i in range(3)
    )
    [row] = training_log.read(logparse.records(text)).test
    assert row["TestNet"] == 1
    assert (row["prob"], row["prob[1]"], row["prob[2]"]) == (0, 0.125, 0.25)


def test_training_as_csv(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    log.write_text(TRAINING)
    assert run(log, "--csv", tmp_path / "curve").return_value == 0
    with (tmp_path / "curve.train.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:3] == ["NumIters", "Seconds", "LearningRate"]
    assert [row["loss"] for row in rows] == ["2.5", "nan", "0.25"]
    with (tmp_path / "curve.test.csv").open() as file:
        assert [row["accuracy"] for row in csv.DictReader(file)] == ["0.1009", "0.9"]
    data = json.loads(run(log, "--training", "--format", "json").stdout.replace("NaN", "null"))
    assert len(data["train"]) == 3 and len(data["test"]) == 2


def test_reference_training_logs(reference: Path) -> None:
    """Twelve iterations, display 1, a test every five: what the solvers of these logs say."""
    for log in sorted((reference / "training").glob("*.log")):
        found = training_log.read(logparse.records(logparse.decoded(log.read_bytes())))
        assert [row["NumIters"] for row in found.train][:12] == list(range(12)), log
        assert all(row["loss"] is not None and row["LearningRate"] is not None for row in found.train)
        assert found.test and all("accuracy" in row for row in found.test)


# ---- the command


def test_tables_and_data() -> None:
    table = run(CAFFENET).stdout
    assert "net 1: CaffeNet in TEST" in table and "Convolution" in table and "10 96 55 55" in table
    data = json.loads(run(CAFFENET, "--format", "json").stdout)
    [net] = data["nets"]
    assert net["recognised"]["dialect"] == "master" and net["layers"][1]["tops"][0]["shape"] == [10, 96, 55, 55]
    rows = list(csv.DictReader(run(CAFFENET, "--format", "csv").stdout.splitlines()))
    assert [row["layer"] for row in rows[:2]] == ["data", "conv1"]


def test_what_is_no_log_is_trouble(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("Dear diary,\nI trained a net.\n")
    for words in ((path,), (path, "--training"), (CAFFENET, "--net", "2"), (tmp_path / "absent.log",)):
        assert run(*words).return_value == 2


@pytest.mark.parametrize("seed", range(60))
def test_damaged_logs_are_read_all_the_same(seed: int) -> None:
    """Bytes changed, lines lost, doubled and swapped: whatever comes out, nothing but an InspectorError escapes."""
    rng = random.Random(seed)
    log = rng.choice([LENET, CAFFENET, V099])
    lines = STATES[rng.choice(list(STATES))](log.read_text(encoding="utf-8")).splitlines(keepends=True)
    for _ in range(rng.randrange(1, 40)):
        i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
        match rng.randrange(4):
            case 0:
                lines[i] = ""
            case 1:
                lines.insert(i, lines[j])
            case 2:
                lines[i], lines[j] = lines[j], lines[i]
            case _:
                data = bytearray(lines[i].encode("utf-8", "surrogateescape") or b"\n")
                data[rng.randrange(len(data))] = rng.choice(b"\x00\xff 0123456789{}\"'():->")
                lines[i] = data.decode("utf-8", "surrogateescape")
    text = "".join(lines)
    for net in logparse.read(text):
        recognise.recognise(net)
        logmodel.printed(net)
        json.dumps(logparse.data(net))
    training_log.read(logparse.records(text))


def test_a_log_comes_through_stdin() -> None:
    log = next((ROOT / "models" / "lenet" / "reference").glob("*.log"))
    piped = CliRunner().invoke(main, ["parse-log", "-", "--prototxt"], input=log.read_bytes(), standalone_mode=False)
    assert piped.return_value == 0 and piped.stdout == run(log, "--prototxt").stdout != ""
