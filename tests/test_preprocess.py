"""Images on their way into a net: what pycaffe gave, and rules that follow from what they say."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest

from caffe_proto import caffe_pb2
from inspector.errors import InspectorError, UnreadableError
from inspector.labels import read_labels

Image = pytest.importorskip("PIL.Image", reason="needs the extra images")

from inspector import preprocess as pre  # noqa: E402  # after the library that it needs
from inspector.preprocess import PRESETS, Preprocessing  # noqa: E402

PHOTOS = [
    "cat.jpg",
    "cat_gray.jpg",
    "faces_1.jpg",
    "libfacedetection_test.jpg",
    "mnist_sample.png",
    "plate_crop1.jpg",
    "set5_butterfly.bmp",
    "yolo_dog.jpg",
]


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, np.float32)


# ---- what pycaffe gave


@pytest.mark.parametrize("photo", PHOTOS)
def test_photos_equal_pycaffes(reference: Path, photo: str) -> None:
    with np.load(reference / "data" / f"pycaffe_{photo.replace('.', '_')}.npz", allow_pickle=False) as answers:
        image = pre.load_image(reference / "images" / photo)
        assert image.shape == tuple(answers["shape"])
        decoder = 0 if not photo.endswith(".jpg") else 3 / 255  # JPEG decoders may differ by a few levels
        resized = pre.resize_image(image, (31, 29))
        fed = Preprocessing(mean=(104, 117, 123), input_scale=0.017, size=(24, 22)).apply(image)[0]
        for got, answer, span in (
            (image[:6, :8], answers["corner"], 1),
            (resized, answers["resized_31x29"], 1),
            (pre.resize_image(image[:20, :30], (47, 41)), answers["crop20x30_resized_47x41"], 1),
            (fed, answers["preprocessed_24x22"], 255 * 0.017),
            (pre.oversample(resized, (20, 18)), answers["oversampled_10x20x18"], 1),
        ):
            assert got.shape == answer.shape
            assert got.dtype == np.float32
            assert np.abs(got - answer).max() <= (1e-4 + decoder) * span


# ---- resizing and cropping


def slow_resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear with half-pixel centres, pixel by pixel; the darkest value outside."""
    dark = image.min()
    old = image.shape[:2]

    def at(y: int, x: int) -> np.ndarray:
        return image[y, x].astype(float) if 0 <= y < old[0] and 0 <= x < old[1] else np.full(image.shape[2], dark, float)

    out = np.empty((height, width, image.shape[2]))
    for i in range(height):
        for j in range(width):
            y, x = (i + 0.5) * old[0] / height - 0.5, (j + 0.5) * old[1] / width - 0.5
            top, left = int(np.floor(y)), int(np.floor(x))
            b, a = y - top, x - left
            upper = at(top, left) * (1 - a) + at(top, left + 1) * a
            out[i, j] = upper * (1 - b) + (at(top + 1, left) * (1 - a) + at(top + 1, left + 1) * a) * b
    return out


@pytest.mark.parametrize("size", [(4, 3), (5, 17), (23, 6), (18, 14), (9, 7), (1, 2)])
@pytest.mark.parametrize("channels", [1, 3])
def test_resizing(size: tuple[int, int], channels: int) -> None:
    image = noise(9, 7, channels) + 0.25
    assert np.allclose(pre.resize_image(image, size), slow_resize(image, *size), atol=1e-6)


def test_crops() -> None:
    image = np.arange(8 * 11 * 3, dtype=np.float32).reshape(8, 11, 3)
    assert np.array_equal(pre.center_crop(image, (5, 4)), image[1:6, 3:7])
    ten = pre.oversample(image, (5, 4))
    for crop, (top, left) in zip(ten[:5], [(0, 0), (0, 7), (3, 0), (3, 7), (1, 3)], strict=True):
        assert np.array_equal(crop, image[top : top + 5, left : left + 4])
    assert np.array_equal(ten[5:], ten[:5, :, ::-1])


# ---- the whole way


def test_order_of_the_steps() -> None:
    image = noise(6, 5, 3)
    blob = Preprocessing(mean=(10, 20, 30), raw_scale=200, input_scale=0.5, mirror=True, size=(6, 5)).apply(image)
    assert blob.shape == (1, 3, 6, 5)
    for channel, mean in enumerate((10, 20, 30)):
        plane = (image[:, ::-1, 2 - channel] * np.float32(200) - mean) * 0.5
        assert np.allclose(blob[0, channel], plane, rtol=1e-6, atol=1e-5)
    rgb = Preprocessing(channel_order="RGB", raw_scale=1).apply(image)
    assert np.array_equal(rgb[0], image.transpose(2, 0, 1))
    assert not np.shares_memory(rgb, image)


