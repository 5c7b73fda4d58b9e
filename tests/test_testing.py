"""Data layers that read: shapes from the real source, batches for forward, and `alexinspect test`."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

import inspector
from caffe_proto import caffe_pb2
from inspector.errors import InspectorError

from .little import run, saved

lmdb = pytest.importorskip("lmdb", reason="needs the extra data")
h5py = pytest.importorskip("h5py", reason="needs the extra hdf5")

DATA = 'layer { name: "d" type: "Data" top: "x" top: "l" data_param { source: "db" batch_size: 3 backend: LMDB } }'
IP = 'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 5 } }'
NET = (
    DATA.replace("data_param", "transform_param { scale: 0.01 } data_param")
    + IP
    + """
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "l" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "l" top: "loss" loss_weight: 0.5 }
layer { name: "sum" type: "Reduction" bottom: "ip" top: "sum" loss_weight: 2 }
"""
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A database of 4 records of 2 x 4 x 6 bytes, labels 0 to 3."""
    with lmdb.open(str(tmp_path / "db"), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for i, pixels in enumerate(images()):
            datum = caffe_pb2.Datum(channels=2, height=4, width=6, data=pixels.tobytes(), label=i)
            transaction.put(f"{i}".encode(), datum.SerializeToString())
    return tmp_path


def images() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (4, 2, 4, 6), np.uint8)


def load(folder: Path, text: str, **more: object) -> inspector.Net:
    (folder / "net.prototxt").write_text(text)
    return inspector.load(folder / "net.prototxt", **more)  # type: ignore[arg-type]


# ---- shapes from the source


def test_shapes_come_from_the_source(folder: Path) -> None:
    net = load(folder, NET)
    assert net.blobs["x"].shape == (3, 2, 4, 6) and net.blobs["l"].shape == (3,)
    assert net.params["ip"][0].shape == (5, 48)
    assert not net.findings
    assert net.look(net.layers[0]).lines == [("open-lmdb", {"source": "db"})]
    cropped = load(folder, NET.replace("scale: 0.01", "crop_size: 3"))
    assert cropped.blobs["x"].shape == (3, 2, 3, 3)
    assert not cropped.findings  # nothing had to be supposed


def test_given_shapes_win(folder: Path) -> None:
    net = load(folder, DATA, given={"x": (7, 9, 8, 5)})
    assert net.blobs["x"].shape == (7, 9, 8, 5) and net.blobs["l"].shape == (7,)


