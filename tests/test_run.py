"""`alexinspect run`: answers worked out by hand, and what Caffe's own nets say of pictures."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import inspector
from inspector import batches, classify, recipe, shelf
from inspector.errors import InspectorError
from inspector.preprocess import PRESETS, Preprocessing

from .little import CLASSES, CLASSIFIER, HEIGHT, SAME, WIDTH, picture, run, saved, scores

Image = pytest.importorskip("PIL.Image", reason="needs the extra images")

IDENTITY = [np.eye(3, dtype=np.float32)[:, :, None, None], np.zeros(3, np.float32)]


def answers(*arguments: object) -> dict[str, object]:
    result = run("run", *arguments, "--format", "json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def ranked(output: dict[str, list[dict[str, object]]]) -> list[tuple[object, object]]:
    return [(found["class"], found["score"]) for found in output["top"]]


# ---- images


def test_classes_of_a_folder_in_batches_of_any_size(tmp_path: Path) -> None:
    model, weights = saved(tmp_path, CLASSIFIER)
    pixels = np.stack([picture(tmp_path / "photos" / "deep" / f"{i}.png", i) for i in range(8)])  # 8 images, batches of 6
    expected = scores(weights, pixels / 256)
    for batch in ([], ["--batch", "3"], ["--batch", "1"], ["--engine", "reference"]):
        found = answers(model, weights, tmp_path / "photos", "--preset", "lenet", *batch)
        assert [answer["image"] for answer in found["answers"]] == [
            str(tmp_path / "photos" / "deep" / f"{i}.png") for i in range(8)
        ]
        for answer, row in zip(found["answers"], expected, strict=True):
            [output] = answer["outputs"]
            assert output["blob"] == "prob" and output["shape"] == [CLASSES]
            assert [index for index, _ in ranked(output)] == list(np.argsort(-row))
            assert [score for _, score in ranked(output)] == pytest.approx(sorted(row, reverse=True), abs=1e-5)


def test_what_was_done_to_images_is_printed_and_in_the_json(tmp_path: Path) -> None:
    model, weights = saved(tmp_path, CLASSIFIER)
    picture(tmp_path / "a.png", 1, 9, 8, 3)
    found = answers(model, weights, tmp_path / "a.png", "--mean", "7", "--input-scale", "0.5", "--mirror")
    applied = found["preprocessing"]
    assert (applied["gray"], applied["raw_scale"], applied["mean"], applied["input_scale"], applied["mirror"]) == (
        True,
        255,
        [7],
        0.5,
        True,
    )
    text = run("run", model, weights, tmp_path / "a.png", "--mean", "7", "--input-scale", "0.5", "--mirror").stdout
    assert all(step in text for step in applied["steps"])
    assert "so that pixels go from 0 to 255" in text  # the convention, said


def test_settings_are_pycaffes(tmp_path: Path) -> None:
    model, weights = saved(tmp_path, CLASSIFIER)
    pixels = picture(tmp_path / "a.png", 3)
    [answer] = answers(model, weights, tmp_path / "a.png", "--mean", "20", "--input-scale", "0.01", "--mirror")["answers"]
    expected = scores(weights, ((pixels.astype(np.float64) - 20) * 0.01)[None, :, ::-1])[0]
    assert dict(ranked(answer["outputs"][0])) == pytest.approx(dict(enumerate(expected)), abs=1e-5)
    raw = answers(model, weights, tmp_path / "a.png", "--raw-scale", "1")["answers"][0]
    assert dict(ranked(raw["outputs"][0])) == pytest.approx(dict(enumerate(scores(weights, pixels[None] / 255)[0])), abs=1e-5)


def test_ten_crops_are_averaged(tmp_path: Path) -> None:
    model, weights = saved(tmp_path, CLASSIFIER)
    pixels = picture(tmp_path / "a.png", 4, HEIGHT + 3, WIDTH + 4) / 256
    picture(tmp_path / "b.png", 5, HEIGHT + 3, WIDTH + 4)
    found = answers(model, weights, tmp_path / "a.png", tmp_path / "b.png", "--crop", "oversample", "--input-scale", "0.00390625")
    crops = [pixels[y : y + HEIGHT, x : x + WIDTH] for y, x in ((0, 0), (0, 4), (3, 0), (3, 4), (1, 2))]
    expected = scores(weights, np.stack([*crops, *(crop[:, ::-1] for crop in crops)])).mean(0)
    assert dict(ranked(found["answers"][0]["outputs"][0])) == pytest.approx(dict(enumerate(expected)), abs=1e-5)
    assert len(found["answers"]) == 2


def test_labels_and_how_many(tmp_path: Path) -> None:
    model, weights = saved(tmp_path, CLASSIFIER)
    picture(tmp_path / "a.png", 1)
    (tmp_path / "words.txt").write_text("ant\nbee, the busy\ncat\ndog\n")
    [answer] = answers(model, weights, tmp_path / "a.png", "--labels", tmp_path / "words.txt", "--top", "2")["answers"]
    best = answer["outputs"][0]["top"]
    assert len(best) == 2 and all(found["label"] == ["ant", "bee, the busy", "cat", "dog"][found["class"]] for found in best)
    [answer] = answers(model, weights, tmp_path / "a.png", "--top", "0")["answers"]
    assert len(answer["outputs"][0]["values"]) == CLASSES
    (tmp_path / "words.txt").write_text("ant\nbee\n")
    wrong = run("run", model, weights, tmp_path / "a.png", "--labels", tmp_path / "words.txt")
    assert wrong.exit_code == 2 and "2 classes" in wrong.stderr and "'prob' has 4" in wrong.stderr


def test_a_broken_image_is_reported_and_the_rest_goes_on(tmp_path: Path) -> None:
    model, weights = saved(tmp_path, CLASSIFIER)
    for i in range(4):
        picture(tmp_path / f"{i}.png", i)
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:60])
    result = run("run", model, weights, *(tmp_path / f"{i}.png" for i in range(4)), tmp_path / "none.png", "--format", "json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert [Path(answer["image"]).name for answer in found["answers"]] == ["0.png", "2.png", "3.png"]
    assert [Path(broken["image"]).name for broken in found["broken"]] == ["1.png", "none.png"]
    assert result.stderr.count("alexinspect: error: ") == 2
    assert run("run", model, weights, tmp_path / "1.png").exit_code == 2  # not one


def test_files_folders_and_patterns(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "sub/c.bmp", "notes.txt", "d[1].png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    names = [Path(path).name for path in batches.find_images([str(tmp_path)])]
    assert names == ["a.JPG", "b.png", "d[1].png", "c.bmp"]
    assert batches.find_images([str(tmp_path / "*.png"), str(tmp_path / "b.png")]) == [
        str(tmp_path / "b.png"),
        str(tmp_path / "d[1].png"),
    ]
    assert batches.find_images([str(tmp_path / "d[1].png"), "missing.png"]) == [str(tmp_path / "d[1].png"), "missing.png"]
    for lost in ("*.gif", "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(InspectorError) as caught:
            batches.find_images([str(tmp_path / lost)])
        assert caught.value.code == "no-images"


def test_a_few_images_are_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, weights = saved(tmp_path, CLASSIFIER)
    read: list[str] = []

    def item(name: str, preprocessing: Preprocessing) -> np.ndarray:
        read.append(name)
        return np.zeros((1, 1, HEIGHT, WIDTH), np.float32)

    monkeypatch.setattr(batches, "_item", item)
    runner = classify.Runner(inspector.load(model, weights=weights), recipe.Recipe(), batch=4)
    for i, answer in enumerate(runner([f"{i}.png" for i in range(1000)])):
        assert len(answer.names) == 4
        assert len(read) <= 4 * (i + 1) + 4 * 3 + 1  # this batch, two ahead, one being filled, which begins the next
        if i == 20:
            break
    assert len(read) < 120


# ---- other inputs and outputs


def test_an_image_comes_out_as_it_went_in(tmp_path: Path) -> None:
    model, weights = saved(tmp_path, SAME, conv=IDENTITY)
    first = picture(tmp_path / "in" / "a.png", 1, 9, 11, 3)
    second = picture(tmp_path / "in" / "b.png", 2, 6, 8, 3)
    out = tmp_path / "out.png"
    result = run("run", model, weights, tmp_path / "in" / "a.png", "--save-image", out, "--mean", "1,2,3", "--input-scale", "0.3")
    assert result.exit_code == 0 and "as large as each image" in result.stdout
    assert np.array_equal(np.asarray(Image.open(out)), first)  # the net took the image's own size
    result = run("run", model, weights, tmp_path / "in", "--save-image", tmp_path / "all", "--channel-order", "RGB")
    assert result.exit_code == 0
    assert np.array_equal(np.asarray(Image.open(tmp_path / "all" / "b.png")), second)
    assert run("run", model, weights, tmp_path / "in", "--save-image", out).exit_code == 2  # two images, one file


def test_maps_are_drawn_from_black_to_white(tmp_path: Path) -> None:
    images = Preprocessing()
    ramp = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    drawn = classify.picture(ramp, images)
    assert drawn is not None and drawn[0, 0, 0] == 0 and drawn[2, 3, 0] == 1
    votes = np.zeros((5, 2, 3), np.float32)
    votes[3, 1, 2] = 1
    drawn = classify.picture(votes, images)
    assert drawn is not None and drawn[1, 2, 0] == 3 * (255 // 4) and drawn[0, 0, 0] == 0
    assert classify.picture(votes[:, :1, :1], images) is None
    assert run("run", *saved(tmp_path, CLASSIFIER), str(_any(tmp_path)), "--save-image", tmp_path / "x.png").exit_code == 2


def _any(folder: Path) -> Path:
    picture(folder / "any.png", 1)
    return folder / "any.png"


def test_blobs_are_saved_for_every_image(tmp_path: Path) -> None:
    model, weights = saved(tmp_path, CLASSIFIER)
    pixels = np.stack([picture(tmp_path / f"{i}.png", i) for i in range(7)])
    paths = [tmp_path / f"{i}.png" for i in range(7)]
    result = run(
        "run", model, weights, *paths, "--preset", "lenet", "--blob", "ip@ip", "--blob", "prob", "--out", tmp_path / "o.npz"
    )
    assert result.exit_code == 0, result.stderr
    net = inspector.load(model, weights=weights)
    net.reshape(data=(7, 1, HEIGHT, WIDTH))
    expected = net.forward(["ip@ip", "prob"], data=pixels[:, None] / np.float32(256))
    with np.load(tmp_path / "o.npz") as stored:
        assert list(stored["names"]) == list(map(str, paths))
        for blob in ("ip@ip", "prob"):
            np.testing.assert_allclose(stored[blob], expected[blob], atol=1e-5)
        assert stored["ip@ip"].min() < 0  # as it was before the ReLU in place
    assert not list(tmp_path.glob(".*")) and not list(tmp_path.glob("*.part"))


def test_arrays_are_fed_as_they_are(tmp_path: Path) -> None:
    two = """
    layer { name: "a" type: "Input" top: "a" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "b" type: "Input" top: "b" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "sum" eltwise_param { coeff: 1 coeff: -2 } }
    """
    (tmp_path / "two.prototxt").write_text(two)
    a, b = np.random.default_rng(0).standard_normal((2, 4, 3)).astype(np.float32)
    np.savez(tmp_path / "in.npz", a=a, b=b)
    result = run(
        "run",
        tmp_path / "two.prototxt",
        "--npz",
        tmp_path / "in.npz",
        "--out",
        tmp_path / "out.npz",
        "--top",
        "0",
        "--format",
        "json",
    )
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert [answer["outputs"][0]["values"] for answer in found["answers"]] == [pytest.approx(row) for row in (a - 2 * b).tolist()]
    with np.load(tmp_path / "out.npz") as stored:
        np.testing.assert_allclose(stored["sum"], a - 2 * b, rtol=1e-6)
    np.savez(tmp_path / "half.npz", a=a)
    lost = run("run", tmp_path / "two.prototxt", "--npz", tmp_path / "half.npz")
    assert lost.exit_code == 2 and "'b'" in lost.stderr


@pytest.mark.parametrize("content", ["pickle", "text", "cut", "strange", "words"])
def test_arrays_that_are_none(tmp_path: Path, content: str) -> None:
    model, weights = saved(tmp_path, CLASSIFIER)
    path = tmp_path / "in.npz"
    data = np.zeros((1, 1, HEIGHT, WIDTH), np.float32)
    if content == "pickle":
        np.savez(path, data=np.array([{"a": 1}], object))
    elif content == "strange":
        np.savez(path, other=data)
    elif content == "words":
        np.savez(path, data=np.array(["a"]))
    else:
        np.savez(path, data=data)
        path.write_bytes(path.read_bytes()[:90] if content == "cut" else b"no archive")
    result = run("run", model, weights, "--npz", path)
    assert result.exit_code == 2
    assert str(path) in result.stderr
    assert "unsafely" not in result.stderr  # which is what NumPy recommends


# ---- trouble


def test_weights_that_do_not_fit_are_listed_and_nothing_runs(tmp_path: Path) -> None:
    two = CLASSIFIER.replace('bottom: "ip" top: "prob"', 'bottom: "ip2" top: "prob"') + (
        'layer { name: "ip2" type: "InnerProduct" bottom: "ip" top: "ip2" inner_product_param { num_output: 3 } }'
    )
    lines = two.strip().split("\n")
    model, weights = saved(tmp_path, "\n".join([*lines[:-2], lines[-1], lines[-2]]))
    other = tmp_path / "other.prototxt"
    other.write_text(Path(model).read_text().replace("num_output: 4", "num_output: 9").replace("num_output: 3", "num_output: 8"))
    result = run("run", other, weights, _any(tmp_path))
    assert result.exit_code == 2 and not result.stdout
    assert "'ip'" in result.stderr and "'ip2'" in result.stderr  # every one


def test_missing_weights_are_said(tmp_path: Path) -> None:
    model, weights = saved(tmp_path, CLASSIFIER)
    renamed = tmp_path / "renamed.prototxt"
    renamed.write_text(CLASSIFIER.replace('name: "ip"', 'name: "fresh"'))
    result = run("run", renamed, weights, _any(tmp_path))
    assert result.exit_code == 0 and "'fresh'" in result.stderr
    assert run("run", model, _any(tmp_path)).exit_code == 2  # an image where weights should be
    assert run("run", model, weights).exit_code == 2
    assert run("run", "lenet", _any(tmp_path)).exit_code == 2


def test_a_caffemodel_is_a_net_with_weights(tmp_path: Path) -> None:
    model, weights = saved(tmp_path, CLASSIFIER)
    path = _any(tmp_path)
    assert answers(weights, path)["answers"] == answers(model, weights, path)["answers"]


def test_the_first_layer_with_a_nan_is_named(tmp_path: Path) -> None:
    text = CLASSIFIER.replace('"Softmax"', '"Log"') + 'layer { name: "later" type: "Exp" bottom: "prob" top: "end" }'
    model, weights = saved(tmp_path, text, ip=[np.full((CLASSES, HEIGHT * WIDTH), -1, np.float32), np.zeros(CLASSES, np.float32)])
    assert run("run", model, weights, _any(tmp_path)).exit_code == 0
    result = run("run", model, weights, _any(tmp_path), "--check-numerics")
    assert result.exit_code == 1 and "layer 'prob' (Log)" in result.stderr
    found = json.loads(run("run", model, weights, _any(tmp_path), "--blob", "prob", "--format", "json").stdout)
    assert found["answers"][0]["outputs"][0]["min"] is None  # JSON knows no infinity


def test_nets_that_take_no_image(tmp_path: Path) -> None:
    model, weights = saved(tmp_path, CLASSIFIER.replace("dim: 1 ", "dim: 5 "))
    result = run("run", model, weights, _any(tmp_path))
    assert result.exit_code == 2 and "no input takes images" in result.stderr and "6 x 5 x 5 x 7" in result.stderr
    unknown = tmp_path / "unknown.prototxt"
    unknown.write_text(CLASSIFIER.replace('"ReLU"', '"ReLU7"'))
    assert run("run", unknown, weights, _any(tmp_path)).exit_code == 2
    for wrong in (["--crop", "sideways"], ["--mean", "none.npy"], ["--resize", "big"], ["--input", "x"], ["--raw-scale", "nan"]):
        result = run("run", *saved(tmp_path, CLASSIFIER), _any(tmp_path), *wrong)
        assert result.exit_code == 2 and not result.stdout, wrong


def test_csv_has_a_line_for_each_class(tmp_path: Path) -> None:
    model, weights = saved(tmp_path, CLASSIFIER)
    result = run("run", model, weights, _any(tmp_path), "--format", "csv", "--top", "3")
    rows = list(csv.DictReader(result.stdout.splitlines()))
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    assert float(rows[0]["score"]) == float(rows[0]["max"])


def test_a_closed_pipe_is_no_traceback(tmp_path: Path) -> None:
    model, weights = saved(tmp_path, CLASSIFIER)
    for i in range(40):
        picture(tmp_path / "many" / f"{i}.png", i)
    command = [sys.executable, "-m", "inspector", "run", model, weights, str(tmp_path / "many")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=Path(__file__).parent.parent) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()


def test_progress_is_for_terminals(tmp_path: Path) -> None:
    pty = pytest.importorskip("pty")
    model, weights = saved(tmp_path, CLASSIFIER)
    for i in range(9):
        picture(tmp_path / "many" / f"{i}.png", i)
    command = [sys.executable, "-m", "inspector", "run", model, weights, str(tmp_path / "many"), "--batch", "1", "--format", "csv"]
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, cwd=Path(__file__).parent.parent) as process:
        assert process.stdout is not None
        assert process.stdout.read().count(b"\n") == 1 + 9 * CLASSES
    os.close(theirs)
    said = os.read(ours, 1 << 16)
    os.close(ours)
    assert b"/9 images" in said and said.endswith(b" \r")  # and it cleans up
    quiet = subprocess.run(command, capture_output=True, check=True, cwd=Path(__file__).parent.parent)
    assert quiet.stderr == b""


# ---- recipes


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model that ships with weights and a recipe, under the name `tiny`."""
    folder = tmp_path / "models" / "tiny"
    folder.mkdir(parents=True)
    saved(folder, CLASSIFIER, "deploy")
    (folder / "labels.txt").write_text("zero\none\ntwo\nthree\n")
    (folder / "run.toml").write_text(
        'weights = "deploy.caffemodel"\nlabels = "labels.txt"\n[preprocessing]\npreset = "lenet"\nmean = [3]\n'
    )
    monkeypatch.setattr(shelf, "folder", lambda: folder.parent)
    return folder


