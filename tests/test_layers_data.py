"""Where data enters: shapes, checks and sources; and the Python layer."""

from __future__ import annotations

import sys
import tomllib

import numpy as np
import pytest

import inspector
from inspector.errors import InspectorError, Refusal
from inspector.layers import base
from inspector.layers.python import Blob, Python

from . import oneshot, test_fillers, test_layers_loss, test_layers_recurrent
from .conftest import reference_folder
from .naive_window import context
from .test_layers_loss import named

CASES = oneshot.prototxts(reference_folder(), "DummyData") if reference_folder() else []


@pytest.mark.skipif(not CASES, reason="no reference folder: set ALEXINSPECT_REFERENCE to the answers of real Caffe")
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_caffe(path):
    cases = oneshot.run_case(path)
    assert cases and not [str(case) for case in cases if not case.ok]


def source(kind: str, settings: str = "", tops: int = 2, **given: base.Shape) -> base.Layer:
    subject = named(kind, 0, settings, tops)
    del subject.proto.bottom[:]
    subject.given = given
    return subject


# ---- shapes

CROP = "transform_param { crop_size: 7 }"
DATA = "data_param { source: 'lmdb' batch_size: 5 }"
IMAGES = "image_data_param { source: 'list.txt' batch_size: 5 %s }"
SHAPES = [
    ("Input", "input_param { shape { dim: 2 dim: 3 } shape { dim: 4 } }", {}, [(2, 3), (4,)]),
    ("Input", "input_param { shape { dim: 2 dim: 3 } }", {}, [(2, 3), (2, 3)]),
    ("Input", "", {"t1": (2,)}, [None, (2,)]),
    ("Input", "input_param { shape { dim: 2 } }", {"t0": (6,)}, [(6,), (2,)]),
    ("DummyData", "dummy_data_param { shape { dim: 2 dim: 3 } shape { dim: 4 } }", {}, [(2, 3), (4,)]),
    ("DummyData", "dummy_data_param { shape { dim: 2 dim: 3 } }", {}, [(2, 3), (2, 3)]),
    ("DummyData", "dummy_data_param { num: 2 num: 5 channels: 3 height: 4 width: 6 width: 7 }", {}, [(2, 3, 4, 6), (5, 3, 4, 7)]),
    ("MemoryData", "memory_data_param { batch_size: 5 channels: 3 height: 4 width: 6 }", {}, [(5, 3, 4, 6), (5,)]),
    ("Data", f"{CROP} {DATA}", {}, [(5, 3, 7, 7), (5,)]),
    ("Data", f"transform_param {{ crop_size: 7 force_gray: true }} {DATA}", {}, [(5, 1, 7, 7), (5,)]),
    ("Data", DATA, {}, [None, (5,)]),
    ("Data", DATA, {"t0": (6, 4, 8, 9)}, [(6, 4, 8, 9), (6,)]),
    ("Data", f"{CROP} {DATA}", {"t0": (6, 4, 8, 9), "t1": (6, 2)}, [(6, 4, 7, 7), (6, 2)]),
    ("ImageData", IMAGES % "", {}, [None, (5,)]),
    ("ImageData", IMAGES % "new_height: 8 new_width: 9", {}, [(5, 3, 8, 9), (5,)]),
    ("ImageData", IMAGES % "new_height: 8 new_width: 9 is_color: false", {}, [(5, 1, 8, 9), (5,)]),
    ("ImageData", IMAGES % "new_height: 8 new_width: 9" + CROP, {}, [(5, 3, 7, 7), (5,)]),
    ("ImageData", IMAGES % "" + CROP, {}, [(5, 3, 7, 7), (5,)]),
    ("ImageData", IMAGES % "", {"t0": (4, 3, 8, 9)}, [(4, 3, 8, 9), (4,)]),
    ("WindowData", f"{CROP} window_data_param {{ batch_size: 5 }}", {}, [(5, 3, 7, 7), (5,)]),
    ("WindowData", f"{CROP} window_data_param {{ batch_size: 5 }}", {"t0": (4, 1, 7, 7)}, [(4, 1, 7, 7), (4,)]),
    ("HDF5Data", "hdf5_data_param { batch_size: 5 }", {}, [None, None]),
    ("HDF5Data", "hdf5_data_param { batch_size: 5 }", {"t0": (5, 3, 4)}, [(5, 3, 4), None]),
]


