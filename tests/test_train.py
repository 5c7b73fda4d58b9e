"""Training against what real Caffe logged and learned, and what a training owes its user: snapshots, resuming, refusals."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from inspector import caffemodel, dialect, plot
from inspector.draft import Event
from inspector.errors import InspectorError
from inspector.train import GO_ON, SNAPSHOT, STOP, Curves, Training, lines

from .conftest import reference_folder
from .little import run

FOLDER = reference_folder()
CASES = (
    sorted(path.name.removesuffix(".solver.prototxt") for path in (FOLDER / "training").glob("*.solver.prototxt")) if FOLDER else []
)
STAMP = re.compile(r"([IWE])\d{4} [\d:.]+ +\d+ ")
SPEED = re.compile(r"\(\S+ iter/s, \S+s/")
NUMBER = re.compile(r"(?<![\w.:#])-?\d+(?:\.\d+)?(?:e-?\d+)?(?![\w:])")


def trained(solver: Path, **options: Any) -> tuple[Training, list[Event]]:
    """A training that has run, and its events."""
    training = Training(solver, **options)
    try:
        return training, list(training.run())
    finally:
        training.close()


def arrays(path: Path) -> dict[str, np.ndarray]:
    return {f"{layer.name}:{blob.index}": blob.read() for layer in caffemodel.open_weights(path).layers for blob in layer.blobs}


def same(ours: dict[str, np.ndarray], archive: Any, prefix: str) -> None:
    """All parameters within 1e-4 of their largest value."""
    names = {name.removeprefix(prefix) for name in archive.files if name.startswith(prefix)}
    assert names == ours.keys()
    for name, value in ours.items():
        caffe = archive[prefix + name]
        assert np.abs(value - caffe).max() <= 1e-4 * np.abs(caffe).max(), name


@pytest.mark.parametrize("case", CASES)
def test_a_training_says_and_learns_what_caffes_did(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole log line for line, numbers within 2e-4; parameters; and each snapshot in Caffe's own bytes, but for the values."""
    monkeypatch.chdir(tmp_path)
    folder = FOLDER / "training"
    weights = f"{case.partition('.')[0]}.init.caffemodel"
    _, events = trained(folder / f"{case}.solver.prototxt", weights=[weights])
    ours = "".join(line.masked() for line in lines(iter(events), dialect.load("master"))).splitlines()
    theirs = [STAMP.sub(r"\1 ", line) for line in (folder / f"{case}.log").read_text().splitlines()]
    assert len(ours) == len(theirs)
    for mine, caffes in zip(ours, theirs, strict=True):
        if "hdf5.cpp" in caffes:  # this one build has the line at another place
            mine, caffes = (line.partition("] ")[2] for line in (mine, caffes))
        mine, caffes = (SPEED.sub("(", line) for line in (mine, caffes))
        assert NUMBER.sub("#", mine) == NUMBER.sub("#", caffes)
        for a, b in zip(NUMBER.findall(mine), NUMBER.findall(caffes), strict=True):
            assert float(a) == pytest.approx(float(b), rel=2e-4), caffes
    prefix = f"snap_{case.replace('.', '_')}_iter_"
    with np.load(folder / f"{case}.npz", allow_pickle=False) as archive:
        same(arrays(tmp_path / f"{prefix}12.caffemodel"), archive, "after12:")
    for number in (6, 12):
        ours, theirs = (caffemodel.open_weights(at / f"{prefix}{number}.caffemodel") for at in (tmp_path, folder))
        assert ours.proto == theirs.proto
    ours, theirs = (at / f"{prefix}6.solverstate" for at in (tmp_path, folder))
    assert ours.stat().st_size == theirs.stat().st_size
    mine, caffes = caffemodel.open_state(ours), caffemodel.open_state(theirs)
    assert (mine.iter, mine.learned_net, mine.current_step) == (caffes.iter, caffes.learned_net, caffes.current_step)
    for a, b in zip(mine.history, caffes.history, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a.read(), b.read(), atol=1e-4 * max(1e-12, np.abs(b.read()).max()))