def test_a_model_that_ships_needs_nothing_but_its_name(shipped: Path, tmp_path: Path) -> None:
    pixels = picture(tmp_path / "a.png", 6)
    found = answers("tiny", tmp_path / "a.png")
    expected = scores(str(shipped / "deploy.caffemodel"), (pixels[None].astype(np.float64) - 3) / 256)[0]
    best = found["answers"][0]["outputs"][0]["top"][0]
    assert best["score"] == pytest.approx(expected.max(), abs=1e-5)
    assert best["label"] == ["zero", "one", "two", "three"][int(expected.argmax())]
    assert answers("tiny", tmp_path / "a.png", "--mean", "9")["preprocessing"]["mean"] == [9]
    other = saved(tmp_path, CLASSIFIER)[1]
    assert answers("tiny", other, tmp_path / "a.png")["weights"] == other


def test_recipes_that_make_no_sense(shipped: Path) -> None:
    file = shipped / "run.toml"
    for text in (
        'weights = "none"',
        "weights = 3",
        "x = 1",
        "[preprocessing]\nresise = 3",
        "[preprocessing]\ngray = 3",
        '[preprocessing]\npreset = "x"',
        "[preprocessing]\nresize = [1, 2, 3]",
        "preprocessing = 3",
        "=",
    ):
        file.write_text(text)
        with pytest.raises(InspectorError) as caught:
            recipe.of("tiny")
        assert caught.value.code == "recipe" and str(file) in str(caught.value)
    assert recipe.of("elsewhere") == recipe.Recipe()
    file.write_text('weights = "deploy.caffemodel"')
    assert recipe.of("tiny/train_val") == recipe.of("tiny") == recipe.Recipe(str(shipped / "deploy.caffemodel"))