@pytest.mark.parametrize(("kind", "settings", "given", "expected"), SHAPES)
def test_shapes(kind, settings, given, expected):
    subject = source(kind, settings, **given)
    subject.check_counts(0)
    assert list(subject.shapes()) == expected
    assert subject.data


def test_data_without_labels():
    assert list(source("Data", f"{CROP} {DATA}", tops=1).shapes()) == [(5, 3, 7, 7)]


def test_what_is_supposed_is_said():
    subject = source("Data", f"{CROP} {DATA}")
    subject.shapes()
    assert len(subject.assumptions) == 1 and "3 channel" in subject.assumptions[0] and "crop size" in subject.assumptions[0]
    known = source("Data", f"{CROP} {DATA}", t0=(5, 3, 7, 7))
    known.shapes()
    assert known.assumptions == []
    window = source("WindowData", f"{CROP} window_data_param {{ batch_size: 5 }}")
    window.shapes()
    assert "3 channels" in window.assumptions[0]


MEAN = "transform_param { mean_file: 'mean.binaryproto' }"


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        ("Data", f"{DATA} {MEAN}", ["lmdb", "mean.binaryproto"]),
        ("ImageData", IMAGES % "root_folder: 'pictures/'", ["list.txt", "pictures/"]),
        ("WindowData", f"window_data_param {{ source: 'w.txt' }} {MEAN}", ["w.txt", "mean.binaryproto"]),
        ("HDF5Data", "hdf5_data_param { source: 'files.txt' }", ["files.txt"]),
        ("MemoryData", MEAN, ["mean.binaryproto"]),
        ("DummyData", "", []),
        ("Input", "", []),
    ],
)
def test_sources(kind, settings, expected):
    assert source(kind, settings).sources() == expected


def test_settings():
    assert source("ImageData", IMAGES % "new_height: 8 new_width: 9" + CROP).settings() == "8x9 crop 7"
    assert source("Data", DATA).settings() == ""


# ---- forward


def test_dummy_data_fills():
    subject = source(
        "DummyData", "dummy_data_param { shape { dim: 2 dim: 3 } data_filler { value: 4 } data_filler { type: 'uniform' } }"
    )
    ctx = context(0)
    constant, random = subject.forward(ctx)
    assert constant.tolist() == [[4.0] * 3] * 2 and constant.dtype == random.dtype == np.float32
    again, other = subject.forward(ctx)
    assert (again == constant).all() and not (other == random).any()
    assert list(subject.backward(ctx, constant, random)) == []
    (zeros,) = source("DummyData", "dummy_data_param { shape { dim: 2 } }", tops=1).forward(ctx)
    assert zeros.tolist() == [0, 0]


def test_the_others_are_fed():
    with pytest.raises(NotImplementedError):
        source("Data", DATA).forward(context(0))
    assert list(source("Input", "").forward(context(0))) == []
    output = named("HDF5Output", 2, "hdf5_output_param { file_name: 'nowhere/out.h5' }", tops=0)
    assert list(output.shapes((2, 3), (2,))) == []
    ctx = context(2)
    assert list(output.forward(ctx, np.zeros((2, 3)), np.zeros(2))) == []  # and no file is written
    assert list(output.backward(ctx)) == [None, None]


# ---- what Caffe refuses, and in which words