def test_other_tops_follow_the_given_batch(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"], file["y"] = np.zeros((4, 3, 2)), np.zeros((4, 5))
    (tmp_path / "list.txt").write_text(f"{tmp_path / 'a.h5'}\n")
    text = 'layer { name: "h" type: "HDF5Data" top: "x" top: "y" hdf5_data_param { source: "list.txt" batch_size: 6 } }'
    assert load(tmp_path, text).blobs["y"].shape == (6, 5)
    assert load(tmp_path, text, given={"x": (8, 3, 2)}).blobs["y"].shape == (8, 5)


def test_a_missing_or_broken_source_is_a_finding_and_the_net_loads(folder: Path) -> None:
    for text, code in ((DATA.replace('"db"', '"nowhere"'), "missing-source"), (DATA.replace("LMDB", "LEVELDB"), "backend")):
        net = load(folder, text)
        assert net.blobs["x"].shape is None
        [finding] = net.findings
        assert finding.code == code and finding.severity == "warning" and finding.layer == "d" and finding.where is not None
        assert "--shape x=" in str(finding) or "backend" in str(finding)
        with pytest.raises(InspectorError):
            net.open_sources()
    (folder / "db" / "data.mdb").write_bytes(b"x" * 50)
    net = load(folder, DATA)
    assert net.findings and net.blobs["x"].shape is None


def test_images_of_many_sizes_reshape_the_net(tmp_path: Path) -> None:
    pil = pytest.importorskip("PIL.Image", reason="needs the extra images")
    for i, size in enumerate([(5, 3), (4, 7)]):
        pil.new("RGB", size, (i, 10, 20)).save(tmp_path / f"{i}.png")
    (tmp_path / "list.txt").write_text(f"{tmp_path / '0.png'} 3\n{tmp_path / '1.png'} 4\n")
    text = 'layer { name: "i" type: "ImageData" top: "x" top: "l" image_data_param { source: "list.txt" } }'
    net = load(tmp_path, text + 'layer { name: "p" type: "Power" bottom: "x" top: "p" power_param { shift: 1 } }')
    with net.open_sources() as feed:
        shapes = [net.forward(["p", "l"], **feed.next()) for _ in range(3)]
    assert [found["p"].shape for found in shapes] == [(1, 3, 3, 5), (1, 3, 7, 4), (1, 3, 3, 5)]
    assert shapes[1]["p"][0, :, 0, 0].tolist() == [21, 11, 2]


def test_caffes_batches_through_the_net(reference: Path) -> None:
    for path in sorted((reference / "data").glob("*.prototxt")):
        net = inspector.load(path)
        with np.load(path.with_suffix(".npz")) as expected, net.open_sources() as feed:
            assert net.blobs["data"].shape == expected["data:0"].shape
            for i in range(4):
                found = net.forward(**feed.next())
                np.testing.assert_allclose(found["data"], expected[f"data:{i}"], atol=1.01 if "resize" in path.stem else 0)
                np.testing.assert_array_equal(found["label"], expected[f"label:{i}"])


# ---- the command


def test_scores_are_averaged(folder: Path) -> None:
    (folder / "net.prototxt").write_text(NET)
    model, weights = saved(folder, NET, "net")
    net = inspector.load(model, weights=weights)
    matrix, bias = (param.data.astype(np.float64) for param in net.params["ip"])
    order = [i % 4 for i in range(6)]  # two batches of three out of four records
    z = 0.01 * images()[order].reshape(6, -1) @ matrix.T + bias
    losses = np.log(np.exp(z - z.max(1, keepdims=True)).sum(1)) - (z - z.max(1, keepdims=True))[np.arange(6), order]
    right = z.argmax(1) == order
    each = [0.5 * losses[:3].mean() + 2 * z[:3].sum(), 0.5 * losses[3:].mean() + 2 * z[3:].sum()]

    result = run("test", model, weights, "--iterations", "2", "--format", "json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["loss"] == pytest.approx(np.mean(each), rel=1e-5)
    accuracy, loss, total = found["scores"]
    assert (accuracy["output"], accuracy["loss_weight"]) == ("accuracy", 0)
    assert accuracy["batches"] == pytest.approx([right[:3].mean(), right[3:].mean()])
    assert (loss["output"], loss["loss_weight"], loss["mean"]) == ("loss", 0.5, pytest.approx(losses.mean(), rel=1e-5))

    assert (total["output"], total["loss_weight"]) == ("sum", 2)

    text = run("test", model, weights, "--iterations", "2").stdout.splitlines()
    assert text[0] == f"Batch 0, accuracy = {right[:3].mean():g}"
    assert re.fullmatch(r"Loss: -?[0-9.e+]+", text[6])
    assert re.fullmatch(r"loss = ([0-9.]+) \(\* 0\.5 = ([0-9.]+) loss\)", text[8])
    rows = list(csv.reader(run("test", model, weights, "--iterations", "3", "--format", "csv").stdout.splitlines()))
    assert rows[0] == ["batch", "accuracy", "loss", "sum", "loss (total)"] and len(rows) == 4


def test_what_caffe_printed_while_it_tested(reference: Path) -> None:
    folder = reference / "training"
    for solver in sorted(folder.glob("*.sgd_fixed.solver.prototxt")):
        name = solver.name.partition(".")[0]
        log = (folder / f"{name}.sgd_fixed.log").read_text()
        [accuracy, loss] = re.findall(r"Test net output #\d: \w+ = (.*)", log)[:2]  # before training
        result = run("test", solver, folder / f"{name}.init.caffemodel")  # as many batches as the solver says
        assert result.exit_code == 0, result.stderr
        assert result.stdout.splitlines()[-2:] == [f"accuracy = {accuracy}", f"loss = {loss}"]


OUTPUT = """
layer { name: "relu" type: "ReLU" bottom: "ip" top: "ip" }
layer { name: "out" type: "HDF5Output" bottom: "ip" bottom: "l" hdf5_output_param { file_name: "scores.h5" } }
"""


def test_hdf5_output_gets_the_rows_of_every_batch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    model, weights = saved(folder, DATA.replace("data_param", "transform_param { scale: 0.01 } data_param") + IP + OUTPUT, "net")
    result = run("test", model, weights, "--iterations", "2")
    assert result.exit_code == 0 and "wrote 'scores.h5'" in result.stderr, result.stderr
    net = inspector.load(model, weights=weights)
    with net.open_sources() as feed:
        expected = np.concatenate([net.forward(["ip@relu"], **feed.next())["ip@relu"] for _ in range(2)])
    with h5py.File("scores.h5") as file:  # four axes, as Caffe's layer has it
        assert sorted(file) == ["data", "label"]
        assert file["data"].shape == (6, 5, 1, 1) and np.array_equal(file["data"][:, :, 0, 0], expected)
        assert file["label"].shape == (6, 1, 1, 1) and file["label"][:].reshape(-1).tolist() == [0, 1, 2, 3, 0, 1]

    before = Path("scores.h5").read_bytes()  # without open_outputs nothing is written, nor by a run that fails
    with net.open_sources() as feed:
        net.forward(**feed.next())
        with pytest.raises(InspectorError), net.open_outputs():
            net.forward(["nonsense"], **feed.next())
    assert Path("scores.h5").read_bytes() == before
    assert sorted(path.name for path in folder.glob("*scores*")) == ["scores.h5"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("scores.h5", "notes.txt"), "no HDF5 file"),
        (("scores.h5", "nowhere/scores.h5"), "nowhere"),
        (('bottom: "l"', 'bottom: "lonely"'), "different numbers of rows"),
    ],
)
def test_hdf5_output_harms_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch, change: tuple[str, str], words: str) -> None:
    monkeypatch.chdir(folder)
    Path("notes.txt").write_text("mine")
    lonely = 'layer { name: "n" type: "DummyData" top: "lonely" dummy_data_param { shape { dim: 7 } } }'
    model, weights = saved(folder, DATA + lonely + IP + OUTPUT.replace(*change), "net")
    result = run("test", model, weights, "--iterations", "1")
    assert result.exit_code == 2 and words in result.stderr, result.stderr
    assert Path("notes.txt").read_text() == "mine" and not Path("scores.h5").exists()


def test_trouble(folder: Path) -> None:
    model, weights = saved(folder, NET, "net")
    assert run("test", "lenet", weights).exit_code == 2
    lost = folder / "lost.prototxt"
    lost.write_text(NET.replace('"db"', '"nowhere"'))
    result = run("test", lost, weights, "--shape", "x=3x2x4x6")
    assert result.exit_code == 2 and "nowhere" in result.stderr and "layer 'd'" in result.stderr
    lost.write_text('layer { name: "m" type: "Input" top: "m" input_param { shape { dim: 3 } } }' + NET)
    result = run("test", lost, weights)
    assert result.exit_code == 2 and "'m'" in result.stderr
    assert run("test", model).exit_code == 2
