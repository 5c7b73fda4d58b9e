"""What is fuzzed: every reader with the files that it starts from, and what a person might then ask of them."""

from __future__ import annotations

import atexit
import json
import re
import tempfile
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import inspector
from caffe_proto import caffe_pb2
from inspector import caffemodel, check, codes, dump, findings, shelf
from inspector.layers import registry

from .engine import Reader


@cache
def folder() -> Path:
    temporary = tempfile.TemporaryDirectory(prefix="fuzz-")
    atexit.register(temporary.cleanup)
    return Path(temporary.name)


def written(content: bytes, name: str) -> Path:
    path = folder() / name
    path.write_bytes(content)
    return path


# ---- what is asked


def ask_net(net: inspector.Net) -> None:
    """All findings, the summary, the text form."""
    known = codes.titles()
    found = check.check(net)
    for one in check.merged({net.phase: found}):
        json.dumps(findings.data(one))
    assert not any("\n" in line for line in findings.github(check.merged({net.phase: found})))
    json.dumps(findings.sarif(check.merged({net.phase: found}), known))
    for finding in found:
        str(finding)
        assert finding.code in known, f"no page for {finding.code}"
        if finding.where is not None and net.opened.document is not None and finding.where.file == net.opened.document.name:
            assert net.opened.document.caret(finding.where).count("\n") == 1
    net.summary().to_dict()
    assert net.memory_required >= 0
    dump.text(net.graph.proto)


def read_text(content: bytes) -> None:
    for phase in ("TRAIN", "TEST"):
        ask_net(inspector.loads(content, phase, name="fuzz"))


def read_file(content: bytes) -> None:
    """A file of unknown kind, as `check` gets it."""
    path = written(content, "fuzz.any")
    for phase in ("TRAIN", "TEST"):
        ask_net(inspector.load(path, phase))


def read_weights(content: bytes) -> None:
    stored = caffemodel.open_weights(written(content, "fuzz.caffemodel"))
    assert all(isinstance(layer.name, str) and isinstance(layer.type, str) for layer in stored.layers)
    str(stored.proto)
    ask_blobs([blob for layer in stored.layers for blob in layer.blobs], len(content))


def read_state(content: bytes) -> None:
    ask_blobs(caffemodel.open_state(written(content, "fuzz.solverstate")).history, len(content))


def read_mean(content: bytes) -> None:
    ask_blobs([caffemodel.open_blob(written(content, "fuzz.binaryproto"))], len(content))


def ask_blobs(blobs: list[Any], size: int) -> None:
    for blob in blobs:
        assert blob.values <= size
        assert blob.count < 2**31
        if blob.values == blob.count:
            assert blob.read().shape == blob.shape
        if blob.has_diff:
            assert blob.diff().shape == blob.shape


def read_lmdb(content: bytes) -> None:
    from inspector.sources import datum, lmdb

    place = folder() / "lmdb"
    place.mkdir(exist_ok=True)
    (place / "data.mdb").write_bytes(content)
    with lmdb.Reader(place) as reader:
        for _, _, array in datum.decoded(iter(reader)):
            assert array.size <= len(content)


def read_log(content: bytes) -> None:
    """The nets of a log, as text and prototxt again, and the first held against a model."""
    from inspector import logdiff, logmodel, logparse

    reader = logparse.Reader()
    for record in logparse.records(content.decode("utf-8", "surrogateescape")):
        reader.take(record)
    for net in reader.nets:
        logmodel.printed(net)
        logmodel.recovered(net)
    if reader.nets:
        for difference in logdiff.diff(model_of_logs(), reader.nets, 0).differences:
            str(difference)


@cache
def model_of_logs() -> inspector.Net:
    return inspector.load("lenet")


# ---- what they start from


