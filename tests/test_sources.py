"""Data sources: what Caffe's own data layers gave, wrap-around, randomness, and files that nobody should have written."""

from __future__ import annotations

import io
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from google.protobuf import text_format

from caffe_proto import caffe_pb2
from cli.main import main
from inspector.errors import InspectorError, MissingExtra, UnreadableError
from inspector.layers.base import TEST, TRAIN
from inspector.sources import look, open_source

lmdb = pytest.importorskip("lmdb", reason="needs the extra data")
h5py = pytest.importorskip("h5py", reason="needs the extra hdf5")
Image = pytest.importorskip("PIL.Image", reason="needs the extra images")

from inspector.sources import hdf5, leveldb, picture  # noqa: E402  # after the libraries that they need
from inspector.sources import lmdb as ours  # noqa: E402

HEIGHT, WIDTH = 9, 7  # of the images made here


def layer(text: str) -> object:
    return text_format.Parse(text, caffe_pb2.LayerParameter())


def data_layer(source: Path | str, batch: int = 2, transform: str = "", more: str = "backend: LMDB", tops: str = "d l") -> object:
    names = " ".join(f'top: "{top}"' for top in tops.split())
    return layer(
        f'name: "in" type: "Data" {names} data_param {{ source: "{source}" batch_size: {batch} {more} }}'
        f" transform_param {{ {transform} }}"
    )


def picture_of(seed: int, height: int = HEIGHT, width: int = WIDTH, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (channels, height, width), np.uint8)


def datum(image: np.ndarray, label: int = 0) -> bytes:
    channels, height, width = image.shape
    return caffe_pb2.Datum(channels=channels, height=height, width=width, data=image.tobytes(), label=label).SerializeToString()