def test_presets_are_those_of_the_option() -> None:
    from cli.images import PRESETS as NAMES

    assert list(NAMES) == list(PRESETS)


# ---- what Caffe's nets say


def test_lenet_reads_the_digit(reference: Path) -> None:
    folder = reference / "models" / "lenet_v2"
    image = reference / "images" / "mnist_sample.png"  # 28 x 28, grey with transparency
    settings = ["--gray", "--input-scale", "0.00390625"]
    found = answers(folder / "deploy.prototxt", folder / "weights.caffemodel", image, *settings)
    best = found["answers"][0]["outputs"][0]["top"][0]
    assert best["class"] == 0 and best["score"] == pytest.approx(0.990, abs=5e-4)


def test_an_enlarged_picture_is_that_picture(reference: Path, tmp_path: Path) -> None:
    folder = reference / "models" / "waifu2x_upconv7_scale2"
    image = reference / "images" / "set5_butterfly.bmp"
    out = tmp_path / "out.png"
    settings = ["--raw-scale", "1", "--channel-order", "RGB", "--save-image", out]
    result = run("run", folder / "deploy.prototxt", folder / "weights.caffemodel", image, *settings)
    assert result.exit_code == 0, result.stderr
    large = np.asarray(Image.open(out)).astype(float)
    small = np.asarray(Image.open(image).convert("RGB")).astype(float)[6:-6, 6:-6]  # the net eats 12 pixels of 512 on each side
    assert large.shape == (488, 488, 3)
    halved = large.reshape(244, 2, 244, 2, 3).mean((1, 3))
    assert np.abs(halved - small).mean() < 4  # of 255


def test_what_is_wrong_for_all_images_is_said_once(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    photos = [tmp_path / "a.png", tmp_path / "b.png"]
    for photo in photos:
        image.new("L", (28, 28)).save(photo)
    result = run("run", "lenet_digits", *photos, "--mean", "1,2")
    assert result.exit_code == 2
    assert result.stderr.count("the mean has 2 channels, and the input has 1") == 1
    assert not result.stdout
    for images in (photos[0], tmp_path, tmp_path / "*.png"):  # a net without weights of its own: they are not taken for them
        result = run("run", "caffenet", images)
        assert result.exit_code == 2
        assert "no weights are given" in result.stderr