V0 = b"""
name: "old" input: "data" input_dim: 2 input_dim: 3 input_dim: 9 input_dim: 8
layers { layer { name: "pad" type: "padding" pad: 2 } bottom: "data" top: "pad" }
layers { layer { name: "conv" type: "conv" num_output: 4 kernelsize: 3 stride: 2 weight_filler { type: "gaussian" std: 0.01 }
         blobs_lr: 1. blobs_lr: 2. weight_decay: 1. } bottom: "pad" top: "conv" }
layers { layer { name: "relu" type: "relu" } bottom: "conv" top: "conv" }
layers { layer { name: "ip" type: "innerproduct" num_output: 5 biasterm: true } bottom: "conv" top: "ip" }
layers { layer { name: "prob" type: "softmax" } bottom: "ip" top: "prob" }
"""
V1 = b"""
name: "older"
layers { name: "data" type: DATA top: "data" top: "label" data_param { source: "a" batch_size: 7 crop_size: 6 mirror: true
         scale: 0.5 } include: { phase: TRAIN } }
layers { name: "data" type: DUMMY_DATA top: "data" top: "label" dummy_data_param { num: 7 num: 7 channels: 3 channels: 1
         height: 6 height: 1 width: 6 width: 1 data_filler { type: "constant" value: 1 } } include: { phase: TEST min_level: 0
         not_stage: "x" } }
layers { name: "conv" type: CONVOLUTION bottom: "data" top: "conv" blobs_lr: 1 blobs_lr: 2 weight_decay: 1 weight_decay: 0
         convolution_param { num_output: 4 kernel_size: 3 group: 1 } }
layers { name: "norm" type: LRN bottom: "conv" top: "norm" lrn_param { local_size: 3 norm_region: WITHIN_CHANNEL } }
layers { name: "drop" type: DROPOUT bottom: "norm" top: "norm" dropout_param { dropout_ratio: 0.5 } }
layers { name: "loss" type: SOFTMAX_LOSS bottom: "norm" bottom: "label" top: "loss" loss_weight: 0.3 }
"""
SOLVER = b"""
net_param { layer { name: "data" type: "DummyData" top: "data" dummy_data_param { shape { dim: 3 dim: 2 } } } }
test_iter: 10 test_interval: 100 base_lr: 0.01 lr_policy: "step" gamma: 0.1 stepsize: 50 momentum: 0.9 type: "SGD" max_iter: 200
test_state { stage: "a" } train_state { level: 1 } snapshot: 50 snapshot_prefix: "a" regularization_type: "L1" solver_mode: CPU
"""


def example_texts() -> list[bytes]:
    """The examples of the codes' pages, wrong and right, with the blobs that they are given."""
    from tests.test_codes import given

    examples = [text for page in codes.pages() if not page.shell for text in (page.wrong, page.right) if text]
    return [(given(text) + text).encode() for text in examples]


def words() -> list[bytes]:
    """Names that mean something to Caffe: types, fields, enum values; and files that should not be read."""
    found = {f'"{name}"' for name in registry} | {'"/dev/zero"', '"/"', '"\\000"'}
    for message in caffe_pb2.DESCRIPTOR.message_types_by_name.values():
        found |= {f"{field.name}:" for field in message.fields}
        found |= {value.name for enum in message.enum_types for value in enum.values}
    return [word.encode() for word in sorted(found)]


def blob(proto: Any, *, legacy: bool) -> None:
    if legacy:
        proto.num, proto.channels, proto.height, proto.width = 1, 1, 2, 3
    else:
        proto.shape.dim.extend([2, 3])
    proto.data.extend([0.5] * 6)


def v2() -> bytes:
    net = caffe_pb2.NetParameter(name="net", debug_info=True)
    for name in ("conv", "ip"):
        layer = net.layer.add(name=name, type="Convolution", bottom=["data"], top=[name])
        layer.param.add(name="w", lr_mult=2)
        layer.convolution_param.kernel_size.append(3)
        blob(layer.blobs.add(), legacy=False)
        second = layer.blobs.add(double_data=[1.0, 2.0], diff=[0.5, 0.25])
        second.shape.dim.append(2)
    return net.SerializeToString()


def v1() -> bytes:
    net = caffe_pb2.NetParameter(name="net", input=["data"], input_dim=[1, 3, 8, 7])
    layer = net.layers.add(name="conv", type=caffe_pb2.V1LayerParameter.CONVOLUTION, bottom=["data"], top=["conv"])
    blob(layer.blobs.add(), legacy=True)
    inner = net.layers.add(bottom=["conv"], top=["ip"]).layer
    inner.name, inner.type = "ip", "innerproduct"
    blob(inner.blobs.add(), legacy=True)
    return net.SerializeToString()