def write_lmdb(folder: Path, records: dict[bytes, bytes]) -> Path:
    with lmdb.open(str(folder), map_size=1 << 26) as environment, environment.begin(write=True) as transaction:
        for key, value in records.items():
            transaction.put(key, value)
    return folder


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Five different images, labels 10 to 14."""
    return write_lmdb(tmp_path / "five", {b"%08d" % i: datum(picture_of(i), 10 + i) for i in range(5)})


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


# ---- what Caffe gave

CASES = [
    "data_encoded",
    "data_encoded_gray",
    "data_float",
    "data_leveldb",
    "data_raw",
    "data_raw_crop_mean_scale",
    "data_raw_mean_value",
    "hdf5",
    "image",
    "image_gray",
    "image_resize_down",
    "image_resize_up",
]


@pytest.mark.parametrize("case", CASES)
def test_four_batches_equal_caffes_to_the_bit(reference: Path, case: str) -> None:
    folder = reference / "data"
    if case == "data_leveldb":
        pytest.importorskip("plyvel", reason="needs a LevelDB binding")
    proto = text_format.Parse((folder / f"{case}.prototxt").read_text(), caffe_pb2.NetParameter()).layer[0]
    with np.load(folder / f"{case}.npz", allow_pickle=False) as answers, open_source(proto, TEST, folder) as source:
        shapes = source.shapes()
        for batch in range(4):
            for i, (top, array) in enumerate(zip(proto.top, source.next(), strict=True)):
                answer = answers[f"{top}:{batch}"]
                assert array.dtype == np.float32
                assert array.shape == answer.shape == shapes[i]
                assert np.array_equal(array, answer), f"{top}, batch {batch}"


# ---- LMDB


def test_lmdb_reader_agrees_with_the_binding(tmp_path: Path) -> None:
    random_ = random.Random(3)
    records = {
        b"%06d" % random_.randrange(10**6): random_.randbytes(random_.choice([0, 1, 90, 1900, 2100, 30000])) for _ in range(1500)
    }
    records[b"x" * 511] = b"long key"
    folder = write_lmdb(tmp_path / "many", records)
    with ours.Reader(folder) as reader:
        assert reader.depth > 1
        assert len(reader) == len(records)
        assert list(reader) == sorted(records.items())
        assert list(reader) == sorted(records.items())  # and again
    with ours.Reader(folder / "data.mdb") as reader:  # the file itself
        assert next(iter(reader)) == min(records.items())


def test_reading_an_lmdb_leaves_no_trace(database: Path) -> None:
    (database / "lock.mdb").unlink()
    before = {path: path.stat().st_mtime_ns for path in (database, *database.iterdir())}
    with open_source(data_layer(database), TEST) as source:
        source.next()
    assert {path: path.stat().st_mtime_ns for path in (database, *database.iterdir())} == before


def test_writer_grows_the_map_and_appears_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "made"
    value = b"v" * 100_000
    with ours.replacing(target) as writer:
        for i in range(1500):
            writer.put(b"%05d" % i, value)
        assert not target.exists()
    assert [path.name for path in target.iterdir()] == ["data.mdb"]
    with ours.Reader(target) as reader:
        assert [key for key, _ in reader] == [b"%05d" % i for i in range(1500)]
    with pytest.raises(InspectorError, match="there already"), ours.replacing(target):
        pass


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with ours.replacing(tmp_path / "made") as writer:
            writer.put(b"k", b"v")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("seed", range(60))
def test_damaged_lmdb_is_an_error_and_never_a_crash(database: Path, tmp_path: Path, seed: int) -> None:
    random_ = random.Random(seed)
    data = bytearray((database / "data.mdb").read_bytes())
    if seed % 3 == 0:
        data = data[: random_.randrange(len(data))]
    else:
        for _ in range(random_.choice([1, 8, 50])):
            data[random_.randrange(len(data) // 4096) * 4096 + random_.randrange(150)] = random_.randrange(256)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "data.mdb").write_bytes(data)
    error = batch_or_error(data_layer(damaged))
    if error is not None:
        assert error.finding.layer == "in"
        assert str(damaged) in str(error)


def batch_or_error(proto: object) -> UnreadableError | None:
    try:
        with open_source(proto, TEST) as source:
            source.next()
    except UnreadableError as error:
        return error
    return None


def test_a_cut_lmdb_says_so(database: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.mdb"
    cut.write_bytes((database / "data.mdb").read_bytes()[:-4096])
    with pytest.raises(UnreadableError, match="cut short") as caught:
        open_source(data_layer(cut), TEST)
    assert caught.value.code == "corrupt-file"


# ---- LevelDB


def test_leveldb_is_read_without_a_trace(tmp_path: Path) -> None:
    plyvel = pytest.importorskip("plyvel", reason="needs a LevelDB binding")
    folder = tmp_path / "level"
    with plyvel.DB(str(folder), create_if_missing=True) as made:
        for i in range(3):
            made.put(b"%02d" % i, datum(picture_of(i), i))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with open_source(data_layer(folder, 4, more="backend: LEVELDB"), TEST) as source:
        data, labels = source.next()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert labels.tolist() == [0, 1, 2, 0]
    assert np.array_equal(data[2], picture_of(2))
    with leveldb.Reader(folder) as reader:
        assert len(reader) == 3


def test_a_damaged_leveldb_is_an_error(tmp_path: Path) -> None:
    plyvel = pytest.importorskip("plyvel", reason="needs a LevelDB binding")
    folder = tmp_path / "level"
    plyvel.DB(str(folder), create_if_missing=True).close()
    next(folder.glob("MANIFEST*")).write_bytes(b"")
    with pytest.raises(UnreadableError, match="damaged LevelDB"):
        open_source(data_layer(folder, more="backend: LEVELDB"), TEST)


# ---- Data


def test_a_batch_runs_over_the_end(database: Path) -> None:
    with open_source(data_layer(database, 3), TEST) as source:
        assert source.shapes() == {0: (3, 3, HEIGHT, WIDTH), 1: (3,)}
        assert [source.next()[1].tolist() for _ in range(4)] == [[10, 11, 12], [13, 14, 10], [11, 12, 13], [14, 10, 11]]
        assert source.lines == [("open-lmdb", {"source": str(database)})]


def test_the_label_is_optional(database: Path) -> None:
    with open_source(data_layer(database, tops="d"), TEST) as source:
        assert len(source.next()) == 1
        assert source.shapes() == {0: (2, 3, HEIGHT, WIDTH)}


def test_training_crops_and_mirrors_at_random_and_tests_take_the_centre(database: Path) -> None:
    crop, transform = 4, "crop_size: 4 mirror: true mean_value: 3 mean_value: 5 mean_value: 7 scale: 0.5"
    mean = np.array([3, 5, 7], np.float32).reshape(3, 1, 1)
    seen = set()
    with open_source(data_layer(database, 50, transform), TRAIN, rng=np.random.default_rng(2)) as source:
        batch = source.next()[0]
    for n, item in enumerate(batch):
        image = (picture_of(n % 5) - mean) * np.float32(0.5)
        windows = {
            (top, left, turn): image[:, top : top + crop, left : left + crop][:, :, ::turn]
            for top in range(HEIGHT - crop + 1)
            for left in range(WIDTH - crop + 1)
            for turn in (1, -1)
        }
        found = [place for place, window in windows.items() if np.array_equal(window, item)]
        assert len(found) == 1
        seen.add(found[0])
    assert len(seen) > 25 and {turn for _, _, turn in seen} == {1, -1}
    assert {top for top, _, _ in seen} == set(range(HEIGHT - crop + 1))
    with open_source(data_layer(database, 1, transform.replace("mirror: true", "")), TEST) as source:
        assert np.array_equal(source.next()[0][0], ((picture_of(0) - mean) * np.float32(0.5))[:, 2:6, 1:5])


def test_a_seed_decides_what_is_random(database: Path) -> None:
    def batch(seed: int) -> np.ndarray:
        with open_source(data_layer(database, 9, "crop_size: 3 mirror: true"), TRAIN, rng=np.random.default_rng(seed)) as source:
            return np.stack([source.next()[0] for _ in range(2)])

    assert np.array_equal(batch(4), batch(4))
    assert not np.array_equal(batch(4), batch(5))


def test_a_mean_file_is_cropped_with_the_image(database: Path, tmp_path: Path) -> None:
    mean = np.random.default_rng(1).random((3, HEIGHT, WIDTH), np.float32)
    blob = caffe_pb2.BlobProto(num=1, channels=3, height=HEIGHT, width=WIDTH, data=mean.ravel())
    (tmp_path / "mean.binaryproto").write_bytes(blob.SerializeToString())
    proto = data_layer(database, 1, 'crop_size: 5 mean_file: "mean.binaryproto"')
    with open_source(proto, TEST, tmp_path) as source:  # beside the prototxt
        assert np.array_equal(source.next()[0][0], (picture_of(0) - mean)[:, 2:7, 1:6])
        assert source.lines[1] == ("mean-file", {"mean_file": "mean.binaryproto"})


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (b"\xff\xff\xff", "no Datum"),
        (caffe_pb2.Datum(channels=3, height=2, width=2, data=b"12345678901").SerializeToString(), "3 x 2 x 2 and holds 11"),
        (caffe_pb2.Datum(channels=-3, height=-2, width=2, data=b"123456789012").SerializeToString(), "-3 x -2 x 2"),
        (caffe_pb2.Datum(encoded=True, data=b"no image").SerializeToString(), "no image that can be read"),
        (caffe_pb2.Datum(encoded=True, data=png(picture_of(0, 8, 3).transpose(1, 2, 0))[:-30]).SerializeToString(), "damaged"),
    ],
    ids=["noise", "size", "negative", "text", "cut"],
)
def test_broken_records(tmp_path: Path, record: bytes, words: str) -> None:
    write_lmdb(tmp_path / "broken", {b"0": datum(picture_of(1)), b"1": record})
    with open_source(data_layer("broken"), TEST, tmp_path) as source:
        source.shapes()
        for _ in range(2):  # what the thread raised stays raised
            with pytest.raises(UnreadableError, match=words) as caught:
                source.next()
    message = str(caught.value)
    assert "layer 'in' (Data): reads 'broken'" in message and str(tmp_path / "broken") in message
    assert "--shape d=2x3x227x227" in message


def test_sizes_may_change_between_batches_and_not_within(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "mixed", {b"0": datum(picture_of(1)), b"1": datum(picture_of(2, 4, 11))})
    with open_source(data_layer("mixed", 1), TEST, tmp_path) as source:
        assert [source.next()[0].shape for _ in range(3)] == [(1, 3, 9, 7), (1, 3, 4, 11), (1, 3, 9, 7)]
    with open_source(data_layer("mixed", 2), TEST, tmp_path) as source, pytest.raises(UnreadableError, match="item 1 of a batch"):
        source.next()


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        ("crop_size: 8", "crops 8 x 8 from an image of 9 x 7"),
        ("mean_value: 1 mean_value: 2", "2 mean_values for 3 channels"),
        ("force_color: true force_gray: true", "both colour and grey"),
        ('mean_file: "nowhere"', "nowhere"),
    ],
)
def test_transforms_that_do_not_fit(database: Path, transform: str, words: str) -> None:
    with pytest.raises(UnreadableError, match=words) as caught, open_source(data_layer(database, 2, transform), TEST) as source:
        source.next()
    assert caught.value.finding.layer == "in"


def test_an_image_smaller_than_the_crop_keeps_its_size_for_the_layer_to_refuse(database: Path) -> None:
    assert look(data_layer(database, 2, "crop_size: 8"), TEST).shapes == {"d": (2, 3, HEIGHT, WIDTH), "l": (2,)}


def test_missing_empty_and_mistaken_sources(database: Path, tmp_path: Path) -> None:
    write_lmdb(tmp_path / "empty", {})
    (tmp_path / "folder").mkdir()
    for proto, code, words in (
        (data_layer("nowhere"), "missing-source", "nowhere"),
        (data_layer(""), "missing-source", "names no source"),
        (data_layer("empty"), "empty-source", "no records"),
        (data_layer("folder"), "no-database", "data.mdb"),
        (data_layer(database, more=""), "backend", "backend: LMDB"),
        (data_layer(database, 0), "batch-size", "batch_size of 0"),
        (data_layer("\\001" * 5000), "missing-source", "reads"),
    ):
        found = look(proto, TEST, tmp_path)
        assert found.error is not None and found.error.code == code, proto
        assert words in str(found.error) and found.error.finding.layer == "in"


def test_look_gives_shapes_by_name_and_nothing_for_what_has_no_source(database: Path) -> None:
    assert look(data_layer(database, 2, "crop_size: 5"), TEST).shapes == {"d": (2, 3, 5, 5), "l": (2,)}
    assert look(layer('name: "c" type: "Convolution"'), TEST).shapes == {}
    with pytest.raises(InspectorError, match="no source that can be read"):
        open_source(layer('name: "w" type: "WindowData"'), TEST)


# ---- ImageData


def image_layer(source: str, batch: int = 2, more: str = "", transform: str = "") -> object:
    return layer(
        f'name: "pics" type: "ImageData" top: "d" top: "l" image_data_param {{ source: "{source}" batch_size: {batch} {more} }} '
        f"transform_param {{ {transform} }}"
    )


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with a list of six images; the third has blanks in its name."""
    (tmp_path / "in").mkdir()
    names = ["a.png", "b.png", "c d e.png", "f.png", "g.png", "h.png"]
    for i, name in enumerate(names):
        (tmp_path / "in" / name).write_bytes(png(picture_of(i).transpose(1, 2, 0)))
    (tmp_path / "list.txt").write_text("".join(f"{name} {20 + i}\n" for i, name in enumerate(names)) + "\n")
    return tmp_path