def test_a_mean_image_goes_with_the_size_that_it_has(tmp_path: Path) -> None:
    image = noise(9, 8, 3)
    base = Preprocessing(crop="oversample", resize=(9, 8), size=(6, 5))
    bgr = image[:, :, ::-1] * np.float32(255)
    for shape in ((3, 9, 8), (3, 6, 5), (3, 7, 7)):
        mean = noise(*shape, seed=2) * 100
        np.save(tmp_path / "mean.npy", mean)
        blob = base.with_mean(str(tmp_path / "mean.npy")).apply(image)
        if shape == (3, 9, 8):  # before the crop, and mirrored with it
            wanted = pre.oversample(bgr - mean.transpose(1, 2, 0), (6, 5))
        elif shape == (3, 6, 5):
            wanted = pre.oversample(bgr, (6, 5)) - mean.transpose(1, 2, 0)
        else:
            wanted = pre.oversample(bgr, (6, 5)) - mean.mean((1, 2))
        assert blob.shape == (10, 3, 6, 5)
        assert np.allclose(blob, wanted.transpose(0, 3, 1, 2), atol=1e-4)


def test_undo_gives_the_image_back() -> None:
    image = noise(6, 5, 3)
    for steps in (
        Preprocessing(mean=(10, 20, 30), input_scale=0.5, mirror=True),
        Preprocessing(channel_order="RGB", raw_scale=1),
        PRESETS["mobilenet"].fitted((2, 3, 6, 5)),
    ):
        whole = steps if steps.crop is None else Preprocessing(mean=steps.mean, input_scale=steps.input_scale)
        assert np.allclose(whole.undo(whole.apply(image))[0], image, atol=1e-5)
    grey = noise(6, 5, 1)
    lenet = PRESETS["lenet"].fitted((1, 1, 6, 5))
    assert np.allclose(lenet.undo(lenet.apply(grey))[0], grey, atol=1e-6)


def test_presets() -> None:
    assert set(PRESETS) == {"caffenet", "googlenet", "vgg", "resnet", "mobilenet", "squeezenet", "lenet", "none"}
    image = noise(12, 10, 3)
    for name, steps in PRESETS.items():
        channels = 1 if steps.gray else 3
        fitted = steps.fitted((7, channels, 28, 26))
        assert fitted.apply(image[:, :, :channels]).shape == (1, channels, 28, 26), name
    white = np.ones((28, 28, 1), np.float32)
    assert np.unique(PRESETS["lenet"].fitted((1, 1, 28, 28)).apply(white)).tolist() == [255 / 256]
    assert PRESETS["none"].apply(np.ones((4, 5, 3), np.float32)).max() == 255


def test_what_was_applied_is_told_in_order() -> None:
    steps = PRESETS["mobilenet"].fitted((1, 3, 224, 200))
    words = "\n".join(steps.describe())
    places = [
        words.index(part) for part in ("RGB", "256 x 256", "BGR", "255", "centre, 224 x 200", "103.94, 116.78, 123.68", "0.017")
    ]
    assert places == sorted(places)
    data = json.loads(json.dumps(steps.to_dict()))
    assert data["size"] == [224, 200] and data["mean"] == [103.94, 116.78, 123.68] and data["steps"] == steps.describe()


def test_a_mean_of_another_size_is_told_with_its_values(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", np.ones((3, 5, 6)) * np.array([1, 2, 3]).reshape(3, 1, 1))
    steps = PRESETS["caffenet"].with_mean(str(tmp_path / "m.npy")).fitted((1, 3, 227, 227))
    assert any("1, 2, 3, the mean per channel" in line and "5 x 6" in line for line in steps.describe())
    assert steps.to_dict()["mean_shape"] == [3, 5, 6] and steps.to_dict()["mean"] is None


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"crop": "corner"}, "crop"),
        ({"channel_order": "GBR"}, "channel-order"),
        ({"resize": (0, 5)}, "image-size"),
        ({"mean": (float("nan"),)}, "scale"),
        ({"raw_scale": float("inf")}, "scale"),
    ],
)
def test_settings_that_mean_nothing(wrong: dict, code: str) -> None:
    with pytest.raises(InspectorError) as caught:
        Preprocessing(**wrong)
    assert caught.value.code == code


def test_what_does_not_fit() -> None:
    image = noise(9, 8, 3)
    for steps, words in (
        (Preprocessing(crop="center", size=(10, 5)), "crops 10 x 5 from an image of 9 x 8"),
        (Preprocessing(crop="center"), "nobody knows how much"),
        (Preprocessing(mean=(1, 2)), "2 channels"),
        (Preprocessing(gray=True), "takes height x width x 1"),
    ):
        with pytest.raises(InspectorError, match=words):
            steps.apply(image)
    for shape in ((1, 3), (1, 5, 8, 8), (1, 3, 0, 4)):
        with pytest.raises(InspectorError, match="takes no image"):
            Preprocessing().fitted(shape)
    with pytest.raises(InspectorError, match="gray makes 1"):
        PRESETS["lenet"].fitted((1, 3, 28, 28))