FATAL = [
    ("input-shape-count", "Input", "input_param { shape {} shape {} shape {} }", "not at all: 2 tops vs. 3 shapes."),
    (
        "dummy-filler-count",
        "DummyData",
        "dummy_data_param { data_filler {} data_filler {} data_filler {} }",
        "tops: 2; you specified 3 data",
    ),
    (
        "dummy-shape-and-legacy",
        "DummyData",
        "dummy_data_param { shape {} num: 3 }",
        "0 == param.shape_size() (0 vs. 1) Both shape and legacy",
    ),
    (
        "dummy-num-count",
        "DummyData",
        "dummy_data_param { num: 1 num: 1 num: 1 }",
        "'num' once, or once per top blob (2); specified 3.",
    ),
    ("dummy-channels-count", "DummyData", "dummy_data_param { num: 1 }", "'channels' once, or once per top blob (2); specified 0."),
    (
        "dummy-height-count",
        "DummyData",
        "dummy_data_param { num: 1 channels: 1 }",
        "'height' once, or once per top blob (2); specified 0.",
    ),
    (
        "dummy-width-count",
        "DummyData",
        "dummy_data_param { num: 1 channels: 1 height: 1 }",
        "'width' once, or once per top blob (2); specified",
    ),
    ("dummy-shape-count", "DummyData", "", "'shape' once, or once per top blob (2); specified 0."),
    (
        "memory-data-size",
        "MemoryData",
        "memory_data_param { batch_size: 5 channels: 3 }",
        "batch_size_ * size_ > 0 (0 vs. 0) batch_size, chan",
    ),
    (
        "image-new-size",
        "ImageData",
        IMAGES % "new_height: 8",
        "Current implementation requires new_height and new_width to be set at the same",
    ),
    ("image-batch", "ImageData", "image_data_param { batch_size: 0 }", "batch_size > 0 (0 vs. 0) Positive batch size required"),
    ("window-crop", "WindowData", "", "crop_size > 0 (0 vs. 0)"),
    ("hdf5-transform", "HDF5Data", CROP, "!this->layer_param_.has_transform_param() HDF5Data does not transform data."),
    (
        "transform-mean",
        "Data",
        "transform_param { mean_file: 'm' mean_value: 1 mean_value: 2 }",
        "param_.mean_value_size() == 0 (2 vs. 0) Cannot",
    ),
    ("crop-img-height", "ImageData", IMAGES % "new_height: 6 new_width: 9" + CROP, "img_height >= crop_size (6 vs. 7)"),
    ("crop-img-width", "ImageData", IMAGES % "new_height: 8 new_width: 5" + CROP, "img_width >= crop_size (5 vs. 7)"),
]
GIVEN = [
    ("crop-datum-height", (5, 3, 6, 9), "datum_height >= crop_size (6 vs. 7)"),
    ("crop-datum-width", (5, 3, 8, 5), "datum_width >= crop_size (5 vs. 7)"),
]


@pytest.mark.parametrize(("code", "kind", "settings", "words"), FATAL, ids=[row[0] for row in FATAL])
def test_refusals_say_what_caffe_says(code, kind, settings, words):
    with pytest.raises(Refusal) as caught:
        source(kind, settings).shapes()
    assert caught.value.code == code and caught.value.finding.layer == "l"
    assert words in oneshot.caffe_words(caught.value)


@pytest.mark.parametrize(("code", "given", "words"), GIVEN)
def test_a_crop_needs_images_as_large(code, given, words):
    with pytest.raises(Refusal) as caught:
        source("Data", f"{CROP} {DATA}", t0=given).shapes()
    assert caught.value.code == code
    assert words in oneshot.caffe_words(caught.value)


def test_every_entry_of_the_table_is_reached():
    table = tomllib.loads((oneshot.DIALECTS / "refusals_loss.toml").read_text(encoding="utf-8"))
    rows = [*FATAL, *GIVEN, *test_fillers.FATAL, *test_layers_loss.FATAL, *test_layers_recurrent.FATAL]
    assert set(table) == {row[0] for row in rows}


def test_fillers_of_dummy_data_are_checked_when_the_net_is_built():
    for settings, code in (
        ("shape { dim: 2 } data_filler { type: 'gausian' }", "filler-unknown"),
        ("shape { dim: 2 dim: 0 } data_filler { type: 'constant' }", "filler-empty-constant"),
    ):
        with pytest.raises(Refusal) as caught:
            source("DummyData", f"dummy_data_param {{ {settings} }}").shapes()
        assert caught.value.code == code


# ---- the Python layer

MODULE = '''
import caffe
import numpy as np

class Scaled(caffe.Layer):
    """Scales by a number and by one parameter per channel; the second top is what it was told."""

    def setup(self, bottom, top):
        assert len(bottom) == 1 and self.phase == caffe.TEST
        self.factor = float(self.param_str)
        self.blobs.add_blob(bottom[0].channels)
        self.setups = getattr(self, "setups", 0) + 1

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)
        top[1].reshape(1)

    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data * self.factor * self.blobs[0].data[:, None]
        top[1].data[0] = bottom[0].count + 10 * bottom[0].num + self.setups * 1000

    def backward(self, top, propagate_down, bottom):
        if propagate_down[0]:
            bottom[0].diff[...] = top[0].diff * self.factor * self.blobs[0].data[:, None]
        self.blobs[0].diff[...] = (top[0].diff * bottom[0].data * self.factor).sum(axis=(0, 2))

class Counting(caffe.Layer):
    """Says what its parameter holds, which starts at 2 and grows by 1 in every forward."""

    def setup(self, bottom, top):
        self.blobs.add_blob(3)
        self.blobs[0].data[...] = 2

    def reshape(self, bottom, top):
        top[0].reshape(3)

    def forward(self, bottom, top):
        top[0].data[...] = self.blobs[0].data
        self.blobs[0].data[...] += 1

    def backward(self, top, propagate_down, bottom): pass

class Silent(caffe.Layer):
    def setup(self, bottom, top): pass
    def reshape(self, bottom, top): pass
    def forward(self, bottom, top): pass
    def backward(self, top, propagate_down, bottom): pass
'''
SCALED = "python_param { module: 'a_users_layers' layer: 'Scaled' param_str: '2.5' }"