def test_images_come_blue_first_in_the_order_of_the_list(pictures: Path) -> None:
    with open_source(image_layer("list.txt", 4, 'root_folder: "in/"'), TEST, pictures) as source:
        assert source.shapes() == {0: (4, 3, HEIGHT, WIDTH), 1: (4,)}
        data, labels = source.next()
        assert labels.tolist() == [20, 21, 22, 23]
        assert source.next()[1].tolist() == [24, 25, 20, 21]
    assert np.array_equal(data[2], picture_of(2)[::-1])
    assert ("images-total", {"images": 6}) in source.lines


def test_shuffling_mixes_each_round_and_loses_nothing(pictures: Path) -> None:
    proto = image_layer("list.txt", 6, 'root_folder: "in/" shuffle: true')
    with open_source(proto, TEST, pictures, np.random.default_rng(1)) as source:
        rounds = [source.next()[1].tolist() for _ in range(5)]
    assert all(sorted(labels) == list(range(20, 26)) for labels in rounds)
    assert len({tuple(labels) for labels in rounds}) > 1
    assert ("images-shuffle", {}) in source.lines


def test_rand_skip_starts_in_the_beginning(pictures: Path) -> None:
    starts = set()
    for seed in range(20):
        proto = image_layer("list.txt", 1, 'root_folder: "in/" rand_skip: 3')
        with open_source(proto, TEST, pictures, np.random.default_rng(seed)) as source:
            starts.add(source.next()[1][0] - 20)
    assert starts == {0, 1, 2}