def unpacked() -> bytes:
    values = b"".join(b"\x2d" + bytes([0, 0, i, 63]) for i in range(6))
    content = b"\x3a\x04\x0a\x02\x02\x03" + values
    layer = b"\x0a\x01a" + b"\x3a" + bytes([len(content)]) + content
    return b"\xa2\x06" + bytes([len(layer)]) + layer


def state() -> bytes:
    proto = caffe_pb2.SolverState(iter=300, learned_net="a.caffemodel", current_step=2)
    blob(proto.history.add(), legacy=False)
    blob(proto.history.add(), legacy=True)
    return proto.SerializeToString()


def mean() -> bytes:
    proto = caffe_pb2.BlobProto()
    blob(proto, legacy=True)
    return proto.SerializeToString()


def lmdb_file() -> bytes:
    import lmdb

    place = folder() / "made"
    with lmdb.open(str(place), map_size=1 << 20) as database, database.begin(write=True) as transaction:
        for i in range(9):
            datum = caffe_pb2.Datum(channels=3, height=2, width=i + 1, label=i, data=bytes(6 * (i + 1)))
            transaction.put(f"{i:08}".encode(), datum.SerializeToString())
    return (place / "data.mdb").read_bytes()


def hdf5(kind: str) -> bytes:
    path = folder() / f"made.{kind}.h5"
    if kind == "model":
        import numpy as np

        proto = caffe_pb2.NetParameter()
        proto.layer.add(name="conv")
        caffemodel.write_model(path, proto, {"conv": [np.ones((2, 3), np.float32), np.ones(2, np.float32)]})
    else:
        caffemodel.write_state(path, iteration=3, learned_net="a.caffemodel", current_step=1, history=[])
    return path.read_bytes()


def read_hdf5(content: bytes) -> None:
    stored = caffemodel.open_weights(written(content, "fuzz.h5"))
    for each in [blob for layer in stored.layers for blob in layer.blobs]:
        if each.values == each.count < 10_000:
            each.read()


# ---- the list


def readers() -> dict[str, Reader]:
    """Every reader by name; those whose libraries are not installed are left out."""
    shipped = [(shelf.folder() / name).read_bytes() for name in ("lenet/train_val.prototxt", "cifar10_quick/deploy.prototxt")]
    texts = [*example_texts(), *shipped, V0, V1]
    models = [v2(), v1(), unpacked()]
    found: dict[str, Reader] = {
        "prototxt": Reader(read_text, texts, text=True, message=caffe_pb2.NetParameter, words=words()),
        "solver": Reader(read_text, [SOLVER], text=True, message=caffe_pb2.SolverParameter, words=words()),
        "any": Reader(read_file, [*texts, *models, SOLVER, b'net: "fuzz.any" base_lr: 0.1 lr_policy: "fixed"']),
        "caffemodel": Reader(read_weights, models),
        "solverstate": Reader(read_state, [state()]),
        "mean": Reader(read_mean, [mean()]),
    }
    optional: dict[str, tuple[tuple[str, ...], Callable[[], Reader]]] = {
        "lmdb": (("lmdb", "numpy"), lambda: Reader(read_lmdb, [lmdb_file()])),
        "hdf5": (("h5py",), lambda: Reader(read_hdf5, [hdf5("model")])),
        "hdf5state": (("h5py",), lambda: Reader(read_state, [hdf5("state")])),
        "log": (("inspector.logdiff",), lambda: Reader(read_log, logs(), text=True)),
    }
    return found | {name: make() for name, (needed, make) in optional.items() if all(map(find_spec, needed))}


def logs() -> list[bytes]:
    """Logs as Caffe prints them: ours."""
    from inspector import dialect, log

    words = dialect.load(dialect.DEFAULT)
    text = "".join(line.masked() for line in log.of(model_of_logs(), words, file="lenet.prototxt"))
    return [re.sub(r"(?m)^", "I1122 11:22:33.123456  1234 ", text).encode(), text.encode()]
