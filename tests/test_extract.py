"""`alexinspect extract`: rows in every format, and after every kind of end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import inspector
from caffe_proto import caffe_pb2
from inspector import features
from inspector.errors import InspectorError

from .little import CLASSES, CLASSIFIER, HEIGHT, SAME, WIDTH, picture, run, saved

pytest.importorskip("PIL.Image", reason="needs the extra images")
lmdb = pytest.importorskip("lmdb", reason="needs the extra data")
h5py = pytest.importorskip("h5py", reason="needs the extra hdf5")

BLOBS = ("ip@ip", "prob")


class Setting:
    """A net, images, and what it says of them."""

    def __init__(self, folder: Path, images: int) -> None:
        self.model, self.weights = saved(folder, CLASSIFIER)
        self.images = folder / "images"
        pixels = np.stack([picture(self.images / f"{i:03}.png", i) for i in range(images)])
        self.paths = [str(self.images / f"{i:03}.png") for i in range(images)]
        net = inspector.load(self.model, weights=self.weights)
        net.reshape(data=(images, 1, HEIGHT, WIDTH))
        self.expected = net.forward(list(BLOBS), data=pixels[:, None] / np.float32(256))

    def command(self, out: Path, *more: str) -> list[str]:
        blobs = [word for blob in BLOBS for word in ("--blob", blob)]
        return ["extract", self.model, self.weights, str(self.images), "--preset", "lenet", "--out", str(out), *blobs, *more]

    def check(self, out: Path) -> None:
        with np.load(out) as stored:
            assert sorted(stored.files) == ["ip@ip", "names", "prob"]
            assert list(stored["names"]) == self.paths  # none lost, none twice, in order
            for blob in BLOBS:
                np.testing.assert_allclose(stored[blob], self.expected[blob], atol=1e-5)
        assert not features.spool_folder(out).exists()


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path, 10)


# ---- formats


def test_npz(setting: Setting, tmp_path: Path) -> None:
    out = tmp_path / "f.npz"
    result = run(*setting.command(out))
    assert result.exit_code == 0, result.stderr
    assert f"wrote '{out}': ip@ip 10x4, prob 10x4" in result.stderr
    setting.check(out)


def test_hdf5(setting: Setting, tmp_path: Path) -> None:
    assert run(*setting.command(tmp_path / "f.h5")).exit_code == 0
    with h5py.File(tmp_path / "f.h5") as stored:
        assert [name.decode() for name in stored["names"]] == setting.paths
        for blob in BLOBS:
            np.testing.assert_allclose(stored[blob][:], setting.expected[blob], atol=1e-5)


def test_lmdb_has_one_database_for_each_blob(setting: Setting, tmp_path: Path) -> None:
    assert run(*setting.command(tmp_path / "db", "--to", "lmdb")).exit_code == 0
    for blob in BLOBS:
        keys, rows = records(tmp_path / "db" / blob)
        assert keys == [f"{i:08}_{path}" for i, path in enumerate(setting.paths)]
        np.testing.assert_allclose(rows, setting.expected[blob][:, :, None, None], atol=1e-5)


def test_a_data_layer_reads_the_lmdb_again(tmp_path: Path) -> None:
    model, weights = saved(tmp_path, SAME)
    for i in range(3):
        picture(tmp_path / "images" / f"{i}.png", i, 6, 8, 3)
    command = ["extract", model, weights, tmp_path / "images", "--blob", "out", "--out"]
    assert run(*command, tmp_path / "f.lmdb").exit_code == 0
    assert run(*command, tmp_path / "f.npz").exit_code == 0
    net = inspector.loads(
        f'layer {{ name: "d" type: "Data" top: "d" data_param {{ source: "{tmp_path / "f.lmdb"}" batch_size: 3 backend: LMDB }} }}'
    )
    assert net.blobs["d"].shape == (3, 3, 6, 8)
    with net.open_sources() as feed, np.load(tmp_path / "f.npz") as stored:
        np.testing.assert_array_equal(feed.next()["d"], stored["out"])


def records(folder: Path) -> tuple[list[str], np.ndarray]:
    keys, rows = [], []
    with lmdb.open(str(folder), readonly=True, lock=False) as environment, environment.begin() as transaction:
        for key, value in transaction.cursor():
            datum = caffe_pb2.Datum.FromString(value)
            keys.append(key.decode())
            rows.append(np.array(datum.float_data, np.float32).reshape(datum.channels, datum.height, datum.width))
    return keys, np.stack(rows)


# ---- ends


@pytest.mark.parametrize("more", [b"", b'{"names": ["/x.p', b"\xff"])
def test_goes_on_after_a_kill_at_any_moment(setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: bytes) -> None:
    """Rows without a line, half a row, half a line: what a killed process leaves."""
    out = tmp_path / "f.npz"
    add = features.Spool.add
    done: list[int] = []

    def dies(self: features.Spool, *arguments: object) -> None:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(1)
        add(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(features.Spool, "add", dies)
    stopped = run(*setting.command(out, "--batch", "3"))
    assert stopped.exit_code == 130 and "goes on from there" in stopped.stderr and not out.exists()
    monkeypatch.undo()
    folder = features.spool_folder(out)
    with (folder / "0.f32").open("ab") as rows, (folder / "journal").open("ab") as journal:
        rows.write(b"\1" * (3 * CLASSES * 4 + 2))
        journal.write(more)
    result = run(*setting.command(out, "--batch", "4"))
    assert result.exit_code == 0 and "goes on after 6 items" in result.stderr
    setting.check(out)


def test_goes_on_after_sigkill(tmp_path: Path) -> None:
    setting = Setting(tmp_path, 120)
    out = tmp_path / "f.npz"
    journal = features.spool_folder(out) / "journal"
    for kills in range(3):
        process = subprocess.Popen(
            [sys.executable, "-m", "inspector", *setting.command(out, "--batch", "1")],
            cwd=Path(__file__).parent.parent,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") > 5 + 10 * kills):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    if not out.exists():  # unless the machine was faster than we
        result = run(*setting.command(out))
        assert result.exit_code == 0 and "goes on after" in result.stderr
    setting.check(out)


def test_broken_images_are_left_out_and_tried_again(setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "f.npz"
    whole = (setting.images / "004.png").read_bytes()
    (setting.images / "004.png").write_bytes(whole[:50])
    result = run(*setting.command(out))
    assert result.exit_code == 1 and "004.png" in result.stderr
    with np.load(out) as stored:
        assert list(stored["names"]) == setting.paths[:4] + setting.paths[5:]
        np.testing.assert_allclose(stored["prob"], np.delete(setting.expected["prob"], 4, 0), atol=1e-5)
    for path in setting.paths:
        Path(path).write_bytes(b"")
    assert run(*setting.command(tmp_path / "g.npz")).exit_code == 2
    assert not (tmp_path / "g.npz").exists() and not features.spool_folder(tmp_path / "g.npz").exists()


def test_other_work_is_not_continued_with(setting: Setting, tmp_path: Path) -> None:
    out = tmp_path / "f.npz"
    folder = features.spool_folder(out)
    features.Spool(folder, BLOBS, {"net": "another"}).close()
    result = run(*setting.command(out))
    assert result.exit_code == 2 and "begun with something else" in result.stderr and "net" in result.stderr
    assert folder.exists()


def test_what_is_there_is_not_replaced(setting: Setting, tmp_path: Path) -> None:
    for name in ("f.npz", "f.lmdb", "f.h5"):
        (tmp_path / name).write_text("precious")
        assert run(*setting.command(tmp_path / name)).exit_code == 2
        assert (tmp_path / name).read_text() == "precious"


@pytest.mark.skipif(sys.platform == "win32", reason="locks of POSIX")
def test_two_at_once_are_refused(tmp_path: Path) -> None:
    with features.Spool(tmp_path / "s", ["a"]), pytest.raises(InspectorError) as caught:
        features.Spool(tmp_path / "s", ["a"])
    assert caught.value.code == "spool-busy"


def test_damaged_spools_are_named(tmp_path: Path) -> None:
    with features.Spool(tmp_path / "s", ["a"]) as spool:
        spool.add(["x", "y"], {"a": np.ones((2, 3), np.float32)})
    rows, journal = tmp_path / "s" / "0.f32", tmp_path / "s" / "journal"
    content = journal.read_bytes()
    rows.write_bytes(rows.read_bytes()[:-1])
    with pytest.raises(InspectorError) as caught:
        features.Spool(tmp_path / "s", ["a"])
    assert caught.value.code == "spool-damaged"
    for lines in (b"[1]\n", content + b"{}\n", content + b"[]\n", b"\xff\n"):
        journal.write_bytes(lines)
        with pytest.raises(InspectorError) as caught:
            features.Spool(tmp_path / "s", ["a"])
        assert caught.value.code in ("spool-damaged", "spool-other")


def test_rows_keep_one_shape(tmp_path: Path) -> None:
    with features.Spool(tmp_path / "s", ["a"]) as spool:
        spool.add(["x"], {"a": np.ones((1, 3), np.float32)})
        for wrong in (np.ones((1, 4), np.float32), np.ones((2, 3), np.float32)):
            with pytest.raises(InspectorError) as caught:
                spool.add(["y"], {"a": wrong})
            assert caught.value.code in ("mixed-sizes", "no-rows")
        assert spool.names == ["x"]


def test_memory_stays_the_same(tmp_path: Path) -> None:
    import tracemalloc

    with features.Spool(tmp_path / "s", ["a"]) as spool:
        tracemalloc.start()
        for i in range(40):
            spool.add([str(i)], {"a": np.full((1, 1 << 18), i, np.float32)})  # 40 MiB in all
        features.write_npz(tmp_path / "f.npz", spool)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 12 << 20
    with np.load(tmp_path / "f.npz") as stored:
        assert stored["a"].shape == (40, 1 << 18) and (stored["a"][:, 5] == np.arange(40)).all()


# ---- data layers


@pytest.fixture
def reading(tmp_path: Path) -> str:
    """A net that reads 7 records in batches of 3."""
    with lmdb.open(str(tmp_path / "db"), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for i in range(7):
            datum = caffe_pb2.Datum(channels=1, height=2, width=3, data=bytes(range(i, i + 6)), label=i)
            transaction.put(f"{i:04}".encode(), datum.SerializeToString())
    (tmp_path / "reads.prototxt").write_text(
        'layer { name: "d" type: "Data" top: "d" top: "l" data_param { source: "db" batch_size: 3 backend: LMDB } }'
        'layer { name: "twice" type: "Power" bottom: "d" top: "twice" power_param { scale: 2 } }'
    )
    return str(tmp_path / "reads.prototxt")


def test_a_nets_own_data_round_and_round(reading: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["extract", reading, "--blob", "twice", "--blob", "l", "--out", str(tmp_path / "f.npz")]
    add = features.Spool.add
    done: list[int] = []

    def dies(self: features.Spool, *arguments: object) -> None:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(1)
        add(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(features.Spool, "add", dies)
    assert run(*command, "--iterations", "5").exit_code == 130
    monkeypatch.undo()
    assert run(*command, "--iterations", "5").exit_code == 0
    with np.load(tmp_path / "f.npz") as stored:
        assert stored["l"].tolist() == [i % 7 for i in range(15)]
        assert stored["twice"][8].reshape(-1).tolist() == [2, 4, 6, 8, 10, 12]
        assert list(stored["names"]) == [str(i) for i in range(15)]
    assert run(*command).exit_code == 2  # there is no end to it


def test_options_that_do_not_go_together(setting: Setting, reading: str, tmp_path: Path) -> None:
    out = tmp_path / "f.npz"
    for arguments in (
        setting.command(out, "--iterations", "3"),
        setting.command(tmp_path / "f.xyz"),
        setting.command(out, "--blob", "prop"),
        ["extract", setting.model, setting.weights, "--blob", "prob", "--out", str(out)],
        ["extract", reading, "--blob", "d", "--out", str(out), "--iterations", "2", "--gray"],
    ):
        result = run(*arguments)
        assert result.exit_code == 2 and not out.exists(), arguments
        assert not features.spool_folder(out).exists()
    assert "did you mean 'prob'?" in run(*setting.command(out, "--blob", "prop")).stderr
    json.dumps(features.about(inspector.load(reading), None, x=1))
