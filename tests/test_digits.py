"""The net that ships with its weights: what it reads, and that its files are what they say."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import inspector
from inspector import recipe, shelf
from inspector.caffemodel import open_weights
from inspector.classify import Runner
from inspector.preprocess import load_image

from .little import run

FOLDER = shelf.folder() / "lenet_digits"


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    """The script that made it all."""
    pytest.importorskip("PIL")
    spec = importlib.util.spec_from_file_location("make_digits", FOLDER / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def net() -> inspector.Net:
    net = inspector.load("lenet_digits", weights=recipe.of("lenet_digits").weights)
    assert net.error is None
    return net


def read(net: inspector.Net, images: np.ndarray) -> np.ndarray:
    """Classes of gray images of 0 to 255, N x 28 x 28."""
    net.reshape(data=(len(images), 1, 28, 28))
    (prob,) = net.forward(data=images[:, None].astype(np.float32) / 256).values()
    return prob.argmax(1)


def test_it_reads_the_samples_by_its_name() -> None:
    said = recipe.of("lenet_digits")
    assert Path(said.labels).read_text() == "zero\none\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\n"
    net = inspector.load("lenet_digits", weights=said.weights)
    paths = sorted((FOLDER / "samples").glob("*.png"))
    assert [path.stem for path in paths] == list("0123456789")
    runner = Runner(net, said, batch=5)
    answers = [row for piece in runner([str(path) for path in paths]) for row in piece.blobs["prob"]]
    assert [int(row.argmax()) for row in answers] == list(range(10))


def test_the_samples_are_our_own_drawings(maker: ModuleType) -> None:
    from PIL import Image

    for digit, drawn in enumerate(maker.samples()):
        with Image.open(FOLDER / "samples" / f"{digit}.png") as stored:
            difference = np.abs(np.asarray(stored).astype(int) - drawn)
        assert difference.max() <= 1  # a rounding away on another machine


def test_it_reads_real_digits_that_were_held_out(net: inspector.Net, maker: ModuleType) -> None:
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn carries the real digits")
    digits = datasets.load_digits()
    out = maker.held_out(digits.target)
    assert out.sum() == 360
    images = np.stack([maker.plain(image) for image in digits.images[out]])
    assert (read(net, images) == digits.target[out]).mean() >= 0.97


def test_it_reads_digits_that_were_drawn_for_this_test(net: inspector.Net, maker: ModuleType) -> None:
    rng = np.random.default_rng(20_000)
    images = np.stack([maker.draw(rng, i % 10) for i in range(300)])
    assert (read(net, images) == np.arange(300) % 10).mean() >= 0.95


def test_it_reads_a_digit_of_mnist(net: inspector.Net, reference: Path) -> None:
    """Of a collection that it never saw."""
    image = load_image(reference / "images" / "mnist_sample.png", gray=True)
    assert list(read(net, image[None, ..., 0] * 255)) == [0]


def test_its_labels_are_in_the_way_of_nothing(tmp_path: Path) -> None:
    """Blobs that are no scores of classes can be shown and saved; only labels that somebody asks for must fit."""
    sample = str(FOLDER / "samples" / "7.png")
    out = tmp_path / "ip1.npz"
    result = run("run", "lenet_digits", sample, "--blob", "ip1", "--out", out)
    assert result.exit_code == 0, result.stderr
    assert np.load(out)["ip1"].shape == (1, 96)
    assert run("run", "lenet_digits", sample, "--blob", "ip1", "--labels", FOLDER / "labels.txt").exit_code == 2


def test_the_files_belong_together(net: inspector.Net) -> None:
    weights = FOLDER / "weights.caffemodel"
    assert weights.stat().st_size < 1 << 20
    stored = open_weights(weights)
    assert sum(blob.count for layer in stored.layers for blob in layer.blobs) == sum(p.count for p in net.graph.params())
    said = (FOLDER / "train.log").read_text()
    tests = re.findall(r"Testing net \(#(\d)\).*?accuracy = (\S+)", said, re.S)
    assert [number for number, _ in tests[-2:]] == ["0", "1"]
    assert min(float(accuracy) for _, accuracy in tests[-2:]) >= 0.97
    assert str(Path.home()) not in said and "/tmp" not in said
    net = inspector.load("lenet_digits/train_val", "TRAIN", given={"data": (64, 1, 28, 28), "label": (64,)})
    net.check()
    net.load_weights(weights)