@pytest.mark.parametrize("case", CASES)
def test_the_first_iteration_learns_what_caffes_did(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = FOLDER / "training"
    asked = iter([GO_ON, STOP])  # by the test before the first iteration, and after it
    changes = ["snapshot_prefix=one", "test_iter=1"]
    trained(
        folder / f"{case}.solver.prototxt",
        weights=[f"{case.partition('.')[0]}.init.caffemodel"],
        changes=changes,
        asked=lambda: next(asked),
    )
    with np.load(folder / f"{case}.npz", allow_pickle=False) as archive:
        same(arrays(tmp_path / "one_iter_1.caffemodel"), archive, "after1:")


@pytest.mark.parametrize("case", [*CASES, *(["lenet_small.sgd_fixed:hdf5"] if CASES else [])])
def test_caffes_snapshot_is_gone_on_from(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From iteration 6 to what the uninterrupted training had at 12, losses and tests on the way included."""
    monkeypatch.chdir(tmp_path)
    folder = FOLDER / "training"
    case, _, hdf5 = case.partition(":")
    stem = case.replace(".", "_")
    state = f"snap_hdf5_{stem}_iter_6.solverstate.h5" if hdf5 else f"snap_{stem}_iter_6.solverstate"
    _, events = trained(folder / f"{case}.solver.prototxt", snapshot=str(folder / state))
    with np.load(folder / f"{case}.npz", allow_pickle=False) as archive:
        same(arrays(tmp_path / f"snap_{stem}_iter_12.caffemodel"), archive, "after12:")
    tests = [event.values["value"] for event in events if event.kind == "test-output"]
    logged = re.findall(r"Test net output #\d: \w+ = (\S+)", (folder / f"{case}.log").read_text())
    assert tests == pytest.approx([float(value) for value in logged[-len(tests) :]], rel=2e-4)
    assert len(tests) == 2


# ---------------------------------------------------------------------------------------------------------------- without Caffe

NET = """
name: "small"
layer { name: "data" type: "HDF5Data" top: "data" top: "label" include { phase: TRAIN }
  hdf5_data_param { source: "list.txt" batch_size: 4 } }
layer { name: "data" type: "HDF5Data" top: "data" top: "label" include { phase: TEST }
  hdf5_data_param { source: "list.txt" batch_size: 7 } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "right" type: "Accuracy" bottom: "ip" bottom: "label" top: "right" include { phase: TEST not_stage: "plain" } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
SOLVER = """
net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 max_iter: 6 display: 2 snapshot: 4 snapshot_prefix: "snap"
test_iter: 3 test_interval: 3 random_seed: 5
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a net, its data of ten rows, and a solver."""
    h5py = pytest.importorskip("h5py")
    rng = np.random.default_rng(1)
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        file["data"] = rng.normal(size=(10, 5)).astype(np.float32)
        file["label"] = rng.integers(0, 3, 10).astype(np.float32)
    (tmp_path / "list.txt").write_text("rows.h5\n")
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def kinds(events: list[Event]) -> list[str]:
    return [event.kind for event in events]


def test_the_loop_in_its_order(work: Path) -> None:
    _, events = trained(work / "solver.prototxt")
    loop = [kind for kind in kinds(events) if kind.startswith(("train-it", "test-it", "train-snap", "train-la", "train-op"))]
    assert loop == [
        *("test-iteration", "train-iteration", "train-iteration"),  # 0, 2
        *("test-iteration", "train-snapshot", "train-snapshot-state", "train-iteration"),  # 3, after 4, 4
        *("train-snapshot", "train-snapshot-state", "train-last", "test-iteration", "train-optimized"),  # 6
    ]


def test_a_training_can_be_repeated_and_interrupted(work: Path) -> None:
    """Stopping and going on learns bit for bit what one run does, in both forms of snapshots."""
    trained(work / "solver.prototxt", changes=["snapshot_prefix=whole"])
    for form, ending in (("BINARYPROTO", ""), ("HDF5", ".h5")):
        changes = ["snapshot_prefix=part", f"snapshot_format={form}", "snapshot=0"]
        asked = iter([GO_ON] * 3 + [GO_ON, GO_ON, STOP] + [GO_ON] * 99)  # a test of three batches, then three iterations
        first, events = trained(work / "solver.prototxt", changes=changes, asked=lambda asked=asked: next(asked))
        assert first.stopped and kinds(events)[-2:] == ["train-stopped", "train-done"]
        state = work / f"part_iter_3.solverstate{ending}"
        trained(work / "solver.prototxt", changes=changes, snapshot=str(state))
        whole, parts = arrays(work / "whole_iter_6.caffemodel"), arrays(work / f"part_iter_6.caffemodel{ending}")
        assert whole.keys() == parts.keys()
        for name, value in whole.items():
            np.testing.assert_array_equal(value, parts[name])


def test_rewound_data_starts_again_as_caffes(work: Path) -> None:
    trained(work / "solver.prototxt", changes=["snapshot=3", "max_iter=3"])
    for rewind, first_row in ((True, 0), (False, 2)):  # 3 batches of 4 out of 10 rows
        training = Training(work / "solver.prototxt", snapshot="snap_iter_3.solverstate", rewind=rewind)
        expected, _ = next(_rows(work, first_row))
        np.testing.assert_array_equal(training.train.feed.next()["data"][0], expected)
        training.close()


def _rows(work: Path, start: int) -> Any:
    import h5py

    with h5py.File(work / "rows.h5") as file:
        yield from zip(file["data"][start:], file["label"][start:], strict=True)


def test_a_snapshot_on_request(work: Path) -> None:
    asked = iter([GO_ON, GO_ON, GO_ON, SNAPSHOT] + [GO_ON] * 99)
    _, events = trained(work / "solver.prototxt", changes=["snapshot=0"], asked=lambda: next(asked))
    assert [event.values["file"] for event in events if event.kind == "train-snapshot"] == [
        "snap_iter_1.caffemodel",
        "snap_iter_6.caffemodel",
    ]


@pytest.mark.parametrize("form", ["BINARYPROTO", "HDF5"])
@pytest.mark.parametrize("rule", ["SGD", "Adam"])
def test_a_snapshot_keeps_the_last_update(work: Path, rule: str, form: str) -> None:
    """With snapshot_diff: what was subtracted from the parameters on the way there."""
    changes = ["snapshot=1", "snapshot_diff=true", f"snapshot_format={form}", f"type={rule}"]
    trained(work / "solver.prototxt", changes=changes)
    ending = ".h5" if form == "HDF5" else ""
    before = arrays(work / f"snap_iter_3.caffemodel{ending}")
    layers = caffemodel.open_weights(work / f"snap_iter_4.caffemodel{ending}").layers
    found = {f"{layer.name}:{blob.index}": (blob.read(), blob.diff()) for layer in layers for blob in layer.blobs}
    assert found.keys() == before.keys() == {"ip:0", "ip:1"}
    for name, (value, diff) in found.items():
        assert diff is not None
        assert np.abs(diff).max() > 1e-4
        np.testing.assert_allclose(before[name] - value, diff, rtol=1e-3, atol=1e-6)


def test_several_test_nets_with_states_of_their_own(work: Path) -> None:
    (work / "solver.prototxt").write_text(
        SOLVER + 'test_iter: 2 test_state { } test_state { stage: "plain" } test_compute_loss: true'
    )
    _, events = trained(work / "solver.prototxt")
    outputs = [(event.values["test"], event.values["output"]) for event in events if event.kind == "test-output"]
    assert outputs[:3] == [(0, "loss"), (0, "right"), (1, "loss")]
    losses = [event.values["loss"] for event in events if event.kind == "test-loss"]
    values = [event.values["value"] for event in events if event.kind == "test-output" and event.values["output"] == "loss"]
    assert losses == pytest.approx(values)


def test_iter_size_is_a_larger_batch(work: Path) -> None:
    """Two batches of 2 teach what one of 4 does."""
    trained(work / "solver.prototxt", changes=["snapshot_prefix=large"])
    (work / "net.prototxt").write_text(NET.replace("batch_size: 4", "batch_size: 2"))
    trained(work / "solver.prototxt", changes=["snapshot_prefix=small", "iter_size=2"])
    large, small = (arrays(work / f"{name}_iter_6.caffemodel") for name in ("large", "small"))
    for name, value in large.items():
        np.testing.assert_allclose(value, small[name], rtol=1e-4, atol=1e-6)


def test_finetuning_takes_layers_by_name(work: Path) -> None:
    trained(work / "solver.prototxt")
    (work / "net.prototxt").write_text(NET.replace('"ip"', '"other"'))
    _, events = trained(work / "solver.prototxt", weights=["snap_iter_6.caffemodel"], changes=["max_iter=0", "test_iter=1"])
    (net, test, tool) = [event for event in events if "said" in event.values]
    assert [inner.values["layer"] for inner in net.values["said"]] == ["ip"]
    assert tool.values["said"] == net.values["said"] + test.values["said"]
    for name, times in (("master", 2), ("1.0", 1)):
        said = "".join(line.masked() for line in lines(iter(events), dialect.load(name)))
        assert said.count("Finetuning from snap_iter_6.caffemodel") == times
        assert said.count("Ignoring source layer ip") == 2 < said.index("Ignoring source layer ip") - said.index("Finetuning from")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("net: 'net.prototxt' train_net: 'net.prototxt'", "solver-train-net"),
        ("base_lr: 1", "solver-train-net"),
        ("net: 'gone.prototxt'", "solver-net-missing"),
        ("net: 'net.prototxt' test_iter: 1", "solver-test-interval"),
        ("train_net: 'net.prototxt' test_net: 'net.prototxt'", "solver-test-iter"),
        ("net: 'net.prototxt' test_iter: 1 test_interval: 1 test_state { } test_state { }", "solver-test-state"),
        ("net: 'net.prototxt' average_loss: 0", "solver-average-loss"),
        ("net: 'net.prototxt' snapshot_prefix: 'nowhere/x'", "solver-snapshot-prefix"),
        ("net: 'net.prototxt' type: 'SGD' solver_type: ADAM", "solver-type-twice"),
    ],
    ids=str,
)
def test_solvers_that_caffe_refuses(work: Path, text: str, code: str) -> None:
    (work / "bad.prototxt").write_text(f"lr_policy: 'fixed' max_iter: 1 {text}")
    with pytest.raises(InspectorError) as caught:
        Training(work / "bad.prototxt")
    assert caught.value.code == code


def test_changes_of_fields(work: Path) -> None:
    training = Training(work / "solver.prototxt", changes=["max_iter=9", "type=Adam", "snapshot_prefix=other"])
    training.close()
    assert (training.proto.max_iter, training.proto.type, training.proto.snapshot_prefix) == (9, "Adam", "other")
    for change in ("max_iter", "iterations=9", "max_iter=many"):
        with pytest.raises(InspectorError):
            Training(work / "solver.prototxt", changes=[change])


def test_snapshots_of_another_training_are_refused(work: Path) -> None:
    trained(work / "solver.prototxt")
    with pytest.raises(InspectorError) as caught:
        Training(work / "solver.prototxt", snapshot="snap_iter_4.solverstate", changes=["type=Adam"])
    assert caught.value.code == "snapshot-history"
    (work / "snap_iter_4.caffemodel").unlink()
    with pytest.raises(InspectorError) as caught:
        Training(work / "solver.prototxt", snapshot="snap_iter_4.solverstate")
    assert caught.value.code == "snapshot-weights"


def test_an_input_layer_cannot_be_trained_from(work: Path) -> None:
    head, _, tail = NET.partition("layer {")
    text = f'{head} layer {{ name: "in" type: "Input" top: "more" input_param {{ shape {{ dim: 4 dim: 5 }} }} }} layer {{{tail}'
    (work / "net.prototxt").write_text(text)
    with pytest.raises(InspectorError) as caught:
        Training(work / "solver.prototxt")
    assert caught.value.code == "no-reader"


@pytest.mark.parametrize("name", ["master", "1.0", "rc3", "rc2"])
def test_every_version_speaks_of_training_in_its_words(name: str, work: Path) -> None:
    _, events = trained(work / "solver.prototxt")
    said = "".join(line.masked() for line in lines(iter(events), dialect.load(name)))
    assert said.count("Initializing net from parameters") == 2
    assert ("train_state {" in said) == (name in ("master", "1.0"))
    assert ("iter/s" in said) == (name in ("master", "1.0"))
    assert said.rstrip().endswith("Optimization Done.")
    order = [said.index(words) for words in ("Initializing solver", "Creating training net", "Creating test net", "Solving small")]
    assert order == sorted(order)


def test_the_command_stops_at_ctrl_c_with_a_snapshot(work: Path) -> None:
    """And leaves its table and picture; the log goes to stdout alone."""
    pytest.importorskip("click")
    options = [
        "--set",
        "max_iter=100000000",
        "--set",
        "snapshot=0",
        "--set",
        "test_interval=1000000",
        "--csv",
        "x.csv",
        "--plot",
        "x.svg",
    ]
    command = [sys.executable, "-m", "inspector", "train", "solver.prototxt", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=work) as process:
        said = []
        for line in process.stdout:
            said.append(line)
            if "Iteration 2 " in line:
                process.send_signal(signal.SIGINT)
                break
        rest, error = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Optimization stopped early." in rest
    stopped = int(re.search(r"stopped after (\d+) iterations", error)[1])
    assert caffemodel.open_state(work / f"snap_iter_{stopped}.solverstate").iter == stopped
    assert all(STAMP.match(line) for line in rest.splitlines()[-3:])
    assert (work / "x.csv").read_text().startswith("iteration,seconds,")
    assert ET.parse(work / "x.svg").getroot().tag.endswith("svg")


# ---------------------------------------------------------------------------------------------------------------- numbers


def test_curves_are_a_table(work: Path) -> None:
    curves = Curves()
    _, events = trained(work / "solver.prototxt")
    for event in events:
        curves.add(event)
    names, rows = curves.table()
    assert names[:2] == ["iteration", "seconds"]
    assert set(names[2:]) == {"loss", "train loss", "learning_rate", "test loss", "test right"}
    assert [row[0] for row in rows] == [0, 2, 3, 4, 6]
    assert set(curves.series("score")) == {"test right"}
    shown = {event.values["iteration"]: event.values["loss"] for event in events if event.kind in ("train-iteration", "train-last")}
    assert dict(curves.series("loss")["loss"]) == shown


@pytest.mark.parametrize("option", ["--csv", "--plot"])
def test_a_file_that_cannot_be_written_is_said_before_the_training(option: str, work: Path) -> None:
    result = run("train", "solver.prototxt", option, "nowhere/it")
    assert result.exit_code == 2
    assert "nowhere" in result.stderr
    assert not result.stdout
    assert not list(work.glob("snap*"))


def test_a_plot_is_well_formed_and_leaves_out_what_is_not_finite() -> None:
    points = [(0, 1.0), (10, 0.5), (20, float("nan")), (30, float("inf"))]
    root = ET.fromstring(plot.svg([plot.Panel("a < b", {"<loss>": points}), plot.Panel("none", {})], "x & y\x01"))
    (curve,) = root.iter("{http://www.w3.org/2000/svg}polyline")
    assert len(curve.get("points").split()) == 2
    assert "<loss>" in [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3, 17), (0.0012, 0.0013), (5, 5), (1e6, 3e9)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    found = plot.ticks(low, high)
    assert found == sorted(set(found))
    assert all(low - 1e-9 * abs(low) <= tick <= high + 1e-9 * abs(high) for tick in found)
    assert 1 <= len(found) <= 11


def test_a_kill_leaves_the_last_snapshot_whole(work: Path) -> None:
    """Killed while it writes one snapshot after the other: everything under a final name can be read."""
    changes = ["--set", "max_iter=100000", "--set", "snapshot=1", "--set", "test_interval=100000", "--set", "display=0"]
    command = [sys.executable, "-m", "inspector", "train", "solver.prototxt", *changes]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=work) as process:
        while not (work / "snap_iter_3.solverstate").exists():
            time.sleep(0.01)
        process.kill()
    for path in work.glob("snap_iter_*"):
        if path.suffix == ".caffemodel":
            assert arrays(path)["ip:0"].shape == (3, 5)
        else:
            assert len(caffemodel.open_state(path).history) == 2