def test_labels_are_read_as_atoi_reads_them(tmp_path: Path) -> None:
    from inspector.sources.images import read_list

    path = tmp_path / "list"
    path.write_text("a.png 7\r\nb.png 8x\nc.png\nd.png -3\n\n  \n")
    assert read_list(path) == [("a.png", 7), ("b.png", 8), ("c.png", 0), ("d.png", -3)]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("gone.png", None, "gone.png"),
        ("text.png", b"text", "no image that can be read"),
        ("cut.png", png(picture_of(0, 8, 3).transpose(1, 2, 0))[:-30], "damaged"),
    ],
)
def test_broken_images_are_named(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    (tmp_path / "list.txt").write_text(f"{name} 1\n")
    with open_source(image_layer("list.txt"), TEST, tmp_path) as source, pytest.raises(UnreadableError, match=words) as caught:
        source.next()
    assert name in str(caught.value) and caught.value.finding.layer == "pics"


# ---- pictures


def slow_resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """OpenCV's INTER_LINEAR on bytes, pixel by pixel in whole numbers."""

    def tap(i: int, old: int, new: int, edge: bool) -> tuple[int, int, int, int]:
        at = np.float32((i + 0.5) * (1 / (new / old)) - 0.5)
        first = int(np.floor(at))
        part = np.float32(at - np.float32(first))
        if edge and (first < 0 or first >= old - 1):
            part = np.float32(0)
        near, far = round(float((np.float32(1) - part) * np.float32(2048))), round(float(part * np.float32(2048)))
        return min(max(first, 0), old - 1), min(max(first + 1, 0), old - 1), near, far

    out = np.zeros((height, width, image.shape[2]), np.uint8)
    for y in range(height):
        above, below, c, d = tap(y, image.shape[0], height, False)
        for x in range(width):
            left, right, a, b = tap(x, image.shape[1], width, True)
            for k in range(image.shape[2]):
                rows = [int(image[row, left, k]) * a + int(image[row, right, k]) * b for row in (above, below)]
                out[y, x, k] = (((rows[0] >> 4) * c >> 16) + ((rows[1] >> 4) * d >> 16) + 2) >> 2
    return out


@pytest.mark.parametrize("size", [(4, 3), (5, 17), (23, 6), (18, 14), (9, 7), (1, 2)])
def test_resizing_bytes(size: tuple[int, int]) -> None:
    image = picture_of(8).transpose(1, 2, 0)
    assert np.array_equal(picture.resize(image, *size), slow_resize(image, *size))


def test_every_kind_of_image_is_decoded_as_opencv_does() -> None:
    rgb = picture_of(1).transpose(1, 2, 0)
    alpha = np.dstack([rgb, picture_of(2, channels=1)[0]])
    grey, deep = picture_of(3, channels=1)[0], np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 1000
    indexed = io.BytesIO()
    palette = Image.fromarray(rgb).quantize(9)
    palette.save(indexed, "PNG")
    colours = np.asarray(palette.convert("RGB"))
    for data, color, stored in (
        (png(rgb), rgb[:, :, ::-1], rgb[:, :, ::-1]),
        (png(alpha), rgb[:, :, ::-1], alpha[:, :, (2, 1, 0, 3)]),
        (png(grey), np.dstack([grey] * 3), grey[:, :, None]),
        (png(deep), np.dstack([deep >> 8] * 3), None),
        (indexed.getvalue(), colours[:, :, ::-1], colours[:, :, ::-1]),
    ):
        assert np.array_equal(picture.decode(data), color)
        if stored is None:
            with pytest.raises(UnreadableError, match="8 bits"):
                picture.decode(data, None)
        else:
            assert np.array_equal(picture.decode(data, None), stored)
    for data, wanted in ((png(grey), grey), (png(np.dstack([grey] * 3)), grey), (png(deep), deep >> 8)):
        assert np.array_equal(picture.decode(data, False)[:, :, 0], wanted)


def test_orientation_is_not_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    file = io.BytesIO()
    Image.fromarray(picture_of(1).transpose(1, 2, 0)).save(file, "JPEG", exif=exif)
    assert picture.decode(file.getvalue()).shape == (HEIGHT, WIDTH, 3)
    assert picture.decode(file.getvalue(), False).shape == (HEIGHT, WIDTH, 1)


def test_formats_that_start_other_programs_are_not_opened() -> None:
    with pytest.raises(UnreadableError, match="no image that can be read"):
        picture.decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")


# ---- HDF5Data


def hdf5_layer(batch: int = 3, more: str = "") -> object:
    return layer(f'name: "h" type: "HDF5Data" top: "x" top: "y" hdf5_data_param {{ source: "files" batch_size: {batch} {more} }}')


def write_hdf5(folder: Path, **files: dict[str, np.ndarray]) -> None:
    for name, arrays in files.items():
        with h5py.File(folder / f"{name}.h5", "w") as file:
            for top, array in arrays.items():
                file[top] = array
    (folder / "files").write_text("".join(f"{name}.h5\n" for name in files))


def rows(first: int, last: int) -> dict[str, np.ndarray]:
    number = np.arange(first, last)
    return {"x": np.repeat(number, 8).reshape(-1, 2, 4).astype(np.float64), "y": number}


def test_rows_run_on_from_file_to_file(tmp_path: Path) -> None:
    write_hdf5(tmp_path, a=rows(0, 4), none=rows(0, 0), b=rows(4, 5))
    with open_source(hdf5_layer(), TEST, tmp_path) as source:
        assert source.shapes() == {0: (3, 2, 4), 1: (3,)}
        batches = [source.next() for _ in range(4)]
    assert [y.tolist() for _, y in batches] == [[0, 1, 2], [3, 4, 0], [1, 2, 3], [4, 0, 1]]
    assert all(x.dtype == np.float32 and np.array_equal(x[:, 1, 2], y) for x, y in batches)
    assert source.lines == [("hdf5-list", {"source": "files"}), ("hdf5-files", {"files": 3}), ("hdf5-class", {})]


def test_shuffled_rows_stay_together(tmp_path: Path) -> None:
    write_hdf5(tmp_path, a=rows(0, 6), b=rows(6, 10))
    with open_source(hdf5_layer(10, "shuffle: true"), TEST, tmp_path, np.random.default_rng(3)) as source:
        batches = [source.next() for _ in range(6)]
    assert all(np.array_equal(x[:, 0, 3], y) and sorted(y) == list(range(10)) for x, y in batches)
    assert len({tuple(y) for _, y in batches}) > 3
    assert {max(y[:4]) for _, y in batches} > {9.0}  # now one file first, now the other


def test_broken_hdf5(tmp_path: Path) -> None:
    good = rows(0, 4)
    strings = {"x": np.array([b"text"] * 4), "y": good["y"]}
    for files, words in (
        ({"a": {"x": good["x"]}}, "'y'"),
        ({"a": {"x": good["x"], "y": good["y"][:3]}}, "4 rows, and 'y' has 3"),
        ({"a": {"x": np.float32(3), "y": good["y"]}}, "single number"),
        ({"a": strings}, "expected numbers"),
        ({"a": rows(0, 0)}, "no rows"),
        ({"a": rows(0, 1), "b": {"x": np.zeros((2, 4, 2)), "y": good["y"][:2]}}, "in the first file 2 x 4"),
    ):
        write_hdf5(tmp_path, **files)
        with open_source(hdf5_layer(), TEST, tmp_path) as source, pytest.raises(UnreadableError, match=words) as caught:
            source.next()
        assert caught.value.finding.layer == "h"
    (tmp_path / "a.h5").write_bytes(b"no HDF5")
    assert "damaged HDF5" in str(look(hdf5_layer(), TEST, tmp_path).error)
    (tmp_path / "files").write_text("\n")
    assert "names no HDF5 file" in str(look(hdf5_layer(), TEST, tmp_path).error)


def test_hdf5_rows_grow(tmp_path: Path) -> None:
    parts = [np.random.default_rng(i).random((i, 3, 2), np.float32) for i in (2, 5)]
    with hdf5.writing(tmp_path / "out.h5") as out:
        for part in parts:
            out.append(data=part, label=np.full(len(part), len(part)))
        with pytest.raises(InspectorError, match="rows of 'data'"):
            out.append(data=np.zeros((1, 2, 3)), label=np.zeros(1))
        with pytest.raises(InspectorError, match="different numbers"):
            out.append(data=np.zeros((1, 3, 2)), label=np.zeros(2))
    with h5py.File(tmp_path / "out.h5") as file:
        assert np.array_equal(file["data"][:], np.concatenate(parts))
        assert file["label"][:].tolist() == [2] * 2 + [5] * 5


# ---- MemoryData


def test_memory_data_goes_round() -> None:
    proto = layer(
        'name: "m" type: "MemoryData" top: "d" top: "l" memory_data_param { batch_size: 2 channels: 3 height: 4 width: 5 }'
    )
    data, labels = np.random.default_rng(0).random((4, 3, 4, 5)), np.arange(4)
    with open_source(proto, TEST, arrays=[data, labels]) as source:
        assert [source.next()[1].tolist() for _ in range(3)] == [[0, 1], [2, 3], [0, 1]]
    with pytest.raises(UnreadableError, match="5 labels"):
        open_source(proto, TEST, arrays=[data, np.arange(5)])
    with open_source(proto, TEST) as source, pytest.raises(UnreadableError, match="holds no data"):
        source.next()
    with pytest.raises(InspectorError, match="takes no arrays"):
        open_source(hdf5_layer(), TEST, Path(__file__).parent, arrays=[data])


# ---- making databases


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_a_database_of_a_list_holds_its_pixels(pictures: Path) -> None:
    target = pictures / "made.lmdb"
    result = run("data", "make-db", pictures / "list.txt", target, "--root", pictures / "in", "--format", "json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["shapes"] == [{"shape": [3, HEIGHT, WIDTH], "images": 6}]
    with ours.Reader(target) as reader:
        assert [key for key, _ in reader][:3] == [b"00000000_a.png", b"00000001_b.png", b"00000002_c d e.png"]
    files = open_source(image_layer("list.txt", 6, 'root_folder: "in/"'), TEST, pictures)
    with files, open_source(data_layer(target, 6), TEST) as made:
        assert all(map(np.array_equal, made.next(), files.next()))


@pytest.mark.parametrize(
    "how", ["--gray", "--encoded", "--encode-type=bmp", "--encode-type=png --gray", "--resize=5x6", "--resize=5 --encoded"]
)
def test_ways_to_store_an_image(tmp_path: Path, how: str) -> None:
    image = picture_of(4).transpose(1, 2, 0)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "x.png").write_bytes(png(image))
    target = tmp_path / "made"
    assert run("data", "make-db", tmp_path / "one", target, *how.split()).exit_code == 0
    with ours.Reader(target) as reader:
        [(key, value)] = reader
    record = caffe_pb2.Datum.FromString(value)
    wanted = picture.decode(png(image), "--gray" not in how)
    if "resize" in how:
        wanted = slow_resize(wanted, 5, 6 if "5x6" in how else 5)
    if how == "--encoded":
        assert record.data == png(image)  # the file itself
    if "encode" in how:
        assert record.encoded and np.array_equal(picture.decode(record.data, None), wanted)
    else:
        assert not record.encoded and record.data == wanted.transpose(2, 0, 1).tobytes()
        assert (record.channels, record.height, record.width) == (wanted.shape[2], *wanted.shape[:2])
    assert key == b"00000000_x.png" and record.label == 0


def test_folders_are_classes_and_broken_images_are_left_out(tmp_path: Path) -> None:
    for i, name in enumerate(["cats/deep/1.png", "cats/2.png", "ants/3.PNG", "dogs/4.png"]):
        path = tmp_path / "all" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(picture_of(i).transpose(1, 2, 0)) if i != 1 else b"no image")
    (tmp_path / "all" / "empty").mkdir()
    (tmp_path / "all" / "notes.txt").write_text("not an image")
    result = run("data", "make-db", tmp_path / "all", tmp_path / "made", "--format", "json")
    assert result.exit_code == 1  # something was left out
    made = json.loads(result.stdout)
    assert made["classes"] == ["ants", "cats", "dogs"] and made["records"] == 3
    assert [item["image"] for item in made["skipped"]] == ["cats/2.png"] and "2.png" in result.stderr
    shown = json.loads(run("data", "show", tmp_path / "made", "--format", "json", "--save-image", tmp_path / "drawn").stdout)
    assert [(item["key"], item["label"]) for item in shown] == [
        ("00000000_ants/3.PNG", 0),
        ("00000002_cats/deep/1.png", 1),
        ("00000003_dogs/4.png", 2),
    ]
    assert np.array_equal(picture.decode(tmp_path / "drawn" / "000002_label2.png"), picture_of(3).transpose(1, 2, 0)[:, :, ::-1])