@pytest.fixture
def allowed(tmp_path, monkeypatch):
    (tmp_path / "a_users_layers.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(Python, "allow_python", True)
    yield
    sys.modules.pop("a_users_layers", None)


def test_python_does_not_run_unless_allowed():
    subject = named("Python", 1, "python_param { module: 'os' layer: 'abort' }", tops=2)
    assert list(subject.shapes((2, 3))) == [None, None]
    assert list(subject.params((2, 3))) == []
    assert subject.settings() == "os.abort"
    with pytest.raises(InspectorError) as caught:
        subject.forward(context(1), np.zeros((2, 3)))
    assert caught.value.code == "python-not-allowed"


@pytest.mark.usefixtures("allowed")
def test_python_layer():
    subject = named("Python", 1, SCALED, tops=2)
    assert list(subject.shapes((2, 3, 4))) == [(2, 3, 4), (1,)]
    assert [p.shape for p in subject.params((2, 3, 4))] == [(3,)]
    assert "caffe" not in sys.modules
    x, scale = np.random.default_rng(1).random((2, 3, 4), np.float32), np.array([1, -2, 3], np.float32)
    ctx = context(1)
    y, told = subject.forward(ctx, x, scale)
    np.testing.assert_allclose(y, x * 2.5 * scale[:, None])
    assert told.tolist() == [24 + 20 + 1000]
    dx, dscale = subject.backward(ctx, np.ones_like(y), told)
    np.testing.assert_allclose(dx, np.broadcast_to(2.5 * scale[:, None], x.shape))
    np.testing.assert_allclose(dscale, x.sum(axis=(0, 2)) * 2.5, rtol=1e-6)
    y, told = subject.forward(context(1), x[:1], scale)  # another batch: reshape again, but not setup
    assert y.shape == (1, 3, 4) and told.tolist() == [12 + 10 + 1000]
    ctx.needs = (False, True)
    assert subject.backward(ctx, np.ones_like(y), told)[0] is None


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize("names", ["module: 'no_such_module' layer: 'X'", "module: 'a_users_layers' layer: 'Misspelt'", ""])
def test_python_class_that_is_not_there(names):
    with pytest.raises(InspectorError) as caught:
        named("Python", 1, f"python_param {{ {names} }}").shapes((2, 3))
    assert caught.value.code == "python-layer-missing"
    assert "caffe" not in sys.modules


PYTHON_NET = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "p" type: "Python" bottom: "x" top: "y" python_param { module: "a_users_layers" layer: "Counting" } }"""


@pytest.mark.usefixtures("allowed")
def test_parameters_are_what_setup_and_forward_make_them():
    net = inspector.loads(PYTHON_NET, allow_python=True)
    said = [net.forward(x=np.zeros((2, 3)))["y"].tolist() for _ in range(3)]
    assert said == [[2] * 3, [3] * 3, [4] * 3]
    assert net.params["p"][0].data.tolist() == [5] * 3
    net.params["p"][0].data = [7, 8, 9]
    assert net.forward(x=np.zeros((2, 3)))["y"].tolist() == [7, 8, 9]


def test_a_net_with_a_missing_class_still_loads():
    net = inspector.loads(PYTHON_NET.replace("a_users_layers", "no_such_module"), allow_python=True)
    assert net.error.code == "python-layer-missing"
    assert [node.name for node in net.layers] == ["x"]


def test_a_blob_of_pycaffe():
    blob = Blob((2, 3))
    assert (blob.num, blob.channels, blob.height, blob.width, blob.count) == (2, 3, 1, 1, 6)
    blob.data[...] = 7
    blob.reshape(3, 2)
    assert blob.data.shape == (3, 2) and (blob.data == 7).all() and blob.data.dtype == np.float32
    blob.reshape(4)
    assert blob.shape == (4,) and not blob.data.any() and not blob.diff.any()