# ---- files


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_every_kind_of_image_is_loaded_as_rgb_from_0_to_1() -> None:
    rgb = (noise(5, 4, 3) * 255).astype(np.uint8)
    grey = rgb[:, :, 0]
    deep = (noise(5, 4) * 65535).astype(np.uint16)
    indexed = Image.fromarray(rgb).quantize(7)
    floats = [
        (saved(Image.fromarray(rgb)), rgb / 255),
        (saved(Image.fromarray(np.dstack([rgb, grey]))), rgb / 255),  # transparency is dropped, not blended
        (saved(Image.fromarray(grey)), np.dstack([grey] * 3) / 255),
        (saved(Image.fromarray(np.dstack([grey, 255 - grey]))), np.dstack([grey] * 3) / 255),
        (saved(Image.fromarray(deep)), np.dstack([deep] * 3) / 65535),
        (saved(indexed), np.asarray(indexed.convert("RGB")) / 255),
        (saved(Image.fromarray(grey > 99)), np.dstack([grey > 99] * 3)),
    ]
    for data, wanted in floats:
        loaded = pre.load_image(data)
        assert loaded.dtype == np.float32
        assert np.allclose(loaded, wanted, atol=1e-7)
        if np.array_equal(wanted[:, :, 0], wanted[:, :, 2]):
            assert np.allclose(pre.load_image(data, gray=True)[:, :, 0], wanted[:, :, 0], atol=1e-7)
    luma = (rgb / 255) @ np.array([0.2125, 0.7154, 0.0721])
    assert np.allclose(pre.load_image(floats[0][0], gray=True)[:, :, 0], luma, atol=1e-7)


def test_orientation_is_not_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert pre.load_image(saved(Image.new("RGB", (8, 5)), "JPEG", exif=exif)).shape == (5, 8, 3)


def test_an_image_survives_being_saved(tmp_path: Path) -> None:
    for channels in (1, 3):
        image = (noise(5, 4, channels) * 255).astype(np.uint8)
        pre.save_image(tmp_path / "x.png", image.astype(np.float32) / 255)
        assert np.array_equal(np.rint(pre.load_image(tmp_path / "x.png", gray=channels == 1) * 255), image)
    with pytest.raises(InspectorError, match="format"):
        pre.save_image(tmp_path / "x.what", image)
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]


NOISY_PNG = saved(Image.fromarray((noise(9, 8, 3) * 255).astype(np.uint8)))


@pytest.mark.parametrize("data", [b"", b"text", NOISY_PNG[:-60]], ids=["empty", "text", "cut"])
def test_what_is_no_image(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(UnreadableError, match=r"x\.png"):
        pre.load_image(tmp_path / "x.png")


def test_means_from_files(tmp_path: Path) -> None:
    mean = noise(3, 4, 5)
    blob = caffe_pb2.BlobProto(num=1, channels=3, height=4, width=5, data=mean.ravel())
    (tmp_path / "mean").write_bytes(blob.SerializeToString())
    np.save(tmp_path / "mean.npy", mean.astype(np.float64))
    for name in ("mean", "mean.npy"):
        assert np.array_equal(pre.read_mean(tmp_path / name), mean)
    np.save(tmp_path / "values.npy", np.array([1, 2, 3]))
    assert Preprocessing().with_mean(str(tmp_path / "values.npy")).apply(np.ones((6, 7, 3), np.float32))[0, 1].max() == 253
    assert Preprocessing().with_mean("104, 117,123").mean == (104, 117, 123)


def test_what_is_no_mean(tmp_path: Path) -> None:
    np.save(tmp_path / "pickle.npy", np.array([{"a": 1}], object), allow_pickle=True)
    np.save(tmp_path / "text.npy", np.array(["a"]))
    np.save(tmp_path / "shape.npy", np.zeros((2, 3, 4, 5)))
    np.save(tmp_path / "channels.npy", np.zeros((4, 3, 5)))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "shape.npy").read_bytes()[:200])
    for path in sorted(tmp_path.glob("*.npy")):
        with pytest.raises(UnreadableError, match=path.name):
            pre.read_mean(path)
    with pytest.raises(UnreadableError, match="nowhere"):
        Preprocessing().with_mean("nowhere.npy")


def test_labels(tmp_path: Path) -> None:
    path = tmp_path / "labels"
    path.write_text("n01440764 tench, Tinca tinca\nn01443537 goldfish\n\n")
    assert read_labels(path) == ["tench, Tinca tinca", "goldfish"]
    path.write_text("one\n\nn01443537 three\r\n")
    assert read_labels(path) == ["one", "", "n01443537 three"]
    for data, words in ((b"\n", "names no class"), (b"a\0b", "no text")):
        path.write_bytes(data)
        with pytest.raises(UnreadableError, match=words):
            read_labels(path)