def test_shuffling_is_seeded(pictures: Path) -> None:
    def order(name: str, *how: str) -> list[float]:
        assert run("data", "make-db", pictures / "list.txt", pictures / name, "--root", pictures / "in", *how).exit_code == 0
        with open_source(data_layer(pictures / name, 6), TEST) as source:
            return source.next()[1].tolist()

    assert order("a", "--shuffle", "--seed", "1") == order("b", "--shuffle", "--seed", "1") != order("c")


def test_what_no_database_is_made_of(tmp_path: Path) -> None:
    image = png(picture_of(0).transpose(1, 2, 0))
    (tmp_path / "both" / "class").mkdir(parents=True)
    (tmp_path / "both" / "loose.png").write_bytes(image)
    (tmp_path / "both" / "class" / "x.png").write_bytes(image)
    (tmp_path / "sizes").mkdir()
    (tmp_path / "sizes" / "1.png").write_bytes(image)
    (tmp_path / "sizes" / "2.png").write_bytes(png(picture_of(0, 4, 5).transpose(1, 2, 0)))
    (tmp_path / "none").mkdir()
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "gone.txt").write_text("gone.png 1\n")
    for source, how, words in (
        ("both", [], "both images"),
        ("sizes", ["--check-size"], "'2.png' is 3 x 4 x 5"),
        ("sizes", ["--encode-type", "tiff"], "no encoding"),
        ("none", [], "holds no images"),
        ("empty.txt", [], "lists nothing"),
        ("gone.txt", [], "none of 1 images"),
        ("nowhere", [], "nowhere"),
    ):
        result = run("data", "make-db", tmp_path / source, tmp_path / "made", *how)
        assert result.exit_code == 2 and words in result.stderr, source
        assert not (tmp_path / "made").exists() and not list(tmp_path.glob(".*"))


def test_the_mean_is_what_a_mean_file_holds(database: Path, tmp_path: Path) -> None:
    result = run("data", "mean", database, tmp_path / "mean.binaryproto", "--format", "json")
    wanted = np.mean([picture_of(i) for i in range(5)], axis=0)
    told = json.loads(result.stdout)
    assert told["records"] == 5 and told["shape"] == [3, HEIGHT, WIDTH]
    assert np.allclose(told["channels"], wanted.mean((1, 2)))
    with open_source(data_layer(database, 5, f'mean_file: "{tmp_path / "mean.binaryproto"}"'), TEST) as source:
        batch = source.next()[0]
    assert np.allclose(batch.sum(0), 0, atol=1e-3)
    assert np.allclose(batch[3], picture_of(3) - wanted, atol=1e-4)


def test_no_mean_of_different_sizes(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "mixed", {b"0": datum(picture_of(1)), b"one": datum(picture_of(2, 4, 11))})
    result = run("data", "mean", tmp_path / "mixed", tmp_path / "mean")
    assert result.exit_code == 2 and "record 'one' is 3 x 4 x 11" in result.stderr
    assert not (tmp_path / "mean").exists()


def test_show_lists_every_kind_of_source(pictures: Path) -> None:
    write_hdf5(pictures, a=rows(0, 4))
    assert json.loads(run("data", "show", pictures / "a.h5", "--format", "json").stdout) == [
        {"dataset": "x", "shape": [4, 2, 4], "type": "float64"},
        {"dataset": "y", "shape": [4], "type": "int64"},
    ]
    result = run("data", "show", pictures / "in", "--limit", "2", "--format", "csv")
    assert result.stdout.splitlines() == ["key,shape,kind,label", "a.png,3x9x7,png,0", "b.png,3x9x7,png,0"]
    assert "2 of 6 records" in result.stderr
    assert run("data", "show", pictures / "nowhere").exit_code == 2


def test_floats_and_any_number_of_channels_are_drawn(tmp_path: Path) -> None:
    from inspector.sources.making import drawn

    assert drawn(picture_of(0, channels=4)).shape == (HEIGHT, WIDTH, 3)
    assert drawn(picture_of(0, channels=2)).shape == (HEIGHT, WIDTH, 1)
    values = np.linspace(-3, 5, HEIGHT * WIDTH, dtype=np.float32).reshape(1, HEIGHT, WIDTH)
    assert (drawn(values).min(), drawn(values).max()) == (0, 255)
    assert drawn(np.full((1, 2, 3), 77.2, np.float32)).tolist() == [[[77]] * 3] * 2


# ---- libraries that are not there


@pytest.mark.parametrize(
    ("missing", "extra", "use"),
    [
        ("PIL", "images", lambda folder: picture.decode(b"")),
        ("lmdb", "data", lambda folder: ours.Writer(folder)),
        ("plyvel", "data", lambda folder: leveldb.Reader(folder)),
        ("h5py", "hdf5", lambda folder: hdf5.writing(folder / "x.h5").__enter__()),
    ],
)
def test_a_missing_library_is_an_error_that_names_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str, extra: str, use: Callable[[Path], object]
) -> None:
    for name in (missing, f"{missing}.Image", f"{missing}_next"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=rf"alexinspect\[{extra}\]"):
        use(tmp_path)


def test_reading_an_lmdb_needs_no_library(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lmdb", None)
    assert look(data_layer(database), TEST).shapes == {"d": (2, 3, HEIGHT, WIDTH), "l": (2,)}


def test_an_image_is_no_list(tmp_path: Path) -> None:
    from inspector.sources.images import read_list

    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))
    with pytest.raises(UnreadableError, match="this is a PNG image"):
        read_list(tmp_path / "x.png")


def test_text_in_hdf5_is_called_so(tmp_path: Path) -> None:
    with hdf5.writing(tmp_path / "x.h5") as file:
        file.append(data=np.zeros((2, 3), np.float32))
        file.strings("names", ["a", "bc"])
    assert hdf5.contents(tmp_path / "x.h5") == [("data", (2, 3), "float32"), ("names", (2,), "text")]
